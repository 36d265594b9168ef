package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"syscall"

	"github.com/go-kit/log"
	"github.com/go-kit/log/level"
	"github.com/prometheus/common/config"
	"github.com/prometheus/common/version"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/admin"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
)

// adminFlags are the flags of the admin endpoint.
type adminFlags struct {
	configFile  string
	check       bool
	printGrants bool
}

// adminConfig is nil while the endpoint is off: without a file, or with one that
// says so.
func (s *settings) adminConfig() (*admin.Config, error) {
	if s.admin.configFile == "" {
		if s.admin.check || s.admin.printGrants {
			return nil, errors.New("--admin.check and --admin.print-grants need --admin.config.file")
		}
		return nil, nil
	}
	cfg, err := admin.Load(s.admin.configFile)
	if err != nil {
		return nil, fmt.Errorf("--admin.config.file: %w", err)
	}
	if cfg != nil && len(s.uris) == 0 {
		return nil, errors.New("--admin.config.file needs --kamailio.uri beside --config.file: it is that Kamailio which the admin endpoint changes")
	}
	if cfg != nil {
		for _, address := range *s.web.WebListenAddresses {
			if sameAddress(address, cfg.Address()) {
				return nil, fmt.Errorf("--admin.config.file: listen: %s is the address of the metrics: choose another", cfg.Address())
			}
		}
	}
	return cfg, nil
}

// sameAddress tells whether one listener would take connections for the other.
func sameAddress(a, b string) bool {
	hostA, portA, errA := net.SplitHostPort(a)
	hostB, portB, errB := net.SplitHostPort(b)
	if errA != nil || errB != nil || portA != portB || portA == "0" {
		return false
	}
	every := func(host string) bool { return host == "" || host == "0.0.0.0" || host == "::" }
	return hostA == hostB || every(hostA) || every(hostB) || hostA == "localhost"
}

// inspectAdmin does what --admin.check and --admin.print-grants ask for.
func (s *settings) inspectAdmin(cfg *admin.Config, w io.Writer) error {
	switch {
	case cfg == nil:
		fmt.Fprintln(w, "the admin endpoint is off")
		return nil
	case s.admin.printGrants:
		return admin.PrintGrants(w, cfg)
	}
	fmt.Fprintf(w, "%s is good\n", s.admin.configFile)
	return nil
}

// newAdmin makes the endpoint. It asks the same Kamailio as the scrapes, over
// connections and with a slot of its own: neither waits for the other, but where a
// module is reloaded, which is not read meanwhile.
func (s *settings) newAdmin(cfg *admin.Config, client *kamrpc.Client, own *ownMetrics, logger log.Logger) (*admin.Server, error) {
	if cfg == nil {
		return nil, nil
	}
	// A kept connection that Kamailio has closed would leave the outcome unknown.
	ways, err := s.newWays(config.WithKeepAlivesDisabled())
	if err != nil {
		return nil, err
	}
	beside, err := client.Beside(kamrpc.Config{Ways: ways, MaxConcurrent: 1, MaxReplyBytes: min(int64(s.maxReply), admin.MaxReplyBytes), Observe: own.observe})
	if err != nil {
		return nil, err
	}
	server, err := admin.New(cfg, admin.Options{File: s.admin.configFile, Kamailio: beside, Logger: logger, Version: version.Version, Scraped: own.lastScrape})
	if err != nil {
		return nil, fmt.Errorf("--admin.config.file: %w", err)
	}
	own.add(server.Metrics())
	return server, nil
}

func stopAdmin(ctx context.Context, server *admin.Server) error {
	ctx, cancel := context.WithTimeout(ctx, admin.LongestAction)
	defer cancel()
	return server.Shutdown(ctx)
}

// serveAdmin serves until ctx is done, and the action under way has ended. SIGHUP
// reads the configuration anew.
func serveAdmin(ctx context.Context, server *admin.Server, logger log.Logger) error {
	if server == nil {
		return nil
	}
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	served := make(chan error, 1)
	go func() { served <- server.Serve(ctx) }()
	_ = level.Info(logger).Log("msg", "admin endpoint: listening", "address", server.Addr())
	for {
		select {
		case err := <-served:
			return errors.Join(err, stopAdmin(context.WithoutCancel(ctx), server))
		case <-hangup:
			if err := server.Reload(); err != nil {
				_ = level.Error(logger).Log("msg", "admin endpoint: the configuration was read anew and is not in force", "err", oneLine(err))
			} else {
				_ = level.Info(logger).Log("msg", "admin endpoint: the configuration was read anew")
			}
		case <-ctx.Done():
			return errors.Join(stopAdmin(context.WithoutCancel(ctx), server), <-served)
		}
	}
}
