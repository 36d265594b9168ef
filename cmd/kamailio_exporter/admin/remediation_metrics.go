package admin

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const remedyPrefix = programPrefix + "remediation_"

// remedyMetrics are about the rules for alerts. Their labels are names of rules and
// words of this program, never what an alert holds.
type remedyMetrics struct {
	actions       *prometheus.CounterVec
	refusals      *prometheus.CounterVec
	notifications *prometheus.CounterVec
	last          prometheus.Gauge
	breaker       *prometheus.Desc
	enforced      *prometheus.Desc
	open          *prometheus.Desc
	oldest        *prometheus.Desc
	left          *prometheus.Desc

	ledger *ledger
	rules  atomic.Pointer[remediation]
}

// What became of a notification.
const (
	notifiedTaken = "taken"
	notifiedAgain = "again"
	notifiedBad   = "bad"
)

func newRemedyMetrics() *remedyMetrics {
	name := func(n string) string { return remedyPrefix + n }
	return &remedyMetrics{
		actions:       prometheus.NewCounterVec(prometheus.CounterOpts{Name: name("actions_total"), Help: "What rules did about alerts (step do) and took back when they were resolved (step undo), by what became of it: applied, applied_unverified, no_change, failed or unknown; dry_run is what would have been sent."}, []string{"rule", "step", "outcome"}),
		refusals:      prometheus.NewCounterVec(prometheus.CounterOpts{Name: name("refused_total"), Help: "Alerts that a rule did not act on, by the guard rail that kept it from it."}, []string{"rule", "guard"}),
		notifications: prometheus.NewCounterVec(prometheus.CounterOpts{Name: name("notifications_total"), Help: "Notifications of Alertmanager: taken, to be sent again because nothing could be done yet, or bad."}, []string{"result"}),
		last:          prometheus.NewGauge(prometheus.GaugeOpts{Name: name("last_notification_timestamp_seconds"), Help: "When Alertmanager last sent a notification; 0 if it has not since the start."}),
		breaker:       prometheus.NewDesc(name("breaker_open"), "1 while the rule does nothing until somebody runs remediation.reset.", []string{"rule"}, nil),
		enforced:      prometheus.NewDesc(name("enforced"), "1 if the rule acts, 0 if it is in dry run.", []string{"rule"}, nil),
		open:          prometheus.NewDesc(name("open_changes"), "Changes that the rule made, in the last day, and has not taken back.", []string{"rule"}, nil),
		oldest:        prometheus.NewDesc(name("oldest_open_change_timestamp_seconds"), "When the oldest of these changes was made.", []string{"rule"}, nil),
		left:          prometheus.NewDesc(name("budget_left"), "How many more actions the rule's own budget has room for.", []string{"rule"}, nil),
	}
}

// adopt has all series of the rules begin at 0.
func (m *remedyMetrics) adopt(r *remediation) {
	m.rules.Store(r)
	if r == nil {
		return
	}
	for _, result := range []string{notifiedTaken, notifiedAgain, notifiedBad} {
		m.notifications.WithLabelValues(result)
	}
	for _, rule := range r.rules {
		for _, outcome := range []string{string(Applied), string(Unverified), string(NoChange), string(Failed), string(Unknown), "dry_run"} {
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

func (m *remedyMetrics) acted(rule, step, outcome string) {
	m.actions.WithLabelValues(rule, step, outcome).Inc()
}

func (m *remedyMetrics) refused(rule, guard string) {
	m.refusals.WithLabelValues(rule, guard).Inc()
}

func (m *remedyMetrics) notified(result string) {
	m.notifications.WithLabelValues(result).Inc()
	m.last.Set(seconds(time.Now()))
}

// Describe is part of prometheus.Collector.
func (m *remedyMetrics) Describe(ch chan<- *prometheus.Desc) {
	for _, p := range []prometheus.Collector{m.actions, m.refusals, m.notifications, m.last} {
		p.Describe(ch)
	}
	for _, d := range []*prometheus.Desc{m.breaker, m.enforced, m.open, m.oldest, m.left} {
		ch <- d
	}
}

// Collect is part of prometheus.Collector. Without rules there is nothing to tell.
func (m *remedyMetrics) Collect(ch chan<- prometheus.Metric) {
	r := m.rules.Load()
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
			if c.remedy.Rule != rule.name || c.dryRun {
				continue
			}
			if n++; n == 1 {
				gauge(m.oldest, seconds(c.at))
			}
		}
		gauge(m.open, float64(n))
	}
}

func oneOrZero(b bool) float64 { return float64(oneIf(b)) }
