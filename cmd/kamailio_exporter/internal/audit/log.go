package audit

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/time/rate"
)

// Config says where the audit log is and how long it is kept.
type Config struct {
	File        string `yaml:"file"`
	MaxSizeMB   int    `yaml:"max_size_mb"`
	Keep        int    `yaml:"keep"`
	MinFreeMB   int    `yaml:"min_free_mb"`
	CopyToLog   bool   `yaml:"copy_to_log"`
	HMACKeyFile string `yaml:"hmac_key_file"`
}

// Options are what a Log needs in addition to its configuration.
type Options struct {
	HMACKey   []byte // hashes secret parameters; if empty, they are left out
	Version   string // version of this program
	Now       func() time.Time
	Replay    time.Duration       // records of at least this period are read back at the start
	CopyTo    func(Record)        // receives a copy of each record; may be nil
	OnFailure func(error)         // called whenever writing the log fails; may be nil
	OnSync    func(time.Duration) // called with the time that a write took to reach the disk; may be nil

	// Checkpoint returns the state that each new file begins with, so that older files
	// are not needed to restore it. Start passes it back in records of KindCheckpoint.
	// It may be nil, and must not use the log.
	Checkpoint func() []any
}

// File is the part of os.File that the log needs. Tests use it to simulate errors.
type File interface {
	io.Writer
	Sync() error
	Stat() (os.FileInfo, error)
	Close() error
}

// Log is the audit log, together with a second log for denials. Each line is one JSON
// object that contains the hash of the previous line. Append returns after its records
// are on the disk. After an error, the next Append reopens the file and cuts off an
// incomplete last line.
type Log struct {
	// Open opens a file for Append, and Free returns the free bytes of its directory.
	// Tests replace them before they write.
	Open func(path string) (File, error)
	Free func(dir string) (uint64, error)

	path     string
	maxBytes int64
	keep     int
	minFree  uint64
	opts     Options
	denied   *Log // has its own files, so that denials never push out operations; nil in the denials log itself

	mu      sync.Mutex
	lock    *os.File // held while this process is the only writer; nil before Lock and after Close
	file    File
	size    int64 // without the checkpoint, which must not trigger the next rotation
	end     int64 // expected end of the file if no other process writes to it
	seq     uint64
	prev    string
	pending []Record            // outcomes that could not be written yet
	denials map[string]*denials // by user; "" is for unknown users
	carry   bool                // the file is new and must begin with a checkpoint
	lost    bool                // the file is no longer at its path; until it is reopened
}

// DenialsPerSecond limits the denials that get a line of their own, for each user and
// for all unknown users together. The rest are only counted.
const DenialsPerSecond = 10

// denials are the denials of one user.
type denials struct {
	limit   *rate.Limiter
	skipped int      // number without a line of their own
	recent  []Record // oldest first, including those without a line
}

// maxRecent is the minimum number of a user's denials kept in memory.
const maxRecent = 1000

// maxPending limits the records that wait to be written. Outcomes are kept regardless.
const maxPending = 10_000

// DeniedFile returns the path of the denials log that belongs to a log.
func DeniedFile(file string) string { return file + ".denied" }

// New creates a log; Start opens it.
func New(cfg Config, opts Options) *Log {
	if opts.OnFailure == nil {
		opts.OnFailure = func(error) {}
	}
	if opts.OnSync == nil {
		opts.OnSync = func(time.Duration) {}
	}
	l := newFiles(cfg, opts)
	cfg.File, cfg.MinFreeMB = DeniedFile(cfg.File), 2*cfg.MinFreeMB // denials stop first, to leave room for actions
	opts.Checkpoint = nil
	l.denied = newFiles(cfg, opts)
	return l
}

func newFiles(cfg Config, opts Options) *Log {
	return &Log{
		Open: OpenFile, Free: FreeBytes, opts: opts,
		path: cfg.File, maxBytes: int64(cfg.MaxSizeMB) << 20, keep: cfg.Keep, minFree: uint64(cfg.MinFreeMB) << 20, //nolint:gosec // positive, because the configuration was checked
		denials: map[string]*denials{}, prev: zeroHash,
	}
}

// OpenFile opens a log file for appending. It does not follow symbolic links.
func OpenFile(path string) (File, error) {
	return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND|syscall.O_NOFOLLOW, 0o600)
}

