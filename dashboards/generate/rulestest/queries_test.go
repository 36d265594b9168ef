package rulestest

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/promql/parser"

	"github.com/kamailio-exporter/kamailio_exporter/dashboards/generate/mixin"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc/kamrpctest/kamailiotest"
)

// synthetic matches metrics that are not on the golden page, because no collector makes
// them or no call had ended.
var synthetic = regexp.MustCompile(`^(up|kamailio_up|kamailio_trunk_call|kamailio_scrape_|kamailio_sip_probe_|kamailio_exporter_|process_)`)

// TestQueries runs each query of docs/queries.md with promtool on the golden page of
// Kamailio 6.0, whose server has all that they are about. Each must return something. A comparison at the top is left out, since
// it only finds problems.
func TestQueries(t *testing.T) {
	names := mixin.Known()
	recorded := map[string]string{}
	for _, r := range load(t, ruleFile) {
		recorded[r.Record] = r.Expr
	}
	names.Recorded(recorded)
	names["process_cpu_seconds_total"] = nil
	var queries []string
	for _, block := range regexp.MustCompile("(?s)```promql\n(.*?)```").FindAllStringSubmatch(read(t, "../../../docs/queries.md"), -1) {
		for line := range strings.Lines(block[1]) {
			query, _, _ := strings.Cut(line, " #")
			for _, problem := range names.Check(query) {
				t.Errorf("%s: %s", strings.TrimSpace(query), problem)
			}
			queries = append(queries, strings.TrimSpace(query))
		}
	}
	if len(queries) < 50 || t.Failed() {
		t.Fatalf("%d queries", len(queries))
	}
	promtool := kamailiotest.Needs(t, "promtool", "prometheus")

	var b strings.Builder
	rules, err := filepath.Abs(ruleFile)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(&b, "rule_files: [%s]\nevaluation_interval: 1m\ntests:\n  - interval: 1m\n    input_series:\n", rules)
	page := read(t, "../../../collector/testdata/6.0.1/metrics.prom")
	sample := regexp.MustCompile(`(?m)^([a-z_0-9]+)(?:\{(.*)\})? (\S+)$`)
	for _, m := range sample.FindAllStringSubmatch(page, -1) {
		if !synthetic.MatchString(m[1]) {
			series(&b, m[1], m[2], m[3])
		}
	}
	for name, labels := range names {
		if synthetic.MatchString(name) {
			pairs := make([]string, 0, len(labels))
			for _, l := range labels {
				pairs = append(pairs, l+`="x"`)
			}
			series(&b, name, strings.Join(pairs, ","), "1")
		}
	}
	b.WriteString("    promql_expr_test:\n")
	for _, query := range queries {
		e, err := mixin.Parse(query)
		if err != nil {
			t.Fatal(err)
		}
		if compares, ok := e.(*parser.BinaryExpr); ok && compares.Op.IsComparisonOperator() {
			e = compares.LHS
		}
		// promtool cannot simulate a week.
		fmt.Fprintf(&b, "      - expr: %q\n        eval_time: 3h\n        exp_samples: [{labels: '{}', value: 1}]\n",
			"count("+strings.ReplaceAll(e.String(), "offset 1w", "offset 1h")+") > bool 0")
	}
	file := filepath.Join(t.TempDir(), "queries.yml")
	if err := os.WriteFile(file, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, promtool, "test", "rules", file)
}

// series adds a series that begins with this value. Counters grow.
func series(b *strings.Builder, name, labels, value string) {
	step := "0"
	switch {
	case strings.HasSuffix(name, "_processed_total"): // more calls than failures
		step = "5"
	case strings.HasSuffix(name, "_total"), strings.HasSuffix(name, "_bucket"), strings.HasSuffix(name, "_count"):
		step = "1"
	}
	target := `job="kamailio",instance="sip1.example.com:9494"`
	if labels != "" {
		target += "," + labels
	}
	fmt.Fprintf(b, "      - series: %q\n        values: %q\n", name+"{"+target+"}", value+"+"+step+"x200")
}
