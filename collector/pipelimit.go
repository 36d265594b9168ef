package collector

// pipelimitModule is pipes that limit the rate of requests (pipelimit/pl_ht.c).
// A script may make them as it goes, one for each customer for instance.
var pipelimitModule = Module{
	Subsystem: "pipelimit",
	Summary:   "Pipes of pipelimit: limits and what passes through",
	Queries: []Query{
		{Method: "pl.list", Labels: []Label{{Name: "pipe", Field: "name"}}, Metrics: []Metric{
			{Field: "limit", Name: "pipe_limit", Kind: gauge, Help: "Limit of the pipe: requests in an interval (timer_interval), or percent of CPU (algorithm FEEDBACK), or bytes that wait to be read (NETWORK)."},
			{Field: "counter", Name: "pipe_requests", Kind: gauge, Help: "Requests that came to the pipe in the present interval, refused ones included."},
			{Field: "last_counter", Name: "pipe_last_requests", Kind: gauge, Help: "Requests that came to the pipe in the last whole interval, refused ones included."},
			{Field: "algorithm", Instead: "nothing: a setting"},
			{Field: "unused_intervals", Instead: "nothing: when a pipe that nobody uses is deleted"},
		}},
		{
			Method: "pl.stats", Optional: true, Line: `(?s)PIPE: id=(?P<name>.*) load=(?P<load>-?[0-9]+) counter=(?P<last_counter>-?[0-9]+)`,
			Labels: []Label{{Name: "pipe", Field: "name"}}, Metrics: []Metric{
				{Field: "load", Name: "pipe_load", Kind: gauge, Help: "Requests of the last interval as a multiple of the limit, rounded down: above 0 the pipe refuses some (algorithm RED). For algorithm NETWORK 1 is above the limit and -1 below."},
				{Field: "last_counter", Instead: "kamailio_pipelimit_pipe_last_requests"},
			},
		},
	},
}
