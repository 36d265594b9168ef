package generate

import "strings"

func calls() Dashboard {
	return Dashboard{
		UID:   "kamailio-calls",
		Title: "Calls & SIP indicators",
		About: "How many calls there are, how they end, and the indicators of RFC 6076 that Kamailio allows to compute.",
		Rows: []row{
			{title: "Now", panels: []panel{
				{
					kind: kindStat, width: 8, height: 4, title: "In progress",
					help: "Answered calls in progress. " + callsHelp,
					unit: number, none: "dialog is not loaded", steps: always(blue),
					queries: []query{{expr: callsNow("", `,state=~"answering|ongoing"`, ""), legend: "in progress"}},
				},
				{
					kind: kindStat, width: 8, height: 4, title: "Ringing",
					help: "Ringing dialogs, with a provisional reply and no final one. If there are many more than usual, a gateway may ring without ever answering.",
					unit: number, none: "dialog is not loaded", steps: always(blue),
					queries: []query{{expr: callsNow("", `,state="connecting"`, ""), legend: "ringing"}},
				},
				{
					kind: kindStat, width: 8, height: 4, title: "SER (answered)", help: serHelp,
					unit: ratio, none: "No calls", steps: badBelow(0.4, 0.6), min: new(0.0), places: new(1.0),
					queries: []query{{expr: ser("", "[15m]"), legend: "SER"}},
				},
				{
					kind: kindStat, width: 8, height: 4, title: "SEER (reached)", help: seerHelp,
					unit: ratio, none: "No calls, or dialog or kex is not loaded", steps: badBelow(0.7, 0.85), min: new(0.0), places: new(1.0),
					queries: []query{{expr: seer, legend: "SEER"}},
				},
				{
					kind: kindStat, width: 8, height: 4, title: "Mean call length",
					help: "Calls in progress divided by calls answered per second, over the last hour (Little's law), of servers that have been scraped for an hour. It is correct while traffic is steady, and wrong for a few call lengths after it starts or stops. A sudden fall means that calls are cut off.",
					unit: seconds, none: "Needs an hour of calls", steps: always(blue), places: new(0.0),
					queries: []query{{expr: callLength, legend: "length"}},
				},
				{
					kind: kindStat, width: 8, height: 4, title: "200s per answer",
					help: answersHelp,
					unit: number, none: "No answered calls", steps: badAbove(1.3, 2), places: new(2.0),
					queries: []query{{expr: answers, legend: "200s"}},
				},
			}},
			{title: "Calls", panels: []panel{
				{
					kind: kindGraph, width: 12, height: 8, title: "Calls by state",
					help: "Calls by state: starting (INVITE sent), connecting (ringing), answering (200 without its ACK), ongoing. Answering is normally 0 or 1; more means that ACKs are lost. " + callsHelp,
					unit: number, none: "dialog is not loaded", stacked: true,
					colors:  stateColors,
					queries: []query{{expr: callsNow("state", "", ""), legend: "{{state}}"}},
				},
				{
					kind: kindGraph, width: 12, height: 8, title: "Calls and last week",
					help: "Calls in progress, including ringing ones, and the same time last week.",
					unit: number, none: "dialog is not loaded",
					queries: []query{
						{expr: callsNow("", "", ""), legend: "active", style: good},
						{expr: callsNow("", "", " offset 1w"), legend: "last week", style: lastWeek},
					},
				},
				{
					kind: kindGraph, width: 12, height: 8, title: "New calls by outcome",
					help: "Calls per second; retransmissions are not counted. Failed calls ended with 300 to 699, including busy, canceled and unanswered ones. Refused stateless are INVITEs that the script rejects without a transaction: if it does so after dlg_manage(), they count as attempts but never as failed, and answered can be too high by their number. While it is 0, answered is exact. A call counts as an attempt when it starts and as failed when it ends, so the two can differ for a moment.",
					unit: rate, none: "dialog is not loaded",
					queries: []query{
						{expr: `sum(rate(kamailio_dialog_processed_total{S}[R]))`, legend: "attempts", style: neutral},
						{expr: `sum(` + answered("[R]") + `)`, legend: "answered", style: good},
						{expr: `sum(rate(kamailio_dialog_failed_total{S}[R]))`, legend: "failed", style: bad},
						{expr: `sum(rate(kamailio_sl_acks_received_total{S}[R]))`, legend: "refused stateless", style: neutral},
						{expr: `sum(rate(kamailio_dialog_expired_total{S}[R]))`, legend: "expired", style: warning},
					},
				},
				{
					kind: kindGraph, width: 12, height: 8, title: "Attempts and last week",
					help: "Call attempts per second, and the same time last week. A value far below last week's means an upstream outage, or a holiday.",
					unit: rate, none: "dialog is not loaded",
					queries: []query{
						{expr: `sum(rate(kamailio_dialog_processed_total{S}[R]))`, legend: "attempts", style: neutral},
						{expr: `sum(rate(kamailio_dialog_processed_total{S}[R] offset 1w))`, legend: "last week", style: lastWeek},
					},
				},
			}},
			{title: "Indicators (RFC 6076)", panels: []panel{
				{
					kind: kindGraph, width: 12, height: 8, title: "SER and SEER", help: serHelp + "\n\n" + seerHelp,
					unit: ratio, none: "No calls", min: new(0.0),
					queries: []query{
						{expr: ser("", "[15m]"), legend: "SER (answered)", style: good},
						{expr: seer, legend: "SEER (reached)", style: neutral},
						{expr: ser("", "[15m] offset 1w"), legend: "SER, last week", style: lastWeek},
					},
				},
				{
					kind: kindGraph, width: 12, height: 8, title: "Cancelled calls",
					help: "CANCEL requests received, divided by call attempts: callers who hung up before an answer. A rise means long ringing, no ring tone, or an automatic dialer. Retransmitted CANCELs count again.",
					unit: ratio, none: "No calls", min: new(0.0),
					queries: []query{
						{expr: `sum(rate(kamailio_core_requests_received_by_method_total{S,method="CANCEL"}[15m])) / (sum(rate(kamailio_dialog_processed_total{S}[15m])) > 0)`, legend: "cancelled"},
					},
				},
				{
					kind: kindGraph, width: 12, height: 8, title: "Mean call length",
					help: "Calls in progress divided by calls answered per second, over one hour (Little's law). Right while traffic is steady, and not shown in the first hour.",
					unit: seconds, none: "Needs an hour of calls", min: new(0.0),
					queries: []query{{expr: callLength, legend: "mean length", style: neutral}},
				},
				{
					kind: kindGraph, width: 12, height: 8, title: "200s per answer", help: answersHelp,
					unit: number, none: "No answered calls", min: new(0.0), limits: true, steps: []step{{1.3, orange}},
					queries: []query{{expr: answers, legend: "200s per answer", style: neutral}},
				},
			}},
			{title: "Replies", panels: []panel{
				{
					kind: kindGraph, width: 12, height: 8, title: "Final replies to INVITE",
					help: "Final replies to INVITE per second, as they arrive from gateways and phones. Retransmissions are included: if ACKs are lost, 2xx is many times the number of calls. Replies that Kamailio generates itself (such as 408 or 503) are not included.",
					unit: rate, none: "None, or kex is not loaded", stacked: true, colors: classColors,
					queries: []query{{expr: `sum by (class) (rate(kamailio_core_replies_received_by_method_total{S,method="INVITE",class!="1xx"}[R])) > 0`, legend: "{{class}}"}},
				},
				{
					kind: kindGraph, width: 12, height: 8, title: "Replies by code",
					help: "Replies per second with a code that this Kamailio counts, to requests of all methods. 5.6 counts 401, 404, 407, 480, 486 and 18x only. A sudden rise of 404 or 401 means that someone guesses numbers or passwords.",
					unit: rate, none: "None, or kex is not loaded",
					queries: []query{{expr: `sum by (code) (rate(kamailio_core_replies_received_by_code_total{S}[R])) > 0`, legend: "{{code}}"}},
				},
				{
					kind: kindGraph, width: 12, height: 8, title: "Replies of Kamailio's own",
					help: "Replies sent without a transaction, per second by code: rejections by the script (403, 404, 405, 483), challenges (401, 407) and internal errors (500, 5xx). Replies of xhttp are counted as 200, including those to the exporter's RPCs over HTTP.",
					unit: rate, none: "None, or sl is not loaded",
					queries: []query{{expr: `sum by (code) (rate(kamailio_sl_replies_sent_by_code_total{S}[R])) > 0`, legend: "{{code}}"}},
				},
				{
					kind: kindGraph, width: 12, height: 8, title: "Transactions by final reply",
					help: "Transactions ended per second by the class of their final reply, for all methods, including the replies that Kamailio generated itself. The 200 to a BYE counts like the 200 to an INVITE, so that this does not show the ratio of answered calls.",
					unit: rate, none: "None, or tm is not loaded", stacked: true, colors: classColors,
					queries: []query{{expr: `sum by (class) (rate(kamailio_tm_transactions_completed_total{S}[R])) > 0`, legend: "{{class}}"}},
				},
			}},
			{title: "Long calls", panels: []panel{
				{
					kind: kindGraph, width: 12, height: 8, title: "Oldest call",
					help: "Age of the oldest dialog in each state. A call that is ongoing for many hours has usually lost its BYE, and ends by the dialog timeout. A call that is answering for more than a minute has lost its ACK.",
					unit: seconds, none: "No dialogs; or dialog is not loaded, or there are more than --collector.dialog_age.limit", colors: stateColors,
					queries: []query{{expr: `max by (state) (kamailio_dialog_oldest_dialog_seconds{S,state=~"starting|connecting|answering|ongoing"})`, legend: "{{state}}"}},
				},
				{
					kind: kindGraph, width: 12, height: 8, title: "Calls older than",
					help: "Calls in progress that have lasted at least this long. " + onceHelp,
					unit: number, none: "dialog is not loaded, or there are more dialogs than --collector.dialog_age.limit",
					queries: []query{
						{expr: eachDialogOnce("", `kamailio_dialog_dialogs_older_than{S,state="ongoing",seconds="300"}`), legend: "5 min"},
						{expr: eachDialogOnce("", `kamailio_dialog_dialogs_older_than{S,state="ongoing",seconds="1800"}`), legend: "30 min"},
						{expr: eachDialogOnce("", `kamailio_dialog_dialogs_older_than{S,state="ongoing",seconds="7200"}`), legend: "2 h"},
						{expr: eachDialogOnce("", `kamailio_dialog_dialogs_older_than{S,state="ongoing",seconds="28800"}`), legend: "8 h"},
					},
				},
				{
					kind: kindGraph, width: 24, height: 8, title: "Dialog profiles",
					help: "Dialogs in the profiles that --collector.dialog_profile.names names: calls of a customer, a trunk, a direction. " + onceHelp,
					unit: number, none: "No profile is named with --collector.dialog_profile.names", legendTable: true,
					queries: []query{{expr: eachDialogOnce("profile", `kamailio_dialog_profile_dialogs{S}`), legend: "{{profile}}"}},
				},
			}},
		},
	}
}

