package collector

// registrarModule is the registrar's own counters and settings
// (registrar/registrar.c).
var registrarModule = Module{
	Subsystem: "registrar",
	Summary:   "Registrations accepted and rejected, and the registrar's limits",
	Queries: []Query{statistics("registrar",
		Metric{Field: "registrar:accepted_regs", Name: "accepted_total", Kind: counter, Help: "Registrations accepted by save()."},
		Metric{Field: "registrar:rejected_regs", Name: "rejected_total", Kind: counter, Help: "Registrations rejected by save(), for instance for too many contacts. What the script itself rejects is not in it."},
		Metric{Field: "registrar:max_contacts", Name: "max_contacts", Kind: gauge, Help: "Limit of contacts for each address of record (max_contacts); 0 is no limit."},
		Metric{Field: "registrar:max_expires", Name: "max_expires_seconds", Kind: gauge, Help: "Longest registration accepted (max_expires); 0 is no limit."},
		Metric{Field: "registrar:default_expire", Name: "default_expires_seconds", Kind: gauge, Help: "Length of a registration that asks for none (default_expires)."},
		Metric{Field: "registrar:default_expires_range", Name: "default_expires_range_percent", Kind: gauge, Help: "By how many percent the default length is varied at random (default_expires_range)."},
		Metric{Field: "registrar:expires_range", Name: "expires_range_percent", Kind: gauge, Help: "By how many percent a requested length is varied at random (expires_range)."},
	)},
}
