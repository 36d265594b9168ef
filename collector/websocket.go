package collector

import "github.com/prometheus/client_golang/prometheus"

const wsWhich = "protocol: all of them together, sip or msrp."

// wsProtocol returns the protocol of a WebSocket statistic. A statistic without one is the
// total of all protocols.
func wsProtocol(word string) string {
	switch word {
	case "sip_":
		return "sip"
	case "msrp_":
		return "msrp"
	}
	return "all"
}

// websocketModule is WebSocket connections (websocket/ws_conn.c, ws_frame.c,
// ws_handshake.c).
var websocketModule = Module{
	Subsystem: "websocket",
	Summary:   "WebSocket connections, handshakes and frames",
	Queries: []Query{statistics("websocket",
		wsMetric("current_connections", "connections", gauge, "Open WebSocket connections, by "+wsWhich),
		wsMetric("max_concurrent_connections", "max_concurrent_connections", gauge, "Maximum number of concurrent WebSocket connections since the start, by "+wsWhich),
		wsMetric("failed_connections", "failed_connections_total", counter, "Failed WebSocket connections, by "+wsWhich),
		wsMetric("local_closed_connections", "local_closed_connections_total", counter, "WebSocket connections closed by Kamailio, by "+wsWhich),
		wsMetric("remote_closed_connections", "remote_closed_connections_total", counter, "WebSocket connections closed by the peer, by "+wsWhich),
		wsMetric("received_frames", "frames_received_total", counter, "WebSocket frames received, by "+wsWhich),
		wsMetric("transmitted_frames", "frames_sent_total", counter, "WebSocket frames sent, by "+wsWhich),
		wsMetric("successful_handshakes", "successful_handshakes_total", counter, "Successful WebSocket handshakes, by "+wsWhich),
		Metric{Field: "websocket:ws_failed_handshakes", Name: "failed_handshakes_total", Kind: counter, Help: "Failed WebSocket handshakes."},
	)},
}

func wsMetric(statistic, name string, kind prometheus.ValueType, help string) Metric {
	return Metric{
		Pattern: "websocket:ws_(sip_|msrp_)?" + statistic, PatternLabels: []string{"protocol"}, Word: wsProtocol,
		Name: name, Kind: kind, Help: help,
	}
}
