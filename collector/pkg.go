package collector

import (
	"context"
	"errors"
	"strconv"
	"strings"

	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
)

// pkgModule is the private memory of each process (kex/pkg_stats.c). A process updates its
// figures when it starts, and when it frees or reallocates memory (core/mem/f_malloc.c,
// SREV_PKG_UPDATE_STATS).
var pkgModule = Module{
	Subsystem: "pkg",
	Summary:   "Private memory of each process",
	Queries: []Query{{
		Method: "pkg.stats",
		Where:  isProcess,
		// Identified by Kamailio's description, because pid and rank change on a restart.
		Labels: []Label{{Name: "process", Field: "desc"}},
		Index:  true,
		Metrics: []Metric{
			{Field: "total_size", Name: "total_bytes", Kind: gauge, Wrap32: true, Help: "Size of the process's private memory (command line option -M). A worker without free private memory cannot handle requests. All sizes are omitted if -M is 4096 or more, because Kamailio reports them in 32 bits."},
			{Field: "free", Name: "free_bytes", Kind: gauge, Wrap32: true, Help: "Free private memory of the process."},
			{Field: "used", Name: "used_bytes", Kind: gauge, Wrap32: true, Help: "Private memory of the process in use, without the overhead of the allocator."},
			{Field: "real_used", Name: "real_used_bytes", Kind: gauge, Wrap32: true, Help: "Private memory of the process in use, including the overhead of the allocator."},
			{Field: "total_frags", Name: "fragments", Kind: gauge, Help: "Free fragments of the process's private memory."},
			{Field: "entry", Instead: "the process's number changes with the configuration"},
			{Field: "pid", Instead: "a restart changes it"},
			{Field: "rank", Instead: "the label process has its description"},
		},
	}},
}

// isProcess is false for unused slots in Kamailio's process table, and for a process that
// has not yet written its figures: its zeros are not measurements.
func isProcess(row kamrpc.Value) bool {
	used, _ := row.Get("real_used").Float()
	return used != 0
}

// pkg adds a check to that table. Kamailio prints the sizes through an unsigned int (5.4: a
// signed one), so from 4 GiB on they all wrap and look plausible but wrong. The option -M
// with which Kamailio was started shows whether that can happen.
type pkg struct{ *table }

func newPkg() pkg { return pkg{pkgModule.Collector().(*table)} }

func (p pkg) base() *table { return p.table }

const (
	argMethod = "core.arg"
	wrapMiB   = 1 << 32 >> 20
)

func (p pkg) Update(ctx context.Context, s *Session, emit Emit) error {
	wraps := false
	if s.Has(argMethod) {
		mib, err := s.pkgMiB(ctx)
		if err != nil {
			return err
		}
		wraps = mib >= wrapMiB
	}
	return p.table.Update(ctx, s, func(d *Desc, value float64, labelValues ...string) {
		if !wraps || !strings.HasSuffix(d.Name, "_bytes") {
			emit(d, value, labelValues...)
		}
	})
}

// pkgMiB returns the value of the option -M that Kamailio was started with, 0 without it.
// The rest of the command line is not kept, because it may contain passwords.
func (s *Session) pkgMiB(ctx context.Context) (mib int64, err error) {
	const fact = "-M"
	if mib, known := s.recall(fact); known {
		return mib, nil
	}
	args, err := s.Call(ctx, argMethod)
	if err != nil && !errors.As(err, new(*kamrpc.Fault)) {
		return 0, err
	}
	option := ""
	for arg := range args.All("") {
		option += arg.Text() // "-M", "64" equals "-M64"
		if option == "-M" {
			continue
		}
		if text, is := strings.CutPrefix(option, "-M"); is {
			if n, err := strconv.ParseInt(text, 10, 64); err == nil {
				mib = n // the last one counts
			}
		}
		option = ""
	}
	s.keep(fact, mib)
	return mib, nil
}
