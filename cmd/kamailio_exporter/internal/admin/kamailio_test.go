//go:build linux

package admin

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	stdlog "log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/adminapi"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/audit"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc/kamrpctest/kamailiotest"
)

// everything grants all actions, with any parameters.
func everything() string {
	var grants strings.Builder
	for _, a := range catalogue().Actions {
		fmt.Fprintf(&grants, "        - {action: %s, params: {", a.Name)
		for i, p := range a.Params {
			if i > 0 {
				grants.WriteString(", ")
			}
			fmt.Fprintf(&grants, "%s: {any: true}", p.Name)
		}
		grants.WriteString("}}\n")
	}
	return "  limits: {per_user_per_second: 100, burst: 100, cooldown: 1s}\n  guards: {min_uptime: 1s}\n  users:\n    noc:\n      tokens: [{sha256: " + adminapi.HashToken(nocToken) + "}]\n      grants:\n" + grants.String()
}

// realEndpoint is an endpoint that talks to a real Kamailio over HTTP.
func realEndpoint(t *testing.T, uri string) *endpoint {
	t.Helper()
	b, _ := endpointTo(t, uri)
	return b.start(func(s *Server) { hurry(s.inForce.Load()) })
}

// endpointTo is an endpoint for a Kamailio, not started yet, and the client for the
// scrapes beside it, which make way for its actions.
func endpointTo(t *testing.T, uri string) (b *endpoint, scrapes *kamrpc.Client) {
	t.Helper()
	b = newEndpoint(t, everything())
	transport, err := kamrpc.Open(uri, nil)
	if err != nil {
		t.Fatal(err)
	}
	scrapes, err = kamrpc.NewClient(kamrpc.Config{Transports: []kamrpc.Transport{transport}})
	if err != nil {
		t.Fatal(err)
	}
	if b.client, err = scrapes.Sibling(kamrpc.Config{Transports: []kamrpc.Transport{transport}}); err != nil {
		t.Fatal(err)
	}
	return b, scrapes
}

// hurry removes our pauses. Kamailio's own reload_delta, 1 s in the demo, still
// applies.
func hurry(s *inForce) {
	s.cfg.Limits.Cooldown = time.Millisecond
	for _, a := range s.policy.Catalogue.Actions {
		if a.Pause > 0 {
			a.Pause = time.Millisecond
		}
	}
}

// newGateway answers 200 to OPTIONS, and 486 to INVITE.
func newGateway(t *testing.T) *kamailiotest.Gateway {
	return kamailiotest.NewGateway(t, func(method string) (string, time.Duration) {
		if method == "INVITE" {
			return "486 Busy Here", 0
		}
		return "200 OK", 0
	})
}

var copied = regexp.MustCompile(`(?mi)^(Via|From|To|Call-ID|CSeq|Record-Route):.*\r\n`)

var calls atomic.Int64

// invite calls a number through Kamailio and returns the status of the final reply; ""
// if there is none.
func invite(t testing.TB, server *kamailiotest.Server, user string) string {
	t.Helper()
	conn, err := net.Dial("udp", server.SIPAddr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	id := fmt.Sprintf("admintest-%d-%d", time.Now().UnixNano(), calls.Add(1))
	me := conn.LocalAddr().String()
	head := func(method string) string {
		return method + " sip:" + user + "@example.com SIP/2.0\r\nVia: SIP/2.0/UDP " + me + ";branch=z9hG4bK" + id + "\r\nFrom: <sip:tester@example.com>;tag=" + id +
			"\r\nTo: <sip:" + user + "@example.com>\r\nCall-ID: " + id + "\r\nCSeq: 1 " + method + "\r\nContact: <sip:tester@" + me + ">\r\nMax-Forwards: 70\r\nUser-Agent: admintest\r\nContent-Length: 0\r\n\r\n"
	}
	if _, err := conn.Write([]byte(head("INVITE"))); err != nil {
		t.Fatal(err)
	}
	_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	buffer := make([]byte, 1<<16)
	for {
		n, err := conn.Read(buffer)
		if err != nil {
			return ""
		}
		if fields := strings.Fields(string(buffer[:n])); len(fields) > 1 && fields[0] == "SIP/2.0" && fields[1] >= "200" {
			_, _ = conn.Write([]byte(head("ACK")))
			return fields[1]
		}
	}
}

// phone sends requests of a test, replies to each received request with 200, and keeps
// what it received.
type phone struct {
	conn net.Conn
	mu   sync.Mutex
	came []string
}

func newPhone(t *testing.T, server *kamailiotest.Server) *phone {
	t.Helper()
	conn, err := net.Dial("udp", server.SIPAddr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	p := &phone{conn: conn}
	go func() {
		buffer := make([]byte, 1<<16)
		for {
			n, err := conn.Read(buffer)
			if err != nil {
				return
			}
			message := string(buffer[:n])
			if !strings.HasPrefix(message, "SIP/2.0") {
				head := strings.Join(copied.FindAllString(message, -1), "")
				_, _ = conn.Write([]byte("SIP/2.0 200 OK\r\n" + head + "Content-Length: 0\r\n\r\n"))
			}
			p.mu.Lock()
			p.came = append(p.came, message)
			p.mu.Unlock()
		}
	}()
	return p
}

// send sends a request. rest is additional header lines, an empty line and a body.
func (p *phone) send(t *testing.T, method, user, rest string) {
	t.Helper()
	id := fmt.Sprintf("admintest-%d-%d", time.Now().UnixNano(), calls.Add(1))
	me := p.conn.LocalAddr().String()
	head, body, _ := strings.Cut(rest, "\n\n")
	request := method + " sip:" + user + "@example.com SIP/2.0\nVia: SIP/2.0/UDP " + me + ";branch=z9hG4bK" + id + "\nFrom: <sip:tester@example.com>;tag=" + id +
		"\nTo: <sip:" + user + "@example.com>\nCall-ID: " + id + "\nCSeq: 1 " + method + "\nContact: <sip:tester@" + me + ">\nMax-Forwards: 70\n" +
		head + "\nContent-Length: " + strconv.Itoa(len(body)) + "\n\n"
	if _, err := p.conn.Write([]byte(strings.ReplaceAll(request, "\n", "\r\n") + body)); err != nil {
		t.Fatal(err)
	}
}

// got returns the distinct received messages with this prefix.
func (p *phone) got(begin string) []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var got []string
	for _, message := range p.came {
		if strings.HasPrefix(message, begin) && !slices.Contains(got, message) {
			got = append(got, message)
		}
	}
	return got
}

// sql changes the server's database.
func sql(t *testing.T, server *kamailiotest.Server, statements string) {
	t.Helper()
	cmd := exec.Command("sqlite3", "-bail", "-cmd", ".timeout 5000", filepath.Join(server.Dir, "kamailio.sqlite"))
	cmd.Stdin = strings.NewReader(statements)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within 10 s: %s", what)
		}
		time.Sleep(20 * time.Millisecond) // the other process needs time
	}
}

