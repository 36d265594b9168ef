package kamrpc

import (
	"bytes"
	"encoding/binary"

	"encoding/json"
	"errors"
	"io"
	"math"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
)

// packet returns a BINRPC packet of this type with cookie 7.
func packet(kind byte, body string) string {
	head := binary.BigEndian.AppendUint32([]byte{0xA1, kind<<4 | 3<<2}, uint32(len(body))) //nolint:gosec // the length is small
	return string(append(head, 7)) + body
}

func reply(body string) string { return packet(binrpcReplyType, body) }

func str(s string) string  { return string(appendBinrpcString(nil, s)) }
func name(s string) string { return strings.Replace(str(s), "\xC1", "\xC5", 1) }

const (
	open = "\x03"
	shut = "\x83"
)

func TestBinrpcReply(t *testing.T) {
	long := strings.Repeat("x\"\x00\xfc", 20_000)
	for _, test := range []struct {
		name, method, body, want string
	}{
		{"nothing", "m", "", `{}`},
		{"nothing of a list", "core.psx", "", `[]`},
		{"one of a list", "core.psx", "\x10\x05", `[5]`},
		{"a list", "core.psx", "\x10\x05" + str("a") + open + shut, `[5,"a",{}]`},
		{"the last of several", "m", "\x10\x05\x10\x06", `6`},
		{"integers", "core.psx", "\x00\x10\x00\x20\x12\x34\x40\x7f\xff\xff\xff\x40\xff\xff\xff\xff\x40\x80\x00\x00\x00\x90\x02\x12\x34\xa0\x00\x02\x12\x34", `[0,0,4660,2147483647,-1,-2147483648,4660,4660]`},
		{"thousandths", "core.psx", "\x02\x12\x01\x22\x03\xe8\x22\x05\xdc\x82\xff\xff\xff\xff\xff\xff\xff\xff\x82\xff\xff\xff\xff\xff\xff\xfc\x18\x82\x7f\xff\xff\xff\xff\xff\xff\xfe", `[0,0.001,1,1.500,-0.001,-1,9223372036854775.806]`},
		{"too large for thousandths", "core.psx", "\x82\x80\x00\x00\x00\x00\x00\x00\x00\x82\x7f\xff\xff\xff\xff\xff\xff\xff", `[null,null]`},
		{"strings", "core.psx", "\x71abcdef\x00\x11\x00\x01\x91\x0aabcdefhij\x00\x31abc\x66abcdef\x06", `["abcdef","","","abcdefhij","abc","abcdef",""]`},
		{"null", "core.psx", str("<null string>") + str("<null string?"), `[null,"<null string?"]`},
		{"bytes are bytes", "m", str("Z\xfcrich \"\\\x00\x1f\x7f☎"), "\"Z\xfcrich \\\"\\\\\\u0000\\u001f\x7f☎\""},
		{"a long string", "m", str(long), `"` + strings.NewReplacer(`"`, `\"`, "\x00", `\u0000`).Replace(long) + `"`},
		{"a structure", "m", open + "\x75intval\x00\x10\x03\x25s\x00\x41abc\x00" + shut, `{"intval":3,"s":"abc"}`},
		{"a repeated name", "m", open + name("a") + "\x10\x01" + name("a") + open + shut + shut, `{"a":1,"a":{}}`},
		{"a structure of values", "m", open + "\x10\x01" + open + name("a") + "\x00" + shut + shut, `[1,{"a":0}]`},
		{"a value without a name", "m", open + name("a") + "\x00\x10\x01" + shut, `{"a":0,"":1}`},
		{"an array", "m", "\x04\x10\x01\x41abc\x00\x84", `[1,"abc"]`},
		{"an empty array", "m", "\x04\x84", `[]`},
		{"lists", "dispatcher.list", open + name("NRSETS") + "\x10\x01" + name("RECORDS") + open +
			name("SET") + open + name("ID") + "\x10\x02" + name("TARGETS") + open + name("DEST") + open + name("URI") + str("sip:a") + shut + name("DEST") + open + shut + shut + shut +
			name("SET") + open + name("TARGETS") + open + shut + shut + shut + shut,
			`{"NRSETS":1,"RECORDS":[{"SET":{"ID":2,"TARGETS":[{"DEST":{"URI":"sip:a"}},{"DEST":{}}]}},{"SET":{"TARGETS":[]}}]}`},
		{"a list of values", "lcr.dump_rules", open + name("gw") + open + "\x10\x01\x10\x02" + shut + shut, `{"gw":[1,2]}`},
		{"unsigned", "ul.dump", open + name("Methods") + "\x40\xff\xff\xff\xff" + name("CSeq") + "\x40\xff\xff\xff\xff" + shut, `{"Methods":4294967295,"CSeq":-1}`},
	} {
		t.Run(test.name, func(t *testing.T) {
			want := `{"result":` + test.want + `,"id":7}`
			for _, r := range []io.Reader{strings.NewReader(reply(test.body)), iotest.OneByteReader(strings.NewReader(reply(test.body)))} {
				got, err := io.ReadAll(newBinrpcReader(r, test.method))
				if err != nil {
					t.Fatal(err)
				}
				v, err := decodeWhole(bytes.NewReader(got), 7, "m")
				if err != nil {
					t.Fatalf("%v in %s", err, got)
				}
				if w := mustDecode(t, want).Get("result"); !reflect.DeepEqual(v, w) {
					t.Errorf("got  %.200s\nwant %.200s", got, want)
				}
			}
		})
	}
}

