package admin

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/conf"
)

// RemediationConfig is the section "remediation" of the file: which alerts of
// Alertmanager make which actions run. Without it there is no receiver.
type RemediationConfig struct {
	Mode      string            `yaml:"mode"`       // dry_run, or enforce
	Match     map[string]string `yaml:"match"`      // labels that every alert must have: they say that it is about this Kamailio
	Budget    string            `yaml:"budget"`     // of all rules together, such as 10/1h
	MinUptime time.Duration     `yaml:"min_uptime"` // of Kamailio
	Quiet     time.Duration     `yaml:"quiet"`      // nothing where a person changed something within this time
	Rules     []RuleConfig      `yaml:"rules"`
}

// RuleConfig is one rule.
type RuleConfig struct {
	Name           string                 `yaml:"name"`
	Mode           string                 `yaml:"mode"`  // dry_run keeps this rule in it
	Match          map[string]string      `yaml:"match"` // labels of the alert, all of them, exactly
	On             string                 `yaml:"on"`    // firing, or resolved
	MaxAge         time.Duration          `yaml:"max_age"`
	Action         string                 `yaml:"action"`
	Params         map[string]ParamSource `yaml:"params"`
	Confirm        ConfirmConfig          `yaml:"confirm"`
	Guard          RuleGuards             `yaml:"guard"`
	Budget         RuleBudgets            `yaml:"budget"`
	UndoOnResolved bool                   `yaml:"undo_on_resolved"`
}

// ParamSource says where the value of a parameter comes from: one of label, value
// and find. A label is what a stranger wrote, so it needs a constraint, as a grant
// does.
type ParamSource struct {
	Label      string `yaml:"label"`
	Value      any    `yaml:"value"`
	Find       string `yaml:"find"` // oldest-call: looked for at Kamailio
	Constraint `yaml:",inline"`
}

// ConfirmConfig is what has to be so at Kamailio, read by this program, before a
// rule acts. All that is said has to be so.
type ConfirmConfig struct {
	Read           map[string]any  `yaml:"read"`             // what the action reads before it: a value, or a list of values
	AtLeast        map[string]int  `yaml:"at_least"`         // the same, of numbers
	LatencyAbove   time.Duration   `yaml:"latency_above"`    // of the destination's answers to OPTIONS
	HTable         []HTableConfirm `yaml:"htable"`           // counters of the script
	NotLoadedSince bool            `yaml:"not_loaded_since"` // neither this reload nor a start of Kamailio since the alert began
}

// HTableConfirm is an item of an htable that has to be above a number.
type HTableConfirm struct {
	Table string  `yaml:"table"`
	Label string  `yaml:"label"` // of the alert: its value is the key
	Key   string  `yaml:"key"`   // or a fixed key
	Above *int64  `yaml:"above"`
	Of    string  `yaml:"of"`    // another table, with the same key
	Share float64 `yaml:"share"` // and above this share of its item
}

// RuleGuards are the guards of a rule; those of the section admin hold beside them.
type RuleGuards struct {
	MinActive      int     `yaml:"min_active"`
	MinActiveRatio float64 `yaml:"min_active_ratio"` // of a set's destinations
}

// RuleBudgets say how often a rule may act, such as 3/1h.
type RuleBudgets struct {
	PerTarget string `yaml:"per_target"`
	PerRule   string `yaml:"per_rule"`
}

// Words of the configuration.
const (
	modeDryRun  = "dry_run"
	modeEnforce = "enforce"
	onFiring    = "firing"
	onResolved  = "resolved"
	oldestCall  = "oldest-call"
)

const (
	maxRules         = 100
	defaultMaxAge    = 15 * time.Minute
	defaultQuiet     = 10 * time.Minute
	defaultMinUptime = 5 * time.Minute
)

// ResetAction closes the breaker of a rule.
const ResetAction = "remediation.reset"

// budget is how often something may be done.
type budget struct {
	n   int
	per time.Duration
}

func (b budget) String() string {
	return fmt.Sprintf("%d/%s", b.n, strings.NewReplacer("m0s", "m", "h0m0s", "h").Replace(b.per.String()))
}

// parseBudget reads "3/1h" or "3/h".
func parseBudget(text string) (budget, error) {
	bad := fmt.Errorf("%q: want a number and a time, such as 3/1h", text)
	count, per, ok := strings.Cut(text, "/")
	if !ok || per == "" {
		return budget{}, bad
	}
	if per[0] < '0' || per[0] > '9' {
		per = "1" + per
	}
	n, err := strconv.Atoi(count)
	d, err2 := time.ParseDuration(per)
	switch {
	case err != nil || err2 != nil:
		return budget{}, bad
	case n < 1 || n > 1000:
		return budget{}, fmt.Errorf("%q: from 1 to 1000 times", text)
	case d < time.Second || d > ledgerLife:
		return budget{}, fmt.Errorf("%q: a time from 1s to %s", text, ledgerLife)
	}
	return budget{n, d}, nil
}

type labelIs struct{ name, value string }

