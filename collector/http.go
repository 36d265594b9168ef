package collector

// httpAsyncClientModule is the HTTP requests that the script sends without waiting for
// the reply (http_async_client/http_multi.c).
var httpAsyncClientModule = Module{
	Subsystem: "http_async_client",
	Summary:   "Asynchronous HTTP requests of the script, replies, errors",
	Queries: []Query{statistics("http_async_client",
		Metric{Field: "http_async_client:requests", Name: "requests_total", Kind: counter, Help: "HTTP requests sent."},
		Metric{Field: "http_async_client:replies", Name: "replies_total", Kind: counter, Help: "HTTP replies received, with any status code."},
		Metric{Field: "http_async_client:errors", Name: "errors_total", Kind: counter, Help: "HTTP requests that failed without a reply, timeouts included."},
		Metric{Field: "http_async_client:timeouts", Name: "timeouts_total", Kind: counter, Help: "Timeouts while a connection was open. Attempts to connect that time out are only counted as errors."},
	)},
}

// httpClientModule is the HTTP requests for which the script waits
// (http_client/functions.c).
var httpClientModule = Module{
	Subsystem: "http_client",
	Summary:   "HTTP requests of the script, by outcome",
	Queries: []Query{statistics("httpclient",
		Metric{Field: "httpclient:connok", Name: "requests_ok_total", Kind: counter, Help: "HTTP requests answered with status code 200."},
		Metric{Field: "httpclient:connfail", Name: "requests_failed_total", Kind: counter, Help: "HTTP requests that got no reply, or one with a status code other than 200."},
		Metric{Field: "httpclient:connections", Name: "connections_defined", Kind: gauge, Help: "Connections that are defined in the configuration (httpcon)."},
	)},
}
