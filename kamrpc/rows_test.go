package kamrpc_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc/kamrpctest"
)

var contacts = kamrpc.Rows{Path: "Domains/Domain/AoRs/Info/Contacts/Contact", Fields: []string{"Address", "Expires"}}

func TestRows(t *testing.T) {
	const two = `{"Contact":{"Address":"a","X":{"deep":[1]},"Expires":5}},{"Contact":{"Expires":"permanent","Address":"b"}}`
	for _, test := range []struct{ name, result, want, err string }{
		{"as Kamailio writes it", `{"Domains":[{"Domain":{"Domain":"l1","Size":1024,"AoRs":[{"Info":{"AoR":"u","HashID":7,"Contacts":[` + two + `]}}],"Stats":{"Records":1}}},{"Domain":{"Domain":"l2","AoRs":[{"Info":{"AoR":"v","Contacts":[` + two + `]}}]}}]}`,
			"l1 u 7 a=5 b=permanent l2 v  a=5 b=permanent", ""},
		{"single ones without their lists", `{"Domains":{"Domain":{"Domain":"l1","AoRs":{"Info":{"AoR":"u","Contacts":{"Contact":{"Address":"a","Expires":5}}}}}}}`, "l1 u  a=5", ""},
		{"a repeated name", `{"Domains":[{"Domain":{"Domain":"l1","AoRs":[{"Info":{"AoR":"u","Contacts":[{"Contact":{"Address":"a","Expires":1},"Contact":{"Address":"b","Expires":2}}]}}]}}]}`, "l1 u  a=1 b=2", ""},
		{"an empty list", `{"Domains":[]}`, " is empty", ""},
		{"empty lists at a deeper level", `{"Domains":[{"Domain":{"Domain":"l1","AoRs":[]}},{"Domain":{"Domain":"l2","AoRs":[]}}]}`, "l1 is empty l2 is empty", ""},
		{"an empty struct", `{}`, "", ""},
		{"an empty row", `{"Domains":{"Domain":{"Domain":"l1","AoRs":{"Info":{"AoR":"u","Contacts":[{"Contact":{}}]}}}}}`, "", ""},
		{"a row with none of the fields", `{"Domains":{"Domain":{"Domain":"l1","AoRs":{"Info":{"AoR":"u","Contacts":[{"Contact":{"Addr":1}}]}}}}}`, "l1 u  =", ""},
		{"an empty string", `""`, "", ""},
		{"null in the path", `{"Domains":[{"Domain":null}]}`, "", ""},
		{"another shape", `{"Tables":[{"Table":1}]}`, "", "invalid reply: it has nothing at Domains/Domain/AoRs/Info/Contacts/Contact; this Kamailio may be newer than the exporter"},
		{"deep off the path", `{"Domains":[],"Other":` + strings.Repeat("[", 200) + strings.Repeat("]", 200) + `}`, " is empty", ""},
		{"deep on the path", `{"Domains":` + strings.Repeat("[", 200) + strings.Repeat("]", 200) + `}`, "", "nested deeper than 64 levels"},
	} {
		t.Run(test.name, func(t *testing.T) {
			fake := kamrpctest.New(t)
			fake.Handle("ul.dump", test.result)
			for _, scheme := range kamrpctest.Schemes() {
				var got []string
				aor := ""
				err := client(t, nil, fake.URI(scheme)).Rows(within(t, patience), contacts, func(above kamrpc.Above, row kamrpc.Value) error {
					if above.Text("AoR") != aor {
						aor = above.Text("AoR")
						got = append(got, above.Text("Domain"), aor, above.Text("HashID"))
					}
					if !row.Exists() {
						got = append(got, above.Text("Domain")+" is empty")
						return nil
					}
					got = append(got, row.Get("Address").Text()+"="+row.Get("Expires").Text())
					if row.Get("X").Exists() {
						t.Error("a field that is not wanted is there")
					}
					return nil
				}, "ul.dump")
				if s := strings.Join(got, " "); s != test.want {
					t.Errorf("%s: got %q, want %q", scheme, s, test.want)
				}
				if test.err == "" && err != nil || test.err != "" && !strings.Contains(fmt.Sprint(err), test.err) || strings.Count(fmt.Sprint(err), kamrpc.ErrBadReply.Error()) > 1 {
					t.Errorf("%s: error %v, want %q", scheme, err, test.err)
				}
			}
		})
	}
}

