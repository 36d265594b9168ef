package collector

import "time"

// socketsModule is what Kamailio listens on (core/core_cmd.c, core_sockets_list).
// It does not change while Kamailio runs, and each call prints a line for each
// socket to Kamailio's standard output, which a container keeps: once an hour is
// enough.
var socketsModule = Module{
	Subsystem: "core",
	Name:      "sockets",
	Summary:   "Addresses and ports that Kamailio listens on",
	Queries: []Query{{
		Method: "core.sockets_list", Rows: "socket",
		Labels: []Label{{Name: "protocol", Field: "proto"}, {Name: "address", Field: "address"}, {Name: "port", Field: "port"}},
		Metrics: []Metric{
			{Field: "proto", Name: "listen_socket_info", Kind: gauge, Map: map[string]float64{"*": 1}, Help: "Always 1. One series for each socket that Kamailio listens on."},
		},
	}},
}

// socketsInterval is how often it is asked at most.
const socketsInterval = time.Hour
