//go:build linux && load

package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/cli"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc/kamrpctest/kamailiotest"
)

// load is set by make bench, which runs these tests with -tags load and 15s. They take
// half an hour and need a machine without other load. Their output is in
// docs/performance.md.
var load = flag.Duration("load", 0, "measure under load, each time for so long; 0 leaves these measurements out")

const (
	callsPerSecond = 100 // a quarter of what the demo's two SIP workers and one SIPp can handle
	rounds         = 7   // of all cases, in turn
	callLength     = time.Second
)

// callerScenario sends an OPTIONS that Kamailio answers itself, then calls a registered
// phone that answers at once, so that the time from INVITE to 200 is Kamailio's and not
// the phone's.
const callerScenario = `<?xml version="1.0" encoding="UTF-8"?>
<scenario name="ping, then call">
  <send retrans="500"><![CDATA[
OPTIONS sip:ping@example.net SIP/2.0
Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]
From: <sip:caller@example.net>;tag=[pid]p[call_number]
To: <sip:ping@example.net>
Call-ID: [call_id]
CSeq: 1 OPTIONS
Max-Forwards: 70
Content-Length: 0

]]></send>
  <recv response="200"/>
  <send retrans="500"><![CDATA[
INVITE sip:callee@example.net SIP/2.0
Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]
From: <sip:caller@example.net>;tag=[pid]c[call_number]
To: <sip:callee@example.net>
Call-ID: [call_id]
CSeq: 2 INVITE
Contact: <sip:caller@[local_ip]:[local_port]>
Max-Forwards: 70
Content-Type: application/sdp
Content-Length: [len]

v=0
o=- 1 1 IN IP[local_ip_type] [local_ip]
s=-
c=IN IP[media_ip_type] [media_ip]
t=0 0
m=audio 9 RTP/AVP 8
a=rtpmap:8 PCMA/8000

]]></send>
  <recv response="100" optional="true"/>
  <recv response="200" rrs="true"/>
  <send><![CDATA[
ACK [next_url] SIP/2.0
Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]
[routes]
From: <sip:caller@example.net>;tag=[pid]c[call_number]
[last_To:]
Call-ID: [call_id]
CSeq: 2 ACK
Max-Forwards: 70
Content-Length: 0

]]></send>
  <pause/>
  <send retrans="500"><![CDATA[
BYE [next_url] SIP/2.0
Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]
[routes]
From: <sip:caller@example.net>;tag=[pid]c[call_number]
[last_To:]
Call-ID: [call_id]
CSeq: 3 BYE
Max-Forwards: 70
Content-Length: 0

]]></send>
  <recv response="200"/>
</scenario>
`

const calleeScenario = `<?xml version="1.0" encoding="UTF-8"?>
<scenario name="phone that answers at once">
  <recv request="INVITE"/>
  <send retrans="500"><![CDATA[
SIP/2.0 200 OK
[last_Via:]
[last_From:]
[last_To:];tag=[pid]g[call_number]
[last_Call-ID:]
[last_CSeq:]
[last_Record-Route:]
Contact: <sip:callee@[local_ip]:[local_port]>
Content-Length: 0

]]></send>
  <recv request="ACK"/>
  <recv request="BYE"/>
  <send><![CDATA[
SIP/2.0 200 OK
[last_Via:]
[last_From:]
[last_To:]
[last_Call-ID:]
[last_CSeq:]
Content-Length: 0

]]></send>
</scenario>
`

// TestCallsUnderScrapes measures how fast Kamailio replies to SIP, and what a scrape
// costs it, without scrapers and with one and ten. The cases alternate, so that they see
// the same state of the machine.
func TestCallsUnderScrapes(t *testing.T) {
	if *load == 0 {
		t.Skip("takes minutes: make bench runs it")
	}
	server := kamailiotest.Start(t, kamailiotest.Config{ShmMB: 1024})
	const users = 100_000
	register(t, server, 0, users)
	phones := newPhones(t, server)
	stock := runExporter(t, urisOf(server)["the stock pair"])
	http := runExporter(t, urisOf(server)["HTTP"])
	cases := []*loadCase{
		{name: "no scrape", exporter: stock},
		{name: "sockets, 1 scraper", exporter: stock, scrapers: 1},
		{name: "sockets, 10 scrapers", exporter: stock, scrapers: 10},
		{name: "HTTP, 1 scraper", exporter: http, scrapers: 1},
		{name: "HTTP, 10 scrapers", exporter: http, scrapers: 10},
	}
	describeMachine(t, server)
	measureInTurn(t, server, phones, cases, users, callsPerSecond)
	printf(t, "\n%d users, %d calls per second, %d rounds of %v each. Median of the rounds (min..max).\n\n", users, callsPerSecond, rounds, *load)
	printCalls(t, cases)
	printCosts(t, cases)

	cases = []*loadCase{
		{name: "no scrape", exporter: stock},
		{name: "sockets, 1 scraper", exporter: stock, scrapers: 1},
		{name: "HTTP, 1 scraper", exporter: http, scrapers: 1},
	}
	measureInTurn(t, server, phones, cases, users, 0)
	printf(t, "\n%d users, no calls, %d rounds of %v each.\n", users, rounds, *load)
	printCosts(t, cases)
	printf(t, "\n%s\n", loadAverage())
}

