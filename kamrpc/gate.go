package kamrpc

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"
)

// settle is how long the reads of a module are refused after its reload got no answer,
// and its reloads after a read got none: Kamailio may still be working on it. No reload is
// known that takes longer than the longest deadline of the admin endpoint plus this. The
// longest read was permissions.domainDump, with 28 s for 20,000 names.
const settle = 30 * time.Second

// gate prevents concurrent reads and reloads of one module, and runs one change of a
// Kamailio at a time. Reading a list during its reload, and two concurrent reloads, have
// crashed servers: dispatcher.list, permissions.addressDump, mtree.list, lcr.dump_rules on
// 5.6; mtree.list, pdt.list on 6.0; drouting.reload on both. The gate only covers this
// process, not calls by kamcmd.
type gate struct {
	change chan struct{} // one change at a time

	mu      sync.Mutex
	modules map[string]*moduleGate
}

type moduleGate struct {
	readers int
	reload  bool          // one is in progress or waits for reads to finish
	until   time.Time     // no reads before this: a reload got no answer
	loose   time.Time     // no reload before this: a read got no answer
	changed chan struct{} // closed and replaced when one of these fields changes
}

func newGate() *gate {
	return &gate{change: make(chan struct{}, 1), modules: map[string]*moduleGate{}}
}

// moduleOf returns the module of a method, as the method spells it: "permissions", "ul".
func moduleOf(method string) string {
	module, _, _ := strings.Cut(method, ".")
	return module
}

// module is called with mu held. The map stays small, because all methods are from the
// cost table.
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

// wait is called with mu held, and releases it until something changes.
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

// read waits until no reload of the module is running or waiting. done must be called;
// answered means that the read has certainly ended.
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

// reload waits for the module's reads in progress, and makes new reads wait. It returns a
// [StillReadError] if one of the reads got no answer, because waiting for that could use
// up the reload's time. done must be called; answered means that the reload has certainly
// ended.
func (g *gate) reload(ctx context.Context, module string) (done func(answered bool), err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	m := g.module(module)
	m.reload = true // no other reload can be running: the caller holds change
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
