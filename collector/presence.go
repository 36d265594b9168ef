package collector

import (
	"context"

	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
)

const presenceMethod = "presence.presentity_list"

var presentities = NewDesc("kamailio_presence_presentities", "Published states in memory (publ_cache), by event package. Omitted if presence keeps them only in the database.", gauge, presenceMethod, "event")

// presence counts published states (presence/presence.c, presentity.c). Kamailio lists
// them only if they are in memory. Without a cache the list is empty, just like an empty
// cache, so an empty list emits no sample.
type presence struct{ listLimits }

func (presence) Name() string      { return "presence" }
func (presence) About() string     { return "Published states in memory, by event package" }
func (presence) Methods() []string { return []string{presenceMethod} }
func (presence) Descs() []*Desc    { return []*Desc{presentities} }

func (p presence) Guard() Guard { return p.guard(presenceMethod, sumOf(presentities)) }

func (presence) Update(ctx context.Context, s *Session, emit Emit) error {
	var events counts
	err := countRows(ctx, s, kamrpc.Rows{}, func(_ kamrpc.Above, row kamrpc.Value) bool {
		event := row.Get("event")
		if event.Exists() {
			events.add(1, event.Text())
		}
		return event.Exists()
	}, presenceMethod)
	if err != nil {
		return err
	}
	events.emit(presentities, emit)
	return nil
}
