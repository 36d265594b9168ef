package serve

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	versioncollector "github.com/prometheus/client_golang/prometheus/collectors/version"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/cli"
	"github.com/kamailio-exporter/kamailio_exporter/collector"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
)

// ownMetrics are the metrics about the exporter itself.
type ownMetrics struct {
	registry *prometheus.Registry
	show     bool
	requests *prometheus.CounterVec
	failures *prometheus.CounterVec
	bytes    *prometheus.CounterVec
	scraped  atomic.Pointer[lastScrape]
}

type lastScrape struct {
	at       time.Time
	snapshot *collector.Snapshot
}

// lastScrape returns the time of the last scrape and whether Kamailio replied to it. The
// time is zero before the first scrape.
func (m *ownMetrics) lastScrape() (at time.Time, good bool) {
	if last := m.scraped.Load(); last != nil {
		return last.at, last.snapshot.Up
	}
	return time.Time{}, false
}

func newOwnMetrics(show bool) *ownMetrics {
	m := &ownMetrics{registry: prometheus.NewRegistry(), show: show}
	perMethod := func(name, help string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: cli.ProgramName + "_" + name, Help: help}, []string{"method"})
	}
	m.requests = perMethod("rpc_requests_total", "RPC requests sent to Kamailio.")
	m.failures = perMethod("rpc_failures_total", "RPC requests that failed: no reply, an invalid reply, or an error from Kamailio.")
	m.bytes = perMethod("rpc_reply_bytes_total", "Bytes of the replies to RPC requests.")
	if show {
		m.registry.MustRegister(m.requests, m.failures, m.bytes,
			versioncollector.NewCollector(cli.ProgramName),
			collectors.NewGoCollector(),
			collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	}
	return m
}

// add registers more metrics about the exporter itself.
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
		m.failures.WithLabelValues(o.Method) // creates the series with the value 0
	}
}