// Some lists are one object in which rows follow each other, and the members beside a row
// belong only to that row. Other lists have rows side by side under arbitrary names.
func TestRowsThatFollowEachOther(t *testing.T) {
	var long []string
	for i := range 200 { // more than is kept beside a row
		long = append(long, fmt.Sprintf(`"table":%d,"group":%d,"item":{"n":%d}`, i, i%3, i))
	}
	for _, test := range []struct{ name, path, result, want string }{
		{"groups", "item", `{"table":85,"group":6,"item":{"n":"a"},"table":87,"group":7,"item":{"n":"b"},"group":6,"item":{"n":"c"}}`, "6a 7b 6c"},
		{"a list in each row", "RECORDS/ENTRY", `{"group":"x","RECORDS":{"ENTRY":{"n":1},"ENTRY":{"n":2}},"group":"y","RECORDS":{"ENTRY":{"n":3}}}`, "x1 x2 y3"},
		{"many", "item", "{" + strings.Join(long, ",") + "}", ""},
		{"any name", "*", `{"group":"g","a":[{"n":1},{"n":2}],"b":[],"c":{"n":3}}`, "g1 g2 g g3"},
		{"any name, no rows", "*", `{}`, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			fake := kamrpctest.New(t)
			fake.Handle("ul.dump", test.result)
			var got []string
			err := client(t, nil, fake.URI("http")).Rows(within(t, patience), kamrpc.Rows{Path: test.path}, func(above kamrpc.Above, row kamrpc.Value) error {
				got = append(got, above.Text("group")+row.Get("n").Text())
				return nil
			}, "ul.dump")
			if err != nil {
				t.Fatal(err)
			}
			if test.name == "many" {
				if len(got) != 200 || got[199] != "1199" || got[100] != "1100" {
					t.Errorf("%d rows: %v", len(got), got)
				}
			} else if s := strings.Join(got, " "); s != test.want {
				t.Errorf("got %q, want %q", s, test.want)
			}
		})
	}
}

// Rows of a reply that is truncated, or belongs to another request, end in an error.
func TestRowsOfABadReply(t *testing.T) {
	for name, mode := range map[string]kamrpctest.Mode{"cut": kamrpctest.Truncate, "another's": kamrpctest.OtherID, "garbage": kamrpctest.Garbage, "empty": kamrpctest.Empty} {
		for _, scheme := range []string{"http", "fifo", "tcp", "binrpc+unix"} {
			fake := kamrpctest.New(t)
			fake.Handle("ul.dump", dumpOf(3))
			fake.Misbehave(mode)
			err := client(t, nil, fake.URI(scheme)).Rows(within(t, 2*time.Second), contacts, func(kamrpc.Above, kamrpc.Value) error { return nil }, "ul.dump")
			if !errors.Is(err, kamrpc.ErrBadReply) && !errors.Is(err, kamrpc.ErrNoAnswer) {
				t.Errorf("%s over %s: %v", name, scheme, err)
			}
		}
	}
}

// A late reply to another request is not mixed with ours.
func TestRowsAfterALateReply(t *testing.T) {
	for _, scheme := range kamrpctest.Schemes() {
		fake := kamrpctest.New(t)
		fake.Handle("ul.dump", dumpOf(3))
		fake.Misbehave(kamrpctest.LateThenRight)
		n := 0
		err := client(t, nil, fake.URI(scheme)).Rows(within(t, 2*time.Second), contacts, func(kamrpc.Above, kamrpc.Value) error { n++; return nil }, "ul.dump")
		if err == nil && n != 3 {
			t.Errorf("%s: %d rows and no error", scheme, n)
		}
	}
}

func TestRowsEndEarly(t *testing.T) {
	fake := kamrpctest.New(t)
	fake.Handle("ul.dump", dumpOf(3))
	enough := errors.New("enough")
	n := 0
	err := client(t, nil, fake.URI("http")).Rows(within(t, patience), contacts, func(kamrpc.Above, kamrpc.Value) error {
		n++
		return enough
	}, "ul.dump")
	if !errors.Is(err, enough) || errors.Is(err, kamrpc.ErrBadReply) || n != 1 {
		t.Errorf("%d rows, %v", n, err)
	}
}

