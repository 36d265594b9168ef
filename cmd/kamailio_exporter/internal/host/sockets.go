package host

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/prometheus/procfs"

	"github.com/kamailio-exporter/kamailio_exporter/collector"
)

// Sockets implements collector.HostProcesses. In the exporter's own network namespace,
// the kernel reports also the limits of the queues, and only the sockets that are asked
// for. In another one, /proc/PID/net/udp has what waits, and what was dropped.
func (p *processes) Sockets(wanted []collector.HostSocket) map[collector.HostSocket]collector.SocketUsage {
	byAddress := map[socket]collector.HostSocket{}
	for _, w := range wanted {
		address, err := netip.ParseAddr(w.Address)
		port, portErr := strconv.ParseUint(w.Port, 10, 16)
		if err == nil && portErr == nil {
			byAddress[socket{w.UDP, address, uint16(port)}] = w
		}
	}
	found, err := map[socket]collector.SocketUsage(nil), error(nil)
	if p.sameNetwork() {
		found, err = diagnose(byAddress)
	}
	if found == nil || err != nil {
		found = p.listed()
	}
	usage := map[collector.HostSocket]collector.SocketUsage{}
	for s, u := range found {
		if w, ok := byAddress[s]; ok {
			usage[w] = u
		}
	}
	return usage
}

// socket is a socket without a peer.
type socket struct {
	udp     bool
	address netip.Addr
	port    uint16
}

// sameNetwork reports whether Kamailio is in the exporter's network namespace. Each has
// files of its own; the link in /proc/PID/ns can only be read with permission to trace.
func (p *processes) sameNetwork() bool {
	theirs, err := os.Stat(filepath.Join(p.dir, strconv.Itoa(p.main), "net", "udp"))
	if err != nil {
		return false
	}
	ours, err := os.Stat("/proc/self/net/udp")
	return err == nil && os.SameFile(ours, theirs)
}

// listed reads the UDP sockets from /proc/PID/net. The lists of TCP have all connections,
// and neither the limit of a queue nor what was dropped.
func (p *processes) listed() map[socket]collector.SocketUsage {
	found := map[socket]collector.SocketUsage{}
	proc, err := procfs.NewFS(filepath.Join(p.dir, strconv.Itoa(p.main)))
	if err != nil {
		return found
	}
	udp, _ := proc.NetUDP()
	udp6, _ := proc.NetUDP6() // missing without IPv6
	for _, line := range slices.Concat(udp, udp6) {
		address, ok := netip.AddrFromSlice(line.LocalAddr)
		if !ok || line.St != unconnected || line.Drops == nil {
			continue
		}
		add(found, socket{true, address, uint16(line.LocalPort)}, collector.SocketUsage{Queue: int64(line.RxQueue), Limit: -1, Dropped: *line.Drops}) //nolint:gosec // they fit
	}
	return found
}

// add adds up the sockets of one address (SO_REUSEPORT).
func add(found map[socket]collector.SocketUsage, s socket, u collector.SocketUsage) {
	before := found[s]
	found[s] = collector.SocketUsage{Queue: before.Queue + u.Queue, Limit: before.Limit + u.Limit, Dropped: before.Dropped + u.Dropped}
}
