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

// destinationUp: what Kamailio sends calls to. Flags are two letters: the first is
// A (active), I (inactive), D (disabled) or T (trying, which gets calls), the
// second P or X (modules/dispatcher/dispatcher.c).
func destinationUp(flags string) bool {
	return strings.HasPrefix(flags, "A") || strings.HasPrefix(flags, "T")
}

func isActive(dest kamrpc.Value) bool { return destinationUp(dest.Get("FLAGS").Text()) }

// destinationRows are the destinations of all sets.
var destinationRows = kamrpc.Rows{Path: "RECORDS/SET/TARGETS/DEST", Fields: []string{"URI", "FLAGS"}}

func lookDestination(ctx context.Context, k Kamailio, a Args) (audit.State, error) {
	state := audit.State{}
	active, total := int64(0), int64(0)
	set := strconv.FormatInt(a.number("set"), 10)
	err := k.Rows(ctx, destinationRows, func(above kamrpc.Above, dest kamrpc.Value) error {
		if !dest.Exists() || above.Text("ID") != set {
			return nil
		}
		total++
		if isActive(dest) {
			active++
		}
		// Of destinations with the same URI Kamailio changes the first.
		if !strings.EqualFold(dest.Get("URI").Text(), a.text("uri")) {
			return nil
		}
		if _, found := state["flags"]; !found {
			state["flags"] = dest.Get("FLAGS").Text()
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

// sameURIField is there when the set has the URI more than once: how many of the
// destinations behind the first are active.
const sameURIField = "same_uri_active"

// called tells why calls still go to the URI, whatever the first destination of it
// is: "" when they do not, or when it is to get calls.
func called(a Args, state audit.State) string {
	others, _ := state[sameURIField].(int64)
	if others == 0 || strings.HasPrefix(a.text("state"), "a") {
		return ""
	}
	return fmt.Sprintf("the set has this URI more than once, Kamailio changes only the first, and %d of the others would get calls: "+
		"delete the duplicates from the database and run dispatcher.reload, or set each by its duid (kamcmd dispatcher.set_duid_state)", others)
}

func guardDestination(a Args, before audit.State, g Guards) error {
	if why := called(a, before); why != "" {
		return errors.New(why)
	}
	if stay, of := leavesDestination(a, before); of > 0 && int(stay) < g.MinActive {
		return fmt.Errorf("the set has %d active destinations, and %d must stay", stay+1, g.MinActive)
	}
	return nil
}

func leavesDestination(a Args, before audit.State) (stay, of int64) {
	flags, _ := before["flags"].(string)
	active, _ := before["active"].(int64)
	total, _ := before["destinations"].(int64)
	if strings.HasPrefix(a.text("state"), "a") || !destinationUp(flags) {
		return 0, 0
	}
	return active - 1, total
}

func sameDestination(a Args, before audit.State) bool {
	return before["flags"] == strings.ToUpper(a.text("state")) && called(a, before) == ""
}

// A destination that is probed may change by itself from active to inactive or
// trying and back.
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

// latencyOfDestination is how long the destination takes to answer OPTIONS, recent ones weighing
// most (modules/dispatcher/dispatch.c: LATENCY/EST, in milliseconds).
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

// stateOf is the state that sets such flags. One that was being tried is active
// again: Kamailio finds out anew whether it is.
func stateOf(flags string) string {
	flags = strings.ToLower(flags)
	if len(flags) != 2 || strings.HasPrefix(flags, "t") {
		return "ap"
	}
	return flags
}
