// Package action runs the actions of the catalogue: a fixed list of reloads and other
// changes of Kamailio. Each action is one row of the catalogue.
//
// It is not a JSON-RPC proxy. The caller names an action and gives typed, bounded
// parameters; this package builds the method and parameters that Kamailio receives.
//
//	Job ─► Engine.Run ─► slot ─► cooldown ─► read before ─► guards ─► intent in the audit log, synced
//	                                                                         │
//	subscribers ◄─ outcome in the audit log ◄─ read after, until verified ◄─ RPC, sent once
//
// The row defines how each step is done. Subscribers decide what follows from an
// outcome, such as the budgets of alert rules.
package action

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/adminapi"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/audit"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
)

// MaxReplyBytes is the largest RPC reply, in bytes, that this package's Kamailio client
// keeps. Lists that may be longer are counted row by row.
const MaxReplyBytes = 1 << 20

// Kamailio is the server that actions change: a *kamrpc.Client with its own slots.
type Kamailio interface {
	Call(ctx context.Context, method string, params ...any) (kamrpc.Value, error)
	Rows(ctx context.Context, rows kamrpc.Rows, yield func(above kamrpc.Above, row kamrpc.Value) error, method string, params ...any) error
	Do(ctx context.Context, method string, params ...any) (kamrpc.Value, error)
}

// Action is one row of the catalogue: everything this program knows about one change of
// Kamailio. To add an action, add a row here and a row for its method in
// kamrpc/prices.go.
type Action struct {
	Name    string
	Summary string
	Method  string // Kamailio's RPC method; must be in the cost table
	Params  []Param
	// Send builds the RPC parameters. If nil, Params are sent in their order.
	Send func(a Args, before audit.State) []any
	// NeedsKey means that running the action twice differs from running it once, so a
	// request must carry an Idempotency-Key.
	NeedsKey bool
	// Pause is the minimum time between two runs; the policy can only increase it. A
	// reload needs one longer than the module's reload_delta.
	Pause time.Duration
	// Deadline is the timeout of the RPC; 0 means defaultDeadline.
	Deadline time.Duration
	// Look reads the target's state before and after the change. If nil, nothing can be
	// read and the outcome is never verified.
	Look look
	// Verified is one sentence for the docs: what was read when the outcome is verified
	// or, without Look, why it never is.
	Verified string
	// LookTime limits the read before the change; 0 means defaultLookTime.
	LookTime time.Duration
	// Guard refuses the action based on the state that was read before it.
	Guard func(a Args, before audit.State, g Guards) error
	// TakesOut reports whether the action takes its target out of service, given the
	// state before. If nil, it never does.
	TakesOut func(a Args, before audit.State) bool
	// Rest counts the other targets that are in service (rest) and all targets (of). of
	// is 0 if a ratio of the two makes no sense.
	Rest func(state audit.State) (rest, of int64)
	// Back builds the parameters that restore the target to its state before the
	// action.
	Back func(a Args, before audit.State) Args
	// Claims reports whether a record put a target into service without any proof that
	// the target works. May be nil.
	Claims func(r audit.Record) bool
	// Unproven counts the targets of claims that are in service but have shown no sign
	// of life since.
	Unproven func(ctx context.Context, k Kamailio, a Args, claims []audit.Record) (int64, error)
	// Same reports that the requested state is already there, so nothing is sent. May
	// be nil.
	Same func(a Args, before audit.State) bool
	// Judge decides whether the state after the change is the requested one. It is set
	// if and only if Look is.
	Judge judge
	// Answer checks Kamailio's reply where HTTP 200 does not mean success; "" means
	// success.
	Answer func(result kamrpc.Value) string
	// Waits is for actions whose effect shows only some seconds later: the read after
	// is repeated for up to this long.
	Waits time.Duration
	// Latency reads how long the target takes to answer, for rules with latency_above.
	// May be nil.
	Latency func(ctx context.Context, k Kamailio, a Args) (time.Duration, error)
	// Undo describes how to undo the action; nil if it cannot be undone.
	Undo *Undo
	// ResetsStatistics means that Kamailio's counters restart at 0.
	ResetsStatistics bool
	// Local is for actions that change only this program, not Kamailio. It returns the
	// state before (nil: no such target) and after (nil: unchanged). The package that
	// adds the row applies the change when the outcome is published.
	Local func(a Args) (before, after audit.State)
}

// Undo describes how to undo an action.
type Undo struct {
	Action string   // name of the action that undoes it
	Fields []string // state fields that must still be as the action left them
	// Args builds the undo action's parameters from the original parameters and the
	// state before.
	Args func(params map[string]any, before audit.State) map[string]any
}

// Own reports whether the current state is still the one that the action left.
func (u *Undo) Own(now, left audit.State) bool {
	return !slices.ContainsFunc(u.Fields, func(field string) bool { return audit.TextOf(now[field]) != audit.TextOf(left[field]) })
}

// Guards limit what may be done to a running service.
type Guards struct {
	MinActive int           `yaml:"min_active"` // destinations of a set that must stay active
	MinRatio  float64       `yaml:"-"`          // of a rule: ratio of a set's destinations that must stay active
	MaxDrop   float64       `yaml:"max_drop"`   // ratio of the rows that a reload may lose
	MinUptime time.Duration `yaml:"min_uptime"`
}

const (
	defaultDeadline = 10 * time.Second
	defaultLookTime = 2 * time.Second
	afterTime       = 5 * time.Second
)

// ReloadPause is the minimum time between two runs of the same reload.
const ReloadPause = 10 * time.Second

