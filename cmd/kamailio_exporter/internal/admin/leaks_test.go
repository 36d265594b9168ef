package admin

import (
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/adminapi"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/audit"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc/kamrpctest"
)

// The old value of an htable item, if it is a text, appears in no reply, log or page:
// neither for dry runs nor for successful or failed actions.
func TestOldTextsAreHidden(t *testing.T) {
	b := newEndpoint(t, everything())
	b.fake.Handle("htable.get", `{"item":{"name":"k","value":"topsecret"}}`)
	b.fake.Handle("htable.sets", `"Ok. Key set to new value."`)
	b.fake.Handle("htable.seti", `"Ok. Key set to new value."`)
	b.fake.HandleFault("htable.delete", 500, "Internal error")
	b.start(nil)
	oldTexts(t, b)
	// A number is shown to users who may set numbers, so that they can restore it.
	b.fake.Handle("htable.get", `{"item":{"name":"k","value":42}}`)
	if r := b.run(nocToken, "htable.set-int", `{"table":"ipban","key":"k","value":7}`); r.Before["value"] != 42.0 {
		t.Errorf("%s", r.Text)
	}
}

// oldTexts changes an item with the value topsecret in every possible way.
func oldTexts(t *testing.T, b *endpoint) {
	t.Helper()
	var told strings.Builder
	for _, dry := range []string{"?dry_run=true", ""} {
		for action, value := range map[string]string{"htable.set-int": `,"value":7`, "htable.set-string": `,"value":"other"`, "htable.delete": ""} {
			r := b.run(nocToken, action+dry, `{"table":"ipban","key":"k"`+value+`}`)
			if r.Status == 422 || !r.Before.Is("present") {
				t.Errorf("%s%s: %s", action, dry, r.Text)
			}
			told.WriteString(r.Text)
			b.call(nocToken, "POST", "/v1/actions/htable.set-string", `{"params":{"table":"ipban","key":"k","value":"topsecret"}}`)
		}
	}
	for _, path := range []string{"/v1/operations", "/"} {
		told.WriteString(b.call(nocToken, "GET", path, "").Text)
	}
	written, err := os.ReadFile(b.audit)
	if err != nil {
		t.Fatal(err)
	}
	if all := told.String() + string(written) + b.log.String(); strings.Contains(all, "topsecret") {
		t.Errorf("the old text was told: %.200s", all[strings.Index(all, "topsecret")-150:])
	}
}

// halfSent starts a request and sends only part of its body.
func (b *endpoint) halfSent(token, path, body string) net.Conn {
	b.t.Helper()
	conn, err := net.Dial("unix", b.socket)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", path, token, len(body), body[:1])
	return conn
}

// reading waits until this number of request bodies is being read.
func (b *endpoint) reading(n int) {
	b.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		bodies := 0
		all := b.server.conns
		all.mu.Lock()
		for _, i := range all.open {
			if i.reading && !i.busy && i.heard == 0 && unread(i.conn) == 0 { // of what follows the headers
				bodies++
			}
		}
		all.mu.Unlock()
		if bodies >= n {
			return
		}
		if time.Now().After(deadline) {
			b.t.Fatalf("%d of %d bodies are read", bodies, n)
		}
	}
}

// A reload ends the requests of removed users at once, even one with a body in
// progress. Other requests continue with the new grants.
func TestReloadEndsRequestsOfRemovedUsers(t *testing.T) {
	b := newRuledEndpoint(t, "enforce", drainRule)
	slow := map[string]net.Conn{
		"revoked":           b.halfSent(nocToken, "/v1/actions/dispatcher.reload", "{}"),
		"revoked webhook":   b.halfSent(amToken, adminapi.WebhookPath, "{}"),
		"unchanged":         b.halfSent(botToken, "/v1/actions/dispatcher.reload", "{}"),
		"no longer granted": b.halfSent(leadToken, "/v1/actions/remediation.reset", `{"params":{"rule":"all"}}`),
	}
	b.reading(len(slow))
	other, otherAM := adminapi.HashToken("another"), adminapi.HashToken("another, too")
	policy := strings.NewReplacer(adminapi.HashToken(nocToken), other, adminapi.HashToken(amToken), otherAM,
		"{action: remediation.reset, params: {rule: {any: true}}}", "{action: pdt.reload}").Replace(rulesText("enforce", drainRule))
	b.write(policy)
	if err := b.server.Reload(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"revoked", "revoked webhook"} {
		began := time.Now()
		answer, _ := io.ReadAll(slow[name]) // without sending the rest of the body
		if took := time.Since(began); !strings.HasPrefix(string(answer), "HTTP/1.1 401 ") || took > 3*time.Second {
			t.Errorf("%s: after %s: %s", name, took, answer)
		}
	}
	b.noChange("revoked")
	for name, tc := range map[string]struct{ rest, status string }{
		"unchanged": {"}", "200"}, "no longer granted": {`"params":{"rule":"all"}}`, "404"},
	} {
		_, _ = io.WriteString(slow[name], tc.rest)
		answer, _ := io.ReadAll(slow[name])
		if !strings.HasPrefix(string(answer), "HTTP/1.1 "+tc.status+" ") {
			t.Errorf("%s: %s", name, answer)
		}
	}
}

