package collector

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc/kamrpctest"
)

func destination(uri, flags, more string) string {
	return fmt.Sprintf(`{"DEST":{"URI":%s,"FLAGS":%q%s}}`, uri, flags, more)
}

func list(sets ...string) string {
	return fmt.Sprintf(`{"NRSETS":%d,"RECORDS":[%s]}`, len(sets), strings.Join(sets, ","))
}

func set(id, targets string) string {
	return fmt.Sprintf(`{"SET":{"ID":%s,"TARGETS":%s}}`, id, targets)
}

// Servers that do not know the parameter of dlg.stats_active count all dialogs, with and
// without it, so their local dialogs are unknown.
func TestLocalDialogs(t *testing.T) {
	server := kamrpctest.New(t)
	server.HandleFunc("dlg.stats_active", func(r kamrpctest.Request) kamrpctest.Response {
		starting := 5 - 5*len(r.Params)
		return kamrpctest.Response{Result: fmt.Sprintf(`{"starting":%d,"connecting":0,"answering":0,"ongoing":3,"all":%d}`, starting, starting+3)}
	})
	server.Handle("stats.get_statistics", `["dialog:active_dialogs = 18446744073709551608", "dialog:processed_dialogs = 9"]`)
	methods := []string{"dlg.stats_active", "stats.get_statistics"}
	all := "dialogs starting 5\ndialogs connecting 0\ndialogs answering 0\ndialogs ongoing 3\n"
	local := "local_dialogs starting 0\nlocal_dialogs connecting 0\nlocal_dialogs answering 0\nlocal_dialogs ongoing 3\n"
	for _, tc := range []struct {
		methods []string
		want    string
	}{
		{methods, all},
		{append(methods, "core.runinfo"), all + local},
		{nil, all}, // the server's methods are unknown
	} {
		got, err := emittedFrom(t, dialogModule.Collector(), server, tc.methods)
		if want := prefixed("dialog_", tc.want+"processed_total 9\n"); got != want || err != nil {
			t.Errorf("methods %q: got\n%s%v, want\n%s", tc.methods, got, err, want)
		}
	}
}

