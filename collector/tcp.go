package collector

// tcpModule is the core's TCP and TLS connections (core/tcp_main.c,
// core/tcp_stats.c).
var tcpModule = Module{
	Subsystem: "tcp",
	Summary:   "TCP and TLS connections, their limits and failures",
	Queries: []Query{
		// If TCP is off (disable_tcp), Kamailio returns an error, and the module counts as
		// not loaded.
		{Method: "core.tcp_info", Empty: []string{"tcp support disabled"}, Metrics: []Metric{
			{Field: "readers", Name: "readers", Kind: gauge, Help: "TCP worker processes."},
			{Field: "max_connections", Name: "max_connections", Kind: gauge, Help: "Maximum number of connections, including TLS (tcp_max_connections)."},
			{Field: "max_tls_connections", Name: "max_tls_connections", Kind: gauge, Help: "Maximum number of TLS connections (tls_max_connections)."},
			{Field: "opened_connections", Name: "connections", Kind: gauge, Help: "Open connections, including TLS."},
			{Field: "opened_tls_connections", Name: "tls_connections", Kind: gauge, Help: "Open TLS connections."},
			{Field: "write_queued_bytes", Name: "write_queue_bytes", Kind: gauge, Wrap32: true, Help: "Bytes queued to be sent, over all connections."},
		}},
		statistics("tcp",
			Metric{Field: "tcp:established", Name: "connections_established_total", Kind: counter, Help: "Connections established, in both directions."},
			Metric{Field: "tcp:passive_open", Name: "connections_accepted_total", Kind: counter, Help: "Connections accepted from peers."},
			Metric{Field: "tcp:connect_success", Name: "connects_succeeded_total", Kind: counter, Help: "Connections that Kamailio opened itself."},
			Metric{Field: "tcp:connect_failed", Name: "connects_failed_total", Kind: counter, Help: "Connections that Kamailio failed to open."},
			Metric{Field: "tcp:local_reject", Name: "connections_rejected_total", Kind: counter, Help: "Incoming connections that Kamailio rejected, for example because its limit was reached."},
			Metric{Field: "tcp:con_timeout", Name: "connection_timeouts_total", Kind: counter, Help: "Connections closed because they were idle for too long."},
			Metric{Field: "tcp:con_reset", Name: "connection_resets_total", Kind: counter, Help: "Connections reset by the peer."},
			Metric{Field: "tcp:send_timeout", Name: "send_timeouts_total", Kind: counter, Help: "Sends that timed out (asynchronous mode)."},
			Metric{Field: "tcp:sendq_full", Name: "send_queue_full_total", Kind: counter, Help: "Sends that failed because a send queue was full (asynchronous mode)."},
			Metric{Field: "tcp:current_opened_connections", Instead: "kamailio_tcp_connections"},
			Metric{Field: "tcp:current_write_queue_size", Instead: "kamailio_tcp_write_queue_bytes"},
		),
	},
}

// dnsModule is the core's resolver (core/resolve.c).
var dnsModule = Module{
	Subsystem: "dns",
	Summary:   "Failed and slow DNS lookups",
	Queries: []Query{statistics("dns",
		Metric{Field: "dns:failed_dns_request", Name: "failed_requests_total", Kind: counter, Help: "DNS requests that failed."},
		Metric{Field: "dns:slow_dns_request", Name: "slow_requests_total", Kind: counter, Help: "DNS requests slower than dns_slow_query_ms. A worker that waits for DNS handles no SIP messages."},
	)},
}
