package host_test

import (
	"context"
	"net"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/host"
	"github.com/kamailio-exporter/kamailio_exporter/collector"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc/kamrpctest/kamailiotest"
)

// slowOnDemand is a server with two workers that takes as long as the called user says.
const slowOnDemand = `#!KAMAILIO
debug=0
log_stderror=yes
children=2
tcp_children=1
loadmodule "jsonrpcs.so"
loadmodule "kex.so"
loadmodule "pv.so"
loadmodule "cfgutils.so"

request_route {
	if ($rU == "slow") usleep("2000");
	if ($rU == "hang") sleep("600");
}
`

// seen is a page of one Kamailio: the values of its metrics, summed over their labels.
type seen struct {
	t *testing.T
	c *collector.Coordinator
}

func see(t *testing.T, s *kamailiotest.Server) seen {
	t.Helper()
	transport, err := kamrpc.Open("unix://"+s.SocketPath, nil)
	if err != nil {
		t.Fatal(err)
	}
	client, err := kamrpc.NewClient(kamrpc.Config{Transports: []kamrpc.Transport{transport}})
	if err != nil {
		t.Fatal(err)
	}
	return seen{t, collector.NewCoordinator(client, collector.All(collector.Options{Host: host.This}), collector.Limits{})}
}

// values scrapes, and returns the sums of the samples that have all these label values.
func (s seen) values(labels ...string) map[string]float64 {
	s.t.Helper()
	snapshot, err := s.c.Scrape(context.Background(), "host", "core", "core_traffic")
	if err != nil || !snapshot.Up {
		s.t.Fatal(err, snapshot)
	}
	all := map[string]float64{}
	for _, r := range snapshot.Results {
		if !r.Supported || r.Err != nil {
			s.t.Fatalf("collector %s: supported %v, %v", r.Collector, r.Supported, r.Err)
		}
		for _, sample := range r.Samples {
			if !slices.ContainsFunc(labels, func(l string) bool { return !slices.Contains(sample.Labels, l) }) {
				all[strings.TrimPrefix(sample.Desc.Name, "kamailio_")] += sample.Value
			}
		}
	}
	return all
}

// until scrapes until a page is as expected.
func (s seen) until(what string, ok func(map[string]float64) bool) map[string]float64 {
	s.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; {
		v := s.values()
		if ok(v) {
			return v
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("not seen: %s: %v", what, v)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// TestOverload floods a server over UDP. What SIPp sent and Kamailio did not count is what
// the page says was dropped. Then all workers hang.
func TestOverload(t *testing.T) {
	sipp := kamailiotest.Needs(t, "sipp", "sip-tester")
	scenario, err := filepath.Abs("../../../../examples/demo/sipp/options.xml")
	if err != nil {
		t.Fatal(err)
	}
	for _, version := range kamailiotest.AllVersions(t) {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			server := kamailiotest.Start(t, kamailiotest.Config{Version: version, Edit: func(string) string { return slowOnDemand }})
			page := see(t, server)
			socket := strings.Split(server.SIPAddr, ":")
			send := func(user, requests, perSecond string) {
				t.Helper()
				cmd := exec.Command(sipp, "-nostdin", "-skip_rlimit", "-i", "127.0.0.1", "-sf", scenario, "-s", user, "-m", requests, "-r", perSecond, server.SIPAddr)
				cmd.Dir = t.TempDir()
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Fatalf("%v:\n%s", err, out)
				}
			}
			received := func(v map[string]float64) float64 { return v["core_requests_received_total"] }

			quiet := page.values()
			for name, want := range map[string]float64{"host_udp_queue_bytes": 0, "host_udp_dropped_total": 0, "host_udp_stalled": 0, "host_tcp_accept_queue_connections": 0, "host_tcp_accept_dropped_total": 0, "host_process_restarts_total": 0} {
				if got, known := quiet[name]; !known || got != want {
					t.Errorf("%s is %v (exported: %v) on a quiet server", name, got, known)
				}
			}
			for _, name := range []string{"host_udp_queue_limit_bytes", "host_tcp_accept_queue_limit_connections", "host_process_cpu_seconds_total", "host_process_cpu_wait_seconds_total", "host_process_private_memory_bytes", "host_shared_memory_bytes", "host_process_open_fds", "host_process_max_fds"} {
				if quiet[name] <= 0 {
					t.Errorf("%s is %v", name, quiet[name])
				}
			}
			before := page.values("udp receiver sock=" + server.SIPAddr)["host_process_cpu_seconds_total"]

			send("slow", "4000", "20000")
			if v := page.values(socket...); v["host_udp_queue_bytes"] == 0 || v["host_udp_queue_bytes"] > v["host_udp_queue_limit_bytes"]+4096 {
				t.Errorf("%v of %v bytes wait after a flood", v["host_udp_queue_bytes"], v["host_udp_queue_limit_bytes"])
			}
			v := page.until("all is received", func(v map[string]float64) bool {
				return v["host_udp_queue_bytes"] == 0 && received(v)-received(quiet)+v["host_udp_dropped_total"] >= 4000
			})
			counted, dropped := received(v)-received(quiet), v["host_udp_dropped_total"]
			t.Logf("of 4000 datagrams, Kamailio counted %v and the kernel dropped %v", counted, dropped)
			if dropped == 0 || counted+dropped != 4000 {
				t.Errorf("of 4000 datagrams, Kamailio counted %v and the kernel dropped %v", counted, dropped)
			}
			if after := page.values("udp receiver sock=" + server.SIPAddr)["host_process_cpu_seconds_total"]; after <= before {
				t.Errorf("the UDP workers used %v s of CPU time before the flood and %v s after it", before, after)
			}

			send("hang", "2", "100")
			page.until("both workers hang", func(v map[string]float64) bool { return received(v)-received(quiet) == counted+2 })
			send("hang", "1", "100")
			if v := page.values(); v["host_udp_queue_bytes"] == 0 || v["host_udp_stalled"] != 0 {
				t.Errorf("the first scrape sees %v", v)
			}
			<-time.After(time.Second)
			if v := page.values(); v["host_udp_stalled"] != 1 {
				t.Errorf("the second scrape does not see that all workers hang: %v", v)
			}
			server.Kill() // its workers would sleep on
		})
	}
}

// TestAcceptQueue fills the queue of connections of a Kamailio that accepts none.
func TestAcceptQueue(t *testing.T) {
	server := kamailiotest.Start(t, kamailiotest.Config{Edit: func(string) string { return slowOnDemand }})
	page := see(t, server)
	limit := page.values()["host_tcp_accept_queue_limit_connections"]
	server.PauseTasks(t, "tcp main process")
	defer server.Kill()
	// The kernel queues one more than the limit, and drops further requests.
	for i := range int(limit) + 2 {
		timeout := 10 * time.Second
		if i > int(limit) {
			timeout = 100 * time.Millisecond
		}
		conn, err := net.DialTimeout("tcp", server.SIPAddr, timeout)
		if err == nil {
			t.Cleanup(func() { _ = conn.Close() })
		} else if i <= int(limit) {
			t.Fatal(err)
		}
	}
	v := page.values()
	if v["host_tcp_accept_queue_connections"] != limit+1 || v["host_tcp_accept_dropped_total"] == 0 {
		t.Errorf("a full queue of %v is seen as %v", limit, v)
	}
}
