package collector

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/kamailio-exporter/kamailio_exporter/kamrpc/kamrpctest"
)

// repeated returns the text n times, separated by commas, with %d replaced by the number.
func repeated(n int, format string) string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprintf(format, i)
	}
	return strings.Join(all, ",")
}

// unknown returns the error for a reply without any known field.
func unknown(method string) string {
	return method + ": none of the known fields is in the reply; this Kamailio may be newer than the exporter"
}

// TestLists tests the list and table collectors with replies that the demo does not
// produce. The lines in want omit the module's name.
func TestLists(t *testing.T) {
	limits := listLimits{rows: 5000}
	for _, tc := range []struct {
		name      string
		collector Collector
		replies   map[string]string
		want, err string
	}{
		{"permissions: empty", permissions{limits}, map[string]string{addressMethod: `[]`, subnetMethod: `[]`}, "", ""},
		{"permissions: nothing at all", permissions{limits}, map[string]string{addressMethod: `{}`, subnetMethod: `""`}, "", ""},
		{"permissions: one row, not in a list", permissions{limits}, map[string]string{addressMethod: `{"table":7,"group":1,"item":{"ip":"192.0.2.1"}}`, subnetMethod: `[]`},
			"addresses 1 1\n", ""},
		{"permissions: groups, below zero too", permissions{limits}, map[string]string{
			addressMethod: `[{"table":7,"group":4294967295,"item":{}},{"table":7,"group":-1,"item":{}},{"table":7,"group":-1,"item":{}}]`,
			subnetMethod:  `[{"id":0,"group":2,"item":{"ip":"192.0.2.0"}}]`,
		}, "addresses 4294967295 1\naddresses -1 2\nsubnets 2 1\n", ""},
		{"permissions: not loaded", permissions{limits}, map[string]string{addressMethod: "fault: No address table", subnetMethod: "fault: No subnet table"}, "", ""},
		{"permissions: another fault", permissions{limits}, map[string]string{addressMethod: "fault: Internal error creating rpc", subnetMethod: `[]`}, "",
			addressMethod + ": kamailio answered error 500: Internal error creating rpc"},
		{"permissions: renamed fields", permissions{limits}, map[string]string{addressMethod: `[{"grp":1}]`, subnetMethod: `[]`}, "", unknown(addressMethod)},
		{"permissions: 20,000", permissions{limits}, map[string]string{
			addressMethod: "[" + repeated(20000, `{"table":%d,"group":7,"item":{"ip":"192.0.2.1","port":0,"tag":"NULL"}}`) + "]", subnetMethod: `[]`,
		}, "addresses 7 20000\n", ""},

		{"trusted: empty", permissionsTrusted{limits}, map[string]string{trustedMethod: `{}`, namesMethod: `{}`}, "trusted_peers 0\n", ""},
		{"trusted: one", permissionsTrusted{limits}, map[string]string{
			trustedMethod: `{"table":1,"item":{"ip":"192.0.2.1","proto":0}}`, namesMethod: `{"table":85,"group":6,"item":{"domain_name":"a","port":0}}`,
		}, "trusted_peers 1\ndomains 6 1\n", ""},
		{"trusted: each row has the group that is before it", permissionsTrusted{limits}, map[string]string{
			trustedMethod: `{"table":1,"item":{"ip":"a"},"table":1,"item":{"ip":"a"}}`,
			namesMethod:   `{"table":1,"group":6,"item":{"domain_name":"a"},"table":2,"group":7,"item":{"domain_name":"b"},"table":3,"group":6,"item":{"domain_name":"a"}}`,
		}, "trusted_peers 2\ndomains 6 2\ndomains 7 1\n", ""},
		{"trusted: 20,000", permissionsTrusted{limits}, map[string]string{
			trustedMethod: "{" + repeated(20000, `"table":%d,"item":{"ip":"192.0.2.1","proto":3,"pattern":"x","tag":"t"}`) + "}",
			namesMethod:   "{" + repeated(20000, `"table":%[1]d,"group":9,"item":{"domain_name":"d%[1]d","port":0,"tag":"t"}`) + `,"table":1,"group":10,"item":{"domain_name":"e"}}`,
		}, "trusted_peers 20000\ndomains 9 20000\ndomains 10 1\n", ""},
		{"trusted: not loaded", permissionsTrusted{limits}, map[string]string{trustedMethod: "fault: No trusted table", namesMethod: "fault: No domain list table"}, "", ""},
		{"trusted: renamed fields", permissionsTrusted{limits}, map[string]string{trustedMethod: `{"item":{"addr":"a"}}`, namesMethod: `{}`}, "domains", unknown(trustedMethod)},

		{"domain: empty", domains{limits}, map[string]string{domainMethod: `{"domains":[],"attributes":[]}`}, "domains 0\nattributes 0\n", ""},
		{"domain: one", domains{limits}, map[string]string{domainMethod: `{"domains":{"domain":"a","did":"a"},"attributes":[]}`}, "domains 1\nattributes 0\n", ""},
		{"domain: attributes", domains{limits}, map[string]string{
			domainMethod: `{"domains":[{"domain":"a","did":"a"},{"domain":"b","did":"a"}],"attributes":[{"did":"a","attrs":["x","y"]},{"did":"b","attrs":[]}]}`,
		}, "domains 2\nattributes 2\n", ""},
		{"domain: 5,000", domains{limits}, map[string]string{domainMethod: `{"domains":[` + repeated(5000, `{"domain":"d%[1]d","did":"d%[1]d"}`) + `],"attributes":[]}`}, "domains 5000\nattributes 0\n", ""},
		{"domain: no cache", domains{limits}, map[string]string{domainMethod: "fault: Server Domain Cache Empty"}, "", ""},
		{"domain: renamed fields", domains{limits}, map[string]string{domainMethod: `{"domains":[{"name":"a"}]}`}, "", unknown(domainMethod)},

		{"dialplan: no id given", dialplans{limits, nil}, map[string]string{dialplanMethod: `{}`}, "", ""},
		{"dialplan: no rules", dialplans{limits, []int{4}}, map[string]string{dialplanMethod: `{"DPID":4,"ENTRIES":[]}`}, "rules 4 0\n", ""},
		{"dialplan: one", dialplans{limits, []int{-1}}, map[string]string{dialplanMethod: `{"DPID":-1,"ENTRIES":{"ENTRY":{"PRIO":1,"REPLEXP":null}}}`}, "rules -1 1\n", ""},
		{"dialplan: 5,000", dialplans{limits, []int{1}}, map[string]string{dialplanMethod: `{"DPID":1,"ENTRIES":[` + repeated(5000, `{"ENTRY":{"PRIO":%d}}`) + `]}`}, "rules 1 5000\n", ""},
		{"dialplan: not there", dialplans{limits, []int{99}}, map[string]string{dialplanMethod: "fault: Dialplan ID not matched"}, "",
			"dialplan 99 has no rules in Kamailio: dialplan.dump: kamailio answered error 500: Dialplan ID not matched"},

		{"carrierroute: nothing", carrierroute{limits}, map[string]string{carrierrouteMethod: `{"routes":[]}`}, "", ""},
		{"carrierroute: a carrier without domains", carrierroute{limits}, map[string]string{carrierrouteMethod: `{"routes":[{"carrier":"c","id":1,"domains":[]}]}`}, "", ""},
		{"carrierroute: a domain without routes", carrierroute{limits}, map[string]string{carrierrouteMethod: `{"routes":[{"carrier":"c","id":1,"domains":[{"domain":"d","id":1,"data":[]}]}]}`},
			"routes c,d 0\nroutes_enabled c,d 0\n", ""},
		{"carrierroute: some disabled", carrierroute{limits}, map[string]string{
			carrierrouteMethod: `{"routes":[{"carrier":"c","id":1,"domains":[{"domain":"d","id":1,"data":[{"prefix":"1","host":"h","status":"ON","prefix":""},{"host":"h","status":"OFF"}]},{"domain":"e","id":2,"data":[{"host":"h","status":"OFF"}]}]},{"carrier":"x","id":2,"domains":[{"domain":"d","id":1,"data":[{"host":"h","status":"ON"}]}]}]}`,
		}, "routes c,d 2\nroutes c,e 1\nroutes x,d 1\nroutes_enabled c,d 1\nroutes_enabled c,e 0\nroutes_enabled x,d 1\n", ""},
		{"carrierroute: lines of text, before 5.6", carrierroute{limits}, map[string]string{
			carrierrouteMethod: `{"routes":[{"carrier":"c","id":1,"domains":[{"domain":"d","id":1,"data":["        49: 50.000 %, 'h:5060': ON, '0', '', '', ': OFF, '","      NULL: 0.000 %, 'h': OFF, '0', '', '', ''","            Rule is backed up by: h:5060"]}]}]}`,
		}, "routes c,d 2\nroutes_enabled c,d 1\n", ""},
		{"carrierroute: other lines", carrierroute{limits}, map[string]string{
			carrierrouteMethod: `{"routes":[{"carrier":"c","id":1,"domains":[{"domain":"d","id":1,"data":["49: on"]}]}]}`,
		}, "", unknown(carrierrouteMethod)},
		{"carrierroute: an unknown state", carrierroute{limits}, map[string]string{
			carrierrouteMethod: `{"routes":[{"carrier":"c","id":1,"domains":[{"domain":"d","id":1,"data":[{"host":"h","status":"on"}]}]}]}`,
		}, "", unknown(carrierrouteMethod)},

		{"presence: none", presence{limits}, map[string]string{presenceMethod: `[]`}, "", ""},
		{"presence: by event", presence{limits}, map[string]string{presenceMethod: `[{"user":"a","event":"presence"},{"user":"a","event":"presence"},{"user":"b","event":"dialog;sla"}]`},
			"presentities presence 2\npresentities dialog;sla 1\n", ""},
		{"presence: 5,000", presence{limits}, map[string]string{presenceMethod: "[" + repeated(5000, `{"user":"u%d","event":"presence"}`) + "]"}, "presentities presence 5000\n", ""},

		{"mtree: no trees", mtreeModule.Collector(), map[string]string{"mtree.summary": "fault: Empty tree list"}, "", ""},
		{"mtree: unsigned numbers printed as signed", mtreeModule.Collector(), map[string]string{
			"mtree.summary": `[{"table":"t","item":{"ttype":0,"memsize":-1,"nrnodes":-2147483648,"nritems":12,"reload_count":3,"reload_time":1795406675}}]`,
		}, "items t 12\nnodes t 2.147483648e+09\nmemory_bytes t 4.294967295e+09\nreloads_total t 3\nlast_reload_timestamp_seconds t 1.795406675e+09\n", ""},

		{"mqueue: none", mqueueModule.Collector(), map[string]string{"mqueue.get_sizes": `[]`}, "", ""},
		{"mqueue: odd names", mqueueModule.Collector(), map[string]string{"mqueue.get_sizes": "[{\"name\":\"\\\"q {}\",\"size\":0},{\"name\":\"\xfc\",\"size\":7}]"}, "messages \"q {} 0\nmessages \\xfc 7\n", ""},

		{"htable: expiry beside the sizes", htableModule.Collector(), map[string]string{
			"htable.listTables": `[{"name":"a","dbtable":"","dbmode":0,"expire":3600,"updateexpire":1,"size":16,"dmqreplicate":0}]`,
			"htable.stats":      `[{"name":"a","slots":16,"all":9,"min":0,"max":2}]`,
		}, "expire_seconds a 3600\nslots a 16\nentries a 9\nlargest_slot_entries a 2\n", ""},
		{"htable: no tables", htableModule.Collector(), map[string]string{"htable.listTables": "fault: No htables", "htable.stats": "fault: No htables"}, "", ""},

		{"pipelimit: none", limits.collector(pipelimitModule), map[string]string{"pl.list": `[]`, "pl.stats": `[]`}, "", ""},
		{"pipelimit: a name like a line", limits.collector(pipelimitModule), map[string]string{
			"pl.list":  `[{"name":"a load=7 counter=8","algorithm":"RED","limit":50,"counter":3,"last_counter":120,"unused_intervals":0}]`,
			"pl.stats": `["PIPE: id=a load=7 counter=8 load=2 counter=120","noise"]`,
		}, "pipe_limit a load=7 counter=8 50\npipe_requests a load=7 counter=8 3\npipe_last_requests a load=7 counter=8 120\npipe_load a load=7 counter=8 2\n", ""},
		{"pipelimit: one line, not in a list", limits.collector(pipelimitModule), map[string]string{"pl.list": `[]`, "pl.stats": `"PIPE: id=a load=-1 counter=0"`}, "pipe_load a -1\n", ""},
		{"pipelimit: another line", limits.collector(pipelimitModule), map[string]string{"pl.list": `[]`, "pl.stats": `["pipe a: 7"]`}, "", unknown("pl.stats")},

		{"ratelimit: none", ratelimitModule.Collector(), map[string]string{"rl.get_pipes": `{}`}, "", ""},
		{"ratelimit: the last pipe", ratelimitModule.Collector(), map[string]string{"rl.get_pipes": `"PIPE[20]: 1:RED 250/100 (drop rate: 2) [17]"`},
			"pipe_last_requests 20 250\npipe_limit 20 100\npipe_load 20 2\npipe_requests 20 17\n", ""},

		{"secfilter: 5.6 returns an empty string", secfilterModule.Collector(), map[string]string{"secfilter.stats": `""`}, "", ErrNoData.Error()},
		{"secfilter", secfilterModule.Collector(), map[string]string{"secfilter.stats": `{"Blacklist":{"User-Agent":1},"Whitelist":{"To-User":2},"Other":{"SQL-Injection":-1}}`},
			"matches_total blacklist,User-Agent 1\nmatches_total whitelist,To-User 2\nmatches_total other,SQL-Injection 4.294967295e+09\n", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := emitted(t, tc.collector, tc.replies)
			module, _, _ := strings.Cut(tc.collector.Name(), "_")
			if want := prefixed(module+"_", tc.want); got != want && tc.err == "" {
				t.Errorf("got\n%swant\n%s", got, want)
			}
			if text := fmt.Sprint(err); text != tc.err && (err != nil || tc.err != "") {
				t.Errorf("error %q, want %q", text, tc.err)
			}
		})
	}
}

