// Package target describes one Kamailio to query: its settings, from the flags or from
// the file of many targets, their bounds, and how to connect to it.
//
//	flags ──► Flags.Target ─┐
//	                        ├─► Target ──► Check ──► HTTPClient, Transports, Client
//	file ───► Spec.Apply ───┘
package target

import (
	"net"
	"net/url"
	"slices"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/host"
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
	return slices.DeleteFunc(collector.All(t.CollectorOptions()), func(c collector.Collector) bool { return !slices.Contains(t.Collectors, c.Name()) })
}

// CollectorOptions returns the options of the collectors. They have this host if a URI
// leads to it.
func (t Target) CollectorOptions() collector.Options {
	o := t.Options
	if slices.ContainsFunc(t.URIs, OnThisHost) {
		o.Host = host.This
	}
	return o
}

// OnThisHost reports whether a URI is a path, or has a loopback address.
func OnThisHost(uri string) bool {
	u, err := url.Parse(uri)
	return err == nil && (u.Hostname() == "" || u.Hostname() == "localhost" || net.ParseIP(u.Hostname()).IsLoopback())
}
