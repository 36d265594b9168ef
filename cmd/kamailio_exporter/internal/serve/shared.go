package serve

import (
	"context"
	"errors"
	"sync"
	"time"
)

// shared does some work beside the scrapes: once for all that run at the same
// time, and for those that come within reuse after it.
type shared[T any] struct {
	work    func(context.Context) T                 // never twice at once
	late    func(err error, waited time.Duration) T // instead of what is not done yet
	timeout time.Duration
	reuse   time.Duration

	mu   sync.Mutex
	last *joint[T]
}

// joint is work under way, or done, with everybody who waits for it.
type joint[T any] struct {
	begun  time.Time
	done   chan struct{}
	ended  time.Time // guarded by shared.mu
	result T
}

// begin starts the work, or joins who has; what it returns waits for it until ctx
// is done.
func (s *shared[T]) begin(ctx context.Context) (wait func() T) {
	j := s.join(ctx)
	return func() T {
		select {
		case <-j.done:
			return j.result
		case <-ctx.Done():
			return s.late(errors.New("not finished before the scrape's deadline"), time.Since(j.begun))
		}
	}
}

func (s *shared[T]) join(ctx context.Context) *joint[T] {
	s.mu.Lock()
	defer s.mu.Unlock()
	if j := s.last; j != nil && (j.ended.IsZero() || time.Since(j.ended) < s.reuse) {
		return j
	}
	j := &joint[T]{begun: time.Now(), done: make(chan struct{})}
	s.last = j
	// Who asked first may go away while others wait; the time-out is short. It ends
	// before the scrape does, so that half of the work is not lost.
	timeout := s.timeout
	if d, ok := ctx.Deadline(); ok {
		timeout = min(timeout, time.Until(d)*9/10)
	}
	work, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
	go func() {
		defer cancel()
		result := s.work(work)
		s.mu.Lock()
		defer s.mu.Unlock()
		j.result, j.ended = result, time.Now()
		close(j.done)
	}()
	return j
}
