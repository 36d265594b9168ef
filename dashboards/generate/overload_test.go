package generate

import (
	"context"
	"encoding/json"
	"maps"
	"net"
	"os/exec"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/kamailio-exporter/kamailio_exporter/kamrpc/kamrpctest/kamailiotest"
)

// overloaded is a server with two workers, which compute for some milliseconds, or sleep
// on, as the called user says.
const overloaded = `#!KAMAILIO
debug=0
log_stderror=yes
children=2
tcp_children=1
max_while_loops=100000
loadmodule "jsonrpcs.so"
loadmodule "kex.so"
loadmodule "pv.so"
loadmodule "cfgutils.so"

request_route {
	if ($rU == "hang") sleep("600");
	$var(i) = 0;
	while ($rU == "busy" && $var(i) < 10000) $var(i) = $var(i) + 1;
}
`

// TestOverloadFiresAlerts checks that a flood of SIP, an attack with connections, and
// workers that hang fire the alerts of the group kamailio-host, that the overview shows the
// workers as the part at fault, and that nothing of it lasts.
func TestOverloadFiresAlerts(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: starts real servers")
	}
	version := kamailiotest.Versions(t)[0]
	kamailiotest.Needs(t, "prometheus", "prometheus")
	sipp := kamailiotest.Needs(t, "sipp", "sip-tester")
	server := kamailiotest.Start(t, kamailiotest.Config{Version: version, Edit: func(string) string { return overloaded }})
	defer server.Kill() // workers that hang would keep it from stopping
	var processes []struct{ PID int }
	if err := json.Unmarshal(server.RPC(t, "core.psx"), &processes); err != nil {
		t.Fatal(err)
	}
	const limit = 60 // file descriptors
	for _, p := range processes {
		if out, err := exec.Command("prlimit", "--pid", strconv.Itoa(p.PID), "--nofile="+strconv.Itoa(limit)).CombinedOutput(); err != nil {
			t.Fatalf("prlimit: %v %s", err, out)
		}
	}
	exporter := exporterAt(t, buildExporter(t), "--kamailio.uri=unix://"+server.SocketPath)
	w := watched{server, exporter, runPrometheus(t, []string{exporter}, faster(t))}
	scenario := scenarioFile(t, "options")
	send := func(user, perSecond string, more ...string) (stop func()) {
		ctx, cancel := context.WithCancel(t.Context())
		cmd := exec.CommandContext(ctx, sipp, append([]string{"-nostdin", "-skip_rlimit", "-i", "127.0.0.1", "-sf", scenario, "-s", user, "-r", perSecond, server.SIPAddr}, more...)...)
		cmd.Dir = t.TempDir()
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		return func() { cancel(); _ = cmd.Wait() }
	}
	ours := []string{"KamailioFileDescriptorsNearLimit", "KamailioPacketsDropped", "KamailioReceiveQueueNearLimit", "KamailioUDPWorkersHang", "KamailioWorkersSaturated"}
	// become waits until these alerts of ours fire, and no others.
	become := func(names ...string) {
		t.Helper()
		var now []string
		began := time.Now()
		if !until(90*time.Second, func() bool {
			firing := w.firing(t)
			maps.DeleteFunc(firing, func(name string, _ bool) bool { return !slices.Contains(ours, name) })
			now = slices.Sorted(maps.Keys(firing))
			return slices.Equal(now, names)
		}) {
			t.Errorf("%q fire, not %q", now, names)
		}
		t.Logf("after %v: %q", time.Since(began).Round(time.Second), now)
	}

	defer send("quiet", "5")()
	w.affects(t, "Nothing", 2)
	if firing := w.firing(t); slices.ContainsFunc(ours, func(name string) bool { return firing[name] }) {
		t.Errorf("a server without much traffic fires %v", firing)
	}
	var connections []net.Conn
	for range limit - 5 {
		conn, err := net.DialTimeout("tcp", server.SIPAddr, 5*time.Second)
		if err != nil {
			break // there are no more file descriptors
		}
		connections = append(connections, conn)
	}
	stop := send("busy", "3000")
	become("KamailioFileDescriptorsNearLimit", "KamailioPacketsDropped", "KamailioReceiveQueueNearLimit", "KamailioWorkersSaturated")
	w.affects(t, "SIP workers", 1)
	stop()
	for _, conn := range connections {
		_ = conn.Close()
	}
	become()
	send("hang", "100", "-m", "2")
	become("KamailioUDPWorkersHang")
	w.affects(t, "SIP workers", 0)
	server.RPC(t, "core.uptime") // is answered
}
