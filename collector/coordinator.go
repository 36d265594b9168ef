package collector

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
)

// Limits configures a [Coordinator]. Zero values mean the default.
type Limits struct {
	CallTimeout time.Duration // for one RPC
	// Reuse is how long a finished scrape is served again. It lets concurrent scrapes
	// share one result, however short the scrape is.
	Reuse time.Duration
}

// DefaultCallTimeout is the default of [Limits.CallTimeout].
const DefaultCallTimeout = 3 * time.Second

// Coordinator scrapes one Kamailio with a set of collectors.
type Coordinator struct {
	target     Target
	collectors []Collector
	names      []string // of the collectors
	limits     Limits
	now        func() time.Time // used by the guards

	scrapes Joint[*scrape] // by filter

	mu     sync.Mutex
	server *server // as seen by the last scrape
}

// NewCoordinator returns a Coordinator.
func NewCoordinator(target Target, collectors []Collector, limits Limits) *Coordinator {
	if limits.CallTimeout <= 0 {
		limits.CallTimeout = DefaultCallTimeout
	}
	return &Coordinator{
		target: target, collectors: collectors, names: Names(collectors), limits: limits, now: time.Now,
		scrapes: Joint[*scrape]{Reuse: limits.Reuse, Abandon: true}, server: newServer("", nil),
	}
}

// UnknownCollectorError means that a filter contains a name that no collector has.
type UnknownCollectorError struct {
	Name  string
	Known []string
}

func (e *UnknownCollectorError) Error() string {
	return fmt.Sprintf("unknown collector %q; the collectors are: %s", e.Name, strings.Join(e.Known, ", "))
}

// Select applies the package function Select to the names of the coordinator's collectors.
func (c *Coordinator) Select(include, exclude []string) ([]string, error) {
	return Select(c.names, include, exclude)
}

// Select returns the names to scrape: the included ones (all if include is empty) without
// the excluded ones; the slice must not be changed. An unknown name is an
// *UnknownCollectorError.
func Select(known, include, exclude []string) ([]string, error) {
	for _, name := range slices.Concat(include, exclude) {
		if !slices.Contains(known, name) {
			return nil, &UnknownCollectorError{name, known}
		}
	}
	if len(include) == 0 && len(exclude) == 0 {
		return known, nil
	}
	return slices.DeleteFunc(slices.Clone(known), func(name string) bool {
		return slices.Contains(exclude, name) || len(include) > 0 && !slices.Contains(include, name)
	}), nil
}

// Scrape runs the named collectors (all without names) and returns the results once they
// are complete or ctx is done. Concurrent scrapes of the same names share one run. The
// error is an *UnknownCollectorError; all failures at Kamailio are in the Snapshot.
func (c *Coordinator) Scrape(ctx context.Context, names ...string) (*Snapshot, error) {
	names, err := c.Select(names, nil)
	if err != nil {
		return nil, err
	}
	w, leave := c.scrapes.Join(ctx, strings.Join(names, ","), func() *scrape {
		return &scrape{names: names, begun: time.Now(), results: make([]Result, len(names)), finished: make([]bool, len(names))}
	}, c.run)
	defer leave()
	select {
	case <-w.Done:
	case <-ctx.Done():
		// Use what finished in time, even if the last collector and the deadline
		// coincided.
	}
	return w.Value.snapshot(), nil
}

// scrape is one scrape in progress.
type scrape struct {
	names []string
	begun time.Time

	mu       sync.Mutex
	up       bool
	err      error
	uris     []kamrpc.URIStatus
	results  []Result // do not change once finished
	finished []bool
	ended    time.Time
}

// errDeadline is the error of a collector that did not finish in time.
var errDeadline = errors.New("not finished before the scrape's deadline")

// snapshot returns the current state of the scrape.
func (s *scrape) snapshot() *Snapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := &Snapshot{Up: s.up, Err: s.err, taken: s.begun}
	ended := s.ended
	if ended.IsZero() {
		ended = time.Now()
	}
	out.Duration = ended.Sub(s.begun)
	if !s.up {
		if out.Err == nil {
			out.Err = errDeadline
		}
		return out
	}
	out.URIs, out.Results = s.uris, s.results
	if !slices.Contains(s.finished, false) {
		return out
	}
	out.Results = slices.Clone(s.results)
	for i, finished := range s.finished {
		if !finished {
			out.Results[i] = Result{Collector: s.names[i], Supported: true, Err: errDeadline, Duration: out.Duration}
		}
	}
	return out
}

