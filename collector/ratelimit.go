package collector

// ratelimitModule is the older module for rate limits (ratelimit/ratelimit.c). Its RPC
// writes a line for each pipe but is not marked as returning a list, so over JSON-RPC each
// line replaces the previous one (jsonrpcs_mod.c, jsonrpc_rpl_printf). BINRPC returns all
// lines.
var ratelimitModule = Module{
	Subsystem: "ratelimit",
	Summary:   "Pipes of ratelimit; " + lastOnly,
	Queries: []Query{{
		Method: "rl.get_pipes", Line: `PIPE\[(?P<pipe>[0-9]+)\]: [0-9]+:.* (?P<last_counter>-?[0-9]+)/(?P<limit>-?[0-9]+) \(drop rate: (?P<load>-?[0-9]+)\) \[(?P<counter>-?[0-9]+)\]`,
		Labels: []Label{{Name: "pipe", Field: "pipe"}},
		Metrics: []Metric{
			{Field: "limit", Name: "pipe_limit", Kind: gauge, Help: "Limit of the pipe: requests per second, percent of CPU (algorithm FEEDBACK), or bytes that wait to be read (algorithm NETWORK). " + lastPipe},
			{Field: "counter", Name: "pipe_requests", Kind: gauge, Help: "Requests to the pipe in the current interval (timer_interval), including rejected ones. " + lastPipe},
			{Field: "last_counter", Name: "pipe_last_requests", Kind: gauge, Help: "Requests to the pipe in the last complete interval, including rejected ones. " + lastPipe},
			{Field: "load", Name: "pipe_load", Kind: gauge, Help: "Requests of the last interval divided by the limit, rounded down. Above 0 the pipe rejects some of them (algorithm RED). With algorithm NETWORK, 1 means above the limit and -1 below. " + lastPipe},
		},
	}},
}

const lastPipe = "Over JSON-RPC, only the last pipe is available."

// lastOnly is the note for values that only BINRPC returns completely.
const lastOnly = "over JSON-RPC Kamailio reports only the last one, over a binrpc URI all"
