// Package host reads what the kernel of this machine reports about Kamailio: how much CPU
// time and memory its processes use, what waits in the queues of its sockets, and what the
// kernel drops before Kamailio can count it. It needs no privileges.
package host

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"

	"github.com/kamailio-exporter/kamailio_exporter/collector"
)

// Host is this machine, with the directory of its proc file system.
type Host struct{ Proc string }

// This is this machine.
var This = Host{"/proc"}

// ticks is the unit of times in /proc/PID/stat: USER_HZ is 100 on all platforms of Linux.
const ticks = 100

// How much earlier and later than Kamailio its processes may have been started.
const (
	early = 2 * time.Second // the resolution of the clocks
	late  = 10 * time.Minute
)

// Open implements collector.Host. Kamailio may report the processes of another machine or
// container, which can have the same IDs. So the processes must have been started when
// Kamailio says that it was, and all must be descendants of the main one.
func (h Host) Open(pids []int, started time.Time) (_ collector.HostProcesses, err error) {
	proc, err := procfs.NewFS(h.Proc)
	if err != nil || len(pids) == 0 {
		return nil, fmt.Errorf("%w: no %s", collector.ErrNoData, h.Proc)
	}
	p := &processes{proc: proc, dir: h.Proc, main: pids[0], countsFDs: countsFDs(filepath.Join(h.Proc, "self", "fd"))}
	defer func() {
		if err != nil {
			p.Close()
			err = fmt.Errorf("%w: %w", collector.ErrNoData, err)
		}
	}()
	var main procfs.ProcStat
	known, oldest := map[int]bool{}, time.Time{}
	for i, pid := range pids {
		stat, err := statOf(proc, pid)
		switch {
		case i > 0 && errors.Is(err, fs.ErrNotExist): // it has ended
			p.all = append(p.all, nil)
			continue
		case err != nil:
			return nil, fmt.Errorf("process %d of Kamailio is not visible here: %w", pid, err)
		case i == 0:
			main = stat
		case stat.Comm != main.Comm || !known[stat.PPID]:
			return nil, fmt.Errorf("process %d here is not one of Kamailio's", pid)
		}
		opened, err := h.open(pid, stat.NumThreads > 1)
		if err != nil {
			return nil, err
		}
		p.all = append(p.all, opened)
		// The main process can be older: it may have been a script that has started
		// Kamailio in its place.
		if begun := startOf(stat); len(known) <= 1 || begun.Before(oldest) {
			oldest = begun
		}
		known[pid] = true
	}
	// Kamailio sets its start time before it reads its configuration, initializes the
	// modules, and starts its processes (main.c).
	if oldest.Before(started.Add(-early)) || oldest.After(started.Add(late)) {
		return nil, fmt.Errorf("the processes here were started at %s, but Kamailio at %s", oldest.UTC().Format(time.TimeOnly), started.UTC().Format(time.TimeOnly))
	}
	return p, nil
}

func statOf(proc procfs.FS, pid int) (procfs.ProcStat, error) {
	p, err := proc.Proc(pid)
	if err != nil {
		return procfs.ProcStat{}, err
	}
	return p.Stat()
}

// startOf returns the time at which a process was started. It does not use the boot time
// in /proc/stat, which may be that of a container.
func startOf(stat procfs.ProcStat) time.Time {
	var up unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &up)
	return time.Now().Add(time.Duration(stat.Starttime)*time.Second/ticks - time.Duration(up.Nano())) //nolint:gosec // years
}

// processes implements collector.HostProcesses. The files stay open, because opening them
// takes longer than reading them; and an open file never belongs to another process that
// got the same ID.
type processes struct {
	proc      procfs.FS
	dir       string
	main      int
	all       []*process // nil: had ended
	countsFDs bool       // the kernel counts them
	turn      int
	maxFDs    int // 0: unknown
	buffer    [1024]byte
}

type process struct {
	schedstat *os.File // nil: the kernel does not have it
	stat      *os.File // nil: it has one thread, whose CPU time is in schedstat, and more exact
	statm     *os.File
	fds       string
	usage     collector.ProcessUsage
}

