//go:build linux

package doctor

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/kamailio-exporter/kamailio_exporter/kamrpc/kamrpctest/kamailiotest"
)

// three starts Kamailio servers with separate run directories: Debian's, one without
// jsonrpcs, and one that serves RPC over HTTP only.
func three(t *testing.T, version string) (stock, noJSONRPC, httpOnly *kamailiotest.Server) {
	t.Helper()
	without := func(words string) func(string) string {
		return func(config string) string {
			return regexp.MustCompile(`(?m)^.*(`+words+`).*$`).ReplaceAllString(config, "")
		}
	}
	stock = kamailiotest.Start(t, kamailiotest.Config{Version: version, Stock: true})
	noJSONRPC = kamailiotest.Start(t, kamailiotest.Config{Version: version, Edit: without("jsonrpc")})
	httpOnly = kamailiotest.Start(t, kamailiotest.Config{Version: version, StockHTTP: true, Edit: func(config string) string {
		return without(`loadmodule "ctl.so"`)(strings.Replace(config, `"transport", 7)`, `"transport", 1)`, 1))
	}})
	return stock, noJSONRPC, httpOnly
}

// says returns the texts of all findings, and the flags of their fixes.
func says(r *Report) string {
	var b strings.Builder
	for _, f := range r.Findings {
		fmt.Fprintln(&b, f.Check, f.Text)
		for _, fix := range f.Fixes {
			fmt.Fprintln(&b, " ", strings.Join(fix.Lines, " "))
		}
	}
	return b.String()
}

// TestThreeInstances checks that on a host with three Kamailio servers, each is named by
// its process, and that the URIs of each are proposed together.
func TestThreeInstances(t *testing.T) {
	eachVersion(t, func(t *testing.T, version string) {
		stock, noJSONRPC, httpOnly := three(t, version)
		all := []*kamailiotest.Server{stock, noJSONRPC, httpOnly}
		with := func(uris ...string) Config {
			cfg := config(t, uris...)
			for _, s := range all {
				see(t, &cfg, s)
			}
			cfg.Search = true
			return cfg
		}
		pid := func(s *kamailiotest.Server) string { return fmt.Sprintf("pid %d", s.PID()) }
		unix, fifo, ctl := "unix://"+stock.SocketPath, "fifo://"+stock.FIFOPath, "binrpc+unix://"+noJSONRPC.CtlPath

		t.Run("no flag", func(t *testing.T) {
			r := examined(t, with("unix:///nosuch/kamailio_rpc.sock", "fifo:///nosuch/kamailio_rpc.fifo"))
			outcome(t, r, Broken)
			for _, s := range all {
				has(t, r, "processes", OK, "a Kamailio server runs on this host as user root ("+pid(s)+")")
			}
			has(t, r, "found", Note, pid(stock)+" with ", "flag: --kamailio.uri="+unix, "flag: --kamailio.uri="+fifo)
			has(t, r, "found", Note, pid(noJSONRPC)+" with ", "flag: --kamailio.uri="+ctl)
			has(t, r, "found", Note, pid(httpOnly)+" with ", "flag: --kamailio.uri=http://HOST:PORT/RPC")
			for _, f := range findings(r, "found") {
				for _, fix := range f.Fixes {
					both := strings.Join(fix.Lines, " ")
					if strings.Contains(both, stock.Dir) && strings.Contains(both, noJSONRPC.Dir) {
						t.Errorf("two servers are proposed as one: %s", both)
					}
				}
			}
			if text := says(r); strings.Contains(text, " Kamailio runs on this host") || strings.Contains(text, "its clock") || r.Version != "" {
				t.Errorf("somebody is described as it: %s", text)
			}
			goldenOf(t, "three-instances-"+version, r, all...)
		})
		t.Run("two at once", func(t *testing.T) {
			r := examined(t, with(unix, ctl))
			outcome(t, r, Broken)
			has(t, r, "instances", Fail, ctl+" leads to another Kamailio ("+pid(noJSONRPC)+" with ", "flag: --kamailio.uri="+unix, "flag: --kamailio.uri="+fifo)
			has(t, r, "instances", Fail, "than "+unix+" ("+pid(stock)+" with ")
			has(t, r, "processes", OK, "Kamailio runs on this host as user root ("+pid(stock)+")")
			has(t, r, "processes", Note, "no configured URI leads to them: ")
			if i := slices.IndexFunc(r.Collectors, func(c Collector) bool { return c.State == "fails" }); i >= 0 {
				t.Errorf("%+v", r.Collectors[i])
			}
		})
		t.Run("the target over HTTP", func(t *testing.T) {
			r := examined(t, with(httpOnly.HTTPURL))
			outcome(t, r, Healthy)
			has(t, r, "processes", OK, "Kamailio runs on this host as user root ("+pid(httpOnly)+")")
			has(t, r, "found", Note, "another Kamailio ("+pid(stock)+" with ")
			has(t, r, "found", Note, "another Kamailio ("+pid(noJSONRPC)+" with ")
			if text := says(r); strings.Contains(text, "--kamailio.uri="+unix) || strings.Contains(text, "--kamailio.uri="+fifo) || strings.Contains(text, "--kamailio.uri="+ctl) {
				t.Errorf("a URI of another server is proposed: %s", text)
			}
		})
		t.Run("the target without jsonrpcs", func(t *testing.T) {
			r := examined(t, with(ctl))
			outcome(t, r, Healthy)
			has(t, r, "processes", OK, "Kamailio runs on this host as user root ("+pid(noJSONRPC)+")")
		})
		t.Run("one target does not answer", func(t *testing.T) {
			r := examined(t, with("http://127.0.0.1:1/RPC"))
			outcome(t, r, Broken)
			if text := says(r); strings.Contains(text, " Kamailio runs on this host") || strings.Contains(text, "its clock") || strings.Contains(text, "is not loaded") || r.Version != "" {
				t.Errorf("somebody else is described as it: %s", text)
			}
		})
	})
}

// TestRowsOverBINRPC checks that the report names what JSON-RPC loses, and the URI that
// has it.
func TestRowsOverBINRPC(t *testing.T) {
	eachVersion(t, func(t *testing.T, version string) {
		s := kamailiotest.Start(t, kamailiotest.Config{Version: version})
		cfg := config(t, s.HTTPURL)
		see(t, &cfg, s)
		cfg.Search = true
		r := examined(t, cfg)
		lost := "all destinations but the last (keepalive)"
		if version == "5.4" { // where the list of keepalive is not read
			lost = "omits all pipes but the last (ratelimit)"
		}
		has(t, r, "rows", Note, lost, "flag: --kamailio.uri="+s.HTTPURL, "flag: --kamailio.uri=binrpc+unix://"+s.CtlPath)

		cfg.URIs = append(cfg.URIs, "binrpc+unix://"+s.CtlPath) // as the report proposes
		r = examined(t, cfg)
		outcome(t, r, Healthy)
		if found := findings(r, "rows"); len(found) != 0 {
			t.Errorf("%+v", found)
		}
	})
}
