package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"

	"github.com/go-kit/log"
	"github.com/go-kit/log/level"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/fleet"
	"github.com/kamailio-exporter/kamailio_exporter/collector"
)

// fleetFlags are the flags of the many targets.
type fleetFlags struct {
	configFile string
	check      bool
	lifecycle  bool
	target     string // of a command
}

func (s *settings) checkFleet() error {
	switch {
	case s.fleet.configFile != "" && (s.telemetryPath == "/probe" || s.telemetryPath == "/sd"):
		return fmt.Errorf("--web.telemetry-path %q is taken with --config.file: choose another", s.telemetryPath)
	case s.fleet.configFile != "" && len(s.uris) == 0 && (s.httpConfigFile != "" || s.pageURL != "" || len(s.sipTargets) > 0):
		return errors.New("--kamailio.http-config-file, --xhttp_prom.url and --sip.probe are for --kamailio.uri, which is not given: those of a target are in the file of --config.file")
	case s.fleet.configFile != "":
		return nil
	case s.fleet.check:
		return errors.New("--config.check needs --config.file")
	case s.fleet.lifecycle:
		return errors.New("--web.enable-lifecycle is for --config.file, which is what /-/reload reads")
	}
	return nil
}

// fleetBase is what the flags say for the targets of the file. What is named for
// one Kamailio (URI, credentials, SIP sockets, page) is for that one alone.
func (s *settings) fleetBase() fleet.Base {
	base := fleet.Base{
		Target: fleet.Target{
			Limits: fleet.Limits{
				ScrapeTimeout: s.scrapeTimeout, RPCTimeout: s.callTimeout,
				MaxConcurrentRPCs: s.maxConcurrent, MaxReplySize: s.maxReply,
			},
			Options: s.collectors,
			SIP:     fleet.SIP{Timeout: s.sipTimeout},
			Script:  fleet.Script{Timeout: s.pageTimeout, MaxSize: s.pageSize},
		},
		Enabled: collector.Names(s.enabled()),
		Offset:  s.timeoutOffset,
	}
	if s.admin.configFile != "" {
		base.Reserved, base.Why = s.uris, "is the admin endpoint's (--kamailio.uri): a read from here could meet a reload from there, so scrape it at "+s.telemetryPath
	}
	return base
}

// checkConfig does what --config.check asks for: a line for each problem.
func (s *settings) checkConfig(w io.Writer) error {
	cfg, err := fleet.Load(s.fleet.configFile, s.fleetBase())
	if err != nil {
		problems := strings.Split(err.Error(), "\n")
		for _, p := range problems {
			fmt.Fprintln(w, p)
		}
		return fmt.Errorf("--config.file: problems in %s: %d", s.fleet.configFile, len(problems))
	}
	fmt.Fprintf(w, "%s is good: targets: %d, modules: %d\n", s.fleet.configFile, len(cfg.Targets), len(cfg.Modules))
	return nil
}

// chosen are the settings that a command is about: these, or what the file of
// --config.file has for one target, with its collectors alone.
func (s *settings) chosen() (*settings, error) {
	name := s.fleet.target
	if name == "" && len(s.uris) > 0 {
		return s, nil
	}
	if s.fleet.configFile == "" {
		return nil, errors.New("--target is for --config.file, which has the targets")
	}
	cfg, err := fleet.Load(s.fleet.configFile, s.fleetBase())
	if err != nil {
		return nil, fmt.Errorf("--config.file: %w", err)
	}
	var names []string
	for _, t := range cfg.Targets {
		if t.Name == name {
			return s.forCommand(t, cfg.Modules[t.Module]), nil
		}
		names = append(names, t.Name)
	}
	const most = 20
	if more := len(names) - most; more > 0 {
		names = append(names[:most], fmt.Sprintf("%d more", more))
	}
	return nil, fmt.Errorf("--target must name a target of %s, not %q; there are: %s", s.fleet.configFile, name, strings.Join(names, ", "))
}

// forCommand is forTarget for one that asks at most what a module has.
func (s *settings) forCommand(t *fleet.Target, m fleet.Module) *settings {
	own := s.forTarget(t)
	own.switches = map[string]*bool{}
	for name := range s.switches {
		own.switches[name] = new(slices.Contains(m.Collectors, name))
	}
	if !m.SIP {
		own.sipTargets = nil
	}
	if !m.Script {
		own.pageURL = ""
	}
	return own
}

