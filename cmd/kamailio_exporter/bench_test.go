//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kamailio-exporter/kamailio_exporter/collector"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc/kamrpctest/kamailiotest"
)

// BenchmarkScrape compares a scrape of a real Kamailio, with all modules, to a plain loop
// that sends the same requests one by one over the same transport and reads the replies
// without parsing them. Both alternate, so that they see the same state of the machine.
// scrape/loop is the ratio of their medians; page/loop includes writing the page. With
// the default flags, lists are called at most once in 5 s or a minute; "every call" is a
// scrape that calls all of them.
func BenchmarkScrape(b *testing.B) {
	server := kamailiotest.Start(b, kamailiotest.Config{Traffic: true})
	everyCall := []string{"--scrape.growing-interval=0s"}
	for _, tc := range []struct {
		name  string
		uris  []string
		flags []string
	}{
		{"http", []string{server.HTTPURL}, nil},
		{"unix", []string{"unix://" + server.SocketPath}, nil},
		{"stock pair", urisOf(server)["the stock pair"], nil},
		{"binrpc", []string{"binrpc+unix://" + server.CtlPath}, nil},
		{"every call/http", []string{server.HTTPURL}, everyCall},
		{"every call/unix", []string{"unix://" + server.SocketPath}, everyCall},
		{"every call/stock pair", urisOf(server)["the stock pair"], everyCall},
	} {
		b.Run(tc.name, func(b *testing.B) {
			s, err := settings(tc.flags...)
			if err != nil {
				b.Fatal(err)
			}
			requests := requestsOf(b, tc.uris, s.Target.Enabled())
			c := collector.NewCoordinator(clientOf(b, tc.uris), s.Target.Enabled(), collector.Limits{})
			if s, _ := c.Scrape(b.Context()); !s.Up {
				b.Fatal(s.Err)
			}
			h := handlerFor(b, withURIs(tc.uris, slices.Concat(tc.flags, []string{"--scrape.reuse=0s", "--web.disable-exporter-metrics"})...)...)
			scrapePage(h, "10")

			var loops, scrapes, pages []time.Duration
			for b.Loop() {
				loops = append(loops, timed(func() { askAll(b, requests) }))
				scrapes = append(scrapes, timed(func() {
					if s, _ := c.Scrape(b.Context()); !s.Up {
						b.Fatal(s.Err)
					}
				}))
				pages = append(pages, timed(func() {
					h.ServeHTTP(discard{}, httptest.NewRequest(http.MethodGet, "/metrics", nil))
				}))
			}
			b.ReportMetric(0, "ns/op") // the total of all three means nothing
			b.ReportMetric(float64(len(requests)), "rpcs")
			b.ReportMetric(float64(median(loops).Microseconds()), "loop-µs")
			b.ReportMetric(float64(median(scrapes))/float64(median(loops)), "scrape/loop")
			b.ReportMetric(float64(median(pages))/float64(median(loops)), "page/loop")
		})
	}
}

// BenchmarkScrapeMemory measures the allocations of one default scrape, including the
// page.
func BenchmarkScrapeMemory(b *testing.B) {
	server := kamailiotest.Start(b, kamailiotest.Config{Traffic: true})
	for _, name := range []string{"HTTP", "the stock pair", "BINRPC"} {
		b.Run(name, func(b *testing.B) {
			h := handlerFor(b, withURIs(urisOf(server)[name], "--scrape.reuse=0s")...)
			scrapePage(h, "10")
			r := httptest.NewRequest(http.MethodGet, "/metrics", nil)
			r.Header.Set("Accept-Encoding", "gzip")
			b.ReportAllocs()
			for b.Loop() {
				h.ServeHTTP(discard{}, r)
			}
		})
	}
}

// discard is a client that discards the response.
type discard struct{}

func (discard) Header() http.Header         { return http.Header{} }
func (discard) Write(p []byte) (int, error) { return len(p), nil }
func (discard) WriteHeader(int)             {}

// recorded is a request and the transport that carried it.
type recorded struct {
	transport kamrpc.Transport
	text      []byte
}

type recordingTransport struct {
	kamrpc.Transport
	requests *[]recorded // not locked: MaxConcurrent is 1
}

func (r recordingTransport) RoundTrip(ctx context.Context, request []byte) (io.ReadCloser, error) {
	*r.requests = append(*r.requests, recorded{r.Transport, slices.Clone(request)})
	return r.Transport.RoundTrip(ctx, request)
}

// requestsOf returns what a scrape with these collectors sends. It is the second scrape:
// the first one also queries which methods exist.
func requestsOf(tb testing.TB, uris []string, collectors []collector.Collector) (requests []recorded) {
	tb.Helper()
	var recording []kamrpc.Transport
	for _, transport := range transportsOf(tb, uris) {
		recording = append(recording, recordingTransport{transport, &requests})
	}
	client, err := kamrpc.NewClient(kamrpc.Config{Transports: recording, MaxConcurrent: 1})
	if err != nil {
		tb.Fatal(err)
	}
	c := collector.NewCoordinator(client, collectors, collector.Limits{})
	for range 2 {
		requests = nil
		if s, _ := c.Scrape(tb.Context()); !s.Up {
			tb.Fatal(s.Err)
		}
	}
	return requests
}

func transportsOf(tb testing.TB, uris []string) (transports []kamrpc.Transport) {
	tb.Helper()
	for _, uri := range uris {
		transport, err := kamrpc.Open(uri, nil)
		if err != nil {
			tb.Fatal(err)
		}
		transports = append(transports, transport)
	}
	return transports
}

func clientOf(tb testing.TB, uris []string) *kamrpc.Client {
	tb.Helper()
	client, err := kamrpc.NewClient(kamrpc.Config{Transports: transportsOf(tb, uris)})
	if err != nil {
		tb.Fatal(err)
	}
	return client
}

// askAll is the bare loop: it sends the requests one after another.
func askAll(tb testing.TB, requests []recorded) {
	tb.Helper()
	for _, request := range requests {
		if err := ask(tb.Context(), request.transport, request.text); err != nil {
			tb.Fatal(err)
		}
	}
}

// ask reads up to the end of the reply. A datagram is a single read. Over BINRPC, it ends
// at the only line break, and the connection stays open.
func ask(ctx context.Context, transport kamrpc.Transport, request []byte) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	reply, err := transport.RoundTrip(ctx, request)
	if err != nil {
		return err
	}
	defer reply.Close()
	if strings.HasPrefix(transport.String(), "unix") {
		var buffer [256 << 10]byte
		n, err := reply.Read(buffer[:])
		if err == nil && n == 0 {
			err = fmt.Errorf("empty reply")
		}
		return err
	}
	if strings.HasPrefix(transport.String(), "binrpc") {
		var buffer [32 << 10]byte
		for n := 0; err == nil && (n == 0 || buffer[n-1] != '\n'); {
			n, err = reply.Read(buffer[:])
		}
		return err
	}
	_, err = io.Copy(io.Discard, reply)
	return err
}

func timed(f func()) time.Duration {
	began := time.Now()
	f()
	return time.Since(began)
}

func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}
