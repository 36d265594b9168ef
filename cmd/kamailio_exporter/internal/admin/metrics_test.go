package admin

import (
	"fmt"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/adminapi"
)

func gatherSeries(t testing.TB, c prometheus.Collector) map[string]float64 {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(c)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	series := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
			}
			name := f.GetName()
			if len(labels) > 0 {
				name += "{" + strings.Join(labels, ",") + "}"
			}
			series[name] = m.GetGauge().GetValue() + m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return series
}

func TestMetrics(t *testing.T) {
	b := newEndpoint(t, strings.Replace(policyText(), "tokens: [{sha256: "+adminapi.HashToken(botToken)+"}]", "tokens: [{sha256: "+adminapi.HashToken(botToken)+", expires: 2099-12-31}]", 1)).start(nil)
	b.run(nocToken, "dispatcher.reload", `{}`)
	b.run(nocToken, "dispatcher.reload", `{}`)
	b.call("", "GET", "/v1/actions", "")
	b.run(nocToken, "core.kill", `{}`)
	got := gather(t, b.server)
	for series, want := range map[string]float64{
		`kamailio_exporter_admin_requests_total{action="dispatcher.reload",outcome="applied",user="noc"}`: 1,
		`kamailio_exporter_admin_requests_total{action="dispatcher.reload",outcome="refused",user="noc"}`: 1,
		`kamailio_exporter_admin_denied_total{reason="unauthenticated"}`:                                  1,
		`kamailio_exporter_admin_denied_total{reason="not-found"}`:                                        1,
		`kamailio_exporter_admin_denied_total{reason="busy"}`:                                             1,
		`kamailio_exporter_admin_duration_seconds{action="dispatcher.reload"}`:                            1,
		`kamailio_exporter_admin_busy`:                                                                    0,
		`kamailio_exporter_admin_audit_errors_total`:                                                      0,
		`kamailio_exporter_admin_config_last_reload_successful`:                                           1,
		`kamailio_exporter_admin_token_expiry_timestamp_seconds{user="bot"}`:                              4102444800,
	} {
		if value, ok := got[series]; !ok || value != want {
			t.Errorf("%s is %v (%t), want %v", series, value, ok, want)
		}
	}
	for series := range got {
		if strings.Contains(series, "core.kill") {
			t.Errorf("a client made %s", series)
		}
	}
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(b.server.Metrics())
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	if problems, err := promlint.NewWithMetricFamilies(families).Lint(); err != nil || len(problems) > 0 {
		t.Error(problems, err)
	}
}
