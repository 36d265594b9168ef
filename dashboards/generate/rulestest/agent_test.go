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

	"go.yaml.in/yaml/v2"

	"github.com/kamailio-exporter/kamailio_exporter/kamrpc/kamrpctest/kamailiotest"
)

// TestAgent runs a real Prometheus in agent mode with the configuration in
// examples/agent. It sends its samples to another Prometheus by remote write, as it would
// to Mimir or Thanos. That one evaluates all rules unchanged, for two sites.
func TestAgent(t *testing.T) {
	binary := kamailiotest.Needs(t, "prometheus", "prometheus")
	pages, err := filepath.Glob("../../../collector/testdata/*/metrics.prom")
	if err != nil || len(pages) == 0 {
		t.Fatalf("no pages: %v", err)
	}
	page := read(t, pages[0])
	exporter := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4")
		fmt.Fprint(w, page)
	}))
	t.Cleanup(exporter.Close)

	// The engine evaluates the rules and scrapes nothing.
	dir := t.TempDir()
	var rules []string
	total := 0
	for _, f := range ruleFiles(t) {
		path, err := filepath.Abs(f)
		if err != nil {
			t.Fatal(err)
		}
		rules = append(rules, path)
		total += len(load(t, f))
	}
	engine := freeAddress(t)
	start(t, engine, binary, "--config.file="+configFile(t, dir, "engine.yml", map[string]any{
		"global":     map[string]string{"evaluation_interval": "1s"},
		"rule_files": rules,
	}), "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+engine, "--web.enable-remote-write-receiver")

	for _, cluster := range []string{"fra", "ber"} {
		var config map[string]any
		unmarshal(t, "../../../examples/agent/prometheus.yml", &config)
		targets := []string{strings.TrimPrefix(exporter.URL, "http://"), freeAddress(t)} // the second one is down
		set(t, config, "1s", "global", "scrape_interval")
		set(t, config, "1s", "global", "scrape_timeout")
		set(t, config, cluster, "global", "external_labels", "cluster")
		set(t, config, targets, "scrape_configs", 0, "static_configs", 0, "targets")
		set(t, config, "http://"+engine+"/api/v1/write", "remote_write", 0, "url")
		set(t, config, map[string]string{"username": "fra", "password": "of no use here"}, "remote_write", 0, "basic_auth")
		agent := freeAddress(t)
		start(t, agent, binary, "--enable-feature=agent", "--config.file="+configFile(t, dir, cluster+".yml", config),
			"--storage.agent.path="+filepath.Join(dir, cluster), "--web.listen-address="+agent)
	}

	query := func(expr string) string {
		return string(request(t, http.MethodGet, "http://"+engine+"/api/v1/query?query="+url.QueryEscape(expr), nil))
	}
	for expr, want := range map[string][]string{
		`instance_method:kamailio_core_requests_received:rate5m{method="INVITE"}`: {`"cluster":"ber"`, `"cluster":"fra"`, `"job":"kamailio"`, `"instance":"` + strings.TrimPrefix(exporter.URL, "http://")},
		`job:kamailio_call_attempts:rate5m`:                                       {`"cluster":"ber"`, `"cluster":"fra"`},
		`ALERTS{alertname="KamailioExporterDown"}`:                                {`"cluster":"ber"`, `"cluster":"fra"`, `"alertstate":"pending"`},
		`count by (cluster) ({__name__=~"kamailio_.+"})`:                          {`"cluster":"ber"`, `"cluster":"fra"`},
	} {
		var answer string
		eventually(t, func() bool {
			answer = query(expr)
			for _, w := range want {
				if !strings.Contains(answer, w) {
					return false
				}
			}
			return true
		}, func() string { return fmt.Sprintf("%s is %s, without all of %q", expr, answer, want) })
	}

	var answer struct {
		Data struct {
			Groups []struct {
				Rules []struct{ Name, Health, LastError string }
			}
		}
	}
	if err := json.Unmarshal(request(t, http.MethodGet, "http://"+engine+"/api/v1/rules", nil), &answer); err != nil {
		t.Fatal(err)
	}
	for _, g := range answer.Data.Groups {
		for _, r := range g.Rules {
			total--
			if r.Health != "ok" {
				t.Errorf("%s: %s %s", r.Name, r.Health, r.LastError)
			}
		}
	}
	if total != 0 {
		t.Errorf("%d rules are missing", total)
	}
}

func configFile(t *testing.T, dir, name string, config any) string {
	t.Helper()
	text, err := yaml.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// set changes a value in decoded YAML. Only the last element of the path may be missing.
func set(t *testing.T, in any, value any, path ...any) {
	t.Helper()
	for i, step := range path {
		last := i == len(path)-1
		switch at := in.(type) {
		case map[string]any:
			if last {
				at[step.(string)] = value
			}
			in = at[fmt.Sprint(step)]
		case map[any]any:
			if last {
				at[step] = value
			}
			in = at[step]
		case []any:
			if n, ok := step.(int); ok && n < len(at) {
				in = at[n]
				continue
			}
			t.Fatalf("%v is not there", path[:i+1])
		default:
			t.Fatalf("%v is not there", path[:i])
		}
	}
}
