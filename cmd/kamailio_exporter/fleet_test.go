package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/cli"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/conf"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/doctor"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc/kamrpctest"
)

// fleetFile writes a configuration file.
func fleetFile(t testing.TB, format string, args ...any) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "fleet.yml")
	rewrite(t, file, format, args...)
	return file
}

// rewrite replaces the file atomically, as an editor does.
func rewrite(t testing.TB, file, format string, args ...any) {
	t.Helper()
	if err := os.WriteFile(file+".new", fmt.Appendf(nil, format, args...), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
}

func (e *exporter) post(t testing.TB, path string, headers ...string) (int, string) {
	t.Helper()
	resp, body := e.send(t, http.MethodPost, path, headers...)
	return resp.StatusCode, body
}

func has(t *testing.T, page string, wants ...string) {
	t.Helper()
	for _, want := range wants {
		if !strings.Contains("\n"+page, "\n"+want+"\n") {
			t.Errorf("no line %q in\n%.2000s", want, page)
		}
	}
}

func TestProbe(t *testing.T) {
	here, there := fake(t), fake(t)
	file := fleetFile(t, `
modules:
  calls: {collectors: [tm, dialog]}
  light: {exclude: [dispatcher, statistics]}
targets:
  here: {uris: [%q, %q]}
  there: {uris: [%q], module: light, labels: {site: fra, role: sbc}}
`, here.URI("unix"), here.URI("fifo"), there.URI("http"))
	e := start(t, "--config.file="+file, "--scrape.reuse=0s")

	for _, tc := range []struct {
		path   string
		status int
		has    string
		hasNot string
	}{
		{"/probe?target=here", 200, "\nkamailio_up 1\n", "kamailio_exporter_"},
		{"/probe?target=here", 200, "\nkamailio_dispatcher_", "go_"},
		{"/probe?target=here&module=default", 200, "\nkamailio_dispatcher_", ""},
		{"/probe?target=there", 200, "\nkamailio_core_", "kamailio_dispatcher_"},
		{"/probe?target=there&module=calls", 200, "\nkamailio_tm_", "kamailio_core_"},
		{"/probe?target=there&module=calls&collect[]=tm", 200, "\nkamailio_tm_", "kamailio_dialog_"},
		{"/probe?target=there&module=calls&exclude[]=tm", 200, "\nkamailio_dialog_", "kamailio_tm_"},
		{"/probe", 400, "target: give one", ""},
		{"/probe?target=", 400, "target: give one", ""},
		{"/probe?target=here&target=there", 400, "target: give one", ""},
		{"/probe?target=elsewhere", 404, "no target of this name", ""},
		{"/probe?target=here&module=nosuch", 400, "no module of this name", ""},
		{"/probe?target=here&collect[]=nosuch", 400, "no such collector", ""},
		{"/probe?target=there&collect[]=dispatcher", 400, "not in the module", ""},
		{"/probe?target=there&module=calls&collect[]=tm&exclude[]=tm", 400, "leave no collector", ""},
		// Only the exporter's own metrics: no flag names a Kamailio.
		{"/metrics", 200, "\nkamailio_exporter_probes_total{result=\"up\"} 7\n", "kamailio_up"},
		{"/metrics", 200, "\nkamailio_exporter_probes_refused_total{reason=\"unknown_collector\"} 3\n", ""},
		{"/metrics", 200, "\nkamailio_exporter_targets{from=\"file\"} 2\n", ""},
		{"/metrics", 200, "\nkamailio_exporter_config_last_reload_successful 1\n", ""},
		{"/", 200, `<a href="/probe?target=there">there</a>`, "only this"},
	} {
		resp, body := e.get(t, tc.path)
		if resp.StatusCode != tc.status || !strings.Contains(body, tc.has) || tc.hasNot != "" && strings.Contains(body, tc.hasNot) {
			t.Errorf("%s: status %d, want %d, with %q, without %q\n%.600s", tc.path, resp.StatusCode, tc.status, tc.has, tc.hasNot, body)
		}
		if tc.status >= 400 && strings.Count(body, "\n") != 1 {
			t.Errorf("%s: not one line: %q", tc.path, body)
		}
	}

	resp, body := e.get(t, "/sd")
	var groups []struct {
		Targets []string
		Labels  map[string]string
	}
	if err := json.Unmarshal([]byte(body), &groups); err != nil || resp.Header.Get("Content-Type") != "application/json" {
		t.Fatalf("/sd: %v, %s: %s", err, resp.Header.Get("Content-Type"), body)
	}
	if got := fmt.Sprint(groups); got != "[{[here] map[]} {[there] map[role:sbc site:fra]}]" {
		t.Errorf("/sd: %s", got)
	}
}

// TestProbeBesideOneKamailio checks that both pages exist if both are configured, and
// that settings for the Kamailio of the flags do not apply to the targets.
func TestProbeBesideOneKamailio(t *testing.T) {
	one, other := fake(t), fake(t)
	file := fleetFile(t, "targets: {other: {uris: [%q]}}", other.URI("http"))
	e := start(t, "--config.file="+file, "--kamailio.uri="+one.URI("http"), "--no-collector.tm")
	_, body := e.get(t, "/metrics")
	has(t, body, "kamailio_up 1")
	if one.CallCount("core.uptime") != 1 || other.CallCount("core.uptime") != 0 {
		t.Errorf("/metrics asked %d and %d times", one.CallCount("core.uptime"), other.CallCount("core.uptime"))
	}
	_, body = e.get(t, "/probe?target=other")
	has(t, body, "kamailio_up 1")
	if strings.Contains(body, "kamailio_tm_") {
		t.Error("a collector that the flags switch off is in the default module")
	}
	if other.CallCount("core.uptime") != 1 {
		t.Errorf("/probe asked %d times", other.CallCount("core.uptime"))
	}
}

// TestProbeKeepsLearnedState checks that the limitations of a target are remembered
// between probes.
func TestProbeKeepsLearnedState(t *testing.T) {
	server := fake(t)
	server.HandleFault("ul.dump", 500, "no memory")
	file := fleetFile(t, "targets: {one: {uris: [%q]}}", server.URI("http"))
	e := start(t, "--config.file="+file, "--scrape.reuse=0s", "--web.enable-lifecycle")
	e.get(t, "/probe?target=one") // a short list may fail once
	for range 3 {
		_, body := e.get(t, "/probe?target=one")
		has(t, body, "kamailio_up 1", `kamailio_scrape_skipped{collector="usrloc_contacts",method="ul.dump",reason="pause"} 1`)
		if status, body := e.post(t, "/-/reload"); status != 200 {
			t.Errorf("reload: %d %s", status, body)
		}
	}
	if n := server.CallCount("system.listMethods"); n != 1 {
		t.Errorf("asked %d times which methods there are", n)
	}
	if n := server.CallCount("ul.dump"); n != 2 {
		t.Errorf("the failed call was made %d times", n)
	}
	// With another limit, the target is a new one: it starts again without state.
	rewrite(t, file, "targets: {one: {uris: [%q], limits: {contacts: 10}}}", server.URI("http"))
	e.post(t, "/-/reload")
	e.get(t, "/probe?target=one")
	if n := server.CallCount("system.listMethods"); n != 2 {
		t.Errorf("asked %d times which methods there are", n)
	}
}

// listener counts connections. Refused requests must not make any.
func listener(t *testing.T) (string, *atomic.Int64) {
	t.Helper()
	connections := &atomic.Int64{}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			connections.Add(1)
			c.Close()
		}
	}()
	return l.Addr().String(), connections
}