// wants runs an action and checks its outcome. It retries if the same reload ran a
// moment ago.
func (b *endpoint) wants(t *testing.T, action, params string, outcome audit.Outcome, verified bool) reply {
	t.Helper()
	r := b.run(nocToken, action, params, "Idempotency-Key", adminapi.NewID(time.Now()))
	for deadline := time.Now().Add(5 * time.Second); r.problem() == "busy" && time.Now().Before(deadline); {
		time.Sleep(100 * time.Millisecond) // the module's own reload_delta, in seconds
		r = b.run(nocToken, action, params, "Idempotency-Key", adminapi.NewID(time.Now()))
	}
	if r.Outcome != outcome || r.Verified != verified {
		t.Errorf("%s %s: %d %s", action, params, r.Status, r.Text)
	}
	return r
}

// onAll runs a test on each version of Kamailio.
func onAll(t *testing.T, cfg kamailiotest.Config, run func(t *testing.T, server *kamailiotest.Server)) {
	t.Helper()
	for _, version := range kamailiotest.AllVersions(t) {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			cfg := cfg
			cfg.Version = version
			run(t, kamailiotest.Start(t, cfg))
		})
	}
}

// isUp waits until Kamailio is up for longer than the guards ask for.
func isUp(t *testing.T, server *kamailiotest.Server) {
	t.Helper()
	until(t, "an uptime above the guards'", func() bool {
		var uptime struct{ Uptime int }
		return json.Unmarshal(server.RPC(t, "core.uptime"), &uptime) == nil && uptime.Uptime > 1
	})
}

// six reports whether Kamailio is 6.0 or later: its replies are complete over JSON-RPC.
func six(server *kamailiotest.Server) bool { return !strings.HasPrefix(server.Version, "5.") }

// onSix is the outcome of an action whose result cannot be read before Kamailio 6.0.
func onSix(server *kamailiotest.Server) audit.Outcome {
	if six(server) {
		return audit.Applied
	}
	return audit.Unverified
}

// reloadGateways waits until Kamailio, which allows a reload some time after its start,
// has reloaded dispatcher.
func reloadGateways(t *testing.T, server *kamailiotest.Server) {
	t.Helper()
	until(t, "dispatcher.reload", func() bool { return server.RPCError("dispatcher.reload") == nil })
}

// TestActionsOfRealKamailio runs every action whose module is loaded, and checks its
// effect independently of this program.
func TestActionsOfRealKamailio(t *testing.T) {
	onAll(t, kamailiotest.Config{Traffic: true, Extra: checks}, func(t *testing.T, server *kamailiotest.Server) {
		b := realEndpoint(t, server.HTTPURL)
		ran := map[string]string{} // best outcome of each action
		run := func(action, params string, outcome audit.Outcome, verified bool) reply {
			t.Helper()
			r := b.wants(t, action, params, outcome, verified)
			if ran[action] != seenVerified {
				ran[action] = cmp.Or(seen(r), ran[action])
			}
			return r
		}
		rpc := func(method string, params ...any) string {
			t.Helper()
			return string(server.RPC(t, method, params...))
		}
		gatewaysOf(t, server, run)
		relaysOf(t, server, b, run)
		dialogsOf(t, server, run)
		registrationsOf(t, server, run)
		trunksOf(t, server, run)
		tablesOf(t, server, run)
		agentsOf(t, server, run)
		certificateOf(t, server, run)
		presenceOf(t, server, run)
		for _, a := range catalogue().Actions {
			if _, is := ran[a.Name]; !is && a.Local == nil {
				t.Errorf("%s was not run", a.Name)
			}
		}
		recorded(t, server.Version, ran)
		if rpc("core.uptime") == "" {
			t.Error("no uptime")
		}
		if _, err := audit.Verify([]string{b.audit}); err != nil {
			t.Error(err)
		}
	})
}

// seen summarizes an action's reply; "" if it is not the best possible outcome.
func seen(r reply) string {
	switch {
	case r.Outcome == audit.Applied && r.Verified:
		return seenVerified
	case r.Outcome == audit.Unverified:
		return seenUnverified
	case r.problem() == "module-missing":
		return seenNoRPC
	}
	return ""
}

var recording sync.Mutex

