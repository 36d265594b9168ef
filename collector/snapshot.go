package collector

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Result is what one collector brought home.
type Result struct {
	Collector string
	Supported bool
	Err       error // why there are no samples; nil also when it is not supported
	Duration  time.Duration
	Samples   []Sample
	// Duplicates counts samples that were dropped because others with the same
	// labels came before.
	Duplicates int
}

// Snapshot is the outcome of one scrape. It is complete and does not change; as
// a prometheus.Collector it is the scrape's part of the page.
type Snapshot struct {
	Up       bool
	Err      error // why not Up
	Duration time.Duration
	Results  []Result
	taken    time.Time
}

// Metrics about the scrape itself. The words are node_exporter's.
var (
	upDesc          = NewDesc("kamailio_up", "1 when Kamailio answered this scrape, 0 when it did not.", gauge, "core.uptime")
	durationDesc    = NewDesc("kamailio_scrape_duration_seconds", "Time that this scrape took.", gauge, "the exporter")
	supportedDesc   = NewDesc("kamailio_scrape_collector_supported", "1 when the server runs what this collector reads, 0 when it does not.", gauge, "system.listMethods", "collector")
	successDesc     = NewDesc("kamailio_scrape_collector_success", "1 when the collector read all it wanted, 0 when it failed and its metrics are missing. The log tells why.", gauge, "the exporter", "collector")
	collectTimeDesc = NewDesc("kamailio_scrape_collector_duration_seconds", "Time that the collector took.", gauge, "the exporter", "collector")
	duplicateDesc   = NewDesc("kamailio_scrape_collector_duplicates", "Samples that were dropped because others had the same labels.", gauge, "the exporter", "collector")

	// heldBackDesc is emitted by the collectors that hold something back.
	heldBackDesc = NewDesc("kamailio_scrape_held_back", "1 while a costly call is not made because the server holds more than the configured limit, else 0.", gauge, "the exporter", "collector", "method")
)

// ScrapeDescs are the metrics of the scrape itself, on every page.
func ScrapeDescs() []*Desc {
	return []*Desc{upDesc, durationDesc, supportedDesc, successDesc, collectTimeDesc, duplicateDesc, heldBackDesc}
}

// Describe sends nothing: which metrics there are depends on the server.
func (s *Snapshot) Describe(chan<- *prometheus.Desc) {}

// Collect sends the samples.
func (s *Snapshot) Collect(ch chan<- prometheus.Metric) {
	send := func(d *Desc, value float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d.prom, d.Kind, value, labels...)
	}
	send(upDesc, bool01(s.Up))
	send(durationDesc, s.Duration.Seconds())
	for _, r := range s.Results {
		send(supportedDesc, bool01(r.Supported), r.Collector)
		if !r.Supported {
			continue
		}
		send(successDesc, bool01(r.Err == nil), r.Collector)
		send(collectTimeDesc, r.Duration.Seconds(), r.Collector)
		if r.Duplicates > 0 {
			send(duplicateDesc, float64(r.Duplicates), r.Collector)
		}
		for _, sample := range r.Samples {
			send(sample.Desc, sample.Value, sample.Labels...)
		}
	}
}
