package collector

import (
	"context"
	"maps"
	"slices"
	"strings"
)

// DefaultTrunksTable is the default of [Options.TrunksTable]: the table of
// examples/kamailio/kamailio-trunks.cfg.
const DefaultTrunksTable = "trunks"

func trunkCounter(name, help, item string, labels ...string) *Desc {
	return NewDesc("kamailio_trunk_"+name+"_total", help, counter, htableDumpMethod+" "+item, append([]string{"trunk"}, labels...)...)
}

var (
	trunkAttempts = trunkCounter("attempts", "INVITEs sent to the trunk. A call that fails over or forks is one attempt on each trunk.", "attempts")
	trunkAnswered = trunkCounter("answered", "Attempts that the trunk answered with a 2xx.", "answered")
	trunkRefused  = trunkCounter("refused", "Attempts that the trunk refused or redirected, by the code of its reply (3xx to 6xx without 487).", "refused", "code")
	trunkTimeouts = trunkCounter("timeouts", "Attempts that Kamailio gave up without a final reply of the trunk, by stage: silent (no 18x) or ringing.", "timeout", "stage")
	trunkCanceled = trunkCounter("canceled", "Attempts that ended before an answer because the caller hung up or another branch was answered.", "canceled")
	trunkEnded    = trunkCounter("calls_ended", "Answered calls that ended. Needs TRUNKS_DIALOG in kamailio.cfg.", "ended")
	trunkSeconds  = trunkCounter("call_duration_seconds", "Length of the answered calls that ended, together. Needs TRUNKS_DIALOG in kamailio.cfg.", "seconds")
	trunkDelay    = &Desc{
		Name:   "kamailio_trunk_post_dial_delay_seconds",
		Help:   "Time from the INVITE to the first 18x reply, or to the 2xx if there was none.",
		Bounds: []string{"0.1", "0.25", "0.5", "1", "2", "3", "5", "8", "12", "20", "+Inf"},
		Labels: []string{"trunk"},
		Source: htableDumpMethod + " delay, delay_ms",
	}
	// trunkDelayKeys are the same bounds as they appear in the table's keys.
	trunkDelayKeys = []string{"100", "250", "500", "1000", "2000", "3000", "5000", "8000", "12000", "20000", "inf"}
)

// trunks reads what examples/kamailio/kamailio-trunks.cfg counts in an htable. The table is
// never partial: after a flush it starts at 0 again, like counters after a restart, and
// the include sets no dbtable from which a reload could restore old values.
type trunks struct {
	listLimits
	table string
}

func (trunks) Name() string      { return "trunks" }
func (trunks) Methods() []string { return []string{htableDumpMethod, htableStatsMethod} }
func (trunks) About() string {
	return "Calls to each trunk: attempts, answers, refusals, timeouts, post-dial delay, length"
}
func (trunks) Descs() []*Desc {
	return []*Desc{trunkAttempts, trunkAnswered, trunkRefused, trunkTimeouts, trunkCanceled, trunkEnded, trunkSeconds, trunkDelay}
}

func (t trunks) Guard() Guard { return t.htables(t.table) }

// trunk is the counters of one trunk, by the first word of their keys and then by code,
// stage or bound; "" for those that have none of these.
type trunk map[string]map[string]float64

func (t trunks) Update(ctx context.Context, s *Session, emit Emit) error {
	if _, there, err := entriesOf(ctx, s, t.table); err != nil {
		return err
	} else if !there {
		return ErrNoData
	}
	all := map[string]trunk{}
	err := htableIntegers(ctx, s, t.table, func(key string, n float64) error {
		if n < 0 { // printed through a 32-bit integer
			n += 1 << 32
		}
		what, name, _ := strings.Cut(key, "|")
		detail := ""
		switch what {
		case "refused", "timeout", "delay":
			detail, name, _ = strings.Cut(name, "|")
		case "attempts", "answered", "canceled", "ended", "seconds", "delay_ms":
		default:
			return nil // an entry of kamailio.cfg's own
		}
		if what == "delay" && !slices.Contains(trunkDelayKeys, detail) {
			return unknownShape(htableDumpMethod, "the table "+t.table+" has a delay up to "+detail+" ms: its bounds are not to be changed")
		}
		if all[name] == nil {
			all[name] = trunk{}
		}
		if all[name][what] == nil {
			all[name][what] = map[string]float64{}
		}
		all[name][what][detail] = n
		return nil
	})
	if err != nil {
		return err
	}
	calls := false // whether kamailio.cfg counts them
	for _, one := range all {
		calls = calls || one["ended"][""] > 0
	}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		all[name].emit(name, calls, emit)
	}
	return nil
}

func (t trunk) emit(name string, calls bool, emit Emit) {
	// Emit 0 for what has not happened yet, so that the first event is an increase.
	emit(trunkAttempts, t["attempts"][""], name)
	emit(trunkAnswered, t["answered"][""], name)
	emit(trunkCanceled, t["canceled"][""], name)
	for _, stage := range []string{"ringing", "silent"} {
		emit(trunkTimeouts, t["timeout"][stage], name, stage)
	}
	for _, code := range slices.Sorted(maps.Keys(t["refused"])) {
		emit(trunkRefused, t["refused"][code], name, code)
	}
	if calls {
		emit(trunkEnded, t["ended"][""], name)
		emit(trunkSeconds, t["seconds"][""], name)
	}
	count := 0.0
	for i, key := range trunkDelayKeys {
		count += t["delay"][key]
		emit(trunkDelay, count, name, trunkDelay.Bounds[i])
	}
	emit(trunkDelay, t["delay_ms"][""]/1000, name, SumOfHistogram)
}
