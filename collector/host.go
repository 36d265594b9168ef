package collector

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
)

// Host reads what the kernel of this machine reports about Kamailio's processes. It is nil
// for a Kamailio on another machine.
type Host interface {
	// Open finds these processes of a Kamailio, the main one first, that was started at
	// this time. The error is an ErrNoData if they are not visible, or are not its own.
	Open(pids []int, started time.Time) (HostProcesses, error)
}

// HostProcesses are the processes of one running Kamailio.
type HostProcesses interface {
	// Read returns the usage of the processes, in the order in which they were opened. It
	// is nil for those that have ended.
	Read() []*ProcessUsage
	// Sockets returns the state of the sockets that the kernel reports.
	Sockets([]HostSocket) map[HostSocket]SocketUsage
	// MaxFDs returns the maximum number of file descriptors of a process; 0 if unknown.
	MaxFDs() int
	Close()
}

// ProcessUsage is what one process has used.
type ProcessUsage struct {
	CPU     time.Duration // user and system time, of all threads
	Ran     time.Duration // time on a CPU, of its main thread, to the nanosecond; 0: unknown
	Wait    time.Duration // time during which its main thread could run, but waited for a CPU
	Private int64         // bytes of resident memory that it shares with no file and no other process
	Shared  int64         // bytes of other resident memory
	FDs     int           // open file descriptors; -1: unknown
}

// HostSocket is a socket that Kamailio listens on.
type HostSocket struct {
	UDP     bool
	Address string // IP address
	Port    string
}

// SocketUsage is the state of a socket. For TCP, it is that of the queue of connections
// which Kamailio has not accepted yet.
type SocketUsage struct {
	Queue   int64 // bytes, or connections
	Limit   int64 // -1: unknown
	Dropped uint64
}

var (
	udpQueueDesc   = NewDesc("kamailio_host_udp_queue_bytes", "Memory of the datagrams that wait in the socket's receive queue. If it is not 0, all workers of this socket are busy.", gauge, "/proc/PID/net/udp", "address", "port")
	udpLimitDesc   = NewDesc("kamailio_host_udp_queue_limit_bytes", "Size of the socket's receive queue (SO_RCVBUF). When it is full, the kernel drops datagrams. Only if Kamailio is in the exporter's network namespace.", gauge, "sock_diag(7)", "address", "port")
	udpDroppedDesc = NewDesc("kamailio_host_udp_dropped_total", "Datagrams that the kernel dropped before Kamailio could receive and count them, because the receive queue was full or the checksum was wrong.", counter, "/proc/PID/net/udp", "address", "port")
	udpStalledDesc = NewDesc("kamailio_host_udp_stalled", "1 if datagrams were waiting at this scrape and at the previous one, and none of the socket's workers has run in between, else 0.", gauge, "/proc/PID/net/udp and /proc/PID/schedstat", "address", "port")

	tcpQueueDesc   = NewDesc("kamailio_host_tcp_accept_queue_connections", "Connections that Kamailio has not accepted yet. Only if Kamailio is in the exporter's network namespace.", gauge, "sock_diag(7)", "protocol", "address", "port")
	tcpLimitDesc   = NewDesc("kamailio_host_tcp_accept_queue_limit_connections", "Size of the queue of connections that are not accepted yet (net.core.somaxconn, and tcp_listen_backlog where Kamailio has it). When it is full, the kernel drops connection requests.", gauge, "sock_diag(7)", "protocol", "address", "port")
	tcpDroppedDesc = NewDesc("kamailio_host_tcp_accept_dropped_total", "Connection requests that the kernel dropped, mostly because the queue of connections that are not accepted yet was full.", counter, "sock_diag(7)", "protocol", "address", "port")

	cpuDesc      = NewDesc("kamailio_host_process_cpu_seconds_total", "CPU time of Kamailio's processes, by their task.", counter, "/proc/PID/stat", "description")
	waitDesc     = NewDesc("kamailio_host_process_cpu_wait_seconds_total", "Time during which Kamailio's processes could run, but waited for a CPU, by their task. It includes the limit of a cgroup.", counter, "/proc/PID/schedstat", "description")
	privateDesc  = NewDesc("kamailio_host_process_private_memory_bytes", "Resident private memory of Kamailio's processes, by their task. What a process has not changed since it was forked counts for each process.", gauge, "/proc/PID/statm", "description")
	sharedDesc   = NewDesc("kamailio_host_shared_memory_bytes", "Resident shared memory and mapped files of the process that uses most of it. Most of it is shared by all processes.", gauge, "/proc/PID/statm")
	fdsDesc      = NewDesc("kamailio_host_process_open_fds", "Open file descriptors of the process that has most of them, by task. Before Linux 6.2, this requires permission to trace Kamailio.", gauge, "/proc/PID/fd", "description")
	maxFDsDesc   = NewDesc("kamailio_host_process_max_fds", "Maximum number of open file descriptors of a process.", gauge, "/proc/PID/limits")
	replacedDesc = NewDesc("kamailio_host_process_restarts_total", "Processes of Kamailio that were replaced while it kept running, since the exporter has observed it.", counter, "core.psx PID")
)

