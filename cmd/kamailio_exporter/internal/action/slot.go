package action

import (
	"fmt"
	"sync"
	"time"
)

// slot lets one change through at a time. There is no queue: who waits repeats an
// intent that may be stale by then.
type slot struct {
	mu      sync.Mutex
	action  string // that runs; "" if none
	id      string
	began   time.Time
	closing bool
	idle    chan struct{} // closed when nothing runs any more; nil until closing
}

// take is refused while another holds it.
func (s *slot) take(action, id string) *Problem {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closing:
		return Stopping.Because("")
	case s.action != "":
		return Busy.Later(fmt.Sprintf("%s runs since %.1f s: operation %s", s.action, time.Since(s.began).Seconds(), s.id), 2*time.Second)
	}
	s.action, s.id, s.began = action, id, time.Now()
	return nil
}

func (s *slot) give() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.action, s.id = "", ""
	if s.idle != nil {
		close(s.idle)
		s.idle = nil
	}
}

// close refuses what comes from now on, and tells when nothing runs any more.
func (s *slot) close() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closing = true
	idle := make(chan struct{})
	if s.action == "" {
		close(idle)
	} else {
		s.idle = idle
	}
	return idle
}

func (s *slot) held() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.action != ""
}
