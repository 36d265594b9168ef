package collector

import (
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// Families collects the metrics of a page. The zero value is empty and ready for use.
// After Reset it can be used for another page; that reuses the memory of all metrics,
// which costs more to allocate than the samples themselves.
type Families struct {
	byName  map[string]*family
	ordered []*family // by name
	last    *family   // samples of one metric usually follow each other
	sorted  []*dto.MetricFamily
}

type family struct {
	dto.MetricFamily
	desc   *Desc
	byName []int // indexes of the labels, sorted by label name
	// metrics are the samples of all pages so far; those of this page come first.
	metrics []*metric
}

// metric is a sample, and what its dto.Metric points to.
type metric struct {
	dto.Metric
	labels  []string // in the order of Desc.Labels
	value   float64  // of a histogram, its sum
	count   uint64   // of a histogram, as are the buckets
	buckets []*dto.Bucket
}

// Add adds a sample. Its label values must be valid UTF-8 ([LabelValue]), and no two
// samples of a metric may have the same labels.
func (g *Families) Add(d *Desc, value float64, labelValues ...string) {
	f := g.last
	if f == nil || f.desc.Name != d.Name {
		f = g.family(d)
		g.last = f
	}
	if d.Bounds != nil {
		f.addToHistogram(value, labelValues[:len(d.Labels)], labelValues[len(d.Labels)])
		return
	}
	f.add(labelValues).value = value
}

// family returns the family of a metric. One that has no samples yet may describe another
// metric of this name, from another Kamailio.
func (g *Families) family(d *Desc) *family {
	f := g.byName[d.Name]
	switch {
	case f == nil:
		f = &family{}
		if g.byName == nil {
			g.byName = map[string]*family{}
		}
		g.byName[d.Name] = f
		at, _ := slices.BinarySearchFunc(g.ordered, d.Name, func(f *family, name string) int { return strings.Compare(f.desc.Name, name) })
		g.ordered = slices.Insert(g.ordered, at, f)
	case len(f.Metric) > 0 || f.desc.equal(d):
		return f
	}
	f.describe(d)
	return f
}

func (d *Desc) equal(other *Desc) bool {
	return d == other || d.Name == other.Name && d.Help == other.Help && d.Kind == other.Kind && (d.Bounds == nil) == (other.Bounds == nil) && slices.Equal(d.Labels, other.Labels)
}

func (f *family) describe(d *Desc) {
	*f = family{desc: d, byName: make([]int, len(d.Labels))}
	f.Name, f.Help = &d.Name, &d.Help
	kind := dto.MetricType_UNTYPED
	switch {
	case d.Bounds != nil:
		kind = dto.MetricType_HISTOGRAM
	case d.Kind == prometheus.CounterValue:
		kind = dto.MetricType_COUNTER
	case d.Kind == prometheus.GaugeValue:
		kind = dto.MetricType_GAUGE
	}
	f.Type = &kind
	for i := range d.Labels {
		f.byName[i] = i
	}
	slices.SortFunc(f.byName, func(a, b int) int { return strings.Compare(d.Labels[a], d.Labels[b]) })
}

// add returns the next metric of the page, with these labels.
func (f *family) add(labelValues []string) *metric {
	used := len(f.Metric)
	if used == len(f.metrics) {
		f.metrics = append(f.metrics, f.newMetric())
	}
	m := f.metrics[used]
	copy(m.labels, labelValues)
	f.Metric = append(f.Metric, &m.Metric)
	return m
}

// newMetric returns a metric whose labels are sorted by name, as the exposition formats
// require.
func (f *family) newMetric() *metric {
	m := &metric{labels: make([]string, len(f.byName))}
	if len(f.byName) > 0 {
		m.Label = make([]*dto.LabelPair, len(f.byName))
	}
	for i, label := range f.byName {
		m.Label[i] = &dto.LabelPair{Name: &f.desc.Labels[label], Value: &m.labels[label]}
	}
	switch f.GetType() {
	case dto.MetricType_COUNTER:
		m.Counter = &dto.Counter{Value: &m.value}
	case dto.MetricType_GAUGE:
		m.Gauge = &dto.Gauge{Value: &m.value}
	case dto.MetricType_UNTYPED:
		m.Untyped = &dto.Untyped{Value: &m.value}
	case dto.MetricType_HISTOGRAM:
		m.Histogram = &dto.Histogram{}
	}
	return m
}

// addToHistogram adds a bucket or the sum to the histogram with these labels, which is
// the last one or a new one.
func (f *family) addToHistogram(value float64, labelValues []string, bound string) {
	if used := len(f.Metric); used == 0 || !slices.Equal(f.metrics[used-1].labels, labelValues) {
		h := f.add(labelValues).Histogram
		h.SampleSum, h.SampleCount, h.Bucket = nil, nil, h.Bucket[:0]
	}
	m := f.metrics[len(f.Metric)-1]
	if bound == SumOfHistogram {
		m.value = value
		m.Histogram.SampleSum = &m.value
		return
	}
	m.count = uint64(value) // the last bucket counts everything
	m.Histogram.SampleCount = &m.count
	if le, err := strconv.ParseFloat(bound, 64); err == nil {
		m.Histogram.Bucket = append(m.Histogram.Bucket, m.bucket(len(m.Histogram.Bucket), m.count, le))
	}
}

// bucket returns a bucket, the one that had this place on an earlier page if there was one.
func (m *metric) bucket(place int, count uint64, le float64) *dto.Bucket {
	if place == len(m.buckets) {
		m.buckets = append(m.buckets, &dto.Bucket{CumulativeCount: new(uint64), UpperBound: new(float64)})
	}
	b := m.buckets[place]
	*b.CumulativeCount, *b.UpperBound = count, le
	return b
}

// Sorted returns the families that have samples, sorted by name. They are valid until
// Reset.
func (g *Families) Sorted() []*dto.MetricFamily {
	g.sorted = g.sorted[:0]
	for _, f := range g.ordered {
		if len(f.Metric) > 0 {
			g.sorted = append(g.sorted, &f.MetricFamily)
		}
	}
	return g.sorted
}

// Reset removes all samples. It returns their number.
func (g *Families) Reset() (samples int) {
	for _, f := range g.ordered {
		samples += len(f.Metric)
		f.Metric = f.Metric[:0]
	}
	g.last = nil
	return samples
}
