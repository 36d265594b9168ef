package admin

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func newTestAudit(t testing.TB) *audit {
	t.Helper()
	a := newAudit(AuditConfig{File: filepath.Join(t.TempDir(), "audit.jsonl"), MaxSizeMB: 64, Keep: 3, MinFreeMB: 1}, nil, "test", time.Now)
	if err := a.start(func(Record) {}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.close() })
	return a
}

// faulty is a file that fails as it is told.
type faulty struct {
	auditFile
	write, sync error
	half        bool // half of what is written arrives
}

func (f *faulty) Write(p []byte) (int, error) {
	if f.write == nil {
		return f.auditFile.Write(p)
	}
	n := 0
	if f.half {
		n, _ = f.auditFile.Write(p[:len(p)/2])
	}
	return n, f.write
}

func (f *faulty) Sync() error {
	if f.sync != nil {
		return f.sync
	}
	return f.auditFile.Sync()
}

func TestAttack27AuditFailures(t *testing.T) {
	for name, breakIt := range map[string]func(b *bench, f *faulty){
		"disk full":   func(_ *bench, f *faulty) { f.write, f.half = syscall.ENOSPC, true },
		"read-only":   func(_ *bench, f *faulty) { f.write = syscall.EROFS },
		"fsync error": func(_ *bench, f *faulty) { f.sync = syscall.EIO },
		"nearly full": func(b *bench, _ *faulty) {
			b.server.engine.audit.free = func(string) (uint64, error) { return 1 << 20, nil }
		},
		"file removed":  func(b *bench, _ *faulty) { os.Remove(b.audit) },
		"file replaced": func(b *bench, _ *faulty) { os.Remove(b.audit); _ = os.WriteFile(b.audit, nil, 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, policyText())
			f := &faulty{}
			b.start(func(s *Server) {
				a := s.engine.audit
				a.open = func(path string) (auditFile, error) {
					file, err := openAuditFile(path)
					f.auditFile = file
					return f, err
				}
				if err := a.reopen(); err != nil {
					t.Fatal(err)
				}
			})
			before := gather(t, b.server)["kamailio_exporter_admin_audit_errors_total"]
			held := func(change func()) {
				b.server.engine.audit.mu.Lock()
				defer b.server.engine.audit.mu.Unlock()
				change()
			}
			held(func() { breakIt(b, f) })
			r := b.run(nocToken, "dispatcher.reload", `{}`)
			if r.Status != 503 || r.problem() != "audit" {
				t.Errorf("%d %s", r.Status, r.Text)
			}
			b.noChange(name)
			if after := gather(t, b.server)["kamailio_exporter_admin_audit_errors_total"]; after <= before {
				t.Error("not counted")
			}
			// All is well again.
			held(func() { f.write, f.sync, b.server.engine.audit.free = nil, nil, freeBytes })
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
			if _, err := VerifyAudit([]string{b.audit}); err != nil {
				t.Error(err)
			}
			open := map[string]bool{}
			for _, r := range b.records() {
				open[r.ID] = r.Kind == recordIntent
			}
			for id, left := range open {
				if left {
					t.Errorf("%s has no outcome", id)
				}
			}
		})
	}
}

