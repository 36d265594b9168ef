package collector

import "time"

// socketsModule is the sockets that Kamailio listens on (core/core_cmd.c,
// core_sockets_list). They do not change while Kamailio runs. Each call prints a line per
// socket to Kamailio's standard output, which a container runtime logs, so it is made only
// once an hour.
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

// socketsInterval is the minimum time between two calls.
const socketsInterval = time.Hour