// host is the part of an overload that Kamailio cannot see: what the kernel drops before
// Kamailio counts it, and whether the processes get to run.
type host struct{ Host }

func (host) Name() string { return "host" }

func (host) About() string {
	return "Receive queues, dropped datagrams, CPU time, memory and file descriptors, if Kamailio runs on the exporter's host"
}

func (host) Methods() []string { return []string{processesMethod} }

func (host) Descs() []*Desc {
	return []*Desc{
		udpQueueDesc, udpLimitDesc, udpDroppedDesc, udpStalledDesc, tcpQueueDesc, tcpLimitDesc, tcpDroppedDesc,
		cpuDesc, waitDesc, privateDesc, sharedDesc, fdsDesc, maxFDsDesc, replacedDesc,
	}
}

// Update makes no calls that other collectors do not make.
func (h host) Update(ctx context.Context, s *Session, emit Emit) error {
	if h.Host == nil {
		return fmt.Errorf("%w: Kamailio does not run on this host", ErrNoData)
	}
	reply, err := s.Call(ctx, processesMethod)
	if err != nil {
		return err
	}
	uptime, err := s.Call(ctx, uptimeMethod)
	if err != nil {
		return err
	}
	started, ok := startTime(uptime, time.Now())
	if !ok {
		return unknownShape(uptimeMethod, "no start time in the reply")
	}
	// Without this list, there are no samples of sockets.
	sockets, _ := s.CallFixed(ctx, "core.sockets_list")

	state := &s.server.host
	state.mu.Lock()
	defer state.mu.Unlock()
	if err := state.find(h.Host, hostProcessesOf(reply), time.Unix(int64(started), 0)); err != nil {
		return err
	}
	state.emitProcesses(emit)
	state.emitSockets(listenersOf(sockets), emit)
	return nil
}

func hostProcessesOf(reply kamrpc.Value) (all []*hostProcess) {
	for p := range reply.All("") {
		if pid, err := strconv.Atoi(p.Get("PID").Text()); err == nil && pid > 0 {
			all = append(all, &hostProcess{pid: pid, description: p.Get("DSC").Text()})
		}
	}
	return all
}

// listener is a socket, with the labels of kamailio_core_listen_socket_info.
type listener struct {
	HostSocket
	protocol, address string
}

func listenersOf(reply kamrpc.Value) (all []listener) {
	for v := range reply.All("socket") {
		l := listener{protocol: v.Get("proto").Text(), address: v.Get("address").Text()}
		// Without a parameter listen= (Debian's configuration), only the address is reported.
		l.HostSocket = HostSocket{l.protocol == "udp", cmp.Or(v.Get("ipaddress").Text(), l.address), v.Get("port").Text()}
		if l.UDP || l.protocol == "tcp" || l.protocol == "tls" {
			all = append(all, l)
		}
	}
	return all
}

// serves reports whether a process receives from this socket.
func (l listener) serves(p *hostProcess) bool {
	_, socket, _ := strings.Cut(p.description, " sock=") // core/udp_server.c and main.c
	socket, _, _ = strings.Cut(socket, " ")              // the advertised address follows
	for _, address := range []string{l.address, "[" + l.address + "]", l.Address, "[" + l.Address + "]"} {
		if socket == address+":"+l.Port {
			return true
		}
	}
	return false
}

// hostState is what is known about the processes of one running Kamailio.
type hostState struct {
	mu        sync.Mutex
	opened    HostProcesses
	processes []*hostProcess
	gone      map[string]hostGone // by kind
	replaced  int
	waiting   map[HostSocket]hostWaiting
}

type hostProcess struct {
	pid               int
	description, kind string
	usage             ProcessUsage // while it ran
	ended             bool
}

// hostGone is what replaced processes had used, so that the sums never decrease.
type hostGone struct{ cpu, wait time.Duration }

// hostWaiting is since when datagrams wait in a socket while none of its workers runs.
type hostWaiting struct {
	since time.Time
	ran   time.Duration
}

