package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-kit/log"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	versioncollector "github.com/prometheus/client_golang/prometheus/collectors/version"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/fleet"
	"github.com/kamailio-exporter/kamailio_exporter/collector"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
)

// ownMetrics are about the exporter itself.
type ownMetrics struct {
	registry *prometheus.Registry
	show     bool
	requests *prometheus.CounterVec
	failures *prometheus.CounterVec
	bytes    *prometheus.CounterVec
	scraped  atomic.Pointer[lastScrape]
}

// lastScrape is how the last scrape went.
type lastScrape struct {
	at   time.Time
	good bool
}

// lastScrape is the zero time while there was none.
func (m *ownMetrics) lastScrape() (at time.Time, good bool) {
	if last := m.scraped.Load(); last != nil {
		return last.at, last.good
	}
	return time.Time{}, false
}

func newOwnMetrics(show bool) *ownMetrics {
	m := &ownMetrics{registry: prometheus.NewRegistry(), show: show}
	perMethod := func(name, help string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: programName + "_" + name, Help: help}, []string{"method"})
	}
	m.requests = perMethod("rpc_requests_total", "RPC requests sent to Kamailio.")
	m.failures = perMethod("rpc_failures_total", "RPC requests that failed: no answer, a bad one, or an error from Kamailio.")
	m.bytes = perMethod("rpc_reply_bytes_total", "Bytes of the replies to RPC requests.")
	if show {
		m.registry.MustRegister(m.requests, m.failures, m.bytes,
			versioncollector.NewCollector(programName),
			collectors.NewGoCollector(),
			collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	}
	return m
}

// add registers what else is about the exporter itself.
func (m *ownMetrics) add(c prometheus.Collector) {
	if m.show {
		m.registry.MustRegister(c)
	}
}

func (m *ownMetrics) observe(o kamrpc.Observation) {
	m.requests.WithLabelValues(o.Method).Inc()
	m.bytes.WithLabelValues(o.Method).Add(float64(o.Bytes))
	if o.Err != nil {
		m.failures.WithLabelValues(o.Method).Inc()
	} else {
		m.failures.WithLabelValues(o.Method) // begins at 0
	}
}

// metricsHandler serves one scrape: what Kamailio says comes from its snapshot
// alone, so that nothing of an earlier one can be left on the page.
type metricsHandler struct {
	coordinator *collector.Coordinator
	own         *ownMetrics // nil: not on this page
	script      *scriptPage // nil: none to merge
	sip         *sipProbes  // nil: none to make
	timeout     time.Duration
	offset      time.Duration
	failures    *failureLog
	slogger     *slog.Logger
}

func newMetricsHandler(s *settings, logger log.Logger, slogger *slog.Logger, c *collector.Coordinator, own *ownMetrics, script *scriptPage, sip *sipProbes) *metricsHandler {
	return &metricsHandler{
		coordinator: c, own: own, script: script, sip: sip, timeout: s.scrapeTimeout, offset: s.timeoutOffset,
		failures: newFailureLog(logger), slogger: slogger,
	}
}

func (h *metricsHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	names, err := h.coordinator.Select(query["collect[]"], query["exclude[]"])
	if unknown := (*collector.UnknownCollectorError)(nil); errors.As(err, &unknown) {
		http.Error(w, unknown.Error(), http.StatusBadRequest)
		return
	}
	if len(names) == 0 {
		http.Error(w, "collect[] and exclude[] leave no collector", http.StatusBadRequest)
		return
	}
	whole := len(query["collect[]"]) == 0
	h.serve(w, r, names, whole, whole)
}

// serve answers with what these collectors read and, if wanted, the SIP probes and
// the page of xhttp_prom.
func (h *metricsHandler) serve(w http.ResponseWriter, r *http.Request, names []string, withSIP, withScript bool) fleet.Outcome {
	ctx, cancel := context.WithTimeout(r.Context(), h.deadline(r.Header))
	defer cancel()
	// Beside the scrape.
	var script func() *collector.Merged
	if h.script != nil && withScript {
		script = h.script.begin(ctx)
	}
	var sip func() collector.SIPProbes
	if h.sip != nil && withSIP {
		sip = h.sip.begin(ctx)
	}
	snapshot, err := h.coordinator.Scrape(ctx, names...)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return fleet.Failed
	}
	all := page{snapshot}
	if h.own != nil {
		all = append(all, h.own.registry)
	}
	var merged *collector.Merged
	if script != nil {
		merged = script()
		all = append(all, merged)
	}
	var probes collector.SIPProbes
	if sip != nil {
		probes = sip()
		all = append(all, probes)
	}
	if r.Context().Err() != nil {
		return fleet.Canceled // the client is gone, and what it cancelled is no failure
	}
	h.failures.note(snapshot)
	if h.own != nil {
		h.own.scraped.Store(&lastScrape{time.Now(), snapshot.Up})
	}
	if merged != nil {
		h.failures.notePage(merged)
	}
	h.failures.noteProbes(probes)
	pageHandler(all, h.slogger).ServeHTTP(w, r)
	if !snapshot.Up {
		return fleet.Down
	}
	return fleet.Up
}

func pageHandler(all prometheus.Gatherer, slogger *slog.Logger) http.Handler {
	return promhttp.HandlerFor(all, promhttp.HandlerOpts{
		ErrorLog:          promErrorLog{slogger},
		ErrorHandling:     promhttp.ContinueOnError,
		EnableOpenMetrics: true,
	})
}

// deadline is how long a scrape may take: as long as the flag says, or less where
// Prometheus tells its own time-out.
func (h *metricsHandler) deadline(header http.Header) time.Duration {
	seconds, err := strconv.ParseFloat(header.Get("X-Prometheus-Scrape-Timeout-Seconds"), 64)
	if err != nil || math.IsNaN(seconds) || seconds <= 0 || seconds > h.timeout.Seconds() {
		return h.timeout
	}
	told := time.Duration(seconds * float64(time.Second))
	if told > 2*h.offset {
		return told - h.offset
	}
	return told / 2
}

// page is what several gatherers bring, whose names differ.
type page []prometheus.Gatherer

func (p page) Gather() ([]*dto.MetricFamily, error) {
	var all []*dto.MetricFamily
	var errs []error
	for _, g := range p {
		families, err := g.Gather()
		all = append(all, families...)
		errs = append(errs, err)
	}
	slices.SortFunc(all, func(a, b *dto.MetricFamily) int { return strings.Compare(a.GetName(), b.GetName()) })
	return all, errors.Join(errs...)
}

type promErrorLog struct{ slogger *slog.Logger }

func (l promErrorLog) Println(v ...any) {
	l.slogger.Error("the page is not complete", "err", fmt.Sprint(v...))
}
