package collector

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// Families collects the metrics of a page. The zero value is empty and ready for use.
type Families struct {
	families map[string]*family
	last     *family // samples of one metric usually follow each other
}

type family struct {
	dto.MetricFamily
	desc   *Desc
	byName []int // indexes of the labels, sorted by label name
	// ofHistogram are the labels of the current histogram.
	ofHistogram []string
}

// Add adds a sample. Its label values must be valid UTF-8 ([LabelValue]), and no two
// samples of a metric may have the same labels.
func (g *Families) Add(d *Desc, value float64, labelValues ...string) {
	f := g.last
	if f == nil || f.desc.Name != d.Name {
		if f = g.families[d.Name]; f == nil {
			if g.families == nil {
				g.families = map[string]*family{}
			}
			f = newFamily(d)
			g.families[d.Name] = f
		}
		g.last = f
	}
	if d.Bounds != nil {
		f.addToHistogram(value, labelValues[:len(d.Labels)], labelValues[len(d.Labels)])
		return
	}
	m := &dto.Metric{Label: f.pairs(labelValues)}
	switch d.Kind {
	case prometheus.CounterValue:
		m.Counter = &dto.Counter{Value: &value}
	case prometheus.GaugeValue:
		m.Gauge = &dto.Gauge{Value: &value}
	default:
		m.Untyped = &dto.Untyped{Value: &value}
	}
	f.Metric = append(f.Metric, m)
}

// addToHistogram adds a bucket or the sum to the histogram with these labels, which is
// the last one or a new one.
func (f *family) addToHistogram(value float64, labelValues []string, bound string) {
	if !slices.Equal(f.ofHistogram, labelValues) || len(f.Metric) == 0 {
		f.ofHistogram = labelValues
		f.Metric = append(f.Metric, &dto.Metric{Label: f.pairs(labelValues), Histogram: &dto.Histogram{}})
	}
	h := f.Metric[len(f.Metric)-1].Histogram
	if bound == SumOfHistogram {
		h.SampleSum = &value
		return
	}
	count := uint64(value)
	h.SampleCount = &count // the last bucket counts everything
	if le, err := strconv.ParseFloat(bound, 64); err == nil {
		h.Bucket = append(h.Bucket, &dto.Bucket{CumulativeCount: &count, UpperBound: &le})
	}
}

func newFamily(d *Desc) *family {
	f := &family{desc: d}
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
		f.byName = append(f.byName, i)
	}
	slices.SortFunc(f.byName, func(a, b int) int { return strings.Compare(d.Labels[a], d.Labels[b]) })
	return f
}

// pairs returns a sample's labels, sorted by name as the exposition formats require.
func (f *family) pairs(values []string) []*dto.LabelPair {
	if len(values) == 0 {
		return nil
	}
	pairs := make([]*dto.LabelPair, len(values))
	backing := make([]dto.LabelPair, len(values))
	for i, label := range f.byName {
		backing[i].Name, backing[i].Value = &f.desc.Labels[label], &values[label]
		pairs[i] = &backing[i]
	}
	return pairs
}

// Sorted returns the families, sorted by name.
func (g *Families) Sorted() []*dto.MetricFamily {
	families := make([]*dto.MetricFamily, 0, len(g.families))
	for _, name := range slices.Sorted(maps.Keys(g.families)) {
		families = append(families, &g.families[name].MetricFamily)
	}
	return families
}
