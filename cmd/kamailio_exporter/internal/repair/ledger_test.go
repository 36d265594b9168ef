package repair

import (
	"encoding/json"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/adminapi"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/audit"
)

// A checkpoint that is read once or twice restores the same ledger.
func TestCheckpointRestoresTheLedger(t *testing.T) {
	now := time.Now().UTC().Truncate(time.Millisecond)
	clock := func() time.Time { return now }
	l := NewLedger(clock)
	tag := audit.RuleTag{Rule: "drain", Step: stepDo, Target: "1 sip:a", Alert: "f1", Status: onFiring, Starts: now, Group: "g", Back: true}
	l.Take(audit.Record{
		Kind: audit.KindOutcome, ID: "1", User: "am", Action: "dispatcher.set-state", Params: map[string]any{"uri": "sip:a"}, Rule: &tag,
		Before: audit.State{"flags": "AP"}, After: audit.State{"flags": "DX"}, Outcome: audit.Applied, Verified: true, Time: now,
	})
	resolved := tag
	resolved.Step, resolved.Undoes, resolved.Status = stepResolved, "1", onResolved
	l.Take(audit.Record{Kind: audit.KindNote, Time: now, Rule: &resolved})
	failed := audit.RuleTag{Rule: "other", Step: stepDo, Target: "x", Alert: "f2", Starts: now, Group: "h"}
	l.Take(audit.Record{Kind: audit.KindOutcome, ID: "2", User: "am", Action: "uac.refresh", Rule: &failed, Outcome: audit.Failed, Time: now})
	l.Take(audit.Record{Kind: audit.KindNote, Time: now, Detail: "why", Rule: &audit.RuleTag{Rule: "third", Step: stepBreaker}})

	record := audit.Record{Kind: audit.KindCheckpoint, Part: 1}
	for _, item := range l.Checkpoint() {
		text, err := json.Marshal(item)
		if err != nil {
			t.Fatal(err)
		}
		record.Carries = append(record.Carries, text)
	}
	again := NewLedger(clock)
	again.Take(record)
	again.Take(record)
	if !reflect.DeepEqual(again.acts, l.acts) || len(l.acts) != 2 {
		t.Errorf("acts %+v, not %+v", again.acts, l.acts)
	}
	if !reflect.DeepEqual(again.handled, l.handled) || !reflect.DeepEqual(again.groups, l.groups) || !reflect.DeepEqual(again.failures, l.failures) {
		t.Errorf("%+v, not %+v", again, l)
	}
	if b, open := again.breaker("third"); !open || b != (adminapi.Breaker{Since: now, Why: "why"}) {
		t.Errorf("%+v %v", b, open)
	}
	if got, want := again.open(), l.open(); len(want) != 1 || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, not %+v", got, want)
	}
}

// The latest handled alerts are remembered, however many were handled before.
func TestOldestAnswersAreForgottenFirst(t *testing.T) {
	now := time.Now()
	l := NewLedger(func() time.Time { return now })
	answered := func(i int) audit.RuleTag {
		return audit.RuleTag{Rule: "drain", Step: stepDo, Alert: fmt.Sprintf("%x", i), Status: onFiring, Starts: now, Group: "g"}
	}
	const all = maxHandled + 500
	for i := range all {
		tag := answered(i)
		l.Take(audit.Record{Kind: audit.KindOutcome, ID: fmt.Sprint(i), Rule: &tag, Outcome: audit.NoChange, Time: now.Add(time.Duration(i-all) * time.Second)})
	}
	if n := len(l.handled); n > maxHandled || n < maxHandled/2 {
		t.Errorf("%d are known", n)
	}
	if l.known(handledKey(answered(0), false)) || !l.known(handledKey(answered(all-1), false)) || !l.known(handledKey(answered(all/2), false)) {
		t.Error("others than the oldest are forgotten")
	}
}
