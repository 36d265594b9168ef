package sipprobe

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// answer returns a reply to the request, with additional header lines and a body.
func answer(request, status string, more ...string) string {
	var b strings.Builder
	b.WriteString("SIP/2.0 " + status + "\r\n")
	for line := range strings.Lines(request) {
		for _, name := range []string{"Via:", "From:", "Call-ID:", "CSeq:"} {
			if strings.HasPrefix(line, name) {
				b.WriteString(line)
			}
		}
		if strings.HasPrefix(line, "To:") {
			b.WriteString(strings.TrimRight(line, "\r\n") + ";tag=x\r\n")
		}
	}
	for _, line := range more {
		b.WriteString(line + "\r\n")
	}
	b.WriteString("Content-Length: 0\r\n\r\n")
	return b.String()
}

// other returns a reply to a different request.
func other(request string) string {
	return regexp.MustCompile(`branch=\w+`).ReplaceAllString(answer(request, "200 OK"), "branch=z9hG4bKother")
}

// datagrams is a UDP socket that sends what reply returns for each request.
func datagrams(t testing.TB, reply func(request string) []string) Target {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var done sync.WaitGroup
	t.Cleanup(func() { conn.Close(); done.Wait() })
	done.Go(func() {
		buffer := make([]byte, 64<<10)
		for {
			n, from, err := conn.ReadFrom(buffer)
			if err != nil {
				return
			}
			for _, text := range reply(string(buffer[:n])) {
				_, _ = conn.WriteTo([]byte(text), from)
			}
		}
	})
	return Target{Transport: "udp", Address: conn.LocalAddr().String()}
}

// connections is a TCP socket, or a TLS one if a configuration is given. It passes each
// connection to serve, and closes it afterwards.
func connections(t testing.TB, secure *tls.Config, serve func(net.Conn)) Target {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	target := Target{Transport: "tcp", Address: listener.Addr().String()}
	if secure != nil {
		target.Transport, listener = "tls", tls.NewListener(listener, secure)
	}
	var done sync.WaitGroup
	t.Cleanup(func() { listener.Close(); done.Wait() })
	done.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			done.Go(func() {
				defer conn.Close()
				serve(conn)
			})
		}
	})
	return target
}

// request reads one request.
func request(conn net.Conn) string {
	var b strings.Builder
	buffer := make([]byte, 1)
	for !strings.HasSuffix(b.String(), "\r\n\r\n") {
		if _, err := conn.Read(buffer); err != nil {
			return ""
		}
		b.Write(buffer)
	}
	return b.String()
}

// says replies to each request on a connection with a text.
func says(text func(request string) string) func(net.Conn) {
	return func(conn net.Conn) {
		_, _ = io.WriteString(conn, text(request(conn)))
		_, _ = io.Copy(io.Discard, conn) // until the peer has read it
	}
}

// silent waits until the peer disconnects.
func silent(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) }

func probe(t testing.TB, timeout time.Duration, cfg Config) Results {
	t.Helper()
	p, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	return p.Probe(ctx)
}

const (
	patient   = 30 * time.Second // a reply is expected
	impatient = 300 * time.Millisecond
)

// check compares the outcome: the status, or the text of the error.
func check(t *testing.T, p Result, status int, says string) {
	t.Helper()
	if says == "" && (p.Err != nil || p.Status != status) {
		t.Errorf("status %d, %v; want %d", p.Status, p.Err, status)
	}
	if says != "" && (p.Err == nil || p.Status != 0 || !strings.Contains(p.Err.Error(), says)) {
		t.Errorf("status %d, %v; want an error with %q", p.Status, p.Err, says)
	}
	if p.Err != nil && len(p.Err.Error()) > 300 {
		t.Errorf("an error of %d bytes", len(p.Err.Error()))
	}
}

