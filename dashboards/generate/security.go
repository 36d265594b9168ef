package generate

import "strings"

func security() Dashboard {
	return Dashboard{
		UID:   "kamailio-security",
		Title: "Registrations & security",
		About: "Registrations, refused requests, and signs of attacks.",
		Rows: []row{
			{title: "Registrations", panels: []panel{
				{
					kind: kindStat, width: 6, height: 4, title: "Registered users",
					help: "Addresses of record with at least one contact. " + usersHelp,
					unit: number, none: notCounted, steps: always(blue),
					queries: []query{{expr: registrations("", `kamailio_usrloc_users{S}`), legend: "users"}},
				},
				{
					kind: kindStat, width: 6, height: 4, title: "Contacts for each user",
					help: "Registered contacts by registered users. A rise without new users means that phones change their address without removing the old contact, often behind a NAT.",
					unit: number, none: notCounted + ", or no user is registered", steps: badAbove(3, 6), places: new(2.0),
					queries: []query{{expr: registrations("", `kamailio_usrloc_contacts{S}`) + " / (" + registrations("", `kamailio_usrloc_users{S}`) + " > 0)", legend: "contacts"}},
				},
				{
					kind: kindStat, width: 6, height: 4, title: "Registrations refused",
					help: "Fraction of registrations that save() rejected, over 15 minutes, because of too many contacts or a failing database. Rejections by the script before save() are not included.",
					unit: ratio, none: "registrar is not loaded, or no user registers", steps: badAbove(0.05, 0.2), places: new(1.0),
					queries: []query{{expr: refused, legend: "refused"}},
				},
				{
					kind: kindStat, width: 6, height: 4, title: "Blocked addresses",
					help: "Source addresses that are currently over pike's limit.",
					unit: number, none: "pike is not loaded", steps: anyIsBad(),
					queries: []query{{expr: `sum(kamailio_pike_hot_addresses{S})`, legend: "addresses"}},
				},
				{
					kind: kindGraph, width: 12, height: 8, title: "Registered users",
					help: "Registered users by domain (location table), and all of them last week. A sharp fall means a network outage, or a restart without a database; a sharp rise after it means that all phones register again at once. " + usersHelp,
					unit: number, none: notCounted,
					queries: []query{
						{expr: registrations("domain", `kamailio_usrloc_users{S}`), legend: "{{domain}}"},
						{expr: registrations("", `kamailio_usrloc_users{S} offset 1w`), legend: "all, last week", style: lastWeek},
					},
				},
				{
					kind: kindGraph, width: 12, height: 8, title: "Contacts",
					help: "Registered contacts by domain, and all of them last week. A user with two phones has two contacts. " + usersHelp,
					unit: number, none: notCounted,
					queries: []query{
						{expr: registrations("domain", `kamailio_usrloc_contacts{S}`), legend: "{{domain}}"},
						{expr: registrations("", `kamailio_usrloc_contacts{S} offset 1w`), legend: "all, last week", style: lastWeek},
					},
				},
				{
					kind: kindGraph, width: 12, height: 8, title: "Registrations",
					help: "REGISTER requests received per second, and their results. If more are received than accepted, the script challenges them (so that each registration is sent twice), or rejects them.",
					unit: rate, none: "kex or registrar is not loaded",
					queries: []query{
						{expr: `sum(rate(kamailio_core_requests_received_by_method_total{S,method="REGISTER"}[R]))`, legend: "received", style: neutral},
						{expr: `sum(rate(kamailio_registrar_accepted_total{S}[R]))`, legend: "accepted", style: good},
						{expr: `sum(rate(kamailio_registrar_rejected_total{S}[R]))`, legend: "refused by save()", style: bad},
						{expr: registrations("", `rate(kamailio_usrloc_expired_contacts_total{S}[R])`), legend: "contacts expired", style: warning},
					},
				},
				{
					kind: kindGraph, width: 12, height: 8, title: "Contacts by transport",
					help: "Registered contacts by transport, updated once a minute.",
					unit: number, none: "There are more contacts than --collector.usrloc_contacts.limit, or " + notCounted, stacked: true,
					queries: []query{{expr: registrations("transport", `kamailio_usrloc_contacts_by_transport{S}`), legend: "{{transport}}"}},
				},
				{
					kind: kindGraph, width: 12, height: 8, title: "Contacts by user agent",
					help: "Registered contacts by family of user agent. A family that disappears within a day often means that a new firmware was rolled out.",
					unit: number, none: "There are more contacts than --collector.usrloc_contacts.limit, or " + notCounted, legendTable: true,
					queries: []query{{expr: registrations("user_agent", `kamailio_usrloc_contacts_by_user_agent{S}`), legend: "{{user_agent}}"}},
				},
				{
					kind: kindGraph, width: 12, height: 8, title: "Contacts by time left",
					help: "Registered contacts by the time until they expire. Many that expire at the same time come back at the same time.",
					unit: number, none: "There are more contacts than --collector.usrloc_contacts.limit, or " + notCounted, stacked: true,
					// One query each, because Prometheus sorts the labels as text: 1800
					// before 300.
					colors: []color{{"under 1 min", "super-light-blue"}, {"1 to 5 min", "light-blue"}, {"5 to 30 min", blue}, {"30 to 60 min", "semi-dark-blue"}, {"over 1 h", "dark-blue"}},
					queries: []query{
						{expr: registrations("", `kamailio_usrloc_contacts_by_lifetime{S,remaining="0-60"}`), legend: "under 1 min"},
						{expr: registrations("", `kamailio_usrloc_contacts_by_lifetime{S,remaining="60-300"}`), legend: "1 to 5 min"},
						{expr: registrations("", `kamailio_usrloc_contacts_by_lifetime{S,remaining="300-1800"}`), legend: "5 to 30 min"},
						{expr: registrations("", `kamailio_usrloc_contacts_by_lifetime{S,remaining="1800-3600"}`), legend: "30 to 60 min"},
						{expr: registrations("", `kamailio_usrloc_contacts_by_lifetime{S,remaining="3600-"}`), legend: "over 1 h"},
					},
				},
			}},
			{title: "Security", panels: []panel{
				{
					kind: kindGraph, width: 12, height: 8, title: "Refused requests",
					help: "Replies 401, 403, 404 and 407 that Kamailio sent without a transaction, per second. 401 and 407 are normal in step with traffic; a sudden rise of these, or of 404, means that someone guesses passwords or numbers.",
					unit: rate, none: "sl is not loaded",
					queries: []query{{expr: `sum by (code) (rate(kamailio_sl_replies_sent_by_code_total{S,code=~"401|403|404|407"}[R]))`, legend: "{{code}}"}},
				},
				{
					kind: kindGraph, width: 12, height: 8, title: "Blocked by pike",
					help: "Addresses over the limit at the moment, and blocks per second.",
					unit: number, none: "pike is not loaded",
					queries: []query{
						{expr: `sum(kamailio_pike_hot_addresses{S})`, legend: "addresses over the limit", style: warning},
						{expr: `sum(rate(kamailio_pike_blocked_total{S}[R]))`, legend: "blocks/s", style: bad},
					},
				},
				{
					kind: kindGraph, width: 12, height: 8, title: "Malformed messages",
					help: "Messages per second with a bad header or URI, or a method that Kamailio does not know. A few are normal on the Internet; many come from a scanner or a broken peer.",
					unit: rate, none: "None, or kex is not loaded",
					queries: []query{
						{expr: `sum(rate(kamailio_core_bad_headers_total{S}[R])) > 0`, legend: "bad header"},
						{expr: `sum(rate(kamailio_core_bad_uris_total{S}[R])) > 0`, legend: "bad URI"},
						{expr: `sum(rate(kamailio_core_unsupported_methods_total{S}[R])) > 0`, legend: "unknown method"},
					},
				},
				{
					kind: kindGraph, width: 12, height: 8, title: "Hash tables",
					help: "Entries of the script's hash tables, such as banned addresses and counters of login attempts; the ten largest.",
					unit: number, none: "htable is not loaded, or the script has no tables", legendTable: true,
					queries: []query{{expr: worst(`max by (cluster, job, instance, table) (kamailio_htable_entries{S})`), legend: "{{table}} · {{instance}}"}},
				},
			}},
		},
	}
}

const refused = `sum(rate(kamailio_registrar_rejected_total{S}[15m]))` +
	` / (sum(rate(kamailio_registrar_accepted_total{S}[15m])) + sum(rate(kamailio_registrar_rejected_total{S}[15m])) > 0)`

const usersHelp = "If dmq_usrloc replicates registrations, all nodes of a job count the same ones, and the highest number of any node is shown."

// registrations sums metrics of users or contacts, by a label or in total. Nodes that
// replicate registrations count the same ones, so only the node with the most is used.
// (dmq_usrloc puts all registrations of a peer into one location table.)
func registrations(by, expr string) string {
	const replicated = "on (cluster, job, instance) kamailio_dmq_usrloc_loaded{S} == 1"
	with := strings.TrimPrefix(by+", ", ", ")
	return sumBy(by) + "(" + expr + " unless " + replicated +
		" or max by (" + with + "cluster, job) (sum by (" + with + "cluster, job, instance) (" + expr + " and " + replicated + ")))"
}
