// Package admin is the admin endpoint: a separate listener, off by default, that runs
// actions of the catalogue for named users and accepts Alertmanager's notifications.
// For a user, whatever the policy does not grant does not exist.
//
//	listener (limits) ─► browser defense ─► authentication ─► policy ─► strict body ─► action.Engine.Run
//	                                              │
//	                                              └─ a webhook ─► repair.Runner.Notify ─► action.Engine.Run
//	answer, or problem ◄─ one place
package admin

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	stdlog "log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/go-kit/log"
	"github.com/go-kit/log/level"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/action"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/audit"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/repair"
)

// Options are what a Server needs in addition to its configuration.
type Options struct {
	File     string // path of the configuration, for Reload
	Kamailio action.Kamailio
	Logger   log.Logger
	Version  string
	// Scraped returns the time and result of the last scrape of this Kamailio; the zero
	// time if there was none yet. If nil, rules do not check the last scrape.
	Scraped func() (at time.Time, good bool)

	now func() time.Time // nil: time.Now
}

// Server is the admin endpoint. It can run only once.
type Server struct {
	opts     Options
	inForce  atomic.Pointer[inForce]
	tls      atomic.Pointer[tls.Config]
	engine   *action.Engine
	ledger   *repair.Ledger
	runner   *repair.Runner
	limits   *limits
	conns    *connections
	metrics  *metrics
	http     *http.Server
	listener net.Listener
	reload   sync.Mutex
}

// New locks the audit log, starts listening, opens the log and records outcomes for
// operations that the last run left unfinished. It serves no requests before Serve.
func New(cfg *Config, opts Options) (*Server, error) {
	s, err := newServer(cfg, opts)
	if err != nil {
		return nil, err
	}
	// If locking or listening fails, do not touch the log: another exporter may be
	// using it.
	if err := s.engine.Log.Lock(); err != nil {
		return nil, ofLog(err)
	}
	if s.listener, err = s.listen(cfg); err != nil {
		_ = s.engine.Log.Close()
		return nil, fmt.Errorf("admin listener: %w", err)
	}
	if err := s.engine.Log.Start(func(r audit.Record) { s.engine.Journal.Replay(r); s.ledger.Take(r) }); err != nil {
		_ = s.listener.Close()
		_ = s.engine.Log.Close()
		return nil, ofLog(err)
	}
	s.engine.Recover()
	return s, nil
}

func ofLog(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		err = fmt.Errorf("%w: with systemd, StateDirectory= makes the directory", err)
	}
	return fmt.Errorf("audit log: %w", err)
}

func newServer(cfg *Config, opts Options) (*Server, error) {
	if opts.now == nil {
		opts.now = time.Now
	}
	s := &Server{opts: opts, limits: newLimits(cfg.Limits), conns: newConnections(), ledger: repair.NewLedger(opts.now)}
	auditLog, err := s.newLog(cfg)
	if err != nil {
		return nil, err
	}
	s.engine = &action.Engine{
		Kamailio: opts.Kamailio, Journal: action.NewJournal(opts.now), Log: auditLog, Logger: opts.Logger,
		Now: opts.now, Poll: 200 * time.Millisecond,
	}
	s.runner = repair.NewRunner(s.engine, s.ledger, func() *repair.Rules { return s.inForce.Load().rules }, opts.Scraped)
	s.metrics = newMetrics(s.engine, s.runner.Metrics(), s.inForce.Load)
	s.engine.Subscribers = []action.Subscriber{s.ledger.Ended, s.metrics.ended}
	if err := s.adopt(cfg); err != nil {
		return nil, err
	}
	only1 := new(http.Protocols)
	only1.SetHTTP1(true)
	s.http = &http.Server{
		Handler: &handler{
			engine: s.engine, runner: s.runner, metrics: s.metrics, limits: s.limits, sessions: newSessions(opts.now), cross: http.NewCrossOriginProtection(),
			version: opts.Version, inForce: s.inForce.Load,
		},
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      action.LongestAction,
		IdleTimeout:       30 * time.Second,
		MaxHeaderBytes:    8 << 10,
		Protocols:         only1,
		ConnContext:       s.conns.begin,
		// Its messages come from untrusted clients: failed handshakes and invalid
		// headers.
		ErrorLog: stdlog.New(io.Discard, "", 0),
	}
	return s, nil
}

// newLog creates the audit log, which New opens.
func (s *Server) newLog(cfg *Config) (*audit.Log, error) {
	key, err := cfg.hmacKey()
	if err != nil {
		return nil, err
	}
	opts := audit.Options{
		HMACKey: key, Version: s.opts.Version, Now: s.opts.now, Replay: 2 * action.KeyLife,
		OnFailure: func(err error) {
			s.metrics.auditFails.Inc()
			_ = level.Error(s.opts.Logger).Log("msg", "the audit log cannot be written", "err", err)
		},
		OnSync:     func(d time.Duration) { s.metrics.auditSync.Set(d.Seconds()) },
		Checkpoint: func() []any { return append(s.engine.Journal.Checkpoint(), s.ledger.Checkpoint()...) },
	}
	if cfg.Audit.CopyToLog {
		opts.CopyTo = func(r audit.Record) {
			_ = level.Info(s.opts.Logger).Log("msg", "audit", "seq", r.Seq, "kind", r.Kind, "id", r.ID, "user", r.User, "source", r.Source,
				"action", r.Action, "outcome", r.Outcome, "problem", r.Problem, "status", r.Status, "rule", r.RuleName(), "prev", r.Prev)
		}
	}
	return audit.New(cfg.Audit, opts), nil
}

