package kamrpc_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc/kamrpctest"
)

// patience is the limit for a call that must fail by itself, or at a deadline far below it.
// Only a failing test waits that long.
const patience = 20 * time.Second

// subject is a server to test the contract on.
type subject struct {
	uri      string
	replyDir string // where reply FIFOs are created
	unknown  string // a priced method that the server does not have; "": none
}

// within returns a context with a deadline.
func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// client returns a client for the URIs that shares nothing with other clients. change may
// be nil.
func client(tb testing.TB, change func(*kamrpc.Config), uris ...string) *kamrpc.Client {
	tb.Helper()
	pool := &http.Transport{}
	tb.Cleanup(pool.CloseIdleConnections)
	cfg := kamrpc.Config{}
	for _, uri := range uris {
		transport, err := kamrpc.Open(uri, &http.Client{Transport: pool})
		if err != nil {
			tb.Fatal(err)
		}
		cfg.Transports = append(cfg.Transports, transport)
	}
	if change != nil {
		change(&cfg)
	}
	c, err := kamrpc.NewClient(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

// newFake returns a fake that answers the contract's calls like a real Kamailio.
func newFake(tb testing.TB) *kamrpctest.Server {
	tb.Helper()
	s := kamrpctest.New(tb)
	s.Handle("core.version", `"kamailio 6.0.1 (x86_64/linux)"`)
	s.HandleFunc("stats.get_statistics", func(r kamrpctest.Request) kamrpctest.Response {
		if len(r.Params) == 1 && r.Params[0] == "all" {
			return kamrpctest.Response{Result: `["core:rcv_requests = 5", "shmem:free_size = 1"]`}
		}
		return kamrpctest.Response{Result: "{}"}
	})
	s.HandleFunc("core.shmmem", func(r kamrpctest.Request) kamrpctest.Response {
		if len(r.Params) == 1 && r.Params[0] == "bad" {
			return kamrpctest.Response{Code: 500, Message: "bad unit"}
		}
		return kamrpctest.Response{Result: `{"total":67108864,"free":5}`}
	})
	return s
}

// contract is what every transport must guarantee on every server.
var contract = []struct {
	name string
	test func(*testing.T, subject)
}{
	{"no parameters", func(t *testing.T, s subject) {
		v, err := client(t, nil, s.uri).Call(within(t, patience), "core.version")
		if err != nil || !strings.HasPrefix(v.Text(), "kamailio ") {
			t.Errorf("got %q, %v", v.Text(), err)
		}
	}},
	{"parameters", func(t *testing.T, s subject) {
		c := client(t, nil, s.uri)
		v, err := c.Call(within(t, patience), "stats.get_statistics", "all")
		if err != nil || v.Kind() != kamrpc.Array || v.Len() < 2 {
			t.Errorf("a string: %d elements, %v", v.Len(), err)
		}
		v, err = c.Call(within(t, patience), "core.shmmem", 1)
		if total, ok := v.Get("total").Float(); err != nil || !ok || total <= 0 {
			t.Errorf("a number: %v, %v", total, err)
		}
	}},
	{"parameters that need quoting", func(t *testing.T, s subject) {
		// Kamailio's FIFO treats a quote after any backslash as escaped: wrong quoting
		// breaks the following call.
		c := client(t, nil, s.uri)
		for _, p := range []string{`\`, `\\`, `"`, `\"`, `'`, `{`, `}`, "\n\x01\x7f", "Zürich ☎ 😀", `<&>`, ``} {
			for _, params := range [][]any{{p}, {"all", p}} {
				if _, err := c.Call(within(t, patience), "stats.get_statistics", params...); err != nil && !errors.As(err, new(*kamrpc.Fault)) {
					t.Fatalf("%q: %v", params, err)
				}
			}
			if v, err := c.Call(within(t, patience), "core.version"); err != nil || v.Text() == "" {
				t.Fatalf("the call behind %q: %q, %v", p, v.Text(), err)
			}
		}
	}},
	{"unknown method", func(t *testing.T, s subject) {
		if s.unknown == "" {
			t.Skip("it has every method that has a price")
		}
		_, err := client(t, nil, s.uri).Call(within(t, patience), s.unknown)
		if !errors.Is(err, kamrpc.ErrMethodNotFound) || fmt.Sprint(err) != s.unknown+": kamailio answered error 500: Method Not Found" {
			t.Errorf("got %v", err)
		}
	}},
	{"refusal", func(t *testing.T, s subject) {
		_, err := client(t, nil, s.uri).Call(within(t, patience), "core.shmmem", "bad")
		fault := (*kamrpc.Fault)(nil)
		if !errors.As(err, &fault) || fault.Method != "core.shmmem" || fault.Code < 400 || fault.Message == "" || errors.Is(err, kamrpc.ErrMethodNotFound) {
			t.Errorf("got %v", err)
		}
	}},
	{"many callers", func(t *testing.T, s subject) {
		c := client(t, func(cfg *kamrpc.Config) { cfg.MaxConcurrent = 8 }, s.uri)
		ctx := within(t, patience)
		var callers sync.WaitGroup
		for range 50 {
			callers.Go(func() {
				if v, err := c.Call(ctx, "core.version"); err != nil || v.Text() == "" {
					t.Errorf("got %q, %v", v.Text(), err)
				}
			})
		}
		callers.Wait()
	}},
	{"reloaded before the alert began", func(t *testing.T, s subject) {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_, err := client(t, nil, s.uri).Call(ctx, "core.version")
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	}},
	{"nothing is left behind", func(t *testing.T, s subject) {
		c := client(t, nil, s.uri)
		ctx := within(t, patience)
		leavesNothing(t, s, 500, func() {
			if _, err := c.Call(ctx, "core.version"); err != nil {
				t.Error(err)
			}
		})
	}},
}

// leavesNothing repeats a call and checks that it leaves nothing behind.
func leavesNothing(t *testing.T, s subject, times int, call func()) {
	t.Helper()
	call() // what is created once and kept does not count
	files, goroutines := openFiles(t), runtime.NumGoroutine()
	for range times {
		call()
		if t.Failed() {
			return
		}
	}
	// Kept connections, on either side, are only a few; a leak would be 500.
	const some = 20
	settles(t, func() string {
		if n := openFiles(t); n > files+some {
			return fmt.Sprintf("%d open files after the calls, %d before", n, files)
		}
		if n := runtime.NumGoroutine(); n > goroutines+some {
			return fmt.Sprintf("%d goroutines after the calls, %d before", n, goroutines)
		}
		if left, _ := filepath.Glob(filepath.Join(s.replyDir, "kamailio_exporter_*")); s.replyDir != "" && len(left) > 0 {
			return fmt.Sprintf("reply FIFOs are left: %q", left)
		}
		return ""
	})
}

// settles waits until wrong returns an empty string.
func settles(t *testing.T, wrong func() string) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	late := time.After(patience)
	for {
		what := wrong()
		if what == "" {
			return
		}
		select {
		case <-tick.C:
		case <-late:
			t.Error(what)
			return
		}
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("no /proc here")
	}
	return len(files)
}

func TestContract(t *testing.T) {
	for _, scheme := range kamrpctest.Schemes() {
		t.Run(scheme, func(t *testing.T) {
			for _, clause := range contract {
				t.Run(clause.name, func(t *testing.T) {
					fake := newFake(t)
					clause.test(t, subject{uri: fake.URI(scheme), replyDir: fake.ReplyDir(), unknown: "drouting.gw_status"})
				})
			}
		})
	}
}

// A parameter arrives unchanged, with its type.
func TestParametersReachKamailio(t *testing.T) {
	params := []any{"s", `a\"b\`, "Zürich", 7, int64(-1), 0.5, ""}
	want := []any{"s", `a\"b\`, "Zürich", int64(7), int64(-1), 0.5, ""}
	for _, scheme := range kamrpctest.Schemes() {
		t.Run(scheme, func(t *testing.T) {
			fake := kamrpctest.New(t)
			got := make(chan kamrpctest.Request, 1)
			fake.HandleFunc("sl.stats", func(r kamrpctest.Request) kamrpctest.Response {
				got <- r
				return kamrpctest.Response{}
			})
			if _, err := client(t, nil, fake.URI(scheme)).Call(within(t, patience), "sl.stats", params...); err != nil {
				t.Fatal(err)
			}
			r := <-got
			if fmt.Sprintf("%#v", r.Params) != fmt.Sprintf("%#v", want) {
				t.Errorf("got %#v, want %#v", r.Params, want)
			}
			if r.Transport != scheme || r.Method != "sl.stats" {
				t.Errorf("got %s by %s", r.Method, r.Transport)
			}
			if strings.HasPrefix(scheme, "binrpc") {
				return // BINRPC has no room for further members
			}
			var members map[string]any
			if err := json.Unmarshal(r.Raw, &members); err != nil {
				t.Fatal(err)
			}
			delete(members, "reply_name") // only the FIFO adds it
			if len(members) != 4 {
				t.Errorf("sent %v: want jsonrpc, method, params and id", members)
			}
		})
	}
}

// If a server misbehaves, the call returns in time with an error that says what is wrong,
// and leaves nothing behind.
func TestMisbehavior(t *testing.T) {
	const soon = 150 * time.Millisecond // a deadline that is meant to expire
	datagram := "kamailio hangs, or the reply is larger than the"
	for _, test := range []struct {
		name     string
		mode     kamrpctest.Mode
		schemes  string        // empty: all
		deadline time.Duration // 0: the call must end without one
		is       error         // nil: the call succeeds
		says     string        // what the error contains
		want     string        // the result
	}{
		{name: "silent", mode: kamrpctest.Silent, schemes: "fifo tcp", deadline: soon, is: kamrpc.ErrNoAnswer, says: "no answer before the deadline"},
		{name: "silent with a limit", mode: kamrpctest.Silent, schemes: "http unix udp", deadline: soon, is: kamrpc.ErrNoAnswer, says: datagram},
		{name: "silent, BINRPC", mode: kamrpctest.Silent, schemes: "binrpc+unix binrpc+tcp", deadline: soon, is: kamrpc.ErrNoAnswer, says: "kamailio hangs, or the reply is larger than ctl can send without waiting (in that case add a socket of jsonrpcs as another URI)"},
		{name: "trickling", mode: kamrpctest.Trickle(20 * time.Millisecond), deadline: soon, is: kamrpc.ErrNoAnswer, says: "no answer before the deadline"},
		{name: "slow but in time", mode: kamrpctest.Trickle(10 * time.Microsecond), want: "right"},
		{name: "empty, stream", mode: kamrpctest.Empty, schemes: "http tcp binrpc+unix binrpc+tcp", is: kamrpc.ErrBadReply, says: "invalid reply: cut off"},
		{name: "empty, datagram", mode: kamrpctest.Empty, schemes: "unix udp", deadline: soon, is: kamrpc.ErrNoAnswer, says: datagram},
		{name: "garbage, BINRPC", mode: kamrpctest.Garbage, schemes: "binrpc+unix binrpc+tcp", is: kamrpc.ErrBadReply, says: "invalid reply: not BINRPC at byte 0"},
		{name: "garbage", mode: kamrpctest.Garbage, schemes: "http unix udp fifo tcp", is: kamrpc.ErrBadReply, says: "invalid reply: not JSON at byte 0"},
		{name: "cut off, stream", mode: kamrpctest.Truncate, schemes: "http fifo tcp binrpc+unix binrpc+tcp", is: kamrpc.ErrBadReply, says: "invalid reply: cut off"},
		{name: "cut off, datagram", mode: kamrpctest.Truncate, schemes: "unix udp", deadline: soon, is: kamrpc.ErrNoAnswer, says: datagram},
		{name: "other id, stream", mode: kamrpctest.OtherID, schemes: "http fifo tcp", is: kamrpc.ErrBadReply, says: "invalid reply: its id is that of another request"},
		{name: "other id, datagram", mode: kamrpctest.OtherID, schemes: "unix udp", deadline: soon, is: kamrpc.ErrNoAnswer, says: datagram},
		{name: "other id, connection open", mode: kamrpctest.OtherID, schemes: "binrpc+unix binrpc+tcp", deadline: soon, is: kamrpc.ErrNoAnswer, says: "no answer before the deadline"},
		{name: "late, then right", mode: kamrpctest.LateThenRight, want: "right"},
		{name: "deep, stream", mode: kamrpctest.Deep, schemes: "http fifo tcp binrpc+unix binrpc+tcp", is: kamrpc.ErrBadReply, says: "invalid reply: nested deeper than 64 levels"},
		{name: "endless", mode: kamrpctest.Endless, is: kamrpc.ErrTooLarge, says: "reply too large: more than"},
		{name: "Latin-1", mode: kamrpctest.Latin1, want: "Z\xfcrich"},
		{name: "redirect", mode: kamrpctest.Redirect, schemes: "http", is: kamrpc.ErrBadReply, says: "invalid reply: HTTP status 307"},
		{name: "gzip bomb", mode: kamrpctest.GzipBomb, schemes: "http", is: kamrpc.ErrBadReply, says: "invalid reply: not JSON at byte 0"},
		{name: "length of 1 TiB", mode: kamrpctest.Announce, schemes: "http", want: "right"},
		{name: "401", mode: kamrpctest.HTTPError(401), schemes: "http", is: kamrpc.ErrBadReply, says: "invalid reply: HTTP status 401: give user and password in the HTTP configuration file"},
		{name: "403", mode: kamrpctest.HTTPError(403), schemes: "http", is: kamrpc.ErrBadReply, says: "invalid reply: HTTP status 403: event_route[xhttp:request] in kamailio.cfg does not allow this address or path"},
		{name: "404", mode: kamrpctest.HTTPError(404), schemes: "http", is: kamrpc.ErrBadReply, says: "invalid reply: HTTP status 404: event_route[xhttp:request] in kamailio.cfg does not serve this path"},
		{name: "502", mode: kamrpctest.HTTPError(502), schemes: "http", is: kamrpc.ErrBadReply, says: "invalid reply: HTTP status 502"},
		{name: "a page with status 200", mode: kamrpctest.HTTPError(200), schemes: "http", is: kamrpc.ErrBadReply, says: "invalid reply: not JSON at byte 0"},
	} {
		schemes := kamrpctest.Schemes()
		if test.schemes != "" {
			schemes = strings.Fields(test.schemes)
		}
		for _, scheme := range schemes {
			t.Run(test.name+"/"+scheme, func(t *testing.T) {
				t.Parallel()
				fake := kamrpctest.New(t)
				fake.Handle("sl.stats", `"right"`)
				fake.Handle("core.version", `"still there"`)
				fake.Misbehave(test.mode, "sl.stats")
				c := client(t, func(cfg *kamrpc.Config) { cfg.MaxReplyBytes = 1 << 20 }, fake.URI(scheme))
				deadline := test.deadline
				if deadline == 0 {
					deadline = patience
				}
				began := time.Now()
				v, err := c.Call(within(t, deadline), "sl.stats")
				if took := time.Since(began); took > patience/2 {
					t.Errorf("took %v", took)
				}
				switch {
				case test.is == nil && (err != nil || v.Text() != test.want):
					t.Errorf("got %q, %v; want %q", v.Text(), err, test.want)
				case test.is != nil && !errors.Is(err, test.is):
					t.Errorf("got %v, want %v", err, test.is)
				case test.is != nil && (!strings.Contains(err.Error(), test.says) || !strings.HasPrefix(err.Error(), "sl.stats via "+scheme+"://") || strings.Contains(err.Error(), "\n")):
					t.Errorf("got %q, want one line with %q", err, test.says)
				}
				if n := fake.CallCount("sl.stats"); n != 1 {
					t.Errorf("asked %d times", n)
				}
				if v, err := c.Call(within(t, patience), "core.version"); err != nil || v.Text() != "still there" {
					t.Errorf("the call behind: %q, %v", v.Text(), err)
				}
			})
		}
	}
}

// Not in parallel: it counts the resources of the whole process.
func TestMisbehaviorLeaksNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("17,000 calls")
	}
	for name, mode := range map[string]kamrpctest.Mode{
		"silent": kamrpctest.Silent, "empty": kamrpctest.Empty, "garbage": kamrpctest.Garbage,
		"cut off": kamrpctest.Truncate, "other id": kamrpctest.OtherID, "deep": kamrpctest.Deep,
		"trickling": kamrpctest.Trickle(time.Second), "502": kamrpctest.HTTPError(502),
	} {
		for _, scheme := range kamrpctest.Schemes() {
			if name == "trickling" && (scheme == "unix" || scheme == "udp") {
				continue // the fake's own goroutines do not notice that the client is gone
			}
			t.Run(name+"/"+scheme, func(t *testing.T) {
				fake := kamrpctest.New(t)
				fake.Handle("sl.stats", `"right"`)
				fake.Misbehave(mode)
				const atOnce = 10
				c := client(t, func(cfg *kamrpc.Config) { cfg.MaxConcurrent = atOnce }, fake.URI(scheme))
				leavesNothing(t, subject{replyDir: fake.ReplyDir()}, 500/atOnce, func() {
					ctx, cancel := context.WithTimeout(context.Background(), 5*time.Millisecond)
					defer cancel()
					var calls sync.WaitGroup
					for range atOnce {
						calls.Go(func() {
							if _, err := c.Call(ctx, "sl.stats"); err == nil && (name != "502" || scheme == "http") {
								t.Error("it was answered")
							}
						})
					}
					calls.Wait()
				})
			})
		}
	}
}

