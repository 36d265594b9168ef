package kamrpc

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"sync"
)

// binrpcReader converts BINRPC replies to the JSON that jsonrpcs would have written. It
// works piece by piece and buffers only a few KiB, whatever lengths a reply announces.
// The client's limits of bytes, values, and depth apply to the JSON.
//
//	BINRPC                                 JSON
//	int of 32 bits, signed or not          number (see shape)
//	double, in thousandths                 number; null if it overflowed
//	string, bytes                          string; "<null string>" is null
//	struct of names and values             object, or a list (see shape) of objects with one member
//	struct of values                       list
//	several values at the top level        list (see shape), else the last value
//
// Dates and booleans (formats "t" and "b") become numbers; no method of the cost table
// uses them.
type binrpcReader struct {
	in     *bufio.Reader
	method string
	reads  bool // the method is a read
	shape  shape
	err    error // permanent

	out   []byte // JSON that has not been read yet, starting at index taken
	taken int

	at      int64 // bytes read
	left    int64 // of the packet, in bytes
	id      uint64
	replies int  // complete ones
	open    bool // inside a reply
	levels  []binrpcLevel
	name    string // of the next value
	text    int64  // bytes left of the string being read
	zero    bool   // the last of them is the final zero byte
	scratch []byte
}

// binrpcLevel is the reply itself or a structure in it. Kamailio collects each one in
// its own buffer.
type binrpcLevel struct {
	end     byte  // type of the record that ends it
	list    bool  // shape says that it is a list
	kind    byte  // [ or {, 0 before the first record
	values  int   // so far
	named   bool  // the name of the next value has been written
	wrapped bool  // and that value has its own object
	buffer  int64 // bytes that Kamailio has put into this buffer
}

// binrpcReaders are reused, with their buffers.
var binrpcReaders = sync.Pool{New: func() any { return &binrpcReader{in: bufio.NewReader(nil)} }}

func newBinrpcReader(in io.Reader, method string) *binrpcReader {
	r := &binrpcReader{in: bufio.NewReader(nil)}
	r.reset(in, method)
	return r
}

func (r *binrpcReader) reset(in io.Reader, method string) {
	price, ok := PriceOf(method)
	r.in.Reset(in)
	*r = binrpcReader{
		in: r.in, method: method, reads: ok && price.Effect == Read, shape: shapes[method],
		out: r.out[:0], levels: r.levels[:0], scratch: r.scratch[:0],
	}
}

func (r *binrpcReader) Read(p []byte) (int, error) {
	for r.taken == len(r.out) {
		if r.err != nil {
			return 0, r.err
		}
		r.out, r.taken = r.out[:0], 0
		for r.err == nil && len(r.out) < 2<<10 && (r.open || len(r.out) == 0) {
			r.err = r.step()
		}
	}
	n := copy(p, r.out[r.taken:])
	r.taken += n
	return n, nil
}

// step reads one record or a piece of one.
func (r *binrpcReader) step() error {
	switch {
	case !r.open:
		return r.header()
	case r.text > 0:
		return r.copyText()
	case r.left == 0:
		return r.finish()
	}
	return r.record()
}

func (r *binrpcReader) bad() error { return fmt.Errorf("not BINRPC at byte %d", r.at) }

// byte reads one byte of the packet.
func (r *binrpcReader) byte() (byte, error) {
	if r.left == 0 {
		return 0, r.bad()
	}
	b, err := r.in.ReadByte()
	if err != nil {
		return 0, cutOff(err)
	}
	r.at++
	r.left--
	return b, nil
}

