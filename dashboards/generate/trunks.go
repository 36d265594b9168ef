package generate

import "strings"

func trunks() Dashboard {
	return Dashboard{
		UID:   "kamailio-trunks",
		Title: "Trunks",
		About: "Which gateway or carrier fails calls, since when, and how it compares with the other trunks and with last week. Needs kamailio-trunks.cfg in kamailio.cfg (docs/trunks.md).",
		Rows: []row{
			{title: "Now", panels: []panel{
				{
					kind: kindStat, width: 8, height: 4, title: "Failing",
					help: "Trunks that fail more than half of their calls. " + trunkFailedHelp,
					unit: number, none: noTrunkCalls, steps: noneMay(red),
					queries: []query{{expr: `sum(` + trunkFailing("[5m]") + ` > bool 0.5)`, legend: "failing"}},
				},
				{
					kind: kindStat, width: 8, height: 4, title: "In use",
					help: "Trunks that got calls within the last 15 minutes.",
					unit: number, none: noTrunks, steps: always(blue),
					queries: []query{{expr: `count(` + trunkRate("attempts", "[15m]") + ` > 0)`, legend: "trunks"}},
				},
				{
					kind: kindStat, width: 8, height: 4, title: "ASR",
					help: "Answer-seizure ratio of all trunks together, over 15 minutes. " + asrHelp,
					unit: ratio, none: noTrunkCalls, steps: always(blue), min: new(0.0), places: new(1.0),
					queries: []query{{expr: `sum(` + trunkRate("answered", "[15m]") + `) / (sum(` + trunkRate("attempts", "[15m]") + `) > 0)`, legend: "ASR"}},
				},
				{
					kind: kindStat, width: 8, height: 4, title: "Lowest ASR",
					help: "The answer-seizure ratio of the trunk that answers the smallest share of its calls, over 15 minutes. " + asrHelp,
					unit: ratio, none: noTrunkCalls, steps: always(blue), min: new(0.0), places: new(1.0),
					queries: []query{{expr: `min(` + trunkShare("answered", "[15m]") + `)`, legend: "ASR"}},
				},
				{
					kind: kindStat, width: 8, height: 4, title: "Slowest",
					help: "The median post-dial delay of the trunk with the longest one, over 15 minutes. " + delayHelp,
					unit: seconds, none: "No trunk rings", steps: badAbove(3, 6), places: new(2.0),
					queries: []query{{expr: `max(` + trunkDelay("0.5", "[15m]") + `)`, legend: "delay"}},
				},
				{
					kind: kindStat, width: 8, height: 4, title: "Shortest calls",
					help: "The mean call length of the trunk with the shortest calls, of the calls that ended within the last hour. Calls of a few seconds mean that callers hear nothing and hang up.",
					unit: seconds, none: noCallLength, steps: always(blue), places: new(0.0),
					queries: []query{{expr: `min(` + trunkLength("[1h]") + `)`, legend: "length"}},
				},
			}},
			{title: "Which trunk, and since when", panels: []panel{
				{
					kind: kindTable, width: 24, height: 9, title: "Trunks, worst first",
					help: "Fails: share of the attempts of the last 5 minutes that failed; for: how long more than half have failed, at most 3 hours. ASR (answered) and NER (reached the callee) are over 15 minutes, last week's over one hour. The delays are the post-dial delays (50%: half of the calls are faster; 95%), the usual one is the 50% of last week. The length is the mean of the calls that ended within the last hour. Attempts are per minute.",
					unit: number, none: noTrunks, sort: "-Fails",
					queries: []query{
						{expr: `sort_desc(` + trunkFailing("[5m]") + `)`},
						{expr: trunkFailsFor},
						{expr: trunkShare("answered", "[15m]")},
						{expr: trunkShare("answered", "[1h] offset 1w")},
						{expr: trunkReached},
						{expr: trunkDelay("0.5", "[15m]")},
						{expr: trunkDelay("0.5", "[1h] offset 1w")},
						{expr: trunkDelay("0.95", "[15m]")},
						{expr: trunkLength("[1h]")},
						{expr: trunkRate("attempts", "[5m]") + ` * 60`},
					},
					columns: []column{
						{title: "Trunk", label: "trunk"},
						{title: "Fails", query: 0, unit: ratio, width: 75, places: new(1.0), steps: badAbove(0.1, 0.5)},
						{title: "for", query: 1, unit: seconds, width: 75, places: new(0.0), steps: always(red)},
						{title: "ASR", query: 2, unit: ratio, width: 75, places: new(1.0)},
						{title: "last week", query: 3, unit: ratio, width: 85, places: new(1.0)},
						{title: "NER", query: 4, unit: ratio, width: 75, places: new(1.0), steps: badBelow(0.5, 0.9)},
						{title: "Delay 50%", query: 5, unit: seconds, width: 90, places: new(1.0), steps: badAbove(3, 6)},
						{title: "usual delay", query: 6, unit: seconds, width: 100, places: new(1.0)},
						{title: "Length", query: 8, unit: seconds, width: 75, places: new(0.0)},
						{title: "Attempts", query: 9, unit: "suffix:/min", width: 100, places: new(1.0)},
						{title: "Delay 95%", query: 7, unit: seconds, width: 90, places: new(1.0)},
						{title: "Cluster", label: "cluster", width: 90},
						{title: "Job", label: "job", width: 100},
					},
				},
				{
					kind: kindTimeline, width: 24, height: 8, title: "Trunks that failed calls",
					help: "Trunks that failed calls within the time range, and when: some (more than 10%) or most (more than 50%). Empty while a trunk got no calls. " + trunkFailedHelp,
					unit: words, none: "No trunk failed calls", states: []state{{0, "Works", green}, {1, "Some fail", orange}, {2, "Most fail", red}},
					queries: []query{{expr: `(` + trunkFailing("[R]") + ` > bool 0.1) + (` + trunkFailing("[R]") + ` > bool 0.5)` +
						` and on (cluster, job, trunk) max_over_time((` + trunkFailing("[R]") + `)[$__range:$__rate_interval] @ end()) > 0.1`, legend: "{{trunk}} · {{job}}"}},
				},
				trunkGraph("Failed calls", "Failed attempts per second. "+trunkFailedHelp, rate, "None", "topk", "[R]", func(window string) string { return trunkFailed(window) + ` > 0` }),
				{
					kind: kindGraph, width: 12, height: 8, title: "How calls fail",
					help: "Refusals by code and timeouts per second, of all trunks. 486, 480, 600 and 603 come from the callee; 5xx from the trunk. Silent: no reply at all; ringing: rang and was not answered within fr_inv_timer.",
					unit: rate, none: "None", stacked: true,
					queries: []query{
						{expr: `sum by (code) (rate(kamailio_trunk_refused_total{S}[R])) > 0`, legend: "{{code}}"},
						{expr: `sum by (stage) (rate(kamailio_trunk_timeouts_total{S}[R])) > 0`, legend: "timeout, {{stage}}"},
					},
				},
				trunkGraph("Refusals by trunk", "Refusals per second by trunk and code.", rate, "None", "topk", "[R]",
					func(window string) string {
						return `sum by (cluster, job, trunk, code) (rate(kamailio_trunk_refused_total{S}` + window + `)) > 0`
					}),
				trunkGraph("Timeouts by trunk", "Attempts per second that Kamailio gave up without a final reply: silent (no 18x) or ringing.", rate, "None", "topk", "[R]",
					func(window string) string {
						return `sum by (cluster, job, trunk, stage) (rate(kamailio_trunk_timeouts_total{S}` + window + `)) > 0`
					}),
			}},
			{title: "Answered", panels: []panel{
				trunkGraph("Answered (ASR)", "Answer-seizure ratio over 15 minutes. "+asrHelp, ratio, noTrunkCalls, "bottomk", "[15m]",
					func(window string) string { return trunkShare("answered", window) }),
				{
					kind: kindGraph, width: 12, height: 8, title: "All trunks and last week",
					help: "Answered, canceled and failed attempts as shares of all attempts, over 15 minutes, and the answered ones of last week.",
					unit: ratio, none: noTrunkCalls, min: new(0.0),
					queries: []query{
						{expr: trunkAll(trunkRate("answered", "[15m]")), legend: "answered", style: good},
						{expr: trunkAll(trunkRate("canceled", "[15m]")), legend: "canceled", style: warning},
						{expr: trunkAll(trunkFailed("[15m]")), legend: "failed", style: bad},
						{expr: `sum(` + trunkRate("answered", "[15m] offset 1w") + `) / (sum(` + trunkRate("attempts", "[15m] offset 1w") + `) > 0)`, legend: "answered, last week", style: lastWeek},
					},
				},
				trunkGraph("Against the other trunks", "ASR of a trunk minus that of the other trunks of its job. A trunk that falls while the others stay has a fault of its own. If all fall, look at Kamailio and at the callers.", ratio, "Needs two trunks with calls", "bottomk", "[15m]", trunkAgainstOthers),
				trunkGraph("Against last week", "ASR of a trunk minus its ASR at the same time last week.", ratio, "Needs a week of data", "bottomk", "[15m]",
					func(window string) string {
						return trunkShare("answered", window) + ` - ` + trunkShare("answered", window+" offset 1w")
					}),
			}},
			{title: "Post-dial delay", panels: []panel{
				trunkGraph("Post-dial delay, median", "Half of the calls ring faster than this, over 15 minutes. "+delayHelp, seconds, "No trunk rings", "topk", "[15m]",
					func(window string) string { return trunkDelay("0.5", window) }),
				trunkGraph("Post-dial delay, 95%", "95% of the calls ring faster than this, over 15 minutes. "+delayHelp, seconds, "No trunk rings", "topk", "[15m]",
					func(window string) string { return trunkDelay("0.95", window) }),
				{
					kind: kindGraph, width: 12, height: 8, title: "Post-dial delay of all trunks",
					help: "Post-dial delay of all calls together, over 15 minutes, and the median of last week. " + delayHelp,
					unit: seconds, none: "No trunk rings",
					queries: []query{
						{expr: allDelay("0.5", "[15m]"), legend: "median", style: good},
						{expr: allDelay("0.95", "[15m]"), legend: "95%", style: warning},
						{expr: allDelay("0.5", "[15m] offset 1w"), legend: "median, last week", style: lastWeek},
					},
				},
				trunkGraph("Mean call length (ACD)", "Mean length of the calls that ended within one hour. If it falls on one trunk, its calls are cut off or have no audio.", seconds, noCallLength, "bottomk", "[1h]", trunkLength),
			}},
			{title: "Volume", panels: []panel{
				trunkGraph("Attempts by trunk", "INVITEs sent to each trunk per second. A call that fails over or forks is one attempt on each trunk.", rate, noTrunks, "topk", "[R]",
					func(window string) string { return trunkRate("attempts", window) + ` > 0` }),
				{
					kind: kindGraph, width: 12, height: 8, title: "Attempts and last week",
					help: "Attempts and answered attempts of all trunks per second, and the attempts of last week.",
					unit: rate, none: noTrunks,
					queries: []query{
						{expr: `sum(rate(kamailio_trunk_attempts_total{S}[R]))`, legend: "attempts", style: neutral},
						{expr: `sum(rate(kamailio_trunk_answered_total{S}[R]))`, legend: "answered", style: good},
						{expr: `sum(rate(kamailio_trunk_attempts_total{S}[R] offset 1w))`, legend: "attempts, last week", style: lastWeek},
					},
				},
			}},
		},
	}
}

