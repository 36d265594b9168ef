package serve

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kamailio-exporter/kamailio_exporter/collector"
)

// TestSharedWorkIsDoneOnce checks that the work is done once, however many callers begin
// while it runs or shortly after.
func TestSharedWorkIsDoneOnce(t *testing.T) {
	var begun atomic.Int32
	release := make(chan struct{})
	s := &shared[int32]{
		do:      func(context.Context) int32 { n := begun.Add(1); <-release; return n },
		late:    func(error, time.Duration) int32 { return -1 },
		timeout: time.Minute, joint: collector.Joint[*int32]{Reuse: time.Hour},
	}
	var waits []func() int32
	for range 20 {
		waits = append(waits, s.begin(t.Context()))
	}
	gone, leave := context.WithCancel(t.Context())
	late := s.begin(gone)
	leave()
	if got := late(); got != -1 {
		t.Errorf("one who does not wait gets %d", got)
	}
	close(release)
	for _, wait := range append(waits, s.begin(t.Context())) {
		if got := wait(); got != 1 {
			t.Errorf("got the result of work %d", got)
		}
	}
	if n := begun.Load(); n != 1 {
		t.Errorf("done %d times", n)
	}
}