// loadCase is one pattern of scrapes, and its measurements.
type loadCase struct {
	name     string
	exporter *exporterProcess
	scrapers int
	runs     []loadRun
}

type loadRun struct {
	calls       callResult
	kamailioCPU time.Duration
	exporterCPU time.Duration
	rss         float64 // of the exporter, at the end
	scrapes     scrapeResult
}

// measureInTurn measures all cases in rounds. Each round begins with another case.
func measureInTurn(t *testing.T, server *kamailiotest.Server, phones *phones, cases []*loadCase, users, rate int) {
	t.Helper()
	processes := processesOf(t, server)
	for round := range rounds + 1 { // the first is a warm-up
		for i := range cases {
			c := cases[(round+i)%len(cases)]
			run := measure(t, processes, phones, c, rate)
			if round == 0 {
				continue
			}
			c.runs = append(c.runs, run)
			if run.calls.failed > 0 {
				t.Errorf("%s, round %d: %d calls failed", c.name, round, run.calls.failed)
			}
			for _, err := range run.scrapes.errs {
				t.Errorf("%s, round %d: %v", c.name, round, err)
			}
			if c.scrapers > 0 {
				checkCounts(t, run.scrapes.last, users)
			}
		}
	}
}

func measure(t *testing.T, kamailio []int, phones *phones, c *loadCase, rate int) (run loadRun) {
	t.Helper()
	const before = 2 * time.Second // until calls begin and end at the same rate
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	scrapes := c.exporter.scrape(ctx, c.scrapers)
	var calls *calls
	if rate > 0 {
		calls = phones.call(t, rate, before+*load)
	}
	time.Sleep(before)
	began, kamailioCPU, exporterCPU := time.Now(), cpuTime(t, kamailio), cpuTime(t, []int{c.exporter.pid})
	time.Sleep(*load)
	run.kamailioCPU = cpuTime(t, kamailio) - kamailioCPU
	run.exporterCPU = cpuTime(t, []int{c.exporter.pid}) - exporterCPU
	ended := time.Now()
	run.rss = residentMemory(t, c.exporter.pid)
	cancel()
	run.scrapes = scrapes()
	if calls != nil {
		run.calls = calls.result(t, began, ended)
	}
	return run
}

// TestAnswerTimesInTurn compares Kamailio's reply times with and without scrapes as
// closely as possible on a machine with other load: in each run a scraper starts and
// stops every few seconds while the calls continue, so that other load affects all sides
// alike. Every third window has the scrapes of an exporter at normal priority.
func TestAnswerTimesInTurn(t *testing.T) {
	if *load == 0 {
		t.Skip("takes minutes: make bench runs it")
	}
	for _, version := range kamailiotest.Versions(t) {
		t.Run(version, func(t *testing.T) {
			server := kamailiotest.Start(t, kamailiotest.Config{Version: version, ShmMB: 1024})
			const users = 100_000
			register(t, server, 0, users)
			phones := newPhones(t, server)
			uris := urisOf(server)["the stock pair"]
			turns := []turn{
				{"no scrapes", nil, ""},
				{"scrapes", runExporter(t, uris), "1"},
				{"scrapes at normal priority", runExporter(t, uris, "--no-runtime.idle-priority"), ""},
			}
			describeMachine(t, server)
			printf(t, "\n%d users, %d calls per second, %d runs of %d windows of %v.\n\n", users, callsPerSecond, runsInTurn, windows*len(turns), *load)
			printf(t, "| run | INVITE to 200: median, p99 | scrapes: median, p99 | to none | scrapes at normal priority: median, p99 | to none |\n| --- | --- | --- | --- | --- | --- |\n")
			medians, p99s, all := make([][]float64, len(turns)), make([][]float64, len(turns)), make([][]time.Duration, len(turns))
			for run := range runsInTurn {
				times := runInTurn(t, phones, turns, users)
				printf(t, "| %d |", run+1)
				for i := range turns {
					all[i] = append(all[i], times[i]...)
					median, p99 := ms(quantile(times[i], 0.5)), ms(quantile(times[i], 0.99))
					printf(t, " %.2f, %.2f ms |", median, p99)
					if i == 0 {
						continue
					}
					medians[i] = append(medians[i], median/ms(quantile(times[0], 0.5)))
					p99s[i] = append(p99s[i], p99/ms(quantile(times[0], 0.99)))
					printf(t, " %.3f, %.3f |", medians[i][run], p99s[i][run])
				}
				printf(t, "\n")
			}
			for i, turn := range turns[1:] {
				printf(t, "\n%s to none: median %s, p99 %s; p99 of all runs together %.3f",
					turn.name, spreadOf(medians[i+1], "%.3f"), spreadOf(p99s[i+1], "%.3f"), ms(quantile(all[i+1], 0.99))/ms(quantile(all[0], 0.99)))
			}
			printf(t, "\n\n%s\n", loadAverage())
		})
	}
}

const (
	runsInTurn = 7
	windows    = 4 // of each kind in a run
)

// turn is a kind of window: the exporter that is scraped, and what its page must show
// about idle priority, if anything.
type turn struct {
	name     string
	exporter *exporterProcess
	gives    string
}

