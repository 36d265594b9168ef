package collector

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
)

// Target is the Kamailio that is asked. *kamrpc.Client is one.
type Target interface {
	kamrpc.Caller
	// CallScripted asks for a method that the server does not list and only the
	// operator's configuration script may serve.
	CallScripted(ctx context.Context, method string, params ...any) (kamrpc.Value, error)
	// Rows asks for a reply of any size, row by row; after an error the rows so
	// far are not to be used.
	Rows(ctx context.Context, rows kamrpc.Rows, yield func(above kamrpc.Above, row kamrpc.Value) error, method string, params ...any) error
	// Status tells which of several URIs are used.
	Status(ctx context.Context) []kamrpc.URIStatus
}

// Session is one scrape's view of a Kamailio: it asks each question once,
// whoever wants the answer, gives each call its own timeout, and never asks for
// what is not there.
type Session struct {
	target  Target
	timeout time.Duration // of one call
	server  *server

	mu    sync.Mutex
	calls map[string]*call
}

type call struct {
	done  chan struct{}
	value kamrpc.Value
	err   error
}

// server is what has been learned about one running Kamailio; a restart makes a
// new one.
type server struct {
	start   string          // core.uptime's up_since: identifies this start; "" when unknown
	methods map[string]bool // system.listMethods; nil when unknown

	mu       sync.Mutex
	scripted map[string]bool      // unlisted methods that were tried: did the script answer?
	missing  map[string]bool      // methods that turned out not to be there
	refused  map[string]time.Time // methods that are dangerous on this version, and since when that is known
	guards   map[string]*guardState
	fixed    map[string]kamrpc.Value // answers that stay the same until a restart
	facts    map[string]int64        // what else stays the same until then
	outgrown map[string]error        // calls whose reply did not fit any transport
}

// NewSession makes a session for a server that offers these methods (nil: not
// known). A [Coordinator] makes its own; this is for tests and tools.
func NewSession(target Target, timeout time.Duration, methods []string) *Session {
	return newSession(target, timeout, newServer("", methods))
}

func newSession(target Target, timeout time.Duration, srv *server) *Session {
	return &Session{target: target, timeout: timeout, server: srv, calls: map[string]*call{}}
}

func newServer(start string, methods []string) *server {
	srv := &server{
		start: start, scripted: map[string]bool{}, missing: map[string]bool{}, refused: map[string]time.Time{},
		guards: map[string]*guardState{}, fixed: map[string]kamrpc.Value{}, facts: map[string]int64{}, outgrown: map[string]error{},
	}
	if methods != nil {
		srv.methods = make(map[string]bool, len(methods))
		for _, m := range methods {
			srv.methods[m] = true
		}
	}
	return srv
}

// Has reports whether the server offers a method, without asking it.
func (s *Session) Has(method string) bool {
	s.server.mu.Lock()
	defer s.server.mu.Unlock()
	if s.server.missing[method] {
		return false
	}
	return s.server.methods == nil || s.server.methods[method]
}

// Lists reports whether the server is known to list a method.
func (s *Session) Lists(method string) bool { return s.server.methods[method] }

// refusedSince tells since when a method is known to be dangerous on this
// version; the zero time: it is not known to be.
func (s *Session) refusedSince(method string) time.Time {
	s.server.mu.Lock()
	defer s.server.mu.Unlock()
	return s.server.refused[method]
}

// Call asks the server, once per session for the same method and parameters. A
// method that the server does not have is kamrpc.ErrMethodNotFound, and is not
// asked for: each such call is an ERROR line in Kamailio's log. Nor is what was
// once kamrpc.ErrOutgrown, which is many such lines, until Kamailio restarts: only
// then can its buffers be others. One that is dangerous on this version is
// kamrpc.ErrDangerous: for a collector with more to tell that is no failure, and
// the page says that it is skipped.
func (s *Session) Call(ctx context.Context, method string, params ...any) (kamrpc.Value, error) {
	key := key(method, params)
	if err := s.allowed(method, key); err != nil {
		return kamrpc.Value{}, err
	}
	return s.once(ctx, key, func(ctx context.Context) (kamrpc.Value, error) {
		v, err := s.target.Call(ctx, method, params...)
		s.learnFrom(err, method, key)
		return v, err
	})
}

func (s *Session) outgrown(key string) error {
	s.server.mu.Lock()
	defer s.server.mu.Unlock()
	return s.server.outgrown[key]
}

// learnFrom keeps what an error says about the server for as long as it runs.
func (s *Session) learnFrom(err error, method, key string) {
	s.server.mu.Lock()
	defer s.server.mu.Unlock()
	switch {
	case errors.Is(err, kamrpc.ErrMethodNotFound):
		s.server.missing[method] = true
	// Whether a call is dangerous may depend on its parameters; of such a method
	// nothing is kept.
	case errors.Is(err, kamrpc.ErrDangerous) && dangerousAtAll(method):
		s.server.refused[method] = time.Now()
	case errors.Is(err, kamrpc.ErrOutgrown) && s.server.start != "": // else a restart would not be seen
		s.server.outgrown[key] = err
	}
}

