package main

import (
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

// scriptServer serves the xhttp_prom page with handler.
func scriptServer(t *testing.T, handler http.HandlerFunc) string {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return server.URL + "/metrics"
}

// textPage replies as Kamailio does.
func textPage(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4")
		_, _ = io.WriteString(w, text)
	}
}

// foreign returns the lines of the page that are merged or about the merge, in order and
// without comments.
func foreign(page string) string {
	var out strings.Builder
	for line := range strings.Lines(page) {
		if strings.HasPrefix(line, "my_") || strings.HasPrefix(line, "kamailio_xhttp_prom_") && !strings.Contains(line, "_seconds") || strings.HasPrefix(line, "kamailio_demo") {
			out.WriteString(strings.TrimPrefix(line, "kamailio_xhttp_prom_"))
		}
	}
	return out.String()
}

func dropped(collisions, families, duplicates, samples int) string {
	return fmt.Sprintf("dropped_families{reason=\"collision\"} %d\ndropped_families{reason=\"invalid\"} %d\ndropped_samples{reason=\"duplicate\"} %d\ndropped_samples{reason=\"invalid\"} %d\nup 1\n", collisions, families, duplicates, samples)
}

// TestMergedPage checks what is merged. The input has Kamailio's format
// (xhttp_prom/prom_metric.c): without TYPE and HELP by default, with timestamps, and with
// unescaped label values.
func TestMergedPage(t *testing.T) {
	for _, tc := range []struct{ name, page, want string }{
		{"counter, gauge and histogram by default", `# User defined metrics
kamailio_demo_calls{gateway="127.0.0.1:15090"} 12 1764100000000
kamailio_demo_calls{gateway="127.0.0.1:15092"} 1 1764100000000
my_gauge 1.500000 1764100000000
my_h_bucket{le="0.100000"} 1 1764100000000
my_h_bucket{le="+Inf"} 2 1764100000000
my_h_sum 3.000000 1764100000000
my_h_count 2 1764100000000
`, "kamailio_demo_calls{gateway=\"127.0.0.1:15090\"} 12\nkamailio_demo_calls{gateway=\"127.0.0.1:15092\"} 1\n" + dropped(0, 0, 0, 0) +
			"my_gauge 1.5\nmy_h_bucket{le=\"0.100000\"} 1\nmy_h_bucket{le=\"+Inf\"} 2\nmy_h_count 2\nmy_h_sum 3\n"},
		{"with TYPE and HELP", `# User defined metrics
# HELP my_calls Calls \x with a | b.
# TYPE my_calls counter
my_calls 12 1764100000000
# TYPE my_h histogram
my_h_bucket{gw="a", le="0.100000"} 1 1764100000000
my_h_bucket{gw="a", le="+Inf"} 2 1764100000000
my_h_sum{gw="a"} 3.000000 1764100000000
my_h_count{gw="a"} 2 1764100000000
# TYPE my_unused counter
`, dropped(0, 0, 0, 0) + "my_calls 12\nmy_h_bucket{gw=\"a\",le=\"0.1\"} 1\nmy_h_bucket{gw=\"a\",le=\"+Inf\"} 2\nmy_h_sum{gw=\"a\"} 3\nmy_h_count{gw=\"a\"} 2\n"},
		{"every form of the timestamp, and no timestamp", "my_a 1 1764100000000\nmy_b 2 1764100000\nmy_c 3 1764100000.123\nmy_d 4\nmy_e{a=\"} 7 8\"} 5 1764100000.123\n",
			dropped(0, 0, 0, 0) + "my_a 1\nmy_b 2\nmy_c 3\nmy_d 4\nmy_e{a=\"} 7 8\"} 5\n"},
		{"Kamailio's own statistics, memory and uptime", `# User defined metrics
my_a 1 1764100000000
kamailio_pkgmem_used{pid="1", rank="0", desc="main process - attendant"} 5 1764100000000
my_pkgmem_total_size{pid="1", rank="0", desc="main process - attendant"} 5 1764100000000
kamailio_uptime 77 1764100000000

# Kamailio whole internal statistics
my_core_rcv_requests 539 1764100000000
kamailio_demo_script 1 1764100000000
`, dropped(0, 0, 0, 0) + "my_a 1\n"},
		{"statistics of one group", "my_a 1\n\n# Kamailio statistics for group: sl:\nmy_sl_x 1\n", dropped(0, 0, 0, 0) + "my_a 1\n"},
		{"no metrics", "# NO User defined metrics\n", dropped(0, 0, 0, 0)},
		{"nothing", "", dropped(0, 0, 0, 0)},
		{"the exporter's names", `kamailio_up 0
kamailio_tm_transactions_total 5
kamailio_tm_transactions 5
kamailio_dialog_dialogs 5
kamailio_xhttp_prom_up 7
kamailio_exporter_rpc_requests_total 5
go_goroutines 5
my_a 1
`, dropped(7, 0, 0, 0) + "my_a 1\n"},
		{"a histogram whose samples have the exporter's names", "# TYPE kamailio_tm histogram\nkamailio_tm_count 1\nkamailio_tm_sum 1\n# TYPE kamailio histogram\nkamailio_count 1\nmy_a 1\n", dropped(0, 1, 0, 1) + "my_a 1\n"},
		{"one name of two kinds", "# TYPE my_h histogram\nmy_h_sum 1\nmy_h_count 1\nmy_h_bucket{le=\"+Inf\"} 1\nmy_x_total 1\nmy_x 2\n", dropped(1, 0, 0, 0) + "my_h_bucket{le=\"+Inf\"} 1\nmy_h_sum 1\nmy_h_count 1\nmy_x_total 1\n"},
		{"invalid lines", "my_a 1\nmy_a{b=\"c\"d\"} 2\nmy_a{b=\"c\"} 3\n%$!\nmy_a{b=\"new\nline\"} 4\nmy_b soon\n{} 5\n", dropped(0, 2, 0, 6) + "my_a 1\nmy_a{b=\"c\"} 3\n"},
		{"duplicates", "my_a{b=\"1\",c=\"2\"} 1\nmy_a{c=\"2\",b=\"1\"} 2\nmy_a{b=\"1\",c=\"2\"} 1\nmy_a 3\n# TYPE my_h histogram\nmy_h_bucket{le=\"1\"} 1\nmy_h_bucket{le=\"1.0\"} 1\nmy_h_sum 1\nmy_h_count 1\n",
			dropped(0, 0, 3, 0) + "my_a{b=\"1\",c=\"2\"} 1\nmy_a 3\nmy_h_bucket{le=\"1\"} 1\nmy_h_bucket{le=\"+Inf\"} 1\nmy_h_sum 1\nmy_h_count 1\n"},
		{"half a histogram", "# TYPE my_h histogram\nmy_h_bucket{le=\"1\"} 1\nmy_h_sum 1\nmy_a 1\n", dropped(0, 1, 0, 1) + "my_a 1\n"},
		{"bytes that are not UTF-8", "my_a{b=\"caf\xe9\"} 1\nmy_a{b=\"caf\xe8\"} 2\n", dropped(0, 0, 0, 0) + "my_a{b=\"caf\\\\xe9\"} 1\nmy_a{b=\"caf\\\\xe8\"} 2\n"},
		{"labels that no series can have", "my_a{__name__=\"kamailio_up\"} 1\nmy_b{b=\"1\",b=\"2\"} 1\nmy_c 1\n", dropped(0, 2, 0, 2) + "my_c 1\n"},
		{"odd values", "my_a NaN\nmy_b +Inf\nmy_c -1e300\nmy_d 0x1p-2\nmy_e 1 2 3\n", ""},
		{"an unknown kind", "# TYPE my_a stateset\nmy_a 1\n", dropped(0, 0, 0, 0) + "my_a 1\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h := handlerFor(t, "--kamailio.uri="+fake(t).URI("http"), "--xhttp_prom.url="+scriptServer(t, textPage(tc.page)))
			code, page := scrapePage(h, "10")
			if code != 200 || value(page, "kamailio_up") != "1" || value(page, "kamailio_tm_transactions_total") == "" {
				t.Fatalf("status %d\n%.300s", code, page)
			}
			if got := foreign(page); tc.want != "" && got != tc.want {
				t.Errorf("got\n%s\nwant\n%s", got, tc.want)
			}
			wholePage(t, page)
		})
	}
}

