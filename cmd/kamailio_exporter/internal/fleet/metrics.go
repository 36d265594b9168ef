package fleet

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are about probes and the file, not about a Kamailio.
type metrics struct {
	fleet            *Fleet
	targets          *prometheus.Desc
	probes, refused  *prometheus.CounterVec
	successful, last prometheus.Gauge
}

// reasons why a probe is refused; another one has no series before it happens.
var reasons = []string{"no_target", "unknown_target", "bad_uri", "file", "credentials", "not_allowed", "unresolved", "too_many", "unknown_module", "unknown_collector"}

const metricPrefix = "kamailio_exporter_"

func newMetrics(f *Fleet) *metrics {
	m := &metrics{
		fleet:   f,
		targets: prometheus.NewDesc(metricPrefix+"targets", "Targets that can be probed (file), or are kept since they were probed lately (allow).", []string{"from"}, nil),
		probes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: metricPrefix + "probes_total", Help: "Probes that were made: Kamailio answered (up) or did not (down), the client went away (canceled), or the exporter was at fault (failed).",
		}, []string{"result"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: metricPrefix + "probes_refused_total", Help: "Probes that were refused, with nothing connected to.",
		}, []string{"reason"}),
		successful: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: metricPrefix + "config_last_reload_successful", Help: "1 when the configuration file could be used when it was last read, 0 when not: then the one before is in force.",
		}),
		last: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: metricPrefix + "config_last_reload_success_timestamp_seconds", Help: "Unix time at which the configuration in force was read.",
		}),
	}
	for _, o := range []Outcome{Up, Down, Canceled, Failed} {
		m.probes.WithLabelValues(string(o))
	}
	for _, r := range reasons {
		m.refused.WithLabelValues(r)
	}
	return m
}

func (m *metrics) reloaded(ok bool, at time.Time) {
	if !ok {
		m.successful.Set(0)
		return
	}
	m.successful.Set(1)
	m.last.Set(float64(at.UnixNano()) / 1e9)
}

// Metrics are the fleet's own.
func (f *Fleet) Metrics() prometheus.Collector { return f.metrics }

// Describe is of prometheus.Collector.
func (m *metrics) Describe(to chan<- *prometheus.Desc) {
	to <- m.targets
	for _, c := range m.parts() {
		c.Describe(to)
	}
}

// Collect is of prometheus.Collector.
func (m *metrics) Collect(to chan<- prometheus.Metric) {
	named, guests := m.fleet.sizes()
	to <- prometheus.MustNewConstMetric(m.targets, prometheus.GaugeValue, float64(named), "file")
	to <- prometheus.MustNewConstMetric(m.targets, prometheus.GaugeValue, float64(guests), "allow")
	for _, c := range m.parts() {
		c.Collect(to)
	}
}

func (m *metrics) parts() []prometheus.Collector {
	return []prometheus.Collector{m.probes, m.refused, m.successful, m.last}
}
