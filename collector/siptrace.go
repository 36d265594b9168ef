package collector

import "cmp"

// siptraceModule is the messages that Kamailio traces into a database. Those that it only
// sends to a capture server are not counted (siptrace/siptrace.c).
var siptraceModule = Module{
	Subsystem: "siptrace",
	Summary:   "SIP messages traced into a database",
	Queries: []Query{statistics("siptrace",
		Metric{Field: "siptrace:traced_requests", Name: "requests_total", Kind: counter, Help: "SIP requests stored in the database while tracing is on (trace_on). Those sent to a capture server are not counted."},
		Metric{Field: "siptrace:traced_replies", Name: "replies_total", Kind: counter, Help: "SIP replies stored in the database while tracing is on (trace_on). Those sent to a capture server are not counted."},
	)},
}

// sipcaptureModule is the messages that a Kamailio stores as a capture server
// (sipcapture/sipcapture.c). The statistics of the default capture mode have no name.
var sipcaptureModule = Module{
	Subsystem: "sipcapture",
	Summary:   "SIP messages captured, by capture mode",
	Queries: []Query{statistics("sipcapture",
		sipcaptureMetric("requests"),
		sipcaptureMetric("replies"),
	)},
}

func sipcaptureMetric(kind string) Metric {
	return Metric{Pattern: "sipcapture:captured_" + kind + `(?:\[(.*)\])?`, PatternLabels: []string{"mode"},
		Word: func(mode string) string { return cmp.Or(mode, "default") },
		Name: kind + "_total", Kind: counter, Help: "SIP " + kind + " captured, by capture mode (capture_mode)."}
}
