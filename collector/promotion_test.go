package collector

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

func TestParsePromotion(t *testing.T) {
	for _, tc := range []struct {
		text                  string
		kind                  prometheus.ValueType
		statistic, name, help string
	}{
		{"script:demo_calls=Calls.", counter, "script:demo_calls", "kamailio_script_demo_calls_total", "Calls."},
		{"script:demo_calls=Calls.", gauge, "script:demo_calls", "kamailio_script_demo_calls", "Calls."},
		{"script:calls_total=Calls.", counter, "script:calls_total", "kamailio_script_calls_total", "Calls."},
		{"script:Foo Bar--baz!= A help with = in it ", counter, "script:Foo Bar--baz!", "kamailio_script_foo_bar_baz_total", "A help with = in it"},
		{`script:a\=b=Help.`, counter, "script:a=b", "kamailio_script_a_b_total", "Help."},
		{`script:a\\=Help.`, counter, `script:a\`, "kamailio_script_a_total", "Help."},
		{`script:quo"te{x}=Help.`, counter, `script:quo"te{x}`, "kamailio_script_quo_te_x_total", "Help."},
		{`script:caf\xe9 1=Help.`, counter, "script:caf\xe9 1", "kamailio_script_caf_1_total", "Help."},
		{`script:a\x0ab=Help.`, counter, "script:a\nb", "kamailio_script_a_b_total", "Help."},
		{`script:a\x3db=Help.`, counter, "script:a=b", "kamailio_script_a_b_total", "Help."},
		{"script:a:b=Help.", counter, "script:a:b", "kamailio_script_a_b_total", "Help."},
		{"script:umlaut_ü=Help.", counter, "script:umlaut_ü", "kamailio_script_umlaut_total", "Help."},
	} {
		p, err := ParsePromotion(tc.text, tc.kind)
		if err != nil || p.Statistic != tc.statistic || p.MetricName() != tc.name || p.Help != tc.help {
			t.Errorf("%s: %q, %s, %q, %v", tc.text, p.Statistic, p.MetricName(), p.Help, err)
		}
	}
	for text, want := range map[string]string{
		"":                     "no help text",
		"script:a":             "no help text",
		"script:a=":            "no help text",
		"script:a= ":           "no help text",
		`script:a\=b`:          "no help text",
		"calls=Help.":          "not GROUP:NAME",
		":calls=Help.":         "not GROUP:NAME",
		"script:=Help.":        "not GROUP:NAME",
		"script:!?=Help.":      "no letter or digit",
		"script:a=\xff":        "not UTF-8",
		`script:a\b=Help.`:     `written \\`,
		`script:a\xzz=Help.`:   `written \\`,
		`script:a\`:            `written \\`,
		"script:a_total=Help.": "name of a counter",
	} {
		if p, err := ParsePromotion(text, gauge); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %+v, %v, want %q", text, p, err, want)
		}
	}
}

func TestCheckPromotions(t *testing.T) {
	parse := func(kind prometheus.ValueType, texts ...string) (all []Promotion) {
		for _, text := range texts {
			p, err := ParsePromotion(text+"=Help.", kind)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, p)
		}
		return all
	}
	if err := CheckPromotions(parse(counter, "script:a", "script:b", "nosuch:x"), "kamailio_exporter_"); err != nil {
		t.Error(err)
	}
	for _, tc := range []struct {
		promotions []Promotion
		want       string
	}{
		{parse(counter, "tmx:UAS_transactions"), "already has a metric: kamailio_tmx_uas_transactions_total"},
		{parse(gauge, "shmem:fragments"), "already has a metric: kamailio_core_shm_fragments"},
		{parse(counter, "usrloc:any table_contacts"), "already has a metric: kamailio_usrloc_contacts"},
		{parse(counter, "script:a", "script:a"), "promoted twice"},
		{append(parse(counter, "script:a"), parse(gauge, "script:a")...), "promoted twice"},
		{parse(counter, "script:Foo", "script:foo"), `would be named kamailio_script_foo_total, which is taken by the statistic "script:Foo"`},
		// The same family in OpenMetrics.
		{append(parse(counter, "script:foo"), parse(gauge, "script:Foo")...), "taken by"},
		{parse(counter, "tm:transactions"), "taken by the metric kamailio_tm_transactions_total"},
		{parse(gauge, "tm:transactions"), "taken by the metric kamailio_tm_transactions_total"},
		{parse(counter, "dialog:dialogs"), "taken by the metric kamailio_dialog_dialogs"},
		{parse(gauge, "scrape:duration_seconds"), "taken by the metric kamailio_scrape_duration_seconds"},
		{parse(gauge, "exporter:build_info"), "the exporter's own"},
	} {
		if err := CheckPromotions(tc.promotions, "kamailio_exporter_"); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%+v: %v, want %q", tc.promotions, err, tc.want)
		}
	}
}

// A promoted statistic is not in kamailio_statistic. If the server lacks it, or if it is
// not a number, no sample is emitted.
func TestPromotedStatistics(t *testing.T) {
	var promotions []Promotion
	for text, kind := range map[string]prometheus.ValueType{
		"script:calls=C.": counter, "script:balance=B.": gauge, `script:a\=b = c=E.`: counter, "script:caf\xe9=L.": gauge,
		"script:absent=A.": counter, "script:word=W.": counter,
	} {
		p, err := ParsePromotion(strings.ReplaceAll(text, " = c", ` \= c`), kind)
		if err != nil {
			t.Fatal(err)
		}
		promotions = append(promotions, p)
	}
	c := newStatistics(&claimed{}, promotions)
	got, err := emitted(t, c, map[string]string{statisticsMethod: `["script:calls = 12","script:Calls = 1","script:balance = 18446744073709551615","script:a=b = c = 5","script:caf` + "\xe9" + ` = 7","script:word = soon","other:x = 3"]`})
	if err != nil {
		t.Fatal(err)
	}
	want := "script_calls_total 12\nstatistic script,Calls 1\nscript_balance -1\nscript_a_b_c_total 5\nscript_caf 7\nstatistic other,x 3\n"
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
