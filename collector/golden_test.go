package collector_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/kamailio-exporter/kamailio_exporter/collector"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc/kamrpctest"
)

// TestGoldenPages scrapes recorded replies of real servers and compares the whole page.
// The other servers of a version have the modules that the first does not have.
func TestGoldenPages(t *testing.T) {
	for _, version := range versions(t) {
		all := collector.All(collector.Options{
			DialogProfiles: []string{"caller"}, HTableItems: []string{"trunks"}, PikeAddresses: 1, DumpContacts: 1000, ListDialogs: 1000,
			TLSConnections: 1000, CfgVariables: []string{"core.debug"}, Dialplans: []int{1},
		})
		done := map[string]bool{} // collectors
		for _, server := range []string{version, filepath.Join(version, "others"), filepath.Join(version, "ims")} {
			t.Run(server, func(t *testing.T) {
				all := slices.DeleteFunc(slices.Clone(all), func(c collector.Collector) bool {
					return done[c.Name()] || server != version && slices.ContainsFunc(c.Methods(), func(method string) bool {
						_, err := os.Stat(filepath.Join("testdata", server, method+".json"))
						return err != nil
					})
				})
				c := collector.NewCoordinator(client(t, recorded(t, server)), all, collector.Limits{})
				s := scrape(t, c)
				for _, r := range s.Results {
					if r.Supported && r.Err != nil {
						t.Errorf("collector %s: %v", r.Collector, r.Err)
					}
					if r.Duplicates > 0 {
						t.Errorf("collector %s: %d duplicates", r.Collector, r.Duplicates)
					}
					done[r.Collector] = r.Supported && r.Collector != "statistics"
				}
				page := page(t, s)
				for line := range strings.Lines(page) {
					// Only those that a script defines have no metric, and no type.
					if strings.HasPrefix(line, "kamailio_statistic{") && !strings.HasPrefix(line, `kamailio_statistic{group="script"`) {
						t.Errorf("a statistic of a module without a type: %s", line)
					}
				}
				golden(t, filepath.Join("testdata", server, "metrics.prom"), steady(page))
			})
		}
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
