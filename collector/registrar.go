package collector

// registrarModule is the registrar's own counters and settings
// (registrar/registrar.c).
var registrarModule = Module{
	Subsystem: "registrar",
	Summary:   "Registrations accepted and rejected, and the registrar's limits",
	Queries: []Query{statistics("registrar",
		Metric{Field: "registrar:accepted_regs", Name: "accepted_total", Kind: counter, Help: "Registrations accepted by save()."},
		Metric{Field: "registrar:rejected_regs", Name: "rejected_total", Kind: counter, Help: "Registrations rejected by save(), for example because of too many contacts. Rejections by the script itself are not counted."},
		Metric{Field: "registrar:max_contacts", Name: "max_contacts", Kind: gauge, Help: "Maximum number of contacts per address of record (max_contacts); 0 means no limit."},
		Metric{Field: "registrar:max_expires", Name: "max_expires_seconds", Kind: gauge, Help: "Maximum lifetime of a registration (max_expires); 0 means no limit."},
		Metric{Field: "registrar:default_expire", Name: "default_expires_seconds", Kind: gauge, Help: "Lifetime of a registration that requests none (default_expires)."},
		Metric{Field: "registrar:default_expires_range", Name: "default_expires_range_percent", Kind: gauge, Help: "Random variation of the default registration lifetime, in percent (default_expires_range)."},
		Metric{Field: "registrar:expires_range", Name: "expires_range_percent", Kind: gauge, Help: "Random variation of a requested registration lifetime, in percent (expires_range)."},
	)},
}