func TestNoOpenProxy(t *testing.T) {
	address, connections := listener(t)
	socket := filepath.Join(t.TempDir(), "rpc.sock")
	named := fake(t)
	with := func(allow string) *exporter {
		return start(t, "--config.file="+fleetFile(t, "targets: {named: {uris: [%q]}}\n%s", named.URI("http"), allow))
	}
	none := with("")
	others := with("allow: {networks: [192.0.2.0/24]}")
	wide := with("allow: {networks: [0.0.0.0/0, '::/0']}")
	local := with("allow: {networks: [127.0.0.1/32], ports: [1], paths: [/RPC, /kamailio]}")
	_, port, _ := net.SplitHostPort(address)
	for _, tc := range []struct {
		e      *exporter
		target string
		status int
		has    string
	}{
		{none, "http://" + address + "/RPC", 403, "only allows the URIs of its targets"},
		{none, named.URI("http"), 403, "only allows the URIs of its targets"},
		{none, "unix://" + socket, 403, "unix and FIFO paths are allowed only in targets of the configuration file"},
		{none, "fifo://" + socket, 403, "paths are allowed only in targets"},
		{none, "FIFO:" + socket, 404, "no target of this name"},
		{none, "binrpc+unix://" + socket, 403, "paths are allowed only in targets"},
		{none, socket, 404, "no target of this name"},
		{none, address, 404, "no target of this name"},
		{none, "file:///etc/passwd", 400, "unknown scheme"},
		{none, "gopher://" + address, 400, "unknown scheme"},
		{none, "http://user:s3cret@" + address + "/RPC", 400, "the URI must not contain a user or password"},
		{none, "http://:@" + address + "/RPC", 400, "the URI must not contain a user or password"},
		{others, "http://" + address + "/RPC", 403, "its address is not in allow: networks"},
		{others, "https://" + address + "/RPC", 403, "its address is not in allow: networks"},
		{others, "tcp://" + address, 403, "its address is not in allow: networks"},
		{others, "udp://" + address, 403, "its address is not in allow: networks"},
		{others, "binrpc+tcp://" + address, 403, "its address is not in allow: networks"},
		{others, "unix://" + socket, 403, "paths are allowed only in targets"},
		{others, "http://user:s3cret@192.0.2.1/RPC", 400, "the URI must not contain a user or password"},
		{others, "http://192.0.2.1/RPC?x=1", 403, "this path is not in allow: paths"},
		{others, "http://192.0.2.1/admin", 403, "this path is not in allow: paths"},
		{others, "http://192.0.2.1/RPC/../admin", 403, "this path is not in allow: paths"},
		{others, "http://192.0.2.1/RPC%2f..%2fadmin", 403, "this path is not in allow: paths"},
		{others, "http://nosuch.invalid/RPC", 400, "its host has no address"},
		{others, "http://" + strings.Repeat("a", 600), 400, "longer than 512 bytes"},
		{wide, "http://" + address + "/RPC", 403, "its address is not in allow: networks"},
		{wide, "http://localhost:" + port + "/RPC", 403, "its address is not in allow: networks"},
		{wide, "http://0.0.0.0:" + port + "/RPC", 403, "its address is not in allow: networks"},
		{wide, "http://[::]:" + port + "/RPC", 403, "its address is not in allow: networks"},
		{wide, "http://[::1]:" + port + "/RPC", 403, "its address is not in allow: networks"},
		{wide, "http://[::ffff:127.0.0.1]:" + port + "/RPC", 403, "its address is not in allow: networks"},
		{wide, "http://169.254.169.254/RPC", 403, "its address is not in allow: networks"},
		{wide, "http://[fe80::1%25lo]:" + port + "/RPC", 403, "its address is not in allow: networks"},
		{wide, "udp://224.0.0.1:5060", 403, "its address is not in allow: networks"},
		{local, "http://" + address + "/RPC", 403, "this port is not in allow: ports"},
		{local, "tcp://" + address, 403, "this port is not in allow: ports"},
	} {
		resp, body := tc.e.get(t, "/probe?target="+url.QueryEscape(tc.target))
		if resp.StatusCode != tc.status || !strings.Contains(body, tc.has) || strings.Count(body, "\n") != 1 {
			t.Errorf("%s: status %d, want %d with %q: %s", tc.target, resp.StatusCode, tc.status, tc.has, body)
		}
		if strings.Contains(body, "s3cret") {
			t.Errorf("a password is in the answer: %s", body)
		}
	}
	// An unknown module is refused before the host is checked.
	resp, body := wide.get(t, "/probe?module=nosuch&target="+url.QueryEscape("http://"+address+"/RPC"))
	if resp.StatusCode != 400 || !strings.Contains(body, "no module of this name") {
		t.Errorf("unknown module: %d %s", resp.StatusCode, body)
	}
	if n := connections.Load(); n != 0 {
		t.Errorf("%d connections were made", n)
	}
	if n := len(named.Calls()); n != 0 {
		t.Errorf("the target of the file was asked by its URI: %v", named.Calls())
	}
	for _, e := range []*exporter{none, others, wide, local} {
		if strings.Contains(e.stderr.String(), "s3cret") {
			t.Error("a password is in the log")
		}
	}
}

