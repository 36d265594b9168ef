package repair

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/audit"
)

// MetricPrefix is the prefix of the rules' metrics.
const MetricPrefix = "kamailio_exporter_remediation_"

// metrics are the metrics of the alert rules. Their labels are rule names and constants
// of this program, never content of an alert.
type metrics struct {
	actions       *prometheus.CounterVec
	refusals      *prometheus.CounterVec
	notifications *prometheus.CounterVec
	last          prometheus.Gauge
	breaker       *prometheus.Desc
	enforced      *prometheus.Desc
	open          *prometheus.Desc
	oldest        *prometheus.Desc
	left          *prometheus.Desc

	ledger *Ledger
	rules  func() *Rules
}

// Results of a notification.
const (
	notifiedTaken = "taken"
	notifiedAgain = "again"
	notifiedBad   = "bad"
)

// outcomeDryRun marks an action that a dry run did not send.
const outcomeDryRun = "dry_run"

func newMetrics(l *Ledger, rules func() *Rules) *metrics {
	name := func(n string) string { return MetricPrefix + n }
	return &metrics{
		actions:       prometheus.NewCounterVec(prometheus.CounterOpts{Name: name("actions_total"), Help: "Actions of rules for firing alerts (step do) and for resolved ones (step undo), by outcome: applied, applied_unverified, contradicted, no_change, failed or unknown; dry_run counts what would have been sent."}, []string{"rule", "step", "outcome"}),
		refusals:      prometheus.NewCounterVec(prometheus.CounterOpts{Name: name("refused_total"), Help: "Alerts that a rule did not act on, by the guard rail that stopped it."}, []string{"rule", "guard"}),
		notifications: prometheus.NewCounterVec(prometheus.CounterOpts{Name: name("notifications_total"), Help: "Alertmanager notifications: accepted, to be sent again because no action could run yet, or invalid."}, []string{"result"}),
		last:          prometheus.NewGauge(prometheus.GaugeOpts{Name: name("last_notification_timestamp_seconds"), Help: "Unix time of the last Alertmanager notification; 0 if there was none since startup."}),
		breaker:       prometheus.NewDesc(name("breaker_open"), "1 while the circuit breaker of the rule is open: the rule is inactive until remediation.reset is run.", []string{"rule"}, nil),
		enforced:      prometheus.NewDesc(name("enforced"), "1 if the rule is enforced, 0 if it is in dry run.", []string{"rule"}, nil),
		open:          prometheus.NewDesc(name("open_changes"), "Changes that the rule made in the last day and has not undone.", []string{"rule"}, nil),
		oldest:        prometheus.NewDesc(name("oldest_open_change_timestamp_seconds"), "Unix time of the oldest of these changes.", []string{"rule"}, nil),
		left:          prometheus.NewDesc(name("budget_left"), "Actions that remain in the budget of the rule.", []string{"rule"}, nil),

		ledger: l, rules: rules,
	}
}

// Begin creates all series of the rules with the value 0.
func (m *Runner) Begin(r *Rules) { m.metrics.begin(r) }

func (m *metrics) begin(r *Rules) {
	if r == nil {
		return
	}
	for _, result := range []string{notifiedTaken, notifiedAgain, notifiedBad} {
		m.notifications.WithLabelValues(result)
	}
	for _, rule := range r.rules {
		for _, outcome := range []string{string(audit.Applied), string(audit.Unverified), string(audit.Contradicted), string(audit.NoChange), string(audit.Failed), string(audit.Unknown), outcomeDryRun} {
			m.actions.WithLabelValues(rule.name, stepDo, outcome)
			if rule.undo != nil {
				m.actions.WithLabelValues(rule.name, stepUndo, outcome)
			}
		}
		for _, rail := range rails() {
			m.refusals.WithLabelValues(rule.name, rail.name)
		}
	}
}

func (m *metrics) acted(rule, step, outcome string) {
	m.actions.WithLabelValues(rule, step, outcome).Inc()
}

func (m *metrics) refused(rule, guard string) {
	m.refusals.WithLabelValues(rule, guard).Inc()
}

func (m *metrics) notified(result string) {
	m.notifications.WithLabelValues(result).Inc()
	m.last.Set(unixSeconds(time.Now()))
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, p := range []prometheus.Collector{m.actions, m.refusals, m.notifications, m.last} {
		p.Describe(ch)
	}
	for _, d := range []*prometheus.Desc{m.breaker, m.enforced, m.open, m.oldest, m.left} {
		ch <- d
	}
}

// Collect implements prometheus.Collector. Without rules it exports nothing.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	r := m.rules()
	if r == nil {
		return
	}
	for _, p := range []prometheus.Collector{m.actions, m.refusals, m.notifications, m.last} {
		p.Collect(ch)
	}
	open := m.ledger.open()
	for _, rule := range r.rules {
		gauge := func(d *prometheus.Desc, v float64) {
			ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, rule.name)
		}
		_, broken := m.ledger.breaker(rule.name)
		gauge(m.breaker, oneOrZero(broken))
		gauge(m.enforced, oneOrZero(rule.enforce))
		gauge(m.left, float64(m.ledger.left(rule)))
		n := 0
		for _, c := range open {
			if c.tag.Rule != rule.name || c.dryRun {
				continue
			}
			if n++; n == 1 {
				gauge(m.oldest, unixSeconds(c.at))
			}
		}
		gauge(m.open, float64(n))
	}
}

func oneOrZero(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func unixSeconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }
