package kamrpc_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc/kamrpctest"
)

// transport is a fake transport that answers by a function.
type transport struct {
	name   string
	traits kamrpc.Traits
	log    *[]string // names of the transports, in the order of the calls
	err    error
	reply  string // %s is the id; empty: the result is the transport's name
	start  string // reply to a check, which reads when Kamailio was started; empty: the same everywhere
}

func (w transport) String() string        { return w.name }
func (w transport) Traits() kamrpc.Traits { return w.traits }

var requestID = regexp.MustCompile(`"id":([0-9]+)`)

func (w transport) RoundTrip(_ context.Context, request []byte) (io.ReadCloser, error) {
	reply := w.reply
	switch {
	case bytes.Contains(request, []byte(`"core.psx"`)):
		reply = `{"result":[{"IDX":0,"PID":7,"DSC":"main process"}],"id":%s}`
	case bytes.Contains(request, []byte(`"core.uptime"`)):
		*w.log = append(*w.log, w.name+"?")
		reply = cmp.Or(w.start, `{"result":{"up_since":"Mon Nov 23 04:10:00 2026"},"id":%s}`)
	default:
		*w.log = append(*w.log, w.name)
	}
	if w.err != nil {
		return nil, w.err
	}
	if reply == "" {
		reply = `{"jsonrpc":"2.0","result":"` + w.name + `","id":%s}`
	}
	id := requestID.FindSubmatch(request)[1]
	return io.NopCloser(bytes.NewReader(fmt.Appendf(nil, reply, id))), nil
}

