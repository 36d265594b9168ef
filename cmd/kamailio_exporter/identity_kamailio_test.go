//go:build linux

package main

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/kamailio-exporter/kamailio_exporter/kamrpc/kamrpctest/kamailiotest"
)

// TestDestinationsOfARealKamailioKeepTheirSeries has a URI twice in a set. Kamailio lists
// destinations by priority; after a reload with other priorities, each must keep its
// series.
func TestDestinationsOfARealKamailioKeepTheirSeries(t *testing.T) {
	for _, version := range kamailiotest.Versions(t) {
		t.Run(version, func(t *testing.T) {
			server := kamailiotest.Start(t, kamailiotest.Config{Version: version})
			e := nodeExporter(t, server)
			priorities := func() (gw1, gw1b string) {
				_, page := e.get(t, "/metrics?collect[]=dispatcher")
				sample := func(duid string) string {
					found := regexp.MustCompile(`(?m)^kamailio_dispatcher_destination_priority\{duid="` + duid + `",index="0",set="1",socket="",uri="[^"]+"\} (.+)$`).FindStringSubmatch(page)
					if found == nil {
						return ""
					}
					return found[1]
				}
				return sample("gw1"), sample("gw1b")
			}
			if gw1, gw1b := priorities(); gw1 != "10" || gw1b != "0" {
				t.Fatalf("priorities of gw1 and gw1b are %q and %q", gw1, gw1b)
			}
			out, err := exec.CommandContext(t.Context(), "sqlite3", "-bail", filepath.Join(server.Dir, "kamailio.sqlite"),
				"UPDATE dispatcher SET priority = 10 - priority WHERE setid = 1 AND attrs LIKE 'duid=gw1%' AND priority IN (0, 10)").CombinedOutput()
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			server.RPC(t, "dispatcher.reload")
			if gw1, gw1b := priorities(); gw1 != "0" || gw1b != "10" {
				t.Errorf("after the reload the priorities of gw1 and gw1b are %q and %q", gw1, gw1b)
			}
		})
	}
}
