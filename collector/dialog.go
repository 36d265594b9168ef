package collector

import (
	"context"
	"errors"
	"fmt"

	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
)

// dialogModule is calls (dialog/dialog.c).
var dialogModule = Module{
	Subsystem: "dialog",
	Summary:   "Calls: active, early, processed, failed, expired",
	Queries: []Query{
		{Method: "dlg.stats_active", Metrics: []Metric{
			{Pattern: "(starting|connecting|answering|ongoing)", PatternLabels: []string{"state"}, Name: "dialogs", Kind: gauge,
				Help: "Dialogs in memory by state: starting (INVITE sent), connecting (ringing), answering (200 without its ACK), ongoing (call in progress)."},
			{Field: "all", Instead: "the sum of kamailio_dialog_dialogs"},
		}},
		statistics("dialog",
			Metric{Field: "dialog:active_dialogs", Name: "active", Kind: gauge, Help: "Dialogs that are not yet ended, early ones included."},
			Metric{Field: "dialog:early_dialogs", Name: "early", Kind: gauge, Help: "Dialogs that ring: a provisional reply was seen, no final one."},
			Metric{Field: "dialog:processed_dialogs", Name: "processed_total", Kind: counter, Help: "Dialogs begun: call attempts seen by the dialog module."},
			Metric{Field: "dialog:failed_dialogs", Name: "failed_total", Kind: counter, Help: "Dialogs ended by a negative final reply (3xx to 6xx, a cancelled call's 487 included)."},
			Metric{Field: "dialog:expired_dialogs", Name: "expired_total", Kind: counter, Help: "Dialogs ended by their timeout: their BYE or ACK was never seen."},
		),
	},
}

var profileDesc = NewDesc("kamailio_dialog_profile_dialogs",
	"Dialogs in a dialog profile, all values of it together.", gauge, "dlg.profile_get_size", "profile")

// dialogProfiles counts the profiles that the operator names; Kamailio does not
// list them.
type dialogProfiles struct{ profiles []string }

func (dialogProfiles) Name() string { return "dialog_profile" }
func (dialogProfiles) About() string {
	return "Sizes of the dialog profiles named by --collector.dialog_profile.names"
}
func (dialogProfiles) Methods() []string { return []string{"dlg.profile_get_size"} }
func (dialogProfiles) Descs() []*Desc    { return []*Desc{profileDesc} }

func (c dialogProfiles) Update(ctx context.Context, s *Session, emit Emit) error {
	for _, name := range c.profiles {
		size, err := s.Call(ctx, "dlg.profile_get_size", name)
		if fault := (*kamrpc.Fault)(nil); errors.As(err, &fault) && fault.Code == 404 {
			return fmt.Errorf("dialog profile %q is not defined in kamailio.cfg: %w", name, err)
		}
		if err != nil {
			return err
		}
		if n, ok := size.Float(); ok {
			emit(profileDesc, n, name)
		}
	}
	return nil
}