// runInTurn makes calls during all windows without a break, and sorts their reply times
// by what was scraped when they were sent.
func runInTurn(t *testing.T, phones *phones, turns []turn, users int) [][]time.Duration {
	t.Helper()
	const before = 2 * time.Second
	all := time.Duration(windows * len(turns))
	calls := phones.call(t, callsPerSecond, before+all**load)
	time.Sleep(before)
	began := time.Now()
	var starts []time.Time
	var checks []func() // run after the calls
	for i := range windows * len(turns) {
		starts = append(starts, time.Now())
		end := time.After(time.Until(began.Add(time.Duration(i+1) * *load)))
		turn := turns[i%len(turns)]
		if turn.exporter == nil {
			<-end
			continue
		}
		ctx, cancel := context.WithCancel(t.Context())
		scrapes := turn.exporter.scrape(ctx, 1)
		<-end
		cancel()
		checks = append(checks, func() {
			r := scrapes()
			for _, err := range r.errs {
				t.Error(err)
			}
			checkCounts(t, r.last, users)
			if got := value(r.last, "kamailio_exporter_idle_priority"); got != turn.gives {
				t.Errorf("%s: idle is %q at the end of a window, want %q: the machine is too busy to measure anything", turn.name, got, turn.gives)
			}
		})
	}
	r := calls.result(t, began, time.Now())
	if r.failed > 0 {
		t.Errorf("%d calls failed", r.failed)
	}
	for _, check := range checks {
		check()
	}
	times := make([][]time.Duration, len(turns))
	for i, sent := range r.inviteSent {
		window := len(starts) - 1
		for sent.Before(starts[window]) && window > 0 {
			window--
		}
		kind := window % len(turns)
		times[kind] = append(times[kind], r.invite[i])
	}
	return times
}

func printCalls(t *testing.T, cases []*loadCase) {
	t.Helper()
	printf(t, "| | INVITE to 200, median | p99 | to no scrape, by round | p99 of all rounds, to no scrape | OPTIONS to 200, median | p99 | calls/s | failed | retransmitted |\n")
	printf(t, "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n")
	together := func(c *loadCase) float64 {
		var all []time.Duration
		for _, r := range c.runs {
			all = append(all, r.calls.invite...)
		}
		return ms(quantile(all, 0.99))
	}
	for _, c := range cases {
		p99 := func(r loadRun) float64 { return ms(quantile(r.calls.invite, 0.99)) }
		var failed, retransmitted int
		for _, r := range c.runs {
			failed += r.calls.failed
			retransmitted += r.calls.retransmitted
		}
		printf(t, "| %s | %s ms | %s ms | %s | %.2f ms, %.2f | %s ms | %s ms | %s | %d | %d |\n", c.name,
			spread(c, "%.2f", func(r loadRun) float64 { return ms(quantile(r.calls.invite, 0.5)) }),
			spread(c, "%.2f", p99),
			paired(c, cases[0], "%.2f", func(with, without loadRun) float64 { return p99(with) / p99(without) }),
			together(c), together(c)/together(cases[0]),
			spread(c, "%.2f", func(r loadRun) float64 { return ms(quantile(r.calls.options, 0.5)) }),
			spread(c, "%.2f", func(r loadRun) float64 { return ms(quantile(r.calls.options, 0.99)) }),
			spread(c, "%.1f", func(r loadRun) float64 { return r.calls.perSecond }),
			failed, retransmitted)
	}
}

// printCosts prints the cost of a served page. With ten scrapers this is less than a
// scrape of Kamailio for each.
func printCosts(t *testing.T, cases []*loadCase) {
	t.Helper()
	printf(t, "\n| | pages/s | slowest | RPCs per page | reply bytes per page | Kamailio CPU per page | Kamailio CPU | exporter CPU per page | exporter memory |\n")
	printf(t, "| --- | --- | --- | --- | --- | --- | --- | --- | --- |\n")
	for _, c := range cases {
		cpu := spread(c, "%.1f", func(r loadRun) float64 { return r.kamailioCPU.Seconds() / load.Seconds() * 100 })
		if c.scrapers == 0 {
			printf(t, "| %s | | | | | | %s %% | | |\n", c.name, cpu)
			continue
		}
		pages := float64(c.scrapers) * load.Seconds()
		printf(t, "| %s | %s | %s ms | %s | %s | %s ms | %s %% | %s ms | %s MiB |\n", c.name,
			spread(c, "%.1f", func(r loadRun) float64 { return r.scrapes.perSecond }),
			spread(c, "%.1f", func(r loadRun) float64 { return ms(slices.Max(r.scrapes.times)) }),
			spread(c, "%.1f", func(r loadRun) float64 { return r.scrapes.rpcs }),
			spread(c, "%.0f", func(r loadRun) float64 { return r.scrapes.bytes }),
			paired(c, cases[0], "%.2f", func(with, without loadRun) float64 { return ms(with.kamailioCPU-without.kamailioCPU) / pages }),
			cpu,
			spread(c, "%.2f", func(r loadRun) float64 { return ms(r.exporterCPU) / pages }),
			spread(c, "%.1f", func(r loadRun) float64 { return r.rss / (1 << 20) }))
	}
}

