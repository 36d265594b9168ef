package audit

import (
	"bufio"
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// fileResult is the result of reading one file of the log.
type fileResult struct {
	lines   int
	good    int64  // bytes up to the end of the last complete line
	torn    int64  // bytes after that
	carried int64  // bytes of checkpoints
	seq     uint64 // of the last record
	prev    string // hash of the last line
	first   Record
	broken  string // where and why the chain is broken; "" if it is intact
}

// zeroHash stands for the hash before the first line.
var zeroHash = strings.Repeat("0", 2*sha256.Size)

func hashOf(b []byte) string { return fmt.Sprintf("%x", sha256.Sum256(b)) }

// maxLine is the maximum size of a record, in bytes.
const maxLine = 1 << 20

// readFile reads a file of the log. before is the hash of the last line of the previous
// file; "" disables that comparison. A broken chain is not an error: the rest of the
// file is still read.
func readFile(path, before string, each func(Record)) (fileResult, error) {
	f, err := os.Open(path)
	if err != nil {
		return fileResult{}, err
	}
	defer f.Close()
	return readRecords(f, before, each)
}

// Read reads the records of a log from its first line, up to an incomplete one.
func Read(r io.Reader, each func(Record)) error {
	_, err := readRecords(r, "", each)
	return err
}

func readRecords(r io.Reader, before string, each func(Record)) (fileResult, error) {
	result := fileResult{prev: before}
	in := bufio.NewReaderSize(r, 64<<10)
	breaks := func(format string, args ...any) {
		if result.broken == "" {
			result.broken = fmt.Sprintf(format, args...)
		}
	}
	for {
		line, err := readLine(in)
		if errors.Is(err, io.EOF) {
			result.torn = int64(len(line))
			return result, nil
		}
		if err != nil {
			return result, err
		}
		result.lines++
		result.good += int64(len(line))
		line = line[:len(line)-1]
		var record Record
		if err := json.Unmarshal(line, &record); err != nil {
			breaks("line %d is not a record", result.lines)
			result.prev = hashOf(line)
			continue
		}
		switch {
		case result.lines == 1 && result.prev == "":
		case record.Prev != result.prev:
			breaks("line %d (seq %d) does not follow the line before it", result.lines, record.Seq)
		}
		if result.lines > 1 && record.Seq != result.seq+1 {
			breaks("line %d has seq %d behind %d", result.lines, record.Seq, result.seq)
		}
		if result.lines == 1 {
			result.first = record
		}
		if record.Kind == KindCheckpoint {
			result.carried += int64(len(line) + 1)
		}
		result.seq, result.prev = record.Seq, hashOf(line)
		each(record)
	}
}

// readLine reads a line including its line break. If the line break is missing, it
// returns the rest with io.EOF.
func readLine(in *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := in.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case err == nil, !errors.Is(err, bufio.ErrBufferFull):
			return line, err
		case len(line) > maxLine:
			return nil, fmt.Errorf("a line is longer than %d bytes", maxLine)
		}
	}
}

// Head is the end of a log, as known to the process that writes it.
type Head struct {
	File string `json:"file"`
	Seq  uint64 `json:"seq"`  // of the last record
	Hash string `json:"hash"` // of its line
}

// Report is the result of Verify.
type Report struct {
	Records     int
	First, Last uint64 // numbers of the records
	From, To    time.Time
	Hash        string // of the last line; the chain does not show whether that line was edited
	Compared    uint64 // up to this record, the log is what a running exporter wrote; 0: not compared
}

// String returns a one-line summary.
func (r Report) String() string {
	if r.Records == 0 {
		return "no records"
	}
	return fmt.Sprintf("%d records, %d to %d, from %s to %s", r.Records, r.First, r.Last, r.From.UTC().Format(time.RFC3339), r.To.UTC().Format(time.RFC3339))
}

// Files returns the files of a log, oldest first.
func Files(file string) []string {
	return append(rotated(file), file)
}

