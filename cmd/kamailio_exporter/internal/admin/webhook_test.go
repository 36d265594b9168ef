package admin

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/adminapi"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/audit"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/repair"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc/kamrpctest"
)

func TestWebhookCredentials(t *testing.T) {
	b := newRuledEndpoint(t, "enforce", drainRule)
	body := payload("g", b.fires(0))
	for name, tc := range map[string]struct {
		token, path, body string
		status            int
	}{
		"forged":                              {amToken + "x", adminapi.WebhookPath, body, 401},
		"none":                                {"", adminapi.WebhookPath, body, 401},
		"a user's token on the webhook":       {nocToken, adminapi.WebhookPath, body, 404},
		"an auditor's token":                  {auditorToken, adminapi.WebhookPath, body, 404},
		"the webhook's token on an action":    {amToken, "/v1/actions/dispatcher.reload", `{}`, 404},
		"the webhook's token on a reset":      {amToken, "/v1/actions/remediation.reset", `{"params":{"rule":"all"}}`, 404},
		"the webhook's token on another path": {amToken, adminapi.WebhookPath + "/", body, 404},
		"a query":                             {amToken, adminapi.WebhookPath + "?dry_run=false", body, 400},
		"reset without a grant":               {nocToken, "/v1/actions/remediation.reset", `{"params":{"rule":"all"}}`, 404},
		"text/plain from a web page":          {amToken, adminapi.WebhookPath, body, 415},
	} {
		headers := []string{}
		if tc.status == 415 {
			headers = []string{"Content-Type", "text/plain"}
		}
		if r := b.call(tc.token, "POST", tc.path, tc.body, headers...); r.Status != tc.status {
			t.Errorf("%s: %d %s", name, r.Status, r.Text)
		}
	}
	for _, path := range []string{"/", "/v1/actions", "/v1/operations", "/v1/remediation", adminapi.WebhookPath} {
		if r := b.call(amToken, "GET", path, ""); r.Status != 404 && r.Status != 405 {
			t.Errorf("the webhook reads %s: %d", path, r.Status)
		}
	}
	b.noChange("credentials")

	// Without the section, neither the path nor the user exists.
	off := newEndpoint(t, policyText()).start(nil)
	if r := off.call(nocToken, "POST", adminapi.WebhookPath, body); r.Status != 404 {
		t.Errorf("off: %d", r.Status)
	}
	if r := off.call(amToken, "POST", adminapi.WebhookPath, body); r.Status != 401 {
		t.Errorf("off: %d", r.Status)
	}
	off.noChange("off")
}

func TestSameAlertIsAnsweredOnce(t *testing.T) {
	b := newRuledEndpoint(t, "enforce", drainRule)
	body := payload("g", b.fires(0))
	var sent sync.WaitGroup
	for range 10 {
		sent.Go(func() {
			if r := b.call(amToken, "POST", adminapi.WebhookPath, body); r.Status != 202 {
				t.Errorf("%d %s", r.Status, r.Text)
			}
		})
	}
	sent.Wait()
	if b.d.sets != 1 || b.d.state() != "DX AP AP AP AP AP" {
		t.Errorf("%d changes: %s", b.d.sets, b.d.state())
	}
	b.again()
	b.want("after a restart", b.send(body).word(), "duplicate")
	b.want("from another group", b.send(payload("other", b.fires(0))).word(), "duplicate")

	old := b.fires(1)
	old["startsAt"] = b.now().Add(-16 * time.Minute).Format(time.RFC3339)
	b.want("old", b.says(old), "stale")
	old["startsAt"] = b.now().Add(2 * time.Minute).Format(time.RFC3339)
	b.want("of the future", b.says(old), "stale")

	truncated := strings.Replace(payload("t", b.fires(1)), `"truncatedAlerts":0`, `"truncatedAlerts":5`, 1)
	if r := b.send(truncated); r.Status != 400 || !strings.Contains(r.Detail, "max_alerts") {
		t.Errorf("truncated: %d %s", r.Status, r.Text)
	}
	for name, bad := range map[string]string{
		"version 3": strings.Replace(body, `"version":"4"`, `"version":"3"`, 1), "no JSON": "{", "a list": "[]", "behind it": body + "{}",
		"no fingerprint": strings.Replace(body, `"fingerprint":"`, `"fingerprint":"x`, 1), "too many": payload("m", slices.Repeat([]map[string]any{b.fires(1)}, 101)...),
	} {
		if r := b.send(bad); r.Status != 400 || strings.Contains(r.Text, "10.0.0") {
			t.Errorf("%s: %d %s", name, r.Status, r.Text)
		}
	}
	if got := b.raw("POST " + adminapi.WebhookPath + " HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer " + amToken + "\r\nContent-Type: application/json\r\nContent-Length: 1048577\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 413 ") {
		t.Errorf("large: %.100s", got)
	}
	if b.d.sets != 1 {
		t.Errorf("%d changes", b.d.sets)
	}
	// The status of each alert counts: a resolved alert in a firing group runs nothing.
	b.pass(11 * time.Minute)
	n := b.send(payload("mixed", b.alert("resolved", gatewayURI(2)), b.fires(1)))
	if len(n.Results) != 1 || n.word() != "applied" || b.d.state() != "DX DX AP AP AP AP" {
		t.Errorf("%s: %s", n.Text, b.d.state())
	}
}