func (h Host) open(pid int, threads bool) (p *process, err error) {
	dir := filepath.Join(h.Proc, strconv.Itoa(pid))
	p = &process{fds: filepath.Join(dir, "fd")}
	if p.schedstat, err = os.Open(filepath.Join(dir, "schedstat")); err == nil {
		// Without CONFIG_SCHED_INFO it has zeros only.
		if used := fields(text(p.schedstat, make([]byte, 64)), 1); len(used) == 0 || used[0] == 0 {
			_ = p.schedstat.Close()
			p.schedstat = nil
		}
	}
	if p.schedstat == nil || threads {
		p.stat, err = os.Open(filepath.Join(dir, "stat"))
	}
	if err == nil {
		p.statm, err = os.Open(filepath.Join(dir, "statm"))
	}
	if err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

func (p *process) close() {
	for _, f := range []*os.File{p.schedstat, p.stat, p.statm} {
		_ = f.Close() // nil is fine
	}
}

// Close implements collector.HostProcesses.
func (p *processes) Close() {
	for _, one := range p.all {
		if one != nil {
			one.close()
		}
	}
}

// MaxFDs implements collector.HostProcesses.
func (p *processes) MaxFDs() int { return p.maxFDs }

// readMaxFDs reads what prlimit(1) can change at any time.
func (p *processes) readMaxFDs() int {
	main, err := p.proc.Proc(p.main)
	if err != nil {
		return 0
	}
	limits, err := main.Limits()
	if err != nil {
		return 0
	}
	return int(min(limits.OpenFiles, 1<<31-1))
}

// turns is in how many scrapes the memory, the file descriptors and their limit are read.
// They change slowly, and reading them takes longer than the rest.
const turns = 4

// Read implements collector.HostProcesses.
func (p *processes) Read() []*collector.ProcessUsage {
	usage := make([]*collector.ProcessUsage, len(p.all))
	if p.turn%turns == 0 {
		p.maxFDs = p.readMaxFDs()
	}
	for i, one := range p.all {
		if one == nil {
			continue
		}
		ok := one.readCPU(p.buffer[:])
		if p.turn == 0 || p.turn%turns == i%turns {
			ok = ok && one.readMemory(p.buffer[:])
			one.usage.FDs = p.openFDs(one.fds)
		}
		if ok {
			usage[i] = &one.usage
		}
	}
	p.turn++
	return usage
}

func (p *process) readCPU(buffer []byte) (ok bool) {
	if p.schedstat != nil {
		schedstat := fields(text(p.schedstat, buffer), 2)
		if schedstat == nil {
			return false
		}
		p.usage.Ran, p.usage.Wait = time.Duration(schedstat[0]), time.Duration(schedstat[1])
		p.usage.CPU = p.usage.Ran
	}
	if p.stat != nil {
		// proc(5): the fields after the name, which can contain anything.
		text := text(p.stat, buffer)
		stat := fields(text[bytes.LastIndexByte(text, ')')+1:], 13)
		if stat == nil {
			return false
		}
		p.usage.CPU = time.Duration(stat[11]+stat[12]) * time.Second / ticks
	}
	return true
}

func (p *process) readMemory(buffer []byte) (ok bool) {
	statm := fields(text(p.statm, buffer), 3)
	if statm == nil {
		return false
	}
	page := int64(os.Getpagesize())
	p.usage.Private, p.usage.Shared = (statm[1]-statm[2])*page, statm[2]*page
	return true
}

// text reads a file. It is empty if the process has ended.
func text(f *os.File, buffer []byte) []byte {
	n, _ := f.ReadAt(buffer, 0)
	return buffer[:max(n, 0)]
}

// fields returns the first n fields as numbers, or nil if there are fewer. A field that is
// not a number is 0.
func fields(text []byte, n int) []int64 {
	all := make([]int64, 0, n)
	for field := range bytes.FieldsSeq(text) {
		number, digits := int64(0), field
		for len(digits) > 0 && digits[0] >= '0' && digits[0] <= '9' {
			number, digits = number*10+int64(digits[0]-'0'), digits[1:]
		}
		if all = append(all, number); len(all) == n {
			return all
		}
	}
	return nil
}

// countsFDs reports whether the size of this directory is the number of file descriptors,
// as of Linux 6.2.
func countsFDs(dir string) bool {
	size, ok := sizeOf(dir)
	return ok && size > 0
}

func sizeOf(dir string) (int64, bool) {
	var stat unix.Stat_t
	err := unix.Stat(dir, &stat)
	return stat.Size, err == nil
}

// openFDs returns the number of open file descriptors, or -1 if it is unknown.
func (p *processes) openFDs(dir string) int {
	if p.countsFDs {
		if size, ok := sizeOf(dir); ok {
			return int(size)
		}
		return -1
	}
	// Only a process that may trace Kamailio may read it.
	f, err := os.Open(dir)
	if err != nil {
		return -1
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil {
		return -1
	}
	return len(names)
}
