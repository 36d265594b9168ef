package kamrpc

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
	"unicode/utf8"
)

func TestUnquoteEqualsEncodingJSON(t *testing.T) {
	pieces := []string{
		`a`, `Zürich`, `☎`, `😀`, `\"`, `\\`, `\/`, `\b`, `\f`, `\n`, `\r`, `\t`, ` `, "\x7f", "\ufffd", "\u2028",
		`\u0041`, `\u00fC`, `\u0000`, `\u260E`, `\ud83d\ude00`, `\uD83D`, `\uDE00`, `\ud83d\u0041`, `\ud83d\ud83d\ude00`,
		`\ude00\ud83d`, `\uffff`, `\\u0041`, `u0041`,
	}
	check := func(quoted string) {
		t.Helper()
		var want string
		if err := json.Unmarshal([]byte(quoted), &want); err != nil {
			t.Fatalf("%s: %v", quoted, err)
		}
		if got := mustDecode(t, quoted).Text(); got != want {
			t.Errorf("%s: got %q, want %q", quoted, got, want)
		}
		if got := mustDecode(t, "{"+quoted+":1}").list[0].Name; got != want {
			t.Errorf("%s as a name: got %q, want %q", quoted, got, want)
		}
	}
	check(`""`)
	for _, piece := range pieces {
		check(`"` + piece + `"`)
	}
	r := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // a property, not a secret
	for range 5000 {
		var b strings.Builder
		for range r.IntN(8) {
			b.WriteString(pieces[r.IntN(len(pieces))])
		}
		check(`"` + b.String() + `"`)
	}
}

func TestStringsKeepTheirBytes(t *testing.T) {
	for _, text := range []string{"Z\xfcrich", "\xff", "\xe4\xf6\xfc", "a\xc3", "\xed\xa0\x80", "\x80\\", "\xfc\n"} {
		quoted := `"` + strings.NewReplacer(`\`, `\\`, "\n", `\n`).Replace(text) + `"`
		if got := mustDecode(t, quoted).Text(); got != text {
			t.Errorf("%q: got %q", text, got)
		}
		if got := mustDecode(t, "{"+quoted+":1}").list[0].Name; got != text {
			t.Errorf("%q as a name: got %q", text, got)
		}
	}
	if a, b := mustDecode(t, "\"\xe4\""), mustDecode(t, "\"\xf6\""); a.Text() == b.Text() {
		t.Error("two names that differ became one")
	}
}

func TestDecodeLimits(t *testing.T) {
	nested := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	for _, test := range []struct {
		name, json string
		wantErr    string
		is         error
	}{
		{name: "at the depth limit", json: nested(maxDepth)},
		{name: "too deep", json: nested(maxDepth + 1), wantErr: "nested deeper than 64 levels"},
		{name: "far too deep", json: strings.Repeat(`{"a":`, 1_000_000), wantErr: "nested deeper than 64 levels"},
		{name: "at the limit", json: "[" + strings.Repeat("0,", maxValues-2) + "0]"},
		{name: "too many", json: "[" + strings.Repeat("0,", maxValues-1) + "0]", wantErr: "reply too large: more than 1048576 values", is: ErrTooLarge},
		{name: "too many members", json: "{" + strings.Repeat(`"":0,`, maxValues) + `"":0}`, wantErr: "reply too large: more than 1048576 values", is: ErrTooLarge},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := newDecoder(strings.NewReader(test.json)).value(1)
			if fmt.Sprint(err) != test.wantErr && (err != nil || test.wantErr != "") {
				t.Errorf("got %v, want %q", err, test.wantErr)
			}
			if test.is != nil && !errors.Is(err, test.is) {
				t.Errorf("%v is not %v", err, test.is)
			}
		})
	}
}

// Names that are data must not make the table of known names grow without limit.
func TestManyNames(t *testing.T) {
	var b strings.Builder
	b.WriteString("{")
	for i := range 5000 {
		fmt.Fprintf(&b, `"prefix%d":%d,`, i, i)
	}
	b.WriteString(`"prefix0":-1}`)
	d := newDecoder(strings.NewReader(b.String()))
	v, err := d.value(1)
	if err != nil {
		t.Fatal(err)
	}
	if len(d.names) > 1024 {
		t.Errorf("%d names are kept", len(d.names))
	}
	for i, m := range v.list[:5000] {
		if want := fmt.Sprintf("prefix%d", i); m.Name != want {
			t.Fatalf("member %d is %q", i, m.Name)
		}
	}
}

