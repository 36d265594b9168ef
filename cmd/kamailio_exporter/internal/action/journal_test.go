package action

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/audit"
)

func TestKeysEnd(t *testing.T) {
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
	// Too many keys are refused, not forgotten.
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
