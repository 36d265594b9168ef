package admin

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
)

// maxConns is how many connections are open at once. One more pushes out the
// oldest on which no user's request is being served, so that strangers who hold
// connections open lock nobody out.
const maxConns = 128

// connInfo is what is known of one connection.
type connInfo struct {
	conn net.Conn
	peer peer
	busy atomic.Bool // a user's request is being served
}

type connKey struct{}

// connOf is nil where there is no listener of ours: in a test of the handler alone.
func connOf(r *http.Request) *connInfo {
	c, _ := r.Context().Value(connKey{}).(*connInfo)
	return c
}

// conns are the open connections, oldest first.
type conns struct {
	mu   sync.Mutex
	open []*connInfo
}

// begin is for http.Server.ConnContext.
func (c *conns) begin(ctx context.Context, conn net.Conn) context.Context {
	info := &connInfo{conn: conn, peer: peerOf(conn)}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open = append(c.open, info)
	if len(c.open) > maxConns {
		for _, old := range c.open {
			if !old.busy.Load() {
				drop(old.conn)
				break
			}
		}
	}
	return context.WithValue(ctx, connKey{}, info)
}

// drop closes without waiting for what TLS would still say.
func drop(conn net.Conn) {
	if t, ok := conn.(*tls.Conn); ok {
		conn = t.NetConn()
	}
	conn.Close()
}

// changed is for http.Server.ConnState.
func (c *conns) changed(conn net.Conn, state http.ConnState) {
	if state != http.StateClosed && state != http.StateHijacked {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open = slices.DeleteFunc(c.open, func(i *connInfo) bool { return i.conn == conn })
}
