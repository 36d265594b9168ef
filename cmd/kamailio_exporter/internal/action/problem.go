package action

import (
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/audit"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
)

// Kind defines a kind of problem: its HTTP status, outcome and title.
type Kind struct {
	Name    string
	Status  int
	Outcome audit.Outcome
	Title   string
}

// The problems of actions, as listed in docs/admin-reference.md.
var (
	Malformed      = Kind{"bad-request", http.StatusBadRequest, audit.Refused, "Malformed request"}
	BadParameter   = Kind{"parameter", http.StatusUnprocessableEntity, audit.Refused, "Invalid parameter"}
	Guarded        = Kind{"guard", http.StatusConflict, audit.Refused, "Refused by a guard"}
	Busy           = Kind{"busy", http.StatusConflict, audit.Refused, "Another change is running, or has just run"}
	ModuleMissing  = Kind{"module-missing", http.StatusNotImplemented, audit.Refused, "Not available on this Kamailio"}
	NoSuchTarget   = Kind{"target-not-found", http.StatusUnprocessableEntity, audit.Refused, "Target not found in Kamailio"}
	TargetGone     = Kind{"target-not-found", http.StatusNotFound, audit.Failed, "Target not found in Kamailio"}
	Rejected       = Kind{"rejected", http.StatusBadGateway, audit.Failed, "Kamailio rejected the parameters"}
	KamailioError  = Kind{"kamailio-error", http.StatusBadGateway, audit.Failed, "Kamailio answered with an error"}
	FailedChanged  = Kind{"failed-changed", http.StatusBadGateway, audit.Failed, "Kamailio answered with an error, and its data changed"}
	NotVerified    = Kind{"verification-failed", http.StatusBadGateway, audit.Contradicted, "Kamailio reported success, but the result is not as expected"}
	Unreachable    = Kind{"unreachable", http.StatusServiceUnavailable, audit.Refused, "Kamailio is not reachable; nothing was sent"}
	Restarted      = Kind{"restarted", http.StatusServiceUnavailable, audit.Refused, "Kamailio has just been started"}
	Undone         = Kind{"undone", http.StatusConflict, audit.Failed, "A guard was broken meanwhile, and the change was undone"}
	GuardBroken    = Kind{"guard-broken", http.StatusBadGateway, audit.Contradicted, "A guard was broken meanwhile, and the change could not be undone"}
	OutcomeUnknown = Kind{"outcome-unknown", http.StatusGatewayTimeout, audit.Unknown, "Sent to Kamailio, but not answered: check the state before you try again"}
	NoAudit        = Kind{audit.Unwritable, http.StatusServiceUnavailable, audit.Refused, "The audit log cannot be written"}
	Unconfirmed    = Kind{"unconfirmed", http.StatusConflict, audit.Refused, "Kamailio does not confirm the alert"}
	Stopping       = Kind{"shutting-down", http.StatusServiceUnavailable, audit.Refused, "The exporter is shutting down"}
)

// AfterSending returns the problem for a name in the audit log, if it is one that can
// occur after the RPC was sent.
func AfterSending(name, detail string) *Problem {
	for _, k := range []Kind{TargetGone, Rejected, FailedChanged, NotVerified, Undone, GuardBroken, OutcomeUnknown} {
		if k.Name == name {
			return k.Because(detail)
		}
	}
	return KamailioError.Because(detail)
}

// Problem is a refusal or failure, in the format of RFC 9457.
type Problem struct {
	Kind
	Detail string // never contains client input
	Retry  time.Duration
}

func (p *Problem) Error() string {
	if p.Detail == "" {
		return p.Title
	}
	return p.Title + ": " + p.Detail
}

// Because returns a problem of this kind.
func (k Kind) Because(detail string) *Problem { return &Problem{Kind: k, Detail: detail} }

// and appends to the detail.
func (p *Problem) and(more string) *Problem {
	if p.Detail != "" {
		more = p.Detail + "; " + more
	}
	return &Problem{p.Kind, more, p.Retry}
}

// Later returns a problem with the time after which a retry may succeed.
func (k Kind) Later(detail string, retry time.Duration) *Problem {
	return &Problem{Kind: k, Detail: detail, Retry: retry}
}

// guardError is returned by a look that refuses the action itself.
type guardError struct{ why string }

