package collector

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc/kamrpctest"
)

// guardedServer is a fake with registered contacts and an adjustable clock, and the
// collector that dumps the contacts.
type guardedServer struct {
	*kamrpctest.Server
	t     *testing.T
	c     *Coordinator
	clock time.Time
}

func newGuardedServer(t *testing.T) *guardedServer {
	g := &guardedServer{Server: kamrpctest.New(t), t: t, clock: time.Unix(1_800_000_000, 0)}
	g.startedAt("04:04:35")
	g.contacts(5)
	g.Handle(dumpMethod, dump(contact(`"Socket":"udp:192.0.2.1:5060"`)))
	transport, err := kamrpc.Open(g.URI("http"), nil)
	if err != nil {
		t.Fatal(err)
	}
	client, err := kamrpc.NewClient(kamrpc.Config{Transports: []kamrpc.Transport{transport}})
	if err != nil {
		t.Fatal(err)
	}
	g.c = NewCoordinator(client, []Collector{usrlocContacts{limit: 1000, interval: time.Minute}}, Limits{CallTimeout: 5 * time.Second})
	g.c.now = func() time.Time { return g.clock }
	return g
}

func (g *guardedServer) startedAt(clock string) {
	g.Handle("core.uptime", `{"up_since":"Mon Nov 23 `+clock+` 2026","uptime":30}`)
}

func (g *guardedServer) contacts(n int) {
	g.Handle(statisticsMethod, fmt.Sprintf(`["usrloc:location_contacts = %d"]`, n))
}

// after advances the clock and scrapes. It expects this total number of dumps, and these
// lines on the page.
func (g *guardedServer) after(d time.Duration, dumps int, lines ...string) {
	g.t.Helper()
	g.clock = g.clock.Add(d)
	s, err := g.c.Scrape(context.Background())
	if err != nil || !s.Up {
		g.t.Fatal(err, s.Err)
	}
	if n := g.CallCount(dumpMethod); n != dumps {
		g.t.Errorf("%d dumps were asked, want %d", n, dumps)
	}
	families, err := s.Gather()
	if err != nil {
		g.t.Fatal(err)
	}
	var page strings.Builder
	for _, f := range families {
		for _, m := range f.GetMetric() {
			page.WriteString(strings.TrimPrefix(f.GetName(), "kamailio_"))
			for _, l := range m.GetLabel() {
				page.WriteString(" " + l.GetValue())
			}
			fmt.Fprintf(&page, " = %v\n", m.GetGauge().GetValue())
		}
	}
	for _, line := range lines {
		if absent, not := strings.CutPrefix(line, "no "); not == strings.Contains(page.String(), strings.TrimPrefix(line, "no ")) {
			g.t.Errorf("want %q (%s) on the page:\n%s", line, absent, page.String())
		}
	}
}

const (
	heldBySize  = "scrape_skipped usrloc_contacts ul.dump size = "
	heldByPause = "scrape_skipped usrloc_contacts ul.dump pause = "
	heldUnknown = "scrape_skipped usrloc_contacts ul.dump unknown = "
	age         = "scrape_data_age_seconds usrloc_contacts = "
	success     = "scrape_collector_success usrloc_contacts = "
	counted     = "usrloc_contacts_by_transport location udp = 1"
)

func TestExpensiveCallIsMadeOncePerInterval(t *testing.T) {
	g := newGuardedServer(t)
	g.after(0, 1, age+"0\n", counted, success+"1", heldBySize+"0", heldByPause+"0")
	g.after(time.Second, 1, age+"1\n", counted, success+"1")
	g.after(58*time.Second, 1, age+"59\n", counted)
	g.after(time.Second, 2, age+"0\n", counted)
}

func TestExpensiveCallIsSkippedAboveItsLimit(t *testing.T) {
	g := newGuardedServer(t)
	g.contacts(1001)
	since := "scrape_skipped_since_timestamp_seconds usrloc_contacts ul.dump size = 1.8e+09"
	g.after(0, 0, heldBySize+"1", since, success+"1", "no "+counted, "no "+age)
	g.after(time.Hour, 0, heldBySize+"1", since)
	g.contacts(1000)
	g.after(time.Second, 1, heldBySize+"0", "no scrape_skipped_since", counted)
	// The number grew again: the previous samples are outdated, and are not shown.
	g.contacts(1001)
	g.after(time.Second, 1, heldBySize+"1", "no "+counted)
}

