package main

import (
	"bytes"
	"context"
	"encoding/base64"
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
	"testing"
	"time"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/cli"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/conf"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc/kamrpctest"
)

// exporter is the whole program, running inside the test.
type exporter struct {
	url    string
	stop   func() error // like SIGTERM; waits for the end
	stderr *logBuffer
}

// logBuffer keeps the log and reports each new line.
type logBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
	more *sync.Cond
}

func newLogBuffer() *logBuffer {
	b := &logBuffer{}
	b.more = sync.NewCond(&b.mu)
	return b
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	defer b.more.Broadcast()
	return b.text.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

var listening = regexp.MustCompile(`address"?[=:]"?(127\.0\.0\.1:\d+)`) // in logfmt and in JSON

// settings returns the settings of the service with these flags.
func settings(args ...string) (*cli.Settings, error) {
	app, s := cli.NewApp(), &cli.Settings{}
	s.Declare(app.Command("serve", "").Default())
	if _, err := cli.Parse(app, args, io.Discard); err != nil {
		return nil, err
	}
	return s, s.Complete()
}

// start runs the exporter on a free port until the test ends. It runs at normal priority,
// because idle priority would apply to the whole test.
func start(t testing.TB, args ...string) *exporter {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	log := newLogBuffer()
	ended := make(chan error, 1)
	go func() {
		err := run(ctx, append([]string{"--web.listen-address=127.0.0.1:0", "--no-runtime.idle-priority"}, args...), io.Discard, log)
		fmt.Fprintln(log, "ended:", err)
		ended <- err
	}()
	var once sync.Once
	var result error
	stop := func() error {
		once.Do(func() { cancel(); result = <-ended })
		return result
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	return &exporter{log.address(t), stop, log}
}

// address waits until the log has the URL of the server, or "ended:".
func (b *logBuffer) address(t testing.TB) (url string) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for {
		if found := listening.FindStringSubmatch(b.text.String()); found != nil {
			return "http://" + found[1]
		}
		if strings.Contains(b.text.String(), "ended:") {
			t.Fatalf("the exporter ended: %s", b.text.String())
		}
		b.more.Wait()
	}
}

func (e *exporter) get(t testing.TB, path string, headers ...string) (*http.Response, string) {
	t.Helper()
	return e.send(t, http.MethodGet, path, headers...)
}

func (e *exporter) send(t testing.TB, method, path string, headers ...string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(context.Background(), method, e.url+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

// fake is a Kamailio that replies as a real one did.
func fake(t testing.TB) *kamrpctest.Server {
	t.Helper()
	server := kamrpctest.New(t)
	server.LoadDir(filepath.Join("..", "..", "collector", "testdata", "6.0.1"))
	return server
}

func TestPages(t *testing.T) {
	e := start(t, "--kamailio.uri="+fake(t).URI("http"))
	for _, tc := range []struct {
		path   string
		status int
		has    string
		hasNot string
	}{
		{"/", 200, "collect[]=dispatcher", "ListenAndServe"},
		{"/-/healthy", 200, "Healthy.", ""},
		{"/-/ready", 200, "Ready.", ""},
		{"/metrics", 200, "\nkamailio_tm_transactions_total ", ""},
		{"/metrics", 200, "\nkamailio_exporter_build_info{", ""},
		{"/metrics", 200, "\nkamailio_exporter_rpc_requests_total{method=\"tm.stats\"} ", ""},
		{"/metrics?collect[]=sl", 200, "\nkamailio_sl_replies_sent_total ", "kamailio_tm_"},
		{"/metrics?collect[]=sl&collect[]=tm", 200, "\nkamailio_tm_transactions_total ", "kamailio_dialog_"},
		{"/metrics?exclude[]=tm", 200, "\nkamailio_sl_replies_sent_total ", "kamailio_tm_"},
		{"/metrics?collect[]=nosuch", 400, `unknown collector "nosuch"; the collectors are: core, `, ""},
		{"/metrics?exclude[]=nosuch", 400, `unknown collector "nosuch"; the collectors are: core, `, ""},
		{"/metrics?collect[]=tm&exclude[]=tm", 400, "leave no collector", ""},
		{"/nosuch", 404, "", ""},
		{"/debug/vars", 404, "", ""},
		{"/debug/pprof/", 404, "", ""},
	} {
		resp, body := e.get(t, tc.path)
		if resp.StatusCode != tc.status || !strings.Contains(body, tc.has) || tc.hasNot != "" && strings.Contains(body, tc.hasNot) {
			t.Errorf("%s: status %d, want %d, with %q, without %q\n%.600s", tc.path, resp.StatusCode, tc.status, tc.has, tc.hasNot, body)
		}
	}
	for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete} {
		r, _ := http.NewRequestWithContext(context.Background(), method, e.url+"/metrics", nil)
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusMethodNotAllowed {
			t.Errorf("%s /metrics: %s", method, resp.Status)
		}
	}
	resp, err := http.Head(e.url + "/metrics")
	if err != nil || resp.StatusCode != 200 {
		t.Errorf("HEAD: %v %v", resp, err)
	} else {
		resp.Body.Close()
	}
	if resp, _ := e.get(t, "/metrics", "Accept", "application/openmetrics-text;version=1.0.0"); !strings.HasPrefix(resp.Header.Get("Content-Type"), "application/openmetrics-text") {
		t.Errorf("no OpenMetrics: %s", resp.Header.Get("Content-Type"))
	}
}

func TestKamailioDownIsNotAnExporterError(t *testing.T) {
	server := fake(t)
	server.Down()
	e := start(t, "--kamailio.uri="+server.URI("unix"), "--kamailio.uri="+server.URI("fifo"), "--scrape.reuse=0s")
	for _, want := range []string{"kamailio_up 0", "kamailio_up 1", "kamailio_up 0", "kamailio_up 1"} {
		for range 2 {
			resp, body := e.get(t, "/metrics")
			if resp.StatusCode != 200 || !strings.Contains(body, "\n"+want+"\n") {
				t.Errorf("status %d, no %s", resp.StatusCode, want)
			}
		}
		if want == "kamailio_up 0" {
			server.Up()
		} else {
			server.Down()
		}
	}
	log := e.stderr.String()
	if n := strings.Count(log, `msg="kamailio does not answer"`); n != 2 {
		t.Errorf("%d lines for 2 outages:\n%s", n, log)
	}
	if n := strings.Count(log, `msg="kamailio answers again"`); n != 2 {
		t.Errorf("%d lines for 2 recoveries:\n%s", n, log)
	}
	if !strings.Contains(log, "the file does not exist: Kamailio is not running") {
		t.Errorf("the log does not say why:\n%s", log)
	}
}

func TestFailingCollectorLogsOneLine(t *testing.T) {
	server := fake(t)
	server.HandleFault("tm.stats", 500, "Internal error")
	e := start(t, "--kamailio.uri="+server.URI("http"), "--scrape.reuse=0s", "--log.format=json")
	for range 3 {
		e.get(t, "/metrics")
	}
	server.Handle("tm.stats", `{"current":1}`)
	e.get(t, "/metrics")
	log := e.stderr.String()
	for _, want := range []string{`"msg":"collector failed"`, `"msg":"collector recovered"`, `"collector":"tm"`, `tm.stats: kamailio answered error 500: Internal error`} {
		if strings.Count(log, `"msg":"collector failed"`) != 1 || !strings.Contains(log, want) {
			t.Errorf("no single line with %s:\n%s", want, log)
		}
	}
}

// TestStopFinishesScrapes checks that a scrape in progress at SIGTERM is finished.
func TestStopFinishesScrapes(t *testing.T) {
	server := fake(t)
	asked, release := make(chan struct{}), make(chan struct{})
	server.HandleFunc("core.uptime", func(kamrpctest.Request) kamrpctest.Response {
		close(asked)
		<-release
		return kamrpctest.Response{Result: `{"uptime":1}`}
	})
	e := start(t, "--kamailio.uri="+server.URI("http"))
	page := make(chan string)
	go func() {
		_, body := e.get(t, "/metrics")
		page <- body
	}()
	<-asked
	stopped := make(chan error)
	go func() { stopped <- e.stop() }()
	// The listener is closed first, so that no new client can connect.
	for {
		conn, err := net.Dial("tcp", strings.TrimPrefix(e.url, "http://"))
		if err != nil {
			break
		}
		conn.Close()
	}
	close(release)
	if body := <-page; !strings.Contains(body, "\nkamailio_up 1\n") {
		t.Errorf("the scrape was not finished:\n%.300s", body)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

// TestQuantitiesOfCommands checks that commands reject a quantity without a unit, as the
// server does.
func TestQuantitiesOfCommands(t *testing.T) {
	for args, says := range map[string]string{
		"admin --timeout=5 list":                 `--timeout: "5" is not a duration: write a number and its unit, such as 3s`,
		"admin --timeout=0s list":                "--timeout must be from 1ms to 1h, not 0s",
		"doctor --kamailio.timeout=3":            `--kamailio.timeout: "3" is not a duration`,
		"doctor --kamailio.max-reply-size=5000":  `--kamailio.max-reply-size: "5000" is not a size`,
		"rpc --kamailio.timeout=3 core.version":  `--kamailio.timeout: "3" is not a duration`,
		"rpc --kamailio.timeout=2h core.version": "--kamailio.timeout must be from 1ms to 1h, not 2h0m0s",
	} {
		err := run(t.Context(), strings.Fields(args), io.Discard, io.Discard)
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", args, err)
		}
	}
}

// TestInvalidFlagsAndFiles checks that every mistake in flags and files gives one line that says what
// to do.
func TestInvalidFlagsAndFiles(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for _, tc := range []struct {
		args string
		has  []string
	}{
		{"--nosuch", []string{"unknown long flag '--nosuch'", "see kamailio_exporter --help"}},
		{"--kamailio.timeot=3s", []string{"did you mean --kamailio.timeout?"}},
		{"--no-collector.dispacher", []string{"did you mean --no-collector.dispatcher?"}},
		{"--kamailio.scrape-uri=unix:/x", []string{"another exporter", "--kamailio.uri=binrpc+unix:///PATH", "docs/migrating.md"}},
		{"dcotor", []string{`unknown command "dcotor"; did you mean doctor? (see kamailio_exporter --help)`}},
		{"something", []string{`unknown command "something"`, "see kamailio_exporter --help"}},
		{"--scrape.timeout=soon", []string{`--scrape.timeout: "soon" is not a duration`, "such as 3s"}},
		{"--scrape.timeout=10", []string{`--scrape.timeout: "10" is not a duration`, "such as 3s"}},
		{"--scrape.timeout=0s", []string{"--scrape.timeout must be from 1ms to 1h, not 0s"}},
		{"--scrape.timeout-offset=20s", []string{"--scrape.timeout-offset must be"}},
		{"--kamailio.timeout=-1s", []string{"--kamailio.timeout must be"}},
		{"--kamailio.max-concurrent-rpcs=0", []string{"--kamailio.max-concurrent-rpcs must be"}},
		{"--kamailio.max-reply-size=16777216", []string{`--kamailio.max-reply-size: "16777216" is not a size`, "such as 512KiB"}},
		{"--xhttp_prom.timeout=2h", []string{"--xhttp_prom.timeout must be from 1ms to 1h, not 2h0m0s"}},
		{"--kamailio.max-reply-size=1B", []string{"--kamailio.max-reply-size must be"}},
		{"--collector.pike.addresses=-1", []string{"--collector.pike.addresses must be"}},
		{"--collector.usrloc_contacts.limit=-1", []string{"--collector.usrloc_contacts.limit must be"}},
		{"--collector.tls_connections.limit=-1", []string{"--collector.tls_connections.limit must be"}},
		{"--collector.cfg.variables=debug", []string{"--collector.cfg.variables must be GROUP.NAME, such as core.debug", `"debug"`}},
		{"--collector.dialog_age.limit=-1", []string{"--collector.dialog_age.limit must be"}},
		{"--scrape.growing-interval=-1s", []string{"--scrape.growing-interval must be"}},
		{"--xhttp_prom.url=127.0.0.1:5060/metrics", []string{"--xhttp_prom.url", "http://127.0.0.1:5060/metrics"}},
		{"--xhttp_prom.url=unix:///metrics", []string{"--xhttp_prom.url", "http://127.0.0.1:5060/metrics"}},
		{"--xhttp_prom.url=http://u:s3cret@127.0.0.1/metrics", []string{"--xhttp_prom.url", "HTTP configuration file"}},
		{"--xhttp_prom.timeout=0s", []string{"--xhttp_prom.timeout must be"}},
		{"--xhttp_prom.max-size=1B", []string{"--xhttp_prom.max-size must be"}},
		{"--collector.statistics.counter=script:calls", []string{"--collector.statistics.counter", "no help text", "GROUP:NAME=HELP"}},
		{"--collector.statistics.gauge=calls=Calls.", []string{"--collector.statistics.gauge", "not GROUP:NAME"}},
		{"--collector.statistics.counter=tmx:UAS_transactions=X.", []string{"--collector.statistics.counter", "kamailio_tmx_uas_transactions_total"}},
		{"--collector.statistics.counter=exporter:build_info=X.", []string{"--collector.statistics.counter", "the exporter's own"}},
		{"--collector.statistics.types=/nonexistent", []string{"--collector.statistics.types", "no such file"}},
		{"--collector.statistics.types=" + file("types", "# A comment.\ncounter script:a=A.\nsummary script:b=B.\n"), []string{"--collector.statistics.types", "summary script:b=B.", "neither counter nor gauge"}},
		{"--collector.statistics.types=" + file("types2", "gauge script:a\n"), []string{"--collector.statistics.types", "no help text"}},
		{"--web.telemetry-path=metrics", []string{"--web.telemetry-path must be"}},
		{"--web.telemetry-path=/-/ready", []string{"is reserved"}},
		{"--web.telemetry-path=/runbooks/m", []string{"is reserved"}},
		{"--log.level=loud", []string{"loud"}},
		{"--kamailio.uri=gopher://x", []string{"--kamailio.uri", "gopher", "use http, https, unix, udp, tcp, fifo, binrpc+unix or binrpc+tcp"}},
		{"--kamailio.uri=localhost:5060", []string{"--kamailio.uri", "not a URI", "unix:///run"}},
		{"--kamailio.uri=unix://run/kamailio.sock", []string{"--kamailio.uri", "three slashes"}},
		{"--kamailio.uri=udp://127.0.0.1", []string{"--kamailio.uri", "port"}},
		{"--kamailio.uri=http://u:s3cret@127.0.0.1/RPC", []string{"--kamailio.uri", "HTTP configuration file"}},
		{"--kamailio.http-config-file=" + filepath.Join(dir, "absent"), []string{"--kamailio.http-config-file", "no such file"}},
		{"--kamailio.http-config-file=" + file("odd.yml", "basic_auth: {user: x}"), []string{"--kamailio.http-config-file", "user"}},
		{"--web.config.file=" + filepath.Join(dir, "absent"), []string{"--web.config.file", "no such file"}},
		{"--web.config.file=" + file("web.yml", "tls: no"), []string{"--web.config.file"}},
		{"--web.listen-address=" + taken.Addr().String(), []string{"address already in use", "--web.listen-address"}},
	} {
		t.Run(tc.args, func(t *testing.T) {
			args := []string{tc.args}
			if !strings.HasPrefix(tc.args, "--web.listen-address") {
				args = append(args, "--web.listen-address=127.0.0.1:0")
			}
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			defer cancel()
			err := run(ctx, args, io.Discard, io.Discard)
			if err == nil {
				t.Fatal("no error")
			}
			line := conf.OneLine(err)
			for _, want := range tc.has {
				if !strings.Contains(line, want) {
					t.Errorf("%q does not say %q", line, want)
				}
			}
			if strings.Contains(line, "\n") || strings.Contains(line, "s3cret") {
				t.Errorf("more than a line, or a secret: %q", err)
			}
		})
	}
}

// TestLandingPage checks that the page has the result of the last scrape by collector,
// and links to the documentation.
func TestLandingPage(t *testing.T) {
	server := fake56(t)
	h := handlerFor(t, "--kamailio.uri="+server.URI("http"), "--no-collector.pike", "--scrape.reuse=0s")
	landing := func() string {
		t.Helper()
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
		return w.Body.String()
	}
	has := func(page string, wants ...string) {
		t.Helper()
		for _, want := range wants {
			if !regexp.MustCompile(want).MatchString(page) {
				t.Errorf("the page has no %q:\n%s", want, page)
			}
		}
	}
	has(landing(), "There was no scrape yet", `<a href="https://github.com/[^"]*/blob/main/docs/troubleshooting.md">`, regexp.QuoteMeta(server.URI("http")))
	calls := server.CallCount("core.uptime")
	server.HandleFault("tm.stats", 500, "Server error")
	scrapePage(h, "10")
	scraped := server.CallCount("core.uptime")
	page := landing()
	has(page, "<code>kamailio_up 1</code> at the last scrape, 0s ago", "<code>core</code></td><td>ok, [1-9][0-9]* samples",
		"<code>tm</code></td><td><strong>failed</strong>: see the log", "<code>pike</code></td><td>disabled", "<code>permissions</code></td><td>skips permissions.addressDump \\(danger\\)")
	if scraped == calls || server.CallCount("core.uptime") != scraped {
		t.Error("the page queries Kamailio")
	}
	server.Down()
	scrapePage(h, "10")
	has(landing(), "<code>kamailio_up 0</code>")
}

func TestHelpAndVersion(t *testing.T) {
	for arg, want := range map[string]string{"--help": "--[no-]collector.dispatcher", "--version": "kamailio_exporter, version"} {
		var out bytes.Buffer
		if err := run(context.Background(), []string{arg}, &out, io.Discard); err != nil || !strings.Contains(out.String(), want) {
			t.Errorf("%s: %v\n%s", arg, err, out.String())
		}
	}
}

func TestFlagsFromTheEnvironment(t *testing.T) {
	t.Setenv("KAMAILIO_EXPORTER_KAMAILIO_URI", "http://127.0.0.1:1/RPC\nfifo:///x")
	t.Setenv("KAMAILIO_EXPORTER_COLLECTOR_DISPATCHER", "false")
	t.Setenv("KAMAILIO_EXPORTER_VERSION", "1.2.3") // an image may use this variable for its own purposes
	s, err := settings()
	if err != nil || s == nil {
		t.Fatal(s, err)
	}
	if got := strings.Join(s.Target.URIs, " "); got != "http://127.0.0.1:1/RPC fifo:///x" {
		t.Errorf("URIs are %s", got)
	}
	for _, c := range s.Target.Enabled() {
		if c.Name() == "dispatcher" {
			t.Error("dispatcher is on")
		}
	}
}

// TestPromotedStatistics checks that a promoted statistic has a metric of its own, and
// that kamailio_statistic no longer has it.
func TestPromotedStatistics(t *testing.T) {
	server := fake(t)
	server.Handle("stats.get_statistics", `["script:demo_calls = 539","script:demo_calls_failed = 3","script:quo\"te = 1","script:demo_balance = 18446744073709551615"]`)
	h := handlerFor(t, "--kamailio.uri="+server.URI("http"),
		"--collector.statistics.counter=script:demo_calls=Calls that the script routed.",
		`--collector.statistics.counter=script:quo"te=Odd "name".`,
		"--collector.statistics.gauge=script:demo_balance=Calls begun less calls ended.",
		"--collector.statistics.counter=script:nosuch=Never there.")
	_, page := scrapePage(h, "10")
	for _, want := range []string{
		"# HELP kamailio_script_demo_calls_total Calls that the script routed.\n# TYPE kamailio_script_demo_calls_total counter\nkamailio_script_demo_calls_total 539\n",
		"\n# HELP kamailio_script_quo_te_total Odd \"name\".\n",
		"\n# TYPE kamailio_script_demo_balance gauge\nkamailio_script_demo_balance -1\n",
		"\nkamailio_statistic{group=\"script\",name=\"demo_calls_failed\"} ",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page has no %q", want)
		}
	}
	for _, gone := range []string{`name="demo_calls"`, `name="demo_balance"`, "nosuch"} {
		if strings.Contains(page, gone) {
			t.Errorf("the page has %s", gone)
		}
	}
	checkMetrics(t, page)
	_, err := settings("--no-collector.statistics", "--collector.statistics.gauge=a:b=C.")
	if err == nil || !strings.Contains(err.Error(), "is disabled") {
		t.Errorf("without the collector: %v", err)
	}
}

func TestDefaultsAreTheStockSockets(t *testing.T) {
	s, err := settings()
	if err != nil {
		t.Fatal(err)
	}
	client, err := s.Target.Open(nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(client.URIs(), " "); got != "unix:///run/kamailio/kamailio_rpc.sock fifo:///run/kamailio/kamailio_rpc.fifo" {
		t.Error(got)
	}
}

// TestHTTPConfigFile checks that the password in the file reaches only the server.
func TestHTTPConfigFile(t *testing.T) {
	server := fake(t)
	var got atomic.Value
	proxy := newAuthProxy(t, server.URI("http"), func(r *http.Request) {
		_, password, _ := r.BasicAuth()
		got.Store(password)
	})
	file := filepath.Join(t.TempDir(), "http.yml")
	if err := os.WriteFile(file, []byte("basic_auth: {username: me, password: s3cret}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	e := start(t, "--kamailio.uri="+proxy, "--kamailio.http-config-file="+file, "--log.level=debug")
	_, body := e.get(t, "/metrics")
	_, landing := e.get(t, "/")
	if got.Load() != "s3cret" || !strings.Contains(body, "\nkamailio_up 1\n") {
		t.Errorf("the password was not sent")
	}
	if strings.Contains(body+landing+e.stderr.String(), "s3cret") {
		t.Error("the password is on a page or in the log")
	}
}

// newAuthProxy forwards requests to a server, and passes each one to look.
func newAuthProxy(t *testing.T, to string, look func(*http.Request)) string {
	t.Helper()
	target, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	pass := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.Out.URL = target
		r.Out.Header.Del("Authorization")
	}}
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		look(r)
		pass.ServeHTTP(w, r)
	}))
	t.Cleanup(proxy.Close)
	return proxy.URL + "/RPC"
}

