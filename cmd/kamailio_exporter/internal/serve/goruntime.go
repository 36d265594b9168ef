package serve

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/kamailio-exporter/kamailio_exporter/collector"
)

// goRuntime exports the same metrics about Go's runtime as client_golang's collector. With
// its registry, that one allocates a fifth of all that a scrape does.
type goRuntime struct {
	mu      sync.Mutex
	samples []metrics.Sample // of all goMetrics, in their order
	gc      debug.GCStats
}

// goMetric is the sum of some of the metrics of runtime/metrics.
type goMetric struct {
	desc *collector.Desc
	of   []string
}

var (
	goInfoDesc = goDesc("info", "The version of Go with which the exporter was built.", prometheus.GaugeValue, "version")
	lastGCDesc = goDesc("memstats_last_gc_time_seconds", "Unix time of the last garbage collection.", prometheus.GaugeValue)
	gcDesc     = goDesc("gc_duration_seconds", "Pauses of the program by garbage collections.", prometheus.UntypedValue)
)

const (
	objects, unused = "/memory/classes/heap/objects:bytes", "/memory/classes/heap/unused:bytes"
	released, free  = "/memory/classes/heap/released:bytes", "/memory/classes/heap/free:bytes"
	stacks          = "/memory/classes/heap/stacks:bytes"
	spans, caches   = "/memory/classes/metadata/mspan/inuse:bytes", "/memory/classes/metadata/mcache/inuse:bytes"
	tiny            = "/gc/heap/tiny/allocs:objects"
)

var goMetrics = []goMetric{
	goGauge("goroutines", "Number of goroutines.", "/sched/goroutines:goroutines"),
	goGauge("threads", "Number of threads of the operating system.", "/sched/threads/total:threads"),
	goGauge("sched_gomaxprocs_threads", "GOMAXPROCS: the number of threads that may run Go code at the same time.", "/sched/gomaxprocs:threads"),
	goGauge("gc_gogc_percent", "GOGC: how much the heap may grow until the next garbage collection.", "/gc/gogc:percent"),
	goGauge("gc_gomemlimit_bytes", "GOMEMLIMIT: the memory limit of Go's runtime.", "/gc/gomemlimit:bytes"),
	goGauge("memstats_alloc_bytes", "Memory of the objects on the heap, including those not yet collected.", objects),
	goCounter("memstats_alloc_bytes_total", "Memory of all objects ever allocated on the heap.", "/gc/heap/allocs:bytes"),
	goGauge("memstats_sys_bytes", "Memory obtained from the operating system.", "/memory/classes/total:bytes"),
	goCounter("memstats_mallocs_total", "Objects ever allocated on the heap.", "/gc/heap/allocs:objects", tiny),
	goCounter("memstats_frees_total", "Objects ever freed on the heap.", "/gc/heap/frees:objects", tiny),
	goGauge("memstats_heap_alloc_bytes", "Memory of the objects on the heap; the same as go_memstats_alloc_bytes.", objects),
	goGauge("memstats_heap_sys_bytes", "Memory of the heap, whether in use or not.", objects, unused, released, free),
	goGauge("memstats_heap_idle_bytes", "Memory of the heap without objects.", released, free),
	goGauge("memstats_heap_inuse_bytes", "Memory of the heap in blocks that have objects.", objects, unused),
	goGauge("memstats_heap_released_bytes", "Memory of the heap that was returned to the operating system.", released),
	goGauge("memstats_heap_objects", "Number of objects on the heap.", "/gc/heap/objects:objects"),
	goGauge("memstats_stack_inuse_bytes", "Memory of the stacks of goroutines.", stacks),
	goGauge("memstats_stack_sys_bytes", "Memory of all stacks.", stacks, "/memory/classes/os-stacks:bytes"),
	goGauge("memstats_mspan_inuse_bytes", "Memory of the descriptions of heap blocks (mspan) in use.", spans),
	goGauge("memstats_mspan_sys_bytes", "Memory of all descriptions of heap blocks (mspan).", spans, "/memory/classes/metadata/mspan/free:bytes"),
	goGauge("memstats_mcache_inuse_bytes", "Memory of the allocator's caches (mcache) in use.", caches),
	goGauge("memstats_mcache_sys_bytes", "Memory of all of the allocator's caches (mcache).", caches, "/memory/classes/metadata/mcache/free:bytes"),
	goGauge("memstats_buck_hash_sys_bytes", "Memory of the tables for profiling.", "/memory/classes/profiling/buckets:bytes"),
	goGauge("memstats_gc_sys_bytes", "Memory of the garbage collector's own data.", "/memory/classes/metadata/other:bytes"),
	goGauge("memstats_other_sys_bytes", "Memory of the runtime for other purposes.", "/memory/classes/other:bytes"),
	goGauge("memstats_next_gc_bytes", "Size of the heap at which the next garbage collection begins.", "/gc/heap/goal:bytes"),
}

func goDesc(name, help string, kind prometheus.ValueType, labels ...string) *collector.Desc {
	return collector.NewDesc("go_"+name, help, kind, "runtime/metrics", labels...)
}

func goGauge(name, help string, of ...string) goMetric {
	return goMetric{goDesc(name, help, prometheus.GaugeValue), of}
}

func goCounter(name, help string, of ...string) goMetric {
	return goMetric{goDesc(name, help, prometheus.CounterValue), of}
}

func newGoRuntime() *goRuntime {
	r := &goRuntime{gc: debug.GCStats{PauseQuantiles: make([]time.Duration, 5)}}
	for _, m := range goMetrics {
		for _, name := range m.of {
			r.samples = append(r.samples, metrics.Sample{Name: name})
		}
	}
	return r
}

func goDescs() []*collector.Desc {
	all := []*collector.Desc{goInfoDesc, lastGCDesc, gcDesc}
	for _, m := range goMetrics {
		all = append(all, m.desc)
	}
	return all
}

// AddTo implements sampler.
func (r *goRuntime) AddTo(g *collector.Families) {
	r.mu.Lock()
	defer r.mu.Unlock()
	metrics.Read(r.samples)
	rest := r.samples
	for _, m := range goMetrics {
		sum, known := 0.0, true
		for _, s := range rest[:len(m.of)] {
			if known = known && s.Value.Kind() == metrics.KindUint64; known { // else this version of Go does not have it
				sum += float64(s.Value.Uint64())
			}
		}
		if rest = rest[len(m.of):]; known {
			g.Add(m.desc, sum)
		}
	}
	g.Add(goInfoDesc, 1, runtime.Version())
	debug.ReadGCStats(&r.gc)
	if r.gc.NumGC > 0 {
		g.Add(lastGCDesc, float64(r.gc.LastGC.UnixNano())/1e9)
	}
}

// Gather returns the pauses: a summary, which AddTo cannot add. AddTo has read them.
func (r *goRuntime) Gather() ([]*dto.MetricFamily, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	summary := &dto.Summary{SampleCount: new(uint64(r.gc.NumGC)), SampleSum: new(r.gc.PauseTotal.Seconds())} //nolint:gosec // a count
	for i, pause := range r.gc.PauseQuantiles {
		summary.Quantile = append(summary.Quantile, &dto.Quantile{
			Quantile: new(float64(i) / float64(len(r.gc.PauseQuantiles)-1)), Value: new(pause.Seconds()),
		})
	}
	return []*dto.MetricFamily{{Name: &gcDesc.Name, Help: &gcDesc.Help, Type: dto.MetricType_SUMMARY.Enum(), Metric: []*dto.Metric{{Summary: summary}}}}, nil
}
