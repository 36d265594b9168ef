package action

import (
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/audit"
)

// Journal keeps what the next request needs to know about earlier ones: the latest
// operations, the idempotency keys and the cooldowns. It is rebuilt from the audit log
// at each start.
type Journal struct {
	now func() time.Time

	mu         sync.Mutex
	operations map[string]audit.Record // by id
	users      map[string]*history     // one history per user, so that no user pushes out another's entries
	open       map[string]audit.Record // intents without an outcome
	ended      map[string]time.Time    // by action: when it last ended
	succeeded  map[string]time.Time    // by action
}

// history is what one user did.
type history struct {
	order   []string // ids of operations, oldest first
	keys    map[string]*keyed
	changes []audit.Record // made by a person within KeyLife, oldest first
	forgot  time.Time      // time of the newest change dropped for lack of room
}

// keyed is the request that an Idempotency-Key stands for.
type keyed struct {
	print string
	at    time.Time
	done  *audit.Record // the outcome; nil while the operation runs
}

// Limits per user.
const (
	maxOperations = 10_000
	maxKeys       = 10_000
	maxChanges    = 10_000
)

// KeyLife is how long an Idempotency-Key is remembered.
const KeyLife = 24 * time.Hour

// NewJournal returns an empty journal.
func NewJournal(now func() time.Time) *Journal {
	return &Journal{
		now: now, operations: map[string]audit.Record{}, users: map[string]*history{}, open: map[string]audit.Record{},
		ended: map[string]time.Time{}, succeeded: map[string]time.Time{},
	}
}

// Replay adds a record that was read from the audit log.
func (j *Journal) Replay(r audit.Record) {
	j.mu.Lock()
	defer j.mu.Unlock()
	switch r.Kind {
	case audit.KindIntent:
		j.open[r.ID] = r
	case audit.KindOutcome:
		if intent, ok := j.open[r.ID]; ok {
			// An outcome that Recover wrote at an earlier start lacks some fields.
			if r.Key == "" {
				r.Key, r.Print, r.Params = intent.Key, intent.Print, intent.Params
			}
		}
		delete(j.open, r.ID)
		j.keep(r)
	case audit.KindCheckpoint:
		for _, text := range r.Carries {
			var item carried
			if json.Unmarshal(text, &item) != nil || item.Record == nil {
				continue // it belongs to the ledger
			}
			if item.Record.Kind == audit.KindIntent {
				j.open[item.Record.ID] = *item.Record
			} else {
				j.keep(*item.Record)
			}
		}
	}
}

// carried is one item of the journal in a checkpoint.
type carried struct {
	Record *audit.Record `json:"record,omitempty"`
}

// Checkpoint returns what must survive a restart even if older audit log files are
// gone: idempotency keys, changes made by people, when actions last ended, and intents
// without an outcome.
func (j *Journal) Checkpoint() []any {
	j.mu.Lock()
	defer j.mu.Unlock()
	records := maps.Clone(j.open)
	last := map[string]audit.Record{}
	for _, r := range j.operations {
		if r.Time.Equal(j.ended[r.Action]) || r.Time.Equal(j.succeeded[r.Action]) {
			last[r.ID] = r
		}
	}
	maps.Copy(records, last)
	for _, h := range j.users {
		h.forget(j.now())
		for _, r := range h.changes {
			records[r.ID] = r
		}
		for _, k := range h.keys {
			if k.done != nil {
				records[k.done.ID] = *k.done
			}
		}
	}
	var items []any
	for _, r := range slices.SortedFunc(maps.Values(records), byTime) {
		items = append(items, carried{&r})
	}
	return items
}

func byTime(a, b audit.Record) int {
	return cmp.Or(a.Time.Compare(b.Time), strings.Compare(a.ID, b.ID))
}

// forget drops expired keys and changes.
func (h *history) forget(now time.Time) {
	maps.DeleteFunc(h.keys, func(_ string, k *keyed) bool { return k.done != nil && now.Sub(k.at) >= KeyLife })
	h.changes = slices.DeleteFunc(h.changes, func(r audit.Record) bool { return now.Sub(r.Time) >= KeyLife })
}

// of returns the history of a user. It must be called with mu held.
func (j *Journal) of(user string) *history {
	h := j.users[user]
	if h == nil {
		h = &history{keys: map[string]*keyed{}}
		j.users[user] = h
	}
	return h
}

// unfinished returns the intents without an outcome, left when the program stopped in
// between.
func (j *Journal) unfinished() []audit.Record {
	j.mu.Lock()
	defer j.mu.Unlock()
	var all []audit.Record
	for _, r := range j.open {
		all = append(all, r)
	}
	slices.SortFunc(all, func(a, b audit.Record) int { return a.Time.Compare(b.Time) })
	return all
}

// finish adds an outcome.
func (j *Journal) finish(r audit.Record) {
	j.mu.Lock()
	defer j.mu.Unlock()
	delete(j.open, r.ID)
	j.keep(r)
}