// 34, and the storm: false alerts never leave a set below its minimum, and they open
// the breaker.
func TestStormOfAlerts(t *testing.T) {
	for name, send := range map[string]func(b *ruledEndpoint){
		"in one group": func(b *ruledEndpoint) {
			var alerts []map[string]any
			for i := range 50 {
				alerts = append(alerts, b.fires(i%6, "n", fmt.Sprint(i)))
			}
			b.send(payload("g", alerts...))
		},
		"each alone, one after the other": func(b *ruledEndpoint) {
			for i := range 50 {
				b.says(b.fires(i%6, "n", fmt.Sprint(i)))
			}
		},
		"each alone, at once": func(b *ruledEndpoint) {
			var sent sync.WaitGroup
			for i := range 50 {
				sent.Go(func() { b.says(b.fires(i%6, "n", fmt.Sprint(i))) })
			}
			sent.Wait()
		},
	} {
		t.Run(name, func(t *testing.T) {
			// Large budgets, so that only the guards limit the rules.
			rules := strings.NewReplacer("per_target: 1/30m", "per_target: 100/1h", "per_rule: 10/1h", "per_rule: 100/1h").Replace(drainRule)
			b := newRuledEndpoint(t, "enforce", rules)
			b.d.mu.Lock()
			for i := 6; i < 50; i++ {
				b.d.failed[gatewayURI(i)] = 10
			}
			b.d.mu.Unlock()
			send(b)
			// More gateways than the set has.
			for i := range 50 {
				b.says(b.fires(i))
			}
			if b.d.least < 3 || b.d.active() < 3 {
				t.Errorf("%d of 6 stayed: %s", b.d.least, b.d.state())
			}
			if b.metric(repair.MetricPrefix+"breaker_open", "rule", "drain") != 1 {
				t.Errorf("the breaker is not open: %s", b.d.state())
			}
			if b.metric(repair.MetricPrefix+"refused_total", "rule", "drain", "guard", "breaker") < 10 {
				t.Error("refusals by the breaker are not counted")
			}
			if b.fake.MaxConcurrent() > 4 {
				t.Errorf("%d calls at once", b.fake.MaxConcurrent())
			}
			// The breaker is still open after a restart; a person closes it.
			b.again()
			b.pass(time.Hour)
			b.want("after a restart", b.says(b.fires(5, "later", "1")), "breaker")
			if r := b.run(leadToken, adminapi.ResetAction, `{"rule":"drain"}`); r.Status != 200 || r.Outcome != audit.Applied {
				t.Errorf("reset: %d %s", r.Status, r.Text)
			}
			if b.metric(repair.MetricPrefix+"breaker_open", "rule", "drain") != 0 {
				t.Error("still open")
			}
			b.again()
			if got := b.says(b.fires(5, "later", "2")); got == "breaker" {
				t.Error("open again after a restart")
			}
			if b.d.least < 3 {
				t.Errorf("%d of 6 stayed", b.d.least)
			}
			if _, err := audit.Verify([]string{b.audit}); err != nil {
				t.Error(err)
			}
		})
	}
}

// The alerts of a notification share their reads, and the number of alerts looked at
// per minute is limited. The others come first the next time.
func TestNotificationReadsOnce(t *testing.T) {
	rules := strings.NewReplacer("confirm: {htable: [{table: failed, label: uri, above: 5}]}", "confirm: {read: {flags: [IP]}}").Replace(drainRule)
	b := newRuledEndpoint(t, "dry_run", rules)
	var alerts []map[string]any
	for i := range 100 {
		alerts = append(alerts, b.fires(i%6, "n", fmt.Sprint(i)))
	}
	r := b.send(payload("g", alerts...))
	if len(r.Results) != 100 || r.word() != "unconfirmed" {
		t.Errorf("%d %.300s", r.Status, r.Text)
	}
	calls := 0
	for method, n := range b.fake.Calls() {
		if method != "core.version" { // the client's own call
			calls += n
		}
	}
	if calls > 3 { // the list, the uptime, and the methods of Kamailio
		t.Errorf("%v", b.fake.Calls())
	}

	// Each of these needs its own read.
	b = newRuledEndpoint(t, "dry_run", strings.Replace(drainRule, "label: uri, above", "label: n, above", 1))
	var mu sync.Mutex
	read := map[string]int{} // by the alert's label n
	b.fake.HandleFunc("htable.get", func(r kamrpctest.Request) kamrpctest.Response {
		mu.Lock()
		defer mu.Unlock()
		read[fmt.Sprint(r.Params[1])]++
		return kamrpctest.Response{Code: 500, Message: "Key name doesn't exist in htable."}
	})
	send := func(from, to int) notified {
		var alerts []map[string]any
		for i := from; i < to; i++ {
			alerts = append(alerts, b.fires(i%6, "n", fmt.Sprint(i)))
		}
		return b.send(payload("g", alerts...))
	}
	b.want("all of the first", send(0, 100).word(), "unconfirmed")
	if r := send(50, 150); r.Status != 503 || !strings.Contains(r.Text, "attempts") {
		t.Errorf("%d %.300s", r.Status, r.Text)
	}
	n := 0
	for i := range 150 {
		if read[fmt.Sprint(i)] > 1 {
			t.Errorf("alert %d was looked at again, before others were", i)
		}
		n += read[fmt.Sprint(i)]
	}
	if n != 120 {
		t.Errorf("%d alerts were looked at", n)
	}
	b.pass(2 * time.Minute)
	b.want("later", send(140, 150).word(), "unconfirmed")
}

