package collector_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kamailio-exporter/kamailio_exporter/collector"
)

// fakeHost is a host with these processes.
type fakeHost struct {
	usage   map[int]*collector.ProcessUsage // by process ID
	sockets map[collector.HostSocket]collector.SocketUsage
	hidden  bool
	opened  [][]int
	pids    []int
	closed  int
}

func (f *fakeHost) Open(pids []int, started time.Time) (collector.HostProcesses, error) {
	if f.hidden {
		return nil, fmt.Errorf("%w: not visible", collector.ErrNoData)
	}
	if started.Year() != 2026 {
		return nil, errors.New("another start time: " + started.String())
	}
	f.opened, f.pids = append(f.opened, pids), pids
	return f, nil
}

func (f *fakeHost) Read() (all []*collector.ProcessUsage) {
	for _, pid := range f.pids {
		all = append(all, f.usage[pid])
	}
	return all
}

func (f *fakeHost) Sockets(wanted []collector.HostSocket) map[collector.HostSocket]collector.SocketUsage {
	found := map[collector.HostSocket]collector.SocketUsage{}
	for s, u := range f.sockets {
		if slices.Contains(wanted, s) {
			found[s] = u
		}
	}
	return found
}

func (f *fakeHost) MaxFDs() int { return 1024 }
func (f *fakeHost) Close()      { f.closed++ }

const threeProcesses = `[{"IDX":0,"PID":10,"DSC":"main process - attendant"},{"IDX":1,"PID":11,"DSC":"udp receiver child=0 sock=[0:0:0:0:0:0:0:1]:5060"},{"IDX":2,"PID":12,"DSC":"udp receiver child=1 sock=[0:0:0:0:0:0:0:1]:5060"}]`

const fourSockets = `[{"socket":{"proto":"udp","address":"0:0:0:0:0:0:0:1","ipaddress":"0:0:0:0:0:0:0:1","port":"5060"}},{"socket":{"proto":"tls","address":"192.0.2.1","port":"5061"}},{"socket":{"proto":"tcp","address":"192.0.2.1","ipaddress":"192.0.2.1","port":"5060"}},{"socket":{"proto":"sctp","address":"192.0.2.1","ipaddress":"192.0.2.1","port":"5060"}}]`

func TestHost(t *testing.T) {
	server := bare(t)
	server.Handle("core.psx", threeProcesses)
	server.Handle("core.sockets_list", fourSockets)
	s, ms := time.Second, time.Millisecond
	host := &fakeHost{
		usage: map[int]*collector.ProcessUsage{
			10: {CPU: 4 * s, Ran: 4 * s, Wait: 10 * ms, Private: 100, Shared: 5000, FDs: 7},
			11: {CPU: 1 * s, Ran: 1 * s, Wait: 20 * ms, Private: 200, Shared: 6000, FDs: 9},
			12: {CPU: 2 * s, Ran: 2 * s, Wait: 30 * ms, Private: 300, Shared: 4000, FDs: 8},
			13: {CPU: 1 * ms, Ran: 1 * ms, Private: 1, FDs: -1},
		},
		sockets: map[collector.HostSocket]collector.SocketUsage{
			{UDP: true, Address: "0:0:0:0:0:0:0:1", Port: "5060"}: {Queue: 768, Limit: 2048, Dropped: 3},
			{Address: "192.0.2.1", Port: "5061"}:                  {Queue: 1, Limit: 1024, Dropped: 5},
		},
	}
	c := collector.NewCoordinator(client(t, server), collector.All(collector.Options{Host: host}), collector.Limits{})
	const first = `kamailio_host_process_cpu_seconds_total{description="main process - attendant"} 4
kamailio_host_process_cpu_seconds_total{description="udp receiver sock=[0:0:0:0:0:0:0:1]:5060"} 3
kamailio_host_process_cpu_wait_seconds_total{description="main process - attendant"} 0.01
kamailio_host_process_cpu_wait_seconds_total{description="udp receiver sock=[0:0:0:0:0:0:0:1]:5060"} 0.05
kamailio_host_process_max_fds 1024
kamailio_host_process_open_fds{description="main process - attendant"} 7
kamailio_host_process_open_fds{description="udp receiver sock=[0:0:0:0:0:0:0:1]:5060"} 9
kamailio_host_process_private_memory_bytes{description="main process - attendant"} 100
kamailio_host_process_private_memory_bytes{description="udp receiver sock=[0:0:0:0:0:0:0:1]:5060"} 500
kamailio_host_process_restarts_total 0
kamailio_host_shared_memory_bytes 6000
kamailio_host_tcp_accept_dropped_total{address="192.0.2.1",port="5061",protocol="tls"} 5
kamailio_host_tcp_accept_queue_connections{address="192.0.2.1",port="5061",protocol="tls"} 1
kamailio_host_tcp_accept_queue_limit_connections{address="192.0.2.1",port="5061",protocol="tls"} 1024
kamailio_host_udp_dropped_total{address="0:0:0:0:0:0:0:1",port="5060"} 3
kamailio_host_udp_queue_bytes{address="0:0:0:0:0:0:0:1",port="5060"} 768
kamailio_host_udp_queue_limit_bytes{address="0:0:0:0:0:0:0:1",port="5060"} 2048
kamailio_host_udp_stalled{address="0:0:0:0:0:0:0:1",port="5060"} 0
`
	if got := samples(t, scrape(t, c, "host")); got != first {
		t.Errorf("got\n%swant\n%s", got, first)
	}
	value := func(name string) string {
		t.Helper()
		_, after, _ := strings.Cut(samples(t, scrape(t, c, "host")), name+" ")
		value, _, _ := strings.Cut(after, "\n")
		return value
	}
	const receivers = `{description="udp receiver sock=[0:0:0:0:0:0:0:1]:5060"}`
	t.Run("a worker is replaced", func(t *testing.T) {
		server.Handle("core.psx", strings.Replace(threeProcesses, `"PID":12`, `"PID":13`, 1))
		if got := value("process_cpu_seconds_total" + receivers); got != "3.001" {
			t.Errorf("the CPU time is %s s: what the other had used is lost", got)
		}
		if got := value("process_restarts_total"); got != "1" || len(host.opened) != 2 || host.closed != 1 {
			t.Errorf("%s restarts, opened %v, closed %d", got, host.opened, host.closed)
		}
	})
	t.Run("a worker has ended", func(t *testing.T) {
		delete(host.usage, 11)
		if got := value("process_cpu_seconds_total" + receivers); got != "3.001" {
			t.Errorf("the CPU time is %s s", got)
		}
		if got := value("process_private_memory_bytes" + receivers); got != "1" {
			t.Errorf("%s bytes of private memory", got)
		}
	})
	t.Run("processes that are not visible", func(t *testing.T) {
		for _, hidden := range []collector.Host{nil, &fakeHost{hidden: true}} {
			c := collector.NewCoordinator(client(t, server), collector.All(collector.Options{Host: hidden}), collector.Limits{})
			s := scrape(t, c, "host")
			if r := s.Results[0]; r.Supported || r.Err != nil || samples(t, s) != "" {
				t.Errorf("supported %v, %v\n%s", r.Supported, r.Err, samples(t, s))
			}
		}
	})
}
