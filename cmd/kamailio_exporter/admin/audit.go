package admin

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Record is one line of the audit log.
type Record struct {
	Time     time.Time      `json:"time"`
	Seq      uint64         `json:"seq"`
	Kind     string         `json:"kind"` // intent, outcome, denied, summary, note
	ID       string         `json:"id,omitempty"`
	User     string         `json:"user,omitempty"`
	Auth     string         `json:"auth,omitempty"` // peer, token or cert
	Source   string         `json:"source,omitempty"`
	Action   string         `json:"action,omitempty"`
	Params   map[string]any `json:"params,omitempty"` // secret ones as hmac:…
	Reason   string         `json:"reason,omitempty"`
	Key      string         `json:"key,omitempty"`         // Idempotency-Key
	Print    string         `json:"fingerprint,omitempty"` // of action and parameters
	DryRun   bool           `json:"dry_run,omitempty"`
	Outcome  Outcome        `json:"outcome,omitempty"`
	Verified bool           `json:"verified,omitempty"`
	Status   int            `json:"status,omitempty"` // of HTTP
	Problem  string         `json:"problem,omitempty"`
	Detail   string         `json:"detail,omitempty"`
	Code     int            `json:"kamailio_code,omitempty"`
	Before   State          `json:"before,omitempty"`
	After    State          `json:"after,omitempty"`
	Duration int64          `json:"duration_ms,omitempty"`
	Count    int            `json:"count,omitempty"` // of a summary: denials that have no line
	Version  string         `json:"version,omitempty"`
	Remedy   *Remedy        `json:"remediation,omitempty"` // the rule behind it
	Prev     string         `json:"prev"`                  // SHA-256 of the line before
}

// Kinds of records.
const (
	recordIntent  = "intent"
	recordOutcome = "outcome"
	recordDenied  = "denied"
	recordSummary = "summary"
	recordNote    = "note"
)

// auditFile is the part of an os.File that the log needs; tests make it fail.
type auditFile interface {
	io.Writer
	Sync() error
	Stat() (os.FileInfo, error)
	Close() error
}

// audit is the log: one JSON object a line, each with the hash of the line before.
// What it says is on the disk before append returns. After an error it is opened
// anew at the next append, which cuts off a line that is not whole.
type audit struct {
	path      string
	maxBytes  int64
	keep      int
	minFree   uint64
	version   string
	hmacKey   []byte
	open      func(path string) (auditFile, error)
	free      func(dir string) (uint64, error)
	now       func() time.Time
	copyTo    func(Record)        // a further copy; may be nil
	onFailure func(error)         // counted
	onSync    func(time.Duration) // measured

	mu      sync.Mutex
	file    auditFile
	size    int64
	seq     uint64
	prev    string
	pending []Record // outcomes that could not be written
	skipped int      // denials without a line
	lost    bool     // the file is not at its path any more: until reopen
}

// zeroHash is before the first line.
var zeroHash = strings.Repeat("0", 2*sha256.Size)

func sha256Hex(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func openAuditFile(path string) (auditFile, error) {
	return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND|syscall.O_NOFOLLOW, 0o600)
}

func freeBytes(dir string) (uint64, error) {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err != nil {
		return 0, err
	}
	return fs.Bavail * uint64(fs.Bsize), nil //nolint:gosec // a block has a positive size
}

func newAudit(cfg AuditConfig, hmacKey []byte, version string, now func() time.Time) *audit {
	return &audit{
		path: cfg.File, maxBytes: int64(cfg.MaxSizeMB) << 20, keep: cfg.Keep, minFree: uint64(cfg.MinFreeMB) << 20, //nolint:gosec // positive, see Config.check
		version: version, hmacKey: hmacKey,
		open: openAuditFile, free: freeBytes, now: now,
		onFailure: func(error) {}, onSync: func(time.Duration) {},
		prev: zeroHash,
	}
}