func (j *Journal) keep(r audit.Record) {
	h := j.of(r.User)
	_, known := j.operations[r.ID] // a checkpoint may repeat it
	if !known {
		h.order = append(h.order, r.ID)
	}
	j.operations[r.ID] = r
	for len(h.order) > maxOperations {
		delete(j.operations, h.order[0])
		h.order = h.order[1:]
	}
	if r.DryRun || r.Outcome == audit.Refused {
		return
	}
	j.ended[r.Action] = latest(j.ended[r.Action], r.Time)
	if r.Outcome == audit.Applied || r.Outcome == audit.Unverified {
		j.succeeded[r.Action] = latest(j.succeeded[r.Action], r.Time)
	}
	if r.Key != "" {
		h.keys[r.Key] = &keyed{print: r.Print, at: r.Time, done: &r}
	}
	if r.Rule == nil && r.Changed() && !known {
		h.changes = append(h.changes, r)
		if len(h.changes) > maxChanges {
			h.forget(j.now())
		}
		if n := len(h.changes) - maxChanges; n > 0 {
			h.forgot = h.changes[n-1].Time
			h.changes = slices.Delete(h.changes, 0, n)
		}
	}
}

func latest(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// Fingerprint identifies a request: two requests with the same key must have the same
// one.
func Fingerprint(action string, args Args, dryRun bool) string {
	text, err := json.Marshal([]any{action, args, dryRun}) // names sorted
	if err != nil {
		return ""
	}
	return fmt.Sprintf("%x", sha256.Sum256(text))
}

// ErrOtherRequest is returned by Claim if the key was used for a different request.
var ErrOtherRequest = errors.New("it was used for another request")

var (
	errKeyRunning = errors.New("the request with this key is still running")
	errKeysFull   = errors.New("too many keys in 24 h")
)

// Claim reserves a key for a request. If the same request was made before, found is its
// outcome.
func (j *Journal) Claim(user, key, fingerprint string) (found *audit.Record, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	now, h := j.now(), j.of(user)
	if k := h.keys[key]; k != nil && now.Sub(k.at) < KeyLife {
		switch {
		case k.print != fingerprint:
			return nil, ErrOtherRequest
		case k.done == nil:
			return nil, errKeyRunning
		}
		return k.done, nil
	}
	if len(h.keys) >= maxKeys {
		h.forget(now)
	}
	if len(h.keys) >= maxKeys {
		return nil, errKeysFull
	}
	h.keys[key] = &keyed{print: fingerprint, at: now}
	return nil, nil
}

// Release frees the key of a refused request, so that the request can be retried.
func (j *Journal) Release(user, key string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	h := j.of(user)
	if k := h.keys[key]; k != nil && k.done == nil {
		delete(h.keys, key)
	}
}

// CooldownLeft returns how long an action still has to wait, by its row and the policy.
func (j *Journal) CooldownLeft(a *Action, policy time.Duration) time.Duration {
	j.mu.Lock()
	defer j.mu.Unlock()
	ended, ok := j.ended[a.Name]
	pause := a.cooldown(policy)
	if !ok || pause == 0 {
		return 0
	}
	// Without the limit, a clock that was set back would block an action for too long.
	return min(max(ended.Add(pause).Sub(j.now()), 0), pause)
}

// Operation returns the operation with this ID, or nil if it does not exist or the user
// may not see it.
func (j *Journal) Operation(id string, u *User) *audit.Record {
	j.mu.Lock()
	defer j.mu.Unlock()
	if r, ok := j.operations[id]; ok && u.Sees(r) {
		return &r
	}
	return nil
}

// Last returns the latest operations that the user may see, newest first.
func (j *Journal) Last(u *User, limit int) []audit.Record {
	j.mu.Lock()
	defer j.mu.Unlock()
	found := []audit.Record{}
	for _, h := range j.users {
		n := 0
		for _, id := range slices.Backward(h.order) {
			r := j.operations[id]
			if n++; !u.Sees(r) || n > limit {
				break // a user's operations are all visible or all hidden, or the limit is reached
			}
			found = append(found, r)
		}
	}
	slices.SortFunc(found, func(a, b audit.Record) int { return byTime(b, a) })
	return found[:min(len(found), limit)]
}

// Person returns the user who changed the action's target since then, not counting
// rules; "" if there is none.
func (j *Journal) Person(a *Action, args Args, since time.Time) string {
	j.mu.Lock()
	defer j.mu.Unlock()
	for user, h := range j.users {
		if h.forgot.After(since) {
			return user // may have: its older changes were dropped
		}
		for _, r := range slices.Backward(h.changes) {
			if r.Time.After(since) && Module(r.Action) == Module(a.Name) && a.Touched(r, args) {
				return r.User
			}
		}
	}
	return ""
}

// claims returns the recent records of this action that Claims reports, newest first.
func (j *Journal) claims(a *Action) []audit.Record {
	j.mu.Lock()
	defer j.mu.Unlock()
	var all []audit.Record
	for _, h := range j.users {
		for _, id := range slices.Backward(h.order) {
			r := j.operations[id]
			if j.now().Sub(r.Time) > claimTime {
				break
			}
			if r.Action == a.Name && r.Changed() && a.Claims(r) {
				all = append(all, r)
			}
		}
	}
	slices.SortFunc(all, func(a, b audit.Record) int { return byTime(b, a) })
	return all
}

// LastSuccess returns when an action last succeeded; the zero time if no success is
// recorded.
func (j *Journal) LastSuccess(action string) time.Time {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.succeeded[action]
}
