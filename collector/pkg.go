package collector

import "github.com/kamailio-exporter/kamailio_exporter/kamrpc"

// pkgModule is the private memory of each process (kex/pkg_stats.c). A process
// writes its own figures down at its start and when it frees or enlarges memory
// (core/mem/f_malloc.c, SREV_PKG_UPDATE_STATS).
var pkgModule = Module{
	Subsystem: "pkg",
	Summary:   "Private memory of each process",
	Queries: []Query{{
		Method: "pkg.stats",
		Where:  isProcess,
		// Not by pid or rank, which a restart changes: what Kamailio calls it.
		Labels: []Label{{Name: "process", Field: "desc"}},
		Index:  true,
		Metrics: []Metric{
			{Field: "total_size", Name: "total_bytes", Kind: gauge, Help: "Private memory that the process has in all (-M). When a worker's is used up, it can handle no more requests."},
			{Field: "free", Name: "free_bytes", Kind: gauge, Help: "Private memory of the process that is free."},
			{Field: "used", Name: "used_bytes", Kind: gauge, Help: "Private memory of the process that is in use, without the allocator's own."},
			{Field: "real_used", Name: "real_used_bytes", Kind: gauge, Help: "Private memory of the process that is in use, with the allocator's own."},
			{Field: "total_frags", Name: "fragments", Kind: gauge, Help: "Free pieces that the private memory of the process is in."},
			{Field: "entry", Instead: "the process's number changes with the configuration"},
			{Field: "pid", Instead: "a restart changes it"},
			{Field: "rank", Instead: "the label process tells what it does"},
		},
	}},
}

// isProcess is false for places in Kamailio's table that no process has, and for
// one that has not yet written its figures down: its zeros are none.
func isProcess(row kamrpc.Value) bool {
	used, _ := row.Get("real_used").Float()
	return used != 0
}
