package main

import (
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/prometheus/common/version"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/sipprobe"
	"github.com/kamailio-exporter/kamailio_exporter/collector"
)

// sipProbes are the SIP probes, made once for all scrapes at the same time.
type sipProbes = shared[collector.SIPProbes]

// newSIPProbes is nil when nothing is to be probed.
func (s *settings) newSIPProbes() (*sipProbes, error) {
	if len(s.sipTargets) == 0 {
		return nil, nil
	}
	cfg := sipprobe.Config{
		RequestURI: s.sipURI, UserAgent: programName + "/" + version.Version, ServerName: s.sipServerName,
	}
	for _, text := range s.sipTargets {
		target, err := sipprobe.ParseTarget(text)
		if err != nil {
			return nil, fmt.Errorf("--sip.probe: %w", err)
		}
		if slices.Contains(cfg.Targets, target) {
			return nil, fmt.Errorf("--sip.probe: %s is there twice", target)
		}
		cfg.Targets = append(cfg.Targets, target)
	}
	if s.sipCAFile != "" {
		text, err := os.ReadFile(s.sipCAFile) //nolint:gosec // the operator names it
		if err != nil {
			return nil, fmt.Errorf("--sip.tls-ca-file: %w", err)
		}
		cfg.Roots = x509.NewCertPool()
		if !cfg.Roots.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("--sip.tls-ca-file: there is no certificate in PEM format in %s", s.sipCAFile)
		}
	}
	prober, err := sipprobe.New(cfg)
	if err != nil {
		return nil, fmt.Errorf("--sip.request-uri: %w", err)
	}
	return &sipProbes{
		work: prober.Probe, timeout: s.sipTimeout, reuse: s.reuse,
		late: func(err error, _ time.Duration) collector.SIPProbes { return prober.Failed(err) },
	}, nil
}

// checkSIP refuses what without --sip.probe has no effect.
func (s *settings) checkSIP() error {
	switch {
	case len(s.sipTargets) == 0 && (s.sipURI != "" || s.sipCAFile != "" || s.sipServerName != ""):
		return errors.New("--sip.request-uri and --sip.tls-* need --sip.probe, which names the SIP sockets")
	}
	return nil
}
