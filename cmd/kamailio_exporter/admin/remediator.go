package admin

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-kit/log"
	"github.com/go-kit/log/level"
)

// remediator turns alerts into actions of the engine, one after the other.
type remediator struct {
	engine  *engine
	state   *atomic.Pointer[state]
	ledger  *ledger
	limits  *limits
	metrics *remedyMetrics
	logger  log.Logger
	now     func() time.Time
	// scraped tells how the last scrape went; nil: nobody knows.
	scraped func() (at time.Time, good bool)

	queue chan struct{}        // places for notifications that wait
	turn  chan struct{}        // one at a time
	tried map[string]time.Time // changes that could not be taken back: when; of whoever has the turn
}

const (
	queueSize = 64
	turnWait  = 20 * time.Second
	undoEvery = 5 * time.Second
	undoAgain = time.Minute // after one that was refused
	allRules  = "all"
)

func newRemediator(e *engine, s *atomic.Pointer[state], lim *limits, m *remedyMetrics, logger log.Logger, scraped func() (time.Time, bool)) *remediator {
	return &remediator{
		engine: e, state: s, ledger: e.ledger, limits: lim, metrics: m, logger: logger, now: e.now, scraped: scraped,
		queue: make(chan struct{}, queueSize), turn: make(chan struct{}, 1), tried: map[string]time.Time{},
	}
}

// verdict is what became of one alert by one rule.
type verdict struct {
	Rule    string  `json:"rule"`
	Alert   string  `json:"alert"` // fingerprint
	Step    string  `json:"step"`
	Outcome Outcome `json:"outcome"`
	DryRun  bool    `json:"dry_run"`
	By      string  `json:"refused_by,omitempty"`
	Detail  string  `json:"detail,omitempty"`
	ID      string  `json:"operation,omitempty"`
	again   bool    // nothing was done, and it is worth another try
}

// rail is a guard rail, by the name that metrics have for it.
type rail struct {
	name  string
	again bool // Alertmanager is to send it again
	storm bool // alerts that it holds back one after the other open the breaker
}

// The guard rails.
var (
	railStale        = rail{name: "stale"}
	railParameter    = rail{name: "parameter"}
	railDuplicate    = rail{name: "duplicate"}
	railBreaker      = rail{name: "breaker"}
	railGroup        = rail{name: "group", storm: true}
	railPerson       = rail{name: "person"}
	railScrape       = rail{name: "scrape", again: true}
	railBudget       = rail{name: "budget", storm: true}
	railTargetBudget = rail{name: "target_budget"}
	railUnconfirmed  = rail{name: "unconfirmed"}
	railGuard        = rail{name: "guard", storm: true}
	railTarget       = rail{name: "target"}
	railUptime       = rail{name: "uptime", again: true}
	railBusy         = rail{name: "busy", again: true}
	railUnreachable  = rail{name: "unreachable", again: true}
	railAudit        = rail{name: "audit", again: true}
	railNotOwn       = rail{name: "not_own"}
	railOther        = rail{name: "other"}
)

func rails() []rail {
	return []rail{
		railStale, railParameter, railDuplicate, railBreaker, railGroup, railPerson, railScrape, railBudget, railTargetBudget, railUnconfirmed,
		railGuard, railTarget, railUptime, railBusy, railUnreachable, railAudit, railNotOwn, railOther,
	}
}

// railOf says which guard rail a problem of the engine is.
func railOf(p *problem) rail {
	byName := map[string]rail{
		unconfirmed.name: railUnconfirmed, guarded.name: railGuard, badParameter.name: railParameter, noSuchTarget.name: railTarget,
		restarted.name: railUptime, busy.name: railBusy, stopping.name: railBusy, unreachable.name: railUnreachable, noAudit.name: railAudit, notOwn.name: railNotOwn,
	}
	if r, ok := byName[p.name]; ok {
		return r
	}
	return railOther
}

