//go:build linux && load

package main

import (
	"flag"
	"fmt"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kamailio-exporter/kamailio_exporter/kamrpc/kamrpctest/kamailiotest"
)

// against adds other programs to TestCostOfScrape, for example an earlier build.
var against = flag.String("against", "", "command lines of other exporters to compare with, separated by semicolons; they listen on 127.0.0.1:{port} and query {http}, {unix}, {fifo}, or {ctl}")

// TestCostOfScrape measures what a scrape of a Kamailio with all modules costs, in
// separate processes: its duration, the CPU time of the exporter and of Kamailio, and the
// exporter's memory and allocations. It compares the duration to a bare loop that sends
// the same requests one after another. Scrapes follow each other after a pause, as in
// production, or at once. All cases alternate, so that other load affects all alike.
func TestCostOfScrape(t *testing.T) {
	if *load == 0 {
		t.Skip("measures for -load")
	}
	server := kamailiotest.Start(t, kamailiotest.Config{Traffic: true})
	kamailio := processesOf(t, server)
	s, err := settings()
	if err != nil {
		t.Fatal(err)
	}
	cases := []*costCase{{name: "no scrapes"}}
	for _, name := range []string{"HTTP", "the stock pair", "BINRPC"} {
		uris := urisOf(server)[name]
		requests := requestsOf(t, uris, s.Target.Enabled())
		loop := &costCase{name: name + ", bare loop", bare: func() { askAll(t, requests) }}
		exporter := runExporter(t, uris, "--scrape.reuse=0s")
		cases = append(cases, loop, &costCase{name: name, loop: loop, exporter: exporter})
	}
	for i, command := range strings.FieldsFunc(*against, func(r rune) bool { return r == ';' }) {
		exporter := startOther(t, server, command)
		cases = append(cases, &costCase{name: fmt.Sprintf("other program %d", i+1), exporter: exporter})
	}
	describeMachine(t, server)
	for _, pause := range []time.Duration{300 * time.Millisecond, 0} {
		for _, c := range cases {
			c.runs = nil
		}
		const rounds = 7
		for round := range rounds + 1 { // the first one is a warm-up
			for i := range cases {
				c := cases[(round+i)%len(cases)]
				run := c.measure(t, kamailio, pause, *load/rounds)
				if round > 0 {
					c.runs = append(c.runs, run)
				}
			}
		}
		printf(t, "\n%v between scrapes; %d rounds of %v. Median of the rounds (lowest..highest).\n\n", pause, rounds, *load/rounds)
		printCostOfScrape(t, cases)
	}
	printf(t, "\n%s\n", loadAverage())
}

// costCase is one kind of scrapes, and its measurements.
type costCase struct {
	name     string
	exporter *exporterProcess
	bare     func()    // instead of an exporter; without both, there are no scrapes
	loop     *costCase // the same requests as a bare loop
	runs     []costRun
}

// costRun are the figures of one scrape, from the scrapes of one round.
type costRun struct {
	times                  []time.Duration
	exporterCPU            time.Duration
	kamailioCPU            time.Duration // without scrapes: per second
	took                   time.Duration // of one scrape with its pause
	rss, mallocs, heapSize float64       // bytes, objects, bytes
}

func (c *costCase) measure(t *testing.T, kamailio []int, pause, window time.Duration) (run costRun) {
	t.Helper()
	var exporter []int
	var mallocs, heapSize float64
	scrape := c.bare
	if c.exporter != nil {
		exporter = []int{c.exporter.pid}
		mallocs, heapSize = c.exporter.allocations(t)
		s, err := c.exporter.newScraper()
		if err != nil {
			t.Fatal(err)
		}
		defer s.conn.Close()
		scrape = func() {
			if r := s.fetch(); r.err != nil || r.status != 200 {
				t.Fatal(c.name, r.status, r.err)
			}
		}
	}
	exporterCPU, kamailioCPU, began := cpuTime(t, exporter), cpuTime(t, kamailio), time.Now()
	for time.Since(began) < window || len(run.times) < 3 && scrape != nil {
		if scrape == nil {
			time.Sleep(window)
			break
		}
		run.times = append(run.times, timed(scrape))
		time.Sleep(pause)
	}
	n := float64(len(run.times))
	if scrape == nil {
		n = time.Since(began).Seconds()
	}
	each := func(total time.Duration) time.Duration { return time.Duration(float64(total) / n) }
	run.took = each(time.Since(began))
	run.exporterCPU = each(cpuTime(t, exporter) - exporterCPU)
	run.kamailioCPU = each(cpuTime(t, kamailio) - kamailioCPU)
	if c.exporter != nil {
		// The page that reports the allocations is one scrape more.
		m, h := c.exporter.allocations(t)
		scrapes := float64(len(run.times) + 1)
		run.mallocs, run.heapSize = (m-mallocs)/scrapes, (h-heapSize)/scrapes
		run.rss = residentMemory(t, c.exporter.pid)
	}
	return run
}

