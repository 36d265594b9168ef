package repair

import (
	"cmp"
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/action"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/adminapi"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/audit"
)

// Steps of a rule, as in the audit log.
const (
	stepDo       = "do"
	stepUndo     = "undo"
	stepResolved = "resolved" // the alert of a change that can be undone was resolved, or fires again
	stepBreaker  = "breaker"  // the breaker opened
	stepRefused  = "refused"  // refused by a guard rail
)

// Ledger keeps what the next alert needs to know about earlier actions of rules. Like
// the journal, it is rebuilt from the audit log at each start.
type Ledger struct {
	now     func() time.Time
	actions *action.Catalogue // the actions of Kamailio

	mu       sync.Mutex
	acts     []act                           // of the last day, oldest first
	handled  map[string]time.Time            // alerts that were handled, and when
	changes  map[string]*change              // not yet undone, by rule and target
	breakers map[string]adminapi.Breaker     // open breakers, by rule
	failures map[string]int                  // consecutive failures, by rule
	refusals map[string]map[string]time.Time // by rule and alert: when a guard refused it
	groups   map[string]seen                 // by group: the only target that may be acted on
}

// act is one action that a rule ran.
type act struct {
	id           string // of the operation
	rule, target string
	at           time.Time
	dryRun       bool
}

type seen struct {
	target string
	at     time.Time
}

// change is a change made by a rule that it may undo.
type change struct {
	id       string // of the operation
	user     string
	tag      audit.RuleTag
	action   string
	params   map[string]any
	before   audit.State
	after    audit.State
	at       time.Time
	dryRun   bool
	resolved time.Time // zero while the alert still fires
}

const (
	ledgerLife     = 24 * time.Hour
	groupLife      = 10 * time.Minute // how long a group is limited to one target
	stormTime      = 10 * time.Minute
	stormAlerts    = 3 // alerts refused by guards within that time
	failuresInARow = 3
	maxHandled     = 10_000
)

// NewLedger returns an empty ledger.
func NewLedger(now func() time.Time) *Ledger {
	return &Ledger{
		now: now, actions: action.NewCatalogue(), handled: map[string]time.Time{}, changes: map[string]*change{}, breakers: map[string]adminapi.Breaker{},
		failures: map[string]int{}, refusals: map[string]map[string]time.Time{}, groups: map[string]seen{},
	}
}

// handledKey identifies repeated notifications of one alert: pairs of Alertmanagers and
// repeat_interval send the same one again. An alert that was handled in a dry run is
// handled again once the rule is enforced.
func handledKey(r audit.RuleTag, dryRun bool) string {
	return strings.Join([]string{r.Rule, r.Alert, r.Starts.UTC().Format(time.RFC3339Nano), r.Status, strconv.FormatBool(dryRun), r.Target}, " ")
}

func changeKey(r audit.RuleTag) string { return r.Rule + " " + r.Target }

// Reset returns the action that closes breakers; the ledger closes them when it
// receives the outcome. A rule that was removed from the configuration may still have
// an open breaker.
func (l *Ledger) Reset(has func(rule string) bool) action.Action {
	return action.Action{
		Name:    adminapi.ResetAction,
		Summary: "Closes the circuit breaker of a rule, so that it acts on alerts again (docs/remediation.md).",
		Params:  []action.Param{action.Named("rule", "name of the rule, or all")},
		Local: func(a action.Args) (before, after audit.State) {
			name := audit.TextOf(a["rule"])
			open := l.countOpen(name)
			if open == 0 && name != allRules && !has(name) {
				return nil, nil
			}
			if before = (audit.State{"open": open}); open > 0 {
				after = audit.State{"open": int64(0)}
			}
			return before, after
		},
	}
}

// Ended subscribes the ledger to the outcomes of actions.
func (l *Ledger) Ended(r audit.Record, _ time.Duration) { l.Take(r) }

// Take adds a record that was just written, or that was read from the audit log at a
// start.
func (l *Ledger) Take(r audit.Record) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r.Kind == audit.KindOutcome && r.Action == adminapi.ResetAction && r.Outcome == audit.Applied {
		l.close(audit.TextOf(r.Params["rule"]))
		return
	}
	if r.Kind == audit.KindCheckpoint {
		for _, text := range r.Carries {
			var i carried
			if json.Unmarshal(text, &i) == nil {
				l.takeCarried(i)
			}
		}
		return
	}
	if r.Rule == nil {
		if r.Kind == audit.KindOutcome && r.Changed() {
			// A person changed the target, so the change no longer belongs to a rule.
			maps.DeleteFunc(l.changes, func(_ string, c *change) bool {
				a := l.actions.Get(c.action)
				return !c.dryRun && (a == nil || action.Module(r.Action) == action.Module(a.Name) && a.Touched(r, c.params))
			})
		}
		return
	}
	switch {
	case r.Rule.Step == stepBreaker:
		l.breakers[r.Rule.Rule] = adminapi.Breaker{Since: r.Time, Why: r.Detail}
	case r.Rule.Step == stepResolved:
		if c := l.changes[changeKey(*r.Rule)]; c != nil && c.id == r.Rule.Undoes {
			if c.resolved = r.Time; r.Rule.Status == onFiring {
				c.resolved = time.Time{} // the alert fires again
			}
		}
	case r.Kind == audit.KindOutcome && r.Outcome != audit.Refused:
		l.outcome(r)
	}
}

