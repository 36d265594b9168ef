package admin

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"
	"unsafe"
)

const (
	// maxConns limits the open connections, which use about 20 KiB each. One more
	// connection waits and replaces one whose client is idle, so idle connections of
	// strangers cannot lock out others.
	maxConns = 128
	// grace is how long a client may be idle while another connection waits. It lets a
	// crowd of active clients be served in turn, even on a busy machine, without
	// closing any of their connections. Choose it together with maxConns: among 300
	// idle clients, an active one waits for (300-maxConns)/maxConns times grace.
	grace = 250 * time.Millisecond
	// newsMax is how often received data restarts the grace time: a TLS handshake and a
	// request arrive in about that many pieces. Sending byte by byte gains no more
	// time.
	newsMax = 4
)

// connInfo is the state of one connection.
type connInfo struct {
	conn   net.Conn
	peer   peer
	source string // a local user or an address
	all    *connections

	// Protected by connections.mu.
	reading, writing bool      // the server is blocked in a read or write, as far as is known
	since            time.Time // when the wait for the client began, or its last data arrived
	heard            int       // how often data arrived since then
	busy             bool      // a request is being served, so a concurrent read does not count as waiting
}

// waits reports whether the server is waiting for this connection's client.
func (i *connInfo) waits() bool { return i.writing || i.reading && !i.busy }

type connKey struct{}

// connOf returns nil if the connection is not from our listener, as in handler tests.
func connOf(r *http.Request) *connInfo {
	c, _ := r.Context().Value(connKey{}).(*connInfo)
	return c
}

// ownsLog reports whether the client can read the audit log anyway, as its owner or
// root.
func (i *connInfo) ownsLog() bool {
	return i != nil && i.peer.known && (i.peer.uid == 0 || int(i.peer.uid) == os.Geteuid())
}

// set changes the state of a connection.
func (i *connInfo) set(change func()) {
	if i == nil {
		return
	}
	i.all.mu.Lock()
	defer i.all.mu.Unlock()
	change()
	i.all.wake()
}

// work marks that a request is being served; listen marks that the server reads more of
// it or waits for the next one.
func (i *connInfo) work()   { i.set(func() { i.busy = true }) }
func (i *connInfo) listen() { i.set(func() { i.busy, i.since, i.heard = false, time.Now(), 0 }) }

// connections holds the open connections.
type connections struct {
	max   int
	grace time.Duration

	mu      sync.Mutex
	open    []*connInfo // oldest first
	closed  bool
	changed chan struct{} // closed and replaced whenever one of these changes
}

func newConnections() *connections {
	return &connections{max: maxConns, grace: grace, changed: make(chan struct{})}
}

func (c *connections) wake() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// enter waits for a free place.
func (c *connections) enter(i *connInfo) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.open) >= c.max && !c.closed {
		slow := c.slowest()
		if slow != nil && time.Since(slow.since) >= c.grace {
			c.remove(slow)
			slow.conn.Close()
			continue
		}
		enough := make(<-chan time.Time)
		if slow != nil {
			enough = time.After(c.grace - time.Since(slow.since))
		}
		changed := c.changed
		c.mu.Unlock()
		select {
		case <-changed:
		case <-enough:
		}
		c.mu.Lock()
	}
	if c.closed {
		return net.ErrClosed
	}
	i.since = time.Now()
	c.open = append(c.open, i)
	return nil
}

// slowest returns the connection to close, if any: among those of the source with the
// most connections, the one that the server has waited for longest. A connection with
// unread data is not a candidate, because then the server is slow, not the client.
func (c *connections) slowest() *connInfo {
	of := map[string]int{}
	for _, i := range c.open {
		of[i.source]++
	}
	var worst *connInfo
	for _, i := range c.open {
		if !i.waits() || worst != nil && (of[i.source] < of[worst.source] || of[i.source] == of[worst.source] && !i.since.Before(worst.since)) || !i.writing && unread(i.conn) > 0 {
			continue
		}
		worst = i
	}
	return worst
}

// unread returns the number of bytes that wait in a socket.
func unread(conn net.Conn) (n int32) {
	socket, ok := conn.(syscall.Conn)
	if !ok {
		return 0
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return 0
	}
	_ = raw.Control(func(fd uintptr) {
		_, _, _ = syscall.Syscall(syscall.SYS_IOCTL, fd, syscall.TIOCINQ, uintptr(unsafe.Pointer(&n))) //nolint:gosec // TIOCINQ is FIONREAD
	})
	return n
}

// remove must be called with mu held.
func (c *connections) remove(i *connInfo) {
	c.open = slices.DeleteFunc(c.open, func(o *connInfo) bool { return o == i })
	c.wake()
}

// begin is the http.Server.ConnContext hook.
func (c *connections) begin(ctx context.Context, conn net.Conn) context.Context {
	if t, ok := conn.(*tls.Conn); ok {
		conn = t.NetConn()
	}
	if t, ok := conn.(*trackedConn); ok {
		ctx = context.WithValue(ctx, connKey{}, t.info)
	}
	return ctx
}

// limitedListener limits the number of open connections. All but one of the waiting
// connections wait in the kernel.
type limitedListener struct {
	net.Listener
	conns *connections
}

func (l limitedListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	i := &connInfo{conn: conn, peer: peerOf(conn), all: l.conns}
	i.source = sourceOf(i.peer, conn.RemoteAddr().String())
	if err := l.conns.enter(i); err != nil {
		conn.Close()
		return nil, err
	}
	return &trackedConn{conn, i}, nil
}

func (l limitedListener) Close() error {
	l.conns.mu.Lock()
	l.conns.closed = true
	l.conns.wake()
	l.conns.mu.Unlock()
	return l.Listener.Close()
}

// trackedConn frees its place when it is closed.
type trackedConn struct {
	net.Conn
	info *connInfo
}

func (t *trackedConn) Read(p []byte) (int, error) {
	i := t.info
	i.set(func() { i.reading = true })
	n, err := t.Conn.Read(p)
	i.set(func() {
		if i.reading = false; n > 0 && i.heard < newsMax {
			i.heard, i.since = i.heard+1, time.Now()
		}
	})
	return n, err
}

func (t *trackedConn) Write(p []byte) (int, error) {
	t.info.set(func() { t.info.writing, t.info.since = true, time.Now() })
	defer t.info.set(func() { t.info.writing = false })
	return t.Conn.Write(p)
}

func (t *trackedConn) Close() error {
	all := t.info.all
	all.mu.Lock()
	all.remove(t.info)
	all.mu.Unlock()
	return t.Conn.Close()
}

// sourceOf returns where a connection comes from: a local user or an address.
func sourceOf(p peer, address string) string {
	if p.known {
		return fmt.Sprintf("uid %d", p.uid)
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return "unknown"
	}
	return host
}
