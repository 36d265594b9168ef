package collector

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc/kamrpctest"
)

// emitted runs a collector against a fake with these results by method, and returns lines
// of "name labels value".
func emitted(t *testing.T, c Collector, replies map[string]string) (string, error) {
	t.Helper()
	server := kamrpctest.New(t)
	server.Handle("core.version", `"kamailio 6.0.1 (x86_64/linux) "`)
	var methods []string
	for method, result := range replies {
		methods = append(methods, method)
		if message, isFault := strings.CutPrefix(result, "fault: "); isFault {
			server.HandleFault(method, 500, message)
		} else {
			server.Handle(method, result)
		}
	}
	return emittedFrom(t, c, server, methods)
}

// emittedRaw is like emitted, for one method with this whole reply, in which "id":1 is
// replaced by the id of the request.
func emittedRaw(t *testing.T, c Collector, method, reply string) (string, error) {
	t.Helper()
	server := kamrpctest.New(t)
	server.HandleFunc(method, func(r kamrpctest.Request) kamrpctest.Response {
		return kamrpctest.Response{Raw: regexp.MustCompile(`"id":\s*1\b`).ReplaceAll([]byte(reply), []byte(`"id":`+r.ID))}
	})
	return emittedFrom(t, c, server, []string{method})
}

func sessionTo(t *testing.T, server *kamrpctest.Server, methods []string) *Session {
	t.Helper()
	transport, err := kamrpc.Open(server.URI("http"), nil)
	if err != nil {
		t.Fatal(err)
	}
	target, err := kamrpc.NewClient(kamrpc.Config{Transports: []kamrpc.Transport{transport}})
	if err != nil {
		t.Fatal(err)
	}
	return NewSession(target, 5*time.Second, methods)
}

func emittedFrom(t *testing.T, c Collector, server *kamrpctest.Server, methods []string) (string, error) {
	t.Helper()
	var b batch
	err := c.Update(context.Background(), sessionTo(t, server, methods), b.emit)
	if b.err != nil {
		t.Error(b.err)
	}
	var out strings.Builder
	for _, s := range b.take() {
		out.WriteString(strings.TrimPrefix(s.Desc.Name, "kamailio_"))
		if len(s.Labels) > 0 {
			out.WriteString(" " + strings.Join(s.Labels, ","))
		}
		fmt.Fprintf(&out, " %v\n", s.Value)
	}
	return out.String(), err
}

func TestTable(t *testing.T) {
	rows := Module{Subsystem: "x", Queries: []Query{{
		Method: "tm.stats", Rows: "list/item", Empty: []string{"Nothing here"},
		Labels: []Label{{Name: "id", Field: "id"}, {Name: "kind", Value: "k"}},
		Metrics: []Metric{
			{Field: "n", Name: "n", Kind: gauge},
			{Field: "up", Name: "up", Kind: gauge, Map: map[string]float64{"yes": 1, "no": 0}},
			{Field: "ms", Name: "seconds", Kind: gauge, Scale: 0.001},
			{Field: "wraps", Name: "wraps_total", Kind: counter, Wrap32: true},
			{Field: "deep/er", Name: "deeper", Kind: gauge},
			{Pattern: "r_([a-z]+)_([0-9])", PatternLabels: []string{"a", "b"}, Word: strings.ToUpper, Name: "r", Kind: gauge},
			{Field: "known", Instead: "something else"},
		},
	}}}
	for _, tc := range []struct{ name, reply, want, err string }{
		{"a list", `{"list":[{"item":{"id":"a","n":1}},{"item":{"id":"b","n":2}}]}`, "x_n a,k 1\nx_n b,k 2\n", ""},
		{"one row without its list", `{"list":{"item":{"id":"a","n":1}}}`, "x_n a,k 1\n", ""},
		{"a repeated name", `{"list":{"item":{"id":"a","n":1},"item":{"id":"b","n":2}}}`, "x_n a,k 1\nx_n b,k 2\n", ""},
		{"an empty list", `{"list":[]}`, "", ""},
		{"an empty struct", `{}`, "", ""},
		{"an empty string", `""`, "", ""},
		{"an empty row", `{"list":[{"item":{}}]}`, "", ""},
		{"nothing configured", "fault: Nothing here", "", ""},
		{"another fault", "fault: Internal error", "", "tm.stats: kamailio answered error 500: Internal error"},
		{"absent, null or text: no sample", `{"list":[{"item":{"id":"a","n":null,"up":"maybe","ms":"soon","wraps":1}}]}`, "x_wraps_total a,k 1\n", ""},
		{"strings of digits", `{"list":[{"item":{"id":"a","n":" 12 ","ms":"1.5"}}]}`, "x_n a,k 12\nx_seconds a,k 0.0015\n", ""},
		{"words", `{"list":[{"item":{"id":"a","up":"yes"}},{"item":{"id":"b","up":"no"}}]}`, "x_up a,k 1\nx_up b,k 0\n", ""},
		{"wrapped", `{"list":[{"item":{"id":"a","wraps":-1}}]}`, "x_wraps_total a,k 4.294967295e+09\n", ""},
		{"%lu of a negative counter", `{"list":[{"item":{"id":"a","n":18446744073709551615}}]}`, "x_n a,k -1\n", ""},
		{"a path", `{"list":[{"item":{"id":"a","deep":{"er":7}}}]}`, "x_deeper a,k 7\n", ""},
		{"a pattern", `{"list":[{"item":{"id":"a","r_ab_1":7,"r_ab_12":8,"xr_ab_1":9}}]}`, "x_r a,k,AB,1 7\n", ""},
		{"known, not exported", `{"list":[{"item":{"id":"a","known":7}}]}`, "", ""},
		{"no id", `{"list":[{"item":{"n":7}}]}`, "x_n ,k 7\n", ""},
		{"a number as id", `{"list":[{"item":{"id":-3,"n":7}}]}`, "x_n -3,k 7\n", ""},
		{"renamed fields", `{"list":[{"item":{"ident":"a","num":7}}]}`, "", "tm.stats: none of the known fields is in the reply; this Kamailio may be newer than the exporter"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := emitted(t, rows.Collector(), map[string]string{"tm.stats": tc.reply})
			if got != tc.want {
				t.Errorf("got\n%swant\n%s", got, tc.want)
			}
			if text := fmt.Sprint(err); text != tc.err && (err != nil || tc.err != "") {
				t.Errorf("error %q, want %q", text, tc.err)
			}
		})
	}
}