func TestLabelsAreUntrusted(t *testing.T) {
	b := newRuledEndpoint(t, "enforce", drainRule)
	for _, tc := range []struct {
		what string
		a    map[string]any
		want string
	}{
		{"all", b.alert("firing", "all"), "parameter"},
		{"line break", b.alert("firing", "sip:x\r\n"), "parameter"},
		{"long", b.alert("firing", "sip:"+strings.Repeat("x", 10<<10)), "parameter"},
		{"no uri", b.alert("firing", ""), "parameter"},
		{"another set", b.fires(1, "set", "2"), "parameter"},
		{"an invalid set", b.fires(1, "set", "1.0"), "parameter"},
		{"not there", b.alert("firing", "sip:10.9.9.9:5060"), "target"},
		{"another Kamailio", b.fires(1, "instance", "sip2:9494"), "ignored"},
		{"another alert", b.fires(1, "alertname", "Else"), "ignored"},
		{"the name in another case", b.fires(1, "alertname", "gatewayfails"), "ignored"},
	} {
		b.want(tc.what, b.says(tc.a), tc.want)
	}
	// The alert fires, but Kamailio reports the gateway as healthy.
	b.d.failed[gatewayURI(2)] = 5
	b.want("healthy", b.says(b.fires(2)), "unconfirmed")
	delete(b.d.failed, gatewayURI(2))
	b.want("nothing counted", b.says(b.fires(2)), "unconfirmed")
	b.noChange("labels")
	refused := 0
	for _, r := range b.records() {
		if r.Kind == audit.KindDenied && r.Rule != nil && r.Rule.Rule == "drain" {
			refused++
		}
		if strings.Contains(r.Detail, "10.9.9.9") {
			t.Errorf("%s", r.Detail)
		}
	}
	if refused < 9 {
		t.Errorf("%d refusals in the audit log", refused)
	}
}

func TestChangesOfUsersAreKept(t *testing.T) {
	b := newRuledEndpoint(t, "enforce", drainRule)
	state := func(i int, s string) {
		t.Helper()
		if r := b.run(nocToken, "dispatcher.set-state", fmt.Sprintf(`{"set":1,"uri":%q,"state":%q}`, gatewayURI(i), s)); r.Outcome != audit.Applied {
			t.Fatalf("%s", r.Text)
		}
	}
	// A person disabled the gateway, and the alert fires and resolves.
	state(0, "dx")
	b.want("touched by a person", b.says(b.fires(0)), "person")
	b.pass(11 * time.Minute)
	b.want("as it is already", b.says(b.fires(0, "n", "2")), "no_change")
	b.want("resolved", b.says(b.alert("resolved", gatewayURI(0), "n", "2")), "ignored")
	b.pass(time.Hour)
	b.server.runner.UndoDue(t.Context())
	if b.d.state() != "DX AP AP AP AP AP" {
		t.Errorf("what a person disabled: %s", b.d.state())
	}
	// The rule disables a gateway, and a person enables it and disables it again.
	b.want("drained", b.says(b.fires(1)), "applied")
	state(1, "ap")
	state(1, "dx")
	b.want("resolved", b.says(b.alert("resolved", gatewayURI(1))), "ignored")
	// The same without this program: by a reload or kamcmd.
	b.pass(time.Hour)
	b.want("drained", b.says(b.fires(2)), "applied")
	b.d.set(2, "IP")
	b.pass(time.Hour)
	b.want("resolved", b.says(b.alert("resolved", gatewayURI(2))), "not_own")
	b.pass(time.Hour)
	b.server.runner.UndoDue(t.Context())
	if b.d.state() != "DX DX IP AP AP AP" {
		t.Errorf("%s", b.d.state())
	}
	// A reload by a person affects all targets of the module.
	if r := b.run(nocToken, "dispatcher.reload", `{}`); r.Outcome != audit.Applied {
		t.Fatalf("%s", r.Text)
	}
	b.want("after a reload by a person", b.says(b.fires(3)), "person")
}