// recorded compares the observed outcomes with the recorded ones, which -update
// rewrites.
func recorded(t *testing.T, version string, is map[string]string) {
	t.Helper()
	recording.Lock()
	defer recording.Unlock()
	outcomes := recordedOutcomes(t)
	for action, best := range is {
		if was := outcomes[version][action]; best != "" && best != was {
			if !*update {
				t.Errorf("%s: %s, and %q is recorded: run this with -update, and then make docs", action, best, was)
			}
			if outcomes[version] == nil {
				outcomes[version] = map[string]string{}
			}
			outcomes[version][action] = best
		}
	}
	if !*update {
		return
	}
	text, err := json.MarshalIndent(outcomes, "", "\t")
	if err == nil {
		err = os.MkdirAll(filepath.Dir(outcomesFile), 0o755)
	}
	if err == nil {
		err = os.WriteFile(outcomesFile, append(text, '\n'), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// checks makes Kamailio's own script use what the actions change, once per second, and
// write down the result.
const checks = `
modparam("rtimer", "timer", "name=checks;interval=1;mode=1;")
modparam("rtimer", "exec", "timer=checks;route=CHECKS")

route[CHECKS] {
	$var(domain) = "no"; $var(address) = "no"; $var(trusted) = "no"; $var(mtval) = "no"; $var(dialplan) = "no"; $var(lcr2) = "no"; $var(gws) = ":";
	if (is_domain_local("new.example")) { $var(domain) = "yes"; }
	if (allow_address("9", "203.0.113.99", "5060")) { $var(address) = "yes"; }
	if (allow_trusted("203.0.113.98", "udp", "sip:a@b.example")) { $var(trusted) = "yes"; }
	mt_match("prefixes", "4420", "0");
	if (dp_match("7", "112")) { $var(dialplan) = "yes"; }
	load_gws("2", "4930", "sip:a@b.example"); # 2: there are none
	if ($rc == 1) { $var(lcr2) = "yes"; }
	if (load_gws("1", "4930", "sip:a@b.example")) {
		while (next_gw()) { $var(gws) = $var(gws) + $rp + ":"; }
	}
	$ru = "sip:4420@nowhere.example";
	prefix2domain();
	xlog("L_WARN", "CHECKS domain=<$var(domain)> address=<$var(address)> trusted=<$var(trusted)> mtree=<$var(mtval)> dialplan=<$var(dialplan)> lcr2=<$var(lcr2)> gws=<$var(gws)> pdt=<$rd> new=<$sht(settings=>new)> ban=<$sht(ipban=>192.0.2.200)> text=<$sht(ipban=>text)> regs=<$stat(accepted_regs)>\n");
	xlog("L_NOTICE", "CHECKS debug=<on>\n");
}
`

// checked returns the script's latest result.
func checked(server *kamailiotest.Server, name string) string {
	all := regexp.MustCompile(`CHECKS .*?\b`+name+`=<(.*?)>(?: |\n)`).FindAllStringSubmatch(server.Log(), -1)
	if len(all) == 0 {
		return "never"
	}
	return all[len(all)-1][1]
}

// turns runs an action, and checks that the result of Kamailio's script changes.
func turns(t *testing.T, server *kamailiotest.Server, name, before, after string, run func()) {
	t.Helper()
	until(t, fmt.Sprintf("%s is %q to the script", name, before), func() bool { return checked(server, name) == before })
	run()
	until(t, fmt.Sprintf("%s is %q to the script, and is %q", name, after, checked(server, name)), func() bool { return checked(server, name) == after })
}

type runner func(action, params string, outcome audit.Outcome, verified bool) reply

// gatewaysOf: a gateway gets calls once it is loaded, and none after it is taken out.
func gatewaysOf(t *testing.T, server *kamailiotest.Server, run runner) {
	t.Helper()
	one, two := newGateway(t), newGateway(t)
	sql(t, server, fmt.Sprintf(`DELETE FROM dispatcher WHERE setid=1; INSERT INTO dispatcher (setid, destination, flags, priority, attrs, description)
		VALUES (1, 'sip:127.0.0.1:%d', 0, 0, '', ''), (1, 'sip:127.0.0.1:%d', 0, 0, '', '');`, one.Port(), two.Port()))
	r := run("dispatcher.reload", `{}`, audit.Applied, true)
	if r.Before["destinations"] != 9.0 || r.After["destinations"] != 8.0 || r.After["sets"] != 4.0 {
		t.Errorf("dispatcher.reload: %s", r.Text)
	}
	spread := func() (first, second int32) {
		one.Invites.Store(0)
		two.Invites.Store(0)
		for i := range 8 {
			if status := invite(t, server, fmt.Sprint(1000+i)); status != "486" {
				t.Errorf("a call over the gateways: %s", status)
			}
		}
		return one.Invites.Load(), two.Invites.Load()
	}
	if first, second := spread(); first == 0 || second == 0 {
		t.Errorf("%d and %d calls", first, second)
	}
	uri := fmt.Sprintf("sip:127.0.0.1:%d", one.Port())
	run("dispatcher.set-state", `{"set":1,"uri":"`+uri+`","state":"ix"}`, audit.Applied, true)
	if first, second := spread(); first != 0 || second == 0 {
		t.Errorf("taken out: %d and %d calls", first, second)
	}
	// The other gateway is the last one.
	if r := run("dispatcher.set-state", fmt.Sprintf(`{"set":1,"uri":"sip:127.0.0.1:%d","state":"dx"}`, two.Port()), audit.Refused, false); r.problem() != "guard" {
		t.Errorf("%s", r.Text)
	}
	run("dispatcher.set-state", `{"set":1,"uri":"`+uri+`","state":"ix"}`, audit.NoChange, true)
	run("dispatcher.set-state", `{"set":1,"uri":"`+uri+`","state":"ax"}`, audit.Applied, true)
	if first, second := spread(); first == 0 || second == 0 {
		t.Errorf("put back: %d and %d calls", first, second)
	}
	// 23: an empty table empties Kamailio's list, which Kamailio reports as a success.
	sql(t, server, "CREATE TABLE kept AS SELECT * FROM dispatcher; DELETE FROM dispatcher;")
	r = run("dispatcher.reload", `{}`, audit.Contradicted, false)
	if r.Status != 502 || r.problem() != "verification-failed" || r.After["destinations"] != 0.0 {
		t.Errorf("an empty list: %d %s", r.Status, r.Text)
	}
	sql(t, server, "INSERT INTO dispatcher SELECT * FROM kept; DROP TABLE kept;")
	run("dispatcher.reload", `{}`, audit.Applied, true)

	// drouting: a new rule is used. No RPC shows the rules.
	sql(t, server, fmt.Sprintf(`INSERT INTO dr_gateways (gwid, type, address, strip) VALUES (77, 1, '127.0.0.1:%d', 0);
		UPDATE dr_rules SET gwlist='77' WHERE prefix='2';`, one.Port()))
	one.Invites.Store(0)
	run("drouting.reload", `{}`, audit.Unverified, false)
	if status := invite(t, server, "2001"); status != "486" || one.Invites.Load() != 1 {
		t.Errorf("drouting: status %s, %d calls", status, one.Invites.Load())
	}
	sql(t, server, "DELETE FROM lcr_gw WHERE gw_name='lcr-c'; DELETE FROM lcr_rule_target WHERE lcr_id=2; DELETE FROM lcr_rule WHERE lcr_id=2;")
	turns(t, server, "lcr2", "yes", "no", func() { r = run("lcr.reload", `{}`, audit.Unverified, false) })
	if r.After["gateways"] != 2.0 || strings.Contains(string(server.RPC(t, "lcr.dump_gws")), "lcr-c") {
		t.Errorf("lcr.reload: %s", r.Text)
	}
	gws := strings.Split(checked(server, "gws"), ":")
	if len(gws) != 4 {
		t.Fatalf("the gateways of lcr are %q to the script", gws)
	}
	turns(t, server, "gws", strings.Join(gws, ":"), ":"+gws[2]+":", func() { run("lcr.defunct", `{"lcr_id":1,"gw_id":1,"seconds":600}`, audit.Applied, true) })
	until := regexp.MustCompile(`"gw_id":\s*1,[^}]*"defunct_until":\s*"?([0-9]+)`).FindStringSubmatch(string(server.RPC(t, "lcr.dump_gws")))
	if until == nil {
		t.Fatal("lcr.dump_gws")
	}
	if at, _ := strconv.ParseInt(until[1], 10, 64); at < time.Now().Unix()+500 {
		t.Errorf("defunct until %d", at)
	}
	if r := run("lcr.defunct", `{"lcr_id":1,"gw_id":2,"seconds":600}`, audit.Refused, false); r.problem() != "guard" {
		t.Errorf("the last gateway: %s", r.Text)
	}
	if r := run("rtpengine.reload", `{}`, audit.Failed, false); r.Status != 502 {
		t.Errorf("a reload without a database: %s", r.Text)
	}
}

// secondRelay starts an rtpengine and waits until it answers. It ends with the test and
// with this process.
func secondRelay(t *testing.T, url string) {
	t.Helper()
	addr := strings.TrimPrefix(url, "udp:")
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-c", `"$@" & read -r _; kill $!; wait`, "sh", "rtpengine", "--config-file=none", "--table=-1", "--foreground", "--log-stderr",
		"--log-level=4", "--interface=127.0.0.1", "--listen-ng="+addr, "--num-threads=1", "--port-min="+port, "--port-max="+port)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stdin.Close()
		_ = cmd.Wait()
	})
	conn, err := net.Dial("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	answer := make([]byte, 512)
	until(t, "an answer of "+addr, func() bool {
		_, _ = conn.Write([]byte("1_1 d7:command4:pinge"))
		_ = conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		n, err := conn.Read(answer)
		return err == nil && strings.Contains(string(answer[:n]), "pong")
	})
}

// relaysOf: a relay is disabled and enabled again, but the last one of its set cannot
// be disabled. Set 0 has a running relay and a dead one, set 1 a disabled one.
func relaysOf(t *testing.T, server *kamailiotest.Server, b *endpoint, run runner) {
	t.Helper()
	var relays []struct {
		URL      string
		Set      int
		Disabled json.RawMessage
	}
	show := func() {
		t.Helper()
		relays = nil
		if err := json.Unmarshal(server.RPC(t, "rtpengine.show", "all"), &relays); err != nil || len(relays) != 3 {
			t.Fatalf("rtpengine.show: %v, %v", err, relays)
		}
	}
	// Kamailio 5.6 reports 0, 1 if the relay does not answer, or "1(permanent)"; 6
	// reports false or true.
	sees := func(what, first string, second string) {
		t.Helper()
		show()
		said := strings.NewReplacer("0", "on", "false", "on", `"1(permanent)"`, "off", "true", "off")
		if is := said.Replace(string(relays[0].Disabled)); is != first {
			t.Errorf("%s: the first is %s", what, is)
		}
		if is := said.Replace(string(relays[1].Disabled)); is != second && second != "" {
			t.Errorf("%s: the second is %s", what, is)
		}
	}
	show()
	first, second, third := relays[0].URL, relays[1].URL, relays[2].URL
	set := func(url string, enabled bool, outcome audit.Outcome, verified bool) reply {
		t.Helper()
		return run("rtpengine.set-enabled", fmt.Sprintf(`{"url":%q,"enabled":%t}`, url, enabled), outcome, verified)
	}
	// A Kamailio process that found a relay dead may report it as dead once more after
	// it is back, because its socket still holds the error
	// (modules/rtpengine/rtpengine.c).
	enable := func(url string) {
		t.Helper()
		until(t, "enabled: "+url, func() bool {
			r := b.run(nocToken, "rtpengine.set-enabled", fmt.Sprintf(`{"url":%q,"enabled":true}`, url))
			if r.Outcome == audit.Applied && !r.Verified || r.Outcome != audit.Applied && r.Outcome != audit.Failed {
				t.Fatalf("%s", r.Text)
			}
			return r.Outcome == audit.Applied
		})
	}
	// rtpengine returns "fail" with HTTP 200.
	if r := set(second, true, audit.Failed, false); r.Status != 502 {
		t.Errorf("a dead relay: %s", r.Text)
	}
	if r := set(first, false, audit.Refused, false); r.problem() != "guard" {
		t.Errorf("the last relay: %s", r.Text)
	}
	sees("the last relay", "on", "")
	set(third, false, audit.NoChange, true)

	secondRelay(t, second)
	enable(second)
	sees("the second runs", "on", "on")
	set(first, false, audit.Applied, true)
	sees("the first is switched off", "off", "on")
	set(first, false, audit.NoChange, true)
	if r := set(second, false, audit.Refused, false); r.problem() != "guard" {
		t.Errorf("the last relay: %s", r.Text)
	}
	enable(first)
	sees("the first is switched on", "on", "on")
	set(first, true, audit.NoChange, true)
	set(second, false, audit.Applied, true)
	sees("the second is switched off", "on", "off")
}

// relayUsed makes the script use a relay of set 3 once per second and write down which
// one. The Call-ID is always the same, so the relay is too.
const relayUsed = `
modparam("rtpengine", "db_url", "DB_URL")
modparam("rtpengine", "rtp_inst_pvar", "$var(relay)")
modparam("rtimer", "timer", "name=checks;interval=1;mode=1;")
modparam("rtimer", "exec", "timer=checks;route=CHECKS")

route[CHECKS] {
	$var(relay) = "none";
	$var(set) = 3; # a set that is written out must be there at the start
	set_rtpengine_set("$var(set)");
	rtpengine_query();
	xlog("L_WARN", "CHECKS relay=<$var(relay)>\n");
}
`

// TestRelaysFromTheDatabase: relays added to the database are used, and a disabled one
// is not.
func TestRelaysFromTheDatabase(t *testing.T) {
	onAll(t, kamailiotest.Config{Extra: relayUsed}, func(t *testing.T, server *kamailiotest.Server) {
		b := realEndpoint(t, server.HTTPURL)
		port, release, err := kamailiotest.FreePorts()
		if err != nil {
			t.Fatal(err)
		}
		defer release()
		urls := []string{fmt.Sprintf("udp:127.0.0.1:%d", port), fmt.Sprintf("udp:127.0.0.1:%d", port+4)}
		for _, url := range urls {
			secondRelay(t, url)
			sql(t, server, "INSERT INTO rtpengine (setid, url) VALUES (3, '"+url+"');")
		}
		used := func() string { return checked(server, "relay") }
		until(t, "the script asks no relay", func() bool { return used() == "none" })
		var r reply
		for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
			r = b.run(nocToken, "rtpengine.reload", `{}`)
			if p := r.problem(); p != "busy" && p != "restarted" {
				break
			}
		}
		if r.Outcome != audit.Applied || !r.Verified || r.Before["relays"] != 0.0 || r.After["relays"] != 2.0 {
			t.Errorf("%d %s", r.Status, r.Text)
		}
		recorded(t, server.Version, map[string]string{"rtpengine.reload": seen(r)})
		until(t, "the script asks one of the new relays", func() bool { return slices.Contains(urls, used()) })

		first := used()
		other := urls[1-slices.Index(urls, first)]
		b.wants(t, "rtpengine.set-enabled", fmt.Sprintf(`{"url":%q,"enabled":false}`, first), audit.Applied, true)
		until(t, "the script asks the other relay", func() bool { return used() == other })
		b.wants(t, "rtpengine.set-enabled", fmt.Sprintf(`{"url":%q,"enabled":true}`, first), audit.Applied, true)
		until(t, "the script asks the first relay again", func() bool { return used() == first })
	})
}

