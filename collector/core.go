package collector

import (
	"context"
	"regexp"
	"strings"
	"time"
)

// coreModule is the part of the core that a table can express: its shared memory, from the
// statistics of kex or else from core.shmmem. Up to Kamailio 5.6, core.shmmem prints bytes
// through an int (core/core_cmd.c). So it is queried in KiB, which every version supports
// and which fits.
var coreModule = Module{
	Subsystem: "core",
	Summary:   "Version, start time, shared memory and processes",
	Queries: []Query{
		statistics("shmem", sharedMemory("shmem:total_size", "shmem:free_size", "shmem:used_size", "shmem:real_used_size", "shmem:max_used_size", "shmem:fragments", 1)...),
		{Method: "core.shmmem", Params: []any{"k"}, Metrics: sharedMemory("total", "free", "used", "real_used", "max_used", "fragments", 1024)},
	},
}

func sharedMemory(total, free, used, realUsed, maxUsed, fragments string, scale float64) []Metric {
	return []Metric{
		{Field: total, Name: "shm_total_bytes", Kind: gauge, Scale: scale, Help: "Size of the shared memory (command line option -m)."},
		{Field: free, Name: "shm_free_bytes", Kind: gauge, Scale: scale, Help: "Free shared memory."},
		{Field: used, Name: "shm_used_bytes", Kind: gauge, Scale: scale, Help: "Shared memory in use, without the overhead of the allocator."},
		{Field: realUsed, Name: "shm_real_used_bytes", Kind: gauge, Scale: scale, Help: "Shared memory in use, including the overhead of the allocator."},
		{Field: maxUsed, Name: "shm_max_used_bytes", Kind: gauge, Scale: scale, Help: "Maximum of the shared memory in use since the start."},
		{Field: fragments, Name: "shm_fragments", Kind: gauge, Help: "Free fragments of the shared memory. If there are many small ones, a large allocation can fail although memory is free."},
	}
}

var (
	startTimeDesc = NewDesc("kamailio_start_time_seconds",
		"Unix time at which Kamailio started.", gauge, "core.uptime up_since")
	buildInfoDesc = NewDesc("kamailio_build_info",
		"Always 1. The labels are Kamailio's version and compiler.", gauge, "core.info", "version", "compiler")
	processesDesc = NewDesc("kamailio_core_processes",
		"Kamailio's processes, by their task.", gauge, "core.psx DSC", "description")
)

const processesMethod = "core.psx"

// core adds to its table what the reply does not contain as numbers.
type core struct {
	*table
	kinds *memo[string] // processKind
}

func newCore() core { return core{coreModule.Collector().(*table), &memo[string]{}} }

func (c core) base() *table { return c.table }

func (c core) Descs() []*Desc {
	return append([]*Desc{startTimeDesc, buildInfoDesc, processesDesc}, c.table.Descs()...)
}

func (c core) Methods() []string { return []string{uptimeMethod} }

func (c core) Update(ctx context.Context, s *Session, emit Emit) error {
	uptime, err := s.Call(ctx, uptimeMethod)
	if err != nil {
		return err
	}
	start, ok := startTime(uptime, time.Now())
	if !ok {
		return unknownShape(uptimeMethod, "no start time in the reply")
	}
	emit(startTimeDesc, start)

	info, err := s.CallFixed(ctx, "core.info") // core/core_cmd.c: set at startup
	if err != nil {
		return err
	}
	// "kamailio 5.6.3" (core/core_cmd.c: name and version).
	_, version, _ := strings.Cut(info.Get("version").Text(), " ")
	emit(buildInfoDesc, 1, version, info.Get("compiler").Text())

	processes, err := s.Call(ctx, processesMethod)
	if err != nil {
		return err
	}
	order, count := []string{}, map[string]float64{}
	for p := range processes.All("") {
		what := c.kinds.of(p.Get("DSC").Text(), processKind)
		if count[what] == 0 {
			order = append(order, what)
		}
		count[what]++
	}
	for _, what := range order {
		emit(processesDesc, count[what], what)
	}
	return c.memory(ctx, s, emit)
}

// memory uses the first of the table's queries that gets a reply.
func (c core) memory(ctx context.Context, s *Session, emit Emit) (err error) {
	for _, q := range c.queries {
		var n int
		if n, err = q.run(ctx, s, emit); n > 0 {
			return nil
		}
	}
	return err
}

var childNumber = regexp.MustCompile(` child=\d+`)

// processKind removes the worker number from a process description, so that all workers
// of one kind share a series.
func processKind(description string) string {
	return strings.TrimSpace(childNumber.ReplaceAllString(description, ""))
}
