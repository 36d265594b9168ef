// Package action runs the actions of the catalogue: a fixed list of reloads and
// changes of Kamailio, each of which is one row.
//
// It is no JSON-RPC proxy. Who asks names an action and gives typed, bounded
// parameters; the method and the parameters that Kamailio gets are made here.
//
//	Job ─► Engine.Run ─► slot ─► cooldown ─► look before ─► guards ─► intent in the audit log, synced
//	                                                                         │
//	subscribers ◄─ outcome in the audit log ◄─ look after, until it is as asked ◄─ RPC, once
//
// The row says how each step is done. What is done with an outcome, such as the
// budgets of rules for alerts, is the subscribers' matter.
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

// MaxReplyBytes is what a Kamailio for this package keeps of a reply. Lists that may be
// longer are counted row by row.
const MaxReplyBytes = 1 << 20

// Kamailio is the server that is changed: a *kamrpc.Client with slots of its own.
type Kamailio interface {
	Call(ctx context.Context, method string, params ...any) (kamrpc.Value, error)
	Rows(ctx context.Context, rows kamrpc.Rows, yield func(above kamrpc.Above, row kamrpc.Value) error, method string, params ...any) error
	Do(ctx context.Context, method string, params ...any) (kamrpc.Value, error)
}

// Action is one row of the catalogue: all that this program knows of a change of
// Kamailio. A new action is a new row, and its method's row in kamrpc/prices.go.
type Action struct {
	Name    string
	Summary string
	Method  string // of Kamailio; one of the price list
	Params  []Param
	// Send makes the parameters of the method; nil: Params in their order.
	Send func(a Args, before audit.State) []any
	// NeedsKey: doing it twice is not the same as once, so a request must carry an
	// Idempotency-Key.
	NeedsKey bool
	// Pause is the shortest time between two; the policy may make it longer. A
	// reload must have one: longer than the module's reload_delta.
	Pause time.Duration
	// Deadline of the RPC; 0 is defaultDeadline.
	Deadline time.Duration
	// Look reads what the action is about, before it and after it. nil: nothing can
	// be read, so that the outcome is never verified.
	Look look
	// Verified says in one sentence what was read when the outcome is verified; without
	// Look, why nothing is.
	Verified string
	// LookTime is how long the read before may take; 0 is defaultLookTime.
	LookTime time.Duration
	// Guard refuses by what was read before.
	Guard func(a Args, before audit.State, g Guards) error
	// TakesOut tells whether it takes its target out of service, by what was before it;
	// nil: it never does.
	TakesOut func(a Args, before audit.State) bool
	// Rest counts what is in service beside the target, of how many in all; of is 0
	// where a share of them means nothing.
	Rest func(state audit.State) (rest, of int64)
	// Back makes the parameters that put the target back as it was.
	Back func(a Args, before audit.State) Args
	// Claims tells whether a record put a target into service by its word alone: nothing
	// shows yet that it is alive. May be nil.
	Claims func(r audit.Record) bool
	// Unproven counts the targets of claims that are in service, and for which nothing has
	// spoken since.
	Unproven func(ctx context.Context, k Kamailio, a Args, claims []audit.Record) (int64, error)
	// Same tells that all is as asked already: nothing is sent. May be nil.
	Same func(a Args, before audit.State) bool
	// Judge tells whether what was read after is what was asked for. With Look, it is
	// never nil.
	Judge judge
	// Answer judges Kamailio's own answer where HTTP 200 is not success: "" if it is.
	Answer func(result kamrpc.Value) string
	// Waits: what it does shows only some seconds later, so the read after is tried
	// again until it is as asked.
	Waits time.Duration
	// Latency reads how long the target takes to answer, for rules that ask; may be nil.
	Latency func(ctx context.Context, k Kamailio, a Args) (time.Duration, error)
	// Undo takes it back; nil for what cannot be taken back.
	Undo *Undo
	// ResetsStatistics: counters of Kamailio begin at 0 again.
	ResetsStatistics bool
	// Local changes this program, and nothing of Kamailio: it tells what is before
	// (nil: there is no such target) and what will be after it (nil: the same). Whoever made the row does it when the
	// outcome is published.
	Local func(a Args) (before, after audit.State)
}