// A notification that waits for its turn ends when its token is revoked. One that is
// being handled continues.
func TestReloadEndsNotificationsThatWait(t *testing.T) {
	b := newRuledEndpoint(t, "enforce", drainRule)
	inside, leave := make(chan struct{}), make(chan struct{})
	b.fake.HandleFunc("dispatcher.set_state", func(kamrpctest.Request) kamrpctest.Response {
		close(inside)
		<-leave
		b.d.set(0, "DX")
		return kamrpctest.Response{Result: `"ok"`}
	})
	first, second := make(chan string), make(chan string)
	go func() { first <- b.says(b.fires(0)) }()
	<-inside
	go func() { second <- b.says(b.fires(1)) }()
	b.write(strings.ReplaceAll(rulesText("enforce", drainRule), adminapi.HashToken(amToken), adminapi.HashToken("another")))
	if err := b.server.Reload(); err != nil {
		t.Fatal(err)
	}
	select {
	case got := <-second:
		if got != "503 queue" && got != "401 unauthenticated" {
			t.Errorf("the one that waits: %s", got)
		}
	case <-time.After(5 * time.Second):
		t.Error("it goes on waiting")
	}
	close(leave)
	if got := <-first; got != "applied" {
		t.Errorf("the one whose turn it is: %s", got)
	}
}

// Incomplete notifications do not block places that others need.
func TestSlowNotificationsBlockNoClient(t *testing.T) {
	b := newRuledEndpoint(t, "enforce", drainRule)
	for range maxConns {
		b.halfSent(amToken, adminapi.WebhookPath, strings.Repeat(" ", 1000))
	}
	b.reading(maxConns)
	for range 5 {
		began := time.Now()
		r := b.call(nocToken, "GET", "/v1/actions", "")
		most := time.Second
		if raceDetector {
			most *= 4
		}
		if took := time.Since(began); r.Status != 200 || took > most {
			t.Errorf("another client: %d after %s", r.Status, took)
		}
	}
	if got := b.says(b.fires(0)); got != "applied" {
		t.Errorf("another notification: %s", got)
	}
}

// A notification must have a Content-Length, as Alertmanager's do.
func TestNotificationsNeedAContentLength(t *testing.T) {
	b := newRuledEndpoint(t, "enforce", drainRule)
	body := payload("g", b.fires(0))
	head := "POST " + adminapi.WebhookPath + " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer " + amToken + "\r\nContent-Type: application/json\r\n"
	if got := b.raw(head + fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", len(body), body)); !strings.HasPrefix(got, "HTTP/1.1 400 ") {
		t.Errorf("%s", got)
	}
	b.noChange("chunked")
	if got := b.raw(head + fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(body), body)); !strings.HasPrefix(got, "HTTP/1.1 202 ") || b.changes() != 1 {
		t.Errorf("%s", got)
	}
}

