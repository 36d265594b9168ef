package collector

import (
	"context"
	"errors"
	"iter"
	"strings"

	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
)

var (
	drGatewayUp    = NewDesc("kamailio_drouting_gateway_up", "1 while the gateway receives calls, 0 while it does not.", gauge, "drouting.gw_status State", "gateway", "address")
	drGatewayState = NewDesc("kamailio_drouting_gateway_state", "State of the gateway: 0 inactive, 1 active, 2 probing (failed, being tried), 3 disabled by an operator.", gauge, "drouting.gw_status State", "gateway", "address")
	drGatewayType  = NewDesc("kamailio_drouting_gateway_type", "Type of the gateway (column type of dr_gateways).", gauge, "drouting.gw_status Type", "gateway", "address")
	drCarrierUp    = NewDesc("kamailio_drouting_carrier_up", "1 while the carrier receives calls, 0 while it does not.", gauge, "drouting.carrier_status Enabled", "carrier")
)

// drouting exports the gateways of dynamic routing. Upstream Kamailio only has
// drouting.reload. Some builds have and list drouting.gw_status and
// drouting.carrier_status. Otherwise the operator's kamailio.cfg can serve them
// (examples/kamailio/drouting-gw-status.cfg), and then they are not listed.
type drouting struct{ listLimits }

const (
	gwStatusMethod      = "drouting.gw_status"
	carrierStatusMethod = "drouting.carrier_status"
)

func (drouting) Name() string      { return "drouting" }
func (drouting) About() string     { return "State of the gateways and carriers of drouting" }
func (drouting) Methods() []string { return []string{"drouting.reload"} }
func (drouting) Descs() []*Desc {
	return []*Desc{drGatewayUp, drGatewayState, drGatewayType, drCarrierUp}
}

func (d drouting) Guard() Guard {
	return d.guard(gwStatusMethod, func(samples []Sample) int { return countOf(drGatewayState, samples) })
}

func (drouting) Update(ctx context.Context, s *Session, emit Emit) error {
	gateways, err := callListedOrNot(ctx, s, gwStatusMethod)
	if errors.Is(err, kamrpc.ErrMethodNotFound) {
		return ErrNoData
	}
	if err != nil {
		return err
	}
	rows, known := 0, 0
	for gw := range rowsOf(gateways, "Gateways") {
		rows++
		labels := []string{first(gw, "ID", "GWID").Text(), first(gw, "IP", "ADDRESS").Text()}
		if state, ok := routeState(gw); ok {
			known++
			emit(drGatewayState, state, labels...)
			emit(drGatewayUp, Bool01(state == 1), labels...)
		}
		if kind, ok := first(gw, "Type", "TYPE").Float(); ok {
			emit(drGatewayType, kind, labels...)
		}
	}
	if rows > 0 && known == 0 {
		return errors.New(gwStatusMethod + ": no gateway has a known state")
	}
	carriers, err := callListedOrNot(ctx, s, carrierStatusMethod)
	if errors.Is(err, kamrpc.ErrMethodNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	for carrier := range rowsOf(carriers, "Carriers") {
		if state, ok := routeState(carrier); ok {
			emit(drCarrierUp, Bool01(state == 1), first(carrier, "ID", "CRID").Text())
		}
	}
	return nil
}

func callListedOrNot(ctx context.Context, s *Session, method string) (kamrpc.Value, error) {
	if s.Has(method) {
		return s.Call(ctx, method)
	}
	return s.CallUnlisted(ctx, method)
}

// rowsOf yields the rows under a name: those of a list, or a single row.
func rowsOf(v kamrpc.Value, name string) iter.Seq[kamrpc.Value] {
	if v.Get(name).Exists() {
		return v.All(name)
	}
	return v.All("")
}

// first returns the first of the fields that the row has, because builds spell them
// differently.
func first(row kamrpc.Value, fields ...string) kamrpc.Value {
	for _, f := range fields {
		if v := row.Get(f); v.Exists() {
			return v
		}
	}
	return kamrpc.Value{}
}

// routeState parses the state as the builds and OpenSIPS write it: "Active", "Inactive",
// "Probing", "Disabled MI", or yes or no in Enabled.
func routeState(row kamrpc.Value) (float64, bool) {
	word := strings.ToLower(first(row, "State", "STATE", "Status", "STATUS", "Enabled", "ENABLED").Text())
	switch {
	case word == "active", word == "yes", word == "enabled", word == "1":
		return 1, true
	case strings.HasPrefix(word, "inactive"), word == "no", word == "0":
		return 0, true
	case strings.HasPrefix(word, "probing"):
		return 2, true
	case strings.HasPrefix(word, "disabled"):
		return 3, true
	}
	return 0, false
}