func TestAttack27Killed(t *testing.T) {
	b := newBench(t, policyText())
	endDialog(b)
	b.start(nil)
	b.stop()
	// What kill -9 leaves: an intent, and half a line.
	a := b.server.engine.audit
	if err := a.start(func(Record) {}); err != nil {
		t.Fatal(err)
	}
	id := newID(time.Now())
	if err := a.append(Record{Kind: recordIntent, ID: id, User: "noc", Action: "dialog.end", Key: "key-00000001", Print: fingerprint("dialog.end", Args{"call_id": "x"}, false)}); err != nil {
		t.Fatal(err)
	}
	a.file.Close()
	a.file = nil
	f, err := os.OpenFile(b.audit, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(f, `{"time":"2026-`)
	f.Close()

	b.start(nil)
	r := b.call(nocToken, "GET", "/v1/operations/"+id, "")
	if r.Status != 200 || r.Outcome != Unknown {
		t.Errorf("%d %s", r.Status, r.Text)
	}
	if got := gather(t, b.server)[`kamailio_exporter_admin_requests_total{action="dialog.end",outcome="unknown",user="noc"}`]; got != 1 {
		t.Errorf("the metric is %v", got)
	}
	// Nobody knows whether it was done, so its key does not do it again.
	r = b.run(nocToken, "dialog.end", `{"call_id":"x"}`, "Idempotency-Key", "key-00000001")
	if r.Status != 504 || r.Outcome != Unknown || r.Header.Get("Idempotent-Replay") != "true" || b.changes() != 0 {
		t.Errorf("%d %s", r.Status, r.Text)
	}
	b.stop()
	if n, err := VerifyAudit([]string{b.audit}); err != nil || n < 3 {
		t.Error(n, err)
	}
	var notes []string
	for _, r := range b.records() {
		if r.Kind == recordNote {
			notes = append(notes, r.Detail)
		}
	}
	if !strings.Contains(strings.Join(notes, "; "), "14 bytes of a line that was not whole were cut off") {
		t.Errorf("%q", notes)
	}
}

func TestAuditTampering(t *testing.T) {
	a := newTestAudit(t)
	for i := range 20 {
		if err := a.append(Record{Kind: recordOutcome, ID: fmt.Sprint(i), User: "noc", Outcome: Applied}); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := VerifyAudit([]string{a.path}); n != 20 || err != nil {
		t.Fatal(n, err)
	}
	good, err := os.ReadFile(a.path)
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.SplitAfter(good, []byte("\n"))
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	for name, text := range map[string][]byte{
		"edited":   bytes.Replace(good, []byte(`"id":"7","user":"noc"`), []byte(`"id":"7","user":"bot"`), 1),
		"removed":  join(append(append([][]byte{}, lines[:7]...), lines[8:]...)...),
		"swapped":  join(append(append([][]byte{}, lines[:3]...), append([][]byte{lines[4], lines[3]}, lines[5:]...)...)...),
		"doubled":  join(append(append([][]byte{}, lines[:5]...), lines[4:]...)...),
		"garbage":  join(append(append([][]byte{}, lines[:5]...), append([][]byte{[]byte("x\n")}, lines[5:]...)...)...),
		"torn":     good[:len(good)-5],
		"inserted": bytes.Replace(good, []byte("\n"), []byte("\n\n"), 1),
	} {
		file := filepath.Join(t.TempDir(), "audit.jsonl")
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := VerifyAudit([]string{file}); err == nil {
			t.Errorf("%s: not found", name)
		}
	}
	// A log that was edited is gone on with, and says so.
	if err := os.WriteFile(a.path, bytes.Replace(good, []byte(`"id":"7","user":"noc"`), []byte(`"id":"7","user":"bot"`), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := a.start(func(Record) {}); err != nil {
		t.Fatal(err)
	}
	if err := a.append(Record{Kind: recordNote}); err != nil {
		t.Fatal(err)
	}
	now, _ := os.ReadFile(a.path)
	if !bytes.Contains(now, []byte("the chain is broken")) {
		t.Error("not said")
	}
}

func TestAuditRotation(t *testing.T) {
	a := newTestAudit(t)
	a.maxBytes = 2000
	const records = 60
	for i := range records {
		if err := a.append(Record{Kind: recordOutcome, ID: fmt.Sprint(i), Detail: strings.Repeat("x", 100)}); err != nil {
			t.Fatal(err)
		}
	}
	files := append(a.oldFiles(), a.path)
	if len(files) != 4 { // Keep is 3
		t.Fatalf("%q", files)
	}
	n, err := VerifyAudit(files)
	if err != nil || n >= records {
		t.Error(n, err)
	}
	// One missing in between is found.
	if _, err := VerifyAudit([]string{files[0], files[2], files[3]}); err == nil {
		t.Error("a missing file was not found")
	}
	last, lines := "", 0
	again := newAudit(AuditConfig{File: a.path, MaxSizeMB: 64, Keep: 3, MinFreeMB: 1}, nil, "test", time.Now)
	if err := again.start(func(r Record) { last = r.ID; lines++ }); err != nil {
		t.Fatal(err)
	}
	if err := again.append(Record{Kind: recordNote}); err != nil || last != fmt.Sprint(records-1) || lines != n {
		t.Error(last, lines, err)
	}
	if _, err := VerifyAudit(files); err != nil {
		t.Error("after a restart:", err)
	}
	if info, err := os.Stat(a.path); err != nil || info.Mode().Perm() != 0o600 {
		t.Error(info.Mode(), err)
	}
}

func TestOutcomesAreNotLost(t *testing.T) {
	a := newTestAudit(t)
	f := &faulty{write: errors.New("no")}
	a.open = func(path string) (auditFile, error) {
		file, err := openAuditFile(path)
		f.auditFile = file
		return f, err
	}
	if err := a.reopen(); err != nil {
		t.Fatal(err)
	}
	a.outcome(Record{Kind: recordOutcome, ID: "1", Outcome: Applied})
	a.outcome(Record{Kind: recordOutcome, ID: "2", Outcome: Failed})
	f.write = nil
	if err := a.append(Record{Kind: recordIntent, ID: "3"}); err != nil {
		t.Fatal(err)
	}
	var ids []string
	if _, err := readAudit(a.path, "", func(r Record) { ids = append(ids, r.ID) }); err != nil || strings.Join(ids, " ") != "1 2 3" {
		t.Error(ids, err)
	}
}
