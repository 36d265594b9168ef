package fleet

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"

	"github.com/alecthomas/units"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/conf"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/sipprobe"
)

// What is asked beside RPCs: the SIP sockets and the page of xhttp_prom.

func (c *checker) sip(where string, to *SIP, s sipSpec) {
	to.Probe, to.RequestURI, to.CAFile, to.ServerName = s.Probe, s.RequestURI, s.CAFile, s.ServerName
	set(&to.Timeout, s.Timeout)
	if len(s.Probe) == 0 && (s.Timeout != nil || s.RequestURI != "" || s.CAFile != "" || s.ServerName != "") {
		c.addf(where, "no probe: it names the SIP sockets, such as probe: [udp:192.0.2.10:5060]")
	}
	if err := conf.Timeout(to.Timeout); err != nil {
		c.addf(where, "timeout %w", err)
	}
	cfg := sipprobe.Config{RequestURI: s.RequestURI}
	for _, text := range s.Probe {
		socket, err := sipprobe.ParseTarget(text)
		switch {
		case err != nil:
			c.add(where+": probe", err)
		case slices.Contains(cfg.Targets, socket):
			c.addf(where, "probe: %s is there twice", socket)
		default:
			cfg.Targets = append(cfg.Targets, socket)
		}
	}
	if len(cfg.Targets) > 0 {
		_, err := sipprobe.New(cfg)
		c.add(where+": request_uri", err)
	}
	if to.CAFile == "" {
		return
	}
	if !filepath.IsAbs(to.CAFile) {
		to.CAFile = filepath.Join(c.dir, to.CAFile)
	}
	var err error
	if to.ca, err = os.ReadFile(to.CAFile); err != nil {
		c.add(where+": tls_ca_file", err)
	} else if !x509.NewCertPool().AppendCertsFromPEM(to.ca) {
		c.addf(where, "tls_ca_file: there is no certificate in PEM format in %s", to.CAFile)
	}
}

func (c *checker) script(where string, to *Script, s scriptSpec) {
	to.URL = s.URL
	set(&to.Timeout, s.Timeout)
	set(&to.MaxSize, s.MaxSize)
	if s.URL == "" {
		if s.Timeout != nil || s.MaxSize != nil {
			c.addf(where, "no url: it names the page, such as url: http://192.0.2.10:5060/metrics")
		}
		return
	}
	c.add(where, checkPage(s.URL))
	if err := conf.Timeout(to.Timeout); err != nil {
		c.addf(where, "timeout %w", err)
	}
	if err := conf.Size(to.MaxSize, units.KiB); err != nil {
		c.addf(where, "max_size %w", err)
	}
}

func checkPage(text string) error {
	u, err := url.Parse(text)
	switch {
	case err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "":
		return errors.New("url must be the address of Kamailio's page, such as http://192.0.2.10:5060/metrics")
	case u.User != nil:
		return fmt.Errorf("url: no user or password in it: give them in http_config")
	}
	return nil
}
