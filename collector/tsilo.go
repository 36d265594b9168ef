package collector

// tsiloModule is the transactions that wait for further phones to register
// (tsilo/ts_hash.c, ts_append.c).
var tsiloModule = Module{
	Subsystem: "tsilo",
	Summary:   "Calls that ring further phones as they register",
	Queries: []Query{statistics("tsilo",
		Metric{Field: "tsilo:stored_ruris", Name: "stored_uris", Kind: gauge, Help: "Request-URIs with stored transactions."},
		Metric{Field: "tsilo:stored_transactions", Name: "stored_transactions", Kind: gauge, Help: "Stored transactions."},
		Metric{Field: "tsilo:total_ruris", Name: "uris_total", Kind: counter, Help: "Request-URIs stored since the start."},
		Metric{Field: "tsilo:total_transactions", Name: "transactions_total", Kind: counter, Help: "Transactions stored since the start."},
		Metric{Field: "tsilo:added_branches", Name: "branches_added_total", Kind: counter, Help: "Branches added to stored transactions."},
	)},
}