func TestProbeOfAllowedNetworks(t *testing.T) {
	server := fake(t)
	e := start(t, "--scrape.reuse=0s", "--config.file="+fleetFile(t, `
allow:
  networks: [127.0.0.0/8]
  max_targets: 5
  module: calls
modules: {calls: {collectors: [tm]}}
`))
	for _, scheme := range []string{"http", "udp", "tcp", "binrpc+tcp"} {
		for range 2 {
			resp, body := e.get(t, "/probe?target="+url.QueryEscape(server.URI(scheme)))
			if resp.StatusCode != 200 {
				t.Fatalf("%s: %d %s", scheme, resp.StatusCode, body)
			}
			has(t, body, "kamailio_up 1")
			if !strings.Contains(body, "kamailio_tm_") || strings.Contains(body, "kamailio_core_") {
				t.Errorf("%s: not the module of allow", scheme)
			}
		}
	}
	if n := server.CallCount("system.listMethods"); n != 4 {
		t.Errorf("%d sessions for 4 URIs", n)
	}
	// Another spelling of the same URI uses the same session.
	e.get(t, "/probe?target="+url.QueryEscape(strings.Replace(strings.TrimSuffix(server.URI("http"), "RPC"), "http", "HTTP", 1)))
	if n := server.CallCount("system.listMethods"); n != 4 {
		t.Errorf("%d sessions for 4 URIs", n)
	}
	// A redirect could lead to any address, so it must not be followed.
	server.Misbehave(kamrpctest.Redirect)
	_, body := e.get(t, "/probe?target="+url.QueryEscape(server.URI("http")))
	has(t, body, "kamailio_up 0")
	server.Misbehave(kamrpctest.OK)

	for i, want := range []int{200, 429} {
		if resp, body := e.get(t, fmt.Sprintf("/probe?target=http://127.0.0.%d:1/RPC", i+2)); resp.StatusCode != want {
			t.Errorf("target %d: %d, want %d: %s", i+5, resp.StatusCode, want, body)
		}
	}
	_, body = e.get(t, "/metrics")
	has(t, body, `kamailio_exporter_targets{from="allow"} 5`, `kamailio_exporter_probes_refused_total{reason="too_many"} 1`)
}

