package kamrpc

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"
)

// settle is how long the reads of a module are refused after a reload of it
// without an answer, and its reloads after a read without one: Kamailio may still
// be at it. A reload that takes longer than the admin endpoint's longest deadline
// and this is not known; the longest of the reads that are made was
// permissions.domainDump, with 28 s for 20,000 names.
const settle = 30 * time.Second

// gate keeps reads and reloads of one module apart, and changes of one Kamailio
// one at a time. Lists that are read while they are reloaded, and two reloads
// side by side, have killed servers: dispatcher.list, permissions.addressDump,
// mtree.list, lcr.dump_rules on 5.6, mtree.list, pdt.list on 6.0, drouting.reload
// on both. Only this process is seen; what kamcmd does is not.
type gate struct {
	change chan struct{} // one change at a time

	mu      sync.Mutex
	modules map[string]*moduleGate
}

type moduleGate struct {
	readers int
	reload  bool          // one is in progress, or waits for the readers
	until   time.Time     // no reads before this: a reload without an answer
	loose   time.Time     // no reload before this: a read without an answer
	changed chan struct{} // closed, and made anew, when one of these changes
}

func newGate() *gate {
	return &gate{change: make(chan struct{}, 1), modules: map[string]*moduleGate{}}
}

// moduleOf is the module that a method belongs to, as Kamailio spells it in
// methods: "permissions", "ul".
func moduleOf(method string) string {
	module, _, _ := strings.Cut(method, ".")
	return module
}

// module is called with mu held. The methods are those of the price list, so
// there are few.
func (g *gate) module(name string) *moduleGate {
	m := g.modules[name]
	if m == nil {
		m = &moduleGate{changed: make(chan struct{})}
		g.modules[name] = m
	}
	return m
}

func (m *moduleGate) wake() {
	close(m.changed)
	m.changed = make(chan struct{})
}

// wait is called with mu held, and lets go of it until something changes.
func (g *gate) wait(ctx context.Context, m *moduleGate) error {
	changed := m.changed
	g.mu.Unlock()
	select {
	case <-changed:
	case <-ctx.Done():
	}
	g.mu.Lock()
	return ctx.Err()
}

// read waits until no reload of the module runs or waits. done must be called;
// answered tells that the read is over for sure.
func (g *gate) read(ctx context.Context, module string) (done func(answered bool), err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	m := g.module(module)
	for m.reload {
		if err := g.wait(ctx, m); err != nil {
			return nil, fmt.Errorf("%w: waiting for the reload of %s: %w", ErrReloading, module, err)
		}
	}
	if left := time.Until(m.until); left > 0 {
		return nil, fmt.Errorf("%w: a reload of %s got no reply and may still run; the module is not read for %s", ErrReloading, module, left.Round(time.Second))
	}
	m.readers++
	return func(answered bool) {
		g.mu.Lock()
		defer g.mu.Unlock()
		if !answered {
			m.loose = time.Now().Add(settle)
		}
		if m.readers--; m.readers == 0 {
			m.wake()
		}
	}, nil
}

// reload waits for the reads of the module in progress, and keeps new ones
// waiting. It is a [StillReadError] when one of them got no answer: to wait for that
// could take all of the reload's time. done must be called; answered tells that
// the reload is over for sure.
func (g *gate) reload(ctx context.Context, module string) (done func(answered bool), err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	m := g.module(module)
	m.reload = true // there is no other: the caller holds change
	for m.readers > 0 && err == nil {
		if err = g.wait(ctx, m); err != nil {
			err = fmt.Errorf("waiting for reads of %s: %w", module, err)
		}
	}
	if left := time.Until(m.loose); left > 0 && err == nil {
		err = &StillReadError{Module: module, Left: left}
	}
	if err != nil {
		m.reload = false
		m.wake()
		return nil, err
	}
	return func(answered bool) {
		g.mu.Lock()
		defer g.mu.Unlock()
		m.reload = false
		if !answered {
			m.until = time.Now().Add(settle)
		}
		m.wake()
	}, nil
}
