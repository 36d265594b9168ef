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

// Target is the Kamailio to query. *kamrpc.Client implements it.
type Target interface {
	kamrpc.Caller
	// CallScripted calls a method that the server does not list and that only the
	// operator's kamailio.cfg may serve.
	CallScripted(ctx context.Context, method string, params ...any) (kamrpc.Value, error)
	// Rows calls a method with a reply of any size and reads it row by row. After an
	// error, the rows received so far must be discarded.
	Rows(ctx context.Context, rows kamrpc.Rows, yield func(above kamrpc.Above, row kamrpc.Value) error, method string, params ...any) error
	// Status reports which of several URIs are in use.
	Status(ctx context.Context) []kamrpc.URIStatus
}

// Session is the view of one Kamailio during one scrape. It makes each call once, however
// many collectors need the result, gives each call its own timeout, and skips methods that
// the server does not have.
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

// server is what is known about one running Kamailio. A restart of Kamailio discards it.
type server struct {
	start   string          // core.uptime's up_since, which identifies this start; "" if unknown
	methods map[string]bool // those of system.listMethods that have a price; nil if unknown

	mu       sync.Mutex
	scripted map[string]bool      // unlisted methods that were tried, and whether kamailio.cfg answered
	missing  map[string]bool      // methods that the server turned out not to have
	refused  map[string]time.Time // methods that are dangerous on this version, and since when that is known
	guards   map[string]*guardState
	fixed    map[string]kamrpc.Value // replies that do not change until a restart
	facts    map[string]int64        // other facts that do not change until a restart
	outgrown map[string]error        // calls whose reply did not fit any transport
	host     hostState
}

// NewSession returns a session for a server that offers these methods (nil: unknown). A
// [Coordinator] creates its own; this one is for tests and tools.
func NewSession(target Target, timeout time.Duration, methods []string) *Session {
	return newSession(target, timeout, newServer("", methods))
}

func newSession(target Target, timeout time.Duration, srv *server) *Session {
	return &Session{target: target, timeout: timeout, server: srv, calls: make(map[string]*call, usualCalls)}
}

// usualCalls is about how many calls the collectors of a scrape have in common.
const usualCalls = 32

func newServer(start string, methods []string) *server {
	srv := &server{
		start: start, scripted: map[string]bool{}, missing: map[string]bool{}, refused: map[string]time.Time{},
		guards: map[string]*guardState{}, fixed: map[string]kamrpc.Value{}, facts: map[string]int64{}, outgrown: map[string]error{},
	}
	if methods != nil {
		srv.methods = map[string]bool{}
		// Kamailio lists three times as many. Our own text of a name does not keep the
		// reply's in memory.
		for _, price := range kamrpc.PriceList() {
			if slices.Contains(methods, price.Method) {
				srv.methods[price.Method] = true
			}
		}
	}
	return srv
}

// Has reports whether the server offers a method, without a call.
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

// refusedSince returns since when a method is known to be dangerous on this version, or
// the zero time if it is not.
func (s *Session) refusedSince(method string) time.Time {
	s.server.mu.Lock()
	defer s.server.mu.Unlock()
	return s.server.refused[method]
}

// Call calls a method, at most once per session for the same method and parameters.
// If the server does not have the method, the error is kamrpc.ErrMethodNotFound and no
// call is made, because each such call logs an ERROR line in Kamailio. A call that failed
// with kamrpc.ErrOutgrown logs many such lines, and is not repeated until Kamailio
// restarts, since its buffers cannot change before that. If the method is dangerous on
// this version, the error is kamrpc.ErrDangerous. For a collector with other data that is
// not a failure, and the page reports the call as skipped.
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

// learnFrom remembers what an error says about the server until Kamailio restarts.
func (s *Session) learnFrom(err error, method, key string) {
	s.server.mu.Lock()
	defer s.server.mu.Unlock()
	switch {
	case errors.Is(err, kamrpc.ErrMethodNotFound):
		s.server.missing[method] = true
	// Whether a call is dangerous may depend on its parameters. For such a method,
	// nothing is remembered.
	case errors.Is(err, kamrpc.ErrDangerous) && dangerousAtAll(method):
		s.server.refused[method] = time.Now()
	case errors.Is(err, kamrpc.ErrOutgrown) && s.server.start != "": // else a restart would go unnoticed
		s.server.outgrown[key] = err
	}
}

// CallFixed is like Call, for replies that do not change until Kamailio restarts. It calls
// the method once per start of Kamailio.
func (s *Session) CallFixed(ctx context.Context, method string, params ...any) (kamrpc.Value, error) {
	key := key(method, params)
	s.server.mu.Lock()
	v, known := s.server.fixed[key]
	s.server.mu.Unlock()
	if known {
		return v, nil
	}
	v, err := s.Call(ctx, method, params...)
	if err == nil && s.server.start != "" { // else a restart would go unnoticed
		s.server.mu.Lock()
		s.server.fixed[key] = v
		s.server.mu.Unlock()
	}
	return v, err
}

// recall returns the value that keep stored under this name since Kamailio started.
func (s *Session) recall(name string) (n int64, known bool) {
	s.server.mu.Lock()
	defer s.server.mu.Unlock()
	n, known = s.server.facts[name]
	return n, known
}

// keep stores a value that does not change until Kamailio restarts, for cases that
// CallFixed does not cover: replies that must not be kept whole, and errors.
func (s *Session) keep(name string, n int64) {
	s.server.mu.Lock()
	defer s.server.mu.Unlock()
	if s.server.start != "" { // else a restart would go unnoticed
		s.server.facts[name] = n
	}
}

// allowed returns the reason why a call must not be made, or nil.
func (s *Session) allowed(method, key string) error {
	if !s.Has(method) {
		return fmt.Errorf("%s: %w", method, kamrpc.ErrMethodNotFound)
	}
	if !s.refusedSince(method).IsZero() {
		return fmt.Errorf("%s: %w", method, kamrpc.ErrDangerous)
	}
	return s.outgrown(key)
}

// dangerousAtAll reports whether some version refuses a method regardless of its
// parameters.
func dangerousAtAll(method string) bool {
	price, _ := kamrpc.PriceOf(method)
	return slices.ContainsFunc(price.Dangers, func(d kamrpc.Danger) bool { return d.MinParams == 0 })
}

// CallUnlisted calls a method that only the operator's kamailio.cfg may serve. Whether it
// does is determined once per start of Kamailio.
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

// Rows calls a method with a reply of any size and reads it row by row. Unlike with Call,
// the reply is not shared with other callers. After an error, the rows received so far
// must be discarded.
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

// Statistics returns the reply of stats.get_statistics all as an object of groups, each
// with a member "group:name" per statistic ([parseStatistics]).
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

// StatisticsOf returns the statistics of one group. It fails only if this group is
// unavailable.
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
	c.err = errors.New("the call did not return") // until it returns: a panic must not look like a reply
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
