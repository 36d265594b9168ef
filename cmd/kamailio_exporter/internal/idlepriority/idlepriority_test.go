package idlepriority

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"
)

func TestIdleRatio(t *testing.T) {
	none := map[int64]procfs.CPUStat{0: {}, 1: {}}
	for name, tc := range map[string]struct {
		before, now map[int64]procfs.CPUStat
		usable      int64 // the CPUs below this number
		want        float64
	}{
		"nothing to compare with":         {nil, map[int64]procfs.CPUStat{0: {Idle: 10}}, 2, 0},
		"no time went by":                 {none, none, 2, 0},
		"all idle":                        {none, map[int64]procfs.CPUStat{0: {Idle: 5}, 1: {Idle: 5}}, 2, 1},
		"waiting for I/O":                 {none, map[int64]procfs.CPUStat{0: {Idle: 4, Iowait: 1}, 1: {System: 5}}, 2, 0.5},
		"every kind of call":              {none, map[int64]procfs.CPUStat{0: {Idle: 4, User: 1, Nice: 1, System: 1, IRQ: 1, SoftIRQ: 1, Steal: 1}}, 2, 0.4},
		"targets of allow count as users": {none, map[int64]procfs.CPUStat{0: {Idle: 5, User: 5, Guest: 5}}, 2, 0.5},
		"since the last read": {
			map[int64]procfs.CPUStat{0: {Idle: 1000, User: 500}}, map[int64]procfs.CPUStat{0: {Idle: 1003, User: 501}}, 2, 0.75,
		},
		"a CPU reserved for others": {none, map[int64]procfs.CPUStat{0: {User: 5}, 1: {Idle: 5}}, 1, 0},
		"a CPU that is new":         {none, map[int64]procfs.CPUStat{0: {User: 4, Idle: 1}, 2: {Idle: 900}}, 3, 0.2},
	} {
		t.Run(name, func(t *testing.T) {
			got := idleShare(tc.before, tc.now, func(cpu int64) bool { return cpu < tc.usable })
			if got != tc.want {
				t.Errorf("got %v, want %v", got, tc.want)
			}
		})
	}
}

func TestIdleOfThisMachine(t *testing.T) {
	fs, err := procfs.NewDefaultFS()
	if err != nil {
		t.Fatal(err)
	}
	c := cpus{fs: fs}
	if share, err := c.idle(); share != 0 || err != nil {
		t.Errorf("the first time: %v, %v, want 0", share, err)
	}
	// Wait until the clock of /proc/stat ticks. On a busy machine, the share stays 0
	// until the end.
	for began := time.Now(); time.Since(began) < 5*time.Second; {
		share, err := c.idle()
		if err != nil || share < 0 || share > 1 {
			t.Fatalf("got %v, %v, want a share", share, err)
		}
		if share > 0 {
			return
		}
	}
}

// keeper makes a Keeper of this process with simulated idle shares.
func keeper(t *testing.T) (k *Keeper, idle *float64) {
	t.Helper()
	k, err := New()
	if err != nil {
		if os.Getuid() == 0 {
			t.Fatal(err)
		}
		t.Skip("SKIPPED: only who may raise its priority can do this: ", err)
	}
	idle = new(float64)
	k.look = func() (float64, error) { return *idle, nil }
	return k, idle
}

func TestDecide(t *testing.T) {
	k, idle := keeper(t)
	threads(t, 20)
	checkThreads(t, unix.SCHED_NORMAL)
	for _, tc := range []struct {
		idle float64
		give bool
	}{
		{0, false}, {0.39, false}, {0.4, true}, {0.2, true}, {1, true}, {0.19, false}, {0.39, false}, {0.9, true}, {0, false},
	} {
		*idle = tc.idle
		if err := k.decide(); err != nil {
			t.Fatal(err)
		}
		if k.Idle() != tc.give {
			t.Errorf("with %v idle: idle is %v, want %v", tc.idle, k.Idle(), tc.give)
		}
		threads(t, 3) // new threads must have the policy too
		if tc.give {
			checkThreads(t, unix.SCHED_IDLE)
		} else {
			checkThreads(t, unix.SCHED_NORMAL)
		}
	}
}

func TestRunStopsWithItsContext(t *testing.T) {
	k, idle := keeper(t)
	*idle = 1
	if err := k.decide(); err != nil || !k.Idle() {
		t.Fatalf("idle is %v, %v", k.Idle(), err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := k.Run(ctx); err != nil || k.Idle() {
		t.Errorf("at the end: idle is %v, %v, want false and no error", k.Idle(), err)
	}
	checkThreads(t, unix.SCHED_NORMAL)
}

func TestNiceValueIsKept(t *testing.T) {
	k, idle := keeper(t)
	done := make(chan [3]int32)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with its nice value
		thread := unix.Gettid()
		if err := unix.Setpriority(unix.PRIO_PROCESS, thread, 7); err != nil {
			t.Error(err)
		}
		var nice [3]int32
		for i, share := range []float64{0, 1, 0} {
			*idle = share
			if err := k.decide(); err != nil {
				t.Error(err)
			}
			attr, err := unix.SchedGetAttr(thread, 0)
			if err != nil {
				t.Error(err)
				break
			}
			nice[i] = attr.Nice
		}
		done <- nice
	}()
	if nice := <-done; nice != [3]int32{7, 7, 7} {
		t.Errorf("nice values before, while and after running idle: %v, want 7", nice)
	}
}

// threads starts n threads, which end with the test.
func threads(t *testing.T, n int) {
	t.Helper()
	end, running := make(chan struct{}), make(chan struct{})
	for range n {
		go func() {
			runtime.LockOSThread()
			running <- struct{}{}
			<-end
		}()
		<-running
	}
	t.Cleanup(func() { close(end) })
}

func checkThreads(t *testing.T, policy uint32) {
	t.Helper()
	all, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	for _, thread := range all {
		id, err := strconv.Atoi(thread.Name())
		if err != nil {
			t.Fatal(err)
		}
		attr, err := unix.SchedGetAttr(id, 0)
		if errors.Is(err, unix.ESRCH) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if attr.Policy != policy {
			t.Errorf("thread %d of %d has policy %d, want %d", id, len(all), attr.Policy, policy)
		}
	}
}

const childVariable = "IDLEPRIORITY_TEST_CHILD"

// TestPermission makes a Keeper as another user: one that may not raise a priority, one
// that may, and one that already runs at idle priority. The limit in the unit file is not
// tested: root in a container may not raise it.
func TestPermission(t *testing.T) {
	if want := os.Getenv(childVariable); want != "" {
		_, err := New()
		if got := fmt.Sprint(err); !strings.Contains(got, want) {
			t.Errorf("error %q, want %q", got, want)
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
	const may = "+sys_nice"
	for _, tc := range []struct {
		name, capabilities, want string
		before                   []string
	}{
		{"nobody", "-all", "LimitNICE=+0", nil},
		{"not root but permitted", may, "<nil>", nil},
		{"idle, not root but permitted", may, "already has another scheduling policy", []string{"chrt", "--idle", "0"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			// By file descriptor, since this user has no access to the directory.
			args := append(tc.before, "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
				"--inh-caps="+tc.capabilities, "--ambient-caps="+tc.capabilities, "/proc/self/fd/3", "-test.run=^TestPermission$")
			cmd := exec.Command(args[0], args[1:]...)
			cmd.Env = append(os.Environ(), childVariable+"="+tc.want)
			cmd.ExtraFiles = []*os.File{program}
			cmd.Dir = "/"
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}
