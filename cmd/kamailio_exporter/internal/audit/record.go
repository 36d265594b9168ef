// Package audit writes and reads the audit log: requests, their outcomes, and the rules
// that caused them. It knows actions only by name.
//
//	Append (an intent, before anything is sent) ─┐
//	Keep   (an outcome, which must not be lost) ─┼─► write ─► sync ─► the file, each line with the hash of the one before
//	Deny   (a refusal, or only its count)       ─┘    denials have a file of their own
//	Start  ◄─ records read back ◄─ the file, and recently rotated ones
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
	Params   map[string]any `json:"params,omitempty"` // secret values as hmac:…
	Reason   string         `json:"reason,omitempty"`
	Key      string         `json:"key,omitempty"`         // Idempotency-Key
	Print    string         `json:"fingerprint,omitempty"` // of the action and its parameters
	DryRun   bool           `json:"dry_run,omitempty"`
	Outcome  Outcome        `json:"outcome,omitempty"`
	Verified bool           `json:"verified,omitempty"`
	Status   int            `json:"status,omitempty"` // HTTP status
	Problem  string         `json:"problem,omitempty"`
	Detail   string         `json:"detail,omitempty"`
	Code     int            `json:"kamailio_code,omitempty"`
	Before   State          `json:"before,omitempty"`
	After    State          `json:"after,omitempty"`
	Duration int64          `json:"duration_ms,omitempty"`
	Count    int            `json:"count,omitempty"` // of a summary: number of denials without a line
	Version  string         `json:"version,omitempty"`
	Rule     *RuleTag       `json:"remediation,omitempty"` // the rule that caused it

	Part    int               `json:"part,omitempty"`    // of a checkpoint: number of the line, from 1
	Carries []json.RawMessage `json:"carries,omitempty"` // of a checkpoint: state that older files would otherwise be needed for
	Prev    string            `json:"prev"`              // SHA-256 of the previous line
}

// Kinds of records.
const (
	KindIntent  = "intent"
	KindOutcome = "outcome"
	KindDenied  = "denied"
	KindSummary = "summary"
	KindNote    = "note"

	// KindCheckpoint records are the start of every file except the very first.
	KindCheckpoint = "checkpoint"
)

// Outcome is what became of a request.
type Outcome string

// Outcomes.
const (
	Applied      Outcome = "applied"            // done, and verified by reading
	Unverified   Outcome = "applied_unverified" // Kamailio reports success; no read can verify it
	Contradicted Outcome = "contradicted"       // Kamailio reports success; what was read contradicts it
	NoChange     Outcome = "no_change"          // already in the requested state, or a dry run
	Refused      Outcome = "refused"            // nothing was sent
	Failed       Outcome = "failed"             // Kamailio returned an error
	Unknown      Outcome = "unknown"            // sent, but the result is unknown
)

// State is what was read from Kamailio, with field names of the catalogue: numbers,
// strings and bools. Other content of Kamailio's replies is not kept.
type State map[string]any

// Is reports whether a bool field exists and is true.
func (s State) Is(name string) bool { b, _ := s[name].(bool); return b }

// Differences describes what changed in a later state, ignoring the fields in but.
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

// or returns the field as text, or "-" if it is missing.
func or(s State, field string) string {
	if v, ok := s[field]; ok {
		return TextOf(v)
	}
	return "-"
}

// RuleTag describes the alert rule that caused a record.
type RuleTag struct {
	Rule   string    `json:"rule"`
	Step   string    `json:"step"`             // do, undo, resolved, breaker or refused
	Target string    `json:"target,omitempty"` // the parameters that identify it
	Alert  string    `json:"alert,omitempty"`  // fingerprint
	Status string    `json:"status,omitempty"` // firing or resolved
	Starts time.Time `json:"starts_at,omitzero"`
	Group  string    `json:"group,omitempty"`  // hash of Alertmanager's group key
	Undoes string    `json:"undoes,omitempty"` // the operation that it undoes
	Back   bool      `json:"back,omitempty"`   // it is to be undone when the alert is resolved
}

// Changed reports whether a record is of something that was done, or may have been
// done.
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

// RuleName returns the rule that caused a record, or "".
func (r Record) RuleName() string {
	if r.Rule == nil {
		return ""
	}
	return r.Rule.Rule
}

// TextOf returns a value as text, also if it was read from JSON.
func TextOf(v any) string {
	if f, ok := v.(float64); ok {
		return strconv.FormatFloat(f, 'f', -1, 64)
	}
	return fmt.Sprint(v)
}