// TestRegistrations measures scrapes of a registrar while it fills, and its reply times
// for other clients meanwhile.
func TestRegistrations(t *testing.T) {
	if *load == 0 {
		t.Skip("takes minutes: make bench runs it")
	}
	server := kamailiotest.Start(t, kamailiotest.Config{ShmMB: 1024})
	byName := urisOf(server)
	exporters := map[string]*exporterProcess{
		"sockets": runExporter(t, byName["the stock pair"]),
		"HTTP":    runExporter(t, byName["HTTP"]),
	}
	describeMachine(t, server)
	printf(t, "\n| users | contacts | scraped over | scrape, median | slowest | skipped | other client, socket: p99, slowest | other client, HTTP: p99, slowest | pkg | shm |\n")
	printf(t, "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n")
	users := 0
	for _, n := range []int{100, 1000, 10_000, 100_000} {
		register(t, server, users, n)
		users = n
		contacts := contactsOf(users)
		before := memoryAtRest(t, server, ownCycle)
		for _, name := range []string{"", "sockets", "HTTP"} {
			ctx, cancel := context.WithCancel(t.Context())
			end := func() scrapeResult { return scrapeResult{} }
			if e := exporters[name]; e != nil {
				// The first scrape allocates memory that is kept and does not count as
				// growth.
				if _, err := e.get(); err != nil {
					t.Error(err)
				}
				end = e.scrape(ctx, 1)
			}
			socket, http := probe(ctx, t, byName["the stock pair"][0]), probe(ctx, t, server.HTTPURL)
			time.Sleep(*load)
			cancel()
			scrapes := end()
			after := memoryAtRest(t, server, ownCycle)
			others := fmt.Sprintf("%s | %s", worst(socket()), worst(http()))
			growth := fmt.Sprintf("%+d B | %+d B", after.pkg-before.pkg, after.shm-before.shm)
			before = after
			if name == "" {
				printf(t, "| %d | %d | not scraped | | | | %s | %s |\n", users, contacts, others, growth)
				continue
			}
			for _, err := range scrapes.errs {
				t.Errorf("%d users over %s: %v", users, name, err)
			}
			checkCounts(t, scrapes.last, users)
			held := skipped(scrapes.last)
			if want := map[int]string{100: "0", 10_000: "1", 100_000: "1"}[users]; want != "" && held != want {
				t.Errorf("%d users over %s: ul.dump is skipped: %q, want %s", users, name, held, want)
			}
			printf(t, "| %d | %d | %s | %.1f ms | %.1f ms | %s | %s | %s |\n", users, contacts, name,
				ms(quantile(scrapes.times, 0.5)), ms(slices.Max(scrapes.times)), held, others, growth)
		}
	}
	printf(t, "\n%s\n", loadAverage())
}

func worst(times []time.Duration) string {
	return fmt.Sprintf("%.2f ms, %.1f ms", ms(quantile(times, 0.99)), ms(slices.Max(times)))
}

var skippedDump = regexp.MustCompile(`(?m)^kamailio_scrape_skipped\{[^}]*method="ul\.dump"[^}]*\} ([0-9]+)$`)

// skipped returns "1" if the contacts are not read, for whatever reason, and "0" if they
// are.
func skipped(page string) (held string) {
	for _, found := range skippedDump.FindAllStringSubmatch(page, -1) {
		held = max(held, found[1])
	}
	return held
}

// TestHundredThousandUsers scrapes a registrar with very many users once a second for a
// minute, while it routes calls.
func TestHundredThousandUsers(t *testing.T) {
	if *load == 0 {
		t.Skip("takes minutes: make bench runs it")
	}
	const users, seconds, rate = 100_000, time.Minute, callsPerSecond
	for _, version := range kamailiotest.Versions(t) {
		t.Run(version, func(t *testing.T) {
			server := kamailiotest.Start(t, kamailiotest.Config{Version: version, ShmMB: 1024})
			phones := newPhones(t, server)
			register(t, server, 0, users)
			exporter := runExporter(t, urisOf(server)["the stock pair"])

			callsAndScrapes := func(d time.Duration, scrapers int) scrapeResult {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				end := exporter.scrape(ctx, scrapers)
				began := time.Now()
				result := phones.call(t, rate, d).result(t, began, began.Add(d))
				if result.failed > 0 {
					t.Errorf("%d of %d calls failed", result.failed, len(result.invite))
				}
				cancel()
				return end()
			}
			// The first scrapes, and as many calls as will run later, allocate memory
			// that is kept.
			callsAndScrapes(3*time.Second, 1)
			callsAndScrapes(seconds, 0)
			first := memoryAtRest(t, server, restOfCalls+ownCycle)
			callsAndScrapes(seconds, 0)
			before := memoryAtRest(t, server, restOfCalls+ownCycle)
			result := callsAndScrapes(seconds, 1)
			after := memoryAtRest(t, server, restOfCalls+ownCycle)
			callsAndScrapes(seconds, 0)
			last := memoryAtRest(t, server, restOfCalls+ownCycle)
			for _, err := range result.errs {
				t.Error(err)
			}
			if n := len(result.times); n < int(seconds/time.Second) {
				t.Errorf("%d scrapes in %v", n, seconds)
			}
			checkCounts(t, result.last, users)
			if held := skipped(result.last); held != "1" {
				t.Errorf("ul.dump is skipped: %q, want 1", held)
			}
			// Calls also allocate memory that is kept: as much as in the minutes before
			// and after. And the number of Kamailio's outstanding pings varies.
			const pkgNoise, shmNoise = 4 << 10, 128 << 10
			calls := memory{max(before.pkg-first.pkg, last.pkg-after.pkg, 0), max(before.shm-first.shm, last.shm-after.shm, 0)}
			if after.pkg-before.pkg > calls.pkg+pkgNoise || after.shm-before.shm > calls.shm+shmNoise {
				t.Errorf("Kamailio's memory grew from %+v to %+v", before, after)
			}
			t.Logf("%d users, %d calls/s: %d scrapes, median %.1f ms, slowest %.1f ms; memory after a minute each of calls, calls, scrapes too, calls: %+v, %+v, %+v, %+v", users, rate,
				len(result.times), ms(quantile(result.times, 0.5)), ms(slices.Max(result.times)), first, before, after, last)
		})
	}
}

