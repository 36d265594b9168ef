package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/time/rate"
)

func newTestAudit(t testing.TB) *Log {
	t.Helper()
	a := New(Config{File: filepath.Join(t.TempDir(), "jsonl"), MaxSizeMB: 64, Keep: 3, MinFreeMB: 1}, Options{Version: "test", Now: time.Now, Replay: 48 * time.Hour})
	if err := a.Start(func(Record) {}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close() })
	return a
}

// faulty is a file that can be made to fail.
type faulty struct {
	File
	write, sync error
	half        bool // only half of each write arrives
}

func (f *faulty) Write(p []byte) (int, error) {
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
	if f.sync != nil {
		return f.sync
	}
	return f.File.Sync()
}

func TestTampering(t *testing.T) {
	a := newTestAudit(t)
	for i := range 20 {
		if err := a.Append(Record{Kind: KindOutcome, ID: fmt.Sprint(i), User: "noc", Outcome: Applied}); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := Verify([]string{a.path}); n.Records != 20 || n.First != 1 || n.Last != 20 || err != nil {
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
		"no start": join(lines[3:]...),
		"torn":     good[:len(good)-5],
		"inserted": bytes.Replace(good, []byte("\n"), []byte("\n\n"), 1),
	} {
		file := filepath.Join(t.TempDir(), "jsonl")
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Verify([]string{file}); err == nil {
			t.Errorf("%s: not found", name)
		}
	}
	// An edited log is continued, and the edit is recorded.
	if err := os.WriteFile(a.path, bytes.Replace(good, []byte(`"id":"7","user":"noc"`), []byte(`"id":"7","user":"bot"`), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := a.Start(func(Record) {}); err != nil {
		t.Fatal(err)
	}
	if err := a.Append(Record{Kind: KindNote}); err != nil {
		t.Fatal(err)
	}
	now, _ := os.ReadFile(a.path)
	if !bytes.Contains(now, []byte("the chain is broken")) {
		t.Error("not said")
	}
}

func TestRotation(t *testing.T) {
	a := newTestAudit(t)
	a.maxBytes = 2000
	const records = 60
	for i := range records {
		if err := a.Append(Record{Kind: KindOutcome, ID: fmt.Sprint(i), Detail: strings.Repeat("x", 100)}); err != nil {
			t.Fatal(err)
		}
	}
	files := append(a.oldFiles(), a.path)
	if len(files) != 4 { // Keep is 3
		t.Fatalf("%q", files)
	}
	report, err := Verify(files)
	if err != nil || report.Last < records || report.First == 1 || fmt.Sprint(report.Records) != fmt.Sprint(report.Last-report.First+1) {
		t.Error(report, err)
	}
	n := report.Records
	// A missing file in the middle is detected.
	if _, err := Verify([]string{files[0], files[2], files[3]}); err == nil {
		t.Error("a missing file was not found")
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	last, lines := "", 0
	again := New(Config{File: a.path, MaxSizeMB: 64, Keep: 3, MinFreeMB: 1}, Options{Version: "test", Now: time.Now, Replay: 48 * time.Hour})
	if err := again.Start(func(r Record) { last = r.ID; lines++ }); err != nil {
		t.Fatal(err)
	}
	if err := again.Append(Record{Kind: KindNote}); err != nil || last != fmt.Sprint(records-1) || lines != n {
		t.Error(last, lines, err)
	}
	t.Cleanup(func() { _ = again.Close() })
	if _, err := Verify(files); err != nil {
		t.Error("after a restart:", err)
	}
	if info, err := os.Stat(a.path); err != nil || info.Mode().Perm() != 0o600 {
		t.Error(info.Mode(), err)
	}
}

func TestOutcomesAreNotLost(t *testing.T) {
	a := newTestAudit(t)
	f := &faulty{write: errors.New("no")}
	a.Open = func(path string) (File, error) {
		file, err := OpenFile(path)
		f.File = file
		return f, err
	}
	if err := a.Reopen(); err != nil {
		t.Fatal(err)
	}
	a.Keep(Record{Kind: KindOutcome, ID: "1", Outcome: Applied})
	a.Keep(Record{Kind: KindOutcome, ID: "2", Outcome: Failed})
	f.write = nil
	if err := a.Append(Record{Kind: KindIntent, ID: "3"}); err != nil {
		t.Fatal(err)
	}
	var ids []string
	if _, err := readFile(a.path, "", func(r Record) { ids = append(ids, r.ID) }); err != nil || strings.Join(ids, " ") != "1 2 3" {
		t.Error(ids, err)
	}
}

func TestOneWriter(t *testing.T) {
	a := newTestAudit(t)
	if err := a.Append(Record{Kind: KindNote}); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(a.path)
	if err != nil {
		t.Fatal(err)
	}
	second := New(Config{File: a.path, MaxSizeMB: 64, Keep: 3, MinFreeMB: 1}, Options{Now: time.Now})
	if err := second.Start(func(Record) {}); err == nil || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), "another process writes "+a.path) {
		t.Fatal(err)
	}
	second.Keep(Record{Kind: KindNote}) // without the lock, nothing is written
	if now, err := os.ReadFile(a.path); err != nil || !bytes.Equal(now, before) {
		t.Errorf("%s %v", now, err)
	}
	a.maxBytes = 1 // a rotation does not release the lock
	for range 3 {
		if err := a.Append(Record{Kind: KindNote}); err != nil {
			t.Fatal(err)
		}
		if err := second.Lock(); err == nil {
			t.Fatal("a second writer")
		}
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if err := second.Start(func(Record) {}); err != nil {
		t.Fatal("after the first has ended:", err)
	}
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}
}

// quick is a file without sync, because 100,000 syncs take too long.
type quick struct{ File }

func (quick) Sync() error { return nil }

func TestDenialsLoseNoEvidence(t *testing.T) {
	a := newTestAudit(t)
	a.keep, a.denied.keep = 1, 1
	a.maxBytes, a.denied.maxBytes = 1<<20, 1<<20
	a.denied.denials[""] = &denials{limit: rate.NewLimiter(rate.Inf, 0)}
	a.denied.Open = func(path string) (File, error) {
		file, err := OpenFile(path)
		return quick{file}, err
	}
	if err := a.Reopen(); err != nil {
		t.Fatal(err)
	}
	if err := a.Append(Record{Kind: KindIntent, ID: "1", User: "noc"}, Record{Kind: KindOutcome, ID: "1", User: "noc", Key: "key-00000001", Outcome: Applied}); err != nil {
		t.Fatal(err)
	}
	for range 100_000 {
		a.Deny(Record{Source: "192.0.2.1", Status: 401, Problem: "unauthenticated"})
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	var ids []string
	if err := a.Start(func(r Record) { ids = append(ids, r.Kind+" "+r.ID) }); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(ids, ", "); got != "intent 1, outcome 1" {
		t.Errorf("%.200s", got)
	}
	if old := a.denied.oldFiles(); len(old) != 1 || len(a.oldFiles()) != 0 {
		t.Errorf("%q: the denials were to rotate, and nothing else", old)
	}
	for _, files := range [][]string{{a.path}, append(a.denied.oldFiles(), a.denied.path)} {
		if _, err := Verify(files); err != nil {
			t.Error(err)
		}
	}
}

// Unknown users do not use up the lines of known ones.
func TestDenialsOfUsersHaveLines(t *testing.T) {
	a := newTestAudit(t)
	for range 1000 {
		a.Deny(Record{Source: "192.0.2.1", Status: 401})
	}
	for i := range DenialsPerSecond {
		a.Deny(Record{ID: fmt.Sprint(i), User: "noc", Status: 422})
		a.Deny(Record{ID: fmt.Sprint(i), User: "bot", Status: 422})
	}
	for range 1000 {
		a.Deny(Record{User: "am", Status: 429})
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	lines, counted := map[string]int{}, map[string]int{}
	text, err := os.ReadFile(a.denied.path)
	if err != nil {
		t.Fatal(err)
	}
	if err := Read(bytes.NewReader(text), func(r Record) {
		counted[r.User] += r.Count
		if r.Kind == KindDenied {
			lines[r.User]++
		}
	}); err != nil {
		t.Fatal(err)
	}
	for user, all := range map[string]int{"": 1000, "noc": DenialsPerSecond, "bot": DenialsPerSecond, "am": 1000} {
		if lines[user] < DenialsPerSecond || lines[user] > 3*DenialsPerSecond || lines[user]+counted[user] != all {
			t.Errorf("%q: %d lines, %d counted of %d", user, lines[user], counted[user], all)
		}
	}
}

func TestFilesWithoutAChain(t *testing.T) {
	rotated := func() (*Log, []string) {
		a := newTestAudit(t)
		a.maxBytes = 2000
		for i := range 30 {
			if err := a.Append(Record{Kind: KindOutcome, ID: fmt.Sprint(i), Detail: strings.Repeat("x", 100)}); err != nil {
				t.Fatal(err)
			}
		}
		return a, append(a.oldFiles(), a.path)
	}
	_, files := rotated()
	if _, err := Verify(files); err != nil || len(files) < 3 {
		t.Fatal(files, err)
	}
	fresh := newTestAudit(t)
	if err := fresh.Append(Record{Kind: KindNote}); err != nil {
		t.Fatal(err)
	}
	last := len(files) - 1
	for name, wrong := range map[string][]string{
		"the wrong order":                   {files[1], files[0], files[2]},
		"the newest first":                  {files[last], files[0]},
		"a later one begins at 1":           append(append([]string{}, files[:last]...), fresh.path),
		"one is missing":                    {files[0], files[2]},
		"the same value twice":              {files[0], files[0]},
		"the first record after the others": {files[0], files[1], fresh.path},
	} {
		if _, err := Verify(wrong); err == nil {
			t.Errorf("%s: not found", name)
		}
	}
	// The beginning of a rotated file, and its end.
	text, err := os.ReadFile(files[1])
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.SplitAfter(bytes.TrimSuffix(text, []byte("\n")), []byte("\n"))
	for name, cut := range map[string][][]byte{"beginning": lines[1:], "end": lines[:len(lines)-1]} {
		file := filepath.Join(t.TempDir(), filepath.Base(files[1]))
		cut := append(bytes.TrimSuffix(bytes.Join(cut, nil), []byte("\n")), '\n')
		if err := os.WriteFile(file, cut, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Verify([]string{file}); err == nil {
			t.Errorf("its %s was cut off: not found", name)
		}
	}
}

// logrotate renames the files, newest first, and then sends SIGHUP. The exporter restarts
// before there is another record.
func TestLogrotateLosesNothing(t *testing.T) {
	a := newTestAudit(t)
	a.opts.Checkpoint = func() []any { return []any{"the state"} }
	for i := range 3 {
		if err := a.Append(Record{Kind: KindOutcome, ID: fmt.Sprint(i)}); err != nil {
			t.Fatal(err)
		}
		a.Deny(Record{Source: "192.0.2.1", Status: 401})
		for _, path := range []string{a.path, a.denied.path} {
			for _, names := range [][2]string{{".2", ".3"}, {".1", ".2"}, {"", ".1"}} {
				if err := os.Rename(path+names[0], path+names[1]); err != nil && !errors.Is(err, os.ErrNotExist) {
					t.Fatal(err)
				}
			}
		}
		if err := errors.Join(a.Reopen(), a.Close()); err != nil {
			t.Fatal(err)
		}
		var kept []Record
		if err := a.Start(func(r Record) { kept = append(kept, r) }); err != nil {
			t.Fatal(err)
		}
		if len(kept) != 1 || fmt.Sprintf("%s", kept[0].Carries) != `["the state"]` {
			t.Errorf("after rotation %d, the next start reads %v", i+1, kept)
		}
	}
	for _, path := range []string{a.path, a.denied.path} {
		for _, files := range [][]string{Files(path), {path + ".3", path + ".2", path + ".1", path}} {
			if report, err := Verify(files); err != nil || report.Last != 6 {
				t.Errorf("%q: %v, %v", files, report, err)
			}
		}
	}
}

// Truncation, as by logrotate's copytruncate, and edits by other writers.
func TestOtherWritersAreNoticed(t *testing.T) {
	for name, change := range map[string]func(path string) error{
		"copytruncate": func(path string) error { return os.Truncate(path, 0) },
		"cut":          func(path string) error { return os.Truncate(path, 100) },
		"added to": func(path string) error {
			f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
			if err == nil {
				_, err = f.WriteString("{}\n")
				err = errors.Join(err, f.Close())
			}
			return err
		},
	} {
		a := newTestAudit(t)
		for range 3 {
			if err := a.Append(Record{Kind: KindNote}); err != nil {
				t.Fatal(err)
			}
		}
		if err := change(a.path); err != nil {
			t.Fatal(err)
		}
		if err := a.Append(Record{Kind: KindNote}); err != nil {
			t.Fatal(err)
		}
		if text, err := os.ReadFile(a.path); err != nil || !bytes.Contains(text, []byte("another program changed the file")) {
			t.Errorf("%s: not said: %v", name, err)
		}
		if _, err := Verify([]string{a.path}); err == nil {
			t.Errorf("%s: not found", name)
		}
	}
}

// A log is compared with what its writer knows, which finds everything that the chain
// alone does not show, in all files of the log.
func TestRunningLogIsCompared(t *testing.T) {
	a := newTestAudit(t)
	a.maxBytes, a.keep = 2000, 100
	for i := range 60 {
		if err := a.Append(Record{Kind: KindOutcome, ID: fmt.Sprint(i), User: "noc", Detail: strings.Repeat("x", 100)}); err != nil {
			t.Fatal(err)
		}
	}
	files := Files(a.path)
	good := map[string][]byte{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		good[file] = text
	}
	other := newTestAudit(t)
	for range 60 {
		if err := other.Append(Record{Kind: KindNote}); err != nil {
			t.Fatal(err)
		}
	}
	foreign, err := os.ReadFile(other.path)
	if err != nil {
		t.Fatal(err)
	}
	last := bytes.SplitAfter(bytes.TrimSuffix(good[a.path], []byte("\n")), []byte("\n"))
	lines := len(last)
	// chained is the last file with a different text in each line and a valid chain.
	chained := func() (text []byte) {
		prev := ""
		for i, line := range bytes.SplitAfter(bytes.ReplaceAll(good[a.path], []byte(`"user":"noc"`), []byte(`"user":"bot"`)), []byte("\n")) {
			if i > 0 && len(line) > 0 {
				at := bytes.Index(line, []byte(`"prev":"`)) + len(`"prev":"`)
				line = append(append(bytes.Clone(line[:at]), prev...), line[at+len(prev):]...)
			}
			prev = hashOf(bytes.TrimSuffix(line, []byte("\n")))
			text = append(text, line...)
		}
		return text
	}()
	mine := func() (Head, error) { return a.Heads()[0], nil }
	for name, tc := range map[string]struct {
		file  string
		text  []byte
		files []string
		says  string
	}{
		"untouched":                   {},
		"the last line was edited":    {file: a.path, text: bytes.Join(append(append([][]byte{}, last[:lines-1]...), append(bytes.Replace(last[lines-1], []byte("noc"), []byte("bot"), 1), '\n')), nil), says: "is not what the running exporter wrote"},
		"the end is missing":          {file: a.path, text: bytes.Join(last[:lines-2], nil), says: "the end is missing"},
		"copytruncate":                {file: a.path, text: []byte{}, says: "the end is missing"},
		"a completely new chain":      {file: a.path, text: chained, says: "is not what the running exporter wrote"},
		"the last file is missing":    {files: files[:len(files)-1], says: "the end is missing"},
		"the beginning is missing":    {file: files[0], text: bytes.Join(bytes.SplitAfter(good[files[0]], []byte("\n"))[2:], nil), says: "the beginning is missing"},
		"a different order":           {files: append([]string{files[1], files[0]}, files[2:]...), says: "does not follow"},
		"another file in place of it": {file: files[2], text: foreign, says: "does not follow"},
		"another file at the end":     {file: a.path, text: foreign, says: "does not follow"},
	} {
		if tc.file != "" {
			if err := os.WriteFile(tc.file, tc.text, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if tc.files == nil {
			tc.files = files
		}
		report, err := VerifyRunning(func() []string { return tc.files }, mine)
		if tc.says == "" && (err != nil || report.Compared != report.Last || report.First != 1) || tc.says != "" && (err == nil || !strings.Contains(err.Error(), tc.says)) {
			t.Errorf("%s: %v, %v", name, report, err)
		}
		for file, text := range good {
			if err := os.WriteFile(file, text, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	// Lines that another writer appended, with a valid chain.
	line, err := json.Marshal(Record{Kind: KindNote, Seq: a.seq + 1, Prev: a.prev})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(a.path, append(append(bytes.Clone(good[a.path]), line...), '\n'), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := VerifyRunning(func() []string { return files }, mine); err == nil || !strings.Contains(err.Error(), "it continues after record") {
		t.Errorf("a record of somebody else: %v", err)
	}
}

// The log is written and rotated during the check.
func TestRunningLogIsComparedMeanwhile(t *testing.T) {
	a := newTestAudit(t)
	a.maxBytes, a.keep = 20_000, 1000
	stop, stopped := make(chan struct{}), make(chan struct{})
	begun := make(chan struct{})
	go func() {
		defer close(stopped)
		for i := 0; ; i++ {
			if err := a.Append(Record{Kind: KindNote, Detail: strings.Repeat("x", 100)}); err != nil {
				t.Error(err)
				return
			}
			if i == 10 {
				close(begun)
			}
			select {
			case <-stop:
				return
			default:
			}
		}
	}()
	<-begun
	for range 30 {
		if report, err := VerifyRunning(func() []string { return Files(a.path) }, func() (Head, error) { return a.Heads()[0], nil }); err != nil || report.Compared < 10 {
			t.Errorf("%v, %v", report, err)
		}
	}
	close(stop)
	<-stopped
}

// However fast the log is rotated, no gap is seen: each time it is listed, it is rotated
// twice at once.
func TestRotationDuringTheCheckLeavesNoGap(t *testing.T) {
	a := newTestAudit(t)
	a.maxBytes, a.keep = 2_000, 1000
	list := func() []string {
		files := Files(a.path)
		for want := len(files) + 2; len(Files(a.path)) < want; {
			if err := a.Append(Record{Kind: KindNote, Detail: strings.Repeat("x", 100)}); err != nil {
				t.Fatal(err)
			}
		}
		return files
	}
	list()
	report, err := VerifyRunning(list, func() (Head, error) { return a.Heads()[0], nil })
	if err != nil || report.Compared < 10 || report.First != 1 {
		t.Errorf("%v, %v", report, err)
	}
}
