// Package idlepriority runs the exporter at idle CPU priority while the host has CPU
// time to spare, so that calls do not wait for scrapes.
//
// Any process that wakes up on a SIP server takes CPU time that some calls then wait
// for: a scrape of 10 ms in each second makes about one call in a hundred wait
// noticeably longer (docs/performance.md). Linux has a scheduling policy for this,
// SCHED_IDLE (sched(7)): such a thread runs only while a CPU is otherwise idle, and
// yields it as soon as another thread wakes up.
//
// On a busy host such a thread hardly runs at all, and that is when scrapes and fixes
// matter most. So the process runs at idle priority only while the host's CPUs are
// partly idle, and returns to normal priority as soon as they are not.
package idlepriority

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"
)

const (
	// interval is how often the idle share of the CPUs is measured.
	interval = 2 * time.Second

	// The process switches to idle priority above the first idle share of the CPUs, and
	// back to normal priority below the second. Between them nothing changes.
	enough, scarce = 0.4, 0.2
)

// Keeper switches this process between idle and normal priority. A process must have only
// one Keeper.
type Keeper struct {
	own  uint32 // the policy at normal priority
	look func() (idle float64, err error)
	idle atomic.Bool
}

// New fails if this process could not return from idle priority, or if its scheduling
// policy was already set from outside. It changes nothing yet.
func New() (*Keeper, error) {
	attr, err := unix.SchedGetAttr(0, 0)
	if err != nil {
		return nil, fmt.Errorf("reading the scheduling policy: %w", err)
	}
	if attr.Policy != unix.SCHED_NORMAL && attr.Policy != unix.SCHED_BATCH {
		return nil, errors.New("this process already has another scheduling policy")
	}
	if err := trySwitching(attr.Policy); err != nil {
		return nil, fmt.Errorf("switching to SCHED_IDLE and back needs RLIMIT_NICE of 20 (in a systemd unit: LimitNICE=+0) or CAP_SYS_NICE: %w", err)
	}
	fs, err := procfs.NewDefaultFS()
	if err != nil {
		return nil, err
	}
	c := cpus{fs: fs}
	return &Keeper{own: attr.Policy, look: c.idle}, nil
}

// trySwitching tries the switch on a thread of its own. If the thread cannot switch back,
// it is discarded.
func trySwitching(own uint32) error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread()
		_, err := setPolicy(0, unix.SCHED_IDLE)
		if err == nil {
			_, err = setPolicy(0, own)
		}
		if err == nil {
			runtime.UnlockOSThread()
		}
		result <- err
	}()
	return <-result
}

// Idle reports whether the process runs at idle priority now.
func (k *Keeper) Idle() bool { return k.idle.Load() }

// Run switches the priority as needed until ctx is done or a switch fails. When it
// returns, the process has normal priority.
func (k *Keeper) Run(ctx context.Context) error {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	var err error
	for err == nil {
		select {
		case <-ctx.Done():
			return k.setIdle(false)
		case <-tick.C:
			err = k.decide()
		}
	}
	return errors.Join(err, k.setIdle(false))
}

func (k *Keeper) decide() error {
	idle, err := k.look()
	switch {
	case err != nil:
		return err
	case idle >= enough:
		return k.setIdle(true)
	case idle < scarce:
		return k.setIdle(false)
	}
	return nil
}

// setIdle sets the policy of all threads, since Linux has one per thread.
func (k *Keeper) setIdle(idle bool) error {
	if k.idle.Load() == idle {
		return nil
	}
	policy := k.own
	if idle {
		policy = unix.SCHED_IDLE
	}
	// A new thread inherits the policy of its creator, which may be the old one, so this
	// repeats until all threads have the new policy.
	for range 100 {
		changed, err := setAll(policy)
		if err != nil {
			return fmt.Errorf("setting the scheduling policy: %w", err)
		}
		if !changed {
			k.idle.Store(idle)
			return nil
		}
	}
	return errors.New("setting the scheduling policy: new threads keep appearing")
}

func setAll(policy uint32) (changed bool, err error) {
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return false, err
	}
	for _, thread := range threads {
		id, err := strconv.Atoi(thread.Name())
		if err != nil {
			return false, err
		}
		set, err := setPolicy(id, policy)
		if err != nil && !errors.Is(err, unix.ESRCH) { // ESRCH: the thread has ended
			return false, err
		}
		changed = changed || set
	}
	return changed, nil
}

// setPolicy sets the policy of a thread, and keeps its nice value. Thread 0 is the
// calling thread. It reports whether the thread had another policy.
func setPolicy(thread int, policy uint32) (changed bool, err error) {
	attr, err := unix.SchedGetAttr(thread, 0)
	if err != nil || attr.Policy == policy {
		return false, err
	}
	// attr is not passed back as it is: that would fix the thread's time slice at the
	// value that the kernel reported.
	return true, unix.SchedSetAttr(thread, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: policy, Nice: attr.Nice}, 0)
}

// cpus remembers how the CPUs have spent their time.
type cpus struct {
	fs   procfs.FS
	last map[int64]procfs.CPUStat
}

// idle returns the idle share of the CPUs that this process can use, since the last call.
// It is 0 at the first call.
func (c *cpus) idle() (share float64, err error) {
	stat, err := c.fs.Stat()
	if err != nil {
		return 0, err
	}
	var usable unix.CPUSet
	if err := unix.SchedGetaffinity(0, &usable); err != nil {
		return 0, fmt.Errorf("reading which CPUs can be used: %w", err)
	}
	share = idleShare(c.last, stat.CPU, func(cpu int64) bool { return usable.IsSet(int(cpu)) })
	c.last = stat.CPU
	return share, nil
}

func idleShare(before, now map[int64]procfs.CPUStat, usable func(cpu int64) bool) float64 {
	var idle, all float64
	for cpu, n := range now {
		b, known := before[cpu]
		if !known || !usable(cpu) {
			continue
		}
		// Guest time is already part of user and nice time. Time stolen by the hypervisor
		// does not count as idle.
		nothing := n.Idle - b.Idle + n.Iowait - b.Iowait
		idle += nothing
		all += nothing + n.User - b.User + n.Nice - b.Nice + n.System - b.System +
			n.IRQ - b.IRQ + n.SoftIRQ - b.SoftIRQ + n.Steal - b.Steal
	}
	if all <= 0 {
		return 0
	}
	return min(idle/all, 1) // the counters are floats in steps of 10 ms, so rounding can exceed 1
}
