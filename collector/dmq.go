package collector

// dmqModule is the nodes of the cluster that replicates registrations, dialogs, and hash
// tables (dmq/dmq.c, dmq_rpc_list_nodes; states: dmq/dmqnode.c). A node that disappears
// from the list was removed by Kamailio: alert on kamailio_dmq_nodes.
var dmqModule = Module{
	Subsystem: "dmq",
	Summary:   "Nodes of the DMQ cluster and their state",
	Queries: []Query{{
		Method: "dmq.list_nodes", Stream: true,
		// Nodes may differ only in the protocol, which Kamailio 5.5 and later report.
		Labels: []Label{{Name: "host", Field: "host"}, {Name: "port", Field: "port"}, {Name: "protocol", Field: "proto"}, {Name: "local", Field: "local"}},
		Index:  true,
		Metrics: []Metric{
			{Field: "status", Name: "node_up", Kind: gauge, Map: map[string]float64{"active": 1, "timeout": 0, "disabled": 0, "pending": 0, "not_active": 0}, Help: "1 while the node is active, else 0. The label local is 1 for the queried server itself."},
			{Field: "status", Name: "node_state", Kind: gauge, Map: map[string]float64{"active": 1, "timeout": 2, "disabled": 3, "pending": 4, "not_active": 5}, Help: "State of the node: 1 active, 2 timeout, 3 disabled (it did not reply, and is removed if it fails to reply again), 4 pending (no message received yet, or a notification address that does not reply), 5 not active (it did not reply; newer than 6.0)."},
			{Field: "fail_count", Name: "node_failed_pings", Kind: gauge, Help: "Consecutive pings without a reply from the node. Newer than Kamailio 6.0."},
			{Field: "last_notification", Instead: "0 for ever: Kamailio never sets it (dmq/dmqnode.h)"},
		},
		Counts: []Count{{Name: "nodes", Help: "Nodes in Kamailio's list. It includes the server itself, twice if its notification_address is its own address."}},
	}, {
		// Its parameter enable decides whether it replicates; no method reports that.
		Method: modulesMethod, Optional: true, Fixed: true, Line: `dmq_(?P<module>usrloc)`,
		Counts: []Count{{Name: "usrloc_loaded", Field: "module", Map: map[string]float64{"usrloc": 1, "": 0},
			Help: "1 if the module dmq_usrloc is loaded, else 0. If its parameter enable is set, each node of the cluster counts the registrations of all nodes for the location table of usrloc_domain: use the maximum over a cluster, not the sum."}},
	}},
}
