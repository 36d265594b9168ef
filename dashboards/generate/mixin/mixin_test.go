package mixin

import "testing"

func TestCheck(t *testing.T) {
	names := Known()
	names.Recorded(map[string]string{"job:kamailio_x:rate5m": `rate(kamailio_dispatcher_destination_up[5m])`})
	for expr, want := range map[string]string{
		`sum by (set) (kamailio_dispatcher_destination_up{uri=~".+", job="x"})`:              "",
		`up == 0 unless on (job, instance) kamailio_up`:                                      "",
		`job:kamailio_x:rate5m{set="1"}`:                                                     "",
		`sum by (gateway) (label_replace(kamailio_up, "gateway", "$1", "instance", "(.*)"))`: "",
		`rate(kamailio_up[5m)`:                                                               `1:20: parse error: unexpected ")" in subquery or range, expected ":" or "]"`,
		`kamailio_no_such_thing > 1`:                                                         "kamailio_no_such_thing: the exporter has no such metric",
		`kamailio_up{set="1"}`:                                                               "kamailio_up has no label set",
		`sum by (set) (kamailio_up)`:                                                         "label set is on no metric of sum by (set) (kamailio_up)",
		`{job="x"}`:                                                                          `{job="x"}: a selector without the name of a metric`,
		`kamailio_up * on (uri) kamailio_up`:                                                 "label uri is on no metric of kamailio_up * on (uri) kamailio_up",
	} {
		got := names.Check(expr)
		switch {
		case want == "" && len(got) > 0:
			t.Errorf("%s: %q", expr, got)
		case want != "" && (len(got) != 1 || got[0] != want):
			t.Errorf("%s: got %q, want %q", expr, got, want)
		}
	}
}
