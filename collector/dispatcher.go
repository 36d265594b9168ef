package collector

import (
	"cmp"
	"context"

	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
)

// Labels of a destination. A set may contain a URI twice, and Kamailio lists destinations
// by priority. The attribute duid or the socket distinguishes them if possible, so that a
// series stays with its destination when priorities change. The index is 0, except for
// destinations for which all of these are equal.
var destinationLabels = []string{"set", "uri", "duid", "socket", indexLabel}

func destinationDesc(name, help, field string) *Desc {
	return NewDesc("kamailio_dispatcher_destination_"+name, help, gauge, "dispatcher.list "+field, destinationLabels...)
}

var (
	dispatcherSets = NewDesc("kamailio_dispatcher_sets", "Destination sets in use.", gauge, "dispatcher.list NRSETS")
	setTotal       = NewDesc("kamailio_dispatcher_set_destinations", "Destinations in a set.", gauge, "dispatcher.list DEST", "set")
	setUp          = NewDesc("kamailio_dispatcher_set_destinations_up", "Destinations of a set that receive calls.", gauge, "dispatcher.list FLAGS", "set")
	destUp         = destinationDesc("up", "1 while the destination receives calls (active or trying), 0 while it does not (inactive or disabled).", "FLAGS")
	destState      = destinationDesc("state", "State of the destination: 0 inactive, 1 active, 2 trying (failed, below the threshold), 3 disabled by an operator.", "FLAGS")
	destProbing    = destinationDesc("probing", "1 while Kamailio pings the destination with OPTIONS.", "FLAGS")
	destPriority   = destinationDesc("priority", "Priority of the destination; the highest is used first.", "PRIORITY")
	destWeight     = destinationDesc("weight", "Weight of the destination (attribute weight).", "ATTRS/WEIGHT")
	destRelWeight  = destinationDesc("relative_weight", "Relative weight of the destination (attribute rweight).", "ATTRS/RWEIGHT")
	destMaxLoad    = destinationDesc("max_dialogs", "Maximum number of dialogs for load distribution (attribute maxload); 0 means no limit.", "ATTRS/MAXLOAD")
	destLoad       = destinationDesc("dialogs", "Dialogs that load distribution currently assigns to the destination.", "RUNTIME/DLGLOAD")
	destLatency    = []struct {
		field string
		desc  *Desc
	}{
		{"LATENCY/AVG", destinationDesc("latency_average_seconds", "Mean response time of the destination to OPTIONS. Omitted until one takes at least 1 ms, the resolution of Kamailio's clock.", "LATENCY/AVG")},
		{"LATENCY/EST", destinationDesc("latency_estimate_seconds", "Moving average of the destination's response time to OPTIONS.", "LATENCY/EST")},
		{"LATENCY/STD", destinationDesc("latency_stddev_seconds", "Standard deviation of the destination's response time to OPTIONS.", "LATENCY/STD")},
		{"LATENCY/MAX", destinationDesc("latency_max_seconds", "Maximum response time of the destination to OPTIONS.", "LATENCY/MAX")},
	}
	destTimeouts = NewDesc("kamailio_dispatcher_destination_ping_timeouts_total", "OPTIONS requests to the destination that got no reply.",
		counter, "dispatcher.list LATENCY/TIMEOUT", destinationLabels...)
)

// dispatcher exports the load balancer's destinations (dispatcher/dispatcher.c). It is not
// a table because FLAGS consists of two letters with separate meanings.
type dispatcher struct{ listLimits }

func (dispatcher) Name() string { return "dispatcher" }
func (dispatcher) About() string {
	return "Destinations of the dispatcher: state, latency, weight, load"
}
func (dispatcher) Methods() []string { return []string{"dispatcher.list"} }

func (d dispatcher) Guard() Guard {
	return d.guard("dispatcher.list", func(samples []Sample) int { return countOf(destUp, samples) })
}

func (dispatcher) Descs() []*Desc {
	all := []*Desc{dispatcherSets, setTotal, setUp, destUp, destState, destProbing, destPriority, destWeight, destRelWeight, destMaxLoad, destLoad, destTimeouts}
	for _, l := range destLatency {
		all = append(all, l.desc)
	}
	return all
}