const (
	noTrunks     = "No trunks: docs/trunks.md"
	noTrunkCalls = "No calls"
	noCallLength = "No calls ended, or TRUNKS_DIALOG is not defined"

	trunkFailedHelp = "Failed are calls that the trunk refused with 408 or 5xx, or did not reply to at all. Busy, unanswered and canceled calls did not fail."
	asrHelp         = "Busy and unanswered calls lower it: compare it with the other trunks and with last week. An attempt that fails over is one attempt on each trunk."
	delayHelp       = "The time from the INVITE to the first 18x reply, or to the 200 if there was none. It is estimated from the buckets of a histogram."
)

// trunkGraph is a graph of the ten trunks with the highest (topk) or lowest (bottomk)
// values of an expression over the whole time range.
func trunkGraph(title, help string, u unit, none, worst, window string, expr func(window string) string) panel {
	shown := expr(window)
	labels, legend := "cluster, job, trunk", "{{trunk}}"
	for _, label := range []string{"code", "stage"} {
		if strings.Contains(shown, "(cluster, job, trunk, "+label+")") {
			labels += ", " + label
			legend += " · {{" + label + "}}"
		}
	}
	return panel{
		kind: kindGraph, width: 12, height: 8, title: title, help: help + " Of many trunks, the ten worst are shown.", unit: u, none: none, legendTable: true, lowFirst: worst == "bottomk",
		queries: []query{{expr: `(` + shown + `) and on (` + labels + `) ` + worst + `(10, ` + expr("[$__range] @ end()") + `)`, legend: legend}},
	}
}

