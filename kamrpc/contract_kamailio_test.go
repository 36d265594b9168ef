//go:build linux

package kamrpc_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc/kamrpctest/kamailiotest"
)

// realURIs are the URIs of this server, by scheme.
func realURIs(s *kamailiotest.Server) map[string]string {
	uris := map[string]string{}
	add := func(scheme, prefix, address, suffix string) {
		if address != "" {
			uris[scheme] = prefix + address + suffix
		}
	}
	add("http", "", s.HTTPURL, "")
	add("unix", "unix://", s.SocketPath, "")
	add("udp", "udp://", s.UDPAddr, "")
	add("tcp", "tcp://", s.TCPAddr, "")
	add("binrpc+unix", "binrpc+unix://", s.CtlPath, "")
	add("binrpc+tcp", "binrpc+tcp://", s.CtlAddr, "")
	add("fifo", "fifo://", s.FIFOPath, "?reply_dir="+s.FIFOReplyDir)
	return uris
}

// TestContractKamailio runs TestContract against a real Kamailio, with further tests that
// need a real one.
func TestContractKamailio(t *testing.T) {
	for _, version := range kamailiotest.AllVersions(t) {
		for name, cfg := range map[string]kamailiotest.Config{
			"full":  {Version: version},
			"udp":   {Version: version, UDP: true},
			"stock": {Version: version, Stock: true},
		} {
			t.Run(version+"/"+name, func(t *testing.T) {
				t.Parallel() // it mostly waits
				s := kamailiotest.Start(t, cfg)
				for scheme, uri := range realURIs(s) {
					t.Run(scheme, func(t *testing.T) {
						sub := subject{uri: uri, replyDir: s.FIFOReplyDir, unknown: unknownMethod(t, s, scheme)}
						for _, clause := range contract {
							t.Run(clause.name, func(t *testing.T) { clause.test(t, sub) })
						}
						t.Run("answers leave no trace in the log", func(t *testing.T) { leavesNoLog(t, s, uri) })
						t.Run("hung", func(t *testing.T) { hung(t, s, uri) })
						t.Run("restart", func(t *testing.T) { restarts(t, s, uri) })
					})
				}
			})
		}
	}
}

// unknownMethod returns a method that has a price but that this server does not have over
// this transport: over HTTP, kamailio.cfg answers some methods that it does not list.
func unknownMethod(t *testing.T, s *kamailiotest.Server, scheme string) string {
	t.Helper()
	var methods []string
	if err := json.Unmarshal(s.RPC(t, "system.listMethods"), &methods); err != nil {
		t.Fatal(err)
	}
	for _, p := range kamrpc.PriceList() {
		if p.Effect == kamrpc.Read && !slices.Contains(methods, p.Method) && (scheme != "http" || !strings.HasPrefix(p.Method, "drouting.")) {
			return p.Method
		}
	}
	return ""
}

func leavesNoLog(t *testing.T, s *kamailiotest.Server, uri string) {
	t.Helper()
	before := s.LogLines()
	for range 20 { // each client has its own connections, and closes them
		c := client(t, nil, uri)
		for _, call := range [][]any{{"core.version"}, {"stats.get_statistics", "all"}, {"system.listMethods"}, {"tm.stats"}} {
			if _, err := c.Call(within(t, patience), call[0].(string), call[1:]...); err != nil {
				t.Error(err)
			}
		}
	}
	if lines := s.Logged(); len(lines) > before {
		t.Errorf("kamailio logged:\n%s", strings.Join(lines[before:], ""))
	}
}

// hung stops the processes, as a deadlock would: calls fail in time, and succeed again once
// the processes continue.
func hung(t *testing.T, s *kamailiotest.Server, uri string) {
	t.Helper()
	c := client(t, nil, uri)
	s.Pause()
	for range 3 {
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		_, err := c.Call(ctx, "core.version")
		cancel()
		if !errors.Is(err, kamrpc.ErrNoAnswer) && !errors.Is(err, kamrpc.ErrUnreachable) {
			t.Errorf("paused: %v", err)
		}
	}
	s.Resume()
	settles(t, func() string { // the FIFO's process must first read the requests that are waiting
		if v, err := c.Call(within(t, patience), "core.version"); err != nil || v.Text() == "" {
			return fmt.Sprintf("resumed: %q, %v", v.Text(), err)
		}
		return ""
	})
	if left, _ := filepath.Glob(filepath.Join(s.FIFOReplyDir, "kamailio_exporter_*")); len(left) > 0 {
		t.Errorf("reply FIFOs are left: %q", left)
	}
}

