package repair

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/go-kit/log/level"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/action"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/adminapi"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/audit"
)

// Runner turns alerts into actions of the engine, one at a time.
type Runner struct {
	engine *action.Engine
	ledger *Ledger
	// rules returns the rules in force; nil if the endpoint accepts no alerts.
	rules   func() *Rules
	metrics *metrics
	// scraped returns the time and result of the last scrape; nil if that is unknown.
	scraped func() (at time.Time, good bool)

	queue chan struct{} // slots for waiting notifications
	turn  chan struct{} // held while a notification is handled or changes are undone

	// Used only while holding the turn.
	tried    map[string]time.Time // changes that could not be undone, and when that was tried
	attempts []lookedAt           // of the last minute, oldest first
}

// lookedAt is an alert that caused reads of Kamailio.
type lookedAt struct {
	fingerprint string
	at          time.Time
}

const (
	queueSize = 64
	turnWait  = 20 * time.Second
	allRules  = "all"

	maxAttempts = 120 // within attemptTime, for all rules together
	attemptTime = time.Minute
)

// Problems that only alerts can have, as listed in docs/admin-reference.md.
var (
	notOwn    = action.Kind{Name: "not-own", Status: http.StatusConflict, Outcome: audit.Refused, Title: "The target was changed since the rule acted"}
	queueFull = action.Kind{Name: "queue", Status: http.StatusServiceUnavailable, Outcome: audit.Refused, Title: "Too many notifications are waiting"}
	tooMany   = action.Kind{Name: "attempts", Status: http.StatusServiceUnavailable, Outcome: audit.Refused, Title: "Too many alerts were examined in the last minute"}
	notDone   = action.Kind{Name: "not-done", Status: http.StatusServiceUnavailable, Outcome: audit.Refused, Title: "Nothing was done yet; send the notification again"}
)

// NewRunner returns a runner. It calls rules for every notification, so a reload takes
// effect.
func NewRunner(e *action.Engine, l *Ledger, rules func() *Rules, scraped func() (at time.Time, good bool)) *Runner {
	return &Runner{
		engine: e, ledger: l, rules: rules, metrics: newMetrics(l, rules), scraped: scraped,
		queue: make(chan struct{}, queueSize), turn: make(chan struct{}, 1), tried: map[string]time.Time{},
	}
}

// Metrics returns the collector to register.
func (m *Runner) Metrics() prometheus.Collector { return m.metrics }

// Unreadable counts a notification whose body could not be read completely.
func (m *Runner) Unreadable() { m.metrics.notified(notifiedBad) }

// Notify handles a notification of Alertmanager.
//
// Alertmanager sends a notification again after a 5xx and drops it after a 4xx
// (notify/util.go). An alert refused by a guard rail would be refused again a moment
// later, so it gets a verdict, like a completed action. Notify returns a problem only
// if nothing was done and a retry may help: Kamailio does not answer, or another change
// is running.
func (m *Runner) Notify(ctx context.Context, caller action.Caller, text []byte) ([]adminapi.Verdict, *action.Problem) {
	n, err := parseNotification(text)
	if err != nil {
		m.Unreadable()
		return nil, action.Malformed.Because(err.Error())
	}
	results, p := m.handle(ctx, caller, n)
	if p == nil {
		p = sendAgain(results)
	}
	if p != nil {
		m.metrics.notified(notifiedAgain)
		return nil, p
	}
	m.metrics.notified(notifiedTaken)
	verdicts := []adminapi.Verdict{}
	for _, r := range results {
		verdicts = append(verdicts, r.Verdict)
	}
	return verdicts, nil
}

// verdict is the result of one rule for one alert.
type verdict struct {
	adminapi.Verdict
	again bool // nothing was done, and a retry may help
}

// sendAgain returns the problem that makes Alertmanager retry; nil if no retry is
// needed. Its text appears in Alertmanager's log.
func sendAgain(verdicts []verdict) *action.Problem {
	if slices.ContainsFunc(verdicts, func(v verdict) bool { return v.Outcome != audit.Refused }) {
		return nil
	}
	var why []string
	for _, v := range verdicts {
		if v.again {
			why = append(why, fmt.Sprintf("rule %s: %s: %s", v.Rule, v.By, v.Detail))
		}
	}
	if len(why) == 0 {
		return nil
	}
	return notDone.Later(strings.Join(why[:min(len(why), 3)], "; "), turnWait)
}

