package doctor

import (
	"context"
	"fmt"
	"slices"
)

// total sums the values of a metric in the scrape. If labels are given, it sums only the
// samples that have one of these label values.
func (p *patient) total(name string, labels ...string) (sum float64, there bool) {
	if p.snapshot == nil {
		return 0, false
	}
	for _, r := range p.snapshot.Results {
		for _, s := range r.Samples {
			if s.Desc.Name == name && !slices.ContainsFunc(s.Labels, func(l string) bool { return len(labels) > 0 && !slices.Contains(labels, l) }) {
				sum, there = sum+s.Value, true
			}
		}
	}
	return sum, there
}

// Refused calls above both limits, a number and a share of all calls, cannot be explained
// by counter restarts and calls in progress.
const (
	manyRefused  = 20
	shareRefused = 0.02
)

// manageCalls makes each call a dialog that counts as failed if the script refuses it.
// The order matters: if t_newtran() comes first, dialog does not replicate the call to
// other nodes (enable_dmq; seen on 5.6.3 and 6.0.1).
var manageCalls = []string{
	"# in request_route, after authentication, before the first reply to a call:",
	`if (is_method("INVITE") && !has_totag()) {`,
	"\tdlg_manage();",
	"\tt_newtran();  # after dlg_manage()",
	"}",
}

// checkAnswered reports whether calls that the script refuses may count as answered. The
// dialog module counts failed calls in a callback of tm (dialog/dlg_handlers.c), so it
// misses calls that are refused without a transaction.
func checkAnswered(_ context.Context, p *patient) []Finding {
	processed, known := p.total("kamailio_dialog_processed_total")
	failed, alsoKnown := p.total("kamailio_dialog_failed_total")
	if !known || !alsoKnown || processed == 0 {
		return nil
	}
	// Both estimates can only be too low. Each refused INVITE is acknowledged: ACKs
	// beyond the number of INVITEs without a dialog belong to dialogs.
	acks, withSl := p.total("kamailio_sl_acks_received_total")
	invites, withKex := p.total("kamailio_core_requests_received_by_method_total", "INVITE")
	refused := 0.0
	if withSl && withKex {
		refused = acks - max(invites-processed, 0)
	}
	// A call that has not failed was answered or is still ringing.
	if answers, ok := p.total("kamailio_core_replies_received_by_method_total", "INVITE", "2xx"); ok {
		ringing, _ := p.total("kamailio_dialog_dialogs", "starting", "connecting")
		refused = max(refused, processed-failed-answers-ringing)
	}
	challenges, _ := p.total("kamailio_sl_replies_sent_by_code_total", "407")
	enough := func(calls float64) bool { return calls >= manyRefused && calls >= shareRefused*processed }
	fix := kamailioCfg(append(slices.Clone(manageCalls), `# and send_reply("404", "Not Found") in place of sl_send_reply(), which never uses the transaction`)...)
	later := or(kamailioCfg("dlg_manage();  # after the last check that rejects calls: calls rejected before it do not count as attempts"))
	switch {
	case enough(refused):
		return []Finding{{Level: Warn, Fixes: []Fix{fix, later}, Text: fmt.Sprintf("the script rejected at least %.0f of %.0f calls after dlg_manage() and without a transaction. "+
			"Kamailio never counts these as failed: the number of answered calls, SER and SEER can be too high", refused, processed)}}
	case enough(acks - challenges):
		return []Finding{{Level: Note, Fixes: []Fix{fix, later}, Text: fmt.Sprintf("%.0f INVITEs were rejected without a transaction, and %.0f calls processed. "+
			"If the script does so after dlg_manage(), Kamailio never counts these calls as failed: the number of answered calls, SER and SEER can be too high", acks-challenges, processed)}}
	}
	return nil
}
