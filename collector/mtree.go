package collector

// mtreeModule is prefix trees (mtree/mtree_mod.c).
var mtreeModule = Module{
	Subsystem: "mtree",
	Summary:   "Prefix trees: items, memory, reloads",
	Queries: []Query{{
		Method: "mtree.summary", Empty: []string{"Empty tree list"},
		Labels: []Label{{Name: "tree", Field: "table"}},
		Metrics: []Metric{
			{Field: "item/nritems", Name: "items", Kind: gauge, Wrap32: true, Help: "Values in the tree. Kamailio does not count those of trees of type 2 (integers)."},
			{Field: "item/nrnodes", Name: "nodes", Kind: gauge, Wrap32: true, Help: "Nodes of the tree."},
			{Field: "item/memsize", Name: "memory_bytes", Kind: gauge, Wrap32: true, Help: "Shared memory of the tree. Kamailio counts it in 32 bits, so the value wraps around at 4 GiB."},
			{Field: "item/reload_count", Name: "reloads_total", Kind: counter, Wrap32: true, Help: "Loads of the tree from the database, including the one at startup."},
			{Field: "item/reload_time", Name: "last_reload_timestamp_seconds", Kind: gauge, Help: "Unix time at which the tree was last loaded from the database."},
			{Field: "item/ttype", Instead: "nothing: the parameter type of kamailio.cfg"},
		},
	}},
}
