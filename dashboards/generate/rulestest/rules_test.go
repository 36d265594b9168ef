// Package rulestest tests the content of the directory alerts: the rules, their unit
// tests, the runbooks and the example alertmanager.yml.
package rulestest

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/promql/parser"
	"go.yaml.in/yaml/v2"

	"github.com/kamailio-exporter/kamailio_exporter/dashboards/generate/mixin"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc/kamrpctest/kamailiotest"
)

const (
	folder    = "../../../alerts/"
	alertFile = folder + "kamailio-alerts.yml"
	adminFile = folder + "kamailio-admin-alerts.yml"
	ruleFile  = folder + "kamailio-rules.yml"
)

var update = flag.Bool("update", false, "rewrite the generated parts of alerts/ and of documents")

// runbooks returns the URL of the runbooks of exactly this version.
func runbooks(t *testing.T) string {
	t.Helper()
	return "https://github.com/kamailio-exporter/kamailio_exporter/blob/v" + strings.TrimSpace(read(t, "../../../VERSION")) + "/alerts/runbooks/"
}

// TestRunbookURLs writes the version into the URLs of runbooks with -update; otherwise it
// checks them.
func TestRunbookURLs(t *testing.T) {
	for _, file := range append(testFiles(t), alertFile, adminFile) {
		is := read(t, file)
		want := regexp.MustCompile(`https://github\.com/kamailio-exporter/kamailio_exporter/blob/[^/]+/alerts/runbooks/`).ReplaceAllLiteralString(is, runbooks(t))
		if want == is {
			continue
		}
		if !*update {
			t.Errorf("%s links to runbooks of another version: run make docs", file)
		} else if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Error(err)
		}
	}
}

// rule is an alert or a recording rule.
type rule struct {
	Alert, Record, Expr, For string
	Labels, Annotations      map[string]string
}

func load(t *testing.T, path string) (rules []rule) {
	t.Helper()
	var file struct {
		Groups []struct {
			Name  string
			Rules []rule
		}
	}
	unmarshal(t, path, &file)
	for _, g := range file.Groups {
		rules = append(rules, g.Rules...)
	}
	if len(rules) == 0 {
		t.Fatalf("%s has no rules", path)
	}
	return rules
}

func unmarshal(t *testing.T, path string, into any) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(text, into); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

func run(t *testing.T, name string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%s %s: %v\n%s", filepath.Base(name), strings.Join(args, " "), err, out)
	}
}

func TestPromtool(t *testing.T) {
	promtool := kamailiotest.Needs(t, "promtool", "prometheus")
	run(t, promtool, "check", "rules", "--lint=all", "--lint-fatal", alertFile, ruleFile)
	for _, file := range testFiles(t) {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yml"), func(t *testing.T) {
			if name := filepath.Base(file); testing.Short() && (name == "long.yml" || name == "week.yml") {
				t.Skip("SKIPPED: takes a minute")
			}
			t.Parallel()
			run(t, promtool, "test", "rules", file)
		})
	}
}

func testFiles(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob(folder + "tests/*.yml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no tests: %v", err)
	}
	return files
}

var severities = []string{"critical", "warning", "info"}

// withoutValue are alerts with a threshold whose texts have no value, with the reason.
var withoutValue = map[string]string{
	"KamailioNoTraffic":                "there is none",
	"KamailioCallsStopped":             "there are none",
	"KamailioLCRGatewayDown":           "only tells what an operator disabled",
	"KamailioLCRAllGatewaysDown":       "only tells what an operator disabled",
	"KamailioKeepaliveDestinationDown": "only tells what is not known any more",
	"KamailioAdminStuck":               "the number of actions tells nothing",
}

