// Package collector turns what a Kamailio answers over RPC into Prometheus
// metrics: one [Collector] for each Kamailio module, run side by side by a
// [Coordinator], each under its own budget and none able to cost the others
// anything. It knows nothing of HTTP, flags, files or logs.
package collector

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"
)

// Collector reads one Kamailio module. Most are a [Module] table; one is written
// by hand where a table cannot say it.
type Collector interface {
	// Name is the module's name, as in collect[] and --collector.NAME.
	Name() string
	// About says in one line what it exports.
	About() string
	// Methods are the RPCs that it cannot work without. A server that lacks one
	// is not supported, and nothing is asked.
	Methods() []string
	// Descs are all metrics that Update may emit.
	Descs() []*Desc
	// Update asks the server and emits samples. An error, or running over the
	// deadline, discards all of them. ErrNoData means that the server has
	// nothing of this module.
	Update(ctx context.Context, s *Session, emit Emit) error
}

// Emit hands in one sample. Label values are any bytes; a second sample with
// the same labels is dropped and counted, since it would fail the whole page.
type Emit func(d *Desc, value float64, labelValues ...string)

// ErrNoData is what Update returns for a server that does not run the module,
// where only the answer could tell.
var ErrNoData = errors.New("the module is not loaded")

// Desc describes one metric.
type Desc struct {
	Name   string
	Help   string
	Kind   prometheus.ValueType
	Labels []string
	// Bounds make it a histogram, for which Kind is ignored. They are the upper bounds
	// of its buckets as in the label le, the last one "+Inf". Its samples have one more
	// label value: the bound of a cumulative count, or SumOfHistogram.
	Bounds []string
	Source string // where Kamailio reports it: a method and a field, or a statistic
}

// SumOfHistogram stands in place of a bound for the sum of what a histogram saw.
const SumOfHistogram = "sum"

// NewDesc makes a Desc. The name is whole: kamailio_<module>_<thing>_<unit>.
func NewDesc(name, help string, kind prometheus.ValueType, source string, labels ...string) *Desc {
	return &Desc{Name: name, Help: help, Kind: kind, Labels: labels, Source: source}
}

const (
	gauge   = prometheus.GaugeValue
	counter = prometheus.CounterValue
)

// Sample is one emitted value.
type Sample struct {
	Desc   *Desc
	Value  float64
	Labels []string
}

// batch gathers what one Update emits.
type batch struct {
	samples    []Sample
	seen       map[string]struct{}
	key        []byte // of the present sample; kept for the next
	duplicates int
	err        error
}

func (b *batch) emit(d *Desc, value float64, labelValues ...string) {
	want := len(d.Labels)
	if d.Bounds != nil {
		want++
	}
	if len(labelValues) != want {
		b.err = fmt.Errorf("%s needs %d label values, not %d", d.Name, want, len(labelValues))
		return
	}
	var labels []string
	if len(labelValues) > 0 {
		labels = make([]string, len(labelValues))
	}
	b.key = append(b.key[:0], d.Name...)
	for i, v := range labelValues {
		labels[i] = LabelValue(v)
		b.key = append(b.key, 0xff) // in no escaped value
		b.key = append(b.key, labels[i]...)
	}
	if _, ok := b.seen[string(b.key)]; ok {
		b.duplicates++
		return
	}
	if b.seen == nil {
		b.seen = map[string]struct{}{}
	}
	b.seen[string(b.key)] = struct{}{}
	b.samples = append(b.samples, Sample{d, value, labels})
}

// LabelValue makes any bytes a label value, which must be UTF-8: a byte that is
// not becomes \xHH, and a backslash that would read as such an escape becomes
// \x5c. So two names that differ stay different, and the bytes can be had back.
func LabelValue(s string) string {
	if strings.Contains(s, `\x`) {
		s = hexEscape.ReplaceAllString(s, `\x5c$1`)
	}
	return EscapeBytes(s, `\x%02x`)
}

var hexEscape = regexp.MustCompile(`\\(x[0-9a-fA-F]{2})`)

// EscapeBytes writes the bytes of a text that are not UTF-8 in this format.
func EscapeBytes(s, format string) string {
	if utf8.ValidString(s) {
		return s
	}
	var out strings.Builder
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && size == 1 {
			fmt.Fprintf(&out, format, s[i])
		} else {
			out.WriteString(s[i : i+size])
		}
		i += size
	}
	return out.String()
}

// isHexEscape reports whether s begins with \xHH.
func isHexEscape(s string) bool {
	if len(s) < 4 || s[1] != 'x' {
		return false
	}
	_, err := strconv.ParseUint(s[2:4], 16, 8)
	return err == nil
}
