package generate

import (
	"bufio"
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.yaml.in/yaml/v2"

	"github.com/kamailio-exporter/kamailio_exporter/kamrpc/kamrpctest/kamailiotest"
)

// proxyHeader begins the configuration of a proxy for calls.
const proxyHeader = `#!KAMAILIO
debug=0
log_stderror=yes
children=4
auto_aliases=no
dns=no
loadmodule "jsonrpcs.so"
loadmodule "kex.so"
loadmodule "tm.so"
loadmodule "tmx.so"
loadmodule "sl.so"
loadmodule "rr.so"
loadmodule "pv.so"
loadmodule "textops.so"
loadmodule "siputils.so"
loadmodule "dialog.so"
modparam("rr", "enable_full_lr", 0)

# Requests of a call that has begun.
route[OF_CALL] {
	if (is_method("CANCEL")) {
		if (t_check_trans()) t_relay();
		exit;
	}
	if (has_totag()) {
		if (loose_route() || (is_method("ACK") && t_check_trans())) t_relay();
		exit;
	}
}
`

// refusing is a proxy that handles a call as the called user says: it relays it to a
// gateway (at the sixth port and above), or rejects it itself, before or after
// dlg_manage(), with a transaction (t) or without (s).
const refusing = proxyHeader + `
tcp_children=1
modparam("tm", "failure_reply_mode", 3)

request_route {
	route(OF_CALL);
	if (!is_method("INVITE")) exit;

	if ($rU == "challenged" && !is_present_hf("Proxy-Authorization")) {
		sl_send_reply("407", "Proxy Authentication Required");
		exit;
	}
	if ($rU =~ "^before-t") t_newtran();
	if ($rU =~ "^before") {
		send_reply("$(rU{s.select,2,-}{s.int})", "Refused");
		exit;
	}
	if ($rU =~ "^first-t") t_newtran();
	dlg_manage();
	if ($rU =~ "^after-t") t_newtran();
	if ($rU =~ "^(first|after)") {
		send_reply("$(rU{s.select,2,-}{s.int})", "Refused");
		exit;
	}

	record_route();
	$var(gateway) = $Rp + 5;
	if ($rU == "busy") $var(gateway) = $Rp + 6;
	if ($rU =~ "^(fails|failover)$") $var(gateway) = $Rp + 7;
	if ($rU == "rings") $var(gateway) = $Rp + 8;
	if ($rU == "failover") t_on_failure("NEXT");
	$du = "sip:127.0.0.1:" + $var(gateway);
	t_relay();
}

failure_route[NEXT] {
	if (t_is_canceled()) exit;
	$var(gateway) = $Rp + 5;
	$du = "sip:127.0.0.1:" + $var(gateway);
	t_relay();
}
`

// kindOfCall is a kind of call, whose outcome SIPp counts.
type kindOfCall struct {
	called   string // the called user
	scenario string
	answered bool // the first 200 is for the INVITE
	unseen   bool // rejected before dlg_manage()
}

var kindsOfCall = []kindOfCall{
	{called: "answered", scenario: "call-answered", answered: true},
	{called: "busy", scenario: "call-refused"},
	{called: "fails", scenario: "call-refused"},
	{called: "rings", scenario: "call-abandoned"},
	{called: "failover", scenario: "call-answered", answered: true},
	{called: "challenged", scenario: "call-challenged", answered: true},
	{called: "refreshed", scenario: "call-reinvite", answered: true},
	{called: "unacked", scenario: "call-unacked", answered: true},
	{called: "before-s-404", scenario: "call-refused", unseen: true},
	{called: "before-s-503", scenario: "call-refused", unseen: true},
	{called: "before-t-503", scenario: "call-refused", unseen: true},
	{called: "first-t-404", scenario: "call-refused"},
	{called: "after-s-404", scenario: "call-refused"},
	{called: "after-s-503", scenario: "call-refused"},
	{called: "after-t-404", scenario: "call-refused"},
	{called: "after-t-503", scenario: "call-refused"},
}

const callsOfEach = 10

