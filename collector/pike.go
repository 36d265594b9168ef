package collector

import (
	"context"
)

// pikeModule is the part of pike that a table can express (pike/pike_funcs.c, pike_rpc.c).
var pikeModule = Module{
	Subsystem: "pike",
	Summary:   "Source addresses that pike blocks because they send too many requests",
	Queries: []Query{
		{Method: pikeMethod, Metrics: []Metric{
			{Field: "max_hits", Name: "max_requests", Kind: gauge, Help: "Maximum number of requests from an address in a sampling period (reqs_density_per_unit). Above it the address is blocked."},
			{Field: "number_of_rows", Instead: "kamailio_pike_hot_addresses"},
		}},
		statistics("pike", Metric{Field: "pike:blocked_ips", Name: "blocked_total", Kind: counter, Help: "Number of times that a source address was blocked."}),
	},
}

const pikeMethod = "pike.top"

var (
	pikeHot  = NewDesc("kamailio_pike_hot_addresses", "Source addresses that are currently over the limit.", gauge, "pike.top list")
	pikeHits = NewDesc("kamailio_pike_address_requests", "Requests from a source address that is over the limit, in the current sampling period. Only with --collector.pike.addresses.", gauge, "pike.top leaf_hits_curr", "address")
)

// pike counts the rows of the list, which a table cannot do.
type pike struct {
	*table
	listLimits
	addresses int
}

func newPike(addresses int, limits listLimits) pike {
	return pike{pikeModule.Collector().(*table), limits, addresses}
}

func (p pike) base() *table { return p.table }

func (p pike) Guard() Guard {
	return p.guard(pikeMethod, func(samples []Sample) int {
		for _, s := range samples {
			if s.Desc == pikeHot {
				return int(s.Value)
			}
		}
		return 0
	})
}

func (p pike) Descs() []*Desc { return append([]*Desc{pikeHot, pikeHits}, p.table.Descs()...) }

func (p pike) Update(ctx context.Context, s *Session, emit Emit) error {
	top, err := s.Call(ctx, pikeMethod)
	if err != nil {
		return err
	}
	if !top.Get("list").Exists() {
		return unknownShape(pikeMethod, "no list in the reply")
	}
	hot := 0
	for row := range top.All("list") {
		if row.Get("status").Text() != "HOT" {
			continue
		}
		if hits, ok := row.Get("leaf_hits_curr").Float(); ok && hot < p.addresses {
			emit(pikeHits, hits, row.Get("ip_addr").Text())
		}
		hot++
	}
	emit(pikeHot, float64(hot))
	return p.table.Update(ctx, s, emit)
}