// hold installs a handler that reports each call and answers once the test releases it.
func hold(fake *kamrpctest.Server, method string) (asked <-chan struct{}, release func()) {
	in, out := make(chan struct{}, 1000), make(chan struct{})
	fake.HandleFunc(method, func(kamrpctest.Request) kamrpctest.Response {
		in <- struct{}{}
		<-out
		return kamrpctest.Response{Result: `"held"`}
	})
	return in, sync.OnceFunc(func() { close(out) })
}

func TestCancel(t *testing.T) {
	for _, scheme := range kamrpctest.Schemes() {
		t.Run(scheme, func(t *testing.T) {
			fake := kamrpctest.New(t)
			asked, release := hold(fake, "sl.stats")
			defer release()
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			done := make(chan error, 1)
			c := client(t, nil, fake.URI(scheme))
			go func() {
				_, err := c.Call(ctx, "sl.stats")
				done <- err
			}()
			<-asked
			cancel()
			select {
			case err := <-done:
				if !errors.Is(err, context.Canceled) || errors.Is(err, kamrpc.ErrNoAnswer) {
					t.Errorf("got %v", err)
				}
			case <-time.After(patience):
				t.Fatal("does not return")
			}
		})
	}
}

func TestLargeReply(t *testing.T) {
	for _, scheme := range []string{"http", "fifo", "tcp", "binrpc+unix", "binrpc+tcp"} {
		t.Run(scheme, func(t *testing.T) {
			fake := kamrpctest.New(t)
			const rows = 10_000
			fake.HandleFunc("dlg.briefing", func(kamrpctest.Request) kamrpctest.Response {
				return kamrpctest.Response{Stream: func(w io.Writer) error {
					for i := range rows {
						if _, err := fmt.Fprintf(w, "%c{\"AoR\":%q}", "[,"[min(i, 1)], strings.Repeat("x", 100)); err != nil {
							return err
						}
					}
					_, err := io.WriteString(w, "]")
					return err
				}}
			})
			var seen kamrpc.Observation
			c := client(t, func(cfg *kamrpc.Config) { cfg.Observe = func(o kamrpc.Observation) { seen = o } }, fake.URI(scheme))
			v, err := c.Call(within(t, patience), "dlg.briefing")
			if err != nil || v.Len() != rows {
				t.Errorf("%d rows, %v", v.Len(), err)
			}
			if seen.Bytes < 1<<20 || seen.Method != "dlg.briefing" || seen.Err != nil {
				t.Errorf("observed %+v", seen)
			}
		})
	}
	for scheme, size := range map[string]int{"unix": 130_000, "udp": 65_000} {
		t.Run(scheme, func(t *testing.T) {
			fake := kamrpctest.New(t)
			want := strings.Repeat("x", size)
			fake.Handle("core.version", `"`+want+`"`)
			v, err := client(t, nil, fake.URI(scheme)).Call(within(t, patience), "core.version")
			if err != nil || v.Text() != want {
				t.Errorf("%d bytes, %v", len(v.Text()), err)
			}
		})
	}
}

