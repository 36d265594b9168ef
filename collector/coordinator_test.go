package collector_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kamailio-exporter/kamailio_exporter/collector"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc/kamrpctest"
)

// stub is a collector built from functions.
type stub struct {
	name    string
	methods []string
	update  func(ctx context.Context, s *collector.Session, emit collector.Emit) error
}

func (s stub) Name() string             { return s.name }
func (s stub) About() string            { return "Made on the spot" }
func (s stub) Methods() []string        { return s.methods }
func (s stub) Descs() []*collector.Desc { return nil }
func (s stub) Update(ctx context.Context, session *collector.Session, emit collector.Emit) error {
	return s.update(ctx, session, emit)
}

var stubDesc = collector.NewDesc("kamailio_stub", "A stub.", 2, "nowhere", "of")

func TestConcurrentScrapesShareOneRun(t *testing.T) {
	server := recorded(t, "5.6.3")
	arrived := make(chan struct{})
	release := make(chan struct{})
	server.HandleFunc("core.uptime", func(kamrpctest.Request) kamrpctest.Response {
		close(arrived) // panics on a second call
		<-release
		return kamrpctest.Response{Result: uptimeSince("Mon Nov 23 04:04:35 2026")}
	})
	c := collector.NewCoordinator(client(t, server), collector.All(collector.Options{}), collector.Limits{})
	var waiting, all sync.WaitGroup
	pages := make([]string, 50)
	for i := range pages {
		waiting.Add(1)
		all.Go(func() {
			waiting.Done()
			pages[i] = samples(t, scrape(t, c))
		})
	}
	waiting.Wait()
	<-arrived
	close(release)
	all.Wait()
	for i := range pages {
		if pages[i] == "" || pages[i] != pages[0] {
			t.Errorf("scrape %d got another page", i)
		}
	}
	for method, n := range server.Calls() {
		// core.version is called before each call that is dangerous on some version,
		// and these are called with two parameters, or with one and without.
		twice := method == "dlg.stats_active" || method == "sca.subscription_count"
		if n > 1 && method != "core.version" && (!twice || n > 2) {
			t.Errorf("%s was called %d times", method, n)
		}
	}
}

func TestFinishedScrapeIsReused(t *testing.T) {
	for _, tc := range []struct {
		reuse time.Duration
		calls int
	}{{time.Hour, 1}, {0, 2}} {
		server := bare(t)
		c := collector.NewCoordinator(client(t, server), collector.All(collector.Options{}), collector.Limits{Reuse: tc.reuse})
		scrape(t, c)
		scrape(t, c)
		if n := server.CallCount("core.uptime"); n != tc.calls {
			t.Errorf("reuse %v: %d calls, want %d", tc.reuse, n, tc.calls)
		}
	}
}

func TestFailuresAreIndependent(t *testing.T) {
	broken := map[string]func(*kamrpctest.Server){
		"fault":     func(s *kamrpctest.Server) { s.HandleFault("tm.stats", 500, "Internal error") },
		"garbage":   func(s *kamrpctest.Server) { s.Misbehave(kamrpctest.Garbage, "tm.stats") },
		"truncated": func(s *kamrpctest.Server) { s.Misbehave(kamrpctest.Truncate, "tm.stats") },
		"other id":  func(s *kamrpctest.Server) { s.Misbehave(kamrpctest.OtherID, "tm.stats") },
		"deep":      func(s *kamrpctest.Server) { s.Misbehave(kamrpctest.Deep, "tm.stats") },
		"silent":    func(s *kamrpctest.Server) { s.Misbehave(kamrpctest.Silent, "tm.stats") },
		"new shape": func(s *kamrpctest.Server) { s.Handle("tm.stats", `{"transactions":{"now":1}}`) },
	}
	for name, breakIt := range broken {
		t.Run(name, func(t *testing.T) {
			server := recorded(t, "5.6.3")
			target := client(t, server)
			limits := collector.Limits{CallTimeout: 2 * time.Second}
			whole := scrape(t, collector.NewCoordinator(target, collector.All(collector.Options{}), limits))
			breakIt(server)
			s := scrape(t, collector.NewCoordinator(target, collector.All(collector.Options{}), limits))
			for i, r := range s.Results {
				switch {
				case r.Collector == "tm":
					if r.Err == nil || !r.Supported || len(r.Samples) > 0 {
						t.Errorf("tm: %v, %d samples", r.Err, len(r.Samples))
					}
				case r.Err != nil:
					t.Errorf("%s: %v", r.Collector, r.Err)
				case len(r.Samples) != len(whole.Results[i].Samples):
					t.Errorf("%s: %d samples, want %d", r.Collector, len(r.Samples), len(whole.Results[i].Samples))
				}
			}
			if p := page(t, s); !strings.Contains(p, `kamailio_scrape_collector_success{collector="tm"} 0`) {
				t.Error("the page does not say that tm failed")
			}
		})
	}
}