func TestDuplicateRowIsDroppedAndCounted(t *testing.T) {
	var b batch
	d := NewDesc("kamailio_x", "X.", gauge, "", "a")
	b.emit(d, 1, "one")
	b.emit(d, 2, "one")
	b.emit(d, 3, "two")
	if len(b.samples) != 2 || b.duplicates != 1 || b.samples[0].Value != 1 {
		t.Errorf("%+v", b)
	}
}

// TestBatchMemoryIsReused checks that a batch forgets the samples of the previous one, and that
// samples with the same hash are not taken for duplicates.
func TestBatchMemoryIsReused(t *testing.T) {
	d := NewDesc("kamailio_x", "X.", gauge, "", "a")
	for range 2 {
		var b batch
		b.emit(d, 1, "one")
		b.emit(d, 2, "two")
		for hash := range b.seen {
			b.seen[hash] = 0 // as if both had the hash of the first
		}
		b.emit(d, 3, "two")
		if samples := b.take(); len(samples) != 2 || b.duplicates != 1 || b.err != nil || len(b.take()) > 0 {
			t.Errorf("%+v of %v", b, samples)
		}
	}
}

func TestLabelValuesStayDifferent(t *testing.T) {
	for in, want := range map[string]string{
		"plain":       "plain",
		"Zürich":      "Zürich",
		"Z\xfcrich":   `Z\xfcrich`,
		`Z\xfcrich`:   `Z\x5cxfcrich`,
		"Z\ufffdrich": "Z\ufffdrich", // a real U+FFFD is kept
		`C:\new`:      `C:\new`,
		`\x`:          `\x`,
		`\xg0`:        `\xg0`,
		"\\\xfc":      `\\xfc`,
		"a\"b\nc":     "a\"b\nc",
		"\xff\xfe":    `\xff\xfe`,
		"{\"}=,":      "{\"}=,",
		"":            "",
	} {
		if got := LabelValue(in); got != want {
			t.Errorf("LabelValue(%q) is %q, want %q", in, got, want)
		}
	}
}

func FuzzLabelValue(f *testing.F) {
	for _, s := range []string{"", "Z\xfcrich", `\xfc`, `\x5cxfc`, "\\\xfc", `\\x\x`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if got := unescapeLabel(LabelValue(s)); got != s {
			t.Errorf("%q came back as %q", s, got)
		}
	})
}

// unescapeLabel recovers the original bytes, as a reader of the page would.
func unescapeLabel(s string) string {
	var out []byte
	for i := 0; i < len(s); i++ {
		var b byte
		if s[i] == '\\' && isHexEscape(s[i:]) {
			if _, err := fmt.Sscanf(s[i:i+4], `\x%02x`, &b); err == nil {
				out = append(out, b)
				i += 3
				continue
			}
		}
		out = append(out, s[i])
	}
	return string(out)
}