// A reply that is too large for a datagram never arrives. The error names the fix. With a
// second transport, the method uses that one from the next call on.
func TestOutgrown(t *testing.T) {
	for _, scheme := range []string{"unix", "udp"} {
		t.Run(scheme, func(t *testing.T) {
			fake := kamrpctest.New(t)
			fake.Handle("core.version", `"v"`)
			fake.Handle("stats.get_statistics", `"`+strings.Repeat("x", 300_000)+`"`)

			alone := client(t, nil, fake.URI(scheme))
			for range 2 {
				_, err := alone.Call(within(t, 100*time.Millisecond), "stats.get_statistics", "all")
				if !errors.Is(err, kamrpc.ErrNoAnswer) || !strings.Contains(fmt.Sprint(err), "in that case add the FIFO or HTTP as another URI") {
					t.Errorf("got %v", err)
				}
			}

			transports := make(chan string, 10)
			for _, method := range []string{"core.version", "stats.get_statistics"} {
				long := method == "stats.get_statistics"
				fake.HandleFunc(method, func(r kamrpctest.Request) kamrpctest.Response {
					transports <- r.Transport
					if long {
						return kamrpctest.Response{Result: `"` + strings.Repeat("x", 300_000) + `"`}
					}
					return kamrpctest.Response{Result: `"v"`}
				})
			}
			both := client(t, nil, fake.URI(scheme), fake.URI("fifo"))
			for _, deadline := range []time.Duration{400 * time.Millisecond, patience} {
				v, err := both.Call(within(t, deadline), "stats.get_statistics", "all")
				if err != nil || len(v.Text()) != 300_000 {
					t.Errorf("%d bytes, %v", len(v.Text()), err)
				}
			}
			if _, err := both.Call(within(t, patience), "core.version"); err != nil {
				t.Error(err)
			}
			// Once the reply is small again, it uses the first transport again.
			fake.HandleFunc("stats.get_statistics", func(r kamrpctest.Request) kamrpctest.Response {
				transports <- r.Transport
				return kamrpctest.Response{Result: `"short"`}
			})
			for range 2 {
				if _, err := both.Call(within(t, patience), "stats.get_statistics", "all"); err != nil {
					t.Error(err)
				}
			}
			for _, want := range []string{scheme, "fifo", "fifo", scheme, "fifo", scheme} {
				if got := <-transports; got != want {
					t.Errorf("went by %s, want %s", got, want)
				}
			}
		})
	}
}

