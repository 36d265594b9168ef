package generate

import (
	"bytes"
	"crypto/sha256"
	"encoding/csv"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/kamailio-exporter/kamailio_exporter/kamrpc/kamrpctest/kamailiotest"
)

// These tests run the rules of examples/admin/repair on a real Kamailio, Prometheus and
// Alertmanager: from a fault to its automatic fix. Only the times are shortened.

const (
	hookToken = "kxe_" + "HOOK00000000000000000000000000000000000000000000000"
	callToken = "kxe_" + "ONCALL000000000000000000000000000000000000000000000"
)

// trunk is a gateway that answers OPTIONS, and answers INVITEs with 200 or rejects them.
type trunk struct {
	*kamailiotest.Gateway
	failing atomic.Bool
	slow    atomic.Bool // in its replies to OPTIONS
}

func newTrunk(t *testing.T) *trunk {
	t.Helper()
	g := &trunk{}
	g.Gateway = kamailiotest.NewGateway(t, func(method string) (string, time.Duration) {
		switch {
		case method == "INVITE" && g.failing.Load():
			return "503 Service Unavailable", 0
		case method == "OPTIONS" && g.slow.Load():
			return "200 OK", 1200 * time.Millisecond
		}
		return "200 OK", 0
	})
	return g
}

// repairs has all running parts.
type repairs struct {
	*kamailiotest.Server
	t          *testing.T
	gateways   []*trunk
	prometheus *prometheusServer
	exporter   string
	pid        int    // of the exporter
	config     string // of the admin endpoint
	url        string // of the admin endpoint
	alerts     string // of Alertmanager
	binary     string
}

func hashOf(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}

// replaced returns the content of a file with texts replaced, each of which must occur in
// it.
func replaced(t *testing.T, file string, pairs ...string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	out := string(text)
	for i := 0; i+1 < len(pairs); i += 2 {
		if !strings.Contains(out, pairs[i]) {
			t.Fatalf("%s has no %q", file, pairs[i])
		}
		out = strings.ReplaceAll(out, pairs[i], pairs[i+1])
	}
	return out
}

func written(t *testing.T, dir, name, text string) string {
	t.Helper()
	file := filepath.Join(dir, name)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

const repairFiles = "../../examples/admin/repair/"

func startRepairs(t *testing.T, version string) *repairs {
	t.Helper()
	s := kamailiotest.Start(t, kamailiotest.Config{Version: version, Traffic: true})
	r := &repairs{Server: s, t: t, binary: buildExporter(t)}
	var rows []string
	for range 3 {
		g := newTrunk(t)
		r.gateways = append(r.gateways, g)
		rows = append(rows, fmt.Sprintf("(4, '%s', 8, 0, '', '')", g.URI()))
	}
	r.sql("INSERT INTO dispatcher (setid, destination, flags, priority, attrs, description) VALUES " + strings.Join(rows, ", ") + ";")
	s.RPC(t, "dispatcher.reload")

	dir := t.TempDir()
	adminAddress, alertmanagerAddress := freeAddress(t), freeAddress(t)
	r.exporter, r.url, r.alerts = freeAddress(t), "http://"+adminAddress, "http://"+alertmanagerAddress
	token := written(t, dir, "token", hookToken+"\n")
	r.config = filepath.Join(dir, "admin.yml")
	r.configure(dir, adminAddress)
	logFile := filepath.Join(dir, "exporter.log")
	out, err := os.Create(logFile)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(r.binary, "--web.listen-address="+r.exporter, "--kamailio.uri="+s.HTTPURL, "--admin.config.file="+r.config,
		"--scrape.growing-interval=1s")
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r.pid = cmd.Process.Pid
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait() // its log shows how it ended
		if t.Failed() {
			text, _ := os.ReadFile(logFile)
			t.Logf("the exporter:\n%s", text[max(0, len(text)-6000):])
		}
	})

	// Alertmanager uses the example configuration, with local addresses and shorter
	// intervals.
	alertmanager := written(t, dir, "alertmanager.yml", replaced(t, repairFiles+"alertmanager.yml",
		"sbc1.example.net:9494", r.exporter, "127.0.0.1:9443", adminAddress, "/etc/alertmanager/kamailio-repair.token", token,
		"group_wait: 10s", "group_wait: 1s", "group_interval: 1m", "group_interval: 1s", "repeat_interval: 5m", "repeat_interval: 2s"))
	program(t, kamailiotest.Needs(t, "prometheus-alertmanager", "prometheus-alertmanager"), "--config.file="+alertmanager, "--storage.path="+filepath.Join(dir, "am"),
		"--cluster.listen-address=", "--web.listen-address="+alertmanagerAddress)
	rules := replaced(t, "../../alerts/kamailio-alerts.yml", `seconds="28800"`, `seconds="60"`)
	rules = regexp.MustCompile(`(?m)^( +(?:keep_firing_)?for): \S+`).ReplaceAllString(rules, "$1: 2s")
	rules = regexp.MustCompile(`(?s)- alert: KamailioTrunkFailsCalls\n.*?annotations:`).ReplaceAllStringFunc(rules, func(rule string) string {
		return regexp.MustCompile(`\[(3|15)m\]`).ReplaceAllString(rule, "[10s]")
	})
	r.prometheus = runPrometheus(t, []string{r.exporter}, []string{written(t, dir, "kamailio.yml", rules)}, alertmanagerAddress)
	return r
}

