package admin

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kamailio-exporter/kamailio_exporter/kamrpc/kamrpctest/kamailiotest"
)

// The alerts use existing metrics, each alert has a runbook, and promtool accepts the
// file.
func TestAlerts(t *testing.T) {
	alerts := filepath.Join(root, "alerts")
	text, err := os.ReadFile(filepath.Join(alerts, "kamailio-admin-alerts.yml"))
	if err != nil {
		t.Fatal(err)
	}
	descs := make(chan *prometheus.Desc, 100)
	newEndpoint(t, policyText()).start(nil).server.Metrics().Describe(descs)
	close(descs)
	known := map[string]bool{}
	for d := range descs {
		known[regexp.MustCompile(`fqName: "([^"]+)"`).FindStringSubmatch(d.String())[1]] = true
	}
	tests, err := os.ReadFile(filepath.Join(alerts, "tests", "admin.test.yml"))
	if err != nil {
		t.Fatal(err)
	}
	names := regexp.MustCompile(`- alert: (\w+)`).FindAllStringSubmatch(string(text), -1)
	if len(names) < 5 {
		t.Fatalf("%d alerts", len(names))
	}
	for _, name := range names {
		runbook, err := os.ReadFile(filepath.Join(alerts, "runbooks", name[1]+".md"))
		if err != nil {
			t.Error(err)
		}
		if !strings.Contains(string(text), "/runbooks/"+name[1]+".md") || !strings.Contains(string(tests), name[1]) {
			t.Errorf("%s has no runbook_url, or no test", name[1])
		}
		text = append(text, runbook...)
	}
	for _, metric := range regexp.MustCompile(`kamailio_exporter_(?:admin|remediation)_[a-z_]+`).FindAllString(string(text), -1) {
		if !known[metric] {
			t.Errorf("there is no metric %s", metric)
		}
	}
	promtool := kamailiotest.Needs(t, "promtool", "prometheus")
	for _, args := range [][]string{
		{"check", "rules", filepath.Join(alerts, "kamailio-admin-alerts.yml")},
		{"test", "rules", filepath.Join(alerts, "tests", "admin.test.yml")},
	} {
		if out, err := exec.CommandContext(t.Context(), promtool, args...).CombinedOutput(); err != nil {
			t.Errorf("promtool %q: %v\n%s", args, err, out)
		}
	}
}
