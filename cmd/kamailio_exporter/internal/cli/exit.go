package cli

import (
	"errors"
	"fmt"
	"strings"
)

// Exit codes of "admin run"; "rpc" shares some of them. 0 is success.
const (
	ExitTrouble      = 1 // usage error, or the request was not sent
	ExitRefused      = 2
	ExitFailed       = 3
	ExitUnverified   = 4 // nothing shows whether the action took effect
	ExitUnknown      = 5
	ExitContradicted = 6 // what was read back contradicts the reply
)

const usageError = "usage error"

// ExitCodes returns the exit codes of a command and their meanings, in ascending order
// from 0.
func ExitCodes(command string) []string {
	return map[string][]string{
		"serve":       {"stopped by a signal", usageError + ", invalid file, or the port is in use"},
		"doctor":      {"healthy", "degraded", "broken: no metrics from Kamailio, or the exporter cannot start", usageError},
		"rpc":         {"Kamailio replied", usageError, "refused, Kamailio was not called", "Kamailio replied with an error", "no reply"},
		"admin":       {"success", usageError + ", or the request was not sent", "refused", "Kamailio replied with an error", "Kamailio reported success, but the change cannot be verified", "the outcome is unknown", "Kamailio reported success, but its state contradicts that"},
		"assets":      {"success", usageError + ", or a file cannot be written"},
		"healthcheck": {"the exporter runs", usageError + ", or the exporter does not reply"},
	}[command]
}

// exitHelp returns the last sentence of a command's help.
func exitHelp(command string) string {
	var all []string
	for code, meaning := range ExitCodes(command) {
		all = append(all, fmt.Sprintf("%d %s", code, meaning))
	}
	return " Exit codes: " + strings.Join(all, "; ") + "."
}

// UsageError is an error in the user's input. It has the command's exit code for usage
// errors.
func UsageError(command string, err error) error {
	for code, meaning := range ExitCodes(command) {
		if err != nil && strings.HasPrefix(meaning, usageError) {
			return Exit(code, err.Error())
		}
	}
	return err
}

type codedError struct {
	code int
	text string
}

func (e *codedError) Error() string { return e.text }

// Exit returns an error that ends the process with a code. If text is empty, nothing is
// printed.
func Exit(code int, text string) error { return &codedError{code, text} }

// ExitCode returns the exit code of the process after an error.
func ExitCode(err error) int {
	if coded := (*codedError)(nil); errors.As(err, &coded) {
		return coded.code
	}
	return ExitTrouble
}

// IsCoded reports whether an error has an exit code of its own.
func IsCoded(err error) bool { return errors.As(err, new(*codedError)) }
