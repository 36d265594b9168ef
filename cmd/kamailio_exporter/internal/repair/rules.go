// Package repair runs actions in response to alerts. A rule of the operator defines the
// alert, the conditions that must hold in Kamailio, and the action.
//
//	notification ─► Runner.Notify ─► each alert, each rule ─► guard rails of the ledger ─► action.Engine.Run
//	                                                                                           │  confirmation, in its slot
//	Verdicts ◄─────────────────────────────────────────────────────────────────────────────────┘
//	outcome ─► Ledger: budgets, breakers, changes to undo ─► Runner.UndoDue ─► action.Engine.Run
package repair

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"time"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/action"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/conf"
)

// labelIs is a label with the value that an alert must have.
type labelIs struct{ name, value string }

// rule is a validated rule.
type rule struct {
	name      string
	enforce   bool
	match     []labelIs // labels from the section and from the rule
	on        string
	maxAge    time.Duration
	action    *action.Action
	params    map[string]ParamSource
	confirm   ConfirmConfig
	guards    action.Guards
	perTarget budget
	perRule   budget
	undo      *action.Undo // nil if the rule undoes nothing
}

// Rules is the validated section. It is immutable.
type Rules struct {
	rules    []*rule
	budget   budget // of all rules together
	quiet    time.Duration
	cooldown time.Duration     // from the policy
	actions  *action.Catalogue // what rules may run, and the actions that undo it
}

func (r *Rules) rule(name string) *rule {
	for _, rule := range r.rules {
		if rule.name == name {
			return rule
		}
	}
	return nil
}

// Has reports whether there is a rule with this name.
func (r *Rules) Has(name string) bool { return r != nil && r.rule(name) != nil }

// Print writes what each rule may do, in the form of a grant. Without rules it writes
// nothing.
func (r *Rules) Print(w io.Writer) {
	if r == nil {
		return
	}
	fmt.Fprintln(w, "alerts, by rules")
	for _, rule := range r.rules {
		mode := "dry run"
		if rule.enforce {
			mode = modeEnforce
		}
		fmt.Fprintf(w, "  %s (%s) %s", rule.name, mode, rule.action.Name)
		for _, p := range rule.action.Params {
			switch source := rule.params[p.Name]; {
			case source.Label != "":
				fmt.Fprintf(w, " %s=%s", p.Name, source.Constraint)
			case source.Find != "":
				fmt.Fprintf(w, " %s=%s", p.Name, source.Find)
			default:
				fmt.Fprintf(w, " %s=%v", p.Name, source.Value)
			}
		}
		fmt.Fprintln(w)
	}
}

