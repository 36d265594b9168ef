package collector

// natTraversalModule is the endpoints behind NAT (nat_traversal/nat_traversal.c).
var natTraversalModule = Module{
	Subsystem: "nat_traversal",
	Summary:   "Endpoints behind NAT that are kept reachable",
	Queries: []Query{statistics("nat_traversal",
		Metric{Field: "nat_traversal:keepalive_endpoints", Name: "endpoints", Kind: gauge, Help: "Endpoints behind NAT that Kamailio sends keepalives to."},
		Metric{Field: "nat_traversal:registered_endpoints", Name: "registered_endpoints", Kind: gauge, Help: "Endpoints that are kept reachable because of a registration."},
		Metric{Field: "nat_traversal:subscribed_endpoints", Name: "subscribed_endpoints", Kind: gauge, Help: "Endpoints that are kept reachable because of a subscription."},
		Metric{Field: "nat_traversal:dialog_endpoints", Name: "dialog_endpoints", Kind: gauge, Help: "Dialogs because of which endpoints are kept reachable; an endpoint counts once for each of its dialogs."},
	)},
}
