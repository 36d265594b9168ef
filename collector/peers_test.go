package collector

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// peerLists returns the collectors of modules that return lists, by the method they call.
func peerLists() map[string]Collector {
	limits := listLimits{rows: 5000}
	return map[string]Collector{
		"core.sockets_list": socketsModule.Collector(),
		"dmq.list_nodes":    limits.collector(dmqModule),
		keepaliveMethod:     keepalive{limits},
		lcrMethod:           lcr{limits},
		"pkg.stats":         pkgModule.Collector(),
		"rtpengine.show":    limits.collector(rtpengineModule),
		"rtpproxy.list":     limits.collector(rtpproxyModule),
		tlsListMethod:       tlsConnections(5000, 0),
		regDumpMethod:       uacRegistrations{limits},
	}
}

// withClock adds the replies that two of the lists require.
func withClock(replies map[string]string) map[string]string {
	replies["core.version"] = `"kamailio 6.0.1 (x86_64/linux) "`
	replies[uptimeMethod] = `{"now":"Mon Nov 23 04:05:05 2026","up_since":"Mon Nov 23 04:04:35 2026","uptime":30}`
	return replies
}

func node(url string, set int, fields string) string {
	return fmt.Sprintf(`{"url":%q,"set":%d,"index":0,"weight":1,%s}`, url, set, fields)
}

const (
	odd5       = `"sip:\"x\"\n{},=` + "\xfc" + `"`
	farKept    = 1 << 31
	registered = `"expires":300,"flags":20,"diff_expires":250,"auth_proxy":"none","r_domain":"example.com"`
)

