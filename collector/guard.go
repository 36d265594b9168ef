package collector

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
)

// Guard limits a collector whose call gets more expensive as the server's data grows.
type Guard struct {
	Method string // the growing call, from kamrpc.PriceList
	// Interval is the minimum time between two calls. Until then, the previous
	// samples are served again, with their age.
	Interval time.Duration
	// Size returns, at constant cost, the size that the call grows with; nil if Kamailio
	// does not report it. Above Limit the call is skipped. If the size is unknown (false),
	// the call is skipped too, with a reason of its own.
	Size  func(ctx context.Context, s *Session) (size float64, known bool, err error)
	Limit int
	// Rows returns the size after the call, if it is not known before. After a reply
	// above Limit (0: no limit), the call is skipped for tooLongPause.
	Rows func(samples []Sample) int
	// FirstPause is the first pause after a long list failed; 0 means a minute.
	FirstPause time.Duration
}

// countOf returns the number of samples of one metric.
func countOf(d *Desc, samples []Sample) (n int) {
	for _, s := range samples {
		if s.Desc == d {
			n++
		}
	}
	return n
}

// longest returns the number of rows of a table: that of its metric with the most samples.
func longest(samples []Sample) (most int) {
	counts := map[*Desc]int{}
	for _, s := range samples {
		counts[s.Desc]++
		most = max(most, counts[s.Desc])
	}
	return most
}

// guarded is implemented by a Collector that has a Guard.
type guarded interface{ Guard() Guard }

// Held reports what a guard did in one scrape.
type Held struct {
	Method  string
	Reasons []Reason // all possible reasons, whether they hold or not
	HasAge  bool     // there are samples, which have an age
	Age     time.Duration
}

// Reason is a reason why a call may be skipped.
type Reason struct {
	Name  string // size, unknown, pause, or danger
	Since time.Time
}

// Holds reports whether the reason holds now.
func (r Reason) Holds() bool { return !r.Since.IsZero() }

// The pause after a growing call failed; it doubles with each consecutive failure. The
// unanswered call may have used up the memory of a worker (xhttp), and the next call would
// use up that of another worker. If a short list fails, Kamailio hangs, and the list is
// needed as soon as it recovers: so a pause begins only after the second failure in a row.
const (
	firstPause   = time.Minute
	longestPause = time.Hour
	tooLongPause = time.Hour
)

// guardState is the state of one guarded collector since Kamailio started.
type guardState struct {
	busy chan struct{} // holds one token while an update runs

	mu           sync.Mutex
	ran          time.Time // when samples were taken; zero: never
	samples      []Sample
	duplicates   int
	size         float64 // the last known size
	sizeKnown    bool
	failures     int
	failure      error
	pausedUntil  time.Time
	tooLongUntil time.Time
	// When each reason began to hold.
	sizeSince, unknownSince, pausedSince time.Time
}

func newGuardState() *guardState { return &guardState{busy: make(chan struct{}, 1)} }

// guardOf returns the state for a collector. It is discarded when Kamailio restarts.
func (s *server) guardOf(collector string) *guardState {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.guards[collector] == nil {
		s.guards[collector] = newGuardState()
	}
	return s.guards[collector]
}

// update runs the collector if its guard allows it, else it serves the previous samples.
func (g *guardState) update(ctx context.Context, c Collector, guard Guard, s *Session, b *batch, now func() time.Time) (samples []Sample, held Held, err error) {
	select {
	case g.busy <- struct{}{}: // one at a time: whoever waited finds fresh samples
		defer func() { <-g.busy }()
	case <-ctx.Done():
		return nil, Held{Method: guard.Method}, ctx.Err()
	}
	held, run, err := g.admit(ctx, guard, s, now())
	if err != nil || !run {
		if held.HasAge {
			samples, b.duplicates = g.samples, g.duplicates
		}
		return samples, held, err
	}
	err = c.Update(ctx, s, b.emit)
	samples = b.take()
	g.finish(errors.Join(err, b.err), samples, b.duplicates, guard, now())
	held = g.held(guard, now())
	held.HasAge = err == nil
	return samples, held, err
}