// A person's change to another module does not take a change away from the rule.
func TestChangeToAnotherModuleKeepsTheUndo(t *testing.T) {
	b := newRuledEndpoint(t, "enforce", drainRule)
	b.want("drained", b.says(b.fires(4)), "applied")
	if r := b.run(nocToken, "permissions.reload-address", `{}`); r.Outcome != audit.Applied {
		t.Fatalf("%s", r.Text)
	}
	if n := b.metric(repair.MetricPrefix+"open_changes", "rule", "drain"); n != 1 {
		t.Errorf("after a reload of another module %v changes are to be undone", n)
	}
}

// A rule undoes its change once its budget would allow the change again.
func TestUndo(t *testing.T) {
	b := newRuledEndpoint(t, "enforce", drainRule)
	b.d.set(1, "AX")
	b.want("drained", b.says(b.fires(1)), "applied")
	if n := b.metric(repair.MetricPrefix+"open_changes", "rule", "drain"); n != 1 {
		t.Errorf("%v open changes", n)
	}
	b.want("resolved, too soon", b.says(b.alert("resolved", gatewayURI(1))), "budget")
	b.again() // the change survives a restart
	b.pass(20 * time.Minute)
	b.server.runner.UndoDue(t.Context())
	if b.d.state() != "AP DX AP AP AP AP" {
		t.Errorf("too soon: %s", b.d.state())
	}
	// The alert fires again, so the change is not undone.
	b.want("fires again", b.says(b.fires(1)), "target_budget")
	b.pass(5 * time.Minute)
	b.want("resolved", b.says(b.alert("resolved", gatewayURI(1))), "budget")
	b.pass(10 * time.Minute)
	b.fake.Handle("core.uptime", `{"uptime":100}`)
	b.server.runner.UndoDue(t.Context())
	if b.d.state() != "AP DX AP AP AP AP" {
		t.Errorf("Kamailio was just started: %s", b.d.state())
	}
	b.fake.Handle("core.uptime", `{"uptime":5000}`)
	b.pass(2 * time.Minute)
	b.good.Store(false)
	b.server.runner.UndoDue(t.Context())
	if b.d.state() != "AP DX AP AP AP AP" {
		t.Errorf("no scrape: %s", b.d.state())
	}
	b.good.Store(true)
	b.server.runner.UndoDue(t.Context())
	if b.d.state() != "AP AX AP AP AP AP" {
		t.Errorf("not put back: %s", b.d.state())
	}
	if n := b.metric(repair.MetricPrefix+"actions_total", "rule", "drain", "step", "undo", "outcome", "applied"); n != 1 {
		t.Errorf("%v undone", n)
	}
	if n := b.metric(metricPrefix+"duration_seconds", "action", "dispatcher.set-state"); n != 1 {
		t.Errorf("the time of %v actions was measured since the restart, want that of the undoing", n)
	}
	if n := b.metric(repair.MetricPrefix+"open_changes", "rule", "drain"); n != 0 {
		t.Errorf("%v open changes", n)
	}
	sets := b.d.sets
	b.pass(time.Hour)
	b.server.runner.UndoDue(t.Context())
	b.again()
	b.server.runner.UndoDue(t.Context())
	if b.d.sets != sets {
		t.Error("undone twice")
	}
}

func TestBudgetsAndWhen(t *testing.T) {
	rules := strings.NewReplacer("per_rule: 10/1h", "per_rule: 2/1h").Replace(drainRule)
	b := newRuledEndpoint(t, "enforce", rules)
	b.fake.Handle("core.uptime", `{"uptime":299}`)
	b.want("Kamailio was started less than 5 minutes ago", b.says(b.fires(0)), "503 not-done")
	b.fake.Handle("core.uptime", `{"uptime":1000}`)
	b.good.Store(false)
	b.want("the last scrape failed", b.says(b.fires(0)), "503 not-done")
	b.good.Store(true)
	b.fake.Down()
	r := b.send(payload("g", b.fires(0)))
	if r.Status != 503 || !strings.Contains(r.Detail, "rule drain: unreachable: no server is listening") || r.Header.Get("Retry-After") == "" {
		t.Errorf("Kamailio is down: %d %s", r.Status, r.Text)
	}
	b.noChange("not now")
	b.fake.Up()
	// Alertmanager sends the alert again, and it is not taken for a duplicate.
	b.want("Kamailio is back", b.says(b.fires(0)), "applied")
	b.d.set(0, "AP")
	b.want("the same target soon after", b.says(b.fires(0, "n", "2")), "target_budget")
	b.want("another", b.says(b.fires(1)), "applied")
	b.want("a third", b.says(b.fires(2)), "budget")
	b.again()
	b.want("after a restart", b.says(b.fires(2, "n", "2")), "budget")
	b.pass(61 * time.Minute)
	b.want("an hour later", b.says(b.fires(2, "n", "3")), "applied")

	// A person's change is running, so Alertmanager retries.
	inside, leave := make(chan struct{}), make(chan struct{})
	b.fake.HandleFunc("dispatcher.reload", func(kamrpctest.Request) kamrpctest.Response {
		close(inside)
		<-leave
		return kamrpctest.Response{Result: `"ok"`}
	})
	ended := make(chan reply)
	go func() { ended <- b.run(nocToken, "dispatcher.reload", `{}`) }()
	<-inside
	b.want("busy", b.says(b.fires(4)), "503 not-done")
	close(leave)
	<-ended
	b.pass(11 * time.Minute) // a person's reload affects every gateway
	if err := (&faulty{free: 1}).under(b.server.engine.Log); err != nil {
		t.Fatal(err)
	}
	b.want("no audit", b.says(b.fires(4)), "503 not-done")
}

