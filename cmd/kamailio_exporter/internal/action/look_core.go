package action

import (
	"context"
	"errors"
	"strconv"
	"strings"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/audit"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
)

func lookGroup(ctx context.Context, k Kamailio, a Args) (audit.State, error) {
	result, err := k.Call(ctx, "stats.get_statistics", a.text("group")+":")
	if err != nil {
		return nil, err
	}
	n, sum := int64(0), int64(0)
	for line := range result.All("") {
		_, value, ok := strings.Cut(line.Text(), " = ")
		if v, err := strconv.ParseInt(value, 10, 64); ok && err == nil {
			n++
			sum += v
		}
	}
	if n == 0 {
		return nil, errNoTarget
	}
	return audit.State{"statistics": n, "sum": sum}, nil
}

func judgeReset(_ Args, before, after audit.State, _ Guards) judgement {
	was, _ := before["sum"].(int64)
	is, _ := after["sum"].(int64)
	if was <= 0 || is < was {
		return asAsked
	}
	return unseen("none of its counters fell: Kamailio computes them when they are read, and nothing resets them")
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
	return contradicted("another value is read back")
}