// TestAlertsAreDescribed checks that each alert says what happened, with its value, how
// urgent it is, where to read more and where to look: at a dashboard for this server.
func TestAlertsAreDescribed(t *testing.T) {
	uids := map[string]bool{}
	boards, err := filepath.Glob("../../*.json")
	if err != nil || len(boards) == 0 {
		t.Fatalf("no dashboards: %v", err)
	}
	for _, b := range boards {
		uids[strings.TrimSuffix(filepath.Base(b), ".json")] = true // lint_test.go checks this name
	}
	for _, r := range slices.Concat(load(t, alertFile), load(t, adminFile)) {
		if !regexp.MustCompile(`^Kamailio[A-Z]\w+$`).MatchString(r.Alert) {
			t.Errorf("%s: the name of an alert begins with Kamailio", r.Alert)
		}
		if !slices.Contains(severities, r.Labels["severity"]) {
			t.Errorf("%s: severity %q is none of %v", r.Alert, r.Labels["severity"], severities)
		}
		if got := slices.Sorted(maps.Keys(r.Labels)); !slices.Equal(got, []string{"severity"}) {
			t.Errorf("%s: labels are %v, not severity alone", r.Alert, got)
		}
		if got := slices.Sorted(maps.Keys(r.Annotations)); !slices.Equal(got, []string{"dashboard", "description", "runbook_url", "summary"}) {
			t.Errorf("%s: annotations are %v", r.Alert, got)
		}
		if got, want := r.Annotations["runbook_url"], runbooks(t)+r.Alert+".md"; got != want {
			t.Errorf("%s: runbook_url is %s, not %s", r.Alert, got, want)
		}
		board, variables, _ := strings.Cut(strings.TrimPrefix(r.Annotations["dashboard"], "/d/"), "?")
		job, instance := "var-job={{ $labels.job | urlquery }}", "&var-instance={{ $labels.instance | urlquery }}"
		if cluster := "{{ with $labels.cluster }}&var-cluster={{ . | urlquery }}{{ end }}"; !uids[board] ||
			variables != job+instance+cluster && (aboutMany[r.Alert] == "" || variables != job+cluster && variables != "") {
			t.Errorf("%s: the link to a dashboard is %s", r.Alert, r.Annotations["dashboard"])
		}
		if !strings.Contains(r.Annotations["summary"]+r.Annotations["description"], "$value") && withoutValue[r.Alert] == "" {
			for _, m := range threshold.FindAllStringSubmatch(r.Expr, -1) {
				if m[2] != "0" && m[2] != "1" {
					t.Errorf("%s: %s %s has no value in its texts", r.Alert, m[1], m[2])
				}
			}
		}
		if s := r.Annotations["summary"]; s == "" || strings.HasSuffix(s, ".") {
			t.Errorf("%s: the summary is a line without a full stop, not %q", r.Alert, s)
		}
		if d := r.Annotations["description"]; !strings.HasSuffix(d, ".") && !strings.HasSuffix(d, "?") {
			t.Errorf("%s: the description is a sentence, not %q", r.Alert, d)
		}
	}
}

// TestEveryAlertIsTested checks that each alert has a case in which it fires, with its
// texts, and one in which it does not.
func TestEveryAlertIsTested(t *testing.T) {
	fires, quiet := map[string]bool{}, map[string]bool{}
	cases := map[string]string{}
	for _, file := range testFiles(t) {
		var tests struct {
			Tests []struct {
				Name           string
				AlertRuleTests []struct {
					Alertname string
					ExpAlerts []struct {
						ExpLabels      map[string]string `yaml:"exp_labels"`
						ExpAnnotations map[string]string `yaml:"exp_annotations"`
					} `yaml:"exp_alerts"`
				} `yaml:"alert_rule_test"`
			}
		}
		unmarshal(t, file, &tests)
		for _, test := range tests.Tests {
			if other, ok := cases[test.Name]; ok {
				t.Errorf("%s: %q is also in %s", file, test.Name, other)
			}
			cases[test.Name] = file
			for _, c := range test.AlertRuleTests {
				// healthy.yml tests all alerts at once, and does not show how close an
				// alert is to firing.
				if len(c.ExpAlerts) == 0 && filepath.Base(file) != "healthy.yml" {
					quiet[c.Alertname] = true
				}
				for _, a := range c.ExpAlerts {
					fires[c.Alertname] = true
					if a.ExpAnnotations["summary"] == "" || a.ExpAnnotations["description"] == "" || a.ExpAnnotations["runbook_url"] == "" || a.ExpAnnotations["dashboard"] == "" {
						t.Errorf("%s: %q does not say what %s says", file, test.Name, c.Alertname)
					}
				}
			}
		}
	}
	alerts := map[string]bool{}
	for _, r := range slices.Concat(load(t, alertFile), load(t, adminFile)) {
		alerts[r.Alert] = true
	}
	for _, set := range []struct {
		what  string
		cases map[string]bool
	}{{"fires", fires}, {"stays quiet", quiet}} {
		for _, a := range slices.Sorted(maps.Keys(alerts)) {
			if !set.cases[a] {
				t.Errorf("%s: no case in which it %s", a, set.what)
			}
		}
		for _, a := range slices.Sorted(maps.Keys(set.cases)) {
			if !alerts[a] {
				t.Errorf("%s: a case in which it %s, but there is no such alert", a, set.what)
			}
		}
	}
}

// TestEveryRecordIsTested checks that the value of each recording rule is tested.
func TestEveryRecordIsTested(t *testing.T) {
	tests := read(t, folder+"tests/rules.yml")
	for _, r := range load(t, ruleFile) {
		if !regexp.MustCompile(`expr: (round\()?` + regexp.QuoteMeta(r.Record) + `\b`).MatchString(tests) {
			t.Errorf("%s: no test of its value", r.Record)
		}
	}
}

