// Package sipprobe checks whether Kamailio's SIP sockets reply. RPCs cannot show this:
// other processes serve them, and continue when the SIP workers hang.
//
// It uses sipgo only to build and parse messages. Its transports do not fit: they keep
// connections and their goroutines after a request, retransmit for 32 seconds whatever
// the caller's deadline is (timer F), and give no access to a TLS peer's certificate.
package sipprobe

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/emiago/sipgo/sip"
)

// Config defines what to probe, and how.
type Config struct {
	Targets []Target
	// RequestURI is the Request-URI for all targets; "" means each target's own address.
	RequestURI string
	UserAgent  string
	// Roots are the CAs that TLS certificates are verified against; nil means those of
	// the system. ServerName is the name that certificates must have, unless the target
	// sets one; "" means the target's host.
	Roots      *x509.CertPool
	ServerName string
}

// Prober probes SIP sockets. It keeps no state between two rounds.
type Prober struct {
	cfg  Config
	uris []sip.Uri // in the order of the targets
}

// New checks the request URI. It connects to nothing.
func New(cfg Config) (*Prober, error) {
	p := &Prober{cfg: cfg}
	for _, t := range cfg.Targets {
		text := cfg.RequestURI
		if text == "" {
			text = "sip:" + t.Address
		}
		uri, err := parseURI(text)
		if err != nil {
			return nil, err
		}
		p.uris = append(p.uris, uri)
	}
	return p, nil
}

// Probe sends one request to each target, all at the same time. It returns when all have
// replied, or at the latest when ctx is done, so ctx needs a deadline.
func (p *Prober) Probe(ctx context.Context) Results {
	probes := make(Results, len(p.cfg.Targets))
	var all sync.WaitGroup
	for i, target := range p.cfg.Targets {
		probes[i] = Result{Target: target}
		all.Go(func() {
			defer func() {
				if r := recover(); r != nil { // untrusted input must not crash the program
					probes[i].Err = fmt.Errorf("panic: %v\n%s", r, debug.Stack())
				}
			}()
			begun := time.Now()
			status, err := p.ask(ctx, target, p.uris[i], &probes[i])
			probes[i].Status, probes[i].Err, probes[i].Duration = status, err, time.Since(begun)
		})
	}
	all.Wait()
	return probes
}

// Failed returns this error as the outcome for all targets.
func (p *Prober) Failed(err error) Results {
	var probes Results
	for _, t := range p.cfg.Targets {
		probes = append(probes, Result{Target: t, Err: err})
	}
	return probes
}

func (p *Prober) ask(ctx context.Context, t Target, uri sip.Uri, probe *Result) (status int, err error) {
	network := "tcp"
	if t.Transport == "udp" {
		network = "udp"
	}
	conn, err := (&net.Dialer{KeepAlive: -1}).DialContext(ctx, network, t.Address)
	if err != nil {
		return 0, inTime(ctx, err, "no connection in time")
	}
	defer conn.Close()
	plain := conn
	stop := context.AfterFunc(ctx, func() { _ = plain.Close() }) // unblocks all reads and writes
	defer stop()
	if t.Transport == "tls" {
		secure := tls.Client(conn, p.tlsConfig(t, probe))
		if err := secure.HandshakeContext(ctx); err != nil {
			return 0, fmt.Errorf("TLS handshake: %w", inTime(ctx, err, "not finished in time"))
		}
		conn = secure
		defer conn.Close()
	}
	e := p.newExchange(t, uri, conn.LocalAddr())
	if t.Transport == "udp" {
		status, err = e.overDatagrams(conn)
	} else {
		status, err = e.overStream(conn)
	}
	if ctx.Err() != nil && err != nil && e.ignored != nil {
		return 0, fmt.Errorf("no reply in time, only %w", e.ignored)
	}
	return status, inTime(ctx, err, "no reply in time")
}

// inTime names what timed out if the error comes from the end of ctx.
func inTime(ctx context.Context, err error, inVain string) error {
	if err != nil && ctx.Err() != nil {
		return errors.New(inVain)
	}
	return err
}

// tlsConfig accepts every certificate and records what is wrong with it. An expired
// certificate must not hide whether Kamailio replies, and the probe sends nothing
// confidential.
func (p *Prober) tlsConfig(t Target, probe *Result) *tls.Config {
	host, _, _ := net.SplitHostPort(t.Address)
	name := cmp.Or(t.ServerName, p.cfg.ServerName, host)
	return &tls.Config{
		ServerName:         name,
		InsecureSkipVerify: true, //nolint:gosec // G402: VerifyConnection verifies, and reports
		VerifyConnection: func(s tls.ConnectionState) error {
			leaf, others := s.PeerCertificates[0], x509.NewCertPool()
			for _, c := range s.PeerCertificates[1:] {
				others.AddCert(c)
			}
			probe.NotAfter = leaf.NotAfter
			if _, err := leaf.Verify(x509.VerifyOptions{DNSName: name, Roots: p.cfg.Roots, Intermediates: others}); err != nil {
				text := err.Error() // may list a thousand names
				probe.VerifyErr = errors.New(text[:min(len(text), 200)])
			}
			return nil
		},
	}
}

// exchange is one request and the search for its reply.
type exchange struct {
	request []byte
	branch  string
	ignored error // what was received instead of a reply
}

