package generate

import "strings"

// Expressions that several dashboards share.
const (
	// serverState is 2 for a server that works, 1 if it does not answer SIP, 0 if
	// Kamailio does not reply to its exporter, and -1 if the exporter was present in the
	// time range and is gone now (kamailio_up is gone as well then).
	serverState = `(kamailio_up{S} == 1 and on (cluster, job, instance) kamailio_sip_probe_success{S} == 0)` +
		` or kamailio_up{S} * 2 or last_over_time(kamailio_up{S}[$__range]) * 0 - 1`

	isUp = ` and on (cluster, job, instance) kamailio_up{S} == 1`

	// notCounted is shown if usrloc is not loaded, or keeps registrations only in the
	// database, or no client has registered since Kamailio started
	// (kamailio_usrloc_in_memory).
	notCounted = "usrloc counts none in memory"

	// notOnHost is shown if the collector host has nothing.
	notOnHost = "No exporter runs beside a Kamailio"

	sharedMemory = `kamailio_core_shm_real_used_bytes{S} / kamailio_core_shm_total_bytes{S}`

	// Gateways of dispatcher and drouting that get no calls, except those that an
	// operator disabled.
	gatewaysDown = `(kamailio_dispatcher_destination_up{S} == bool 0 unless kamailio_dispatcher_destination_state{S} == 3)` +
		` or (kamailio_drouting_gateway_up{S} == bool 0 unless kamailio_drouting_gateway_state{S} == 3)`
)

// attempts is the number of calls per second for each server. alerts/kamailio-rules.yml
// has the same expressions as recording rules, with explanations; a test compares their
// values.
func attempts(window string) string {
	const invites = `sum without (method) (rate(kamailio_core_requests_received_by_method_total{S,method="INVITE"}[W]))`
	return strings.ReplaceAll(`(rate(kamailio_dialog_processed_total{S}[W])`+
		` or `+invites+` - sum without (code) (rate(kamailio_sl_replies_sent_by_code_total{S,code="407"}[W]))`+
		` or `+invites+`)`, "[W]", window)
}

// answered takes the smaller of two estimates, each of which can only be too high.
func answered(window string) string {
	const (
		notFailed = `clamp_min(rate(kamailio_dialog_processed_total{S}[W]) - rate(kamailio_dialog_failed_total{S}[W]), 0)`
		replies   = `sum without (class, method) (rate(kamailio_core_replies_received_by_method_total{S,method="INVITE",class="2xx"}[W]))`
	)
	return strings.ReplaceAll(`((`+notFailed+` <= `+replies+`) or `+replies+` or `+notFailed+`)`, "[W]", window)
}

// ownErrors are the 5xx replies that Kamailio generates itself: those sent without a
// transaction, and transactions that ended with 5xx beyond the 5xx that were received.
const ownErrors = `sum by (cluster, job, instance) (rate(kamailio_sl_replies_sent_by_code_total{S,code=~"5.."}[R]))` +
	` + clamp_min(sum by (cluster, job, instance) (rate(kamailio_tm_transactions_completed_total{S,class="5xx"}[R]))` +
	` - sum by (cluster, job, instance) (rate(kamailio_core_replies_received_by_class_total{S,class="5xx"}[R])), 0)` +
	` or sum by (cluster, job, instance) (rate(kamailio_sl_replies_sent_by_code_total{S,code=~"5.."}[R]))`

// ser is the Session Establishment Ratio of RFC 6076, section 4.6, for all calls or by
// labels. Without calls it has no value.
func ser(by, window string) string {
	return `sum` + by + `(` + answered(window) + `) / (sum` + by + `(` + attempts(window) + `) > 0)`
}

var serverStates = []state{{-1, "No exporter", red}, {0, "Down", red}, {1, "No SIP answer", red}, {2, "Up", green}}

const serHelp = "Session Establishment Ratio (RFC 6076, 4.6; ASR is nearly the same): the fraction of call attempts that were answered, over 15 minutes. " +
	"Attempts are the calls for which dlg_manage() runs; calls that the script rejects before it are not included. " +
	"The value is too high if the script rejects calls without a transaction while there are re-INVITEs or lost ACKs; " +
	"with t_newtran() before the script's replies it is always exact. " +
	"Without the dialog module it is based on messages, and re-INVITEs and lost ACKs make it too high. " +
	"Busy and unanswered calls lower it too: compare it with your usual value. Empty while there are no calls."

