//go:build linux

package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/kamailio-exporter/kamailio_exporter/kamrpc/kamrpctest/kamailiotest"
)

// urisOf lists combinations of URIs of one Kamailio, as operators configure them.
func urisOf(s *kamailiotest.Server) map[string][]string {
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

// uriFlags is for scrapes that make all calls each time.
func uriFlags(uris []string) []string {
	return withURIs(uris, "--scrape.reuse=0s", "--scrape.growing-interval=0s")
}

// withURIs adds the URIs of a Kamailio to flags.
func withURIs(uris []string, flags ...string) []string {
	for _, uri := range uris {
		flags = append(flags, "--kamailio.uri="+uri)
	}
	return flags
}

// value returns the value of a sample on the page; "" if the page does not have it.
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
	for _, version := range kamailiotest.AllVersions(t) {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			server := kamailiotest.Start(t, kamailiotest.Config{Version: version, Traffic: true})
			for name, uris := range urisOf(server) {
				t.Run(name, func(t *testing.T) { scrapeFull(t, server, uris) })
			}
		})
	}
}

// TestOtherModules scrapes a server with the modules that the demo lacks. All statistics of
// Kamailio's modules have metrics of their own, and therefore types.
func TestOtherModules(t *testing.T) {
	for _, version := range kamailiotest.AllVersions(t) {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			server := kamailiotest.Start(t, kamailiotest.Config{Version: version, RTPProxy: true, Extra: readText(t, filepath.Join(top, "collector", "testdata", "others.cfg"))})
			for name, uris := range urisOf(server) {
				_, page := scrapePage(handlerFor(t, uriFlags(uris)...), "10")
				checkMetrics(t, page)
				for module := range strings.FieldsSeq("db_mysql http_client nat_traversal rtpproxy sca siptrace tsilo") {
					if value(page, fmt.Sprintf("kamailio_scrape_collector_success{collector=%q}", module)) != "1" {
						t.Errorf("%s: no success of %s", name, module)
					}
				}
				if errs, _ := strconv.Atoi(value(page, "kamailio_db_mysql_driver_errors_total")); errs == 0 {
					t.Errorf("%s: no errors of a MySQL that is not there", name)
				}
				for metric, want := range map[string]string{`kamailio_sca_subscriptions{event="call-info"}`: "0", `kamailio_sca_subscriptions{event="line-seize"}`: "0", "kamailio_http_client_connections_defined": "1"} {
					if got := value(page, metric); got != want {
						t.Errorf("%s: %s is %q, want %s", name, metric, got, want)
					}
				}
				untyped := regexp.MustCompile(`(?m)^kamailio_statistic\{group="(.*?)".*$`).FindAllStringSubmatch(page, -1)
				for _, m := range untyped {
					if m[1] != "script" {
						t.Errorf("%s: without a type: %s", name, m[0])
					}
				}
				if len(untyped) == 0 {
					t.Errorf("%s: no statistics of the script", name)
				}
			}
		})
	}
}

// TestPromotedStatisticsOfARealKamailio promotes the demo's statistics, unusual names
// included, and compares them with those of an exporter without promotions.
func TestPromotedStatisticsOfARealKamailio(t *testing.T) {
	for _, version := range kamailiotest.Versions(t) {
		t.Run(version, func(t *testing.T) {
			server := kamailiotest.Start(t, kamailiotest.Config{Version: version, Traffic: true})
			for name, uris := range urisOf(server) {
				t.Run(name, func(t *testing.T) { scrapePromoted(t, uriFlags(uris)) })
			}
		})
	}
}

func scrapePromoted(t *testing.T, flags []string) {
	_, plain := scrapePage(handlerFor(t, flags...), "10")
	_, page := scrapePage(handlerFor(t, append(flags,
		"--collector.statistics.types="+fleetFile(t, "# Of the demo's script.\n\ncounter script:demo_calls=Calls that the script routed.\ngauge script:demo_balance=Goes down with every call.\n"),
		"--collector.statistics.counter=script:with space=A name with a space.",
		`--collector.statistics.counter=script:quo"te=A name with a quote.`,
		`--collector.statistics.counter=script:brace{a\=1}=A name with braces and an equals sign.`,
		`--collector.statistics.counter=script:umlaut_\xc3\xbc=A name with a letter that is not ASCII.`,
		"--collector.statistics.counter=script:Foo=Not foo.",
		"--collector.statistics.counter=script:nosuch=Never there.")...), "10")
	for metric, statistic := range map[string]string{
		"kamailio_script_demo_calls_total": "demo_calls",
		"kamailio_script_demo_balance":     "demo_balance",
		"kamailio_script_with_space_total": "with space",
		"kamailio_script_quo_te_total":     `quo\"te`,
		"kamailio_script_brace_a_1_total":  "brace{a=1}",
		"kamailio_script_umlaut_total":     "umlaut_ü",
		"kamailio_script_foo_total":        "Foo",
	} {
		untyped := `kamailio_statistic{group="script",name="` + statistic + `"}`
		if want := value(plain, untyped); want == "" || want == "0" || value(page, metric) != want {
			t.Errorf("%s is %q, %s was %q", metric, value(page, metric), untyped, want)
		}
		if value(page, untyped) != "" {
			t.Errorf("%s is still there", untyped)
		}
	}
	if value(page, `kamailio_statistic{group="script",name="foo"}`) == "" || strings.Contains(page, "nosuch") {
		t.Error("foo is gone, or what the server lacks is there")
	}
	checkMetrics(t, page)
}

