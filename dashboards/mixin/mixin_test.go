package mixin

import (
	"maps"
	"slices"
	"testing"

	"github.com/kamailio-exporter/kamailio_exporter/collector"
)

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

// What was promised came with the labels that were promised; and when all has
// come, this list is to be deleted.
func TestPromised(t *testing.T) {
	missing := maps.Clone(promised)
	for _, c := range collector.All(collector.Options{DialogProfiles: []string{"any"}, PikeAddresses: 1, DumpContacts: 1}) {
		for _, d := range c.Descs() {
			l, ok := promised[d.Name]
			delete(missing, d.Name)
			if ok && !slices.Equal(slices.Sorted(slices.Values(l)), slices.Sorted(slices.Values(d.Labels))) {
				t.Errorf("%s has the labels %q, promised were %q", d.Name, d.Labels, l)
			}
		}
	}
	if len(missing) == 0 {
		t.Error("nothing is promised any more: delete promised.go and this test")
	}
	t.Log("still to come:", slices.Sorted(maps.Keys(missing)))
}
