package collector

// uacModule is the totals of outgoing registrations (uac/uac_reg.c). Kamailio's
// regactive can fall below zero.
var uacModule = Module{
	Subsystem: "uac",
	Summary:   "Outgoing registrations (uac module), in total",
	Queries: []Query{statistics("uac",
		Metric{Field: "uac:regtotal", Name: "registrations", Kind: gauge, Help: "Outgoing registrations that Kamailio keeps."},
		Metric{Field: "uac:regactive", Name: "registrations_active", Kind: gauge, Help: "Outgoing registrations that are registered, as Kamailio counts them: the count can fall below zero."},
		Metric{Field: "uac:regdisabled", Name: "registrations_disabled", Kind: gauge, Help: "Outgoing registrations that are switched off."},
	)},
}