// tally has SIPp's counts, and the increase of Kamailio's counters.
type tally struct {
	attempts          float64 // calls that dlg_manage() saw
	answered, reached float64 // among all calls
	growth            map[string]float64
}

// together is a mix of calls: the kinds, each this many times.
func together(tallies map[string]tally, mix map[string]float64) tally {
	sum := tally{growth: map[string]float64{}}
	for kind, times := range mix {
		one, ok := tallies[kind]
		if !ok {
			panic(kind + " was not called")
		}
		sum.attempts += times * one.attempts
		sum.answered += times * one.answered
		sum.reached += times * one.reached
		for series, n := range one.growth {
			sum.growth[series] += times * n
		}
	}
	return sum
}

// value is the expected value of an expression on a server whose counters increase like
// this in each minute.
type value struct {
	name, expr string
	want       float64 // NaN: no value expected
}

// TestRatiosAreTrue checks that SER, SEER and answered calls of the rules, dashboards and
// alerts match SIPp's counts, or are wrong exactly as the rules document.
func TestRatiosAreTrue(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: starts real servers")
	}
	sipp := kamailiotest.Needs(t, "sipp", "sip-tester")
	kamailiotest.Needs(t, "promtool", "prometheus")
	exporter := buildExporter(t)
	for _, version := range kamailiotest.Versions(t) {
		t.Run(version, func(t *testing.T) {
			t.Parallel() // it mostly waits
			var with, without map[string]tally
			var both sync.WaitGroup
			both.Go(func() { with = callAll(t, sipp, exporter, version, refusing) })
			both.Go(func() {
				without = callAll(t, sipp, exporter, version, strings.NewReplacer("loadmodule \"dialog.so\"\n", "", "dlg_manage();", "").Replace(refusing))
			})
			both.Wait()
			if t.Failed() {
				return
			}
			var tests []any
			for _, kind := range kindsOfCall {
				tests = append(tests,
					expect("dialog: "+kind.called, with[kind.called], truth(with[kind.called])),
					expect("no dialog: "+kind.called, without[kind.called], truthWithoutDialog(without[kind.called])))
			}
			for name, mix := range map[string]map[string]float64{
				"refused calls, no re-INVITEs, no lost ACKs":               {"answered": 40, "busy": 20, "rings": 3, "failover": 5, "fails": 4, "challenged": 1, "after-s-404": 15, "after-s-503": 4, "before-s-503": 2},
				"re-INVITEs and lost ACKs, all refused with a transaction": {"answered": 10, "busy": 5, "failover": 1, "refreshed": 20, "unacked": 4, "first-t-404": 7, "after-t-404": 5, "after-t-503": 9},
				"re-INVITEs and lost ACKs, refused before dlg_manage()":    {"answered": 10, "refreshed": 20, "unacked": 4, "before-s-404": 30, "before-t-503": 3},
				"nearly all refused": {"answered": 1, "after-s-503": 20, "after-t-503": 10},
			} {
				calls := together(with, mix)
				tests = append(tests, expect("dialog: "+name, calls, truth(calls)))
			}
			// With both faults at once, the value is too high by the smaller error, at
			// most by the number of stateless rejections.
			calls := together(with, map[string]float64{"answered": 5, "refreshed": 3, "unacked": 1, "after-s-404": 4, "after-t-503": 2})
			refused, messages := 4.0*callsOfEach, (3*2+1*3)*float64(callsOfEach)
			calls.answered += min(refused, messages)
			calls.reached += min(refused, messages)
			tests = append(tests, expect("dialog: both errors", calls, append(truth(calls),
				value{"refused stateless", `instance:kamailio_calls_refused_stateless:rate5m * 60`, refused})))
			tests = append(tests, alerts(t, with, without)...)
			checkRules(t, tests)
		})
	}
}

