package generate

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/kamailio-exporter/kamailio_exporter/dashboards/generate/mixin"
)

// grafana replaces Grafana's variables with values, so that the result is PromQL.
var grafana = strings.NewReplacer("$__rate_interval", "1m", "$__range", "1h", "$__interval", "15s", "$cluster", ".*", "$job", "kamailio", "$instance", "sip1")

func parse(t *testing.T, where, expr string) parser.Expr {
	t.Helper()
	parsed, err := mixin.Parse(grafana.Replace(expr))
	if err != nil {
		t.Errorf("%s: %v in %s", where, err, expr)
	}
	return parsed
}

// selectsInstance reports whether each selector uses the variables cluster, job and
// instance.
func selectsInstance(expr string) bool {
	parsed, err := mixin.Parse(strings.NewReplacer("$__rate_interval", "1m", "$__range", "1h").Replace(expr))
	if err != nil {
		return false
	}
	for _, s := range parser.ExtractSelectors(parsed) {
		for _, want := range []string{"cluster", "job", "instance"} {
			if !slices.ContainsFunc(s, func(m *labels.Matcher) bool {
				return m.Name == want && m.Type == labels.MatchRegexp && strings.TrimSuffix(m.Value, "|") == "$"+want
			}) {
				return false
			}
		}
	}
	return true
}

// TestExpressions checks that every expression is PromQL, and uses existing metrics and
// labels in a way that fits their type.
func TestExpressions(t *testing.T) {
	known := mixin.Known()
	check := func(where, expr string) {
		t.Helper()
		problems := known.Check(grafana.Replace(expr))
		for _, problem := range problems {
			t.Errorf("%s: %s", where, problem)
		}
		if len(problems) == 0 {
			checkCounters(t, where, parse(t, where, expr))
		}
	}
	for _, d := range files(t) {
		for _, p := range d.panels() {
			for _, q := range p.Targets {
				where := d.UID + ": " + p.Title + " " + q.RefID
				check(where, q.Expr)
				if strings.Contains(q.Expr, "rate(") && !strings.Contains(q.Expr, "[$__rate_interval]") && !fixedWindow(p.Type, q.Expr) {
					t.Errorf("%s: a rate over a fixed time, other than an indicator's: %s", where, q.Expr)
				}
			}
		}
		for _, v := range d.Templating.List {
			if selector, label, ok := labelValues(v.Query); ok {
				where := d.UID + ": variable " + v.Name
				check(where, selector)
				if label != v.Name {
					t.Errorf("%s: unknown label %s", where, label)
				}
			}
		}
		for _, a := range d.Annotations.List {
			check(d.UID+": "+a.Name, a.Expr)
		}
	}
}

// fixedWindow allows rates over a fixed time in all but graphs, and in indicators that
// are defined over a fixed time.
func fixedWindow(kind, expr string) bool {
	return kind != "timeseries" || strings.Contains(expr, "[15m]") || strings.Contains(expr, "[1h")
}

// checkCounters requires a rate around each counter, and around nothing else. Another
// test checks that counters, and only counters, end in _total.
func checkCounters(t *testing.T, where string, expr parser.Expr) {
	t.Helper()
	parser.Inspect(expr, func(node parser.Node, path []parser.Node) error {
		s, ok := node.(*parser.VectorSelector)
		if !ok {
			return nil
		}
		counter := regexp.MustCompile(`_(total|bucket|sum|count)$`).MatchString(s.Name)
		if in := rateAround(path); counter && in == "" && !counted(path) {
			t.Errorf("%s: the counter %s without rate or increase", where, s.Name)
		} else if !counter && in != "" {
			t.Errorf("%s: %s of %s, which is no counter", where, in, s.Name)
		}
		return nil
	})
}

// rateAround returns the rate function around a selector.
func rateAround(path []parser.Node) string {
	for _, node := range path {
		if call, ok := node.(*parser.Call); ok && slices.Contains([]string{"rate", "irate", "increase"}, call.Func.Name) {
			return call.Func.Name
		}
	}
	return ""
}

// counted reports whether only the number of series matters.
func counted(path []parser.Node) bool {
	return slices.ContainsFunc(path, func(node parser.Node) bool {
		a, ok := node.(*parser.AggregateExpr)
		return ok && a.Op == parser.COUNT
	})
}

// TestLegends checks that the labels in legends, columns and links are labels of the
// query.
func TestLegends(t *testing.T) {
	for _, d := range All() {
		for _, r := range d.Rows {
			for _, p := range r.panels {
				for _, q := range p.queries {
					for _, part := range strings.Split(q.legend, "{{")[1:] {
						label, _, _ := strings.Cut(part, "}}")
						if !keepsLabel(parse(t, p.title, q.promQL()), label) {
							t.Errorf("%s: %s: the legend has %q, which is not in %s", d.UID, p.title, label, q.expr)
						}
					}
				}
				for _, c := range p.columns {
					if c.label != "" && !slices.ContainsFunc(p.queries, func(q query) bool { return keepsLabel(parse(t, p.title, q.promQL()), c.label) }) {
						t.Errorf("%s: %s: the column %s is of a label %q, which no query has", d.UID, p.title, c.title, c.label)
					}
					if c.query >= len(p.queries) {
						t.Errorf("%s: %s: the column %s is of a query that is not there", d.UID, p.title, c.title)
					}
				}
			}
		}
	}
}

// keepsLabel reports whether an aggregation or label_replace in an expression keeps the
// label in its result.
func keepsLabel(expr parser.Expr, label string) bool {
	kept := false
	parser.Inspect(expr, func(node parser.Node, _ []parser.Node) error {
		switch n := node.(type) {
		case *parser.AggregateExpr:
			kept = kept || slices.Contains(n.Grouping, label)
		case *parser.Call:
			kept = kept || n.Func.Name == "label_replace" && n.Args[1].(*parser.StringLiteral).Val == label
		}
		return nil
	})
	return kept
}
