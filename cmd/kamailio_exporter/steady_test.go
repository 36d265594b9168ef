package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/serve"
	"github.com/kamailio-exporter/kamailio_exporter/collector"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc/kamrpctest"
)

// handlerFor returns the program's handler without a listener.
func handlerFor(tb testing.TB, args ...string) http.Handler {
	tb.Helper()
	s, err := settings(args...)
	if err != nil {
		tb.Fatal(err)
	}
	service, err := serve.New(s, nil, newLogBuffer())
	if err != nil {
		tb.Fatal(err)
	}
	return service.Handler()
}

func scrapePage(h http.Handler, timeout string) (int, string) {
	r := httptest.NewRequest(http.MethodGet, "/metrics", nil)
	r.Header.Set("X-Prometheus-Scrape-Timeout-Seconds", timeout)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

// TestNothingGrows scrapes a Kamailio 5,000 times in each of its possible states, over
// each transport of a stock server and over HTTP.
func TestNothingGrows(t *testing.T) {
	if testing.Short() {
		t.Skip("takes minutes: run it without -short")
	}
	scrapes, exporters := 5000, 40 // in parallel: most cases only wait for a deadline
	if raceDetector {
		scrapes, exporters = 16, 8 // only to find races: make test also runs it without the detector
	}
	// Connections that are kept for the next scrape: two per exporter, and both ends are
	// in this process.
	kept := 4 * exporters
	for _, tc := range []struct {
		name    string
		break_  func(*kamrpctest.Server)
		timeout string // of a scrape; the handler uses half of it
		up      string
	}{
		{"well", func(*kamrpctest.Server) {}, "10", "1"},
		{"stopped", (*kamrpctest.Server).Down, "10", "0"},
		{"hung", func(s *kamrpctest.Server) { s.Misbehave(kamrpctest.Silent) }, "0.02", "0"},
		{"garbage", func(s *kamrpctest.Server) { s.Misbehave(kamrpctest.Garbage) }, "10", "0"},
		{"truncating", func(s *kamrpctest.Server) { s.Misbehave(kamrpctest.Truncate) }, "0.02", "0"},
		{"trickling", func(s *kamrpctest.Server) { s.Misbehave(kamrpctest.Trickle(time.Second)) }, "0.02", "0"},
		{"other id", func(s *kamrpctest.Server) { s.Misbehave(kamrpctest.OtherID) }, "0.02", "0"},
		{"one method failing", func(s *kamrpctest.Server) { s.HandleFault("tm.stats", 500, "Internal error") }, "10", "1"},
		{"one method hung", func(s *kamrpctest.Server) { s.Misbehave(kamrpctest.Silent, "tm.stats") }, "10", "1"},
	} {
		for _, schemes := range [][]string{{"http"}, {"unix", "fifo"}} {
			t.Run(tc.name+" over "+strings.Join(schemes, " and "), func(t *testing.T) {
				server := fake(t)
				args := []string{"--scrape.reuse=0s", "--scrape.growing-interval=0s"}
				if tc.name == "one method hung" {
					// Each scrape takes this long here, but all other calls must not time
					// out: they are slow under the race detector.
					timeout := "250ms"
					if raceDetector {
						timeout = "2s"
					}
					args = append(args, "--kamailio.timeout="+timeout)
				}
				for _, scheme := range schemes {
					args = append(args, "--kamailio.uri="+server.URI(scheme))
				}
				// Two collectors are enough if all others would behave the same.
				for _, c := range collector.Names(collector.All(collector.Options{})) {
					if c != "tm" && c != "dispatcher" {
						args = append(args, "--no-collector."+c)
					}
				}
				var handlers []http.Handler
				for range exporters {
					handlers = append(handlers, handlerFor(t, args...))
				}
				tc.break_(server)
				scrapeEach := func(n int) {
					var all sync.WaitGroup
					for _, h := range handlers {
						all.Go(func() {
							for i := range n {
								code, body := scrapePage(h, tc.timeout)
								if code != 200 || !strings.Contains(body, "\nkamailio_up "+tc.up+"\n") {
									t.Errorf("scrape %d: status %d, want kamailio_up %s\n%.300s", i, code, tc.up, body)
									return
								}
							}
						})
					}
					all.Wait()
				}
				scrapeEach(max(1, scrapes/exporters/10)) // fills pools and caches
				before := settled(nil)
				scrapeEach(scrapes / exporters)
				after := settled(&before)
				// The race detector drops what is put into a sync.Pool at random, and the few
				// scrapes under it are not enough to fill the pools.
				heapGrew := !raceDetector && after.heap > before.heap+2<<20
				if after.goroutines > before.goroutines+2*kept || after.descriptors > before.descriptors+kept || heapGrew {
					t.Errorf("%+v grew to %+v", before, after)
				}
			})
		}
	}
}

type usage struct {
	goroutines, descriptors int
	heap                    uint64
}

// settled measures the usage. Given an earlier measurement, it waits, for a limited time,
// until work in progress has ended: the fake's side of canceled calls lives a little
// longer.
func settled(before *usage) usage {
	var u usage
	for range 500 {
		runtime.GC()
		var mem runtime.MemStats
		runtime.ReadMemStats(&mem)
		fds, _ := os.ReadDir("/proc/self/fd")
		u = usage{runtime.NumGoroutine(), len(fds), mem.HeapAlloc}
		if before == nil || u.goroutines <= before.goroutines && u.descriptors <= before.descriptors {
			break
		}
		runtime.Gosched()
	}
	return u
}

func TestPageOf5000DestinationsAnd1000Statistics(t *testing.T) {
	server := fake(t)
	var destinations, statistics []string
	for i := range 5000 {
		destinations = append(destinations, fmt.Sprintf(`{"DEST":{"URI":"sip:[2001:db8::%x]:5060;n=\"%d\"\n","FLAGS":"AP","PRIORITY":-1,"ATTRS":{"WEIGHT":1,"DUID":"%[2]d"},"LATENCY":{"AVG":1,"STD":1,"EST":1,"MAX":1,"TIMEOUT":0},"RUNTIME":{"DLGLOAD":0}}}`, i, i))
	}
	for i := range 1000 {
		statistics = append(statistics, fmt.Sprintf(`"script:Zähler \"%d\"\n{} = 18446744073709551615"`, i))
	}
	server.Handle("dispatcher.list", `{"NRSETS":1,"RECORDS":[{"SET":{"ID":0,"TARGETS":[`+strings.Join(destinations, ",")+`]}}]}`)
	server.Handle("stats.get_statistics", "["+strings.Join(statistics, ",")+"]")
	h := handlerFor(t, "--kamailio.uri="+server.URI("http"))
	code, body := scrapePage(h, "10")
	if code != 200 {
		t.Fatal(code)
	}
	if n := strings.Count(body, "\nkamailio_dispatcher_destination_up{"); n != 5000 {
		t.Errorf("%d destinations", n)
	}
	if n := strings.Count(body, "\nkamailio_statistic{"); n != 1000 || !strings.Contains(body, `"} -1`) {
		t.Errorf("%d statistics", n)
	}
	checkMetrics(t, body)
}