// A request that is too long for the transport is not sent.
func TestLongRequest(t *testing.T) {
	for _, scheme := range []string{"unix", "udp", "fifo", "tcp", "binrpc+unix", "binrpc+tcp"} {
		t.Run(scheme, func(t *testing.T) {
			fake := newFake(t)
			c := client(t, nil, fake.URI(scheme))
			_, err := c.Call(within(t, patience), "stats.get_statistics", strings.Repeat("x", 70_000))
			if err == nil || !strings.Contains(err.Error(), "the request has 70") {
				t.Errorf("got %v", err)
			}
			if n := len(fake.Calls()); n != 0 {
				t.Errorf("%d calls arrived", n)
			}
			if _, err := c.Call(within(t, patience), "core.version"); err != nil {
				t.Errorf("the call behind: %v", err)
			}
		})
	}
}

func TestRestart(t *testing.T) {
	for _, scheme := range kamrpctest.Schemes() {
		t.Run(scheme, func(t *testing.T) {
			fake := newFake(t)
			c := client(t, nil, fake.URI(scheme))
			if _, err := c.Call(within(t, patience), "core.version"); err != nil {
				t.Fatal(err)
			}
			fake.Down()
			// A dead kept HTTP connection may only be noticed when it is used.
			settles(t, func() string {
				if _, err := c.Call(within(t, patience), "core.version"); !errors.Is(err, kamrpc.ErrUnreachable) {
					return fmt.Sprintf("while it is down: %v", err)
				}
				return ""
			})
			fake.Up()
			if v, err := c.Call(within(t, patience), "core.version"); err != nil || v.Text() == "" {
				t.Errorf("after the restart: %q, %v", v.Text(), err)
			}
		})
	}
}

