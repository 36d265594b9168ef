package kamrpc

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Fault is Kamailio's own refusal of a call: the error object of the reply.
type Fault struct {
	Method  string
	Code    int
	Message string
}

// Error names the method, the code and Kamailio's words.
func (f *Fault) Error() string {
	return fmt.Sprintf("%s: kamailio answered error %d: %s", f.Method, f.Code, f.Message)
}

// Is makes errors.Is(err, ErrMethodNotFound) work. Kamailio answers code 500
// for it (jsonrpcs_mod.c), JSON-RPC itself says -32601.
func (f *Fault) Is(target error) bool {
	return target == ErrMethodNotFound &&
		(f.Code == -32601 || strings.EqualFold(f.Message, "Method Not Found"))
}

// StillReadError is a reload that was not sent: a read of its module got no answer
// and may still run inside Kamailio, where the two must not meet.
type StillReadError struct {
	Module string
	Left   time.Duration // until it is taken to be over
}

// Error names the module and the time.
func (e *StillReadError) Error() string {
	return fmt.Sprintf("a read of %s was not answered and may still run: no reload of it for %s", e.Module, e.Left.Round(time.Second))
}

var (
	// ErrMethodNotFound is the Fault of a method that the server does not have.
	ErrMethodNotFound = errors.New("method not found")
	// ErrUnreachable is a request that could not be delivered: nothing was
	// asked, so asking over another transport is safe.
	ErrUnreachable = errors.New("kamailio is not reachable")
	// ErrNoAnswer is a request that was delivered and not answered in time.
	ErrNoAnswer = errors.New("no answer")
	// ErrOutgrown is a reply that did not fit into the buffers of the ctl module:
	// Kamailio could not send it whole over BINRPC, and logged an error for each
	// value that it left out.
	ErrOutgrown = errors.New("the reply does not fit ctl's buffers: raise its binrpc_max_body_size and binrpc_struct_max_body_size (to powers of two), or add a socket of jsonrpcs as another URI")
	// ErrBadReply is an answer that is not a JSON-RPC reply to the request:
	// not JSON, cut off, or with another id.
	ErrBadReply = errors.New("invalid reply")
	// ErrDangerous is a call that the price list forbids on the running version.
	ErrDangerous = errors.New("dangerous")
	// ErrOtherKamailio is a URI that leads to another Kamailio than those before it.
	ErrOtherKamailio = errors.New("leads to another Kamailio")
	// ErrReloading is a read that was not made because its module reloads, or may.
	ErrReloading = errors.New("the module is being reloaded")
	// ErrUnknownOutcome is a change that was sent, and it is not known whether
	// Kamailio did it.
	ErrUnknownOutcome = errors.New("outcome unknown")
	// ErrNotPriced is a method that the price list does not have, or not for this
	// use, such as a change that was called as a read. See [PriceList].
	ErrNotPriced = errors.New("method is not in the price list")
)
