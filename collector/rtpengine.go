package collector

import "github.com/kamailio-exporter/kamailio_exporter/kamrpc"

// rtpengineModule is the media relays that Kamailio uses for calls (rtpengine/rtpengine.c,
// add_rtpp_node_info). A node can be down, because Kamailio found it dead, or disabled, by
// an operator or the database. 5.6 reports both in one field: 0, 1, or "1(permanent)".
// 6.0 reports the first as "active" and only the second as "disabled".
var rtpengineModule = Module{
	Subsystem: "rtpengine",
	Summary:   "Media relays: rtpengine nodes up, enabled, weight",
	Queries: []Query{
		rtpengineNodes("active", hasActive,
			Metric{Field: "active", Name: "node_up", Kind: gauge, Map: yesNo, Help: rtpengineUpHelp},
			Metric{Field: "disabled", Name: "node_enabled", Kind: gauge, Map: noYes, Help: rtpengineEnabledHelp},
		),
		rtpengineNodes("disabled", func(node kamrpc.Value) bool { return !hasActive(node) },
			Metric{Field: "disabled", Name: "node_up", Kind: gauge, Map: rtpengineUp, Help: rtpengineUpHelp},
			Metric{Field: "disabled", Name: "node_enabled", Kind: gauge, Map: rtpengineEnabled, Help: rtpengineEnabledHelp},
		),
		{
			// Only for dead nodes: a node that is up may show an old time here.
			Method: "rtpengine.show", Params: []any{"all"},
			Empty:  noRelays,
			Labels: relayLabels("set"), Index: true,
			Where: func(node kamrpc.Value) bool {
				if hasActive(node) {
					return yesNo[node.Get("active").Text()] == 0
				}
				return node.Get("disabled").Text() == "1"
			},
			Metrics: []Metric{
				{Field: "recheck_ticks", Name: "node_recheck_seconds", Kind: gauge, None: "-1", Help: "Time until Kamailio checks a dead node again; 0 means at the next call. Omitted for nodes that are alive."},
			},
		},
	},
}

// rtpengineNodes returns the query for one of the shapes of a node; up is the field that
// reports whether it is up. All queries share one call.
func rtpengineNodes(up string, where func(kamrpc.Value) bool, metrics ...Metric) Query {
	isUp := map[string]map[string]float64{"active": yesNo, "disabled": rtpengineUp}[up]
	return Query{
		Method: "rtpengine.show", Params: []any{"all"},
		Empty:  noRelays,
		Labels: relayLabels("set"), Index: true,
		Where: where,
		Metrics: append(metrics,
			Metric{Field: "weight", Name: "node_weight", Kind: gauge, Help: "Weight of the node, which determines its share of the calls of its set."},
			Metric{Field: "index", Instead: "Kamailio's number of the node: not the label index"},
		),
		Counts: []Count{
			{Name: "set_nodes", By: rtpengineSet, Help: "Nodes in a set."},
			{Name: "set_nodes_up", By: rtpengineSet, Field: up, Map: isUp, Help: "Nodes in a set that receive calls."},
		},
	}
}

func hasActive(node kamrpc.Value) bool { return node.Get("active").Exists() }

func relayLabels(set string) []Label {
	return []Label{{Name: "set", Field: set}, {Name: "url", Field: "url"}}
}

const (
	rtpengineUpHelp      = "1 while the node receives calls, 0 while it is dead or disabled. Kamailio checks a node when a call needs it, and since 6.0 also every ping_interval."
	rtpengineEnabledHelp = "0 if an operator or the database disabled the node, else 1."
)

var (
	rtpengineSet     = []Label{{Name: "set", Field: "set"}}
	rtpengineUp      = map[string]float64{"0": 1, "1": 0, "1(permanent)": 0}
	rtpengineEnabled = map[string]float64{"0": 1, "1": 1, "1(permanent)": 0}
	// JSON-RPC returns true and false, BINRPC 1 and 0.
	yesNo = map[string]float64{"true": 1, "false": 0, "1": 1, "0": 0}
	noYes = map[string]float64{"true": 0, "false": 1, "1": 0, "0": 1}
	// The first is also the start of "Instance not found (no sets loaded)". The second
	// is returned while Kamailio is still starting.
	noRelays = []string{"Instance not found", "Initializing"}
)

// rtpproxyModule is the same for the older relay (rtpproxy/rtpproxy.c,
// rtpproxy_rpc_list). If an operator disabled a node, recheck is the largest possible
// number, printed with %d.
var rtpproxyModule = Module{
	Subsystem: "rtpproxy",
	Summary:   "Media relays: rtpproxy nodes up, weight",
	Queries: []Query{{
		Method: "rtpproxy.list", Stream: true,
		Labels: relayLabels("setid"), Index: true,
		Metrics: []Metric{
			{Field: "disabled", Name: "node_up", Kind: gauge, Map: map[string]float64{"0": 1, "1": 0}, Help: "1 while the node receives calls, 0 while it is dead or an operator disabled it. Kamailio checks a node when a call needs it."},
			{Field: "weight", Name: "node_weight", Kind: gauge, Help: "Weight of the node, which determines its share of the calls of its set."},
			{Field: "recheck", Name: "node_enabled", Kind: gauge, Map: map[string]float64{"-1": 0, "4294967295": 0, "*": 1}, Help: "0 if an operator disabled the node, else 1."},
			{Field: "index", Instead: "Kamailio's number of the node: not the label index"},
		},
	}},
}
