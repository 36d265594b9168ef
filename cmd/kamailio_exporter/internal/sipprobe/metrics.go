package sipprobe

import (
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/kamailio-exporter/kamailio_exporter/collector"
)

// Results are the outcomes of the probes of Kamailio's SIP sockets. As a
// prometheus.Gatherer they are the SIP part of the page.
type Results []Result

// Result is the outcome of one OPTIONS request. A field that is not known is zero, and
// its sample is omitted.
type Result struct {
	Target
	Err      error         // why there was no final reply
	Status   int           // of the final reply
	Duration time.Duration // until the final reply
	// TLS only. NotAfter is from the server's own certificate, and is set even if the
	// handshake failed later. VerifyErr is why the chain or the name is not trusted.
	NotAfter  time.Time
	VerifyErr error
}

var (
	sipSuccessDesc  = collector.NewDesc("kamailio_sip_probe_success", "1 if the SIP socket sent a final reply to OPTIONS in time, with any status code, else 0. The log reports why.", prometheus.GaugeValue, "the SIP socket", "transport", "address", "server_name")
	sipDurationDesc = collector.NewDesc("kamailio_sip_probe_duration_seconds", "Time until the final reply to OPTIONS, including the connection setup and the TLS handshake. Omitted without a reply.", prometheus.GaugeValue, "the SIP socket", "transport", "address", "server_name")
	sipStatusDesc   = collector.NewDesc("kamailio_sip_probe_status_code", "Status code of the final reply to OPTIONS, which Kamailio's script chooses. Omitted without a reply.", prometheus.GaugeValue, "the SIP socket", "transport", "address", "server_name")
	sipNotAfterDesc = collector.NewDesc("kamailio_sip_probe_tls_certificate_not_after_timestamp_seconds", "Unix time at which the TLS socket's own certificate expires. The rest of the chain is not considered.", prometheus.GaugeValue, "the TLS socket", "transport", "address", "server_name")
	sipVerifiedDesc = collector.NewDesc("kamailio_sip_probe_tls_verified", "1 if the certificate is signed by a trusted CA and has the expected name, else 0. The probe continues in both cases. The log reports why.", prometheus.GaugeValue, "the TLS socket", "transport", "address", "server_name")
)

// Gather returns the metrics of the probes.
func (p Results) Gather() ([]*dto.MetricFamily, error) {
	var g collector.Families
	for _, probe := range p {
		labels := []string{collector.LabelValue(probe.Transport), collector.LabelValue(probe.Address), collector.LabelValue(probe.ServerName)}
		g.Add(sipSuccessDesc, collector.Bool01(probe.Err == nil), labels...)
		if probe.Err == nil {
			g.Add(sipDurationDesc, probe.Duration.Seconds(), labels...)
			g.Add(sipStatusDesc, float64(probe.Status), labels...)
		}
		if !probe.NotAfter.IsZero() {
			g.Add(sipNotAfterDesc, float64(probe.NotAfter.Unix()), labels...)
			g.Add(sipVerifiedDesc, collector.Bool01(probe.VerifyErr == nil), labels...)
		}
	}
	families := g.Sorted()
	for _, f := range families {
		for _, m := range f.Metric {
			m.Label = slices.DeleteFunc(m.Label, func(l *dto.LabelPair) bool { return l.GetValue() == "" })
		}
	}
	return families, nil
}

// Descs returns the metrics of the SIP probes.
func Descs() []*collector.Desc {
	return []*collector.Desc{sipSuccessDesc, sipDurationDesc, sipStatusDesc, sipNotAfterDesc, sipVerifiedDesc}
}