// dialogConfirmed is DLG_STATE_CONFIRMED of modules/dialog/dlg_hash.h. Calls stay in
// the list for some seconds after they end.
const dialogConfirmed = 4

// dialogsOf: a call that SIPp holds is really ended.
func dialogsOf(t *testing.T, server *kamailiotest.Server, run runner) {
	t.Helper()
	type dialog struct {
		CallID string `json:"call-id"`
		State  int
		Caller struct{ Tag string }
		Callee struct{ Tag string }
	}
	list := func() []dialog {
		var all []dialog
		if err := json.Unmarshal(server.RPC(t, "dlg.list"), &all); err != nil {
			t.Fatal(err)
		}
		return slices.DeleteFunc(all, func(d dialog) bool { return d.State != dialogConfirmed })
	}
	before := list()
	if len(before) < 3 {
		t.Fatalf("%d dialogs", len(before))
	}
	gone := func(callID string) bool {
		return !slices.ContainsFunc(list(), func(d dialog) bool { return d.CallID == callID })
	}
	first, second := before[0], before[1]
	if r := run("dialog.end", fmt.Sprintf(`{"call_id":%q}`, first.CallID), audit.Applied, true); r.Before["state"] != 4.0 {
		t.Errorf("%s", r.Text)
	}
	until(t, "dialog.end", func() bool { return gone(first.CallID) })
	run("dialog.terminate", fmt.Sprintf(`{"call_id":%q,"from_tag":%q,"to_tag":%q}`, second.CallID, second.Caller.Tag, second.Callee.Tag), audit.Applied, true)
	until(t, "dialog.terminate", func() bool { return gone(second.CallID) })
	// SIPp received a BYE in each call.
	until(t, "SIPp's BYE", func() bool {
		out, _ := exec.Command("sh", "-c", "cat "+filepath.Join(server.Dir, "traffic")+"/held*.err").Output()
		return strings.Contains(string(out), "BYE") && strings.Contains(string(out), first.CallID) && strings.Contains(string(out), second.CallID)
	})
	if r := run("dialog.end", `{"call_id":"nosuch@call"}`, audit.Refused, false); r.problem() != "target-not-found" {
		t.Errorf("%s", r.Text)
	}
	phone := newGateway(t)
	run("dialog.bridge", fmt.Sprintf(`{"from":"sip:a@127.0.0.1:%d","to":"sip:b@127.0.0.1:%d"}`, phone.Port(), phone.Port()), audit.Unverified, false)
	until(t, "dialog.bridge", func() bool { return phone.Invites.Load() > 0 })
}

