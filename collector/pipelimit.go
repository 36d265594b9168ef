package collector

// pipelimitModule is pipes that limit the rate of requests (pipelimit/pl_ht.c). kamailio.cfg
// can create them at runtime, for example one per customer.
var pipelimitModule = Module{
	Subsystem: "pipelimit",
	Summary:   "Pipes of pipelimit: limits and requests",
	Queries: []Query{
		{Method: "pl.list", Labels: []Label{{Name: "pipe", Field: "name"}}, Metrics: []Metric{
			{Field: "limit", Name: "pipe_limit", Kind: gauge, Help: "Limit of the pipe: requests per interval (timer_interval), percent of CPU (algorithm FEEDBACK), or bytes that wait to be read (algorithm NETWORK)."},
			{Field: "counter", Name: "pipe_requests", Kind: gauge, Help: "Requests to the pipe in the current interval, including rejected ones."},
			{Field: "last_counter", Name: "pipe_last_requests", Kind: gauge, Help: "Requests to the pipe in the last complete interval, including rejected ones."},
			{Field: "algorithm", Instead: "nothing: a setting"},
			{Field: "unused_intervals", Instead: "nothing: when an unused pipe is deleted"},
		}},
		{
			Method: "pl.stats", Optional: true, Line: `(?s)PIPE: id=(?P<name>.*) load=(?P<load>-?[0-9]+) counter=(?P<last_counter>-?[0-9]+)`,
			Labels: []Label{{Name: "pipe", Field: "name"}}, Metrics: []Metric{
				{Field: "load", Name: "pipe_load", Kind: gauge, Help: "Requests of the last interval divided by the limit, rounded down. Above 0 the pipe rejects some of them (algorithm RED). With algorithm NETWORK, 1 means above the limit and -1 below."},
				{Field: "last_counter", Instead: "kamailio_pipelimit_pipe_last_requests"},
			},
		},
	},
}
