package generate

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/kamailio-exporter/kamailio_exporter/kamrpc/kamrpctest/kamailiotest"
)

// TestTargetsAreDiscovered runs a real Prometheus with the configuration in
// docs/multi-target.md. It must find the targets of an exporter, each as an instance with
// its labels.
func TestTargetsAreDiscovered(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: starts real servers")
	}
	versions := kamailiotest.Versions(t)
	kamailiotest.Needs(t, "prometheus", "prometheus")
	file := "targets:\n  dead: {uris: ['tcp://127.0.0.1:1'], labels: {site: ber}}\n"
	for _, version := range versions {
		server := kamailiotest.Start(t, kamailiotest.Config{Version: version})
		file += fmt.Sprintf("  kamailio-%s: {uris: [%q], labels: {site: fra}}\n", version, server.HTTPURL)
	}
	fleet := filepath.Join(t.TempDir(), "fleet.yml")
	if err := os.WriteFile(fleet, []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	address := exporterAt(t, buildExporter(t), "--config.file="+fleet)

	page, err := os.ReadFile(filepath.Join("..", "..", "docs/multi-target.md"))
	if err != nil {
		t.Fatal(err)
	}
	shown := regexp.MustCompile("(?s)```yaml\n( *scrape_configs:.*?)```").FindSubmatch(page)
	if shown == nil {
		t.Fatal("docs/multi-target.md shows no scrape_configs")
	}
	config := regexp.MustCompile(`(?m)^   `).ReplaceAllString(string(shown[1]), "")
	config = "global: {scrape_interval: 1s, scrape_timeout: 1s}\n" + strings.ReplaceAll(config, "exporter.example.com:9494", address)
	prometheus := prometheusWith(t, []byte(config))

	want := map[string]string{"dead": "ber 0"}
	for _, version := range versions {
		want["kamailio-"+version] = "fra 1"
	}
	got := map[string]string{}
	if !until(30*time.Second, func() bool {
		clear(got)
		for _, s := range prometheus.query(t, `kamailio_up{job="kamailio"}`) {
			got[s.labels["instance"]] = fmt.Sprint(s.labels["site"], " ", s.value)
		}
		return fmt.Sprint(got) == fmt.Sprint(want)
	}) {
		t.Errorf("found %v, want %v", got, want)
	}
	if !until(10*time.Second, func() bool {
		return len(prometheus.query(t, `kamailio_exporter_targets{job="kamailio-exporter", from="file"} == `+fmt.Sprint(len(want)))) == 1
	}) {
		t.Error("the exporter's own metrics are not there")
	}
}
