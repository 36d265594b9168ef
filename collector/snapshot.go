package collector

import (
	"maps"
	"slices"
	"time"

	dto "github.com/prometheus/client_model/go"

	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
)

// Result is the result of one collector.
type Result struct {
	Collector string
	Supported bool
	Err       error // why there are no samples; nil also if the collector is not supported
	Duration  time.Duration
	Samples   []Sample
	// Duplicates is the number of samples that were dropped because an earlier sample
	// had the same labels.
	Duplicates int
	Held       Held // if the collector has a Guard
	Refusals   []Refusal
}

// Skipped returns the call that the collector currently skips, and why; "" if none.
func (r Result) Skipped() (method, reason string) {
	for _, h := range r.Held.Reasons {
		if h.Holds() {
			return r.Held.Method, h.Name
		}
	}
	for _, h := range r.Refusals {
		if h.Reason.Holds() {
			return h.Method, h.Reason.Name
		}
	}
	return "", ""
}

// Refusal is a call that is dangerous on some version of Kamailio. Its reason holds if it
// is dangerous on the running version.
type Refusal struct {
	Method string
	Reason Reason
}

// Snapshot is the outcome of one scrape. It is complete and does not change. As a
// prometheus.Gatherer, it returns the metrics of the scrape; AddTo adds them to a page.
type Snapshot struct {
	Up       bool
	Err      error // why Kamailio is not up
	Duration time.Duration
	Results  []Result
	URIs     []kamrpc.URIStatus // empty if there is only one URI
	taken    time.Time
}

// Metrics about the scrape itself, with names like those of node_exporter.
var (
	upDesc          = NewDesc("kamailio_up", "1 if Kamailio replied to this scrape, else 0.", gauge, "core.uptime")
	durationDesc    = NewDesc("kamailio_scrape_duration_seconds", "Duration of this scrape.", gauge, "the exporter")
	supportedDesc   = NewDesc("kamailio_scrape_collector_supported", "1 if this Kamailio has the RPCs that the collector needs, else 0.", gauge, "system.listMethods", "collector")
	successDesc     = NewDesc("kamailio_scrape_collector_success", "1 if the collector succeeded, 0 if it failed and its metrics are missing. The log reports why.", gauge, "the exporter", "collector")
	collectTimeDesc = NewDesc("kamailio_scrape_collector_duration_seconds", "Duration of the collector.", gauge, "the exporter", "collector")
	duplicateDesc   = NewDesc("kamailio_scrape_collector_duplicates", "Samples that were dropped because another one had the same labels.", gauge, "the exporter", "collector")

	usableDesc = NewDesc("kamailio_scrape_uri_usable", "1 while the exporter uses this URI, 0 while it skips the URI because it does not reply or leads to another Kamailio than the URIs before it. The log reports why. Only if several URIs are configured.", gauge, "the exporter", "uri")

	skippedDesc      = NewDesc("kamailio_scrape_skipped", "1 while the exporter skips a call, else 0: because the server holds more than the configured limit (size), because Kamailio does not report how much it holds (unknown), for a while after it failed (pause), or because it can kill this version of Kamailio (danger).", gauge, "the exporter", "collector", "method", "reason")
	skippedSinceDesc = NewDesc("kamailio_scrape_skipped_since_timestamp_seconds", "Unix time since when a call has been skipped. Only while it is.", gauge, "the exporter", "collector", "method", "reason")
	ageDesc          = NewDesc("kamailio_scrape_data_age_seconds", "Age of the samples of a collector whose expensive call is not made at every scrape.", gauge, "the exporter", "collector")
)

// ScrapeDescs returns the metrics about the scrape itself, which are on every page.
func ScrapeDescs() []*Desc {
	return []*Desc{upDesc, durationDesc, supportedDesc, successDesc, collectTimeDesc, duplicateDesc, usableDesc, skippedDesc, skippedSinceDesc, ageDesc}
}

// Gather implements prometheus.Gatherer.
func (s *Snapshot) Gather() ([]*dto.MetricFamily, error) {
	var g Families
	s.AddTo(&g)
	return g.Sorted(), nil
}

// AddTo builds the metric families directly. A registry would check again what this
// package already ensures (one help text and kind per name, no duplicate labels, valid
// UTF-8), which takes half the time of a scrape.
func (s *Snapshot) AddTo(g *Families) {
	g.Add(upDesc, Bool01(s.Up))
	g.Add(durationDesc, s.Duration.Seconds())
	usable := map[string]bool{} // two URIs may look the same without the hidden parts
	for _, w := range s.URIs {
		usable[w.URI] = usable[w.URI] || w.Err == nil
	}
	for _, uri := range slices.Sorted(maps.Keys(usable)) {
		g.Add(usableDesc, Bool01(usable[uri]), LabelValue(uri))
	}
	for _, r := range s.Results {
		g.Add(supportedDesc, Bool01(r.Supported), r.Collector)
		if !r.Supported {
			continue
		}
		g.Add(successDesc, Bool01(r.Err == nil), r.Collector)
		g.Add(collectTimeDesc, r.Duration.Seconds(), r.Collector)
		if r.Duplicates > 0 {
			g.Add(duplicateDesc, float64(r.Duplicates), r.Collector)
		}
		for _, reason := range r.Held.Reasons {
			g.addReason(r.Collector, r.Held.Method, reason)
		}
		for _, refusal := range r.Refusals {
			g.addReason(r.Collector, refusal.Method, refusal.Reason)
		}
		if r.Held.HasAge {
			g.Add(ageDesc, r.Held.Age.Seconds(), r.Collector)
		}
		for _, sample := range r.Samples {
			g.Add(sample.Desc, sample.Value, sample.Labels...)
		}
	}
}

func (g *Families) addReason(collector, method string, reason Reason) {
	g.Add(skippedDesc, Bool01(reason.Holds()), collector, method, reason.Name)
	if reason.Holds() {
		g.Add(skippedSinceDesc, float64(reason.Since.Unix()), collector, method, reason.Name)
	}
}