// newExchange makes the request. Its Max-Forwards lets at most one proxy forward it, in
// case the script relays it.
func (p *Prober) newExchange(t Target, uri sip.Uri, local net.Addr) *exchange {
	host, portText, _ := net.SplitHostPort(local.String())
	port, _ := strconv.Atoi(portText)
	host, _, _ = strings.Cut(host, "%") // the zone is local to this host
	e := &exchange{branch: sip.RFC3261BranchMagicCookie + rand.Text()}

	r := sip.NewRequest(sip.OPTIONS, uri)
	via := &sip.ViaHeader{ProtocolName: "SIP", ProtocolVersion: "2.0", Transport: strings.ToUpper(t.Transport), Host: host, Port: port}
	via.Params.Add("branch", e.branch)
	via.Params.Add("rport", "")
	from := &sip.FromHeader{Address: sip.Uri{Scheme: "sip", User: "kamailio_exporter", Host: host}}
	from.Params.Add("tag", rand.Text())
	callID, forwards := sip.CallIDHeader(rand.Text()), sip.MaxForwardsHeader(1)
	for _, h := range []sip.Header{
		via, &forwards, from, &sip.ToHeader{Address: uri}, &callID,
		&sip.CSeqHeader{SeqNo: 1, MethodName: sip.OPTIONS},
		sip.NewHeader("User-Agent", p.cfg.UserAgent),
		sip.NewHeader("Accept", "application/sdp"),
	} {
		r.AppendHeader(h)
	}
	r.SetBody(nil) // Content-Length: 0
	e.request = []byte(r.String())
	return e
}

// These limit how much is read from a peer. sipgo parses a header that arrives in pieces
// from its beginning with each piece: with messages of this size that takes a fraction of
// a second in the worst case.
const (
	maxMessage   = 16 << 10
	maxStream    = 64 << 10
	maxDatagrams = 100
)

// newParser makes a parser that parses only the length header, so that an unusual header
// does not invalidate a reply.
func newParser() *sip.Parser {
	byName := sip.DefaultHeadersParser()
	p := sip.NewParser(sip.WithHeadersParsers(map[string]sip.HeaderParser{
		"content-length": byName["content-length"], "l": byName["l"],
	}))
	p.MaxMessageLength = maxMessage
	return p
}

// T1 and T2 of RFC 3261, 17.1.2.2: the intervals of retransmission.
const (
	firstRepeat   = 500 * time.Millisecond
	longestRepeat = 4 * time.Second
)

// overDatagrams retransmits the request until there is a reply, as RFC 3261 requires over
// UDP. With a timeout of 2 s these are 3 datagrams.
func (e *exchange) overDatagrams(conn net.Conn) (status int, err error) {
	parser, buffer := newParser(), make([]byte, maxMessage)
	repeat := firstRepeat
	for received := 0; ; repeat = min(2*repeat, longestRepeat) {
		if _, err := conn.Write(e.request); err != nil {
			return 0, err
		}
		if err := conn.SetReadDeadline(time.Now().Add(repeat)); err != nil {
			return 0, err
		}
		for {
			n, err := conn.Read(buffer)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			if err != nil {
				return 0, err
			}
			message, err := parser.ParseSIP(buffer[:n])
			if err != nil {
				e.ignored = notSIP(buffer[:n])
			} else if status := e.finalStatus(message); status != 0 {
				return status, nil
			}
			if received++; received == maxDatagrams {
				return 0, fmt.Errorf("received %d datagrams, but no reply: %w", maxDatagrams, e.ignored)
			}
		}
	}
}

func (e *exchange) overStream(conn net.Conn) (status int, err error) {
	if _, err := conn.Write(e.request); err != nil {
		return 0, err
	}
	stream := newParser().NewSIPStream()
	defer stream.Close()
	buffer := make([]byte, 4<<10)
	for received := 0; received < maxStream; {
		n, err := conn.Read(buffer)
		if n == 0 && err != nil {
			if errors.Is(err, io.EOF) {
				err = errors.New("the connection was closed without a reply")
			}
			return 0, err
		}
		received += n
		if _, err := stream.Write(buffer[:n]); err != nil {
			return 0, err
		}
		for stream.Buffer().Len() > 0 {
			message, _, err := stream.ParseNext()
			if errors.Is(err, io.ErrUnexpectedEOF) {
				break // the message is incomplete
			}
			if errors.Is(err, sip.ErrMessageTooLarge) {
				return 0, fmt.Errorf("the reply is larger than %d bytes", maxMessage)
			}
			if err != nil {
				return 0, notSIP(buffer[:n])
			}
			if status := e.finalStatus(message); status != 0 {
				return status, nil
			}
		}
	}
	return 0, fmt.Errorf("received %d bytes, but no reply: %w", maxStream, e.ignored)
}

// finalStatus returns the status code of the final reply to the request. It is 0 for any
// other message: a provisional reply, a reply to another request, or a request from the
// peer.
func (e *exchange) finalStatus(message sip.Message) int {
	answer, ok := message.(*sip.Response)
	if !ok {
		e.ignored = errors.New("a request from the peer")
		return 0
	}
	via := answer.Via()
	if via == nil || via.Params.GetOr("branch", "") != e.branch {
		e.ignored = errors.New("a reply to another request")
		return 0
	}
	switch status := answer.StatusCode; {
	case status >= 200 && status <= 699:
		return status
	case status >= 100 && status <= 199:
		e.ignored = fmt.Errorf("%d, which is provisional", status)
	default:
		e.ignored = fmt.Errorf("a reply with the status code %d", status)
	}
	return 0
}

func notSIP(data []byte) error {
	return fmt.Errorf("data that is not SIP: %.40q", data[:min(len(data), 40)])
}