var (
	ruleName  = regexp.MustCompile(`^[a-z][a-z0-9-]{0,62}$`)
	labelName = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_]*$`)
)

// NewRules fills in the section's defaults and checks it against the catalogue. guards
// and cooldown apply to all changes; a rule can only have stricter ones.
func NewRules(said *Config, actions *action.Catalogue, guards action.Guards, cooldown time.Duration) (*Rules, error) {
	said.complete()
	r := &Rules{quiet: said.Quiet, cooldown: cooldown, actions: actions}
	if said.Mode != modeDryRun && said.Mode != modeEnforce {
		return nil, fmt.Errorf("mode: must be dry_run or enforce, not %q", said.Mode)
	}
	if len(said.Match) == 0 {
		return nil, errors.New("match: name the label that identifies the alerts of this Kamailio, such as instance: sbc1.example.net:9494")
	}
	common, err := matchers(said.Match)
	if err != nil {
		return nil, fmt.Errorf("match: %w", err)
	}
	if r.budget, err = parseBudget(said.Budget); err != nil {
		return nil, fmt.Errorf("budget: %w", err)
	}
	if err := conf.Duration(said.MinUptime, time.Second, time.Hour); err != nil {
		return nil, fmt.Errorf("min_uptime %w", err)
	}
	if err := conf.Duration(said.Quiet, time.Second, ledgerLife); err != nil {
		return nil, fmt.Errorf("quiet %w", err)
	}
	if len(said.Rules) == 0 || len(said.Rules) > maxRules {
		return nil, fmt.Errorf("rules: must have from 1 to %d", maxRules)
	}
	guards.MinUptime = max(guards.MinUptime, said.MinUptime)
	for i := range said.Rules {
		one := &said.Rules[i]
		if !ruleName.MatchString(one.Name) || r.rule(one.Name) != nil {
			return nil, fmt.Errorf("rule %d: name: must be unique, with lower-case letters, digits and -", i+1)
		}
		compiled, err := one.compile(actions, guards, said.Mode)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", one.Name, err)
		}
		compiled.match = append(slices.Clone(common), compiled.match...)
		r.rules = append(r.rules, compiled)
	}
	return r, nil
}

func matchers(labels map[string]string) ([]labelIs, error) {
	var all []labelIs
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		if !labelName.MatchString(name) || labels[name] == "" {
			return nil, fmt.Errorf("%q: must be the name of a label with a value", name)
		}
		all = append(all, labelIs{name, labels[name]})
	}
	return all, nil
}

func (said *RuleConfig) compile(actions *action.Catalogue, guards action.Guards, mode string) (*rule, error) {
	r := &rule{
		name: said.Name, on: said.On, maxAge: said.MaxAge, params: map[string]ParamSource{}, confirm: said.Confirm,
		guards: guards, enforce: mode == modeEnforce && said.Mode != modeDryRun,
		action: actions.Get(said.Action),
	}
	r.guards.MinActive, r.guards.MinRatio = max(r.guards.MinActive, said.Guard.MinActive), said.Guard.MinActiveRatio
	var err error
	if r.match, err = matchers(said.Match); err != nil {
		return nil, fmt.Errorf("match: %w", err)
	}
	switch {
	case said.Mode != "" && said.Mode != modeDryRun && said.Mode != modeEnforce:
		return nil, fmt.Errorf("mode: must be dry_run or enforce, not %q", said.Mode)
	case said.Mode == modeEnforce && mode != modeEnforce:
		return nil, errors.New("mode: enforce must be set for the whole section; a rule can only set mode: dry_run")
	case said.Match["alertname"] == "":
		return nil, errors.New("match: name the alert: alertname")
	case r.on != onFiring && r.on != onResolved:
		return nil, fmt.Errorf("on: must be firing or resolved, not %q", r.on)
	case r.action == nil || r.action.Local != nil:
		return nil, fmt.Errorf("there is no action %q for a rule", said.Action)
	case said.Guard.MinActive < 0 || !(r.guards.MinRatio > 0 && r.guards.MinRatio <= 1):
		return nil, errors.New("guard: min_active must not be negative, min_active_ratio above 0 and at most 1")
	}
	if err := conf.Duration(r.maxAge, time.Minute, 7*24*time.Hour); err != nil {
		return nil, fmt.Errorf("max_age %w", err)
	}
	if r.perTarget, err = parseBudget(said.Budget.PerTarget); err != nil {
		return nil, fmt.Errorf("budget: per_target: %w", err)
	}
	if r.perRule, err = parseBudget(said.Budget.PerRule); err != nil {
		return nil, fmt.Errorf("budget: per_rule: %w", err)
	}
	if err := said.compileParams(r, actions); err != nil {
		return nil, err
	}
	if err := said.Confirm.check(r.action, actions); err != nil {
		return nil, fmt.Errorf("confirm: %w", err)
	}
	if said.UndoOnResolved {
		if r.undo = r.action.Undo; r.undo == nil || r.on != onFiring {
			return nil, errors.New("undo_on_resolved: only for a rule on firing whose action can be undone: " + actions.Undoable())
		}
	}
	return r, nil
}

func (said *RuleConfig) compileParams(r *rule, actions *action.Catalogue) error {
	fixed := action.Args{}
	for _, p := range r.action.Params {
		source, ok := said.Params[p.Name]
		if !ok {
			return fmt.Errorf("params: %s is missing: give it a label or a value", p.Name)
		}
		if err := said.checkSource(&source, p, actions); err != nil {
			return fmt.Errorf("params: %s: %w", p.Name, err)
		}
		r.params[p.Name] = source
		if source.Value != nil {
			fixed[p.Name], _ = p.Check(p.Given(fmt.Sprint(source.Value)))
		}
	}
	if err := r.action.Fit(fixed); err != nil {
		return fmt.Errorf("params: %w", err)
	}
	for name := range said.Params {
		if _, ok := r.params[name]; !ok {
			return fmt.Errorf("params: %s has no parameter %q", r.action.Name, name)
		}
	}
	return nil
}

// checkSource checks whether a parameter can come from this source.
func (said *RuleConfig) checkSource(source *ParamSource, p action.Param, actions *action.Catalogue) error {
	given := 0
	for _, is := range []bool{source.Label != "", source.Value != nil, source.Find != ""} {
		if is {
			given++
		}
	}
	switch {
	case given != 1:
		return errors.New("must have one of label, value and find")
	case source.Label != "" && !labelName.MatchString(source.Label):
		return errors.New("label: must be the name of a label")
	case source.Label != "" && source.Empty():
		return errors.New("a label can have any value: list the permitted ones (enum, regexp, min and max, domains), or set any: true")
	case source.Label != "":
		return source.Compile(p)
	case !source.Empty():
		return errors.New("only a label can have constraints")
	case source.Find != "" && (p.Find == nil || source.Find != p.Find.Name):
		return errors.New("find: must be " + actions.Finders())
	case source.Find != "" && said.Confirm.AtLeast[p.Find.Field] < p.Find.Least:
		return fmt.Errorf("find: confirm needs %s: at_least: {%s: …}, with %d or more", p.Find.Why, p.Find.Field, p.Find.Least)
	case source.Value != nil:
		if _, why := p.Check(p.Given(fmt.Sprint(source.Value))); why != "" {
			return errors.New("value: " + why)
		}
	}
	return nil
}

func (c ConfirmConfig) check(a *action.Action, all *action.Catalogue) error {
	if len(c.Read) == 0 && len(c.AtLeast) == 0 && c.LatencyAbove == 0 && len(c.HTable) == 0 && !c.NotLoadedSince {
		return errors.New("an alert is a hint, not a command: say what must be true in Kamailio (read, at_least, latency_above, htable, not_loaded_since)")
	}
	if (len(c.Read) > 0 || len(c.AtLeast) > 0) && a.Look == nil {
		return fmt.Errorf("%s reads nothing before it", a.Name)
	}
	for field, value := range c.Read {
		if len(readValues(value)) == 0 {
			return fmt.Errorf("read: %s: must be a value or a list of values", field)
		}
	}
	if c.LatencyAbove != 0 {
		if a.Latency == nil {
			return errors.New("latency_above is for " + all.WithLatency())
		}
		if err := conf.Timeout(c.LatencyAbove); err != nil {
			return fmt.Errorf("latency_above %w", err)
		}
	}
	if c.NotLoadedSince && a.Pause == 0 {
		return errors.New("not_loaded_since is for reloads")
	}
	for _, h := range c.HTable {
		switch {
		case !action.IsName(h.Table) || h.Of != "" && !action.IsName(h.Of):
			return errors.New("htable: table must be the name of an htable")
		case (h.Label == "") == (h.Key == ""):
			return errors.New("htable: give either label or key")
		case h.Above == nil:
			return errors.New("htable: above is missing")
		case (h.Of == "") != (h.Ratio == 0) || h.Ratio < 0 || h.Ratio >= 1:
			return errors.New("htable: of and ratio need each other, and ratio must be above 0 and below 1")
		}
	}
	return nil
}

// readValues returns the allowed values of a field as texts.
func readValues(value any) []string {
	list, ok := value.([]any)
	if !ok {
		list = []any{value}
	}
	var texts []string
	for _, v := range list {
		switch v.(type) {
		case string, int, int64, bool:
			texts = append(texts, fmt.Sprint(v))
		default:
			return nil
		}
	}
	return texts
}