// truth returns what the rules and dashboards must show.
func truth(c tally) []value {
	perCall := c.answered / c.attempts // NaN without attempts
	return []value{
		{"attempts", `instance:kamailio_call_attempts:rate5m * 60`, c.attempts},
		{"answered", `instance:kamailio_calls_answered:rate5m * 60`, c.answered},
		{"SER", `instance:kamailio_session_establishment:ratio_rate15m`, perCall},
		{"SER of the dashboards", ser("", "[15m]"), perCall},
		{"SER by server", ser(" by (instance) ", "[15m]"), perCall},
		{"SEER", `instance:kamailio_session_establishment_effectiveness:ratio_rate15m`, c.reached / c.attempts},
		{"SEER of the dashboards", seer, c.reached / c.attempts},
		{"answered on the dashboards", `60 * sum(` + answered("[5m]") + `)`, c.answered},
	}
}

// truthWithoutDialog counts messages: it counts re-INVITEs as calls, and each
// retransmitted 200.
func truthWithoutDialog(c tally) []value {
	c.attempts = c.growth[invites] - c.growth[challenges]
	more := c.growth[oks] - c.answered
	c.answered += more
	c.reached += more
	return truth(c)
}

const (
	invites    = `kamailio_core_requests_received_by_method_total{method="INVITE"}`
	oks        = `kamailio_core_replies_received_by_method_total{class="2xx",method="INVITE"}`
	challenges = `kamailio_sl_replies_sent_by_code_total{code="407"}`
)

// alerts returns what the alerts must do for some mixes of calls.
func alerts(t *testing.T, with, without map[string]tally) (tests []any) {
	t.Helper()
	expr := alertExpressions(t)
	fires := func(name string) value { return value{name, `count(` + expr[name] + `)`, 1} }
	quiet := func(name string) value { return value{name, `count(` + expr[name] + `)`, math.NaN()} }
	for _, c := range []struct {
		name  string
		mix   map[string]float64
		quiet []string
		fires []string
	}{
		{"healthy, with re-INVITEs", map[string]float64{"answered": 5, "refreshed": 9, "busy": 2, "failover": 1},
			[]string{"KamailioSessionEstablishmentRatioLow", "KamailioAnswersRetransmitted", "KamailioCallsRefused", "KamailioLocalServerErrors", "KamailioInviteServerErrors"}, nil},
		{"answered once, many refused", map[string]float64{"answered": 5, "after-s-404": 20},
			[]string{"KamailioAnswersRetransmitted", "KamailioCallsRefused", "KamailioLocalServerErrors", "KamailioInviteServerErrors"}, []string{"KamailioSessionEstablishmentRatioLow"}},
		{"lost ACKs, many refused", map[string]float64{"unacked": 5, "after-s-404": 20, "after-t-404": 5},
			[]string{"KamailioCallsRefused"}, []string{"KamailioAnswersRetransmitted"}},
		{"gateways fail, and ACKs are lost", map[string]float64{"unacked": 8, "fails": 2},
			[]string{"KamailioCallsRefused", "KamailioLocalServerErrors"}, []string{"KamailioInviteServerErrors", "KamailioAnswersRetransmitted"}},
		{"own 503 after dlg_manage()", map[string]float64{"answered": 1, "after-s-503": 14},
			nil, []string{"KamailioCallsRefused", "KamailioLocalServerErrors", "KamailioSessionEstablishmentRatioLow"}},
		{"own 503 with a transaction", map[string]float64{"answered": 1, "after-t-503": 14},
			nil, []string{"KamailioCallsRefused", "KamailioLocalServerErrors", "KamailioSessionEstablishmentRatioLow"}},
		{"own 503 before dlg_manage()", map[string]float64{"answered": 1, "before-s-503": 7, "before-t-503": 7},
			nil, []string{"KamailioCallsRefused", "KamailioLocalServerErrors"}},
	} {
		for server, tallies := range map[string]map[string]tally{"dialog": with, "no dialog": without} {
			var values []value
			for _, name := range c.quiet {
				values = append(values, quiet(name))
			}
			for _, name := range c.fires {
				values = append(values, fires(name))
			}
			if server == "no dialog" { // retransmitted 200s hide the 5xx there
				values = slices.DeleteFunc(values, func(v value) bool {
					return v.name == "KamailioInviteServerErrors" && v.want == 1
				})
			}
			tests = append(tests, expect(server+": alerts: "+c.name, together(tallies, c.mix), values))
		}
	}
	return tests
}

