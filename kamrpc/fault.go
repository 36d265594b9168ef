package kamrpc

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Fault is an error reply from Kamailio: the error object of the JSON-RPC reply.
type Fault struct {
	Method  string
	Code    int
	Message string
}

// Error returns the method, the code, and Kamailio's message.
func (f *Fault) Error() string {
	return fmt.Sprintf("%s: kamailio answered error %d: %s", f.Method, f.Code, f.Message)
}

// Is lets errors.Is(err, ErrMethodNotFound) match. Kamailio uses code 500 for it
// (jsonrpcs_mod.c); the JSON-RPC specification uses -32601.
func (f *Fault) Is(target error) bool {
	return target == ErrMethodNotFound &&
		(f.Code == -32601 || strings.EqualFold(f.Message, "Method Not Found"))
}

// StillReadError is a reload that was not sent: a read of the module got no answer and
// may still be running in Kamailio, which can crash if both run at once.
type StillReadError struct {
	Module string
	Left   time.Duration // until the read is assumed to be over
}

// Error returns the module and the remaining time.
func (e *StillReadError) Error() string {
	return fmt.Sprintf("a read of %s was not answered and may still run; it cannot be reloaded for %s", e.Module, e.Left.Round(time.Second))
}

var (
	// ErrMethodNotFound matches the Fault for a method that the server does not have.
	ErrMethodNotFound = errors.New("method not found")
	// ErrUnreachable means that the request could not be delivered. Nothing was
	// sent, so trying another transport is safe.
	ErrUnreachable = errors.New("kamailio is not reachable")
	// ErrNoAnswer means that the request was delivered but not answered in time.
	ErrNoAnswer = errors.New("no answer")
	// ErrOutgrown means that the reply did not fit into the buffers of the ctl module.
	// Kamailio could not send all of it over BINRPC, and logged an error for each
	// value that it left out.
	ErrOutgrown = errors.New("the reply does not fit ctl's buffers: raise its binrpc_max_body_size and binrpc_struct_max_body_size (to powers of two), or add a socket of jsonrpcs as another URI")
	// ErrBadReply means that the reply is not a JSON-RPC reply to the request: it is
	// not JSON, is truncated, or has another id.
	ErrBadReply = errors.New("invalid reply")
	// ErrDangerous means that the cost table forbids the call on the running version.
	ErrDangerous = errors.New("dangerous")
	// ErrOtherKamailio means that a URI leads to another Kamailio than the preferred ones.
	ErrOtherKamailio = errors.New("leads to another Kamailio")
	// ErrReloading means that a read was not sent because its module is, or may be, reloading.
	ErrReloading = errors.New("the module is being reloaded")
	// ErrUnknownOutcome means that a change was sent, but it is unknown whether
	// Kamailio made it.
	ErrUnknownOutcome = errors.New("outcome unknown")
	// ErrNotPriced means that the cost table does not have the method, or not for this
	// use: for example, a change that was called as a read. See [PriceList].
	ErrNotPriced = errors.New("method is not in the cost table")
)
