package dashboards

import (
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/kamailio-exporter/kamailio_exporter/collector"
)

// promised are metrics of collectors that are being written. A test fails when
// one of them is there and still listed.
var promised = map[string][]string{
	"kamailio_pkg_total_bytes":                     {"process", "index"},
	"kamailio_pkg_free_bytes":                      {"process", "index"},
	"kamailio_pkg_real_used_bytes":                 {"process", "index"},
	"kamailio_pkg_fragments":                       {"process", "index"},
	"kamailio_rtpengine_node_up":                   {"set", "url", "index"},
	"kamailio_rtpengine_node_enabled":              {"set", "url", "index"},
	"kamailio_dmq_node_up":                         {"host", "port", "local"},
	"kamailio_uac_registration_up":                 {"uuid"},
	"kamailio_uac_registration_enabled":            {"uuid"},
	"kamailio_uac_registration_expires_in_seconds": {"uuid"},
	"kamailio_keepalive_destination_up":            {"uri", "owner", "index"},
}

// others are metrics that no collector makes: the exporter's own, those of the
// Go libraries, and Prometheus'.
var others = map[string][]string{
	"kamailio_exporter_build_info":            {"branch", "goarch", "goos", "goversion", "revision", "tags", "version"},
	"kamailio_exporter_rpc_requests_total":    {"method"},
	"kamailio_exporter_rpc_failures_total":    {"method"},
	"kamailio_exporter_rpc_reply_bytes_total": {"method"},
	"go_goroutines":                           nil,
	"process_cpu_seconds_total":               nil,
	"process_resident_memory_bytes":           nil,
	"scrape_duration_seconds":                 nil,
	"scrape_samples_scraped":                  nil,
	"ALERTS":                                  {"alertname", "alertstate", "severity"},
}

// metric is what is known of a metric.
type metric struct {
	labels  []string
	counter bool
}

// exported are the metrics that there are, by name.
func exported(t *testing.T) map[string]metric {
	t.Helper()
	known := map[string]metric{}
	descs := collector.ScrapeDescs()
	for _, c := range collector.All(collector.Options{DialogProfiles: []string{"x"}, PikeAddresses: 1, DumpContacts: 1, ListDialogs: 1}) {
		descs = append(descs, c.Descs()...)
	}
	for _, d := range descs {
		known[d.Name] = metric{d.Labels, d.Kind == prometheus.CounterValue}
	}
	for name, names := range promised {
		if _, ok := known[name]; ok {
			t.Errorf("%s is there: delete it from the list of promised metrics", name)
		}
		known[name] = metric{labels: names}
	}
	for name, names := range others {
		known[name] = metric{names, strings.HasSuffix(name, "_total")}
	}
	return known
}

// grafana replaces Grafana's variables by values, so that PromQL is left.
var grafana = strings.NewReplacer("$__rate_interval", "1m", "$__range", "1h", "$__interval", "15s", "$job", "kamailio", "$instance", "sip1")

func parse(t *testing.T, where, expr string) parser.Expr {
	t.Helper()
	parsed, err := parser.NewParser(parser.Options{}).ParseExpr(grafana.Replace(expr))
	if err != nil {
		t.Errorf("%s: %v in %s", where, err, expr)
	}
	return parsed
}

// selectsInstance tells whether each selector has the variables job and instance.
func selectsInstance(expr string) bool {
	parsed, err := parser.NewParser(parser.Options{}).ParseExpr(strings.NewReplacer("$__rate_interval", "1m", "$__range", "1h").Replace(expr))
	if err != nil {
		return false
	}
	for _, s := range parser.ExtractSelectors(parsed) {
		for _, want := range []string{"job", "instance"} {
			if !slices.ContainsFunc(s, func(m *labels.Matcher) bool {
				return m.Name == want && m.Type == labels.MatchRegexp && strings.TrimSuffix(m.Value, "|") == "$"+want
			}) {
				return false
			}
		}
	}
	return true
}

