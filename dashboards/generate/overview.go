package generate

import "strings"

// Expressions that several dashboards share.
const (
	// up is -1 for a server whose exporter was present in the time range and is gone now,
	// because kamailio_up is gone as well then.
	up = `kamailio_up{S} or last_over_time(kamailio_up{S}[$__range]) * 0 - 1`

	// notCounted is shown if usrloc is not loaded, or keeps registrations only in the
	// database, or no client has registered since Kamailio started
	// (kamailio_usrloc_in_memory).
	notCounted = "usrloc counts none in memory"

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
		notFailed = `rate(kamailio_dialog_processed_total{S}[W]) - rate(kamailio_dialog_failed_total{S}[W])`
		replies   = `sum without (class, method) (rate(kamailio_core_replies_received_by_method_total{S,method="INVITE",class="2xx"}[W]))`
	)
	return strings.ReplaceAll(`((`+notFailed+` <= `+replies+`) or `+replies+` or `+notFailed+`)`, "[W]", window)
}

// ownErrors are the 5xx replies that Kamailio generates itself: those sent without a
// transaction, and transactions that ended with 5xx beyond the 5xx that were received.
const ownErrors = `sum by (instance) (rate(kamailio_sl_replies_sent_by_code_total{S,code=~"5.."}[R]))` +
	` + clamp_min(sum by (instance) (rate(kamailio_tm_transactions_completed_total{S,class="5xx"}[R]))` +
	` - sum by (instance) (rate(kamailio_core_replies_received_by_class_total{S,class="5xx"}[R])), 0)` +
	` or sum by (instance) (rate(kamailio_sl_replies_sent_by_code_total{S,code=~"5.."}[R]))`

// ser is the Session Establishment Ratio of RFC 6076, section 4.6, for all calls or by
// labels. Without calls it has no value.
func ser(by, window string) string {
	return `sum` + by + `(` + answered(window) + `) / (sum` + by + `(` + attempts(window) + `) > 0)`
}

var serverStates = []state{{-1, "No exporter", red}, {0, "Down", red}, {1, "Up", green}}

const serHelp = "Session Establishment Ratio (RFC 6076, 4.6; ASR is nearly the same): the share of call attempts that were answered, over 15 minutes. " +
	"Attempts are the calls for which dlg_manage() runs; calls that the script rejects before it are not included. " +
	"The value is too high if the script rejects calls without a transaction while there are re-INVITEs or lost ACKs; " +
	"with t_newtran() before the script's replies it is always exact. " +
	"Without the dialog module it is based on messages, and re-INVITEs and lost ACKs make it too high. " +
	"Busy and unanswered calls lower it too: compare it with your usual value. Empty while there are no calls."

