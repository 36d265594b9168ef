package serve

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/kamailio-exporter/kamailio_exporter/collector"
)

// numbered are samples that all have the same number.
type numbered int

var numberedDesc = collector.NewDesc("kamailio_test_total", "A number.", prometheus.CounterValue, "", "row", "page")

func (n numbered) AddTo(g *collector.Families) {
	for row := range 100 {
		g.Add(numberedDesc, float64(n), fmt.Sprint(row), fmt.Sprint(int(n)))
	}
}

func (n numbered) page(openMetrics bool) string {
	var want strings.Builder
	family, format := "kamailio_test_total", "%d"
	if openMetrics {
		family, format = "kamailio_test", "%d.0"
	}
	fmt.Fprintf(&want, "# HELP %[1]s A number.\n# TYPE %[1]s counter\n", family)
	for row := range 100 {
		fmt.Fprintf(&want, "kamailio_test_total{page=\"%d\",row=\"%d\"} "+format+"\n", n, row, n)
	}
	if openMetrics {
		want.WriteString("# EOF\n")
	}
	return want.String()
}

// TestConcurrentPages checks that pages do not mix, although they use each other's memory,
// in each format and encoding.
func TestConcurrentPages(t *testing.T) {
	const openMetrics = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,text/plain;version=0.0.4;q=0.2"
	var all sync.WaitGroup
	for n := range 200 {
		all.Go(func() {
			r := httptest.NewRequest(http.MethodGet, "/metrics", nil)
			if n%2 == 0 {
				r.Header.Set("Accept", openMetrics)
			}
			if n%3 == 0 {
				r.Header.Set("Accept-Encoding", "gzip")
			}
			w := httptest.NewRecorder()
			servePage(w, r, parts{samplers: []sampler{numbered(n)}}, slog.Default())
			body := io.Reader(w.Body)
			if n%3 == 0 {
				unpacked, err := gzip.NewReader(body)
				if err != nil {
					t.Error(n, err)
					return
				}
				body = unpacked
			}
			got, err := io.ReadAll(body)
			if want := numbered(n).page(n%2 == 0); err != nil || string(got) != want || w.Header().Get("Vary") != "Accept, Accept-Encoding" {
				t.Errorf("page %d: %v, %v, got\n%s", n, err, w.Header(), got)
			}
		})
	}
	all.Wait()
}

func TestAcceptsGzip(t *testing.T) {
	for header, want := range map[string]bool{
		"": false, "gzip": true, "deflate, gzip;q=0.5": true, "br;q=1 , gzip ; q=1.0": true,
		"gzip;q=0": false, "gzip; q=0.000": false, "identity": false, "xgzip": false,
	} {
		if got := acceptsGzip(http.Header{"Accept-Encoding": {header}}); got != want {
			t.Errorf("%q: %v", header, got)
		}
	}
}

type failing struct{ families []*dto.MetricFamily }

func (f failing) Gather() ([]*dto.MetricFamily, error) { return f.families, errors.New("broken") }

// TestIncompletePage checks that a part that fails costs only itself, and is logged.
func TestIncompletePage(t *testing.T) {
	var lines bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&lines, nil))
	for _, tc := range []struct {
		page   parts
		status int
		body   string
	}{
		{parts{samplers: []sampler{numbered(1)}, gatherers: []prometheus.Gatherer{failing{}}}, 200, numbered(1).page(false)},
		{parts{gatherers: []prometheus.Gatherer{failing{}}}, 500, "broken\n"},
	} {
		lines.Reset()
		w := httptest.NewRecorder()
		servePage(w, httptest.NewRequest(http.MethodGet, "/metrics", nil), tc.page, logger)
		if w.Code != tc.status || w.Body.String() != tc.body || !strings.Contains(lines.String(), "err=broken") {
			t.Errorf("status %d, logged %q, got\n%s", w.Code, lines.String(), w.Body)
		}
	}
}
