//go:build linux

package admin

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/audit"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc/kamrpctest"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc/kamrpctest/kamailiotest"
)

// outcomesOf runs the test for each version of Kamailio with an endpoint.
func outcomesOf(t *testing.T, run func(t *testing.T, server *kamailiotest.Server, b *endpoint)) {
	t.Helper()
	onAll(t, kamailiotest.Config{}, func(t *testing.T, server *kamailiotest.Server) {
		b := realEndpoint(t, server.HTTPURL)
		isUp(t, server)
		run(t, server, b)
	})
}

func isFalse(v any) bool {
	is, ok := v.(bool)
	return ok && !is
}

// A partial read is not enough for a verified outcome, and an action that cannot be
// verified raises no alarm.
func TestVerifiedNeedsReads(t *testing.T) {
	outcomesOf(t, func(t *testing.T, server *kamailiotest.Server, b *endpoint) {
		// The addresses of 5.x cannot be read, only the subnets.
		sql(t, server, "DELETE FROM address WHERE mask=32 AND ip_addr GLOB '[0-9]*.*';")
		outcome, said := audit.Unverified, "has no safe RPC for the number of addresses"
		if six(server) {
			outcome, said = audit.Contradicted, "addresses fell from"
		}
		if r := b.wants(t, "permissions.reload-address", `{}`, outcome, false); !strings.Contains(r.Text, said) {
			t.Errorf("%s", r.Text)
		}

		// A trunk with a dead remote side is reloaded, but does not register.
		if r := b.wants(t, "uac.refresh", `{"uuid":"trunk-dead"}`, audit.Unverified, false); !isFalse(r.After["registered"]) {
			t.Errorf("%s", r.Text)
		}
		b.wants(t, "uac.refresh", `{"uuid":"trunk-b"}`, audit.Applied, true)

		// The statistics of sl are computed when read and cannot be reset.
		server.RPC(t, "core.uptime")
		if r := b.wants(t, "stats.reset", `{"group":"sl"}`, audit.Unverified, false); r.Status != 200 || r.problem() != "" {
			t.Errorf("%s", r.Text)
		}
		if r := b.run(nocToken, "remediation.reset", `{"rule":"nosuch"}`); r.problem() != "target-not-found" {
			t.Errorf("%s", r.Text)
		}
	})
}

// A failed action may have lost existing data.
func TestFailedIsNotUnchanged(t *testing.T) {
	outcomesOf(t, func(t *testing.T, server *kamailiotest.Server, b *endpoint) {
		sql(t, server, "ALTER TABLE uacreg RENAME TO away; ALTER TABLE secfilter RENAME TO away2;")
		r := b.wants(t, "uac.reload", `{}`, audit.Failed, false)
		if r.problem() != "failed-changed" || r.Before["registrations"] != 4.0 || r.After["registrations"] != 0.0 || !strings.Contains(r.Text, "registrations 4 to 0") {
			t.Errorf("%s", r.Text)
		}
		if !strings.Contains(b.log.String(), `changed="registrations 4 to 0"`) {
			t.Error("the log does not say what was lost")
		}
		r = b.wants(t, "secfilter.reload", `{}`, audit.Failed, false)
		switch {
		case six(server) && (r.problem() != "failed-changed" || r.Before["blocked"] != 7.0 || r.After["blocked"] != 0.0 || r.After["allowed"] != 0.0):
			t.Errorf("%s", r.Text)
		case !six(server) && (!strings.Contains(r.Text, "its effect cannot be read here") || !strings.Contains(r.Text, "Error loading data")):
			t.Errorf("%s", r.Text)
		}
		for _, r := range b.records() {
			if r.Kind == audit.KindOutcome && r.Action == "uac.reload" && !r.Changed() {
				t.Errorf("the audit log has it as no change: %s", fmt.Sprint(r))
			}
		}
		// Kamailio reloads uac only once in reg_gc_interval (150 s) or reload_delta (30 s).
		if r := b.run(nocToken, "uac.reload", `{}`); r.problem() != "busy" || !strings.Contains(r.Text, "shift records") {
			t.Errorf("%s", r.Text)
		}
	})
}