// An unknown size is neither small nor too large.
func TestExpensiveCallOfUnknownSizeIsSkipped(t *testing.T) {
	for name, statistics := range map[string]string{
		"no statistics":          `[]`,
		"others only":            `["core:x = 1"]`,
		"no location table":      `["usrloc:registered_users = 0"]`,
		"under another name":     `["usrloc:registered_users = 120", "usrloc:location/contacts = 120"]`,
		"in the database, maybe": `["usrloc:registered_users = 0", "usrloc:location_contacts = 0"]`,
	} {
		t.Run(name, func(t *testing.T) {
			g := newGuardedServer(t)
			g.Handle(statisticsMethod, statistics)
			since := "scrape_skipped_since_timestamp_seconds usrloc_contacts ul.dump unknown = 1.8e+09"
			g.after(0, 0, heldUnknown+"1", since, heldBySize+"0", heldByPause+"0", success+"1", "no "+counted, "no "+age)
			g.after(time.Hour, 0, heldUnknown+"1", since)
			g.Handle(statisticsMethod, `["usrloc:location-contacts = 120"]`) // up to 5.3, and stats_name_separator="-"
			g.after(time.Second, 1, heldUnknown+"0", "no scrape_skipped_since", counted)
			// The last known size does not replace an unknown one.
			g.Handle(statisticsMethod, statistics)
			if name != "in the database, maybe" { // in the other cases, usrloc is known to count
				g.after(time.Hour, 1, heldUnknown+"1", heldBySize+"0", "no "+counted)
			}
		})
	}
}

func TestExpensiveCallPausesAfterFailures(t *testing.T) {
	g := newGuardedServer(t)
	g.contacts(501)
	g.HandleFault(dumpMethod, 500, "Internal error")
	g.after(0, 1, success+"0", "no "+counted)
	for i, pause := range []time.Duration{time.Minute, 2 * time.Minute, 4 * time.Minute, 8 * time.Minute, 16 * time.Minute, 32 * time.Minute, time.Hour, time.Hour} {
		g.after(pause-time.Second, i+1, success+"0", heldByPause+"1", "scrape_skipped_since")
		g.after(time.Second, i+2, success+"0")
	}
	g.Handle(dumpMethod, dump(contact(`"Socket":"udp:192.0.2.1:5060"`)))
	g.after(time.Hour, 10, success+"1", heldByPause+"0", counted)
	// After one success, the next pause is short again.
	g.HandleFault(dumpMethod, 500, "Internal error")
	g.after(time.Minute, 11, success+"0")
	g.after(time.Minute, 12, success+"0")
}

// If a list is far below its limit, its length did not cause the failure.
func TestShortListPausesAfterTwoFailures(t *testing.T) {
	g := newGuardedServer(t)
	g.contacts(500)
	answer := dump(contact(`"Socket":"udp:192.0.2.1:5060"`))
	asked := 0
	for range 3 { // single failures between successes are not consecutive
		g.HandleFault(dumpMethod, 500, "Internal error")
		g.after(time.Minute, asked+1, success+"0", heldByPause+"0", "no "+counted)
		g.Handle(dumpMethod, answer)
		g.after(time.Second, asked+2, success+"1", heldByPause+"0", counted)
		asked += 2
	}
	g.HandleFault(dumpMethod, 500, "Internal error")
	g.after(time.Minute, 7, success+"0", heldByPause+"0")
	g.after(time.Second, 8, success+"0", heldByPause+"1")
	g.after(59*time.Second, 8, success+"0", heldByPause+"1")
	g.after(time.Second, 9, success+"0", heldByPause+"1")
	g.after(119*time.Second, 9, success+"0", heldByPause+"1")
	g.after(time.Second, 10, success+"0")
}

