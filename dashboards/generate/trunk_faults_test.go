package generate

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kamailio-exporter/kamailio_exporter/kamrpc/kamrpctest/kamailiotest"
)

// faultyTrunks sends a call to GATEWAY-TRUNK to the gateway at this port after its own,
// and counts it for this trunk.
const faultyTrunks = proxyHeader + `
loadmodule "htable.so"
modparam("tm", "fr_timer", 2000)

#!define TRUNKS_DIALOG
INCLUDE

route[TRUNK_NAME] {
	$var(trunk) = $(tU{s.select,1,-});
}
branch_route[TRUNK] {
	route(TRUNKS_BRANCH);
}
onreply_route[TRUNK] {
	route(TRUNKS_REPLY);
}
event_route[dialog:end] {
	route(TRUNKS_CALL_END);
}
request_route {
	route(OF_CALL);
	if (!t_check_trans()) t_newtran();
	dlg_manage();
	record_route();
	$var(port) = $(rU{s.select,0,-}{s.int}) + $Rp;
	$ru = "sip:" + $rU + "@127.0.0.1:" + $var(port);
	t_on_branch("TRUNK");
	t_on_reply("TRUNK");
	t_relay();
}
`

// TestTrunkFaultsFireAlerts checks that each kind of a bad trunk fires its alert, for this
// trunk only.
func TestTrunkFaultsFireAlerts(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: starts real servers")
	}
	versions := kamailiotest.Versions(t)
	sipp := kamailiotest.Needs(t, "sipp", "sip-tester")
	exporter := buildExporter(t)
	include := readText(t, "../../examples/kamailio/kamailio-trunks.cfg")
	// Kamailio sends 500 to the caller for the 503 of a gateway.
	gateways := []string{ // in the language of gatewayScenario, from port 1 on
		"180 200 ACK BYE ok",
		"486 ACK",
		"503 ACK",
		"",
		"180 CANCEL ok 487 ACK",
		"100 2500ms 180 200 ACK BYE ok",
	}
	const answered = "INVITE 200 ACK 3000ms BYE"
	faults := []struct {
		to, does string
		calls    int
		alert    string
	}{
		{"1-good", answered, 30, ""},
		{"3-fails", "INVITE 500 ACK", 8, "KamailioTrunkFailsCalls"},
		{"1-lossy", answered, 12, "KamailioTrunkTimesOut"},
		{"4-lossy", "INVITE 408 ACK", 6, "KamailioTrunkTimesOut"},
		{"5-rings", "INVITE 180 CANCEL 487 ACK", 16, "KamailioTrunkNoAnswers"},
		{"1-collapsed", answered, 2, "KamailioTrunkAnswerRatioCollapsed"},
		{"2-collapsed", "INVITE 486 ACK", 28, "KamailioTrunkAnswerRatioCollapsed"},
		{"6-late", answered, 14, "KamailioTrunkPostDialDelayHigh"},
		{"1-short", "INVITE 200 ACK BYE", 14, "KamailioTrunkCallsShort"},
	}
	for _, version := range versions {
		t.Run(version, func(t *testing.T) {
			server := kamailiotest.Start(t, kamailiotest.Config{Version: version, Edit: func(string) string {
				return strings.Replace(faultyTrunks, "INCLUDE", include, 1)
			}})
			first, err := strconv.Atoi(strings.TrimPrefix(server.SIPAddr, "127.0.0.1:"))
			if err != nil {
				t.Fatal(err)
			}
			for i, does := range gateways {
				program(t, sipp, "-nostdin", "-skip_rlimit", "-i", "127.0.0.1", "-mi", anyLoopback(), "-p", strconv.Itoa(first+i+1),
					"-sf", write(t, filepath.Join(t.TempDir(), "uas.xml"), gatewayScenario(does)))
			}
			prometheus := runPrometheus(t, []string{exporterAt(t, exporter, "--kamailio.uri=unix://"+server.SocketPath, "--scrape.growing-interval=100ms")}, hasty(t))
			// callAll makes calls to all trunks at the same time.
			callAll := func(calls func(planned int) int) {
				var all sync.WaitGroup
				for _, f := range faults {
					all.Go(func() {
						// On a busy machine SIPp takes a late ACK for a failed call.
						if out, err := callTrunks(t, sipp, server.SIPAddr, f.to, f.does, "-m", strconv.Itoa(calls(f.calls)), "-r", "5"); err != nil {
							t.Logf("calls to %s: SIPp: %v\n%s", f.to, err, out)
						}
					})
				}
				all.Wait()
			}
			firing := func() map[string]bool {
				found := map[string]bool{}
				for _, s := range prometheus.query(t, `ALERTS{alertstate="firing", alertname=~"KamailioTrunk.+"}`) {
					found[s.labels["alertname"]+" "+s.labels["trunk"]] = true
				}
				return found
			}
			// Counters that Prometheus does not know yet have no increase.
			counted := func() bool {
				return len(prometheus.query(t, `kamailio_trunk_calls_ended_total{trunk!~"fails|rings"} offset 2s > 0`)) == 5
			}
			for tries := 1; ; tries++ {
				callAll(func(int) int { return 1 })
				if until(15*time.Second, counted) {
					break
				}
				if tries == 3 { // SIPp gave up a call, or it is not counted
					t.Fatal("the first calls are not counted")
				}
			}
			if found := firing(); len(found) > 0 {
				t.Errorf("after one call to each trunk: %q", slices.Sorted(maps.Keys(found)))
			}
			callAll(func(planned int) int { return planned })
			want := map[string]bool{}
			for _, f := range faults {
				if f.alert != "" {
					_, trunk, _ := strings.Cut(f.to, "-")
					want[f.alert+" "+trunk] = true
				}
			}
			var found map[string]bool
			if !until(90*time.Second, func() bool { found = firing(); return maps.Equal(found, want) }) {
				var figures strings.Builder
				for _, s := range prometheus.query(t, `{__name__=~"kamailio_trunk_.*_total"} > 0`) {
					fmt.Fprintln(&figures, s.labels, s.value)
				}
				t.Errorf("fires: %q\nwant: %q\n%s", slices.Sorted(maps.Keys(found)), slices.Sorted(maps.Keys(want)), figures.String())
			}
		})
	}
}