// trunkRate is how often something happens per second, by trunk.
func trunkRate(what, window string) string {
	return `sum by (cluster, job, trunk) (rate(kamailio_trunk_` + what + `_total{S}` + window + `))`
}

func trunkShare(what, window string) string {
	return trunkRate(what, window) + ` / (` + trunkRate("attempts", window) + ` > 0)`
}

// trunkFailed are the attempts per second that failed because of the trunk. Every trunk
// has the series of its timeouts; those of its refusals begin with the first one.
func trunkFailed(window string) string {
	const silent = `sum by (cluster, job, trunk) (rate(kamailio_trunk_timeouts_total{S,stage="silent"}W))`
	return strings.ReplaceAll(`(sum by (cluster, job, trunk) (rate(kamailio_trunk_refused_total{S,code=~"408|5.."}W)) + `+silent+` or `+silent+`)`, "W", window)
}

func trunkFailing(window string) string {
	return trunkFailed(window) + ` / (` + trunkRate("attempts", window) + ` > 0)`
}

// trunkAll is a rate by trunk as a fraction of the attempts of all trunks.
func trunkAll(rates string) string {
	return `sum(` + rates + `) / (sum(` + trunkRate("attempts", "[15m]") + `) > 0)`
}

// trunkDelay is a quantile of the post-dial delay. Without calls it has no value.
func trunkDelay(quantile, window string) string {
	return `histogram_quantile(` + quantile + `, sum by (cluster, job, trunk, le) (rate(kamailio_trunk_post_dial_delay_seconds_bucket{S}` + window + `)))` +
		` and sum by (cluster, job, trunk) (rate(kamailio_trunk_post_dial_delay_seconds_count{S}` + window + `)) > 0`
}

