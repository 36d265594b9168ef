package action

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/adminapi"
)

// Param is one parameter of an action.
type Param struct {
	adminapi.Param
	Sets   bool    // it says what becomes of the target, not which it is
	Secret bool    // its value is kept out of the audit log
	Find   *Finder // how a rule can have it looked for; nil: it cannot
	// AnyCase: Kamailio compares it without case, so that what differs in case only is one
	// target.
	AnyCase bool
	// By is another parameter, each value of which may have a form of its own for this one.
	By    string
	Forms map[string]Form

	anchored *regexp.Regexp // Pattern
}

// Form is what the value of a parameter has to be by another parameter.
type Form struct {
	Min, Max int64  // of an Int
	Zero     string // what 0 means, which is let through beside them; "" if it is not
	Unit     string // of an Int; of a String, what it has to be
	// Canonical is a String as Kamailio writes it; ok is false when it may not be so.
	Canonical func(given string) (text string, ok bool)
}

// String is the form in a few words.
func (f Form) String() string {
	if f.Canonical != nil {
		return f.Unit
	}
	text := fmt.Sprintf("%d to %d (%s)", f.Min, f.Max, f.Unit)
	if f.Zero != "" {
		text += ", or 0 (" + f.Zero + ")"
	}
	return text
}

// check is the value as Kamailio is to get it; ok is false when it may not be so.
func (f Form) check(value any) (checked any, ok bool) {
	switch v := value.(type) {
	case int64:
		return v, v >= f.Min && v <= f.Max || v == 0 && f.Zero != ""
	case string:
		return f.Canonical(v)
	}
	return value, false
}

// Fit checks the parameters that have a form by another one, and makes each as Kamailio
// writes it. One that is not there is passed over.
func (a *Action) Fit(args Args) error {
	for _, p := range a.Params {
		form, has := p.Forms[args.text(p.By)]
		if value, given := args[p.Name]; has && given {
			checked, ok := form.check(value)
			if !ok {
				return &ParamError{p.Name, "must be " + form.String() + ", where " + p.By + " is " + args.text(p.By)}
			}
			args[p.Name] = checked
		}
	}
	return nil
}

// Finder looks for the value of a parameter at Kamailio.
type Finder struct {
	Name string // by which a rule asks for it
	Find func(ctx context.Context, k Kamailio) (string, error)
	None string // what is said when it finds none
	// What a rule has to confirm of it, by the number of this field.
	Field string
	Least int
	Why   string
}

func text(name string, maxLen int, pattern, help string) Param {
	return Param{Param: adminapi.Param{Name: name, Type: adminapi.String, MaxLen: maxLen, Pattern: pattern, Help: help}}
}

func integer(name string, least, most int64, help string) Param {
	return Param{Param: adminapi.Param{Name: name, Type: adminapi.Int, Min: least, Max: most, Help: help}}
}

func enum(name, help string, values ...string) Param {
	return Param{Param: adminapi.Param{Name: name, Type: adminapi.Enum, Enum: values, Help: help}}
}

func boolean(name, help string) Param {
	return Param{Param: adminapi.Param{Name: name, Type: adminapi.Bool, Help: help}}
}

// Named is a parameter that is the name of something.
func Named(n, help string) Param { return text(n, 64, namePattern, help) }

func (p Param) sets() Param           { p.Sets = true; return p }
func (p Param) secret() Param         { p.Secret = true; return p }
func (p Param) anyCase() Param        { p.AnyCase = true; return p }
func (p Param) found(by Finder) Param { p.Find = &by; return p }

func (p Param) by(other string, forms map[string]Form) Param {
	p.By, p.Forms = other, forms
	return p
}

// Args are the parameters of one request: an int64, a string or a bool for each
// of the action's.
type Args map[string]any

func (a Args) text(name string) string { s, _ := a[name].(string); return s }

func (a Args) number(name string) int64 { n, _ := a[name].(int64); return n }

func (a Args) truth(name string) bool { b, _ := a[name].(bool); return b }

// ParamError names a parameter that may not be as it is, never its value.
type ParamError struct{ Name, Why string }

func (e *ParamError) Error() string {
	if e.Name == "" {
		return "a parameter " + e.Why
	}
	return fmt.Sprintf("parameter %q %s", e.Name, e.Why)
}

// Number is what JSON calls one, as it was written.
type Number string

var wholeNumber = regexp.MustCompile(`^(0|-?[1-9][0-9]*)$`)

// Check turns the values of a body (string, Number or bool) into Args, with
// exactly the parameters that the action has.
func (a *Action) Check(given map[string]any) (Args, error) {
	args := Args{}
	for _, p := range a.Params {
		value, ok := given[p.Name]
		if !ok {
			return nil, &ParamError{p.Name, "is missing"}
		}
		checked, why := p.Check(value)
		if why != "" {
			return nil, &ParamError{p.Name, why}
		}
		args[p.Name] = checked
	}
	for name := range given {
		if _, ok := args[name]; !ok {
			// Its name is the client's: not repeated.
			return nil, &ParamError{"", "is not a parameter of this action: " + a.paramNames()}
		}
	}
	return args, a.Fit(args)
}

func (a *Action) paramNames() string {
	if len(a.Params) == 0 {
		return "it has none"
	}
	names := make([]string, len(a.Params))
	for i, p := range a.Params {
		names[i] = p.Name
	}
	return strings.Join(names, ", ")
}

// Given is a text as Check wants the value of this parameter.
func (p Param) Given(text string) any {
	switch {
	case p.Type == adminapi.Int:
		return Number(text)
	case p.Type == adminapi.Bool && (text == "true" || text == "false"):
		return text == "true"
	}
	return text
}

// Check tells whether the catalogue lets a value through, and else why not.
func (p Param) Check(value any) (checked any, why string) {
	switch p.Type {
	case adminapi.Int:
		n, ok := value.(Number)
		if !ok || !wholeNumber.MatchString(string(n)) {
			return nil, "must be an integer, without quotes, decimal point or exponent"
		}
		i, err := strconv.ParseInt(string(n), 10, 64)
		if err != nil || p.By == "" && (i < p.Min || i > p.Max) { // else its form says which
			return nil, fmt.Sprintf("must be from %d to %d", p.Min, p.Max)
		}
		return i, ""
	case adminapi.Bool:
		b, ok := value.(bool)
		if !ok {
			return nil, "must be true or false"
		}
		return b, ""
	case adminapi.Enum:
		s, ok := value.(string)
		if !ok || !slices.Contains(p.Enum, s) {
			return nil, "must be one of " + strings.Join(p.Enum, ", ")
		}
		return s, ""
	}
	s, ok := value.(string)
	switch {
	case !ok:
		return nil, "must be a string"
	case s == "" || len(s) > p.MaxLen:
		return nil, fmt.Sprintf("must have from 1 to %d bytes", p.MaxLen)
	case strings.ContainsFunc(s, NotPrintable):
		return nil, "must be printable ASCII"
	case !p.anchored.MatchString(s):
		return nil, "must match " + p.Pattern
	}
	return s, ""
}

// NotPrintable tells whether a rune is none of printable ASCII.
func NotPrintable(r rune) bool { return r < ' ' || r > '~' }

// anchor makes a regular expression that matches the whole of a text or nothing.
// A multi-line flag in it would anchor at lines, but a text has no line breaks.
func anchor(pattern string) (*regexp.Regexp, error) { return regexp.Compile(`\A(?:` + pattern + `)\z`) }
