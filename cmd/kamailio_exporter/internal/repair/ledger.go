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

// Steps of a rule.
const (
	stepDo       = "do"
	stepUndo     = "undo"
	stepResolved = "resolved" // the alert of a change that is to be taken back
	stepBreaker  = "breaker"  // opened
	stepRefused  = "refused"  // by a guard rail
)

// Ledger is what rules have done, as far as the next alert needs it. Like the
// journal it is rebuilt from the audit log at each start.
type Ledger struct {
	now     func() time.Time
	actions *action.Catalogue // those of Kamailio

	mu       sync.Mutex
	acts     []act                           // of the last day, oldest first
	handled  map[string]time.Time            // alerts that were answered: when
	changes  map[string]*change              // not yet taken back, by rule and target
	breakers map[string]adminapi.Breaker     // open ones, by rule
	failures map[string]int                  // of a rule, one after the other
	refusals map[string]map[string]time.Time // of a rule, by alert: by guards of the service
	groups   map[string]seen                 // by group: the one target that may be acted on
}

// act is one action of a rule.
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

// change is what a rule did and may take back.
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
	resolved time.Time // zero: the alert still fires
}

const (
	ledgerLife     = 24 * time.Hour
	groupLife      = 10 * time.Minute // in which a group may have one target
	stormTime      = 10 * time.Minute
	stormAlerts    = 3 // that guards refuse within that time
	failuresInARow = 3
	maxHandled     = 10_000
)

// NewLedger makes an empty one.
func NewLedger(now func() time.Time) *Ledger {
	return &Ledger{
		now: now, actions: action.NewCatalogue(), handled: map[string]time.Time{}, changes: map[string]*change{}, breakers: map[string]adminapi.Breaker{},
		failures: map[string]int{}, refusals: map[string]map[string]time.Time{}, groups: map[string]seen{},
	}
}

// handledKey is what two notifications of the same have in common: pairs of
// Alertmanagers and repeat_interval send it again.
// What a dry run answered, a rule that acts answers again.
func handledKey(r audit.RuleTag, dryRun bool) string {
	return strings.Join([]string{r.Rule, r.Alert, r.Starts.UTC().Format(time.RFC3339Nano), r.Status, strconv.FormatBool(dryRun), r.Target}, " ")
}

func changeKey(r audit.RuleTag) string { return r.Rule + " " + r.Target }

// Reset is the action that closes breakers: the ledger does it when it is told of the
// outcome. A rule that the configuration no longer has may still have an open breaker.
func (l *Ledger) Reset(has func(rule string) bool) action.Action {
	return action.Action{
		Name:    adminapi.ResetAction,
		Summary: "Lets a rule for alerts act again whose breaker is open (docs/remediation.md).",
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

// Ended is the ledger's subscription to the outcomes of actions.
func (l *Ledger) Ended(r audit.Record, _ time.Duration) { l.Take(r) }

// Take takes a record that was written, or is read from the audit log at a start.
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
			// A person took over: it is no rule's any more.
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
				c.resolved = time.Time{} // it fires again
			}
		}
	case r.Kind == audit.KindOutcome && r.Outcome != audit.Refused:
		l.outcome(r)
	}
}

// add counts an action once, also when a checkpoint says it again.
func (l *Ledger) add(a act) {
	if !slices.ContainsFunc(l.acts, func(b act) bool { return b.id == a.id }) {
		l.acts = append(l.acts, a)
	}
}

// changeOf is the change that an outcome tells of.
func changeOf(r audit.Record) *change {
	return &change{
		id: r.ID, user: r.User, tag: *r.Rule, action: r.Action, params: r.Params, before: r.Before, after: r.After, at: r.Time, dryRun: r.DryRun,
	}
}

