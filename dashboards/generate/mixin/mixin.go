// Package mixin defines which metrics and labels a dashboard or a rule can use, and
// checks PromQL against them. The names come from the exporter's own tables and registry.
package mixin

import (
	_ "embed"
	"fmt"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/promql/parser"
)

// targetLabels are on every series that Prometheus scrapes. cluster is a common label to
// distinguish sites.
var targetLabels = []string{"job", "instance", "cluster"}

// Names maps metrics to their labels, without the labels of the target.
type Names map[string][]string

// exported are the metrics of the exporter and their labels, as its own tests write
// them (cmd/kamailio_exporter, TestDocsMetricNames).
//
//go:embed metrics.tsv
var exported string

// Known returns all metrics of the exporter, and those that Prometheus adds for each
// scrape.
func Known() Names {
	names := Names{
		"up":                                    nil,
		"scrape_duration_seconds":               nil,
		"scrape_samples_scraped":                nil,
		"scrape_samples_post_metric_relabeling": nil,
		"scrape_series_added":                   nil,
		"ALERTS":                                {"alertname", "alertstate", "severity"},
		"ALERTS_FOR_STATE":                      {"alertname", "severity"},
	}
	for line := range strings.Lines(exported) {
		name, labels, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		names[name] = strings.FieldsFunc(labels, func(r rune) bool { return r == ',' })
	}
	return names
}

// Recorded adds the results of recording rules, given by name and expression. A result
// has the labels that remain of its expression; all labels are allowed here.
func (n Names) Recorded(rules map[string]string) {
	for record, expr := range rules {
		if e, err := Parse(expr); err == nil {
			n[record] = n.labelsIn(e)
		}
	}
}

// Parse parses an expression as a Prometheus without feature flags does.
func Parse(expr string) (parser.Expr, error) {
	return parser.NewParser(parser.Options{}).ParseExpr(expr)
}

// Check returns the problems of an expression: it does not parse, or it uses a metric or
// a label that does not exist.
func (n Names) Check(expr string) (problems []string) {
	e, err := Parse(expr)
	if err != nil {
		return []string{err.Error()}
	}
	parser.Inspect(e, func(node parser.Node, _ []parser.Node) error {
		switch node := node.(type) {
		case *parser.VectorSelector:
			problems = append(problems, n.checkSelector(node)...)
		case *parser.AggregateExpr:
			problems = append(problems, n.checkLabels(node, node.Grouping)...)
		case *parser.BinaryExpr:
			if m := node.VectorMatching; m != nil {
				problems = append(problems, n.checkLabels(node, m.MatchingLabels)...)
				problems = append(problems, n.checkLabels(node, m.Include)...)
			}
		}
		return nil
	})
	return problems
}

func (n Names) checkSelector(s *parser.VectorSelector) (problems []string) {
	if s.Name == "" {
		return []string{fmt.Sprintf("%s: a selector without the name of a metric", s)}
	}
	metricLabels, ok := n[s.Name]
	if !ok {
		return []string{fmt.Sprintf("%s: the exporter has no such metric", s.Name)}
	}
	for _, m := range s.LabelMatchers {
		if m.Name != "__name__" && !slices.Contains(metricLabels, m.Name) && !slices.Contains(targetLabels, m.Name) {
			problems = append(problems, fmt.Sprintf("%s has no label %s", s.Name, m.Name))
		}
	}
	return problems
}

// checkLabels requires each wanted label on at least one metric below a node, or as the
// result of label_replace, label_join or count_values there.
func (n Names) checkLabels(node parser.Expr, wanted []string) (problems []string) {
	have := n.labelsIn(node)
	for _, l := range wanted {
		if !slices.Contains(have, l) && !slices.Contains(targetLabels, l) {
			problems = append(problems, fmt.Sprintf("label %s is on no metric of %s", l, strings.Join(strings.Fields(node.String()), " ")))
		}
	}
	return problems
}

func (n Names) labelsIn(node parser.Expr) (all []string) {
	parser.Inspect(node, func(node parser.Node, _ []parser.Node) error {
		switch node := node.(type) {
		case *parser.VectorSelector:
			all = append(all, n[node.Name]...)
		case *parser.AggregateExpr:
			if to, ok := node.Param.(*parser.StringLiteral); ok { // count_values
				all = append(all, to.Val)
			}
		case *parser.Call:
			if node.Func.Name == "label_replace" || node.Func.Name == "label_join" {
				if to, ok := node.Args[1].(*parser.StringLiteral); ok {
					all = append(all, to.Val)
				}
			}
		}
		return nil
	})
	return all
}
