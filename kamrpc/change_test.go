package kamrpc_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc/kamrpctest"
)

func TestReadsAndChangesUseDifferentMethods(t *testing.T) {
	fake := newFake(t)
	fake.Handle("dispatcher.reload", `"ok"`)
	c := client(t, nil, fake.URI("http"))
	if _, err := c.Call(within(t, patience), "dispatcher.reload"); !errors.Is(err, kamrpc.ErrNotPriced) {
		t.Errorf("a reload was called as a read: %v", err)
	}
	if _, err := c.Do(within(t, patience), "core.version"); !errors.Is(err, kamrpc.ErrNotPriced) {
		t.Errorf("a read was made as a change: %v", err)
	}
	for _, method := range []string{"core.kill", "cfg.sets", "dispatcher.add", "DISPATCHER.reload", ""} {
		if _, err := c.Do(within(t, patience), method); !errors.Is(err, kamrpc.ErrNotPriced) {
			t.Errorf("%q: %v", method, err)
		}
	}
	if v, err := c.Do(within(t, patience), "dispatcher.reload"); err != nil || v.Text() != "ok" {
		t.Errorf("%v, %v", v, err)
	}
	if n := fake.CallCount("dispatcher.reload"); n != 1 {
		t.Errorf("%d reloads", n)
	}
}

// An unknown outcome is distinguished from a failure, and the request is sent once.
func TestOutcomes(t *testing.T) {
	for _, scheme := range kamrpctest.Schemes() {
		for name, mode := range map[string]kamrpctest.Mode{
			"hang": kamrpctest.Silent, "empty": kamrpctest.Empty, "garbage": kamrpctest.Garbage,
			"truncate": kamrpctest.Truncate, "wrong id": kamrpctest.OtherID, "deep": kamrpctest.Deep,
			"endless": kamrpctest.Endless, "trickle": kamrpctest.Trickle(100 * time.Millisecond),
			"redirect": kamrpctest.Redirect, "gzip bomb": kamrpctest.GzipBomb, "HTTP error": kamrpctest.HTTPError(503),
		} {
			if strings.Contains("redirect gzip bomb HTTP error", name) && scheme != "http" {
				continue
			}
			t.Run(scheme+" "+name, func(t *testing.T) {
				t.Parallel()
				fake := newFake(t)
				fake.Handle("dispatcher.reload", `"Ok. Dispatcher successfully reloaded."`)
				fake.Misbehave(mode, "dispatcher.reload")
				c := client(t, func(cfg *kamrpc.Config) { cfg.MaxReplyBytes = 1 << 20 }, fake.URI(scheme), fake.URI("udp"))
				_, err := c.Do(within(t, 300*time.Millisecond), "dispatcher.reload")
				if !errors.Is(err, kamrpc.ErrUnknownOutcome) {
					t.Errorf("not unknown: %v", err)
				}
				if n := fake.CallCount("dispatcher.reload"); n != 1 {
					t.Errorf("sent %d times", n)
				}
			})
		}
		t.Run(scheme+" down", func(t *testing.T) {
			fake := newFake(t)
			uri := fake.URI(scheme)
			fake.Down()
			_, err := client(t, nil, uri).Do(within(t, patience), "dispatcher.reload")
			// Only an error from the kernel shows that a UDP port has no listener.
			if !errors.Is(err, kamrpc.ErrUnreachable) || errors.Is(err, kamrpc.ErrUnknownOutcome) {
				t.Errorf("not unreachable: %v", err)
			}
		})
		t.Run(scheme+" fault", func(t *testing.T) {
			fake := newFake(t)
			fake.HandleFault("dispatcher.reload", 500, "Reload Failed")
			_, err := client(t, nil, fake.URI(scheme)).Do(within(t, patience), "dispatcher.reload")
			if fault := (*kamrpc.Fault)(nil); !errors.As(err, &fault) || errors.Is(err, kamrpc.ErrUnknownOutcome) {
				t.Errorf("not a fault: %v", err)
			}
		})
	}
}

// A change uses the next transport if nothing was sent.
func TestChangeOverTheNextTransport(t *testing.T) {
	fake, gone := newFake(t), newFake(t)
	fake.Handle("dispatcher.reload", `"ok"`)
	uri := gone.URI("unix")
	gone.Down()
	if _, err := client(t, nil, uri, fake.URI("fifo")).Do(within(t, patience), "dispatcher.reload"); err != nil {
		t.Error(err)
	}
}