// start reads what is there and opens the log. Every record of the last day, and
// of at least the file before the present one, goes to each, oldest first.
func (a *audit) start(each func(Record)) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	before := "" // what was before the oldest file is gone
	for _, old := range a.recentFiles() {
		result, err := readAudit(old, before, each)
		if err != nil {
			return err
		}
		if before = result.prev; result.lines > 0 {
			a.seq, a.prev = result.seq, result.prev
		}
		if result.broken != "" {
			a.pending = append(a.pending, a.note("the chain is broken in "+filepath.Base(old)+": "+result.broken))
		}
	}
	return a.reopenLocked(before, each)
}

func (a *audit) note(text string) Record { return Record{Kind: recordNote, Detail: text} }

// oldFiles are the rotated ones, oldest first: their names end in the number of
// their last record.
func (a *audit) oldFiles() []string {
	files, _ := filepath.Glob(a.path + ".*")
	files = slices.DeleteFunc(files, func(f string) bool {
		return strings.Trim(strings.TrimPrefix(f, a.path+"."), "0123456789") != ""
	})
	slices.Sort(files)
	return files
}

// recentFiles are the last rotated one, and those that were written in the time
// that an Idempotency-Key lives.
func (a *audit) recentFiles() []string {
	files := a.oldFiles()
	for i := range files {
		info, err := os.Stat(files[i])
		if i == len(files)-1 || err != nil || a.now().Sub(info.ModTime()) < 2*keyLife {
			return files[i:]
		}
	}
	return nil
}

// reopenLocked opens the file, cuts off a last line that is not whole, and goes on
// behind what is there. before is as in readAudit.
func (a *audit) reopenLocked(before string, each func(Record)) error {
	if a.file != nil {
		a.file.Close()
		a.file = nil
	}
	file, err := a.open(a.path)
	if err != nil {
		return err
	}
	result, err := readAudit(a.path, before, each)
	if err == nil && result.torn > 0 {
		err = os.Truncate(a.path, result.good)
	}
	if err == nil {
		// The file's own name, too, has to be on the disk.
		err = syncDir(filepath.Dir(a.path))
	}
	if err != nil {
		file.Close()
		return err
	}
	if result.lines > 0 {
		a.seq, a.prev = max(a.seq, result.seq), result.prev
	}
	a.file, a.size, a.lost = file, result.good, false
	if result.torn > 0 {
		a.pending = append([]Record{a.note(fmt.Sprintf("%d bytes of a line that was not whole were cut off", result.torn))}, a.pending...)
	}
	if result.broken != "" {
		a.pending = append([]Record{a.note("the chain is broken: " + result.broken)}, a.pending...)
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

var errAuditGone = errors.New("the audit log is no more where it was: SIGHUP makes a new one")

// append writes records and syncs them. Nothing may be done before an intent is
// on the disk.
func (a *audit) append(records ...Record) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.appendLocked(records)
}

func (a *audit) appendLocked(records []Record) error {
	err := a.ready()
	if err == nil {
		err = a.write(records)
	}
	if err != nil {
		a.onFailure(err)
	}
	return err
}

// ready opens the file after an error, and looks for room.
func (a *audit) ready() error {
	if a.lost {
		return errAuditGone
	}
	if a.file == nil {
		if err := a.reopenLocked("", func(Record) {}); err != nil {
			return err
		}
	}
	mine, err := a.file.Stat()
	if err != nil {
		return err
	}
	there, err := os.Stat(a.path)
	if err != nil || !os.SameFile(mine, there) {
		a.lost = true
		return errAuditGone
	}
	free, err := a.free(filepath.Dir(a.path))
	if err == nil && free < a.minFree {
		err = fmt.Errorf("only %d MB are free", free>>20)
	}
	if err == nil && a.size > a.maxBytes {
		err = a.rotate()
	}
	return err
}

func (a *audit) write(records []Record) error {
	all := append(slices.Clone(a.pending), records...)
	seq, prev := a.seq, a.prev
	var text bytes.Buffer
	for i := range all {
		r := &all[i]
		seq++
		r.Seq, r.Prev, r.Version = seq, prev, a.version
		if r.Time.IsZero() {
			r.Time = a.now().UTC()
		}
		line, err := json.Marshal(r)
		if err != nil {
			return err
		}
		prev = sha256Hex(line)
		text.Write(line)
		text.WriteByte('\n')
	}
	began := time.Now()
	_, err := a.file.Write(text.Bytes())
	if err == nil {
		err = a.file.Sync()
	}
	if err != nil {
		// What is on the disk is not known: read it anew before the next.
		a.file.Close()
		a.file = nil
		a.abandon(records)
		return err
	}
	a.onSync(time.Since(began))
	a.seq, a.prev, a.size, a.pending = seq, prev, a.size+int64(text.Len()), nil
	if a.copyTo != nil {
		for _, r := range all {
			a.copyTo(r)
		}
	}
	return nil
}

// abandon remembers to say that nothing was sent after an intent that was not
// synced, and may be on the disk all the same.
func (a *audit) abandon(records []Record) {
	for _, r := range records {
		if r.Kind == recordIntent {
			a.pending = append(a.pending, Record{Kind: recordOutcome, ID: r.ID, User: r.User, Action: r.Action, Outcome: Refused, Status: noAudit.status, Problem: noAudit.name, Detail: "the intent could not be synced"})
		}
	}
}

// outcome writes how an operation ended. It must not be lost: what cannot be
// written now is written before the next record.
func (a *audit) outcome(r Record) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.appendLocked([]Record{r}); err != nil {
		r.Time = a.now().UTC()
		a.pending = append(a.pending, r)
	}
}