// unused returns a port without a listener.
func unused(t *testing.T, network string) string {
	t.Helper()
	if network == "udp" {
		conn, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		return conn.LocalAddr().String()
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

func TestUnreachable(t *testing.T) {
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	if err := os.WriteFile(in("regular"), []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, fifo := range []string{"lonely", "read"} {
		if err := syscall.Mkfifo(in(fifo), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	reader, err := os.OpenFile(in("read"), os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	// A socket whose server is gone, as after kill -9.
	short, err := os.MkdirTemp("", "kam")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(short)
	stale, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: short + "/stale", Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	stale.Close()

	const (
		nobody = "kamailio is not reachable: connection refused: Kamailio is not running, or does not listen there"
		noFile = "kamailio is not reachable: the file does not exist: Kamailio is not running, or jsonrpcs uses another path"
	)
	for _, test := range []struct{ name, uri, says string }{
		{"http", "http://" + unused(t, "tcp") + "/RPC", nobody},
		{"tcp", "tcp://" + unused(t, "tcp"), nobody},
		{"binrpc+tcp", "binrpc+tcp://" + unused(t, "tcp"), nobody},
		{"binrpc+unix, no file", "binrpc+unix://" + short + "/none", "kamailio is not reachable: the file does not exist: Kamailio is not running, or ctl is not loaded or uses another path"},
		{"binrpc+unix, not a socket", "binrpc+unix://" + in("regular"), nobody},
		{"udp", "udp://" + unused(t, "udp"), nobody},
		{"unix, no file", "unix://" + short + "/none", noFile},
		{"unix, no listener", "unix://" + short + "/stale", nobody},
		{"unix, not a socket", "unix://" + in("regular"), nobody},
		{"fifo, no file", "fifo://" + in("none"), noFile},
		{"fifo, no reader", "fifo://" + in("lonely"), nobody},
		{"fifo, not a FIFO", "fifo://" + in("regular"), "kamailio is not reachable: " + in("regular") + " is not a FIFO"},
		{"fifo, a directory", "fifo://" + dir, "kamailio is not reachable: open " + dir + ": is a directory"},
		{"fifo, no reply directory", "fifo://" + in("read") + "?reply_dir=/none", "kamailio is not reachable: cannot create a reply FIFO in /none (fifo_reply_dir of jsonrpcs): no such file or directory"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := client(t, nil, test.uri)
			// Without a deadline: the error must be found at once.
			_, err := c.Call(context.Background(), "core.version")
			uri, _, _ := strings.Cut(test.uri, "?")
			if want := "core.version via " + uri + ": " + test.says; !errors.Is(err, kamrpc.ErrUnreachable) || err.Error() != want {
				t.Errorf("got  %v\nwant %s", err, want)
			}
			leavesNothing(t, subject{replyDir: dir}, 500, func() { _, _ = c.Call(context.Background(), "core.version") })
		})
	}
	if text, err := os.ReadFile(in("regular")); err != nil || string(text) != "mine" {
		t.Errorf("a file that is no FIFO was written to: %q, %v", text, err)
	}
}

// A hanging Kamailio leaves requests unread in its FIFO. They must not accumulate over
// several scrapes, because it would process all of them once it recovers.
func TestHungFIFO(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	kamailio, err := os.OpenFile(path, os.O_RDWR|syscall.O_NONBLOCK, 0) // opened but never read
	if err != nil {
		t.Fatal(err)
	}
	defer kamailio.Close()
	c := client(t, nil, "fifo://"+path+"?reply_dir="+dir)
	if _, err := c.Call(within(t, 500*time.Millisecond), "core.version"); !errors.Is(err, kamrpc.ErrNoAnswer) {
		t.Errorf("the first call: %v", err)
	}
	for range 10 {
		_, err := c.Call(within(t, patience), "core.version")
		if !errors.Is(err, kamrpc.ErrUnreachable) || !strings.Contains(err.Error(), "an earlier request is still in the FIFO") {
			t.Errorf("a later call: %v", err)
		}
	}
	buffer := make([]byte, 64<<10)
	n, err := kamailio.Read(buffer)
	if err != nil || strings.Count(string(buffer[:n]), "jsonrpc") != 1 {
		t.Errorf("%d requests are waiting, %v; want one", strings.Count(string(buffer[:n]), "jsonrpc"), err)
	}
	// The requests have been read: Kamailio is alive again and may be called.
	if _, err := c.Call(within(t, 500*time.Millisecond), "core.version"); !errors.Is(err, kamrpc.ErrNoAnswer) {
		t.Errorf("after it has read: %v", err)
	}
}

// A peer that accepts connections but reads nothing, like the kernel of a stopped process.
func TestAcceptedButUnanswered(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	for _, uri := range []string{"http://" + listener.Addr().String() + "/RPC", "tcp://" + listener.Addr().String()} {
		_, err := client(t, nil, uri).Call(within(t, 50*time.Millisecond), "core.version")
		if !errors.Is(err, kamrpc.ErrNoAnswer) {
			t.Errorf("%s: %v", uri, err)
		}
	}
}