func TestPeerLists(t *testing.T) {
	for _, tc := range []struct{ name, method, reply, want, err string }{
		{"5.6", "rtpengine.show",
			"[" + node("udp:a", 0, `"disabled":0,"recheck_ticks":0`) + "," + node("udp:b", 0, `"disabled":1,"recheck_ticks":20`) + "," + node("udp:c", 1, `"disabled":"1(permanent)","recheck_ticks":"N/A"`) + "]",
			"node_weight 0,udp:a,0 1\nnode_up 0,udp:a,0 1\nnode_enabled 0,udp:a,0 1\n" +
				"node_weight 0,udp:b,0 1\nnode_up 0,udp:b,0 0\nnode_enabled 0,udp:b,0 1\n" +
				"node_weight 1,udp:c,0 1\nnode_up 1,udp:c,0 0\nnode_enabled 1,udp:c,0 0\n" +
				"set_nodes 0 2\nset_nodes_up 0 1\nset_nodes 1 1\nset_nodes_up 1 0\nnode_recheck_seconds 0,udp:b,0 20\n", ""},
		{"6.0", "rtpengine.show",
			"[" + node("udp:a", 0, `"disabled":false,"active":true,"recheck_ticks":86393`) + "," + node("udp:b", 0, `"disabled":false,"active":false,"recheck_ticks":6`) + "," + node("udp:c", 0, `"disabled":true,"active":false,"recheck_ticks":-1`) + "]",
			"node_weight 0,udp:a,0 1\nnode_enabled 0,udp:a,0 1\nnode_up 0,udp:a,0 1\n" +
				"node_weight 0,udp:b,0 1\nnode_enabled 0,udp:b,0 1\nnode_up 0,udp:b,0 0\n" +
				"node_weight 0,udp:c,0 1\nnode_enabled 0,udp:c,0 0\nnode_up 0,udp:c,0 0\n" +
				"set_nodes 0 3\nset_nodes_up 0 1\nnode_recheck_seconds 0,udp:b,0 6\n", ""},
		{"a node twice in a set, and in two sets", "rtpengine.show",
			"[" + node("udp:a", 0, `"active":true`) + "," + node("udp:a", 0, `"active":false,"recheck_ticks":3`) + "," + node("udp:a", 7, `"active":true`) + "]",
			"node_weight 0,udp:a,0 1\nnode_up 0,udp:a,0 1\nnode_weight 0,udp:a,1 1\nnode_up 0,udp:a,1 0\nnode_weight 7,udp:a,0 1\nnode_up 7,udp:a,0 1\n" +
				"set_nodes 0 2\nset_nodes_up 0 1\nset_nodes 7 1\nset_nodes_up 7 1\nnode_recheck_seconds 0,udp:a,1 3\n", ""},
		{"an unknown state costs only itself", "rtpengine.show", "[" + node("udp:a", 0, `"disabled":"perhaps","recheck_ticks":4294967295`) + "]",
			"node_weight 0,udp:a,0 1\nset_nodes 0 1\n", ""},
		{"one row without its list", "rtpengine.show", node("udp:a", 0, `"active":true`), "node_weight 0,udp:a,0 1\nnode_up 0,udp:a,0 1\nset_nodes 0 1\nset_nodes_up 0 1\n", ""},
		{"renamed fields", "rtpengine.show", `[{"uri":"udp:a","group":0}]`, "", "rtpengine.show: none of the known fields is in the reply"},
		{"no nodes", "rtpengine.show", "fault: Instance not found", "", ""},
		{"no sets", "rtpengine.show", "fault: Instance not found (no sets loaded)", "", ""},
		{"Kamailio starts", "rtpengine.show", "fault: Initializing - try later", "", ""},
		{"another fault", "rtpengine.show", "fault: Out of memory", "", "Out of memory"},

		// Made from rtpproxy/rtpproxy.c, like those of the demo in the recordings.
		{"rtpproxy", "rtpproxy.list", `[{"setid":1,"url":"udp:a","index":0,"disabled":0,"weight":3,"recheck":0},{"setid":1,"url":"udp:a","index":1,"disabled":1,"weight":1,"recheck":-1}]`,
			"node_up 1,udp:a,0 1\nnode_weight 1,udp:a,0 3\nnode_enabled 1,udp:a,0 1\nnode_up 1,udp:a,1 0\nnode_weight 1,udp:a,1 1\nnode_enabled 1,udp:a,1 0\n", ""},

		{"two nodes", "dmq.list_nodes", `[{"host":"192.0.2.1","port":"5260","proto":"*","resolved_ip":"192.0.2.1","status":"active","last_notification":0,"local":0},{"host":"::1","port":"5160","proto":"*","resolved_ip":"::1","status":"pending","last_notification":0,"local":1}]`,
			"node_up 192.0.2.1,5260,*,0,0 1\nnode_state 192.0.2.1,5260,*,0,0 1\nnode_up ::1,5160,*,1,0 0\nnode_state ::1,5160,*,1,0 4\nnodes 2\n", ""},
		{"one node twice, an unknown state", "dmq.list_nodes", `[{"host":"a","port":"1","status":"disabled","local":0,"fail_count":3},{"host":"a","port":"1","status":"asleep","local":0}]`,
			"node_up a,1,,0,0 0\nnode_state a,1,,0,0 3\nnode_failed_pings a,1,,0,0 3\nnodes 2\n", ""},
		{"no nodes", "dmq.list_nodes", `[]`, "nodes 0\n", ""},

		{"a process, an unused slot, one not yet started", "pkg.stats", `[{"entry":0,"pid":7,"rank":0,"used":10,"free":80,"real_used":20,"total_size":100,"total_frags":6,"desc":"timer"},{"entry":1,"pid":0,"rank":-127,"used":0,"free":0,"real_used":0,"total_size":100,"total_frags":0,"desc":""},{"entry":2,"pid":9,"used":4294967295,"free":0,"real_used":4294967295,"total_size":4294967295,"total_frags":1,"desc":"timer"}]`,
			"used_bytes timer,0 10\nfree_bytes timer,0 80\nreal_used_bytes timer,0 20\ntotal_bytes timer,0 100\nfragments timer,0 6\n" +
				"used_bytes timer,1 4.294967295e+09\nfree_bytes timer,1 0\nreal_used_bytes timer,1 4.294967295e+09\ntotal_bytes timer,1 4.294967295e+09\nfragments timer,1 1\n", ""},

		{"states and versions", tlsListMethod, `[{"id":4,"src_ip":"192.0.2.1","cipher":"TLS_AES_256_GCM_SHA384         TLSv1.3 Kx=any","state":"established"},{"cipher":"ECDHE-RSA-AES256-GCM-SHA384 TLSv1.2 Kx=ECDH","state":"established"},{"cipher":"unknown","state":"pre-init"},{"cipher":"unknown","state":"tls_accept"},{"cipher":"X TLSv9.9","state":"unknown/error"},{"cipher":"","state":"none/init"},{"cipher":"A SSLv3","state":"tls_connect"}]`,
			"connections_by_state established 2\nconnections_by_version TLSv1.3 1\nconnections_by_version TLSv1.2 1\nconnections_by_state pre_init 1\nconnections_by_version unknown 3\nconnections_by_state accept 1\nconnections_by_state other 1\nconnections_by_version other 1\nconnections_by_state init 1\nconnections_by_state connect 1\nconnections_by_version SSLv3 1\n", ""},

		{"states", lcrMethod, `{"gw":[{"lcr_id":1,"gw_id":3,"gw_name":"a","state":0,"defunct_until":"0"},{"lcr_id":1,"gw_id":4,"gw_name":"b","state":2,"defunct_until":"0"},{"lcr_id":2,"gw_id":5,"gw_name":"c","state":4,"defunct_until":"1000"},{"lcr_id":2,"gw_id":6,"gw_name":"d","state":0,"defunct_until":"4294967294"}]}`,
			"gateway_state 1,3,a 1\ngateway_up 1,3,a 1\ngateway_state 1,4,b 0\ngateway_up 1,4,b 0\ngateway_state 2,5,c 2\ngateway_up 2,5,c 1\ngateway_state 2,6,d 1\ngateway_up 2,6,d 0\ngateway_defunct_until_timestamp_seconds 2,6,d 4.294967294e+09\ngateways 1 2\ngateways 2 2\n", ""},
		{"one row without its list", lcrMethod, `{"gw":{"lcr_id":1,"gw_id":3,"gw_name":"a","state":1,"defunct_until":0}}`, "gateway_state 1,3,a 2\ngateway_up 1,3,a 1\ngateways 1 1\n", ""},
		{"no states", lcrMethod, `{"gw":[{"lcr_id":1,"gw_id":3,"gw_name":"a","state":"odd"}]}`, "", "lcr.dump_gws: no gateway has a known state"},

		{"up", keepaliveMethod, `{"uri":"sip:a","owner":"_params","last checked":"Mon Nov 23 04:05:01 2026\n","last up":"Mon Nov 23 04:05:01 2026\n","last down":"Thu Jan  1 01:00:00 1970\n","state":1}`,
			"destination_state sip:a,_params,0 1\ndestination_up sip:a,_params,0 1\ndestination_last_checked_timestamp_seconds sip:a,_params,0 T+1\ndestination_last_up_timestamp_seconds sip:a,_params,0 T+1\n", ""},
		{"up, swapped as by 5.6.3", keepaliveMethod, `{"uri":"sip:a","owner":"_params","last checked":"Mon Nov 23 04:05:02 2026\n","last up":"Mon Nov 23 04:05:01 2026\n","last down":"Mon Nov 23 04:05:02 2026\n","state":1}`,
			"destination_state sip:a,_params,0 1\ndestination_up sip:a,_params,0 1\ndestination_last_checked_timestamp_seconds sip:a,_params,0 T+2\ndestination_last_up_timestamp_seconds sip:a,_params,0 T+2\ndestination_last_down_timestamp_seconds sip:a,_params,0 T+1\n", ""},
		{"down", keepaliveMethod, `{"uri":"sip:a","owner":"x","last checked":"Mon Nov 23 04:05:03 2026\n","last up":"Mon Nov 23 04:05:01 2026\n","last down":"Mon Nov 23 04:05:02 2026\n","state":2}`,
			"destination_state sip:a,x,0 2\ndestination_up sip:a,x,0 0\ndestination_last_checked_timestamp_seconds sip:a,x,0 T+3\ndestination_last_down_timestamp_seconds sip:a,x,0 T+2\ndestination_last_up_timestamp_seconds sip:a,x,0 T+1\n", ""},
		{"not yet checked, and a possible list", keepaliveMethod, `[{"uri":"sip:a","owner":"x","last checked":"Wed Dec 31 19:00:00 1969","last up":"?","last down":null,"state":0},{"uri":"sip:a","owner":"x","state":0}]`,
			"destination_state sip:a,x,0 0\ndestination_state sip:a,x,1 0\n", ""},
		{"an unknown state", keepaliveMethod, `{"uri":"sip:a","owner":"x","state":9}`, "", "keepalive.list: no destination has a known state"},

		{"registered, disabled, running, failed", regDumpMethod, `[{"l_uuid":"a",` + registered + `},{"l_uuid":"b","expires":360,"flags":1,"diff_expires":-1795406706,"r_domain":"x","auth_proxy":"sip:me:pw@192.0.2.1:5080;transport=tls"},{"l_uuid":"c","expires":60,"flags":26,"diff_expires":19},{"l_uuid":"d","expires":60,"flags":20,"diff_expires":-5}]`,
			"up a 1\nenabled a 1\nongoing a 0\nauth_sent a 0\nexpires_in_seconds a 250\nexpires_seconds a 300\ninfo a,example.com, 1\n" +
				"up b 0\nenabled b 0\nongoing b 0\nauth_sent b 0\nexpires_seconds b 360\ninfo b,x,sip:192.0.2.1:5080;transport=tls 1\n" +
				"up c 0\nenabled c 1\nongoing c 1\nauth_sent c 1\nexpires_seconds c 60\ninfo c,, 1\n" +
				"up d 0\nenabled d 1\nongoing d 0\nauth_sent d 0\nexpires_seconds d 60\ninfo d,, 1\n", ""},
		{"uac without a table of registrations", regDumpMethod, "fault: Not enabled", "", ErrNoData.Error()},
		{"renamed fields", regDumpMethod, `[{"uuid":"a","state":"up"}]`, "info ,, 1\n", "uac.reg_dump: no registration has flags that are known"},

		{"sockets", "core.sockets_list", `[{"socket":{"proto":"udp","address":"127.0.0.1","ipaddress":"127.0.0.1","port":"5060","mcast":"no"}},{"socket":{"proto":"tls","address":"::1","port":"5061"}}]`,
			"listen_socket_info udp,127.0.0.1,5060 1\nlisten_socket_info tls,::1,5061 1\n", ""},
	} {
		t.Run(tc.method+" "+tc.name, func(t *testing.T) {
			c := peerLists()[tc.method]
			got, err := emitted(t, c, withClock(map[string]string{tc.method: tc.reply}))
			prefix, _, _ := strings.Cut(tc.method, ".")
			if tc.method == regDumpMethod {
				prefix += "_registration"
			}
			if want := prefixed(prefix+"_", tc.want); timesFrom(got) != want {
				t.Errorf("got\n%swant\n%s", timesFrom(got), want)
			}
			if text := fmt.Sprint(err); (err != nil) != (tc.err != "") || !strings.Contains(text, tc.err) {
				t.Errorf("error %q, want %q", text, tc.err)
			}
		})
	}
}

