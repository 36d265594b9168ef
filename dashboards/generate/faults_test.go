package generate

import (
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kamailio-exporter/kamailio_exporter/kamrpc/kamrpctest/kamailiotest"
)

// hasty returns copies of the alert rules that wait for only two seconds before they fire,
// and as long before they end. Their expressions are unchanged.
func hasty(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("../../alerts/*.yml")
	if err != nil {
		t.Fatal(err)
	}
	var copies []string
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !regexp.MustCompile(`(?m)^groups:`).Match(text) {
			continue // Alertmanager's configuration
		}
		copied := filepath.Join(t.TempDir(), filepath.Base(file))
		text = regexp.MustCompile(`(?m)^( +)(for|keep_firing_for): \S+`).ReplaceAll(text, []byte("${1}${2}: 2s"))
		if err := os.WriteFile(copied, text, 0o600); err != nil {
			t.Fatal(err)
		}
		copies = append(copies, copied)
	}
	if len(copies) == 0 {
		t.Fatal("there are no rules in ../../alerts")
	}
	return copies
}

// watched is a Kamailio with its exporter.
type watched struct {
	*kamailiotest.Server
	exporter   string
	prometheus *prometheusServer
}

// firing returns the alerts of this server that fire now: the name, and the labels that
// distinguish it, such as "KamailioDispatcherSetDown set=2". The ports of the gateways
// are written as gw, gw+1 and so on. Some gateways of the demo fail all calls, which
// TestTrunkFaultsFireAlerts tests.
func (w watched) firing(t *testing.T) map[string]bool {
	t.Helper()
	_, sip, err := net.SplitHostPort(w.SIPAddr)
	if err != nil {
		t.Fatal(err)
	}
	first, err := strconv.Atoi(sip)
	if err != nil {
		t.Fatal(err)
	}
	var ports []string
	for i := range 10 { // kamailiotest uses the ports from the sixth on for gateways
		ports = append(ports, strconv.Itoa(first+5+i), fmt.Sprintf("gw+%d", i))
	}
	names := map[string]bool{}
	for _, s := range w.prometheus.query(t, fmt.Sprintf(`ALERTS{alertstate="firing",trunk="",instance=%q}`, w.exporter)) {
		name := s.labels["alertname"]
		for _, label := range []string{"set", "uri", "index", "gateway", "collector", "uuid", "url"} {
			if value := s.labels[label]; value != "" {
				name += " " + label + "=" + value
			}
		}
		names[strings.NewReplacer(ports...).Replace(name)] = true
	}
	return names
}

// becomes waits until all alerts of want fire, and a while longer. It fails if another
// alert begins to fire. Alerts in may, or with a prefix in may, are ignored.
func (w watched) becomes(t *testing.T, before map[string]bool, want, may []string) {
	t.Helper()
	var fired map[string]bool
	ok := until(90*time.Second, func() bool {
		fired = w.firing(t)
		return !slices.ContainsFunc(want, func(name string) bool { return !fired[name] })
	})
	if ok {
		until(5*time.Second, func() bool { maps.Copy(fired, w.firing(t)); return false })
	}
	for _, name := range want {
		if !fired[name] {
			t.Errorf("does not fire: %s", name)
		}
	}
	for name := range fired {
		if !before[name] && !slices.Contains(want, name) && !slices.ContainsFunc(may, func(m string) bool { return strings.HasPrefix(name, m) }) {
			t.Errorf("fires for no reason: %s", name)
		}
	}
	if t.Failed() {
		t.Logf("before: %q", slices.Sorted(maps.Keys(before)))
	}
}

// affects waits until the first screen of the overview names a part of the service, as
// Degraded (1) or Failed (0).
func (w watched) affects(t *testing.T, part string, grade float64) {
	t.Helper()
	expr := grafanaAt(w.exporter).Replace(query{expr: affected}.promQL())
	var found []series
	if !until(time.Minute, func() bool {
		found = w.prometheus.query(t, expr)
		return slices.ContainsFunc(found, func(s series) bool { return s.labels["part"] == part && s.value == grade })
	}) {
		t.Errorf("the overview does not show %s as %v: %v", part, grade, found)
	}
}