// admit decides whether the call may be made now. If run is false, held.HasAge reports
// whether the previous samples are served instead.
func (g *guardState) admit(ctx context.Context, guard Guard, s *Session, now time.Time) (held Held, run bool, err error) {
	size, known := 0.0, true
	if guard.Size != nil {
		if size, known, err = guard.Size(ctx, s); err != nil {
			return g.held(guard, now), false, err
		}
	}
	g.mu.Lock()
	if guard.Size != nil && known {
		g.size, g.sizeKnown = size, true
	}
	tooLarge := guard.Size != nil && size > float64(guard.Limit) || now.Before(g.tooLongUntil)
	g.sizeSince = since(g.sizeSince, tooLarge, now)
	g.unknownSince = since(g.unknownSince, !known, now)
	paused := now.Before(g.pausedUntil)
	if !paused {
		g.pausedSince = time.Time{}
	}
	fresh := !g.ran.IsZero() && now.Sub(g.ran) < guard.Interval
	failures, failure, until := g.failures, g.failure, g.pausedUntil
	g.mu.Unlock()
	held = g.held(guard, now)
	switch {
	case tooLarge || !known:
		return held, false, nil
	case paused:
		return held, false, fmt.Errorf("%s is skipped until %s after %d failures; the last one: %w",
			guard.Method, until.Format(time.TimeOnly), failures, failure)
	case fresh:
		held.HasAge = true
		return held, false, nil
	}
	return held, true, nil
}

func since(before time.Time, holds bool, now time.Time) time.Time {
	switch {
	case !holds:
		return time.Time{}
	case before.IsZero():
		return now
	}
	return before
}

// finish stores the result of the call, or extends the pause.
func (g *guardState) finish(err error, samples []Sample, duplicates int, guard Guard, now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if err == nil {
		g.ran, g.samples, g.duplicates = now, samples, duplicates
		g.failures, g.failure, g.pausedUntil, g.pausedSince = 0, nil, time.Time{}, time.Time{}
		if guard.Rows != nil {
			rows := guard.Rows(samples)
			g.size, g.sizeKnown = float64(rows), true
			if guard.Limit > 0 && rows > guard.Limit {
				g.tooLongUntil = now.Add(tooLongPause)
			}
		}
		return
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, ErrNoData) || errors.Is(err, kamrpc.ErrReloading) || errors.Is(err, kamrpc.ErrDangerous) {
		return // no scrape waited for it any more, there is no data, or the call was not made
	}
	g.failures++
	g.failure = err
	first, doubled := cmp.Or(guard.FirstPause, firstPause), g.failures-1
	if g.short(guard) {
		first, doubled = firstPause, g.failures-2
	}
	if doubled < 0 {
		return
	}
	pause := time.Duration(math.Min(float64(longestPause), float64(first)*math.Pow(2, float64(doubled))))
	g.pausedUntil = now.Add(pause)
	g.pausedSince = since(g.pausedSince, true, now)
}

// short reports whether the call is known to be far below its limit, or does not grow at
// all, so that its failure is not due to the length of its reply. It requires g.mu.
func (g *guardState) short(guard Guard) bool {
	if price, _ := kamrpc.PriceOf(guard.Method); price.Cost != kamrpc.Growing {
		return true
	}
	return g.sizeKnown && 2*g.size <= float64(cmp.Or(guard.Limit, DefaultListRows))
}

func (g *guardState) held(guard Guard, now time.Time) Held {
	g.mu.Lock()
	defer g.mu.Unlock()
	held := Held{
		Method:  guard.Method,
		Reasons: []Reason{{"size", g.sizeSince}, {"pause", g.pausedSince}},
		Age:     now.Sub(g.ran),
	}
	if guard.Size != nil {
		held.Reasons = append(held.Reasons, Reason{"unknown", g.unknownSince})
	}
	return held
}