func TestReload(t *testing.T) {
	first, second := fake(t), fake(t)
	file := fleetFile(t, "targets: {first: {uris: [%q]}}", first.URI("http"))
	e := start(t, "--config.file="+file, "--web.enable-lifecycle", "--scrape.reuse=0s")
	reload := func(wantStatus int, wantText string) {
		t.Helper()
		if status, body := e.post(t, "/-/reload"); status != wantStatus || !strings.Contains(body, wantText) {
			t.Errorf("reload: %d %q, want %d with %q", status, body, wantStatus, wantText)
		}
	}
	good := func(status string) {
		t.Helper()
		_, page := e.get(t, "/metrics")
		has(t, page, "kamailio_exporter_config_last_reload_successful "+status)
	}
	stamp := func() string {
		_, page := e.get(t, "/metrics")
		return regexp.MustCompile(`(?m)^kamailio_exporter_config_last_reload_success_timestamp_seconds .*`).FindString(page)
	}
	before := stamp()

	rewrite(t, file, "targets: {first: {uris: [%q]}, second: {urls: [%q]}}", first.URI("http"), second.URI("http"))
	reload(500, "line 1: unknown key urls; did you mean uris?")
	good("0")
	if stamp() != before {
		t.Error("a bad file moved the time of success")
	}
	if resp, _ := e.get(t, "/probe?target=first"); resp.StatusCode != 200 {
		t.Errorf("the configuration before is not in use: %s", resp.Status)
	}
	if !strings.Contains(e.stderr.String(), `msg="reload failed; keeping the previous configuration"`) {
		t.Errorf("not in the log:\n%s", e.stderr.String())
	}

	rewrite(t, file, "targets: {first: {uris: [%q]}, second: {uris: [%q]}}", first.URI("http"), second.URI("http"))
	if err := syscall.Kill(syscall.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	e.stderr.waitFor(t, `msg="configuration reloaded" targets=2`)
	good("1")
	if stamp() == before {
		t.Error("the time of success stands still")
	}
	if resp, _ := e.get(t, "/probe?target=second"); resp.StatusCode != 200 {
		t.Errorf("the new target: %s", resp.Status)
	}

	rewrite(t, file, "targets: {second: {uris: [%q]}}", second.URI("http"))
	reload(200, "in force")
	if resp, _ := e.get(t, "/probe?target=first"); resp.StatusCode != 404 {
		t.Errorf("the target that is no more: %s", resp.Status)
	}

	for _, header := range []string{"Origin", "Sec-Fetch-Site"} {
		if status, _ := e.post(t, "/-/reload", header, "same-origin"); status != 403 {
			t.Errorf("with %s: %d", header, status)
		}
	}
	if resp, _ := e.get(t, "/-/reload"); resp.StatusCode != 405 {
		t.Errorf("GET /-/reload: %s", resp.Status)
	}
	if status, body := start(t, "--config.file="+file).post(t, "/-/reload"); status != 403 || !strings.Contains(body, "--web.enable-lifecycle") {
		t.Errorf("without the flag: %d %s", status, body)
	}
}

// waitFor waits until the log has a text.
func (b *logBuffer) waitFor(t *testing.T, text string) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	timeout := time.AfterFunc(30*time.Second, b.more.Broadcast)
	defer timeout.Stop()
	for begun := time.Now(); !strings.Contains(b.text.String(), text); b.more.Wait() {
		if time.Since(begun) > 30*time.Second {
			t.Fatalf("no %q in the log:\n%s", text, b.text.String())
		}
	}
}

