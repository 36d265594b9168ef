package admin

import (
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
)

// Outcome is what became of a request.
type Outcome string

// The outcomes.
const (
	Applied    Outcome = "applied"            // done, and seen to be
	Unverified Outcome = "applied_unverified" // done, as Kamailio says
	NoChange   Outcome = "no_change"          // it was so already, or a dry run
	Refused    Outcome = "refused"            // nothing was sent
	Failed     Outcome = "failed"             // Kamailio says no
	Unknown    Outcome = "unknown"            // sent, and nobody knows
)

const problemPrefix = "urn:kamailio-exporter:problem:"

// kind of a problem: its HTTP status, outcome and title.
type kind struct {
	name    string
	status  int
	outcome Outcome
	title   string
}

// The problems, as ADMIN.md lists them.
var (
	badRequest      = kind{"bad-request", http.StatusBadRequest, Refused, "The request is not well formed"}
	unauthenticated = kind{"unauthenticated", http.StatusUnauthorized, Refused, "Who are you?"}
	forbidden       = kind{"browser", http.StatusForbidden, Refused, "Not from a web page"}
	notFound        = kind{"not-found", http.StatusNotFound, Refused, "There is no such thing for you"}
	badMethod       = kind{"method", http.StatusMethodNotAllowed, Refused, "Not with this HTTP method"}
	tooLarge        = kind{"too-large", http.StatusRequestEntityTooLarge, Refused, "The body is too large"}
	mediaType       = kind{"media-type", http.StatusUnsupportedMediaType, Refused, "The body must be application/json, without an encoding"}
	misdirected     = kind{"host", http.StatusMisdirectedRequest, Refused, "Not by this host name"}
	badParameter    = kind{"parameter", http.StatusUnprocessableEntity, Refused, "A parameter may not be as it is"}
	badKey          = kind{"idempotency-key", http.StatusUnprocessableEntity, Refused, "The Idempotency-Key does not fit"}
	guarded         = kind{"guard", http.StatusConflict, Refused, "A guard forbids it now"}
	busy            = kind{"busy", http.StatusConflict, Refused, "Another change is running, or has just run"}
	rateLimited     = kind{"rate-limit", http.StatusTooManyRequests, Refused, "Too many requests"}
	moduleMissing   = kind{"module-missing", http.StatusNotImplemented, Refused, "This Kamailio cannot do that"}
	noSuchTarget    = kind{"target-not-found", http.StatusUnprocessableEntity, Refused, "Kamailio has no such thing"}
	noTarget        = kind{"target-not-found", http.StatusNotFound, Failed, "Kamailio has no such thing"}
	rejected        = kind{"rejected", http.StatusBadGateway, Failed, "Kamailio does not take the parameters"}
	kamailioError   = kind{"kamailio-error", http.StatusBadGateway, Failed, "Kamailio answered with an error"}
	notVerified     = kind{"verification-failed", http.StatusBadGateway, Unverified, "Kamailio says it is done, and it does not look so"}
	unreachable     = kind{"unreachable", http.StatusServiceUnavailable, Refused, "Kamailio cannot be asked; nothing was sent"}
	restarted       = kind{"restarted", http.StatusServiceUnavailable, Refused, "Kamailio has just been started"}
	outcomeUnknown  = kind{"outcome-unknown", http.StatusGatewayTimeout, Unknown, "It was sent, and there is no answer: look before you try again"}
	noAudit         = kind{"audit", http.StatusServiceUnavailable, Refused, "The audit log cannot be written"}
	unconfirmed     = kind{"unconfirmed", http.StatusConflict, Refused, "Kamailio does not say what the alert says"}
	notOwn          = kind{"not-own", http.StatusConflict, Refused, "It is not what the rule left"}
	queueFull       = kind{"queue", http.StatusServiceUnavailable, Refused, "Too many notifications wait"}
	notDone         = kind{"not-done", http.StatusServiceUnavailable, Refused, "Nothing was done yet; send it again"}
	stopping        = kind{"shutting-down", http.StatusServiceUnavailable, Refused, "The exporter stops"}
)