func TestFailingCollectorDoesNotAffectOthers(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	good := stub{"good", nil, func(_ context.Context, _ *collector.Session, emit collector.Emit) error {
		emit(stubDesc, 1, "good")
		return nil
	}}
	c := collector.NewCoordinator(client(t, bare(t)), []collector.Collector{
		stub{"panics", nil, func(_ context.Context, _ *collector.Session, emit collector.Emit) error {
			emit(stubDesc, 1, "panics")
			panic("on purpose")
		}},
		stub{"overruns", nil, func(_ context.Context, _ *collector.Session, emit collector.Emit) error {
			emit(stubDesc, 1, "overruns")
			<-release // even the deadline does not stop it
			emit(stubDesc, 2, "overruns too")
			return nil
		}},
		stub{"half", nil, func(_ context.Context, _ *collector.Session, emit collector.Emit) error {
			emit(stubDesc, 1, "half")
			return errors.New("in the middle")
		}},
		stub{"wrong", nil, func(_ context.Context, _ *collector.Session, emit collector.Emit) error {
			emit(stubDesc, 1)
			return nil
		}},
		good,
	}, collector.Limits{})
	ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
	defer cancel()
	s, err := c.Scrape(ctx)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, samples(t, s), "kamailio_stub{of=\"good\"} 1\n")
	for _, r := range s.Results {
		if (r.Collector == "good") != (r.Err == nil) {
			t.Errorf("%s: %v", r.Collector, r.Err)
		}
	}
}

func TestKamailioUnreachable(t *testing.T) {
	for name, breakIt := range map[string]func(*kamrpctest.Server){
		"down":     func(s *kamrpctest.Server) { s.Down() },
		"hung":     func(s *kamrpctest.Server) { s.Misbehave(kamrpctest.Silent) },
		"trickle":  func(s *kamrpctest.Server) { s.Misbehave(kamrpctest.Trickle(time.Second)) },
		"garbage":  func(s *kamrpctest.Server) { s.Misbehave(kamrpctest.Garbage) },
		"other id": func(s *kamrpctest.Server) { s.Misbehave(kamrpctest.OtherID) },
	} {
		t.Run(name, func(t *testing.T) {
			server := recorded(t, "5.6.3")
			c := collector.NewCoordinator(client(t, server), collector.All(collector.Options{}), collector.Limits{})
			if s := scrape(t, c); !s.Up {
				t.Fatal(s.Err)
			}
			breakIt(server)
			ctx, cancel := context.WithTimeout(context.Background(), 400*time.Millisecond)
			defer cancel()
			s, err := c.Scrape(ctx)
			if err != nil || s.Up || s.Err == nil {
				t.Fatalf("up %v, %v, %v", s.Up, s.Err, err)
			}
			if p := page(t, s); !strings.Contains(p, "\nkamailio_up 0\n") {
				t.Error(p)
			}
			server.Up()
			server.Misbehave(kamrpctest.OK)
			if s := scrape(t, c); !s.Up || len(s.Results) == 0 {
				t.Errorf("did not recover: %v", s.Err)
			}
		})
	}
}

// A missing method is never called: each such call logs an ERROR line in Kamailio.
func TestOnlySupportedMethodsAreCalled(t *testing.T) {
	server := bare(t)
	server.Handle("core.shmmem", `{"total":1}`)
	c := collector.NewCoordinator(client(t, server), collector.All(collector.Options{}), collector.Limits{})
	for range 3 {
		scrape(t, c)
	}
	for method := range server.Calls() {
		switch method {
		case "core.uptime", "core.shmmem", "system.listMethods":
		default:
			t.Errorf("%s was called", method)
		}
	}
	if n := server.CallCount("system.listMethods"); n != 1 {
		t.Errorf("system.listMethods was called %d times for one start of Kamailio", n)
	}
}

func TestRestartResetsLearnedState(t *testing.T) {
	server := bare(t)
	c := collector.NewCoordinator(client(t, server), collector.All(collector.Options{}), collector.Limits{})
	supported := func() bool {
		for _, r := range scrape(t, c).Results {
			if r.Collector == "tm" {
				return r.Supported
			}
		}
		return false
	}
	if supported() {
		t.Error("tm is supported before it is loaded")
	}
	server.Handle("tm.stats", `{"current":1}`)
	if supported() {
		t.Error("the list of methods was asked again without a restart")
	}
	server.Handle("core.uptime", uptimeSince("Mon Nov 23 04:10:00 2026"))
	if !supported() {
		t.Error("the new Kamailio's methods are not known")
	}
}

