package sipprobe

import (
	"fmt"
	"slices"

	"github.com/prometheus/common/version"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/target"
)

// Of makes the prober of a Kamailio's SIP sockets. It returns nil if there is no socket
// to probe, and connects to nothing.
func Of(t target.Target) (*Prober, error) {
	if len(t.SIP.Probe) == 0 {
		return nil, nil
	}
	cfg := Config{RequestURI: t.SIP.RequestURI, UserAgent: "kamailio_exporter/" + version.Version, ServerName: t.SIP.ServerName}
	name := t.Name("sip.probe", "sip: probe")
	for _, text := range t.SIP.Probe {
		socket, err := ParseTarget(text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if slices.Contains(cfg.Targets, socket) {
			return nil, fmt.Errorf("%s: %s is given twice", name, socket)
		}
		cfg.Targets = append(cfg.Targets, socket)
	}
	var err error
	if cfg.Roots, err = t.Roots(); err != nil {
		return nil, err
	}
	prober, err := New(cfg)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", t.Name("sip.request-uri", "sip: request_uri"), err)
	}
	return prober, nil
}