// registrationsOf: a removed user cannot be called.
func registrationsOf(t *testing.T, server *kamailiotest.Server, run runner) {
	t.Helper()
	found := regexp.MustCompile(`"AoR":\s*"(user[0-9]+@example\.com)"`).FindAllStringSubmatch(string(server.RPC(t, "ul.dump", "brief")), -1)
	if len(found) < 2 {
		t.Fatalf("%d users", len(found))
	}
	one, two := found[0][1], found[1][1]
	name := func(aor string) string { user, _, _ := strings.Cut(aor, "@"); return user }
	if status := invite(t, server, name(one)); status == "404" || status == "" {
		t.Errorf("%s before: %s", one, status)
	}
	if r := run("usrloc.remove", `{"table":"location","aor":"`+one+`"}`, audit.Applied, true); r.Before["contacts"] != 1.0 {
		t.Errorf("%s", r.Text)
	}
	if status := invite(t, server, name(one)); status != "404" {
		t.Errorf("%s after: %s", one, status)
	}
	contact := regexp.MustCompile(`"Address":\s*"([^"]+)"`).FindStringSubmatch(string(server.RPC(t, "ul.lookup", "location", two)))
	if contact == nil {
		t.Fatal("ul.lookup")
	}
	run("usrloc.remove-contact", `{"table":"location","aor":"`+two+`","contact":"`+contact[1]+`"}`, audit.Applied, true)
	if status := invite(t, server, name(two)); status != "404" {
		t.Errorf("%s after: %s", two, status)
	}
	if r := run("usrloc.remove", `{"table":"location","aor":"nobody@example.com"}`, audit.Refused, false); r.problem() != "target-not-found" {
		t.Errorf("%s", r.Text)
	}
}

// trunksOf: Kamailio registers, or stops registering, at another server, which here is
// itself.
func trunksOf(t *testing.T, server *kamailiotest.Server, run runner) {
	t.Helper()
	sql(t, server, `INSERT INTO uacreg (l_uuid, l_username, l_domain, r_username, r_domain, realm, auth_username, auth_password, auth_ha1, auth_proxy, expires, flags, reg_delay)
		SELECT 'trunk-new', 'trunknew', 'example.com', 'trunknew', 'example.com', realm, 'trunknew', auth_password, auth_ha1, auth_proxy, 333, 0, 0 FROM uacreg WHERE l_uuid='trunk-b';`)
	if r := run("uac.reload", `{}`, audit.Applied, true); r.Before["registrations"] != 4.0 || r.After["registrations"] != 5.0 {
		t.Errorf("uac.reload: %s", r.Text)
	}
	if got := string(server.RPC(t, "uac.reg_info", "l_uuid", "trunk-new")); !strings.Contains(got, "333") {
		t.Errorf("uac.reload: %s", got)
	}
	info := func() string { return string(server.RPC(t, "uac.reg_info", "l_uuid", "trunk-b")) }
	flags := func() int64 {
		m := regexp.MustCompile(`"flags":\s*([0-9]+)`).FindStringSubmatch(info())
		if m == nil {
			t.Fatal("uac.reg_info")
		}
		n, _ := strconv.ParseInt(m[1], 10, 64)
		return n
	}
	run("uac.disable", `{"uuid":"trunk-b"}`, audit.Applied, true)
	if flags()&1 != 1 { // no de-registration is sent: Kamailio only stops renewing
		t.Error("not disabled")
	}
	run("uac.enable", `{"uuid":"trunk-b"}`, audit.Applied, true)
	if flags()&1 != 0 {
		t.Error("still disabled")
	}
	there := func(who string) bool {
		return strings.Contains(string(server.RPC(t, "ul.dump", "brief")), who)
	}
	if there("trunko@example.com") {
		t.Error("trunk-off is registered, and disabled")
	}
	run("uac.enable", `{"uuid":"trunk-off"}`, audit.Applied, true)
	until(t, "the trunk that was off registers", func() bool { return there("trunko@example.com") })
	sql(t, server, "UPDATE uacreg SET expires=444 WHERE l_uuid='trunk-b';")
	run("uac.refresh", `{"uuid":"trunk-b"}`, audit.Applied, true)
	if !strings.Contains(info(), "444") {
		t.Errorf("not refreshed: %s", info())
	}
	until(t, "the trunk registers for its new time", func() bool {
		m := regexp.MustCompile(`"Expires":\s*"?([0-9]+)`).FindStringSubmatch(string(server.RPC(t, "ul.lookup", "location2", "trunkb@example.net")))
		if m == nil {
			return false
		}
		n, err := strconv.Atoi(m[1])
		return err == nil && n <= 444 && n > 400
	})
	until(t, "the new trunk registers", func() bool {
		return strings.Contains(string(server.RPC(t, "ul.dump", "brief")), "trunknew@example.com")
	})
}

