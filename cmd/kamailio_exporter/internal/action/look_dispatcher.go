package action

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/audit"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
)

// destinationUp reports whether Kamailio sends calls to a destination with these flags.
// Flags are two letters: the first is A (active), I (inactive), D (disabled) or T
// (trying, which gets calls), the second P or X (modules/dispatcher/dispatcher.c).
func destinationUp(flags string) bool {
	return strings.HasPrefix(flags, "A") || strings.HasPrefix(flags, "T")
}

func isActive(dest kamrpc.Value) bool { return destinationUp(dest.Get("FLAGS").Text()) }

// destinationRows selects the destinations of all sets.
var destinationRows = kamrpc.Rows{Path: "RECORDS/SET/TARGETS/DEST", Fields: []string{"URI", "FLAGS", "LATENCY"}}

func lookDestination(ctx context.Context, k Kamailio, a Args) (audit.State, error) {
	state := audit.State{}
	active, total, down := int64(0), int64(0), int64(0)
	set := strconv.FormatInt(a.number("set"), 10)
	err := k.Rows(ctx, destinationRows, func(above kamrpc.Above, dest kamrpc.Value) error {
		if !dest.Exists() || above.Text("ID") != set {
			return nil
		}
		total++
		if isActive(dest) {
			active++
		} else {
			down++
		}
		// If several destinations have the same URI, Kamailio changes only the first.
		if !strings.EqualFold(dest.Get("URI").Text(), a.text("uri")) {
			return nil
		}
		if _, found := state["flags"]; !found {
			state["flags"], state[rankField] = dest.Get("FLAGS").Text(), down
			if !isActive(dest) {
				state[rankField] = down - 1
			}
			if pings := pingsOf(dest); pings != "" {
				state[pingsField] = pings
			}
			return nil
		}
		others, _ := state[sameURIField].(int64)
		if isActive(dest) {
			others++
		}
		state[sameURIField] = others
		return nil
	}, "dispatcher.list")
	if isFault(err, noDestinations) {
		return nil, errNoTarget
	}
	if err != nil {
		return nil, err
	}
	if _, found := state["flags"]; !found {
		return nil, errNoTarget
	}
	state["active"], state["destinations"] = active, total
	return state, nil
}

// sameURIField is set if the set has the URI more than once: the number of active
// destinations among those after the first.
const sameURIField = "same_uri_active"

// called explains why calls still go to the URI, whatever the state of its first
// destination. "" means that they do not, or that the URI is meant to get calls.
func called(a Args, state audit.State) string {
	others, _ := state[sameURIField].(int64)
	if others == 0 || strings.HasPrefix(a.text("state"), "a") {
		return ""
	}
	return fmt.Sprintf("the set contains this URI more than once. Kamailio changes only the first, and %d others would still get calls: "+
		"delete the duplicates from the database and run dispatcher.reload, or set each by its duid (kamcmd dispatcher.set_duid_state)", others)
}

func guardDestination(a Args, before audit.State, _ Guards) error {
	if why := called(a, before); why != "" {
		return errors.New(why)
	}
	return nil
}

// takesOutDestination reports whether a destination that gets calls will get none.
func takesOutDestination(a Args, before audit.State) bool {
	flags, _ := before["flags"].(string)
	return !strings.HasPrefix(a.text("state"), "a") && destinationUp(flags)
}

func restOfSet(state audit.State) (rest, of int64) {
	flags, _ := state["flags"].(string)
	rest, _ = state["active"].(int64)
	of, _ = state["destinations"].(int64)
	if destinationUp(flags) {
		rest--
	}
	return rest, of
}

func destinationBack(a Args, before audit.State) Args {
	flags, _ := before["flags"].(string)
	return Args{"set": a["set"], "uri": a["uri"], "state": stateOf(flags)}
}

// pingsField holds the latency of the destination's replies to OPTIONS, in milliseconds.
const pingsField = "pings_ms"

