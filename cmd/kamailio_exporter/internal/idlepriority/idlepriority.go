// Package idlepriority runs the exporter at idle CPU priority while the host has CPU
// time to spare, so that calls do not wait for scrapes.
//
// Whatever wakes up beside a SIP server takes time that some call then waits for: a
// scrape of 10 ms in each second is enough for one call in a hundred to wait
// noticeably longer (docs/performance.md). Linux has a policy for just that, SCHED_IDLE
// (sched(7)): such a thread runs only while a CPU has nothing else to do, and leaves
// it the moment that something else wakes up.
//
// On a host without time to spare such a thread hardly runs at all, and then scrapes
// and repairs matter most. So the process is an idle one only while the host's CPUs
// are partly idle, and takes its share like any other as soon as they are not.
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
	// interval is how often is looked whether the host has CPU time to spare.
	interval = 2 * time.Second

	// The idle share of the CPUs above which the process becomes idle, and that below
	// which it is normal again. Between them it stays as it is.
	enough, scarce = 0.4, 0.2
)

// Keeper switches this process, which must have only one, between idle and normal
// priority.
type Keeper struct {
	own  uint32 // the policy at normal priority
	look func() (idle float64, err error)
	idle atomic.Bool
}

// New fails where this process could not return from idle priority, or where
// somebody else has set its scheduling policy. Nothing is changed yet.
func New() (*Keeper, error) {
	attr, err := unix.SchedGetAttr(0, 0)
	if err != nil {
		return nil, fmt.Errorf("reading the scheduling policy: %w", err)
	}
	if attr.Policy != unix.SCHED_NORMAL && attr.Policy != unix.SCHED_BATCH {
		return nil, errors.New("another scheduling policy is set for this process already")
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

// trySwitching asks the kernel, on a thread that is thrown away if it does not come
// back.
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

// Run looks and switches until ctx is done, or until that fails. At its end the
// process has normal priority.
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

// setIdle sets the policy of all threads: Linux has it per thread.
func (k *Keeper) setIdle(idle bool) error {
	if k.idle.Load() == idle {
		return nil
	}
	policy := k.own
	if idle {
		policy = unix.SCHED_IDLE
	}
	// A new thread has the policy of the one that starts it, which may have been
	// the old one: so until all have the new one.
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
	return errors.New("setting the scheduling policy: there are ever more threads")
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
		if err != nil && !errors.Is(err, unix.ESRCH) { // it has ended
			return false, err
		}
		changed = changed || set
	}
	return changed, nil
}

// setPolicy of a thread, 0 for the one that runs this, keeps its nice value. It
// reports whether the thread had another policy.
func setPolicy(thread int, policy uint32) (changed bool, err error) {
	attr, err := unix.SchedGetAttr(thread, 0)
	if err != nil || attr.Policy == policy {
		return false, err
	}
	// Not all of attr: the slice that it tells would be fixed with it.
	return true, unix.SchedSetAttr(thread, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: policy, Nice: attr.Nice}, 0)
}

// cpus remembers how the CPUs spent their time.
type cpus struct {
	fs   procfs.FS
	last map[int64]procfs.CPUStat
}

// idle is the share of time, since it was last called, in which those CPUs did
// nothing that this process may use. 0 at the first call.
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
		// Time of guests is in that of user and nice. Time stolen by the hypervisor
		// is not to spare.
		nothing := n.Idle - b.Idle + n.Iowait - b.Iowait
		idle += nothing
		all += nothing + n.User - b.User + n.Nice - b.Nice + n.System - b.System +
			n.IRQ - b.IRQ + n.SoftIRQ - b.SoftIRQ + n.Steal - b.Steal
	}
	if all <= 0 {
		return 0
	}
	return min(idle/all, 1) // it comes in hundredths of a second, as a float
}