// find opens the processes, unless they are open already.
func (h *hostState) find(host Host, processes []*hostProcess, started time.Time) error {
	if h.opened != nil && slices.EqualFunc(h.processes, processes, func(a, b *hostProcess) bool { return a.pid == b.pid && a.description == b.description }) {
		return nil
	}
	var pids []int
	for _, p := range processes {
		pids = append(pids, p.pid)
	}
	opened, err := host.Open(pids, started)
	if err != nil {
		return err
	}
	if h.gone == nil {
		h.gone, h.waiting = map[string]hostGone{}, map[HostSocket]hostWaiting{}
	}
	for _, p := range h.processes {
		if !slices.Contains(pids, p.pid) {
			g := h.gone[p.kind]
			h.gone[p.kind] = hostGone{g.cpu + p.usage.CPU, g.wait + p.usage.Wait}
			h.replaced++
		}
	}
	if h.opened != nil {
		h.opened.Close()
	}
	for _, p := range processes {
		p.kind = processKind(p.description)
	}
	h.opened, h.processes = opened, processes
	return nil
}

func (h *hostState) emitProcesses(emit Emit) {
	for i, usage := range h.opened.Read() {
		if h.processes[i].ended = usage == nil; usage != nil {
			h.processes[i].usage = *usage
		}
	}
	type sum struct {
		cpu, wait, ran time.Duration
		private        int64
		fds            int
	}
	kinds, sums := []string{}, map[string]*sum{}
	shared := int64(0)
	for _, p := range h.processes {
		k := sums[p.kind]
		if k == nil {
			g := h.gone[p.kind]
			k = &sum{cpu: g.cpu, wait: g.wait, fds: -1}
			kinds, sums[p.kind] = append(kinds, p.kind), k
		}
		k.cpu, k.wait, k.ran = k.cpu+p.usage.CPU, k.wait+p.usage.Wait, k.ran+p.usage.Ran
		if !p.ended {
			k.private, k.fds = k.private+p.usage.Private, max(k.fds, p.usage.FDs)
			shared = max(shared, p.usage.Shared)
		}
	}
	for _, kind := range kinds {
		k := sums[kind]
		emit(cpuDesc, k.cpu.Seconds(), kind)
		if k.ran > 0 {
			emit(waitDesc, k.wait.Seconds(), kind)
		}
		emit(privateDesc, float64(k.private), kind)
		if k.fds >= 0 {
			emit(fdsDesc, float64(k.fds), kind)
		}
	}
	emit(sharedDesc, float64(shared))
	emit(replacedDesc, float64(h.replaced))
	if most := h.opened.MaxFDs(); most > 0 {
		emit(maxFDsDesc, float64(most))
	}
}

func (h *hostState) emitSockets(listeners []listener, emit Emit) {
	wanted := make([]HostSocket, len(listeners))
	for i, l := range listeners {
		wanted[i] = l.HostSocket
	}
	usage := h.opened.Sockets(wanted)
	for _, l := range listeners {
		u, known := usage[l.HostSocket]
		if !known {
			continue
		}
		queue, limit, dropped, labels := udpQueueDesc, udpLimitDesc, udpDroppedDesc, []string{l.address, l.Port}
		if !l.UDP {
			queue, limit, dropped, labels = tcpQueueDesc, tcpLimitDesc, tcpDroppedDesc, []string{l.protocol, l.address, l.Port}
		}
		emit(queue, float64(u.Queue), labels...)
		if u.Limit >= 0 {
			emit(limit, float64(u.Limit), labels...)
		}
		emit(dropped, float64(u.Dropped), labels...)
		if l.UDP {
			if stalled, known := h.stalled(l, u.Queue > 0, time.Now()); known {
				emit(udpStalledDesc, Bool01(stalled), labels...)
			}
		}
	}
}

// shortestStall is the shortest time that counts as a stall. Two scrapes at almost the
// same time can find the same datagram.
const shortestStall = time.Second

// stalled reports whether datagrams wait although none of the socket's workers has run
// since an earlier scrape, at which datagrams waited too.
func (h *hostState) stalled(l listener, waiting bool, now time.Time) (stalled, known bool) {
	var ran time.Duration
	for _, p := range h.processes {
		if l.serves(p) {
			ran += p.usage.Ran
		}
	}
	since, waited := h.waiting[l.HostSocket]
	switch {
	case !waiting:
		delete(h.waiting, l.HostSocket)
	case waited && since.ran == ran:
		return now.Sub(since.since) >= shortestStall, ran > 0
	default:
		h.waiting[l.HostSocket] = hostWaiting{now, ran}
	}
	return false, ran > 0
}