func overview() Dashboard {
	return Dashboard{
		UID:   "kamailio-overview",
		Title: "Overview",
		About: "Whether users can call, since when not, and which part is at fault. For a wall screen.",
		Rows: []row{
			{title: "Can users call?", panels: []panel{
				{
					kind: kindStat, width: 5, height: 4, title: "Can users call?",
					help: "The worst of the parts below, without the memory. Partly: some calls or some users are affected. Unknown: nothing is scraped.",
					unit: words, none: "Unknown", states: []state{{0, "No", red}, {1, "Partly", orange}, {2, "Yes", green}},
					queries: []query{{expr: canCall, legend: "answer"}},
				},
				{
					kind: kindStat, width: 5, height: 4, title: "Everything worked",
					help: "When the answer was Yes for the last time. It looks back for three hours, in steps of 10 minutes before the last 20. The parts below show what failed since then.",
					unit: ago, none: "Not in the last 3 hours", steps: always(blue),
					queries: []query{{expr: lastGood, legend: "worked"}},
				},
				{
					kind: kindStat, width: 14, height: 4, title: "Affected", named: true,
					help: "The five worst of the parts that do not work, or do not work everywhere. " + serviceHelp,
					unit: words, none: "Unknown", steps: []step{{0, red}, {1, orange}, {2, green}},
					queries: []query{{expr: `bottomk(5, ` + affected + `)`, legend: "{{part}}"}},
				},
				{
					kind: kindTimeline, width: 24, height: 8, title: "Parts of the service", help: serviceHelp,
					unit: words, none: "No exporter is scraped", states: []state{{0, "Failed", red}, {1, "Degraded", orange}, {2, "OK", green}},
					queries: serviceQueries(),
				},
			}},
			{title: "Now", panels: []panel{
				serversDown(),
				{
					kind: kindStat, width: 6, height: 4, title: "Gateways", named: true,
					help: "Destinations of dispatcher and gateways of drouting that receive no calls because they do not reply. Those that an operator disabled are not counted.",
					unit: words, none: "None known", steps: noneMay(red),
					queries: []query{{expr: outOf(gatewaysDown, "down", "None known"), legend: "{{text}}"}},
				},
				{
					kind: kindStat, width: 6, height: 4, title: "Memory",
					help: "Shared memory in use, of the server with the highest fraction. At 100%, calls and registrations fail with 500; raise -m before that.",
					unit: ratio, none: "No server answers", steps: badAbove(0.85, 0.95), min: new(0.0), max: new(1.0), places: new(1.0),
					queries: []query{{expr: `max(` + sharedMemory + `)`, legend: "used"}},
				},
				{
					kind: kindStat, width: 6, height: 4, title: "Alerts",
					help: "Alerts named Kamailio… that are firing in this Prometheus; of a server that is down, only that. It is also empty if the rules are not loaded.",
					unit: "suffix: firing", none: "None, or no rules", steps: noneMay(red),
					queries: []query{{expr: `count(` + firing + `)`, legend: "alerts"}},
				},
				{
					kind: kindStat, width: 6, height: 4, title: "Calls",
					help: "Calls in progress, including ringing ones. " + callsHelp,
					unit: number, none: "dialog is not loaded", steps: always(blue),
					queries: []query{{expr: callsNow("", "", ""), legend: "calls"}},
				},
				{
					kind: kindStat, width: 6, height: 4, title: "New calls",
					help: "Call attempts per second over 5 minutes, each counted once (dialogs begun).",
					unit: rate, none: "dialog is not loaded", steps: always(blue), places: new(2.0),
					queries: []query{{expr: `sum(rate(kamailio_dialog_processed_total{S}[5m])` + isUp + `)`, legend: "calls/s"}},
				},
				{
					kind: kindStat, width: 6, height: 4, title: "Answered", help: serHelp,
					unit: ratio, none: "No calls", steps: badBelow(0.4, 0.6), min: new(0.0), places: new(1.0),
					queries: []query{{expr: ser("", "[15m]") + ` and on () kamailio_up{S} == 1`, legend: "SER"}},
				},
				{
					kind: kindStat, width: 6, height: 4, title: "Users",
					help: "Registered users: addresses of record with at least one contact. A sudden fall means a network, a location database or a restart without one.",
					unit: number, none: notCounted, steps: always(blue),
					queries: []query{{expr: registrations("", `kamailio_usrloc_users{S}`), legend: "users"}},
				},
			}},
			{title: "Trouble", panels: []panel{
				{
					kind: kindTable, width: 24, height: 10, title: "Firing alerts",
					help: "What is wrong, where, and since when: the alerts that are firing in this Prometheus, critical ones first. Of a server that is down, or without exporter, only this is shown; and if more than five servers have alerts, of each only the worst (the oldest of equal ones). Alerts: how many that server has. It is also empty if the rules are not loaded.",
					unit: number, none: "No alert is firing, or the rules are not loaded", sort: "-Severity", hidden: []string{"cluster", "job"},
					queries: []query{
						{expr: listed},
						{expr: `1000 * ` + firingSince + ` and ` + listed},
						{expr: `0 * (` + listed + `) + on (cluster, job, instance) group_left count by (cluster, job, instance) (` + firing + `)`},
					},
					columns: []column{
						{title: "Severity", query: 0, unit: words, width: 80, states: []state{{1, "Info", blue}, {2, "Warning", orange}, {3, "Critical", red}, {4, "Critical", red}}},
						{title: "Alert", label: "alert", width: 220},
						{title: "Instance", label: "instance"},
						{title: "About", label: "about"},
						{title: "Since", query: 1, unit: ago, width: 120},
						{title: "Alerts", query: 2, unit: number, width: 65},
					},
				},
				{
					kind: kindTable, width: 12, height: 8, title: "Nearest to a limit",
					help: "What is above 80% of its limit, the ten worst of all servers. The limits are those of the alerts: 85% of the shared memory, 80% of a process's private memory and of the TCP connections, 60% of the calls not answered, one gateway down, 5% internal errors or expired calls, 0.1 failed DNS lookups and 0.05 failed TCP connects per second, and 0.5 s for an answer to OPTIONS.",
					unit: ratio, none: "Nothing is near its limit, or no server answers", sort: "-Of its limit", hidden: []string{"cluster", "job"},
					queries: []query{{expr: `topk(10, ` + nearLimits() + `) >= 0.8`}},
					columns: []column{
						{title: "What", label: "what", width: 140},
						{title: "Instance", label: "instance"},
						{title: "Of its limit", unit: ratio, width: 95, places: new(0.0), steps: []step{{0, orange}, {1, red}}},
					},
				},
				{
					kind: kindGraph, width: 12, height: 8, title: "Errors",
					help: "What should be 0, per second: the ten worst by kind and server, without those that are 0 in the whole time range. " +
						"Internal errors: replies 5xx that the script or a module generated (no route, no memory, no database). Request and reply errors: messages that Kamailio could not process or forward. " +
						"Expired calls: their BYE or ACK was lost. Failed TCP connects: the peer is down, a firewall blocks it, or a phone is gone. Failed DNS lookups: a worker waits for each of them. " +
						"Blocked addresses: sources that pike blocked, which are scanners and floods, or many phones behind one address.",
					unit: rate, none: "No errors in this time range, or no server answers", legendTable: true,
					queries: []query{{expr: worst(`(`+union("what", serverErrors)+`)`) + ` > 0`, legend: "{{what}} · {{instance}}"}},
				},
			}},
			{title: "Traffic", panels: []panel{
				{
					kind: kindGraph, width: 12, height: 8, title: "Calls",
					help: "Calls in progress, the ringing ones among them, and the same time last week. Investigate if it deviates from last week's line in either direction.",
					unit: number, none: "dialog is not loaded",
					queries: []query{
						{expr: callsNow("", "", ""), legend: "active", style: good},
						{expr: callsNow("", `,state="connecting"`, ""), legend: "ringing", style: warning},
						{expr: callsNow("", "", " offset 1w"), legend: "active, last week", style: lastWeek},
					},
				},
				{
					kind: kindGraph, width: 12, height: 8, title: "New calls", help: "Call attempts per second, and those that were answered. Retransmissions are not counted. Failed calls ended with 300 to 699, including busy and canceled ones, but not calls that the script rejects without a transaction.",
					unit: rate, none: "dialog is not loaded",
					queries: []query{
						{expr: `sum(rate(kamailio_dialog_processed_total{S}[R]))`, legend: "attempts", style: neutral},
						{expr: `sum(` + answered("[R]") + `)`, legend: "answered", style: good},
						{expr: `sum(rate(kamailio_dialog_failed_total{S}[R]))`, legend: "failed", style: bad},
						{expr: `sum(rate(kamailio_dialog_processed_total{S}[R] offset 1w))`, legend: "attempts, last week", style: lastWeek},
					},
				},
				{
					kind: kindGraph, width: 8, height: 8, title: "Answered (SER)", help: serHelp,
					unit: ratio, none: "No calls", min: new(0.0),
					queries: []query{
						{expr: ser("", "[15m]") + ` and on () kamailio_up{S} == 1`, legend: "SER", style: good},
						{expr: ser("", "[15m] offset 1w"), legend: "last week", style: lastWeek},
					},
				},
				{
					kind: kindGraph, width: 8, height: 8, title: "Requests received",
					help: "SIP requests per second by method, including retransmissions. Many more INVITE, ACK or BYE than calls mean that messages are lost; many REGISTER or OPTIONS from few addresses are scanners.",
					unit: requests, none: "None, or kex is not loaded", stacked: true, colors: methodColors,
					queries: []query{{expr: `sum by (method) (rate(kamailio_core_requests_received_by_method_total{S}[R])) > 0`, legend: "{{method}}"}},
				},
				{
					kind: kindGraph, width: 8, height: 8, title: "Replies received",
					help: "SIP replies per second by class, including retransmissions. Most 4xx are busy, unknown numbers or challenges; 5xx and 6xx come from gateways with problems. Replies that Kamailio generates itself are not included.",
					unit: rate, none: "None, or kex is not loaded", stacked: true, colors: classColors,
					queries: []query{{expr: `sum by (class) (rate(kamailio_core_replies_received_by_class_total{S}[R])) > 0`, legend: "{{class}}"}},
				},
			}},
			{title: "Servers", panels: []panel{serverTable()}},
			{title: "What changed", panels: []panel{
				{
					kind: kindTable, width: 24, height: 7, title: "What changed last",
					help: "The last start of each Kamailio and each exporter, the last reload of the exporter's files and of Kamailio's prefix trees after it, and the last success of each action of the admin endpoint. The newest 20 are shown. Restarts and actions are also marks in the graphs.",
					unit: words, none: "No exporter is scraped", sort: "-When", hidden: []string{"action", "cluster", "job"},
					queries: []query{{expr: `topk(20, 1000 * (` + changes + `))`}},
					columns: []column{
						{title: "When", unit: ago, width: 150},
						{title: "What", label: "what"},
						{title: "Instance", label: "instance"},
					},
				},
			}},
		},
	}
}

