package collector_test

import (
	"context"
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/kamailio-exporter/kamailio_exporter/collector"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc/kamrpctest"
)

const dumpedContact = `{"Info":{"AoR":"b0@example.com","HashID":1205383198,"Contacts":[{"Contact":{"Address":"sip:b0@198.51.100.1:5060;line=x0","Expires":3574,"Q":0.500000,"Call-ID":"755515341563170@h","CSeq":1,"User-Agent":"Linphone/4.5.15 (belle-sip/5.0.55)","Received":"[not set]","Path":"[not set]","State":"CS_NEW","Flags":0,"CFlags":0,"Socket":"udp:127.0.0.1:5160","Methods":4294967295,"Ruid":"uloc-7-6b03bb53-526e-d8","Instance":"[not set]","Reg-Id":0,"Server-Id":7,"Tcpconn-Id":-1,"Keepalive":0,"Last-Keepalive":1795406679,"KA-Roundtrip":0,"Last-Modified":1795406679}}]}}`

// replay answers ul.dump with this number of contacts; if it is negative, the reply never
// ends. It returns the number of bytes of the last reply.
func replay(server *kamrpctest.Server, contacts int) *int64 {
	size := new(int64)
	thousand := strings.Repeat(","+dumpedContact, 1000)
	server.Handle("stats.get_statistics", `["usrloc:location_contacts = 5"]`)
	server.HandleFunc("ul.dump", func(kamrpctest.Request) kamrpctest.Response {
		return kamrpctest.Response{Stream: func(w io.Writer) error {
			*size = 0
			write := func(s string) error {
				n, err := io.WriteString(w, s)
				*size += int64(n)
				return err
			}
			err := write(`{"Domains":[{"Domain":{"Domain":"location","Size":1024,"AoRs":[` + dumpedContact)
			for i := 1; err == nil && i != contacts; {
				if contacts < 0 || contacts-i >= 1000 {
					err = write(thousand)
					i += 1000
				} else {
					err = write("," + dumpedContact)
					i++
				}
			}
			if err == nil {
				err = write(`],"Stats":{"Records":1,"Max-Slots":1}}}]}`)
			}
			return err
		}}
	})
	return size
}

func dumpingCoordinator(tb testing.TB, server *kamrpctest.Server, scheme string) *collector.Coordinator {
	tb.Helper()
	transport, err := kamrpc.Open(server.URI(scheme), nil)
	if err != nil {
		tb.Fatal(err)
	}
	c, err := kamrpc.NewClient(kamrpc.Config{Transports: []kamrpc.Transport{transport}})
	if err != nil {
		tb.Fatal(err)
	}
	return collector.NewCoordinator(c, collector.All(collector.Options{DumpContacts: 1000}), collector.Limits{CallTimeout: time.Minute})
}

// peakHeap calls f and returns the largest heap in use meanwhile, by sampling.
func peakHeap(f func()) uint64 {
	done := make(chan struct{})
	peak := make(chan uint64)
	go func() {
		var most uint64
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			most = max(most, m.HeapInuse)
			select {
			case <-done:
				peak <- most
				return
			case <-tick.C:
			}
		}
	}()
	f()
	close(done)
	return <-peak
}

// TestManyContactsAreCountedInLittleMemory replays a dump many times larger than the memory
// that it may use: the limit of contacts protects Kamailio, and the exporter must not
// depend on it.
func TestManyContactsAreCountedInLittleMemory(t *testing.T) {
	const contacts = 100_000
	for _, scheme := range []string{"http", "fifo", "tcp"} {
		server := bare(t)
		size := replay(server, contacts)
		c := dumpingCoordinator(t, server, scheme)
		var page string
		peak := peakHeap(func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			s, err := c.Scrape(ctx, "usrloc_contacts")
			if err != nil || s.Results[0].Err != nil {
				t.Fatal(err, s.Results[0].Err)
			}
			page = samples(t, s)
		})
		if !strings.Contains(page, `user_agent="Linphone"} 100000`) {
			t.Errorf("%s: %s", scheme, page)
		}
		if peak > 32<<20 {
			t.Errorf("%s: %d MiB of heap for a reply of %d MiB", scheme, peak>>20, *size>>20)
		}
	}
}

// A dump that is truncated or never ends is a failure, and is not counted.
func TestTruncatedDumpIsNotCounted(t *testing.T) {
	for _, scheme := range []string{"http", "fifo", "tcp"} {
		for name, prepare := range map[string]func(*kamrpctest.Server){
			"cut": func(s *kamrpctest.Server) {
				replay(s, 3000)
				s.Misbehave(kamrpctest.Truncate, "ul.dump")
			},
			"endless": func(s *kamrpctest.Server) { replay(s, -1) },
		} {
			server := bare(t)
			prepare(server)
			ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
			s, err := dumpingCoordinator(t, server, scheme).Scrape(ctx, "usrloc_contacts")
			cancel()
			if err != nil || !s.Up {
				t.Fatal(err, s.Err)
			}
			r := s.Results[0]
			if r.Err == nil || len(r.Samples) > 0 {
				t.Errorf("%s over %s: %d samples, %v", name, scheme, len(r.Samples), r.Err)
			}
			if name == "cut" && !errors.Is(r.Err, kamrpc.ErrBadReply) {
				t.Errorf("%s over %s: %v", name, scheme, r.Err)
			}
		}
	}
}

// BenchmarkMillionContacts counts a replayed dump of a million contacts by transport, user
// agent, state, and lifetime. The result includes the work of the fake.
func BenchmarkMillionContacts(b *testing.B) {
	server := bare(b)
	size := replay(server, 1_000_000)
	var peak uint64
	for b.Loop() {
		peak = max(peak, peakHeap(func() {
			s, err := dumpingCoordinator(b, server, "tcp").Scrape(context.Background(), "usrloc_contacts")
			if err != nil || s.Results[0].Err != nil {
				b.Fatal(err, s.Results[0].Err)
			}
		}))
	}
	b.SetBytes(*size)
	b.ReportMetric(float64(peak)/(1<<20), "peak-MiB")
}
