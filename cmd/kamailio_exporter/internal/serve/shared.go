package serve

import (
	"context"
	"errors"
	"time"

	"github.com/kamailio-exporter/kamailio_exporter/collector"
)

// shared is work that runs beside the scrapes, once for all scrapes at the same time. It
// continues even if no scrape waits for it any more, because Kamailio logs an error for
// each client that disconnects before its reply.
type shared[T any] struct {
	do      func(context.Context) T                 // never runs twice at the same time
	late    func(err error, waited time.Duration) T // the result if do has not finished in time
	timeout time.Duration
	joint   collector.Joint[*T]
}

// begin starts the work or joins work in progress. The returned function waits for it
// until ctx is done.
func (s *shared[T]) begin(ctx context.Context) (wait func() T) {
	// The work must end before the scrape does, so that its partial results are not lost.
	timeout := s.timeout
	if deadline, ok := ctx.Deadline(); ok {
		timeout = min(timeout, time.Until(deadline)*9/10)
	}
	limited, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	w, leave := s.joint.Join(limited, "", func() *T { return new(T) }, func(ctx context.Context, result *T) { *result = s.do(ctx) })
	return func() T {
		defer leave()
		select {
		case <-w.Done:
			return *w.Value
		case <-ctx.Done():
			return s.late(errors.New("not finished before the scrape's deadline"), time.Since(w.Begun))
		}
	}
}