func TestDatagrams(t *testing.T) {
	for _, tc := range []struct {
		name   string
		reply  func(request string) []string
		status int
		says   string
	}{
		{"OK", func(r string) []string { return []string{answer(r, "200 OK")} }, 200, ""},
		{"refused by the script", func(r string) []string { return []string{answer(r, "404 Not Here")} }, 404, ""},
		{"method not allowed", func(r string) []string { return []string{answer(r, "405 Method Not Allowed")} }, 405, ""},
		{"too many hops", func(r string) []string { return []string{answer(r, "483 Too Many Hops")} }, 483, ""},
		{"overload", func(r string) []string { return []string{answer(r, "503 Service Unavailable")} }, 503, ""},
		{"declined", func(r string) []string { return []string{answer(r, "603 Decline")} }, 603, ""},
		{"no reason", func(r string) []string { return []string{answer(r, "200 ")} }, 200, ""},
		{"odd headers", func(r string) []string {
			return []string{answer(r, "200 OK", "Contact: <<>>;;", "Record-Route: ,", "Max-Forwards: many", "X: \xff\xfe", "Allow: a,", " b", "Server: "+strings.Repeat("k", 10000))}
		}, 200, ""},
		{"provisional first", func(r string) []string { return []string{answer(r, "100 Trying"), answer(r, "200 OK")} }, 200, ""},
		{"garbage first", func(r string) []string { return []string{"", "\x00\xff", "SIP/2.0", r, other(r), answer(r, "200 OK")} }, 200, ""},
		{"silent", func(string) []string { return nil }, 0, "no reply in time"},
		{"provisional only", func(r string) []string { return []string{answer(r, "100 Trying")} }, 0, "no reply in time, only 100, which is provisional"},
		{"to another request only", func(r string) []string { return []string{other(r)} }, 0, "only a reply to another request"},
		{"the request comes back", func(r string) []string { return []string{r} }, 0, "only a request from the peer"},
		{"no status code", func(r string) []string { return []string{answer(r, "0 OK")} }, 0, "with the status code 0"},
		{"another protocol", func(string) []string { return []string{"HTTP/1.1 200 OK\r\n\r\n" + strings.Repeat("x", 10000)} }, 0, `only data that is not SIP: "HTTP/1.1 200 OK`},
		{"a Content-Length without a body", func(r string) []string {
			return []string{strings.Replace(answer(r, "200 OK"), "Content-Length: 0", "Content-Length: 4000000000", 1)}
		}, 0, "only data that is not SIP"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			timeout := patient
			if tc.says != "" {
				timeout = impatient
			}
			target := datagrams(t, tc.reply)
			p := probe(t, timeout, Config{Targets: []Target{target}})[0]
			check(t, p, tc.status, tc.says)
			if p.Transport != "udp" || p.Address != target.Address || !p.NotAfter.IsZero() {
				t.Errorf("%+v", p)
			}
		})
	}
}

// TestFlood checks that a flood of data is read up to a limit, after which the probe
// fails.
func TestFlood(t *testing.T) {
	target := datagrams(t, func(string) []string {
		// More than fits into a socket's buffer.
		flood := make([]string, 150)
		for i := range flood {
			flood[i] = "flood"
		}
		return flood
	})
	check(t, probe(t, patient, Config{Targets: []Target{target}})[0], 0, "100 datagrams, but no reply: data that is not SIP")
}

func TestProbeOfAClosedPort(t *testing.T) {
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	udp.Close()
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	tcp.Close()
	probes := probe(t, patient, Config{Targets: []Target{
		{Transport: "udp", Address: udp.LocalAddr().String()}, {Transport: "tcp", Address: tcp.Addr().String()}, {Transport: "tls", Address: tcp.Addr().String()}, {Transport: "udp", Address: "nosuch.invalid:5060"},
	}})
	for _, p := range probes[:3] {
		check(t, p, 0, "connection refused")
	}
	check(t, probes[3], 0, "nosuch.invalid")
}