// tablesOf: the content of the database is loaded, and values that are set are present.
func tablesOf(t *testing.T, server *kamailiotest.Server, run runner) {
	t.Helper()
	rpc := func(method string, params ...any) string { return string(server.RPC(t, method, params...)) }
	sql(t, server, `INSERT INTO domain (domain, did) VALUES ('new.example', 'new.example');
		INSERT INTO address (grp, ip_addr, mask, port, tag) VALUES (9, '203.0.113.99', 32, 0, 'new');
		INSERT INTO trusted (src_ip, proto, from_pattern, ruri_pattern, tag, priority) VALUES ('203.0.113.98', 'any', NULL, NULL, NULL, 0);
		INSERT INTO pdt (sdomain, prefix, domain) VALUES ('*', '44', 'uk.example.com');
		INSERT INTO mtree (tprefix, tvalue) VALUES ('44', 'United Kingdom');
		INSERT INTO htable (key_name, key_type, value_type, key_value) VALUES ('new', 0, 0, 'yes');
		INSERT INTO dialplan (dpid, pr, match_op, match_exp, match_len, subst_exp, repl_exp, attrs) VALUES (7, 1, 0, '112', 3, '', '', 'new');`)
	seen := func(name, before, after string, act func()) {
		t.Helper()
		turns(t, server, name, before, after, act)
	}
	seen("domain", "no", "yes", func() { run("domain.reload", `{}`, audit.Applied, true) })
	if !strings.Contains(rpc("domain.dump"), "new.example") {
		t.Error("domain.reload")
	}
	// A program that does not know what else reloads the addresses of 5.x cannot read
	// them safely. The subnets are safe to read.
	seen("address", "no", "yes", func() { run("permissions.reload-address", `{}`, onSix(server), six(server)) })
	if !strings.Contains(rpc("permissions.addressDump"), "203.0.113.99") {
		t.Error("permissions.reload-address")
	}
	seen("trusted", "no", "yes", func() { run("permissions.reload-trusted", `{}`, onSix(server), six(server)) })
	if !strings.Contains(rpc("permissions.trustedDump"), "203.0.113.98") {
		t.Error("permissions.reload-trusted")
	}
	seen("pdt", "nowhere.example", "uk.example.com", func() { run("pdt.reload", `{}`, audit.Unverified, false) })
	if !strings.Contains(rpc("pdt.list"), "uk.example.com") {
		t.Error("pdt.reload")
	}
	seen("mtree", "no", "United Kingdom", func() { run("mtree.reload", `{"tree":"prefixes"}`, audit.Applied, true) })
	if !strings.Contains(rpc("mtree.list", "prefixes"), "United Kingdom") {
		t.Error("mtree.reload")
	}
	if r := run("mtree.reload", `{"tree":"prefixe"}`, audit.Refused, false); r.Status != 409 && r.Status != 422 {
		t.Errorf("the beginning of a name: %s", r.Text)
	}
	seen("new", "<null>", "yes", func() { run("htable.reload", `{"table":"settings"}`, audit.Applied, true) })
	if !strings.Contains(rpc("htable.get", "settings", "new"), "yes") {
		t.Error("htable.reload")
	}
	seen("dialplan", "no", "yes", func() { run("dialplan.reload", `{}`, audit.Unverified, false) })
	if server.Version != "5.4" && !strings.Contains(rpc("dialplan.dump", 7), "112") { // it kills 5.4.4
		t.Error("dialplan.reload")
	}

	seen("ban", "<null>", "7", func() { run("htable.set-int", `{"table":"ipban","key":"192.0.2.200","value":7}`, audit.Applied, true) })
	run("htable.set-int", `{"table":"ipban","key":"192.0.2.200","value":7}`, audit.NoChange, true)
	if !strings.Contains(rpc("htable.get", "ipban", "192.0.2.200"), "7") {
		t.Error("htable.set-int")
	}
	seen("text", "<null>", `a "b" \`, func() {
		run("htable.set-string", `{"table":"ipban","key":"text","value":"a \"b\" \\"}`, audit.Applied, true)
	})
	run("htable.set-string", `{"table":"ipban","key":"quo\"te \\ x","value":"a \"b\" \\"}`, audit.Applied, true)
	if !strings.Contains(rpc("htable.dump", "ipban"), `a \"b\" \\`) {
		t.Errorf("htable.set-string: %s", rpc("htable.dump", "ipban"))
	}
	seen("ban", "7", "<null>", func() { run("htable.delete", `{"table":"ipban","key":"192.0.2.200"}`, audit.Applied, true) })
	if strings.Contains(rpc("htable.dump", "ipban"), "192.0.2.200") {
		t.Error("htable.delete")
	}
	if r := run("htable.delete", `{"table":"ipban","key":"192.0.2.200"}`, audit.Refused, false); r.problem() != "target-not-found" {
		t.Errorf("%s", r.Text)
	}
	if before := checked(server, "regs"); before == "0" || before == "never" {
		t.Errorf("before stats.reset: %s", before)
	}
	run("stats.reset", `{"group":"registrar"}`, audit.Applied, true)
	until(t, "stats.reset is seen by the script", func() bool { n, err := strconv.Atoi(checked(server, "regs")); return err == nil && n < 5 })
	if got := rpc("stats.get_statistics", "registrar:"); !strings.Contains(got, "registrar:accepted_regs = 0") {
		t.Errorf("%s", got)
	}
	// The statistics of sl are computed when read and cannot be reset.
	run("stats.reset", `{"group":"sl"}`, audit.Unverified, false)
	seen("debug", "never", "on", func() { run("cfg.set", `{"variable":"core.debug","value":1}`, audit.Applied, true) })
	if got := rpc("cfg.get", "core", "debug"); strings.TrimSpace(got) != "1" {
		t.Errorf("core.debug is %s", got)
	}
	run("cfg.set", `{"variable":"core.debug","value":0}`, audit.Applied, true)
}