// The last read is not canceled when Waits is over: otherwise its method would be
// skipped by scrapes and by the next action.
func TestLastReadAfterwardsIsNotCutOff(t *testing.T) {
	b := newEndpoint(t, everything())
	began := time.Now()
	b.fake.HandleFunc("core.uptime", func(kamrpctest.Request) kamrpctest.Response {
		return kamrpctest.Response{Result: fmt.Sprintf(`{"uptime":%d}`, 1000+int(time.Since(began).Seconds()))}
	})
	b.fake.HandleFunc("uac.reg_info", func(kamrpctest.Request) kamrpctest.Response {
		time.Sleep(700 * time.Millisecond) // a slow server
		return kamrpctest.Response{Result: `{"l_uuid":"a","flags":16}`}
	})
	b.fake.Handle("uac.reg_refresh", "{}")
	b.start(func(s *Server) { hurry(s.inForce.Load()) })
	b.server.inForce.Load().policy.Catalogue.Get("uac.refresh").Waits = 6 * time.Second
	if r := b.run(nocToken, "uac.refresh", `{"uuid":"a"}`); r.Outcome != audit.Unverified || !strings.Contains(r.Detail, "not registered yet") {
		t.Errorf("%s", r.Text)
	}
	if r := b.run(nocToken, "uac.refresh", `{"uuid":"a"}`); r.Outcome != audit.Unverified {
		t.Errorf("%s", r.Text)
	}
}

// A gateway that is taken out gets no calls, even if the set has its URI twice.
// Kamailio changes only the first destination and reports success.
func TestDisabledGatewayGetsNoCalls(t *testing.T) {
	outcomesOf(t, func(t *testing.T, server *kamailiotest.Server, b *endpoint) {
		one, two := newGateway(t), newGateway(t)
		sql(t, server, fmt.Sprintf(`DELETE FROM dispatcher WHERE setid=1; INSERT INTO dispatcher (setid, destination, flags, priority, attrs, description)
			VALUES (1, '%[1]s;transport=udp', 0, 9, 'duid=a', ''), (1, '%[1]s;transport=UDP', 0, 5, 'duid=b', ''), (1, '%[2]s', 0, 0, 'duid=c', '');`, one.URI(), two.URI()))
		b.wants(t, "dispatcher.reload", `{}`, audit.Applied, true)
		flags := func() string {
			flags := map[string]string{}
			for _, row := range regexp.MustCompile(`"FLAGS":\s*"(..)",[^}]*"BODY":\s*"duid=(.)"`).FindAllStringSubmatch(string(server.RPC(t, "dispatcher.list")), -1) {
				flags[row[2]] = row[1]
			}
			return flags["a"] + " " + flags["b"] + " " + flags["c"]
		}
		set := func(state string) string {
			return fmt.Sprintf(`{"set":1,"uri":"%s;transport=Udp","state":%q}`, one.URI(), state)
		}
		calls := func() int32 {
			one.Invites.Store(0)
			for i := range 6 {
				invite(t, server, fmt.Sprint(1000+i))
			}
			return one.Invites.Load()
		}
		refused := func(what, left string) {
			t.Helper()
			r := b.wants(t, "dispatcher.set-state", set("dx"), audit.Refused, false)
			if r.problem() != "guard" || !strings.Contains(r.Text, "more than once") || flags() != left || calls() == 0 {
				t.Errorf("%s: %s, %s", what, flags(), r.Text)
			}
		}
		refused("both active", "AX AX AX")
		server.RPC(t, "dispatcher.set_state", "dx", 1, one.URI()+";transport=udp")
		refused("the first is out already", "DX AX AX")

		server.RPC(t, "dispatcher.set_duid_state", "dx", 1, "b")
		b.wants(t, "dispatcher.set-state", set("dx"), audit.NoChange, true)
		if n := calls(); n != 0 {
			t.Errorf("%d calls to a gateway that is out", n)
		}
		b.wants(t, "dispatcher.set-state", set("ax"), audit.Applied, true)
		b.wants(t, "dispatcher.set-state", set("dx"), audit.Applied, true)
		if n := calls(); n != 0 || flags() != "DX DX AX" {
			t.Errorf("%s, %d calls to a gateway that was taken out", flags(), n)
		}
	})
}

