package collector

import (
	"context"
	"time"

	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
)

func keepaliveDesc(name, help, field string) *Desc {
	return NewDesc("kamailio_keepalive_destination_"+name, help, gauge, keepaliveMethod+" "+field, "uri", "owner", indexLabel)
}

var (
	keepaliveUp       = keepaliveDesc("up", "1 while the destination replies to pings, 0 while it does not. Omitted before the first reply.", "state")
	keepaliveState    = keepaliveDesc("state", "State of the destination: 0 unknown, 1 up, 2 down.", "state")
	keepaliveChecked  = keepaliveDesc("last_checked_timestamp_seconds", "Unix time of the last ping.", "last checked")
	keepaliveLastUp   = keepaliveDesc("last_up_timestamp_seconds", "Unix time of the last successful ping.", "last up, last down")
	keepaliveLastDown = keepaliveDesc("last_down_timestamp_seconds", "Unix time of the last ping that was not.", "last up, last down")
)

const keepaliveMethod = "keepalive.list"

// keepalive exports the destinations that Kamailio pings (keepalive/keepalive_rpc.c). Over
// JSON-RPC, Kamailio reports only the last one: each row replaces the previous one, since
// the method is not marked as returning a list. Over BINRPC, it reports all.
type keepalive struct{ listLimits }

var keepaliveRows = kamrpc.Rows{Fields: []string{"uri", "owner", "state", "last checked", "last up", "last down"}}

func (keepalive) Name() string { return "keepalive" }
func (keepalive) About() string {
	return "Destinations that keepalive pings; " + lastOnly
}
func (keepalive) Methods() []string { return []string{keepaliveMethod} }
func (keepalive) Descs() []*Desc {
	return []*Desc{keepaliveUp, keepaliveState, keepaliveChecked, keepaliveLastUp, keepaliveLastDown}
}
func (c keepalive) Guard() Guard { return c.guard(keepaliveMethod, longest) }

func (keepalive) Update(ctx context.Context, s *Session, emit Emit) error {
	uptime, err := s.Call(ctx, uptimeMethod)
	if err != nil {
		return err
	}
	now, zoneKnown := LocalTime(uptime.Get("now"))
	offset := ZoneOffset(now, float64(time.Now().Unix()))
	stamp := func(v kamrpc.Value) (float64, bool) {
		local, ok := LocalTime(v)
		// 1970, or the evening before in local time, means never.
		if !ok || !zoneKnown || local.Year() <= 1970 {
			return 0, false
		}
		return float64(local.Unix()) + offset, true
	}
	var index totals
	rows, known := 0, 0
	err = s.Rows(ctx, keepaliveRows, func(_ kamrpc.Above, dest kamrpc.Value) error {
		rows++
		labels := []string{dest.Get("uri").Text(), dest.Get("owner").Text()}
		labels = append(labels, index.index(labels))
		state, ok := dest.Get("state").Float()
		if !ok || state < 0 || state > 2 {
			return nil
		}
		known++
		emit(keepaliveState, state, labels...)
		if state != 0 {
			emit(keepaliveUp, Bool01(state == 1), labels...)
		}
		if at, ok := stamp(dest.Get("last checked")); ok {
			emit(keepaliveChecked, at, labels...)
		}
		// Up to 5.6.5 the two are swapped (keepalive_core.c). The later one belongs to the
		// current state, whatever its name is.
		up, down := keepaliveLastUp, keepaliveLastDown
		later, laterKnown := stamp(dest.Get("last up"))
		earlier, earlierKnown := stamp(dest.Get("last down"))
		if earlierKnown && (!laterKnown || earlier > later) {
			later, laterKnown, earlier, earlierKnown = earlier, earlierKnown, later, laterKnown
		}
		if state == 2 {
			up, down = down, up
		}
		if laterKnown && state != 0 {
			emit(up, later, labels...)
		}
		if earlierKnown && state != 0 {
			emit(down, earlier, labels...)
		}
		return nil
	}, keepaliveMethod)
	if err != nil {
		return err
	}
	if rows > 0 && known == 0 {
		return unknownShape(keepaliveMethod, "no destination has a known state")
	}
	return nil
}
