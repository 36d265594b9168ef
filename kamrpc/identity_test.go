package kamrpc_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc/kamrpctest"
)

// started returns a fake with an identity: its start time and its main process.
func started(tb testing.TB, since string, pid int) *kamrpctest.Server {
	tb.Helper()
	s := newFake(tb)
	restart(s, since, pid)
	s.Handle("dispatcher.list", fmt.Sprintf(`{"pid":%d}`, pid))
	s.Handle("dispatcher.reload", fmt.Sprintf(`"reloaded by %d"`, pid))
	return s
}

func restart(s *kamrpctest.Server, since string, pid int) {
	s.Handle("core.uptime", fmt.Sprintf(`{"now":"x","up_since":%q,"uptime":5}`, since))
	s.Handle("core.psx", fmt.Sprintf(`[{"IDX":0,"PID":%d,"DSC":"main process - attendant"},{"IDX":1,"PID":%d,"DSC":"udp receiver child=0"}]`, pid, pid+1))
}

const (
	monday  = "Mon Nov 23 04:10:00 2026"
	tuesday = "Tue Nov 24 04:10:00 2026"
)

// served returns which of the fakes answers a call.
func served(t *testing.T, c *kamrpc.Client) string {
	t.Helper()
	v, err := c.Call(within(t, patience), "dispatcher.list")
	if err != nil {
		return err.Error()
	}
	return v.Get("pid").Text()
}

// problems returns the URIs that are not used, by scheme.
func problems(t *testing.T, c *kamrpc.Client) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, s := range c.Status(within(t, patience)) {
		scheme, _, _ := strings.Cut(s.URI, ":")
		if all[scheme] = ""; s.Err != nil {
			all[scheme] = s.Err.Error()
		}
	}
	return all
}

// A URI that leads to another Kamailio is never used: not for large replies, not when the
// right one is down, and not for changes.
func TestAnotherKamailio(t *testing.T) {
	for _, test := range []struct {
		name  string
		since string
		pid   int
	}{{"started at another time", tuesday, 200}, {"started in the same second", monday, 200}} {
		t.Run(test.name, func(t *testing.T) {
			first, second := started(t, monday, 100), started(t, test.since, test.pid)
			c := client(t, nil, first.URI("unix"), second.URI("fifo"))
			if got := served(t, c); got != "100" {
				t.Errorf("served by %s", got)
			}
			want := fmt.Sprintf("leads to another Kamailio (process %d, up since %s) than %s (process 100, up since %s)", test.pid, test.since, first.URI("unix"), monday)
			if got := problems(t, c); !strings.HasPrefix(got["fifo"], want) || got["unix"] != "" {
				t.Errorf("status: %q", got)
			}
			first.Down()
			if got := served(t, c); !strings.Contains(got, "not reachable") || !strings.Contains(got, "another Kamailio") {
				t.Errorf("with the first one down: %s", got)
			}
			// The other one restarts too: its identity is now unknown, but it is not the first.
			restart(second, "Wed Nov 25 04:10:00 2026", 300)
			beside, err := c.Sibling(kamrpc.Config{Transports: transportsOf(t, first.URI("unix"), second.URI("fifo"))})
			if err != nil {
				t.Fatal(err)
			}
			if v, err := beside.Do(within(t, patience), "dispatcher.reload"); err == nil || errors.Is(err, kamrpc.ErrUnknownOutcome) {
				t.Errorf("a change with the first one down: %v, %v", v, err)
			}
			restart(first, "Wed Nov 25 05:00:00 2026", 400)
			first.Up()
			if _, err := c.Call(within(t, patience), "core.uptime"); err != nil {
				t.Error(err)
			}
			if got := served(t, c); got != "100" {
				t.Errorf("after a restart served by %s", got)
			}
			if v, err := beside.Do(within(t, patience), "dispatcher.reload"); err != nil || v.Text() != "reloaded by 100" {
				t.Errorf("a change: %v, %v", v, err)
			}
			for method, n := range second.Calls() {
				if method != "core.uptime" && method != "core.psx" || n > 6 {
					t.Errorf("the other one was asked for %s %d times", method, n)
				}
			}
			// Finally both lead to the same Kamailio, and its start is noticed.
			restart(first, tuesday, 500)
			restart(second, tuesday, 500)
			if _, err := c.Call(within(t, patience), "core.uptime"); err != nil {
				t.Error(err)
			}
			if got := problems(t, c); got["fifo"] != "" || got["unix"] != "" {
				t.Errorf("status at the end: %q", got)
			}
			if got := served(t, c); got == "100" || strings.Contains(got, " ") {
				t.Errorf("large replies do not go by the FIFO: %s", got)
			}
		})
	}
}

