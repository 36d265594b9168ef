package admin

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
)

// durationField is the age of a call, as lookDialog reads it.
const durationField = "duration_seconds"

// confirmed reads whether it is as the alert says: nil if it is. before is what
// the action has read, in the same slot.
func (r *rule) confirmed(ctx context.Context, k Kamailio, a alert, args Args, before State, loaded time.Time) error {
	for _, field := range slices.Sorted(maps.Keys(r.confirm.Read)) {
		is, ok := before[field]
		if !ok || !slices.Contains(readValues(r.confirm.Read[field]), textOf(is)) {
			return notSo("%s is %s", field, orNothing(is, ok))
		}
	}
	for _, field := range slices.Sorted(maps.Keys(r.confirm.AtLeast)) {
		is, ok := before[field].(int64)
		if least := r.confirm.AtLeast[field]; !ok || is < int64(least) {
			return notSo("%s is %s, and not at least %d", field, orNothing(before[field], ok), least)
		}
	}
	if r.confirm.NotLoadedSince && loaded.After(a.starts) {
		return notSo("it was loaded %s after the alert began", loaded.Sub(a.starts).Round(time.Second))
	}
	if least := r.confirm.LatencyAbove; least > 0 {
		is, err := latency(ctx, k, args)
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

// notSo is that Kamailio does not say what the alert says.
func notSo(format string, args ...any) error {
	return unconfirmed.because(fmt.Sprintf(format, args...))
}

func orNothing(v any, there bool) string {
	if !there {
		return "not told"
	}
	return textOf(v)
}

func (h HTableConfirm) confirmed(ctx context.Context, k Kamailio, a alert) error {
	key := h.Key
	if h.Label != "" {
		key = a.labels[h.Label]
	}
	if key == "" || len(key) > keyParam.MaxLen || strings.ContainsFunc(key, notPrintable) {
		return badParameter.because("the key of the htable may not be as it is")
	}
	item := func(table string) (int64, error) {
		state, err := lookItem(ctx, k, Args{"table": table, "key": key})
		if err != nil {
			return 0, err
		}
		n, _ := state["value"].(int64) // absent, or no number: nothing was counted
		return n, nil
	}
	n, err := item(h.Table)
	if err != nil {
		return err
	}
	if n <= *h.Above {
		return notSo("the item of %s is %d, and not above %d", h.Table, n, *h.Above)
	}
	if h.Of == "" {
		return nil
	}
	of, err := item(h.Of)
	if err != nil {
		return err
	}
	if of <= 0 || float64(n)/float64(of) <= h.Share {
		return notSo("the item of %s is %d of %d, and not above the share %g", h.Table, n, of, h.Share)
	}
	return nil
}

// latency is how long the destination takes to answer OPTIONS, recent ones weighing
// most (modules/dispatcher/dispatch.c: LATENCY/EST, in milliseconds).
func latency(ctx context.Context, k Kamailio, args Args) (time.Duration, error) {
	list, err := k.Call(ctx, "dispatcher.list")
	if err != nil {
		return 0, err
	}
	for set := range list.All("RECORDS/SET") {
		if n, ok := whole(set.Get("ID")); !ok || n != args.number("set") {
			continue
		}
		for dest := range set.All("TARGETS/DEST") {
			if !strings.EqualFold(dest.Get("URI").Text(), args.text("uri")) {
				continue
			}
			if ms, ok := dest.Get("LATENCY/EST").Float(); ok {
				return time.Duration(ms * float64(time.Millisecond)), nil
			}
			return 0, notSo("Kamailio does not measure latencies: ds_ping_latency_stats is off")
		}
	}
	return 0, errNoTarget
}

// maxListedCalls is up to how many dialogs the oldest is looked for: dlg.briefing
// holds a hash slot while it prints it.
const maxListedCalls = 4000

// findOldestCall is the Call-ID of the ongoing call that began first; "" when there
// is none.
func findOldestCall(ctx context.Context, k Kamailio) (string, error) {
	active, err := k.Call(ctx, "dlg.stats_active")
	if err != nil {
		return "", err
	}
	if n, ok := whole(active.Get("all")); !ok || n > maxListedCalls {
		return "", guarded.because(fmt.Sprintf("more than %d calls are not looked through", maxListedCalls))
	}
	first, id := int64(0), ""
	err = k.Rows(ctx, kamrpc.Rows{Fields: []string{"state", "start_ts", "call-id"}}, func(_ kamrpc.Above, dialog kamrpc.Value) error {
		began, ok := whole(dialog.Get("start_ts"))
		if ok && began > 0 && dialog.Get("state").Text() == "4" && (id == "" || began < first) { // 4: ongoing (dialog/dlg_hash.h)
			first, id = began, dialog.Get("call-id").Text()
		}
		return nil
	}, "dlg.briefing", "sSc")
	return id, err
}

// undo takes an action back.
type undo struct {
	action string   // that does it
	fields []string // of the state, that must be what the rule left
	// args makes the parameters of it from those of the action, and from what was
	// before it.
	args func(params map[string]any, before State) map[string]any
}

// undoOf is nil for what cannot be taken back.
func undoOf(action string) *undo {
	same := func(params map[string]any, _ State) map[string]any { return params }
	switch action {
	case "dispatcher.set-state":
		return &undo{action, []string{"flags"}, func(params map[string]any, before State) map[string]any {
			flags, _ := before["flags"].(string)
			back := maps.Clone(params)
			back["state"] = stateOf(flags)
			return back
		}}
	case "rtpengine.set-enabled":
		return &undo{action, []string{"enabled", "disabled"}, func(params map[string]any, _ State) map[string]any {
			back := maps.Clone(params)
			on, _ := params["enabled"].(bool)
			back["enabled"] = !on
			return back
		}}
	case "uac.disable":
		return &undo{"uac.enable", []string{"enabled"}, same}
	case "uac.enable":
		return &undo{"uac.disable", []string{"enabled"}, same}
	}
	return nil
}

func undoable() []string {
	var names []string
	for _, a := range catalogue() {
		if undoOf(a.Name) != nil {
			names = append(names, a.Name)
		}
	}
	return names
}

// stateOf is the state that sets such flags. One that was being tried is active
// again: Kamailio finds out anew whether it is.
func stateOf(flags string) string {
	flags = strings.ToLower(flags)
	if len(flags) != 2 || strings.HasPrefix(flags, "t") {
		return "ap"
	}
	return flags
}

// own tells whether what is there is still what the rule left there.
func (u *undo) own(now, left State) bool {
	for _, field := range u.fields {
		if textOf(now[field]) != textOf(left[field]) {
			return false
		}
	}
	return true
}
