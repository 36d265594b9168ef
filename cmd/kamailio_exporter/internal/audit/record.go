// Package audit keeps the audit log: what was asked for, what became of it, and which
// rule was behind it. It knows nothing of actions but their names.
//
//	Append (an intent, before anything is sent) ─┐
//	Keep   (an outcome, which must not be lost) ─┼─► write ─► sync ─► the file, each line with the hash of the one before
//	Deny   (a refusal, or only its count)       ─┘    of its own for denials
//	Start  ◄─ records read back ◄─ the file, and those that were rotated lately
package audit

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"
)

// Record is one line of the audit log.
type Record struct {
	Time     time.Time      `json:"time"`
	Seq      uint64         `json:"seq"`
	Kind     string         `json:"kind"` // intent, outcome, denied, summary, note, checkpoint
	ID       string         `json:"id,omitempty"`
	User     string         `json:"user,omitempty"`
	Auth     string         `json:"auth,omitempty"` // peer, token or cert
	Source   string         `json:"source,omitempty"`
	Action   string         `json:"action,omitempty"`
	Params   map[string]any `json:"params,omitempty"` // secret ones as hmac:…
	Reason   string         `json:"reason,omitempty"`
	Key      string         `json:"key,omitempty"`         // Idempotency-Key
	Print    string         `json:"fingerprint,omitempty"` // of action and parameters
	DryRun   bool           `json:"dry_run,omitempty"`
	Outcome  Outcome        `json:"outcome,omitempty"`
	Verified bool           `json:"verified,omitempty"`
	Status   int            `json:"status,omitempty"` // of HTTP
	Problem  string         `json:"problem,omitempty"`
	Detail   string         `json:"detail,omitempty"`
	Code     int            `json:"kamailio_code,omitempty"`
	Before   State          `json:"before,omitempty"`
	After    State          `json:"after,omitempty"`
	Duration int64          `json:"duration_ms,omitempty"`
	Count    int            `json:"count,omitempty"` // of a summary: denials that have no line
	Version  string         `json:"version,omitempty"`
	Rule     *RuleTag       `json:"remediation,omitempty"` // the rule behind it

	Part    int               `json:"part,omitempty"`    // of a checkpoint: its lines are counted from 1
	Carries []json.RawMessage `json:"carries,omitempty"` // of a checkpoint: what the files before must not be needed for
	Prev    string            `json:"prev"`              // SHA-256 of the line before
}

// Kinds of records.
const (
	KindIntent  = "intent"
	KindOutcome = "outcome"
	KindDenied  = "denied"
	KindSummary = "summary"
	KindNote    = "note"

	// KindCheckpoint is the beginning of every file but the very first.
	KindCheckpoint = "checkpoint"
)

// Outcome is what became of a request.
type Outcome string

// The outcomes.
const (
	Applied      Outcome = "applied"            // done, and seen to be
	Unverified   Outcome = "applied_unverified" // done, as Kamailio says; nothing that can be read shows it
	Contradicted Outcome = "contradicted"       // done, as Kamailio says; what is read says otherwise
	NoChange     Outcome = "no_change"          // it was so already, or a dry run
	Refused      Outcome = "refused"            // nothing was sent
	Failed       Outcome = "failed"             // Kamailio says no
	Unknown      Outcome = "unknown"            // sent, and nobody knows
)

// State is what was read of Kamailio, by names of the catalogue: numbers, strings
// and bools. What Kamailio says beyond that stays out of it.
type State map[string]any

// Is reports whether a bool is there and true.
func (s State) Is(name string) bool { b, _ := s[name].(bool); return b }

// Differences tells what is not the same in a later state, other than these fields.
func (s State) Differences(later State, but ...string) []string {
	all := maps.Clone(later)
	maps.Copy(all, s)
	var changed []string
	for _, field := range slices.Sorted(maps.Keys(all)) {
		was, is := or(s, field), or(later, field)
		if was != is && !slices.Contains(but, field) {
			changed = append(changed, field+" "+was+" to "+is)
		}
	}
	return changed
}

// or is the field as a text, or "-" without it.
func or(s State, field string) string {
	if v, ok := s[field]; ok {
		return TextOf(v)
	}
	return "-"
}

// RuleTag is what a record says of the rule for alerts behind it.
type RuleTag struct {
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

// Changed reports whether a record is of something that was done, or may have been.
func (r Record) Changed() bool {
	if r.DryRun {
		return false
	}
	switch r.Outcome {
	case Applied, Unverified, Contradicted, Unknown:
		return true
	case Failed:
		return r.After != nil && len(r.Before.Differences(r.After)) > 0
	}
	return false
}

// RuleName is the rule behind a record; "" without one.
func (r Record) RuleName() string {
	if r.Rule == nil {
		return ""
	}
	return r.Rule.Rule
}

// TextOf is a value as it was given, also when it was read from JSON.
func TextOf(v any) string {
	if f, ok := v.(float64); ok {
		return strconv.FormatFloat(f, 'f', -1, 64)
	}
	return fmt.Sprint(v)
}