// carried is one of the ledger's items in a checkpoint.
type carried struct {
	Of     string        `json:"of,omitempty"`   // act, handled, change, breaker, failures or group
	ID     string        `json:"id,omitempty"`   // of an act's operation
	Name   string        `json:"name,omitempty"` // the rule; the group, or what was handled
	Target string        `json:"target,omitempty"`
	At     time.Time     `json:"at,omitzero"` // of a change: when its alert was resolved
	DryRun bool          `json:"dry_run,omitempty"`
	Why    string        `json:"why,omitempty"` // a breaker is open
	Count  int           `json:"count,omitempty"`
	Change *audit.Record `json:"change,omitempty"`
}

// Checkpoint is what has to be known after a restart, whatever becomes of the older
// files of the audit log: budgets, what was answered, changes to take back, and breakers.
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

// takeCarried must be called with mu held.
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

// forget drops what is too old to matter.
func (l *Ledger) forget() {
	old := l.now().Add(-ledgerLife)
	l.acts = slices.DeleteFunc(l.acts, func(a act) bool { return a.at.Before(old) })
	maps.DeleteFunc(l.changes, func(_ string, c *change) bool { return c.at.Before(old) })
	maps.DeleteFunc(l.groups, func(_ string, s seen) bool { return l.now().Sub(s.at) > groupLife })
	if len(l.handled) > maxHandled {
		maps.DeleteFunc(l.handled, func(_ string, at time.Time) bool { return at.Before(old) })
	}
	if n := len(l.handled) - maxHandled; n > 0 { // startsAt and the budgets still hold
		oldest := slices.SortedFunc(maps.Keys(l.handled), func(a, b string) int { return l.handled[a].Compare(l.handled[b]) })
		for _, key := range oldest[:n+maxHandled/10] { // some more, so that not each outcome sorts them
			delete(l.handled, key)
		}
	}
}

// known reports whether this was answered before.
func (l *Ledger) known(key string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	at, ok := l.handled[key]
	return ok && l.now().Sub(at) < ledgerLife
}

// room tells which budget is used up, and whether it is the target's own; "" while
// there is room for one more.
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

// left is how many actions the rule's own budget has room for.
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

// oneOf lets a group of alerts have one target: what fails all at once is not the
// targets' fault.
func (l *Ledger) oneOf(group, target string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	s, ok := l.groups[group]
	return !ok || s.target == target || l.now().Sub(s.at) > groupLife
}

// refused notes that a guard kept a rule from acting on an alert. Several alerts
// within a short time are a storm: true once.
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
	m[of.Alert+of.Starts.String()] = now // the same alert comes again and again
	if _, open := l.breakers[of.Rule]; open || len(m) < stormAlerts {
		return false
	}
	clear(m)
	return true
}

// tired reports whether a rule has failed too often in a row, and its breaker is not
// open yet.
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

// openNames are the rules with an open breaker that a name stands for: its own, or
// allRules. It must be called with mu held.
func (l *Ledger) openNames(name string) []string {
	return slices.DeleteFunc(slices.Collect(maps.Keys(l.breakers)), func(rule string) bool { return name != rule && name != allRules })
}

// countOpen reports how many breakers a reset would close.
func (l *Ledger) countOpen(name string) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return int64(len(l.openNames(name)))
}

// close must be called with mu held.
func (l *Ledger) close(name string) {
	for _, rule := range l.openNames(name) {
		delete(l.breakers, rule)
		delete(l.failures, rule)
		delete(l.refusals, rule)
	}
}

// open are the changes that were not taken back, oldest first.
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

// ofAlert is the change that a rule made for an alert; nil without one.
func (l *Ledger) ofAlert(rule, fingerprint string) *change {
	for _, c := range l.open() {
		if c.tag.Rule == rule && c.tag.Alert == fingerprint {
			return &c
		}
	}
	return nil
}

// drop forgets a change that is not the rule's any more.
func (l *Ledger) drop(c change) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now := l.changes[changeKey(c.tag)]; now != nil && now.id == c.id {
		delete(l.changes, changeKey(c.tag))
	}
}