// timesFrom replaces times by seconds after 04:05:00 on the day of withClock, because the
// zone depends on when the test runs.
func timesFrom(samples string) string {
	offset := ZoneOffset(time.Date(2026, 11, 23, 4, 5, 5, 0, time.UTC), float64(time.Now().Unix()))
	minute := time.Date(2026, 11, 23, 4, 5, 0, 0, time.UTC).Unix() + int64(offset)
	for second := range int64(10) {
		samples = strings.ReplaceAll(samples, fmt.Sprintf(" %v\n", float64(minute+second)), fmt.Sprintf(" T+%d\n", second))
	}
	return samples
}

// An empty reply, in any of the shapes that Kamailio uses, is not an error and creates no
// samples.
func TestEmptyPeerLists(t *testing.T) {
	for method, c := range peerLists() {
		for _, reply := range []string{`[]`, `{}`, `""`} {
			got, err := emitted(t, c, withClock(map[string]string{method: reply}))
			if want := map[string]string{"dmq.list_nodes": "dmq_nodes 0\n"}[method]; err != nil || got != want {
				t.Errorf("%s answers %s: %q, %v", method, reply, got, err)
			}
		}
	}
}

// 5,000 rows of each list, with repeated names, odd names, and odd numbers, are all
// counted, although the rows are read one by one.
func TestLongPeerLists(t *testing.T) {
	rows := func(row func(i int) string) string {
		var all []string
		for i := range 5000 {
			all = append(all, row(i/2))
		}
		return "[" + strings.Join(all, ",") + "]"
	}
	for _, tc := range []struct {
		method string
		row    func(i int) string
		metric string
		want   int
	}{
		{"rtpengine.show", func(i int) string { return node(fmt.Sprint("udp:", i), i%3, `"active":true`) }, "rtpengine_node_up", 5000},
		{"rtpproxy.list", func(i int) string { return fmt.Sprintf(`{"setid":-1,"url":"udp:%d","disabled":0}`, i) }, "rtpproxy_node_up", 5000},
		{"dmq.list_nodes", func(i int) string { return fmt.Sprintf(`{"host":%s,"port":"%d","status":"active","local":0}`, odd5, i) }, "dmq_node_up", 5000},
		{"pkg.stats", func(i int) string { return fmt.Sprintf(`{"desc":"p %d","real_used":%d}`, i, farKept) }, "pkg_real_used_bytes", 5000},
		{regDumpMethod, func(i int) string { return fmt.Sprintf(`{"l_uuid":"%d",%s}`, i, registered) }, "uac_registration_up", 2500},
	} {
		got, err := emitted(t, peerLists()[tc.method], withClock(map[string]string{tc.method: rows(tc.row)}))
		if n := strings.Count(got, tc.metric+" "); n != tc.want || err != nil {
			t.Errorf("%s: %d of %s, want %d (%v)", tc.method, n, tc.metric, tc.want, err)
		}
	}
	got, err := emitted(t, peerLists()[tlsListMethod], map[string]string{tlsListMethod: rows(func(int) string { return `{"cipher":"x TLSv1.3","state":"established"}` })})
	if want := "tls_connections_by_state established 5000\ntls_connections_by_version TLSv1.3 5000\n"; got != want || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	gateways := rows(func(i int) string { return fmt.Sprintf(`{"lcr_id":1,"gw_id":%d,"gw_name":"x","state":0}`, i) })
	got, err = emitted(t, peerLists()[lcrMethod], withClock(map[string]string{lcrMethod: `{"gw":` + gateways + `}`}))
	if !strings.Contains(got, "lcr_gateways 1 5000\n") || err != nil {
		t.Errorf("no 5,000 gateways: %v", err)
	}
}