func (c *Coordinator) run(ctx context.Context, s *scrape) {
	session, err := c.meet(ctx)
	s.mu.Lock()
	s.up, s.err = err == nil, err
	s.mu.Unlock()
	if err == nil {
		var running sync.WaitGroup
		running.Go(func() {
			uris := c.target.Status(ctx)
			s.mu.Lock()
			defer s.mu.Unlock()
			s.uris = uris
		})
		one := func(i int, collector Collector) {
			r := update(ctx, collector, session, c.now)
			s.mu.Lock()
			defer s.mu.Unlock()
			s.results[i], s.finished[i] = r, true
		}
		var others []func() // have nothing to wait for but the statistics: a goroutine each costs more than their work
		for i, name := range s.names {
			collector := c.collectors[slices.IndexFunc(c.collectors, func(c Collector) bool { return c.Name() == name })]
			if onlyStatistics(collector) || !supported(collector, session) {
				others = append(others, func() { one(i, collector) })
			} else {
				running.Go(func() { one(i, collector) })
			}
		}
		running.Go(func() {
			for _, update := range others {
				update()
			}
		})
		running.Wait()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = time.Now()
}

// meet checks whether Kamailio answers, and whether it is the same process as before. If
// so, the methods that it offers are already known.
func (c *Coordinator) meet(ctx context.Context) (*Session, error) {
	session := newSession(c.target, c.limits.CallTimeout, newServer("", nil))
	uptime, err := session.Call(ctx, uptimeMethod)
	if err != nil && !errors.As(err, new(*kamrpc.Fault)) {
		return nil, err
	}
	start := uptime.Get("up_since").Text()
	c.mu.Lock()
	known := c.server
	c.mu.Unlock()
	if known.start != start || known.methods == nil {
		methods, err := session.Call(ctx, "system.listMethods")
		switch {
		case err == nil:
			known = newServer(start, methods.Texts())
		case known.start != start:
			known = newServer(start, nil)
		}
		// If the list is unavailable, each collector finds out by itself, and a missing
		// method is remembered until Kamailio restarts.
		c.mu.Lock()
		c.server = known
		c.mu.Unlock()
	}
	session.server = known
	return session, nil
}

// refusals returns the collector's calls that are dangerous on some version, and whether
// they are dangerous on this one.
func refusals(c Collector, s *Session) (all []Refusal) {
	for _, method := range c.Methods() {
		if dangerousAtAll(method) {
			all = append(all, Refusal{method, Reason{"danger", s.refusedSince(method)}})
		}
	}
	return all
}

// supported reports whether the server has all methods that the collector requires.
func supported(c Collector, s *Session) bool {
	return !slices.ContainsFunc(c.Methods(), func(method string) bool { return !s.Has(method) })
}

// onlyStatistics reports whether a collector makes no call but the one for the statistics.
func onlyStatistics(c Collector) bool {
	switch c := c.(type) {
	case *table:
		return !slices.ContainsFunc(c.queries, func(q compiledQuery) bool { return q.Method != statisticsMethod })
	case statisticsCollector:
		return true
	}
	return false
}

// update runs one collector. A panic in it does not affect the others.
func update(ctx context.Context, c Collector, s *Session, now func() time.Time) (r Result) {
	began := time.Now()
	r = Result{Collector: c.Name(), Supported: true}
	var b batch
	defer func() {
		if p := recover(); p != nil {
			r.Err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
			r.Samples = nil
		}
		r.Refusals = refusals(c, s)
		r.Duration = time.Since(began)
	}()
	if !supported(c, s) {
		r.Supported = false
		return r
	}
	var samples []Sample
	var err error
	if g, ok := c.(guarded); ok {
		samples, r.Held, err = s.server.guardOf(c.Name()).update(ctx, c, g.Guard(), s, &b, now)
	} else {
		err = c.Update(ctx, s, b.emit)
		samples = b.take()
	}
	switch {
	case errors.Is(err, ErrNoData):
		r.Supported = false
		return r
	// A call that is skipped on this version is not a failure: the page shows the reason.
	case errors.Is(err, kamrpc.ErrDangerous) && slices.ContainsFunc(refusals(c, s), func(f Refusal) bool { return f.Reason.Holds() }):
		return r
	}
	if r.Err = errors.Join(err, b.err); r.Err == nil {
		r.Samples, r.Duplicates = samples, b.duplicates
	}
	return r
}
