package rulestest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kamailio-exporter/kamailio_exporter/kamrpc/kamrpctest/kamailiotest"
)

// TestPrometheus has a real Prometheus evaluate all rules on the pages of recorded
// Kamailio servers. There must be no error such as a match of two series where only one
// can match.
func TestPrometheus(t *testing.T) {
	binary := kamailiotest.Needs(t, "prometheus", "prometheus")
	pages, err := filepath.Glob("../../../collector/testdata/*/metrics.prom")
	if err != nil || len(pages) == 0 {
		t.Fatalf("no pages: %v", err)
	}
	var targets []string
	for _, p := range pages {
		page := read(t, p)
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/plain; version=0.0.4")
			fmt.Fprint(w, page)
		}))
		t.Cleanup(server.Close)
		targets = append(targets, strings.TrimPrefix(server.URL, "http://"))
	}
	targets = append(targets, freeAddress(t)) // a target that is down

	dir := t.TempDir()
	var rules []string
	for _, f := range []string{alertFile, ruleFile} {
		path, err := filepath.Abs(f)
		if err != nil {
			t.Fatal(err)
		}
		rules = append(rules, path)
	}
	config, err := json.Marshal(map[string]any{ // JSON is YAML
		"global":     map[string]string{"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
		"rule_files": rules,
		"scrape_configs": []any{map[string]any{
			"job_name": "kamailio", "static_configs": []any{map[string]any{"targets": targets}},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "prometheus.yml")
	if err := os.WriteFile(file, config, 0o600); err != nil {
		t.Fatal(err)
	}
	address := freeAddress(t)
	start(t, address, binary, "--config.file="+file, "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+address)

	// This metric appears last, because it needs two samples of a counter.
	query := "http://" + address + "/api/v1/query?query=" + url.QueryEscape("instance_method:kamailio_core_requests_received:rate5m")
	eventually(t, func() bool { return strings.Contains(string(request(t, http.MethodGet, query, nil)), `"INVITE"`) },
		func() string { return "the recording rules have no values" })

	var answer struct {
		Data struct {
			Groups []struct {
				Name  string
				Rules []struct{ Name, Health, LastError, State string }
			}
		}
	}
	if err := json.Unmarshal(request(t, http.MethodGet, "http://"+address+"/api/v1/rules", nil), &answer); err != nil {
		t.Fatal(err)
	}
	evaluated, states := 0, map[string]string{}
	for _, g := range answer.Data.Groups {
		for _, r := range g.Rules {
			evaluated++
			states[r.Name] = r.State
			if r.Health != "ok" {
				t.Errorf("%s: %s %s", r.Name, r.Health, r.LastError)
			}
		}
	}
	if want := len(load(t, alertFile)) + len(load(t, ruleFile)); evaluated != want {
		t.Errorf("Prometheus has %d rules, not %d", evaluated, want)
	}
	if states["KamailioExporterDown"] != "pending" {
		t.Errorf("KamailioExporterDown is %s, though a target does not answer", states["KamailioExporterDown"])
	}
	t.Log(states)
}