// Whatever happens to the reply, the passwords in it never leave the parser, neither in
// samples nor in errors.
func TestPasswordsAreDropped(t *testing.T) {
	const password, ha1 = "hunter2-planted", "0123456789abcdef-planted"
	row := fmt.Sprintf(`{"l_uuid":"a","l_username":"u","auth_password":%q,"auth_ha1":%q,%s}`, password, ha1, registered)
	whole := `{"jsonrpc":"2.0","result":[` + row + `,` + row + `],"id":1}`
	replies := map[string]string{
		"whole": whole, "fault": `{"jsonrpc":"2.0","error":{"code":500,"message":"Internal error adding item"},"id":1}`,
		"renamed fields": strings.NewReplacer("flags", "fl", "expires", "ex").Replace(whole),
		"no list":        `{"jsonrpc":"2.0","result":` + row + `,"id":1}`,
		"a text":         `{"jsonrpc":"2.0","result":"` + password + `","id":1}`,
		"garbage":        strings.Replace(whole, `"auth_ha1":`, "\x00\x01"+password, 1),
		"no quotes":      strings.Replace(whole, `"`+password+`"`, password, 1),
		"deep":           `{"jsonrpc":"2.0","result":[` + strings.Repeat(`{"auth_password":[`, 200) + `"` + password + `"`,
		"as a key":       strings.Replace(whole, `"l_uuid"`, `"`+password+`"`, 1),
		"twice":          strings.Replace(whole, `"l_uuid"`, `"auth_password":"`+password+`","auth_password"`, 1),
	}
	for cut := range len(whole) {
		if cut%7 == 0 {
			replies[fmt.Sprint("cut off at ", cut)] = whole[:cut]
		}
	}
	for name, reply := range replies {
		got, err := emittedRaw(t, uacRegistrations{}, regDumpMethod, reply)
		for _, secret := range []string{password, ha1, "planted"} {
			if strings.Contains(got, secret) || strings.Contains(fmt.Sprintf("%v %+v", err, err), secret) {
				t.Errorf("%s: the password is in %q, %v", name, got, err)
			}
		}
		if name == "whole" && (err != nil || !strings.Contains(got, "uac_registration_up a 1\n")) {
			t.Errorf("a whole reply: %q, %v", got, err)
		}
	}
	for _, field := range registrationRows.Fields {
		if strings.Contains(field, "auth_p") && field != "auth_proxy" || strings.Contains(field, "ha1") {
			t.Errorf("%s is kept", field)
		}
	}
}