// TestNames checks that rules only use metrics of the exporter. Alerts must not use
// recording rules, so that their file works alone.
func TestNames(t *testing.T) {
	names := mixin.Known()
	for _, r := range load(t, alertFile) {
		for _, p := range names.Check(r.Expr) {
			t.Errorf("%s: %s", r.Alert, p)
		}
	}
	recorded := map[string]string{}
	for _, r := range load(t, ruleFile) {
		recorded[r.Record] = r.Expr
	}
	names.Recorded(recorded)
	for _, r := range load(t, ruleFile) {
		for _, p := range names.Check(r.Expr) {
			t.Errorf("%s: %s", r.Record, p)
		}
		if !regexp.MustCompile(`^(instance|instance_method|job|job_trunk):kamailio_[a-z0-9_]+:(rate|ratio|mean|quantile|sum)[a-z0-9_]*$`).MatchString(r.Record) {
			t.Errorf("%s: the name is not level:metric:operation", r.Record)
		}
	}
}

// threshold matches a number in an expression and the comment after it.
var threshold = regexp.MustCompile(`([<>]=?|==) ([0-9.]+)\)* # (.+)`)

// TestThresholdsAreExplained checks that each value that users may change has a comment.
// README.md is generated from these.
func TestThresholdsAreExplained(t *testing.T) {
	for _, r := range load(t, alertFile) {
		e, err := mixin.Parse(r.Expr)
		if err != nil {
			continue // TestNames reports it
		}
		parser.Inspect(e, func(node parser.Node, _ []parser.Node) error {
			b, ok := node.(*parser.BinaryExpr)
			if !ok || b.ReturnBool || !slices.Contains([]parser.ItemType{parser.GTR, parser.LSS, parser.GTE, parser.LTE}, b.Op) {
				return nil
			}
			number := ""
			parser.Inspect(b.RHS, func(node parser.Node, _ []parser.Node) error {
				if n, ok := node.(*parser.NumberLiteral); ok && number == "" {
					number = n.String()
				}
				return nil
			})
			explained := slices.ContainsFunc(threshold.FindAllStringSubmatch(r.Expr, -1), func(m []string) bool {
				return m[1] == b.Op.String() && m[2] == number
			})
			// Comparisons with 0 and 1 check for none or one; comparisons of two vectors
			// have no number.
			if !explained && number != "" && number != "0" && number != "1" {
				t.Errorf("%s: no comment behind %s %s", r.Alert, b.Op, number)
			}
			return nil
		})
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// alertTable lists the alerts of a file. In a summary it shows label names; of
// alternatives it shows the last one, and it omits text for a label that few series have.
func alertTable(t *testing.T, file string) string {
	t.Helper()
	var b strings.Builder
	b.WriteString("| alert | severity | after | what it reports |\n| --- | --- | --- | --- |\n")
	for _, r := range load(t, file) {
		summary := r.Annotations["summary"]
		for _, step := range [][2]string{
			{`\{\{ (?:with|if) \$labels.*?\{\{ end \}\}`, ""},
			{`\{\{ if .*?\{\{ else \}\}(.*?)\{\{ end \}\}`, "$1"},
			{`\{\{ \$labels\.(\w+)[^}]*\}\}`, "*$1*"},
			{`\{\{[^}]*\}\}`, "*value*"},
		} {
			summary = regexp.MustCompile(step[0]).ReplaceAllString(summary, step[1])
		}
		fmt.Fprintf(&b, "| [%s](runbooks/%s.md) | %s | %s | %s |\n", r.Alert, r.Alert, r.Labels["severity"], r.For, summary)
	}
	return b.String()
}

// TestReadme writes the tables of alerts/README.md with -update; otherwise it checks
// them.
func TestReadme(t *testing.T) {
	var numbers, records strings.Builder
	numbers.WriteString("| alert | threshold | of what |\n| --- | --- | --- |\n")
	for _, r := range slices.Concat(load(t, alertFile), load(t, adminFile)) {
		for _, m := range threshold.FindAllStringSubmatch(r.Expr, -1) {
			fmt.Fprintf(&numbers, "| %s | `%s %s` | %s |\n", r.Alert, m[1], m[2], m[3])
		}
	}
	for _, r := range load(t, ruleFile) {
		fmt.Fprintf(&records, "- `%s`\n", r.Record)
	}
	path := folder + "README.md"
	before := read(t, path)
	after := before
	for name, table := range map[string]string{"alerts": alertTable(t, alertFile), "admin-alerts": alertTable(t, adminFile), "thresholds": numbers.String(), "records": records.String()} {
		marked := regexp.MustCompile(`(?s)(<!-- ` + name + ` -->\n).*?(<!-- /` + name + ` -->)`)
		if !marked.MatchString(after) {
			t.Errorf("%s has no place for the table %s", path, name)
		}
		after = marked.ReplaceAllString(after, "${1}"+strings.ReplaceAll(table, "$", "$$")+"${2}")
	}
	if after == before {
		return
	}
	if !*update {
		t.Fatalf("%s is not what the rules say: run make docs", path)
	}
	if err := os.WriteFile(path, []byte(after), 0o644); err != nil {
		t.Fatal(err)
	}
}