// latencyOfTwin is an alert about a destination whose URI is in the set twice: Kamailio
// assigns replies to pings of one to the other (dispatcher/dispatch.c,
// ds_update_latency), so its latencies are wrong.
const latencyOfTwin = "KamailioDispatcherLatencyHigh set=1 uri=sip:127.0.0.1:gw+0 index="

// TestFaultsFireAlerts checks that real faults make the right alerts fire, and no others.
func TestFaultsFireAlerts(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: starts real servers")
	}
	kamailiotest.Versions(t)
	kamailiotest.Needs(t, "prometheus", "prometheus")
	sipp := kamailiotest.Needs(t, "sipp", "sip-tester")
	path := buildExporter(t)
	busy := watched{Server: kamailiotest.Start(t, kamailiotest.Config{Stream: true})}
	small := watched{Server: kamailiotest.Start(t, kamailiotest.Config{Traffic: true, ShmMB: 16})}
	quiet := watched{Server: kamailiotest.Start(t, kamailiotest.Config{})}
	all := []*watched{&busy, &small, &quiet}
	var exporters []string
	for _, w := range all {
		w.exporter = runExporter(t, path, w.Server)
		exporters = append(exporters, w.exporter)
	}
	prometheus := runPrometheus(t, exporters, hasty(t))
	for _, w := range all {
		w.prometheus = prometheus
	}

	// Some of the demo's gateways are always down. A gateway that rejects calls is only
	// known after a call was tried.
	if !until(time.Minute, func() bool {
		return busy.firing(t)["KamailioDroutingGatewayDown gateway=4"] && busy.firing(t)["KamailioRTPEngineNodeDown set=0 index=0 url=udp:127.0.0.1:gw+8"] && small.firing(t)["KamailioDispatcherDestinationDown set=2 uri=sip:127.0.0.1:gw+8 index=0"]
	}) {
		t.Fatalf("the alerts of every day do not fire: %v, %v", busy.firing(t), small.firing(t))
	}

	t.Run("a gateway stops answering", func(t *testing.T) {
		before := busy.firing(t)
		busy.PauseGateway("gw-answers")
		defer busy.ResumeGateway("gw-answers")
		busy.becomes(t, before, []string{
			"KamailioDispatcherDestinationDown set=0 uri=sip:127.0.0.1:gw+0 index=0",
			"KamailioDispatcherDestinationDown set=1 uri=sip:127.0.0.1:gw+0 index=0",
			"KamailioDispatcherDestinationDown set=1 uri=sip:127.0.0.1:gw+0;transport=udp index=0",
			"KamailioDispatcherDestinationDown set=2 uri=sip:127.0.0.1:gw+0 index=0",
			"KamailioDispatcherSetDown set=0",
			"KamailioDispatcherSetDown set=2",
			"KamailioDroutingGatewayDown gateway=1",
			"KamailioKeepaliveDestinationDown uri=sip:127.0.0.1:gw+0 index=0",
		}, []string{
			latencyOfTwin,
			// Among the remaining calls, those to rejecting gateways are more than the
			// usual tenth.
			"KamailioInviteServerErrors", "KamailioSessionEstablishmentRatioLow", "KamailioCallsNotAnswered",
		})
		busy.ResumeGateway("gw-answers")
		if !until(time.Minute, func() bool { return !busy.firing(t)["KamailioDispatcherSetDown set=0"] }) {
			t.Error("the gateway is back, and the alert still fires")
		}
	})
	t.Run("SIP workers hang", func(t *testing.T) {
		before := quiet.firing(t)
		quiet.PauseSIP(t)
		// RPCs over HTTP hang with the SIP workers.
		quiet.becomes(t, before, []string{"KamailioSIPNotAnswering", "KamailioUDPWorkersHang"}, []string{"KamailioCollector", "KamailioDispatcher", "KamailioURIUnusable"})
		quiet.affects(t, "SIP sockets", 0)
		quiet.affects(t, "SIP workers", 0)
		quiet.Resume()
		if !until(time.Minute, func() bool { return !quiet.firing(t)["KamailioSIPNotAnswering"] }) {
			t.Error("SIP is answered again, and the alert still fires")
		}
	})
	t.Run("Kamailio stops", func(t *testing.T) {
		everyDay := quiet.firing(t) // some of these end late, and all return with Kamailio
		quiet.Kill()
		quiet.becomes(t, everyDay, []string{"KamailioDown", "KamailioSIPNotAnswering"}, nil)
		quiet.affects(t, "Servers", 0)
		before := quiet.firing(t)
		maps.Copy(before, everyDay)
		quiet.Restart()
		quiet.becomes(t, before, []string{"KamailioRestarted"}, []string{
			// What it has not found or registered within two seconds.
			"KamailioDispatcher", "KamailioDMQPeerDown", "KamailioTrunkRegistrationDown",
		})
		if quiet.firing(t)["KamailioDown"] {
			t.Error("Kamailio is back, and the alert still fires")
		}
	})
	t.Run("Kamailio refuses nearly all calls itself", func(t *testing.T) {
		before := quiet.firing(t)
		called := filepath.Join(t.TempDir(), "called.csv")
		if err := os.WriteFile(called, []byte("SEQUENTIAL\n6001;example.com;SIPp;\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		// There is no gateway for this number: 503, with a transaction.
		program(t, sipp, "-nostdin", "-skip_rlimit", "-i", "127.0.0.1", "-mi", anyLoopback(), "-sf", scenarioFile(t, "call-refused"), "-inf", called, "-r", "3", "-m", "300", quiet.SIPAddr)
		quiet.becomes(t, before, []string{"KamailioCallsRefused", "KamailioLocalServerErrors", "KamailioSessionEstablishmentRatioLow"}, []string{"KamailioDispatcher", "KamailioDMQPeerDown", "KamailioTrunkRegistrationDown", "KamailioDrouting", "KamailioRTPEngine", "KamailioKeepalive"})
		quiet.affects(t, "Calls", 0)
	})
	t.Run("ACKs are lost", func(t *testing.T) {
		before := small.firing(t)
		program(t, sipp, "-nostdin", "-skip_rlimit", "-i", "127.0.0.1", "-mi", anyLoopback(), "-sf", abs(t, "../../examples/demo/sipp/call-unacked.xml"),
			"-inf", filepath.Join(small.Dir, "traffic", "called.csv"), "-r", "3", "-m", "120", "-d", "20000", small.SIPAddr)
		small.becomes(t, before, []string{"KamailioAnswersRetransmitted"}, []string{latencyOfTwin})
	})
	t.Run("memory fills", func(t *testing.T) {
		before := small.firing(t)
		// Calls that end free memory, so fill it again until the alert fires.
		until(90*time.Second, func() bool {
			fill(t, small.Server, 0.96)
			return small.firing(t)["KamailioSharedMemoryExhausted"]
		})
		small.becomes(t, before, []string{"KamailioSharedMemoryAlmostFull", "KamailioSharedMemoryExhausted"}, []string{latencyOfTwin})
		small.affects(t, "Memory", 1)
	})
}

func abs(t *testing.T, path string) string {
	t.Helper()
	path, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// fill adds entries to a hash table until this share of the shared memory is used.
func fill(t *testing.T, s *kamailiotest.Server, share float64) {
	t.Helper()
	value := strings.Repeat("x", 3000)
	for i := 0; ; i++ {
		var memory struct {
			Total    float64 `json:"total"`
			RealUsed float64 `json:"real_used"`
		}
		if err := json.Unmarshal(s.RPC(t, "core.shmmem"), &memory); err != nil {
			t.Fatal(err)
		}
		if memory.RealUsed > share*memory.Total {
			return
		}
		if i > 1000 || memory.Total == 0 {
			t.Fatalf("the memory does not fill: %+v", memory)
		}
		for j := range 10 {
			s.RPC(t, "htable.sets", "ipban", fmt.Sprint("fill", time.Now().UnixNano(), "-", j), value)
		}
	}
}