// Three consecutive failures open the breaker.
func TestBreaker(t *testing.T) {
	b := newRuledEndpoint(t, "enforce", drainRule)
	b.fake.HandleFault("dispatcher.set_state", 500, "State Update Failed")
	b.want("first", b.says(b.fires(0)), "failed")
	b.want("second", b.says(b.fires(1)), "failed")
	b.again()
	b.want("third", b.says(b.fires(2)), "failed")
	b.want("fourth", b.says(b.fires(3)), "breaker")
	if r := b.run(leadToken, adminapi.ResetAction, `{"rule":"other"}`); r.problem() != "target-not-found" {
		t.Errorf("%s", r.Text)
	}
	r := b.call(leadToken, "GET", "/v1/remediation", "")
	if !strings.Contains(r.Text, `"breaker":{"since"`) || !strings.Contains(r.Text, "in a row") {
		t.Errorf("%d %s", r.Status, r.Text)
	}
	if r := b.call(nocToken, "GET", "/v1/remediation", ""); r.Status != 404 {
		t.Errorf("%d", r.Status)
	}
	// The page shows the same to the same users.
	if r := b.call(leadToken, "GET", "/", ""); !strings.Contains(r.Text, "Rules for alerts") || !strings.Contains(r.Text, "breaker open since") {
		t.Errorf("%d %s", r.Status, r.Text)
	}
	if r := b.call(nocToken, "GET", "/", ""); r.Status != 200 || strings.Contains(r.Text, "Rules for alerts") {
		t.Errorf("%d %s", r.Status, r.Text)
	}
	if r := b.run(leadToken, adminapi.ResetAction, `{"rule":"all"}`); r.Outcome != audit.Applied {
		t.Errorf("%s", r.Text)
	}
	b.want("fifth", b.says(b.fires(3)), "failed")
}

// A dry run sends nothing to Kamailio, and reports everything.
func TestDryRun(t *testing.T) {
	for _, mode := range []string{"dry_run", "enforce"} {
		rules := drainRule
		if mode == "enforce" {
			rules += "      mode: dry_run\n"
		}
		b := newRuledEndpoint(t, mode, rules)
		n := b.send(payload("g", b.fires(0)))
		if n.word() != "no_change" || !n.Results[0].DryRun || n.Results[0].ID == "" {
			t.Errorf("%s: %s", mode, n.Text)
		}
		if got := b.metric(repair.MetricPrefix+"actions_total", "rule", "drain", "step", "do", "outcome", "dry_run"); got != 1 {
			t.Errorf("%s: %v counted", mode, got)
		}
		if b.metric(repair.MetricPrefix+"enforced", "rule", "drain") != 0 || b.metric(repair.MetricPrefix+"open_changes", "rule", "drain") != 0 {
			t.Error("metrics say that it acts")
		}
		b.want("the same again", b.says(b.fires(0)), "duplicate")
		for i := range 6 {
			b.says(b.fires(i, "n", "x"))
		}
		b.pass(time.Hour)
		b.says(b.alert("resolved", gatewayURI(0)))
		if got := b.metric(repair.MetricPrefix+"actions_total", "rule", "drain", "step", "undo", "outcome", "dry_run"); got != 1 {
			t.Errorf("%s: %v would be undone", mode, got)
		}
		b.server.runner.UndoDue(t.Context())
		b.noChange("dry run")
		if calls := b.fake.Calls(); calls["htable.get"] == 0 || calls["dispatcher.list"] == 0 {
			t.Errorf("a dry run that did not look: %v", calls)
		}
		// The result of a dry run is not a change to undo later.
		b.stop()
		text := rulesText("enforce", drainRule)
		b.write(text)
		b.begin()
		b.says(b.alert("resolved", gatewayURI(1), "n", "x"))
		b.server.runner.UndoDue(t.Context())
		b.noChange("after a dry run")
	}
}