// problem is a refusal or failure, as RFC 9457 has it.
type problem struct {
	kind
	detail string // never holds what the client sent
	retry  time.Duration
}

func (p *problem) Error() string {
	if p.detail == "" {
		return p.title
	}
	return p.title + ": " + p.detail
}

func (k kind) because(detail string) *problem { return &problem{kind: k, detail: detail} }

func (k kind) later(detail string, retry time.Duration) *problem {
	return &problem{kind: k, detail: detail, retry: retry}
}

// guardError is a guard of a look's own.
type guardError struct{ why string }

func (e *guardError) Error() string { return e.why }

// ofRead says what an error of a read before the change means: nothing was sent.
func ofRead(err error) *problem {
	var guard *guardError
	switch {
	case errors.As(err, &guard):
		return guarded.because(guard.why)
	case errors.Is(err, errNoTarget):
		return noSuchTarget.because("")
	case errors.Is(err, kamrpc.ErrMethodNotFound), errors.Is(err, kamrpc.ErrDangerous):
		return moduleMissing.because("the module is not loaded, or has no such RPC in this version")
	}
	return unreachable.because(kamailioSays(err))
}

// faultKinds turns Kamailio's words into ours; the rest is kamailioError.
var faultKinds = []struct {
	says string
	kind kind
}{
	{"ongoing reload", busy}, {"executed too fast", busy}, {"too short reload interval", busy},
	{"method not found", moduleMissing},
	{"dialog not found", noTarget}, {"couldnt find callid", noTarget}, {"record not found", noTarget}, {"key not found", noTarget},
	{"instance not found", noTarget}, {"key name doesn't exist", noTarget}, {"no such htable", noTarget},
	{"domain table not found", noTarget}, {"aor not found", noTarget}, {"contact not found", noTarget}, {"aor has no contacts", noTarget},
	{"can not find specified mtree", noTarget},
	{"invalid parameter", rejected}, {"not enough parameters", rejected}, {"unknown state value", rejected},
	{"failed to set the variable", rejected}, {"parameters required", rejected},
}

// ofCall says what an error of the change means.
func ofCall(err error) *problem {
	var fault *kamrpc.Fault
	var still *kamrpc.StillReadError
	switch {
	case errors.As(err, &fault):
		said := strings.ToLower(fault.Message)
		for _, f := range faultKinds {
			if strings.Contains(said, f.says) {
				p := f.kind.because(clean(fault.Message))
				if f.kind.name == busy.name {
					p.retry = reloadPause
				}
				return p
			}
		}
		return kamailioError.because(clean(fault.Message))
	case errors.Is(err, kamrpc.ErrUnknownOutcome):
		return outcomeUnknown.because(kamailioSays(err))
	case errors.As(err, &still):
		return busy.later("a read of "+still.Module+" was not answered and may still run", still.Left)
	case errors.Is(err, kamrpc.ErrDangerous), errors.Is(err, kamrpc.ErrNotPriced):
		return moduleMissing.because("not safe on this version of Kamailio")
	}
	return unreachable.because(kamailioSays(err))
}

// kamailioSays names the kind of an error. Its text may have addresses, paths and
// foreign data: that is for the log.
func kamailioSays(err error) string {
	var fault *kamrpc.Fault
	switch {
	case errors.As(err, &fault):
		return clean(fault.Message)
	case errors.Is(err, kamrpc.ErrTooLarge):
		return "the reply is too large"
	case errors.Is(err, kamrpc.ErrBadReply):
		return "the reply is none"
	case errors.Is(err, kamrpc.ErrNoAnswer):
		return "no answer before the deadline"
	case errors.Is(err, kamrpc.ErrReloading):
		return "the module reloads, or may"
	case errors.Is(err, kamrpc.ErrUnreachable):
		return "nobody listens"
	}
	return "not before the deadline"
}

// clean makes Kamailio's words fit for a person's eyes: printable, short, and
// without what looks like a secret.
func clean(text string) string {
	text = strings.Map(func(r rune) rune {
		if notPrintable(r) {
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
