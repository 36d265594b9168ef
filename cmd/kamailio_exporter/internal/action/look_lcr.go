package action

import (
	"context"
	"fmt"
	"time"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/audit"
)

func lookGateway(ctx context.Context, k Kamailio, a Args) (audit.State, error) {
	result, err := k.Call(ctx, "lcr.dump_gws")
	if err != nil {
		return nil, err
	}
	var state audit.State
	usable := int64(0)
	for gw := range result.All("gw") {
		if n, ok := whole(gw.Get("lcr_id")); !ok || n != a.number("lcr_id") {
			continue
		}
		until, _ := whole(gw.Get("defunct_until"))
		defunct := until > time.Now().Unix()
		if n, ok := whole(gw.Get("gw_id")); ok && n == a.number("gw_id") {
			state = audit.State{"defunct": defunct}
		} else if !defunct {
			usable++
		}
	}
	if state == nil {
		return nil, errNoTarget
	}
	state["others_usable"] = usable
	return state, nil
}

func guardGateway(_ Args, before audit.State, g Guards) error {
	if others, _ := before["others_usable"].(int64); int(others) < g.MinActive {
		return fmt.Errorf("there are %d other gateways that can be used, and %d must stay", others, g.MinActive)
	}
	return nil
}
