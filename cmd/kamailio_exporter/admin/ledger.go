package admin

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Remedy is what a record of the audit log says of the rule behind it.
type Remedy struct {
	Rule   string    `json:"rule"`
	Step   string    `json:"step"`             // do, undo, resolved, breaker or refused
	Target string    `json:"target,omitempty"` // the parameters that name it
	Alert  string    `json:"alert,omitempty"`  // fingerprint
	Status string    `json:"status,omitempty"` // firing or resolved
	Starts time.Time `json:"starts_at,omitzero"`
	Group  string    `json:"group,omitempty"`  // hash of Alertmanager's group key
	Undoes string    `json:"undoes,omitempty"` // the operation
	Back   bool      `json:"back,omitempty"`   // it is to be taken back when the alert is resolved
}

// Steps of a rule.
const (
	stepDo       = "do"
	stepUndo     = "undo"
	stepResolved = "resolved" // the alert of a change that is to be taken back
	stepBreaker  = "breaker"  // opened
	stepRefused  = "refused"  // by a guard rail
)

// ledger is what rules have done, as far as the next alert needs it. Like the
// journal it is made anew from the audit log at each start.
type ledger struct {
	now func() time.Time

	mu       sync.Mutex
	acts     []act                           // of the last day, oldest first
	handled  map[string]time.Time            // alerts that were answered: when
	changes  map[string]*change              // not yet taken back, by rule and target
	breakers map[string]Breaker              // open ones, by rule
	failures map[string]int                  // of a rule, one after the other
	refusals map[string]map[string]time.Time // of a rule, by alert: by guards of the service
	groups   map[string]seen                 // by group: the one target that may be acted on
}

// act is one action of a rule.
type act struct {
	rule, target string
	at           time.Time
	dryRun       bool
}

type seen struct {
	target string
	at     time.Time
}

// change is what a rule did and may take back.
type change struct {
	id       string // of the operation
	user     string
	remedy   Remedy
	params   map[string]any
	before   State
	after    State
	at       time.Time
	dryRun   bool
	resolved time.Time // zero: the alert still fires
}

// Breaker is an open one: its rule does nothing.
type Breaker struct {
	Since time.Time `json:"since"`
	Why   string    `json:"why"`
}

const (
	ledgerLife     = 24 * time.Hour
	groupLife      = 10 * time.Minute // in which a group may have one target
	stormTime      = 10 * time.Minute
	stormAlerts    = 3 // that guards refuse within that time
	failuresInARow = 3
	maxHandled     = 10_000
)

func newLedger(now func() time.Time) *ledger {
	return &ledger{
		now: now, handled: map[string]time.Time{}, changes: map[string]*change{}, breakers: map[string]Breaker{},
		failures: map[string]int{}, refusals: map[string]map[string]time.Time{}, groups: map[string]seen{},
	}
}

// handledKey is what two notifications of the same have in common: pairs of
// Alertmanagers and repeat_interval send it again.
// What a dry run answered, a rule that acts answers again.
func (r Remedy) handledKey(dryRun bool) string {
	return strings.Join([]string{r.Rule, r.Alert, r.Starts.UTC().Format(time.RFC3339Nano), r.Status, strconv.FormatBool(dryRun), r.Target}, " ")
}

func (r Remedy) changeKey() string { return r.Rule + " " + r.Target }

// notTarget are parameters that say what becomes of a target, not which it is.
var notTarget = []string{"state", "value", "enabled", "seconds"}

// targetOf is the parameters that name what is changed, as a text.
func targetOf(params map[string]any) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(params)) {
		if !slices.Contains(notTarget, name) {
			parts = append(parts, name+"="+textOf(params[name]))
		}
	}
	return strings.Join(parts, " ")
}

// textOf is a value as it was given, also when it was read from JSON.
func textOf(v any) string {
	if f, ok := v.(float64); ok {
		return strconv.FormatFloat(f, 'f', -1, 64)
	}
	return fmt.Sprint(v)
}