// exporterProcess is the exporter in a separate process, so that its CPU time and memory
// are not mixed with those of the test.
type exporterProcess struct {
	url string
	pid int
}

// runExporter builds the program and runs it until the test ends, with defaults except
// for the flags.
func runExporter(t *testing.T, uris []string, flags ...string) *exporterProcess {
	t.Helper()
	return startExporter(t, withURIs(uris, flags...)...)
}

func startExporter(t *testing.T, flags ...string) *exporterProcess {
	t.Helper()
	program := filepath.Join(t.TempDir(), cli.ProgramName)
	build := exec.Command("go", "build", "-buildvcs=false", "-o", program, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // as make build does
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	args := append([]string{"--web.listen-address=127.0.0.1:0"}, flags...)
	p := runBound(t, exec.Command(program, args...))
	return &exporterProcess{p.out.address(t), p.pid}
}

// reply is the reply to a scrape, not parsed yet.
type reply struct {
	took   time.Duration
	status int
	gzip   []byte
	err    error
}

// scraper requests pages like a Prometheus 3 that scrapes once a second. In production it
// runs on another machine, so here it must cost as little as possible: one goroutine,
// whose thread uses only idle CPU time.
type scraper struct {
	conn  net.Conn
	from  *bufio.Reader
	query *http.Request
}

func (e *exporterProcess) newScraper() (s *scraper, err error) {
	s = &scraper{}
	if s.query, err = http.NewRequestWithContext(context.Background(), http.MethodGet, e.url+"/metrics", nil); err != nil {
		return nil, err
	}
	s.query.Header.Set("X-Prometheus-Scrape-Timeout-Seconds", "1")
	s.query.Header.Set("Accept", "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1")
	s.query.Header.Set("Accept-Encoding", "gzip")
	if s.conn, err = net.Dial("tcp", s.query.URL.Host); err != nil {
		return nil, err
	}
	s.from = bufio.NewReader(s.conn)
	return s, nil
}

// yield moves the goroutine that scrapes to idle priority, permanently.
func (s *scraper) yield() error {
	runtime.LockOSThread()
	return unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_IDLE}, 0)
}

func (s *scraper) fetch() (r reply) {
	began := time.Now()
	if r.err = s.conn.SetDeadline(began.Add(10 * time.Second)); r.err != nil {
		return r
	}
	if r.err = s.query.Write(s.conn); r.err != nil {
		return r
	}
	resp, err := http.ReadResponse(s.from, s.query)
	if err != nil {
		return reply{err: err}
	}
	defer resp.Body.Close()
	r.status = resp.StatusCode
	r.gzip, r.err = io.ReadAll(resp.Body)
	r.took = time.Since(began)
	return r
}

// text returns the page, unpacked.
func (r reply) text() (string, error) {
	if r.err != nil {
		return "", r.err
	}
	unpack, err := gzip.NewReader(bytes.NewReader(r.gzip))
	if err != nil {
		return "", fmt.Errorf("status %d: %w: %s", r.status, err, r.gzip)
	}
	text, err := io.ReadAll(unpack)
	return string(text), err
}

// page returns the page, and an error if anything on it failed.
func (r reply) page() (page string, err error) {
	page, err = r.text()
	switch {
	case err != nil:
		return page, err
	case r.status != http.StatusOK || strings.TrimSuffix(value(page, "kamailio_up"), ".0") != "1": // OpenMetrics has floats
		return page, fmt.Errorf("status %d, kamailio_up %s", r.status, value(page, "kamailio_up"))
	case failed.MatchString(page):
		return page, fmt.Errorf("collectors that failed: %s", names(failed.FindAllStringSubmatch(page, -1)))
	case r.took > time.Second:
		return page, fmt.Errorf("a scrape took %v", r.took)
	}
	return page, nil
}

// get makes one scrape.
func (e *exporterProcess) get() (page string, err error) {
	s, err := e.newScraper()
	if err != nil {
		return "", err
	}
	defer s.conn.Close()
	return s.fetch().page()
}

