// Package adminapi defines the requests and replies of the admin endpoint, shared by
// the server, the client and their tests.
//
//	admincli ─ Request, Idempotency-Key ─► admin ─► action ─► Kamailio
//	admincli ◄─ Result, or Problem ─────── admin ◄─ action
//	Alertmanager ─ notification ─► admin ─► repair ─► action ─► Kamailio
//	Alertmanager ◄─ Verdicts ───── admin ◄─ repair
package adminapi

import (
	"time"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/audit"
)

// Paths of the endpoint.
const (
	ActionsPath    = "/v1/actions"
	OperationsPath = "/v1/operations"
	RulesPath      = "/v1/remediation"
	AuditPath      = "/v1/audit"
	TargetsPath    = "/v1/targets"
	WebhookPath    = "/v1/alertmanager" // where Alertmanager sends its notifications
)

// DefaultListen is the default listen address.
const DefaultListen = "unix:/run/kamailio-exporter/admin.sock"

// ResetAction closes the breakers of rules for alerts.
const ResetAction = "remediation.reset"

// ParamType is the type of a parameter.
type ParamType string

// The types of parameters.
const (
	Int    ParamType = "int"
	Enum   ParamType = "enum"
	String ParamType = "string"
	Bool   ParamType = "bool"
)

// Param is one parameter of an action: its name and its widest bounds. A grant narrows
// them.
type Param struct {
	Name    string    `json:"name"`
	Type    ParamType `json:"type"`
	Help    string    `json:"help"`
	Enum    []string  `json:"enum,omitempty"`
	Min     int64     `json:"min,omitempty"`     // of an Int
	Max     int64     `json:"max,omitempty"`     // of an Int
	MaxLen  int       `json:"max_len,omitempty"` // of a String, in bytes
	Pattern string    `json:"pattern,omitempty"` // of a String; must match the whole value
}

// GrantedParam is a parameter as one user may give it.
type GrantedParam struct {
	Param
	Granted []string `json:"granted"` // allowed values; each entry is from one grant
	// Bounds is set if the bounds depend on another parameter: from its value to the
	// bounds. For cfg.set, it is the variable.
	Bounds map[string]string `json:"bounds,omitempty"`
}

// Action describes an action to a user.
type Action struct {
	Name     string         `json:"name"`
	Summary  string         `json:"summary"`
	Params   []GrantedParam `json:"params"`
	NeedsKey bool           `json:"needs_idempotency_key"`
	Verifies bool           `json:"verifies"`
	Cooldown int            `json:"cooldown_left_s"`
	Targets  string         `json:"targets,omitempty"` // kind of its targets, for TargetsPath/KIND
}

// Actions is the reply to GET ActionsPath.
type Actions struct {
	Actions []Action `json:"actions"`
	Busy    bool     `json:"busy"`
	User    string   `json:"user"`
}

// Request is the body of a POST that runs an action.
type Request struct {
	Params map[string]any `json:"params"`
	Reason string         `json:"reason"`
}

// Result is the reply to a Request that succeeded.
type Result struct {
	ID       string        `json:"id"`
	Action   string        `json:"action"`
	Outcome  audit.Outcome `json:"outcome"`
	Verified bool          `json:"verified"`
	DryRun   bool          `json:"dry_run"`
	Before   audit.State   `json:"before,omitempty"`
	After    audit.State   `json:"after,omitempty"`
	Detail   string        `json:"detail,omitempty"`
	Would    *Would        `json:"would_send,omitempty"`
	Duration int64         `json:"duration_ms"`
}

// ResultOf returns the result that an audit record describes.
func ResultOf(r audit.Record) *Result {
	return &Result{
		ID: r.ID, Action: r.Action, Outcome: r.Outcome, Verified: r.Verified, DryRun: r.DryRun,
		Before: r.Before, After: r.After, Detail: r.Detail, Duration: r.Duration,
	}
}

// Would is the RPC that a dry run did not send.
type Would struct {
	Method string `json:"method"`
	Params []any  `json:"params"`
}

// ProblemPrefix is the prefix of the type of every Problem.
const ProblemPrefix = "urn:kamailio-exporter:problem:"

// Problem is the reply to a request that failed: RFC 9457, followed by our own members.
type Problem struct {
	Type     string        `json:"type"`
	Title    string        `json:"title"`
	Status   int           `json:"status"`
	Detail   string        `json:"detail,omitempty"`
	Instance string        `json:"instance"`
	Outcome  audit.Outcome `json:"outcome"`
	Retry    int           `json:"retry_after_s,omitempty"`
	Action   string        `json:"action,omitempty"`
	Before   audit.State   `json:"before,omitempty"`
	After    audit.State   `json:"after,omitempty"`
}

// Operations is the reply to GET OperationsPath.
type Operations struct {
	Operations []audit.Record `json:"operations"`
}

// Kinds is the reply to GET TargetsPath: the kinds of targets that can be listed.
type Kinds struct {
	Kinds []string `json:"kinds"`
}

// Targets is the reply to GET TargetsPath/KIND: the targets that the user may name in
// actions.
type Targets struct {
	Kind    string           `json:"kind"`
	Params  []string         `json:"params"` // parameters that identify a target
	Fields  []string         `json:"fields"` // additional fields of a target
	All     int              `json:"all"`    // total number; the list may hold fewer
	Targets []map[string]any `json:"targets"`
}

// AuditLogs is the reply to GET AuditPath: where the audit log and the log of denials
// end.
type AuditLogs struct {
	Logs []audit.Head `json:"logs"`
}

// Rules is the reply to GET RulesPath.
type Rules struct {
	Receiver bool   `json:"receiver"`
	Rules    []Rule `json:"rules"`
}

// Rule is the state of an alert rule.
type Rule struct {
	Name    string       `json:"name"`
	Enforce bool         `json:"enforce"`
	On      string       `json:"on"`
	Match   string       `json:"match"`
	Action  string       `json:"action"`
	Left    int          `json:"budget_left"`
	Budget  string       `json:"budget"`
	Breaker *Breaker     `json:"breaker,omitempty"`
	Open    []OpenChange `json:"open_changes"`
}

// Breaker is an open breaker, which stops its rule.
type Breaker struct {
	Since time.Time `json:"since"`
	Why   string    `json:"why"`
}

// OpenChange is a change by a rule that is not undone yet.
type OpenChange struct {
	ID       string    `json:"operation"`
	Target   string    `json:"target"`
	Since    time.Time `json:"since"`
	DryRun   bool      `json:"dry_run"`
	Resolved bool      `json:"alert_resolved"`
}

// Verdicts is the reply to a notification.
type Verdicts struct {
	Results []Verdict `json:"results"`
}

// Verdict is the result of one rule for one alert.
type Verdict struct {
	Rule    string        `json:"rule"`
	Alert   string        `json:"alert"` // fingerprint
	Step    string        `json:"step"`
	Outcome audit.Outcome `json:"outcome"`
	DryRun  bool          `json:"dry_run"`
	By      string        `json:"refused_by,omitempty"`
	Detail  string        `json:"detail,omitempty"`
	ID      string        `json:"operation,omitempty"`
}
