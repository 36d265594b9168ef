//go:build linux

package main

import (
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/kamailio-exporter/kamailio_exporter/kamrpc/kamrpctest/kamailiotest"
)

// peerConfig configures a server as a node of a cluster that replicates with another
// server.
func peerConfig(t *testing.T, peer *kamailiotest.Server) string {
	t.Helper()
	_, port, err := net.SplitHostPort(peer.SIPAddr)
	if err != nil {
		t.Fatal(err)
	}
	return `#!define WITH_DMQ_PEER
#!substdef "!DMQ_PEER_PORT!` + port + `!g"
loadmodule "dmq_usrloc.so"
modparam("dialog", "enable_dmq", 1)
modparam("dmq_usrloc", "enable", 1)
modparam("dmq_usrloc", "sync", 1)
`
}

// pair starts two servers that replicate with each other.
func pair(t *testing.T, version string) (a, b *kamailiotest.Server) {
	t.Helper()
	a = kamailiotest.Start(t, kamailiotest.Config{Version: version})
	b = kamailiotest.Start(t, kamailiotest.Config{Version: version, Extra: peerConfig(t, a)})
	if err := os.WriteFile(filepath.Join(a.Dir, "local.cfg"), []byte(peerConfig(t, b)), 0o600); err != nil {
		t.Fatal(err)
	}
	a.Restart()
	return a, b
}

// TestReplicatedCallsOfRealKamailios lets two nodes replicate dialogs. The numbers of
// calls on their pages must be right before, during and after a restart of either node,
// and after the calls have ended. The statistic active_dialogs is not right.
func TestReplicatedCallsOfRealKamailios(t *testing.T) {
	for _, version := range kamailiotest.Versions(t) {
		t.Run(version, func(t *testing.T) {
			const calls = 8
			nodeA, nodeB := pair(t, version)
			nodeA.StartTraffic(t, calls)
			a, b := nodeExporter(t, nodeA), nodeExporter(t, nodeB)

			expect := func(when string, e *exporter, dialogs, local int) {
				t.Helper()
				const state = `{state="ongoing"}`
				var got [2]string
				for deadline := time.Now().Add(20 * time.Second); ; {
					_, page := e.get(t, "/metrics?collect[]=dialog")
					got = [2]string{value(page, "kamailio_dialog_dialogs"+state), value(page, "kamailio_dialog_local_dialogs"+state)}
					if got == [2]string{strconv.Itoa(dialogs), strconv.Itoa(local)} {
						return
					}
					if time.Now().After(deadline) {
						t.Fatalf("%s: dialogs, local ones: %q, want %d, %d", when, got, dialogs, local)
					}
				}
			}
			_, page := b.get(t, "/metrics?collect[]=dmq")
			if got := value(page, "kamailio_dmq_usrloc_loaded"); got != "1" {
				t.Errorf("kamailio_dmq_usrloc_loaded is %q", got)
			}
			expect("A serves the calls", a, calls, calls)
			expect("B has replicas", b, calls, 0)
			nodeB.Stop()
			expect("B is down", a, calls, calls)
			nodeB.Restart()
			expect("B was restarted", b, calls, 0)
			expect("B was restarted", a, calls, calls)
			// Calls that no server counts as its own any more continue, and both nodes
			// know them: the rule job:kamailio_calls:sum takes the largest number that a
			// node knows.
			nodeA.Restart()
			expect("A was restarted", a, calls, 0)
			expect("A was restarted", b, calls, 0)

			var dialogs []struct {
				Entry int `json:"h_entry"`
				ID    int `json:"h_id"`
			}
			if err := json.Unmarshal(nodeA.RPC(t, "dlg.briefing"), &dialogs); err != nil {
				t.Fatal(err)
			}
			for _, d := range dialogs {
				nodeA.RPC(t, "dlg.end_dlg", d.Entry, d.ID)
			}
			expect("the calls have ended", a, 0, 0)
			expect("the calls have ended", b, 0, 0)
			t.Logf("the statistics of B are %s", nodeB.RPC(t, "stats.get_statistics", "dialog:"))
		})
	}
}

func nodeExporter(t *testing.T, node *kamailiotest.Server) *exporter {
	t.Helper()
	return start(t, uriFlags([]string{node.HTTPURL})...)
}