func TestCfgVariables(t *testing.T) {
	c := cfgVariables{names: []string{"core.debug", "tcp_conn[1].x.y"}}
	for _, tc := range []struct{ name, reply, want, err string }{
		{"a number", "-3", "cfg_value core,debug -3\ncfg_value tcp_conn[1],x.y -3\n", ""},
		{"not there", "fault: Failed to get the variable", "", "setting core.debug: cfg.get: kamailio answered error 500: Failed to get the variable"},
		{"a string, which may be a secret", `"12345"`, "", "setting core.debug is not a number; remove it from --collector.cfg.variables"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := emitted(t, c, map[string]string{cfgMethod: tc.reply})
			if got != tc.want {
				t.Errorf("got\n%swant\n%s", got, tc.want)
			}
			if text := fmt.Sprint(err); text != tc.err && (err != nil || tc.err != "") {
				t.Errorf("error %q, want %q", text, tc.err)
			}
		})
	}
	if got, err := emitted(t, cfgVariables{}, map[string]string{cfgMethod: "1"}); got != "" || err != nil {
		t.Errorf("without a variable: %q, %v", got, err)
	}
}

// keepalive.list can crash versions before 5.5 (keepalive_mod.c).
func TestKeepaliveIsRefusedBefore55(t *testing.T) {
	for version, refused := range map[string]bool{"5.1.9": true, "5.4.9": true, "5.5.0": false, "5.6.3": false, "6.0.1": false} {
		replies := withClock(map[string]string{keepaliveMethod: "{}"})
		replies["core.version"] = `"kamailio ` + version + ` (x86_64/linux) "`
		if _, err := emitted(t, keepalive{}, replies); (err != nil) != refused {
			t.Errorf("%s: %v", version, err)
		}
	}
}

