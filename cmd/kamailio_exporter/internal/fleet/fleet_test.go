package fleet

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-kit/log"

	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
)

func TestContains(t *testing.T) {
	for _, tc := range []struct {
		networks []string
		in, out  []string
	}{
		{[]string{"192.0.2.0/24"}, []string{"192.0.2.0", "192.0.2.255", "::ffff:192.0.2.1"}, []string{"192.0.3.0", "127.0.0.1", "::1"}},
		{[]string{"0.0.0.0/0"}, []string{"192.0.2.1", "10.0.0.1"}, []string{"0.0.0.0", "127.0.0.1", "127.1.2.3", "169.254.169.254", "224.0.0.1", "255.255.255.255", "::1", "::ffff:127.0.0.1", "2001:db8::1"}},
		{[]string{"::/0"}, []string{"2001:db8::1", "fd00::1"}, []string{"::", "::1", "fe80::1", "fe80::1%eth0", "ff02::1", "::ffff:192.0.2.1"}},
		{[]string{"0.0.0.0/0", "127.0.0.1/32", "fe80::/10"}, []string{"127.0.0.1", "fe80::1"}, []string{"127.0.0.2", "169.254.0.1"}},
		{[]string{"127.0.0.0/8"}, []string{"127.255.0.1"}, []string{"126.255.255.255"}},
		{[]string{"126.0.0.0/7"}, []string{"126.0.0.1"}, []string{"127.0.0.1"}},
	} {
		a := &allowList{}
		for _, n := range tc.networks {
			a.networks = append(a.networks, netip.MustParsePrefix(n))
		}
		for _, text := range tc.in {
			if !a.contains(netip.MustParseAddr(text)) {
				t.Errorf("%v: not %s", tc.networks, text)
			}
		}
		for _, text := range tc.out {
			if a.contains(netip.MustParseAddr(text)) {
				t.Errorf("%v: %s", tc.networks, text)
			}
		}
	}
}

// TestAllowListChecksTheDialedAddress checks that a name is not dialed if its address has
// changed since it was admitted: each transport passes the dialed address to control.
func TestAllowListChecksTheDialedAddress(t *testing.T) {
	a := &allowList{networks: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}, paths: []string{"/RPC"}}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	packets, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer packets.Close()
	for _, scheme := range []string{"http", "https", "tcp", "binrpc+tcp", "udp"} {
		address := l.Addr().String()
		if scheme == "udp" {
			address = packets.LocalAddr().String()
		}
		_, port, _ := net.SplitHostPort(address)
		uri := scheme + "://localhost:" + port
		dialer := a.dialer()
		client := &http.Client{Transport: &http.Transport{DialContext: dialer.DialContext}}
		transport, err := kamrpc.OpenOver(uri, client, dialer)
		if err != nil {
			t.Fatal(err)
		}
		_, err = transport.RoundTrip(t.Context(), []byte("{}"))
		if !errors.Is(err, errNotAllowed) && scheme != "binrpc+tcp" { // binrpc+tcp reads the request first
			t.Errorf("%s: %v", scheme, err)
		}
		client2, err := kamrpc.NewClient(kamrpc.Config{Transports: []kamrpc.Transport{transport}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := client2.Call(t.Context(), "core.uptime"); !errors.Is(err, errNotAllowed) || !errors.Is(err, kamrpc.ErrUnreachable) {
			t.Errorf("%s: %v", scheme, err)
		}
	}
	_ = l.(*net.TCPListener).SetDeadline(time.Now())
	if c, err := l.Accept(); err == nil {
		c.Close()
		t.Error("a connection was made")
	}
	_ = packets.SetDeadline(time.Now())
	if n, _, err := packets.ReadFrom(make([]byte, 1)); err == nil {
		t.Errorf("a datagram of %d bytes was sent", n)
	}
}

// fakePage is a page that blocks until it is released.
type fakePage struct {
	mu      sync.Mutex
	wait    chan struct{}
	entered chan struct{}
	served  int
	closed  int
}

func (p *fakePage) Serve(_ http.ResponseWriter, r *http.Request, _ Module) Outcome {
	p.mu.Lock()
	p.served++
	wait := p.wait
	p.mu.Unlock()
	if wait != nil {
		p.entered <- struct{}{}
		select {
		case <-wait:
		case <-r.Context().Done():
		}
	}
	return Up
}

func (p *fakePage) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed++
}

func (p *fakePage) counts() (served, closed int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.served, p.closed
}

// fakeFleet has fake pages by target.
type fakeFleet struct {
	*Fleet
	t     *testing.T
	file  string
	pages map[string]*fakePage
	built map[string]int
	fail  map[string]bool
}

