package collector

// tmModule is the totals of tm (tm/t_stats.c, which prints 64-bit sums through an unsigned
// int). The two numbers of transactions in memory are differences of such sums. They stay
// far below 2^31. They are briefly negative if one process counts the end of a transaction
// that another process started after it was summed up.
var tmModule = Module{
	Subsystem: "tm",
	Summary:   "SIP transactions",
	Queries: []Query{{Method: "tm.stats", Metrics: []Metric{
		{Field: "current", Name: "transactions_current", Kind: gauge, Tally: true, Help: "Transactions in memory."},
		{Field: "waiting", Name: "transactions_waiting", Kind: gauge, Tally: true, Help: "Completed transactions that wait for late retransmissions (wt_timer)."},
		{Field: "total", Name: "transactions_total", Kind: counter, Wrap32: true, Help: "Transactions since the start."},
		{Field: "total_local", Name: "local_transactions_total", Kind: counter, Wrap32: true, Help: "Transactions that Kamailio started itself, such as OPTIONS pings and registrations."},
		{Pattern: "([2-6]xx)", PatternLabels: []string{"class"}, Name: "transactions_completed_total", Kind: counter, Wrap32: true, Help: "Completed transactions, by class of their final reply."},
		{Field: "rpl_received", Name: "replies_received_total", Kind: counter, Wrap32: true, Help: "Replies received for transactions."},
		{Field: "rpl_generated", Name: "replies_generated_total", Kind: counter, Wrap32: true, Help: "Replies that Kamailio generated itself."},
		{Field: "rpl_sent", Name: "replies_sent_total", Kind: counter, Wrap32: true, Help: "Replies sent, including relayed ones."},
		// Only in builds with TM_MORE_STATS.
		{Field: "created", Name: "cells_created_total", Kind: counter, Wrap32: true, Help: "Transaction cells created."},
		{Field: "freed", Name: "cells_freed_total", Kind: counter, Wrap32: true, Help: "Transaction cells freed."},
		{Field: "delayed_free", Name: "cells_delayed_free_total", Kind: counter, Wrap32: true, Help: "Transaction cells that could not be freed at once because they were still in use."},
	}}},
}

// tmxModule is the statistics of tmx (tmx/tmx_mod.c), which separate relayed from absorbed
// replies, and server from client transactions.
var tmxModule = Module{
	Subsystem: "tmx",
	Summary:   "SIP transactions as the tmx module counts them",
	Queries: []Query{statistics("tmx",
		Metric{Field: "tmx:UAS_transactions", Name: "uas_transactions_total", Kind: counter, Help: "Transactions started by a received request."},
		Metric{Field: "tmx:UAC_transactions", Name: "uac_transactions_total", Kind: counter, Help: "Transactions started by Kamailio itself, including pings and registrations."},
		Metric{Pattern: "tmx:([2-6]xx)_transactions", PatternLabels: []string{"class"}, Name: "transactions_completed_total", Kind: counter, Help: "Completed transactions, by class of their final reply."},
		Metric{Field: "tmx:active_transactions", Name: "transactions_active", Kind: gauge, Tally: true, Help: "Transactions not yet completed."},
		Metric{Field: "tmx:inuse_transactions", Name: "transactions_in_use", Kind: gauge, Tally: true, Help: "Transactions in memory, including completed ones that wait for retransmissions."},
		Metric{Field: "tmx:rpl_received", Name: "replies_received_total", Kind: counter, Help: "Replies received for transactions."},
		Metric{Field: "tmx:rpl_absorbed", Name: "replies_absorbed_total", Kind: counter, Help: "Replies received and not relayed, such as retransmissions."},
		Metric{Field: "tmx:rpl_generated", Name: "replies_generated_total", Kind: counter, Help: "Replies that Kamailio generated itself."},
		Metric{Field: "tmx:rpl_relayed", Name: "replies_relayed_total", Kind: counter, Help: "Received replies that were relayed."},
		Metric{Field: "tmx:rpl_sent", Name: "replies_sent_total", Kind: counter, Help: "Replies sent: generated and relayed."},
	)},
}