// A reply that ends in the middle is a failure, and is never counted partially.
func TestTruncatedListIsNotCounted(t *testing.T) {
	for method, tc := range map[string]struct {
		collector Collector
		reply     string
	}{
		addressMethod:      {permissions{}, "[" + repeated(100, `{"table":%d,"group":7,"item":{}}`) + "]"},
		namesMethod:        {permissionsTrusted{}, "{" + repeated(100, `"table":%[1]d,"group":9,"item":{"domain_name":"d%[1]d"}`) + "}"},
		domainMethod:       {domains{}, `{"domains":[` + repeated(100, `{"domain":"d%d"}`) + `],"attributes":[]}`},
		carrierrouteMethod: {carrierroute{}, `{"routes":[{"carrier":"c","domains":[{"domain":"d","data":[` + repeated(100, `{"host":"h%d","status":"ON"}`) + `]}]}]}`},
		presenceMethod:     {presence{}, "[" + repeated(100, `{"user":"%d","event":"presence"}`) + "]"},
		dialplanMethod:     {dialplans{ids: []int{1}}, `{"DPID":1,"ENTRIES":[` + repeated(100, `{"ENTRY":{"PRIO":%d}}`) + `]}`},
	} {
		t.Run(method, func(t *testing.T) {
			g := newGuardedServer(t)
			g.c.use([]Collector{tc.collector})
			g.Handle("core.version", `"kamailio 6.0.1 (x86_64/linux) "`)
			g.Handle(subnetMethod, `[]`)
			g.Handle(trustedMethod, `{}`)
			g.Handle(method, tc.reply)
			g.Misbehave(kamrpctest.Truncate, method)
			name := tc.collector.Name()
			g.after(0, 0, "scrape_collector_success "+name+" = 0", "no = 100\n", "no = 50\n")
			g.Misbehave(kamrpctest.OK, method)
			g.after(time.Hour, 0, "scrape_collector_success "+name+" = 1", " = 100\n")
		})
	}
}

