package host_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/host"
	"github.com/kamailio-exporter/kamailio_exporter/collector"
)

// BenchmarkRead shows the CPU time of what a scrape reads of 64 processes and 6 sockets.
func BenchmarkRead(b *testing.B) {
	const n = 64
	family := exec.Command("sh", "-c", fmt.Sprintf("i=1; while [ $i -lt %d ]; do sleep 600 & i=$((i+1)); done; exec sleep 600", n))
	family.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
	started := time.Now()
	if err := family.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = unix.Kill(-family.Process.Pid, unix.SIGKILL); _ = family.Wait() })
	pids := []int{family.Process.Pid}
	for len(pids) < n {
		pids = pids[:1]
		out, _ := exec.Command("pgrep", "-x", "-P", strconv.Itoa(pids[0]), "sleep").Output()
		for line := range strings.FieldsSeq(string(out)) {
			pid, _ := strconv.Atoi(line)
			pids = append(pids, pid)
		}
	}
	p, err := host.This.Open(pids, started)
	if err != nil {
		b.Fatal(err)
	}
	defer p.Close()
	var sockets []collector.HostSocket
	for _, address := range []string{"127.0.0.1", "::1"} {
		for _, s := range []collector.HostSocket{{UDP: true, Port: "5060"}, {Port: "5060"}, {Port: "5061"}} {
			s.Address = address
			sockets = append(sockets, s)
		}
	}
	begun, scrapes := cpuTime(b), 0
	for b.Loop() {
		scrapes++
		for i, usage := range p.Read() {
			if usage == nil {
				b.Fatalf("process %d has ended", pids[i])
			}
		}
		p.Sockets(sockets)
	}
	b.ReportMetric((cpuTime(b)-begun).Seconds()*1000/float64(scrapes), "ms-CPU/scrape")
}

func cpuTime(b *testing.B) time.Duration {
	var usage unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// proc is a proc file system.
type proc struct {
	t   *testing.T
	dir string
}

func (p proc) write(name, text string) {
	p.t.Helper()
	file := filepath.Join(p.dir, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		p.t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		p.t.Fatal(err)
	}
}

// process adds a process that was started this long ago.
func (p proc) process(pid, parent int, comm string, ago time.Duration, threads int) {
	var up unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &up); err != nil {
		p.t.Fatal(err)
	}
	dir := strconv.Itoa(pid) + "/"
	p.write(dir+"stat", fmt.Sprintf("%d (%s) S %d 1 1 0 -1 4194560 1 2 3 4 150 50 0 0 20 0 %d 0 %d%s\n", pid, comm, parent, threads, (time.Duration(up.Nano())-ago)/(time.Second/100), strings.Repeat(" 0", 30)))
	p.write(dir+"schedstat", "2012345678 500000000 77\n")
	p.write(dir+"statm", "1000 30 20 5 0 6 0\n")
	p.write(dir+"limits", "Limit                     Soft Limit           Hard Limit           Units     \nMax open files            1024                 4096                 files     \n")
	p.write(dir+"fd/0", "")
	p.write(dir+"fd/1", "")
}

func TestReadsProc(t *testing.T) {
	p := proc{t, t.TempDir()}
	p.process(100, 1, "kamailio) S 1", 90*time.Second, 1) // it was a script at first
	p.process(101, 100, "kamailio) S 1", 29*time.Second, 3)
	p.write("100/net/udp", `   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
  368: 0100007F:13C4 00000000:0000 07 00000000:00000300 00:00000000 00000000     0        0 19487514 2 00000000722c4800 7
  369: 0100007F:13C4 0100007F:8AB5 01 00000000:00000400 00:00000000 00000000     0        0 19487515 2 00000000722c4800 9
`)
	started := time.Now().Add(-30 * time.Second)
	processes, err := host.Host{Proc: p.dir}.Open([]int{100, 101, 102}, started)
	if err != nil {
		t.Fatal(err)
	}
	defer processes.Close()
	page := int64(os.Getpagesize())
	one := collector.ProcessUsage{CPU: 2012345678, Ran: 2012345678, Wait: 500 * time.Millisecond, Private: 10 * page, Shared: 20 * page, FDs: 2}
	many := one
	many.CPU = 2 * time.Second
	usage := processes.Read()
	if len(usage) != 3 || *usage[0] != one || *usage[1] != many || usage[2] != nil {
		t.Errorf("got %+v and %+v, want %+v and %+v", usage[0], usage[1], one, many)
	}
	if processes.MaxFDs() != 1024 {
		t.Errorf("at most %d file descriptors", processes.MaxFDs())
	}
	s := collector.HostSocket{UDP: true, Address: "127.0.0.1", Port: "5060"}
	got := processes.Sockets([]collector.HostSocket{s, {UDP: true, Address: "::1", Port: "5060"}, {Address: "127.0.0.1", Port: "5060"}, {UDP: true, Address: "x", Port: "y"}})
	if want := (collector.SocketUsage{Queue: 768, Limit: -1, Dropped: 7}); len(got) != 1 || got[s] != want {
		t.Errorf("sockets: %+v", got)
	}
}

