package action

import (
	"context"
	"errors"
	"fmt"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/audit"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
)

func lookDialog(ctx context.Context, k Kamailio, a Args) (audit.State, error) {
	return dialog(ctx, k, a.text("call_id"), "")
}

func lookDialogWithTags(ctx context.Context, k Kamailio, a Args) (audit.State, error) {
	return dialog(ctx, k, a.text("call_id"), a.text("from_tag"))
}

// dialog reads the dialog with this Call-ID. It fails if several match.
func dialog(ctx context.Context, k Kamailio, callID, fromTag string) (audit.State, error) {
	params := []any{callID}
	if fromTag != "" {
		params = append(params, fromTag)
	}
	result, err := k.Call(ctx, "dlg.dlg_list", params...)
	if err != nil {
		return nil, err
	}
	state := audit.State{}
	for d := range result.All("") {
		entry, ok := whole(d.Get("h_entry"))
		id, ok2 := whole(d.Get("h_id"))
		if !ok || !ok2 {
			continue
		}
		if len(state) > 0 {
			return nil, &guardError{"more than one dialog has this Call-ID"}
		}
		number, _ := whole(d.Get("state"))
		duration, _ := whole(d.Get("duration"))
		state = audit.State{"h_entry": int(entry), "h_id": int(id), "state": number, durationField: duration}
	}
	if len(state) == 0 {
		return nil, errNoTarget
	}
	return state, nil
}

// States of modules/dialog/dlg_hash.h.
const (
	dialogAnswered = 3 // and 4, with the ACK
	dialogDeleted  = 5
)

func dialogOver(_ Args, before audit.State) bool { return before["state"] == int64(dialogDeleted) }

// guardDialog refuses to end a call that is not answered yet. For such a call, Kamailio
// 5.6 reports success but does nothing, or keeps the dialog forever (dialog.terminate);
// 6.0 uses a transaction that may already be freed (modules/dialog: send_bye, dlg->t).
func guardDialog(_ Args, before audit.State, _ Guards) error {
	if n, _ := before["state"].(int64); n < dialogAnswered {
		return errors.New("the call is not answered yet, and a BYE ends only answered calls: wait for the answer, or for its timer (fr_inv_timer)")
	}
	return nil
}

// judgeDialogGone accepts a dialog that ended, which happens with the first reply to a
// BYE or when Kamailio stops waiting for one.
func judgeDialogGone(_ Args, _, after audit.State, _ Guards) judgement {
	if n, ok := after["state"].(int64); !ok || n == dialogDeleted {
		return asAsked
	}
	return unseen("Kamailio sent a BYE to both sides, and neither has answered yet: the call ends after fr_timer (tm, default 30 s). Check again then")
}

// maxListedCalls is the largest number of dialogs that are searched for the oldest
// call: dlg.briefing locks a hash slot while it prints the slot.
const maxListedCalls = 4000

// durationField is the age of a call in seconds, as lookDialog reads it.
const durationField = "duration_seconds"

var oldestCall = Finder{
	Name: "oldest-call", Find: findOldestCall, None: "there is no such call",
	Field: durationField, Least: 60, Why: "how old the call must be",
}

// findOldestCall returns the Call-ID of the ongoing call that began first, or "".
func findOldestCall(ctx context.Context, k Kamailio) (string, error) {
	if err := fewCalls(ctx, k); err != nil {
		return "", err
	}
	first, id := int64(0), ""
	err := k.Rows(ctx, kamrpc.Rows{Fields: []string{"state", "start_ts", "call-id"}}, func(_ kamrpc.Above, dialog kamrpc.Value) error {
		began, ok := whole(dialog.Get("start_ts"))
		if ok && began > 0 && dialog.Get("state").Text() == "4" && (id == "" || began < first) { // 4: ongoing (dialog/dlg_hash.h)
			first, id = began, dialog.Get("call-id").Text()
		}
		return nil
	}, "dlg.briefing", "sSc")
	return id, err
}

// fewCalls returns an error if there are too many calls to list.
func fewCalls(ctx context.Context, k Kamailio) error {
	active, err := k.Call(ctx, "dlg.stats_active")
	if err != nil {
		return err
	}
	if n, ok := whole(active.Get("all")); !ok || n > maxListedCalls {
		return Guarded.Because(fmt.Sprintf("more than %d calls are not searched", maxListedCalls))
	}
	return nil
}
