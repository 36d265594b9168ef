package action

import (
	"context"
	"runtime"
	"testing"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/audit"
)

func jobs() (person, rule *Job) {
	a := &Action{Name: "dispatcher.set-state"}
	return &Job{ID: "p", Action: a}, &Job{ID: "r", Action: a, Rule: &audit.RuleTag{Rule: "drain"}}
}

// A rule yields to a waiting person before its change and at its next read.
func TestRulesYieldToUsers(t *testing.T) {
	ctx, s := context.Background(), &slot{}
	person, rule := jobs()
	if p := s.take(ctx, rule); p != nil {
		t.Fatal(p)
	}
	if p := s.take(ctx, rule); p == nil || p.Kind != Busy {
		t.Errorf("two rules at once: %v", p)
	}
	reads := yielding{nil, s}
	got := make(chan *Problem)
	go func() { got <- s.take(ctx, person) }()
	for !s.wanted() {
		runtime.Gosched()
	}
	if _, err := reads.Call(ctx, "core.uptime"); ofRead(err).Kind != Busy {
		t.Errorf("a rule reads while a person waits: %v", err)
	}
	s.give()
	if p := <-got; p != nil {
		t.Errorf("the person got %v", p)
	}
	if p := s.take(ctx, rule); p == nil || !s.persons() {
		t.Error("a rule runs beside a person")
	}
	s.give()
	if s.wanted() || s.held() || s.persons() {
		t.Error("somebody still waits for it, or has it")
	}
}

// A wait ends when its time is up, when the client disconnects, or when the exporter
// stops.
func TestWaitsEnd(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	s := &slot{}
	person, rule := jobs()
	if p := s.take(ctx, rule); p != nil {
		t.Fatal(p)
	}
	if p := s.take(ctx, person); p == nil || p.Kind != Busy || s.wanted() {
		t.Errorf("after his time: %v", p)
	}
	cancel()
	if p := s.take(ctx, person); p == nil || p.Kind != Busy || s.wanted() {
		t.Errorf("gone: %v", p)
	}
	got := make(chan *Problem)
	go func() { got <- s.take(context.Background(), person) }()
	for !s.wanted() {
		runtime.Gosched()
	}
	idle := s.close()
	s.give()
	<-idle
	if p := <-got; p == nil || p.Kind != Stopping {
		t.Errorf("stopped: %v", p)
	}
}
