// Package collector converts RPC replies of Kamailio to Prometheus metrics. There is one
// [Collector] for each Kamailio module. A [Coordinator] runs them in parallel, and a slow
// or failing collector does not affect the others. The package knows nothing about HTTP,
// flags, files, or logs.
package collector

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"
)

// Collector reads one Kamailio module. Most collectors are a [Module] table; the others
// are written by hand because a table cannot express them.
type Collector interface {
	// Name returns the module's name, as in collect[] and --collector.NAME.
	Name() string
	// About describes in one line what it exports.
	About() string
	// Methods returns the RPC methods that it requires. If a server lacks one of them,
	// the collector is not supported and makes no calls.
	Methods() []string
	// Descs returns all metrics that Update may emit.
	Descs() []*Desc
	// Update queries the server and emits samples. If it fails or exceeds the deadline,
	// all its samples are discarded. ErrNoData means that the server has no data for
	// this module.
	Update(ctx context.Context, s *Session, emit Emit) error
}

// Emit adds one sample. Label values may contain any bytes; they must not change later. A
// second sample with the same labels is dropped and counted, because it would make the
// whole page invalid.
type Emit func(d *Desc, value float64, labelValues ...string)

// ErrNoData is returned by Update if the server does not run the module, and only the
// reply to a call could show that.
var ErrNoData = errors.New("the module is not loaded")

// Desc describes one metric.
type Desc struct {
	Name   string
	Help   string
	Kind   prometheus.ValueType
	Labels []string
	// Bounds make it a histogram; Kind is then ignored. They are the upper bounds of its
	// buckets, as in the label le; the last one is "+Inf". Its samples have one additional
	// label value: the bound of a cumulative count, or SumOfHistogram.
	Bounds []string
	Source string // where Kamailio reports it: a method and a field, or a statistic
}

// SumOfHistogram is used in place of a bound for the sum of a histogram.
const SumOfHistogram = "sum"

// NewDesc returns a Desc. The name is the full one: kamailio_<module>_<thing>_<unit>.
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

// batch collects the samples of one Update.
type batch struct {
	*space     // nil: there was no sample yet
	duplicates int
	err        error
}

// space is the memory of a batch. It is reused, because it grows several times until it
// holds all samples. A collector that waits for a reply has none.
type space struct {
	samples []Sample
	seen    map[uint64]int // index of a sample, by the hash of its name and labels
}

var spaces = sync.Pool{New: func() any { return &space{seen: map[uint64]int{}} }}

// take returns a copy of the samples, and makes the batch empty.
func (b *batch) take() (samples []Sample) {
	if b.space == nil {
		return nil
	}
	samples = slices.Clone(b.samples)
	if len(b.samples) <= maxReused {
		clear(b.samples)
		clear(b.seen)
		b.samples = b.samples[:0]
		spaces.Put(b.space)
	}
	b.space = nil
	return samples
}

// maxReused limits the memory that stays allocated after a long list.
const maxReused = 1 << 10

var hashSeed = maphash.MakeSeed()

func (b *batch) emit(d *Desc, value float64, labelValues ...string) {
	want := len(d.Labels)
	if d.Bounds != nil {
		want++
	}
	if len(labelValues) != want {
		b.err = fmt.Errorf("%s needs %d label values, not %d", d.Name, want, len(labelValues))
		return
	}
	if b.space == nil {
		b.space = spaces.Get().(*space)
	}
	sample := Sample{d, value, labelValues}
	for i, v := range labelValues {
		if escaped := LabelValue(v); escaped != v {
			if &sample.Labels[0] == &labelValues[0] {
				sample.Labels = slices.Clone(labelValues) // the caller may use them again
			}
			sample.Labels[i] = escaped
		}
	}
	if b.has(sample) {
		b.duplicates++
		return
	}
	b.samples = append(b.samples, sample)
}

// has reports whether a sample with the same name and labels was added before. If not, it
// notes that the next one will have them.
func (b *batch) has(sample Sample) bool {
	var hash maphash.Hash
	hash.SetSeed(hashSeed)
	_, _ = hash.WriteString(sample.Desc.Name)
	for _, v := range sample.Labels {
		_ = hash.WriteByte(0xff) // never part of an escaped value
		_, _ = hash.WriteString(v)
	}
	i, seen := b.seen[hash.Sum64()]
	if !seen {
		b.seen[hash.Sum64()] = len(b.samples)
		return false
	}
	return b.samples[i].sameSeries(sample) || slices.ContainsFunc(b.samples, sample.sameSeries) // the hash may be that of another one
}

func (s Sample) sameSeries(other Sample) bool {
	return s.Desc.Name == other.Desc.Name && slices.Equal(s.Labels, other.Labels)
}

// LabelValue converts any bytes to a label value, which must be UTF-8. An invalid byte
// becomes \xHH, and a backslash that would look like such an escape becomes \x5c. So
// different names stay different, and the original bytes can be recovered.
func LabelValue(s string) string {
	if strings.Contains(s, `\x`) {
		s = hexEscape.ReplaceAllString(s, `\x5c$1`)
	}
	return EscapeBytes(s, `\x%02x`)
}

var hexEscape = regexp.MustCompile(`\\(x[0-9a-fA-F]{2})`)

// EscapeBytes replaces the bytes of a text that are not UTF-8, using this format.
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

// isHexEscape reports whether s starts with \xHH.
func isHexEscape(s string) bool {
	if len(s) < 4 || s[1] != 'x' {
		return false
	}
	_, err := strconv.ParseUint(s[2:4], 16, 8)
	return err == nil
}
