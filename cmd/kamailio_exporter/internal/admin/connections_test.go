package admin

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// When there are more active clients than places, all are served in turn and none is
// disconnected.
func TestMoreClientsThanPlaces(t *testing.T) {
	b := newEndpoint(t, policyText()).start(func(s *Server) { s.conns.max, s.conns.grace = 8, time.Minute })
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			for range 10 {
				if r := b.call(nocToken, "GET", "/v1/actions", ""); r.Status != 200 {
					t.Errorf("%d %s", r.Status, r.Text)
				}
			}
		})
	}
	all.Wait()
	b.server.conns.mu.Lock()
	defer b.server.conns.mu.Unlock()
	if n := len(b.server.conns.open); n > 8 {
		t.Errorf("%d connections are still there", n)
	}
}

// A client that makes the endpoint wait loses its place to others: before the first
// byte, when sending byte by byte, in a body (even with a valid token), between two
// requests, and when it does not read the reply. A client whose action is running keeps
// its place.
func TestSlowClientsLoseTheirPlace(t *testing.T) {
	post := "POST /v1/actions/dispatcher.reload HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer " + nocToken + "\r\nContent-Type: application/json\r\n"
	for name, begin := range map[string]func(t *testing.T, conn net.Conn){
		"nothing": func(*testing.T, net.Conn) {},
		"byte by byte": func(_ *testing.T, conn net.Conn) {
			go func() {
				_, err := io.WriteString(conn, "GET / HTTP/1.1\r\nX: ")
				for err == nil {
					time.Sleep(time.Millisecond)
					_, err = io.WriteString(conn, "x")
				}
			}()
		},
		"half a body": func(_ *testing.T, conn net.Conn) {
			_, _ = io.WriteString(conn, post+"Content-Length: 100\r\n\r\n{")
		},
		"idle": func(t *testing.T, conn net.Conn) {
			_, _ = io.WriteString(conn, "GET /-/healthy HTTP/1.1\r\nHost: localhost\r\n\r\n")
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil || resp.StatusCode != 200 {
				t.Fatal(err)
			}
			resp.Body.Close()
		},
		"not reading": func(_ *testing.T, conn net.Conn) {
			go func() { // endless reply
				for err := error(nil); err == nil; {
					_, err = io.WriteString(conn, strings.Repeat("GET /-/healthy HTTP/1.1\r\nHost: localhost\r\n\r\n", 100))
				}
			}()
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newEndpoint(t, policyText()).start(func(s *Server) { s.conns.max, s.conns.grace = 2, 20*time.Millisecond })
			for range 2 {
				conn, err := net.Dial("unix", b.socket)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { conn.Close() })
				begin(t, conn)
			}
			began := time.Now()
			if r := b.call(nocToken, "GET", "/v1/actions", ""); r.Status != 200 {
				t.Errorf("%d %s", r.Status, r.Text)
			}
			if took := time.Since(began); took > 4*time.Second { // ReadHeaderTimeout is 5 s
				t.Errorf("after %s", took)
			}
		})
	}
}

// Of the source with the most connections, the one waited for longest is closed.
func TestLongestIdleConnectionIsClosed(t *testing.T) {
	c, now := newConnections(), time.Now()
	add := func(name, source string, ago time.Duration, change func(*connInfo)) {
		i := &connInfo{conn: fakeConn{name: name}, source: source, all: c, reading: true, since: now.Add(-ago)}
		change(i)
		c.open = append(c.open, i)
	}
	nothing := func(*connInfo) {}
	add("lonely", "uid 1", time.Hour, nothing)
	add("new", "uid 2", time.Second, nothing)
	add("old", "uid 2", time.Minute, nothing)
	add("busy", "uid 2", time.Hour, func(i *connInfo) { i.busy = true })
	add("ours", "uid 2", time.Hour, func(i *connInfo) { i.reading = false })
	for _, want := range []string{"old", "new", "lonely"} {
		got := c.slowest()
		if got == nil || got.conn.(fakeConn).name != want {
			t.Fatalf("%+v, not %s", got, want)
		}
		c.remove(got)
	}
	if got := c.slowest(); got != nil {
		t.Errorf("%+v", got)
	}
	c.open[0].writing = true // busy, and the client does not read the reply
	if got := c.slowest(); got == nil || got.conn.(fakeConn).name != "busy" {
		t.Errorf("%+v", got)
	}
}

type fakeConn struct {
	net.Conn
	name string
}