// scriptMetrics have the metric types that the demo's script does not use.
const scriptMetrics = `
modparam("xhttp_prom", "prom_gauge", "name=test_waiting; label=queue;")
modparam("xhttp_prom", "prom_histogram", "name=test_wait_seconds; label=queue; buckets=0.5:2;")
event_route[core:worker-one-init] {
	prom_gauge_set("test_waiting", "-2.5", "a");
	prom_histogram_observe("test_wait_seconds", "0.25", "a");
	prom_histogram_observe("test_wait_seconds", "1", "a");
	prom_histogram_observe("test_wait_seconds", "8", "a");
}
`

// TestMergedPageOfARealKamailio merges the metrics of the demo's script from xhttp_prom,
// without the statistics on the same page.
func TestMergedPageOfARealKamailio(t *testing.T) {
	for _, version := range kamailiotest.Versions(t) {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			server := kamailiotest.Start(t, kamailiotest.Config{Version: version, Traffic: true, Extra: scriptMetrics})
			url := strings.TrimSuffix(server.HTTPURL, "/RPC") + "/metrics"
			flags := append(uriFlags([]string{server.HTTPURL}), "--xhttp_prom.url="+url)
			h := handlerFor(t, flags...)
			_, page := scrapePage(h, "10")
			text := body(t, url)
			theirs := regexp.MustCompile(`(?m)^(kamailio_demo_calls\{.*\}) ([0-9]+) [0-9]+$`).FindAllStringSubmatch(text, -1)
			if len(theirs) == 0 || !strings.Contains(text, "kamailio_core_rcv_requests") {
				t.Fatalf("the demo's page has no calls, or no statistics:\n%.600s", text)
			}
			for _, sample := range theirs {
				if value(page, sample[1]) != sample[2] || sample[2] == "0" {
					t.Errorf("%s is %q, Kamailio says %s", sample[1], value(page, sample[1]), sample[2])
				}
			}
			for sample, want := range map[string]string{
				`kamailio_test_waiting{queue="a"}`:                           "-2.5",
				`kamailio_test_wait_seconds_bucket{le="0.500000",queue="a"}`: "1",
				`kamailio_test_wait_seconds_bucket{le="2.000000",queue="a"}`: "2",
				`kamailio_test_wait_seconds_bucket{le="+Inf",queue="a"}`:     "3",
				`kamailio_test_wait_seconds_sum{queue="a"}`:                  "9.25",
				`kamailio_test_wait_seconds_count{queue="a"}`:                "3",
			} {
				if got := value(page, sample); got != want {
					t.Errorf("%s is %q, want %s; Kamailio says\n%s", sample, got, want, regexp.MustCompile(`(?m)^.*test_.*$`).FindAllString(text, -1))
				}
			}
			if got := foreign(page); strings.Count(got, "kamailio_demo_calls{") != len(theirs) || !strings.HasSuffix(got, dropped(0, 0, 0, 0)) {
				t.Errorf("got\n%s", got)
			}
			if strings.Contains(page, "kamailio_core_rcv_requests") || strings.Contains(page, "kamailio_script_") {
				t.Error("Kamailio's own statistics are merged too")
			}
			checkMetrics(t, regexp.MustCompile(`(?m)^.*kamailio_(demo|gateway|test)_.*\n`).ReplaceAllString(page, "")) // script metrics have no help text
			wholePage(t, page)

			lines := server.LogLines()
			for range 100 {
				if _, page := scrapePage(h, "10"); value(page, "kamailio_xhttp_prom_up") != "1" {
					t.Fatalf("the page failed:\n%s", foreign(page))
				}
			}
			if server.LogLines() != lines {
				t.Errorf("100 scrapes added to Kamailio's log:\n%s", strings.Join(server.Logged()[lines:], ""))
			}
			server.Stop()
			if _, page := scrapePage(h, "2"); foreign(page) != "up 0\n" || value(page, "kamailio_up") != "0" {
				t.Errorf("with Kamailio down:\n%s", foreign(page))
			}
			server.Restart()
			if _, page := scrapePage(h, "10"); value(page, "kamailio_xhttp_prom_up") != "1" {
				t.Errorf("after a restart:\n%s", foreign(page))
			}
		})
	}
}

