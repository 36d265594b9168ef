// kamailio_exporter serves the state of a Kamailio SIP server as Prometheus
// metrics.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/go-kit/log/level"
	"github.com/prometheus/common/config"
	"github.com/prometheus/common/version"
	"github.com/prometheus/exporter-toolkit/web"

	"github.com/kamailio-exporter/kamailio_exporter/collector"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
)

const programName = "kamailio_exporter"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: error: %s\n", programName, oneLine(err))
		os.Exit(exitCode(err))
	}
}

// oneLine is the error on one line: YAML errors come on several.
func oneLine(err error) string {
	return strings.Join(strings.Fields(err.Error()), " ")
}

// run serves until ctx is done, then finishes the scrapes under way. An error is
// the operator's to mend, and one line.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	if len(args) > 0 && args[0] == "admin" {
		return runAdminCommand(ctx, args[1:], stdout)
	}
	s, err := parseFlags(args, stdout)
	if err != nil || s == nil { // nil: --help or --version
		return err
	}
	logger, slogger := newLogger(stderr, s.log)
	adminConfig, err := s.adminConfig()
	if err != nil {
		return err
	}
	if s.admin.check || s.admin.printGrants {
		return s.inspectAdmin(adminConfig, stdout)
	}

	own := newOwnMetrics(!s.disableExporterMetrics)
	client, err := s.newClient(own.observe)
	if err != nil {
		return err
	}
	if err := web.Validate(*s.web.WebConfigFile); err != nil {
		return fmt.Errorf("--web.config.file: %w", err)
	}
	coordinator := collector.NewCoordinator(client, s.enabled(), collector.Limits{
		CallTimeout: s.callTimeout,
		Reuse:       s.reuse,
	})
	handler, err := newHandler(s, logger, slogger, coordinator, own, client.Ways())
	if err != nil {
		return err
	}
	adminServer, err := s.newAdmin(adminConfig, client, own, logger)
	if err != nil {
		return err
	}
	server := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 5 * time.Second, // a slow client must not hold a connection
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
	}
	_ = level.Info(logger).Log("msg", "starting", "version", version.Info(), "targets", strings.Join(client.Ways(), " "))

	ctx, stopAll := context.WithCancel(ctx)
	defer stopAll()
	adminStopped := make(chan error, 1)
	go func() {
		adminStopped <- serveAdmin(ctx, adminServer, logger)
		if adminServer != nil {
			stopAll() // half a service would look like a whole one
		}
	}()
	stopped := make(chan error, 1)
	go func() {
		<-ctx.Done()
		// Longer than any scrape may take.
		finish, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.scrapeTimeout+5*time.Second)
		defer cancel()
		stopped <- server.Shutdown(finish)
	}()
	err = web.ListenAndServe(server, s.web, slogger)
	if !errors.Is(err, http.ErrServerClosed) {
		stopAll()
		return errors.Join(listenError(err), <-adminStopped)
	}
	if err := <-adminStopped; err != nil {
		return fmt.Errorf("admin endpoint: %w", err)
	}
	if err := <-stopped; err != nil {
		return fmt.Errorf("stopping: %w", err)
	}
	_ = level.Info(logger).Log("msg", "stopped")
	return nil
}

func listenError(err error) error {
	if listen := (*net.OpError)(nil); errors.As(err, &listen) && errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("%w: choose another address with --web.listen-address", err)
	}
	return err
}

// newClient opens the ways to Kamailio that the flags name. Nothing is connected
// yet: Kamailio may be down.
func (s *settings) newClient(observe func(kamrpc.Observation)) (*kamrpc.Client, error) {
	ways, err := s.newWays()
	if err != nil {
		return nil, err
	}
	return kamrpc.NewClient(kamrpc.Config{
		Ways:          ways,
		MaxConcurrent: s.maxConcurrent,
		MaxReplyBytes: int64(s.maxReply),
		Observe:       observe,
	})
}

// newWays opens them, with connections of their own.
func (s *settings) newWays(options ...config.HTTPClientOption) ([]kamrpc.Transport, error) {
	httpClient, err := s.newHTTPClient(options...)
	if err != nil {
		return nil, err
	}
	var ways []kamrpc.Transport
	for _, uri := range s.uris {
		way, err := kamrpc.Open(uri, httpClient)
		if err != nil {
			return nil, fmt.Errorf("--kamailio.uri: %w", err)
		}
		ways = append(ways, way)
	}
	return ways, nil
}

// newHTTPClient makes the client for http:// and https:// from the operator's
// file. Kamailio drops idle connections after tcp_connection_lifetime (120 s by
// default); ours are given up well before, since Go does not repeat a POST.
func (s *settings) newHTTPClient(options ...config.HTTPClientOption) (*http.Client, error) {
	cfg := config.DefaultHTTPClientConfig
	if s.httpConfigFile != "" {
		loaded, _, err := config.LoadHTTPConfigFile(s.httpConfigFile)
		if err != nil {
			return nil, fmt.Errorf("--kamailio.http-config-file: %w", err)
		}
		cfg = *loaded
	}
	cfg.FollowRedirects = false
	client, err := config.NewClientFromConfig(cfg, programName,
		append(options, config.WithHTTP2Disabled(), config.WithIdleConnTimeout(30*time.Second))...)
	if err != nil {
		return nil, fmt.Errorf("--kamailio.http-config-file: %w", err)
	}
	if transport, ok := client.Transport.(*http.Transport); ok {
		transport.MaxResponseHeaderBytes = 64 << 10
	}
	return client, nil
}