// TestRepeats checks that an unanswered request is sent again after 0.5 s and then 1 s
// later: within 1.2 s it is sent twice, unchanged.
func TestRepeats(t *testing.T) {
	requests := make(chan string, 10)
	target := datagrams(t, func(r string) []string {
		requests <- r
		if len(requests) == 2 {
			return []string{answer(r, "200 OK")}
		}
		return nil
	})
	p := probe(t, patient, Config{Targets: []Target{target}})[0]
	check(t, p, 200, "")
	if len(requests) != 2 || p.Duration < firstRepeat {
		t.Fatalf("%d requests in %v", len(requests), p.Duration)
	}
	if first, second := <-requests, <-requests; first != second {
		t.Errorf("%q\nis sent again as\n%q", first, second)
	}
	var sent atomic.Int32
	target = datagrams(t, func(string) []string { sent.Add(1); return nil })
	check(t, probe(t, firstRepeat+impatient, Config{Targets: []Target{target}})[0], 0, "no reply in time")
	if n := sent.Load(); n > 2 {
		t.Errorf("%d requests in %v", n, firstRepeat+impatient)
	}
}

func TestRequest(t *testing.T) {
	requests := make(chan string, 10)
	target := datagrams(t, func(r string) []string {
		requests <- r
		return []string{answer(r, "200 OK")}
	})
	read := func(cfg Config) string {
		t.Helper()
		cfg.Targets, cfg.UserAgent = []Target{target}, "kamailio_exporter/test"
		check(t, probe(t, patient, cfg)[0], 200, "")
		return <-requests
	}
	first, second := read(Config{}), read(Config{})
	want := regexp.MustCompile(`^OPTIONS sip:` + target.Address + ` SIP/2\.0\r
Via: SIP/2\.0/UDP 127\.0\.0\.1:\d+;branch=z9hG4bK(\w{20,});rport\r
Max-Forwards: 1\r
From: <sip:kamailio_exporter@127\.0\.0\.1>;tag=(\w{20,})\r
To: <sip:` + target.Address + `>\r
Call-ID: (\w{20,})\r
CSeq: 1 OPTIONS\r
User-Agent: kamailio_exporter/test\r
Accept: application/sdp\r
Content-Length: 0\r
\r
$`)
	a, b := want.FindStringSubmatch(first), want.FindStringSubmatch(second)
	if a == nil || b == nil {
		t.Fatalf("%q\n%q", first, second)
	}
	for i := 1; i < len(a); i++ {
		if a[i] == b[i] {
			t.Errorf("two requests with the same %s", a[i])
		}
	}
	for _, uri := range []string{"sip:ping@sip.example.com", "sips:sip.example.com:5061", "sip:ping@[2001:db8::1]:5070;transport=tcp"} {
		if r := read(Config{RequestURI: uri}); !strings.HasPrefix(r, "OPTIONS "+uri+" SIP/2.0\r\n") {
			t.Errorf("%s is asked for as %q", uri, r)
		}
	}
	for _, uri := range []string{"", "ping@example.com", "tel:+123", "sip:", "sip://example.com", "sip:a b@example.com", "sip:a@example.com\r\nX: y", "sip:me:s3cret@example.com", "*"} {
		_, err := New(Config{Targets: []Target{target}, RequestURI: uri})
		if (err == nil) != (uri == "") || err != nil && strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%q: %v", uri, err)
		}
	}
}