// Every expression is PromQL, and uses metrics and labels that there are, in the
// way that their type allows.
func TestExpressions(t *testing.T) {
	known := exported(t)
	for _, d := range files(t) {
		for _, p := range d.panels() {
			for _, q := range p.Targets {
				where := d.UID + ": " + p.Title + " " + q.RefID
				if expr := parse(t, where, q.Expr); expr != nil {
					checkExpr(t, where, expr, known)
				}
				if strings.Contains(q.Expr, "rate(") && !strings.Contains(q.Expr, "[$__rate_interval]") && !fixedWindow(p.Type, q.Expr) {
					t.Errorf("%s: a rate over a fixed time, other than an indicator's: %s", where, q.Expr)
				}
			}
		}
		for _, v := range d.Templating.List {
			if selector, label, ok := labelValues(v.Query); ok {
				where := d.UID + ": variable " + v.Name
				if expr := parse(t, where, selector); expr != nil {
					checkExpr(t, where, expr, known)
				}
				if label != "job" && label != "instance" {
					t.Errorf("%s: unknown label %s", where, label)
				}
			}
		}
		for _, a := range d.Annotations.List {
			if expr := parse(t, d.UID+": "+a.Name, a.Expr); expr != nil {
				checkExpr(t, d.UID+": "+a.Name, expr, known)
			}
		}
	}
}

// fixedWindow allows rates over a fixed time in tables, where nothing is drawn,
// and in indicators, which are defined over one.
func fixedWindow(kind, expr string) bool {
	return kind == "table" || strings.Contains(expr, "[15m]") || strings.Contains(expr, "[1h:1m]")
}

func checkExpr(t *testing.T, where string, expr parser.Expr, known map[string]metric) {
	t.Helper()
	// What label_replace makes is a label too.
	made := []string{"job", "instance"}
	parser.Inspect(expr, func(node parser.Node, _ []parser.Node) error {
		if call, ok := node.(*parser.Call); ok && call.Func.Name == "label_replace" {
			made = append(made, call.Args[1].(*parser.StringLiteral).Val)
		}
		return nil
	})
	var used []string // labels of all metrics in the expression
	parser.Inspect(expr, func(node parser.Node, path []parser.Node) error {
		s, ok := node.(*parser.VectorSelector)
		if !ok {
			return nil
		}
		m, ok := known[s.Name]
		if !ok {
			t.Errorf("%s: no metric %q in %s", where, s.Name, expr)
			return nil
		}
		used = append(used, m.labels...)
		for _, matcher := range s.LabelMatchers {
			if name := matcher.Name; name != "__name__" && !slices.Contains([]string{"job", "instance"}, name) && !slices.Contains(m.labels, name) {
				t.Errorf("%s: %s has no label %q", where, s.Name, name)
			}
		}
		if in := rateAround(path); m.counter && in == "" && !counted(path) {
			t.Errorf("%s: the counter %s without rate or increase", where, s.Name)
		} else if !m.counter && in != "" {
			t.Errorf("%s: %s of %s, which is no counter", where, in, s.Name)
		}
		return nil
	})
	parser.Inspect(expr, func(node parser.Node, _ []parser.Node) error {
		var names []string
		switch n := node.(type) {
		case *parser.AggregateExpr:
			names = n.Grouping
		case *parser.BinaryExpr:
			if n.VectorMatching != nil {
				names = append(slices.Clone(n.VectorMatching.MatchingLabels), n.VectorMatching.Include...)
			}
		}
		for _, name := range names {
			if !slices.Contains(made, name) && !slices.Contains(used, name) {
				t.Errorf("%s: none of its metrics has the label %q: %s", where, name, expr)
			}
		}
		return nil
	})
}

// rateAround is the rate function that a selector is in.
func rateAround(path []parser.Node) string {
	for _, node := range path {
		if call, ok := node.(*parser.Call); ok && slices.Contains([]string{"rate", "irate", "increase"}, call.Func.Name) {
			return call.Func.Name
		}
	}
	return ""
}

// counted tells whether only the number of series matters.
func counted(path []parser.Node) bool {
	return slices.ContainsFunc(path, func(node parser.Node) bool {
		a, ok := node.(*parser.AggregateExpr)
		return ok && a.Op == parser.COUNT
	})
}

// The labels in legends, columns and links are those of the query.
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

// keepsLabel tells whether some aggregation or label_replace of an expression
// has the label in its result.
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