func serviceQueries() (queries []query) {
	for _, part := range service {
		queries = append(queries, query{expr: part.expr, legend: part.name, every: "1m"})
	}
	return queries
}

// serversDown counts the servers that do not work.
func serversDown() panel {
	return panel{
		kind: kindStat, width: 6, height: 4, title: "Servers", named: true,
		help: "Servers that do not work, of all. No SIP answer: Kamailio is up, but a SIP socket does not answer the probe, so its workers hang or are all busy (needs --sip.probe). No exporter: it was scraped in the selected time range and no longer is.",
		unit: words, none: "No exporter is scraped", steps: noneMay(red),
		queries: []query{{expr: outOf(`(`+serverState+`) != bool 2`, "failing", "No exporter is scraped"), legend: "{{text}}"}},
	}
}

// firing are the alerts that fire, in the order of their severity. While a server or its
// exporter is down, its other alerts only hide that; it comes first. Kamailio's own count
// of 5xx does not name the trunk that sends them.
const (
	down   = `ALERTS{A,alertname=~"Kamailio(Exporter)?Down",alertstate="firing"}`
	firing = `((3 * ALERTS{A,alertname=~"Kamailio.+",alertstate="firing",severity="critical"} or 2 * ALERTS{A,alertname=~"Kamailio.+",alertstate="firing",severity="warning"}` +
		` or ALERTS{A,alertname=~"Kamailio.+",alertstate="firing",severity!~"critical|warning"}) unless on (cluster, job, instance) ` + down +
		` unless (ALERTS{A,alertname="KamailioInviteServerErrors",alertstate="firing"} and on (cluster, job, instance) ALERTS{A,alertname="KamailioTrunkFailsCalls",alertstate="firing"})` +
		` or 4 * ` + down + `)`
)