// handle answers a notification. It returns busy when too many wait.
func (m *remediator) handle(ctx context.Context, s *state, who identity, source string, n notification) ([]verdict, *problem) {
	select {
	case m.queue <- struct{}{}:
		defer func() { <-m.queue }()
	default:
		return nil, queueFull.later("", turnWait)
	}
	leave, ok := m.enter(ctx)
	if !ok {
		return nil, queueFull.later("", turnWait)
	}
	defer leave()
	verdicts := []verdict{}
	for _, a := range n.alerts {
		for _, r := range s.remediation.rules {
			if !r.matches(a) {
				continue
			}
			j := &attempt{who: who, source: source, rule: r, alert: a, all: s.remediation}
			j.remedy = Remedy{Rule: r.name, Step: stepDo, Alert: a.fingerprint, Status: a.status, Starts: a.starts, Group: n.group, Back: r.undo != nil}
			switch {
			case r.on == a.status:
				verdicts = append(verdicts, m.act(ctx, j))
			case r.undo != nil && a.status == onResolved:
				if v, ok := m.resolve(ctx, j); ok {
					verdicts = append(verdicts, v)
				}
			}
		}
	}
	return verdicts, nil
}

// enter waits for its turn. It is asked by one notification after the other, and
// by what takes changes back.
func (m *remediator) enter(ctx context.Context) (leave func(), ok bool) {
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
	for _, l := range r.match {
		if a.labels[l.name] != l.value {
			return false
		}
	}
	return true
}

// attempt is one alert and the rule that it matches.
type attempt struct {
	who    identity
	source string
	rule   *rule
	alert  alert
	all    *remediation
	remedy Remedy
	args   Args
}

// act does what a rule says, if every guard rail lets it.
func (m *remediator) act(ctx context.Context, j *attempt) verdict {
	r, a, now := j.rule, j.alert, m.now()
	since := a.starts
	if a.status == onResolved {
		since = a.ends
	}
	if age := now.Sub(since); age > r.maxAge || age < -time.Minute {
		return m.refuse(j, railStale, fmt.Sprintf("the alert began %s ago; max_age is %s", age.Round(time.Second), r.maxAge))
	}
	if v, why := m.arguments(ctx, j); why != nil {
		return v
	}
	j.remedy.Target = targetOf(j.args)
	if b, open := m.ledger.breaker(r.name); open {
		return m.refuse(j, railBreaker, "open since "+b.Since.UTC().Format(time.RFC3339)+": "+b.Why)
	}
	if m.ledger.known(j.remedy.handledKey(!r.enforce)) {
		m.firesAgain(j)
		return m.refuse(j, railDuplicate, "this alert was answered before")
	}
	if !r.finds() && !m.ledger.oneOf(j.remedy.Group, j.remedy.Target) {
		return m.refuse(j, railGroup, "something was done for the same group of alerts less than "+groupLife.String()+" ago")
	}
	if who := m.engine.journal.person(r.action.Name, j.args, now.Add(-j.all.quiet)); who != "" {
		return m.refuse(j, railPerson, who+" changed this less than "+j.all.quiet.String()+" ago")
	}
	if why := m.blind(); why != "" {
		return m.refuse(j, railScrape, why)
	}
	if full, own := m.ledger.room(r, j.all.budget, j.remedy.Target, !r.enforce); own {
		return m.refuse(j, railTargetBudget, "used up: "+full)
	} else if full != "" {
		return m.refuse(j, railBudget, "used up: "+full)
	}
	m.firesAgain(j)
	return m.run(ctx, j, r.action, func(ctx context.Context, before State, uptime time.Duration) error {
		loaded := m.now().Add(-uptime)
		if did := m.engine.journal.lastSuccess(r.action.Name); did.After(loaded) {
			loaded = did
		}
		if err := r.confirmed(ctx, m.engine.kamailio, a, j.args, before, loaded); err != nil {
			return err
		}
		return r.enough(j.args, before)
	})
}

// finds tells whether the target is looked for: then there is one a notification.
func (r *rule) finds() bool {
	return slices.ContainsFunc(slices.Collect(maps.Values(r.params)), func(s ParamSource) bool { return s.Find != "" })
}

