package collector

// dmqModule is the cluster that exchanges registrations, dialogs and hash tables
// (dmq/dmq.c, dmq_rpc_list_nodes; states: dmq/dmqnode.c). A node that is no more
// in the list has been given up: alert on kamailio_dmq_nodes.
var dmqModule = Module{
	Subsystem: "dmq",
	Summary:   "Nodes of the DMQ cluster and their state",
	Queries: []Query{{
		Method: "dmq.list_nodes", Stream: true,
		// Nodes may differ in the protocol only, which Kamailio tells from 5.5 on.
		Labels: []Label{{Name: "host", Field: "host"}, {Name: "port", Field: "port"}, {Name: "protocol", Field: "proto"}, {Name: "local", Field: "local"}},
		Index:  true,
		Metrics: []Metric{
			{Field: "status", Name: "node_up", Kind: gauge, Map: map[string]float64{"active": 1, "timeout": 0, "disabled": 0, "pending": 0, "not_active": 0}, Help: "1 while the node is active, else 0. The label local is 1 for the node that answers itself."},
			{Field: "status", Name: "node_state", Kind: gauge, Map: map[string]float64{"active": 1, "timeout": 2, "disabled": 3, "pending": 4, "not_active": 5}, Help: "State of the node: 1 active, 2 timeout, 3 disabled (did not answer: removed when it does not answer again), 4 pending (not yet heard from, or a notification address that does not answer), 5 not active (did not answer; newer than 6.0)."},
			{Field: "fail_count", Name: "node_failed_pings", Kind: gauge, Help: "Pings in a row that the node did not answer. Newer than Kamailio 6.0."},
			{Field: "last_notification", Instead: "0 for ever: Kamailio never sets it (dmq/dmqnode.h)"},
		},
		Counts: []Count{{Name: "nodes", Help: "Nodes in Kamailio's list: itself too, and once more where it is its own notification_address."}},
	}, {
		// Whether it replicates is its parameter enable, which no method tells.
		Method: modulesMethod, Optional: true, Fixed: true, Line: `dmq_(?P<module>usrloc)`,
		Counts: []Count{{Name: "usrloc_loaded", Field: "module", Map: map[string]float64{"usrloc": 1, "": 0},
			Help: "1 if the module dmq_usrloc is loaded, else 0. With its parameter enable, each node of the cluster counts the registrations of all nodes, of the location table that usrloc_domain names: take the maximum over a cluster, not the sum."}},
	}},
}
