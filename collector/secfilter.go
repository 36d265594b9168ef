package collector

// secfilterModule is what secfilter blocked and allowed (Kamailio 6 and later,
// secfilter/secfilter_rpc.c). Kamailio 5.6 writes lines, of which JSON-RPC keeps only the
// last one, which is empty.
var secfilterModule = Module{
	Subsystem: "secfilter",
	Summary:   "Messages that secfilter blocked or allowed (Kamailio 6)",
	Queries:   []Query{{Method: "secfilter.stats", MustTell: true, Metrics: secfilterMatches()}},
}

func secfilterMatches() (all []Metric) {
	kinds := []string{
		"User-Agent", "Country", "From-Domain", "To-Domain", "Contact-Domain", "IP-Address",
		"From-Name", "To-Name", "Contact-Name", "From-User", "To-User", "Contact-User",
	}
	for _, list := range []struct {
		field, label string
		kinds        []string
	}{
		{"Blacklist", "blacklist", kinds},
		{"Whitelist", "whitelist", kinds},
		{"Other", "other", []string{"Destination", "SQL-Injection"}},
	} {
		for _, kind := range list.kinds {
			all = append(all, Metric{
				Field: list.field + "/" + kind, Const: []Label{{Name: "list", Value: list.label}, {Name: "kind", Value: kind}},
				Source: "<list>/<kind>", Name: "matches_total", Kind: counter, Wrap32: true,
				Help: "Checks that found a match, by list and by the compared element. The lists blacklist and other block the message, whitelist allows it.",
			})
		}
	}
	return all
}