// enough keeps a share of a set in service. The guard of the action has counted
// the least number, on the same list.
func (r *rule) enough(args Args, before State) error {
	active, ok := before["active"].(int64)
	total, ok2 := before["destinations"].(int64)
	flags, _ := before["flags"].(string)
	if r.action.Name != "dispatcher.set-state" || !ok || !ok2 || !destinationUp(flags) || strings.HasPrefix(args.text("state"), "a") {
		return nil
	}
	if float64(active-1) < r.ratio*float64(total) {
		return guarded.because(fmt.Sprintf("%d of %d destinations are active, and the share %g must stay", active, total, r.ratio))
	}
	return nil
}

// blind tells why nothing is known of Kamailio; "" when the last scrape was good.
func (m *remediator) blind() string {
	if m.scraped == nil {
		return ""
	}
	at, good := m.scraped()
	switch age := m.now().Sub(at); {
	case at.IsZero():
		return "there was no scrape yet"
	case !good:
		return "the last scrape failed"
	case age > defaultMinUptime:
		return fmt.Sprintf("the last scrape was %s ago", age.Round(time.Second))
	}
	return ""
}

// arguments makes the parameters of the action; why is set when they are none.
func (m *remediator) arguments(ctx context.Context, j *attempt) (v verdict, why error) {
	j.args = Args{}
	for _, p := range j.rule.action.Params {
		source := j.rule.params[p.Name]
		var value any
		switch {
		case source.Label != "":
			value = asGiven(p, j.alert.labels[source.Label])
		case source.Find != "":
			ctx, cancel := context.WithTimeout(ctx, 2*defaultLookTime)
			call, err := findOldestCall(ctx, m.engine.kamailio)
			cancel()
			if err != nil {
				p := ofRead(err)
				if known, ok := errors.AsType[*problem](err); ok {
					p = known
				}
				return m.refuse(j, railOf(p), p.detail), err
			}
			if call == "" {
				err := errors.New("there is no such call")
				return m.refuse(j, railTarget, err.Error()), err
			}
			value = call
		default:
			value = asGiven(p, fmt.Sprint(source.Value))
		}
		checked, wrong := p.check(value)
		if wrong == "" && source.Label != "" && !source.meets(checked) {
			wrong = "has a value that the rule does not let through"
		}
		if wrong != "" {
			err := &paramError{p.Name, wrong}
			return m.refuse(j, railParameter, err.Error()), err
		}
		j.args[p.Name] = checked
	}
	return verdict{}, nil
}

// run has the engine do it, with the guards of the rule.
func (m *remediator) run(ctx context.Context, j *attempt, action *Action, confirm confirmation) verdict {
	r := j.rule
	work := &job{
		id: newID(m.now()), who: j.who, source: j.source, action: action, args: j.args, request: m.now(), dryRun: !r.enforce,
		guards: r.guards, pause: pauseOf(action, j.all.pause), confirm: confirm, remedy: &j.remedy,
		reason: "rule " + r.name,
	}
	res, p := m.engine.run(ctx, work)
	if res == nil {
		return m.refuse(j, railOf(p), p.detail)
	}
	v := verdict{Rule: r.name, Alert: j.alert.fingerprint, Step: j.remedy.Step, Outcome: res.Outcome, DryRun: res.DryRun, Detail: res.Detail, ID: res.ID}
	m.metrics.acted(r.name, j.remedy.Step, outcomeWord(res))
	_ = level.Info(m.logger).Log("msg", "a rule acted on an alert", "rule", r.name, "step", j.remedy.Step, "outcome", outcomeWord(res), "id", res.ID)
	if m.ledger.tired(r.name) {
		m.openBreaker(r.name, fmt.Sprintf("%d actions in a row failed, have no known outcome or could not be verified", failuresInARow))
	}
	return v
}

// outcomeWord is the outcome, with what a dry run would have done told apart.
func outcomeWord(res *result) string {
	if res.Would != nil {
		return "dry_run"
	}
	return string(res.Outcome)
}