func allDelay(quantile, window string) string {
	return `histogram_quantile(` + quantile + `, sum by (le) (rate(kamailio_trunk_post_dial_delay_seconds_bucket{S}` + window + `)))` +
		` and on () sum(rate(kamailio_trunk_post_dial_delay_seconds_count{S}` + window + `)) > 0`
}

// trunkLength is the mean length of the calls that ended.
func trunkLength(window string) string {
	return trunkRate("call_duration_seconds", window) + ` / (` + trunkRate("calls_ended", window) + ` > 0)`
}

var (
	// trunkReached is the network effectiveness ratio: the callee answered, was busy or
	// away, declined, or let it ring, or the caller hung up.
	trunkReached = func() string {
		others := trunkRate("answered", "[15m]") + ` + ` + trunkRate("canceled", "[15m]") +
			` + sum by (cluster, job, trunk) (rate(kamailio_trunk_timeouts_total{S,stage="ringing"}[15m]))`
		return `(` + others + ` + sum by (cluster, job, trunk) (rate(kamailio_trunk_refused_total{S,code=~"480|486|600|603"}[15m])) or ` + others + `)` +
			` / (` + trunkRate("attempts", "[15m]") + ` > 0)`
	}()

	// trunkFailsFor is the time since most calls of a failing trunk last succeeded.
	trunkFailsFor = `(time() - max_over_time(timestamp(` + trunkFailing("[2m]") + ` <= 0.5)[3h:1m])` +
		` or time() - min_over_time(timestamp(` + trunkRate("attempts", "[2m]") + `)[3h:1m])) and ` + trunkFailing("[5m]") + ` > 0.5`
)

// trunkAgainstOthers subtracts the ratio of all trunks but this one.
func trunkAgainstOthers(window string) string {
	butThis := func(what string) string {
		all := trunkRate(what, window)
		return `(sum by (cluster, job) (` + all + `) - on (cluster, job) group_right ` + all + `)`
	}
	return trunkShare("answered", window) + ` - ` + butThis("answered") + ` / (` + butThis("attempts") + ` > 0)`
}
