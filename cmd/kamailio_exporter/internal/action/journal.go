package action

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/audit"
)

// Journal is what has been done, as far as the next request needs it: the last
// operations, the idempotency keys and the cooldowns. It is made anew from the
// audit log at each start.
type Journal struct {
	now func() time.Time

	mu         sync.Mutex
	operations map[string]audit.Record // by id
	order      []string                // ids, oldest first
	open       map[string]audit.Record // intents without an outcome
	keys       map[keyOf]*keyed
	ended      map[string]time.Time // by action: when it last ended
	succeeded  map[string]time.Time // by action
}

type keyOf struct{ user, key string }

// keyed is what an Idempotency-Key stands for.
type keyed struct {
	print string
	at    time.Time
	id    string // of the operation; "" while it runs
}

const (
	maxOperations = 10_000
	maxKeys       = 10_000
)

// KeyLife is how long an Idempotency-Key stands for its request.
const KeyLife = 24 * time.Hour

// NewJournal makes an empty one.
func NewJournal(now func() time.Time) *Journal {
	return &Journal{
		now: now, operations: map[string]audit.Record{}, open: map[string]audit.Record{},
		keys: map[keyOf]*keyed{}, ended: map[string]time.Time{}, succeeded: map[string]time.Time{},
	}
}

// Replay takes a record of the audit log.
func (j *Journal) Replay(r audit.Record) {
	j.mu.Lock()
	defer j.mu.Unlock()
	switch r.Kind {
	case audit.KindIntent:
		j.open[r.ID] = r
	case audit.KindOutcome:
		if intent, ok := j.open[r.ID]; ok {
			// An outcome that an earlier start made up has not all fields.
			if r.Key == "" {
				r.Key, r.Print, r.Params = intent.Key, intent.Print, intent.Params
			}
		}
		delete(j.open, r.ID)
		j.keep(r)
	}
}

// unfinished are the intents without an outcome: the program ended in between.
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

// finish takes an outcome.
func (j *Journal) finish(r audit.Record) {
	j.mu.Lock()
	defer j.mu.Unlock()
	delete(j.open, r.ID)
	j.keep(r)
}

func (j *Journal) keep(r audit.Record) {
	if _, known := j.operations[r.ID]; !known {
		j.order = append(j.order, r.ID)
	}
	j.operations[r.ID] = r
	for len(j.order) > maxOperations {
		delete(j.operations, j.order[0])
		j.order = j.order[1:]
	}
	if r.DryRun || r.Outcome == audit.Refused {
		return
	}
	j.ended[r.Action] = r.Time
	if r.Outcome == audit.Applied || r.Outcome == audit.Unverified {
		j.succeeded[r.Action] = r.Time
	}
	if r.Key != "" {
		j.keys[keyOf{r.User, r.Key}] = &keyed{print: r.Print, at: r.Time, id: r.ID}
	}
}

// Fingerprint is what two requests with the same key must have in common.
func Fingerprint(action string, args Args, dryRun bool) string {
	text, err := json.Marshal([]any{action, args, dryRun}) // names sorted
	if err != nil {
		return ""
	}
	return fmt.Sprintf("%x", sha256.Sum256(text))
}

// ErrOtherRequest is that of Claim for a key of another request.
var ErrOtherRequest = errors.New("it was used for another request")

var (
	errKeyRunning = errors.New("the request with this key is still running")
	errKeysFull   = errors.New("too many keys in 24 h")
)

// Claim takes a key for a request. With found, the request was made before.
func (j *Journal) Claim(user, key, fingerprint string) (found *audit.Record, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	now := j.now()
	at := keyOf{user, key}
	if k := j.keys[at]; k != nil && now.Sub(k.at) < KeyLife {
		switch {
		case k.print != fingerprint:
			return nil, ErrOtherRequest
		case k.id == "":
			return nil, errKeyRunning
		}
		if r, ok := j.operations[k.id]; ok {
			return &r, nil
		}
	}
	if len(j.keys) >= maxKeys {
		for other, k := range j.keys {
			if k.id != "" && now.Sub(k.at) >= KeyLife {
				delete(j.keys, other)
			}
		}
		if len(j.keys) >= maxKeys {
			return nil, errKeysFull
		}
	}
	j.keys[at] = &keyed{print: fingerprint, at: now}
	return nil, nil
}

// Release gives a key back whose request was refused: it may be tried again.
func (j *Journal) Release(user, key string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if k := j.keys[keyOf{user, key}]; k != nil && k.id == "" {
		delete(j.keys, keyOf{user, key})
	}
}

// CooldownLeft is how long an action has to wait yet, by its row and the policy.
func (j *Journal) CooldownLeft(a *Action, policy time.Duration) time.Duration {
	j.mu.Lock()
	defer j.mu.Unlock()
	ended, ok := j.ended[a.Name]
	pause := a.cooldown(policy)
	if !ok || pause == 0 {
		return 0
	}
	// A clock that was set back must not lock an action for ever.
	return min(max(ended.Add(pause).Sub(j.now()), 0), pause)
}

// Operation finds one; nil when it is not there, or not for this user.
func (j *Journal) Operation(id string, u *User) *audit.Record {
	j.mu.Lock()
	defer j.mu.Unlock()
	if r, ok := j.operations[id]; ok && u.sees(r) {
		return &r
	}
	return nil
}

// Last are the latest operations that a user may see, newest first.
func (j *Journal) Last(u *User, limit int) []audit.Record {
	j.mu.Lock()
	defer j.mu.Unlock()
	found := []audit.Record{}
	for _, id := range slices.Backward(j.order) {
		if r := j.operations[id]; u.sees(r) {
			if found = append(found, r); len(found) == limit {
				break
			}
		}
	}
	return found
}

// Person names who changed the target of an action since then, other than a rule; "" if
// nobody did.
func (j *Journal) Person(a *Action, args Args, since time.Time) string {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, id := range slices.Backward(j.order) {
		r := j.operations[id]
		if r.Rule == nil && r.Changed() && r.Time.After(since) && Module(r.Action) == Module(a.Name) && a.Touched(r, args) {
			return r.User
		}
	}
	return ""
}

// LastSuccess is when an action was last done; zero: never, as far as is known.
func (j *Journal) LastSuccess(action string) time.Time {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.succeeded[action]
}