func alertExpressions(t *testing.T) map[string]string {
	t.Helper()
	text, err := os.ReadFile("../../alerts/kamailio-alerts.yml")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Groups []struct {
			Rules []struct{ Alert, Expr string }
		}
	}
	if err := yaml.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	expr := map[string]string{}
	for _, g := range file.Groups {
		for _, r := range g.Rules {
			// Remove comments: in the promtool tests they would hide the rest of the
			// line.
			expr[r.Alert] = regexp.MustCompile(`#.*`).ReplaceAllString(r.Expr, "")
		}
	}
	return expr
}

// expect returns a promtool test.
func expect(name string, c tally, values []value) any {
	const minutes = 20 // the rules look back 15 of them
	var series, tests []any
	for _, s := range slices.Sorted(maps.Keys(c.growth)) {
		series = append(series, map[string]any{
			"series": strings.Replace(s, "{", `{job="kamailio",instance="a",`, 1),
			"values": fmt.Sprintf("0+%gx%d", c.growth[s], minutes),
		})
	}
	variables := grafanaAt("a")
	for _, v := range values {
		var samples []any
		if !math.IsNaN(v.want) {
			samples = append(samples, map[string]any{"labels": fmt.Sprintf("{is=%q}", name+": "+v.name), "value": math.Round(v.want*1e4) / 1e4})
		}
		expr := variables.Replace(query{expr: v.expr}.promQL())
		tests = append(tests, map[string]any{
			"expr":        fmt.Sprintf(`label_replace(round(sum(%s), 0.0001), "is", %q, "", "")`, expr, name+": "+v.name),
			"eval_time":   fmt.Sprintf("%dm", minutes),
			"exp_samples": samples,
		})
	}
	return map[string]any{"name": name, "interval": "1m", "input_series": series, "promql_expr_test": tests}
}

func checkRules(t *testing.T, tests []any) {
	t.Helper()
	rules, err := filepath.Abs("../../alerts/kamailio-rules.yml")
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(map[string]any{"rule_files": []string{rules}, "evaluation_interval": "5m", "tests": tests}) // valid YAML too
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "truth.yml")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "promtool", "test", "rules", file).CombinedOutput(); err != nil {
		t.Errorf("promtool: %v\n%s", err, out)
	}
}

// callAll makes calls of each kind through a Kamailio with this configuration.
func callAll(t *testing.T, sipp, exporter, version, config string) map[string]tally {
	t.Helper()
	server := kamailiotest.Start(t, kamailiotest.Config{Version: version, Edit: func(string) string { return config }})
	_, port, err := net.SplitHostPort(server.SIPAddr)
	if err != nil {
		t.Fatal(err)
	}
	first, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	for i, scenario := range []string{"uas-answer", "uas-busy", "uas-reject", "uas-ring"} {
		program(t, sipp, "-nostdin", "-skip_rlimit", "-i", "127.0.0.1", "-mi", anyLoopback(), "-p", strconv.Itoa(first+5+i), "-sf", scenarioFile(t, scenario))
	}
	page := exporterAt(t, exporter, "--kamailio.uri=unix://"+server.SocketPath)

	tallies := map[string]tally{}
	before := settled(t, page)
	for _, kind := range kindsOfCall {
		// On a busy machine a message is sent again now and then; then try again. Without
		// that, calls of a kind are all alike.
		for try := 1; ; try++ {
			counts := call(t, sipp, server.SIPAddr, kind)
			after := settled(t, page)
			growth, uneven := map[string]float64{}, ""
			for series, n := range after {
				growth[series] = n - before[series]
				if math.Mod(growth[series], callsOfEach) != 0 {
					uneven = fmt.Sprintf("%s grew by %v", series, growth[series])
				}
			}
			before = after
			if (counts.retransmitted > 0 || uneven != "") && try < 5 {
				t.Logf("%s, again: SIPp sent %v INVITEs again, %s", kind.called, counts.retransmitted, uneven)
				continue
			}
			one := tally{attempts: counts.calls, growth: growth, reached: counts.busy}
			if kind.answered {
				one.answered = counts.answered
				one.reached += counts.answered
			}
			if kind.unseen {
				one.attempts = 0
			}
			tallies[kind.called] = one
			break
		}
	}
	return tallies
}