// Processes with the same IDs can belong to anything.
func TestOtherProcesses(t *testing.T) {
	for name, tc := range map[string]struct {
		pids    []int
		started time.Duration // ago
		want    string
	}{
		"not visible":                           {[]int{90}, 30, "process 90 of Kamailio is not visible here"},
		"started earlier":                       {[]int{100, 101}, 20, "the processes here were started at"},
		"started later":                         {[]int{100, 101}, 1200, "the processes here were started at"},
		"a child of another process":            {[]int{100, 101, 110}, 30, "process 110 here is not one of Kamailio's"},
		"a child with another program":          {[]int{100, 111}, 30, "process 111 here is not one of Kamailio's"},
		"a child that is older than Kamailio":   {[]int{100, 101, 112}, 30, "the processes here were started at"},
		"only the main process, which is older": {[]int{100, 102}, 20, "the processes here were started at"},
		"no process":                            {nil, 30, "no "},
	} {
		t.Run(name, func(t *testing.T) {
			p := proc{t, t.TempDir()}
			p.process(100, 1, "kamailio", 30*time.Second, 1)
			p.process(101, 100, "kamailio", 30*time.Second, 1)
			p.process(110, 1, "kamailio", 30*time.Second, 1)
			p.process(111, 100, "sleep", 30*time.Second, 1)
			p.process(112, 100, "kamailio", 50*time.Second, 1)
			_, err := host.Host{Proc: p.dir}.Open(tc.pids, time.Now().Add(-tc.started*time.Second))
			if !errors.Is(err, collector.ErrNoData) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %s", err, tc.want)
			}
		})
	}
}

// Kamailio may be in another network namespace.
func TestOtherNetwork(t *testing.T) {
	other := exec.Command("unshare", "--net", "sh", "-c", "ip link set lo up; exec sleep 600")
	started := time.Now()
	if err := other.Start(); err != nil {
		t.Skip("SKIPPED: needs unshare: ", err)
	}
	defer func() { _ = other.Process.Kill(); _ = other.Wait() }()
	link := fmt.Sprintf("/proc/%d/ns/net", other.Process.Pid)
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		ours, _ := os.Readlink("/proc/self/ns/net")
		if theirs, err := os.Readlink(link); err == nil && theirs != ours {
			break
		}
		if time.Now().After(deadline) {
			t.Skip("SKIPPED: needs permission to make a network namespace")
		}
	}
	processes, err := host.This.Open([]int{other.Process.Pid}, started)
	if err != nil {
		t.Fatal(err)
	}
	defer processes.Close()
	ours, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	_, port, _ := net.SplitHostPort(ours.LocalAddr().String())
	s := []collector.HostSocket{{UDP: true, Address: "127.0.0.1", Port: port}}
	if got := processes.Sockets(s); len(got) != 0 {
		t.Errorf("a socket of the exporter's own network is taken for Kamailio's: %+v", got)
	}
}

const childVariable = "HOST_TEST_CHILD"

// TestPermission reads the processes of root as a user without privileges, and with
// /proc mounted so that it does not show them.
func TestPermission(t *testing.T) {
	if mode := os.Getenv(childVariable); mode != "" {
		parent := os.Getppid()
		age, err := os.Stat(fmt.Sprintf("/proc/%d", parent))
		started := time.Now()
		if err == nil {
			started = age.ModTime()
		}
		p, err := host.This.Open([]int{parent}, started)
		if mode == "hidden" {
			if !errors.Is(err, collector.ErrNoData) {
				t.Errorf("got %v", err)
			}
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		if u := p.Read()[0]; u == nil || u.Private <= 0 || u.CPU <= 0 || p.MaxFDs() <= 0 {
			t.Errorf("got %+v and at most %d file descriptors", u, p.MaxFDs())
		}
		return
	}
	if os.Getuid() != 0 {
		t.Skip("SKIPPED: only root can run the test as another user")
	}
	program, err := os.Open(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	for mode, remount := range map[string]string{"visible": "true", "hidden": "mount -o remount,hidepid=2 /proc"} {
		t.Run(mode, func(t *testing.T) {
			// The shell is the process that is read. By file descriptor, since this user has
			// no access to the directory.
			cmd := exec.Command("unshare", "--mount", "--pid", "--fork", "--mount-proc", "sh", "-c", remount+" || exit 75; setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=-all /proc/self/fd/3 -test.run='^TestPermission$'; exit $?")
			cmd.Env = append(os.Environ(), childVariable+"="+mode)
			cmd.ExtraFiles = []*os.File{program}
			cmd.Dir = "/"
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}
