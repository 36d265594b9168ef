package collector

import (
	"context"
	"strconv"
	"time"

	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
)

var (
	dialogOldest    = NewDesc("kamailio_dialog_oldest_dialog_seconds", "Age of the oldest dialog in this state. With enable_dmq, dialogs of the other nodes are included.", gauge, "dlg.briefing start_ts, init_ts", "state")
	dialogOlderThan = NewDesc("kamailio_dialog_dialogs_older_than", "Dialogs in this state that are at least this many seconds old. An ongoing dialog that is many hours old is usually a call whose BYE was lost. With enable_dmq, dialogs of the other nodes are included.", gauge, "dlg.briefing start_ts, init_ts", "state", "seconds")
)

const briefingMethod = "dlg.briefing"

// dialogAges exports how old calls are, so that operators find stuck calls. It lists the
// dialogs, but only if there are few.
type dialogAges struct {
	limit    int
	interval time.Duration
}

func (dialogAges) Name() string { return "dialog_age" }
func (dialogAges) About() string {
	return "Ages of the dialogs by state, up to a number of dialogs"
}
func (dialogAges) Methods() []string { return []string{briefingMethod, "dlg.stats_active"} }
func (dialogAges) Descs() []*Desc    { return []*Desc{dialogOldest, dialogOlderThan} }

func (c dialogAges) Guard() Guard {
	return Guard{Method: briefingMethod, Interval: c.interval, Limit: c.limit, Size: func(ctx context.Context, s *Session) (float64, bool, error) {
		active, err := s.Call(ctx, "dlg.stats_active")
		if err != nil {
			return 0, false, err
		}
		size, known := active.Get("all").Float()
		return size, known, nil
	}}
}

// ageSteps are in seconds. The counts are cumulative, so that a threshold is one series.
var ageSteps = []float64{0, 60, 300, 900, 1800, 3600, 7200, 14400, 28800, 86400}

// The states of a dialog (dialog/dlg_hash.h). 5 is deleted: it has ended, but is still
// referenced for a moment.
var dialogStateNames = map[string]string{"1": "starting", "2": "connecting", "3": "answering", "4": "ongoing", "5": "deleted"}

func (c dialogAges) Update(ctx context.Context, s *Session, emit Emit) error {
	now, err := serverClock(ctx, s)
	if err != nil {
		return err
	}
	counts := map[string][]float64{}
	oldest := map[string]float64{}
	// "s", "S", and "I" select the fields: state, start time, and creation time.
	rows := kamrpc.Rows{Fields: []string{"state", "start_ts", "init_ts"}}
	err = s.Rows(ctx, rows, func(_ kamrpc.Above, dialog kamrpc.Value) error {
		state, ok := dialogStateNames[dialog.Get("state").Text()]
		if !ok {
			state = "other"
		}
		began, ok := dialog.Get("start_ts").Float()
		if !ok || began == 0 { // not answered yet
			began, ok = dialog.Get("init_ts").Float()
		}
		if !ok || began == 0 {
			return nil
		}
		if counts[state] == nil {
			counts[state] = make([]float64, len(ageSteps))
		}
		age := max(now-began, 0)
		oldest[state] = max(oldest[state], age)
		for i, step := range ageSteps {
			if age >= step {
				counts[state][i]++
			}
		}
		return nil
	}, briefingMethod, "sSI")
	if err != nil {
		return err
	}
	for _, state := range []string{"starting", "connecting", "answering", "ongoing", "deleted", "other"} {
		if counts[state] == nil {
			if state == "deleted" || state == "other" {
				continue
			}
			counts[state] = make([]float64, len(ageSteps)) // all dialogs were read, so no dialog has this state
		} else {
			emit(dialogOldest, oldest[state], state)
		}
		for i, step := range ageSteps {
			emit(dialogOlderThan, counts[state][i], state, strconv.FormatFloat(step, 'f', -1, 64))
		}
	}
	return nil
}