func transportsOf(t *testing.T, uris ...string) (transports []kamrpc.Transport) {
	t.Helper()
	for _, uri := range uris {
		transport, err := kamrpc.Open(uri, nil)
		if err != nil {
			t.Fatal(err)
		}
		transports = append(transports, transport)
	}
	return transports
}

// The first URI takes precedence, even if its Kamailio starts later.
func TestFirstKamailioWins(t *testing.T) {
	first, second := started(t, monday, 100), started(t, monday, 200)
	first.Down()
	c := client(t, nil, first.URI("unix"), second.URI("tcp"))
	if got := served(t, c); got != "200" {
		t.Errorf("with the first one down served by %s", got)
	}
	first.Up()
	if _, err := c.Call(within(t, patience), "core.uptime"); err != nil {
		t.Error(err)
	}
	if got := served(t, c); got != "100" {
		t.Errorf("then served by %s", got)
	}
	first.Down()
	if got := served(t, c); !strings.Contains(got, "another Kamailio") {
		t.Errorf("with the first one down again: %s", got)
	}
}

// A server that does not report its identity is assumed to be the right one, because
// nothing contradicts that.
func TestUnknownIdentity(t *testing.T) {
	fake := newFake(t)
	c := client(t, nil, fake.URI("unix"), fake.URI("fifo"))
	if got := problems(t, c); got["unix"] != "" || got["fifo"] != "" {
		t.Errorf("status: %q", got)
	}
}

// Kamailio adds processes while it starts.
func TestIdentityOfAStart(t *testing.T) {
	process := func(pid string) kamrpc.Process { return kamrpc.Process{PID: pid, Description: "x"} }
	young := kamrpc.Identity{UpSince: monday, Processes: []kamrpc.Process{process("1")}}
	old := kamrpc.Identity{UpSince: monday, Processes: []kamrpc.Process{process("1"), process("2")}}
	other := kamrpc.Identity{UpSince: monday, Processes: []kamrpc.Process{process("1"), process("3")}}
	if !young.Same(old) || !old.Same(young) || old.Same(other) || !(kamrpc.Identity{}).Same(old) || old.Same(kamrpc.Identity{UpSince: tuesday}) {
		t.Error("identities are not compared as they should")
	}
	if got := (kamrpc.Identity{}).String(); got != "unknown process" {
		t.Errorf("nothing known: %q", got)
	}
}

// muteFIFO returns a URI of a FIFO that accepts requests but whose replies go elsewhere.
func muteFIFO(t *testing.T, s *kamrpctest.Server) string {
	t.Helper()
	path, _, _ := strings.Cut(s.URI("fifo"), "?")
	return path + "?reply_dir=" + t.TempDir()
}

// A FIFO whose replies go elsewhere is tried once, whatever its position is.
func TestMuteFIFO(t *testing.T) {
	for _, fifoFirst := range []bool{true, false} {
		t.Run(fmt.Sprintf("first %t", fifoFirst), func(t *testing.T) {
			fake := started(t, monday, 100)
			asked := 0
			var mu sync.Mutex
			fake.HandleFunc("core.uptime", func(r kamrpctest.Request) kamrpctest.Response {
				mu.Lock()
				defer mu.Unlock()
				if r.Transport == "fifo" {
					asked++
				}
				return kamrpctest.Response{Result: `{"up_since":"` + monday + `"}`}
			})
			uris := []string{fake.URI("http"), muteFIFO(t, fake)}
			if fifoFirst {
				uris[0], uris[1] = uris[1], uris[0]
			}
			c := client(t, nil, uris...)
			for range 3 {
				if _, err := c.Call(within(t, 3*time.Second), "core.uptime"); err != nil {
					t.Error(err)
				}
				if got := served(t, c); got != "100" {
					t.Errorf("served by %s", got)
				}
			}
			want := "no answer, while Kamailio answers at another URI: jsonrpcs writes its replies to another directory"
			if got := problems(t, c); got["http"] != "" || !strings.HasPrefix(got["fifo"], want) {
				t.Errorf("status: %q", got)
			}
			mu.Lock()
			defer mu.Unlock()
			if asked != 1 {
				t.Errorf("the FIFO was asked %d times", asked)
			}
		})
	}
}

// A change is not sent over a transport that does not answer.
func TestChangeAvoidsMuteFIFO(t *testing.T) {
	fake := started(t, monday, 100)
	c := client(t, nil, muteFIFO(t, fake), fake.URI("unix"))
	if v, err := c.Do(within(t, patience), "dispatcher.reload"); err != nil || v.Text() != "reloaded by 100" {
		t.Errorf("%v, %v", v, err)
	}
	if n := fake.CallCount("dispatcher.reload"); n != 1 {
		t.Errorf("%d reloads", n)
	}
}

