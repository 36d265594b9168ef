package collector

// cnxccModule is calls with credit control (cnxcc/cnxcc_mod.c, rpc_credit_control_stats).
var cnxccModule = Module{
	Subsystem: "cnxcc",
	Summary:   "Calls with credit control",
	Queries: []Query{{Method: "cnxcc.stats", Metrics: []Metric{
		{Field: "active", Name: "active_calls", Kind: gauge, Help: "Calls that are monitored."},
		{Field: "total", Instead: "the same as active: Kamailio subtracts the calls that end"},
		{Field: "dropped", Name: "calls_dropped_total", Kind: counter, Wrap32: true, Help: "Calls ended because their credit was used up."},
		{Field: "info", Instead: "a fixed text"},
	}}},
}