func TestDispatcher(t *testing.T) {
	const a = `"sip:192.0.2.1"`
	for _, tc := range []struct{ name, reply, want, err string }{
		{"no sets", "fault: No Destination Sets", "sets 0\n", ""},
		{"a set without destinations", list(set("4", `[]`)), "set_destinations 4 0\nset_destinations_up 4 0\nsets 1\n", ""},
		{"one set, one destination, no lists", `{"NRSETS":1,"RECORDS":` + set("0", destination(a, "AP", "")) + `}`,
			"destination_up 0,sip:192.0.2.1,,,0 1\ndestination_state 0,sip:192.0.2.1,,,0 1\ndestination_probing 0,sip:192.0.2.1,,,0 1\nset_destinations 0 1\nset_destinations_up 0 1\nsets 1\n", ""},
		{"states", list(set("-1", "["+destination(`"a"`, "AX", "")+","+destination(`"b"`, "IP", "")+","+destination(`"c"`, "TN", "")+","+destination(`"d"`, "DX", "")+"]")),
			"destination_up -1,a,,,0 1\ndestination_state -1,a,,,0 1\ndestination_probing -1,a,,,0 0\n" +
				"destination_up -1,b,,,0 0\ndestination_state -1,b,,,0 0\ndestination_probing -1,b,,,0 1\n" +
				"destination_up -1,c,,,0 1\ndestination_state -1,c,,,0 2\ndestination_probing -1,c,,,0 0\n" +
				"destination_up -1,d,,,0 0\ndestination_state -1,d,,,0 3\ndestination_probing -1,d,,,0 0\n" +
				"set_destinations -1 4\nset_destinations_up -1 2\nsets 1\n", ""},
		{"the same URI twice in a set and in two sets", list(set("1", "["+destination(a, "A", "")+","+destination(a, "I", "")+"]"), set("2", "["+destination(a, "A", "")+"]")),
			"destination_up 1,sip:192.0.2.1,,,0 1\ndestination_state 1,sip:192.0.2.1,,,0 1\ndestination_up 1,sip:192.0.2.1,,,1 0\ndestination_state 1,sip:192.0.2.1,,,1 0\nset_destinations 1 2\nset_destinations_up 1 1\n" +
				"destination_up 2,sip:192.0.2.1,,,0 1\ndestination_state 2,sip:192.0.2.1,,,0 1\nset_destinations 2 1\nset_destinations_up 2 1\nsets 2\n", ""},
		{"a destination never measured has no latency", list(set("1", "["+destination(a, "AP", `,"LATENCY":{"AVG":0,"STD":0,"EST":0,"MAX":0,"TIMEOUT":3}`)+"]")),
			"destination_up 1,sip:192.0.2.1,,,0 1\ndestination_state 1,sip:192.0.2.1,,,0 1\ndestination_probing 1,sip:192.0.2.1,,,0 1\ndestination_ping_timeouts_total 1,sip:192.0.2.1,,,0 3\nset_destinations 1 1\nset_destinations_up 1 1\nsets 1\n", ""},
		{"everything is loaded", list(set("1", "["+destination(a, "AP", `,"PRIORITY":-5,"ATTRS":{"DUID":"x","MAXLOAD":10,"WEIGHT":50,"RWEIGHT":1,"SOCKET":"udp:192.0.2.9:5060"},"LATENCY":{"AVG":12.5,"STD":1,"EST":13,"MAX":40,"TIMEOUT":0},"RUNTIME":{"DLGLOAD":7}`)+"]")),
			"destination_up 1,sip:192.0.2.1,x,udp:192.0.2.9:5060,0 1\ndestination_state 1,sip:192.0.2.1,x,udp:192.0.2.9:5060,0 1\ndestination_probing 1,sip:192.0.2.1,x,udp:192.0.2.9:5060,0 1\ndestination_priority 1,sip:192.0.2.1,x,udp:192.0.2.9:5060,0 -5\ndestination_weight 1,sip:192.0.2.1,x,udp:192.0.2.9:5060,0 50\ndestination_relative_weight 1,sip:192.0.2.1,x,udp:192.0.2.9:5060,0 1\ndestination_max_dialogs 1,sip:192.0.2.1,x,udp:192.0.2.9:5060,0 10\ndestination_dialogs 1,sip:192.0.2.1,x,udp:192.0.2.9:5060,0 7\n" +
				"destination_latency_average_seconds 1,sip:192.0.2.1,x,udp:192.0.2.9:5060,0 0.0125\ndestination_latency_estimate_seconds 1,sip:192.0.2.1,x,udp:192.0.2.9:5060,0 0.013\ndestination_latency_stddev_seconds 1,sip:192.0.2.1,x,udp:192.0.2.9:5060,0 0.001\ndestination_latency_max_seconds 1,sip:192.0.2.1,x,udp:192.0.2.9:5060,0 0.04\ndestination_ping_timeouts_total 1,sip:192.0.2.1,x,udp:192.0.2.9:5060,0 0\nset_destinations 1 1\nset_destinations_up 1 1\nsets 1\n", ""},
		{"the same URI twice, told apart by duid, socket and sockname, in two orders", list(set("1", "["+destination(a, "A", `,"ATTRS":{"DUID":"27"}`)+","+destination(a, "I", `,"ATTRS":{"DUID":"28"}`)+","+destination(a, "T", `,"ATTRS":{"DUID":null,"SOCKET":"udp:192.0.2.9:5060"}`)+","+destination(a, "D", `,"ATTRS":{"DUID":null,"SOCKET":null,"SOCKNAME":"lan"}`)+"]"),
			set("2", "["+destination(a, "I", `,"ATTRS":{"DUID":"28"}`)+","+destination(a, "A", `,"ATTRS":{"DUID":"27"}`)+","+destination(a, "A", `,"ATTRS":{"DUID":"27"}`)+"]")),
			"destination_up 1,sip:192.0.2.1,27,,0 1\ndestination_state 1,sip:192.0.2.1,27,,0 1\ndestination_up 1,sip:192.0.2.1,28,,0 0\ndestination_state 1,sip:192.0.2.1,28,,0 0\n" +
				"destination_up 1,sip:192.0.2.1,,udp:192.0.2.9:5060,0 1\ndestination_state 1,sip:192.0.2.1,,udp:192.0.2.9:5060,0 2\ndestination_up 1,sip:192.0.2.1,,lan,0 0\ndestination_state 1,sip:192.0.2.1,,lan,0 3\nset_destinations 1 4\nset_destinations_up 1 2\n" +
				"destination_up 2,sip:192.0.2.1,28,,0 0\ndestination_state 2,sip:192.0.2.1,28,,0 0\ndestination_up 2,sip:192.0.2.1,27,,0 1\ndestination_state 2,sip:192.0.2.1,27,,0 1\ndestination_up 2,sip:192.0.2.1,27,,1 1\ndestination_state 2,sip:192.0.2.1,27,,1 1\nset_destinations 2 3\nset_destinations_up 2 2\nsets 2\n", ""},
		{"odd URIs", list(set("1", "["+destination(`"sip:[2001:db8::1]:5060"`, "A", "")+","+destination(`"sip:\"x\"\n@y"`, "A", "")+","+destination("\"sip:Z\xfcrich\"", "A", "")+"]")),
			"destination_up 1,sip:[2001:db8::1]:5060,,,0 1\ndestination_state 1,sip:[2001:db8::1]:5060,,,0 1\ndestination_up 1,sip:\"x\"\n@y,,,0 1\ndestination_state 1,sip:\"x\"\n@y,,,0 1\ndestination_up 1,sip:Z\\xfcrich,,,0 1\ndestination_state 1,sip:Z\\xfcrich,,,0 1\nset_destinations 1 3\nset_destinations_up 1 3\nsets 1\n", ""},
		{"an unknown state costs only itself", list(set("1", "["+destination(a, "Z", "")+","+destination(`"b"`, "A", "")+"]")),
			"destination_up 1,b,,,0 1\ndestination_state 1,b,,,0 1\nset_destinations 1 2\nset_destinations_up 1 1\nsets 1\n", ""},
		{"unknown states only", list(set("1", "["+destination(a, "Z", "")+"]")), "set_destinations 1 1\nset_destinations_up 1 0\n", "dispatcher.list: no destination has FLAGS that are known; this Kamailio may be newer than the exporter"},
		{"another shape", `{"SETS":[]}`, "", "dispatcher.list via"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := emitted(t, dispatcher{}, map[string]string{"dispatcher.list": tc.reply})
			if want := prefixed("dispatcher_", tc.want); got != want {
				t.Errorf("got\n%swant\n%s", got, want)
			}
			if text := fmt.Sprint(err); (err != nil) != (tc.err != "") || !strings.Contains(text, tc.err) {
				t.Errorf("error %q, want %q", text, tc.err)
			}
		})
	}
}