// listed are the alerts that fire, of which a few servers may have many, but many servers
// only one each.
var (
	listed = `(` + whichAlert(firing) + ` and on () count(count by (cluster, job, instance) (` + firing + `)) <= 5` +
		` or ` + whichAlert(firing) + ` and topk by (cluster, job, instance) (1, 1e10 * ` + whichAlert(firing) + ` - ` + firingSince + `))`
	firingSince = whichAlert(`ALERTS_FOR_STATE{A,alertname=~"Kamailio.+"} and ignoring (alertstate) ` + firing)
)

// whichAlert keeps the labels of an alert that say where and about what it is, and its
// name without "Kamailio".
func whichAlert(expr string) string {
	const about = `"set", "uri", "gateway", "carrier", "trunk", "url", "host", "uuid", "transport", "address", "server_name", "collector", "rule"`
	return `max by (cluster, job, instance, alert, about) (label_replace(label_replace(label_join(label_replace(` + expr +
		`, "set", "set $1", "set", "(.+)"), "about", " ", ` + about + `), "about", "$1", "about", " *(.*?) *"), "alert", "$1", "alertname", "Kamailio(.*)"))`
}

var (
	// serverErrors are what should be 0, per second.
	serverErrors = []labeled{
		{"internal errors", ownErrors},
		{"request and reply errors", `sum by (cluster, job, instance) (rate(kamailio_core_request_errors_total{S}[R]) + rate(kamailio_core_reply_errors_total{S}[R]))`},
		{"expired calls", `sum by (cluster, job, instance) (rate(kamailio_dialog_expired_total{S}[R]))`},
		{"failed TCP connects", `sum by (cluster, job, instance) (rate(kamailio_tcp_connects_failed_total{S}[R]))`},
		{"failed DNS lookups", `sum by (cluster, job, instance) (rate(kamailio_dns_failed_requests_total{S}[R]))`},
		{"failed database connections", `sum by (cluster, job, instance) (rate(kamailio_db_mysql_driver_errors_total{S}[R]))`},
		{"blocked addresses", `sum by (cluster, job, instance) (rate(kamailio_pike_blocked_total{S}[R]))`},
	}

	changes = union("what", []labeled{
		{"Kamailio started", `max by (cluster, job, instance) (kamailio_start_time_seconds{S})`},
		{"Exporter started", `max by (cluster, job, instance) (process_start_time_seconds{S} and on (cluster, job, instance) kamailio_exporter_build_info{S})`},
		{"Exporter's configuration reloaded", `max by (cluster, job, instance) (kamailio_exporter_config_last_reload_success_timestamp_seconds{S}) > max by (cluster, job, instance) (process_start_time_seconds{S}) + 60`},
		{"Admin endpoint's configuration reloaded", `max by (cluster, job, instance) (kamailio_exporter_admin_config_last_reload_success_timestamp_seconds{S}) > max by (cluster, job, instance) (process_start_time_seconds{S}) + 60`},
		{"Prefix tree reloaded", `max by (cluster, job, instance) (kamailio_mtree_last_reload_timestamp_seconds{S}) > max by (cluster, job, instance) (kamailio_start_time_seconds{S}) + 60`},
	}) + ` or label_replace(max by (cluster, job, instance, action) (kamailio_exporter_admin_last_success_timestamp_seconds{S} > 0), "what", "Action $1", "action", "(.*)")`
)

