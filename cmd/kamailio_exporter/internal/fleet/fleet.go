// Package fleet lets one exporter serve many Kamailio servers: the targets that a file
// names, and URIs in networks that the file allows. Each is probed by name at /probe, as
// with blackbox_exporter and snmp_exporter.
//
// State of a Kamailio (its methods, what is skipped, its connections) is kept between
// probes, and across reloads of the file that do not change the target.
package fleet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"reflect"
	"strings"
	"sync"
	"time"

	"github.com/go-kit/log"
	"github.com/go-kit/log/level"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/conf"
)

// Page serves the metrics of one Kamailio.
type Page interface {
	// Serve queries Kamailio and writes the response.
	Serve(w http.ResponseWriter, r *http.Request, what Module) Outcome
	// Close closes the connections that no scrape uses.
	Close()
}

// Outcome is the outcome of a probe.
type Outcome string

// The outcomes.
const (
	Up       Outcome = "up"       // Kamailio replied
	Down     Outcome = "down"     // Kamailio did not reply: kamailio_up 0
	Canceled Outcome = "canceled" // the client disconnected
	Failed   Outcome = "failed"   // an error in the exporter
)

// Options configure a [Fleet].
type Options struct {
	File   string
	Base   Base
	Build  func(*Target, *net.Dialer) (Page, error) // connects to nothing
	Logger log.Logger
}

// Fleet has the targets of the configuration in force.
type Fleet struct {
	opts    Options
	metrics *metrics
	now     func() time.Time

	reloading sync.Mutex // one reload at a time

	mu     sync.Mutex
	cfg    *Config
	named  map[string]*session
	guests map[string]*session // allow-listed targets, by URI
}

// session is a target with its state.
type session struct {
	target  *Target
	page    Page
	users   int
	used    time.Time // when its last request ended
	retired bool      // accepts no new requests; the last one closes it
}

// guestIdle is how long an allow-listed target is kept without a probe. Until then, what
// is skipped for it stays skipped.
const guestIdle = 10 * time.Minute

// New loads the file.
func New(opts Options) (*Fleet, error) {
	f := &Fleet{opts: opts, now: time.Now, guests: map[string]*session{}}
	f.metrics = newMetrics(f)
	return f, f.load()
}

