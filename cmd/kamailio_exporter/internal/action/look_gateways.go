package action

import (
	"context"
	"strings"
	"time"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/audit"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
)

func hasURL(relay kamrpc.Value) bool { return relay.Get("url").Exists() }

func lookRelay(ctx context.Context, k Kamailio, a Args) (audit.State, error) {
	enabled := map[string]int64{} // by set
	others := map[string]int64{}
	state, down := audit.State{}, int64(0)
	err := k.Rows(ctx, kamrpc.Rows{Fields: []string{"url", "set", "disabled", "active"}}, func(_ kamrpc.Above, node kamrpc.Value) error {
		set := node.Get("set").Text()
		// Kamailio 5 also calls a relay disabled if it does not answer: the value is
		// 0, 1 or "1(permanent)". Kamailio 6 has false or true, and a separate field
		// for whether the relay answers.
		said := node.Get("disabled").Text()
		off := said == "true" || strings.Contains(said, "permanent")
		on := !off && said != "1" && node.Get("active").Text() != "false"
		if node.Get("url").Text() == a.text("url") {
			wasOn, seen := state["enabled"].(bool)
			wasOff, _ := state["disabled"].(bool)
			state["enabled"], state["disabled"] = on && (wasOn || !seen), off && (wasOff || !seen) // if the relay is in several sets: of all of them
			enabled[set] += 0
			state[rankField] = down
		} else if on {
			others[set]++
		} else {
			down++
		}
		return nil
	}, "rtpengine.show", "all")
	switch {
	case isFault(err, "Instance not found"):
		return nil, errNoTarget
	case err != nil:
		return nil, err
	}
	if len(state) == 0 {
		return nil, errNoTarget
	}
	// Report the set with the fewest other relays.
	least := int64(-1)
	for set := range enabled {
		if least < 0 || others[set] < least {
			least = others[set]
		}
	}
	state["others_enabled"] = least
	return state, nil
}

func takesOutRelay(a Args, before audit.State) bool {
	return !a.truth("enabled") && before.Is("enabled")
}

func restOfRelays(state audit.State) (rest, of int64) {
	rest, _ = state["others_enabled"].(int64)
	return rest, 0
}

func sameRelay(a Args, state audit.State) bool {
	if a.truth("enabled") {
		return state.Is("enabled")
	}
	return state.Is("disabled")
}

func judgeRelay(a Args, _, after audit.State, _ Guards) judgement {
	if sameRelay(a, after) {
		return asAsked
	}
	return contradicted("the relay is not in the requested state")
}

// answerStatus checks the status in the reply: a failure is also HTTP 200
// (modules/rtpengine/rtpengine.c).
func answerStatus(result kamrpc.Value) string {
	if s := result.Get("status").Text(); s != "enable" && s != "disable" {
		return "kamailio could not reach the relay"
	}
	return ""
}

func lookGateway(ctx context.Context, k Kamailio, a Args) (audit.State, error) {
	var state audit.State
	usable, down, rank := int64(0), int64(0), int64(0)
	err := k.Rows(ctx, kamrpc.Rows{Path: "gw", Fields: []string{"lcr_id", "gw_id", "defunct_until"}}, func(_ kamrpc.Above, gw kamrpc.Value) error {
		if n, ok := whole(gw.Get("lcr_id")); !ok || n != a.number("lcr_id") {
			return nil
		}
		until, _ := whole(gw.Get("defunct_until"))
		defunct := until > time.Now().Unix()
		if n, ok := whole(gw.Get("gw_id")); ok && n == a.number("gw_id") {
			state, rank = audit.State{"defunct": defunct, "defunct_until": until}, down
		} else if !defunct {
			usable++
		} else {
			down++
		}
		return nil
	}, "lcr.dump_gws")
	if err != nil {
		return nil, err
	}
	if state == nil {
		return nil, errNoTarget
	}
	state["others_usable"], state[rankField] = usable, rank
	return state, nil
}

func takesOutGateway(_ Args, before audit.State) bool { return !before.Is("defunct") }

func restOfGateways(state audit.State) (rest, of int64) {
	rest, _ = state["others_usable"].(int64)
	return rest, 0
}

// judgeGateway checks the end of the gateway's downtime with a tolerance, because the
// clock of Kamailio's host may differ.
func judgeGateway(a Args, before, after audit.State, _ Guards) judgement {
	until, _ := after["defunct_until"].(int64)
	off := until - time.Now().Unix() - a.number("seconds")
	switch {
	case !after.Is("defunct"):
		return contradicted("not defunct")
	case until == before["defunct_until"] && (off < -60 || off > 60):
		return contradicted("the time until which it is defunct has not changed as requested")
	}
	return asAsked
}
