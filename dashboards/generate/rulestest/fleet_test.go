package rulestest

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/promql/parser"
	"go.yaml.in/yaml/v2"

	"github.com/kamailio-exporter/kamailio_exporter/dashboards/generate/mixin"
)

// ruleFiles returns all rule files that a user loads.
func ruleFiles(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob(folder + "kamailio-*.yml")
	if err != nil || len(files) < 3 {
		t.Fatalf("%v %v", files, err)
	}
	return files
}

// aboutMany are rules that are meant for more than one Kamailio, or for none.
var aboutMany = map[string]string{
	"KamailioExporterDown":          "the other targets of the job show what kind it is",
	"KamailioExporterAbsent":        "there is no instance that it could name",
	"KamailioVersionMismatch":       "compares the Kamailios of a job",
	"KamailioCallsFarBelowLastWeek": "load moves between the Kamailios of a job",
	"KamailioNoTraffic":             "another Kamailio may take over the traffic",
	"KamailioCallsStopped":          "another Kamailio may take over the calls",
	"KamailioRegistrationsDropped":  "another Kamailio may take over the users",
	"KamailioDialogsExpiring":       "where dialogs are replicated, a time-out may count on another Kamailio than the call",
}

// TestRulesKeepTheInstance checks that no rule assumes a single Kamailio: sums and
// matches must keep job and instance.
func TestRulesKeepTheInstance(t *testing.T) {
	used := map[string]bool{}
	for _, file := range ruleFiles(t) {
		for _, r := range load(t, file) {
			e, err := mixin.Parse(r.Expr)
			if err != nil {
				t.Fatalf("%s: %v", r.Expr, err)
			}
			if strings.HasPrefix(r.Record, "job") {
				continue // about a job, as its name says
			}
			for _, wrong := range mixing(e) {
				if aboutMany[r.Alert+r.Record] == "" {
					t.Errorf("%s%s mixes instances, and aboutMany has no reason: %s", r.Alert, r.Record, wrong)
				}
				used[r.Alert+r.Record] = true
			}
		}
	}
	for name := range aboutMany {
		if !used[name] {
			t.Errorf("%s mixes no instances", name)
		}
	}
}

// mixing returns the parts of an expression that mix series of several instances.
func mixing(e parser.Expr) (parts []string) {
	parser.Inspect(e, func(n parser.Node, _ []parser.Node) error {
		switch n := n.(type) {
		case *parser.AggregateExpr:
			if dropsInstance(n.Grouping, !n.Without) {
				parts = append(parts, n.String())
			}
		case *parser.BinaryExpr:
			if m := n.VectorMatching; m != nil && dropsInstance(m.MatchingLabels, m.On) {
				parts = append(parts, n.String())
			}
		case *parser.Call:
			if slices.Contains([]string{"absent", "absent_over_time", "scalar", "vector"}, n.Func.Name) {
				parts = append(parts, n.String())
			}
		}
		return nil
	})
	return parts
}

func dropsInstance(labels []string, kept bool) bool {
	return slices.Contains(labels, "instance") != kept || slices.Contains(labels, "job") != kept
}

func TestMixing(t *testing.T) {
	for expr, want := range map[string]int{
		`sum(x)`:                                 1,
		`sum by (job) (x)`:                       1,
		`sum by (job, instance, code) (x)`:       0,
		`sum without (code) (x)`:                 0,
		`sum without (instance) (x)`:             1,
		`x / on (instance) y`:                    1,
		`x / on (job, instance) y`:               0,
		`x / ignoring (code) y`:                  0,
		`x > 1 and y`:                            0,
		`absent(x)`:                              1,
		`x / scalar(y)`:                          1,
		`max by (job, instance) (sum by (a)(x))`: 1,
	} {
		e, err := mixin.Parse(expr)
		if err != nil {
			t.Fatal(err)
		}
		if got := mixing(e); len(got) != want {
			t.Errorf("%s: %q, want %d", expr, got, want)
		}
	}
}

// TestRulesSuitMimirAndThanos checks that the rulers of Mimir and Thanos accept the rules:
// only groups, unique names within a file (a namespace in Mimir), and no more rules per
// group than Mimir's default limit (ruler_max_rules_per_rule_group).
func TestRulesSuitMimirAndThanos(t *testing.T) {
	for _, file := range ruleFiles(t) {
		names := map[string]bool{}
		var f struct {
			Groups []struct {
				Name  string
				Rules []struct {
					Alert, Record, Expr, For string
					KeepFiringFor            string `yaml:"keep_firing_for"`
					Labels, Annotations      map[string]string
				}
			}
		}
		if err := yaml.UnmarshalStrict([]byte(read(t, file)), &f); err != nil {
			t.Errorf("%s has what others than Prometheus may not know: %v", file, err)
		}
		for _, g := range f.Groups {
			if names[g.Name] {
				t.Errorf("%s has the group %s twice", file, g.Name)
			}
			names[g.Name] = true
			if len(g.Rules) > 20 {
				t.Errorf("the group %s has %d rules; Mimir takes 20", g.Name, len(g.Rules))
			}
		}
	}
}

// TestPrometheusRules writes the rules as objects for the Prometheus operator with
// -update; otherwise it checks them.
func TestPrometheusRules(t *testing.T) {
	for _, file := range ruleFiles(t) {
		name := strings.TrimSuffix(filepath.Base(file), ".yml")
		path := filepath.Join("../../../examples/kubernetes/rules", name+".yaml")
		want := prometheusRule(name, read(t, file))
		if *update {
			if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if read(t, path) != want {
			t.Errorf("%s is not what %s says: make docs", path, file)
		}
		var object struct {
			APIVersion string `yaml:"apiVersion"`
			Kind       string
			Metadata   struct{ Name string }
			Spec       yaml.MapSlice
		}
		var rules yaml.MapSlice
		unmarshal(t, path, &object)
		unmarshal(t, file, &rules)
		is, err := yaml.Marshal(object.Spec)
		if err != nil {
			t.Fatal(err)
		}
		should, err := yaml.Marshal(rules)
		if err != nil {
			t.Fatal(err)
		}
		if string(is) != string(should) || object.Kind != "PrometheusRule" || object.Metadata.Name != name {
			t.Errorf("%s has other rules than %s", path, file)
		}
	}
}

// prometheusRule wraps a rule file in an object, and keeps its comments.
func prometheusRule(name, text string) string {
	b := &strings.Builder{}
	b.WriteString("# alerts/" + name + ".yml for the Prometheus operator; made by `make docs`.\n" +
		"apiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\nmetadata:\n  name: " + name + "\nspec:\n")
	for line := range strings.Lines(text) {
		if line != "\n" {
			line = "  " + line
		}
		b.WriteString(line)
	}
	return b.String()
}
