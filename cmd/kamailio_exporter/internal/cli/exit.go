package cli

import (
	"errors"
)

// What the process ends with after "admin run", and in part after "rpc"; 0 is
// applied, and nothing to do.
const (
	ExitTrouble      = 1 // wrong usage, or nobody was asked
	ExitRefused      = 2
	ExitFailed       = 3
	ExitUnverified   = 4 // nothing shows whether it was done
	ExitUnknown      = 5
	ExitContradicted = 6 // what is read says that it was not done
)

type codedError struct {
	code int
	text string
}

func (e *codedError) Error() string { return e.text }

// Exit ends the process with this code. Without a text there is nothing more to say.
func Exit(code int, text string) error { return &codedError{code, text} }

// ExitCode is what the process ends with after an error.
func ExitCode(err error) int {
	if coded := (*codedError)(nil); errors.As(err, &coded) {
		return coded.code
	}
	return ExitTrouble
}

// IsCoded tells whether an error has a code of its own.
func IsCoded(err error) bool { return errors.As(err, new(*codedError)) }