func restarts(t *testing.T, s *kamailiotest.Server, uri string) {
	t.Helper()
	c := client(t, nil, uri)
	if _, err := c.Call(within(t, patience), "core.version"); err != nil {
		t.Fatal(err)
	}
	s.Stop()
	if _, err := c.Call(within(t, patience), "core.version"); !errors.Is(err, kamrpc.ErrUnreachable) {
		t.Errorf("stopped: %v", err)
	}
	s.Restart()
	if v, err := c.Call(within(t, patience), "core.version"); err != nil || v.Text() == "" {
		t.Errorf("restarted: %q, %v", v.Text(), err)
	}
}

// A dump of a few hundred contacts exceeds a datagram, so Kamailio drops it. The other
// transports carry it.
func TestLargeReplyKamailio(t *testing.T) {
	for _, version := range kamailiotest.AllVersions(t) {
		t.Run(version, func(t *testing.T) {
			s := kamailiotest.Start(t, kamailiotest.Config{Version: version})
			const contacts = 400
			for i := range contacts {
				s.RPC(t, "ul.add", "location", fmt.Sprintf("user%d@example.com", i), fmt.Sprintf("sip:user%d@192.0.2.1:5060;x=%s", i, strings.Repeat("x", 100)),
					3600, 1.0, "", 0, 0, 5951)
			}
			uris := realURIs(s)
			for scheme, uri := range uris {
				t.Run(scheme, func(t *testing.T) {
					var seen kamrpc.Observation
					c := client(t, func(cfg *kamrpc.Config) { cfg.Observe = func(o kamrpc.Observation) { seen = o } }, uri)
					deadline := patience
					if scheme == "unix" {
						deadline = time.Second
					} else if strings.HasPrefix(scheme, "binrpc") {
						deadline = patience / 5
					}
					v, err := c.Call(within(t, deadline), "ul.dump")
					// ctl gives up if a client does not read for 10 ms; the machine may be busy.
					for tries := 1; tries < 5 && err != nil && strings.HasPrefix(scheme, "binrpc"); tries++ {
						v, err = c.Call(within(t, deadline), "ul.dump")
					}
					if scheme == "unix" {
						if !errors.Is(err, kamrpc.ErrNoAnswer) || !strings.Contains(err.Error(), "in that case add the FIFO or HTTP as another URI") {
							t.Errorf("got %v", err)
						}
						return
					}
					n := 0
					for range v.All("Domains/Domain/AoRs/Info/Contacts/Contact") {
						n++
					}
					if err != nil || n < contacts { // the configuration may contain further contacts
						t.Errorf("%d contacts, %v", n, err)
					}
					if seen.Bytes <= 131_040 {
						t.Errorf("%d bytes: too little to be a test", seen.Bytes)
					}
				})
			}
			t.Run("unix, then fifo", func(t *testing.T) {
				v, err := client(t, nil, uris["unix"], uris["fifo"]).Call(within(t, patience), "ul.dump")
				if err != nil || !v.Exists() {
					t.Errorf("a reply that may grow: %v", err)
				}
			})
			if log := s.Log(); !strings.Contains(log, "failed to send the response") {
				t.Error("kamailio did not drop any reply: is this still so?")
			} else {
				_, line, _ := strings.Cut(log, "failed to send the response")
				line, _, _ = strings.Cut(line, "\n")
				t.Log("kamailio:", line)
			}
		})
	}
}

// If root starts Kamailio and it runs as another user, it is not in the group of its FIFO,
// which is root.
func TestFIFOOfAKamailioThatDropsRoot(t *testing.T) {
	for _, version := range kamailiotest.AllVersions(t) {
		t.Run(version, func(t *testing.T) {
			s := kamailiotest.Start(t, kamailiotest.Config{Version: version, Stock: true, Edit: func(config string) string {
				return "user=\"nobody\"\ngroup=\"nogroup\"\n" + config
			}})
			transport, err := kamrpc.Open("fifo://"+s.FIFOPath+"?reply_dir="+s.FIFOReplyDir, nil)
			if err != nil {
				t.Fatal(err)
			}
			c, err := kamrpc.NewClient(kamrpc.Config{Transports: []kamrpc.Transport{transport}})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			if v, err := c.Call(ctx, "core.version"); err != nil || !strings.Contains(v.Text(), version) {
				t.Errorf("%q, %v", v.Text(), err)
			}
		})
	}
}
