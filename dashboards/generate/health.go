package generate

import (
	"fmt"
	"regexp"
	"strings"
)

// service are the parts of the service that users need. A part is 2 if it works, 1 if
// some of it works and 0 if none of it does. A part that is not in use, or of which
// nothing is known, has no value.
var service = []labeled{
	// An exporter that is gone counts as a failure, unless all are gone: then nothing is
	// known.
	{"Servers", grade(`kamailio_up{S} or last_over_time(kamailio_up{S}[$__range]) * 0 and on () kamailio_up{S}`)},
	{"SIP sockets", grade(`kamailio_sip_probe_success{S}`)},
	// Only beside Kamailio. Workers that hang handle nothing; what is dropped is lost.
	{"SIP workers", warned("PacketsDropped|ReceiveQueueNearLimit|WorkersSaturated", `(1 - max(kamailio_host_udp_stalled{S})) * (2 - (max(rate(kamailio_host_udp_dropped_total{S}[5m])) > bool 0))`)},
	// A set works while one of its gateways does. Disabled ones are not counted.
	{"Gateways", warned("DispatcherLatencyHigh", grade(`max by (cluster, job, instance, set) (kamailio_dispatcher_destination_up{S} unless kamailio_dispatcher_destination_state{S} == 3)`+
		` or max by (cluster, job, instance) (kamailio_drouting_gateway_up{S} unless kamailio_drouting_gateway_state{S} == 3)`))},
	{"Trunks", warned("TrunkFailsCalls|TrunkNoAnswers|TrunkTimesOut", grade(`(`+trunkFailing("[5m]")+` and `+trunkRate("attempts", "[5m]")+` > 0.0166) <= bool 0.5`))},
	{"Calls", warned("NoTraffic|CallsStopped|CallsNotAnswered|CallsRefused|AnswersRetransmitted|DialogsExpiring", `(`+fiveCalls+` >= bool 0.1) + (`+fiveCalls+` >= bool 0.4)`+
		` or (sum(`+attempts("[5m]")+`) == 0 and sum(`+attempts("[5m] offset 1h")+`) > 0.05)`)},
	{"Users", warned("RegistrationsDropped|RegistrationStorm", compared(registrations("", `kamailio_usrloc_users{S}`), registrations("", `kamailio_usrloc_users{S} offset 2h`)))},
	{"Media relays", grade(`max by (cluster, job, instance, set) (kamailio_rtpengine_node_up{S} unless kamailio_rtpengine_node_enabled{S} == 0)`)},
	{"Trunk registrations", grade(`kamailio_uac_registration_up{S} unless kamailio_uac_registration_enabled{S} == 0`)},
	{"Memory", `(max(` + sharedMemory + `) < bool 0.97) + (max(` + sharedMemory + `) < bool 0.85)`},
}

const serviceHelp = "Servers: Kamailio replies to its exporter. SIP sockets: they answer OPTIONS (needs --sip.probe). " +
	"SIP workers: Failed if all workers of a UDP socket hang, Degraded if the kernel drops what they do not receive in time (only if the exporter runs beside Kamailio): then gateways may seem to fail because of the server's own overload. " +
	"Gateways: each set has a gateway that replies. Media relays: each set of rtpengine has one that replies. Trunk registrations: those of Kamailio at its providers. " +
	"Trunks: at most half of the calls of each failed within 5 minutes (needs kamailio-trunks.cfg); not judged below five calls. " +
	"Calls: Degraded if fewer than 40% of them are answered within 5 minutes, Failed if fewer than 10% are, or if there are none, and there were at least 15 in 5 minutes an hour ago; not judged below five calls. " +
	"Users: Degraded below half of the users of two hours ago, Failed below 10%. " +
	"Memory: Degraded if the shared memory of a server is 85% full, Failed at 97%. " +
	"SIP workers, Gateways, Trunks, Calls and Users are also Degraded while an alert about them fires for any server. A part that is not in use is not shown."

// fiveCalls is the share of answered calls, if there are at least five.
var fiveCalls = `(sum(` + answered("[5m]") + `) / (sum(` + attempts("[5m]") + `) > 0.0166))`

// grade is 2 if all are 1, 1 if some are, and 0 if none is.
func grade(bools string) string { return `max(` + bools + `) + min(` + bools + `)` }