func TestOrderOfTransports(t *testing.T) {
	down := fmt.Errorf("%w: down", kamrpc.ErrUnreachable)
	const fault = `{"error":{"code":404,"message":"No Destination Sets"},"id":%s}`
	const other = `{"result":{"up_since":"Tue Nov 24 04:10:00 2026"},"id":%s}`
	const small, middle = 1000, 5000
	for _, test := range []struct {
		name       string
		transports []transport
		method     string
		scripted   bool
		asked      string
		want       string
		wantErr    string
	}{
		{name: "a single URI is not checked", method: "core.version", transports: []transport{{name: "a"}}, asked: "a", want: "a"},
		{name: "constant cost uses the first URI", method: "core.version", transports: []transport{{name: "a", traits: kamrpc.Traits{MaxReply: small}}, {name: "b"}}, asked: "a? a", want: "a"},
		{name: "a walk too", method: "dlg.stats_active", transports: []transport{{name: "a", traits: kamrpc.Traits{MaxReply: small}}, {name: "b"}}, asked: "a? a", want: "a"},
		{name: "growing cost uses the largest URI", method: "ul.dump", transports: []transport{{name: "a", traits: kamrpc.Traits{MaxReply: small}}, {name: "b", traits: kamrpc.Traits{MaxReply: middle}}, {name: "c"}}, asked: "a? c? c", want: "c"},
		{name: "equal limits use the first URI", method: "ul.dump", transports: []transport{{name: "a"}, {name: "b"}}, asked: "a? a", want: "a"},
		{name: "a method that JSON-RPC truncates uses a complete URI", method: "rl.get_pipes", transports: []transport{{name: "a"}, {name: "b"}, {name: "c", traits: kamrpc.Traits{MaxReply: small, Complete: true}}}, asked: "a? c? c", want: "c"},
		{name: "and over another when that is down", method: "rl.get_pipes", transports: []transport{{name: "a"}, {name: "b", traits: kamrpc.Traits{MaxReply: small, Complete: true}, err: down}}, asked: "a? b? a", want: "a"},
		{name: "the next when it is down", method: "core.version", transports: []transport{{name: "a", err: down}, {name: "b"}}, asked: "a? a? b? b", want: "b"},
		{name: "the next largest when it is down", method: "ul.dump", transports: []transport{{name: "a", traits: kamrpc.Traits{MaxReply: small}}, {name: "b", traits: kamrpc.Traits{MaxReply: middle}}, {name: "c", err: down}}, asked: "a? c? b? b", want: "b"},
		{name: "all down", method: "core.version", transports: []transport{{name: "a", err: down}, {name: "b", err: down}}, asked: "a? a? b?", wantErr: "core.version via a: kamailio is not reachable: down; core.version via b: kamailio is not reachable: down"},
		{name: "a fault counts as a reply", method: "dispatcher.list", transports: []transport{{name: "a", reply: fault}, {name: "b"}}, asked: "a? a", wantErr: "dispatcher.list: kamailio answered error 404: No Destination Sets"},
		{name: "a delivered request is not sent again", method: "core.version", transports: []transport{{name: "a", reply: "no"}, {name: "b"}}, asked: "a? a", wantErr: "core.version via a: invalid reply: not JSON at byte 1"},
		{name: "a server that is not Kamailio is skipped", method: "core.version", transports: []transport{{name: "a", start: "no"}, {name: "b"}}, asked: "a? b? b", want: "b"},
		{name: "another Kamailio too", method: "ul.dump", transports: []transport{{name: "a", traits: kamrpc.Traits{MaxReply: small}}, {name: "b", start: other}}, asked: "a? b? a? b? a", want: "a"},
		{name: "also for the last URI", method: "drouting.gw_status", scripted: true, transports: []transport{{name: "a"}, {name: "b", traits: kamrpc.Traits{Scripted: true}, start: other}}, asked: "a? b? a? b?", wantErr: "drouting.gw_status via b: leads to another Kamailio (process 7, up since Tue Nov 24 04:10:00 2026) than a (process 7, up since Mon Nov 23 04:10:00 2026): all URIs must lead to the same one"},
		{name: "not among the RPCs that the exporter may call", method: "core.kill", transports: []transport{{name: "a"}}, wantErr: "core.kill: method is not in the cost table"},
		{name: "scripted: by a scripted transport only", method: "drouting.gw_status", scripted: true, transports: []transport{{name: "a"}, {name: "b", traits: kamrpc.Traits{Scripted: true}}}, asked: "a? b? b", want: "b"},
		{name: "scripted: not by another when it is down", method: "drouting.gw_status", scripted: true, transports: []transport{{name: "a"}, {name: "b", traits: kamrpc.Traits{Scripted: true}, err: down}}, asked: "a? b?", wantErr: "drouting.gw_status via b: kamailio is not reachable: down"},
		{name: "scripted: no such transport", method: "drouting.gw_status", scripted: true, transports: []transport{{name: "a"}}, wantErr: "drouting.gw_status: method not found"},
		{name: "scripted: not in the cost table", method: "x.y", scripted: true, transports: []transport{{name: "a", traits: kamrpc.Traits{Scripted: true}}}, wantErr: "x.y: method is not in the cost table"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var asked []string
			var cfg kamrpc.Config
			var seen []kamrpc.Observation
			cfg.Observe = func(o kamrpc.Observation) { seen = append(seen, o) }
			for _, w := range test.transports {
				w.log = &asked
				cfg.Transports = append(cfg.Transports, w)
			}
			c, err := kamrpc.NewClient(cfg)
			if err != nil {
				t.Fatal(err)
			}
			call := c.Call
			if test.scripted {
				call = c.CallScripted
			}
			v, err := call(context.Background(), test.method)
			if got := strings.Join(asked, " "); got != test.asked {
				t.Errorf("asked %q, want %q", got, test.asked)
			}
			if test.wantErr != "" || err != nil {
				if fmt.Sprint(err) != test.wantErr {
					t.Errorf("got  %v\nwant %s", err, test.wantErr)
				}
			} else if v.Text() != test.want {
				t.Errorf("got %q, want %q", v.Text(), test.want)
			}
			seen = slices.DeleteFunc(seen, func(o kamrpc.Observation) bool { return o.Method == "core.psx" })
			if len(seen) != len(asked) {
				t.Errorf("%d requests, observed %+v", len(asked), seen)
			}
			for _, o := range seen {
				if o.Method != test.method && o.Method != "core.uptime" {
					t.Errorf("observed %+v", o)
				}
			}
		})
	}
}