// agentsOf: a blocked user agent gets no reply and is noted in an htable. The script
// applies secfilter to agents with this name.
func agentsOf(t *testing.T, server *kamailiotest.Server, run runner) {
	t.Helper()
	sees := func(what, agent string, blocked bool) {
		t.Helper()
		scanner := newPhone(t, server)
		noted := func() bool { return strings.Contains(string(server.RPC(t, "htable.dump", "ipban")), agent) }
		scanner.send(t, "OPTIONS", "ping", "User-Agent: "+agent)
		until(t, what+": what became of "+agent, func() bool { return noted() || len(scanner.got("SIP/2.0 200")) > 0 })
		if noted() != blocked {
			t.Errorf("%s: %s is blocked: %t", what, agent, !blocked)
		}
		if noted() {
			server.RPC(t, "htable.delete", "ipban", agent)
		}
		if six(server) && strings.Contains(string(server.RPC(t, "secfilter.print", "ua")), agent) != blocked {
			t.Errorf("%s: secfilter.print is of another mind about %s", what, agent)
		}
	}
	const evil, added = "evil friendly-scanner", "new friendly-scanner"
	sees("before", evil, false)
	run("secfilter.block", `{"kind":"ua","value":"`+evil+`"}`, onSix(server), six(server))
	sees("secfilter.block", evil, true)
	if slices.Contains([]string{"5.4", "5.6", "6.0"}, server.Version) {
		if r := run("secfilter.unblock", `{"kind":"ua","value":"`+evil+`"}`, audit.Refused, false); r.Status != 501 {
			t.Errorf("%s", r.Text)
		}
	} else {
		run("secfilter.unblock", `{"kind":"ua","value":"`+evil+`"}`, audit.Applied, true)
		sees("secfilter.unblock", evil, false)
	}
	sql(t, server, "INSERT INTO secfilter (action, type, data) VALUES (0, 0, '"+added+"');")
	sees("before", added, false)
	run("secfilter.reload", `{}`, onSix(server), six(server))
	sees("secfilter.reload", added, true)
	sees("secfilter.reload", evil, false) // it was only in memory
}

// certificateOf: new connections get the new certificate, unless it is invalid.
func certificateOf(t *testing.T, server *kamailiotest.Server, run runner) {
	t.Helper()
	served := func() string {
		t.Helper()
		dialer := &net.Dialer{Timeout: 5 * time.Second}
		conn, err := tls.DialWithDialer(dialer, "tcp", server.TLSAddr, &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // the test only reads the certificate
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].SerialNumber.String()
	}
	write := func(name, kind string, der []byte) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(server.Dir, name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	old := served()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(4711), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"localhost"}}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write("tls.crt", "CERTIFICATE", certificate)
	write("tls.key", "PRIVATE KEY", private)
	if got := served(); got != old {
		t.Errorf("before tls.reload: serial %s", got)
	}
	run("tls.reload", `{}`, audit.Unverified, false)
	if got := served(); got != "4711" {
		t.Errorf("tls.reload: serial %s", got)
	}
	write("tls.crt", "CERTIFICATE", []byte("not one"))
	if r := run("tls.reload", `{}`, audit.Failed, false); r.problem() != "kamailio-error" {
		t.Errorf("%s", r.Text)
	}
	if got := served(); got != "4711" {
		t.Errorf("after a broken certificate: serial %s", got)
	}
}

// presenceOf: watchers are notified, and expired state is removed.
func presenceOf(t *testing.T, server *kamailiotest.Server, run runner) {
	t.Helper()
	listed := func() bool { return strings.Contains(string(server.RPC(t, "presence.presentity_list")), "shortlived") }
	user, watcher := newPhone(t, server), newPhone(t, server)
	user.send(t, "PUBLISH", "shortlived", `Event: presence
Expires: 1
Content-Type: application/pidf+xml

<?xml version="1.0"?>
<presence xmlns="urn:ietf:params:xml:ns:pidf" entity="sip:shortlived@example.com"><tuple id="t1"><status><basic>open</basic></status></tuple></presence>
`)
	until(t, "published", func() bool { return len(user.got("SIP/2.0 200")) == 1 && listed() })
	expired := time.Now().Add(3 * time.Second) // presence counts in whole seconds

	watcher.send(t, "SUBSCRIBE", "watched", "Event: presence\nExpires: 60\nAccept: application/pidf+xml")
	until(t, "the first NOTIFY", func() bool { return len(watcher.got("NOTIFY ")) == 1 })
	run("presence.refresh-watchers", `{"uri":"sip:watched@example.com","event":"presence","type":"published"}`, audit.Unverified, false)
	until(t, "a NOTIFY for published", func() bool { return len(watcher.got("NOTIFY ")) == 2 })
	// The database has no rules for it.
	if r := run("presence.refresh-watchers", `{"uri":"sip:watched@example.com","event":"presence","type":"rules"}`, audit.Failed, false); r.problem() != "kamailio-error" {
		t.Errorf("%s", r.Text)
	}

	until(t, "the second in which it expires", func() bool { return time.Now().After(expired) })
	if !listed() {
		t.Error("gone before presence.cleanup")
	}
	run("presence.cleanup", `{}`, audit.Unverified, false)
	if listed() {
		t.Error("there after presence.cleanup")
	}
}

// TestWatcherPermissions: the database defines who may watch. When it changes, watchers
// are accepted or rejected accordingly.
func TestWatcherPermissions(t *testing.T) {
	onAll(t, kamailiotest.Config{Extra: "#!define WITH_PRESENCE_RULES\n"}, func(t *testing.T, server *kamailiotest.Server) {
		b := realEndpoint(t, server.HTTPURL)
		isUp(t, server)
		watcher := newPhone(t, server)
		told := func(state string) func() bool {
			return func() bool {
				return slices.ContainsFunc(watcher.got("NOTIFY "), func(m string) bool {
					return strings.Contains(m, "Subscription-State: "+state)
				})
			}
		}
		status := func() string {
			t.Helper()
			out, err := exec.Command("sqlite3", "-cmd", ".timeout 5000", filepath.Join(server.Dir, "kamailio.sqlite"),
				"SELECT status, reason FROM watchers WHERE presentity_uri='sip:watched@example.com' AND watcher_username='tester';").CombinedOutput()
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			return strings.TrimSpace(string(out))
		}
		refresh := func(outcome audit.Outcome) reply {
			t.Helper()
			return b.wants(t, "presence.refresh-watchers", `{"uri":"sip:watched@example.com","event":"presence","type":"rules"}`, outcome, false)
		}
		rules := func(handling string) {
			t.Helper()
			// 2 is PRES_RULES of modules/xcap_client/xcap_callbacks.h.
			sql(t, server, `DELETE FROM xcap; INSERT INTO xcap (username, domain, doc, doc_type, etag, source, doc_uri, port) VALUES ('watched', 'example.com',
				'<?xml version="1.0" encoding="UTF-8"?><cr:ruleset xmlns="urn:ietf:params:xml:ns:pres-rules" xmlns:cr="urn:ietf:params:xml:ns:common-policy"><cr:rule id="a"><cr:conditions><cr:identity><cr:one id="sip:tester@example.com"/></cr:identity></cr:conditions><cr:actions><sub-handling>`+handling+`</sub-handling></cr:actions></cr:rule></cr:ruleset>',
				2, 'e', 0, 'sip:watched@example.com/pres-rules', 0);`)
		}
		watcher.send(t, "SUBSCRIBE", "watched", "Event: presence\nExpires: 60\nAccept: application/pidf+xml")
		until(t, "a NOTIFY that it has to wait", told("pending"))
		until(t, "the watcher in the database", func() bool { return status() == "2|" })
		// There is no rule yet.
		if r := refresh(audit.Failed); r.problem() != "kamailio-error" {
			t.Errorf("%s", r.Text)
		}
		rules("allow")
		if told("active")() {
			t.Error("let in before presence.refresh-watchers")
		}
		refresh(audit.Unverified)
		until(t, "a NOTIFY that it is let in", told("active"))
		if is := status(); is != "1|" {
			t.Errorf("the database has %q", is)
		}
		rules("block")
		refresh(audit.Unverified)
		until(t, "a NOTIFY that it is turned out", told("terminated;reason=rejected"))
		if is := status(); is != "3|rejected" {
			t.Errorf("the database has %q", is)
		}
	})
}