// refuse counts, writes down and, when it is a storm, opens the breaker.
func (m *remediator) refuse(j *attempt, by rail, detail string) verdict {
	r := j.rule
	m.metrics.refused(r.name, by.name)
	if by != railDuplicate {
		remedy := j.remedy
		m.engine.audit.denied(Record{
			Kind: recordDenied, ID: newID(m.now()), User: j.who.user.name, Auth: j.who.kind, Source: j.source, Action: r.action.Name,
			Params: m.engine.audit.redact(r.action.Params, j.args), Outcome: Refused, Problem: by.name, Detail: detail, DryRun: !r.enforce, Remedy: &remedy,
		}, m.limits.denials.Allow())
	}
	if by.storm && j.remedy.Step == stepDo && m.ledger.refused(j.remedy) {
		m.openBreaker(r.name, fmt.Sprintf("%d alerts within %s asked for more than the guard rails let through", stormAlerts, stormTime))
	}
	return verdict{Rule: r.name, Alert: j.alert.fingerprint, Step: j.remedy.Step, Outcome: Refused, DryRun: !r.enforce, By: by.name, Detail: detail, again: by.again}
}

// openBreaker stops a rule until somebody runs remediation.reset. The audit log
// has it open also after a restart.
func (m *remediator) openBreaker(rule, why string) {
	record := Record{Kind: recordNote, Time: m.now().UTC(), Detail: why, Remedy: &Remedy{Rule: rule, Step: stepBreaker}}
	m.engine.audit.outcome(record)
	m.ledger.take(record)
	_ = level.Error(m.logger).Log("msg", "the breaker of a rule is open: it does nothing until remediation.reset", "rule", rule, "why", why)
}

// resolve marks the change that a rule made for an alert as to be taken back, and
// tries to. ok is false when there is no such change.
func (m *remediator) resolve(ctx context.Context, j *attempt) (v verdict, ok bool) {
	c := m.ledger.ofAlert(j.rule.name, j.alert.fingerprint)
	if c == nil {
		return verdict{}, false
	}
	if c.resolved.IsZero() {
		m.mark(c.remedy, c.id, onResolved)
		c.resolved = m.now()
	}
	return m.takeBack(ctx, j.all, j.rule, *c)
}

// firesAgain keeps what was done for an alert from being taken back.
func (m *remediator) firesAgain(j *attempt) {
	if c := m.ledger.ofAlert(j.rule.name, j.alert.fingerprint); c != nil && !c.resolved.IsZero() {
		m.mark(c.remedy, c.id, onFiring)
	}
}

// mark writes down whether the alert of a change fires.
func (m *remediator) mark(of Remedy, id, status string) {
	of.Step, of.Undoes, of.Status = stepResolved, id, status
	record := Record{Kind: recordNote, Time: m.now().UTC(), Detail: "the alert of " + id + " is " + status, Remedy: &of}
	m.engine.audit.outcome(record)
	m.ledger.take(record)
}