func TestLimitedReader(t *testing.T) {
	for _, test := range []struct {
		size, limit int
		tooLarge    bool
	}{{0, 10, false}, {9, 10, false}, {11, 10, true}, {1000, 10, true}} {
		r := &limitedReader{r: strings.NewReader(strings.Repeat("x", test.size)), left: int64(test.limit), max: int64(test.limit)}
		got, err := io.ReadAll(r)
		if errors.Is(err, ErrTooLarge) != test.tooLarge || len(got) != min(test.size, test.limit) {
			t.Errorf("%d bytes with a limit of %d: got %d and %v", test.size, test.limit, len(got), err)
		}
	}
}

func TestDecodeReply(t *testing.T) {
	errReset := errors.New("connection reset by peer")
	for _, test := range []struct {
		name, reply string
		readErr     error // at the end, instead of EOF
		want        string
		wantErr     string
		is          error
	}{
		{name: "a result", reply: `{"jsonrpc":"2.0","result":"yes","id":7}`, want: "yes"},
		{name: "in any order", reply: `{"id":7,"extra":[1,{"id":8}],"result":"yes","jsonrpc":"2.0"}`, want: "yes"},
		{name: "id as a string", reply: `{"result":"yes","id":"7"}`, want: "yes"},
		{name: "surrounding blanks", reply: "\r\n {\"result\":\"yes\",\"id\":7}\r\n", want: "yes"},
		{name: "the rest is not read", reply: `{"result":"yes","id":7} rubbish`, want: "yes"},
		{name: "the connection breaks behind it", reply: `{"result":"yes","id":7}`, readErr: errReset, want: "yes"},
		{name: "an error that is null", reply: `{"result":"yes","error":null,"id":7}`, want: "yes"},
		{name: "no result at all", reply: `{"id":7}`, want: ""},
		{name: "a late reply before the reply", reply: `{"result":"no","id":6}{"result":"yes","id":7}`, want: "yes"},
		{name: "a late fault before the reply", reply: `{"error":{"code":500,"message":"no"},"id":6}{"result":"yes","id":7}`, want: "yes"},
		{name: "a fault", reply: `{"error":{"code":404,"message":"No Destination Sets"},"id":7}`, wantErr: "m: kamailio answered error 404: No Destination Sets", is: &Fault{Method: "m", Code: 404, Message: "No Destination Sets"}},
		{name: "unknown method", reply: `{"error":{"code":500,"message":"Method Not Found"},"id":7}`, wantErr: "m: kamailio answered error 500: Method Not Found", is: ErrMethodNotFound},
		{name: "unknown method, JSON-RPC's own code", reply: `{"error":{"code":-32601,"message":"nope"},"id":7}`, wantErr: "m: kamailio answered error -32601: nope", is: ErrMethodNotFound},
		{name: "a fault without code", reply: `{"error":"bad","id":7}`, wantErr: "m: kamailio answered error 0: "},
		{name: "another id", reply: `{"result":"no","id":6}`, wantErr: "invalid reply: its id is that of another request", is: ErrBadReply},
		{name: "a similar id", reply: `{"result":"no","id":7.0}`, wantErr: "invalid reply: its id is that of another request", is: ErrBadReply},
		{name: "no id", reply: `{"result":"no"}`, wantErr: "invalid reply: its id is that of another request", is: ErrBadReply},
		{name: "empty object", reply: `{}`, wantErr: "invalid reply: its id is that of another request", is: ErrBadReply},
		{name: "nothing", reply: ``, wantErr: "invalid reply: cut off", is: ErrBadReply},
		{name: "a list", reply: `[{"result":"no","id":7}]`, wantErr: "invalid reply: not a JSON object", is: ErrBadReply},
		{name: "a string", reply: `"no"`, wantErr: "invalid reply: not a JSON object", is: ErrBadReply},
		{name: "a page", reply: `<html>`, wantErr: "invalid reply: not JSON at byte 0", is: ErrBadReply},
		{name: "SIP", reply: "SIP/2.0 200 OK\r\n", wantErr: "invalid reply: not JSON at byte 0", is: ErrBadReply},
		{name: "broken inside", reply: `{"result":{"a":secret},"id":7}`, wantErr: "invalid reply: not JSON at byte 15", is: ErrBadReply},
		{name: "cut in a string", reply: `{"result":"ye`, wantErr: "invalid reply: cut off", is: ErrBadReply},
		{name: "cut in an object", reply: `{"result":{"a":1,`, wantErr: "invalid reply: cut off", is: ErrBadReply},
		{name: "cut before the id", reply: `{"result":"yes",`, wantErr: "invalid reply: cut off", is: ErrBadReply},
		{name: "the connection breaks", reply: `{"result":"yes",`, readErr: errReset, wantErr: "invalid reply: connection reset by peer", is: ErrBadReply},
		{name: "too deep", reply: `{"result":` + strings.Repeat("[", 70), wantErr: "invalid reply: nested deeper than 64 levels", is: ErrBadReply},
	} {
		for _, chunk := range []string{"whole", "byte by byte"} {
			t.Run(test.name+"/"+chunk, func(t *testing.T) {
				var r io.Reader = strings.NewReader(test.reply)
				if test.readErr != nil {
					r = io.MultiReader(r, iotest.ErrReader(test.readErr))
				}
				if chunk != "whole" {
					r = iotest.OneByteReader(r)
				}
				got, err := decodeWhole(r, 7, "m")
				if test.wantErr == "" && err == nil {
					if got.Text() != test.want {
						t.Errorf("got %q, want %q", got.Text(), test.want)
					}
					return
				}
				if fmt.Sprint(err) != test.wantErr {
					t.Errorf("got error %q, want %q", err, test.wantErr)
				}
				if want, ok := test.is.(*Fault); ok { //nolint:errorlint // compares the exact error of the table
					var got *Fault
					if !errors.As(err, &got) || *got != *want {
						t.Errorf("got %#v, want %#v", got, want)
					}
				} else if !errors.Is(err, test.is) && test.is != nil {
					t.Errorf("%v is not %v", err, test.is)
				}
			})
		}
	}
}