// configure writes the shipped configuration with the addresses of this test, and with
// short times. pairs are replaced too.
func (r *repairs) configure(dir, address string, pairs ...string) {
	r.t.Helper()
	text := replaced(r.t, repairFiles+"admin.yml", append([]string{
		"127.0.0.1:9443", address, "/var/lib/kamailio-exporter/audit.jsonl", filepath.Join(dir, "audit.jsonl"),
		"4f2a1d7be5c09a3386b7f0c6d1e2b3a49586777869504b3c2d1e0f1a2b3c4d5e", hashOf(hookToken),
		"9d1c3a6b2ef4a3d0f52b1e8a7c6c1f5e2d3b4a5968778695a4b3c2d1e0f9a8b7", hashOf(callToken),
		"sbc1.example.net:9494", r.exporter, "min_uptime: 60s", "min_uptime: 1s", "min_uptime: 5m", "min_uptime: 1s",
		"budget: 10/1h", "budget: 100/1h", "per_target: 1/30m, per_rule: 3/1h", "per_target: 1/15s, per_rule: 30/1h",
		"per_target: 1/1h, per_rule: 2/1h", "per_target: 1/15s, per_rule: 30/1h", "duration_seconds: 28800", "duration_seconds: 60",
	}, pairs...)...)
	if err := os.WriteFile(r.config, []byte(text), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

// enforce switches from the dry run to real actions, as an operator would.
func (r *repairs) enforce() {
	r.t.Helper()
	text := replaced(r.t, r.config, "mode: dry_run # dry_run, or enforce", "mode: enforce")
	if err := os.WriteFile(r.config, []byte(text), 0o600); err != nil {
		r.t.Fatal(err)
	}
	if err := syscall.Kill(r.pid, syscall.SIGHUP); err != nil {
		r.t.Fatal(err)
	}
	r.becomes("enforced", func() bool {
		return r.metric(`kamailio_exporter_remediation_enforced{rule="drain-failing-gateway"}`) == 1
	})
}

func (r *repairs) sql(statements string) {
	r.t.Helper()
	cmd := exec.Command("sqlite3", "-bail", "-cmd", ".timeout 5000", filepath.Join(r.Dir, "kamailio.sqlite"))
	cmd.Stdin = strings.NewReader(statements)
	if out, err := cmd.CombinedOutput(); err != nil {
		r.t.Fatalf("%v: %s", err, out)
	}
}

// metric returns the sum of an expression; 0 without data.
func (r *repairs) metric(expr string) float64 {
	r.t.Helper()
	sum := 0.0
	for _, s := range r.prometheus.query(r.t, expr) {
		sum += s.value
	}
	return sum
}

func (r *repairs) becomes(what string, so func() bool) {
	r.t.Helper()
	if !until(90*time.Second, so) {
		var said bytes.Buffer
		for _, s := range r.prometheus.query(r.t, `{__name__=~"ALERTS|kamailio_exporter_remediation_(actions|refused)_total|kamailio_trunk_(attempts|answered|refused)_total"} > 0`) {
			fmt.Fprintln(&said, s.labels, s.value)
		}
		r.t.Fatalf("not within 90 s: %s\n%s\n%s", what, said.String(), r.RPC(r.t, "dispatcher.list"))
	}
}

// flags returns the flags of the gateways of set 4, as Kamailio reports them.
func (r *repairs) flags() string {
	r.t.Helper()
	var list struct {
		Records []struct {
			Set struct {
				ID      int
				Targets []struct {
					Dest struct{ URI, Flags string }
				}
			}
		}
	}
	if err := json.Unmarshal(r.RPC(r.t, "dispatcher.list"), &list); err != nil {
		r.t.Fatal(err)
	}
	byURI := map[string]string{}
	for _, record := range list.Records {
		for _, target := range record.Set.Targets {
			if record.Set.ID == 4 {
				byURI[target.Dest.URI] = target.Dest.Flags
			}
		}
	}
	var flags []string
	for _, g := range r.gateways {
		flags = append(flags, byURI[g.URI()])
	}
	return strings.Join(flags, " ")
}

// did returns how often a step of a rule was taken, by outcome.
func (r *repairs) did(rule, step, outcome string) float64 {
	r.t.Helper()
	return r.metric(fmt.Sprintf(`kamailio_exporter_remediation_actions_total{rule=%q,step=%q,outcome=%q}`, rule, step, outcome))
}

// calls has SIPp make calls to set 4 continuously. The returned function returns the
// share of failures among the next calls that end.
func (r *repairs) calls() (failed func(of float64) float64) {
	r.t.Helper()
	dir := r.t.TempDir()
	numbers := written(r.t, dir, "numbers.csv", "SEQUENTIAL\n6001;example.com;test;\n")
	stats := filepath.Join(dir, "stats.csv")
	program(r.t, kamailiotest.Needs(r.t, "sipp", "sip-tester"), "-nostdin", "-skip_rlimit", "-i", "127.0.0.1", "-mi", anyLoopback(), "-sf", abs(r.t, "../../examples/demo/sipp/call-answered.xml"),
		"-inf", numbers, "-r", "20", "-d", "200", "-trace_stat", "-stf", stats, "-fd", "1s", r.SIPAddr)
	return func(of float64) float64 {
		r.t.Helper()
		goodBefore, badBefore := lastLine(stats)
		var good, bad float64
		r.becomes(fmt.Sprintf("%v calls have ended", of), func() bool {
			good, bad = lastLine(stats)
			good, bad = good-goodBefore, bad-badBefore
			return good+bad >= of
		})
		return bad / (good + bad)
	}
}

// lastLine reads the totals from SIPp's statistics.
func lastLine(file string) (good, bad float64) {
	text, _ := os.ReadFile(file) // may not exist yet
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	if len(lines) < 2 {
		return 0, 0
	}
	read := csv.NewReader(strings.NewReader(lines[0] + "\n" + lines[len(lines)-1]))
	read.Comma, read.FieldsPerRecord = ';', -1
	rows, err := read.ReadAll()
	if err != nil || len(rows) != 2 {
		return 0, 0
	}
	for i, name := range rows[0] {
		if i >= len(rows[1]) {
			break
		}
		n, _ := strconv.ParseFloat(rows[1][i], 64)
		switch name {
		case "SuccessfulCall(C)":
			good = n
		case "FailedCall(C)":
			bad = n
		}
	}
	return good, bad
}

func TestRepairs(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: starts real servers")
	}
	t.Parallel() // it mostly waits
	for _, version := range kamailiotest.Versions(t) {
		t.Run(version, func(t *testing.T) {
			t.Parallel() // it mostly waits
			repair(t, startRepairs(t, version))
		})
	}
}

func repair(t *testing.T, r *repairs) {
	failed := r.calls()
	third := r.gateways[2]
	if !until(30*time.Second, func() bool { return third.Invites.Load() > 5 }) {
		t.Fatalf("no calls: %s", r.RPC(t, "dispatcher.list"))
	}

	// Dry run: all faults occur at once, and each is reported.
	r.sql(fmt.Sprintf("UPDATE uacreg SET auth_proxy='sip:%s' WHERE l_uuid='trunk-dead';", r.SIPAddr)) // the carrier is back
	third.failing.Store(true)
	announce := func(n int) { // as a pipeline does
		out, err := exec.Command(kamailiotest.Needs(t, "amtool", "prometheus-alertmanager"), "--alertmanager.url="+r.alerts, "alert", "add", "KamailioDataChanged",
			"what=addresses", "instance="+r.exporter, fmt.Sprintf("run=%d", n)).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	r.sql("INSERT INTO address (grp, ip_addr, mask, port, tag) VALUES (9, '192.0.2.99', 32, 0, 'new');")
	announce(1)
	rules := []string{"drain-failing-gateway", "refresh-trunk", "end-stuck-calls", "load-addresses"}
	for _, rule := range rules {
		r.becomes("a dry run of "+rule, func() bool { return r.did(rule, "do", "dry_run") > 0 })
	}
	r.gateways[1].slow.Store(true)
	r.becomes("a dry run of drain-slow-gateway", func() bool { return r.did("drain-slow-gateway", "do", "dry_run") > 0 })
	r.gateways[1].slow.Store(false)
	if flags := r.flags(); flags != "AP AP AP" {
		t.Errorf("a dry run: %s", flags)
	}
	newAddress := func() bool { return strings.Contains(string(r.RPC(t, "permissions.addressDump")), "192.0.2.99") }
	registered := func() bool { return strings.Contains(string(r.RPC(t, "ul.dump", "brief")), "trunkd@example.com") }
	if newAddress() || registered() {
		t.Errorf("a dry run did something: address loaded %t, trunk registered %t", newAddress(), registered())
	}
	r.becomes("all stuck calls are there after a dry run", func() bool {
		return r.metric(`kamailio_dialog_dialogs_older_than{state="ongoing",seconds="60"}`) >= 5
	})
	if n := r.metric(`{__name__="kamailio_exporter_admin_requests_total",outcome=~"applied.*|failed|unknown"}`); n != 0 {
		t.Errorf("a dry run: %v actions", n)
	}
	r.becomes("a third of the calls fails", func() bool { share := failed(50); return share > 0.2 && share < 0.5 })

	// Enforce. Alerts that already fire are acted on as well.
	third.failing.Store(false)
	r.becomes("the gateways' alerts end", func() bool {
		return r.metric(`ALERTS{alertname=~"KamailioTrunkFailsCalls|KamailioDispatcherLatencyHigh"}`) == 0
	})
	r.enforce()
	third.failing.Store(true)
	r.becomes("the gateway is taken out", func() bool { return r.flags() == "AP AP DX" })
	failed(50) // skip calls that were in progress
	if share := failed(100); share != 0 {
		t.Errorf("%v of the calls fail", share)
	}
	// It still fails when it is tried again, and is disabled again.
	r.becomes("the gateway is tried again", func() bool { return r.did("drain-failing-gateway", "undo", "applied") >= 1 })
	r.becomes("the gateway is taken out again", func() bool { return r.did("drain-failing-gateway", "do", "applied") >= 2 && r.flags() == "AP AP DX" })
	// It recovers, and is enabled again automatically.
	third.failing.Store(false)
	before := third.Invites.Load()
	r.becomes("the gateway is back", func() bool { return r.flags() == "AP AP AP" && third.Invites.Load() > before+5 })
	if share := failed(100); share != 0 {
		t.Errorf("%v of the calls fail", share)
	}

	// Now a gateway is slow, also for OPTIONS.
	third.slow.Store(true)
	r.becomes("the slow gateway is taken out", func() bool { return r.flags() == "AP AP DX" && r.did("drain-slow-gateway", "do", "applied") >= 1 })
	third.slow.Store(false)
	r.becomes("the slow gateway is back", func() bool { return r.flags() == "AP AP AP" })

	// The other faults were fixed as soon as enforcement began, since their alerts were
	// still firing.
	announce(2)
	r.becomes("the addresses are loaded", newAddress)
	r.becomes("the trunk registers", registered)
	r.becomes("the calls are ended", func() bool { return r.did("end-stuck-calls", "do", "applied") >= 3 })
	r.becomes("the calls are gone", func() bool {
		return r.metric(`kamailio_dialog_dialogs_older_than{state="ongoing",seconds="60"}`) < 3
	})

	if n := r.metric(`kamailio_exporter_remediation_actions_total{outcome=~"failed|unknown"}`) + r.metric(`kamailio_exporter_remediation_breaker_open`); n != 0 {
		t.Errorf("%v failures, or open breakers", n)
	}
	// admin rules shows the result.
	cmd := exec.Command(r.binary, "admin", "rules", "--url="+r.url, "--token-file="+written(t, t.TempDir(), "token", callToken))
	text, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(text), "drain-failing-gateway (enforce)") {
		t.Errorf("%v: %s", err, text)
	}
	t.Logf("%s", text)
	if out, err := exec.Command(r.binary, "admin", "verify", filepath.Join(filepath.Dir(r.config), "audit.jsonl")).CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}