// denied writes a denial, or only counts it: strangers must not fill the disk.
func (a *audit) denied(r Record, line bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !line {
		a.skipped++
		return
	}
	records := []Record{r}
	if a.skipped > 0 {
		records = []Record{{Kind: recordSummary, Count: a.skipped, Detail: "denials without a line of their own"}, r}
	}
	if a.appendLocked(records) == nil {
		a.skipped = 0
	}
}

// rotate gives the file its number for a name, and begins a new one.
func (a *audit) rotate() error {
	if err := os.Rename(a.path, fmt.Sprintf("%s.%020d", a.path, a.seq)); err != nil {
		return err
	}
	for old := a.oldFiles(); len(old) > a.keep; old = old[1:] {
		if err := os.Remove(old[0]); err != nil {
			return err
		}
	}
	return a.reopenLocked("", func(Record) {})
}

// reopen is for SIGHUP: something may have moved the file away.
func (a *audit) reopen() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.reopenLocked("", func(Record) {})
}

// writable tells whether an intent could be written now.
func (a *audit) writable() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	err := a.ready()
	if err != nil {
		a.onFailure(err)
	}
	return err
}

// close writes what is left.
func (a *audit) close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	var records []Record
	if a.skipped > 0 {
		records = []Record{{Kind: recordSummary, Count: a.skipped, Detail: "denials without a line of their own"}}
	}
	var err error
	if len(records)+len(a.pending) > 0 {
		err = a.appendLocked(records)
	}
	if a.file != nil {
		err = errors.Join(err, a.file.Close())
		a.file = nil
	}
	return err
}

// redact keeps secret parameters out. With a key, equal values can be recognised.
func (a *audit) redact(params []Param, args Args) map[string]any {
	if len(args) == 0 {
		return nil
	}
	kept := map[string]any{}
	for _, p := range params {
		kept[p.Name] = args[p.Name]
		if p.Secret {
			kept[p.Name] = "(left out)"
			if a.hmacKey != nil {
				mac := hmac.New(sha256.New, a.hmacKey)
				fmt.Fprint(mac, args[p.Name])
				kept[p.Name] = "hmac:" + hex.EncodeToString(mac.Sum(nil)[:16])
			}
		}
	}
	return kept
}