func cutOff(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// number reads a big-endian number of size bytes.
func (r *binrpcReader) number(size int64) (n uint64, err error) {
	for range size {
		b, err := r.byte()
		if err != nil {
			return 0, err
		}
		n = n<<8 | uint64(b)
	}
	return n, nil
}

// header reads the start of a packet. If the stream ends before it, the error is io.EOF.
func (r *binrpcReader) header() error {
	first, err := r.in.ReadByte()
	if err != nil {
		return err
	}
	if first != binrpcMagic {
		return r.bad()
	}
	r.at++
	r.left = 1
	flags, err := r.byte()
	if err != nil {
		return err
	}
	lengthSize, cookieSize := int64(flags>>2&3)+1, int64(flags&3)+1
	r.left = lengthSize + cookieSize
	length, err := r.number(lengthSize)
	if err != nil {
		return err
	}
	if r.id, err = r.number(cookieSize); err != nil {
		return err
	}
	r.left = int64(length) //nolint:gosec // the value has 32 bits
	switch flags >> 4 {
	case binrpcReplyType:
		r.open = true
		r.levels = append(r.levels[:0], binrpcLevel{list: r.shape.whole})
		r.put(`{`)
		if r.shape.whole {
			r.put(`"result":[`)
		}
		return nil
	case binrpcFaultType:
		return r.fault()
	}
	return r.bad()
}

// binrpcMaxFault is larger than any fault: Kamailio truncates the text at 256 bytes.
const binrpcMaxFault = 4 << 10

// fault reads an error code and its text.
func (r *binrpcReader) fault() error {
	if r.left > binrpcMaxFault {
		return r.bad()
	}
	kind, size, err := r.size()
	if err != nil {
		return err
	}
	if kind != binrpcInt || size > 4 {
		return r.bad()
	}
	code, err := r.number(size)
	if err != nil {
		return err
	}
	kind, size, err = r.size()
	if err != nil {
		return err
	}
	if kind != binrpcString || size != r.left {
		return r.bad()
	}
	text := make([]byte, size)
	if _, err := io.ReadFull(r.in, text); err != nil {
		return cutOff(err)
	}
	r.at += size
	r.left = 0
	text = bytes.TrimSuffix(text, []byte{0})
	switch {
	case bytes.HasPrefix(text, []byte("Internal")) && r.reads:
		// A record did not fit. rpc_add says "Internal server error processing …:
		// buffer too small (overflow)". If a structure was too small, only the
		// method itself reports it: "Internal error …".
		return fmt.Errorf("%w (error %d: %q)", ErrOutgrown, int32(code), text) //nolint:gosec // the signed value is wanted
	case string(text) == "command "+r.method+" not found":
		text = []byte("Method Not Found") // as jsonrpcs says it
	}
	r.put(`{"error":{"code":`)
	r.out = strconv.AppendInt(r.out, int64(int32(code)), 10) //nolint:gosec // the signed value is wanted
	r.put(`,"message":"`)
	r.quote(text)
	r.put(`"}`)
	r.putID()
	return nil
}

// size reads the head of a record. For the end of a structure, size is -1.
func (r *binrpcReader) size() (kind byte, size int64, err error) {
	head, err := r.byte()
	if err != nil {
		return 0, 0, err
	}
	kind, size = head&0xf, int64(head>>4)
	if kind == binrpcDouble || size&binrpcLong == 0 {
		return kind, size, nil
	}
	size &^= binrpcLong
	if size == 0 && (kind == binrpcStruct || kind == binrpcArray) {
		return kind, -1, nil
	}
	if size == 0 || size > 4 {
		return 0, 0, r.bad()
	}
	n, err := r.number(size)
	if err != nil {
		return 0, 0, err
	}
	if size = int64(n); size > r.left { //nolint:gosec // the value has 32 bits
		return 0, 0, r.bad()
	}
	return kind, size, nil
}

func (r *binrpcReader) level() *binrpcLevel { return &r.levels[len(r.levels)-1] }

func (r *binrpcReader) record() error {
	before := r.left
	in := len(r.levels) - 1
	kind, size, err := r.size()
	if err != nil {
		return err
	}
	switch kind {
	case binrpcName:
		err = r.readName(size)
	case binrpcInt:
		err = r.integer(size)
	case binrpcDouble:
		err = r.double(size)
	case binrpcString, binrpcBytes:
		err = r.string(size, kind == binrpcString)
	case binrpcStruct, binrpcArray:
		switch size {
		case 0:
			err = r.begin(kind)
		case -1:
			if err = r.end(kind); err == nil {
				in-- // the end marker is in the same buffer as the start marker
			}
		default:
			err = r.bad()
		}
	default:
		err = r.bad()
	}
	if err == nil {
		r.levels[in].buffer += before - r.left + r.text
	}
	return err
}

// binrpcMaxName is more than the default size of a structure.
const binrpcMaxName = 16 << 10

func (r *binrpcReader) readName(size int64) error {
	l := r.level()
	if len(r.levels) == 1 || l.named || size == 0 || size > min(r.left, binrpcMaxName) {
		return r.bad()
	}
	r.scratch = slices.Grow(r.scratch[:0], int(size))[:size]
	if _, err := io.ReadFull(r.in, r.scratch); err != nil {
		return cutOff(err)
	}
	r.at += size
	r.left -= size
	name := bytes.TrimSuffix(r.scratch, []byte{0})
	r.name = string(name)
	if l.kind == 0 {
		l.kind = '{'
		if l.list {
			l.kind = '['
		}
		r.out = append(r.out, l.kind)
	}
	r.comma(l)
	if l.kind == '[' {
		r.put(`{`)
		l.wrapped = true
	}
	r.put(`"`)
	r.quote(name)
	r.put(`":`)
	l.named = true
	return nil
}

// comma writes the separator before all values but the first.
func (r *binrpcReader) comma(l *binrpcLevel) {
	if l.values > 0 {
		r.put(`,`)
	}
	l.values++
}

// value writes what precedes a value.
func (r *binrpcReader) value() {
	l := r.level()
	switch {
	case l.named:
		l.named = false
		return
	case len(r.levels) == 1:
		r.comma(l)
		if !l.list {
			// jsonrpcs keeps the last of several, and so does the client.
			r.put(`"result":`)
		}
		return
	case l.kind == 0:
		l.kind = '['
		r.put(`[`)
	}
	r.comma(l)
	r.name = ""
	if l.kind == '{' {
		r.put(`"":`)
	}
}

// after writes what follows a value.
func (r *binrpcReader) after() {
	if l := r.level(); l.wrapped {
		l.wrapped = false
		r.put(`}`)
	}
}

// binrpcMaxDepth is the depth that jsontext accepts in skipped values. The client limits
// the depth of the values that it keeps.
const binrpcMaxDepth = 10_000

func (r *binrpcReader) begin(kind byte) error {
	if len(r.levels) > binrpcMaxDepth {
		return fmt.Errorf("nested deeper than %d levels", binrpcMaxDepth)
	}
	r.value()
	r.levels = append(r.levels, binrpcLevel{
		end:  kind,
		list: kind == binrpcArray || len(r.levels) > 1 && slices.Contains(r.shape.lists, r.name),
	})
	r.name = ""
	return nil
}

func (r *binrpcReader) end(kind byte) error {
	l := r.level()
	if len(r.levels) == 1 || l.end != kind || l.named {
		return r.bad()
	}
	if full(l.buffer, binrpcStructBuffer, binrpcStructSlack) {
		return ErrOutgrown
	}
	switch {
	case l.kind == '[':
		r.put(`]`)
	case l.kind == '{':
		r.put(`}`)
	case l.list:
		r.put(`[]`)
	default:
		r.put(`{}`)
	}
	r.levels = r.levels[:len(r.levels)-1]
	r.after()
	return nil
}

// finish completes a reply.
func (r *binrpcReader) finish() error {
	l := r.level()
	switch {
	case len(r.levels) > 1:
		return r.bad()
	case full(l.buffer, binrpcMaxReply, binrpcSlack):
		return ErrOutgrown
	case l.list:
		r.put(`]`)
	case l.values == 0:
		r.put(`"result":{}`)
	}
	r.putID()
	r.open = false
	return nil
}

// binrpcStructBuffer is the default buffer of a structure (binrpc_struct_max_body_size).
const binrpcStructBuffer = 8 << 10

// The space that can be left in a buffer when the next value does not fit: in the reply's
// own buffer, less than one line of stats.get_statistics; in a structure's, less than one
// element of a list (pike.top, lcr.dump_rules). All other methods check whether their
// values were added, and return a fault if not.
const (
	binrpcSlack       = 256
	binrpcStructSlack = 8
)

// full reports whether a buffer may have been truncated: ctl sends only what fits. The
// buffer's size is unknown: the default, or the default doubled any number of times.
func full(n, buffer, slack int64) bool {
	for buffer < n {
		buffer *= 2
	}
	return n > buffer-slack
}

func (r *binrpcReader) integer(size int64) error {
	if size > 4 {
		return r.bad()
	}
	n, err := r.number(size)
	if err != nil {
		return err
	}
	unsigned := r.level().named && slices.Contains(r.shape.unsigned, r.name)
	r.value()
	if unsigned {
		r.out = strconv.AppendUint(r.out, n, 10)
	} else {
		r.out = strconv.AppendInt(r.out, int64(int32(n)), 10) //nolint:gosec // the signed value is wanted
	}
	r.after()
	return nil
}

func (r *binrpcReader) double(size int64) error {
	if size > 8 {
		return r.bad()
	}
	n, err := r.number(size)
	if err != nil {
		return err
	}
	r.value()
	switch i := int64(n); i { //nolint:gosec // the signed value is wanted
	case math.MinInt64, math.MaxInt64: // too large to express in thousandths
		r.put(`null`)
	default:
		if i < 0 {
			r.put(`-`)
			n = -n
		}
		r.out = strconv.AppendUint(r.out, n/1000, 10)
		if rest := n % 1000; rest != 0 {
			r.out = append(r.out, '.', byte('0'+rest/100), byte('0'+rest/10%10), byte('0'+rest%10))
		}
	}
	r.after()
	return nil
}

// binrpcNull is what ctl writes for NULL (modules/ctl/binrpc_run.c).
const binrpcNull = "<null string>\x00"

func (r *binrpcReader) string(size int64, zero bool) error {
	if size > r.left {
		return r.bad()
	}
	r.value()
	if zero && size == int64(len(binrpcNull)) {
		text, err := r.in.Peek(len(binrpcNull))
		if err != nil {
			return cutOff(err)
		}
		if string(text) == binrpcNull {
			_, _ = r.in.Discard(len(binrpcNull))
			r.at += size
			r.left -= size
			r.put(`null`)
			r.after()
			return nil
		}
	}
	r.put(`"`)
	if size == 0 {
		r.put(`"`)
		r.after()
		return nil
	}
	r.text, r.zero = size, zero
	return nil
}

// copyText copies as much of a string as has been received.
func (r *binrpcReader) copyText() error {
	if _, err := r.in.Peek(1); err != nil {
		return cutOff(err)
	}
	piece, _ := r.in.Peek(int(min(r.text, int64(r.in.Buffered()))))
	size := int64(len(piece))
	r.text -= size
	r.left -= size
	r.at += size
	if r.text == 0 && r.zero {
		piece = bytes.TrimSuffix(piece, []byte{0})
	}
	r.quote(piece)
	_, _ = r.in.Discard(int(size))
	if r.text == 0 {
		r.put(`"`)
		r.after()
	}
	return nil
}

func (r *binrpcReader) put(s string) { r.out = append(r.out, s...) }

func (r *binrpcReader) putID() {
	r.put(`,"id":`)
	r.out = strconv.AppendUint(r.out, r.id, 10)
	r.put("}\n")
	r.replies++
}

// quote writes bytes unchanged, except for those that JSON does not allow.
func (r *binrpcReader) quote(text []byte) {
	for _, c := range text {
		switch {
		case c == '"' || c == '\\':
			r.out = append(r.out, '\\', c)
		case c < ' ':
			r.out = append(r.out, '\\', 'u', '0', '0', "0123456789abcdef"[c>>4], "0123456789abcdef"[c&0xf])
		default:
			r.out = append(r.out, c)
		}
	}
}
