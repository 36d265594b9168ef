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
	Sets   bool    // describes the new state, not which target is meant
	Secret bool    // its value is kept out of the audit log
	Find   *Finder // how a rule can search for the value; nil if it cannot
	// AnyCase means that Kamailio ignores case, so values that differ only in case name
	// the same target.
	AnyCase bool
	// By names another parameter whose value selects this parameter's form in Forms.
	By    string
	Forms map[string]Form

	anchored *regexp.Regexp // Pattern
}

// Form defines the valid values of a parameter for one value of another parameter.
type Form struct {
	Min, Max int64  // of an Int
	Zero     string // meaning of 0, which is then valid although out of bounds; "" if it is not valid
	Unit     string // unit of an Int; description of valid values of a String
	// Canonical returns a String as Kamailio writes it; ok is false if the value is
	// invalid.
	Canonical func(given string) (text string, ok bool)
}

// String describes the form in a few words.
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

// check returns the value as Kamailio needs it; ok is false if it is invalid.
func (f Form) check(value any) (checked any, ok bool) {
	switch v := value.(type) {
	case int64:
		return v, v >= f.Min && v <= f.Max || v == 0 && f.Zero != ""
	case string:
		return f.Canonical(v)
	}
	return value, false
}

// Fit checks the parameters whose form depends on another parameter and converts them
// to Kamailio's notation. Missing parameters are skipped.
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

// Finder queries Kamailio for the value of a parameter.
type Finder struct {
	Name string // name by which a rule refers to it
	Find func(ctx context.Context, k Kamailio) (string, error)
	None string // message if nothing is found
	// A rule that uses the finder must confirm this field with at_least of this value
	// or more; Why is part of the error message.
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

// Named returns a parameter that is the name of something.
func Named(n, help string) Param { return text(n, 64, namePattern, help) }

func (p Param) sets() Param           { p.Sets = true; return p }
func (p Param) secret() Param         { p.Secret = true; return p }
func (p Param) anyCase() Param        { p.AnyCase = true; return p }
func (p Param) found(by Finder) Param { p.Find = &by; return p }

func (p Param) by(other string, forms map[string]Form) Param {
	p.By, p.Forms = other, forms
	return p
}

// Args holds the parameters of one request: an int64, a string or a bool for each
// parameter of the action.
type Args map[string]any

func (a Args) text(name string) string { s, _ := a[name].(string); return s }

func (a Args) number(name string) int64 { n, _ := a[name].(int64); return n }

func (a Args) truth(name string) bool { b, _ := a[name].(bool); return b }

// ParamError names an invalid parameter, but never contains its value.
type ParamError struct{ Name, Why string }

func (e *ParamError) Error() string {
	if e.Name == "" {
		return "a parameter " + e.Why
	}
	return fmt.Sprintf("parameter %q %s", e.Name, e.Why)
}

// Number is a JSON number as it was written.
type Number string

var wholeNumber = regexp.MustCompile(`^(0|-?[1-9][0-9]*)$`)

// Check converts the values of a request body (string, Number or bool) into Args. All
// parameters of the action are required, and no others are allowed.
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
			// The name comes from the client, so it is not repeated.
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

// Given converts a text to the type that Check expects for this parameter.
func (p Param) Given(text string) any {
	switch {
	case p.Type == adminapi.Int:
		return Number(text)
	case p.Type == adminapi.Bool && (text == "true" || text == "false"):
		return text == "true"
	}
	return text
}

// Check reports whether the catalogue allows a value; if not, why says the reason.
func (p Param) Check(value any) (checked any, why string) {
	switch p.Type {
	case adminapi.Int:
		n, ok := value.(Number)
		if !ok || !wholeNumber.MatchString(string(n)) {
			return nil, "must be an integer, without quotes, decimal point or exponent"
		}
		i, err := strconv.ParseInt(string(n), 10, 64)
		if err != nil || p.By == "" && (i < p.Min || i > p.Max) { // with By, the form has the bounds
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

// NotPrintable reports whether a rune is outside printable ASCII.
func NotPrintable(r rune) bool { return r < ' ' || r > '~' }

// anchor compiles a regular expression that must match the whole text.
func anchor(pattern string) (*regexp.Regexp, error) { return regexp.Compile(`\A(?:` + pattern + `)\z`) }