// prefixed puts the prefix before every line that starts a sample: a label may contain a
// line break.
func prefixed(prefix, lines string) string {
	var out strings.Builder
	for line := range strings.SplitAfterSeq(lines, "\n") {
		if line != "" && !strings.HasPrefix(line, "@") {
			out.WriteString(prefix)
		}
		out.WriteString(line)
	}
	return out.String()
}

func TestDispatcherOf5000Destinations(t *testing.T) {
	var targets []string
	for i := range 5000 {
		targets = append(targets, destination(fmt.Sprintf(`"sip:10.0.%d.%d"`, i/250, i%250), "AP", `,"PRIORITY":1`))
	}
	got, err := emitted(t, dispatcher{}, map[string]string{"dispatcher.list": list(set("1", "["+strings.Join(targets, ",")+"]"))})
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(got, "destination_up "); n != 5000 {
		t.Errorf("%d destinations", n)
	}
	if !strings.Contains(got, "dispatcher_set_destinations_up 1 5000\n") {
		t.Error("the set does not have 5000 destinations up")
	}
}

func TestDrouting(t *testing.T) {
	for _, tc := range []struct{ name, gateways, carriers, want, err string }{
		{"as the include answers",
			`{"Gateways":[{"ID":"1","IP":"192.0.2.1:5060","State":"Active","Type":1},{"ID":"2","IP":"192.0.2.2","State":"Inactive","Type":0}]}`,
			`{"Carriers":[{"ID":"1","Enabled":"yes"},{"ID":"2","Enabled":"no"}]}`,
			"gateway_state 1,192.0.2.1:5060 1\ngateway_up 1,192.0.2.1:5060 1\ngateway_type 1,192.0.2.1:5060 1\ngateway_state 2,192.0.2.2 0\ngateway_up 2,192.0.2.2 0\ngateway_type 2,192.0.2.2 0\ncarrier_up 1 1\ncarrier_up 2 0\n", ""},
		{"different words", `[{"GWID":"a","ADDRESS":"x","STATE":"Probing"},{"GWID":"b","ADDRESS":"y","STATE":"Disabled MI"}]`, "",
			"gateway_state a,x 2\ngateway_up a,x 0\ngateway_state b,y 3\ngateway_up b,y 0\n", ""},
		{"no gateways", `{"Gateways":[]}`, "", "", ""},
		{"unknown states", `{"Gateways":[{"ID":"1","IP":"x","State":"Sleeping"}]}`, "", "", "drouting.gw_status: no gateway has a known state"},
		{"no server answers", "", "", "", ErrNoData.Error()},
	} {
		t.Run(tc.name, func(t *testing.T) {
			replies := map[string]string{"drouting.reload": "{}"}
			if tc.gateways != "" {
				replies[gwStatusMethod] = tc.gateways
			}
			if tc.carriers != "" {
				replies[carrierStatusMethod] = tc.carriers
			}
			got, err := emitted(t, drouting{}, replies)
			if want := prefixed("drouting_", tc.want); got != want {
				t.Errorf("got\n%swant\n%s", got, want)
			}
			if text := fmt.Sprint(err); text != tc.err && (err != nil || tc.err != "") {
				t.Errorf("error %q, want %q", text, tc.err)
			}
		})
	}
}

