package serve

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	versioncollector "github.com/prometheus/client_golang/prometheus/collectors/version"
	dto "github.com/prometheus/client_model/go"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/cli"
	"github.com/kamailio-exporter/kamailio_exporter/collector"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
)

// ownMetrics are the metrics about the exporter itself.
type ownMetrics struct {
	show    bool
	parts   parts
	more    *prometheus.Registry // nil: nothing was added; it allocates 40 KiB at each scrape
	scraped atomic.Pointer[lastScrape]

	mu      sync.Mutex
	calls   map[string]*calls // by method
	methods []string          // sorted
}

// calls are the calls of one method so far.
type calls struct{ requests, failures, bytes float64 }

var (
	requestsDesc = perMethod("rpc_requests_total", "RPC requests sent to Kamailio.")
	failuresDesc = perMethod("rpc_failures_total", "RPC requests that failed: no reply, an invalid reply, or an error from Kamailio.")
	bytesDesc    = perMethod("rpc_reply_bytes_total", "Bytes of the replies to RPC requests.")
)

func perMethod(name, help string) *collector.Desc {
	return collector.NewDesc(cli.ProgramName+"_"+name, help, prometheus.CounterValue, "the exporter", "method")
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
	m := &ownMetrics{show: show, calls: map[string]*calls{}}
	if show {
		runtime := newGoRuntime()
		m.parts = parts{[]sampler{m, runtime}, []prometheus.Gatherer{runtime, buildInfo()}}
		if process := newProcess(); process != nil {
			m.parts.samplers = append(m.parts.samplers, process)
		}
	}
	return m
}

// buildInfo gathers what never changes once.
func buildInfo() prometheus.Gatherer {
	registry := prometheus.NewRegistry()
	registry.MustRegister(versioncollector.NewCollector(cli.ProgramName))
	info, err := registry.Gather()
	return prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) { return info, err })
}

// add registers more metrics about the exporter itself.
func (m *ownMetrics) add(c prometheus.Collector) {
	if !m.show {
		return
	}
	if m.more == nil {
		m.more = prometheus.NewRegistry()
		m.parts.gatherers = append(m.parts.gatherers, m.more)
	}
	m.more.MustRegister(c)
}

// addGauge adds one gauge.
func (m *ownMetrics) addGauge(d *collector.Desc, value func() float64) {
	if m.show {
		m.parts.samplers = append(m.parts.samplers, gaugeFunc{d, value})
	}
}

type gaugeFunc struct {
	desc  *collector.Desc
	value func() float64
}

func (f gaugeFunc) AddTo(g *collector.Families) { g.Add(f.desc, f.value()) }

func (m *ownMetrics) observe(o kamrpc.Observation) {
	m.mu.Lock()
	defer m.mu.Unlock()
	of := m.calls[o.Method]
	if of == nil {
		of = &calls{}
		m.calls[o.Method] = of
		at, _ := slices.BinarySearch(m.methods, o.Method)
		m.methods = slices.Insert(m.methods, at, o.Method)
	}
	of.requests++
	of.bytes += float64(o.Bytes)
	if o.Err != nil {
		of.failures++
	}
}

// addTo adds the metrics about the exporter itself to a page.
func (m *ownMetrics) addTo(page *parts) {
	page.samplers = append(page.samplers, m.parts.samplers...)
	page.gatherers = append(page.gatherers, m.parts.gatherers...)
}

// AddTo adds the counters of RPC calls. In a registry, they would take as long as the
// samples of Kamailio.
func (m *ownMetrics) AddTo(g *collector.Families) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, method := range m.methods {
		of := m.calls[method]
		g.Add(requestsDesc, of.requests, method)
		g.Add(failuresDesc, of.failures, method)
		g.Add(bytesDesc, of.bytes, method)
	}
}

// Describe and Gather describe and return all metrics about the exporter itself, for the
// documentation.
func (m *ownMetrics) Describe(ch chan<- *prometheus.Desc) {
	versioncollector.NewCollector(cli.ProgramName).Describe(ch)
	if m.more != nil {
		m.more.Describe(ch)
	}
	for _, d := range slices.Concat(processDescs, goDescs(), []*collector.Desc{requestsDesc, failuresDesc, bytesDesc, idleDesc}) {
		ch <- prometheus.NewDesc(d.Name, d.Help, d.Labels, nil)
	}
}

func (m *ownMetrics) Gather() ([]*dto.MetricFamily, error) {
	all, _, err := m.parts.gather()
	return all, err
}
