// Package serve runs the exporter's service from start to stop: the page of one
// Kamailio, the pages of many targets, and the admin endpoint.
//
// A request for /metrics takes this path:
//
//	page.ServeHTTP ─► page.serve ─► collector.Coordinator ─► kamrpc.Client ─► Kamailio
//	                    ├─► sipprobe.Prober                  ─► its SIP sockets
//	                    └─► xhttpprom.Reader                 ─► its script's page
package serve

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/go-kit/log"
	"github.com/go-kit/log/level"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/version"
	"github.com/prometheus/exporter-toolkit/web"
	"golang.org/x/sync/errgroup"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/admin"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/cli"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/fleet"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/idlepriority"
)

// Declare declares the serve command, which is the default one.
func Declare(app *kingpin.Application) cli.Run {
	s := &cli.Settings{}
	s.Declare(cli.NewCommand(app, "serve", "Serve the metrics, and the admin endpoint if it is configured (default).").Default())
	return func(ctx context.Context, _ string, stdout, stderr io.Writer) error {
		return run(ctx, s, stdout, stderr)
	}
}

// run serves until ctx is done, then finishes the scrapes in progress. Its error is one
// line that the operator can act on.
func run(ctx context.Context, s *cli.Settings, stdout, stderr io.Writer) error {
	if err := s.Complete(); err != nil {
		return err
	}
	adminConfig, err := s.AdminConfig()
	switch {
	case err != nil:
		return err
	case s.CheckAdmin || s.PrintGrants:
		return inspectAdmin(s, adminConfig, stdout)
	case s.CheckConfig:
		return checkConfig(s, stdout)
	}
	hangup := catchHangup()
	defer hangup.release()
	service, err := New(s, adminConfig, stderr)
	if err != nil {
		return err
	}
	return service.run(ctx, hangup)
}

// Service is the running exporter with all its parts.
type Service struct {
	settings *cli.Settings
	logger   log.Logger
	slogger  *slog.Logger
	own      *ownMetrics
	targets  *fleet.Fleet         // nil without --config.file
	admin    *admin.Server        // nil if it is off
	idle     *idlepriority.Keeper // nil: always at normal priority
	server   *http.Server
}

// New makes the service. It connects to nothing yet, since Kamailio may be down. If
// adminConfig is nil, there is no admin endpoint.
func New(s *cli.Settings, adminConfig *admin.Config, stderr io.Writer) (*Service, error) {
	v := &Service{settings: s, own: newOwnMetrics(!s.DisableExporterMetrics)}
	v.logger, v.slogger = newLogger(stderr, s.Log)
	one, err := v.newOnePage()
	if err != nil {
		return nil, err
	}
	if v.targets, err = v.newFleet(); err != nil {
		return nil, err
	}
	if err := web.Validate(*s.Web.WebConfigFile); err != nil {
		return nil, fmt.Errorf("--web.config.file: %w", err)
	}
	if v.admin, err = v.newAdmin(adminConfig, one); err != nil {
		return nil, err
	}
	if s.IdlePriority {
		v.newIdlePriority()
	}
	v.server = &http.Server{
		Handler:           v.newHandler(one),
		ReadHeaderTimeout: 5 * time.Second, // a slow client must not hold a connection
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
	}
	return v, nil
}

// Handler serves all paths except those of the admin endpoint.
func (v *Service) Handler() http.Handler { return v.server.Handler }

// OwnMetrics returns the metrics about the exporter itself.
func (v *Service) OwnMetrics() interface {
	prometheus.Gatherer
	Describe(ch chan<- *prometheus.Desc)
} {
	return v.own
}

// run starts all parts. When one part ends, or ctx is done, it stops the others: a
// service that runs in part would look healthy.
func (v *Service) run(ctx context.Context, hangup *hangup) error {
	s := v.settings
	_ = level.Info(v.logger).Log("msg", "starting", "version", version.Info(), "targets", strings.Join(s.Target.URIs, " "), "config_file", s.ConfigFile)
	if v.targets != nil && os.Getenv("GOMAXPROCS") == "" {
		runtime.SetDefaultGOMAXPROCS() // many servers can take more than the one processor that main sets
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	parts, ctx := errgroup.WithContext(ctx)
	if v.idle != nil {
		parts.Go(func() error { v.runIdle(ctx); return nil })
	}
	parts.Go(func() error { v.onHangup(ctx, hangup); return nil })
	if v.admin != nil {
		parts.Go(func() error { defer stop(); return v.serveAdmin(ctx) })
	}
	parts.Go(func() error { defer stop(); return v.serveWeb() })
	parts.Go(func() error { <-ctx.Done(); return v.stopWeb(context.WithoutCancel(ctx)) })
	if err := parts.Wait(); err != nil {
		return err
	}
	_ = level.Info(v.logger).Log("msg", "stopped")
	return nil
}

func (v *Service) serveWeb() error {
	err := web.ListenAndServe(v.server, v.settings.Web, v.slogger)
	listen := (*net.OpError)(nil)
	switch {
	case errors.Is(err, http.ErrServerClosed):
		return nil
	case errors.As(err, &listen) && errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("%w: choose another address with --web.listen-address", err)
	}
	return err
}

// stopWeb waits for the scrapes in progress, longer than any of them may take.
func (v *Service) stopWeb(ctx context.Context) error {
	longest := v.settings.Target.Limits.ScrapeTimeout
	if v.targets != nil {
		longest = max(longest, v.targets.LongestScrape())
	}
	ctx, cancel := context.WithTimeout(ctx, longest+5*time.Second)
	defer cancel()
	if err := v.server.Shutdown(ctx); err != nil {
		return fmt.Errorf("stopping: %w", err)
	}
	return nil
}