func overview() Dashboard {
	return Dashboard{
		UID:   "kamailio-overview",
		Title: "Overview",
		About: "Whether Kamailio is up, whether calls succeed, and what is about to fail. For a wall screen.",
		Rows: []row{
			{title: "Status", panels: []panel{
				{
					kind: kindStat, width: 3, height: 5, title: "Servers",
					help: "The worst state of the selected servers. Down: the exporter runs, and Kamailio does not reply to it. No exporter: it was scraped in the selected time range and no longer is.",
					unit: words, none: "No exporter is scraped", steps: []step{{0, red}, {1, green}}, states: []state{{-1, "No exporter", red}, {0, "Down", red}, {1, "All up", green}},
					queries: []query{{expr: `min(` + up + `)`, legend: "state"}},
				},
				{
					kind: kindStat, width: 3, height: 5, title: "Calls",
					help: "Calls in progress, including ringing ones. Compare the value with last week's line below. " + callsHelp,
					unit: number, none: "dialog is not loaded", steps: always(blue),
					queries: []query{{expr: callsNow("", "", ""), legend: "calls"}},
				},
				{
					kind: kindStat, width: 3, height: 5, title: "New calls",
					help: "Call attempts per second, each counted once (dialogs begun).",
					unit: rate, none: "dialog is not loaded", steps: always(blue), places: new(2.0),
					queries: []query{{expr: `sum(rate(kamailio_dialog_processed_total{S}[R]))`, legend: "calls/s"}},
				},
				{
					kind: kindStat, width: 3, height: 5, title: "Answered", help: serHelp,
					unit: ratio, none: "No calls", steps: badBelow(0.4, 0.6), min: new(0.0), places: new(1.0),
					queries: []query{{expr: ser("", "[15m]"), legend: "SER"}},
				},
				{
					kind: kindStat, width: 3, height: 5, title: "Users",
					help: "Registered users: addresses of record with at least one contact. A sudden fall means a network, a location database or a restart without one.",
					unit: number, none: notCounted, steps: always(blue),
					queries: []query{{expr: registrations("", `kamailio_usrloc_users{S}`), legend: "users"}},
				},
				{
					kind: kindStat, width: 3, height: 5, title: "Gateways",
					help: "Destinations of dispatcher and gateways of drouting that receive no calls because they do not reply. Those that an operator disabled are not counted.",
					unit: "suffix: down", none: "None known", steps: noneMay(red),
					queries: []query{{expr: `sum(` + gatewaysDown + `)`, legend: "down"}},
				},
				{
					kind: kindStat, width: 3, height: 5, title: "Memory",
					help: "Shared memory in use, of the server with the highest share. At 100%, calls and registrations fail with 500; raise -m before that.",
					unit: ratio, none: "No server answers", steps: badAbove(0.85, 0.95), min: new(0.0), max: new(1.0), places: new(1.0),
					queries: []query{{expr: `max(` + sharedMemory + `)`, legend: "used"}},
				},
				{
					kind: kindStat, width: 3, height: 5, title: "Alerts",
					help: "Alerts named Kamailio… that are firing in this Prometheus. It also shows \"None\" if the rules are not loaded.",
					unit: "suffix: firing", none: "None", steps: noneMay(red),
					queries: []query{{expr: `count(ALERTS{A,alertname=~"Kamailio.+",alertstate="firing"})`, legend: "alerts"}},
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
						{expr: ser("", "[15m]"), legend: "SER", style: good},
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
			{title: "Trouble", panels: []panel{
				{
					kind: kindGraph, width: 8, height: 6, title: "Internal errors",
					help: "Replies 500 and other 5xx that the script or a module generated: no route, no memory, no database. For transactions, this is the number that ended with 5xx minus the 5xx that peers sent. Should be 0.",
					unit: rate, none: "sl is not loaded", steps: anyIsBad(),
					queries: []query{
						{expr: ownErrors, legend: "{{instance}}"},
					},
				},
				{
					kind: kindGraph, width: 8, height: 6, title: "Request and reply errors",
					help: "Requests and replies that Kamailio could not process or forward (core err_requests, err_replies). Should be near 0.",
					unit: rate, none: "kex is not loaded",
					queries: []query{
						{expr: `sum by (instance) (rate(kamailio_core_request_errors_total{S}[R]) + rate(kamailio_core_reply_errors_total{S}[R]))`, legend: "{{instance}}"},
					},
				},
				{
					kind: kindGraph, width: 8, height: 6, title: "Calls that expired",
					help: "Dialogs that ended by their timeout, because the BYE or the ACK was never received: packets were lost, or a peer ignores Record-Route. Should be 0.",
					unit: rate, none: "dialog is not loaded",
					queries: []query{{expr: `sum by (instance) (rate(kamailio_dialog_expired_total{S}[R]))`, legend: "{{instance}}"}},
				},
				{
					kind: kindGraph, width: 8, height: 6, title: "Failed TCP connects",
					help: "TCP and TLS connections that Kamailio failed to open: the peer is down, a firewall blocks it, or a phone is gone.",
					unit: rate, none: "No server answers, or TCP is off",
					queries: []query{{expr: `sum by (instance) (rate(kamailio_tcp_connects_failed_total{S}[R]))`, legend: "{{instance}}"}},
				},
				{
					kind: kindGraph, width: 8, height: 6, title: "Failed DNS look-ups",
					help: "DNS lookups that failed. A worker waits for each of them, so a dead resolver slows down everything.",
					unit: rate, none: "No DNS statistics",
					queries: []query{{expr: `sum by (instance) (rate(kamailio_dns_failed_requests_total{S}[R]))`, legend: "{{instance}}"}},
				},
				{
					kind: kindGraph, width: 8, height: 6, title: "Blocked addresses",
					help: "How often pike blocked a source address because it sent too many requests. These are scanners and floods, or many phones behind one address while the limit is too low.",
					unit: rate, none: "pike is not loaded",
					queries: []query{{expr: `sum by (instance) (rate(kamailio_pike_blocked_total{S}[R]))`, legend: "{{instance}}"}},
				},
			}},
		},
	}
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
		unit: number, none: "No exporter is scraped", sort: "Instance",
		queries: []query{
			{expr: `min by (job, instance) (` + up + `)`},
			{expr: `max by (job, instance) (time() - kamailio_start_time_seconds{S})`},
			{expr: `sum by (job, instance) (kamailio_dialog_local_dialogs{S} or kamailio_dialog_dialogs{S})`},
			{expr: `sum by (job, instance) (rate(kamailio_dialog_processed_total{S}[5m]))`},
			{expr: ser(" by (job, instance) ", "[15m]")},
			{expr: `sum by (job, instance) (kamailio_usrloc_registered_users{S})`},
			{expr: `max by (job, instance) (` + sharedMemory + `)`},
			{expr: `max by (job, instance) (kamailio_pkg_real_used_bytes{S} / kamailio_pkg_total_bytes{S})`},
			{expr: `sum by (job, instance) (` + gatewaysDown + `)`},
			{expr: `max by (job, instance, version) (kamailio_build_info{S})`},
		},
		columns: []column{
			{title: "Instance", label: "instance", links: true},
			{title: "Job", label: "job", width: 110},
			{title: "State", query: 0, unit: words, width: 105, states: serverStates},
			{title: "Version", label: "version", width: 75},
			{title: "Uptime", query: 1, unit: seconds, width: 95, places: new(1.0)},
			{title: "Calls", query: 2, unit: number, width: 65},
			{title: "New calls", query: 3, unit: rate, width: 90, places: new(2.0)},
			{title: "SER", query: 4, unit: ratio, width: 70, places: new(1.0), steps: badBelow(0.4, 0.6)},
			{title: "Users", query: 5, unit: number, width: 70},
			{title: "Shm used", query: 6, unit: ratio, width: 90, places: new(1.0), steps: badAbove(0.85, 0.95)},
			{title: "Pkg used", query: 7, unit: ratio, width: 90, places: new(1.0), steps: badAbove(0.8, 0.9)},
			{title: "Gw down", query: 8, unit: number, width: 85, steps: noneMay(red)},
		},
	}
}
