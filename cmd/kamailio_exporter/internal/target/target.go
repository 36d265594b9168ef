// Package target is one Kamailio to query: what can be set of it, by the flags or
// by the file of many targets, within which bounds, and how it is opened.
//
//	flags ──► Flags.Target ─┐
//	                        ├─► Target ──► Check ──► HTTPClient, Ways, Client
//	file ───► Spec.Apply ───┘
package target

import (
	"slices"
	"time"

	"github.com/alecthomas/units"
	"github.com/prometheus/common/config"

	"github.com/kamailio-exporter/kamailio_exporter/collector"
)

// Target is one Kamailio, and all that is to be known to scrape it.
type Target struct {
	Source     Source
	URIs       []string                 // in the order of preference; none: there is no Kamailio
	HTTP       *config.HTTPClientConfig // nil: without credentials
	Limits     Limits
	Collectors []string // names of those that are on
	Options    collector.Options
	SIP        SIP
	Script     Script
}

// Limits bound what a scrape may cost.
type Limits struct {
	ScrapeTimeout     time.Duration // of a whole scrape
	TimeoutOffset     time.Duration // kept back of Prometheus' own time-out
	Reuse             time.Duration // how old a scrape may be to be served again
	RPCTimeout        time.Duration // of one call
	MaxConcurrentRPCs int
	MaxReplySize      units.Base2Bytes
}

// SIP says which SIP sockets are asked; without Probe none.
type SIP struct {
	Probe      []string
	Timeout    time.Duration
	RequestURI string
	CAFile     string
	ServerName string
}

// Script says where the page of the module xhttp_prom is; without URL there is
// none.
type Script struct {
	URL     string
	Timeout time.Duration
	MaxSize units.Base2Bytes
}

// Source is who says what a target is like. Its errors name settings as that
// source does.
type Source int

// The sources.
const (
	FromFlags Source = iota
	FromFile
)

// Name is how the source of a target calls a setting: by its flag, or by its key
// in the file.
func (t Target) Name(flag, key string) string {
	if t.Source == FromFile {
		return key
	}
	return "--" + flag
}

// Enabled are the collectors that are on.
func (t Target) Enabled() []collector.Collector {
	return slices.DeleteFunc(collector.All(t.Options), func(c collector.Collector) bool { return !slices.Contains(t.Collectors, c.Name()) })
}
