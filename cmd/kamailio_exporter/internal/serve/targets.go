package serve

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"

	"github.com/go-kit/log"
	"github.com/go-kit/log/level"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/cli"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/fleet"
	"github.com/kamailio-exporter/kamailio_exporter/collector"
)

// checkConfig implements --config.check: it prints one line for each problem.
func checkConfig(s *cli.Settings, w io.Writer) error {
	cfg, err := fleet.Load(s.ConfigFile, s.FleetBase())
	if err != nil {
		problems := strings.Split(err.Error(), "\n")
		for _, p := range problems {
			fmt.Fprintln(w, p)
		}
		return fmt.Errorf("--config.file: problems in %s: %d", s.ConfigFile, len(problems))
	}
	fmt.Fprintf(w, "%s is valid: targets: %d, modules: %d\n", s.ConfigFile, len(cfg.Targets), len(cfg.Modules))
	return nil
}

// newFleet returns nil without --config.file.
func (v *Service) newFleet() (*fleet.Fleet, error) {
	if v.settings.ConfigFile == "" {
		return nil, nil
	}
	sets := &collectorSets{}
	f, err := fleet.New(fleet.Options{
		File: v.settings.ConfigFile, Base: v.settings.FleetBase(), Logger: v.logger,
		Build: func(t *fleet.Target, dialer *net.Dialer) (fleet.Page, error) {
			// All collectors: the module decides which of them a probe uses.
			return newPage(t.Target, sets.of(t.CollectorOptions()), dialer, v.own.observe, log.With(v.logger, "target", t.Name), v.slogger)
		},
	})
	if err != nil {
		return nil, fmt.Errorf("--config.file: %w", err)
	}
	v.own.add(f.Metrics())
	_ = level.Info(v.logger).Log("msg", "configuration loaded", "targets", len(f.Targets()))
	return f, nil
}

// collectorSets shares the collectors of targets with the same options. They hold no
// state of a target, and take about 200 KiB.
type collectorSets struct {
	mu   sync.Mutex
	sets map[string][]collector.Collector
}

// mostSets bounds the sets that remain after reloads with different options.
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

// handleTargets adds the paths for the targets of --config.file.
func (v *Service) handleTargets(mux *http.ServeMux) {
	mux.HandleFunc("GET /probe", v.targets.Probe)
	mux.HandleFunc("GET /sd", v.targets.Discover)
	reload := v.targets.ReloadNow
	if !v.settings.Lifecycle {
		reload = func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "disabled: start the exporter with --web.enable-lifecycle, or send SIGHUP", http.StatusForbidden)
		}
	}
	mux.HandleFunc("POST /-/reload", reload)
}