func TestIPv6(t *testing.T) {
	conn, err := net.ListenPacket("udp", "[::1]:0")
	if err != nil {
		t.Skipf("SKIPPED: no IPv6 here: %v", err)
	}
	defer conn.Close()
	asked := make(chan string, 1)
	go func() {
		buffer := make([]byte, 64<<10)
		n, from, err := conn.ReadFrom(buffer)
		if err != nil {
			return
		}
		asked <- string(buffer[:n])
		_, _ = conn.WriteTo([]byte(answer(string(buffer[:n]), "200 OK")), from)
	}()
	target, err := ParseTarget("udp:" + conn.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	check(t, probe(t, patient, Config{Targets: []Target{target}})[0], 200, "")
	if r := <-asked; !strings.Contains(r, "OPTIONS sip:"+target.Address+" SIP/2.0\r\nVia: SIP/2.0/UDP [::1]:") || !strings.Contains(r, "<sip:kamailio_exporter@[::1]>") {
		t.Errorf("%q", r)
	}
}

func TestParseTarget(t *testing.T) {
	for _, good := range []string{"udp:127.0.0.1:5060", "tcp:[::1]:5060", "tls:sip.example.com:5061", "tls:192.0.2.1:5061?server_name=sip.example.com"} {
		if target, err := ParseTarget(good); err != nil || target.String() != good {
			t.Errorf("%s: %v, %v", good, target, err)
		}
	}
	for _, bad := range []string{"", "udp", "udp:", "127.0.0.1:5060", "udp:127.0.0.1", "udp:127.0.0.1:sip", "udp:127.0.0.1:0", "udp:127.0.0.1:70000", "udp::5060", "udp:::1:5060", "ws:127.0.0.1:80", "UDP:127.0.0.1:5060", "udp:a b:5060", "udp:a\r\n:5060", "udp://127.0.0.1:5060",
		"udp:127.0.0.1:5060?server_name=a", "tcp:127.0.0.1:5060?server_name=a", "tls:127.0.0.1:5061?server_name=", "tls:127.0.0.1:5061?name=a", "tls:127.0.0.1:5061?server_name=a b", "tls:127.0.0.1:5061?server_name=a&server_name=b", "tls:127.0.0.1:5061?server_name=a:1"} {
		if target, err := ParseTarget(bad); err == nil {
			t.Errorf("%q is taken for %v", bad, target)
		} else if strings.ContainsAny(err.Error(), "\r\n") {
			t.Errorf("an error of several lines: %v", err)
		}
	}
}

// endless sends a text repeatedly until the peer disconnects.
func endless(text string) func(net.Conn) {
	return func(conn net.Conn) {
		for {
			if _, err := io.WriteString(conn, text); err != nil {
				return
			}
		}
	}
}

func TestStreams(t *testing.T) {
	for _, tc := range []struct {
		name   string
		serve  func(net.Conn)
		status int
		says   string
	}{
		{"OK", says(func(r string) string { return answer(r, "200 OK") }), 200, ""},
		{"not found", says(func(r string) string { return answer(r, "404 Not Here") }), 404, ""},
		{"closed after the reply", func(conn net.Conn) { _, _ = io.WriteString(conn, answer(request(conn), "200 OK")) }, 200, ""},
		{"provisional, pings and requests first", says(func(r string) string {
			return "\r\n\r\n" + answer(r, "100 Trying") + "\r\n" + r + other(r) + answer(r, "200 OK")
		}), 200, ""},
		{"byte by byte", func(conn net.Conn) {
			for _, b := range []byte(answer(request(conn), "200 OK", "X: y")) {
				_, _ = conn.Write([]byte{b})
			}
			silent(conn)
		}, 200, ""},
		{"with a body", says(func(r string) string {
			return strings.Replace(answer(r, "200 OK"), "Content-Length: 0\r\n\r\n", "l: 4\r\n\r\nv=0\n", 1)
		}), 200, ""},
		{"silent", silent, 0, "no reply in time"},
		{"half an answer", says(func(r string) string { return answer(r, "200 OK")[:20] }), 0, "no reply in time"},
		{"half a body", says(func(r string) string {
			return strings.Replace(answer(r, "200 OK"), "Content-Length: 0", "Content-Length: 5000", 1)
		}), 0, "no reply in time"},
		{"closed", func(conn net.Conn) { request(conn) }, 0, "closed without a reply"},
		{"closed in the middle", func(conn net.Conn) { _, _ = io.WriteString(conn, answer(request(conn), "200 OK")[:20]) }, 0, "closed without a reply"},
		{"no length", says(func(r string) string { return strings.Replace(answer(r, "200 OK"), "Content-Length: 0\r\n", "", 1) }), 0, "not SIP"},
		{"a huge length", says(func(r string) string {
			return strings.Replace(answer(r, "200 OK"), "Content-Length: 0", "Content-Length: 4000000000", 1)
		}), 0, "larger than"},
		{"HTTP", says(func(string) string { return "HTTP/1.1 400 Bad Request\r\n\r\n" }), 0, `not SIP: "HTTP/1.1 400`},
		{"bytes", endless("\x00\xff\r\n"), 0, "not SIP"},
		{"an endless line", endless("SIP/2.0 200 OK and so on "), 0, "larger than"},
		{"an endless header", func(conn net.Conn) {
			_, _ = io.WriteString(conn, "SIP/2.0 200 OK\r\n")
			endless("Via: SIP/2.0/TCP 127.0.0.1;branch=x\r\n")(conn)
		}, 0, "larger than"},
		{"an endless folded header", func(conn net.Conn) {
			_, _ = io.WriteString(conn, "SIP/2.0 200 OK\r\nX: y")
			endless("\r\n y")(conn)
		}, 0, "larger than"},
		{"endless pings", endless("\r\n"), 0, "larger than"},
		{"endless provisional answers", func(conn net.Conn) { endless(answer(request(conn), "100 Trying"))(conn) }, 0, "bytes, but no reply: 100, which is provisional"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			timeout := patient
			if tc.says == "no reply in time" {
				timeout = impatient
			}
			for _, secure := range []*tls.Config{nil, authority(t).config(t, time.Now().Add(time.Hour))} {
				p := probe(t, timeout, Config{Targets: []Target{connections(t, secure, tc.serve)}})[0]
				if secure != nil && timeout == impatient && strings.Contains(fmt.Sprint(p.Err), "TLS handshake: not finished") {
					continue // the machine is slow
				}
				check(t, p, tc.status, tc.says)
				if p.NotAfter.IsZero() != (secure == nil) {
					t.Errorf("expires %v over %s", p.NotAfter, p.Transport)
				}
			}
		})
	}
}

