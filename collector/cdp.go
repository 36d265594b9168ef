package collector

import (
	"context"

	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
)

// cdpModule is the statistics of the Diameter stack of the IMS modules (cdp/cdp_stats.c).
var cdpModule = Module{
	Subsystem: "cdp",
	Summary:   "Diameter peers (HSS, PCRF, charging) and their state, answers",
	Queries: []Query{statistics("cdp", append(
		answers("Diameter requests", "", "cdp", "replies_received", "replies_response_time", "timeout", "average_response_time"),
		Metric{Field: "cdp:queuelength", Name: "queue_length", Kind: gauge, Help: "Diameter messages that wait for a worker."},
	)...)},
}

func cdpDesc(name, help, field string) *Desc {
	return NewDesc("kamailio_cdp_peer_"+name, help, gauge, cdpMethod+" "+field, "peer", indexLabel)
}

var (
	cdpUp      = cdpDesc("up", "1 while the connection to the peer is open (R_Open, I_Open), else 0.", "State")
	cdpState   = cdpDesc("state", "State of the peer (RFC 6733): 0 Closed, 1 Wait-Conn-Ack, 2 Wait-I-CEA, 3 Wait-Conn-Ack/Elect, 4 Wait-Returns, 5 R-Open, 6 I-Open, 7 Closing.", "State")
	cdpEnabled = cdpDesc("enabled", "0 if an operator disabled the peer (cdp.disable_peer), else 1.", "Disabled")
)

const cdpMethod = "cdp.list_peers"

// cdpStates are the texts of cdp/peerstatemachine.c, dp_states, in the order of peer.h.
var cdpStates = map[string]float64{"Closed": 0, "Wait_Conn_Ack": 1, "Wait_I_CEA": 2, "Wait_Conn_Ack_Elect": 3, "Wait_Returns": 4, "R_Open": 5, "I_Open": 6, "Closing": 7}

// cdpRows selects the peers. Kamailio writes them as one object in which "FQDN" and
// "Details" repeat (cdp/cdp_rpc.c).
var cdpRows = kamrpc.Rows{Path: "Peers/Details", Fields: []string{"State", "Disabled"}}

// cdp exports the Diameter peers.
type cdp struct {
	*table
	listLimits
}

func newCDP(limits listLimits) cdp { return cdp{cdpModule.Collector().(*table), limits} }

func (c cdp) base() *table      { return c.table }
func (c cdp) Methods() []string { return append(c.table.Methods(), cdpMethod) }
func (c cdp) Descs() []*Desc    { return append([]*Desc{cdpUp, cdpState, cdpEnabled}, c.table.Descs()...) }
func (c cdp) Guard() Guard      { return c.guard(cdpMethod, longest) }

func (c cdp) Update(ctx context.Context, s *Session, emit Emit) error {
	var index totals
	rows, known := 0, 0
	err := s.Rows(ctx, cdpRows, func(above kamrpc.Above, peer kamrpc.Value) error {
		if !peer.Exists() {
			return nil
		}
		rows++
		labels := []string{above.Text("FQDN")}
		labels = append(labels, index.index(labels))
		if state, ok := cdpStates[peer.Get("State").Text()]; ok {
			known++
			emit(cdpState, state, labels...)
			emit(cdpUp, Bool01(state == 5 || state == 6), labels...)
		}
		if disabled := peer.Get("Disabled").Text(); disabled == "True" || disabled == "False" {
			emit(cdpEnabled, Bool01(disabled == "False"), labels...)
		}
		return nil
	}, cdpMethod)
	if err != nil {
		return err
	}
	if rows > 0 && known == 0 {
		return unknownShape(cdpMethod, "no peer has a known state")
	}
	return c.table.Update(ctx, s, emit)
}