// TestActionsOverEachTransport: an RPC arrives unchanged over every transport.
func TestActionsOverEachTransport(t *testing.T) {
	onAll(t, kamailiotest.Config{}, func(t *testing.T, server *kamailiotest.Server) {
		uris := []string{server.HTTPURL, "unix://" + server.SocketPath, "fifo://" + server.FIFOPath + "?reply_dir=" + server.FIFOReplyDir}
		if server.TCPAddr != "" {
			uris = append(uris, "tcp://"+server.TCPAddr)
		}
		isUp(t, server)
		for _, uri := range uris {
			scheme, _, _ := strings.Cut(uri, ":")
			t.Run(scheme, func(t *testing.T) {
				b := realEndpoint(t, uri)
				b.wants(t, "dispatcher.reload", `{}`, audit.Applied, true)
				for _, value := range []string{`plain`, `quo\"te`, `back\\slash\\`, `{\"method\":\"core.kill\"}`, `<&>'/`, `\\u0041`} {
					b.wants(t, "htable.set-string", `{"table":"calls","key":"`+value+`","value":"`+value+`"}`, audit.Applied, true)
					b.wants(t, "htable.delete", `{"table":"calls","key":"`+value+`"}`, audit.Applied, true)
				}
				b.wants(t, "htable.set-int", `{"table":"calls","key":"n","value":-2147483648}`, audit.Applied, true)
				b.wants(t, "htable.delete", `{"table":"calls","key":"n"}`, audit.Applied, true)
				b.wants(t, "cfg.set", `{"variable":"core.debug","value":-1}`, audit.Applied, true)
				b.wants(t, "cfg.set", `{"variable":"core.debug","value":0}`, audit.Applied, true)
			})
		}
	})
}

// TestStormOfReloads sends 1,000 reload requests from 50 clients, during calls and
// scrapes.
func TestStormOfReloads(t *testing.T) {
	onAll(t, kamailiotest.Config{}, func(t *testing.T, server *kamailiotest.Server) {
		target, err := url.Parse(server.HTTPURL)
		if err != nil {
			t.Fatal(err)
		}
		// Count the concurrent calls to Kamailio.
		var reloads, reads, total atomic.Int32
		gw := newGateway(t)
		sql(t, server, fmt.Sprintf("UPDATE dispatcher SET destination='sip:127.0.0.1:%d', flags=0 WHERE setid=1;", gw.Port()))
		reloadGateways(t, server)
		proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: target.Host})
		proxy.ErrorLog = stdlog.New(io.Discard, "", 0)
		counter := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body := make([]byte, r.ContentLength)
			_, _ = r.Body.Read(body)
			r.Body = readCloser{strings.NewReader(string(body))}
			switch {
			case strings.Contains(string(body), `"dispatcher.reload"`):
				total.Add(1)
				if reloads.Add(1) > 1 {
					t.Error("two reloads at once")
				}
				if reads.Load() > 0 {
					t.Error("a reload during a read")
				}
				defer reloads.Add(-1)
			case strings.Contains(string(body), `"dispatcher.list"`):
				reads.Add(1)
				if reloads.Load() > 0 {
					t.Error("a read during a reload")
				}
				defer reads.Add(-1)
			}
			proxy.ServeHTTP(w, r)
		}))
		defer counter.Close()
		b, scrapes := endpointTo(t, counter.URL+"/RPC")
		b.start(func(s *Server) {
			s.limits.burst, s.limits.perUser = 1e6, 1e6
			hurry(s.inForce.Load())
		})
		pid := server.PID()
		// Until then, the reload is refused by Kamailio, because the one above was
		// too recent (reload_delta, 1 s), and by min_uptime.
		until(t, "up for some seconds", func() bool {
			var up struct{ Uptime int }
			return json.Unmarshal(server.RPC(t, "core.uptime"), &up) == nil && up.Uptime >= 4
		})

		ctx, cancel := context.WithCancel(context.Background())
		var load sync.WaitGroup
		var answeredCalls, scraped atomic.Int32
		for range 4 {
			load.Go(func() {
				for ctx.Err() == nil {
					if invite(t, server, "1000") != "" {
						answeredCalls.Add(1)
					}
				}
			})
		}
		load.Go(func() {
			for ctx.Err() == nil {
				if _, err := scrapes.Call(ctx, "dispatcher.list"); err == nil {
					scraped.Add(1)
				}
			}
		})
		var clients sync.WaitGroup
		var mu sync.Mutex
		said := map[string]int{}
		for range 50 {
			clients.Go(func() {
				for range 20 {
					r := b.run(nocToken, "dispatcher.reload", `{}`)
					mu.Lock()
					said[fmt.Sprint(r.Status, " ", r.problem(), " ", r.Outcome)]++
					mu.Unlock()
					if r.Status != 200 && r.Status != 409 {
						t.Errorf("%d %s", r.Status, r.Text)
					}
				}
			})
		}
		clients.Wait()
		cancel()
		load.Wait()
		applied := said["200  applied"]
		t.Logf("%v; %d reloads reached Kamailio; %d calls, %d scrapes", said, total.Load(), answeredCalls.Load(), scraped.Load())
		if applied == 0 || scraped.Load() == 0 || answeredCalls.Load() == 0 {
			t.Error("nothing happened")
		}
		if server.PID() != pid || len(server.RPC(t, "core.uptime")) == 0 {
			t.Error("Kamailio is not what it was")
		}
		if log := server.Log(); strings.Contains(log, "core was not generated") || strings.Contains(log, "child process") {
			t.Errorf("a process died:\n%s", log)
		}
		outcomes := 0
		for _, r := range b.records() {
			if r.Kind == audit.KindOutcome && r.Outcome == audit.Applied {
				outcomes++
			}
		}
		if outcomes != applied {
			t.Errorf("%d applied, %d in the audit log", applied, outcomes)
		}
	})
}

type readCloser struct{ *strings.Reader }

func (readCloser) Close() error { return nil }