// Records that cannot be written do not pile up in memory: those of dry runs and of
// refused intents.
func TestMemoryIsBoundedWithoutTheAuditLog(t *testing.T) {
	for name, breakIt := range map[string]func(f *faulty){
		"disk full": func(f *faulty) { f.write = syscall.ENOSPC }, "fsync error": func(f *faulty) { f.sync = syscall.EIO }, "nearly full": func(f *faulty) { f.free = 1 << 20 },
	} {
		t.Run(name, func(t *testing.T) {
			b := newEndpoint(t, policyText())
			f := &faulty{}
			b.start(func(s *Server) {
				if err := f.under(s.engine.Log); err != nil {
					t.Fatal(err)
				}
			})
			f.held(func() { breakIt(f) })
			for range 50 {
				for _, action := range []string{"dispatcher.reload?dry_run=true", "dispatcher.reload"} {
					if r := b.run(nocToken, action, `{}`); r.Status != 503 && r.Would == nil {
						t.Fatalf("%d %s", r.Status, r.Text)
					}
				}
			}
			f.held(func() { f.write, f.sync, f.free = nil, nil, 0 })
			before := len(b.records())
			if r := b.run(nocToken, "dispatcher.reload?dry_run=true", `{}`); r.Status != 200 {
				t.Errorf("%d %s", r.Status, r.Text)
			}
			if grown := len(b.records()) - before; grown > 5 {
				t.Errorf("%d records had waited", grown)
			}
			if r := b.run(nocToken, "dispatcher.reload", `{}`); r.Status != 200 {
				t.Errorf("%d %s", r.Status, r.Text)
			}
			if _, err := audit.Verify([]string{b.audit}); err != nil {
				t.Error(err)
			}
		})
	}
}

// A user can be identified by a supplementary group. A process in the groups of two
// users needs a token of one of them.
func TestSupplementaryGroups(t *testing.T) {
	const first, second = 60001, 60002
	b := newEndpoint(t, policyText()+fmt.Sprintf(`    one: {peer_gid: [%d], tokens: [{sha256: %s}], grants: [{action: dispatcher.reload}]}
    two: {peer_gid: [%d], grants: [{action: dispatcher.reload}]}
`, first, adminapi.HashToken(leadToken), second)).start(nil)
	many := make([]uint32, 100) // more than the first buffer holds
	for i := range many {
		many[i] = 61000 + uint32(i)
	}
	for name, tc := range map[string]struct {
		groups []uint32
		token  string
		status string
		user   string
	}{
		"none":                    {nil, "", "401", ""},
		"no credentials":          {many, "", "401", ""},
		"of one user":             {[]uint32{61000, first}, "", "200", "one"},
		"one certificate of many": {append(many, second), "", "200", "two"},
		"of two users at once":    {[]uint32{first, second}, "", "401", ""},
		"certificates of two users, a token of one":     {[]uint32{first, second}, leadToken, "200", "one"},
		"certificates of two users, a token of a third": {[]uint32{first, second}, nocToken, "401", ""},
		"one user's certificate, another's token":       {[]uint32{second}, leadToken, "401", ""},
		"no certificate, a user's token":                {many, nocToken, "200", "noc"},
	} {
		answer := make(chan string)
		go func() {
			defer close(answer)
			runtime.LockOSThread() // never unlocked: this thread has other groups and must end with the goroutine
			list := append(tc.groups, 0)
			if _, _, errno := syscall.RawSyscall(syscall.SYS_SETGROUPS, uintptr(len(tc.groups)), uintptr(unsafe.Pointer(&list[0])), 0); errno != 0 { //nolint:gosec // setgroups(2) for this thread only
				answer <- "setgroups: " + errno.Error()
				return
			}
			auth := ""
			if tc.token != "" {
				auth = "Authorization: Bearer " + tc.token + "\r\n"
			}
			answer <- b.raw("GET /v1/actions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n" + auth + "\r\n")
		}()
		if got := <-answer; !strings.HasPrefix(got, "HTTP/1.1 "+tc.status+" ") || tc.user != "" && !strings.Contains(got, `"user":"`+tc.user+`"`) {
			t.Errorf("%s: %s", name, got)
		}
	}
}

// The ID in a refusal can be looked up by the refused user and by auditors, also after
// a restart.
func TestRefusalsAreFound(t *testing.T) {
	b := newEndpoint(t, policyText()).start(nil)
	r := b.run(nocToken, "dispatcher.set-state", `{"set":1,"uri":"sip:10.0.0.9:5060","state":"ip"}`)
	path := r.Problem.Instance
	for _, when := range []string{"at once", "after a restart"} {
		for token, status := range map[string]int{nocToken: 200, auditorToken: 200, botToken: 404} {
			found := b.call(token, "GET", path, "")
			if found.Status != status || status == 200 && (found.Outcome != audit.Refused || !strings.Contains(found.Text, `"problem":"target-not-found"`)) {
				t.Errorf("%s: %d %s", when, found.Status, found.Text)
			}
		}
		b.stop()
		b.start(nil)
	}
}