func (e *guardError) Error() string { return e.why }

// ofRead returns the problem for an error of the read before the change: nothing was
// sent.
func ofRead(err error) *Problem {
	var guard *guardError
	if p, ok := errors.AsType[*Problem](err); ok {
		return p
	}
	switch {
	case errors.As(err, &guard):
		return Guarded.Because(guard.why)
	case errors.Is(err, errNoTarget):
		return NoSuchTarget.Because("")
	case errors.Is(err, kamrpc.ErrMethodNotFound), errors.Is(err, kamrpc.ErrDangerous):
		return ModuleMissing.Because(noModule)
	}
	return Unreachable.Because(kamailioSays(err))
}

const noModule = "the module is not loaded, or has no such RPC in this version"

// faultKinds maps Kamailio's fault messages to problems; all others are kamailioError.
var faultKinds = []struct {
	says string
	kind Kind
}{
	{"ongoing reload", Busy}, {"executed too fast", Busy}, {"too short reload interval", Busy}, {"failed to shift records", Busy},
	{"method not found", ModuleMissing},
	{"dialog not found", TargetGone}, {"couldnt find callid", TargetGone}, {"record not found", TargetGone}, {"key not found", TargetGone},
	{"instance not found", TargetGone}, {"key name doesn't exist", TargetGone}, {"no such htable", TargetGone},
	{"domain table not found", TargetGone}, {"aor not found", TargetGone}, {"contact not found", TargetGone}, {"aor has no contacts", TargetGone},
	{"can not find specified mtree", TargetGone},
	{"invalid parameter", Rejected}, {"not enough parameters", Rejected}, {"unknown state value", Rejected},
	{"failed to set the variable", Rejected}, {"parameters required", Rejected},
}

// ProblemOf returns the problem for an error of the change.
func ProblemOf(err error) *Problem {
	var fault *kamrpc.Fault
	var still *kamrpc.StillReadError
	if p, ok := errors.AsType[*Problem](err); ok {
		return p
	}
	switch {
	case errors.As(err, &fault):
		said := strings.ToLower(fault.Message)
		for _, f := range faultKinds {
			if strings.Contains(said, f.says) {
				p := f.kind.Because(clean(fault.Message))
				if f.kind == Busy {
					p.Retry = ReloadPause
				}
				return p
			}
		}
		return KamailioError.Because(clean(fault.Message))
	case errors.Is(err, kamrpc.ErrUnknownOutcome):
		return OutcomeUnknown.Because(kamailioSays(err))
	case errors.As(err, &still):
		return Busy.Later("a read of "+still.Module+" was not answered and may still run", still.Left)
	case errors.Is(err, kamrpc.ErrDangerous), errors.Is(err, kamrpc.ErrNotPriced):
		return ModuleMissing.Because("not safe on this version of Kamailio")
	}
	return Unreachable.Because(kamailioSays(err))
}

// kamailioSays names the kind of an error. The error's text may contain addresses,
// paths and untrusted input, so it goes only to the log.
func kamailioSays(err error) string {
	var fault *kamrpc.Fault
	switch {
	case errors.As(err, &fault):
		return clean(fault.Message)
	case errors.Is(err, kamrpc.ErrTooLarge):
		return "the reply is too large"
	case errors.Is(err, kamrpc.ErrBadReply):
		return "invalid reply"
	case errors.Is(err, kamrpc.ErrNoAnswer):
		return "no answer before the deadline"
	case errors.Is(err, kamrpc.ErrReloading):
		return "the module is reloading, or may be"
	case errors.Is(err, kamrpc.ErrUnreachable):
		return "no server is listening"
	}
	return "not before the deadline"
}

// clean makes a message of Kamailio safe to show: printable, short, and without
// anything that looks like a secret.
func clean(text string) string {
	text = strings.Map(func(r rune) rune {
		if NotPrintable(r) {
			return ' '
		}
		return r
	}, text)
	if len(text) > maxWords {
		text = text[:maxWords]
	}
	lower := strings.ToLower(text)
	for _, secret := range []string{"password", "passwd", "secret", "ha1", "token", "://"} {
		if strings.Contains(lower, secret) {
			return "(left out)"
		}
	}
	return text
}

const maxWords = 200
