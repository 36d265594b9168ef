package collector

import (
	"context"
	"maps"
	"sync"
	"time"
)

// Joint runs work once for all callers that want the same at the same time, or within
// Reuse after it ended.
type Joint[T any] struct {
	Reuse time.Duration
	// Abandon cancels the work when no caller waits for it any more.
	Abandon bool

	mu   sync.Mutex
	work map[string]*Work[T] // by key: in progress, or just ended
}

// Work is one run of the work. It is in progress until Done is closed.
type Work[T any] struct {
	Value T // filled by the work
	Begun time.Time
	Done  chan struct{}

	cancel  context.CancelFunc
	ended   time.Time // guarded by Joint.mu, as are the fields below
	waiting int
}

// Join returns the work for this key that is in progress or has just ended. If there is
// none, it starts the work: do fills the value. The work keeps the deadline of the ctx
// that started it, but not its cancellation. The caller must call the returned function
// when it no longer wants the work.
func (j *Joint[T]) Join(ctx context.Context, key string, value func() T, do func(context.Context, T)) (*Work[T], func()) {
	j.mu.Lock()
	defer j.mu.Unlock()
	// Clients choose the keys: finished work must not accumulate.
	maps.DeleteFunc(j.work, func(_ string, w *Work[T]) bool { return !w.ended.IsZero() && time.Since(w.ended) >= j.Reuse })
	w := j.work[key]
	if w == nil {
		w = &Work[T]{Value: value(), Begun: time.Now(), Done: make(chan struct{})}
		if j.work == nil {
			j.work = map[string]*Work[T]{}
		}
		j.work[key] = w
		// The first caller may leave while others still wait.
		lasting := context.WithoutCancel(ctx)
		if deadline, ok := ctx.Deadline(); ok {
			lasting, w.cancel = context.WithDeadline(lasting, deadline)
		} else {
			lasting, w.cancel = context.WithCancel(lasting)
		}
		go func() {
			defer w.cancel()
			do(lasting, w.Value)
			j.end(w)
		}()
	}
	w.waiting++
	return w, func() { j.leave(w) }
}

func (j *Joint[T]) end(w *Work[T]) {
	j.mu.Lock()
	defer j.mu.Unlock()
	w.ended = time.Now()
	close(w.Done)
	// A result that is no longer served may hold much memory.
	time.AfterFunc(j.Reuse, func() {
		j.mu.Lock()
		defer j.mu.Unlock()
		j.forget(w)
	})
}

func (j *Joint[T]) leave(w *Work[T]) {
	j.mu.Lock()
	defer j.mu.Unlock()
	w.waiting--
	if w.waiting > 0 || !j.Abandon {
		return
	}
	w.cancel()
	if w.ended.IsZero() { // canceled: must not be joined
		j.forget(w)
	}
}

// forget is called with mu held.
func (j *Joint[T]) forget(w *Work[T]) {
	maps.DeleteFunc(j.work, func(_ string, other *Work[T]) bool { return other == w })
}
