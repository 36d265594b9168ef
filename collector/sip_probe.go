package collector

import (
	"slices"
	"time"

	dto "github.com/prometheus/client_model/go"
)

// SIPProbes are what Kamailio's SIP sockets answered. As a prometheus.Gatherer
// they are their part of the page.
type SIPProbes []SIPProbe

// SIPProbe is the outcome of one OPTIONS request. What is not known is zero, and
// no sample.
type SIPProbe struct {
	Transport, Address string
	ServerName         string        // that was asked for; "" is the socket's own
	Err                error         // why there was no final answer
	Status             int           // of the final answer
	Duration           time.Duration // until the final answer
	// Of TLS: NotAfter is of the server's own certificate, also when the handshake
	// failed later; VerifyErr is why its chain or its name is not trusted.
	NotAfter  time.Time
	VerifyErr error
}

var (
	sipSuccessDesc  = NewDesc("kamailio_sip_probe_success", "1 when the SIP socket gave a final answer to OPTIONS, whatever its status code, 0 when it did not in time. The log tells why.", gauge, "the SIP socket", "transport", "address", "server_name")
	sipDurationDesc = NewDesc("kamailio_sip_probe_duration_seconds", "Time until the final answer to OPTIONS, with connecting and the TLS handshake. None without an answer.", gauge, "the SIP socket", "transport", "address", "server_name")
	sipStatusDesc   = NewDesc("kamailio_sip_probe_status_code", "Status code of the final answer to OPTIONS; what Kamailio's script answers to it is up to the script. None without an answer.", gauge, "the SIP socket", "transport", "address", "server_name")
	sipNotAfterDesc = NewDesc("kamailio_sip_probe_tls_certificate_not_after_timestamp_seconds", "Unix time at which the certificate that the TLS socket shows expires: its own, not those of the chain.", gauge, "the TLS socket", "transport", "address", "server_name")
	sipVerifiedDesc = NewDesc("kamailio_sip_probe_tls_verified", "1 when the certificate's chain leads to a trusted authority and its name is the expected one, else 0; the probe goes on. The log tells why.", gauge, "the TLS socket", "transport", "address", "server_name")
)

// Gather is the probes' part of the page.
func (p SIPProbes) Gather() ([]*dto.MetricFamily, error) {
	g := gathering{families: map[string]*family{}}
	for _, probe := range p {
		labels := []string{labelValue(probe.Transport), labelValue(probe.Address), labelValue(probe.ServerName)}
		g.add(sipSuccessDesc, bool01(probe.Err == nil), labels...)
		if probe.Err == nil {
			g.add(sipDurationDesc, probe.Duration.Seconds(), labels...)
			g.add(sipStatusDesc, float64(probe.Status), labels...)
		}
		if !probe.NotAfter.IsZero() {
			g.add(sipNotAfterDesc, float64(probe.NotAfter.Unix()), labels...)
			g.add(sipVerifiedDesc, bool01(probe.VerifyErr == nil), labels...)
		}
	}
	families := g.sorted()
	for _, f := range families {
		for _, m := range f.Metric {
			m.Label = slices.DeleteFunc(m.Label, func(l *dto.LabelPair) bool { return l.GetValue() == "" })
		}
	}
	return families, nil
}

// Socket is what was probed, as --sip.probe names it.
func (p SIPProbe) Socket() string {
	socket := p.Transport + ":" + p.Address
	if p.ServerName != "" {
		socket += "?server_name=" + p.ServerName
	}
	return socket
}

// SIPProbeDescs are the metrics of the SIP probes.
func SIPProbeDescs() []*Desc {
	return []*Desc{sipSuccessDesc, sipDurationDesc, sipStatusDesc, sipNotAfterDesc, sipVerifiedDesc}
}

// BesideDescs are the metrics of the page that no collector has: of the scrape
// itself, of a merged page and of the SIP probes.
func BesideDescs() []*Desc {
	return append(append(ScrapeDescs(), MergedDescs()...), SIPProbeDescs()...)
}