// take takes a record that was written, or is read from the audit log at a start.
func (l *ledger) take(r Record) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r.Kind == recordOutcome && r.Action == ResetAction && r.Outcome == Applied {
		l.close(textOf(r.Params["rule"]))
		return
	}
	if r.Remedy == nil {
		if r.Kind == recordOutcome && r.changed() {
			// A person took over: it is no rule's any more.
			maps.DeleteFunc(l.changes, func(_ string, c *change) bool { return !c.dryRun && r.touches(actionModule(r.Action), c.params) })
		}
		return
	}
	switch {
	case r.Remedy.Step == stepBreaker:
		l.breakers[r.Remedy.Rule] = Breaker{r.Time, r.Detail}
	case r.Remedy.Step == stepResolved:
		if c := l.changes[r.Remedy.changeKey()]; c != nil && c.id == r.Remedy.Undoes {
			if c.resolved = r.Time; r.Remedy.Status == onFiring {
				c.resolved = time.Time{} // it fires again
			}
		}
	case r.Kind == recordOutcome && r.Outcome != Refused:
		l.outcome(r)
	}
}

// changed tells whether a record is of something that was done, or may have been.
func (r Record) changed() bool {
	return !r.DryRun && (r.Outcome == Applied || r.Outcome == Unverified || r.Outcome == Unknown)
}

// rule is the one behind a record; "" without one.
func (r Record) rule() string {
	if r.Remedy == nil {
		return ""
	}
	return r.Remedy.Rule
}

// touches tells whether an operation of this module had to do with a target: all
// parameters that both have are the same. One without any, a reload, touches
// every target.
func (r Record) touches(module string, params map[string]any) bool {
	if actionModule(r.Action) != module {
		return false
	}
	for name, value := range params {
		if other, ok := r.Params[name]; ok && !slices.Contains(notTarget, name) && textOf(other) != textOf(value) {
			return false
		}
	}
	return true
}

func actionModule(action string) string {
	module, _, _ := strings.Cut(action, ".")
	return module
}

func (l *ledger) outcome(r Record) {
	m := *r.Remedy
	if m.Step == stepUndo {
		if c := l.changes[m.changeKey()]; c != nil && (c.id == m.Undoes) {
			delete(l.changes, m.changeKey())
		}
	} else {
		l.handled[m.handledKey(r.DryRun)] = r.Time
		if !r.DryRun {
			l.groups[m.Group] = seen{m.Target, r.Time}
		}
		if r.Outcome != NoChange || r.DryRun && !r.Verified {
			l.acts = append(l.acts, act{m.Rule, m.Target, r.Time, r.DryRun})
		}
		if m.Back && (r.Outcome == Applied || r.DryRun && r.Outcome == NoChange && !r.Verified) {
			l.changes[m.changeKey()] = &change{
				id: r.ID, user: r.User, remedy: m, params: r.Params, before: r.Before, after: r.After, at: r.Time, dryRun: r.DryRun,
			}
		}
	}
	switch {
	case r.DryRun:
	case r.Outcome == Failed, r.Outcome == Unknown, r.Problem == notVerified.name:
		l.failures[m.Rule]++
	case r.Outcome == Applied:
		l.failures[m.Rule] = 0
	}
	l.forget()
}

// forget drops what is too old to matter.
func (l *ledger) forget() {
	old := l.now().Add(-ledgerLife)
	l.acts = slices.DeleteFunc(l.acts, func(a act) bool { return a.at.Before(old) })
	maps.DeleteFunc(l.changes, func(_ string, c *change) bool { return c.at.Before(old) })
	maps.DeleteFunc(l.groups, func(_ string, s seen) bool { return l.now().Sub(s.at) > groupLife })
	if len(l.handled) > maxHandled {
		maps.DeleteFunc(l.handled, func(_ string, at time.Time) bool { return at.Before(old) })
	}
	if len(l.handled) > maxHandled {
		clear(l.handled) // startsAt and the budgets still hold
	}
}

