package repair

import (
	"cmp"
	"time"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/action"
)

// Config is the section "remediation" of the configuration: which alerts of
// Alertmanager make which actions run. Without it there is no receiver.
type Config struct {
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
	Label             string `yaml:"label"`
	Value             any    `yaml:"value"`
	Find              string `yaml:"find"` // oldest-call: looked for at Kamailio
	action.Constraint `yaml:",inline"`
}

// ConfirmConfig is what has to be so at Kamailio, read by this program, before a
// rule acts. All that is said has to be so.
type ConfirmConfig struct {
	Read           map[string]any  `yaml:"read"`             // what the action reads before it: a value, or a list of values
	AtLeast        map[string]int  `yaml:"at_least"`         // the same, of numbers
	LatencyAbove   time.Duration   `yaml:"latency_above"`    // of the destination's answers to OPTIONS
	HTable         []CounterConfig `yaml:"htable"`           // counters of the script
	NotLoadedSince bool            `yaml:"not_loaded_since"` // neither this reload nor a start of Kamailio since the alert began
}

// CounterConfig is an item of an htable that has to be above a number.
type CounterConfig struct {
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