func TestFixedRepliesAreReadOncePerStart(t *testing.T) {
	server := recorded(t, "5.6.3")
	c := collector.NewCoordinator(client(t, server), collector.All(collector.Options{}), collector.Limits{})
	for start, version := range map[string]string{"Mon Nov 23 04:10:00 2026": "5.6.3", "Mon Nov 23 05:10:00 2026": "6.0.1"} {
		server.Handle("core.uptime", uptimeSince(start))
		server.Handle("core.info", `{"version":"kamailio `+version+`"}`)
		asked := server.CallCount("core.info")
		for range 3 {
			if page := samples(t, scrape(t, c, "core")); !strings.Contains(page, `version="`+version+`"`) {
				t.Errorf("the version is not %s:\n%s", version, page)
			}
		}
		if n := server.CallCount("core.info") - asked; n != 1 {
			t.Errorf("core.info was asked %d times in three scrapes", n)
		}
	}
}

func TestScriptedMethodIsTriedOncePerStart(t *testing.T) {
	for _, served := range []bool{true, false} {
		server := bare(t)
		server.Handle("system.listMethods", `["core.uptime","drouting.reload"]`)
		if served {
			server.Handle("drouting.gw_status", `{"Gateways":[{"ID":"1","IP":"192.0.2.1","State":"Active"}]}`)
		}
		c := collector.NewCoordinator(client(t, server), collector.All(collector.Options{}), collector.Limits{})
		for range 3 {
			for _, r := range scrape(t, c, "drouting").Results {
				if r.Supported != served || r.Err != nil {
					t.Errorf("served %v: supported %v, %v", served, r.Supported, r.Err)
				}
			}
		}
		want := 1
		if served {
			want = 3
		}
		if n := server.CallCount("drouting.gw_status"); n != want {
			t.Errorf("served %v: asked %d times in 3 scrapes, want %d", served, n, want)
		}
	}
}

// If one of a scrape's first methods fails, the others still work.
func TestListMethodsFails(t *testing.T) {
	server := recorded(t, "5.6.3")
	server.HandleFault("system.listMethods", 500, "Internal error")
	c := collector.NewCoordinator(client(t, server), collector.All(collector.Options{}), collector.Limits{})
	for _, r := range scrape(t, c, "core", "tm").Results {
		if r.Err != nil || len(r.Samples) == 0 {
			t.Errorf("%s: %v", r.Collector, r.Err)
		}
	}
}

func TestWorkStopsWithItsLastClient(t *testing.T) {
	server := bare(t)
	server.Misbehave(kamrpctest.Silent, "core.uptime")
	began := make(chan struct{}, 10)
	ended := make(chan struct{}, 10)
	target := observed{client(t, server), began, ended}
	c := collector.NewCoordinator(target, collector.All(collector.Options{}), collector.Limits{CallTimeout: time.Minute})
	first, cancelFirst := context.WithCancel(context.Background())
	second, cancelSecond := context.WithCancel(context.Background())
	defer cancelSecond()
	results := make(chan *collector.Snapshot, 2)
	ask := func(ctx context.Context) {
		s, err := c.Scrape(ctx)
		if err != nil {
			t.Error(err)
		}
		results <- s
	}
	go ask(first)
	<-began
	calls := 1
	go ask(second)
	cancelFirst()
	<-results
	// Either the second scrape joined the first one, which then continues for it, or it
	// came too late and started its own. Both end when the second one leaves.
	cancelSecond()
	<-results
	for calls += len(began); calls > 0; calls-- {
		<-ended // after a minute, unless it is canceled
	}
}

// observed reports when calls begin and end.
type observed struct {
	collector.Target
	began, ended chan struct{}
}

func (o observed) Call(ctx context.Context, method string, params ...any) (kamrpc.Value, error) {
	o.began <- struct{}{}
	v, err := o.Target.Call(ctx, method, params...)
	o.ended <- struct{}{}
	return v, err
}

func TestSelect(t *testing.T) {
	c := collector.NewCoordinator(client(t, bare(t)), []collector.Collector{stub{name: "a"}, stub{name: "b"}, stub{name: "c"}}, collector.Limits{})
	for _, tc := range []struct{ include, exclude, want, err string }{
		{"", "", "a b c", ""},
		{"b", "", "b", ""},
		{"c a", "", "a c", ""},
		{"", "b", "a c", ""},
		{"a b", "b", "a", ""},
		{"a", "a", "", ""},
		{"x", "", "", `unknown collector "x"; the collectors are: a, b, c`},
		{"", "x", "", `unknown collector "x"; the collectors are: a, b, c`},
	} {
		names, err := c.Select(strings.Fields(tc.include), strings.Fields(tc.exclude))
		if got := strings.Join(names, " "); got != tc.want {
			t.Errorf("%+v: got %q", tc, got)
		}
		if got := errText(err); got != tc.err {
			t.Errorf("%+v: got error %q", tc, got)
		}
	}
	if _, err := c.Scrape(context.Background(), "x"); !errors.As(err, new(*collector.UnknownCollectorError)) {
		t.Errorf("Scrape of an unknown collector: %v", err)
	}
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
