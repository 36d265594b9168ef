package collector

// htableModule is the sizes of the script's hash tables (htable/htable.c). What
// is in them is the script's own business, and may be personal data.
var htableModule = Module{
	Subsystem: "htable",
	Summary:   "Entries of the script's hash tables",
	Queries: []Query{{
		Method: "htable.listTables", Optional: true, Empty: []string{"No htables"},
		Labels: []Label{{Name: "table", Field: "name"}},
		Metrics: []Metric{
			{Field: "expire", Name: "expire_seconds", Kind: gauge, Wrap32: true, Help: "Time after which an entry that is not renewed is removed (autoexpire); 0 is never."},
			{Field: "size", Instead: "kamailio_htable_slots"},
		},
	}, {
		Method: "htable.stats", Empty: []string{"No htables"},
		Labels: []Label{{Name: "table", Field: "name"}},
		Metrics: []Metric{
			{Field: "all", Name: "entries", Kind: gauge, Help: "Entries of the table, expired ones that are not yet removed included. Nodes that replicate a table (dmqreplicate) each have all of it."},
			{Field: "slots", Name: "slots", Kind: gauge, Help: "Slots of the table: two to the power of its parameter size."},
			{Field: "max", Name: "largest_slot_entries", Kind: gauge, Help: "Entries of the fullest slot. Much above entries per slot the table is too small, and slow."},
			{Field: "min", Instead: "nothing: it is 0 on most tables"},
		},
	}},
}
