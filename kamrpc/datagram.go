package kamrpc

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
)

// The largest replies that can arrive. Kamailio sends a reply as one datagram. If the send
// buffer of its socket is too small, it drops the reply with an ERROR line. jsonrpcs_sock.c
// requests 64 KiB; Linux doubles that and reserves 32 bytes.
const (
	unixMaxReply = 2*64<<10 - 32
	udpMaxReply  = 65_507
)

// maxDatagram is the largest reply that Kamailio can send if it keeps the default send
// buffer of Linux (net.core.wmem_default).
const maxDatagram = 212_992

func datagramTraits(limit int64) Traits {
	return Traits{MaxReply: limit, Silence: fmt.Sprintf("the reply is larger than the %d bytes that this transport carries (in that case add the FIFO or HTTP as another URI)", limit)}
}

// unixDatagram is the jsonrpcs datagram socket, which Kamailio's default config opens.
type unixDatagram struct {
	path string
	idle *idleConns
}

func (t unixDatagram) String() string { return "unix://" + t.path }

func (t unixDatagram) Traits() Traits { return datagramTraits(unixMaxReply) }

func (t unixDatagram) RoundTrip(ctx context.Context, request []byte) (io.ReadCloser, error) {
	if conn := t.idle.take(); conn != nil {
		if reply, err := askDatagram(ctx, conn, t.idle, request); err == nil {
			return reply, nil
		} // nothing was sent: Kamailio was restarted, or its receive buffer is full
	}
	// Kamailio replies to the sender's address. Binding to the empty name lets Linux
	// choose an abstract one. It leaves no file behind, and works across a chroot or a
	// container that shares the network namespace.
	dialer := &net.Dialer{Control: func(_, _ string, c syscall.RawConn) (err error) {
		if ctlErr := c.Control(func(fd uintptr) {
			err = syscall.Bind(int(fd), &syscall.SockaddrUnix{})
		}); ctlErr != nil {
			return ctlErr
		}
		return err
	}}
	conn, err := dialer.DialContext(ctx, "unixgram", t.path)
	if err != nil {
		return nil, unreachable(err)
	}
	return askDatagram(ctx, conn, t.idle, request)
}

// udpDatagram is jsonrpcs with dgram_socket "udp:host:port".
type udpDatagram struct {
	address string
	dialer  *net.Dialer
}

func (t udpDatagram) String() string { return "udp://" + t.address }

func (t udpDatagram) Traits() Traits { return datagramTraits(udpMaxReply) }

func (t udpDatagram) RoundTrip(ctx context.Context, request []byte) (io.ReadCloser, error) {
	conn, err := t.dialer.DialContext(ctx, "udp", t.address)
	if err != nil {
		return nil, unreachable(err)
	}
	return askDatagram(ctx, conn, nil, request)
}

// maxRequest is the limit in jsonrpcs_sock.c for datagrams and TCP.
const maxRequest = 65_456

// askDatagram sends a request. A socket carries one request at a time, and is only used
// again after the reply to it arrived (idle; nil: never), so that a late reply to an
// earlier request cannot be received. The network may duplicate a reply over UDP.
func askDatagram(ctx context.Context, conn net.Conn, idle *idleConns, request []byte) (io.ReadCloser, error) {
	release := bind(ctx, conn)
	var err error
	if len(request) > maxRequest {
		err = fmt.Errorf("the request has %d bytes; a datagram carries at most %d", len(request), maxRequest)
	} else if _, err = conn.Write(request); err != nil {
		err = unreachable(err)
	}
	if err != nil {
		release()
		conn.Close()
		return nil, err
	}
	return &datagramReply{conn: conn, idle: idle, release: release}, nil
}

// datagramReply turns the received datagrams into a stream.
type datagramReply struct {
	conn    net.Conn
	idle    *idleConns
	release func() bool
	buffer  *[]byte // of datagramBuffers, while in use
	rest    []byte  // of the current datagram
	replies int     // received so far
}

// A datagram must be read in one call, into a buffer for the largest possible one.
var datagramBuffers = sync.Pool{New: func() any {
	b := make([]byte, maxDatagram)
	return &b
}}

func (r *datagramReply) Read(p []byte) (int, error) {
	if len(r.rest) == 0 {
		if r.buffer == nil {
			r.buffer = datagramBuffers.Get().(*[]byte)
		}
		n, err := r.conn.Read(*r.buffer)
		if err != nil {
			if isRefused(err) { // ICMP: the port is closed
				err = unreachable(err)
			}
			return 0, err
		}
		r.rest = (*r.buffer)[:n]
		r.replies++
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

func (r *datagramReply) Close() error {
	usable := r.release()
	if r.buffer != nil {
		datagramBuffers.Put(r.buffer)
		r.buffer, r.rest = nil, nil
	}
	if usable && r.replies == 1 && r.idle != nil {
		r.idle.put(r.conn)
		return nil
	}
	return r.conn.Close()
}