// Reload loads the file again. If that fails, the previous configuration stays in force.
func (f *Fleet) Reload() error {
	err := f.load()
	if err != nil {
		_ = level.Error(f.opts.Logger).Log("msg", "reload failed; keeping the previous configuration", "err", conf.OneLine(err))
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	_ = level.Info(f.opts.Logger).Log("msg", "configuration reloaded", "targets", len(f.named))
	return nil
}

func (f *Fleet) load() error {
	f.reloading.Lock()
	defer f.reloading.Unlock()
	cfg, err := Load(f.opts.File, f.opts.Base)
	if err == nil {
		err = f.change(cfg)
	}
	f.metrics.reloaded(err == nil, f.now())
	return err
}

// change puts a configuration in force. Sessions of unchanged targets are kept.
func (f *Fleet) change(cfg *Config) error {
	f.mu.Lock()
	before, same := f.named, f.cfg != nil && reflect.DeepEqual(f.cfg.allow, cfg.allow)
	if same {
		cfg.allow = f.cfg.allow // the guests' dialers use it
	}
	f.mu.Unlock()
	named := make(map[string]*session, len(cfg.Targets))
	var fresh []*session
	var problems []error
	for _, t := range cfg.Targets {
		if s := before[t.Name]; s != nil && s.target.servedAs(t) {
			named[t.Name] = s
			continue
		}
		page, err := f.opts.Build(t, &net.Dialer{})
		if err != nil {
			problems = append(problems, fmt.Errorf("%s: targets: %s: %w", f.opts.File, t.Name, err))
			continue
		}
		named[t.Name] = &session{target: t, page: page}
		fresh = append(fresh, named[t.Name])
	}
	if len(problems) > 0 {
		for _, s := range fresh {
			s.page.Close()
		}
		return errors.Join(problems...)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, t := range cfg.Targets {
		named[t.Name].target = t
	}
	for name, s := range before {
		if named[name] != s {
			s.retire()
		}
	}
	if !same {
		for _, s := range f.guests {
			s.retire()
		}
		clear(f.guests)
	}
	f.cfg, f.named = cfg, named
	return nil
}

// servedAs reports whether a page for t also fits other. Labels and the module do not
// matter.
func (t *Target) servedAs(other *Target) bool {
	a, b := *t, *other
	a.Labels, a.Module, b.Labels, b.Module = nil, "", nil, ""
	return reflect.DeepEqual(a, b)
}

// retire must be called with Fleet.mu held.
func (s *session) retire() {
	s.retired = true
	if s.users == 0 {
		s.page.Close()
	}
}

// acquire returns the session of a target, by name or by URI, and the requested module.
// The caller must release the session.
func (f *Fleet) acquire(ctx context.Context, target, module string) (s *session, m Module, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s = f.named[target]
	if s == nil {
		if s, err = f.guest(ctx, target, module); err != nil {
			return nil, Module{}, err
		}
	}
	if m, err = f.cfg.module(s.target, module); err != nil {
		return nil, Module{}, err
	}
	s.users++
	return s, m, nil
}

// module returns the requested module, or that of the target.
func (c *Config) module(t *Target, name string) (Module, error) {
	if name == "" {
		name = t.Module
	}
	m, ok := c.Modules[name]
	if !ok {
		return Module{}, &refusal{http.StatusBadRequest, "unknown_module", "module: the configuration file has no module of this name"}
	}
	return m, nil
}

// guest must be called with mu held. admit releases it during DNS queries.
func (f *Fleet) guest(ctx context.Context, target, module string) (*session, error) {
	if !strings.Contains(target, "://") {
		return nil, &refusal{http.StatusNotFound, "unknown_target", "target: the configuration file has no target of this name, and it is not a URI"}
	}
	uri, allow, err := f.admit(ctx, target, module)
	if err != nil {
		return nil, err
	}
	f.forgetIdle()
	if s := f.guests[uri]; s != nil {
		return s, nil
	}
	if len(f.guests) >= allow.maxTargets {
		return nil, &refusal{http.StatusTooManyRequests, "too_many", fmt.Sprintf("target: %d targets that are not in the configuration file were probed in the last %s, which is the limit (allow: max_targets)", len(f.guests), guestIdle)}
	}
	t := allow.target(uri)
	page, err := f.opts.Build(t, allow.dialer())
	if err != nil {
		return nil, err
	}
	s := &session{target: t, page: page}
	f.guests[uri] = s
	return s, nil
}

// admit must be called with mu held. It repeats allowList.admit until the list that it
// used is still in force afterwards.
func (f *Fleet) admit(ctx context.Context, target, module string) (uri string, allow *allowList, err error) {
	for {
		allow = f.cfg.allow
		if allow != nil { // check the module before any DNS query
			if _, err := f.cfg.module(&allow.base, module); err != nil {
				return "", nil, err
			}
		}
		f.mu.Unlock()
		uri, err = allow.admit(ctx, target)
		f.mu.Lock()
		if err != nil || f.cfg.allow == allow {
			return uri, allow, err
		}
	}
}

// forgetIdle must be called with mu held.
func (f *Fleet) forgetIdle() {
	for uri, s := range f.guests {
		if s.users == 0 && f.now().Sub(s.used) > guestIdle {
			s.retire()
			delete(f.guests, uri)
		}
	}
}

func (f *Fleet) release(s *session) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s.users--
	s.used = f.now()
	if s.retired && s.users == 0 {
		s.page.Close()
	}
}

// Targets returns the targets of the file, sorted by name.
func (f *Fleet) Targets() []*Target {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.cfg.Targets
}

// LongestScrape returns how long a probe of a target of the file may take.
func (f *Fleet) LongestScrape() (longest time.Duration) {
	for _, t := range f.Targets() {
		longest = max(longest, t.Limits.ScrapeTimeout)
	}
	return longest
}

// sizes returns the numbers of sessions.
func (f *Fleet) sizes() (named, guests int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.cfg != nil {
		f.forgetIdle()
	}
	return len(f.named), len(f.guests)
}
