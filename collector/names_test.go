package collector_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/kamailio-exporter/kamailio_exporter/collector"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
)

var everything = collector.Options{DialogProfiles: []string{"x"}, HTableItems: []string{"x"}, PikeAddresses: 1, DumpContacts: 1, TLSConnections: 1, CfgVariables: []string{"core.debug"}, Dialplans: []int{1}}

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
			// A method that only shows whether a module is loaded needs no price.
			if _, ok := kamrpc.PriceOf(m); !ok && m != "drouting.reload" {
				t.Errorf("%s needs %s, which has no price", c.Name(), m)
			}
		}
	}
}

// A collector describes every metric that it emits.
func TestEmittedMetricsAreDescribed(t *testing.T) {
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