// wholePage checks that no series is on the page twice.
func wholePage(t *testing.T, page string) {
	t.Helper()
	seen := map[string]bool{}
	for line := range strings.Lines(page) {
		if line[0] == '#' {
			line = strings.Join(strings.Fields(line)[:3], " ")
		} else {
			line = line[:strings.LastIndexByte(line, ' ')]
		}
		if seen[line] {
			t.Errorf("%s is given twice", line)
		}
		seen[line] = true
	}
}

// TestBrokenPage checks that a page that cannot be read affects only its own metrics, and
// that the log reports why.
func TestBrokenPage(t *testing.T) {
	hang := make(chan struct{})
	t.Cleanup(func() { close(hang) })
	for name, tc := range map[string]struct {
		handler http.HandlerFunc
		says    string
	}{
		"not found":  {http.NotFound, "HTTP status 404"},
		"a redirect": {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/elsewhere", http.StatusFound) }, "HTTP status 302"},
		"HTML": {func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "<html><body>Hello</body></html>\n")
		}, "not text/plain"},
		"bytes":             {textPage("my_a\x00 1\n"), "not text"},
		"cut off in a line": {textPage("my_a 1\nmy_b 12"), "truncated"},
		"cut off by length": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			_, _ = io.WriteString(w, "my_a 1\n")
		}, "unexpected EOF"},
		"too large": {textPage(strings.Repeat("my_a 1\n", 1<<18)), "larger than --xhttp_prom.max-size"},
		"endless": {func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				_, _ = io.WriteString(w, strings.Repeat("my_a 1\n", 1000))
			}
		}, "larger than --xhttp_prom.max-size"},
		"gzip": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			w.Header().Set("Content-Type", "text/plain")
			z := gzip.NewWriter(w)
			_, _ = io.WriteString(z, "my_a 1\n")
			_ = z.Close()
		}, "compressed"},
		"hung": {func(_ http.ResponseWriter, r *http.Request) {
			select {
			case <-hang:
			case <-r.Context().Done():
			}
		}, "deadline exceeded"},
		"hung in the middle": {func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, "my_a 1\n")
			_ = http.NewResponseController(w).Flush()
			select {
			case <-hang:
			case <-r.Context().Done():
			}
		}, "deadline exceeded"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			timeout := "20s"
			if strings.HasPrefix(name, "hung") {
				timeout = "300ms"
			}
			e := start(t, "--kamailio.uri="+fake(t).URI("http"), "--xhttp_prom.url="+scriptServer(t, tc.handler), "--xhttp_prom.timeout="+timeout, "--xhttp_prom.max-size=1MiB", "--scrape.reuse=0s")
			for i := range 2 {
				_, page := e.get(t, "/metrics")
				if got := foreign(page); got != "up 0\n" || i == 0 && value(page, "kamailio_xhttp_prom_duration_seconds") == "" || value(page, "kamailio_tm_transactions_total") == "" {
					t.Errorf("got\n%s\n%.300s", got, page)
				}
			}
			if log := e.stderr.String(); strings.Count(log, `msg="reading the xhttp_prom page failed"`) != 1 || !strings.Contains(log, tc.says) {
				t.Errorf("no single line with %q:\n%s", tc.says, log)
			}
		})
	}
}