// nearLimits are values of each server as shares of the limits of the alerts.
func nearLimits() string {
	var all []labeled
	for _, l := range []struct{ what, expr, limit string }{
		{"shared memory", `max by (cluster, job, instance) (` + sharedMemory + `)`, "0.85"},
		{"process memory", `max by (cluster, job, instance) (kamailio_pkg_real_used_bytes{S} / kamailio_pkg_total_bytes{S})`, "0.8"},
		{"TCP connections", `max by (cluster, job, instance) (kamailio_tcp_connections{S} / (kamailio_tcp_max_connections{S} > 0))`, "0.8"},
		{"calls not answered", `(1 - ` + strings.Replace(ser(" by (cluster, job, instance) ", "[5m]"), "> 0)", "> 0.0166)", 1) + `)` + isUp, "0.6"},
		{"gateways down", `avg by (cluster, job, instance) (` + gatewaysDown + `)`, "0.5"},
		{"internal errors", `(` + strings.ReplaceAll(ownErrors, "[R]", "[5m]") + `) / (sum by (cluster, job, instance) (rate(kamailio_core_requests_received_by_method_total{S}[5m])) > 0.1)`, "0.05"},
		{"expired calls", `sum by (cluster, job, instance) (rate(kamailio_dialog_expired_total{S}[15m])) / (sum by (cluster, job, instance) (rate(kamailio_dialog_processed_total{S}[15m])) > 0.01)`, "0.05"},
		{"failed DNS lookups", `sum by (cluster, job, instance) (rate(kamailio_dns_failed_requests_total{S}[5m]))`, "0.1"},
		{"failed TCP connects", `sum by (cluster, job, instance) (rate(kamailio_tcp_connects_failed_total{S}[5m]))`, "0.05"},
		{"receive queue", `max by (cluster, job, instance) (kamailio_host_udp_queue_bytes{S} / (kamailio_host_udp_queue_limit_bytes{S} > 0))`, "0.5"},
		{"file descriptors", `max by (cluster, job, instance) (kamailio_host_process_open_fds{S}) / max by (cluster, job, instance) (kamailio_host_process_max_fds{S} > 0)`, "0.8"},
		{"answer time of SIP", `max by (cluster, job, instance) (kamailio_sip_probe_duration_seconds{S})`, "0.5"},
	} {
		all = append(all, labeled{l.what, `(` + l.expr + `) / ` + l.limit})
	}
	return union("what", all)
}