// CallFixed is Call for what stays the same until Kamailio restarts: it is asked
// once per start.
func (s *Session) CallFixed(ctx context.Context, method string, params ...any) (kamrpc.Value, error) {
	key := key(method, params)
	s.server.mu.Lock()
	v, known := s.server.fixed[key]
	s.server.mu.Unlock()
	if known {
		return v, nil
	}
	v, err := s.Call(ctx, method, params...)
	if err == nil && s.server.start != "" { // else a restart would not be seen
		s.server.mu.Lock()
		s.server.fixed[key] = v
		s.server.mu.Unlock()
	}
	return v, err
}

// recall is what was kept under a name since Kamailio started.
func (s *Session) recall(name string) (n int64, known bool) {
	s.server.mu.Lock()
	defer s.server.mu.Unlock()
	n, known = s.server.facts[name]
	return n, known
}

// keep remembers what stays the same until Kamailio restarts, where CallFixed does
// not: of an answer that must not be kept whole, or that is an error.
func (s *Session) keep(name string, n int64) {
	s.server.mu.Lock()
	defer s.server.mu.Unlock()
	if s.server.start != "" { // else a restart would not be seen
		s.server.facts[name] = n
	}
}

// allowed is why a call is not made.
func (s *Session) allowed(method, key string) error {
	if !s.Has(method) {
		return fmt.Errorf("%s: %w", method, kamrpc.ErrMethodNotFound)
	}
	if !s.refusedSince(method).IsZero() {
		return fmt.Errorf("%s: %w", method, kamrpc.ErrDangerous)
	}
	return s.outgrown(key)
}

// dangerousAtAll reports whether a method is refused on some version, whatever its
// parameters.
func dangerousAtAll(method string) bool {
	price, _ := kamrpc.PriceOf(method)
	return slices.ContainsFunc(price.Dangers, func(d kamrpc.Danger) bool { return d.MinParams == 0 })
}

// CallUnlisted asks for a method that only the operator's script may serve.
// Whether it does is learned once per start of Kamailio.
func (s *Session) CallUnlisted(ctx context.Context, method string, params ...any) (kamrpc.Value, error) {
	s.server.mu.Lock()
	served, tried := s.server.scripted[method]
	s.server.mu.Unlock()
	if tried && !served {
		return kamrpc.Value{}, fmt.Errorf("%s: %w", method, kamrpc.ErrMethodNotFound)
	}
	return s.once(ctx, key(method, params), func(ctx context.Context) (kamrpc.Value, error) {
		v, err := s.target.CallScripted(ctx, method, params...)
		switch {
		case err == nil:
			s.learn(s.server.scripted, method, true)
		case errors.Is(err, kamrpc.ErrMethodNotFound):
			s.learn(s.server.scripted, method, false)
		}
		return v, err
	})
}

// Rows asks for a reply of any size, row by row. Unlike that of
// Call it is not kept for whoever else wants it. After an error the rows so far are not to
// be used.
func (s *Session) Rows(ctx context.Context, rows kamrpc.Rows, yield func(above kamrpc.Above, row kamrpc.Value) error, method string, params ...any) error {
	key := key(method, params)
	if err := s.allowed(method, key); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	err := s.target.Rows(ctx, rows, yield, method, params...)
	s.learnFrom(err, method, key)
	return err
}

func (s *Session) learn(about map[string]bool, method string, is bool) {
	s.server.mu.Lock()
	defer s.server.mu.Unlock()
	about[method] = is
}

// Statistics is the answer of stats.get_statistics all as an object of groups,
// each with a member "group:name" per statistic ([parseStatistics]).
func (s *Session) Statistics(ctx context.Context) (kamrpc.Value, error) {
	return s.once(ctx, "statistics, parsed", func(ctx context.Context) (kamrpc.Value, error) {
		v, err := s.Call(ctx, statisticsMethod, "all")
		if errors.Is(err, kamrpc.ErrOutgrown) && s.Has(groupsMethod) {
			return s.statisticsInParts(ctx)
		}
		if err != nil {
			return kamrpc.Value{}, err
		}
		return parseStatistics(v)
	})
}

// StatisticsOf are those of one group. It fails only where this group is not to
// be had.
func (s *Session) StatisticsOf(ctx context.Context, group string) (kamrpc.Value, error) {
	all, err := s.Statistics(ctx)
	if lost := (*lostGroups)(nil); errors.As(err, &lost) && !slices.Contains(lost.groups, group) {
		err = nil
	}
	return all.Get(group), err
}

func (s *Session) once(ctx context.Context, key string, ask func(context.Context) (kamrpc.Value, error)) (kamrpc.Value, error) {
	s.mu.Lock()
	c, asked := s.calls[key]
	if !asked {
		c = &call{done: make(chan struct{})}
		s.calls[key] = c
	}
	s.mu.Unlock()
	if asked {
		select {
		case <-c.done:
			return c.value, c.err
		case <-ctx.Done():
			return kamrpc.Value{}, ctx.Err()
		}
	}
	defer close(c.done)
	c.err = errors.New("the call did not return") // until it has: a panic must not read as an answer
	callCtx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	c.value, c.err = ask(callCtx)
	return c.value, c.err
}

func key(method string, params []any) string {
	if len(params) == 0 {
		return method
	}
	var b strings.Builder
	b.WriteString(method)
	for _, p := range params {
		fmt.Fprintf(&b, "\x00%T\x00%v", p, p)
	}
	return b.String()
}
