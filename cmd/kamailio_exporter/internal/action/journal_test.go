package action

import (
	"encoding/json"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/audit"
)

func TestKeysExpire(t *testing.T) {
	now := time.Now()
	var mu sync.Mutex
	clock := func() time.Time { mu.Lock(); defer mu.Unlock(); return now }
	j := NewJournal(clock)
	same := Fingerprint("dialog.end", Args{"call_id": "x"}, false)
	if found, err := j.Claim("noc", "key-1", same); found != nil || err != nil {
		t.Fatal(found, err)
	}
	j.finish(audit.Record{ID: "1", User: "noc", Action: "dialog.end", Key: "key-1", Print: same, Outcome: audit.Applied, Time: now})
	if found, err := j.Claim("noc", "key-1", same); found == nil || err != nil {
		t.Error("not replayed", err)
	}
	mu.Lock()
	now = now.Add(KeyLife)
	mu.Unlock()
	if found, err := j.Claim("noc", "key-1", same); found != nil || err != nil {
		t.Error("a key of yesterday", found, err)
	}
	// When there are too many keys, new ones are refused and old ones kept.
	for i := range maxKeys + 10 {
		if _, err := j.Claim("noc", fmt.Sprint("k", i), same); err != nil && i < maxKeys-1 {
			t.Fatal(i, err)
		}
	}
	if _, err := j.Claim("noc", "one more", same); err == nil {
		t.Error("keys without end")
	}
	// An expired token is in TestBadCredentialsLookAlike.
}

// Activity of one user evicts nothing of other users, and none of the user's own keys
// and changes. All of them are in the checkpoint.
func TestBusyUserEvictsNothing(t *testing.T) {
	now := time.Now()
	j := NewJournal(func() time.Time { return now })
	a := NewCatalogue().Get("dispatcher.set-state")
	args := Args{"set": int64(1), "uri": "sip:10.0.0.1:5060", "state": "dx"}
	same := Fingerprint(a.Name, args, false)
	j.finish(audit.Record{
		ID: "first", Kind: audit.KindOutcome, User: "noc", Action: a.Name, Params: map[string]any{"set": 1, "uri": "sip:10.0.0.1:5060", "state": "dx"},
		Key: "key-1", Print: same, Outcome: audit.Applied, Time: now,
	})
	for _, user := range []string{"noc", "bot"} {
		for i := range maxOperations + 10 {
			j.finish(audit.Record{ID: fmt.Sprint(user, i), Kind: audit.KindOutcome, User: user, Action: "dispatcher.reload", DryRun: true, Outcome: audit.NoChange, Time: now})
		}
	}
	for i := range maxKeys + 10 {
		_, _ = j.Claim("bot", fmt.Sprint("k", i), same)
	}
	check := func(what string, j *Journal) {
		t.Helper()
		if found, err := j.Claim("noc", "key-1", same); found == nil || err != nil || found.ID != "first" {
			t.Errorf("%s: the key: %v %v", what, found, err)
		}
		if _, err := j.Claim("noc", "key-2", same); err != nil {
			t.Errorf("%s: another's keys lock out: %v", what, err)
		}
		if who := j.Person(a, args, now.Add(-time.Minute)); who != "noc" {
			t.Errorf("%s: the person is %q", what, who)
		}
		if left := j.CooldownLeft(a, 10*time.Second); a.cooldown(10*time.Second) > 0 && left == 0 {
			t.Errorf("%s: no cooldown", what)
		}
	}
	check("after chatter", j)
	var lines []json.RawMessage
	for _, item := range j.Checkpoint() {
		text, err := json.Marshal(item)
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, text)
	}
	if len(lines) > 10 {
		t.Errorf("chatter is carried: %d items", len(lines))
	}
	again := NewJournal(func() time.Time { return now })
	again.Replay(audit.Record{Kind: audit.KindCheckpoint, Part: 1, Carries: lines})
	check("after a restart", again)
	if last := again.Last(&User{Name: "noc"}, 10); len(last) != 1 {
		t.Errorf("%v", last)
	}
}