// If Kamailio closed a kept connection, a change is still sent only once, and its outcome
// is known.
func TestChangeUsesNoStaleConnection(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var requests atomic.Int32
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		hijacked, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer hijacked.Close() // without announcing it, as set_reply_close() does
		body := make([]byte, r.ContentLength)
		_, _ = r.Body.Read(body)
		result := fmt.Sprintf(`{"jsonrpc":"2.0","result":"ok","id":%s}`, requestID.FindSubmatch(body)[1])
		fmt.Fprintf(hijacked, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(result), result)
	})}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { server.Close() })
	c := client(t, nil, "http://"+listener.Addr().String()+"/RPC")
	for range 20 {
		if _, err := c.Do(within(t, patience), "dispatcher.reload"); err != nil {
			t.Fatal(err)
		}
	}
	if n := requests.Load(); n != 20 {
		t.Errorf("%d requests for 20 changes", n)
	}
}

// overlap counts the calls that run in the fake by module. It fails if a read and a reload
// of one module, or two changes, overlap.
type overlap struct {
	t       *testing.T
	mu      sync.Mutex
	reads   map[string]int
	reloads map[string]int
	changes int
	calls   int
}

func (o *overlap) handler(module string, reload bool) kamrpctest.Handler {
	return func(kamrpctest.Request) kamrpctest.Response {
		o.step(module, reload, 1)
		time.Sleep(2 * time.Millisecond) // simulated duration of a call
		o.step(module, reload, -1)
		return kamrpctest.Response{Result: `"ok"`}
	}
}

func (o *overlap) step(module string, reload bool, by int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.calls += by
	if reload {
		o.changes += by
		o.reloads[module] += by
	} else {
		o.reads[module] += by
	}
	if o.changes > 1 {
		o.t.Errorf("%d changes at once", o.changes)
	}
	if o.reloads[module] > 0 && o.reads[module] > 0 {
		o.t.Errorf("%s is read while it reloads", module)
	}
}

