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
)

// binrpcReader turns BINRPC replies into the JSON that jsonrpcs would have
// written, piece by piece: whatever lengths a reply announces, it holds a few
// KiB. The client's limits of bytes, values and depth hold for the JSON.
//
//	BINRPC                                 JSON
//	int of 32 bits, signed or not          number (see shape)
//	double, in thousandths                 number; null where it overflowed
//	string, bytes                          string; "<null string>" is null
//	struct of names and values             object, or a list (see shape) of objects of one member
//	struct of values                       list
//	all values at the top, one after       list (see shape), or else the last of them
//	another
//
// Dates and booleans (formats "t" and "b") are numbers here; no method of the
// price list has them.
type binrpcReader struct {
	in     *bufio.Reader
	method string
	reads  bool // it only reads
	shape  shape
	err    error // for good

	out   []byte // JSON that has not been read yet, starting at taken
	taken int

	at      int64 // bytes read
	left    int64 // of the packet
	id      uint64
	open    bool // within a reply
	levels  []binrpcLevel
	name    string // of the value to come
	text    int64  // bytes left of the string being read
	zero    bool   // and the last of them is the final zero
	scratch []byte
}

// binrpcLevel is the reply itself or a structure in it. Kamailio collects each in
// a buffer of its own.
type binrpcLevel struct {
	end     byte  // the record that ends it
	list    bool  // the shape says that it is one
	kind    byte  // [ or {, 0 before the first record
	values  int   // so far
	named   bool  // the name of the value to come is written
	wrapped bool  // and it has its own object
	buffer  int64 // bytes that Kamailio has collected
}

func newBinrpcReader(r io.Reader, method string) *binrpcReader {
	price, ok := PriceOf(method)
	return &binrpcReader{in: bufio.NewReader(r), method: method, reads: ok && price.Effect == Read, shape: shapes[method]}
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

// step reads one record, or a piece of one.
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

// byte reads one of the packet.
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

// number reads a big-endian one of this many bytes.
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

// header reads what a packet begins with. A stream that ends before one is an
// io.EOF.
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
	r.left = int64(length) //nolint:gosec // of 32 bits
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

// binrpcMaxFault is more than a fault has: Kamailio cuts its text at 256 bytes.
const binrpcMaxFault = 4 << 10

// fault reads a code and a text.
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
		// A record that did not fit. rpc_add says "Internal server error processing
		// …: buffer too small (overflow)"; that a structure was too small only the
		// method itself tells, "Internal error …".
		return fmt.Errorf("%w (error %d: %q)", ErrOutgrown, int32(code), text) //nolint:gosec // a signed one is meant
	case string(text) == "command "+r.method+" not found":
		text = []byte("Method Not Found") // as jsonrpcs says it
	}
	r.put(`{"error":{"code":`)
	r.out = strconv.AppendInt(r.out, int64(int32(code)), 10) //nolint:gosec // a signed one is meant
	r.put(`,"message":"`)
	r.quote(text)
	r.put(`"}`)
	r.putID()
	return nil
}

// size reads the head of a record. The end of a structure has the size -1.
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
	if size = int64(n); size > r.left { //nolint:gosec // of 32 bits
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
				in-- // the end is in the buffer that the beginning is in
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

// binrpcMaxName is more than a structure holds by default.
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

// comma parts a value from the one before it.
func (r *binrpcReader) comma(l *binrpcLevel) {
	if l.values > 0 {
		r.put(`,`)
	}
	l.values++
}

// value writes what comes before a value.
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

// after writes what comes behind a value.
func (r *binrpcReader) after() {
	if l := r.level(); l.wrapped {
		l.wrapped = false
		r.put(`}`)
	}
}

// binrpcMaxDepth is what jsontext bears in what is passed over; what is kept is
// bounded by the client.
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

// finish ends a reply.
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

// binrpcStructBuffer is that of a structure by default, binrpc_struct_max_body_size.
const binrpcStructBuffer = 8 << 10

// What is left of a buffer when a value did not fit: of the reply's own less than
// a line of stats.get_statistics, of a structure's less than an element of a list
// (pike.top, lcr.dump_rules). The other methods look whether their values were
// taken, and answer a fault.
const (
	binrpcSlack       = 256
	binrpcStructSlack = 8
)

// full reports that a buffer may have been truncated: ctl sends what fits.
// Their size is unknown: it is the default, or twice the default, and so on.
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
		r.out = strconv.AppendInt(r.out, int64(int32(n)), 10) //nolint:gosec // a signed one is meant
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
	switch i := int64(n); i { //nolint:gosec // a signed one is meant
	case math.MinInt64, math.MaxInt64: // a number that is too large for thousandths
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

// binrpcNull is what ctl writes for a NULL (modules/ctl/binrpc_run.c).
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

// copyText copies the part of a string that has been received.
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
}

// quote writes bytes as they are, but for those that JSON does not allow.
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
