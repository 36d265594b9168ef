package admin

import (
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"
)

// journal is what has been done, as far as the next request needs it: the last
// operations, the idempotency keys and the cooldowns. It is made anew from the
// audit log at each start.
type journal struct {
	now func() time.Time

	mu         sync.Mutex
	operations map[string]Record // by id
	order      []string          // ids, oldest first
	open       map[string]Record // intents without an outcome
	keys       map[keyOf]*keyed
	ended      map[string]time.Time // by action: when it last ended
	succeeded  map[string]time.Time // by action
	resets     time.Time            // of statistics
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
	keyLife       = 24 * time.Hour
)

func newJournal(now func() time.Time) *journal {
	return &journal{
		now: now, operations: map[string]Record{}, open: map[string]Record{},
		keys: map[keyOf]*keyed{}, ended: map[string]time.Time{}, succeeded: map[string]time.Time{},
	}
}

// replay takes a record of the audit log.
func (j *journal) replay(r Record) {
	j.mu.Lock()
	defer j.mu.Unlock()
	switch r.Kind {
	case recordIntent:
		j.open[r.ID] = r
	case recordOutcome:
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
func (j *journal) unfinished() []Record {
	j.mu.Lock()
	defer j.mu.Unlock()
	var all []Record
	for _, r := range j.open {
		all = append(all, r)
	}
	slices.SortFunc(all, func(a, b Record) int { return a.Time.Compare(b.Time) })
	return all
}

// finish takes an outcome.
func (j *journal) finish(r Record) {
	j.mu.Lock()
	defer j.mu.Unlock()
	delete(j.open, r.ID)
	j.keep(r)
}

func (j *journal) keep(r Record) {
	if _, known := j.operations[r.ID]; !known {
		j.order = append(j.order, r.ID)
	}
	j.operations[r.ID] = r
	for len(j.order) > maxOperations {
		delete(j.operations, j.order[0])
		j.order = j.order[1:]
	}
	if r.DryRun || r.Outcome == Refused {
		return
	}
	j.ended[r.Action] = r.Time
	if r.Outcome == Applied || r.Outcome == Unverified {
		j.succeeded[r.Action] = r.Time
		if r.Action == "stats.reset" {
			j.resets = r.Time
		}
	}
	if r.Key != "" {
		j.keys[keyOf{r.User, r.Key}] = &keyed{print: r.Print, at: r.Time, id: r.ID}
	}
}

// fingerprint is what two requests with the same key must have in common.
func fingerprint(action string, args Args, dryRun bool) string {
	text, err := json.Marshal([]any{action, args, dryRun}) // names sorted
	if err != nil {
		return ""
	}
	return sha256Hex(text)
}

var (
	errKeyOther   = errors.New("it was used for another request")
	errKeyRunning = errors.New("the request with this key is still running")
	errKeysFull   = errors.New("too many keys in 24 h")
)

// claim takes a key for a request. With found, the request was made before.
func (j *journal) claim(user, key, fingerprint string) (found *Record, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	now := j.now()
	at := keyOf{user, key}
	if k := j.keys[at]; k != nil && now.Sub(k.at) < keyLife {
		switch {
		case k.print != fingerprint:
			return nil, errKeyOther
		case k.id == "":
			return nil, errKeyRunning
		}
		if r, ok := j.operations[k.id]; ok {
			return &r, nil
		}
	}
	if len(j.keys) >= maxKeys {
		for other, k := range j.keys {
			if k.id != "" && now.Sub(k.at) >= keyLife {
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

// release gives a key back whose request was refused: it may be tried again.
func (j *journal) release(user, key string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if k := j.keys[keyOf{user, key}]; k != nil && k.id == "" {
		delete(j.keys, keyOf{user, key})
	}
}

// pauseLeft is how long an action has to wait yet.
func (j *journal) pauseLeft(action string, pause time.Duration) time.Duration {
	j.mu.Lock()
	defer j.mu.Unlock()
	ended, ok := j.ended[action]
	if !ok || pause == 0 {
		return 0
	}
	// A clock that was set back must not lock an action for ever.
	return min(max(ended.Add(pause).Sub(j.now()), 0), pause)
}

// operation finds one; nil when it is not there, or not for this user.
func (j *journal) operation(id string, u *user) *Record {
	j.mu.Lock()
	defer j.mu.Unlock()
	if r, ok := j.operations[id]; ok && (u.auditor || r.User == u.name) {
		return &r
	}
	return nil
}

// last are the latest operations that a user may see, newest first.
func (j *journal) last(u *user, limit int) []Record {
	j.mu.Lock()
	defer j.mu.Unlock()
	var found []Record
	for _, id := range slices.Backward(j.order) {
		if r := j.operations[id]; u.auditor || r.User == u.name {
			if found = append(found, r); len(found) == limit {
				break
			}
		}
	}
	return found
}

// successes are when each action was last done.
func (j *journal) successes() (byAction map[string]time.Time, reset time.Time) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return maps.Clone(j.succeeded), j.resets
}

// person names who changed a target since then, other than a rule; "" if nobody did.
func (j *journal) person(action string, args Args, since time.Time) string {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, id := range slices.Backward(j.order) {
		r := j.operations[id]
		if r.Remedy == nil && r.changed() && r.Time.After(since) && r.touches(actionModule(action), args) {
			return r.User
		}
	}
	return ""
}

// lastSuccess is when an action was last done; zero: never, as far as is known.
func (j *journal) lastSuccess(action string) time.Time {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.succeeded[action]
}
