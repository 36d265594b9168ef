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
	// maxConns is how many connections are open at once, each at some 20 KiB. One
	// more waits, and pushes out one whose client lets us wait: strangers who hold
	// connections open lock nobody out.
	maxConns = 128
	// grace is how long a client may say nothing while another one waits, so that a
	// crowd of clients who all have something to say is served in turn, also where
	// the machine has much to do, and nobody of it is pushed out. The two numbers
	// belong together: among 300 who never say anything, one who does waits for
	// (300-maxConns)/maxConns times this.
	grace = 250 * time.Millisecond
	// newsMax is how often it gains time by what it says: a TLS handshake and a
	// request come in as many pieces. Byte by byte it gains no more.
	newsMax = 4
)

// connInfo is what is known of one connection.
type connInfo struct {
	conn   net.Conn
	peer   peer
	source string // a user of the machine, or an address
	all    *connections

	// With the lock of all held.
	reading, writing bool      // it is waited for, as far as this program knows
	since            time.Time // when its client was first waited for, or last said something
	heard            int       // how often it did
	busy             bool      // a request is being served: what is read beside it is not waited for
}

// waits reports that this connection's client lets us wait.
func (i *connInfo) waits() bool { return i.writing || i.reading && !i.busy }

type connKey struct{}

// connOf is nil where there is no listener of ours: in a test of the handler alone.
func connOf(r *http.Request) *connInfo {
	c, _ := r.Context().Value(connKey{}).(*connInfo)
	return c
}

// ownsLog reports whether the client may read the audit log anyway, as its owner or root.
func (i *connInfo) ownsLog() bool {
	return i != nil && i.peer.known && (i.peer.uid == 0 || int(i.peer.uid) == os.Geteuid())
}

// set changes what is known of a connection.
func (i *connInfo) set(change func()) {
	if i == nil {
		return
	}
	i.all.mu.Lock()
	defer i.all.mu.Unlock()
	change()
	i.all.wake()
}

// work is while a request is served, listen while more of it is read, or the next
// one awaited.
func (i *connInfo) work()   { i.set(func() { i.busy = true }) }
func (i *connInfo) listen() { i.set(func() { i.busy, i.since, i.heard = false, time.Now(), 0 }) }

// connections are the open connections.
type connections struct {
	max   int
	grace time.Duration

	mu      sync.Mutex
	open    []*connInfo // oldest first
	closed  bool
	changed chan struct{} // closed, and made anew, when one of these changes
}

func newConnections() *connections {
	return &connections{max: maxConns, grace: grace, changed: make(chan struct{})}
}

func (c *connections) wake() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// enter waits for room.
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

// slowest is the connection to push out, if any: of the source that has most of
// them, the one that has been waited for the longest time. What has come and was
// not read yet is this program's slowness, not the client's.
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

// unread reports how many bytes wait in a socket.
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
		_, _, _ = syscall.Syscall(syscall.SYS_IOCTL, fd, syscall.TIOCINQ, uintptr(unsafe.Pointer(&n))) //nolint:gosec // FIONREAD, by its other name
	})
	return n
}

// remove must be called with mu held.
func (c *connections) remove(i *connInfo) {
	c.open = slices.DeleteFunc(c.open, func(o *connInfo) bool { return o == i })
	c.wake()
}

// begin is for http.Server.ConnContext.
func (c *connections) begin(ctx context.Context, conn net.Conn) context.Context {
	if t, ok := conn.(*tls.Conn); ok {
		conn = t.NetConn()
	}
	if t, ok := conn.(*trackedConn); ok {
		ctx = context.WithValue(ctx, connKey{}, t.info)
	}
	return ctx
}

// limitedListener lets only so many connections in. Those that wait do so in the
// kernel, but for one.
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

// trackedConn makes room when it is closed.
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

// sourceOf is where a connection comes from: a user of the machine, or an address.
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