// Reads and reloads by two clients of one Kamailio never overlap.
func TestNoReadWhileReloading(t *testing.T) {
	fake := newFake(t)
	o := &overlap{t: t, reads: map[string]int{}, reloads: map[string]int{}}
	fake.HandleFunc("dispatcher.list", o.handler("dispatcher", false))
	fake.HandleFunc("dispatcher.reload", o.handler("dispatcher", true))
	fake.HandleFunc("domain.dump", o.handler("domain", false))
	fake.HandleFunc("domain.reload", o.handler("domain", true))
	scrapes := client(t, func(cfg *kamrpc.Config) { cfg.MaxConcurrent = 8 }, fake.URI("http"))
	transport, err := kamrpc.Open(fake.URI("http"), &http.Client{Transport: &http.Transport{DisableKeepAlives: true}})
	if err != nil {
		t.Fatal(err)
	}
	admin, err := scrapes.Sibling(kamrpc.Config{Transports: []kamrpc.Transport{transport}, MaxConcurrent: 8})
	if err != nil {
		t.Fatal(err)
	}
	ctx := within(t, patience)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for i := range 20 {
				if _, err := scrapes.Call(ctx, []string{"dispatcher.list", "domain.dump"}[i%2]); err != nil {
					t.Error(err)
				}
			}
		})
		all.Go(func() {
			for i := range 10 {
				if _, err := admin.Do(ctx, []string{"dispatcher.reload", "domain.reload"}[i%2]); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
}

// Only calls to the reloading module wait.
func TestReloadBlocksOnlyItsModule(t *testing.T) {
	fake := newFake(t)
	inside, leave := make(chan struct{}), make(chan struct{})
	fake.HandleFunc("dispatcher.reload", func(kamrpctest.Request) kamrpctest.Response {
		close(inside)
		<-leave
		return kamrpctest.Response{Result: `"ok"`}
	})
	fake.Handle("dispatcher.list", "{}")
	scrapes := client(t, func(cfg *kamrpc.Config) { cfg.MaxConcurrent = 1 }, fake.URI("http"))
	admin, err := scrapes.Sibling(kamrpc.Config{Transports: []kamrpc.Transport{openTransport(t, fake.URI("http"))}})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() {
		_, err := admin.Do(context.Background(), "dispatcher.reload")
		done <- err
	}()
	<-inside
	if _, err := scrapes.Call(within(t, 50*time.Millisecond), "dispatcher.list"); !errors.Is(err, kamrpc.ErrReloading) {
		t.Errorf("a read of the module that reloads: %v", err)
	}
	if fake.CallCount("dispatcher.list") != 0 {
		t.Error("it was asked")
	}
	waiting := make(chan error)
	go func() {
		_, err := scrapes.Call(context.Background(), "dispatcher.list")
		waiting <- err
	}()
	// The waiting call does not hold the only slot of the scrapes.
	if _, err := scrapes.Call(within(t, patience), "stats.get_statistics", "all"); err != nil {
		t.Errorf("another module: %v", err)
	}
	if _, err := admin.Do(within(t, 50*time.Millisecond), "domain.reload"); err == nil || errors.Is(err, kamrpc.ErrUnknownOutcome) {
		t.Errorf("a second change: %v", err)
	}
	close(leave)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := <-waiting; err != nil {
		t.Error(err)
	}
}

// A reload waits for reads in progress until its deadline.
func TestReloadWaitsForReads(t *testing.T) {
	fake := newFake(t)
	inside, leave := make(chan struct{}), make(chan struct{})
	fake.HandleFunc("dispatcher.list", func(kamrpctest.Request) kamrpctest.Response {
		close(inside)
		<-leave
		return kamrpctest.Response{}
	})
	fake.Handle("dispatcher.reload", `"ok"`)
	c := client(t, nil, fake.URI("http"))
	done := make(chan error)
	go func() {
		_, err := c.Call(context.Background(), "dispatcher.list")
		done <- err
	}()
	<-inside
	_, err := c.Do(within(t, 50*time.Millisecond), "dispatcher.reload")
	if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, kamrpc.ErrUnknownOutcome) || fake.CallCount("dispatcher.reload") != 0 {
		t.Errorf("sent %d times: %v", fake.CallCount("dispatcher.reload"), err)
	}
	close(leave)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if _, err := c.Do(within(t, patience), "dispatcher.reload"); err != nil {
		t.Error(err)
	}
}

// After an unanswered reload, the module may still be reloading.
func TestNoReadsAfterAnUnknownReload(t *testing.T) {
	fake := newFake(t)
	fake.Handle("dispatcher.list", "{}")
	fake.Misbehave(kamrpctest.Silent, "dispatcher.reload")
	c := client(t, nil, fake.URI("http"))
	if _, err := c.Do(within(t, 50*time.Millisecond), "dispatcher.reload"); !errors.Is(err, kamrpc.ErrUnknownOutcome) {
		t.Fatal(err)
	}
	if _, err := c.Call(within(t, patience), "dispatcher.list"); !errors.Is(err, kamrpc.ErrReloading) || fake.CallCount("dispatcher.list") != 0 {
		t.Errorf("read %d times: %v", fake.CallCount("dispatcher.list"), err)
	}
	if _, err := c.Call(within(t, patience), "stats.get_statistics", "all"); err != nil {
		t.Errorf("another module: %v", err)
	}
}

// A read that was given up may still run in Kamailio: until it is over, no reload of its
// module is sent, and the error reports the remaining time.
func TestNoReloadAfterAnUnansweredRead(t *testing.T) {
	for _, scheme := range kamrpctest.Schemes() {
		t.Run(scheme, func(t *testing.T) {
			t.Parallel()
			fake := newFake(t)
			fake.Handle("dispatcher.list", "{}")
			fake.Handle("dispatcher.reload", `"ok"`)
			fake.Handle("domain.reload", `"ok"`)
			fake.Handle("domain.dump", `{"domains":[]}`)
			scrapes := client(t, nil, fake.URI(scheme))
			admin, err := scrapes.Sibling(kamrpc.Config{Transports: []kamrpc.Transport{openTransport(t, fake.URI(scheme))}})
			if err != nil {
				t.Fatal(err)
			}
			fake.Misbehave(kamrpctest.Silent, "dispatcher.list")
			if _, err := scrapes.Call(within(t, 50*time.Millisecond), "dispatcher.list"); !errors.Is(err, kamrpc.ErrNoAnswer) {
				t.Fatal(err)
			}
			var still *kamrpc.StillReadError
			_, err = admin.Do(within(t, patience), "dispatcher.reload")
			if !errors.As(err, &still) || still.Module != "dispatcher" || still.Left <= 20*time.Second || still.Left > 30*time.Second {
				t.Errorf("a reload beside a read: %v", err)
			}
			if errors.Is(err, kamrpc.ErrUnknownOutcome) || fake.CallCount("dispatcher.reload") != 0 {
				t.Errorf("sent %d times: %v", fake.CallCount("dispatcher.reload"), err)
			}
			// Reads of the module continue, an answer to another read does not prove that the
			// first has ended, and other modules are not affected.
			fake.Misbehave(kamrpctest.OK, "dispatcher.list")
			if _, err := scrapes.Call(within(t, patience), "dispatcher.list"); err != nil {
				t.Error(err)
			}
			if _, err := admin.Do(within(t, patience), "dispatcher.reload"); !errors.As(err, &still) {
				t.Errorf("a reload beside a read: %v", err)
			}
			if _, err := admin.Do(within(t, patience), "domain.reload"); err != nil {
				t.Error(err)
			}
			// A partial reply is an answer: Kamailio sends nothing before it has the whole.
			fake.Misbehave(kamrpctest.Truncate, "domain.dump")
			if _, err := scrapes.Call(within(t, 300*time.Millisecond), "domain.dump"); err == nil {
				t.Error("half a reply was taken")
			}
			if _, err := admin.Do(within(t, patience), "domain.reload"); err != nil {
				t.Errorf("after half an answer: %v", err)
			}
		})
	}
	t.Run("given up", func(t *testing.T) {
		fake := newFake(t)
		inside := make(chan struct{})
		leave := make(chan struct{})
		fake.HandleFunc("dispatcher.list", func(kamrpctest.Request) kamrpctest.Response {
			close(inside)
			<-leave
			return kamrpctest.Response{}
		})
		defer close(leave)
		fake.Handle("dispatcher.reload", `"ok"`)
		c := client(t, nil, fake.URI("http"))
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error)
		go func() {
			_, err := c.Call(ctx, "dispatcher.list")
			done <- err
		}()
		<-inside
		reload := make(chan error)
		go func() { // waits for the read and receives its outcome
			_, err := c.Do(context.Background(), "dispatcher.reload")
			reload <- err
		}()
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if err := <-reload; !errors.As(err, new(*kamrpc.StillReadError)) || fake.CallCount("dispatcher.reload") != 0 {
			t.Errorf("a reload beside a read that was given up: %v", err)
		}
	})
	t.Run("not sent", func(t *testing.T) {
		fake := newFake(t)
		fake.Handle("dispatcher.reload", `"ok"`)
		inside, leave := make(chan struct{}), make(chan struct{})
		fake.HandleFunc("domain.dump", func(kamrpctest.Request) kamrpctest.Response {
			close(inside)
			<-leave
			return kamrpctest.Response{Result: "{}"}
		})
		c := client(t, func(cfg *kamrpc.Config) { cfg.MaxConcurrent = 1 }, fake.URI("http"))
		done := make(chan error)
		go func() {
			_, err := c.Call(context.Background(), "domain.dump")
			done <- err
		}()
		<-inside
		if _, err := c.Call(within(t, 20*time.Millisecond), "dispatcher.list"); err == nil {
			t.Error("no slot, and an answer")
		}
		close(leave)
		if err := <-done; err != nil {
			t.Error(err)
		}
		if _, err := c.Do(within(t, patience), "dispatcher.reload"); err != nil {
			t.Errorf("after a read that was not sent: %v", err)
		}
		fake.Down()
		if _, err := c.Call(within(t, patience), "dispatcher.list"); !errors.Is(err, kamrpc.ErrUnreachable) {
			t.Error(err)
		}
		fake.Up()
		if _, err := c.Do(within(t, patience), "dispatcher.reload"); err != nil {
			t.Errorf("after a read that reached nobody: %v", err)
		}
	})
}

func openTransport(t *testing.T, uri string) kamrpc.Transport {
	t.Helper()
	transport, err := kamrpc.Open(uri, nil)
	if err != nil {
		t.Fatal(err)
	}
	return transport
}