// compared grades a number by what it was, if that was not small.
func compared(now, before string) string {
	share := `(` + now + `) / (` + before + ` >= 20)`
	return `(` + share + ` >= bool 0.1) + (` + share + ` >= bool 0.5)`
}

// warned makes a part Degraded while one of these alerts fires, on however few of the
// servers: an alert compares a server with what is usual for it. Of a part that has no
// value, an alert is all that is known. Rates live on for minutes when nothing is scraped
// any more, and then tell nothing.
func warned(alerts, part string) string {
	return `min(label_replace(` + part + `, "by", "value", "", "")` +
		` or label_replace(clamp_max(count(ALERTS{A,alertname=~"Kamailio(` + alerts + `)",alertstate="firing"}), 1), "by", "alerts", "", "")) and on () kamailio_up{S}`
}

// canCall is the worst part, but for the last: full memory is not yet a failure of calls.
var canCall = `min(` + union("part", service[:len(service)-1]) + `)`

// lastGood is the last time, of the last three hours, at which everything worked, in
// milliseconds. The half minute makes it the present while everything works. Before the
// last 20 minutes every tenth minute must do: with 100 servers, all of them take seconds.
var lastGood = `1000 * clamp_max(` + lastTime(canCall, "20m:1m") + ` or ` + lastTime(canCall, "3h:10m") + `, time())`

func lastTime(works, window string) string {
	return `max_over_time(((` + works + ` == 2) * 0 + time() + 30)[` + window + `])`
}

// affected are the parts that do not work, by name; or "Nothing", with the value 2, or
// "Unknown", with the value -1.
var affected = `(` + union("part", service) + `) < 2` +
	` or on () label_replace(max(kamailio_up{S}) * 0 + 2, "part", "Nothing", "", "") or on () label_replace(vector(-1), "part", "Unknown", "", "")`

// labeled is an expression for [union].
type labeled struct{ name, expr string }

// union puts expressions together, with a label that distinguishes them.
func union(label string, all []labeled) string {
	var parts []string
	for _, n := range all {
		parts = append(parts, fmt.Sprintf(`label_replace(%s, "%s", "%s", "", "")`, n.expr, label, n.name))
	}
	return strings.Join(parts, " or ")
}

// outOf counts the ones among zeros and ones, as the label text: "3 of 18 down". The
// value is their number, or -1 if there is nothing to count.
func outOf(bools, what, none string) string {
	return `label_replace(label_join(count_values("n", sum(` + bools + `))` +
		` * on () group_left (of) count_values("of", count(` + bools + `))` +
		` * on () group_left sum(` + bools + `), "text", " of ", "n", "of"), "text", "$1 ` + what + `", "text", "(.*)")` +
		` or on () label_replace(vector(-1), "text", "` + none + `", "", "")`
}

var selector = regexp.MustCompile(`\{[SA][^}]*\}(\[[^\]]*\])?`)

// worst keeps the ten series that are the highest: of counters over the whole time range,
// of others at its end. topk alone would choose others at each point of a graph.
func worst(expr string) string { return `(` + expr + `) and topk(10, ` + atEnd(expr) + `)` }

// lowest keeps the ten that are the lowest.
func lowest(expr string) string { return `(` + expr + `) and bottomk(10, ` + atEnd(expr) + `)` }

// atEnd is the value of an expression at the end of the time range.
func atEnd(expr string) string {
	return selector.ReplaceAllString(strings.ReplaceAll(expr, "[R]", "[$__range]"), "$0 @ end()")
}

// worstTimes are the lines of a timeline: the ten that were up for the shortest time,
// with those that are down at its end first, and without those that are gone. labels are
// those of both expressions.
func worstTimes(state, up, labels, legend string) []query {
	return worstWorking(state, up, up, labels, legend)
}

// worstWorking is [worstTimes] of what can be up and still not work.
func worstWorking(state, up, works, labels, legend string) []query {
	by := `min by (` + labels + `) (`
	chosen := `(` + state + `) and on (` + labels + `) bottomk(10, ` + by + `sum_over_time(` + up + `[$__range] @ end())) * (` + by + atEnd(works) + `) + 0.001))`
	now := ` on (` + labels + `) (` + atEnd(works) + `) == 1`
	return []query{{expr: chosen + ` unless` + now, legend: legend}, {expr: chosen + ` and` + now, legend: legend}}
}