func TestErrorKinds(t *testing.T) {
	var asked []string
	for _, test := range []struct {
		method string
		is     error
	}{{"core.kill", kamrpc.ErrNotPriced}, {"drouting.gw_status", kamrpc.ErrMethodNotFound}} {
		c, err := kamrpc.NewClient(kamrpc.Config{Transports: []kamrpc.Transport{transport{name: "a", log: &asked}}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.CallScripted(context.Background(), test.method); !errors.Is(err, test.is) {
			t.Errorf("%s: %v is not %v", test.method, err, test.is)
		}
	}
	if _, err := kamrpc.NewClient(kamrpc.Config{}); fmt.Sprint(err) != "no transport: give at least one URI" {
		t.Errorf("no transport: %v", err)
	}
}

func TestObserve(t *testing.T) {
	fake := kamrpctest.New(t)
	fake.Handle("core.version", `"0123456789"`)
	fake.HandleFault("dispatcher.list", 404, "No Destination Sets")
	fake.Misbehave(kamrpctest.Garbage, "tm.stats")
	var seen []kamrpc.Observation
	c := client(t, func(cfg *kamrpc.Config) { cfg.Observe = func(o kamrpc.Observation) { seen = append(seen, o) } },
		fake.URI("unix"))
	for _, method := range []string{"core.version", "dispatcher.list", "tm.stats", "core.kill"} {
		_, _ = c.Call(within(t, patience), method)
	}
	fake.Down()
	_, _ = c.Call(within(t, patience), "core.version")
	if len(seen) != 4 {
		t.Fatalf("observed %d requests, want 4: %+v", len(seen), seen)
	}
	for i, test := range []struct {
		method string
		is     error
	}{{"core.version", nil}, {"dispatcher.list", new(kamrpc.Fault)}, {"tm.stats", kamrpc.ErrBadReply}, {"core.version", kamrpc.ErrUnreachable}} {
		o := seen[i]
		fault := (*kamrpc.Fault)(nil)
		_, wantFault := test.is.(*kamrpc.Fault) //nolint:errorlint // compares the exact error of the table
		if o.Method != test.method || (!wantFault && !errors.Is(o.Err, test.is)) || (wantFault && !errors.As(o.Err, &fault)) {
			t.Errorf("%d: %+v", i, o)
		}
		if (o.Bytes > 0) != (test.is != kamrpc.ErrUnreachable) { //nolint:errorlint // compares the exact error of the table
			t.Errorf("%d: %d bytes", i, o.Bytes)
		}
	}
	if o := seen[0]; o.Bytes < 30 || o.Bytes > 100 {
		t.Errorf("%d bytes", o.Bytes)
	}
}

// There are never more concurrent calls than allowed: each occupies a Kamailio process.
func TestMaxConcurrent(t *testing.T) {
	for _, test := range []struct{ limit, want int }{{0, kamrpc.DefaultMaxConcurrent}, {-1, kamrpc.DefaultMaxConcurrent}, {1, 1}, {5, 5}} {
		t.Run(fmt.Sprint(test.limit), func(t *testing.T) {
			fake := kamrpctest.New(t)
			asked, release := hold(fake, "sl.stats")
			defer release()
			c := client(t, func(cfg *kamrpc.Config) { cfg.MaxConcurrent = test.limit }, fake.URI("http"))
			ctx, cancel := context.WithCancel(within(t, patience))
			defer cancel()
			var calls sync.WaitGroup
			for range 3 * test.want {
				calls.Go(func() {
					if v, err := c.Call(ctx, "sl.stats"); err != nil || v.Text() != "held" {
						t.Errorf("got %q, %v", v.Text(), err)
					}
				})
			}
			for range test.want {
				<-asked
			}
			// All slots are taken: a waiting call gives up at the deadline, or when it is
			// canceled, and sends nothing.
			short, stop := context.WithTimeout(ctx, 20*time.Millisecond)
			defer stop()
			_, err := c.Call(short, "core.version")
			if !errors.Is(err, context.DeadlineExceeded) || !strings.HasPrefix(err.Error(), "core.version: waiting for earlier calls: ") {
				t.Errorf("while all places are taken: %v", err)
			}
			if n := fake.CallCount("core.version"); n != 0 {
				t.Error("the call that did not get a place was made")
			}
			release()
			calls.Wait()
			if n := fake.MaxConcurrent(); n != test.want {
				t.Errorf("%d at once, want %d", n, test.want)
			}
		})
	}
}

// Ids differ between clients, so that a late reply to another client is not accepted.
func TestIDs(t *testing.T) {
	fake := kamrpctest.New(t)
	sent := make(chan string, 9)
	fake.HandleFunc("core.version", func(r kamrpctest.Request) kamrpctest.Response {
		sent <- r.ID
		return kamrpctest.Response{}
	})
	for range 3 {
		c := client(t, nil, fake.URI("unix"))
		for range 3 {
			if _, err := c.Call(within(t, patience), "core.version"); err != nil {
				t.Fatal(err)
			}
		}
	}
	ids := map[string]bool{}
	for range 9 {
		ids[<-sent] = true
	}
	if len(ids) != 9 {
		t.Errorf("%d ids for 9 calls of 3 clients", len(ids))
	}
}

func TestParametersThatCannotBeSent(t *testing.T) {
	fake := newFake(t)
	c := client(t, nil, fake.URI("unix"))
	for _, p := range []any{nil, true, []string{"a"}, map[string]string{"store_path": "/tmp/x"}, struct{}{}} {
		_, err := c.Call(within(t, patience), "stats.get_statistics", "all", p)
		if err == nil || !strings.Contains(err.Error(), "only strings and numbers can be sent") {
			t.Errorf("%v: %v", p, err)
		}
	}
	if n := len(fake.Calls()); n != 0 {
		t.Errorf("%d calls were made", n)
	}
}

// Recorded replies are returned byte for byte, with the right id.
func TestRecordings(t *testing.T) {
	dir := t.TempDir()
	for file, text := range map[string]string{
		"core.version.json":         "{\n\t\"jsonrpc\":\t\"2.0\",\n\t\"result\":\t\"Z\xfcrich\",\n\t\"id\":\t1\n}",
		"dispatcher.list.json":      `{"jsonrpc":"2.0","error":{"code":500,"message":"No Destination Sets"},"id":12}` + "\n",
		"dispatcher.list.full.json": "not a reply at all",
	} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	fake := kamrpctest.New(t)
	fake.LoadDir(dir)
	for _, scheme := range kamrpctest.Schemes() {
		c := client(t, nil, fake.URI(scheme))
		if v, err := c.Call(within(t, patience), "core.version"); err != nil || v.Text() != "Z\xfcrich" {
			t.Errorf("%s: %q, %v", scheme, v.Text(), err)
		}
		if _, err := c.Call(within(t, patience), "dispatcher.list"); fmt.Sprint(err) != "dispatcher.list: kamailio answered error 500: No Destination Sets" {
			t.Errorf("%s: %v", scheme, err)
		}
		v, err := c.Call(within(t, patience), "system.listMethods")
		if err != nil || v.Len() != 3 {
			t.Errorf("%s: %d methods, %v", scheme, v.Len(), err)
		}
	}
}

func TestURIs(t *testing.T) {
	c := client(t, nil, "fifo:///run/k.fifo?reply_dir=/tmp", "http://127.0.0.1:5060")
	if got, want := c.URIs(), []string{"fifo:///run/k.fifo", "http://127.0.0.1:5060/RPC"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// A call that the cost table marks as dangerous on the running version is not sent.
func TestDangerous(t *testing.T) {
	for _, test := range []struct {
		version, method string
		params          []any
		refused         bool
	}{
		{"kamailio 5.6.3 (x86_64/linux) ", "permissions.addressDump", nil, true},
		{"kamailio 6.0.1 (x86_64/linux) ", "permissions.addressDump", nil, false},
		{"kamailio 5.6.3 (x86_64/linux) ", "permissions.subnetDump", nil, false},
		{"kamailio 5.6.3 (x86_64/linux) ", "pdt.list", nil, true},
		{"kamailio 6.0.1 (x86_64/linux) ", "pdt.list", nil, true},
		{"kamailio 7.0.0 (x86_64/linux) ", "mtree.list", nil, true},
		{"kamailio 6.0.1 (x86_64/linux) ", "secfilter.print", nil, true},
		{"kamailio 6.0.1 (x86_64/linux) ", "secfilter.print", []any{"bl"}, false},
		{"kamailio 5.1.9 (x86_64/linux) ", "keepalive.list", nil, true},
		{"kamailio 5.4.0 (x86_64/linux) ", "keepalive.list", nil, true},
		{"kamailio 5.5.0 (x86_64/linux) ", "keepalive.list", nil, false},
		{"", "permissions.addressDump", nil, true}, // an unknown version does not count as safe
	} {
		fake := kamrpctest.New(t)
		fake.Handle("core.version", `"`+test.version+`"`)
		fake.Handle(test.method, `{}`)
		c := client(t, nil, fake.URI("http"))
		for name, err := range map[string]error{
			"Call": func() error { _, err := c.Call(within(t, patience), test.method, test.params...); return err }(),
			"Rows": c.Rows(within(t, patience), kamrpc.Rows{}, func(kamrpc.Above, kamrpc.Value) error { return nil }, test.method, test.params...),
		} {
			if errors.Is(err, kamrpc.ErrDangerous) != test.refused || (err != nil) != test.refused {
				t.Errorf("%s of %s on %s: %v", name, test.method, test.version, err)
			}
		}
		if n := fake.CallCount(test.method); (n == 0) != test.refused {
			t.Errorf("%s on %s arrived %d times", test.method, test.version, n)
		}
	}
}