// takeBack undoes a change whose alert is resolved, if it could be made again, and
// if what is there is still what the rule left. ok is false when it has to wait.
func (m *remediator) takeBack(ctx context.Context, all *remediation, r *rule, c change) (v verdict, ok bool) {
	j := &attempt{
		who: identity{&user{name: c.user}, kindWebhook}, source: "alert " + c.remedy.Alert, rule: r, all: all,
		alert: alert{fingerprint: c.remedy.Alert}, remedy: c.remedy,
	}
	j.remedy.Step, j.remedy.Undoes = stepUndo, c.id
	waits := verdict{Rule: r.name, Alert: c.remedy.Alert, Step: stepUndo, Outcome: Refused, DryRun: c.dryRun}
	if _, open := m.ledger.breaker(r.name); open {
		waits.By, waits.Detail = railBreaker.name, "it waits for remediation.reset"
		return waits, true
	}
	// Sooner than it could be taken out again it is not put back.
	if full, _ := m.ledger.room(r, all.budget, c.remedy.Target, c.dryRun); full != "" {
		waits.By, waits.Detail = railBudget.name, "it waits until it could be done again: "+full
		return waits, true
	}
	if c.dryRun {
		m.ledger.drop(c)
		m.metrics.acted(r.name, stepUndo, "dry_run")
		return verdict{Rule: r.name, Alert: c.remedy.Alert, Step: stepUndo, Outcome: NoChange, DryRun: true}, true
	}
	if !r.enforce {
		waits.By, waits.Detail = railOther.name, "the rule is in dry run: it changes nothing"
		return waits, true
	}
	action := newCatalogue()[r.undo.action]
	given := map[string]any{}
	for name, value := range r.undo.args(c.params, c.before) {
		for _, p := range action.Params {
			if p.Name == name {
				given[name] = asGiven(p, textOf(value))
			}
		}
	}
	args, err := check(action.Params, given)
	if err != nil {
		m.ledger.drop(c)
		return m.refuse(j, railParameter, err.Error()), true
	}
	j.args = args
	if why := m.blind(); why != "" {
		waits.By, waits.Detail = railScrape.name, why
		return waits, true
	}
	if at, ok := m.tried[c.id]; ok && m.now().Sub(at) < undoAgain {
		return verdict{}, false
	}
	v = m.run(ctx, j, action, func(_ context.Context, before State, _ time.Duration) error {
		if !r.undo.own(before, c.after) {
			return notOwn.because("it is not what the rule left any more")
		}
		return nil
	})
	delete(m.tried, c.id)
	switch {
	case v.By == railNotOwn.name || v.By == railTarget.name || v.Outcome == NoChange:
		m.ledger.drop(c)
	case v.Outcome == Refused:
		m.tried[c.id] = m.now()
	}
	v.again = false // it is tried again by itself
	return v, true
}

// serve takes back what waits for it, until ctx is done.
func (m *remediator) serve(ctx context.Context) {
	tick := time.NewTicker(undoEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			m.due(ctx)
		}
	}
}

// due takes back all that can be by now.
func (m *remediator) due(ctx context.Context) {
	s := m.state.Load()
	if s.remediation == nil {
		return
	}
	for _, c := range m.ledger.open() {
		r := s.remediation.rule(c.remedy.Rule)
		if c.resolved.IsZero() || r == nil || r.undo == nil {
			continue
		}
		leave, ok := m.enter(ctx)
		if !ok {
			return
		}
		m.takeBack(ctx, s.remediation, r, c)
		leave()
	}
}

// RuleInfo is what GET /v1/remediation tells of a rule.
type RuleInfo struct {
	Name    string       `json:"name"`
	Enforce bool         `json:"enforce"`
	On      string       `json:"on"`
	Match   string       `json:"match"`
	Action  string       `json:"action"`
	Left    int          `json:"budget_left"`
	Budget  string       `json:"budget"`
	Breaker *Breaker     `json:"breaker,omitempty"`
	Open    []OpenChange `json:"open_changes"`
}

// OpenChange is what a rule did and has not taken back.
type OpenChange struct {
	ID       string    `json:"operation"`
	Target   string    `json:"target"`
	Since    time.Time `json:"since"`
	DryRun   bool      `json:"dry_run"`
	Resolved bool      `json:"alert_resolved"`
}

func (m *remediator) infos(all *remediation) []RuleInfo {
	infos := []RuleInfo{}
	open := m.ledger.open()
	for _, r := range all.rules {
		info := RuleInfo{Name: r.name, Enforce: r.enforce, On: r.on, Action: r.action.Name, Left: m.ledger.left(r), Budget: r.perRule.String(), Open: []OpenChange{}}
		var match []string
		for _, l := range r.match {
			match = append(match, l.name+"="+l.value)
		}
		info.Match = strings.Join(slices.Sorted(slices.Values(match)), " ")
		if b, ok := m.ledger.breaker(r.name); ok {
			info.Breaker = &b
		}
		for _, c := range open {
			if c.remedy.Rule == r.name {
				info.Open = append(info.Open, OpenChange{c.id, c.remedy.Target, c.at, c.dryRun, !c.resolved.IsZero()})
			}
		}
		infos = append(infos, info)
	}
	return infos
}
