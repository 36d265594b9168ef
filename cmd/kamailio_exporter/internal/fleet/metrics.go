package fleet

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are about the probes and the file, not about a single Kamailio.
type metrics struct {
	fleet            *Fleet
	targets          *prometheus.Desc
	probes, refused  *prometheus.CounterVec
	successful, last prometheus.Gauge
}

// reasons are the reasons for which a probe is refused. Each of them has a series from
// the start.
var reasons = []string{"no_target", "unknown_target", "bad_uri", "file", "credentials", "not_allowed", "unresolved", "too_many", "unknown_module", "unknown_collector"}

const metricPrefix = "kamailio_exporter_"

func newMetrics(f *Fleet) *metrics {
	m := &metrics{
		fleet:   f,
		targets: prometheus.NewDesc(metricPrefix+"targets", "Targets defined in the file (file), and targets on the allow list that were probed recently (allow).", []string{"from"}, nil),
		probes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: metricPrefix + "probes_total", Help: "Probes by result: Kamailio replied (up) or not (down), the client disconnected (canceled), or the exporter failed (failed).",
		}, []string{"result"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: metricPrefix + "probes_refused_total", Help: "Probes that were refused before any connection was made, by reason.",
		}, []string{"reason"}),
		successful: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: metricPrefix + "config_last_reload_successful", Help: "1 if the last reload of the configuration file succeeded, 0 if it failed and the previous configuration stays in use.",
		}),
		last: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: metricPrefix + "config_last_reload_success_timestamp_seconds", Help: "Unix time of the last successful reload of the configuration file.",
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

// Metrics returns the metrics of the fleet itself.
func (f *Fleet) Metrics() prometheus.Collector { return f.metrics }

// Describe implements prometheus.Collector.
func (m *metrics) Describe(to chan<- *prometheus.Desc) {
	to <- m.targets
	for _, c := range m.parts() {
		c.Describe(to)
	}
}

// Collect implements prometheus.Collector.
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