// A group is limited to one target.
func TestOneTargetPerGroup(t *testing.T) {
	b := newRuledEndpoint(t, "enforce", drainRule)
	n := b.send(payload("g", b.fires(0), b.fires(1), b.fires(2)))
	var got []string
	for _, v := range n.Results {
		got = append(got, string(v.Outcome)+v.By)
	}
	if !slices.Equal(got, []string{"applied", "refusedgroup", "refusedgroup"}) || b.d.sets != 1 {
		t.Errorf("%q", got)
	}
	b.again()
	b.want("the group again", b.send(payload("g", b.fires(1))).word(), "group")
	b.pass(11 * time.Minute)
	b.want("later", b.send(payload("g", b.fires(1, "n", "1"))).word(), "applied")
}

// Other confirmations: registrations, calls and reloads.
func TestConfirmations(t *testing.T) {
	rules := `
    - name: refresh
      match: {alertname: TrunkDown}
      action: uac.refresh
      params: {uuid: {label: uuid, regexp: 'trunk-.*'}}
      confirm: {read: {enabled: true, registered: [false]}}
    - name: slow
      match: {alertname: Slow}
      action: dispatcher.set-state
      params: {set: {value: 1}, uri: {label: uri, any: true}, state: {value: dx}}
      confirm: {read: {flags: [AP, AX]}, latency_above: 500ms}
    - name: old-calls
      match: {alertname: StuckCalls}
      max_age: 24h
      action: dialog.end
      params: {call_id: {find: oldest-call}}
      confirm: {read: {state: 4}, at_least: {duration_seconds: 28800}}
      budget: {per_rule: 5/1h}
    - name: reload
      match: {alertname: DataChanged}
      action: permissions.reload-address
      confirm: {not_loaded_since: true}
      budget: {per_target: 5/1h}
    - name: share
      match: {alertname: Share}
      action: dispatcher.set-state
      params: {set: {value: 1}, uri: {label: uri, any: true}, state: {value: dx}}
      confirm: {htable: [{table: failed, label: uri, above: 5, of: sent, ratio: 0.5}]}
`
	b := newRuledEndpoint(t, "enforce", rules)
	alert := func(name string, labels ...string) map[string]any {
		a := b.fires(0, append([]string{"alertname", name}, labels...)...)
		return a
	}
	info := func(flags int) {
		b.fake.Handle("uac.reg_info", fmt.Sprintf(`{"l_uuid":"trunk-a","flags":%d,"auth_password":"x"}`, flags))
	}
	b.fake.HandleFunc("uac.reg_refresh", func(kamrpctest.Request) kamrpctest.Response {
		info(20)
		return kamrpctest.Response{Result: "{}"}
	})
	for _, tc := range []struct {
		flags int
		uuid  string
		want  string
	}{{20, "trunk-a", "unconfirmed"}, {17, "trunk-a", "unconfirmed"}, {16, "other", "parameter"}, {16, "trunk-a", "applied"}} {
		info(tc.flags)
		b.want(fmt.Sprintf("trunk %+v", tc), b.says(alert("TrunkDown", "uuid", tc.uuid, "n", fmt.Sprint(tc.flags))), tc.want)
	}

	list := func(ms float64) {
		b.fake.Handle("dispatcher.list", fmt.Sprintf(`{"NRSETS":1,"RECORDS":[{"SET":{"ID":1,"TARGETS":[{"DEST":{"URI":"sip:10.0.0.1:5060","FLAGS":"AP","LATENCY":{"AVG":1.0,"EST":%f}}},
			{"DEST":{"URI":"sip:10.0.0.2:5060","FLAGS":"AP"}},{"DEST":{"URI":"sip:10.0.0.3:5060","FLAGS":"AP"}}]}}]}`, ms))
	}
	list(499)
	b.want("fast", b.says(alert("Slow")), "unconfirmed")
	b.want("not measured", b.says(b.fires(1, "alertname", "Slow")), "unconfirmed")
	list(501)
	b.want("slow, and then unverified", b.says(alert("Slow", "n", "1")), string(audit.Contradicted))

	b.fake.Handle("dlg.stats_active", `{"starting":0,"all":3}`)
	b.fake.HandleFunc("dlg.briefing", func(r kamrpctest.Request) kamrpctest.Response {
		if !slices.Equal(r.Params, []any{"sSc"}) {
			return kamrpctest.Response{Message: "params"}
		}
		return kamrpctest.Response{Result: `[{"state":4,"start_ts":200,"call-id":"young"},{"state":4,"start_ts":100,"call-id":"old"},{"state":5,"start_ts":50,"call-id":"gone"},{"state":2,"start_ts":0,"call-id":"ringing"}]`}
	})
	age := 28799
	ended := false
	b.fake.HandleFunc("dlg.dlg_list", func(r kamrpctest.Request) kamrpctest.Response {
		if r.Params[0] != "old" {
			return kamrpctest.Response{Message: "another call"}
		}
		if ended {
			return kamrpctest.Response{Result: `[]`}
		}
		return kamrpctest.Response{Result: fmt.Sprintf(`[{"h_entry":1,"h_id":2,"state":4,"duration":%d}]`, age)}
	})
	b.fake.HandleFunc("dlg.end_dlg", func(kamrpctest.Request) kamrpctest.Response { ended = true; return kamrpctest.Response{} })
	b.want("too young", b.says(alert("StuckCalls")), "unconfirmed")
	age = 28800
	b.want("old", b.says(alert("StuckCalls")), "applied")
	b.fake.Handle("dlg.stats_active", `{"all":4001}`)
	b.want("too many to look through", b.says(alert("StuckCalls")), "guard")

	b.want("changed", b.says(alert("DataChanged")), "applied")
	b.want("loaded since", b.says(alert("DataChanged", "n", "1")), "503 not-done") // the cooldown
	b.pass(time.Minute)
	a := alert("DataChanged", "n", "2")
	a["startsAt"] = b.now().Add(-10 * time.Minute).Format(time.RFC3339)
	b.want("loaded since", b.says(a), "unconfirmed")
	b.want("changed again", b.says(alert("DataChanged", "n", "3")), "unconfirmed")
	b.pass(2 * time.Minute)
	b.want("changed again", b.says(alert("DataChanged", "n", "4")), "applied")

	newDispatcherFake(b.fake, 6)
	failed := map[any]int{"failed": 6, "sent": 12}
	b.fake.HandleFunc("htable.get", func(r kamrpctest.Request) kamrpctest.Response {
		return kamrpctest.Response{Result: fmt.Sprintf(`{"item":{"value":%d}}`, failed[r.Params[0]])}
	})
	b.want("half", b.says(alert("Share")), "unconfirmed")
	failed["sent"] = 11
	b.want("more than half", b.says(alert("Share", "n", "1")), "applied")
}

