package repair

import (
	"cmp"
	"time"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/action"
)

// Config is the section "remediation" of the configuration: which alerts of
// Alertmanager run which actions. Without the section, the endpoint accepts no alerts.
type Config struct {
	Mode      string            `yaml:"mode"`       // dry_run, or enforce
	Match     map[string]string `yaml:"match"`      // labels that every alert must have, to make sure that it is about this Kamailio
	Budget    string            `yaml:"budget"`     // of all rules together, such as 10/1h
	MinUptime time.Duration     `yaml:"min_uptime"` // of Kamailio
	Quiet     time.Duration     `yaml:"quiet"`      // rules leave a target alone for this long after a person changed it
	Rules     []RuleConfig      `yaml:"rules"`
}

// RuleConfig is one rule.
type RuleConfig struct {
	Name           string                 `yaml:"name"`
	Mode           string                 `yaml:"mode"`  // dry_run keeps this rule in dry-run mode
	Match          map[string]string      `yaml:"match"` // labels that the alert must have, with exactly these values
	On             string                 `yaml:"on"`    // firing, or resolved
	MaxAge         time.Duration          `yaml:"max_age"`
	Action         string                 `yaml:"action"`
	Params         map[string]ParamSource `yaml:"params"`
	Confirm        ConfirmConfig          `yaml:"confirm"`
	Guard          RuleGuards             `yaml:"guard"`
	Budget         RuleBudgets            `yaml:"budget"`
	UndoOnResolved bool                   `yaml:"undo_on_resolved"`
}

// ParamSource is where the value of a parameter comes from: exactly one of label, value
// and find. A label is untrusted input, so it needs a constraint, as a grant does.
type ParamSource struct {
	Label             string `yaml:"label"`
	Value             any    `yaml:"value"`
	Find              string `yaml:"find"` // oldest-call: found by querying Kamailio
	action.Constraint `yaml:",inline"`
}

// ConfirmConfig lists conditions that this program checks in Kamailio before a rule
// acts. All of them must hold.
type ConfirmConfig struct {
	Read           map[string]any  `yaml:"read"`             // fields of the state before the action: a value, or a list of allowed values
	AtLeast        map[string]int  `yaml:"at_least"`         // the same for numbers: the minimum
	LatencyAbove   time.Duration   `yaml:"latency_above"`    // latency of the destination's replies to OPTIONS
	HTable         []CounterConfig `yaml:"htable"`           // counters that the Kamailio script keeps
	NotLoadedSince bool            `yaml:"not_loaded_since"` // no such reload and no start of Kamailio since the alert began
}

// CounterConfig is an htable item that must be above a number.
type CounterConfig struct {
	Table string  `yaml:"table"`
	Label string  `yaml:"label"` // label of the alert whose value is the key
	Key   string  `yaml:"key"`   // or a fixed key
	Above *int64  `yaml:"above"`
	Of    string  `yaml:"of"`    // another table with the same key
	Ratio float64 `yaml:"ratio"` // the item must also be above this ratio of the other table's item
}

// RuleGuards are a rule's guards. Those of the admin section apply as well.
type RuleGuards struct {
	MinActive      int     `yaml:"min_active"`
	MinActiveRatio float64 `yaml:"min_active_ratio"` // of a set's destinations
}

// RuleBudgets limit how often a rule may act, such as 3/1h.
type RuleBudgets struct {
	PerTarget string `yaml:"per_target"`
	PerRule   string `yaml:"per_rule"`
}

// Values in the configuration.
const (
	modeDryRun  = "dry_run"
	modeEnforce = "enforce"
	onFiring    = "firing"
	onResolved  = "resolved"
)

const (
	maxRules         = 100
	defaultMaxAge    = 15 * time.Minute
	defaultQuiet     = 10 * time.Minute
	defaultMinUptime = 5 * time.Minute
)

func (said *Config) complete() {
	said.Mode = cmp.Or(said.Mode, modeDryRun)
	said.Budget = cmp.Or(said.Budget, "10/1h")
	said.MinUptime = cmp.Or(said.MinUptime, defaultMinUptime)
	said.Quiet = cmp.Or(said.Quiet, defaultQuiet)
	for i := range said.Rules {
		one := &said.Rules[i]
		one.On = cmp.Or(one.On, onFiring)
		one.MaxAge = cmp.Or(one.MaxAge, defaultMaxAge)
		one.Guard.MinActiveRatio = cmp.Or(one.Guard.MinActiveRatio, 0.5)
		one.Budget.PerTarget = cmp.Or(one.Budget.PerTarget, "1/30m")
		one.Budget.PerRule = cmp.Or(one.Budget.PerRule, "3/1h")
	}
}
