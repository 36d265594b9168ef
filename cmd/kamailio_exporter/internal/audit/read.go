package audit

import (
	"bufio"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// fileResult is what reading one file of the log found.
type fileResult struct {
	lines   int
	good    int64  // bytes up to the end of the last whole line
	torn    int64  // bytes behind that
	carried int64  // bytes of checkpoints
	seq     uint64 // of the last record
	prev    string // hash of the last line
	broken  string // where the chain does not hold, and why; "" if it does
}

// zeroHash is before the first line.
var zeroHash = strings.Repeat("0", 2*sha256.Size)

func hashOf(b []byte) string { return fmt.Sprintf("%x", sha256.Sum256(b)) }

// maxLine bounds one record.
const maxLine = 1 << 20

// readFile reads a file of the log. before is the hash of the last line of the
// file before it; "" when there is none to compare with. A broken chain is no
// error: the rest is read on.
func readFile(path, before string, each func(Record)) (fileResult, error) {
	f, err := os.Open(path)
	if err != nil {
		return fileResult{}, err
	}
	defer f.Close()
	return readRecords(f, before, each)
}

// Read reads records, from the first line of a log on, as far as they are whole.
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
			breaks("line %d is no record", result.lines)
			result.prev = hashOf(line)
			continue
		}
		switch {
		case result.lines == 1 && result.prev == "":
		case result.lines == 1 && record.Seq == 1 && record.Prev == zeroHash: // a new log
		case record.Prev != result.prev:
			breaks("line %d (seq %d) does not follow the line before it", result.lines, record.Seq)
		}
		if result.lines > 1 && record.Seq != result.seq+1 {
			breaks("line %d has seq %d behind %d", result.lines, record.Seq, result.seq)
		}
		if record.Kind == KindCheckpoint {
			result.carried += int64(len(line) + 1)
		}
		result.seq, result.prev = record.Seq, hashOf(line)
		each(record)
	}
}

// readLine reads up to a line break, which is part of it. Without one, what is
// there comes with io.EOF.
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

// Verify checks the chain through files, oldest first, and tells how many
// records there are. What is cut off at the end it cannot see: a copy elsewhere
// can.
func Verify(files []string) (records int, err error) {
	before := ""
	for _, file := range files {
		result, err := readFile(file, before, func(Record) {})
		switch {
		case err != nil:
			return records, err
		case result.broken != "":
			return records, fmt.Errorf("%s: %s", file, result.broken)
		case result.torn > 0:
			return records, fmt.Errorf("%s: %d bytes behind the last whole line", file, result.torn)
		}
		records += result.lines
		before = result.prev
	}
	return records, nil
}
