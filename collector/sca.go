package collector

// scaModule is shared call appearances (sca/sca_rpc.c). Their states are not read, see
// unread.go.
var scaModule = Module{
	Subsystem: "sca",
	Summary:   "Shared call appearances: subscriptions",
	Queries:   []Query{scaSubscriptions("call-info"), scaSubscriptions("line-seize")},
}

func scaSubscriptions(event string) Query {
	return Query{
		Method: "sca.subscription_count", Params: []any{event},
		Line:   `(?P<count>\d+) .*`,
		Labels: []Label{{Name: "event", Value: event}},
		Metrics: []Metric{
			{Field: "count", Name: "subscriptions", Kind: gauge, Help: "Subscriptions to shared call appearances in memory, by event (call-info, line-seize)."},
		},
	}
}