// scrapeResult has the results of all scrapers together.
type scrapeResult struct {
	times       []time.Duration
	errs        []error
	last        string  // page
	rpcs, bytes float64 // per page
	perSecond   float64 // pages
}

// scrape scrapes once a second with each of n scrapers, at offsets spread over the
// second, until ctx is done. The returned function waits for the end.
func (e *exporterProcess) scrape(ctx context.Context, n int) (result func() scrapeResult) {
	var (
		mu      sync.Mutex
		running sync.WaitGroup
		replies []reply
		began   = time.Now()
	)
	keep := func(r reply) {
		mu.Lock()
		defer mu.Unlock()
		replies = append(replies, r)
	}
	for i := range n {
		running.Go(func() {
			s, err := e.newScraper()
			if err == nil {
				defer s.conn.Close()
				err = s.yield()
			}
			if err != nil {
				keep(reply{err: err})
				return
			}
			if !sleep(ctx, time.Duration(i)*time.Second/time.Duration(n)) {
				return
			}
			tick := time.NewTicker(time.Second)
			defer tick.Stop()
			for {
				keep(s.fetch())
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
				}
			}
		})
	}
	return func() (result scrapeResult) {
		running.Wait()
		result.perSecond = float64(len(replies)) / time.Since(began).Seconds()
		var pages []string
		for _, r := range replies {
			result.times = append(result.times, r.took)
			page, err := r.page()
			if err != nil {
				result.errs = append(result.errs, err)
				continue
			}
			pages = append(pages, page)
		}
		if len(pages) > 0 {
			first, last := pages[0], pages[len(pages)-1]
			counted := float64(len(pages) - 1) // since the first one
			result.last = last
			result.rpcs = (sum(last, "rpc_requests_total") - sum(first, "rpc_requests_total")) / counted
			result.bytes = (sum(last, "rpc_reply_bytes_total") - sum(first, "rpc_reply_bytes_total")) / counted
		}
		return result
	}
}

func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// sum adds up a counter of the exporter over its labels.
func sum(page, name string) (n float64) {
	for line := range strings.Lines(page) {
		if strings.HasPrefix(line, cli.ProgramName+"_"+name+"{") {
			v, _ := strconv.ParseFloat(strings.TrimSpace(line[strings.LastIndexByte(line, ' '):]), 64)
			n += v
		}
	}
	return n
}

// phones call each other through a server.
type phones struct {
	dir    string
	server string // its SIP address
	port   int    // of the caller
}

// newPhones starts the phone that is called, and raises limits of the demo that only fit
// its few calls.
func newPhones(t *testing.T, server *kamailiotest.Server) *phones {
	t.Helper()
	p := newCaller(t, server)
	callee := strconv.Itoa(p.port - 1)
	// Use another table than that of the users that are counted.
	server.RPC(t, "ul.add", "location2", "callee@example.net", "sip:callee@127.0.0.1:"+callee, 0, 1.0, "", 0, 0, -1)
	server.RPC(t, "pl.set_pipe", "invite", "TAILDROP", 100_000)
	server.RPC(t, "rl.set_pipe", 1, "TAILDROP", 100_000)
	server.RPC(t, "cfg.set_now_int", "core", "max_while_loops", 100_000) // of route[CDR]
	runBound(t, p.sipp("callee.xml", "-p", callee, "-timeout", "3600"))
	return p
}

