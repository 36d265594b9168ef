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

// Guard holds a collector in check whose call grows with what the server holds.
type Guard struct {
	Method string // the growing call, of kamrpc.PriceList
	// Interval is how often it is made at most; in between the last samples
	// are served again, with their age.
	Interval time.Duration
	// Size tells beforehand, at constant cost, what the call grows with; nil
	// where Kamailio does not report. Above Limit the call is not made. Not known
	// is not small: false holds it back too, for a reason of its own.
	Size  func(ctx context.Context, s *Session) (size float64, known bool, err error)
	Limit int
	// Rows tells the size afterwards, where it is not known before. After a reply
	// above Limit (0: none) the call is not made for tooLongPause.
	Rows func(samples []Sample) int
	// FirstPause after a failure of a long list, where a minute is too short.
	FirstPause time.Duration
}

// countOf counts the samples of one metric.
func countOf(d *Desc, samples []Sample) (n int) {
	for _, s := range samples {
		if s.Desc == d {
			n++
		}
	}
	return n
}

// longest is the number of rows of a table: of the metric that most of them have.
func longest(samples []Sample) (most int) {
	counts := map[*Desc]int{}
	for _, s := range samples {
		counts[s.Desc]++
		most = max(most, counts[s.Desc])
	}
	return most
}

// guarded is a Collector with a Guard.
type guarded interface{ Guard() Guard }

// Held tells what a guard did in one scrape.
type Held struct {
	Method  string
	Reasons []Reason // all that there are, whether they hold or not
	HasAge  bool     // samples are there
	Age     time.Duration
}

// Reason is why a call is skipped.
type Reason struct {
	Name  string // size, unknown, pause or danger
	Since time.Time
}

// Holds reports whether the reason holds now.
func (r Reason) Holds() bool { return !r.Since.IsZero() }

// The pause after a failure of a growing call: it doubles with each failure in a
// row. A call that was not answered may have left a worker without memory
// (xhttp), and the next would the next. A short list fails because Kamailio
// hangs, and is wanted most right after: only its second failure in a row counts.
const (
	firstPause   = time.Minute
	longestPause = time.Hour
	tooLongPause = time.Hour
)

// guardState is what is known of one guarded collector since Kamailio started.
type guardState struct {
	busy chan struct{} // holds one token while somebody updates

	mu           sync.Mutex
	ran          time.Time // when samples were taken; zero: never
	samples      []Sample
	duplicates   int
	size         float64 // the last that was known
	sizeKnown    bool
	failures     int
	failure      error
	pausedUntil  time.Time
	tooLongUntil time.Time
	// Since when a reason holds.
	sizeSince, unknownSince, pausedSince time.Time
}

func newGuardState() *guardState { return &guardState{busy: make(chan struct{}, 1)} }

// guardOf is the state for a collector, which ends with this Kamailio.
func (s *server) guardOf(collector string) *guardState {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.guards[collector] == nil {
		s.guards[collector] = newGuardState()
	}
	return s.guards[collector]
}

// update runs the collector if its guard lets it, and else serves what there is.
func (g *guardState) update(ctx context.Context, c Collector, guard Guard, s *Session, now func() time.Time) (b batch, held Held, err error) {
	select {
	case g.busy <- struct{}{}: // one at a time: who waits finds fresh samples
		defer func() { <-g.busy }()
	case <-ctx.Done():
		return b, Held{Method: guard.Method}, ctx.Err()
	}
	held, run, err := g.admit(ctx, guard, s, now())
	if err != nil || !run {
		if held.HasAge {
			b.samples, b.duplicates = g.samples, g.duplicates
		}
		return b, held, err
	}
	err = c.Update(ctx, s, b.emit)
	g.finish(errors.Join(err, b.err), &b, guard, now())
	held = g.held(guard, now())
	held.HasAge = err == nil
	return b, held, err
}

// admit decides whether the call may be made now. Without run, held.HasAge tells
// whether the last samples stand in for it.
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

// finish keeps what the call brought, or lengthens the pause.
func (g *guardState) finish(err error, b *batch, guard Guard, now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if err == nil {
		g.ran, g.samples, g.duplicates = now, b.samples, b.duplicates
		g.failures, g.failure, g.pausedUntil, g.pausedSince = 0, nil, time.Time{}, time.Time{}
		if guard.Rows != nil {
			rows := guard.Rows(b.samples)
			g.size, g.sizeKnown = float64(rows), true
			if guard.Limit > 0 && rows > guard.Limit {
				g.tooLongUntil = now.Add(tooLongPause)
			}
		}
		return
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, ErrNoData) || errors.Is(err, kamrpc.ErrReloading) || errors.Is(err, kamrpc.ErrDangerous) {
		return // nobody waited for it any more, there is nothing to ask, or it was not asked
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

// short reports whether the call is known to be far from its limit, or does not grow
// at all: the length of its reply is not why it failed. It wants g.mu.
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
