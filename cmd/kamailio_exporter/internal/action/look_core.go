package action

import (
	"context"
	"errors"
	"math"
	"strings"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/audit"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
)

// maxStatistics limits how many statistics of a group are kept individually.
const maxStatistics = 200

// lookGroup reads the statistics of a group that are not 0.
func lookGroup(ctx context.Context, k Kamailio, a Args) (audit.State, error) {
	state, there := audit.State{}, false
	err := eachStatistic(ctx, k, a.text("group")+":", func(_, name string, value int64) {
		there = true
		if value != 0 {
			state[name] = value
		}
	})
	switch {
	case err != nil:
		return nil, err
	case !there:
		return nil, errNoTarget
	case len(state) > maxStatistics:
		return nil, errUnreadable
	}
	return state, nil
}

// judgeReset accepts the reset if one statistic fell to less than half. Not all of them
// fall: some are gauges or computed when read, and look the same as counters.
func judgeReset(_ Args, before, after audit.State, _ Guards) judgement {
	for name := range before {
		was, _ := before[name].(int64)
		is, _ := after[name].(int64)
		if math.Abs(float64(is)) < math.Abs(float64(was))/2 {
			return asAsked
		}
	}
	if len(before) == 0 {
		return asAsked
	}
	return unseen("none of its counters fell: Kamailio computes them at each read and cannot reset them, or they have already grown again")
}

func lookVariable(ctx context.Context, k Kamailio, a Args) (audit.State, error) {
	group, variable, _ := strings.Cut(a.text("variable"), ".")
	result, err := k.Call(ctx, "cfg.get", group, variable)
	if fault := (*kamrpc.Fault)(nil); errors.As(err, &fault) {
		return nil, errNoTarget // the module is not loaded
	}
	if err != nil {
		return nil, err
	}
	n, ok := whole(result)
	if !ok {
		return nil, errUnreadable
	}
	return audit.State{"value": n}, nil
}

func judgeVariable(a Args, _, after audit.State, _ Guards) judgement {
	if after["value"] == a.number("value") {
		return asAsked
	}
	return contradicted("Kamailio still reports another value")
}
