package admin

import (
	"maps"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/action"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/audit"
)

const (
	programPrefix = "kamailio_exporter_"
	metricPrefix  = programPrefix + "admin_"
)

// metrics are the metrics of the endpoint. Their labels are names from the
// configuration and constants of this program, never client input.
type metrics struct {
	requests   *prometheus.CounterVec
	denied     *prometheus.CounterVec
	duration   *prometheus.HistogramVec
	busy       prometheus.GaugeFunc
	unverified *prometheus.CounterVec
	auditFails prometheus.Counter
	auditSync  prometheus.Gauge
	reloadGood prometheus.Gauge
	reloadTime prometheus.Gauge
	success    *prometheus.Desc
	expiry     *prometheus.Desc
	reset      *prometheus.Desc
	rules      prometheus.Collector // from package repair

	journal *action.Journal
	inForce func() *inForce
}

func newMetrics(e *action.Engine, rules prometheus.Collector, now func() *inForce) *metrics {
	name := func(n string) string { return metricPrefix + n }
	return &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: name("requests_total"), Help: "Actions that users requested, by outcome: applied, applied_unverified, contradicted, no_change, refused, failed or unknown."}, []string{"user", "action", "outcome"}),
		denied:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: name("denied_total"), Help: "Requests that were denied before the action was examined, by reason."}, []string{"reason"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name("duration_seconds"), Help: "Duration of actions, with the reads before and after.", Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60}, NativeHistogramBucketFactor: 1.1}, []string{"action"}),
		busy: prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name("busy"), Help: "1 while an action is running; others are refused meanwhile."}, func() float64 {
			if e.Busy() {
				return 1
			}
			return 0
		}),
		unverified: prometheus.NewCounterVec(prometheus.CounterOpts{Name: name("unverified_total"), Help: "Actions that Kamailio reported as done, but the state read afterwards contradicts it."}, []string{"action"}),
		auditFails: prometheus.NewCounter(prometheus.CounterOpts{Name: name("audit_errors_total"), Help: "Failed writes of the audit log. No action runs without it."}),
		auditSync:  prometheus.NewGauge(prometheus.GaugeOpts{Name: name("audit_last_fsync_seconds"), Help: "Duration of the last sync of the audit log to disk."}),
		reloadGood: prometheus.NewGauge(prometheus.GaugeOpts{Name: name("config_last_reload_successful"), Help: "1 if the last reload of --admin.config.file succeeded, 0 if the previous configuration is still in use."}),
		reloadTime: prometheus.NewGauge(prometheus.GaugeOpts{Name: name("config_last_reload_success_timestamp_seconds"), Help: "Unix time at which the current configuration was loaded."}),
		success:    prometheus.NewDesc(name("last_success_timestamp_seconds"), "Unix time at which an action was last applied.", []string{"action"}, nil),
		expiry:     prometheus.NewDesc(name("token_expiry_timestamp_seconds"), "Unix time at which the last token of a user expires. Absent without tokens, or with a token that does not expire.", []string{"user"}, nil),
		reset:      prometheus.NewDesc(programPrefix+"stats_reset_timestamp_seconds", "Unix time at which this program last reset statistics of Kamailio.", nil, nil),
		rules:      rules, journal: e.Journal, inForce: now,
	}
}

func (m *metrics) parts() []prometheus.Collector {
	return []prometheus.Collector{m.requests, m.denied, m.duration, m.busy, m.unverified, m.auditFails, m.auditSync, m.reloadGood, m.reloadTime, m.rules}
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, p := range m.parts() {
		p.Describe(ch)
	}
	ch <- m.success
	ch <- m.expiry
	ch <- m.reset
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	for _, p := range m.parts() {
		p.Collect(ch)
	}
	now := m.inForce()
	for _, action := range now.policy.Catalogue.Names() {
		done := m.journal.LastSuccess(action)
		if done.IsZero() {
			continue
		}
		ch <- prometheus.MustNewConstMetric(m.success, prometheus.GaugeValue, seconds(done), action)
		if now.policy.Catalogue.Get(action).ResetsStatistics {
			ch <- prometheus.MustNewConstMetric(m.reset, prometheus.GaugeValue, seconds(done))
		}
	}
	users := now.cfg.Users
	for _, name := range slices.Sorted(maps.Keys(users)) {
		if end := lastExpiry(users[name].Tokens); !end.IsZero() {
			ch <- prometheus.MustNewConstMetric(m.expiry, prometheus.GaugeValue, seconds(end), name)
		}
	}
}

func lastExpiry(tokens []TokenSpec) time.Time {
	var last time.Time
	for _, t := range tokens {
		end, err := t.end()
		if err != nil || end.IsZero() {
			return time.Time{}
		}
		if end.After(last) {
			last = end
		}
	}
	return last
}

func seconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }

func (m *metrics) count(user, action string, outcome audit.Outcome) {
	m.requests.WithLabelValues(user, action, string(outcome)).Inc()
}

// ended subscribes the metrics to the outcomes of all actions. For an action of an
// earlier run, the duration is unknown.
func (m *metrics) ended(r audit.Record, took time.Duration) {
	m.count(r.User, r.Action, r.Outcome)
	if took > 0 {
		m.duration.WithLabelValues(r.Action).Observe(took.Seconds())
	}
	if r.Problem == action.NotVerified.Name {
		m.unverified.WithLabelValues(r.Action).Inc()
	}
}