// handle applies every rule to every alert that it matches. It refuses if too many
// notifications are waiting.
func (m *Runner) handle(ctx context.Context, caller action.Caller, n notification) ([]verdict, *action.Problem) {
	select {
	case m.queue <- struct{}{}:
		defer func() { <-m.queue }()
	default:
		return nil, queueFull.Later("", turnWait)
	}
	leave, ok := m.enter(ctx)
	if !ok {
		return nil, queueFull.Later("", turnWait)
	}
	defer leave()
	rules := m.rules()
	if rules == nil || ctx.Err() != nil {
		return nil, nil
	}
	// Continue even if the sender disconnects: a canceled read may still run in
	// Kamailio.
	ctx = context.WithoutCancel(ctx)
	// Alerts that were looked at recently come last, so that they do not use up the
	// attempts of the others.
	slices.SortStableFunc(n.alerts, func(a, b alert) int { return m.lately(a).Compare(m.lately(b)) })
	seen := &snapshot{Kamailio: m.engine.Kamailio, known: map[string]*reading{}}
	var verdicts []verdict
	for _, a := range n.alerts {
		for _, r := range rules.rules {
			if !r.matches(a) {
				continue
			}
			j := &attempt{caller: caller, rule: r, alert: a, all: rules, sees: seen.of(func() error { return m.attempt(a) })}
			j.tag = audit.RuleTag{Rule: r.name, Step: stepDo, Alert: a.fingerprint, Status: a.status, Starts: a.starts, Group: n.group, Back: r.undo != nil}
			switch {
			case r.on == a.status:
				verdicts = append(verdicts, m.act(ctx, j))
			case r.undo != nil && a.status == onResolved:
				j.sees.forget()
				if v, ok := m.resolve(ctx, j); ok {
					verdicts = append(verdicts, v)
				}
			}
		}
	}
	return verdicts, nil
}

// enter waits for the turn: only one notification, or the loop that undoes changes, runs
// at a time.
func (m *Runner) enter(ctx context.Context) (leave func(), ok bool) {
	timer := time.NewTimer(turnWait)
	defer timer.Stop()
	select {
	case m.turn <- struct{}{}:
		return func() { <-m.turn }, true
	case <-ctx.Done():
	case <-timer.C:
	}
	return nil, false
}

func (r *rule) matches(a alert) bool {
	return !slices.ContainsFunc(r.match, func(l labelIs) bool { return a.labels[l.name] != l.value })
}

// attempt is one alert and a rule that it matches.
type attempt struct {
	caller action.Caller
	rule   *rule
	alert  alert
	all    *Rules
	tag    audit.RuleTag
	args   action.Args
	sees   *snapshot // what was read for the alerts of this notification
}

// act runs the rule's action if every guard rail allows it.
func (m *Runner) act(ctx context.Context, j *attempt) verdict {
	r, a, now := j.rule, j.alert, m.engine.Now()
	since := a.starts
	if a.status == onResolved {
		since = a.ends
	}
	if age := now.Sub(since); age > r.maxAge || age < -time.Minute {
		return m.refuse(j, railStale, fmt.Sprintf("the alert began %s ago; max_age is %s", age.Round(time.Second), r.maxAge))
	}
	if b, open := m.ledger.breaker(r.name); open {
		return m.refuse(j, railBreaker, "open since "+b.Since.UTC().Format(time.RFC3339)+": "+b.Why)
	}
	if v := m.arguments(ctx, j, false); v != nil {
		return *v
	}
	if r.finds() {
		if v := m.service(j); v != nil {
			return *v
		}
		if v := m.arguments(ctx, j, true); v != nil {
			return *v
		}
	}
	j.tag.Target = r.action.Target(j.args)
	if m.ledger.known(handledKey(j.tag, !r.enforce)) {
		m.firesAgain(j)
		return m.refuse(j, railDuplicate, "this alert was answered before")
	}
	if !r.finds() && !m.ledger.oneOf(j.tag.Group, j.tag.Target) {
		return m.refuse(j, railGroup, "an action ran for the same group of alerts less than "+groupLife.String()+" ago")
	}
	if who := m.engine.Journal.Person(r.action, j.args, now.Add(-j.all.quiet)); who != "" {
		return m.refuse(j, railPerson, who+" changed this less than "+j.all.quiet.String()+" ago")
	}
	if v := m.service(j); v != nil {
		return *v
	}
	m.firesAgain(j)
	job := m.job(j, r.action, func(ctx context.Context, k action.Kamailio, before audit.State, uptime time.Duration) error {
		loaded := m.engine.Now().Add(-uptime)
		if did := m.engine.Journal.LastSuccess(r.action.Name); did.After(loaded) {
			loaded = did
		}
		return r.confirmed(ctx, k, a, j.args, before, loaded)
	})
	// Most alerts of a storm end here, using what was read for the first of them.
	if p := m.engine.Consider(ctx, j.sees, job); p != nil {
		return m.refuse(j, railOf(p), p.Detail)
	}
	j.sees.forget()
	return m.run(ctx, j, job)
}