// adopt puts a complete configuration in force at once.
func (s *Server) adopt(cfg *Config) error {
	policy, rules, err := cfg.compile(s.ledger)
	if err != nil {
		return err
	}
	if cfg.TLS != nil {
		t, err := cfg.tlsConfig()
		if err != nil {
			return err
		}
		s.tls.Store(t)
	}
	old := s.inForce.Swap(&inForce{cfg: cfg, policy: policy, auth: newAuthenticator(cfg, policy, s.opts.now), rules: rules, replaced: make(chan struct{})})
	if old != nil {
		close(old.replaced)
	}
	s.runner.Begin(rules)
	s.limits.renew(cfg.Limits)
	s.metrics.reloadGood.Set(1)
	s.metrics.reloadTime.Set(seconds(s.opts.now()))
	return nil
}

// Reload reloads the configuration. If that fails, the previous one stays in force. It
// also reopens the audit log, in case the file was moved away.
func (s *Server) Reload() error {
	s.reload.Lock()
	defer s.reload.Unlock()
	cfg, err := Load(s.opts.File)
	old := s.inForce.Load().cfg
	switch {
	case err != nil:
	case cfg == nil:
		err = errors.New("enabled: false needs a restart")
	case cfg.Listen != old.Listen || cfg.SocketMode != old.SocketMode || (cfg.TLS == nil) != (old.TLS == nil):
		err = errors.New("a change of listen, socket_mode or tls needs a restart")
	case cfg.Audit != old.Audit:
		err = errors.New("a change of audit needs a restart")
	default:
		err = s.adopt(cfg)
	}
	if err != nil {
		s.metrics.reloadGood.Set(0)
	}
	return errors.Join(err, s.engine.Log.Reopen())
}

// Metrics returns the collector to register.
func (s *Server) Metrics() prometheus.Collector { return s.metrics }

// Addr returns the address that the server listens on.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

func (s *Server) listen(cfg *Config) (net.Listener, error) {
	network, address, err := cfg.address()
	if err != nil {
		return nil, err
	}
	var listener net.Listener
	if network == "unix" {
		listener, err = listenUnix(cfg, address)
	} else {
		listener, err = net.Listen(network, address)
	}
	if err != nil {
		return nil, err
	}
	listener = limitedListener{listener, s.conns}
	if cfg.TLS == nil {
		return listener, nil
	}
	return tls.NewListener(listener, &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			return s.tls.Load(), nil
		},
	}), nil
}

// listenUnix creates the socket. It replaces a socket left by a killed program, but not
// one that another process serves.
func listenUnix(cfg *Config, path string) (net.Listener, error) {
	mode, err := cfg.socketMode()
	if err != nil {
		return nil, err
	}
	if info, err := os.Stat(filepath.Dir(path)); err != nil {
		return nil, fmt.Errorf("%w: with systemd, RuntimeDirectory= makes it", err)
	} else if info.Mode().Perm()&0o002 != 0 && info.Mode()&os.ModeSticky == 0 {
		return nil, fmt.Errorf("%s is writable by all users", filepath.Dir(path))
	}
	listener, err := net.Listen("unix", path)
	if errors.Is(err, syscall.EADDRINUSE) {
		info, statErr := os.Lstat(path)
		conn, dialErr := net.DialTimeout("unix", path, time.Second)
		switch {
		case dialErr == nil:
			conn.Close()
			return nil, fmt.Errorf("%s is in use by another process", path)
		case statErr != nil || info.Mode().Type() != os.ModeSocket:
			return nil, fmt.Errorf("%s exists and is not a socket", path)
		}
		if err := os.Remove(path); err != nil {
			return nil, err
		}
		listener, err = net.Listen("unix", path)
	}
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, mode); err != nil {
		listener.Close()
		return nil, err
	}
	return listener, nil
}

// Serve runs until Shutdown. After ctx is done, it undoes no more changes.
func (s *Server) Serve(ctx context.Context) error {
	s.engine.Log.Keep(audit.Record{Kind: audit.KindNote, Detail: "serving"})
	ctx, stop := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() { defer close(ended); s.runner.Serve(ctx) }()
	defer func() { stop(); <-ended }()
	if err := s.http.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Shutdown refuses new actions, waits for the running one, and closes the log.
func (s *Server) Shutdown(ctx context.Context) error {
	idle := s.engine.Close()
	select {
	case <-idle:
	case <-ctx.Done():
	}
	err := s.http.Shutdown(ctx)
	if err != nil {
		s.http.Close()
	}
	return errors.Join(err, s.engine.Log.Close())
}