// body returns the response body of a URL.
func body(t *testing.T, url string) string {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func scrapeFull(t *testing.T, server *kamailiotest.Server, uris []string) {
	h := handlerFor(t, append(uriFlags(uris), "--collector.dialog_profile.names=inbound", "--collector.dialplan.ids=1", "--collector.dialplan.ids=2",
		"--collector.cfg.variables=core.debug")...)
	pings := strings.Count(server.Log(), deadRelay)
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
	// The demo is no IMS core, and has rtpengine instead of rtpproxy. Others are in
	// TestOtherModules. secfilter
	// reports nothing and dlgs is not loaded before Kamailio 6, and mqueue has no list of
	// its queues in 5.4. Only HTTP passes through the script that serves
	// drouting.gw_status.
	missing := strings.Fields("cdp cnxcc db_mysql http_async_client http_client ims_auth ims_charging ims_dialog ims_icscf ims_qos ims_registrar_scscf ims_usrloc_pcscf ims_usrloc_scscf kafka nat_traversal rtpproxy sca sctp sipcapture siptrace tsilo")
	switch server.Version {
	case "5.4":
		missing = append(missing, "dlgs", "mqueue", "secfilter")
	case "5.6":
		missing = append(missing, "dlgs", "secfilter")
	}
	if slices.Contains(uris, server.HTTPURL) {
		checkGateways(t, page)
	} else {
		missing = append(missing, "drouting")
	}
	slices.Sort(missing)
	if got, want := names(absent.FindAllStringSubmatch(page, -1)), strings.Join(missing, " "); got != want {
		t.Errorf("collectors not supported: %q, want %q", got, want)
	}
	checkAgainstServer(t, server, page)
	checkAgainstDatabase(t, server, page)
	checkPresence(t, server, page)
	checkPeers(t, server.Version, page)

	lines := linesBut(server.Logged(), firstShow)
	for range 100 {
		if code, page := scrapePage(h, "10"); code != 200 || value(page, "kamailio_up") != "1" {
			t.Fatalf("status %d\n%.500s", code, page)
		}
	}
	if now := linesBut(server.Logged(), firstShow); len(now) != len(lines) {
		t.Errorf("100 scrapes added to Kamailio's log:\n%s", strings.Join(now[len(lines):], ""))
	}
	// Four TCP workers, the datagram socket, the FIFO and TCP.
	if n := strings.Count(server.Log(), deadRelay) - pings; n > 7 {
		t.Errorf("%d pings of the media relay that is dead: more than one for each process that can be asked", n)
	}
}

// firstShow matches what Kamailio logs at the first rtpengine.show of a process, which
// pings the nodes: two lines for each dead node.
var firstShow = regexp.MustCompile(`ERROR: rtpengine \[`)

const deadRelay = "rtpp_test(): proxy did not respond to ping"

func linesBut(log []string, but *regexp.Regexp) []string {
	return slices.DeleteFunc(log, but.MatchString)
}

// TestManyStatisticsOverBINRPC has more statistics than ctl can send at once, so they are
// queried in parts. If a single group is too large, only this group fails. Each costs
// Kamailio a few log lines, once.
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
					t.Errorf("later scrapes added to Kamailio's log:\n%s", strings.Join(server.Logged()[lines:], ""))
				}
				_, over := scrapePage(handlerFor(t, uriFlags([]string{server.HTTPURL})...), "10")
				if a, b := strings.Count(page, "\nkamailio_statistic{"), strings.Count(over, "\nkamailio_statistic{"); test.success == "1" && a != b {
					t.Errorf("%d statistics, over HTTP %d", a, b)
				}
			})
		}
	}
}

// checkGateways checks the gateways that the demo's calls found dead, as reported by the
// included file.
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

// checkAgainstServer compares the page with what another client reads from Kamailio.
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
	if !strings.Contains(page, "\nkamailio_dispatcher_destination_up{") || !strings.Contains(page, `{duid="gw1",index="0",set="1",`) || !strings.Contains(page, `{duid="gw1b",index="0",set="1",`) {
		t.Error("the demo has a URI twice in one set, the page has not")
	}
}

