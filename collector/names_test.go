package collector_test

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kamailio-exporter/kamailio_exporter/collector"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
)

var everything = collector.Options{DialogProfiles: []string{"x"}, PikeAddresses: 1, DumpContacts: 1, TLSConnections: 1, CfgVariables: []string{"core.debug"}, Dialplans: []int{1}}

func descs() []*collector.Desc {
	all := collector.BesideDescs()
	for _, c := range collector.All(everything) {
		all = append(all, c.Descs()...)
	}
	return all
}

// The rules for names and help texts, for every metric there is.
func TestNames(t *testing.T) {
	name := regexp.MustCompile(`^kamailio(_[a-z0-9]+)+$`)
	label := regexp.MustCompile(`^[a-z]+(_[a-z]+)*$`)
	kinds := map[string]prometheus.ValueType{}
	helps := map[string]string{}
	for _, d := range descs() {
		if !name.MatchString(d.Name) {
			t.Errorf("%s: the name is not kamailio_<module>_<thing>_<unit>", d.Name)
		}
		if isCounter := d.Kind == prometheus.CounterValue; isCounter != strings.HasSuffix(d.Name, "_total") {
			t.Errorf("%s: counters, and only they, end in _total", d.Name)
		}
		if known, ok := helps[d.Name]; ok && known != d.Help {
			t.Errorf("%s has two help texts: the whole page would fail", d.Name)
		}
		helps[d.Name] = d.Help
		kinds[d.Name] = d.Kind
		if len(d.Help) < 10 || !strings.HasSuffix(d.Help, ".") || strings.Contains(d.Help, "\n") {
			t.Errorf("%s: help is a sentence on one line, not %q", d.Name, d.Help)
		}
		if d.Source == "" {
			t.Errorf("%s: no source", d.Name)
		}
		for _, bad := range []string{"_milliseconds", "_ms", "_kb", "_percentage", "_count", "_sum", "_bucket"} {
			if strings.HasSuffix(strings.TrimSuffix(d.Name, "_total"), bad) {
				t.Errorf("%s: base units only, and no suffix that means a histogram's", d.Name)
			}
		}
		for _, l := range d.Labels {
			if !label.MatchString(l) || slices.Contains([]string{"le", "quantile", "job", "instance", "pid", "rank"}, l) {
				t.Errorf("%s: label %s is reserved, or changes with every restart", d.Name, l)
			}
		}
	}
	// In OpenMetrics the counter x_total is the family x.
	for n, kind := range kinds {
		if kind == prometheus.CounterValue {
			if _, taken := kinds[strings.TrimSuffix(n, "_total")]; taken {
				t.Errorf("%s and %s are one name in OpenMetrics", n, strings.TrimSuffix(n, "_total"))
			}
		}
	}
}

func TestCollectors(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range collector.All(everything) {
		if seen[c.Name()] {
			t.Errorf("two collectors named %s", c.Name())
		}
		seen[c.Name()] = true
		if c.About() == "" || strings.HasSuffix(c.About(), ".") {
			t.Errorf("%s: About is one line without a full stop", c.Name())
		}
		if len(c.Descs()) == 0 || len(c.Methods()) == 0 {
			t.Errorf("%s: no metrics or no methods", c.Name())
		}
		for _, m := range c.Methods() {
			// A method that only tells whether a module is loaded has no price.
			if _, ok := kamrpc.PriceOf(m); !ok && m != "drouting.reload" {
				t.Errorf("%s needs %s, which has no price", c.Name(), m)
			}
		}
	}
}

// What a collector emits, it has described.
func TestEmittedIsDescribed(t *testing.T) {
	for _, version := range versions(t) {
		c := collector.NewCoordinator(client(t, recorded(t, version)), collector.All(everything), collector.Limits{})
		for _, r := range scrape(t, c).Results {
			i := slices.IndexFunc(collector.All(everything), func(c collector.Collector) bool { return c.Name() == r.Collector })
			for _, sample := range r.Samples {
				if !slices.ContainsFunc(collector.All(everything)[i].Descs(), func(d *collector.Desc) bool { return d.Name == sample.Desc.Name }) {
					t.Errorf("%s emits %s and does not say so", r.Collector, sample.Desc.Name)
				}
			}
		}
	}
}