// pingsOf returns a text that changes with each reply, unless all take the same time to
// the millisecond. It is "" without ds_ping_latency_stats. Pings without a reply are
// not counted.
func pingsOf(dest kamrpc.Value) string {
	latency := dest.Get("LATENCY")
	if !latency.Exists() {
		return ""
	}
	return fmt.Sprintf("%s (avg %s, max %s)", latency.Get("EST").Text(), latency.Get("AVG").Text(), latency.Get("MAX").Text())
}

// claimsDestination reports whether a destination that got no calls was set to active.
// Kamailio treats it as active until its next ping.
func claimsDestination(r audit.Record) bool {
	was, _ := r.Before["flags"].(string)
	return strings.HasPrefix(audit.TextOf(r.Params["state"]), "a") && !destinationUp(was)
}

func unprovenDestinations(ctx context.Context, k Kamailio, a Args, claims []audit.Record) (n int64, err error) {
	set := strconv.FormatInt(a.number("set"), 10)
	err = k.Rows(ctx, destinationRows, func(above kamrpc.Above, dest kamrpc.Value) error {
		uri := dest.Get("URI").Text()
		if above.Text("ID") != set || !isActive(dest) || strings.EqualFold(uri, a.text("uri")) {
			return nil
		}
		for _, claim := range claims { // newest first
			if audit.TextOf(claim.Params["set"]) != set || !strings.EqualFold(audit.TextOf(claim.Params["uri"]), uri) {
				continue
			}
			if then := audit.TextOf(claim.After[pingsField]); claim.After[pingsField] == nil || then == pingsOf(dest) {
				n++
			}
			break
		}
		return nil
	}, "dispatcher.list")
	return n, err
}

func sameDestination(a Args, before audit.State) bool {
	return before["flags"] == strings.ToUpper(a.text("state")) && called(a, before) == ""
}

// judgeDestination allows for probing: a probed destination may change by itself from
// active to inactive or trying, and back.
func judgeDestination(a Args, before, after audit.State, _ Guards) judgement {
	flags, _ := after["flags"].(string)
	want := strings.ToUpper(a.text("state"))
	if why := called(a, after); why != "" {
		return contradicted(why)
	}
	switch {
	case flags == want:
		return asAsked
	case want == "AP" && len(flags) == 2 && flags[1] == 'P' && flags != before["flags"]:
		return asAsked
	}
	return contradicted("its flags are " + flags)
}

// latencyOfDestination returns how long the destination takes to reply to OPTIONS, an
// average weighted towards recent replies (modules/dispatcher/dispatch.c: LATENCY/EST,
// in milliseconds).
func latencyOfDestination(ctx context.Context, k Kamailio, args Args) (latency time.Duration, err error) {
	found, measured := false, false
	set := strconv.FormatInt(args.number("set"), 10)
	rows := kamrpc.Rows{Path: destinationRows.Path, Fields: []string{"URI", "LATENCY"}}
	err = k.Rows(ctx, rows, func(above kamrpc.Above, dest kamrpc.Value) error {
		if found || above.Text("ID") != set || !strings.EqualFold(dest.Get("URI").Text(), args.text("uri")) {
			return nil
		}
		ms, ok := dest.Get("LATENCY/EST").Float()
		found, measured, latency = true, ok, time.Duration(ms*float64(time.Millisecond))
		return nil
	}, "dispatcher.list")
	switch {
	case err != nil:
	case !found:
		err = errNoTarget
	case !measured:
		err = Unconfirmed.Because("Kamailio does not measure latencies: ds_ping_latency_stats is off")
	}
	return latency, err
}

// stateOf returns the state to set for such flags. A destination in state trying
// becomes active: Kamailio then determines its state again.
func stateOf(flags string) string {
	flags = strings.ToLower(flags)
	if len(flags) != 2 || strings.HasPrefix(flags, "t") {
		return "ap"
	}
	return flags
}