// newCaller returns the phone that calls.
func newCaller(t *testing.T, server *kamailiotest.Server) *phones {
	t.Helper()
	addr, err := net.ResolveUDPAddr("udp", server.SIPAddr)
	if err != nil {
		t.Fatal(err)
	}
	// The server has 16 ports and does not use the last ones.
	p := &phones{dir: t.TempDir(), server: server.SIPAddr, port: addr.Port + 15}
	for name, text := range map[string]string{"caller.xml": callerScenario, "callee.xml": calleeScenario} {
		if err := os.WriteFile(filepath.Join(p.dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

func (p *phones) sipp(scenario string, args ...string) *exec.Cmd {
	return exec.Command("sipp", append([]string{"-nostdin", "-skip_rlimit", "-i", "127.0.0.1", "-sf", filepath.Join(p.dir, scenario)}, args...)...)
}

// calls are the calls of one SIPp.
type calls struct {
	sipp *boundProcess
	dir  string
}

// call makes rate calls a second for d.
func (p *phones) call(t *testing.T, rate int, d time.Duration) *calls {
	t.Helper()
	// -trace_rtt is too coarse: its clock ticks every 4 ms. The message log has
	// microseconds.
	cmd := p.sipp("caller.xml", "-p", strconv.Itoa(p.port), "-r", strconv.Itoa(rate),
		"-m", strconv.Itoa(int(float64(rate)*d.Seconds())), "-d", strconv.Itoa(int(callLength.Milliseconds())),
		"-timeout", strconv.Itoa(int(d.Seconds())+30), "-timeout_error",
		"-trace_shortmsg", "-shortmessage_file", "messages", "-trace_stat", "-stf", "statistics", p.server)
	dir, err := os.MkdirTemp(p.dir, "calls")
	if err != nil {
		t.Fatal(err)
	}
	cmd.Dir = dir
	return &calls{runBound(t, cmd), dir}
}

type callResult struct {
	invite, options       []time.Duration // until the 200
	inviteSent            []time.Time     // send time of each element of invite
	perSecond             float64         // calls answered
	failed, retransmitted int
}

// result waits for the end of the calls, and reads SIPp's output. It returns the times of
// requests sent between began and ended.
func (c *calls) result(t *testing.T, began, ended time.Time) (r callResult) {
	t.Helper()
	<-c.sipp.ended
	if c.sipp.code > 1 || c.sipp.code < 0 { // 1: some calls failed; these are counted
		t.Fatalf("SIPp: %s", c.sipp.out)
	}
	from, to := float64(began.UnixMicro())/1e6, float64(ended.UnixMicro())/1e6
	sent := map[string]float64{} // send times, by call and method
	for _, row := range readTable(t, filepath.Join(c.dir, "messages"), '\t') {
		// Date, time, seconds, S or R, Call-ID, CSeq, first line.
		if len(row) < 7 {
			continue
		}
		at, _ := strconv.ParseFloat(row[2], 64)
		_, method, _ := strings.Cut(strings.TrimPrefix(row[5], "CSeq:"), " ")
		key := row[4] + method
		switch {
		case row[3] == "S" && sent[key] == 0:
			sent[key] = at
		case row[3] == "R" && strings.HasPrefix(row[6], "SIP/2.0 200") && sent[key] >= from && sent[key] < to:
			took := time.Duration((at - sent[key]) * 1e9)
			switch method {
			case "INVITE":
				r.invite = append(r.invite, took)
				r.inviteSent = append(r.inviteSent, time.UnixMicro(int64(sent[key]*1e6)))
			case "OPTIONS":
				r.options = append(r.options, took)
			}
			sent[key] = -1 // the 200 may be retransmitted
		}
	}
	r.perSecond = float64(len(r.invite)) / (to - from)
	rows := readTable(t, filepath.Join(c.dir, "statistics"), ';')
	last := rows[len(rows)-1]
	number := func(column string) int {
		n, err := strconv.Atoi(last[slices.Index(rows[0], column)])
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	r.failed, r.retransmitted = number("FailedCall(C)"), number("Retransmissions(C)")
	return r
}

func readTable(t *testing.T, file string, comma rune) [][]string {
	t.Helper()
	var rows [][]string
	for line := range strings.Lines(readText(t, file)) {
		rows = append(rows, strings.Split(strings.TrimSuffix(line, "\n"), string(comma)))
	}
	return rows
}

// ownUsers are registered by the demo's configuration: its trunk registers with the demo
// itself.
const ownUsers = 1

// contactsOf returns the number of contacts of this many users: every tenth has two.
func contactsOf(users int) int { return users + users/10 }

// register adds the users with these numbers.
func register(t *testing.T, server *kamailiotest.Server, from, to int) {
	t.Helper()
	for range 100 { // the trunk registers within 5 s
		if bytes.Contains(server.RPC(t, "stats.get_statistics", "all"), []byte("usrloc:location_users = "+strconv.Itoa(from+ownUsers)+`"`)) {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	const clients = 3 // fewer than Kamailio has TCP workers
	var all sync.WaitGroup
	for client := range clients {
		transport, err := kamrpc.Open(server.HTTPURL, nil)
		if err != nil {
			t.Fatal(err)
		}
		all.Go(func() {
			for i := from + client; i < to; i += clients {
				for contact := range contactsOf(i+1) - contactsOf(i) {
					request := fmt.Sprintf(`{"jsonrpc":"2.0","id":1,"method":"ul.add","params":["location","user%d@example.com","sip:user%[1]d@192.0.2.%d:%d",86400,1.0,"",0,0,-1]}`,
						i, contact, 1024+i%60000)
					if err := ask(t.Context(), transport, []byte(request)); err != nil {
						t.Errorf("ul.add: %v", err)
						return
					}
				}
			}
		})
	}
	all.Wait()
}

func checkCounts(t *testing.T, page string, users int) {
	t.Helper()
	for sample, want := range map[string]int{
		`kamailio_usrloc_users{domain="location"}`:    users + ownUsers,
		`kamailio_usrloc_contacts{domain="location"}`: contactsOf(users) + ownUsers,
	} {
		// ParseFloat, because the page has 1e+05 for 100,000.
		if got, err := strconv.ParseFloat(value(page, sample), 64); err != nil || got != float64(want) {
			t.Errorf("%s is %q, want %d", sample, value(page, sample), want)
		}
	}
}

// probe calls core.uptime every 10 ms until ctx is done, and measures the reply times.
// The returned function waits for the end.
func probe(ctx context.Context, t *testing.T, uri string) (times func() []time.Duration) {
	t.Helper()
	transport, err := kamrpc.Open(uri, nil)
	if err != nil {
		t.Fatal(err)
	}
	client, err := kamrpc.NewClient(kamrpc.Config{Transports: []kamrpc.Transport{transport}})
	if err != nil {
		t.Fatal(err)
	}
	var all []time.Duration
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			all = append(all, timed(func() {
				ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
				defer cancel()
				if _, err := client.Call(ctx, "core.uptime"); err != nil {
					t.Error(err)
				}
			}))
		}
	}()
	return func() []time.Duration { <-done; return all }
}

// memory is the memory that Kamailio has allocated, in bytes.
type memory struct {
	pkg int // private, of all processes
	shm int
}

func memoryOf(t *testing.T, server *kamailiotest.Server) (m memory) {
	t.Helper()
	var processes []struct{ Used int }
	if err := json.Unmarshal(server.RPC(t, "pkg.stats"), &processes); err != nil || len(processes) == 0 {
		t.Fatalf("pkg.stats: %v", err)
	}
	for _, p := range processes {
		m.pkg += p.Used
	}
	var shm struct{ Used int }
	if err := json.Unmarshal(server.RPC(t, "core.shmmem"), &shm); err != nil || shm.Used == 0 {
		t.Fatalf("core.shmmem: %v", err)
	}
	m.shm = shm.Used
	return m
}

const (
	restOfCalls = 7 * time.Second // until Kamailio forgets the last dialog and transaction
	ownCycle    = 5 * time.Second // in which it sends all its own pings once
)

// memoryAtRest returns the least memory that Kamailio uses within d.
func memoryAtRest(t *testing.T, server *kamailiotest.Server, d time.Duration) memory {
	t.Helper()
	least := memoryOf(t, server)
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		m := memoryOf(t, server)
		least = memory{min(least.pkg, m.pkg), min(least.shm, m.shm)}
	}
	return least
}

// processesOf returns all processes of a server.
func processesOf(t *testing.T, server *kamailiotest.Server) (pids []int) {
	t.Helper()
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, stat := range stats {
		text, _ := os.ReadFile(stat)
		// pid (name) state ppid pgrp
		fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
		if len(fields) > 2 && fields[2] == strconv.Itoa(server.PID()) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(stat)))
			pids = append(pids, pid)
		}
	}
	if len(pids) < 10 {
		t.Fatalf("Kamailio has %d processes", len(pids))
	}
	return pids
}

// cpuTime returns the CPU time of processes so far, in nanoseconds: utime and stime in
// /proc/PID/stat only have hundredths of a second.
func cpuTime(t *testing.T, pids []int) (total time.Duration) {
	t.Helper()
	for _, pid := range pids {
		threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
		if len(threads) == 0 {
			t.Fatalf("process %d is gone", pid)
		}
		for _, thread := range threads {
			text, _ := os.ReadFile(thread)
			on, _, _ := strings.Cut(string(text), " ")
			ns, err := strconv.ParseInt(on, 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			total += time.Duration(ns)
		}
	}
	return total
}

// residentMemory returns the resident memory of a process, in bytes.
func residentMemory(t *testing.T, pid int) float64 {
	t.Helper()
	fields := strings.Fields(readText(t, fmt.Sprintf("/proc/%d/statm", pid)))
	pages, err := strconv.Atoi(fields[1])
	if err != nil {
		t.Fatal(err)
	}
	return float64(pages * os.Getpagesize())
}

func ms(d time.Duration) float64 { return d.Seconds() * 1e3 }

// quantile returns a quantile of unsorted durations; 0 if there are none.
func quantile(d []time.Duration, q float64) time.Duration {
	if len(d) == 0 {
		return 0
	}
	d = slices.Sorted(slices.Values(d))
	return d[min(int(q*float64(len(d))), len(d)-1)]
}

// spread prints the median, minimum and maximum of a figure of a case.
func spread(c *loadCase, format string, figure func(loadRun) float64) string {
	var all []float64
	for _, r := range c.runs {
		all = append(all, figure(r))
	}
	return spreadOf(all, format)
}

// paired does the same for a figure of two runs of the same round.
func paired(c, other *loadCase, format string, figure func(run, other loadRun) float64) string {
	var all []float64
	for i, r := range c.runs {
		all = append(all, figure(r, other.runs[i]))
	}
	return spreadOf(all, format)
}

func spreadOf(all []float64, format string) string {
	slices.Sort(all)
	median := fmt.Sprintf(format, all[len(all)/2])
	least, greatest := fmt.Sprintf(format, all[0]), fmt.Sprintf(format, all[len(all)-1])
	if least == greatest {
		return median
	}
	return fmt.Sprintf("%s (%s..%s)", median, least, greatest)
}

// printf writes a part of the report.
func printf(t *testing.T, format string, args ...any) {
	t.Helper()
	fmt.Fprintf(t.Output(), format, args...)
}

func describeMachine(t *testing.T, server *kamailiotest.Server) {
	t.Helper()
	cpu := regexp.MustCompile(`model name\s*: (.*)`).FindStringSubmatch(readText(t, "/proc/cpuinfo"))
	var kamailio string
	if err := json.Unmarshal(server.RPC(t, "core.version"), &kamailio); err != nil {
		t.Fatal(err)
	}
	printf(t, "%d cores, %s, %s, %s, %s\n", runtime.NumCPU(), cpu[1], kamailio, runtime.Version(), loadAverage())
}

func loadAverage() string {
	text, _ := os.ReadFile("/proc/loadavg")
	return "load average " + strings.Join(strings.Fields(string(text))[:3], " ")
}