func TestBinrpcBad(t *testing.T) {
	for _, test := range []struct {
		name, in string
		want     error // nil: not BINRPC
	}{
		{"nothing", "", io.EOF},
		{"JSON", `{"result":1}`, nil},
		{"another version", "\xA2\x10\x00\x07", nil},
		{"a request", packet(0, ""), nil},
		{"an unknown type", packet(2, ""), nil},
		{"cut in the header", "\xA1\x1c\x00", io.ErrUnexpectedEOF},
		{"cut in a record", reply("\x40\x00\x00\x00\x00")[:9], io.ErrUnexpectedEOF},
		{"cut in a string", reply(str("abcdef"))[:14], io.ErrUnexpectedEOF},
		{"a record beyond the packet", reply("\x40\x00"), nil},
		{"a string beyond the packet", reply("\xC1\x7f\xff\xff\xffabc\x00"), nil},
		{"a name beyond the packet", reply(open + "\xC5\x7f\xff\xff\xffabc\x00"), nil},
		{"a name of 1 MiB", reply(open + "\xC5\x00\x10\x00\x00" + strings.Repeat("x", 1<<20) + "\x00" + shut), nil},
		{"a name without a structure", reply(name("a") + "\x00"), nil},
		{"a name without a value", reply(open + name("a") + shut), nil},
		{"a name after a name", reply(open + name("a") + name("b") + "\x00" + shut), nil},
		{"an unterminated structure", reply(open), nil},
		{"an end without a beginning", reply(shut), nil},
		{"an end of an array", reply(open + "\x84"), nil},
		{"a structure with a size", reply("\x13\x00"), nil},
		{"an integer of 5 bytes", reply("\x50\x00\x00\x00\x00\x00"), nil},
		{"a double of 9 bytes", reply("\x92\x00\x00\x00\x00\x00\x00\x00\x00\x00"), nil},
		{"a length of 7 bytes", reply("\xF1\x00\x00\x00\x00\x00\x00\x01\x00"), nil},
		{"a length of 0 bytes", reply("\x81"), nil},
		{"an unknown record", reply("\x07"), nil},
		{"a fault of 1 MiB", packet(binrpcFaultType, "\x20\x01\xf4"+str(strings.Repeat("x", 1<<20))), nil},
		{"a fault without a text", packet(binrpcFaultType, "\x20\x01\xf4"), nil},
		{"a fault without a code", packet(binrpcFaultType, str("x")), nil},
		{"a full reply", reply(strings.Repeat("\x10\x05", 32<<9)), ErrOutgrown},
		{"nearly equal", reply(strings.Repeat("\x10\x05", 32<<9-127)), ErrOutgrown},
		{"a larger one that is full", reply(strings.Repeat("\x10\x05", 64<<9)), ErrOutgrown},
		{"a full structure", reply(open + strings.Repeat("\x10\x05", 8<<9) + shut), ErrOutgrown},
		{"a full structure inside", reply(open + open + strings.Repeat("\x10\x05", 8<<9) + shut + shut), ErrOutgrown},
		{"no room for a value", packet(binrpcFaultType, "\x20\x01\xf4"+str("Internal server error processing 's': buffer too small (overflow) (-2)")), ErrOutgrown},
		{"no room in a structure", packet(binrpcFaultType, "\x20\x01\xf4"+str("Internal error creating dest struct")), ErrOutgrown},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := io.ReadAll(newBinrpcReader(strings.NewReader(test.in), "core.psx"))
			if test.want == io.EOF { //nolint:errorlint // ReadAll does not wrap it
				test.want = nil
				if err != nil {
					t.Errorf("got %v", err)
				}
				return
			}
			if test.want != nil && !errors.Is(err, test.want) || test.want == nil && (err == nil || !strings.HasPrefix(err.Error(), "not BINRPC at byte ")) {
				t.Errorf("got %v, want %v", err, test.want)
			}
		})
	}
	for _, fine := range []string{
		reply(strings.Repeat("\x10\x05", 32<<9-128)),
		reply(strings.Repeat(open+strings.Repeat("\x10\x05", 8<<9-4)+shut, 50)), // each has its own buffer
	} {
		if _, err := io.Copy(io.Discard, newBinrpcReader(strings.NewReader(fine), "core.psx")); err != nil {
			t.Errorf("%d bytes: %v", len(fine), err)
		}
	}
}