func TestPike(t *testing.T) {
	const two = `{"max_hits":30,"list":[{"ip_addr":"127.0.0.2","leaf_hits_curr":79,"status":"HOT"},{"ip_addr":"::1","leaf_hits_curr":37,"status":"HOT"}],"number_of_rows":2}`
	for _, tc := range []struct {
		name, reply string
		addresses   int
		want        string
	}{
		{"none", `{"max_hits":30,"list":[],"number_of_rows":0}`, 9, "hot_addresses 0\nmax_requests 30\n"},
		{"addresses are not shown by default", two, 0, "hot_addresses 2\nmax_requests 30\n"},
		{"up to a number", two, 1, "address_requests 127.0.0.2 79\nhot_addresses 2\nmax_requests 30\n"},
		{"one row without its list", `{"max_hits":30,"list":{"ip_addr":"::1","leaf_hits_curr":37,"status":"HOT"}}`, 9, "address_requests ::1 37\nhot_addresses 1\nmax_requests 30\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := emitted(t, newPike(tc.addresses, listLimits{}), map[string]string{pikeMethod: tc.reply})
			if err != nil {
				t.Fatal(err)
			}
			if want := prefixed("pike_", tc.want); got != want {
				t.Errorf("got\n%swant\n%s", got, want)
			}
		})
	}
	if got, err := emitted(t, newPike(0, listLimits{}), map[string]string{pikeMethod: `{"max_hits":30,"rows":[]}`}); err == nil {
		t.Errorf("another shape is no error: %q", got)
	}
}

func TestDialogProfiles(t *testing.T) {
	server := kamrpctest.New(t)
	server.HandleFunc("dlg.profile_get_size", func(r kamrpctest.Request) kamrpctest.Response {
		return kamrpctest.Response{Result: map[string]string{"[a]": "23", "[a x:y z]": "7"}[fmt.Sprint(r.Params)]}
	})
	got, err := emittedFrom(t, dialogProfiles{[]string{"a", "a:x:y z"}}, server, []string{"dlg.profile_get_size"})
	if want := "dialog_profile_dialogs a 23\ndialog_profile_value_dialogs a,x:y z 7\n"; got != want || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
}

func contact(fields string) string { return `{"Contact":{` + fields + `}}` }

func dump(contacts ...string) string {
	return `{"Domains":[{"Domain":{"Domain":"location","AoRs":[{"Info":{"AoR":"a","Contacts":[` + strings.Join(contacts, ",") + `]}}]}}]}`
}