// A method that crashes a version of Kamailio is not called on it. That is not a failure:
// the other samples are on the page, and the page reports the skipped call.
func TestDangerousCallIsSkipped(t *testing.T) {
	const held = "scrape_skipped permissions permissions.addressDump danger = "
	g := newGuardedServer(t)
	g.c.use([]Collector{permissions{}})
	g.Handle("core.version", `"kamailio 5.6.3 (x86_64/linux) "`)
	g.Handle(addressMethod, `[{"table":1,"group":1,"item":{}}]`)
	g.Handle(subnetMethod, `[{"id":0,"group":2,"item":{}}]`)
	for range 3 {
		g.after(0, 0, "scrape_collector_supported permissions = 1", "scrape_collector_success permissions = 1", held+"1",
			"scrape_skipped_since_timestamp_seconds permissions permissions.addressDump danger = ", "permissions_subnets 2 = 1", "no permissions_addresses")
	}
	if n := g.CallCount(addressMethod); n != 0 {
		t.Errorf("it was asked %d times", n)
	}
	if n := g.CallCount("core.version"); n != 1 {
		t.Errorf("the version was asked %d times: what was refused once is, until Kamailio restarts", n)
	}
	g.Handle("core.version", `"kamailio 6.0.1 (x86_64/linux) "`)
	g.startedAt("05:00:00")
	g.after(0, 0, held+"0", "permissions_addresses 1 = 1", "permissions_subnets 2 = 1", "no scrape_skipped_since")
}