// rule is one that was checked.
type rule struct {
	name      string
	enforce   bool
	match     []labelIs // of the section and the rule
	on        string
	maxAge    time.Duration
	action    *Action
	params    map[string]ParamSource
	confirm   ConfirmConfig
	guards    Guards
	ratio     float64
	perTarget budget
	perRule   budget
	undo      *undo // nil: nothing is taken back
}

// remediation is the section, checked. It never changes.
type remediation struct {
	rules  []*rule
	budget budget // of all rules
	quiet  time.Duration
	pause  time.Duration // the policy's cooldown
}

func (r *remediation) rule(name string) *rule {
	for _, rule := range r.rules {
		if rule.name == name {
			return rule
		}
	}
	return nil
}

// print writes what each rule may do, as a grant.
func (r *remediation) print(w io.Writer) {
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

// newRemediation checks the section against the catalogue; nil without one.
func newRemediation(cfg *Config, catalogue catalogueMap) (*remediation, error) {
	said := cfg.Remediation
	if said == nil {
		for _, name := range slices.Sorted(maps.Keys(cfg.Users)) {
			if cfg.Users[name].Kind == kindWebhook {
				return nil, fmt.Errorf("users: %s: a user of kind webhook needs the section remediation", name)
			}
		}
		return nil, nil
	}
	if !slices.ContainsFunc(slices.Collect(maps.Values(cfg.Users)), func(u UserSpec) bool { return u.Kind == kindWebhook }) {
		return nil, errors.New("remediation: no user has kind: webhook: Alertmanager could not be known")
	}
	said.complete()
	r := &remediation{quiet: said.Quiet, pause: cfg.Limits.Cooldown}
	if said.Mode != modeDryRun && said.Mode != modeEnforce {
		return nil, fmt.Errorf("remediation: mode: want dry_run or enforce, not %q", said.Mode)
	}
	if len(said.Match) == 0 {
		return nil, errors.New("remediation: match: name the label that tells this Kamailio's alerts from others', such as instance: sbc1.example.net:9494")
	}
	common, err := matchers(said.Match)
	if err != nil {
		return nil, fmt.Errorf("remediation: match: %w", err)
	}
	if r.budget, err = parseBudget(said.Budget); err != nil {
		return nil, fmt.Errorf("remediation: budget: %w", err)
	}
	if err := conf.Duration(said.MinUptime, time.Second, time.Hour); err != nil {
		return nil, fmt.Errorf("remediation: min_uptime %w", err)
	}
	if err := conf.Duration(said.Quiet, time.Second, ledgerLife); err != nil {
		return nil, fmt.Errorf("remediation: quiet %w", err)
	}
	switch {
	case len(said.Rules) == 0 || len(said.Rules) > maxRules:
		return nil, fmt.Errorf("remediation: rules: want from 1 to %d", maxRules)
	}
	for i := range said.Rules {
		one := &said.Rules[i]
		if !ruleName.MatchString(one.Name) || r.rule(one.Name) != nil {
			return nil, fmt.Errorf("remediation: rule %d: name: want one of its own, of small letters, digits and -", i+1)
		}
		compiled, err := one.compile(cfg, common, catalogue)
		if err != nil {
			return nil, fmt.Errorf("remediation: %s: %w", one.Name, err)
		}
		r.rules = append(r.rules, compiled)
	}
	return r, nil
}

func (said *RemediationConfig) complete() {
	byDefault(&said.Mode, modeDryRun)
	byDefault(&said.Budget, "10/1h")
	byDefault(&said.MinUptime, defaultMinUptime)
	byDefault(&said.Quiet, defaultQuiet)
	for i := range said.Rules {
		one := &said.Rules[i]
		byDefault(&one.On, onFiring)
		byDefault(&one.MaxAge, defaultMaxAge)
		byDefault(&one.Guard.MinActiveRatio, 0.5)
		byDefault(&one.Budget.PerTarget, "1/30m")
		byDefault(&one.Budget.PerRule, "3/1h")
	}
}

func matchers(labels map[string]string) ([]labelIs, error) {
	var all []labelIs
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		if !labelName.MatchString(name) || labels[name] == "" {
			return nil, fmt.Errorf("%q: want the name of a label, and a value", name)
		}
		all = append(all, labelIs{name, labels[name]})
	}
	return all, nil
}