func TestBinrpcFault(t *testing.T) {
	for _, test := range []struct{ method, text, want string }{
		{"tm.stats", "command tm.stats not found", "tm.stats: kamailio answered error 500: Method Not Found"},
		{"tm.stats", "command core.psx not found", "tm.stats: kamailio answered error 500: command core.psx not found"},
		{"tm.stats", "a \"word\"\n\xfc", "tm.stats: kamailio answered error 500: a \"word\"\n\xfc"},
		// A read may have overflowed; a change has been made.
		{"a.change", "Internal error", "a.change: kamailio answered error 500: Internal error"},
	} {
		in := packet(binrpcFaultType, "\x20\x01\xf4"+str(test.text))
		_, err := decodeWhole(newBinrpcReader(strings.NewReader(in), test.method), 7, test.method)
		if !errors.As(err, new(*Fault)) || err.Error() != test.want {
			t.Errorf("got %v, want %s", err, test.want)
		}
	}
}

// A reply uses no more memory than the bytes that arrived, whatever it announces.
func TestBinrpcAnnounced(t *testing.T) {
	in := "\xA1\x1f\xff\xff\xff\xff\x00\x00\x00\x07" + "\xC1\xff\xff\xff\xf0abc"
	allocated := testing.AllocsPerRun(1, func() {
		if _, err := io.ReadAll(newBinrpcReader(strings.NewReader(in), "core.psx")); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Error(err)
		}
	})
	if allocated > 20 {
		t.Errorf("%v allocations", allocated)
	}
	r := newBinrpcReader(strings.NewReader(in), "core.psx")
	_, _ = io.Copy(io.Discard, r)
	if n := cap(r.out) + cap(r.scratch) + r.in.Size(); n > 64<<10 {
		t.Errorf("%d bytes are held", n)
	}
}

func TestBinrpcRequest(t *testing.T) {
	for _, test := range []struct {
		params []any
		want   string // encoded parameters
		err    string
	}{
		{[]any{}, "", ""},
		{[]any{"all", ""}, str("all") + str(""), ""},
		{[]any{7, int64(-1), 0.5, -1.25}, "\x40\x00\x00\x00\x07\x40\xff\xff\xff\xff\x82\x00\x00\x00\x00\x00\x00\x01\xf4\x82\xff\xff\xff\xff\xff\xff\xfb\x1e", ""},
		{[]any{int64(math.MaxInt32) + 1}, "", "parameter 2147483648: BINRPC integers have 32 bits"},
		{[]any{1e300}, "", "parameter 1e+300: BINRPC cannot encode this number"},
	} {
		request, err := encode(0x7fffffff, "tm.stats", test.params)
		if err != nil {
			t.Fatal(err)
		}
		method, got, err := binrpcRequest(request)
		if test.err != "" {
			if err == nil || err.Error() != test.err {
				t.Errorf("%v: got %v, want %s", test.params, err, test.err)
			}
			continue
		}
		body := str("tm.stats") + test.want
		want := "\xA1\x0f\x00\x00\x00" + string([]byte{byte(len(body))}) + "\x7f\xff\xff\xff" + body //nolint:gosec // the length is small
		if err != nil || method != "tm.stats" || string(got) != want {
			t.Errorf("%v: got %q, %v\nwant %q", test.params, got, err, want)
		}
	}
}

// FuzzBinrpc checks that any input terminates without a panic, and that the output is JSON
// and not much longer than the input.
func FuzzBinrpc(f *testing.F) {
	for _, seed := range []string{
		reply(""), reply("\x10\x05"), reply(open + name("a") + open + "\x22\x05\xdc" + str("x") + shut + shut),
		reply(open + name("RECORDS") + open + name("SET") + open + name("TARGETS") + open + shut + shut + shut + shut),
		packet(binrpcFaultType, "\x20\x01\xf4"+str("command m not found")), reply("\x10\x01") + reply("\x04\x84"),
		reply(strings.Repeat(open, 200) + strings.Repeat(shut, 200)), reply(str("<null string>")),
		"\xA1\x1f\xff\xff\xff\xff\x00\x00\x00\x07\xC1\xff\xff\xff\xf0abc", "SIP/2.0 200 OK\r\n",
	} {
		f.Add([]byte(seed), "dispatcher.list")
		f.Add([]byte(seed), "core.psx")
	}
	f.Fuzz(func(t *testing.T, in []byte, method string) {
		_, _ = decodeWhole(newBinrpcReader(bytes.NewReader(in), method), 7, method)
		out, err := io.ReadAll(newBinrpcReader(iotest.HalfReader(bytes.NewReader(in)), method))
		if len(out) > 40+12*len(in) {
			t.Fatalf("%d bytes out of %d", len(out), len(in))
		}
		if err != nil {
			return
		}
		for d := json.NewDecoder(bytes.NewReader(out)); ; {
			var v any
			if err := d.Decode(&v); errors.Is(err, io.EOF) {
				return
			} else if err != nil && !strings.Contains(err.Error(), "exceeded max depth") {
				t.Fatalf("%v in %q", err, out)
			} else if err != nil {
				return
			}
		}
	})
}