func printCostOfScrape(t *testing.T, cases []*costCase) {
	t.Helper()
	printf(t, "| | time, median | p99 | to the bare loop | exporter's CPU | Kamailio's CPU | memory | allocations | allocated |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- |\n")
	for _, c := range cases[1:] {
		var all []time.Duration
		for _, run := range c.runs {
			all = append(all, run.times...)
		}
		printf(t, "| %s | %.2f ms | %.2f ms |", c.name, ms(quantile(all, 0.5)), ms(quantile(all, 0.99)))
		median := func(run costRun) float64 { return ms(quantile(run.times, 0.5)) }
		if c.loop == nil {
			printf(t, " |")
		} else {
			printf(t, " %s |", c.paired(c.loop, func(run, loop costRun) float64 { return median(run) / median(loop) }))
		}
		kamailio := c.paired(cases[0], func(run, none costRun) float64 {
			return ms(run.kamailioCPU) - ms(none.kamailioCPU)*run.took.Seconds()
		})
		if c.exporter == nil {
			printf(t, " | %s ms | | | |\n", kamailio)
			continue
		}
		figure := func(format string, of func(run costRun) float64) string {
			var all []float64
			for _, run := range c.runs {
				all = append(all, of(run))
			}
			return spreadOf(all, format)
		}
		printf(t, " %s ms | %s ms | %s MiB | %s | %s kB |\n",
			figure("%.2f", func(run costRun) float64 { return ms(run.exporterCPU) }), kamailio,
			figure("%.1f", func(run costRun) float64 { return run.rss / (1 << 20) }),
			figure("%.0f", func(run costRun) float64 { return run.mallocs }),
			figure("%.0f", func(run costRun) float64 { return run.heapSize / 1000 }))
	}
}

// paired prints a figure of two runs of the same round.
func (c *costCase) paired(other *costCase, figure func(run, other costRun) float64) string {
	var all []float64
	for i, run := range c.runs {
		all = append(all, figure(run, other.runs[i]))
	}
	return spreadOf(all, "%.2f")
}

// allocations returns how many objects and bytes the exporter has allocated so far.
func (e *exporterProcess) allocations(t *testing.T) (mallocs, size float64) {
	t.Helper()
	s, err := e.newScraper()
	if err != nil {
		t.Fatal(err)
	}
	defer s.conn.Close()
	page, err := s.fetch().text()
	if err != nil {
		t.Fatal(err)
	}
	mallocs, _ = strconv.ParseFloat(value(page, "go_memstats_mallocs_total"), 64)
	size, _ = strconv.ParseFloat(value(page, "go_memstats_alloc_bytes_total"), 64)
	return mallocs, size
}

// startOther runs another exporter until the test ends.
func startOther(t *testing.T, server *kamailiotest.Server, command string) *exporterProcess {
	t.Helper()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := free.Addr().String()
	free.Close()
	_, port, _ := net.SplitHostPort(address)
	args := strings.Fields(strings.NewReplacer("{port}", port, "{http}", server.HTTPURL, "{unix}", "unix://"+server.SocketPath,
		"{fifo}", "fifo://"+server.FIFOPath+"?reply_dir="+server.FIFOReplyDir, "{ctl}", server.CtlPath).Replace(command))
	p := runBound(t, exec.Command(args[0], args[1:]...))
	for {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			conn.Close()
			return &exporterProcess{"http://" + address, p.pid}
		}
		select {
		case <-p.ended:
			t.Fatalf("%s: %s", command, p.out)
		case <-time.After(10 * time.Millisecond): // it does not report when it listens
		}
	}
}
