package host

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kamailio-exporter/kamailio_exporter/collector"
)

// sock_diag(7) is what ss(8) uses. Unlike the lists in /proc/net, it can be asked for some
// sockets only: a host may have 100,000 connections, or 10,000 sockets for RTP.

const (
	requestSize    = 16 + 56         // struct nlmsghdr, inet_diag_req_v2 (linux/inet_diag.h)
	messageSize    = 72              // struct inet_diag_msg
	memoryInfo     = 7               // INET_DIAG_SKMEMINFO
	receiveBuffer  = 1 * 4           // SK_MEMINFO_RCVBUF (linux/sock_diag.h)
	drops          = 8 * 4           // SK_MEMINFO_DROPS
	unconnected    = 7               // TCP_CLOSE (net/tcp_states.h), the state of a UDP socket without a peer
	listening      = 10              // TCP_LISTEN
	diagnoseWithin = 1 * time.Second // the kernel answers at once
)

var native = binary.NativeEndian

// replies are the buffers for the kernel's replies, the largest part of what a scrape
// would allocate. The kernel fills up to 32 KiB only if the reader has as much.
var replies = sync.Pool{New: func() any { return new([16 << 10]byte) }}

// diagnose returns the state of sockets in the exporter's own network namespace.
func diagnose[T any](wanted map[socket]T) (map[socket]collector.SocketUsage, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, fmt.Errorf("sock_diag: %w", err)
	}
	defer unix.Close(fd)
	timeout := unix.NsecToTimeval(diagnoseWithin.Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout); err != nil {
		return nil, fmt.Errorf("sock_diag: %w", err)
	}
	type question struct {
		family, protocol byte
		port             uint16
	}
	found, asked := map[socket]collector.SocketUsage{}, map[question]bool{}
	buffer := replies.Get().(*[16 << 10]byte)
	defer replies.Put(buffer)
	for s := range wanted {
		q := question{unix.AF_INET, unix.IPPROTO_TCP, s.port}
		if s.address.Is6() {
			q.family = unix.AF_INET6
		}
		if s.udp {
			q.protocol = unix.IPPROTO_UDP
		}
		if asked[q] {
			continue
		}
		asked[q] = true
		if err := dump(fd, buffer[:], q.family, q.protocol, q.port, found); err != nil {
			return nil, fmt.Errorf("sock_diag: %w", err)
		}
	}
	return found, nil
}

// dump adds the sockets with a port that have no peer.
func dump(fd int, buffer []byte, family, protocol byte, port uint16, found map[socket]collector.SocketUsage) error {
	state := 1 << listening
	if protocol == unix.IPPROTO_UDP {
		state = 1 << unconnected
	}
	request := make([]byte, requestSize)
	native.PutUint32(request[0:], requestSize)
	native.PutUint16(request[4:], unix.SOCK_DIAG_BY_FAMILY)
	native.PutUint16(request[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	request[16], request[17], request[18] = family, protocol, 1<<(memoryInfo-1)
	native.PutUint32(request[20:], uint32(state))
	binary.BigEndian.PutUint16(request[24:], port)
	if err := unix.Sendto(fd, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	for {
		n, _, err := unix.Recvfrom(fd, buffer, 0)
		if err != nil {
			return err
		}
		messages, err := syscall.ParseNetlinkMessage(buffer[:n])
		if err != nil {
			return err
		}
		for _, m := range messages {
			switch m.Header.Type {
			case unix.NLMSG_DONE:
				return nil
			case unix.NLMSG_ERROR:
				if len(m.Data) >= 4 && native.Uint32(m.Data) != 0 {
					return unix.Errno(-int32(native.Uint32(m.Data))) //nolint:gosec // a negative errno
				}
				return nil
			case unix.SOCK_DIAG_BY_FAMILY:
				if s, u, ok := parse(m.Data, protocol == unix.IPPROTO_UDP); ok {
					add(found, s, u)
				}
			}
		}
	}
}

// parse reads a struct inet_diag_msg and its attributes.
func parse(m []byte, udp bool) (s socket, u collector.SocketUsage, ok bool) {
	if len(m) < messageSize {
		return s, u, false
	}
	s = socket{udp, netip.AddrFrom4([4]byte(m[8:12])), binary.BigEndian.Uint16(m[4:])}
	if m[0] == unix.AF_INET6 {
		s.address = netip.AddrFrom16([16]byte(m[8:24]))
	}
	u = collector.SocketUsage{Queue: int64(native.Uint32(m[56:])), Limit: int64(native.Uint32(m[60:]))}
	for rest := m[messageSize:]; len(rest) >= 4; {
		size, kind := int(native.Uint16(rest)), native.Uint16(rest[2:])
		if size < 4 || size > len(rest) {
			break
		}
		if value := rest[4:size]; kind == memoryInfo && len(value) >= drops+4 {
			u.Dropped, ok = uint64(native.Uint32(value[drops:])), true
			if udp {
				u.Limit = int64(native.Uint32(value[receiveBuffer:]))
			}
		}
		rest = rest[min((size+3)&^3, len(rest)):]
	}
	return s, u, ok
}