// LongestAction is the longest time an action may take: 20 s each for the reads before
// and after, 60 s for the reload between them, and the writes to the audit log.
const LongestAction = 110 * time.Second

// Module returns the Kamailio module in the name of an action.
func Module(action string) string {
	module, _, _ := strings.Cut(action, ".")
	return module
}

// Target returns the parameters that identify the target, as text.
func (a *Action) Target(params map[string]any) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(params)) {
		if text, ok := a.names(name, params[name]); ok {
			parts = append(parts, name+"="+text)
		}
	}
	return strings.Join(parts, " ")
}

// Touched reports whether a record concerns a target of this action: all identifying
// parameters that both have are equal. A record without such parameters, such as a
// reload, touches every target.
func (a *Action) Touched(r audit.Record, params map[string]any) bool {
	for name, value := range params {
		other, both := r.Params[name]
		is, ok := a.names(name, value)
		if was, _ := a.names(name, other); both && ok && was != is {
			return false
		}
	}
	return true
}

// names returns a parameter's value as text if the parameter identifies the target; ok
// is false if it does not.
func (a *Action) names(param string, value any) (text string, ok bool) {
	i := slices.IndexFunc(a.Params, func(p Param) bool { return p.Name == param && !p.Sets })
	if i < 0 {
		return "", false
	}
	text = audit.TextOf(value)
	if a.Params[i].AnyCase {
		text = strings.ToLower(text)
	}
	return text, true
}

// cooldown returns the longer of the row's pause and the policy's. The policy does not
// add a pause to an action without one.
func (a *Action) cooldown(policy time.Duration) time.Duration {
	if a.Pause == 0 {
		return 0
	}
	return max(a.Pause, policy)
}

// Catalogue holds all actions, checked and completed.
type Catalogue struct {
	Actions []*Action // in the order of the table
	byName  map[string]*Action
}

// NewCatalogue completes the rows of this package and the local rows of others. It
// panics on an invalid row; a test covers all rows.
func NewCatalogue(local ...Action) *Catalogue {
	c := &Catalogue{byName: map[string]*Action{}}
	for _, a := range append(rows(), local...) {
		if c.byName[a.Name] != nil {
			panic(fmt.Sprintf("catalogue: %s is given twice", a.Name))
		}
		if err := a.complete(); err != nil {
			panic(fmt.Sprintf("catalogue: %s: %v", a.Name, err))
		}
		c.Actions = append(c.Actions, &a)
		c.byName[a.Name] = &a
	}
	return c
}

// Get returns the action with this name, or nil.
func (c *Catalogue) Get(name string) *Action { return c.byName[name] }

// Names returns the names of all actions, sorted.
func (c *Catalogue) Names() []string { return slices.Sorted(maps.Keys(c.byName)) }

// with returns the names of the actions for which set returns true.
func (c *Catalogue) with(set func(*Action) bool) string {
	var names []string
	for _, a := range c.Actions {
		if set(a) {
			names = append(names, a.Name)
		}
	}
	return strings.Join(names, ", ")
}

// Undoable returns the names of the actions that can be undone.
func (c *Catalogue) Undoable() string { return c.with(func(a *Action) bool { return a.Undo != nil }) }

// WithLatency returns the names of the actions whose target has a readable latency.
func (c *Catalogue) WithLatency() string {
	return c.with(func(a *Action) bool { return a.Latency != nil })
}

// Finders lists what rules can search for, and for which parameter.
func (c *Catalogue) Finders() string {
	var finders []string
	for _, a := range c.Actions {
		for _, p := range a.Params {
			if p.Find != nil {
				finders = append(finders, p.Find.Name+", for "+p.Name)
			}
		}
	}
	return strings.Join(slices.Compact(slices.Sorted(slices.Values(finders))), "; ")
}

// complete checks a row and fills in its defaults.
func (a *Action) complete() error {
	price, priced := kamrpc.PriceOf(a.Method)
	switch {
	case a.Local != nil && a.Method != "":
		return fmt.Errorf("it is local, and calls %s", a.Method)
	case a.Local == nil && (!priced || price.Effect == kamrpc.Read):
		return fmt.Errorf("%s is not a change in the cost table", a.Method)
	case (a.TakesOut != nil) != (a.Rest != nil) || (a.TakesOut != nil) != (a.Back != nil):
		return errors.New("only some of TakesOut, Rest and Back")
	case (a.Look != nil) != (a.Judge != nil):
		return errors.New("one of Look and Judge without the other")
	case slices.ContainsFunc(a.Params, func(p Param) bool {
		return p.By != "" && !slices.ContainsFunc(a.Params, func(o Param) bool { return o.Name == p.By })
	}):
		return errors.New("the form of a parameter is by one that it does not have")
	case price.Effect == kamrpc.Reload && a.Pause == 0:
		return errors.New("a reload without a pause")
	}
	if a.Deadline == 0 {
		a.Deadline = defaultDeadline
	}
	if a.LookTime == 0 {
		a.LookTime = defaultLookTime
	}
	a.Params = slices.Clone(a.Params)
	for i := range a.Params {
		if p := &a.Params[i]; p.Type == adminapi.String {
			var err error
			if p.anchored, err = anchor(p.Pattern); err != nil {
				return err
			}
		}
	}
	if a.Send == nil {
		a.Send = a.inOrder
	}
	return nil
}

// inOrder sends the parameters in the order of the row.
func (a *Action) inOrder(args Args, _ audit.State) []any {
	sent := make([]any, len(a.Params))
	for i, p := range a.Params {
		sent[i] = args[p.Name]
		if n, ok := sent[i].(int64); ok {
			sent[i] = int(n)
		}
	}
	return sent
}