// ca signs certificates for tests.
type ca struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func authority(t testing.TB) ca {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return ca{certificate, key}
}

// config returns the TLS configuration of a server, with a certificate for
// sip.example.com and 127.0.0.1 that expires at notAfter.
func (a ca) config(t testing.TB, notAfter time.Time) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: notAfter,
		DNSNames: []string{"sip.example.com"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der, a.certificate.Raw}, PrivateKey: key}}}
}

func (a ca) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.certificate)
	return pool
}

// TestCertificates checks that the certificate and its problems are reported, and that
// the reply is read nevertheless.
func TestCertificates(t *testing.T) {
	good, stranger := authority(t), authority(t)
	soon, past := time.Now().Add(50*time.Minute).Truncate(time.Second), time.Now().Add(-time.Hour).Truncate(time.Second)
	ok := says(func(r string) string { return answer(r, "200 OK") })
	for _, tc := range []struct {
		name     string
		notAfter time.Time
		cfg      Config
		own      string // the target's own server name
		verify   string // part of the error
	}{
		{"by address", soon, Config{Roots: good.pool()}, "", ""},
		{"by name", soon, Config{Roots: good.pool(), ServerName: "sip.example.com"}, "", ""},
		{"another name", soon, Config{Roots: good.pool(), ServerName: "other.example.com"}, "", "not other.example.com"},
		{"by its own name", soon, Config{Roots: good.pool(), ServerName: "other.example.com"}, "sip.example.com", ""},
		{"another unique name", soon, Config{Roots: good.pool(), ServerName: "sip.example.com"}, "other.example.com", "not other.example.com"},
		{"expired", past, Config{Roots: good.pool()}, "", "expired"},
		{"another CA", soon, Config{Roots: stranger.pool()}, "", "unknown authority"},
		{"the system's authorities", soon, Config{}, "", "unknown authority"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			names := make(chan string, 1)
			secure := good.config(t, tc.notAfter)
			secure.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
				names <- hello.ServerName
				return nil, nil
			}
			target := connections(t, secure, ok)
			target.ServerName = tc.own
			tc.cfg.Targets = []Target{target}
			p := probe(t, patient, tc.cfg)[0]
			check(t, p, 200, "")
			if !p.NotAfter.Equal(tc.notAfter) {
				t.Errorf("expires %v, not %v", p.NotAfter, tc.notAfter)
			}
			if (p.VerifyErr == nil) != (tc.verify == "") || tc.verify != "" && !strings.Contains(p.VerifyErr.Error(), tc.verify) {
				t.Errorf("verified: %v; want %q", p.VerifyErr, tc.verify)
			}
			if name := <-names; name != cmp.Or(tc.own, tc.cfg.ServerName) {
				t.Errorf("asked for %q", name)
			}
		})
	}
}