// Undo says how an action is taken back.
type Undo struct {
	Action string   // that does it
	Fields []string // of the state, that must be what was left
	// Args makes the parameters of it from those of the action, and from what was
	// before it.
	Args func(params map[string]any, before audit.State) map[string]any
}

// Own tells whether what is there now is still what was left.
func (u *Undo) Own(now, left audit.State) bool {
	return !slices.ContainsFunc(u.Fields, func(field string) bool { return audit.TextOf(now[field]) != audit.TextOf(left[field]) })
}

// Guards are the limits of what may be done to a running service.
type Guards struct {
	MinActive int           `yaml:"min_active"` // destinations of a set that stay active
	MinRatio  float64       `yaml:"-"`          // a rule's: share of a set that stays active
	MaxDrop   float64       `yaml:"max_drop"`   // share of what is there that a reload may lose
	MinUptime time.Duration `yaml:"min_uptime"`
}

const (
	defaultDeadline = 10 * time.Second
	defaultLookTime = 2 * time.Second
	afterTime       = 5 * time.Second
)

// ReloadPause is the shortest time between two of the same reload.
const ReloadPause = 10 * time.Second

// LongestAction is how long an action may take: reading before and after, 20 s each,
// 60 s for the reload between them, and the log.
const LongestAction = 110 * time.Second

// Module is the part of Kamailio that an action of this name is about.
func Module(action string) string {
	module, _, _ := strings.Cut(action, ".")
	return module
}

// Target is the parameters that name what is changed, as a text.
func (a *Action) Target(params map[string]any) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(params)) {
		if text, ok := a.names(name, params[name]); ok {
			parts = append(parts, name+"="+text)
		}
	}
	return strings.Join(parts, " ")
}

// Touched tells whether what a record tells of had to do with a target of this action:
// all parameters that name it and that both have are the same. One without any, a
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

// names is the text by which the value of a parameter says which the target is; ok is
// false for a parameter that does not.
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

// cooldown is the longer of the row's pause and the policy's. Only what pauses at all
// is made to pause longer.
func (a *Action) cooldown(policy time.Duration) time.Duration {
	if a.Pause == 0 {
		return 0
	}
	return max(a.Pause, policy)
}

// Catalogue is all actions, checked and complete.
type Catalogue struct {
	Actions []*Action // in the order of the table
	byName  map[string]*Action
}

// NewCatalogue completes the rows of this package and those of others, whose actions
// change this program. It panics when a row is not right: a test looks at them all.
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

// Get is the action of this name; nil if there is none.
func (c *Catalogue) Get(name string) *Action { return c.byName[name] }

// Names of all actions, sorted.
func (c *Catalogue) Names() []string { return slices.Sorted(maps.Keys(c.byName)) }

// with is the names of the actions for which a field of the row is set.
func (c *Catalogue) with(set func(*Action) bool) string {
	var names []string
	for _, a := range c.Actions {
		if set(a) {
			names = append(names, a.Name)
		}
	}
	return strings.Join(names, ", ")
}

// Undoable is the names of the actions that can be taken back.
func (c *Catalogue) Undoable() string { return c.with(func(a *Action) bool { return a.Undo != nil }) }

// WithLatency is the names of the actions whose targets' latency can be read.
func (c *Catalogue) WithLatency() string {
	return c.with(func(a *Action) bool { return a.Latency != nil })
}

// Finders is what can be looked for, for which parameters.
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

// complete checks a row and fills in what it leaves out.
func (a *Action) complete() error {
	price, priced := kamrpc.PriceOf(a.Method)
	switch {
	case a.Local != nil && a.Method != "":
		return fmt.Errorf("it is local, and calls %s", a.Method)
	case a.Local == nil && (!priced || price.Effect == kamrpc.Read):
		return fmt.Errorf("%s is no change of the price list", a.Method)
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

// inOrder sends the parameters as the row has them.
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
