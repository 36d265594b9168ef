package kamrpc

import (
	"iter"
	"math"
	"strconv"
	"strings"
)

// Kind is the JSON type of a [Value].
type Kind uint8

// The kinds of a Value. Missing is the zero Value, returned if a path finds nothing.
const (
	Missing Kind = iota
	Null
	Bool
	Number
	String
	Array
	Object
)

// Value is one value of a reply. Unlike a Go map, it keeps the order of an object's
// members and all members with the same name. Kamailio writes some lists as one object
// with one member per row (permissions.trustedDump, pdt.list), and only the order shows
// which table a row belongs to.
//
// Strings are raw bytes: Kamailio copies what a peer sent into its JSON unchanged, so
// they may contain invalid UTF-8.
type Value struct {
	kind Kind
	text string   // Number, Bool: as written; String: decoded
	list []Member // Array: elements without names; Object: members
}

// Member is a member of an object, or an element of an array (without a name).
type Member struct {
	Name  string
	Value Value
}

// StringValue returns a String. Together with [ObjectValue], it lets a collector convert
// a reply in free text to rows that its table can read.
func StringValue(s string) Value { return Value{kind: String, text: s} }

// ObjectValue returns an Object with these members, in this order.
func ObjectValue(members []Member) Value { return Value{kind: Object, list: members} }

// Kind returns the JSON type.
func (v Value) Kind() Kind { return v.kind }

// Exists reports whether the value is neither missing nor null.
func (v Value) Exists() bool { return v.kind != Missing && v.kind != Null }

// Len returns the number of elements or members; 0 for all other kinds.
func (v Value) Len() int { return len(v.list) }

// Text returns the text of a String, or the literal of a Number or Bool as it was
// written; "" for all other kinds.
func (v Value) Text() string { return v.text }

// Texts returns the texts of a list's elements, as in system.listMethods.
func (v Value) Texts() []string {
	all := make([]string, 0, v.Len())
	for e := range v.All("") {
		all = append(all, e.Text())
	}
	return all
}

// Float returns the number in a Number, or in a String of digits: which one a field is
// depends on the version (stats.fetch, core.shmmem). Integers of 2^63 and above are
// negative counters that Kamailio printed with %lu (core/counters.h: a counter is a
// signed long); they are returned as negative numbers. ok is false for anything but a
// finite decimal number.
func (v Value) Float() (f float64, ok bool) {
	if v.kind != Number && v.kind != String {
		return 0, false
	}
	return parseNumber(v.text)
}

func notInNumber(r rune) bool {
	return (r < '0' || r > '9') && r != '+' && r != '-' && r != '.' && r != 'e' && r != 'E'
}

func parseNumber(s string) (float64, bool) {
	s = strings.TrimSpace(s)
	if s == "" || strings.ContainsFunc(s, notInNumber) { // no "nan", "0x1p3"
		return 0, false
	}
	if u, err := strconv.ParseUint(s, 10, 64); err == nil {
		if u > math.MaxInt64 {
			return float64(int64(u)), true //nolint:gosec // wrapping around is intended, see Float
		}
		return float64(u), true
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil { // f is infinite when it is too large
		return 0, false
	}
	return f, true
}

// Get returns the first value that [Value.All] finds, without flattening a final array,
// or the zero Value if there is none.
func (v Value) Get(path string) Value {
	name, rest, more := strings.Cut(path, "/")
	if v.kind == Array {
		for _, m := range v.list {
			if found := m.Value.Get(path); found.kind != Missing {
				return found
			}
		}
		return Value{}
	}
	for _, m := range v.list {
		if m.Name != name {
			continue
		}
		if !more {
			return m.Value
		}
		if found := m.Value.Get(rest); found.kind != Missing {
			return found
		}
	}
	return Value{}
}

// All follows a path of member names ("RECORDS/SET/TARGETS/DEST") and yields every value
// at its end, in order. An array on the path or at its end is replaced by its elements.
// So a list of rows, a single row without its list (Kamailio changes the shape of some
// replies), and a repeated name look the same to the caller. The empty path is the
// value itself.
func (v Value) All(path string) iter.Seq[Value] {
	return func(yield func(Value) bool) { v.walk(path, yield) }
}

func (v Value) walk(path string, yield func(Value) bool) bool {
	if v.kind == Array {
		for _, m := range v.list {
			if !m.Value.walk(path, yield) {
				return false
			}
		}
		return true
	}
	if path == "" {
		return yield(v)
	}
	name, rest, _ := strings.Cut(path, "/")
	for _, m := range v.list {
		if m.Name == name && !m.Value.walk(rest, yield) {
			return false
		}
	}
	return true
}

// Members yields the members of an object in the order of the reply, or the elements of
// an array, without names.
func (v Value) Members() iter.Seq[Member] {
	return func(yield func(Member) bool) {
		for _, m := range v.list {
			if !yield(m) {
				return
			}
		}
	}
}
