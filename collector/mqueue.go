package collector

// mqueueModule is the message queues of kamailio.cfg (mqueue/mqueue_mod.c).
var mqueueModule = Module{
	Subsystem: "mqueue",
	Summary:   "Messages that wait in the script's queues",
	Queries: []Query{{
		Method: "mqueue.get_sizes",
		Labels: []Label{{Name: "queue", Field: "name"}},
		Metrics: []Metric{
			{Field: "size", Name: "messages", Kind: gauge, Help: "Messages that wait in the queue. If it only grows, no process consumes them."},
		},
	}},
}
