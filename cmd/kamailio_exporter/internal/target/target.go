// Package target describes one Kamailio to query: its settings, from the flags or from
// the file of many targets, their bounds, and how to connect to it.
//
//	flags ──► Flags.Target ─┐
//	                        ├─► Target ──► Check ──► HTTPClient, Transports, Client
//	file ───► Spec.Apply ───┘
package target

import (
	"slices"

	"github.com/kamailio-exporter/kamailio_exporter/collector"
)

// Source is where the settings of a target come from. Errors name settings as that source
// does.
type Source int

// The sources.
const (
	FromFlags Source = iota
	FromFile
)

// Name returns what the target's source calls a setting: its flag, or its key in the
// file.
func (t Target) Name(flag, key string) string {
	if t.Source == FromFile {
		return key
	}
	return "--" + flag
}

// Enabled returns the enabled collectors.
func (t Target) Enabled() []collector.Collector {
	return slices.DeleteFunc(collector.All(t.Options), func(c collector.Collector) bool { return !slices.Contains(t.Collectors, c.Name()) })
}
