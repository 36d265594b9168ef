package collector_test

import (
	"path/filepath"
	"testing"

	"github.com/kamailio-exporter/kamailio_exporter/collector"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc/kamrpctest"
)

// TestGoldenPages scrapes recorded replies of real servers and compares the whole page.
func TestGoldenPages(t *testing.T) {
	for _, version := range versions(t) {
		t.Run(version, func(t *testing.T) {
			server := recorded(t, version)
			c := collector.NewCoordinator(client(t, server),
				collector.All(collector.Options{
					DialogProfiles: []string{"caller"}, HTableItems: []string{"trunks"}, PikeAddresses: 1, DumpContacts: 1000, ListDialogs: 1000,
					TLSConnections: 1000, CfgVariables: []string{"core.debug"}, Dialplans: []int{1},
				}),
				collector.Limits{})
			s := scrape(t, c)
			for _, r := range s.Results {
				if r.Supported && r.Err != nil {
					t.Errorf("collector %s: %v", r.Collector, r.Err)
				}
				if r.Duplicates > 0 {
					t.Errorf("collector %s: %d duplicates", r.Collector, r.Duplicates)
				}
			}
			golden(t, filepath.Join("testdata", version, "metrics.prom"), steady(page(t, s)))
		})
	}
}

// recorded returns a fake with the replies of a real server of that version. Its
// system.listMethods is the real one. Methods that have a file but are not listed are
// those that kamailio.cfg serves.
func recorded(t testing.TB, version string) *kamrpctest.Server {
	t.Helper()
	server := kamrpctest.New(t)
	server.LoadDir(filepath.Join("testdata", version))
	return server
}