// FuzzDecode checks that no input panics, that accepted input is JSON, and that for valid
// UTF-8 the result equals that of encoding/json.
func FuzzDecode(f *testing.F) {
	for _, seed := range []string{
		`{"jsonrpc":"2.0","result":{"a":[1,"x",null,true]},"id":7}`,
		`{"result":"\ud83d\ude00\\\"","id":7}`, "{\"result\":\"Z\xfcrich\",\"id\":7}",
		`{"a":1,"a":2}`, `[[[[[[[[`, `"\ud83d`, `{"id":7,"error":{"code":1e300}}`, `{}{}{}`, `18446744073709551615`, ``,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		_, _ = decodeWhole(strings.NewReader(string(text)), 7, "m")
		d := newDecoder(strings.NewReader(string(text)))
		v, err := d.value(1)
		if err != nil {
			return
		}
		if n := count(v); n > d.values || n > len(text) {
			t.Fatalf("%d values out of %d bytes", n, len(text))
		}
		if !utf8.Valid(text) {
			return
		}
		j := json.NewDecoder(strings.NewReader(string(text)))
		j.UseNumber()
		var want any
		if err := j.Decode(&want); err != nil {
			t.Fatalf("we accept what encoding/json does not: %v", err)
		}
		if got := plain(v); !reflect.DeepEqual(got, want) {
			t.Fatalf("got %#v, want %#v", got, want)
		}
	})
}

func count(v Value) int {
	n := 1
	for m := range v.Members() {
		n += count(m.Value)
	}
	return n
}

// plain converts a Value to the result of encoding/json, which keeps the last of repeated
// names.
func plain(v Value) any {
	switch v.Kind() {
	case Bool:
		return v.Text() == "true"
	case Number:
		return json.Number(v.Text())
	case String:
		return v.Text()
	case Array:
		list := []any{}
		for m := range v.Members() {
			list = append(list, plain(m.Value))
		}
		return list
	case Object:
		object := map[string]any{}
		for m := range v.Members() {
			object[m.Name] = plain(m.Value)
		}
		return object
	default:
		return nil
	}
}

// decodeWhole decodes a reply like Call does.
func decodeWhole(r io.Reader, id uint32, method string) (Value, error) {
	var v Value
	err := decodeReply(&limitedReader{r: r, left: math.MaxInt64, max: math.MaxInt64}, id, method, keep(&v))
	return v, err
}
