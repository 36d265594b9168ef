// Package target is one Kamailio to query: what can be set of it, by the flags or
// by the file of many targets, within which bounds, and how it is opened.
//
//	flags ──► Flags.Target ─┐
//	                        ├─► Target ──► Check ──► HTTPClient, Transports, Client
//	file ───► Spec.Apply ───┘
package target

import (
	"slices"

	"github.com/kamailio-exporter/kamailio_exporter/collector"
)

// Source is where the settings of a target come from. Errors name settings as that
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