// checkAgainstDatabase compares the page with the number of rows that Kamailio loaded, as
// a third client counts them.
func checkAgainstDatabase(t *testing.T, server *kamailiotest.Server, page string) {
	t.Helper()
	five, old := strings.HasPrefix(server.Version, "5"), server.Version == "5.4"
	for _, c := range []struct {
		sample, query string
		skipped       bool
	}{
		{`kamailio_permissions_addresses{group="1"}`, "FROM address WHERE grp=1 AND mask=32", five},
		{`kamailio_permissions_addresses{group="3"}`, "FROM address WHERE grp=3", five},
		{`kamailio_permissions_subnets{group="2"}`, "FROM address WHERE grp=2", false},
		{`kamailio_permissions_domains{group="4"}`, "FROM address WHERE grp=4", false},
		{`kamailio_permissions_trusted_peers`, "FROM trusted", five},
		{`kamailio_domain_domains`, "FROM domain", false},
		{`kamailio_domain_attributes`, "FROM domain_attrs", false},
		{`kamailio_mtree_items{tree="prefixes"}`, "FROM mtree", false},
		{`kamailio_mtree_items{tree="none"}`, "FROM mtree_none", false},
		{`kamailio_dialplan_rules{dialplan="1"}`, "FROM dialplan WHERE dpid=1", old},
		{`kamailio_dialplan_rules{dialplan="2"}`, "FROM dialplan WHERE dpid=2", old},
		{`kamailio_carrierroute_routes{carrier="default",domain="proxy"}`, "FROM carrierroute WHERE carrier=1 AND domain=1", false},
		{`kamailio_pipelimit_pipe_limit{pipe="register"}`, "", false},
	} {
		query := "SELECT count(*) " + c.query
		if c.query == "" {
			query = "SELECT plimit FROM pl_pipes WHERE pipeid='register'"
		}
		want := sqlite(t, server, query)
		if c.skipped {
			want = ""
		}
		if got := value(page, c.sample); got != want {
			t.Errorf("%s is %q, the database says %q", c.sample, got, want)
		}
	}
	messages := "3"
	if old {
		messages = ""
	}
	for sample, want := range map[string]string{
		`kamailio_mqueue_messages{queue="backlog"}`:                                                                 messages,
		`kamailio_scrape_skipped{collector="dialplan",method="dialplan.dump",reason="danger"}`:                      yes(old),
		`kamailio_scrape_skipped{collector="keepalive",method="keepalive.list",reason="danger"}`:                    yes(old),
		`kamailio_htable_expire_seconds{table="ipban"}`:                                                             "300",
		`kamailio_htable_expire_seconds{table="empty"}`:                                                             "0",
		`kamailio_ratelimit_pipe_limit{pipe="1"}`:                                                                   "1000",
		`kamailio_scrape_skipped{collector="permissions",method="permissions.addressDump",reason="danger"}`:         yes(five),
		`kamailio_scrape_skipped{collector="permissions_trusted",method="permissions.trustedDump",reason="danger"}`: yes(five),
	} {
		if got := value(page, sample); got != want {
			t.Errorf("%s is %q, want %q", sample, got, want)
		}
	}
}

// checkPeers checks the peers of each kind in the demo: up, down, disabled.
func checkPeers(t *testing.T, version, page string) {
	t.Helper()
	for _, want := range []string{
		`rtpengine_node_up\{index="0",set="0",url="udp:127\.0\.0\.1:[0-9]+"\} 1`,
		`rtpengine_node_up\{index="0",set="0",url="udp:127\.0\.0\.1:[0-9]+"\} 0`,
		`rtpengine_node_enabled\{index="0",set="1",url="udp:127\.0\.0\.2:[0-9]+"\} 0`,
		`rtpengine_set_nodes_up\{set="0"\} 1`, `rtpengine_set_nodes_up\{set="1"\} 0`,
		`dmq_node_up\{host="127\.0\.0\.1",index="0",local="1",port="[0-9]+",protocol="[^"]*"\} 1`, `dmq_nodes 2`,
		`uac_registration_up\{uuid="trunk-a"\} 1`, `uac_registration_up\{uuid="trunk-dead"\} 0`, `uac_registration_enabled\{uuid="trunk-off"\} 0`,
		`lcr_gateways\{lcr="1"\} 2`, `lcr_gateway_up\{gateway="1",lcr="1",name="lcr-a"\} 1`,
		`keepalive_destination_state\{index="0",owner="_params",uri="sip:127\.0\.0\.1:[0-9]+"\} [012]`,
		`tls_connections_by_state\{state="[a-z_]+"\} 1`, `tls_connections_by_version\{version="TLSv1\.3"\} 1`, `tls_connections 1`,
		`pkg_total_bytes\{index="0",process="tcp main process"\} 8\.388608e\+06`,
		`core_listen_socket_info\{address="127\.0\.0\.1",port="[0-9]+",protocol="tls"\} 1`,
		`cfg_value\{group="core",name="debug"\} -?[0-9]+`,
	} {
		skipped := version == "5.4" && strings.HasPrefix(want, "keepalive")
		if skipped == regexp.MustCompile(`(?m)^kamailio_`+want+`$`).MatchString(page) {
			t.Errorf("no line kamailio_%s, or one although it is skipped", want)
		}
	}
}

