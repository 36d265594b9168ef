package kamailiotest

import (
	"net"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// Gateway is a SIP peer over UDP that answers requests from Kamailio.
type Gateway struct {
	Addr     string       // host:port
	Requests atomic.Int32 // all except ACKs
	Invites  atomic.Int32

	conn   net.PacketConn
	answer func(method string) (status string, after time.Duration)
}

// NewGateway starts a gateway that runs until the test ends. answer returns the reply to a
// method, for example "200 OK", or "" for no reply; a nil answer means "200 OK" for all.
func NewGateway(tb testing.TB, answer func(method string) (status string, after time.Duration)) *Gateway {
	tb.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { conn.Close() })
	if answer == nil {
		answer = func(string) (string, time.Duration) { return "200 OK", 0 }
	}
	g := &Gateway{Addr: conn.LocalAddr().String(), conn: conn, answer: answer}
	go g.serve()
	return g
}

// URI returns the SIP URI for calls to the gateway.
func (g *Gateway) URI() string { return "sip:" + g.Addr }

// Port returns the port that it listens on.
func (g *Gateway) Port() int { return g.conn.LocalAddr().(*net.UDPAddr).Port }

func (g *Gateway) serve() {
	buffer := make([]byte, 1<<16)
	for {
		n, from, err := g.conn.ReadFrom(buffer)
		if err != nil {
			return
		}
		request := string(buffer[:n])
		method, _, _ := strings.Cut(request, " ")
		if method == "SIP/2.0" || method == "ACK" {
			continue
		}
		g.Requests.Add(1)
		if method == "INVITE" {
			g.Invites.Add(1)
		}
		status, after := g.answer(method)
		if status == "" {
			continue
		}
		reply := []byte(g.reply(request, status))
		if after > 0 {
			time.AfterFunc(after, func() { _, _ = g.conn.WriteTo(reply, from) })
			continue
		}
		_, _ = g.conn.WriteTo(reply, from)
	}
}

var (
	copiedLines = regexp.MustCompile(`(?mi)^(Via|From|To|Call-ID|CSeq|Record-Route):.*\r\n`)
	toLine      = regexp.MustCompile(`(?mi)^To:.*\r\n`)
)

// reply returns a SIP response to the request (RFC 3261 8.2.6), with a tag at this end as
// a dialog requires.
func (g *Gateway) reply(request, status string) string {
	head := strings.Join(copiedLines.FindAllString(request, -1), "")
	head = toLine.ReplaceAllStringFunc(head, func(to string) string {
		if strings.Contains(strings.ToLower(to), ";tag=") {
			return to
		}
		return strings.TrimSuffix(to, "\r\n") + ";tag=gw\r\n"
	})
	return "SIP/2.0 " + status + "\r\n" + head + "Contact: <" + g.URI() + ">\r\nContent-Length: 0\r\n\r\n"
}