// A transport stops answering: the read uses the next one within the same call, and the
// first is tried once more before it is given up.
func TestTransportStopsAnswering(t *testing.T) {
	fake := started(t, monday, 100)
	c := client(t, nil, fake.URI("unix"), fake.URI("tcp"))
	if got := problems(t, c); got["unix"] != "" {
		t.Errorf("status: %q", got)
	}
	silent := func(method, result string) {
		release := make(chan struct{})
		t.Cleanup(func() { close(release) })
		fake.HandleFunc(method, func(r kamrpctest.Request) kamrpctest.Response {
			if r.Transport == "unix" {
				<-release
			}
			return kamrpctest.Response{Result: result}
		})
	}
	silent("core.uptime", `{"up_since":"`+monday+`"}`)
	silent("core.version", `"kamailio"`)
	if v, err := c.Call(within(t, time.Second), "core.version"); err != nil || v.Text() != "kamailio" {
		t.Errorf("in the same call: %v, %v", v, err)
	}
	if v, err := c.Call(within(t, time.Second), "core.version"); err != nil || v.Text() != "kamailio" {
		t.Errorf("in the next one: %v, %v", v, err)
	}
	if got := problems(t, c); !strings.HasPrefix(got["unix"], "no answer") || got["tcp"] != "" {
		t.Errorf("status: %q", got)
	}
}

// If Kamailio hangs, no URI is marked as bad, and it is not queried repeatedly.
func TestHangMarksNoURIAsBad(t *testing.T) {
	fake := started(t, monday, 100)
	c := client(t, nil, fake.URI("unix"), fake.URI("tcp"))
	fake.Misbehave(kamrpctest.Silent)
	for range 3 {
		if _, err := c.Call(within(t, 400*time.Millisecond), "core.uptime"); !errors.Is(err, kamrpc.ErrNoAnswer) || !strings.Contains(err.Error(), "kamailio hangs") {
			t.Errorf("while it hangs: %v", err)
		}
	}
	if n := fake.CallCount("core.uptime"); n > 6 {
		t.Errorf("asked %d times in 3 calls by 2 transports", n)
	}
	fake.Misbehave(kamrpctest.OK)
	ctx := within(t, patience)
	for _, err := c.Call(ctx, "core.uptime"); err != nil; _, err = c.Call(ctx, "core.uptime") {
		if ctx.Err() != nil {
			t.Fatal(err)
		}
	}
	for got := problems(t, c); got["unix"] != "" || got["tcp"] != ""; got = problems(t, c) {
		if ctx.Err() != nil {
			t.Fatalf("status afterwards: %q", got)
		}
	}
}

// Many calls learn identities concurrently, while Kamailio restarts now and then.
func TestChecksSideBySide(t *testing.T) {
	first, second := started(t, monday, 100), started(t, monday, 200)
	c := client(t, nil, first.URI("unix"), second.URI("fifo"), first.URI("http"), first.URI("tcp"))
	beside, err := c.Sibling(kamrpc.Config{Transports: transportsOf(t, first.URI("unix"), second.URI("fifo"), first.URI("http"), first.URI("tcp"))})
	if err != nil {
		t.Fatal(err)
	}
	var calls sync.WaitGroup
	for i := range 8 {
		calls.Go(func() {
			for j := range 20 {
				switch (i + j) % 4 {
				case 0:
					_, _ = c.Call(within(t, patience), "core.uptime")
				case 1:
					if got := served(t, c); got != "100" {
						t.Errorf("served by %s", got)
					}
				case 2:
					_ = c.Status(within(t, patience))
				case 3:
					if v, err := beside.Do(within(t, patience), "dispatcher.reload"); err != nil || v.Text() != "reloaded by 100" {
						t.Errorf("a change: %v, %v", v, err)
					}
				}
			}
		})
	}
	for i := range 5 {
		restart(first, fmt.Sprintf("Mon Nov 23 04:10:%02d 2026", i), 100+10*i)
		_, _ = c.Call(within(t, patience), "core.uptime")
	}
	calls.Wait()
	for method, n := range second.Calls() {
		if method != "core.uptime" && method != "core.psx" {
			t.Errorf("the other one was asked for %s %d times", method, n)
		}
	}
}

// Status omits URIs that it could not check in time.
func TestStatusInTime(t *testing.T) {
	fake := started(t, monday, 100)
	fake.Misbehave(kamrpctest.Silent)
	ctx, cancel := context.WithCancel(within(t, patience))
	cancel()
	if got := client(t, nil, fake.URI("unix"), fake.URI("tcp")).Status(ctx); len(got) != 0 {
		t.Errorf("%v", got)
	}
}