func TestRowsHaveTheirDeadline(t *testing.T) {
	for name, mode := range map[string]kamrpctest.Mode{"silent": kamrpctest.Silent, "trickling": kamrpctest.Trickle(10 * time.Millisecond)} {
		fake := kamrpctest.New(t)
		fake.Handle("ul.dump", dumpOf(1000))
		fake.Misbehave(mode)
		err := client(t, nil, fake.URI("fifo")).Rows(within(t, 100*time.Millisecond), contacts, func(kamrpc.Above, kamrpc.Value) error { return nil }, "ul.dump")
		if !errors.Is(err, kamrpc.ErrNoAnswer) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func dumpOf(n int) string {
	var b strings.Builder
	_ = writeDump(&b, n)
	return b.String()
}

// writeDump writes a reply of ul.dump with n contacts, about 530 bytes each.
func writeDump(w io.Writer, n int) error {
	if _, err := io.WriteString(w, `{"Domains":[{"Domain":{"Domain":"location","Size":1024,"AoRs":[`); err != nil {
		return err
	}
	for i := range n {
		comma := ","
		if i == 0 {
			comma = ""
		}
		if _, err := fmt.Fprintf(w, comma+`{"Info":{"AoR":"u%d@example.com","HashID":%d,"Contacts":[{"Contact":{"Address":"sip:u%d@192.0.2.7:5060;line=x0","Expires":%d,"Q":0.500000,"Call-ID":"755515341563170@h","CSeq":1,"User-Agent":"Linphone/4.5.15 (belle-sip/5.0.55)","Received":"[not set]","Path":"[not set]","State":"CS_NEW","Flags":0,"CFlags":0,"Socket":"udp:127.0.0.1:5160","Methods":4294967295,"Ruid":"uloc-7-6b03bb53-526e-d8","Instance":"[not set]","Reg-Id":0,"Server-Id":7,"Tcpconn-Id":-1,"Keepalive":0,"Last-Keepalive":1795406679,"KA-Roundtrip":0,"Last-Modified":1795406679}}]}}`, i, i, i, i%3600); err != nil {
			return err
		}
	}
	_, err := io.WriteString(w, `],"Stats":{"Records":1,"Max-Slots":1}}}]}`)
	return err
}

// BenchmarkRowsOfAMillionContacts counts the contacts in a dump of a million over TCP, and
// reports the speed and the peak heap in use.
func BenchmarkRowsOfAMillionContacts(b *testing.B) {
	const million = 1_000_000
	fake := kamrpctest.New(b)
	size := int64(0)
	fake.HandleFunc("ul.dump", func(kamrpctest.Request) kamrpctest.Response {
		return kamrpctest.Response{Stream: func(w io.Writer) error { return repeatDump(w, million, &size) }}
	})
	c := client(b, nil, fake.URI("tcp"))
	var peak uint64
	for b.Loop() {
		n := 0
		err := c.Rows(context.Background(), contacts, func(kamrpc.Above, kamrpc.Value) error {
			if n++; n%50_000 == 0 {
				var m runtime.MemStats
				runtime.ReadMemStats(&m)
				peak = max(peak, m.HeapInuse)
			}
			return nil
		}, "ul.dump")
		if err != nil || n != million {
			b.Fatalf("%d contacts, %v", n, err)
		}
	}
	b.SetBytes(size)
	b.ReportMetric(float64(peak)/(1<<20), "peak-MiB")
}

// repeatDump writes a dump of n contacts at almost no cost, by repeating the same
// thousand.
func repeatDump(w io.Writer, n int, size *int64) error {
	whole := dumpOf(1000)
	head := strings.Index(whole, `{"Info"`)
	tail := strings.LastIndex(whole, `],"Stats"`)
	thousand := whole[head:tail]
	written := 0
	write := func(s string) (err error) {
		var k int
		k, err = io.WriteString(w, s)
		written += k
		return err
	}
	err := write(whole[:head])
	for i := 0; err == nil && i < n/1000; i++ {
		if i > 0 {
			err = write(",")
		}
		if err == nil {
			err = write(thousand)
		}
	}
	if err == nil {
		err = write(whole[tail:])
	}
	*size = int64(written)
	return err
}