// stateColors are the colors for the states of dialogs.
var stateColors = []color{{"starting", blue}, {"connecting", yellow}, {"answering", red}, {"ongoing", green}}

const (
	seerHelp = "Session Establishment Effectiveness Ratio (RFC 6076, 4.7; NER is nearly the same): the fraction of attempts that reached the callee, " +
		"who answered, was busy (486), was away (480) or declined (6xx). The rest failed in the network or at a gateway. " +
		"The codes are counted for all methods and for each gateway that was tried, so that the value can be somewhat too high, even above 100%. " +
		"A 480 or 486 that the script sends itself is not included."
)

var (
	seer = `(sum(` + answered("[15m]") + `)` +
		` + sum(rate(kamailio_core_replies_received_by_code_total{S,code=~"480|486"}[15m]))` +
		` + sum(rate(kamailio_core_replies_received_by_method_total{S,method="INVITE",class="6xx"}[15m])))` +
		` / (sum(` + attempts("[15m]") + `) > 0)`

	// Little's law, for the servers that have an hour of data. In the first hour, and for
	// as long after a gap, the rate would be too low and the length too high.
	callLength = `sum((avg_over_time(kamailio_dialog_local_dialogs{S,state="ongoing"}[1h]) or avg_over_time(kamailio_dialog_dialogs{S,state="ongoing"}[1h]))` + hourOld + `)` +
		` / (sum(` + answered("[1h]") + hourOld + `) > 0)`
	hourOld = ` and on (cluster, job, instance) kamailio_up{S} offset 1h == 1`

	callsHelp = "Calls that DMQ replicates (enable_dmq) are counted once for each job, not once for each node."

	onceHelp = "Kamailio cannot distinguish replicated dialogs (enable_dmq) here: for a job that replicates, this is the highest number of any node."

	answers = `sum(rate(kamailio_core_replies_received_by_method_total{S,method="INVITE",class="2xx"}[15m]))` +
		` / (sum(rate(kamailio_core_requests_received_by_method_total{S,method="INVITE"}[15m]))` +
		` - (sum(rate(kamailio_dialog_failed_total{S}[15m])) or vector(0))` +
		` - (sum(rate(kamailio_sl_acks_received_total{S}[15m])) or vector(0)) > 0)`
)

