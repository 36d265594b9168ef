package kamrpc

import (
	"math"
	"slices"
	"strings"
	"testing"
)

// mustDecode decodes a JSON text to a Value.
func mustDecode(tb testing.TB, text string) Value {
	tb.Helper()
	v, err := newDecoder(strings.NewReader(text)).value(1)
	if err != nil {
		tb.Fatalf("%s: %v", text, err)
	}
	return v
}

func TestFloat(t *testing.T) {
	for _, test := range []struct {
		json string
		want float64
		ok   bool
	}{
		{`0`, 0, true},
		{`-7`, -7, true},
		{`12.5`, 12.5, true},
		{`1e3`, 1000, true},
		{`"42"`, 42, true},
		{`" 42 "`, 42, true},
		{`"-3"`, -3, true},
		{`"0.25"`, 0.25, true},
		{`"18446744073709551615"`, -1, true},
		{`18446744073709551615`, -1, true},
		{`18446744073709551573`, -43, true},
		{`9223372036854775807`, math.MaxInt64, true},
		{`9223372036854775808`, math.MinInt64, true},
		{`18446744073709551616`, 1 << 64, true}, // not a 64-bit counter
		{`""`, 0, false},
		{`" "`, 0, false},
		{`"nan"`, 0, false},
		{`"NaN"`, 0, false},
		{`"inf"`, 0, false},
		{`"Infinity"`, 0, false},
		{`"0x10"`, 0, false},
		{`"0b1"`, 0, false},
		{`"1_000"`, 0, false},
		{`"1,5"`, 0, false},
		{`"1e999"`, 0, false},
		{`"12 ms"`, 0, false},
		{`"10.0.0.1"`, 0, false},
		{`"2026-11-01"`, 0, false},
		{`"e"`, 0, false},
		{`"-"`, 0, false},
		{`true`, 0, false},
		{`null`, 0, false},
		{`[1]`, 0, false},
		{`{}`, 0, false},
	} {
		got, ok := mustDecode(t, test.json).Float()
		if got != test.want || ok != test.ok {
			t.Errorf("%s: got %v, %t; want %v, %t", test.json, got, ok, test.want, test.ok)
		}
	}
	if _, ok := (Value{}).Float(); ok {
		t.Error("the missing value is a number")
	}
}

func TestKinds(t *testing.T) {
	for _, test := range []struct {
		json   string
		kind   Kind
		text   string
		len    int
		exists bool
	}{
		{`null`, Null, "", 0, false},
		{`true`, Bool, "true", 0, true},
		{`false`, Bool, "false", 0, true},
		{`1.50`, Number, "1.50", 0, true}, // as it was written
		{`"a"`, String, "a", 0, true},
		{`""`, String, "", 0, true},
		{`[]`, Array, "", 0, true},
		{`[1,2]`, Array, "", 2, true},
		{`{}`, Object, "", 0, true},
		{`{"a":1,"a":2}`, Object, "", 2, true},
	} {
		v := mustDecode(t, test.json)
		if v.Kind() != test.kind || v.Text() != test.text || v.Len() != test.len || v.Exists() != test.exists {
			t.Errorf("%s: kind %d, text %q, len %d, exists %t", test.json, v.Kind(), v.Text(), v.Len(), v.Exists())
		}
	}
	if v := (Value{}); v.Kind() != Missing || v.Exists() || v.Len() != 0 {
		t.Error("the zero Value is not Missing")
	}
}

func TestMembersKeepOrderAndRepeatedNames(t *testing.T) {
	v := mustDecode(t, `{"table":1,"item":"a","table":2,"item":"b","item":"c"}`)
	var got []string
	for m := range v.Members() {
		got = append(got, m.Name+"="+m.Value.Text())
	}
	if want := []string{"table=1", "item=a", "table=2", "item=b", "item=c"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	for m := range v.Members() {
		if m.Value.Text() != "1" {
			t.Error("went on behind a break")
		}
		break
	}
	for range mustDecode(t, `"x"`).Members() {
		t.Error("a string has members")
	}
}

func TestPaths(t *testing.T) {
	const dispatcher = `{"NRSETS":2,"RECORDS":[
		{"SET":{"ID":1,"TARGETS":[{"DEST":{"URI":"a"}},{"DEST":{"URI":"b"}}]}},
		{"SET":{"ID":2,"TARGETS":[{"DEST":{"URI":"c"}}]}}]}`
	for _, test := range []struct {
		name, json, path string
		all              []string
		get              string // "-": missing
	}{
		{"rows in rows", dispatcher, "RECORDS/SET/TARGETS/DEST/URI", []string{"a", "b", "c"}, "a"},
		{"one member", dispatcher, "NRSETS", []string{"2"}, "2"},
		{"an outer member", dispatcher, "RECORDS/SET/ID", []string{"1", "2"}, "1"},
		{"not there", dispatcher, "RECORDS/SET/NAME", nil, "-"},
		{"with a number on the path", dispatcher, "NRSETS/SET", nil, "-"},
		{"a list", `{"r":[1,2,3]}`, "r", []string{"1", "2", "3"}, ""},
		{"a list of lists", `{"r":[[1],[2,[3]]]}`, "r", []string{"1", "2", "3"}, ""},
		{"one row without its list", `{"r":{"n":1}}`, "r/n", []string{"1"}, "1"},
		{"a list of one row", `{"r":[{"n":1}]}`, "r/n", []string{"1"}, "1"},
		{"a repeated name", `{"r":{"n":1},"r":{"n":2}}`, "r/n", []string{"1", "2"}, "1"},
		{"a repeated name, first without", `{"r":{"m":1},"r":{"n":2}}`, "r/n", []string{"2"}, "2"},
		{"list at the top", `[{"n":1},{"n":2}]`, "n", []string{"1", "2"}, "1"},
		{"no rows: empty list", `{"r":[]}`, "r/n", nil, "-"},
		{"no rows: empty object", `{"r":{}}`, "r/n", nil, "-"},
		{"no rows: empty string", `{"r":""}`, "r/n", nil, "-"},
		{"no rows: nothing", `{}`, "r/n", nil, "-"},
		{"null", `{"r":null}`, "r", []string{""}, ""},
		{"the value itself", `"x"`, "", []string{"x"}, "-"},
		{"names are exact", `{"R":1}`, "r", nil, "-"},
	} {
		t.Run(test.name, func(t *testing.T) {
			v := mustDecode(t, test.json)
			var all []string
			for found := range v.All(test.path) {
				all = append(all, found.Text())
			}
			if !slices.Equal(all, test.all) {
				t.Errorf("All: got %q, want %q", all, test.all)
			}
			got := v.Get(test.path)
			text := got.Text()
			if got.Kind() == Missing {
				text = "-"
			}
			if text != test.get {
				t.Errorf("Get: got %q, want %q", text, test.get)
			}
		})
	}
	for range mustDecode(t, dispatcher).All("RECORDS/SET/TARGETS/DEST") {
		break // must not panic: an iterator that continues after a break would
	}
	if n := mustDecode(t, `{"r":[1,2]}`).Get("r").Len(); n != 2 {
		t.Errorf("Get of a list: %d elements, want the list itself", n)
	}
}

func TestMadeValues(t *testing.T) {
	v := ObjectValue([]Member{{"a", StringValue("1")}, {"a", StringValue("x\xfc")}})
	if v.Kind() != Object || v.Len() != 2 || v.Get("a").Text() != "1" {
		t.Errorf("got %+v", v)
	}
	if n, ok := v.Get("a").Float(); !ok || n != 1 {
		t.Errorf("got %v, %t", n, ok)
	}
}