// TestWebConfigFile checks that --web.config.file, which exporter-toolkit implements, is
// in force.
func TestWebConfigFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "web.yml")
	// The hash of "test", from the toolkit's documentation.
	if err := os.WriteFile(file, []byte("basic_auth_users:\n  me: $2b$12$hNf2lSsxfm0.i4a.1kVpSOVyBCfIB51VRjgBUyv6kdnyTlgWj81Ay\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	e := start(t, "--kamailio.uri="+fake(t).URI("http"), "--web.config.file="+file)
	for _, path := range []string{"/", "/metrics", "/-/ready", "/runbooks/", "/runbooks/KamailioDown"} {
		if resp, _ := e.get(t, path); resp.StatusCode != http.StatusUnauthorized {
			t.Errorf("%s without a password: %s", path, resp.Status)
		}
	}
	credentials := base64.StdEncoding.EncodeToString([]byte("me:test"))
	if resp, body := e.get(t, "/metrics", "Authorization", "Basic "+credentials); resp.StatusCode != 200 || !strings.Contains(body, "\nkamailio_up 1\n") {
		t.Errorf("with the password: %s", resp.Status)
	}
}

// TestPasswordsOfRegistrations checks that the passwords of outgoing registrations, which
// Kamailio returns in clear text, are on no page and in no log, even at the most verbose
// log level and if the reply is broken.
func TestPasswordsOfRegistrations(t *testing.T) {
	const row = `{"l_uuid":"trunk","auth_password":"hunter2-planted","auth_ha1":"ha1-planted","flags":20,"diff_expires":9,"expires":300}`
	for name, reply := range map[string]string{
		"whole":     `{"jsonrpc":"2.0","result":[` + row + `],"id":ID}`,
		"cut off":   `{"jsonrpc":"2.0","result":[` + row + `,{"auth_password":"hunter2-planted`,
		"garbage":   `{"jsonrpc":"2.0","result":[` + row + `,{"auth_password":hunter2-planted}],"id":ID}`,
		"no result": `hunter2-planted`,
	} {
		t.Run(name, func(t *testing.T) {
			server := fake(t)
			server.HandleFunc("uac.reg_dump", func(r kamrpctest.Request) kamrpctest.Response {
				return kamrpctest.Response{Raw: []byte(strings.Replace(reply, "ID", r.ID, 1))}
			})
			e := start(t, "--kamailio.uri="+server.URI("http"), "--log.level=debug")
			_, page := e.get(t, "/metrics")
			_, landing := e.get(t, "/")
			if strings.Contains(page+landing+e.stderr.String(), "planted") {
				t.Errorf("the password is out:\n%s", e.stderr.String())
			}
			want := `kamailio_scrape_collector_success{collector="uac_registrations"} 0`
			if name == "whole" {
				want = `kamailio_uac_registration_up{uuid="trunk"} 1`
			} else if !strings.Contains(e.stderr.String(), "uac.reg_dump") {
				t.Error("the log does not say what failed")
			}
			if !strings.Contains(page, "\n"+want+"\n") {
				t.Errorf("no %s", want)
			}
		})
	}
}
