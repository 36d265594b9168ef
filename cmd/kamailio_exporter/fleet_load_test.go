//go:build linux && load

package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kamailio-exporter/kamailio_exporter/kamrpc/kamrpctest"
)

// TestFleet has one exporter, in a separate process, scrape 500 Kamailio servers every 15
// s each, spread over the interval as one Prometheus does. One server hangs, one replies
// a byte at a time, and one is down.
func TestFleet(t *testing.T) {
	if *load == 0 {
		t.Skip("measures for -load")
	}
	const targets, interval = 500, 15 * time.Second
	hanging, slow, dead := 100, 200, 300
	var file strings.Builder
	file.WriteString("targets:\n")
	var down *kamrpctest.Server // once all others have their ports
	for i := range targets {
		server := fake(t)
		fmt.Fprintf(&file, "  t%03d: {uris: [%q]}\n", i, server.URI("http"))
		switch i {
		case hanging:
			server.Misbehave(kamrpctest.Silent)
		case slow:
			server.Misbehave(kamrpctest.Trickle(10 * time.Millisecond))
		case dead:
			down = server
		}
	}
	down.Down()
	e := startExporter(t, "--config.file="+fleetFile(t, "%s", file.String()))

	rounds := max(3, int(*load/interval)+1) // the first one is a warm-up
	type scrape struct {
		target int
		took   time.Duration
	}
	var mu sync.Mutex
	var healthy, ill []scrape
	var first time.Duration
	var most float64
	var all sync.WaitGroup
	for round := range rounds {
		if round == 1 {
			first = cpuTime(t, []int{e.pid})
		}
		begun := time.Now()
		for i := range targets {
			time.Sleep(time.Until(begun.Add(interval / targets * time.Duration(i)))) // paces the load
			all.Go(func() {
				up, took := e.probe(t, fmt.Sprintf("t%03d", i))
				isIll := i == hanging || i == slow || i == dead
				if want := !isIll || i == slow; up != want {
					t.Errorf("round %d, target %d: up %v", round, i, up)
				}
				mu.Lock()
				defer mu.Unlock()
				switch {
				case round == 0:
				case isIll:
					ill = append(ill, scrape{i, took})
				default:
					healthy = append(healthy, scrape{i, took})
				}
			})
		}
		time.Sleep(time.Until(begun.Add(interval)))
		most = max(most, residentMemory(t, e.pid))
	}
	used := cpuTime(t, []int{e.pid}) - first
	all.Wait()
	byTime := func(a, b scrape) int { return int(a.took - b.took) }
	slices.SortFunc(healthy, byTime)
	slices.SortFunc(ill, byTime)
	measured := time.Duration(rounds-1) * interval
	n := len(healthy)
	t.Logf("%d targets, each every %s, for %s: %d scrapes of healthy targets, median %.1f ms, p99 %.1f ms, slowest %.1f ms; of ill ones the slowest %.1f ms; exporter: %.2f cores, %.0f MiB",
		targets, interval, measured, n, ms(healthy[n/2].took), ms(healthy[n*99/100].took), ms(healthy[n-1].took), ms(ill[len(ill)-1].took),
		used.Seconds()/measured.Seconds(), most/(1<<20))
	if most > 200<<20 {
		t.Errorf("%.0f MiB of memory", most/(1<<20))
	}
	if slowest := healthy[n-1].took; slowest > time.Second {
		t.Errorf("a healthy target took %s", slowest)
	}
}

// probeClient keeps its connections and accepts gzip, as Prometheus does.
var probeClient = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 20}, Timeout: 10 * time.Second}

// probe scrapes one target like a Prometheus with an interval of 15 s.
func (e *exporterProcess) probe(t *testing.T, target string) (up bool, took time.Duration) {
	r, err := http.NewRequestWithContext(context.Background(), http.MethodGet, e.url+"/probe?target="+target, nil)
	if err != nil {
		t.Error(err)
		return false, 0
	}
	r.Header.Set("X-Prometheus-Scrape-Timeout-Seconds", "10")
	begun := time.Now()
	resp, err := probeClient.Do(r)
	if err != nil {
		t.Error(err)
		return false, 0
	}
	defer resp.Body.Close()
	page, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 200 {
		t.Errorf("%s: %s, %v", target, resp.Status, err)
	}
	return bytes.Contains(page, []byte("\nkamailio_up 1\n")), time.Since(begun)
}