// known tells whether this was answered before.
func (l *ledger) known(key string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	at, ok := l.handled[key]
	return ok && l.now().Sub(at) < ledgerLife
}

// room tells which budget is used up, and whether it is the target's own; "" while
// there is room for one more.
func (l *ledger) room(r *rule, all budget, target string, dryRun bool) (full string, own bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	used := func(b budget, mine func(act) bool) bool {
		n := 0
		for _, a := range l.acts {
			if a.dryRun == dryRun && l.now().Sub(a.at) < b.per && mine(a) {
				n++
			}
		}
		return n >= b.n
	}
	switch {
	case used(r.perTarget, func(a act) bool { return a.rule == r.name && a.target == target }):
		return "per_target " + r.perTarget.String(), true
	case used(r.perRule, func(a act) bool { return a.rule == r.name }):
		return "per_rule " + r.perRule.String(), false
	case used(all, func(act) bool { return true }):
		return "all rules " + all.String(), false
	}
	return "", false
}

// left is how many actions the rule's own budget has room for.
func (l *ledger) left(r *rule) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := r.perRule.n
	for _, a := range l.acts {
		if a.rule == r.name && a.dryRun == !r.enforce && l.now().Sub(a.at) < r.perRule.per {
			n--
		}
	}
	return max(n, 0)
}

// oneOf lets a group of alerts have one target: what fails all at once is not the
// targets' fault.
func (l *ledger) oneOf(group, target string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	s, ok := l.groups[group]
	return !ok || s.target == target || l.now().Sub(s.at) > groupLife
}

// refused notes that a guard kept a rule from acting on an alert. Several alerts
// within a short time are a storm: true once.
func (l *ledger) refused(of Remedy) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	m := l.refusals[of.Rule]
	if m == nil {
		m = map[string]time.Time{}
		l.refusals[of.Rule] = m
	}
	now := l.now()
	maps.DeleteFunc(m, func(_ string, at time.Time) bool { return now.Sub(at) > stormTime })
	m[of.Alert+of.Starts.String()] = now // the same alert comes again and again
	if _, open := l.breakers[of.Rule]; open || len(m) < stormAlerts {
		return false
	}
	clear(m)
	return true
}

// tired tells whether a rule has failed too often in a row, and its breaker is not
// open yet.
func (l *ledger) tired(rule string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, open := l.breakers[rule]
	return !open && l.failures[rule] >= failuresInARow
}

func (l *ledger) breaker(rule string) (Breaker, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b, open := l.breakers[rule]
	return b, open
}

// openNames are the rules with an open breaker that a name stands for: its own, or
// allRules. It is called with mu held.
func (l *ledger) openNames(name string) []string {
	return slices.DeleteFunc(slices.Collect(maps.Keys(l.breakers)), func(rule string) bool { return name != rule && name != allRules })
}

// countOpen tells how many breakers a reset would close.
func (l *ledger) countOpen(name string) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return int64(len(l.openNames(name)))
}

// close is called with mu held.
func (l *ledger) close(name string) {
	for _, rule := range l.openNames(name) {
		delete(l.breakers, rule)
		delete(l.failures, rule)
		delete(l.refusals, rule)
	}
}

// open are the changes that were not taken back, oldest first.
func (l *ledger) open() []change {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.forget()
	var all []change
	for _, c := range l.changes {
		all = append(all, *c)
	}
	slices.SortFunc(all, func(a, b change) int { return cmp.Or(a.at.Compare(b.at), strings.Compare(a.id, b.id)) })
	return all
}

// ofAlert is the change that a rule made for an alert; nil without one.
func (l *ledger) ofAlert(rule, fingerprint string) *change {
	for _, c := range l.open() {
		if c.remedy.Rule == rule && c.remedy.Alert == fingerprint {
			return &c
		}
	}
	return nil
}

// drop forgets a change that is not the rule's any more.
func (l *ledger) drop(c change) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now := l.changes[c.remedy.changeKey()]; now != nil && now.id == c.id {
		delete(l.changes, c.remedy.changeKey())
	}
}