func TestUsrlocContacts(t *testing.T) {
	for _, tc := range []struct{ name, reply, want string }{
		{"none", `{"Domains":[{"Domain":{"Domain":"location","AoRs":[]}}]}`, "contacts_by_lifetime location,0-60 0\ncontacts_by_lifetime location,60-300 0\ncontacts_by_lifetime location,300-1800 0\ncontacts_by_lifetime location,1800-3600 0\ncontacts_by_lifetime location,3600- 0\n"},
		{"no domains", `{"Domains":[]}`, ""},
		{"several", dump(
			contact(`"Socket":"udp:192.0.2.1:5060","User-Agent":"Yealink SIP-T46S 66.85.0.5","State":"CS_NEW","Expires":59`),
			contact(`"Socket":"TLS:192.0.2.1:5061","User-Agent":"yealink t42","State":"CS_SYNC","Expires":3600`),
			contact(`"Address":"sip:a@b;transport=ws","User-Agent":"Something","State":"CS_DIRTY","Expires":"permanent"`),
			contact(`"Address":"sips:a@b","User-Agent":"","State":"CS_ODD","Expires":"expired"`),
			contact(`"Address":"sip:a@b","Expires":-5`),
		), "contacts_by_transport location,udp 2\ncontacts_by_transport location,tls 2\ncontacts_by_transport location,ws 1\n" +
			"contacts_by_user_agent location,Yealink 2\ncontacts_by_user_agent location,other 3\n" +
			"contacts_by_state location,new 1\ncontacts_by_state location,sync 1\ncontacts_by_state location,dirty 1\ncontacts_by_state location,other 2\n" +
			"contacts_by_lifetime location,0-60 1\ncontacts_by_lifetime location,60-300 0\ncontacts_by_lifetime location,300-1800 0\ncontacts_by_lifetime location,1800-3600 0\ncontacts_by_lifetime location,3600- 1\ncontacts_by_lifetime location,permanent 1\ncontacts_by_lifetime location,expired 2\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := emitted(t, usrlocContacts{limit: 1000}, map[string]string{dumpMethod: tc.reply, statisticsMethod: `["usrloc:location_contacts = 5"]`})
			if err != nil {
				t.Fatal(err)
			}
			if want := prefixed("usrloc_", tc.want); got != want {
				t.Errorf("got\n%swant\n%s", got, want)
			}
		})
	}
}

func TestDialogAges(t *testing.T) {
	// Kamailio's clock is its start plus uptime: 04:05:05 on 23 Nov 2026, which differs
	// from the clock of this machine.
	const uptime = `{"now":"Mon Nov 23 04:05:05 2026","up_since":"Mon Nov 23 04:04:35 2026","uptime":30}`
	v := kamrpc.ObjectValue([]kamrpc.Member{
		{Name: "up_since", Value: kamrpc.StringValue("Mon Nov 23 04:04:35 2026")},
		{Name: "uptime", Value: kamrpc.StringValue("30")},
	})
	start, _ := startTime(v, time.Now())
	now := int(start) + 30
	got, err := emitted(t, dialogAges{limit: 10}, map[string]string{
		uptimeMethod: uptime,
		briefingMethod: fmt.Sprintf(`[{"h_entry":1,"h_id":2,"state":4,"start_ts":%d,"init_ts":%d},{"state":4,"start_ts":%d,"init_ts":1},{"state":2,"start_ts":0,"init_ts":%d},{"state":4},{"state":9,"start_ts":%d}]`,
			now-7200, now-7210, now-59, now-20, now+5),
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"dialog_oldest_dialog_seconds connecting 20\n", "dialog_oldest_dialog_seconds ongoing 7200\n", "dialog_oldest_dialog_seconds other 0\n",
		"dialog_dialogs_older_than ongoing,0 2\n", "dialog_dialogs_older_than ongoing,60 1\n", "dialog_dialogs_older_than ongoing,7200 1\n", "dialog_dialogs_older_than ongoing,14400 0\n",
		"dialog_dialogs_older_than connecting,0 1\n", "dialog_dialogs_older_than connecting,60 0\n", "dialog_dialogs_older_than answering,0 0\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %sin\n%s", want, got)
		}
	}
	if strings.Contains(got, "oldest_dialog_seconds answering") || strings.Contains(got, "deleted") {
		t.Errorf("an age of no dialog:\n%s", got)
	}
}

// If core.modules is not listed, nothing is known about dmq_usrloc.
func TestDMQUsrlocLoaded(t *testing.T) {
	for modules, want := range map[string]string{
		`["dmq","tm"]`:              "nodes 0\nusrloc_loaded 0\n",
		`["dmq_usrloc","dmq","tm"]`: "nodes 0\nusrloc_loaded 1\n",
		"":                          "nodes 0\n",
	} {
		replies := map[string]string{"dmq.list_nodes": `[]`}
		if modules != "" {
			replies[modulesMethod] = modules
		}
		got, err := emitted(t, dmqModule.Collector(), replies)
		if want := prefixed("dmq_", want); got != want || err != nil {
			t.Errorf("%s: got\n%s%v, want\n%s", modules, got, err, want)
		}
	}
}