// TestReloadUnderLoad checks that a reload during scrapes interrupts none of them, and
// that the connections of a removed target are closed when its scrape ends.
func TestReloadUnderLoad(t *testing.T) {
	const targets, scrapers = 5, 10
	var uris []any
	for range targets - 1 {
		uris = append(uris, fake(t).URI("http"))
	}
	names := []string{"a", "b", "c", "d", url.QueryEscape(fake(t).URI("http"))}
	const whole = "targets: {a: {uris: [%q]}, b: {uris: [%q]}, c: {uris: [%q]}, d: {uris: [%q], limits: {contacts: %d}}}\nallow: {networks: [127.0.0.1/32], max_targets: %d}"
	file := fleetFile(t, whole, append(uris, 1, 1)...)
	e := start(t, "--config.file="+file, "--web.enable-lifecycle", "--scrape.reuse=0s")
	var all sync.WaitGroup
	done := make(chan struct{})
	var pages atomic.Int64
	for i := range scrapers {
		all.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				resp, body := e.get(t, "/probe?target="+names[i%targets])
				if resp.StatusCode != 200 || !strings.Contains(body, "\nkamailio_up 1\n") {
					t.Errorf("a scrape was dropped: %s\n%.300s", resp.Status, body)
					return
				}
				pages.Add(1)
			}
		})
	}
	for i := range 30 {
		rewrite(t, file, whole, append(uris, i+2, i+2)...) // d and the allow list change each time
		if status, body := e.post(t, "/-/reload"); status != 200 {
			t.Errorf("reload: %d %s", status, body)
		}
		rewrite(t, file, "nonsense: %d", i)
		if status, _ := e.post(t, "/-/reload"); status != 500 {
			t.Errorf("a bad file: %d", status)
		}
	}
	close(done)
	all.Wait()
	if pages.Load() < 2*scrapers {
		t.Errorf("only %d pages meanwhile", pages.Load())
	}
	_, page := e.get(t, "/metrics")
	has(t, page, fmt.Sprintf(`kamailio_exporter_probes_total{result="up"} %d`, pages.Load()), "kamailio_exporter_config_last_reload_successful 0")
}

