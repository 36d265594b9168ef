//go:build linux

package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/kamailio-exporter/kamailio_exporter/kamrpc/kamrpctest/kamailiotest"
)

// Ways to reach the same Kamailio, as operators have them.
func ways(s *kamailiotest.Server) map[string][]string {
	pair := []string{"unix://" + s.SocketPath, "fifo://" + s.FIFOPath + "?reply_dir=" + s.FIFOReplyDir}
	all := map[string][]string{"the stock pair": pair, "BINRPC": {"binrpc+unix://" + s.CtlPath}}
	if s.HTTPURL != "" {
		all["HTTP"] = []string{s.HTTPURL}
		all["the stock pair and HTTP"] = append(pair, s.HTTPURL)
	}
	if s.TCPAddr != "" {
		all["TCP"] = []string{"tcp://" + s.TCPAddr}
	}
	return all
}

func uriFlags(uris []string) []string {
	var flags []string
	for _, u := range uris {
		flags = append(flags, "--kamailio.uri="+u)
	}
	// Every scrape makes all calls.
	return append(flags, "--scrape.reuse=0s", "--scrape.growing-interval=0s")
}

// value is a sample's value on the page; "" when it is not there.
func value(page, sample string) string {
	for line := range strings.Lines(page) {
		if v, ok := strings.CutPrefix(line, sample+" "); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

var (
	ownSeries = regexp.MustCompile(`(?m)^kamailio_[^#]`)
	failed    = regexp.MustCompile(`(?m)^kamailio_scrape_collector_success\{collector="([a-z_]+)"\} 0$`)
	absent    = regexp.MustCompile(`(?m)^kamailio_scrape_collector_supported\{collector="([a-z_]+)"\} 0$`)
)

func names(found [][]string) string {
	var out []string
	for _, f := range found {
		out = append(out, f[1])
	}
	return strings.Join(out, " ")
}

// TestFullKamailio scrapes a server with all modules and some traffic.
func TestFullKamailio(t *testing.T) {
	for _, version := range kamailiotest.Versions(t) {
		t.Run(version, func(t *testing.T) {
			server := kamailiotest.Start(t, kamailiotest.Config{Version: version, Traffic: true})
			for name, uris := range ways(server) {
				t.Run(name, func(t *testing.T) { scrapeFull(t, server, uris) })
			}
		})
	}
}

func scrapeFull(t *testing.T, server *kamailiotest.Server, uris []string) {
	h := handlerFor(t, append(uriFlags(uris), "--collector.dialog_profile.names=inbound")...)
	code, page := scrapePage(h, "10")
	if code != 200 || value(page, "kamailio_up") != "1" {
		t.Fatalf("status %d\n%.500s", code, page)
	}
	if n := len(ownSeries.FindAllString(page, -1)); n < 300 {
		t.Errorf("%d series, want at least 300", n)
	}
	checkMetrics(t, page)
	if f := failed.FindAllStringSubmatch(page, -1); f != nil {
		t.Errorf("collectors that failed: %s", names(f))
	}
	// The demo has no Kafka, and tls counts nothing before Kamailio 6. Only HTTP
	// leads through the script that serves drouting.gw_status.
	missing := "kafka"
	if strings.HasPrefix(server.Version, "5") {
		missing += " tls"
	}
	if slices.Contains(uris, server.HTTPURL) {
		checkGateways(t, page)
	} else {
		missing = "drouting " + missing
	}
	if got := names(absent.FindAllStringSubmatch(page, -1)); got != missing {
		t.Errorf("collectors not supported: %q, want %q", got, missing)
	}
	checkAgainstServer(t, server, page)

	lines := server.LogLines()
	for range 100 {
		if code, page := scrapePage(h, "10"); code != 200 || value(page, "kamailio_up") != "1" {
			t.Fatalf("status %d\n%.500s", code, page)
		}
	}
	if server.LogLines() != lines {
		t.Errorf("100 scrapes added to Kamailio's log:\n%s", lastLines(server.Log(), server.LogLines()-lines))
	}
}

// More statistics than ctl can send at once are asked for in parts; more of one
// group than it can send are a failure of that group only. Both cost Kamailio's log
// something once.
func TestManyStatisticsOverBINRPC(t *testing.T) {
	for _, version := range kamailiotest.Versions(t) {
		for _, test := range []struct {
			name             string
			groups, counters int
			success          string
			lost             int // collectors
		}{
			{"many groups", 20, 100, "1", 0},
			{"one group", 1, 2000, "0", 1},
		} {
			t.Run(version+"/"+test.name, func(t *testing.T) {
				var extra strings.Builder
				for g := range test.groups {
					for c := range test.counters {
						fmt.Fprintf(&extra, "modparam(\"counters\", \"script_counter\", \"group%d.a_counter_of_the_script_%d\")\n", g, c)
					}
				}
				server := kamailiotest.Start(t, kamailiotest.Config{Version: version, Extra: extra.String()})
				h := handlerFor(t, uriFlags([]string{"binrpc+unix://" + server.CtlPath})...)
				_, page := scrapePage(h, "10")
				lines := server.LogLines()
				for range 3 {
					if got := value(page, `kamailio_scrape_collector_success{collector="statistics"}`); got != test.success {
						t.Errorf("success %q, want %s", got, test.success)
					}
					if n := strings.Count(page, "kamailio_statistic{group=\"group"); test.success == "1" && n != test.groups*test.counters || test.success == "0" && n > 0 {
						t.Errorf("%d statistics", n)
					}
					if f := names(failed.FindAllStringSubmatch(page, -1)); value(page, "kamailio_up") != "1" || f != strings.Repeat("statistics", test.lost) {
						t.Errorf("up %s; failed: %s", value(page, "kamailio_up"), f)
					}
					_, page = scrapePage(h, "10")
				}
				if server.LogLines() != lines {
					t.Errorf("later scrapes added to Kamailio's log:\n%s", lastLines(server.Log(), server.LogLines()-lines))
				}
				_, over := scrapePage(handlerFor(t, uriFlags([]string{server.HTTPURL})...), "10")
				if a, b := strings.Count(page, "\nkamailio_statistic{"), strings.Count(over, "\nkamailio_statistic{"); test.success == "1" && a != b {
					t.Errorf("%d statistics, over HTTP %d", a, b)
				}
			})
		}
	}
}

// The gateways that the demo's calls found dead, seen by the include.
func checkGateways(t *testing.T, page string) {
	t.Helper()
	if value(page, `kamailio_drouting_gateway_up{address="127.0.0.1:`+gatewayPort(page, "1")+`",gateway="1"}`) != "1" {
		t.Error("gateway 1, which answers, is not up")
	}
	down := 0
	for _, id := range []string{"1", "2", "3", "4", "5"} {
		if value(page, `kamailio_drouting_gateway_up{address="127.0.0.1:`+gatewayPort(page, id)+`",gateway="`+id+`"}`) == "0" {
			down++
		}
	}
	if down == 0 {
		t.Error("no gateway is marked as down, and one does not answer")
	}
}

func gatewayPort(page, id string) string {
	found := regexp.MustCompile(`kamailio_drouting_gateway_up\{address="127\.0\.0\.1:([0-9]+)",gateway="` + id + `"\}`).FindStringSubmatch(page)
	if found == nil {
		return ""
	}
	return found[1]
}

// checkAgainstServer asks Kamailio itself, by another client, what the page says.
func checkAgainstServer(t *testing.T, server *kamailiotest.Server, page string) {
	t.Helper()
	uptime := string(server.RPC(t, "core.version"))
	if version := regexp.MustCompile(`kamailio_build_info\{.*version="([0-9.]+)"`).FindStringSubmatch(page); version == nil || !strings.Contains(uptime, version[1]) {
		t.Errorf("the version is %s, the page says %v", uptime, version)
	}
	for sample, field := range map[string]*regexp.Regexp{
		`kamailio_dialog_dialogs{state="ongoing"}`: regexp.MustCompile(`"ongoing":\s*([0-9]+)`),
	} {
		want := field.FindStringSubmatch(string(server.RPC(t, "dlg.stats_active")))
		if want == nil || value(page, sample) != want[1] || want[1] == "0" {
			t.Errorf("%s is %s, Kamailio says %v", sample, value(page, sample), want)
		}
	}
	users := regexp.MustCompile(`usrloc:location_users = ([0-9]+)`).FindStringSubmatch(string(server.RPC(t, "stats.get_statistics", "all")))
	if users == nil || value(page, `kamailio_usrloc_users{domain="location"}`) != users[1] || users[1] == "0" {
		t.Errorf("users: %s, Kamailio says %v", value(page, `kamailio_usrloc_users{domain="location"}`), users)
	}
	if !strings.Contains(page, "\nkamailio_dispatcher_destination_up{") || !strings.Contains(page, `index="1"`) {
		t.Error("the demo has a URI twice in one set, the page has not")
	}
}

func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// TestStockKamailio scrapes Debian's own configuration: by the sockets that it
// opens without any change, and over the HTTP that its define WITH_JSONRPC adds,
// where every connection is closed after its reply.
func TestStockKamailio(t *testing.T) {
	for _, version := range kamailiotest.Versions(t) {
		t.Run(version, func(t *testing.T) {
			server := kamailiotest.Start(t, kamailiotest.Config{Version: version, StockHTTP: true})
			for name, uris := range ways(server) {
				t.Run(name, func(t *testing.T) { scrapeStock(t, server, uris) })
			}
		})
	}
}

func scrapeStock(t *testing.T, server *kamailiotest.Server, uris []string) {
	h := handlerFor(t, uriFlags(uris)...)
	lines := server.LogLines()
	for i := range 100 {
		_, page := scrapePage(h, "10")
		if value(page, "kamailio_up") != "1" || failed.MatchString(page) || value(page, "kamailio_tm_transactions_total") == "" {
			t.Fatalf("scrape %d: failed: %s\n%.500s", i, names(failed.FindAllStringSubmatch(page, -1)), page)
		}
		if i == 0 {
			checkMetrics(t, page)
		}
	}
	if server.LogLines() != lines {
		t.Errorf("100 scrapes added to Kamailio's log:\n%s", lastLines(server.Log(), server.LogLines()-lines))
	}
}

// TestRealTroubles hangs, stops and restarts a server, and goes on scraping.
func TestRealTroubles(t *testing.T) {
	for _, version := range kamailiotest.Versions(t) {
		t.Run(version, func(t *testing.T) {
			server := kamailiotest.Start(t, kamailiotest.Config{Version: version})
			var handlers []func(want, when string)
			for name, uris := range ways(server) {
				h := handlerFor(t, uriFlags(uris)...)
				handlers = append(handlers, func(want, when string) {
					t.Helper()
					if code, page := scrapePage(h, "2"); code != 200 || value(page, "kamailio_up") != want {
						t.Errorf("%s over %s: status %d, kamailio_up %s, want %s", when, name, code, value(page, "kamailio_up"), want)
					}
				})
			}
			all := func(want, when string) {
				t.Helper()
				var w sync.WaitGroup
				for _, h := range handlers {
					w.Go(func() { h(want, when) })
				}
				w.Wait()
			}
			all("1", "at first")
			server.Pause()
			all("0", "hung")
			server.Resume()
			all("1", "resumed")
			server.Stop()
			all("0", "stopped")
			server.Restart()
			all("1", "restarted")
			server.Kill()
			all("0", "killed")
			server.Restart()
			all("1", "restarted again")
		})
	}
}

// TestFiftyScrapersOfARealKamailio counts the requests that reach it: those of
// fifty scrapes at once are no more than those of one.
func TestFiftyScrapersOfARealKamailio(t *testing.T) {
	server := kamailiotest.Start(t, kamailiotest.Config{})
	// Longer than the default, for the race detector's sake.
	h := handlerFor(t, "--kamailio.uri="+server.HTTPURL, "--scrape.reuse=2s")
	get := func(query string) string {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics"+query, nil))
		return w.Body.String()
	}
	first := rpcs(get(""))
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() { get("?exclude[]=kafka") })
	}
	all.Wait()
	if fifty := rpcs(get("")) - first; fifty == 0 || fifty > first {
		t.Errorf("50 scrapes at once made %v RPCs, one made %v", fifty, first)
	}
}

// rpcs sums the requests that the page says were sent.
func rpcs(page string) (n float64) {
	for _, found := range regexp.MustCompile(`(?m)^kamailio_exporter_rpc_requests_total\{.*\} ([0-9]+)$`).FindAllStringSubmatch(page, -1) {
		v, _ := strconv.ParseFloat(found[1], 64)
		n += v
	}
	return n
}