// checkPresence checks that published state expires after a minute.
func checkPresence(t *testing.T, server *kamailiotest.Server, page string) {
	t.Helper()
	want := ""
	if n := strings.Count(string(server.RPC(t, "presence.presentity_list")), `"event"`); n > 0 {
		want = strconv.Itoa(n)
	}
	got := value(page, `kamailio_presence_presentities{event="presence"}`)
	if got != want && want != "" {
		t.Errorf("%s presentities, Kamailio says %s", got, want)
	}
}

func yes(is bool) string {
	if is {
		return "1"
	}
	return "0"
}

func sqlite(t *testing.T, server *kamailiotest.Server, query string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "sqlite3", filepath.Join(server.Dir, "kamailio.sqlite"), query).Output()
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return strings.TrimSpace(string(out))
}

// TestRTPProxy scrapes a server with rtpproxy instead of rtpengine.
func TestRTPProxy(t *testing.T) {
	for _, version := range kamailiotest.AllVersions(t) {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			server := kamailiotest.Start(t, kamailiotest.Config{Version: version, RTPProxy: true, Traffic: true})
			for name, uris := range urisOf(server) {
				_, page := scrapePage(handlerFor(t, uriFlags(uris)...), "10")
				for _, want := range []string{
					`scrape_collector_supported\{collector="rtpengine"\} 0`, `scrape_collector_success\{collector="rtpproxy"\} 1`,
					`rtpproxy_node_up\{index="0",set="0",url="udp:127\.0\.0\.1:[0-9]+"\} 1`,
					`rtpproxy_node_up\{index="0",set="0",url="udp:127\.0\.0\.1:[0-9]+"\} 0`,
					`rtpproxy_node_up\{index="0",set="1",url="udp:127\.0\.0\.2:[0-9]+"\} 0`,
					`rtpproxy_node_weight\{index="0",set="0",url="udp:127\.0\.0\.1:[0-9]+"\} 2`,
				} {
					if !regexp.MustCompile(`(?m)^kamailio_` + want + `$`).MatchString(page) {
						t.Errorf("%s: no line kamailio_%s", name, want)
					}
				}
			}
		})
	}
}

// TestStockKamailio scrapes Debian's own configuration: over the sockets that it opens
// without changes, and over HTTP with WITH_JSONRPC, which closes every connection after
// its reply.
func TestStockKamailio(t *testing.T) {
	for _, version := range kamailiotest.AllVersions(t) {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			server := kamailiotest.Start(t, kamailiotest.Config{Version: version, StockHTTP: true})
			for name, uris := range urisOf(server) {
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
		t.Errorf("100 scrapes added to Kamailio's log:\n%s", strings.Join(server.Logged()[lines:], ""))
	}
}

// TestHangStopAndRestart scrapes a server while it hangs, stops and restarts.
func TestHangStopAndRestart(t *testing.T) {
	for _, version := range kamailiotest.Versions(t) {
		t.Run(version, func(t *testing.T) {
			server := kamailiotest.Start(t, kamailiotest.Config{Version: version})
			var handlers []func(want, when string)
			for name, uris := range urisOf(server) {
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

// TestFiftyScrapersOfARealKamailio counts the requests that reach it: fifty scrapes at
// once must send no more than one scrape.
func TestFiftyScrapersOfARealKamailio(t *testing.T) {
	server := kamailiotest.Start(t, kamailiotest.Config{})
	// Longer than the default, because the race detector is slow.
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

// rpcs sums the requests that were sent, according to the page.
func rpcs(page string) (n float64) {
	for _, found := range regexp.MustCompile(`(?m)^kamailio_exporter_rpc_requests_total\{.*\} ([0-9]+)$`).FindAllStringSubmatch(page, -1) {
		v, _ := strconv.ParseFloat(found[1], 64)
		n += v
	}
	return n
}
