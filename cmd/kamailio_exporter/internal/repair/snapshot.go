package repair

import (
	"context"
	"fmt"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/action"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
)

// snapshot caches the reads of Kamailio for the alerts of one notification, so that
// each is done only once. Before a change, the engine always reads again.
type snapshot struct {
	action.Kamailio
	pay   func() error // charges a read to the alert's attempts
	known map[string]*reading
	bytes int
}

// of returns a view of the same cache for another alert.
func (s *snapshot) of(attempt func() error) *snapshot {
	paid := false
	s.pay = func() error {
		if paid {
			return nil
		}
		err := attempt()
		paid = err == nil
		return err
	}
	return s
}

// forget empties the cache, because the state may have changed.
func (s *snapshot) forget() { s.known, s.bytes = map[string]*reading{}, 0 }

// reading is the cached reply to one call.
type reading struct {
	value kamrpc.Value
	above []kamrpc.Above
	rows  []kamrpc.Value
	err   error
}

// maxSnapshot limits the cache, in bytes. Lists beyond it are read for each alert.
const maxSnapshot = 4 << 20

// Call implements action.Kamailio.
func (s *snapshot) Call(ctx context.Context, method string, params ...any) (kamrpc.Value, error) {
	key := fmt.Sprintf("%s %#v", method, params)
	if r := s.known[key]; r != nil {
		return r.value, r.err
	}
	if err := s.pay(); err != nil {
		return kamrpc.Value{}, err
	}
	r := &reading{}
	r.value, r.err = s.Kamailio.Call(ctx, method, params...)
	if s.bytes += sizeOf(r.value); s.bytes <= maxSnapshot {
		s.known[key] = r
	}
	return r.value, r.err
}

// Rows implements action.Kamailio.
func (s *snapshot) Rows(ctx context.Context, rows kamrpc.Rows, yield func(kamrpc.Above, kamrpc.Value) error, method string, params ...any) error {
	key := fmt.Sprintf("%s %#v %#v", method, params, rows)
	if r := s.known[key]; r != nil {
		for i := range r.rows {
			if err := yield(r.above[i], r.rows[i]); err != nil {
				return err
			}
		}
		return r.err
	}
	if err := s.pay(); err != nil {
		return err
	}
	r, kept := &reading{}, true
	r.err = s.Kamailio.Rows(ctx, rows, func(above kamrpc.Above, row kamrpc.Value) error {
		if s.bytes += sizeOf(row); s.bytes <= maxSnapshot {
			r.above, r.rows = append(r.above, above.Keep()), append(r.rows, row.Keep())
		}
		err := yield(above, row)
		kept = kept && err == nil
		return err
	}, method, params...)
	if kept && s.bytes <= maxSnapshot {
		s.known[key] = r
	}
	return r.err
}

// sizeOf estimates the memory that a value uses, in bytes.
func sizeOf(v kamrpc.Value) int {
	n := 128 + len(v.Text())
	for m := range v.Members() {
		n += sizeOf(m.Value)
	}
	return n
}
