package repair

import (
	"context"
	"time"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/action"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/adminapi"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/audit"
)

const (
	undoEvery = 5 * time.Second
	undoAgain = time.Minute // wait after a refused undo
)

// Serve undoes changes that are due, until ctx is done.
func (m *Runner) Serve(ctx context.Context) {
	tick := time.NewTicker(undoEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			m.UndoDue(ctx)
		}
	}
}

// UndoDue undoes all changes that are due.
func (m *Runner) UndoDue(ctx context.Context) {
	rules := m.rules()
	if rules == nil {
		return
	}
	for _, c := range m.ledger.open() {
		r := rules.rule(c.tag.Rule)
		if c.resolved.IsZero() || r == nil || r.undo == nil {
			continue
		}
		leave, ok := m.enter(ctx)
		if !ok {
			return
		}
		m.undo(ctx, rules, r, c)
		leave()
	}
}

// resolve marks the change that a rule made for an alert as due for undo, and tries to
// undo it. ok is false if there is no such change.
func (m *Runner) resolve(ctx context.Context, j *attempt) (v verdict, ok bool) {
	c := m.ledger.ofAlert(j.rule.name, j.alert.fingerprint)
	if c == nil {
		return verdict{}, false
	}
	if c.resolved.IsZero() {
		m.mark(*c, onResolved)
		c.resolved = m.engine.Now()
	}
	return m.undo(ctx, j.all, j.rule, *c)
}

// firesAgain cancels the undo of a change whose alert fires again.
func (m *Runner) firesAgain(j *attempt) {
	if c := m.ledger.ofAlert(j.rule.name, j.alert.fingerprint); c != nil && !c.resolved.IsZero() {
		m.mark(*c, onFiring)
	}
}

// mark records whether the alert of a change fires.
func (m *Runner) mark(c change, status string) {
	tag := c.tag
	tag.Step, tag.Undoes, tag.Status = stepResolved, c.id, status
	m.note("the alert of "+c.id+" is "+status, tag)
}

// undo undoes a change whose alert is resolved, if the budget would allow the
// change again and the state is still what the rule left. ok is false if the undo has
// to wait.
func (m *Runner) undo(ctx context.Context, all *Rules, r *rule, c change) (v verdict, ok bool) {
	v.Verdict = adminapi.Verdict{Rule: r.name, Alert: c.tag.Alert, Step: stepUndo, Outcome: audit.Refused, DryRun: c.dryRun}
	waits := func(by rail, why string) (verdict, bool) {
		v.By, v.Detail = by.name, why
		return v, true
	}
	if _, open := m.ledger.breaker(r.name); open {
		return waits(railBreaker, "it waits for remediation.reset")
	}
	// Do not undo before the rule could act again: otherwise the target could not be
	// taken out again if needed.
	if full, _ := m.ledger.room(r, all.budget, c.tag.Target, c.dryRun); full != "" {
		return waits(railBudget, "it waits until the rule could act again: "+full)
	}
	if c.dryRun {
		m.ledger.drop(c)
		m.metrics.acted(r.name, stepUndo, outcomeDryRun)
		v.Outcome = audit.NoChange
		return v, true
	}
	if !r.enforce {
		return waits(railOther, "the rule is in dry run: it changes nothing")
	}
	j := &attempt{
		caller: action.Caller{User: c.user, Auth: authWebhook, Source: "alert " + c.tag.Alert}, rule: r, all: all,
		alert: alert{fingerprint: c.tag.Alert}, tag: c.tag,
	}
	j.tag.Step, j.tag.Undoes = stepUndo, c.id
	back := all.actions.Get(r.undo.Action)
	var err error
	if j.args, err = back.Check(givenBack(back, r.undo.Args(c.params, c.before))); err != nil {
		m.ledger.drop(c)
		return m.refuse(j, railParameter, err.Error()), true
	}
	if why := m.blind(); why != "" {
		return waits(railScrape, why)
	}
	if at, ok := m.tried[c.id]; ok && m.engine.Now().Sub(at) < undoAgain {
		return verdict{}, false
	}
	v = m.run(ctx, j, m.job(j, back, func(_ context.Context, _ action.Kamailio, before audit.State, _ time.Duration) error {
		if !r.undo.Own(before, c.after) {
			return notOwn.Because("the target was changed since the rule acted")
		}
		return nil
	}))
	delete(m.tried, c.id)
	switch {
	case v.By == railNotOwn.name || v.By == railTarget.name || v.Outcome == audit.NoChange:
		m.ledger.drop(c)
	case v.Outcome == audit.Refused:
		m.tried[c.id] = m.engine.Now()
	}
	v.again = false // this program retries it itself
	return v, true
}

// authWebhook is how the caller of an undo was authenticated.
const authWebhook = "webhook"

// givenBack converts parameters from the audit log to the input of an action's Check.
func givenBack(a *action.Action, params map[string]any) map[string]any {
	given := map[string]any{}
	for _, p := range a.Params {
		if value, ok := params[p.Name]; ok {
			given[p.Name] = p.Given(audit.TextOf(value))
		}
	}
	return given
}