func TestBrokenTLS(t *testing.T) {
	a := authority(t)
	wantsOurs := a.config(t, time.Now().Add(time.Hour))
	wantsOurs.ClientAuth, wantsOurs.MaxVersion = tls.RequireAnyClientCert, tls.VersionTLS12
	for _, tc := range []struct {
		name   string
		target Target
		says   string
		seen   bool // whether the certificate was seen
	}{
		{"slow", connections(t, nil, silent), "TLS handshake: not finished in time", false},
		{"not TLS", connections(t, nil, endless("SIP/2.0 400 Bad Request\r\n")), "TLS handshake: ", false},
		{"closed", connections(t, nil, func(net.Conn) {}), "TLS handshake: ", false},
		{"requires a client certificate", connections(t, wantsOurs, silent), "TLS handshake: ", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.target.Transport = "tls"
			timeout := patient
			if tc.name == "slow" {
				timeout = impatient
			}
			p := probe(t, timeout, Config{Targets: []Target{tc.target}, Roots: a.pool()})[0]
			check(t, p, 0, tc.says)
			if p.NotAfter.IsZero() == tc.seen {
				t.Errorf("expires %v", p.NotAfter)
			}
		})
	}
}

// TestSideBySide checks that a target that hangs does not delay others.
func TestSideBySide(t *testing.T) {
	ok := says(func(r string) string { return answer(r, "200 OK") })
	good := []Target{datagrams(t, func(r string) []string { return []string{answer(r, "200 OK")} }), connections(t, nil, ok)}
	targets := good
	for range 10 {
		targets = append(targets, connections(t, nil, silent))
	}
	begun := time.Now()
	probes := probe(t, time.Second, Config{Targets: targets})
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("%d targets took %v", len(targets), took)
	}
	for i, p := range probes {
		if i < len(good) {
			check(t, p, 200, "")
		} else {
			check(t, p, 0, "no reply in time")
		}
	}
}

// TestNothingLeaks checks that hundreds of rounds leave no goroutines or sockets behind,
// whatever the peers do.
func TestNothingLeaks(t *testing.T) {
	secure := authority(t).config(t, time.Now().Add(time.Hour))
	ok := says(func(r string) string { return answer(r, "200 OK") })
	cfg := Config{Targets: []Target{
		datagrams(t, func(r string) []string { return []string{answer(r, "200 OK")} }),
		datagrams(t, func(string) []string { return nil }),
		connections(t, nil, ok), connections(t, nil, silent), connections(t, nil, endless("\r\n")),
		connections(t, secure, ok), connections(t, secure, silent),
		{Transport: "tls", Address: connections(t, nil, silent).Address},
		{Transport: "udp", Address: "127.0.0.1:9"}, {Transport: "tcp", Address: "127.0.0.1:9"}, // no process listens there
	}}
	const rounds, atOnce = 300, 10
	run := func(rounds int) {
		var all sync.WaitGroup
		for range atOnce {
			all.Go(func() {
				for range rounds / atOnce {
					probe(t, 100*time.Millisecond, cfg)
				}
			})
		}
		all.Wait()
	}
	run(atOnce)
	settle(t, func() bool { return true }) // allocated by the first round
	goroutines, files := runtime.NumGoroutine(), openFiles(t)
	run(rounds)
	settle(t, func() bool { return runtime.NumGoroutine() <= goroutines && openFiles(t) <= files })
	if g, f := runtime.NumGoroutine(), openFiles(t); g > goroutines || f > files {
		t.Errorf("%d goroutines, then %d; %d files, then %d", goroutines, g, files, f)
	}
}

// settle waits for some seconds until so returns true: the fakes close their ends a
// little later.
func settle(t *testing.T, so func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !so() && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond)
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skipf("SKIPPED: no /proc/self/fd here: %v", err)
	}
	return len(files)
}
