package kamrpc

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// Limits for one reply, which is untrusted input. Depth limits the stack, because a Go
// stack overflow cannot be recovered. Values limit memory, because a short text can
// expand to many values.
const (
	maxDepth  = 64
	maxValues = 1 << 20
	// valueBytes is the part of the byte limit that allows one value: the default limit
	// allows maxValues, and a lower limit allows proportionally fewer.
	valueBytes = DefaultMaxReplyBytes / maxValues
	minValues  = 1 << 10
)

// ErrTooLarge means that a reply exceeds the limit of bytes or of values.
var ErrTooLarge = errors.New("reply too large")

// limitedReader returns ErrTooLarge if a reply is too long. io.LimitReader would return
// EOF, which looks like a truncated reply.
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

// newDecoder accepts what Kamailio writes: repeated names and raw bytes in strings.
func newDecoder(r io.Reader) *decoder {
	d := &decoder{dec: new(jsontext.Decoder), names: map[string]string{}}
	d.reset(r, maxValues)
	return d
}

type decoder struct {
	dec     *jsontext.Decoder
	values  int
	limit   int               // of values
	names   map[string]string // one string per member name, shared by all rows
	stack   []Member          // members of the open objects and arrays, innermost last
	texts   strings.Builder   // a block of the texts that are kept
	scratch []byte
}

func (d *decoder) reset(r io.Reader, limit int) {
	d.dec.Reset(r, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	d.values, d.limit = 0, limit
}

// decoders are reused: their buffers and the names that they know cost more than to decode
// a usual reply.
var decoders = sync.Pool{New: func() any { return newDecoder(strings.NewReader("")) }}

// reuse makes the decoder available for another reply, unless this one was large.
func (d *decoder) reuse() {
	if d.dec.InputOffset() > maxReusedBytes {
		return
	}
	if len(d.names) > maxNames/2 {
		clear(d.names) // some of them are data, which another reply does not have
	}
	clear(d.stack)
	d.stack = d.stack[:0]
	d.reset(strings.NewReader(""), 0)
	decoders.Put(d)
}

const (
	maxReusedBytes = 256 << 10
	// Names that are data (pdt.list) must not fill the map.
	maxNames    = 1024
	maxNameSize = 64
	// textBlock is small, because a text that is kept for long keeps its block.
	textBlock = 512
)

// text returns a string of these bytes. Small ones are parts of one block: allocating each
// of them takes as long as decoding it.
func (d *decoder) text(b []byte) string {
	if len(b) > textBlock/4 {
		return string(b)
	}
	if d.texts.Cap()-d.texts.Len() < len(b) {
		d.texts = strings.Builder{}
		d.texts.Grow(textBlock)
	}
	at := d.texts.Len()
	d.texts.Write(b)
	return d.texts.String()[at:]
}

// take removes everything pushed since mark from the stack, and returns it as a list of
// the exact length. Growing each list separately used three times the memory.
func (d *decoder) take(mark int) []Member {
	if mark == len(d.stack) {
		return nil
	}
	list := slices.Clone(d.stack[mark:])
	clear(d.stack[mark:])
	d.stack = d.stack[:mark]
	return list
}

// value decodes the whole next value.
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
		return Value{kind: String, text: d.text(d.unquote(raw))}, nil
	case jsontext.KindNumber:
		return Value{kind: Number, text: d.text(raw)}, nil
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

// members reads an object and calls each with every name in turn; each must read the
// value that follows.
func (d *decoder) members(each func(name string) error) error {
	return d.rawMembers(func(raw []byte) error { return each(d.name(raw)) })
}

// rawMembers is like members, but passes the names as written, including quotes. A name
// is valid only until its value is read.
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
	name := string(d.unquote(raw))
	if len(d.names) < maxNames && len(raw) <= maxNameSize {
		d.names[string(raw)] = name
	}
	return name
}

// unquote decodes a JSON string that jsontext has validated. jsontext itself would turn
// every byte that is not UTF-8 into U+FFFD, so that two different names could become equal.
// The result is valid until the next call.
func (d *decoder) unquote(raw []byte) []byte {
	raw = raw[1 : len(raw)-1]
	if bytes.IndexByte(raw, '\\') < 0 {
		return raw
	}
	out := d.scratch[:0]
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
	d.scratch = out
	return out
}

func hex4(b []byte) rune {
	n, err := strconv.ParseUint(string(b[:min(4, len(b))]), 16, 16)
	if err != nil {
		return utf8.RuneError
	}
	return rune(n)
}