func TestConfigCheck(t *testing.T) {
	good := fleetFile(t, "modules: {calls: {collectors: [tm]}}\ntargets: {a: {uris: ['tcp://192.0.2.1:8091']}}")
	var out bytes.Buffer
	if err := run(t.Context(), []string{"--config.file=" + good, "--config.check"}, &out, io.Discard); err != nil || out.String() != good+" is valid: targets: 1, modules: 2\n" {
		t.Errorf("%v: %s", err, out.String())
	}
	bad := fleetFile(t, "targets: {a: {uris: ['tcp://192.0.2.1'], module: nosuch}, 'b c': {}}")
	out.Reset()
	err := run(t.Context(), []string{"--config.file=" + bad, "--config.check"}, &out, io.Discard)
	if err == nil || !strings.HasSuffix(err.Error(), ": 4") || strings.Count(out.String(), "\n") != 4 {
		t.Errorf("%v:\n%s", err, out.String())
	}
	for _, tc := range []struct {
		args string
		want string
	}{
		{"--config.check", "--config.check needs --config.file"},
		{"--web.enable-lifecycle", "needs --config.file"},
		{"--web.telemetry-path=/probe --config.file=" + good, "is used for targets when --config.file is set"},
		{"--sip.probe=udp:192.0.2.1:5060 --config.file=" + good, "apply to --kamailio.uri, which is not set"},
		{"--config.file=/nonexistent", "no such file"},
		{"--config.file=" + bad, "module: there is no module"},
		{"--config.file=" + good + " --admin.config.file=" + adminFileFor(t), "needs --kamailio.uri in addition to --config.file"},
		{"--config.file=" + good + " --kamailio.uri=tcp://192.0.2.1:8091 --admin.config.file=" + adminFileFor(t), "is also changed by the admin endpoint"},
	} {
		err := run(t.Context(), append(strings.Fields(tc.args), "--web.listen-address=127.0.0.1:0"), io.Discard, io.Discard)
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", tc.args, err, tc.want)
		}
	}
}

func adminFileFor(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "admin.yml")
	text := fmt.Sprintf("admin: {enabled: true, listen: 'unix:%s/s', audit: {file: '%s/a.jsonl'}, users: {me: {peer_uid: [0], auditor: true}}}", dir, dir)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// TestProbeCredentials checks that the credentials of a target are sent only to that
// target, and are in no response and no log.
func TestProbeCredentials(t *testing.T) {
	t.Setenv("FLEET_TEST_PASSWORD", "s3cret")
	var mu sync.Mutex
	got := map[string]string{} // by port
	serve := func() string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			user, password, _ := r.BasicAuth()
			mu.Lock()
			defer mu.Unlock()
			got[r.Host] = user + ":" + password
			w.WriteHeader(http.StatusUnauthorized)
		})}
		go func() { _ = server.Serve(l) }()
		t.Cleanup(func() { server.Close() })
		return l.Addr().String()
	}
	with, without, guest := serve(), serve(), serve()
	e := start(t, "--config.file="+fleetFile(t, `
defaults: {http_config: {basic_auth: {username: exporter, password_ref: FLEET_TEST_PASSWORD}}}
targets:
  with: {uris: ["http://%s/RPC"]}
  without: {uris: ["http://%s/RPC"], http_config: {}}
allow: {networks: [127.0.0.1/32]}
`, with, without))
	for _, target := range []string{"with", "without", "http://" + guest + "/RPC"} {
		_, body := e.get(t, "/probe?target="+url.QueryEscape(target))
		has(t, body, "kamailio_up 0")
	}
	want := map[string]string{with: "exporter:s3cret", without: ":", guest: ":"}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got, want)
	}
	_, metrics := e.get(t, "/metrics")
	_, landing := e.get(t, "/")
	if strings.Contains(e.stderr.String()+metrics+landing, "s3cret") {
		t.Error("a password shows")
	}
	if !strings.Contains(e.stderr.String(), "target=without") {
		t.Errorf("the log does not tell which target failed:\n%s", e.stderr.String())
	}
}