// The same for a list whose length is only known from its rows: before the first reply, it
// may be long.
func TestListThatFailsOnceIsRetried(t *testing.T) {
	two := "[" + destination(`"a"`, "AP", "") + "," + destination(`"b"`, "AP", "") + "]"
	for _, test := range []struct {
		name        string
		limit       int
		back, early string
	}{
		{"short", 4, "= 0", "dispatcher_destination_up  0 1  a = 1"},
		{"near its limit", 3, "= 1", "no dispatcher_destination_up"},
		{"short, and no limit", 0, "= 0", "dispatcher_destination_up  0 1  a = 1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			const held = "scrape_skipped dispatcher dispatcher.list pause "
			g := newGuardedServer(t)
			g.c.use([]Collector{dispatcher{listLimits{rows: test.limit, interval: listInterval}}})
			g.HandleFault("dispatcher.list", 500, "Internal error")
			g.after(0, 0, held+"= 1")
			g.after(time.Second, 0, held+"= 1")
			g.Handle("dispatcher.list", list(set("1", two)))
			g.after(time.Minute, 0, held+"= 0", "dispatcher_destination_up  0 1  a = 1")
			g.HandleFault("dispatcher.list", 500, "Internal error")
			g.after(time.Minute, 0, held+test.back, "no dispatcher_destination_up")
			g.Handle("dispatcher.list", list(set("1", two)))
			g.after(time.Second, 0, held+test.back, test.early)
		})
	}
}

func TestRestartEndsThePause(t *testing.T) {
	g := newGuardedServer(t)
	g.contacts(501)
	g.HandleFault(dumpMethod, 500, "Internal error")
	g.after(0, 1, success+"0")
	g.after(time.Second, 1, success+"0", heldByPause+"1")
	g.startedAt("05:00:00")
	g.Handle(dumpMethod, dump(contact(`"Socket":"udp:192.0.2.1:5060"`)))
	g.after(time.Second, 2, success+"1", heldByPause+"0", counted)
}

func TestPauseReportsItsFailure(t *testing.T) {
	g := newGuardedServer(t)
	g.contacts(501)
	g.HandleFault(dumpMethod, 500, "Out of memory")
	g.after(0, 1)
	s, _ := g.c.Scrape(context.Background())
	if text := fmt.Sprint(s.Results[0].Err); !strings.Contains(text, "ul.dump is skipped until ") || !strings.Contains(text, "after 1 failures; the last one: ul.dump: kamailio answered error 500: Out of memory") {
		t.Error(text)
	}
}

func TestTooLongListIsSkippedForAnHour(t *testing.T) {
	g := newGuardedServer(t)
	g.Handle("dispatcher.list", list(set("1", "["+destination(`"a"`, "AP", "")+","+destination(`"b"`, "AP", "")+"]")))
	g.c.use([]Collector{dispatcher{listLimits{rows: 1, interval: listInterval}}})
	asked := func(want int) {
		t.Helper()
		if n := g.CallCount("dispatcher.list"); n != want {
			t.Errorf("asked %d times, want %d", n, want)
		}
	}
	const held = "scrape_skipped dispatcher dispatcher.list size = "
	g.after(0, 0, "dispatcher_destination_up  0 1  a = 1") // it has been read, so it is exported
	asked(1)
	g.after(time.Minute, 0, held+"1", "no dispatcher_destination_up", "scrape_skipped_since")
	g.after(58*time.Minute, 0, held+"1")
	asked(1)
	g.Handle("dispatcher.list", list(set("1", "["+destination(`"a"`, "AP", "")+"]")))
	g.after(time.Minute, 0, held+"0", "dispatcher_destination_up  0 1  a = 1")
	asked(2)
	g.after(4*time.Second, 0, held+"0", "dispatcher_destination_up  0 1  a = 1", "scrape_data_age_seconds dispatcher = 4")
	asked(2)
	g.after(time.Second, 0)
	asked(3)
}

// use replaces the collectors.
func (c *Coordinator) use(collectors []Collector) {
	c.collectors, c.names = collectors, Names(collectors)
}
