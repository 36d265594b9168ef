package action

import (
	"context"
	"math/rand/v2"
	"strings"
	"time"
)

// Two exporters, such as those of a pair of hosts, may count the same destinations and
// then each take out a different one. An item of this htable, if kamailio.cfg defines
// it, prevents that:
//
//	modparam("htable", "htable", "exporter_lease=>size=2;autoexpire=60;")
//
// htable has no RPC that writes only if the item is absent, so a lease takes several
// steps: read that there is no holder, write our number, wait, and read our number
// back. An exporter that read "no holder" before our write and wrote after we read back
// needed longer than the wait. It detects that by its own clock and continues without a
// lease, as all exporters do if the table is missing. The guards are checked again
// after the change in any case.
const (
	leaseTable = "exporter_lease"
	leaseLife  = time.Minute            // expiry after a crash; longer than an action with guards takes
	leaseWrite = 200 * time.Millisecond // longest time from the read to the reply to the write
	leaseRetry = 50 * time.Millisecond
)

// lease waits until no other exporter is taking out a target of the same module. end
// releases the lease; it is nil if no lease is available.
func (e *Engine) lease(ctx context.Context, j *Job) (end func(), p *Problem) {
	if !e.has("htable.get") || !e.has("htable.setxi") || !e.has("htable.delete") {
		return nil, nil
	}
	key, mine := Module(j.Action.Name), 1+rand.Int64N(1<<31-1) //nolint:gosec // only distinguishes two values, not a secret
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
			return func() { remove(false) }, nil // also removes the late write of an exporter that continues without a lease
		case holder != 0 && began.After(deadline):
			return nil, Busy.Later("another exporter is changing this Kamailio", personWaits)
		case holder != 0:
			time.Sleep(leaseRetry + rand.N(leaseRetry)) //nolint:gosec // only spreads the load
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

// holderOf returns the number of the lease's holder; 0 if there is none. ok is false if
// the item would never expire.
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
	// Without autoexpire, the expiry counts from 1970 (modules/htable/ht_api.c).
	return holder, ok && strings.HasPrefix(result.Get("item/expire").Text(), "20"), nil
}