// TestTargetsDoNotDelayEachOther checks that a target that hangs and one that is down do not
// slow down the others.
func TestTargetsDoNotDelayEachOther(t *testing.T) {
	const targets = 20
	var file strings.Builder
	var hanging, dead *kamrpctest.Server
	for i := range targets {
		server := fake(t)
		fmt.Fprintf(&file, "  t%02d: {uris: [%q], limits: {scrape_timeout: 5m, rpc_timeout: 5m}}\n", i, server.URI("http"))
		switch i {
		case 0:
			hanging = server
		case 1:
			dead = server
		}
	}
	asked := make(chan struct{}, 1)
	hanging.HandleFunc("core.uptime", func(kamrpctest.Request) kamrpctest.Response {
		asked <- struct{}{}
		<-t.Context().Done()
		return kamrpctest.Response{}
	})
	dead.Down()
	e := start(t, "--config.file="+fleetFile(t, "targets:\n%s", file.String()))

	ctx, giveUp := context.WithCancel(t.Context())
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, e.url+"/probe?target=t00", nil)
	if err != nil {
		t.Fatal(err)
	}
	answered := make(chan error, 1)
	go func() {
		resp, err := http.DefaultClient.Do(r)
		if err == nil {
			resp.Body.Close()
		}
		answered <- err
	}()
	<-asked
	var all sync.WaitGroup
	for range 3 {
		for i := 1; i < targets; i++ {
			all.Go(func() {
				want := "kamailio_up 1"
				if i == 1 {
					want = "kamailio_up 0"
				}
				_, page := e.get(t, fmt.Sprintf("/probe?target=t%02d", i))
				has(t, page, want)
			})
		}
		all.Wait()
	}
	select {
	case err := <-answered:
		t.Errorf("the hanging target did not hang: %v", err)
	default:
	}
	giveUp()
	if err := <-answered; err == nil {
		t.Error("the hanging target answered")
	}
	e.stderr.waitFor(t, "target=t01")
}

// TestRemovedTargetsHaveNoConnections checks that the connections of a removed target are
// closed, with and without credentials.
func TestRemovedTargetsHaveNoConnections(t *testing.T) {
	var mu sync.Mutex
	open := map[net.Conn]bool{}
	changed := sync.NewCond(&mu)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{
		ReadHeaderTimeout: time.Minute,
		Handler:           http.NotFoundHandler(),
		ConnState: func(c net.Conn, state http.ConnState) {
			mu.Lock()
			defer mu.Unlock()
			defer changed.Broadcast()
			if state == http.StateClosed {
				delete(open, c)
			} else {
				open[c] = true
			}
		},
	}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { server.Close() })
	for _, httpConfig := range []string{"{}", "{basic_auth: {username: a, password: b}}"} {
		file := fleetFile(t, "targets: {a: {uris: ['http://%s/RPC'], http_config: %s}}", l.Addr(), httpConfig)
		e := start(t, "--config.file="+file, "--web.enable-lifecycle")
		e.get(t, "/probe?target=a")
		mu.Lock()
		if len(open) == 0 {
			t.Errorf("%s: no connection is kept", httpConfig)
		}
		mu.Unlock()
		rewrite(t, file, "targets: {b: {uris: ['tcp://127.0.0.1:1']}}")
		if status, body := e.post(t, "/-/reload"); status != 200 {
			t.Fatalf("reload: %d %s", status, body)
		}
		mu.Lock()
		timeout := time.AfterFunc(10*time.Second, changed.Broadcast) // an idle connection lives for 17 s
		for begun := time.Now(); len(open) > 0 && time.Since(begun) < 10*time.Second; {
			changed.Wait()
		}
		timeout.Stop()
		if len(open) > 0 {
			t.Errorf("%s: %d connections are open", httpConfig, len(open))
		}
		mu.Unlock()
	}
}