func (said *RuleConfig) compile(cfg *Config, common []labelIs, catalogue catalogueMap) (*rule, error) {
	r := &rule{
		name: said.Name, on: said.On, maxAge: said.MaxAge, params: map[string]ParamSource{}, confirm: said.Confirm,
		guards: Guards(cfg.Guards), ratio: said.Guard.MinActiveRatio,
	}
	r.enforce = cfg.Remediation.Mode == modeEnforce && said.Mode != modeDryRun
	r.guards.MinActive = max(r.guards.MinActive, said.Guard.MinActive)
	r.guards.MinUptime = max(r.guards.MinUptime, cfg.Remediation.MinUptime)
	own, err := matchers(said.Match)
	if err != nil {
		return nil, fmt.Errorf("match: %w", err)
	}
	r.match = append(slices.Clone(common), own...)
	r.action = catalogue[said.Action]
	switch {
	case said.Mode != "" && said.Mode != modeDryRun && said.Mode != modeEnforce:
		return nil, fmt.Errorf("mode: want dry_run or enforce, not %q", said.Mode)
	case said.Mode == modeEnforce && cfg.Remediation.Mode != modeEnforce:
		return nil, errors.New("mode: enforce is for the whole section first; a rule can only stay behind, with mode: dry_run")
	case said.Match["alertname"] == "":
		return nil, errors.New("match: name the alert: alertname")
	case r.on != onFiring && r.on != onResolved:
		return nil, fmt.Errorf("on: want firing or resolved, not %q", r.on)
	case r.action == nil || r.action.Local:
		return nil, fmt.Errorf("there is no action %q for a rule", said.Action)
	case said.Guard.MinActive < 0 || !(r.ratio > 0 && r.ratio <= 1):
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
	if err := said.compileParams(r); err != nil {
		return nil, err
	}
	if err := said.Confirm.check(r.action); err != nil {
		return nil, fmt.Errorf("confirm: %w", err)
	}
	if said.UndoOnResolved {
		if r.undo = undoOf(r.action.Name); r.undo == nil || r.on != onFiring {
			return nil, errors.New("undo_on_resolved: only for a rule on firing whose action can be taken back: " + strings.Join(undoable(), ", "))
		}
	}
	return r, nil
}

func (said *RuleConfig) compileParams(r *rule) error {
	for _, p := range r.action.Params {
		source, ok := said.Params[p.Name]
		if !ok {
			return fmt.Errorf("params: %s is missing: give it a label or a value", p.Name)
		}
		given := 0
		for _, is := range []bool{source.Label != "", source.Value != nil, source.Find != ""} {
			if is {
				given++
			}
		}
		var err error
		switch {
		case given != 1:
			err = errors.New("want one of label, value and find")
		case source.Label != "":
			if !labelName.MatchString(source.Label) {
				err = errors.New("label: want the name of a label")
			} else if source.empty() {
				err = errors.New("a label may hold anything: say which values are meant (enum, regexp, min and max, domains), or any: true")
			} else {
				err = source.compile(p)
			}
		case !source.empty():
			err = errors.New("a constraint is for a label only")
		case source.Find != "" && (source.Find != oldestCall || p.Name != callID.Name):
			err = errors.New("find: want oldest-call, for call_id")
		case source.Find != "" && said.Confirm.AtLeast[durationField] < 60:
			err = errors.New("find: say in confirm how old the call must be: at_least: {duration_seconds: …}, 60 or more")
		case source.Value != nil:
			if _, why := p.check(asGiven(p, fmt.Sprint(source.Value))); why != "" {
				err = errors.New("value: " + why)
			}
		}
		if err != nil {
			return fmt.Errorf("params: %s: %w", p.Name, err)
		}
		r.params[p.Name] = source
	}
	for name := range said.Params {
		if _, ok := r.params[name]; !ok {
			return fmt.Errorf("params: %s has no parameter %q", r.action.Name, name)
		}
	}
	return nil
}

// asGiven is a text as check wants the value of this parameter.
func asGiven(p Param, text string) any {
	switch {
	case p.Type == Int:
		return number(text)
	case p.Type == Bool && (text == "true" || text == "false"):
		return text == "true"
	}
	return text
}

func (c ConfirmConfig) check(a *Action) error {
	if len(c.Read) == 0 && len(c.AtLeast) == 0 && c.LatencyAbove == 0 && len(c.HTable) == 0 && !c.NotLoadedSince {
		return errors.New("an alert is only a hint: say what must be so at Kamailio (read, at_least, latency_above, htable, not_loaded_since)")
	}
	if (len(c.Read) > 0 || len(c.AtLeast) > 0) && a.Look == nil {
		return fmt.Errorf("%s reads nothing before it", a.Name)
	}
	for field, value := range c.Read {
		if len(readValues(value)) == 0 {
			return fmt.Errorf("read: %s: want a value, or a list of values", field)
		}
	}
	if c.LatencyAbove != 0 {
		if a.Name != "dispatcher.set-state" {
			return errors.New("latency_above is for dispatcher.set-state")
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
		case !regexp.MustCompile(`^`+namePattern+`$`).MatchString(h.Table) || h.Of != "" && !regexp.MustCompile(`^`+namePattern+`$`).MatchString(h.Of):
			return errors.New("htable: want the name of a table")
		case (h.Label == "") == (h.Key == ""):
			return errors.New("htable: want a label or a key")
		case h.Above == nil:
			return errors.New("htable: want above")
		case (h.Of == "") != (h.Share == 0) || h.Share < 0 || h.Share >= 1:
			return errors.New("htable: of and share go together, and share is from 0 to 1")
		}
	}
	return nil
}

// readValues are the values that a field may have, as texts.
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