// VerifyRunning checks the hash chain of a log that is in use, and compares its end
// with what the writing process knows. This detects an edited last line and a truncated
// log. Records may be added and files rotated meanwhile.
func VerifyRunning(files func() []string, head func() (Head, error)) (Report, error) {
	for try := 0; ; try++ {
		before, err := head()
		if err != nil {
			return Report{}, err
		}
		report, err := verifySnapshot(files, before)
		after, headErr := head()
		if headErr != nil {
			return report, headErr
		}
		if err == nil && report.Last > before.Seq && after == before {
			err = fmt.Errorf("it continues after record %d, the last one that the running exporter wrote", before.Seq)
		}
		if err == nil || after == before || try == maxTries {
			return report, err
		}
	}
}

const maxTries = 3

// verifySnapshot checks a log as it is now. The last file is opened before the others
// are listed: a rotation may rename it, but cannot leave a gap in front of it.
func verifySnapshot(files func() []string, head Head) (Report, error) {
	names := files()
	name := names[len(names)-1]
	last, err := os.Open(name)
	if err != nil {
		return Report{}, err
	}
	defer last.Close()
	info, err := last.Stat()
	if err != nil {
		return Report{}, err
	}
	names = files()
	now := slices.IndexFunc(names, func(name string) bool {
		other, err := os.Stat(name)
		return err == nil && os.SameFile(info, other)
	})
	if now < 0 { // rotated since it was listed
		now = len(names) - 1
	}
	return verify(append(slices.Clone(names[:now]), name), last, &head)
}

// Verify checks the hash chain through files, oldest first. It cannot detect a
// truncated log or an edited last line: use VerifyRunning or a copy on another host for
// that.
func Verify(files []string) (Report, error) { return verify(files, nil, nil) }

// verify checks the chain through files. last replaces the last of them, unless it is nil.
func verify(files []string, last io.Reader, head *Head) (Report, error) {
	var report Report
	before, atHead := "", ""
	for i, file := range files {
		var noticed error
		each := func(r Record) {
			if noticed == nil && r.Problem == chainProblem {
				noticed = fmt.Errorf("the exporter noticed at record %d (%s): %s", r.Seq, r.Time.UTC().Format(time.RFC3339), r.Detail)
			}
			if report.Records == 0 {
				report.First, report.From = r.Seq, r.Time
			}
			if head != nil && r.Seq == head.Seq+1 {
				atHead = r.Prev
			}
			report.Records, report.Last, report.To = report.Records+1, r.Seq, r.Time
		}
		var result fileResult
		var err error
		if last != nil && i == len(files)-1 {
			result, err = readRecords(last, before, each)
		} else {
			result, err = readFile(file, before, each)
		}
		if err != nil {
			return report, err
		}
		if err := cmp.Or(wrong(file, result, i == 0), noticed); err != nil {
			return report, fmt.Errorf("%s: %w", file, err)
		}
		before, report.Hash = result.prev, result.prev
	}
	switch {
	case head == nil || head.Seq == 0:
		return report, nil
	case report.Last < head.Seq:
		return report, fmt.Errorf("the end is missing: the last record is %d, but the running exporter has written %d", report.Last, head.Seq)
	case report.Last == head.Seq:
		atHead = report.Hash
	}
	if atHead != head.Hash {
		return report, fmt.Errorf("record %d is not what the running exporter wrote", head.Seq)
	}
	report.Compared = head.Seq
	return report, nil
}

// wrong returns an error if a file is damaged. first marks the first file of a chain.
func wrong(file string, r fileResult, first bool) error {
	switch {
	case r.broken != "":
		return errors.New(r.broken)
	case r.torn > 0:
		return fmt.Errorf("%d bytes after the last complete line", r.torn)
	case r.lines == 0:
		return nil
	case first && r.first.Seq == 1 && r.first.Prev != zeroHash:
		return errors.New("record 1 names a record before it")
	case first && r.first.Seq != 1 && (r.first.Kind != KindCheckpoint || r.first.Part != 1):
		return fmt.Errorf("the beginning is missing: the first record is %d", r.first.Seq)
	}
	// The suffix of a rotated file is the number of its last record.
	name := file[strings.LastIndexByte(file, '.')+1:]
	if last, err := strconv.ParseUint(name, 10, 64); err == nil && len(name) == nameDigits && last != r.seq {
		return fmt.Errorf("it ends with record %d, but its name contains %d", r.seq, last)
	}
	return nil
}
