package action

import (
	"context"
	"math/rand/v2"
	"strings"
	"time"
)

// Two exporters, such as those of a pair of hosts, may count the same destinations and
// then each take out another. An item of this htable, where kamailio.cfg has it, keeps
// them apart:
//
//	modparam("htable", "htable", "exporter_lease=>size=2;autoexpire=60;")
//
// No RPC of htable writes only if nothing is there, so it takes time: read that nobody has
// it, write, wait, read our own number back. Whoever saw nobody before our write, and wrote
// after we read back, took longer than the wait: he knows it by his own clock, and goes on
// without a lease, as all do where there is no such table. The guards are judged again after
// the change in any case.
const (
	leaseTable = "exporter_lease"
	leaseLife  = time.Minute            // after a crash; longer than an action with guards takes
	leaseWrite = 200 * time.Millisecond // from the read to the answer of the write
	leaseRetry = 50 * time.Millisecond
)

// lease waits until no other exporter takes anything of the same module out. It returns
// what ends it; nil where there is none to be had.
func (e *Engine) lease(ctx context.Context, j *Job) (end func(), p *Problem) {
	if !e.has("htable.get") || !e.has("htable.setxi") || !e.has("htable.delete") {
		return nil, nil
	}
	key, mine := Module(j.Action.Name), 1+rand.Int64N(1<<31-1) //nolint:gosec // tells two apart, and is no secret
	remove := func(only bool) {
		ctx, cancel := context.WithTimeout(ctx, defaultLookTime)
		defer cancel()
		if holder, ok, _ := holderOf(ctx, e.Kamailio, key); ok && (holder == mine || !only) && time.Since(j.began) < leaseLife {
			_, _ = e.Kamailio.Do(ctx, "htable.delete", leaseTable, key)
		}
	}
	for deadline := time.Now().Add(personWaits); ; {
		began := time.Now()
		holder, ok, err := holderOf(ctx, j.reads, key)
		switch {
		case err != nil && ofRead(err).Kind == Busy:
			return nil, ofRead(err)
		case err != nil || !ok:
			return nil, nil
		case holder == mine:
			return func() { remove(false) }, nil // also a late write of one who goes on without it
		case holder != 0 && began.After(deadline):
			return nil, Busy.Later("another exporter changes this Kamailio", personWaits)
		case holder != 0:
			time.Sleep(leaseRetry + rand.N(leaseRetry)) //nolint:gosec // spreads
			continue
		}
		if _, err := e.Kamailio.Do(ctx, "htable.setxi", leaseTable, key, int(mine), int(leaseLife.Seconds())); err != nil {
			return nil, nil
		}
		if time.Since(began) > leaseWrite {
			return func() { remove(true) }, nil
		}
		time.Sleep(leaseWrite)
	}
}

// holderOf is the number of who has the lease; 0: nobody. ok is false where it would never
// expire.
func holderOf(ctx context.Context, k Kamailio, key string) (holder int64, ok bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, defaultLookTime)
	defer cancel()
	result, err := k.Call(ctx, "htable.get", leaseTable, key)
	switch {
	case isFault(err, "Key name doesn't exist"):
		return 0, true, nil
	case err != nil:
		return 0, false, err
	}
	holder, ok = whole(result.Get("item/value"))
	// Without autoexpire the time counts from 1970 on (modules/htable/ht_api.c).
	return holder, ok && strings.HasPrefix(result.Get("item/expire").Text(), "20"), nil
}