// newFleet is nil without --config.file.
func (s *settings) newFleet(own *ownMetrics, logger log.Logger, slogger *slog.Logger) (*fleet.Fleet, error) {
	if s.fleet.configFile == "" {
		return nil, nil
	}
	sets := &collectorSets{}
	f, err := fleet.New(fleet.Options{
		File: s.fleet.configFile, Base: s.fleetBase(), Logger: logger,
		Build: func(t *fleet.Target) (fleet.Page, error) {
			return s.forTarget(t).newTargetPage(own, sets, log.With(logger, "target", t.Name), slogger)
		},
	})
	if err != nil {
		return nil, fmt.Errorf("--config.file: %w", err)
	}
	own.add(f.Metrics())
	_ = level.Info(logger).Log("msg", "targets of the configuration file", "targets", len(f.Targets()))
	return f, nil
}

// forTarget is what the flags would be if there were no other Kamailio.
func (s *settings) forTarget(t *fleet.Target) *settings {
	own := *s
	own.uris, own.dialer = t.URIs, t.Dialer
	own.httpConfigFile, own.httpConfig = "", t.HTTP
	own.scrapeTimeout, own.callTimeout = t.Limits.ScrapeTimeout, t.Limits.RPCTimeout
	own.maxConcurrent, own.maxReply = t.Limits.MaxConcurrentRPCs, t.Limits.MaxReplySize
	own.collectors = t.Options
	own.pageURL, own.pageTimeout, own.pageSize = t.Script.URL, t.Script.Timeout, t.Script.MaxSize
	own.sipTargets, own.sipTimeout, own.sipURI = t.SIP.Probe, t.SIP.Timeout, t.SIP.RequestURI
	own.sipCAFile, own.sipServerName = t.SIP.CAFile, t.SIP.ServerName
	return &own
}

// targetPage is a fleet.Page.
type targetPage struct {
	*metricsHandler
	clients []*http.Client
}

func (s *settings) newTargetPage(own *ownMetrics, sets *collectorSets, logger log.Logger, slogger *slog.Logger) (*targetPage, error) {
	page := &targetPage{}
	s.opened = func(c *http.Client) { page.clients = append(page.clients, c) }
	client, err := s.newClient(own.observe)
	if err != nil {
		return nil, err
	}
	// All of them: which are asked is for the module to say.
	coordinator := collector.NewCoordinator(client, sets.of(s.collectors), collector.Limits{CallTimeout: s.callTimeout, Reuse: s.reuse})
	script, err := s.newScriptPage()
	if err != nil {
		return nil, err
	}
	sip, err := s.newSIPProbes()
	if err != nil {
		return nil, err
	}
	page.metricsHandler = newMetricsHandler(s, logger, slogger, coordinator, nil, script, sip)
	return page, nil
}

// collectorSets shares the collectors of targets with the same options: they know
// nothing of a target, and are some 200 KiB.
type collectorSets struct {
	mu   sync.Mutex
	sets map[string][]collector.Collector
}

// mostSets bounds what reloads with ever other options leave behind.
const mostSets = 50

func (c *collectorSets) of(o collector.Options) []collector.Collector {
	key := fmt.Sprintf("%#v", o)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sets[key] == nil {
		if c.sets == nil || len(c.sets) >= mostSets {
			c.sets = map[string][]collector.Collector{}
		}
		c.sets[key] = collector.All(o)
	}
	return c.sets[key]
}

// Serve is of fleet.Page.
func (p *targetPage) Serve(w http.ResponseWriter, r *http.Request, m fleet.Module) fleet.Outcome {
	return p.serve(w, r, m.Collectors, m.SIP, m.Script)
}

// Close is of fleet.Page. Only HTTP keeps connections.
func (p *targetPage) Close() {
	for _, c := range p.clients {
		c.CloseIdleConnections()
	}
}

// handleFleet adds what is served for the targets of the file.
func (s *settings) handleFleet(mux *http.ServeMux, f *fleet.Fleet) {
	mux.HandleFunc("GET /probe", f.Probe)
	mux.HandleFunc("GET /sd", f.Discover)
	reload := f.ReloadNow
	if !s.fleet.lifecycle {
		reload = func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "off: start with --web.enable-lifecycle, or send SIGHUP", http.StatusForbidden)
		}
	}
	mux.HandleFunc("POST /-/reload", reload)
}

// probeLink is where a target of the file is served.
func probeLink(t *fleet.Target) string {
	return "/probe?" + url.Values{"target": {t.Name}}.Encode()
}