func scenarioFile(t *testing.T, name string) string {
	t.Helper()
	return abs(t, "../../examples/demo/sipp/"+name+".xml")
}

// sippCounts are SIPp's counts of its calls.
type sippCounts struct{ calls, answered, busy, retransmitted float64 }

// call makes calls of one kind, and waits until they end.
func call(t *testing.T, sipp, server string, kind kindOfCall) sippCounts {
	t.Helper()
	dir := t.TempDir()
	called := filepath.Join(dir, "called.csv")
	if err := os.WriteFile(called, []byte("SEQUENTIAL\n"+kind.called+";example.com;SIPp;\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	length := "100" // milliseconds
	if kind.scenario == "call-unacked" {
		length = "4000" // 200s are retransmitted after 0.5, 1.5 and 3.5 s
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, sipp, "-nostdin", "-skip_rlimit", "-i", "127.0.0.1", "-mi", anyLoopback(), "-sf", scenarioFile(t, kind.scenario),
		"-inf", called, "-m", strconv.Itoa(callsOfEach), "-r", "20", "-d", length, "-trace_counts", server)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%s: SIPp: %v\n%s", kind.called, err, out[max(0, len(out)-2000):])
		return sippCounts{}
	}
	files, err := filepath.Glob(filepath.Join(dir, "*_counts.csv"))
	if err != nil || len(files) != 1 {
		t.Fatalf("%s: SIPp's counts: %q, %v", kind.called, files, err)
	}
	text, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	reader := csv.NewReader(bytes.NewReader(text))
	reader.Comma, reader.FieldsPerRecord = ';', -1
	rows, err := reader.ReadAll()
	if err != nil || len(rows) < 2 {
		t.Fatalf("%s: SIPp's counts: %v in %s", kind.called, err, text)
	}
	var c sippCounts
	names, last := rows[0], rows[len(rows)-1]
	for i, name := range names {
		n, _ := strconv.ParseFloat(last[i], 64) // the column of times is not a number
		switch _, what, _ := strings.Cut(name, "_"); {
		case what == "INVITE_Sent" && c.calls == 0:
			c.calls = n
		case what == "INVITE_Retrans":
			c.retransmitted += n
		case what == "200_Recv" && c.answered == 0:
			c.answered = n
		case what == "486_Recv":
			c.busy = n
		}
	}
	if c.calls != callsOfEach {
		t.Errorf("%s: SIPp made %v calls:\n%s", kind.called, c.calls, text)
	}
	return c
}

// counters matches the counters that the rules use.
var counters = regexp.MustCompile(`^(kamailio_(?:core|dialog|sl|tm)_\w+_total)(\{.*\})? (\S+)$`)

// settled waits until the counters stop changing. Those of sl are updated each second
// (sl/sl_stats.c).
func settled(t *testing.T, address string) map[string]float64 {
	t.Helper()
	var last map[string]float64
	since := time.Now()
	if !until(30*time.Second, func() bool {
		now := counterValues(t, address)
		if !maps.Equal(now, last) {
			last, since = now, time.Now()
		}
		return time.Since(since) >= 1500*time.Millisecond
	}) {
		t.Errorf("the counters still change: %v", last)
	}
	return last
}

func metricsPage(t *testing.T, address string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := (&http.Transport{Proxy: nil}).RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func counterValues(t *testing.T, address string) map[string]float64 {
	t.Helper()
	values := map[string]float64{}
	for lines := bufio.NewScanner(strings.NewReader(metricsPage(t, address))); lines.Scan(); {
		if found := counters.FindStringSubmatch(lines.Text()); found != nil {
			n, err := strconv.ParseFloat(found[3], 64)
			if err != nil {
				t.Fatal(err)
			}
			labels := found[2]
			if labels == "" {
				labels = "{}"
			}
			values[found[1]+labels] = n
		}
	}
	return values
}
