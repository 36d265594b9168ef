package xhttpprom

import (
	"math"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/kamailio-exporter/kamailio_exporter/collector"
)

// Merged has the metrics that Kamailio's module xhttp_prom serves for the operator's
// script, cleaned so that they can be merged into the exporter's page. As a
// prometheus.Gatherer it returns these and the metrics about them.
type Merged struct {
	Err      error         // why there are no families; also nil if the page has none
	Duration time.Duration // 0: the page was not read
	Families []*dto.MetricFamily
	// What was dropped: families because of their name, families without any valid
	// sample, invalid samples, and samples whose labels an earlier one had.
	Collisions, InvalidFamilies      []string
	InvalidSamples, DuplicateSamples int
}

var (
	mergedUpDesc       = collector.NewDesc("kamailio_xhttp_prom_up", "1 if the page of Kamailio's module xhttp_prom was read, 0 if that failed and its metrics are missing. The log reports why. Only with --xhttp_prom.url.", prometheus.GaugeValue, "the page")
	mergedDurationDesc = collector.NewDesc("kamailio_xhttp_prom_duration_seconds", "Time to read the page of xhttp_prom. Omitted while it is not read.", prometheus.GaugeValue, "the exporter")
	mergedFamiliesDesc = collector.NewDesc("kamailio_xhttp_prom_dropped_families", "Metrics of the xhttp_prom page that were dropped, because the name exists already (collision), or because they could not be parsed (invalid).", prometheus.GaugeValue, "the page", "reason")
	mergedSamplesDesc  = collector.NewDesc("kamailio_xhttp_prom_dropped_samples", "Lines of the xhttp_prom page that were dropped, because they could not be parsed (invalid), or because another one has the same labels (duplicate).", prometheus.GaugeValue, "the page", "reason")
)

// Descs returns the metrics about a merged page.
func Descs() []*collector.Desc {
	return []*collector.Desc{mergedUpDesc, mergedDurationDesc, mergedFamiliesDesc, mergedSamplesDesc}
}

// Gather returns the merged metrics and those about the merge.
func (m *Merged) Gather() ([]*dto.MetricFamily, error) {
	var g collector.Families
	g.Add(mergedUpDesc, collector.Bool01(m.Err == nil))
	if m.Duration > 0 {
		g.Add(mergedDurationDesc, m.Duration.Seconds())
	}
	if m.Err != nil {
		return g.Sorted(), nil
	}
	g.Add(mergedFamiliesDesc, float64(len(m.Collisions)), "collision")
	g.Add(mergedFamiliesDesc, float64(len(m.InvalidFamilies)), "invalid")
	g.Add(mergedSamplesDesc, float64(m.DuplicateSamples), "duplicate")
	g.Add(mergedSamplesDesc, float64(m.InvalidSamples), "invalid")
	return append(g.Sorted(), m.Families...), nil
}

// Keep drops families whose name is taken or duplicate, and samples of the other families
// that cannot be served.
func (m *Merged) Keep(families []*dto.MetricFamily, taken func(name string) bool) {
	own := map[string]bool{}
	for _, f := range families {
		names := familyNames(f)
		if slices.ContainsFunc(names, func(n string) bool { return taken(n) || own[n] }) {
			m.Collisions = append(m.Collisions, f.GetName())
			continue
		}
		m.clean(f)
		if len(f.Metric) == 0 {
			m.InvalidFamilies = append(m.InvalidFamilies, f.GetName())
			continue
		}
		for _, n := range names {
			own[n] = true
		}
		m.Families = append(m.Families, f)
	}
}

// familyNames returns the names that a family occupies, for itself and its samples, in
// any exposition format.
func familyNames(f *dto.MetricFamily) []string {
	name := f.GetName()
	names := []string{name, strings.TrimSuffix(name, "_total")}
	switch f.GetType() {
	case dto.MetricType_HISTOGRAM, dto.MetricType_SUMMARY:
		names = append(names, name+"_bucket", name+"_sum", name+"_count")
	}
	return names
}

// clean drops samples with duplicate labels, and incomplete histograms and summaries: the
// missing part would be read as 0.
func (m *Merged) clean(f *dto.MetricFamily) {
	seen := map[string]bool{}
	f.Metric = slices.DeleteFunc(f.Metric, func(metric *dto.Metric) bool {
		key, ok := labelKey(metric.Label)
		h, s := metric.Histogram, metric.Summary
		if !ok || h != nil && (h.SampleCount == nil || h.SampleSum == nil) || s != nil && (s.SampleCount == nil || s.SampleSum == nil) {
			m.InvalidSamples++
			return true
		}
		if seen[key] {
			m.DuplicateSamples++
			return true
		}
		seen[key] = true
		if h != nil {
			m.cleanBuckets(h)
		}
		metric.TimestampMs = nil // it is current, and must go stale when it disappears
		return false
	})
}

func (m *Merged) cleanBuckets(h *dto.Histogram) {
	bounds := map[float64]bool{}
	h.Bucket = slices.DeleteFunc(h.Bucket, func(b *dto.Bucket) bool {
		if bounds[b.GetUpperBound()] || math.IsNaN(b.GetUpperBound()) {
			m.DuplicateSamples++
			return true
		}
		bounds[b.GetUpperBound()] = true
		return false
	})
}

// labelKey identifies a set of labels. ok is false for a set that no series can have.
func labelKey(labels []*dto.LabelPair) (key string, ok bool) {
	slices.SortFunc(labels, func(a, b *dto.LabelPair) int { return strings.Compare(a.GetName(), b.GetName()) })
	var b strings.Builder
	for i, l := range labels {
		if strings.HasPrefix(l.GetName(), "__") || i > 0 && l.GetName() == labels[i-1].GetName() {
			return "", false
		}
		b.WriteString(l.GetName() + "\xff" + l.GetValue() + "\xff")
	}
	return b.String(), true
}
