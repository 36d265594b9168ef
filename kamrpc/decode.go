package kamrpc

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// What one reply may cost us. A reply is untrusted input: depth bounds the stack
// (a Go stack overflow cannot be recovered), values bound the memory that a
// small text can be blown up to.
const (
	maxDepth  = 64
	maxValues = 1 << 20
	// valueBytes of a reply's limit are for one value each: this many has the
	// default limit, and less room for text is room for fewer values.
	valueBytes = DefaultMaxReplyBytes / maxValues
	minValues  = 1 << 10
)

// ErrTooLarge is a reply beyond the limit of bytes or of values.
var ErrTooLarge = errors.New("reply too large")

// limitedReader ends a reply that is longer than it may be with ErrTooLarge,
// where io.LimitReader would end it with an EOF that looks like a cut.
type limitedReader struct {
	r    io.Reader
	left int64
	max  int64
}

func (l *limitedReader) Read(p []byte) (int, error) {
	if l.left <= 0 {
		return 0, fmt.Errorf("%w: more than %d bytes", ErrTooLarge, l.max)
	}
	if int64(len(p)) > l.left {
		p = p[:l.left]
	}
	n, err := l.r.Read(p)
	l.left -= int64(n)
	return n, err
}

// newDecoder reads what Kamailio writes: repeated names, raw bytes in strings.
func newDecoder(r io.Reader) *decoder {
	return &decoder{
		dec:   jsontext.NewDecoder(r, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)),
		limit: maxValues,
		names: map[string]string{},
	}
}

type decoder struct {
	dec    *jsontext.Decoder
	values int
	limit  int               // of values
	names  map[string]string // one string for each member name, however many rows carry it
	stack  []Member          // of the objects and arrays that are open, innermost last
}

// take cuts what was pushed since mark off the stack, into a list that is as
// long as it must be: growing each list by itself cost three times the memory.
func (d *decoder) take(mark int) []Member {
	list := slices.Clone(d.stack[mark:])
	clear(d.stack[mark:])
	d.stack = d.stack[:mark]
	return list
}

// value decodes the next value whole.
func (d *decoder) value(depth int) (Value, error) {
	if depth > maxDepth {
		return Value{}, fmt.Errorf("nested deeper than %d levels", maxDepth)
	}
	if d.values++; d.values > d.limit {
		return Value{}, fmt.Errorf("%w: more than %d values", ErrTooLarge, d.limit)
	}
	switch d.dec.PeekKind() {
	case jsontext.KindBeginObject:
		return d.object(depth)
	case jsontext.KindBeginArray:
		return d.array(depth)
	}
	raw, err := d.dec.ReadValue()
	if err != nil {
		return Value{}, err
	}
	switch raw.Kind() {
	case jsontext.KindString:
		return Value{kind: String, text: unquote(raw)}, nil
	case jsontext.KindNumber:
		return Value{kind: Number, text: string(raw)}, nil
	case jsontext.KindTrue, jsontext.KindFalse:
		return Value{kind: Bool, text: string(raw)}, nil
	default:
		return Value{kind: Null}, nil
	}
}

func (d *decoder) object(depth int) (Value, error) {
	mark := len(d.stack)
	err := d.members(func(name string) error {
		member, err := d.value(depth + 1)
		d.stack = append(d.stack, Member{name, member})
		return err
	})
	return Value{kind: Object, list: d.take(mark)}, err
}

// members reads an object and calls each with every name in turn; each must
// read the value that follows.
func (d *decoder) members(each func(name string) error) error {
	return d.rawMembers(func(raw []byte) error { return each(d.name(raw)) })
}

// rawMembers is members with the names as they are written, quotes included, and
// only until the value is read.
func (d *decoder) rawMembers(each func(raw []byte) error) error {
	if _, err := d.dec.ReadToken(); err != nil {
		return err
	}
	for d.dec.PeekKind() != jsontext.KindEndObject {
		raw, err := d.dec.ReadValue()
		if err != nil {
			return err
		}
		if err := each(raw); err != nil {
			return err
		}
	}
	_, err := d.dec.ReadToken()
	return err
}

func (d *decoder) array(depth int) (Value, error) {
	mark := len(d.stack)
	if _, err := d.dec.ReadToken(); err != nil {
		return Value{}, err
	}
	for d.dec.PeekKind() != jsontext.KindEndArray {
		element, err := d.value(depth + 1)
		if err != nil {
			return Value{}, err
		}
		d.stack = append(d.stack, Member{Value: element})
	}
	_, err := d.dec.ReadToken()
	return Value{kind: Array, list: d.take(mark)}, err
}

// name decodes a member's name.
func (d *decoder) name(raw []byte) string {
	if known, ok := d.names[string(raw)]; ok {
		return known
	}
	name := unquote(raw)
	if len(d.names) < 1024 { // names that are data (pdt.list) must not fill it
		d.names[string(raw)] = name
	}
	return name
}

// unquote decodes a JSON string that jsontext has found well-formed. It is ours
// and not jsontext's because that one turns every byte that is not UTF-8 into
// U+FFFD: two names that differ would become one.
func unquote(raw []byte) string {
	raw = raw[1 : len(raw)-1]
	if bytes.IndexByte(raw, '\\') < 0 {
		return string(raw)
	}
	out := make([]byte, 0, len(raw))
	for i := 0; i < len(raw); i++ {
		if raw[i] != '\\' {
			out = append(out, raw[i])
			continue
		}
		i++
		switch raw[i] {
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case 't':
			out = append(out, '\t')
		case 'u':
			r := hex4(raw[i+1:])
			i += 4
			if utf16.IsSurrogate(r) && i+6 < len(raw) && raw[i+1] == '\\' && raw[i+2] == 'u' {
				if pair := utf16.DecodeRune(r, hex4(raw[i+3:])); pair != utf8.RuneError {
					r = pair
					i += 6
				}
			}
			out = utf8.AppendRune(out, r) // a lone surrogate becomes U+FFFD
		default: // " \ /
			out = append(out, raw[i])
		}
	}
	return string(out)
}

func hex4(b []byte) rune {
	n, err := strconv.ParseUint(string(b[:min(4, len(b))]), 16, 16)
	if err != nil {
		return utf8.RuneError
	}
	return rune(n)
}
