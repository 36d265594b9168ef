package collector

import "strings"

// coreTrafficModule is the core's traffic counters (kex/core_stats.c). They count all
// received messages, including retransmissions.
var coreTrafficModule = Module{
	Subsystem: "core",
	Name:      "core_traffic",
	Summary:   "SIP requests and replies received, by method, class and code",
	Queries: []Query{statistics("core",
		Metric{Field: "core:rcv_requests", Name: "requests_received_total", Kind: counter,
			Help: "Requests received, including retransmissions and HTTP requests to xhttp (RPCs over HTTP)."},
		Metric{Pattern: "core:rcv_requests_([a-z]+)", PatternLabels: []string{"method"}, Word: sipMethod,
			Name: "requests_received_by_method_total", Kind: counter,
			Help: "SIP requests received, by method. Methods that Kamailio does not count are only in the total."},
		Metric{Field: "core:rcv_replies", Name: "replies_received_total", Kind: counter,
			Help: "SIP replies received, including retransmissions."},
		Metric{Pattern: "core:rcv_replies_([1-6]xx)", PatternLabels: []string{"class"},
			Name: "replies_received_by_class_total", Kind: counter,
			Help: "SIP replies received, by class of the status code."},
		Metric{Pattern: "core:rcv_replies_([1-6][0-9][0-9x])", PatternLabels: []string{"code"},
			Name: "replies_received_by_code_total", Kind: counter,
			Help: "SIP replies received, by status code; 18x stands for 180 to 189. The codes that Kamailio counts depend on its version."},
		Metric{Pattern: "core:rcv_replies_([1-6]xx)_([a-z]+)", PatternLabels: []string{"class", "method"}, Word: sipMethod,
			Name: "replies_received_by_method_total", Kind: counter,
			Help: "SIP replies received, by class of the status code and by method of the request."},
		Metric{Field: "core:fwd_requests", Name: "requests_forwarded_total", Kind: counter,
			Help: "Requests forwarded without a transaction (forward())."},
		Metric{Field: "core:fwd_replies", Name: "replies_forwarded_total", Kind: counter,
			Help: "Replies forwarded without a transaction."},
		Metric{Field: "core:drop_requests", Name: "requests_dropped_total", Kind: counter,
			Help: "Requests dropped by the configuration script."},
		Metric{Field: "core:drop_replies", Name: "replies_dropped_total", Kind: counter,
			Help: "Replies dropped by the configuration script."},
		Metric{Field: "core:err_requests", Name: "request_errors_total", Kind: counter,
			Help: "Requests that could not be processed."},
		Metric{Field: "core:err_replies", Name: "reply_errors_total", Kind: counter,
			Help: "Replies that could not be processed."},
		Metric{Field: "core:bad_URIs_rcvd", Name: "bad_uris_total", Kind: counter,
			Help: "Messages with a URI that could not be parsed."},
		Metric{Field: "core:bad_msg_hdr", Name: "bad_headers_total", Kind: counter,
			Help: "Messages with a header that could not be parsed."},
		Metric{Field: "core:unsupported_methods", Name: "unsupported_methods_total", Kind: counter,
			Help: "Requests with a method that Kamailio does not know."},
	)},
}

// sipMethod returns the method as SIP spells it, because kex abbreviates one. A response
// class is returned unchanged.
func sipMethod(word string) string {
	switch {
	case strings.HasSuffix(word, "xx"):
		return word
	case word == "reg":
		return "REGISTER"
	}
	return strings.ToUpper(word)
}