func newFakeFleet(t *testing.T, text string) *fakeFleet {
	t.Helper()
	f := &fakeFleet{t: t, file: filepath.Join(t.TempDir(), "fleet.yml"), pages: map[string]*fakePage{}, built: map[string]int{}, fail: map[string]bool{}}
	f.write(text)
	var err error
	f.Fleet, err = New(Options{File: f.file, Base: testBase(), Logger: log.NewNopLogger(), Build: func(target *Target, _ *net.Dialer) (Page, error) {
		if f.fail[target.Name] {
			return nil, errors.New("cannot be built")
		}
		f.built[target.Name]++
		f.pages[target.Name] = &fakePage{}
		return f.pages[target.Name], nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *fakeFleet) write(text string) {
	f.t.Helper()
	if err := os.WriteFile(f.file, []byte(text), 0o640); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fakeFleet) probe(query string) int {
	w := httptest.NewRecorder()
	f.Probe(w, httptest.NewRequest(http.MethodGet, "/probe?"+query, nil))
	return w.Code
}

func TestReloadKeepsWhatDidNotChange(t *testing.T) {
	const httpConfig = "http_config: {basic_auth: {username: x, password: y}, proxy_from_environment: true}"
	f := newFakeFleet(t, "targets: {a: {uris: ['http://192.0.2.1:1'], "+httpConfig+"}, b: {uris: ['tcp://192.0.2.2:1']}}")
	a, b := f.pages["a"], f.pages["b"]

	// Changes of labels and modules do not replace the page.
	f.write("modules: {m: {collectors: [tm]}}\ndefaults: {limits: {contacts: 1000}, " + httpConfig + "}\ntargets: {a: {uris: ['http://192.0.2.1:1'], labels: {site: x}, module: m}, b: {uris: ['tcp://192.0.2.2:2']}}")
	if err := f.Reload(); err != nil {
		t.Fatal(err)
	}
	if f.pages["a"] != a || f.built["a"] != 1 {
		t.Error("a was built anew, and is as it was")
	}
	if got := f.Targets()[0]; got.Labels["site"] != "x" || got.Module != "m" {
		t.Errorf("a has the labels and module of before: %+v", got)
	}
	if _, closed := b.counts(); f.pages["b"] == b || closed != 1 {
		t.Errorf("b is another and was not replaced, or closed %d times", closed)
	}

	// An invalid file, or a target that cannot be built, changes nothing.
	f.fail["c"] = true
	for _, text := range []string{"targets: {", "targets: {b: {uris: ['tcp://192.0.2.2:3']}, c: {uris: ['tcp://192.0.2.3:1']}}"} {
		f.write(text)
		before := f.pages["b"]
		if err := f.Reload(); err == nil {
			t.Fatalf("%s: no error", text)
		}
		if f.probe("target=a") != 200 || f.probe("target=b") != 200 || f.probe("target=c") != 404 {
			t.Errorf("%s: something changed", text)
		}
		if served, closed := before.counts(); served == 0 || closed != 0 {
			t.Errorf("%s: b served %d, closed %d times", text, served, closed)
		}
		if f.pages["b"] != before {
			if _, closed := f.pages["b"].counts(); closed != 1 {
				t.Errorf("%s: what was built for nothing is open", text)
			}
			f.pages["b"] = before
		}
	}
}

// TestRemovedTargetClosesWhenItsScrapeEnds checks that a removed target finishes its
// current probe, and is then closed.
func TestRemovedTargetClosesWhenItsScrapeEnds(t *testing.T) {
	f := newFakeFleet(t, "targets: {a: {uris: ['tcp://192.0.2.1:1']}, b: {uris: ['tcp://192.0.2.2:1']}}")
	a := f.pages["a"]
	a.wait, a.entered = make(chan struct{}), make(chan struct{})
	ended := make(chan int)
	go func() { ended <- f.probe("target=a") }()
	<-a.entered
	f.write("targets: {b: {uris: ['tcp://192.0.2.2:1']}}")
	if err := f.Reload(); err != nil {
		t.Fatal(err)
	}
	if f.probe("target=a") != 404 {
		t.Error("it is still there")
	}
	if _, closed := a.counts(); closed != 0 {
		t.Error("closed under its scrape")
	}
	close(a.wait)
	if code := <-ended; code != 200 {
		t.Errorf("its scrape ended with %d", code)
	}
	if _, closed := a.counts(); closed != 1 {
		t.Errorf("closed %d times", closed)
	}
}

func TestIdleAllowedTargetsAreForgotten(t *testing.T) {
	f := newFakeFleet(t, "allow: {networks: [192.0.2.0/24], max_targets: 2}")
	now := time.Unix(1e9, 0)
	f.now = func() time.Time { return now }
	uri := func(i int) string { return fmt.Sprintf("tcp://192.0.2.%d:8091", i) }
	for i, want := range []int{200, 200, 429} {
		if got := f.probe("target=" + uri(i)); got != want {
			t.Errorf("%s: %d, want %d", uri(i), got, want)
		}
	}
	now = now.Add(guestIdle / 2)
	f.probe("target=" + uri(1))
	now = now.Add(guestIdle/2 + time.Second)
	if got := f.probe("target=" + uri(3)); got != 200 {
		t.Errorf("an idle one is not forgotten: %d", got)
	}
	if _, closed := f.pages[uri(0)].counts(); closed != 1 || f.built[uri(1)] != 1 {
		t.Errorf("the idle one was closed %d times, the other built %d times", closed, f.built[uri(1)])
	}
	if _, guests := f.sizes(); guests != 2 {
		t.Errorf("%d guests", guests)
	}
	// With another allow list, admitted targets are checked again.
	f.write("allow: {networks: [192.0.2.3/32]}")
	if err := f.Reload(); err != nil {
		t.Fatal(err)
	}
	if _, guests := f.sizes(); guests != 0 {
		t.Errorf("%d guests", guests)
	}
	if got := f.probe("target=" + uri(1)); got != 403 {
		t.Errorf("not in the list any more: %d", got)
	}
}

func TestNarrow(t *testing.T) {
	whole := Module{Collectors: []string{"core", "tm", "sl"}, SIP: true, Script: true}
	for _, tc := range []struct {
		include, exclude []string
		want             string
		beside           bool
	}{
		{nil, nil, "core tm sl", true},
		{[]string{"sl", "tm"}, nil, "tm sl", false},
		{nil, []string{"tm"}, "core sl", true},
	} {
		m, err := whole.narrow(tc.include, tc.exclude)
		if err != nil || strings.Join(m.Collectors, " ") != tc.want || m.SIP != tc.beside || m.Script != tc.beside {
			t.Errorf("%v %v: %+v, %v", tc.include, tc.exclude, m, err)
		}
	}
	for _, names := range [][]string{{"nosuch"}, {"pike"}, {""}} {
		if _, err := whole.narrow(names, nil); err == nil {
			t.Errorf("%v: no error", names)
		}
	}
	if !slices.Equal(whole.Collectors, []string{"core", "tm", "sl"}) {
		t.Error("the module itself was changed")
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(oneTarget))
	f.Add([]byte("allow: {networks: [192.0.2.0/24], ports: [5060], paths: [/RPC]}\nmodules: {a: {exclude: [tm]}}"))
	f.Add([]byte("defaults: {http_config: {basic_auth: {username: a, password: b}}, limits: {rpc_timeout: 1s}}\n" + oneTarget))
	f.Fuzz(func(t *testing.T, text []byte) {
		cfg, problems := parse(text, "/nonexistent", 0o640, testBase())
		if cfg == nil && len(problems) == 0 {
			t.Error("neither a configuration nor a problem")
		}
	})
}

// FuzzAdmit checks that whatever is admitted has an address in the list, a valid path,
// and no user or query.
func FuzzAdmit(f *testing.F) {
	for _, text := range []string{"http://192.0.2.1/RPC", "tcp://192.0.2.1:1", "unix:///x", "http://a:b@192.0.2.1/RPC", "http://192.0.2.1:5060/RPC?x", "udp://[::ffff:192.0.2.1]:1", "http://127.0.0.1#@192.0.2.1/RPC"} {
		f.Add(text)
	}
	a := &allowList{networks: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}, paths: []string{"/RPC"}}
	f.Fuzz(func(t *testing.T, text string) {
		if u, err := url.Parse(text); err == nil {
			if _, err := netip.ParseAddr(u.Hostname()); err != nil {
				return // a name, and there is no DNS here
			}
		}
		uri, err := a.admit(t.Context(), text)
		if err != nil {
			return
		}
		rest, ok := strings.CutPrefix(uri[strings.Index(uri, "://"):], "://")
		host, path, _ := strings.Cut(rest, "/")
		if !ok || strings.ContainsAny(rest, "@?#") || path != "" && path != "RPC" {
			t.Errorf("%q became %q", text, uri)
		}
		if h, _, err := net.SplitHostPort(host); err == nil {
			host = h
		}
		if address, err := netip.ParseAddr(strings.Trim(host, "[]")); err != nil || !a.contains(address) {
			t.Errorf("%q became %q", text, uri)
		}
	})
}
