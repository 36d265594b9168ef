package generate

import "slices"

func gateways() Dashboard {
	return Dashboard{
		UID:   "kamailio-gateways",
		Title: "Gateways & peers",
		About: "Where calls go to: gateways of dispatcher and drouting, media relays, trunks that Kamailio registers at, and the other nodes of a cluster.",
		Rows: []row{
			{title: "Now", panels: []panel{
				{
					kind: kindStat, width: 8, height: 4, title: "Gateways down",
					help: "Destinations of dispatcher and gateways of drouting that receive no calls because they do not reply. Those that an operator disabled are not counted.",
					unit: number, none: "No gateways known", steps: noneMay(red),
					queries: []query{{expr: `sum(` + gatewaysDown + `)`, legend: "down"}},
				},
				{
					kind: kindStat, width: 8, height: 4, title: "Disabled",
					help: "Destinations and gateways that an operator disabled. If they are forgotten, capacity is missing at the next peak.",
					unit: number, none: "No gateways known", steps: noneMay(blue),
					queries: []query{{expr: `sum(kamailio_dispatcher_destination_state{S} == bool 3 or kamailio_drouting_gateway_state{S} == bool 3)`, legend: "disabled"}},
				},
				{
					kind: kindStat, width: 8, height: 4, title: "Worst set",
					help: "The dispatcher set with the smallest fraction of destinations that receive calls. At 0% the set's calls fail.",
					unit: ratio, none: "dispatcher is not loaded", steps: badBelow(0.01, 1), min: new(0.0), max: new(1.0),
					queries: []query{{expr: `min(kamailio_dispatcher_set_destinations_up{S} / (kamailio_dispatcher_set_destinations{S} > 0))`, legend: "up"}},
				},
				{
					kind: kindStat, width: 8, height: 4, title: "Relays down",
					help: "rtpengine nodes that are enabled and do not reply. Without a relay, calls have no audio.",
					unit: number, none: "rtpengine is not loaded", steps: noneMay(red),
					queries: []query{{expr: `sum(kamailio_rtpengine_node_up{S} == bool 0 unless kamailio_rtpengine_node_enabled{S} == 0)`, legend: "down"}},
				},
				{
					kind: kindStat, width: 8, height: 4, title: "Trunks down",
					help: "Outgoing registrations (uac) that are enabled and not registered: no incoming calls from that provider.",
					unit: number, none: "uac is not loaded", steps: noneMay(red),
					queries: []query{{expr: `sum(kamailio_uac_registration_up{S} == bool 0 unless kamailio_uac_registration_enabled{S} == 0)`, legend: "not registered"}},
				},
				{
					kind: kindStat, width: 8, height: 4, title: "Nodes down",
					help: "DMQ nodes that this node cannot reach: the state of the nodes (dialogs, registrations, hash tables) diverges.",
					unit: number, none: "dmq is not loaded, or the node is alone", steps: noneMay(red),
					queries: []query{{expr: `sum(kamailio_dmq_node_up{S,local="0"} == bool 0)`, legend: "down"}},
				},
			}},
			{title: "Dispatcher", panels: []panel{
				{
					kind: kindTimeline, width: 24, height: 8, title: "Destinations",
					help: "State of the ten worst destinations over time, and first of those that are down now. Trying: it failed, is below the threshold, and still receives calls. Inactive: it receives no calls until it replies to OPTIONS. Many short changes mean packet loss, or a ping threshold that is too low.",
					unit: words, none: "dispatcher is not loaded, or it has no destinations", states: gatewayStates,
					queries: worstTimes(destination(`max by (cluster, job, instance, set, uri, duid, socket, index) (kamailio_dispatcher_destination_state{S})`), `kamailio_dispatcher_destination_up{S}`,
						"cluster, job, instance, set, uri, duid, socket, index", "set {{set}} · {{uri}}{{id}}{{nth}} · {{instance}}"),
				},
				{
					kind: kindTable, width: 24, height: 9, title: "Destinations, now",
					help: "Id is the attribute duid. Response times are those to OPTIONS, of destinations that receive calls. Timeouts and state changes are those of the last hour.",
					unit: number, none: "dispatcher is not loaded, or it has no destinations", sort: "State", hidden: []string{"cluster", "index", "socket"},
					queries: []query{
						{expr: `max by (cluster, job, instance, set, uri, duid, socket, index) (kamailio_dispatcher_destination_state{S})`},
						{expr: `max by (cluster, job, instance, set, uri, duid, socket, index) (kamailio_dispatcher_destination_latency_estimate_seconds{S} and kamailio_dispatcher_destination_up{S} == 1)`},
						{expr: `max by (cluster, job, instance, set, uri, duid, socket, index) (kamailio_dispatcher_destination_latency_max_seconds{S} and kamailio_dispatcher_destination_up{S} == 1)`},
						{expr: `sum by (cluster, job, instance, set, uri, duid, socket, index) (increase(kamailio_dispatcher_destination_ping_timeouts_total{S}[1h]) and kamailio_dispatcher_destination_up{S})`},
						{expr: `max by (cluster, job, instance, set, uri, duid, socket, index) (changes(kamailio_dispatcher_destination_up{S}[1h]) and kamailio_dispatcher_destination_up{S})`},
						{expr: `max by (cluster, job, instance, set, uri, duid, socket, index) (kamailio_dispatcher_destination_dialogs{S})`},
						{expr: `max by (cluster, job, instance, set, uri, duid, socket, index) (kamailio_dispatcher_destination_priority{S})`},
					},
					columns: []column{
						{title: "Instance", label: "instance", width: 170, links: true},
						{title: "Set", label: "set", width: 50},
						{title: "Destination", label: "uri"},
						{title: "Id", label: "duid", width: 80},
						{title: "State", query: 0, unit: words, width: 90, states: gatewayStates},
						{title: "Answer time", query: 1, unit: seconds, width: 105, steps: badAbove(0.2, 0.5)},
						{title: "Longest", query: 2, unit: seconds, width: 85},
						{title: "Timeouts", query: 3, unit: number, width: 85, places: new(0.0), steps: []step{{0, green}, {1, orange}, {20, red}}},
						{title: "Changes", query: 4, unit: number, width: 80, places: new(0.0), steps: []step{{0, green}, {1, orange}, {6, red}}},
						{title: "Calls", query: 5, unit: number, width: 60},
						{title: "Priority", query: 6, unit: number, width: 75},
						{title: "Job", label: "job", width: 100},
					},
				},
				{
					kind: kindGraph, width: 15, height: 9, title: "Answer time to OPTIONS",
					help: "Moving average of the response time, in which recent values weigh most, of the ten slowest. Kamailio's resolution is 1 ms. Slow replies are often a sign that a gateway is about to fail.",
					unit: seconds, none: "dispatcher is not loaded, or without ds_ping_latency_stats=1", legendTable: true,
					queries: []query{{expr: worst(destination(`max by (set, uri, duid, socket, index) (kamailio_dispatcher_destination_latency_estimate_seconds{S})`)), legend: "set {{set}} · {{uri}}{{id}}{{nth}}"}},
				},
				{
					kind: kindGraph, width: 9, height: 9, title: "Destinations up, by set",
					help: "Fraction of a set's destinations that receive calls, at each server; the ten lowest. Disabled destinations count as down.",
					unit: ratio, none: "dispatcher is not loaded, or it has no destinations", min: new(0.0), max: new(1.0), legendTable: true, lowFirst: true,
					queries: []query{{expr: lowest(`max by (cluster, job, instance, set) (kamailio_dispatcher_set_destinations_up{S} / (kamailio_dispatcher_set_destinations{S} > 0))`), legend: "set {{set}} · {{instance}}"}},
				},
			}},
			{title: "Dynamic routing", panels: []panel{
				{
					kind: kindTimeline, width: 24, height: 8, title: "Gateways of drouting",
					help: "State of the ten worst gateways over time, and first of those that are down now. Kamailio exports it only if kamailio.cfg includes examples/kamailio/drouting-gw-status.cfg.",
					unit: words, none: "drouting is not loaded, or does not tell the state of its gateways (see drouting-gw-status.cfg)",
					states:  []state{{0, "Inactive", red}, {1, "Active", green}, {2, "Probing", orange}, {3, "Disabled", blue}},
					queries: worstTimes(`max by (cluster, job, instance, gateway, address) (kamailio_drouting_gateway_state{S})`, `kamailio_drouting_gateway_up{S}`, "cluster, job, instance, gateway, address", "{{gateway}} · {{address}} · {{instance}}"),
				},
			}},
			{title: "Media relays, trunks, cluster, keepalive", panels: []panel{
				{
					kind: kindTimeline, width: 24, height: 8, title: "rtpengine nodes",
					help: "Whether the ten worst media relays reply, or an operator disabled them.",
					unit: words, none: "rtpengine is not loaded", states: append(slices.Clone(upDown), state{2, "Disabled", blue}),
					queries: worstTimes(nth(`max by (cluster, job, instance, set, url, index) ((kamailio_rtpengine_node_enabled{S} == 0) + 2 or kamailio_rtpengine_node_up{S})`), `kamailio_rtpengine_node_up{S}`, "cluster, job, instance, set, url, index", "set {{set}} · {{url}}{{nth}} · {{instance}}"),
				},
				{
					kind: kindTimeline, width: 24, height: 8, title: "Cluster nodes (DMQ)",
					help: "Whether the other nodes of the cluster are reached; the ten worst.",
					unit: words, none: "dmq is not loaded, or the node is alone", states: upDown,
					queries: worstTimes(`max by (cluster, job, instance, host, port) (kamailio_dmq_node_up{S,local="0"})`, `kamailio_dmq_node_up{S,local="0"}`, "cluster, job, instance, host, port", "{{host}}:{{port}} · {{instance}}"),
				},
				{
					kind: kindTimeline, width: 24, height: 8, title: "Diameter peers (IMS)",
					help: "Whether the HSS, PCRF and charging systems are connected, or an operator disabled them; the ten worst.",
					unit: words, none: "cdp is not loaded", states: append(slices.Clone(upDown), state{2, "Disabled", blue}),
					queries: worstTimes(nth(`max by (cluster, job, instance, peer, index) ((kamailio_cdp_peer_enabled{S} == 0) + 2 or kamailio_cdp_peer_up{S})`), `kamailio_cdp_peer_up{S}`, "cluster, job, instance, peer, index", "{{peer}}{{nth}} · {{instance}}"),
				},
				{
					kind: kindTable, width: 24, height: 7, title: "Trunks (outgoing registrations)",
					help: "Registrations of Kamailio at other servers. The time left is the time until it expires; below 0 it has expired.",
					unit: number, none: "uac is not loaded, or it keeps no registrations", sort: "State", hidden: []string{"cluster", "job"},
					queries: []query{
						{expr: `max by (cluster, job, instance, uuid) ((kamailio_uac_registration_enabled{S} == 0) + 2 or kamailio_uac_registration_up{S})`},
						{expr: `max by (cluster, job, instance, uuid) (kamailio_uac_registration_expires_in_seconds{S})`},
					},
					columns: []column{
						{title: "Trunk", label: "uuid"},
						{title: "Instance", label: "instance", width: 200},
						{title: "State", query: 0, unit: words, width: 130, states: []state{{0, "Not registered", red}, {1, "Registered", green}, {2, "Disabled", blue}}},
						{title: "Time left", query: 1, unit: seconds, width: 110},
					},
				},
				{
					kind: kindTimeline, width: 24, height: 8, title: "Keepalive destinations",
					help: "Destinations that the keepalive module pings; the ten worst.",
					unit: words, none: "keepalive is not loaded, or it has no destinations", states: upDown,
					queries: worstTimes(nth(`max by (cluster, job, instance, uri, index) (kamailio_keepalive_destination_up{S})`), `kamailio_keepalive_destination_up{S}`, "cluster, job, instance, uri, index", "{{uri}}{{nth}} · {{instance}}"),
				},
			}},
		},
	}
}

// destination adds a label id to the destinations of dispatcher, to distinguish equal
// URIs in one set: the attribute duid, or else the socket.
func destination(expr string) string {
	return nth(`label_replace(label_replace(` + expr + `, "id", " · $1", "socket", "(.+)"), "id", " · $1", "duid", "(.+)")`)
}

// nth adds a label (#1, #2) to the second and later rows that would otherwise have the
// same name.
func nth(expr string) string {
	return `label_replace(` + expr + `, "nth", " #$1", "index", "([1-9].*)")`
}