// service refuses for reasons that do not depend on the target: the state of Kamailio
// is unknown, or a budget is used up. The target's own budget is checked later, when
// the target is known.
func (m *Runner) service(j *attempt) *verdict {
	refused := func(by rail, why string) *verdict { v := m.refuse(j, by, why); return &v }
	if why := m.blind(); why != "" {
		return refused(railScrape, why)
	}
	if full, own := m.ledger.room(j.rule, j.all.budget, j.tag.Target, !j.rule.enforce); own {
		return refused(railTargetBudget, "used up: "+full)
	} else if full != "" {
		return refused(railBudget, "used up: "+full)
	}
	return nil
}

// attempt allows reads for an alert, unless there were too many in the last minute.
func (m *Runner) attempt(a alert) error {
	now := m.engine.Now()
	m.attempts = slices.DeleteFunc(m.attempts, func(l lookedAt) bool { return now.Sub(l.at).Abs() > attemptTime })
	if len(m.attempts) >= maxAttempts {
		return tooMany.Later(fmt.Sprintf("%d within %s", maxAttempts, attemptTime), turnWait)
	}
	m.attempts = append(m.attempts, lookedAt{a.fingerprint, now})
	return nil
}

// lately returns when an alert was last looked at; the zero time if not recently.
func (m *Runner) lately(a alert) (at time.Time) {
	for _, l := range m.attempts {
		if l.fingerprint == a.fingerprint {
			at = l.at
		}
	}
	return at
}

// finds reports whether the rule searches for its target. Then it acts on at most one
// target per notification.
func (r *rule) finds() bool {
	for _, source := range r.params {
		if source.Find != "" {
			return true
		}
	}
	return false
}

// blind explains why the state of Kamailio is unknown; "" if the last scrape was good.
func (m *Runner) blind() string {
	if m.scraped == nil {
		return ""
	}
	at, good := m.scraped()
	switch age := m.engine.Now().Sub(at); {
	case at.IsZero():
		return "no scrape has finished yet"
	case !good:
		return "the last scrape failed"
	case age > defaultMinUptime:
		return fmt.Sprintf("the last scrape was %s ago", age.Round(time.Second))
	}
	return ""
}

// arguments sets the action's parameters: those from the alert and the rule, which need
// no RPC, or with find those that are searched for. It returns a refusal if they are
// invalid.
func (m *Runner) arguments(ctx context.Context, j *attempt, find bool) *verdict {
	refused := func(by rail, why string) *verdict { v := m.refuse(j, by, why); return &v }
	if j.args == nil {
		j.args = action.Args{}
	}
	for _, p := range j.rule.action.Params {
		source := j.rule.params[p.Name]
		if (source.Find != "") != find {
			continue
		}
		value := p.Given(fmt.Sprint(source.Value))
		switch {
		case source.Label != "":
			value = p.Given(j.alert.labels[source.Label])
		case source.Find != "":
			found, problem := p.Find.Look(ctx, j.sees)
			if problem != nil {
				return refused(railOf(problem), problem.Detail)
			}
			value = found
		}
		checked, wrong := p.Check(value)
		if wrong == "" && source.Label != "" && !source.Meets(checked) {
			wrong = "has a value that the rule does not permit"
		}
		if wrong != "" {
			return refused(railParameter, (&action.ParamError{Name: p.Name, Why: wrong}).Error())
		}
		j.args[p.Name] = checked
	}
	if err := j.rule.action.Fit(j.args); err != nil {
		return refused(railParameter, err.Error())
	}
	return nil
}

// job builds the engine's job, with the guards of the rule.
func (m *Runner) job(j *attempt, a *action.Action, confirm func(context.Context, action.Kamailio, audit.State, time.Duration) error) *action.Job {
	r, now := j.rule, m.engine.Now()
	return &action.Job{
		ID: adminapi.NewID(now), Caller: j.caller, Action: a, Args: j.args, Requested: now, DryRun: !r.enforce,
		Guards: r.guards, Cooldown: j.all.cooldown, Confirm: confirm, Rule: &j.tag, Reason: "rule " + r.name,
	}
}

