package admin

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// ParamType is what a parameter may be.
type ParamType string

// The types of parameters.
const (
	Int    ParamType = "int"
	Enum   ParamType = "enum"
	String ParamType = "string"
	Bool   ParamType = "bool"
)

// Param is one parameter of an action: its name and its outermost bounds. A grant
// narrows them.
type Param struct {
	Name     string    `json:"name"`
	Type     ParamType `json:"type"`
	Help     string    `json:"help"`
	Enum     []string  `json:"enum,omitempty"`
	Min      int64     `json:"min,omitempty"`     // of an Int
	Max      int64     `json:"max,omitempty"`     // of an Int
	MaxLen   int       `json:"max_len,omitempty"` // of a String, in bytes
	Pattern  string    `json:"pattern,omitempty"` // of a String; the whole of it has to match
	Secret   bool      `json:"-"`                 // its value is kept out of the audit log
	anchored *regexp.Regexp
}

// Args are the parameters of one request: an int64, a string or a bool for each
// of the action's.
type Args map[string]any

func (a Args) text(name string) string { s, _ := a[name].(string); return s }

func (a Args) number(name string) int64 { n, _ := a[name].(int64); return n }

func (a Args) truth(name string) bool { b, _ := a[name].(bool); return b }

// paramError names a parameter that may not be as it is, never its value.
type paramError struct{ name, why string }

func (e *paramError) Error() string {
	if e.name == "" {
		return "a parameter " + e.why
	}
	return fmt.Sprintf("parameter %q %s", e.name, e.why)
}

// number is what JSON calls one, as it was written.
type number string

var integer = regexp.MustCompile(`^(0|-?[1-9][0-9]*)$`)

// check turns the values of a body (string, number or bool) into Args, with
// exactly the parameters that the action has.
func check(params []Param, given map[string]any) (Args, error) {
	args := Args{}
	for _, p := range params {
		value, ok := given[p.Name]
		if !ok {
			return nil, &paramError{p.Name, "is missing"}
		}
		checked, why := p.check(value)
		if why != "" {
			return nil, &paramError{p.Name, why}
		}
		args[p.Name] = checked
	}
	for name := range given {
		if _, ok := args[name]; !ok {
			// Its name is the client's: not repeated.
			return nil, &paramError{"", "is not one of the action's: " + strings.Join(paramNames(params), ", ")}
		}
	}
	return args, nil
}

func paramNames(params []Param) []string {
	if len(params) == 0 {
		return []string{"it has none"}
	}
	names := make([]string, len(params))
	for i, p := range params {
		names[i] = p.Name
	}
	return names
}

func (p Param) check(value any) (checked any, why string) {
	switch p.Type {
	case Int:
		n, ok := value.(number)
		if !ok || !integer.MatchString(string(n)) {
			return nil, "must be an integer: no quotes, no point, no exponent"
		}
		i, err := strconv.ParseInt(string(n), 10, 64)
		if err != nil || i < p.Min || i > p.Max {
			return nil, fmt.Sprintf("must be from %d to %d", p.Min, p.Max)
		}
		return i, ""
	case Bool:
		b, ok := value.(bool)
		if !ok {
			return nil, "must be true or false"
		}
		return b, ""
	case Enum:
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
	case strings.ContainsFunc(s, notPrintable):
		return nil, "must be printable ASCII"
	case !p.anchored.MatchString(s):
		return nil, "must match " + p.Pattern
	}
	return s, ""
}

func notPrintable(r rune) bool { return r < ' ' || r > '~' }

// anchor makes a regular expression that matches the whole of a text or nothing.
// A multi-line flag in it would anchor at lines, but a text has no line breaks.
func anchor(pattern string) (*regexp.Regexp, error) { return regexp.Compile(`\A(?:` + pattern + `)\z`) }