// TestHangupReadsBothFiles checks that SIGHUP reloads both files.
func TestHangupReadsBothFiles(t *testing.T) {
	file := fleetFile(t, "targets: {a: {uris: ['tcp://127.0.0.1:1']}}")
	e := start(t, "--kamailio.uri="+fake(t).URI("http"), "--config.file="+file, "--admin.config.file="+adminFileFor(t))
	e.stderr.waitFor(t, `msg="admin endpoint: listening"`)
	if err := syscall.Kill(syscall.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	e.stderr.waitFor(t, `msg="configuration reloaded" targets=1`)
	e.stderr.waitFor(t, `msg="admin endpoint: configuration reloaded"`)
}

// TestHangupWithoutFiles checks that SIGHUP does not end an exporter without files.
func TestHangupWithoutFiles(t *testing.T) {
	e := start(t, "--kamailio.uri="+fake(t).URI("http"))
	if err := syscall.Kill(syscall.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	e.stderr.waitFor(t, "nothing to reload")
	if resp, _ := e.get(t, "/metrics"); resp.StatusCode != http.StatusOK {
		t.Errorf("status %d", resp.StatusCode)
	}
}

// TestCommandsOfTargets checks that doctor and rpc can use a target with its settings in
// the file.
func TestCommandsOfTargets(t *testing.T) {
	kamailio, password := fake56(t), "letmein"
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, given, _ := r.BasicAuth(); given != password {
			http.Error(w, "no", http.StatusUnauthorized)
			return
		}
		to, err := url.Parse(kamailio.URI("http"))
		if err != nil {
			t.Error(err)
			return
		}
		to.Path = ""
		httputil.NewSingleHostReverseProxy(to).ServeHTTP(w, r)
	}))
	t.Cleanup(proxy.Close)
	file := fleetFile(t, `
modules: {few: {collectors: [core, dispatcher]}}
targets:
  here: {uris: ['%[1]s/RPC'], module: few, http_config: {basic_auth: {username: me, password: %[2]s}}}
  locked: {uris: ['%[3]s/RPC']}
`, proxy.URL, password, strings.Replace(proxy.URL, "127.0.0.1", "localhost", 1))
	ask := func(command string, args ...string) (out string, code int) {
		t.Helper()
		var b strings.Builder
		err := run(t.Context(), append([]string{command, "--config.file=" + file}, args...), &b, io.Discard)
		if err == nil {
			return b.String(), 0
		}
		return b.String() + conf.OneLine(err), cli.ExitCode(err)
	}

	const listen = "--web.listen-address=127.0.0.1:0"
	out, code := ask("doctor", asMe(t), "--target=here", listen)
	if code != 0 || !strings.Contains(out, "Target here of "+file) || !strings.Contains(out, proxy.URL) || strings.Contains(out, password) {
		t.Errorf("%d:\n%s", code, out)
	}
	if out, code := ask("doctor", asMe(t), "--target=here", listen, "--output=json"); code != 0 || !strings.Contains(out, "2 collectors work, with") || !json.Valid([]byte(out)) {
		t.Errorf("its module has two collectors; %d:\n%s", code, out)
	}
	if out, code := ask("doctor", asMe(t), "--target=locked", listen); code != doctor.ExitBroken || !strings.Contains(out, "401") {
		t.Errorf("%d:\n%s", code, out)
	}
	if out, code := ask("rpc", "--target=here", "core.version"); code != 0 || !strings.Contains(out, "5.6.3") {
		t.Errorf("%d:\n%s", code, out)
	}
	for command, wrong := range map[string]int{"doctor": doctor.ExitUsage, "rpc": cli.ExitTrouble} {
		for _, args := range [][]string{{"core.version"}, {"--target=nowhere", "core.version"}} {
			if command == "doctor" {
				args = args[:len(args)-1]
			}
			if out, code := ask(command, args...); code != wrong || !strings.Contains(out, "here, locked") {
				t.Errorf("%s %q: %d: %s", command, args, code, out)
			}
		}
	}
	if err := run(t.Context(), []string{"doctor", "--target=here"}, io.Discard, io.Discard); err == nil || cli.ExitCode(err) != doctor.ExitUsage || !strings.Contains(err.Error(), "--target needs --config.file") {
		t.Error(err)
	}
	// The Kamailio of the flags, with the file present.
	if out, code := ask("rpc", "--kamailio.uri="+kamailio.URI("unix"), "core.version"); code != 0 || !strings.Contains(out, "5.6.3") {
		t.Errorf("%d:\n%s", code, out)
	}
}