// FreeBytes returns the free bytes of a directory's file system.
func FreeBytes(dir string) (uint64, error) {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err != nil {
		return 0, err
	}
	return fs.Bavail * uint64(fs.Bsize), nil //nolint:gosec // a block has a positive size
}

// Lock makes this process the only writer of the log, because two would break its hash
// chain. It locks a separate file, since the log itself is renamed when it is full.
// Close, or the end of the process, releases the lock.
func (l *Log) Lock() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lock != nil {
		return nil
	}
	file, err := os.OpenFile(l.path+".lock", os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		file.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return fmt.Errorf("another process writes %s: each exporter needs an audit file of its own", l.path)
		}
		return fmt.Errorf("locking %s.lock: %w", l.path, err)
	}
	l.lock = file
	return nil
}

// Start locks the log, reads it and opens it. It calls each, oldest first, for every
// record of the replay period and at least of the file before the current one.
func (l *Log) Start(each func(Record)) error {
	if err := l.Lock(); err != nil {
		return err
	}
	if l.denied != nil {
		if err := l.denied.Start(l.denied.remember); err != nil {
			return err
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	before := "" // the predecessor of the oldest file is gone
	for _, old := range l.recentFiles() {
		result, err := readFile(old, before, each)
		if err != nil {
			return err
		}
		if before = result.prev; result.lines > 0 {
			l.seq, l.prev = result.seq, result.prev
		}
		if result.broken != "" {
			l.pending = append(l.pending, chainNote("the chain is broken in "+filepath.Base(old)+": "+result.broken))
		}
	}
	return l.reopenLocked(before, each)
}

func note(text string) Record { return Record{Kind: KindNote, Detail: text} }

// chainProblem marks a note about writes of others, by which Verify finds them.
const chainProblem = "chain"

func chainNote(text string) Record {
	return Record{Kind: KindNote, Problem: chainProblem, Detail: text}
}

// nameDigits is the number of digits in the suffix of a rotated file.
const nameDigits = 20

func (l *Log) oldFiles() []string { return rotated(l.path) }

// rotated returns the rotated files of a log, oldest first. The suffix of each is the
// number of its last record. Files with fewer digits are logrotate's, newest first.
func rotated(path string) []string {
	files, _ := filepath.Glob(path + "." + strings.Repeat("[0-9]", nameDigits))
	slices.Sort(files)
	return files
}

// recentFiles returns the last rotated file and those written within the replay period.
func (l *Log) recentFiles() []string {
	files := l.oldFiles()
	for i := range files {
		info, err := os.Stat(files[i])
		if i == len(files)-1 || err != nil || l.opts.Now().Sub(info.ModTime()) < l.opts.Replay {
			return files[i:]
		}
	}
	return nil
}

// reopenLocked opens the file, cuts off an incomplete last line, and continues after
// the existing records. before is as in readFile.
func (l *Log) reopenLocked(before string, each func(Record)) error {
	if l.file != nil {
		l.file.Close()
		l.file = nil
	}
	file, err := l.Open(l.path)
	if err != nil {
		return err
	}
	result, err := readFile(l.path, before, each)
	if err == nil && result.torn > 0 {
		err = os.Truncate(l.path, result.good)
	}
	if err == nil {
		// The directory entry must be on the disk too.
		err = syncDir(filepath.Dir(l.path))
	}
	if err != nil {
		file.Close()
		return err
	}
	if result.lines > 0 {
		l.seq, l.prev = max(l.seq, result.seq), result.prev
	}
	l.file, l.size, l.end, l.lost = file, result.good-result.carried, result.good, false
	if result.torn > 0 {
		l.pending = append([]Record{note(fmt.Sprintf("an incomplete line of %d bytes was removed", result.torn))}, l.pending...)
	}
	if result.broken != "" {
		l.pending = append([]Record{chainNote("the chain is broken: " + result.broken)}, l.pending...)
	}
	l.carry = result.lines == 0 && l.seq > 0
	return nil
}

// checkpointLine is the approximate size of a checkpoint line, in bytes.
const checkpointLine = 256 << 10

// checkpoint returns the records that a new file begins with.
func (l *Log) checkpoint() ([]Record, error) {
	records := []Record{{Kind: KindCheckpoint, Part: 1}}
	if l.opts.Checkpoint == nil {
		return records, nil
	}
	size := 0
	for _, item := range l.opts.Checkpoint() {
		text, err := json.Marshal(item)
		if err != nil {
			return nil, err
		}
		if size += len(text); size > checkpointLine {
			records, size = append(records, Record{Kind: KindCheckpoint, Part: len(records) + 1}), len(text)
		}
		last := &records[len(records)-1]
		last.Carries = append(last.Carries, text)
	}
	return records, nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

var errClosed = errors.New("the audit log is closed")

var errAuditGone = errors.New("the audit log file was moved: send SIGHUP to open a new one")

// Append writes records and syncs them. An action must not start before its intent is
// on the disk.
func (l *Log) Append(records ...Record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.appendLocked(records)
}

func (l *Log) appendLocked(records []Record) error {
	err := l.ready()
	if err == nil {
		err = l.write(records)
	}
	if err != nil {
		l.opts.OnFailure(err)
	}
	return err
}

// ready reopens the file after an error and checks the free space.
func (l *Log) ready() error {
	switch {
	case l.lock == nil:
		return errClosed
	case l.lost:
		return errAuditGone
	}
	if l.file == nil {
		if err := l.reopenLocked("", func(Record) {}); err != nil {
			return err
		}
	}
	mine, err := l.file.Stat()
	if err != nil {
		return err
	}
	there, err := os.Stat(l.path)
	if err != nil || !os.SameFile(mine, there) {
		l.lost = true
		return errAuditGone
	}
	if is, was := mine.Size(), l.end; is != was {
		if err := l.reopenLocked("", func(Record) {}); err != nil {
			return err
		}
		l.pending = append([]Record{chainNote(fmt.Sprintf("another program changed the file: it had %d bytes, now it has %d", was, is))}, l.pending...)
	}
	free, err := l.Free(filepath.Dir(l.path))
	if err == nil && free < l.minFree {
		err = fmt.Errorf("only %d MB are free", free>>20)
	}
	if err == nil && l.size > l.maxBytes {
		err = l.rotate()
	}
	if err == nil && len(l.pending) > 0 {
		err = l.write(nil) // write pending records first, so that no more of them pile up
	}
	return err
}

func (l *Log) write(records []Record) error {
	var all []Record
	if l.carry {
		var err error
		if all, err = l.checkpoint(); err != nil {
			return err
		}
	}
	carried, carriedBytes := len(all), 0
	all = append(append(all, l.pending...), records...)
	seq, prev := l.seq, l.prev
	var text bytes.Buffer
	for i := range all {
		if i == carried {
			carriedBytes = text.Len()
		}
		r := &all[i]
		seq++
		r.Seq, r.Prev, r.Version = seq, prev, l.opts.Version
		if r.Time.IsZero() {
			r.Time = l.opts.Now().UTC()
		}
		line, err := json.Marshal(r)
		if err != nil {
			return err
		}
		prev = hashOf(line)
		text.Write(line)
		text.WriteByte('\n')
	}
	began := time.Now()
	_, err := l.file.Write(text.Bytes())
	if err == nil {
		err = l.file.Sync()
	}
	if err != nil {
		// What reached the disk is unknown: read the file again before the next write.
		l.file.Close()
		l.file = nil
		l.abandon(records)
		return err
	}
	l.opts.OnSync(time.Since(began))
	l.seq, l.prev, l.size, l.pending, l.carry = seq, prev, l.size+int64(text.Len()-carriedBytes), nil, false
	l.end += int64(text.Len())
	if l.opts.CopyTo != nil {
		for _, r := range all[carried:] {
			l.opts.CopyTo(r)
		}
	}
	return nil
}

// Unwritable is the problem of an outcome whose intent could not be written.
const Unwritable = "audit"

// abandon queues an outcome for an intent whose sync failed: nothing was sent, but the
// intent may be on the disk.
func (l *Log) abandon(records []Record) {
	for _, r := range records {
		if r.Kind == KindIntent {
			l.pending = append(l.pending, Record{Kind: KindOutcome, ID: r.ID, User: r.User, Action: r.Action, Outcome: Refused, Status: http.StatusServiceUnavailable, Problem: Unwritable, Detail: "the intent could not be synced to disk"})
		}
	}
}

// Keep writes a record that must not be lost, such as an outcome. If it cannot be
// written now, it is written before the next record.
func (l *Log) Keep(r Record) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.appendLocked([]Record{r}); err != nil && (r.Kind == KindOutcome || len(l.pending) < maxPending) {
		r.Time = l.opts.Now().UTC()
		l.pending = append(l.pending, r)
	}
}

// Deny writes a denial, or only counts it if the user has too many, so that denials do
// not fill the disk. Unknown users do not use up the lines of known ones.
func (l *Log) Deny(r Record) {
	if l.denied != nil {
		l.denied.Deny(r)
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	r.Kind, r.Outcome, r.Time = KindDenied, Refused, l.opts.Now().UTC()
	l.remember(r)
	of := l.denials[r.User]
	if !of.limit.AllowN(r.Time, 1) {
		of.skipped++
		return
	}
	if l.appendLocked(append(l.summaries(), r)) == nil {
		for _, of := range l.denials {
			of.skipped = 0
		}
	}
}

// remember keeps a denial in memory. It must be called with mu held.
func (l *Log) remember(r Record) {
	if r.Kind != KindDenied {
		return
	}
	of := l.denials[r.User]
	if of == nil {
		of = &denials{limit: rate.NewLimiter(DenialsPerSecond, DenialsPerSecond)}
		l.denials[r.User] = of
	}
	if of.recent = append(of.recent, r); len(of.recent) >= 2*maxRecent {
		of.recent = slices.Clone(of.recent[maxRecent:])
	}
}

// Denied returns a recent denial by its ID, or nil.
func (l *Log) Denied(id string) *Record {
	l.denied.mu.Lock()
	defer l.denied.mu.Unlock()
	for _, of := range l.denied.denials {
		for _, r := range of.recent {
			if r.ID == id {
				return &r
			}
		}
	}
	return nil
}

// summaries returns the records that count the denials that were only counted.
func (l *Log) summaries() []Record {
	var all []Record
	for _, user := range slices.Sorted(maps.Keys(l.denials)) {
		if n := l.denials[user].skipped; n > 0 {
			all = append(all, Record{Kind: KindSummary, User: user, Count: n, Detail: "denials that were only counted"})
		}
	}
	return all
}

// rotate renames the file, with the number of its last record as suffix, and starts a
// new one.
func (l *Log) rotate() error {
	if err := os.Rename(l.path, fmt.Sprintf("%s.%0*d", l.path, nameDigits, l.seq)); err != nil {
		return err
	}
	for old := l.oldFiles(); len(old) > l.keep; old = old[1:] {
		if err := os.Remove(old[0]); err != nil {
			return err
		}
	}
	return l.reopenLocked("", func(Record) {})
}

// Heads returns where the log and the log of denials end.
func (l *Log) Heads() []Head {
	l.mu.Lock()
	defer l.mu.Unlock()
	heads := []Head{{l.path, l.seq, l.prev}}
	if l.denied != nil {
		heads = append(heads, l.denied.Heads()...)
	}
	return heads
}

// Reopen is called on SIGHUP, in case the file was moved away. A restart does not find
// that file, so the new one gets its checkpoint now, not with the next record.
func (l *Log) Reopen() (err error) {
	if l.denied != nil {
		err = l.denied.Reopen()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	failed := l.reopenLocked("", func(Record) {})
	if failed == nil && l.carry {
		failed = l.write(nil)
	}
	return errors.Join(err, failed)
}

// Writable returns an error if an intent could not be written now.
func (l *Log) Writable() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	err := l.ready()
	if err != nil {
		l.opts.OnFailure(err)
	}
	return err
}

// Close writes pending records, closes the file and releases the lock.
func (l *Log) Close() (err error) {
	if l.denied != nil {
		err = l.denied.Close()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if records := l.summaries(); len(records)+len(l.pending) > 0 {
		err = errors.Join(err, l.appendLocked(records))
	}
	if l.file != nil {
		err = errors.Join(err, l.file.Close())
		l.file = nil
	}
	if l.lock != nil {
		err = errors.Join(err, l.lock.Close())
		l.lock = nil
	}
	return err
}

// Secret returns the text that the log holds in place of a secret parameter. With an
// HMAC key, equal values have equal texts.
func (l *Log) Secret(value any) string {
	if l.opts.HMACKey == nil {
		return "(left out)"
	}
	mac := hmac.New(sha256.New, l.opts.HMACKey)
	fmt.Fprint(mac, value)
	return fmt.Sprintf("hmac:%x", mac.Sum(nil)[:16])
}