func inOrder(lines string) string {
	return strings.Join(slices.Sorted(strings.Lines(lines)), "")
}

func TestRecordedRTPProxy(t *testing.T) {
	dirs, err := filepath.Glob("testdata/[0-9]*")
	if err != nil || len(dirs) == 0 {
		t.Fatalf("no recorded replies: %v", err)
	}
	for _, dir := range dirs {
		reply, err := os.ReadFile(filepath.Join(dir, "others", "rtpproxy.list.json"))
		if err != nil {
			t.Fatal(err)
		}
		got, err := emittedRaw(t, peerLists()["rtpproxy.list"], "rtpproxy.list", string(reply))
		// Up, dead, and disabled by an operator.
		ports := regexp.MustCompile(`:[0-9]{5}`).ReplaceAllString(got, "")
		if want := "rtpproxy_node_up 0,udp:127.0.0.1,0 1\nrtpproxy_node_weight 0,udp:127.0.0.1,0 2\nrtpproxy_node_enabled 0,udp:127.0.0.1,0 1\n" +
			"rtpproxy_node_up 0,udp:127.0.0.1,0 0\nrtpproxy_node_weight 0,udp:127.0.0.1,0 1\nrtpproxy_node_enabled 0,udp:127.0.0.1,0 1\n" +
			"rtpproxy_node_up 1,udp:127.0.0.2,0 0\nrtpproxy_node_weight 1,udp:127.0.0.2,0 1\nrtpproxy_node_enabled 1,udp:127.0.0.2,0 0\n"; inOrder(ports) != inOrder(want) || err != nil {
			t.Errorf("%s: %v\n%s", dir, err, ports)
		}
	}
}
