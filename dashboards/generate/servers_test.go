package generate

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kamailio-exporter/kamailio_exporter/kamrpc/kamrpctest/kamailiotest"
)

// program runs a program until the test or this process ends. If the test fails, its
// output is printed.
func program(t *testing.T, path string, args ...string) (logFile string) {
	t.Helper()
	dir := t.TempDir()
	logFile = filepath.Join(dir, "log")
	out, err := os.Create(logFile)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait() // its log shows how it ended
		_ = out.Close()
		if t.Failed() {
			text, _ := os.ReadFile(logFile)
			t.Logf("%s:\n%s", filepath.Base(path), text[max(0, len(text)-4000):])
		}
	})
	return logFile
}

// anyLoopback returns a loopback address that hardly anyone else uses. Each SIPp takes two
// of 200 fixed ports for media, which too few can have on one address.
func anyLoopback() string {
	return fmt.Sprintf("127.%d.%d.%d", 1+rand.IntN(254), rand.IntN(256), 1+rand.IntN(254)) //nolint:gosec // need not be secret
}

// until calls so every half second until it returns true or the time is up.
func until(limit time.Duration, so func() bool) bool {
	deadline := time.Now().Add(limit)
	for !so() {
		if time.Now().After(deadline) {
			return false
		}
		<-time.After(500 * time.Millisecond)
	}
	return true
}

func buildExporter(t *testing.T) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "kamailio_exporter")
	cmd := exec.Command("go", "build", "-buildvcs=false", "-o", out, "./cmd/kamailio_exporter")
	cmd.Dir = "../.."
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, text)
	}
	return out
}

var listening = regexp.MustCompile(`address=(127\.0\.0\.1:\d+)`)

// runExporter returns the address at which an exporter serves the metrics of a server.
func runExporter(t *testing.T, path string, s *kamailiotest.Server) (address string) {
	t.Helper()
	return exporterAt(t, path,
		"--kamailio.uri=unix://"+s.SocketPath,
		"--kamailio.uri=fifo://"+s.FIFOPath+"?reply_dir="+s.FIFOReplyDir,
		"--kamailio.uri="+s.HTTPURL,
		"--sip.probe=udp:"+s.SIPAddr,
		"--sip.probe=tcp:"+s.SIPAddr,
		"--sip.probe=tls:"+s.TLSAddr,
		"--collector.dialog_profile.names=outbound")
}

// exporterAt starts an exporter with these flags and returns its address.
func exporterAt(t *testing.T, path string, flags ...string) (address string) {
	t.Helper()
	logFile := program(t, path, append([]string{"--web.listen-address=127.0.0.1:0"}, flags...)...)
	if !until(20*time.Second, func() bool {
		text, _ := os.ReadFile(logFile)
		if found := listening.FindSubmatch(text); found != nil {
			address = string(found[1])
		}
		return address != ""
	}) {
		t.Fatal("the exporter does not listen")
	}
	return address
}

// prometheusServer is a running Prometheus.
type prometheusServer struct {
	url    string
	client *http.Client
}

// runPrometheus runs a Prometheus that scrapes the exporters every second, and sends its
// alerts to the Alertmanagers.
func runPrometheus(t *testing.T, exporters, rules []string, alertmanagers ...string) *prometheusServer {
	t.Helper()
	config, err := json.Marshal(map[string]any{ // valid YAML too
		"global": map[string]any{"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
		"scrape_configs": []any{map[string]any{
			"job_name": "kamailio", "static_configs": []any{map[string]any{"targets": exporters}},
		}},
		"rule_files": rules,
		"alerting":   map[string]any{"alertmanagers": []any{map[string]any{"static_configs": []any{map[string]any{"targets": alertmanagers}}}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return prometheusWith(t, config)
}

func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

func prometheusWith(t *testing.T, config []byte) *prometheusServer {
	t.Helper()
	path := kamailiotest.Needs(t, "prometheus", "prometheus")
	dir := t.TempDir()
	configFile := filepath.Join(dir, "prometheus.yml")
	if err := os.WriteFile(configFile, config, 0o600); err != nil {
		t.Fatal(err)
	}
	address := freeAddress(t) // Prometheus does not report which port it took
	program(t, path, "--config.file="+configFile, "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+address)
	p := &prometheusServer{"http://" + address, &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{Proxy: nil}}}
	if !until(20*time.Second, func() bool {
		_, err := p.get(t.Context(), "/-/ready", nil)
		return err == nil
	}) {
		t.Fatal("Prometheus is not ready")
	}
	return p
}

func (p *prometheusServer) get(ctx context.Context, path string, params url.Values) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url+path+"?"+params.Encode(), nil)
	if err != nil {
		return nil, err
	}
	resp, err := p.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, text)
	}
	return text, err
}

type series struct {
	labels map[string]string
	value  float64
}

// query returns the current value of an expression.
func (p *prometheusServer) query(t *testing.T, expr string) []series {
	t.Helper()
	text, err := p.get(t.Context(), "/api/v1/query", url.Values{"query": {expr}})
	if err != nil {
		t.Fatalf("%s: %v", expr, err)
	}
	var answer struct {
		Data struct {
			Result []struct {
				Metric map[string]string
				Value  [2]any
			}
		}
	}
	if err := json.Unmarshal(text, &answer); err != nil {
		t.Fatalf("%s: %v in %s", expr, err, text)
	}
	var all []series
	for _, r := range answer.Data.Result {
		value, err := strconv.ParseFloat(fmt.Sprint(r.Value[1]), 64)
		if err != nil {
			t.Fatalf("%s: %v", expr, err)
		}
		all = append(all, series{r.Metric, value})
	}
	return all
}

// grafanaAt replaces Grafana's variables as Grafana does if one instance is selected.
func grafanaAt(instance string) *strings.Replacer {
	escaped := strings.ReplaceAll(regexp.QuoteMeta(instance), `\`, `\\`)
	return strings.NewReplacer("$__rate_interval", "15s", "$__range", "5m", "$cluster", ".*", "$job", "kamailio", "$instance", escaped)
}

// demoPorts makes the demo use free ports.
func demoPorts(t *testing.T) []string {
	t.Helper()
	first, release, err := kamailiotest.FreePorts()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(release)
	port := func(n int) string { return strconv.Itoa(first + n) }
	return []string{
		"KAM_SIP_PORT=" + port(0), "KAM_TLS_PORT=" + port(1), "KAM_RPC_PORT=" + port(2), "KAM_RPC_TCP_PORT=" + port(3),
		"KAM_GW_PORT=" + port(4), // to +8
		"KAM_CTL_PORT=" + port(16),
		"DEMO_LISTEN=127.0.0.1:" + port(13), "DEMO_PROMETHEUS=127.0.0.1:" + port(14), "DEMO_ALERTMANAGER=127.0.0.1:" + port(15),
		"DEMO_ADMIN=" + freeAddress(t),
	}
}