// TestPageIsReadOnce checks that the page is requested once for all concurrent scrapes,
// not at all by a scrape that selects collectors, and not again right after it was too
// large.
func TestPageIsReadOnce(t *testing.T) {
	var asked atomic.Int32
	release := make(chan struct{})
	large := atomic.Bool{}
	url := scriptServer(t, func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		<-release
		if large.Load() {
			textPage(strings.Repeat("my_a 1\n", 1000))(w, r)
			return
		}
		if r.Header.Get("Accept-Encoding") != "identity" {
			t.Errorf("Accept-Encoding is %q", r.Header.Get("Accept-Encoding"))
		}
		textPage("my_a 1\n")(w, r)
	})
	h := handlerFor(t, "--kamailio.uri="+fake(t).URI("http"), "--xhttp_prom.url="+url, "--xhttp_prom.max-size=1KiB", "--scrape.reuse=0s", "--xhttp_prom.timeout=10s")
	get := func(path string) string {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		return w.Body.String()
	}
	if page := get("/metrics?collect[]=tm"); asked.Load() != 0 || strings.Contains(page, "xhttp_prom") {
		t.Errorf("asked %d times by a scrape of tm", asked.Load())
	}
	close(release)
	if page := get("/metrics"); !strings.Contains(page, "\nmy_a 1\n") {
		t.Errorf("no page:\n%s", foreign(page))
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("asked %d times by one scrape", n)
	}
	before := asked.Load()
	large.Store(true)
	for range 3 {
		if got := foreign(get("/metrics")); got != "up 0\n" {
			t.Errorf("got %s", got)
		}
	}
	if n := asked.Load() - before; n != 1 {
		t.Errorf("a page that is too large was asked for %d times", n)
	}
}

