package collector

import "github.com/prometheus/client_golang/prometheus"

// dlgsModule is the calls that the module dlgs tracks (dlgs/dlgs_records.c).
var dlgsModule = Module{
	Subsystem: "dlgs",
	Summary:   "Calls tracked by dlgs, by state",
	Queries: []Query{
		{Method: "dlgs.stats", Rows: "active", Metrics: dlgsStates("calls", gauge, "Calls in memory, by state. Calls that ended stay in memory for some seconds.")},
		{Method: "dlgs.stats", Rows: "final", Metrics: dlgsStates("calls_removed_total", counter, "Calls removed from memory, by their last state.")},
	},
}

func dlgsStates(name string, kind prometheus.ValueType, help string) []Metric {
	var metrics []Metric
	for _, state := range []struct{ field, label string }{
		{"init", "init"}, {"progress", "progress"}, {"answered", "answered"}, {"confirmed", "confirmed"},
		{"terminted", "terminated"}, {"terminated", "terminated"}, // up to 6.0, and 6.1
		{"notanswered", "not_answered"},
	} {
		metrics = append(metrics, Metric{Field: state.field, Const: []Label{{Name: "state", Value: state.label}}, Name: name, Kind: kind, Help: help})
	}
	return metrics
}