// A missing reply is an unknown outcome. The action is not repeated, and it counts
// against the budgets.
func TestUnknownIsNotRepeated(t *testing.T) {
	b := newRuledEndpoint(t, "enforce", drainRule)
	b.fake.Misbehave(kamrpctest.Truncate, "dispatcher.set_state")
	b.want("unknown", b.says(b.fires(0)), "unknown")
	b.want("again", b.says(b.fires(0)), "duplicate")
	b.again()
	b.want("again", b.says(b.fires(0)), "duplicate")
	if n := b.changes(); n != 1 {
		t.Errorf("sent %d times", n)
	}
}

func TestRemediationConfigurations(t *testing.T) {
	good := rulesText("enforce", drainRule)
	parse := func(text string) error {
		_, err := Parse([]byte("admin:\n  enabled: true\n" + strings.TrimLeft(text, "\n")))
		return err
	}
	if err := parse(good); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct{ from, to, says string }{
		"mode":                         {"mode: enforce", "mode: yes", "dry_run or enforce"},
		"no match":                     {"match: {instance: 'sip1:9494'}", "match: {}", "identifies the alerts of this Kamailio"},
		"no alertname":                 {"match: {alertname: GatewayFails}", "match: {severity: critical}", "alertname"},
		"unknown key":                  {"undo_on_resolved: true", "undo: true", "unknown key undo; the keys here are action, "},
		"unknown action":               {"      action: dispatcher.set-state", "      action: core.kill", "no action"},
		"a reset":                      {"      action: dispatcher.set-state", "      action: remediation.reset", "no action"},
		"a label without a constraint": {"uri: {label: uri, any: true}", "uri: {label: uri}", "a label can have any value"},
		"two sources":                  {"state: {value: dx}", "state: {value: dx, label: x, any: true}", "one of label"},
		"an invalid value":             {"state: {value: dx}", "state: {value: alpha}", "one of ip"},
		"a parameter missing":          {", state: {value: dx}", "", "missing"},
		"a parameter too many":         {"state: {value: dx}", "state: {value: dx}, x: {value: 1}", `no parameter "x"`},
		"no confirmation":              {"confirm: {htable: [{table: failed, label: uri, above: 5}]}", "", "is a hint"},
		"not for this action":          {"confirm: {htable: [{table: failed, label: uri, above: 5}]}", "confirm: {not_loaded_since: true}", "for reloads"},
		"of without ratio":             {"above: 5", "above: 5, of: sent", "need each other"},
		"a budget":                     {"per_rule: 10/1h", "per_rule: 10", "3/1h"},
		"a budget of 0":                {"per_rule: 10/1h", "per_rule: 0/1h", "1 to 1000"},
		"quiet without a unit":         {"mode: enforce", "mode: enforce\n  quiet: 600", `remediation: quiet: "600" is not a duration`},
		"uptime without a unit":        {"mode: enforce", "mode: enforce\n  min_uptime: 300", `remediation: min_uptime: "300" is not a duration`},
		"age without a unit":           {"undo_on_resolved: true", "max_age: 900", `: max_age: "900" is not a duration`},
		"latency without a unit":       {"confirm: {", "confirm: {latency_above: 3, ", `: confirm: latency_above: "3" is not a duration`},
		"a latency of 0":               {"confirm: {", "confirm: {latency_above: 3ns, ", "confirm: latency_above must be from 1ms to 1h, not 3ns"},
		"a budget without a unit":      {"per_rule: 10/1h", "per_rule: 10/60", "3/1h"},
		"an age of a minute":           {"undo_on_resolved: true", "max_age: 59s", "max_age must be from 1m to 168h, not 59s"},
		"a ratio":                      {"min_active_ratio: 0.5", "min_active_ratio: 2", "min_active_ratio"},
		"on":                           {"undo_on_resolved: true", "on: pending", "firing or resolved"},
		"undo on resolved":             {"undo_on_resolved: true", "undo_on_resolved: true\n      on: resolved", "undo_on_resolved"},
		"no webhook":                   {"kind: webhook, ", "grants: [{action: pdt.reload}], ", "kind: webhook"},
		"a webhook with grants":        {"kind: webhook, ", "kind: webhook, auditor: true, ", "can only send alerts"},
		"another kind":                 {"kind: webhook, ", "kind: robot, ", "must be webhook"},
		"a rule in enforce mode before the section": {"mode: enforce", "mode: dry_run", ""},
	} {
		text := strings.Replace(good, tc.from, tc.to, 1)
		if text == good {
			t.Fatalf("%s changes nothing", name)
		}
		if name == "a rule in enforce mode before the section" {
			text, tc.says = text+"      mode: enforce\n", "must be set for the whole section"
		}
		if err := parse(text); err == nil || !strings.Contains(err.Error(), tc.says) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := parse(good + drainRule); err == nil {
		t.Error("a name twice")
	}
	without, _, _ := strings.Cut(good, "remediation:\n")
	if err := parse(without); err == nil || !strings.Contains(err.Error(), "needs the section remediation") {
		t.Errorf("a webhook without rules: %v", err)
	}
}

// Rules are reloaded as a whole, like the rest of the configuration.
func TestReloadOfRules(t *testing.T) {
	b := newRuledEndpoint(t, "enforce", drainRule)
	b.want("drained", b.says(b.fires(0)), "applied")
	b.write(rulesText("enforce", strings.Replace(drainRule, "confirm:", "confirms:", 1)))
	if err := b.server.Reload(); err == nil {
		t.Fatal("a bad file is taken")
	}
	b.want("the rules before it", b.says(b.fires(1)), "applied")
	b.write(rulesText("dry_run", drainRule))
	if err := b.server.Reload(); err != nil {
		t.Fatal(err)
	}
	sets := b.d.sets
	b.pass(time.Hour)
	b.want("dry run from now on", b.says(b.fires(2)), "no_change")
	b.says(b.alert("resolved", gatewayURI(0)))
	b.server.runner.UndoDue(t.Context())
	if b.d.sets != sets {
		t.Error("a dry run took something back")
	}
	b.write(policyText())
	if err := b.server.Reload(); err != nil {
		t.Fatal(err)
	}
	if r := b.send(payload("g", b.fires(3))); r.Status != 401 {
		t.Errorf("the receiver is gone: %d", r.Status)
	}
	if got := b.metric(repair.MetricPrefix+"enforced", "rule", "drain"); got != -1 {
		t.Errorf("metrics of rules that are gone: %v", got)
	}
}

// No label of an alert gets into a metric, and every action of a rule is in the log.
func TestActionsOfRulesAreLogged(t *testing.T) {
	b := newRuledEndpoint(t, "enforce", drainRule)
	b.says(b.fires(0, "secret", "kitten"))
	registry := prometheus.NewRegistry()
	registry.MustRegister(b.server.Metrics())
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if text := f.String(); strings.Contains(text, "10.0.0") || strings.Contains(text, "kitten") {
			t.Errorf("%s", text)
		}
	}
	text, err := os.ReadFile(b.audit)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), "kitten") || strings.Contains(b.log.String(), "kitten") {
		t.Error("a label that no rule names is in a log")
	}
	var kinds []string
	for _, r := range b.records() {
		if r.Rule != nil {
			kinds = append(kinds, r.Kind+" "+r.Rule.Step+" "+r.Rule.Rule+" "+r.User+" "+r.Reason)
		}
	}
	if !slices.Equal(kinds, []string{"intent do drain am rule drain", "outcome do drain am rule drain"}) {
		t.Errorf("%q", kinds)
	}
	if u := b.server.inForce.Load().policy.User("am"); u == nil {
		t.Error("am is no user")
	}
}
