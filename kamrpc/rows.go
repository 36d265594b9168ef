package kamrpc

import (
	"fmt"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// Rows selects the rows of a large result. An empty list on the path yields one missing
// row, so that the objects above it are still reported. A row is valid only until yield
// returns, but its strings may be kept.
type Rows struct {
	// Path leads to the rows, by the rules of [Value.All]:
	// "Domains/Domain/AoRs/Info/Contacts/Contact". Empty: the result is a list. The
	// name * matches any name.
	Path string
	// Fields are the wanted members of a row; all others are skipped without being
	// kept. Empty means all. An object without these fields still counts as a row, but
	// an empty object does not: Kamailio returns it if there is nothing to list.
	Fields []string
	// Texts also makes rows of the texts in a list. Otherwise they are skipped.
	Texts bool
}

// Above holds the members of the objects that contain a row, outermost first: those that
// came before the row and are neither objects nor lists. Examples are the domain name of
// a contact and the set number of a destination. If a name repeats, the last one counts:
// Kamailio writes some lists as one object in which the members of all rows follow each
// other (permissions.domainDump).
type Above struct{ open [][]Member }

// Text returns a member's text, from the innermost object that has it.
func (a Above) Text(name string) string {
	for _, members := range slices.Backward(a.open) {
		for _, m := range members {
			if m.Name == name {
				return m.Value.Text()
			}
		}
	}
	return ""
}

// Keep returns a copy that stays valid after yield has returned.
func (a Above) Keep() Above {
	open := make([][]Member, len(a.open))
	for i, members := range a.open {
		open[i] = slices.Clone(members)
	}
	return Above{open}
}

// Keep returns a copy of a row that stays valid after yield has returned.
func (v Value) Keep() Value {
	v.list = slices.Clone(v.list)
	return v
}

// yieldError wraps the caller's own error, so that it is not reported as a bad reply.
type yieldError struct{ err error }

func (e *yieldError) Error() string { return e.err.Error() }

// rows decodes a result row by row. An empty list is not an error, but a reply that has
// content and nothing on the path is.
func (d *decoder) rows(rows Rows, yield func(Above, Value) error) error {
	w := rowWalk{d: d, fields: rows.Fields, texts: rows.Texts, yield: yield}
	if rows.Path != "" {
		w.path = strings.Split(rows.Path, "/")
	}
	if err := w.walk(0, 1); err != nil {
		return err
	}
	if !w.found && w.members {
		return fmt.Errorf("%w: it has nothing at %s; this Kamailio may be newer than the exporter", ErrBadReply, rows.Path)
	}
	return nil
}

type rowWalk struct {
	d       *decoder
	path    []string
	fields  []string
	texts   bool
	yield   func(Above, Value) error
	above   Above
	found   bool // the first name of the path was found
	members bool // the reply had any content
}

var errTooDeep = fmt.Errorf("nested deeper than %d levels", maxDepth)

// walk reads the value at the end of the first at names of the path.
func (w *rowWalk) walk(at, depth int) error {
	if depth > maxDepth {
		return errTooDeep
	}
	dec := w.d.dec
	switch kind := dec.PeekKind(); {
	case kind == jsontext.KindBeginArray:
		if _, err := dec.ReadToken(); err != nil {
			return err
		}
		if dec.PeekKind() == jsontext.KindEndArray && len(w.path) > 0 {
			if err := w.hand(Value{}); err != nil {
				return err
			}
		}
		for dec.PeekKind() != jsontext.KindEndArray {
			if err := w.walk(at, depth+1); err != nil {
				return err
			}
		}
		_, err := dec.ReadToken()
		return err
	case kind == jsontext.KindBeginObject && at == len(w.path):
		return w.row(depth)
	case kind == jsontext.KindBeginObject:
		return w.object(at, depth)
	case kind == jsontext.KindString && at == len(w.path) && w.texts:
		v, err := w.d.value(depth)
		w.d.values = 0
		if err != nil {
			return err
		}
		return w.hand(v)
	}
	return w.skip()
}

// object looks for the next name of the path, and keeps the plain members that come
// before it.
func (w *rowWalk) object(at, depth int) error {
	level := len(w.above.open)
	w.above.open = append(w.above.open, nil)
	defer func() { w.above.open = w.above.open[:level] }()
	return w.d.members(func(name string) error {
		w.members = true
		kind := w.d.dec.PeekKind()
		if kind == jsontext.KindBeginObject || kind == jsontext.KindBeginArray {
			if name != w.path[at] && w.path[at] != "*" {
				return w.skip()
			}
			w.found = true
			return w.walk(at+1, depth+1)
		}
		v, err := w.d.value(depth + 1)
		w.d.values = 0
		w.keep(level, Member{name, v})
		return err
	})
}

// keep adds a member to those above the rows. A member with the same name belongs to an
// earlier row and is replaced.
func (w *rowWalk) keep(level int, m Member) {
	beside := w.above.open[level]
	if i := slices.IndexFunc(beside, func(known Member) bool { return known.Name == m.Name }); i >= 0 {
		beside[i] = m
	} else if len(beside) < maxAbove {
		w.above.open[level] = append(beside, m)
	}
}

// maxAbove limits how many members are kept of an object that is not a row.
const maxAbove = 64

// row decodes the wanted fields and passes them to yield.
func (w *rowWalk) row(depth int) error {
	w.d.values = 0 // the limit is for values that are kept, and rows are not
	mark := len(w.d.stack)
	members := false
	err := w.d.rawMembers(func(raw []byte) error {
		members = true
		name, wanted := w.wanted(raw)
		if !wanted {
			return w.skip()
		}
		v, err := w.d.value(depth + 1)
		w.d.stack = append(w.d.stack, Member{name, v})
		return err
	})
	if err == nil && members {
		err = w.hand(Value{kind: Object, list: w.d.stack[mark:]})
	}
	clear(w.d.stack[mark:])
	w.d.stack = w.d.stack[:mark]
	return err
}

// wanted compares raw bytes, so that skipped names, which are most, allocate no string.
func (w *rowWalk) wanted(raw []byte) (name string, ok bool) {
	if len(w.fields) == 0 {
		return w.d.name(raw), true
	}
	for _, field := range w.fields {
		if string(raw[1:len(raw)-1]) == field {
			return field, true
		}
	}
	return "", false
}

func (w *rowWalk) hand(row Value) error {
	if err := w.yield(w.above, row); err != nil {
		return &yieldError{err}
	}
	return nil
}

// skip skips a value. The tokenizer limits its depth.
func (w *rowWalk) skip() error { return w.d.dec.SkipValue() }
