package collector

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
)

// dialogModule is calls (dialog/dialog.c). The number of calls always comes from
// dlg.stats_active, never from the statistics. If a node of a cluster (enable_dmq)
// restarts, it receives the dialogs of the other nodes and counts their ends incorrectly
// (dialog/dlg_dmq.c), so that active_dialogs stays above 0 forever.
var dialogModule = Module{
	Subsystem: "dialog",
	Summary:   "Calls by state, in memory and local to this server; processed, failed and expired calls",
	Queries: []Query{
		{Method: "dlg.stats_active", Metrics: dialogStates("dialogs",
			"Dialogs in memory, by state: starting (INVITE sent), connecting (ringing), answering (200 without its ACK), ongoing (call in progress). With enable_dmq, dialogs of the other nodes are included, so that a sum over a cluster counts each call once per node.")},
		// Servers that do not know this parameter ignore it and count all dialogs. It was
		// added in the same release as core.runinfo, which those servers do not list.
		{Method: "dlg.stats_active", Params: []any{1}, With: "core.runinfo", Metrics: dialogStates("local_dialogs",
			"Dialogs in memory that this server handles, by state, without those that DMQ replicated from other nodes. Use their sum over a cluster. Dialogs from before a restart that DMQ restored are not included. Requires Kamailio 5.6.")},
		statistics("dialog",
			Metric{Field: "dialog:active_dialogs", Instead: "kamailio_dialog_dialogs: with enable_dmq the statistic stays too high after a restart"},
			Metric{Field: "dialog:early_dialogs", Instead: "kamailio_dialog_dialogs{state=\"connecting\"}: with enable_dmq the statistic is wrong after a restart"},
			Metric{Field: "dialog:processed_dialogs", Name: "processed_total", Kind: counter, Help: "Dialogs created on this server: the call attempts for which dlg_manage() ran. Dialogs replicated from other nodes are not counted."},
			Metric{Field: "dialog:failed_dialogs", Name: "failed_total", Kind: counter, Help: "Dialogs that ended with a negative final reply (3xx to 6xx, including the 487 of a canceled call). Calls that the script rejects statelessly are not counted."},
			Metric{Field: "dialog:expired_dialogs", Name: "expired_total", Kind: counter, Help: "Dialogs that ended by their timeout, because their BYE or ACK was never received."},
		),
	},
}

// dialogStates returns the metrics for the fields of dlg.stats_active.
func dialogStates(name, help string) []Metric {
	return []Metric{
		{Pattern: "(starting|connecting|answering|ongoing)", PatternLabels: []string{"state"}, Name: name, Kind: gauge, Help: help},
		{Field: "all", Instead: "the sum of kamailio_dialog_" + name},
	}
}

var profileDesc = NewDesc("kamailio_dialog_profile_dialogs",
	"Dialogs in a dialog profile, for all of its values together. With enable_dmq, dialogs of the other nodes are included.", gauge, "dlg.profile_get_size", "profile")

var profileValueDesc = NewDesc("kamailio_dialog_profile_value_dialogs",
	"Dialogs in a dialog profile with this value. With enable_dmq the dialogs of the other nodes are among them.", gauge, "dlg.profile_get_size", "profile", "value")

// dialogProfiles counts the profiles that the operator configures, because Kamailio does
// not list them.
type dialogProfiles struct{ profiles []string }

func (dialogProfiles) Name() string { return "dialog_profile" }
func (dialogProfiles) About() string {
	return "Sizes of the dialog profiles named by --collector.dialog_profile.names"
}
func (dialogProfiles) Methods() []string { return []string{"dlg.profile_get_size"} }
func (dialogProfiles) Descs() []*Desc    { return []*Desc{profileDesc, profileValueDesc} }

func (c dialogProfiles) Update(ctx context.Context, s *Session, emit Emit) error {
	for _, profile := range c.profiles {
		params, desc := []any{profile}, profileDesc
		// A profile name consists of letters, digits, and _ only; a value may be any bytes.
		name, value, hasValue := strings.Cut(profile, ":")
		labels := []string{name}
		if hasValue {
			params, desc, labels = []any{name, value}, profileValueDesc, []string{name, value}
		}
		size, err := s.Call(ctx, "dlg.profile_get_size", params...)
		if fault := (*kamrpc.Fault)(nil); errors.As(err, &fault) && fault.Code == 404 {
			return fmt.Errorf("dialog profile %q is not defined in kamailio.cfg: %w", name, err)
		}
		if err != nil {
			return err
		}
		if n, ok := size.Float(); ok {
			emit(desc, n, labels...)
		}
	}
	return nil
}