// call starts a call through Kamailio that the caller never ends. It returns the
// Call-ID once a reply with this status has arrived.
func call(t *testing.T, server *kamailiotest.Server, user, status string) string {
	t.Helper()
	conn, err := net.Dial("udp", server.SIPAddr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	id := fmt.Sprintf("admintest-%d-%d", time.Now().UnixNano(), calls.Add(1))
	me := conn.LocalAddr().String()
	send := func(method, uri, to, rest string) {
		text := method + " " + uri + " SIP/2.0\nVia: SIP/2.0/UDP " + me + ";branch=z9hG4bK" + id + method + "\nFrom: <sip:tester@example.com>;tag=" + id +
			"\n" + to + "\nCall-ID: " + id + "\nCSeq: 1 " + method + "\nContact: <sip:tester@" + me + ">\nMax-Forwards: 70\n" + rest + "User-Agent: admintest\nContent-Length: 0\n\n"
		if _, err := conn.Write([]byte(strings.ReplaceAll(text, "\n", "\r\n"))); err != nil {
			t.Fatal(err)
		}
	}
	uri := "sip:" + user + "@example.com"
	send("INVITE", uri, "To: <"+uri+">", "")
	_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	buffer := make([]byte, 1<<16)
	for {
		n, err := conn.Read(buffer)
		if err != nil {
			t.Fatalf("no %s: %v", status, err)
		}
		reply := strings.ReplaceAll(string(buffer[:n]), "\r\n", "\n")
		if !strings.HasPrefix(reply, "SIP/2.0 "+status) {
			continue
		}
		if status == "200" {
			header := func(name string) string { return regexp.MustCompile(`(?m)^` + name + `: .*`).FindString(reply) }
			contact := strings.Trim(strings.TrimPrefix(header("Contact"), "Contact: "), "<>")
			send("ACK", contact, header("To"), strings.Replace(header("Record-Route"), "Record-", "", 1)+"\n")
		}
		return id
	}
}

// A ringing call cannot be ended, and a call with both ends dead ends later.
func TestCallsThatDoNotEndAtOnce(t *testing.T) {
	outcomesOf(t, func(t *testing.T, server *kamailiotest.Server, b *endpoint) {
		var answered atomic.Bool
		gw := kamailiotest.NewGateway(t, func(method string) (string, time.Duration) {
			switch method {
			case "INVITE":
				if answered.Load() {
					return "200 OK", 0
				}
				return "180 Ringing", 0
			case "OPTIONS":
				return "200 OK", 0
			}
			return "", 0
		})
		sql(t, server, "DELETE FROM dispatcher; INSERT INTO dispatcher (setid, destination, flags, priority, attrs, description) VALUES (1, '"+gw.URI()+"', 0, 0, '', '');")
		server.RPC(t, "dispatcher.reload")
		server.RPC(t, "cfg.set_now_int", "tm", "fr_timer", 9000) // longer than the action waits
		dialog := func(id string) (d struct {
			State          int
			Caller, Callee struct{ Tag string }
		}) {
			_ = json.Unmarshal(bytes.Trim(server.RPC(t, "dlg.dlg_list", id), "[] \t\n"), &d)
			return d
		}
		ringing := call(t, server, "1000", "180")
		until(t, "it rings", func() bool { return dialog(ringing).State == 2 })
		for action, params := range map[string]string{
			"dialog.end":       fmt.Sprintf(`{"call_id":%q}`, ringing),
			"dialog.terminate": fmt.Sprintf(`{"call_id":%q,"from_tag":%q,"to_tag":%q}`, ringing, dialog(ringing).Caller.Tag, "gw"),
		} {
			if r := b.wants(t, action, params, audit.Refused, false); r.problem() != "guard" || !strings.Contains(r.Text, "not answered yet") {
				t.Errorf("%s", r.Text)
			}
		}
		if is := dialog(ringing).State; is != 2 {
			t.Errorf("the call that rings is in state %d", is)
		}

		answered.Store(true)
		stuck := call(t, server, "1001", "200")
		until(t, "it is answered", func() bool { return dialog(stuck).State == 4 })
		r := b.wants(t, "dialog.end", fmt.Sprintf(`{"call_id":%q}`, stuck), audit.Unverified, false)
		if r.Status != 200 || !strings.Contains(r.Text, "fr_timer") || dialog(stuck).State != 4 {
			t.Errorf("%s", r.Text)
		}
		until(t, "it ends", func() bool { return dialog(stuck).State != 4 })
		if is := dialog(stuck); is.State == dialogDeleted {
			b.wants(t, "dialog.end", fmt.Sprintf(`{"call_id":%q}`, stuck), audit.NoChange, true)
		}
	})
}

const dialogDeleted = 5 // DLG_STATE_DELETED of modules/dialog/dlg_hash.h

// A reload that loses routes, or cannot load them, is not a success.
func TestRoutesThatAreGone(t *testing.T) {
	outcomesOf(t, func(t *testing.T, server *kamailiotest.Server, b *endpoint) {
		gw := newGateway(t)
		sql(t, server, fmt.Sprintf(`INSERT INTO dr_gateways (gwid, type, address, strip) VALUES (77, 1, '%s', 0); UPDATE dr_rules SET gwlist='77' WHERE prefix='2';`, gw.Addr))
		routed := func() bool { return invite(t, server, "2001") == "486" }
		b.wants(t, "drouting.reload", `{}`, audit.Unverified, false)
		if !routed() {
			t.Error("no route after drouting.reload")
		}
		sql(t, server, "ALTER TABLE dr_rules RENAME TO away;")
		if r := b.wants(t, "drouting.reload", `{}`, audit.Failed, false); !strings.Contains(r.Text, "failed to load routing data") || !routed() {
			t.Errorf("%s", r.Text)
		}
		sql(t, server, "ALTER TABLE away RENAME TO dr_rules; DELETE FROM dr_rules;")
		if r := b.wants(t, "drouting.reload", `{}`, audit.Unverified, false); !strings.Contains(r.Text, "when the table is empty") || routed() {
			t.Errorf("%s", r.Text)
		}

		// The rules of lcr cannot be read safely.
		sql(t, server, "DELETE FROM lcr_rule; DELETE FROM lcr_rule_target;")
		b.wants(t, "lcr.reload", `{}`, audit.Unverified, false)
		sql(t, server, "DELETE FROM address WHERE ip_addr GLOB '*[a-z]*' AND ip_addr NOT LIKE '%:%';")
		if r := b.wants(t, "permissions.reload-address", `{}`, audit.Contradicted, false); !strings.Contains(r.Text, "domain_names fell from") {
			t.Errorf("%s", r.Text)
		}
	})
}

// Each variable accepts values within its own bounds, and no other value reaches
// Kamailio.
func TestBoundsByVariable(t *testing.T) {
	outcomesOf(t, func(t *testing.T, server *kamailiotest.Server, b *endpoint) {
		get := func(variable string) string {
			group, name, _ := strings.Cut(variable, ".")
			return strings.TrimSpace(string(server.RPC(t, "cfg.get", group, name)))
		}
		set := func(variable string, value any) string {
			return fmt.Sprintf(`{"variable":%q,"value":%v}`, variable, value)
		}
		value := catalogue().Get("cfg.set").Params[1]
		for variable, form := range value.Forms {
			was := get(variable)
			for _, n := range []int64{form.Min, form.Max} {
				if r := b.run(nocToken, "cfg.set", set(variable, n)); r.Status != 200 || !r.Verified || get(variable) != fmt.Sprint(n) {
					t.Errorf("%s %d: %s", variable, n, r.Text)
				}
			}
			server.RPC(t, "cfg.set_now_int", strings.Split(variable, ".")[0], strings.Split(variable, ".")[1], json.Number(was))
			for _, n := range []int64{form.Min - 1, form.Max + 1} {
				if n == 0 && form.Zero != "" {
					continue
				}
				if r := b.wants(t, "cfg.set", set(variable, n), audit.Refused, false); r.Status != 422 || get(variable) != was {
					t.Errorf("%s %d: %s", variable, n, r.Text)
				}
			}
			if form.Zero != "" {
				if r := b.run(nocToken, "cfg.set", set(variable, 0)); r.Status != 200 || !r.Verified || get(variable) != "0" {
					t.Errorf("%s 0: %s", variable, r.Text)
				}
				server.RPC(t, "cfg.set_now_int", strings.Split(variable, ".")[0], strings.Split(variable, ".")[1], json.Number(was))
			}
		}
		for _, n := range []int{1, -3600} {
			if r := b.run(nocToken, "cfg.set", set("registrar.max_expires", n)); r.problem() != "parameter" || !strings.Contains(r.Detail, "60 to 604800 (seconds), or 0 (no maximum)") {
				t.Errorf("%s", r.Text)
			}
		}
	})
}

// secfilter blocks everything that begins with an entry.
func TestShortEntriesBlockTooMuch(t *testing.T) {
	outcomesOf(t, func(t *testing.T, server *kamailiotest.Server, b *endpoint) {
		block := func(kind, value string) reply {
			return b.run(nocToken, "secfilter.block", fmt.Sprintf(`{"kind":%q,"value":%q}`, kind, value))
		}
		for _, tc := range [][2]string{{"ip", "1"}, {"ip", "192.0.2."}, {"ip", "192.0.2.0/24"}, {"ip", "2001:db8:"}, {"ua", "a"}, {"user", "1"}, {"country", "D"}, {"domain", "e"}} {
			if r := block(tc[0], tc[1]); r.problem() != "parameter" {
				t.Errorf("%v: %s", tc, r.Text)
			}
		}
		for _, tc := range [][2]string{{"ip", "192.0.2.1"}, {"ip", "2001:DB8:0:0::1"}, {"country", "kp"}, {"domain", "evil.example"}, {"user", "mallory"}} {
			if r := block(tc[0], tc[1]); r.Outcome != onSix(server) {
				t.Errorf("%v: %s", tc, r.Text)
			}
		}
		if !six(server) {
			return // it prints nothing over JSON-RPC
		}
		if list := string(server.RPC(t, "secfilter.print", "ip")); !strings.Contains(list, `"2001:db8::1"`) {
			t.Errorf("%s", list)
		}
		for _, tc := range [][2]string{{"user", "MALLORY"}, {"ip", "2001:db8::0001"}} {
			if r := block(tc[0], tc[1]); r.Outcome != audit.NoChange {
				t.Errorf("%v: %s", tc, r.Text)
			}
		}
		server.RPC(t, "secfilter.add_wl", "ua", "Good")
		if r := block("ua", "good phone"); r.problem() != "guard" {
			t.Errorf("%s", r.Text)
		}
	})
}

// A gauge that falls does not prove a reset, and one that stays does not prove a
// failure.
func TestResetsAreJudgedOneByOne(t *testing.T) {
	outcomesOf(t, func(t *testing.T, server *kamailiotest.Server, b *endpoint) {
		user := newPhone(t, server)
		user.send(t, "REGISTER", "tester", "Contact: <sip:tester@127.0.0.1:9>\nExpires: 600")
		until(t, "a REGISTER", func() bool { return len(user.got("SIP/2.0 ")) > 0 })
		server.RPC(t, "stats.get_statistics", "registrar:")
		r := b.wants(t, "stats.reset", `{"group":"registrar"}`, audit.Applied, true)
		if r.Before["max_expires"] != r.After["max_expires"] || r.Before["default_expire"] == nil || r.Before["default_expire"] != r.After["default_expire"] {
			t.Errorf("%s", r.Text)
		}
		b.wants(t, "stats.reset", `{"group":"shmem"}`, audit.Unverified, false)
	})
}

// A destination that answers a ping becomes active again, unless it is disabled.
func TestDisabledDestinationStaysDisabled(t *testing.T) {
	outcomesOf(t, func(t *testing.T, server *kamailiotest.Server, b *endpoint) {
		one, two, three := newGateway(t), newGateway(t), newGateway(t)
		sql(t, server, fmt.Sprintf(`DELETE FROM dispatcher WHERE setid=1; INSERT INTO dispatcher (setid, destination, flags, priority, attrs, description)
			VALUES (1, '%s', 0, 0, '', ''), (1, '%s', 0, 0, '', ''), (1, '%s', 0, 0, '', '');`, one.URI(), two.URI(), three.URI()))
		b.wants(t, "dispatcher.reload", `{}`, audit.Applied, true)
		for gw, state := range map[*kamailiotest.Gateway]string{one: "dx", two: "ip"} {
			b.wants(t, "dispatcher.set-state", fmt.Sprintf(`{"set":1,"uri":%q,"state":%q}`, gw.URI(), state), audit.Applied, true)
		}
		flags := func(gw *kamailiotest.Gateway) string {
			m := regexp.MustCompile(gw.URI() + `",\s*"FLAGS":\s*"(..)"`).FindStringSubmatch(string(server.RPC(t, "dispatcher.list")))
			if m == nil {
				t.Fatal("dispatcher.list")
			}
			return m[1]
		}
		until(t, "the one that is pinged is active", func() bool { return flags(two) == "AP" })
		if is := flags(one); is != "DX" {
			t.Errorf("disabled, and %s", is)
		}
	})
}
