package action

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
)

// slot allows one change at a time. A person's job waits briefly, and rules yield to a
// waiting person. No job waits longer, because it may be outdated by then.
type slot struct {
	mu      sync.Mutex
	action  string // the running action; "" if none
	person  bool   // whether a person started it
	id      string
	began   time.Time
	waiting int // number of persons waiting
	closing bool
	freed   chan struct{} // closed when the slot is free; nil if nothing waits for that
}

// personWaits is how long a person's job waits for the slot.
const personWaits = 2 * time.Second

// take reserves the slot. It refuses if another job holds it.
func (s *slot) take(ctx context.Context, j *Job) *Problem {
	freed, p := s.try(j, false)
	if freed == nil {
		return p
	}
	timer := time.NewTimer(personWaits)
	defer timer.Stop()
	for freed != nil {
		select {
		case <-freed:
			freed, p = s.try(j, true)
			continue
		case <-timer.C:
		case <-ctx.Done():
		}
		s.mu.Lock()
		s.waiting--
		s.mu.Unlock()
		return p
	}
	return p
}

// try takes the slot. If it is held, p says by whom, and freed is set if waiting makes
// sense.
func (s *slot) try(j *Job, waited bool) (freed <-chan struct{}, p *Problem) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if waited {
		s.waiting--
	}
	switch {
	case s.closing:
		return nil, Stopping.Because("")
	case s.action != "":
		p = Busy.Later(fmt.Sprintf("%s runs since %.1f s: operation %s", s.action, time.Since(s.began).Seconds(), s.id), 2*time.Second)
		if j.Rule != nil {
			return nil, p
		}
		if s.freed == nil {
			s.freed = make(chan struct{})
		}
		s.waiting++
		return s.freed, p
	case j.Rule != nil && s.waiting > 0:
		return nil, givesWay()
	}
	s.action, s.id, s.person, s.began = j.Action.Name, j.ID, j.Rule == nil, time.Now()
	return nil, nil
}

func givesWay() *Problem { return Busy.Later("an operator's action has priority", personWaits) }

func (s *slot) give() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.action, s.id = "", ""
	if s.freed != nil {
		close(s.freed)
		s.freed = nil
	}
}

// close refuses new jobs. The channel is closed when no job is running.
func (s *slot) close() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closing = true
	if s.action == "" {
		idle := make(chan struct{})
		close(idle)
		return idle
	}
	if s.freed == nil {
		s.freed = make(chan struct{})
	}
	return s.freed
}

func (s *slot) held() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.action != ""
}

// wanted reports whether a person is waiting for the slot.
func (s *slot) wanted() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.waiting > 0
}

// persons reports whether a person holds the slot or is waiting for it.
func (s *slot) persons() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.waiting > 0 || s.action != "" && s.person
}

// yielding reads for a rule and stops as soon as a person waits for the slot. A running
// read is not canceled, because it may delay the module's next reload.
type yielding struct {
	Kamailio
	slot *slot
}

func (y yielding) Call(ctx context.Context, method string, params ...any) (kamrpc.Value, error) {
	if y.slot.wanted() {
		return kamrpc.Value{}, givesWay()
	}
	return y.Kamailio.Call(ctx, method, params...)
}

func (y yielding) Rows(ctx context.Context, rows kamrpc.Rows, yield func(kamrpc.Above, kamrpc.Value) error, method string, params ...any) error {
	if y.slot.wanted() {
		return givesWay()
	}
	return y.Kamailio.Rows(ctx, rows, yield, method, params...)
}