const answersHelp = "2xx replies to INVITE, divided by the INVITEs (including re-INVITEs) that were not rejected. It is 1 if every answer arrives once. " +
	"Above 1.3, answers are retransmitted because their ACKs are lost: check the path of the ACK (Record-Route, NAT, firewall). " +
	"Below 1, INVITEs are retransmitted, dropped, or rejected before dlg_manage()."

// callsNow is the number of calls, by a label or in total. Each server knows which
// dialogs are its own (Kamailio 5.6 and later), and their sum is the number of calls. In
// a cluster that replicates, one node may know more: after a server goes down or
// restarts, no server counts its calls as its own any more.
func callsNow(by, and, offset string) string {
	with := strings.TrimPrefix(by+", ", ", ")
	all := "kamailio_dialog_dialogs{S" + and + "}" + offset
	own := "sum by (" + with + "cluster, job) (kamailio_dialog_local_dialogs{S" + and + "}" + offset + " or " + all + ")"
	most := "max by (" + with + "cluster, job) (sum by (" + with + "cluster, job, instance) (" + all + "))"
	return sumBy(by) + "(" + own + " >= " + most + " or " + most + ")"
}

// eachDialogOnce sums metrics of dialogs that do not distinguish replicated ones. With
// DMQ replication, the sum over all nodes would count each dialog at least twice.
func eachDialogOnce(by, metric string) string {
	with := strings.TrimPrefix(by+", ", ", ")
	const replicated = "on (cluster, job) (sum by (cluster, job) (kamailio_dialog_dialogs{S} and kamailio_dialog_local_dialogs{S})" +
		" > 1.5 * sum by (cluster, job) (kamailio_dialog_local_dialogs{S}))"
	return sumBy(by) + "(max by (" + with + "cluster, job) (" + metric + ") and " + replicated +
		" or sum by (" + with + "cluster, job) (" + metric + ") unless " + replicated + ")"
}

func sumBy(label string) string {
	if label == "" {
		return "sum"
	}
	return "sum by (" + label + ") "
}
