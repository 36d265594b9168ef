package serve

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/go-kit/log/level"
	"github.com/prometheus/common/config"
	"github.com/prometheus/common/version"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/action"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/admin"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/cli"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
)

// inspectAdmin implements --admin.check and --admin.print-grants.
func inspectAdmin(s *cli.Settings, cfg *admin.Config, w io.Writer) error {
	switch {
	case cfg == nil:
		fmt.Fprintln(w, "the admin endpoint is off")
		return nil
	case s.PrintGrants:
		return admin.PrintGrants(w, cfg)
	}
	fmt.Fprintf(w, "%s is valid\n", s.AdminConfigFile)
	return nil
}

// newAdmin makes the admin endpoint. It queries the same Kamailio as the scrapes, but
// with its own connections and its own slot, so that neither waits for the other. The
// exception is the reload of a module: that module is not read while the reload runs.
func (v *Service) newAdmin(cfg *admin.Config, one *page) (*admin.Server, error) {
	if cfg == nil {
		return nil, nil
	}
	t := v.settings.Target
	// If Kamailio closes a kept-alive connection, the outcome of the action is unknown.
	dialer := &net.Dialer{}
	httpClient, err := t.HTTPClient(dialer.DialContext, config.WithKeepAlivesDisabled())
	if err != nil {
		return nil, err
	}
	transports, err := t.Transports(httpClient, dialer)
	if err != nil {
		return nil, err
	}
	beside, err := one.client.Sibling(kamrpc.Config{Transports: transports, MaxConcurrent: 1, MaxReplyBytes: min(int64(t.Limits.MaxReplySize), action.MaxReplyBytes), Observe: v.own.observe})
	if err != nil {
		return nil, err
	}
	server, err := admin.New(cfg, admin.Options{File: v.settings.AdminConfigFile, Kamailio: beside, Logger: v.logger, Version: version.Version, Scraped: v.own.lastScrape})
	if err != nil {
		return nil, fmt.Errorf("--admin.config.file: %w", err)
	}
	v.own.add(server.Metrics())
	return server, nil
}

// serveAdmin serves until ctx is done and the action in progress has ended.
func (v *Service) serveAdmin(ctx context.Context) error {
	_ = level.Info(v.logger).Log("msg", "admin endpoint: listening", "address", v.admin.Addr())
	served := make(chan error, 1)
	go func() { served <- v.admin.Serve(ctx) }()
	var err error
	select {
	case err = <-served:
		served <- nil
	case <-ctx.Done():
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), action.LongestAction)
	defer cancel()
	if err = errors.Join(err, v.admin.Shutdown(last), <-served); err != nil {
		return fmt.Errorf("admin endpoint: %w", err)
	}
	return nil
}