// add counts an action once, even if a checkpoint repeats it.
func (l *Ledger) add(a act) {
	if !slices.ContainsFunc(l.acts, func(b act) bool { return b.id == a.id }) {
		l.acts = append(l.acts, a)
	}
}

// changeOf returns the change that an outcome describes.
func changeOf(r audit.Record) *change {
	return &change{
		id: r.ID, user: r.User, tag: *r.Rule, action: r.Action, params: r.Params, before: r.Before, after: r.After, at: r.Time, dryRun: r.DryRun,
	}
}

// carried is one item of the ledger in a checkpoint.
type carried struct {
	Of     string        `json:"of,omitempty"`   // act, handled, change, breaker, failures or group
	ID     string        `json:"id,omitempty"`   // ID of the act's operation
	Name   string        `json:"name,omitempty"` // name of the rule or group, or the key of a handled alert
	Target string        `json:"target,omitempty"`
	At     time.Time     `json:"at,omitzero"` // of a change: when its alert was resolved
	DryRun bool          `json:"dry_run,omitempty"`
	Why    string        `json:"why,omitempty"` // reason for an open breaker
	Count  int           `json:"count,omitempty"`
	Change *audit.Record `json:"change,omitempty"`
}

// Checkpoint returns what must survive a restart even if older audit log files are
// gone: budgets, handled alerts, changes to undo, and breakers.
func (l *Ledger) Checkpoint() []any {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.forget()
	var items []any
	for _, a := range l.acts {
		items = append(items, carried{Of: "act", ID: a.id, Name: a.rule, Target: a.target, At: a.at, DryRun: a.dryRun})
	}
	old := l.now().Add(-ledgerLife)
	for key, at := range l.handled {
		if at.After(old) {
			items = append(items, carried{Of: "handled", Name: key, At: at})
		}
	}
	for _, c := range l.changes {
		items = append(items, carried{Of: "change", At: c.resolved, Change: &audit.Record{
			ID: c.id, User: c.user, Rule: &c.tag, Action: c.action, Params: c.params, Before: c.before, After: c.after, Time: c.at, DryRun: c.dryRun,
		}})
	}
	for rule, b := range l.breakers {
		items = append(items, carried{Of: "breaker", Name: rule, At: b.Since, Why: b.Why})
	}
	for rule, n := range l.failures {
		items = append(items, carried{Of: "failures", Name: rule, Count: n})
	}
	for group, s := range l.groups {
		items = append(items, carried{Of: "group", Name: group, Target: s.target, At: s.at})
	}
	return items
}

// takeCarried restores one item of a checkpoint. It must be called with mu held.
func (l *Ledger) takeCarried(i carried) {
	switch i.Of {
	case "act":
		l.add(act{i.ID, i.Name, i.Target, i.At, i.DryRun})
	case "handled":
		l.handled[i.Name] = i.At
	case "change":
		if i.Change == nil || i.Change.Rule == nil {
			return
		}
		c := changeOf(*i.Change)
		c.resolved = i.At
		l.changes[changeKey(c.tag)] = c
	case "breaker":
		l.breakers[i.Name] = adminapi.Breaker{Since: i.At, Why: i.Why}
	case "failures":
		l.failures[i.Name] = i.Count
	case "group":
		l.groups[i.Name] = seen{i.Target, i.At}
	}
}

func (l *Ledger) outcome(r audit.Record) {
	m := *r.Rule
	if m.Step == stepUndo {
		if c := l.changes[changeKey(m)]; c != nil && (c.id == m.Undoes) {
			delete(l.changes, changeKey(m))
		}
	} else {
		l.handled[handledKey(m, r.DryRun)] = r.Time
		if !r.DryRun {
			l.groups[m.Group] = seen{m.Target, r.Time}
		}
		if r.Outcome != audit.NoChange || r.DryRun && !r.Verified {
			l.add(act{r.ID, m.Rule, m.Target, r.Time, r.DryRun})
		}
		if m.Back && (r.Outcome == audit.Applied || r.DryRun && r.Outcome == audit.NoChange && !r.Verified) {
			l.changes[changeKey(m)] = changeOf(r)
		}
	}
	switch {
	case r.DryRun:
	case r.Outcome == audit.Failed, r.Outcome == audit.Unknown, r.Outcome == audit.Contradicted:
		l.failures[m.Rule]++
	case r.Outcome == audit.Applied:
		l.failures[m.Rule] = 0
	}
	l.forget()
}