// classColors are the colors for the classes of SIP replies.
var classColors = []color{{"1xx", blue}, {"2xx", green}, {"3xx", "purple"}, {"4xx", yellow}, {"5xx", red}, {"6xx", "dark-red"}}

// methodColors are the colors for SIP methods. Methods of calls are blue.
var methodColors = []color{
	{"INVITE", blue}, {"ACK", "light-blue"}, {"BYE", "dark-blue"}, {"CANCEL", orange}, {"PRACK", "super-light-blue"},
	{"REGISTER", green}, {"OPTIONS", grey}, {"MESSAGE", yellow}, {"SUBSCRIBE", "purple"}, {"NOTIFY", "light-purple"}, {"PUBLISH", "dark-purple"},
}

// serverTable has a row for each server, with links to its dashboards.
func serverTable() panel {
	return panel{
		kind: kindTable, width: 24, height: 6, title: "Servers",
		help: "One row for each server; the links at its name lead to its other dashboards. Calls are those that the server handles itself, without replicated ones. New calls are per second over 5 minutes; SER is over 15 minutes. Shm is the shared memory, Pkg the private memory of the fullest process, Gw down the number of gateways that receive no calls.",
		unit: number, none: "No exporter is scraped", sort: "State",
		queries: []query{
			{expr: `min by (cluster, job, instance) (` + serverState + `)`},
			{expr: `max by (cluster, job, instance) (time() - kamailio_start_time_seconds{S})`},
			{expr: `sum by (cluster, job, instance) (kamailio_dialog_local_dialogs{S} or kamailio_dialog_dialogs{S})`},
			{expr: `sum by (cluster, job, instance) (rate(kamailio_dialog_processed_total{S}[5m])` + isUp + `)`},
			{expr: ser(" by (cluster, job, instance) ", "[15m]") + isUp},
			{expr: `sum by (cluster, job, instance) (kamailio_usrloc_registered_users{S})`},
			{expr: `max by (cluster, job, instance) (` + sharedMemory + `)`},
			{expr: `max by (cluster, job, instance) (kamailio_pkg_real_used_bytes{S} / kamailio_pkg_total_bytes{S})`},
			{expr: `sum by (cluster, job, instance) (` + gatewaysDown + `)`},
			{expr: `max by (cluster, job, instance, version) (kamailio_build_info{S})`},
		},
		columns: []column{
			{title: "Instance", label: "instance", links: true},
			{title: "State", query: 0, unit: words, width: 115, states: serverStates},
			{title: "Calls", query: 2, unit: number, width: 65},
			{title: "New calls", query: 3, unit: rate, width: 90, places: new(2.0)},
			{title: "SER", query: 4, unit: ratio, width: 70, places: new(1.0), steps: badBelow(0.4, 0.6)},
			{title: "Users", query: 5, unit: number, width: 70},
			{title: "Shm used", query: 6, unit: ratio, width: 90, places: new(1.0), steps: badAbove(0.85, 0.95)},
			{title: "Pkg used", query: 7, unit: ratio, width: 90, places: new(1.0), steps: badAbove(0.8, 0.9)},
			{title: "Gw down", query: 8, unit: number, width: 85, steps: noneMay(red)},
			{title: "Uptime", query: 1, unit: seconds, width: 95, places: new(1.0)},
			{title: "Version", label: "version", width: 75},
			{title: "Cluster", label: "cluster", width: 90},
			{title: "Job", label: "job", width: 110},
		},
	}
}
