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
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/go-kit/log"
	"github.com/go-kit/log/level"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/config"
	"github.com/prometheus/common/version"
	"github.com/prometheus/exporter-toolkit/web"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/fleet"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/giveway"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
)

const programName = "kamailio_exporter"

func main() {
	if build, ok := debug.ReadBuildInfo(); ok {
		completeVersion(build)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil {
		if text := oneLine(err); text != "" { // a report says it all
			fmt.Fprintf(os.Stderr, "%s: error: %s\n", programName, text)
		}
		os.Exit(exitCode(err))
	}
}

// completeVersion fills what the Makefile's linker flags fill from what the go
// command has put into the program: the version of the module, and the time of the
// commit. The revision is version's own to find.
func completeVersion(build *debug.BuildInfo) {
	if version.Version == "" {
		version.Version = strings.Trim(strings.TrimPrefix(build.Main.Version, "v"), "()") // (devel): no tag, no commit
	}
	for _, s := range build.Settings {
		if at, err := time.Parse(time.RFC3339, s.Value); s.Key == "vcs.time" && err == nil && version.BuildDate == "" {
			version.BuildDate = at.UTC().Format("20060102-15:04:05")
		}
	}
}

// oneLine is the error on one line: YAML errors come on several.
func oneLine(err error) string {
	return strings.Join(strings.Fields(err.Error()), " ")
}

// run serves until ctx is done, then finishes the scrapes under way. An error is
// the operator's to mend, and one line.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	if len(args) > 0 {
		switch command, args := args[0], args[1:]; command {
		case "admin":
			return runAdminCommand(ctx, args, stdout)
		case "assets":
			return runAssetsCommand(args, stdout)
		case "doctor":
			return runDoctorCommand(ctx, args, stdout)
		case "rpc":
			return runRPCCommand(ctx, args, stdout)
		}
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
	if s.fleet.check {
		return s.checkConfig(stdout)
	}

	defer surviveHangup(s, logger)()

	own := newOwnMetrics(!s.disableExporterMetrics)
	client, err := s.newOneClient(own.observe)
	if err != nil {
		return err
	}
	targets, err := s.newFleet(own, logger, slogger)
	if err != nil {
		return err
	}
	if err := web.Validate(*s.web.WebConfigFile); err != nil {
		return fmt.Errorf("--web.config.file: %w", err)
	}
	handler, err := newHandler(s, logger, slogger, client, own, targets)
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
	_ = level.Info(logger).Log("msg", "starting", "version", version.Info(), "targets", strings.Join(s.uris, " "), "config_file", s.fleet.configFile)

	ctx, stopAll := context.WithCancel(ctx)
	defer stopAll()
	if s.giveWay {
		giveWay(ctx, own, logger)
	}
	if targets != nil {
		targets.ReloadOnHangup(ctx)
	}
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
		longest := s.scrapeTimeout
		if targets != nil {
			longest = max(longest, targets.LongestScrape())
		}
		finish, cancel := context.WithTimeout(context.WithoutCancel(ctx), longest+5*time.Second)
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

const givesWayMetric = programName + "_gives_way"

// giveWay keeps the exporter out of Kamailio's way until ctx is done, where it may.
func giveWay(ctx context.Context, own *ownMetrics, logger log.Logger) {
	keeper, err := giveway.New()
	if err != nil {
		_ = level.Info(logger).Log("msg", "scrapes will not give way to Kamailio where both want a CPU", "err", err)
	} else {
		go func() {
			if err := keeper.Run(ctx); err != nil {
				_ = level.Error(logger).Log("msg", "giving way to Kamailio failed, and is not tried again", "err", err)
			}
		}()
	}
	own.add(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: givesWayMetric,
		Help: "Whether the exporter runs only while a CPU has nothing else to do (1), or takes its share (0): because it may not, or the host is busy.",
	}, func() float64 {
		if keeper != nil && keeper.Giving() {
			return 1
		}
		return 0
	}))
}

// surviveHangup lets SIGHUP (systemctl reload) not end the exporter: neither before
// those are ready that read their files anew at one, nor where there is no file.
func surviveHangup(s *settings, logger log.Logger) (stop func()) {
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	if s.fleet.configFile == "" && s.admin.configFile == "" {
		go func() {
			for range hangup {
				_ = level.Info(logger).Log("msg", "SIGHUP: there is no file to read anew, neither --config.file nor --admin.config.file")
			}
		}()
	}
	return func() {
		signal.Stop(hangup)
		close(hangup)
	}
}

func listenError(err error) error {
	if listen := (*net.OpError)(nil); errors.As(err, &listen) && errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("%w: choose another address with --web.listen-address", err)
	}
	return err
}

// newOneClient is the one for /metrics; nil where there is no Kamailio but those
// of --config.file.
func (s *settings) newOneClient(observe func(kamrpc.Observation)) (*kamrpc.Client, error) {
	if len(s.uris) == 0 {
		return nil, nil
	}
	return s.newClient(observe)
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
	dialer := s.dialer
	if dialer == nil {
		dialer = &net.Dialer{}
	}
	var ways []kamrpc.Transport
	for _, uri := range s.uris {
		way, err := kamrpc.OpenOver(uri, httpClient, dialer)
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
	if s.httpConfig != nil {
		cfg = *s.httpConfig
	}
	cfg.FollowRedirects = false
	options = append(options, config.WithHTTP2Disabled(), config.WithIdleConnTimeout(30*time.Second), config.WithSecretManager(fleet.Environment{}))
	if s.dialer != nil {
		options = append(options, config.WithDialContextFunc(s.dialer.DialContext))
	}
	client, err := config.NewClientFromConfig(cfg, programName, options...)
	if err != nil {
		return nil, fmt.Errorf("--kamailio.http-config-file: %w", err)
	}
	if transport, ok := client.Transport.(*http.Transport); ok {
		transport.MaxResponseHeaderBytes = 64 << 10
	}
	if s.opened != nil {
		s.opened(client)
	}
	return client, nil
}