// run runs the job in the engine.
func (m *Runner) run(ctx context.Context, j *attempt, job *action.Job) verdict {
	r := j.rule
	res, p := m.engine.Run(ctx, job)
	if res == nil {
		return m.refuse(j, railOf(p), p.Detail)
	}
	outcome := string(res.Outcome)
	if res.Would != nil {
		outcome = outcomeDryRun
	}
	m.metrics.acted(r.name, j.tag.Step, outcome)
	_ = level.Info(m.engine.Logger).Log("msg", "rule acted on an alert", "rule", r.name, "step", j.tag.Step, "outcome", outcome, "id", res.ID)
	if m.ledger.tired(r.name) {
		m.openBreaker(r.name, fmt.Sprintf("%d actions in a row failed, have no known outcome or could not be verified", failuresInARow))
	}
	return verdict{Verdict: adminapi.Verdict{
		Rule: r.name, Alert: j.alert.fingerprint, Step: j.tag.Step, Outcome: res.Outcome, DryRun: res.DryRun, Detail: res.Detail, ID: res.ID,
	}}
}

// refuse counts and records a refusal. If it is part of a storm, it opens the breaker.
func (m *Runner) refuse(j *attempt, by rail, detail string) verdict {
	r := j.rule
	m.metrics.refused(r.name, by.name)
	if by != railDuplicate {
		tag := j.tag
		m.engine.Log.Deny(audit.Record{
			ID: adminapi.NewID(m.engine.Now()), User: j.caller.User, Auth: j.caller.Auth, Source: j.caller.Source, Action: r.action.Name,
			Params: r.action.Redact(m.engine.Log, j.args), Problem: by.name, Detail: detail, DryRun: !r.enforce, Rule: &tag,
		})
	}
	if by.storm && j.tag.Step == stepDo && m.ledger.refused(j.tag) {
		m.openBreaker(r.name, fmt.Sprintf("%d alerts within %s requested more than the guard rails permit", stormAlerts, stormTime))
	}
	v := verdict{again: by.again}
	v.Rule, v.Alert, v.Step, v.Outcome, v.DryRun, v.By, v.Detail = r.name, j.alert.fingerprint, j.tag.Step, audit.Refused, !r.enforce, by.name, detail
	return v
}

// openBreaker stops a rule until someone runs remediation.reset. The audit log keeps
// the breaker open across restarts.
func (m *Runner) openBreaker(rule, why string) {
	m.note(why, audit.RuleTag{Rule: rule, Step: stepBreaker})
	_ = level.Error(m.engine.Logger).Log("msg", "the breaker of a rule is open: it does nothing until remediation.reset", "rule", rule, "why", why)
}

// note records a step of a rule in the audit log and in the ledger.
func (m *Runner) note(detail string, tag audit.RuleTag) {
	record := audit.Record{Kind: audit.KindNote, Time: m.engine.Now().UTC(), Detail: detail, Rule: &tag}
	m.engine.Log.Keep(record)
	m.ledger.Take(record)
}

// State returns the state of the rules.
func (m *Runner) State() adminapi.Rules {
	state := adminapi.Rules{Rules: []adminapi.Rule{}}
	rules := m.rules()
	if rules == nil {
		return state
	}
	state.Receiver = true
	open := m.ledger.open()
	for _, r := range rules.rules {
		rule := adminapi.Rule{Name: r.name, Enforce: r.enforce, On: r.on, Action: r.action.Name, Left: m.ledger.left(r), Budget: r.perRule.String(), Open: []adminapi.OpenChange{}}
		var match []string
		for _, l := range r.match {
			match = append(match, l.name+"="+l.value)
		}
		rule.Match = strings.Join(slices.Sorted(slices.Values(match)), " ")
		if b, ok := m.ledger.breaker(r.name); ok {
			rule.Breaker = &b
		}
		for _, c := range open {
			if c.tag.Rule == r.name {
				rule.Open = append(rule.Open, adminapi.OpenChange{ID: c.id, Target: c.tag.Target, Since: c.at, DryRun: c.dryRun, Resolved: !c.resolved.IsZero()})
			}
		}
		state.Rules = append(state.Rules, rule)
	}
	return state
}
