package serve

import (
	"bufio"
	"cmp"
	"compress/gzip"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/kamailio-exporter/kamailio_exporter/collector"
)

// parts are the parts of one page. No two parts have a metric name in common.
type parts struct {
	samplers  []sampler
	gatherers []prometheus.Gatherer
}

// sampler is a part of a page that shares the memory of its metrics with other pages.
type sampler interface{ AddTo(*collector.Families) }

var families = sync.Pool{New: func() any { return &collector.Families{} }}

// keptSamples is how many samples of a page stay allocated for another page.
const keptSamples = 20_000

// gather returns the metrics of all parts, sorted by name. They must not be used after
// done is called, because another page then uses their memory.
func (p parts) gather() (all []*dto.MetricFamily, done func(), err error) {
	page := families.Get().(*collector.Families)
	for _, s := range p.samplers {
		s.AddTo(page)
	}
	all = page.Sorted()
	var errs []error
	for _, g := range p.gatherers {
		more, err := g.Gather()
		all = append(all, more...)
		errs = append(errs, err)
	}
	slices.SortFunc(all, func(a, b *dto.MetricFamily) int { return cmp.Compare(a.GetName(), b.GetName()) })
	return all, func() {
		if page.Reset() <= keptSamples {
			families.Put(page)
		}
	}, errors.Join(errs...)
}

// compressor compresses pages at the level that takes the least CPU time: the default
// level takes three times as long to make a page a fifth smaller. A gzip.Writer is
// hundreds of KiB, so it is kept for the next page.
type compressor struct {
	*bufio.Writer
	gzip *gzip.Writer
}

var compressors = sync.Pool{New: func() any {
	z, _ := gzip.NewWriterLevel(nil, gzip.BestSpeed)
	return &compressor{bufio.NewWriterSize(z, 16<<10), z}
}}

// servePage writes a page in the format and encoding that the client accepts. It does what
// promhttp does, except that promhttp compresses at the default level, and that its encoder
// copies metrics whose names it need not escape.
func servePage(w http.ResponseWriter, r *http.Request, p parts, slogger *slog.Logger) {
	all, done, err := p.gather()
	defer done()
	if len(all) == 0 && err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
	} else {
		err = errors.Join(err, encode(w, r, all))
	}
	if err != nil {
		slogger.Error("the metrics page is incomplete", "err", err)
	}
}

func encode(w http.ResponseWriter, r *http.Request, all []*dto.MetricFamily) error {
	format := expfmt.NegotiateAccept(r.Header, expfmt.DefaultOpenMetricsAcceptedFormats()...)
	w.Header().Set("Content-Type", string(format))
	w.Header().Add("Vary", "Accept, Accept-Encoding")
	out := compressors.Get().(*compressor)
	defer compressors.Put(out)
	zip := acceptsGzip(r.Header)
	if zip {
		w.Header().Set("Content-Encoding", "gzip")
		out.gzip.Reset(w)
		out.Reset(out.gzip)
	} else {
		out.Reset(w)
	}
	encoder := expfmt.NewEncoder(out, format.WithEscapingScheme(model.NoEscaping))
	only := r.URL.Query()["name[]"]
	for _, family := range all {
		if len(only) > 0 && !slices.Contains(only, family.GetName()) {
			continue
		}
		if err := encoder.Encode(family); err != nil {
			return err
		}
	}
	if last, ok := encoder.(expfmt.Closer); ok { // writes the last line of OpenMetrics
		if err := last.Close(); err != nil {
			return err
		}
	}
	err := out.Flush()
	if zip && err == nil {
		err = out.gzip.Close()
	}
	return err
}

func acceptsGzip(header http.Header) bool {
	for accepted := range strings.SplitSeq(strings.Join(header.Values("Accept-Encoding"), ","), ",") {
		name, quality, _ := strings.Cut(accepted, ";")
		if strings.TrimSpace(name) != "gzip" {
			continue
		}
		_, quality, _ = strings.Cut(quality, "=")
		q, err := strconv.ParseFloat(strings.TrimSpace(quality), 64)
		return err != nil || q > 0
	}
	return false
}
