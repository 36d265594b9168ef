package collector

import "github.com/kamailio-exporter/kamailio_exporter/kamrpc"

// rtpengineModule is the media relays that Kamailio hands calls to
// (rtpengine/rtpengine.c, add_rtpp_node_info). A node that Kamailio found dead
// and one that an operator disabled (or the database) are two facts: 5.6 has them
// in one field, 0, 1 or "1(permanent)"; 6.0 has "active" for the first, and
// "disabled" for the second only.
var rtpengineModule = Module{
	Subsystem: "rtpengine",
	Summary:   "Media relays: rtpengine nodes up, enabled, weight",
	Queries: []Query{{
		Method: "rtpengine.show", Params: []any{"all"},
		Empty:  noRelays,
		Labels: relayLabels("set"), Index: true,
		Metrics: []Metric{
			{Field: "active", Name: "node_up", Kind: gauge, Map: yesNo, Help: rtpengineUpHelp},
			{Field: "disabled", Name: "node_up", Kind: gauge, Map: rtpengineUp, Help: rtpengineUpHelp},
			{Field: "disabled", Name: "node_enabled", Kind: gauge, Map: rtpengineEnabled, Help: "0 if an operator or the database disabled the node, else 1."},
			{Field: "weight", Name: "node_weight", Kind: gauge, Help: "Weight of the node: its part of the calls of its set."},
			{Field: "index", Instead: "Kamailio's number of the node: not the label index"},
		},
		Counts: []Count{
			{Name: "set_nodes", By: rtpengineSet, Help: "Nodes of a set."},
			{Name: "set_nodes_up", By: rtpengineSet, Field: "active", Map: yesNo, Help: "Nodes of a set that get calls."},
			{Name: "set_nodes_up", By: rtpengineSet, Field: "disabled", Map: rtpengineUp, Help: "Nodes of a set that get calls."},
		},
	}, {
		// Asked once for both. A node that is up may have an old time there.
		Method: "rtpengine.show", Params: []any{"all"},
		Empty:  noRelays,
		Labels: relayLabels("set"), Index: true,
		Where: func(node kamrpc.Value) bool {
			return node.Get("active").Text() == "false" || node.Get("disabled").Text() == "1"
		},
		Metrics: []Metric{
			{Field: "recheck_ticks", Name: "node_recheck_seconds", Kind: gauge, None: "-1", Help: "Time until Kamailio looks again at a node that it found dead; 0 is at the next call. Only for such a node."},
		},
	}},
}

func relayLabels(set string) []Label {
	return []Label{{Name: "set", Field: set}, {Name: "url", Field: "url"}}
}

const rtpengineUpHelp = "1 while the node gets calls; 0 when Kamailio found it dead or it is disabled. It is looked at when a call needs it, and from Kamailio 6.0 on also each ping_interval."

var (
	rtpengineSet = []Label{{Name: "set", Field: "set"}}
	// Of 5.6, and of no other: 6.0 has true and false there.
	rtpengineUp      = map[string]float64{"0": 1, "1": 0, "1(permanent)": 0}
	rtpengineEnabled = map[string]float64{"0": 1, "1": 1, "1(permanent)": 0, "false": 1, "true": 0}
	// The first is also "Instance not found (no sets loaded)". With the second a
	// Kamailio that has not finished its start does not look yet.
	noRelays = []string{"Instance not found", "Initializing"}
	yesNo    = map[string]float64{"true": 1, "false": 0, "1": 1, "0": 0}
)

// rtpproxyModule is the same of the older relay (rtpproxy/rtpproxy.c,
// rtpproxy_rpc_list). That an operator disabled a node is told by recheck: it is
// then the largest number there is, printed with %d.
var rtpproxyModule = Module{
	Subsystem: "rtpproxy",
	Summary:   "Media relays: rtpproxy nodes up, weight",
	Queries: []Query{{
		Method: "rtpproxy.list", Stream: true,
		Labels: relayLabels("setid"), Index: true,
		Metrics: []Metric{
			{Field: "disabled", Name: "node_up", Kind: gauge, Map: map[string]float64{"0": 1, "1": 0}, Help: "1 while the node gets calls; 0 when Kamailio found it dead or an operator disabled it. It is looked at when a call needs it."},
			{Field: "weight", Name: "node_weight", Kind: gauge, Help: "Weight of the node: its part of the calls of its set."},
			{Field: "recheck", Name: "node_enabled", Kind: gauge, Map: map[string]float64{"-1": 0, "4294967295": 0, "*": 1}, Help: "0 if an operator disabled the node, else 1."},
			{Field: "index", Instead: "Kamailio's number of the node: not the label index"},
		},
	}},
}