// The same for a collector that has no other data: that is neither a failure nor a pause.
// 5.4 is one of the versions on which keepalive.list is refused.
func TestCollectorWithOnlyADangerousCall(t *testing.T) {
	g := newGuardedServer(t)
	g.c.use(All(Options{GrowingInterval: time.Minute}))
	g.LoadDir("testdata/5.6.3")
	g.startedAt("04:04:35")
	g.Handle("core.version", `"kamailio 5.4.4 (x86_64/linux) "`)
	for range 3 {
		s, err := g.c.Scrape(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		refused := 0
		for _, r := range s.Results {
			for _, refusal := range r.Refusals {
				if !refusal.Reason.Holds() {
					continue
				}
				refused++
				if r.Err != nil || !r.Supported {
					t.Errorf("%s: %v, supported %t", r.Collector, r.Err, r.Supported)
				}
			}
		}
		if refused != 3 { // including two of permissions, which has other data too
			t.Errorf("%d calls are refused", refused)
		}
		g.after(time.Minute, 0, "scrape_collector_supported keepalive = 1", "scrape_collector_success keepalive = 1",
			"scrape_skipped keepalive keepalive.list danger = 1", "scrape_skipped keepalive keepalive.list pause = 0", "no keepalive_destination")
	}
	if n := g.CallCount(keepaliveMethod); n != 0 {
		t.Errorf("it was asked %d times", n)
	}
}

// A module that is not loaded is not supported, and its methods are not called.
func TestListsOfMissingModules(t *testing.T) {
	g := newGuardedServer(t)
	g.c.use(nil)
	var lines []string
	for _, c := range All(Options{Dialplans: []int{1}}) {
		switch c.Name() {
		case "permissions", "permissions_trusted", "domain", "dialplan", "carrierroute", "presence", "mtree", "mqueue", "htable", "pipelimit", "ratelimit", "secfilter",
			"dispatcher", "dmq", "drouting", "keepalive", "lcr", "pike", "pkg", "rtpengine", "rtpproxy", "sockets", "tls_connections", "uac_registrations":
			g.c.use(append(g.c.collectors, c))
			lines = append(lines, "scrape_collector_supported "+c.Name()+" = 0", "no scrape_collector_success "+c.Name())
		}
	}
	if len(g.c.collectors) != 24 {
		t.Fatalf("%d collectors", len(g.c.collectors))
	}
	g.after(0, 0, lines...)
	for method, n := range g.Calls() {
		if method != "core.uptime" && method != "system.listMethods" {
			t.Errorf("%s was asked %d times", method, n)
		}
	}
}
