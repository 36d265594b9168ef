package repair

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/action"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/audit"
)

// confirmed checks in Kamailio whether the alert is true; nil if it is. before is the
// state that the action read, in the same slot.
func (r *rule) confirmed(ctx context.Context, k action.Kamailio, a alert, args action.Args, before audit.State, loaded time.Time) error {
	for _, field := range slices.Sorted(maps.Keys(r.confirm.Read)) {
		is, ok := before[field]
		if !ok || !slices.Contains(readValues(r.confirm.Read[field]), audit.TextOf(is)) {
			return notSo("%s is %s", field, orNothing(is, ok))
		}
	}
	for _, field := range slices.Sorted(maps.Keys(r.confirm.AtLeast)) {
		is, ok := before[field].(int64)
		if least := r.confirm.AtLeast[field]; !ok || is < int64(least) {
			return notSo("%s is %s, which is less than %d", field, orNothing(before[field], ok), least)
		}
	}
	if r.confirm.NotLoadedSince && loaded.After(a.starts) {
		return notSo("it was loaded %s after the alert began", loaded.Sub(a.starts).Round(time.Second))
	}
	if least := r.confirm.LatencyAbove; least > 0 {
		is, err := r.action.Latency(ctx, k, args)
		if err != nil {
			return err
		}
		if is <= least {
			return notSo("the destination answers in %s", is)
		}
	}
	for _, h := range r.confirm.HTable {
		if err := h.confirmed(ctx, k, a); err != nil {
			return err
		}
	}
	return nil
}

// notSo returns the problem for an alert that Kamailio does not confirm.
func notSo(format string, args ...any) error {
	return action.Unconfirmed.Because(fmt.Sprintf(format, args...))
}

func orNothing(v any, there bool) string {
	if !there {
		return "not told"
	}
	return audit.TextOf(v)
}

func (h CounterConfig) confirmed(ctx context.Context, k action.Kamailio, a alert) error {
	key := h.Key
	if h.Label != "" {
		key = a.labels[h.Label]
	}
	n, err := action.ReadCounter(ctx, k, h.Table, key)
	if err != nil {
		return err
	}
	if n <= *h.Above {
		return notSo("the item of %s is %d, which is not above %d", h.Table, n, *h.Above)
	}
	if h.Of == "" {
		return nil
	}
	of, err := action.ReadCounter(ctx, k, h.Of, key)
	if err != nil {
		return err
	}
	if of <= 0 || float64(n)/float64(of) <= h.Ratio {
		return notSo("the item of %s is %d of %d, which is not above the ratio %g", h.Table, n, of, h.Ratio)
	}
	return nil
}
