package collector

// slModule is stateless replies (sl/sl_stats.c, which prints 64-bit counters through an
// int up to Kamailio 5.6). The counters do not overlap: a code that has its own counter is
// not counted in that of its class.
var slModule = Module{
	Subsystem: "sl",
	Summary:   "Stateless replies",
	Queries: []Query{
		// Where the statistics cannot be read. They hold the same counts in 64 bits.
		{Method: "sl.stats", Without: statisticsMethod, Metrics: []Metric{
			{Pattern: "([1-6][0-9x][0-9x]|xxx)", PatternLabels: []string{"code"}, Name: "replies_sent_by_code_total", Kind: counter, Wrap32: true, Help: slByCode},
		}},
		statistics("sl",
			Metric{Pattern: "sl:([1-6][0-9x][0-9x]|xxx)_replies", PatternLabels: []string{"code"}, Name: "replies_sent_by_code_total", Kind: counter, Help: slByCode},
			Metric{Field: "sl:sent_replies", Name: "replies_sent_total", Kind: counter, Help: "Replies sent without a transaction."},
			Metric{Field: "sl:sent_err_replies", Name: "error_replies_sent_total", Kind: counter, Help: "Replies sent by sl_reply_error(), for internal errors."},
			Metric{Field: "sl:failures", Name: "failures_total", Kind: counter, Help: "Replies that could not be sent."},
			Metric{Field: "sl:received_ACKs", Name: "acks_received_total", Kind: counter, Help: "ACKs received for stateless replies, that is, for INVITEs rejected without a transaction, including challenges (407)."},
		),
	},
}

const slByCode = "Replies sent without a transaction, by status code. A code such as 4xx stands for the codes of its class without a counter of their own; xxx stands for all others."
