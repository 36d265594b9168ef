package collector

import (
	"context"

	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
)

func lcrDesc(name, help, field string) *Desc {
	return NewDesc("kamailio_lcr_gateway_"+name, help, gauge, lcrMethod+" "+field, "lcr", "gateway", "name")
}

var (
	lcrUp       = lcrDesc("up", "1 while the gateway receives calls, 0 while it is inactive (no reply to pings) or defunct.", "state, defunct_until")
	lcrState    = lcrDesc("state", "State of the gateway by its pings: 0 inactive, 1 active, 2 failing, below the threshold. Without ping_interval always 1.", "state")
	lcrDefunct  = lcrDesc("defunct_until_timestamp_seconds", "Unix time until which the gateway gets no calls. Only while it does not.", "defunct_until")
	lcrGateways = NewDesc("kamailio_lcr_gateways", "Gateways of an LCR instance.", gauge, lcrMethod, "lcr")
)

const lcrMethod = "lcr.dump_gws"

// lcr exports the gateways of least cost routing (lcr/lcr_rpc.c, dump_gw). It is not a
// table: whether a gateway gets calls depends on two fields and on Kamailio's clock.
type lcr struct{ listLimits }

var lcrRows = kamrpc.Rows{Path: "gw", Fields: []string{"lcr_id", "gw_id", "gw_name", "state", "defunct_until"}}

func (lcr) Name() string      { return "lcr" }
func (lcr) About() string     { return "Gateways of least cost routing: state, defunct time" }
func (lcr) Methods() []string { return []string{lcrMethod} }
func (lcr) Descs() []*Desc    { return []*Desc{lcrUp, lcrState, lcrDefunct, lcrGateways} }
func (c lcr) Guard() Guard    { return c.guard(lcrMethod, longest) }

func (lcr) Update(ctx context.Context, s *Session, emit Emit) error {
	now, err := serverClock(ctx, s)
	if err != nil {
		return err
	}
	var gateways counts
	rows, known := 0, 0
	err = s.Rows(ctx, lcrRows, func(_ kamrpc.Above, gw kamrpc.Value) error {
		if !gw.Exists() {
			return nil
		}
		rows++
		gateways.add(1, gw.Get("lcr_id").Text())
		state, ok := lcrStateOf(gw.Get("state"))
		if !ok {
			return nil
		}
		known++
		labels := []string{gw.Get("lcr_id").Text(), gw.Get("gw_id").Text(), gw.Get("gw_name").Text()}
		until, _ := gw.Get("defunct_until").Float()
		emit(lcrState, state, labels...)
		emit(lcrUp, Bool01(state != 0 && until <= now), labels...)
		if until > now {
			emit(lcrDefunct, until, labels...)
		}
		return nil
	}, lcrMethod)
	if err != nil {
		return err
	}
	if rows > 0 && known == 0 {
		return unknownShape(lcrMethod, "no gateway has a known state")
	}
	gateways.emit(lcrGateways, emit)
	return nil
}

// lcrStateOf converts the states of lcr/lcr_mod.h: 0 is active, 1 is being pinged, 2 is
// inactive. A value above 2 counts down with each failed ping.
func lcrStateOf(state kamrpc.Value) (float64, bool) {
	switch n, ok := state.Float(); {
	case !ok || n < 0:
		return 0, false
	case n == 0:
		return 1, true
	case n == 2:
		return 0, true
	}
	return 2, true
}