func TestParseStatistics(t *testing.T) {
	long := make([]string, 0, 1000)
	for i := range 1000 {
		long = append(long, fmt.Sprintf(`"script:counter %d = %d"`, i, i))
	}
	for _, tc := range []struct{ name, reply, want, err string }{
		{"plain", `["core:x = 1","script:foo = 2"]`, "statistic core,x 1\nstatistic script,foo 2\n", ""},
		{"a single one comes without its list", `"script:foo = 2"`, "statistic script,foo 2\n", ""},
		{"none", `[]`, "", ""},
		{"nothing", `{}`, "", ""},
		{"below zero", `["script:foo = 18446744073709551615"]`, "statistic script,foo -1\n", ""},
		{"case", `["script:foo = 1","script:Foo = 2"]`, "statistic script,foo 1\nstatistic script,Foo 2\n", ""},
		{"odd names", `["script:a = b = 1","script:q\"{}\n = 2","script:x:y = 3","noise"," = 4"]`,
			"statistic script,a = b 1\nstatistic script,q\"{}\n 2\nstatistic script,x:y 3\nstatistic , 4\n", ""},
		{"groups that do not follow each other", `["a:x = 1","b:x = 2","a:y = 3","b:y = 4"]`, "statistic a,x 1\nstatistic a,y 3\nstatistic b,x 2\nstatistic b,y 4\n", ""},
		{"not a number", `["script:foo = many","script:bar = 1"]`, "statistic script,bar 1\n", ""},
		{"another shape", `["a","b"]`, "", "stats.get_statistics: no line of the reply is a statistic; this Kamailio may be newer than the exporter"},
		{"1,000", "[" + strings.Join(long, ",") + "]", "", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := emitted(t, newStatistics(&claimed{}, nil), map[string]string{statisticsMethod: tc.reply})
			if tc.name == "1,000" {
				if n := strings.Count(got, "\n"); n != 1000 {
					t.Errorf("%d of 1000", n)
				}
				return
			}
			if got != tc.want {
				t.Errorf("got\n%swant\n%s", got, tc.want)
			}
			if text := fmt.Sprint(err); text != tc.err && (err != nil || tc.err != "") {
				t.Errorf("error %q, want %q", text, tc.err)
			}
		})
	}
}

// A name in kamailio.cfg can equal that of a known statistic of another group, and must not
// be confused with it.
func TestKnownStatisticHasItsOwnMetric(t *testing.T) {
	all := All(Options{})
	got, err := emitted(t, all[len(all)-1], map[string]string{statisticsMethod: `["core:rcv_requests = 1","script:rcv_requests = 2","newmodule:things = 3","usrloc:my_table_users = 4","core:rcv_replies_2xx_invite = 5","core:brand_new = 6"]`})
	if err != nil {
		t.Fatal(err)
	}
	if want := "statistic core,brand_new 6\nstatistic script,rcv_requests 2\nstatistic newmodule,things 3\n"; got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func TestStatisticsOfAMissingModule(t *testing.T) {
	_, err := emitted(t, registrarModule.Collector(), map[string]string{statisticsMethod: `["core:rcv_requests = 1"]`})
	if !errors.Is(err, ErrNoData) {
		t.Errorf("got %v", err)
	}
}

func TestMemoStaysBounded(t *testing.T) {
	var m memo[string]
	for i := range 3 * maxMemo {
		name := fmt.Sprint("script:", i)
		if got := m.of(name, strings.ToUpper) + m.of(name, strings.ToTitle); got != strings.ToUpper(name+name) {
			t.Fatal(got)
		}
	}
	if len(m.known) > maxMemo {
		t.Errorf("%d names kept", len(m.known))
	}
}

func TestStartTime(t *testing.T) {
	berlin := time.FixedZone("", 2*3600)
	nepal := time.FixedZone("", 5*3600+45*60)
	start := time.Date(2026, 10, 24, 23, 30, 0, 0, time.UTC)
	for _, tc := range []struct {
		name  string
		since string
		ago   float64
		now   time.Time
		want  time.Time
	}{
		{"the same zone", start.Format(time.ANSIC), 100, start.Add(100 * time.Second), start},
		{"another zone", start.In(berlin).Format(time.ANSIC), 100, start.Add(100 * time.Second), start},
		{"a time zone of 45 minutes", start.In(nepal).Format(time.ANSIC), 100, start.Add(100 * time.Second), start},
		{"rounded the other way", start.Format(time.ANSIC), 100, start.Add(100*time.Second + 900*time.Millisecond), start},
		{"the clocks a minute apart", start.Format(time.ANSIC), 100, start.Add(160 * time.Second), start},
		{"no text", "", 100, start.Add(100 * time.Second), start},
		{"across a change to daylight saving time", start.In(berlin).Format(time.ANSIC), 86400, start.Add(24 * time.Hour), start},
	} {
		t.Run(tc.name, func(t *testing.T) {
			v := kamrpc.ObjectValue([]kamrpc.Member{
				{Name: "up_since", Value: kamrpc.StringValue(tc.since)},
				{Name: "uptime", Value: kamrpc.StringValue(fmt.Sprint(tc.ago))},
			})
			got, ok := startTime(v, tc.now)
			if !ok || got != float64(tc.want.Unix()) {
				t.Errorf("got %v, want %v", time.Unix(int64(got), 0).UTC(), tc.want)
			}
		})
	}
	if _, ok := startTime(kamrpc.ObjectValue(nil), start); ok {
		t.Error("a start time out of nothing")
	}
}