// forget drops expired entries.
func (l *Ledger) forget() {
	old := l.now().Add(-ledgerLife)
	l.acts = slices.DeleteFunc(l.acts, func(a act) bool { return a.at.Before(old) })
	maps.DeleteFunc(l.changes, func(_ string, c *change) bool { return c.at.Before(old) })
	maps.DeleteFunc(l.groups, func(_ string, s seen) bool { return l.now().Sub(s.at) > groupLife })
	if len(l.handled) > maxHandled {
		maps.DeleteFunc(l.handled, func(_ string, at time.Time) bool { return at.Before(old) })
	}
	if n := len(l.handled) - maxHandled; n > 0 { // the check of startsAt and the budgets still apply to dropped ones
		oldest := slices.SortedFunc(maps.Keys(l.handled), func(a, b string) int { return l.handled[a].Compare(l.handled[b]) })
		for _, key := range oldest[:n+maxHandled/10] { // drop 10 % more, to avoid sorting at every outcome
			delete(l.handled, key)
		}
	}
}

// known reports whether this alert was handled before.
func (l *Ledger) known(key string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	at, ok := l.handled[key]
	return ok && l.now().Sub(at) < ledgerLife
}

// room returns the budget that is used up, and whether it is the target's own; "" if
// one more action is allowed.
func (l *Ledger) room(r *rule, all budget, target string, dryRun bool) (full string, own bool) {
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

// left returns how many more actions the rule's own budget allows.
func (l *Ledger) left(r *rule) int {
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

// oneOf limits a group of alerts to one target: if many targets fail at once, the cause
// lies elsewhere.
func (l *Ledger) oneOf(group, target string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	s, ok := l.groups[group]
	return !ok || s.target == target || l.now().Sub(s.at) > groupLife
}

// refused records that a guard stopped a rule from acting on an alert. It returns true
// once for a storm, which is several such alerts within a short time.
func (l *Ledger) refused(of audit.RuleTag) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	m := l.refusals[of.Rule]
	if m == nil {
		m = map[string]time.Time{}
		l.refusals[of.Rule] = m
	}
	now := l.now()
	maps.DeleteFunc(m, func(_ string, at time.Time) bool { return now.Sub(at) > stormTime })
	m[of.Alert+of.Starts.String()] = now // repeats of the same alert count once
	if _, open := l.breakers[of.Rule]; open || len(m) < stormAlerts {
		return false
	}
	clear(m)
	return true
}

// tired reports whether a rule has failed too often in a row while its breaker is still
// closed.
func (l *Ledger) tired(rule string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, open := l.breakers[rule]
	return !open && l.failures[rule] >= failuresInARow
}

func (l *Ledger) breaker(rule string) (adminapi.Breaker, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b, open := l.breakers[rule]
	return b, open
}

// openNames returns the rules with an open breaker that a name selects: that rule, or
// all rules for allRules. It must be called with mu held.
func (l *Ledger) openNames(name string) []string {
	return slices.DeleteFunc(slices.Collect(maps.Keys(l.breakers)), func(rule string) bool { return name != rule && name != allRules })
}

// countOpen returns how many breakers a reset would close.
func (l *Ledger) countOpen(name string) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return int64(len(l.openNames(name)))
}

// close closes the breakers that a name selects. It must be called with mu held.
func (l *Ledger) close(name string) {
	for _, rule := range l.openNames(name) {
		delete(l.breakers, rule)
		delete(l.failures, rule)
		delete(l.refusals, rule)
	}
}

// open returns the changes that were not undone, oldest first.
func (l *Ledger) open() []change {
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

// ofAlert returns the change that a rule made for an alert, or nil.
func (l *Ledger) ofAlert(rule, fingerprint string) *change {
	for _, c := range l.open() {
		if c.tag.Rule == rule && c.tag.Alert == fingerprint {
			return &c
		}
	}
	return nil
}

// drop forgets a change that the rule no longer owns.
func (l *Ledger) drop(c change) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now := l.changes[changeKey(c.tag)]; now != nil && now.id == c.id {
		delete(l.changes, changeKey(c.tag))
	}
}
