package collector

// sctpModule is SIP over SCTP (sctp/sctp_stats.c).
var sctpModule = Module{
	Subsystem: "sctp",
	Summary:   "SCTP associations: open, failed, closed",
	Queries: []Query{statistics("sctp",
		Metric{Field: "sctp:current_opened_connections", Name: "associations", Kind: gauge, Help: "Open SCTP associations."},
		Metric{Field: "sctp:current_tracked_connections", Name: "tracked_associations", Kind: gauge, Help: "SCTP associations that Kamailio tracks (sctp_assoc_tracking)."},
		Metric{Field: "sctp:established", Name: "associations_established_total", Kind: counter, Help: "SCTP associations established."},
		Metric{Field: "sctp:connect_failed", Name: "connect_failures_total", Kind: counter, Help: "Outgoing SCTP associations that could not be established."},
		Metric{Field: "sctp:local_reject", Name: "rejected_total", Kind: counter, Help: "Incoming SCTP associations that Kamailio rejected."},
		Metric{Field: "sctp:remote_shutdown", Name: "remote_shutdowns_total", Kind: counter, Help: "SCTP associations closed by the peer."},
		Metric{Field: "sctp:assoc_shutdown", Name: "shutdowns_total", Kind: counter, Help: "SCTP associations that ended in order, not because of an error."},
		Metric{Field: "sctp:comm_lost", Name: "associations_lost_total", Kind: counter, Help: "SCTP associations that ended because of an error."},
		Metric{Field: "sctp:sendq_full", Name: "send_queue_full_total", Kind: counter, Help: "Messages that could not be sent because the kernel's send buffer was full."},
		Metric{Field: "sctp:send_failed", Name: "send_failures_total", Kind: counter, Help: "Messages that could not be sent for another reason than a full buffer."},
		Metric{Field: "sctp:send_force_retry", Name: "send_retries_total", Kind: counter, Help: "Failed messages that were sent again (sctp_send_retries)."},
	)},
}