// TestPageLog checks that the log reports changes in what is dropped from the page, and
// its recovery.
func TestPageLog(t *testing.T) {
	var text atomic.Value
	text.Store("kamailio_up 3\nmy_b soon\n")
	url := scriptServer(t, func(w http.ResponseWriter, r *http.Request) { textPage(text.Load().(string))(w, r) })
	e := start(t, "--kamailio.uri="+fake(t).URI("http"), "--xhttp_prom.url="+url, "--scrape.reuse=0s")
	for _, page := range []string{"kamailio_up 3\nmy_b soon\n", "cut", "cut", "my_a 1\n", "my_a 1\n"} {
		text.Store(page)
		e.get(t, "/metrics")
		e.get(t, "/metrics")
	}
	log := e.stderr.String()
	for _, want := range []string{`msg="skipping metrics of the xhttp_prom page" collision=kamailio_up invalid=my_b`, "reading the xhttp_prom page failed", "reading the xhttp_prom page works again"} {
		if strings.Count(log, want) != 1 {
			t.Errorf("not one line with %s:\n%s", want, log)
		}
	}
}

// TestPageWithPassword checks that user and password in the file are also sent for the
// page, and nowhere else.
func TestPageWithPassword(t *testing.T) {
	file := filepath.Join(t.TempDir(), "http.yml")
	if err := os.WriteFile(file, []byte("basic_auth: {username: me, password: s3cret}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	url := scriptServer(t, func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "me" || password != "s3cret" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		textPage("my_a 1\n")(w, r)
	})
	e := start(t, "--kamailio.uri="+fake(t).URI("http"), "--xhttp_prom.url="+url+"?token=s3cret2", "--kamailio.http-config-file="+file, "--log.level=debug")
	_, page := e.get(t, "/metrics")
	if !strings.Contains(page, "\nmy_a 1\n") {
		t.Errorf("no page:\n%s", foreign(page))
	}
	_, landing := e.get(t, "/")
	if strings.Contains(page+landing+e.stderr.String(), "s3cret") {
		t.Error("a secret is on a page or in the log")
	}
}