// destinationRows selects the destinations of all sets.
var destinationRows = kamrpc.Rows{
	Path:   "RECORDS/SET/TARGETS/DEST",
	Fields: []string{"URI", "FLAGS", "PRIORITY", "ATTRS", "LATENCY", "RUNTIME"},
}

func (dispatcher) Update(ctx context.Context, s *Session, emit Emit) error {
	sets := dispatcherTotals{emit: emit}
	err := s.Rows(ctx, destinationRows, func(above kamrpc.Above, dest kamrpc.Value) error {
		sets.enter(above.Text("ID"))
		if dest.Exists() {
			sets.add(dest)
		}
		return nil
	}, "dispatcher.list")
	if isFault(err, "No Destination Sets") {
		emit(dispatcherSets, 0)
		return nil
	}
	if err != nil {
		return err
	}
	sets.leave()
	if sets.destinations > 0 && sets.known == 0 {
		return unknownShape("dispatcher.list", "no destination has FLAGS that are known")
	}
	emit(dispatcherSets, sets.sets)
	return nil
}

// dispatcherTotals adds up the totals of each set as its destinations arrive.
type dispatcherTotals struct {
	emit                Emit
	id                  string
	total, up           float64
	labels              totals // assigns the index to destinations of the set
	sets                float64
	destinations, known int
}

func (d *dispatcherTotals) enter(id string) {
	if d.sets > 0 && id == d.id {
		return
	}
	d.leave()
	d.id, d.total, d.up, d.labels = id, 0, 0, totals{}
	d.sets++
}

func (d *dispatcherTotals) leave() {
	if d.sets > 0 {
		d.emit(setTotal, d.total, d.id)
		d.emit(setUp, d.up, d.id)
	}
}

func (d *dispatcherTotals) add(dest kamrpc.Value) {
	attrs := dest.Get("ATTRS")
	labels := []string{d.id, dest.Get("URI").Text(), attrs.Get("DUID").Text(), cmp.Or(attrs.Get("SOCKET").Text(), attrs.Get("SOCKNAME").Text())}
	labels = append(labels, d.labels.index(labels))
	d.total++
	d.destinations++
	up, ok := emitDestination(dest, labels, d.emit)
	if ok {
		d.known++
	}
	d.up += up
}

// The first letter of FLAGS (ds_rpc_print_set). The second is P if the destination is
// pinged, X or N if not.
var destinationStates = map[byte]float64{'I': 0, 'A': 1, 'T': 2, 'D': 3}

func emitDestination(dest kamrpc.Value, labels []string, emit Emit) (up float64, ok bool) {
	flags := dest.Get("FLAGS").Text()
	if flags != "" {
		var state float64
		if state, ok = destinationStates[flags[0]]; ok {
			up = Bool01(flags[0] == 'A' || flags[0] == 'T')
			emit(destUp, up, labels...)
			emit(destState, state, labels...)
		}
	}
	if len(flags) > 1 {
		emit(destProbing, Bool01(flags[1] == 'P'), labels...)
	}
	for _, m := range []struct {
		field string
		desc  *Desc
	}{
		{"PRIORITY", destPriority}, {"ATTRS/WEIGHT", destWeight}, {"ATTRS/RWEIGHT", destRelWeight},
		{"ATTRS/MAXLOAD", destMaxLoad}, {"RUNTIME/DLGLOAD", destLoad},
	} {
		if v, ok := dest.Get(m.field).Float(); ok {
			emit(m.desc, v, labels...)
		}
	}
	emitLatency(dest, labels, emit)
	return up, ok
}

// emitLatency emits the response times, which Kamailio stores in whole milliseconds. If
// all are zero, nothing is emitted: either the destination has never answered, or it
// always takes less than a millisecond, and Kamailio does not report which.
func emitLatency(dest kamrpc.Value, labels []string, emit Emit) {
	longest, _ := dest.Get("LATENCY/MAX").Float()
	mean, _ := dest.Get("LATENCY/AVG").Float()
	if longest > 0 || mean > 0 {
		for _, l := range destLatency {
			if ms, ok := dest.Get(l.field).Float(); ok {
				emit(l.desc, ms/1000, labels...)
			}
		}
	}
	if n, ok := dest.Get("LATENCY/TIMEOUT").Float(); ok {
		emit(destTimeouts, n, labels...)
	}
}

// Bool01 returns 1 for true and 0 for false.
func Bool01(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
