package admin

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/action"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/adminapi"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/audit"
)

// faulty is an audit log file that can be made to fail.
type faulty struct {
	audit.File
	mu          sync.Mutex
	write, sync error
	half        bool   // only half of each write arrives
	free        uint64 // free space to report, unless 0
}

func (f *faulty) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.write == nil {
		return f.File.Write(p)
	}
	n := 0
	if f.half {
		n, _ = f.File.Write(p[:len(p)/2])
	}
	return n, f.write
}

func (f *faulty) Sync() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.sync != nil {
		return f.sync
	}
	return f.File.Sync()
}

// under makes the audit log use this file.
func (f *faulty) under(l *audit.Log) error {
	l.Open = func(path string) (audit.File, error) {
		file, err := audit.OpenFile(path)
		f.mu.Lock()
		defer f.mu.Unlock()
		f.File = file
		return f, err
	}
	l.Free = func(dir string) (uint64, error) {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.free > 0 {
			return f.free, nil
		}
		return audit.FreeBytes(dir)
	}
	return l.Reopen()
}

// held changes the faults with the lock held.
func (f *faulty) held(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

func TestNoActionWithoutTheAuditLog(t *testing.T) {
	for name, breakIt := range map[string]func(b *endpoint, f *faulty){
		"disk full":     func(_ *endpoint, f *faulty) { f.write, f.half = syscall.ENOSPC, true },
		"read-only":     func(_ *endpoint, f *faulty) { f.write = syscall.EROFS },
		"fsync error":   func(_ *endpoint, f *faulty) { f.sync = syscall.EIO },
		"nearly full":   func(_ *endpoint, f *faulty) { f.free = 1 << 20 },
		"file removed":  func(b *endpoint, _ *faulty) { os.Remove(b.audit) },
		"file replaced": func(b *endpoint, _ *faulty) { os.Remove(b.audit); _ = os.WriteFile(b.audit, nil, 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			b := newEndpoint(t, policyText())
			f := &faulty{}
			b.start(func(s *Server) {
				if err := f.under(s.engine.Log); err != nil {
					t.Fatal(err)
				}
			})
			before := gather(t, b.server)["kamailio_exporter_admin_audit_errors_total"]
			f.held(func() { breakIt(b, f) })
			r := b.run(nocToken, "dispatcher.reload", `{}`)
			if r.Status != 503 || r.problem() != "audit" {
				t.Errorf("%d %s", r.Status, r.Text)
			}
			b.noChange(name)
			if after := gather(t, b.server)["kamailio_exporter_admin_audit_errors_total"]; after <= before {
				t.Error("not counted")
			}
			// The log works again.
			f.held(func() { f.write, f.sync, f.free = nil, nil, 0 })
			if strings.HasPrefix(name, "file ") {
				if r := b.run(nocToken, "dispatcher.reload", `{}`); r.Status != 503 {
					t.Errorf("without SIGHUP: %d", r.Status)
				}
				if err := b.server.Reload(); err != nil {
					t.Fatal(err)
				}
			}
			if r := b.run(nocToken, "dispatcher.reload", `{}`); r.Status != 200 {
				t.Errorf("afterwards: %d %s", r.Status, r.Text)
			}
			b.stop()
			if _, err := audit.Verify([]string{b.audit}); err != nil {
				t.Error(err)
			}
			open := map[string]bool{}
			for _, r := range b.records() {
				open[r.ID] = r.Kind == audit.KindIntent
			}
			for id, left := range open {
				if left {
					t.Errorf("%s has no outcome", id)
				}
			}
		})
	}
}

func TestKilledBetweenIntentAndOutcome(t *testing.T) {
	b := newEndpoint(t, policyText())
	endDialog(b)
	b.start(nil)
	b.stop()
	// State after kill -9: an intent and half a line.
	a := b.server.engine.Log
	if err := a.Start(func(audit.Record) {}); err != nil {
		t.Fatal(err)
	}
	id := adminapi.NewID(time.Now())
	if err := a.Append(audit.Record{Kind: audit.KindIntent, ID: id, User: "noc", Action: "dialog.end", Key: "key-00000001", Print: action.Fingerprint("dialog.end", action.Args{"call_id": "x"}, false)}); err != nil {
		t.Fatal(err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(b.audit, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(f, `{"time":"2026-`)
	f.Close()

	b.start(nil)
	r := b.call(nocToken, "GET", "/v1/operations/"+id, "")
	if r.Status != 200 || r.Outcome != audit.Unknown {
		t.Errorf("%d %s", r.Status, r.Text)
	}
	if got := gather(t, b.server)[`kamailio_exporter_admin_requests_total{action="dialog.end",outcome="unknown",user="noc"}`]; got != 1 {
		t.Errorf("the metric is %v", got)
	}
	// The outcome is unknown, so a request with the same key is not run again.
	r = b.run(nocToken, "dialog.end", `{"call_id":"x"}`, "Idempotency-Key", "key-00000001")
	if r.Status != 504 || r.Outcome != audit.Unknown || r.Header.Get("Idempotent-Replay") != "true" || b.changes() != 0 {
		t.Errorf("%d %s", r.Status, r.Text)
	}
	b.stop()
	if n, err := audit.Verify([]string{b.audit}); err != nil || n.Records < 3 {
		t.Error(n, err)
	}
	var notes []string
	for _, r := range b.records() {
		if r.Kind == audit.KindNote {
			notes = append(notes, r.Detail)
		}
	}
	if !strings.Contains(strings.Join(notes, "; "), "an incomplete line of 14 bytes was removed") {
		t.Errorf("%q", notes)
	}
}

// After more denials than the log keeps and a restart, a used key still prevents a
// second run, and a used budget stays used.
func TestDenialsKeepTheState(t *testing.T) {
	b := newRuledEndpoint(t, "enforce", strings.Replace(drainRule, "{per_target: 1/30m, per_rule: 10/1h}", "{per_target: 1/24h, per_rule: 1/24h}", 1))
	text, err := os.ReadFile(b.file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(b.file, bytes.Replace(text, []byte("copy_to_log: true"), []byte("max_size_mb: 1, keep: 1"), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	b.again()
	b.want("the first alert", b.says(b.fires(0)), "applied")
	if r := b.run(nocToken, "permissions.reload-address", `{}`, "Idempotency-Key", "key-00000001"); r.Status != 200 {
		t.Fatalf("%d %s", r.Status, r.Text)
	}
	changes := b.changes()
	for range 6000 { // of 1 kB
		b.pass(time.Second)
		b.server.engine.Log.Deny(audit.Record{Source: "192.0.2.1", Status: 401, Problem: "unauthenticated", Detail: strings.Repeat("x", 1000)})
	}
	b.again()
	if r := b.run(nocToken, "permissions.reload-address", `{}`, "Idempotency-Key", "key-00000001"); r.Status != 200 || r.Header.Get("Idempotent-Replay") != "true" {
		t.Errorf("the same key: %d %s", r.Status, r.Text)
	}
	b.want("the next alert", b.says(b.fires(1)), "budget")
	if now := b.changes(); now != changes {
		t.Errorf("%d changes more", now-changes)
	}
}

// After more rotations than files are kept and a restart, all safety state is still
// known: a used key, a used budget and an open breaker.
func TestRotationsKeepTheState(t *testing.T) {
	b := newRuledEndpoint(t, "enforce", strings.Replace(drainRule, "{per_target: 1/30m, per_rule: 10/1h}", "{per_target: 1/24h, per_rule: 1/24h}", 1))
	text, err := os.ReadFile(b.file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(b.file, bytes.Replace(text, []byte("copy_to_log: true"), []byte("max_size_mb: 1, keep: 1"), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	b.again()
	b.want("the first alert", b.says(b.fires(0)), "applied")
	if r := b.run(nocToken, "permissions.reload-address", `{}`, "Idempotency-Key", "key-00000001"); r.Status != 200 {
		t.Fatalf("%d %s", r.Status, r.Text)
	}
	changes := b.changes()
	rotate := func() {
		t.Helper()
		for range 4000 { // of 1 kB
			b.server.engine.Log.Keep(audit.Record{Kind: audit.KindNote, Detail: strings.Repeat("x", 1000)})
		}
	}
	rotate()
	b.again()
	if r := b.run(nocToken, "permissions.reload-address", `{}`, "Idempotency-Key", "key-00000001"); r.Status != 200 || r.Header.Get("Idempotent-Replay") != "true" {
		t.Errorf("the same key: %d %s", r.Status, r.Text)
	}
	b.want("the next alert", b.says(b.fires(1)), "budget")
	b.server.ledger.Take(audit.Record{Kind: audit.KindNote, Time: b.now(), Detail: "a test", Rule: &audit.RuleTag{Rule: "drain", Step: "breaker"}})
	rotate()
	b.again()
	b.want("with an open breaker", b.says(b.fires(2)), "breaker")
	if now := b.changes(); now != changes {
		t.Errorf("%d changes more", now-changes)
	}
	b.stop()
	files, err := filepath.Glob(b.audit + ".0*")
	if err != nil || len(files) != 1 {
		t.Errorf("%q %v", files, err)
	}
	if _, err := audit.Verify(append(files, b.audit)); err != nil {
		t.Error(err)
	}
}

// Every user, and the owner of the log file, can read where the log ends.
func TestEndOfTheLogIsReported(t *testing.T) {
	b := newRuledEndpoint(t, "enforce", drainRule)
	for name, tc := range map[string]struct {
		token, path string
		status      int
	}{
		"the owner of the token": {"", adminapi.AuditPath, 200}, "a user": {botToken, adminapi.AuditPath, 200}, "a wrong token of its owner": {botToken + "x", adminapi.AuditPath, 401},
		"a webhook": {amToken, adminapi.AuditPath, 404}, "a query": {botToken, adminapi.AuditPath + "?x=1", 400},
	} {
		r := b.call(tc.token, "GET", tc.path, "")
		if r.Status != tc.status || r.Status == 200 && !strings.HasPrefix(r.Text, `{"logs":[{"file":"`+b.audit+`","seq":1,"hash":"`) {
			t.Errorf("%s: %d %s", name, r.Status, r.Text)
		}
	}
	if (&connInfo{peer: peer{uid: 4294967294, known: true}}).ownsLog() || (&connInfo{}).ownsLog() || (*connInfo)(nil).ownsLog() {
		t.Error("somebody else owns it")
	}
}
