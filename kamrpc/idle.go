package kamrpc

import (
	"net"
	"sync"
	"time"
)

// idleConns are the connections of answered requests, for the next requests of a scrape: to
// open one takes as long as a call. They are closed soon, since the next scrape is far away,
// and Kamailio may be another one by then.
type idleConns struct {
	mu    sync.Mutex
	conns []net.Conn
	timer *time.Timer
}

// keepIdle is how long connections are kept after the last use of one. maxIdle is more than
// a client uses at the same time.
const (
	keepIdle = time.Second
	maxIdle  = 4
)

// take returns a connection, or nil.
func (i *idleConns) take() net.Conn {
	i.mu.Lock()
	defer i.mu.Unlock()
	last := len(i.conns) - 1
	if last < 0 {
		return nil
	}
	conn := i.conns[last]
	i.conns = i.conns[:last]
	return conn
}

// put keeps a connection on which no reply is outstanding.
func (i *idleConns) put(conn net.Conn) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if len(i.conns) == maxIdle {
		conn.Close()
		return
	}
	i.conns = append(i.conns, conn)
	if i.timer == nil {
		i.timer = time.AfterFunc(keepIdle, i.close)
	} else {
		i.timer.Reset(keepIdle)
	}
}

func (i *idleConns) close() {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, conn := range i.conns {
		conn.Close()
	}
	i.conns = nil
}
