package collector

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/prometheus/common/expfmt"

	"github.com/kamailio-exporter/kamailio_exporter/kamrpc/kamrpctest"
)

// tableOfItems returns a reply of htable.dump with one slot per item.
func tableOfItems(items ...string) string {
	var slots []string
	for i, item := range items {
		key, value, _ := strings.Cut(item, "=")
		kind := "int"
		if strings.HasPrefix(value, `"`) {
			kind = "str"
		}
		slots = append(slots, fmt.Sprintf(`{"entry":%d,"size":1,"slot":[{"name":%q,"value":%s,"type":%q}]}`, i, key, value, kind))
	}
	return "[" + strings.Join(slots, ",") + "]"
}

func statsOf(table string, items int) string {
	return fmt.Sprintf(`[{"name":"other","slots":4,"all":9,"min":0,"max":5},{"name":%q,"slots":4,"all":%d,"min":0,"max":5}]`, table, items)
}

func TestTrunks(t *testing.T) {
	// sample returns the samples of a trunk: 0 or absent, except for those that more
	// replaces.
	sample := func(trunk string, more map[string]string) string {
		var b strings.Builder
		line := func(name, labels, value string) {
			key := name + " " + labels
			if v, ok := more[key]; ok {
				value = v
			}
			if value != "" {
				fmt.Fprintf(&b, "trunk_%s %s%s %s\n", name, trunk, labels, value)
			}
		}
		line("attempts_total", "", "0")
		line("answered_total", "", "0")
		line("canceled_total", "", "0")
		line("timeouts_total", ",ringing", "0")
		line("timeouts_total", ",silent", "0")
		line("refused_total", ",486", "")
		line("refused_total", ",503", "")
		line("calls_ended_total", "", "")
		line("call_duration_seconds_total", "", "")
		for _, bound := range append(trunkDelay.Bounds, SumOfHistogram) {
			line("post_dial_delay_seconds", ","+bound, "0")
		}
		return b.String()
	}
	for _, tc := range []struct {
		name  string
		items []string
		want  string
		err   string
	}{
		{"nothing yet", nil, "", ""},
		{"counters start at 0", []string{"attempts|a=1"}, sample("a", map[string]string{"attempts_total ": "1"}), ""},
		{"two trunks with all items, and other items of the script", []string{
			"attempts|b|c=100", "answered|b|c=50", "canceled|b|c=5", "timeout|ringing|b|c=3", "timeout|silent|b|c=2", "refused|486|b|c=30", "refused|503|b|c=10",
			"ended|b|c=49", "seconds|b|c=4900", "delay|250|b|c=40", "delay|1000|b|c=41", "delay|inf|b|c=4", "delay_ms|b|c=123456", "attempts|a=7",
			`attempts|x="text"`, "mine=5", "mine|a=6",
		}, sample("a", map[string]string{"attempts_total ": "7", "calls_ended_total ": "0", "call_duration_seconds_total ": "0"}) + sample("b|c", map[string]string{
			"attempts_total ": "100", "answered_total ": "50", "canceled_total ": "5", "timeouts_total ,ringing": "3", "timeouts_total ,silent": "2",
			"refused_total ,486": "30", "refused_total ,503": "10", "calls_ended_total ": "49", "call_duration_seconds_total ": "4900",
			"post_dial_delay_seconds ,0.25": "40", "post_dial_delay_seconds ,0.5": "40", "post_dial_delay_seconds ,1": "81", "post_dial_delay_seconds ,2": "81",
			"post_dial_delay_seconds ,3": "81", "post_dial_delay_seconds ,5": "81", "post_dial_delay_seconds ,8": "81", "post_dial_delay_seconds ,12": "81",
			"post_dial_delay_seconds ,20": "81", "post_dial_delay_seconds ,+Inf": "85", "post_dial_delay_seconds ,sum": "123.456",
		}), ""},
		{"sums above 31 bits", []string{fmt.Sprintf("delay_ms|a=%d", math.MinInt32), "attempts|a=-1"},
			sample("a", map[string]string{"attempts_total ": "4.294967295e+09", "post_dial_delay_seconds ,sum": "2.147483648e+06"}), ""},
		{"a bucket bound that we do not use", []string{"delay|700|a=1"}, "", "the table trunks has a delay up to 700 ms"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := emitted(t, trunks{table: "trunks"}, map[string]string{htableStatsMethod: statsOf("trunks", len(tc.items)), htableDumpMethod: tableOfItems(tc.items...)})
			equalText(t, got, tc.want)
			if text := fmt.Sprint(err); (err != nil) != (tc.err != "") || !strings.Contains(text, tc.err) {
				t.Errorf("error %q, want %q", text, tc.err)
			}
		})
	}
	for name, stats := range map[string]string{"no such table": statsOf("others", 1), "no tables": "fault: No htables"} {
		if got, err := emitted(t, trunks{table: "trunks"}, map[string]string{htableStatsMethod: stats, htableDumpMethod: "fault: No such htable"}); got != "" || !errors.Is(err, ErrNoData) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

func equalText(t *testing.T, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

// The table is dumped only while htable.stats reports that it is small.
func TestTrunksTableTooLarge(t *testing.T) {
	server := kamrpctest.New(t)
	server.Handle(htableStatsMethod, statsOf("trunks", 11))
	g := trunks{listLimits{rows: 10}, "trunks"}.Guard()
	size, known, err := g.Size(t.Context(), sessionTo(t, server, []string{htableStatsMethod}))
	if size != 11 || !known || err != nil || g.Limit != 10 || g.Method != htableDumpMethod {
		t.Errorf("%v, %t, %v of %d for %s", size, known, err, g.Limit, g.Method)
	}
	if g := (trunks{listLimits{}, "trunks"}).Guard(); g.Size != nil {
		t.Error("without a limit the size is asked for")
	}
}

// A histogram is exported as one in the text format.
func TestHistogram(t *testing.T) {
	d := &Desc{Name: "x_seconds", Help: "Help.", Bounds: []string{"0.5", "+Inf"}, Labels: []string{"trunk"}, Source: "x"}
	var g Families
	for _, trunk := range []string{"a", "b"} {
		g.Add(d, 3, trunk, "0.5")
		g.Add(d, 4, trunk, "+Inf")
		g.Add(d, 1.25, trunk, SumOfHistogram)
	}
	var out strings.Builder
	for _, f := range g.Sorted() {
		if _, err := expfmt.MetricFamilyToText(&out, f); err != nil {
			t.Fatal(err)
		}
	}
	want := "# HELP x_seconds Help.\n# TYPE x_seconds histogram\n"
	for _, trunk := range []string{"a", "b"} {
		want += strings.ReplaceAll(`x_seconds_bucket{trunk="T",le="0.5"} 3
x_seconds_bucket{trunk="T",le="+Inf"} 4
x_seconds_sum{trunk="T"} 1.25
x_seconds_count{trunk="T"} 4
`, "T", trunk)
	}
	equalText(t, out.String(), want)
}

func TestHTableItems(t *testing.T) {
	for _, tc := range []struct{ name, stats, dump, want, err string }{
		{"integers, not texts", statsOf("calls", 3), tableOfItems("a=5", `b="6"`, `c="x"`, "d e=-7"), "htable_item calls,a 5\nhtable_item calls,d e -7\n", ""},
		{"empty", statsOf("calls", 0), "[]", "", ""},
		{"no such table", statsOf("others", 0), "fault: No such htable", "", `htable "calls" is not defined`},
		{"no tables", "fault: No htables", "fault: No such htable", "", `htable "calls" is not defined`},
		{"an error", "fault: Internal error", "[]", "", "Internal error"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := emitted(t, htableItems{tables: []string{"calls"}}, map[string]string{htableStatsMethod: tc.stats, htableDumpMethod: tc.dump})
			equalText(t, got, tc.want)
			if text := fmt.Sprint(err); (err != nil) != (tc.err != "") || !strings.Contains(text, tc.err) {
				t.Errorf("error %q, want %q", text, tc.err)
			}
		})
	}
	if got, err := emitted(t, htableItems{}, nil); got != "" || err != nil {
		t.Errorf("without a table: %q, %v", got, err)
	}
}
