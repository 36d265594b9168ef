package action

import (
	"context"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/audit"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
)

// lookBlocked looks for the value in the list of its kind. Kamailio 5.6 prints
// nothing over JSON.
func lookBlocked(ctx context.Context, k Kamailio, a Args) (audit.State, error) {
	result, err := k.Call(ctx, "secfilter.print", a.text("kind"))
	if err != nil {
		return nil, err
	}
	if result.Kind() != kamrpc.Object {
		return nil, errUnreadable
	}
	blocked := false
	for kind := range result.Members() {
		for v := range kind.Value.All("Blacklisted/Value") {
			blocked = blocked || v.Text() == a.text("value")
		}
	}
	return audit.State{"blocked": blocked}, nil
}

func judgeBlocked(_ Args, _, after audit.State, _ Guards) string {
	if after.Is("blocked") {
		return ""
	}
	return "it is not in the list"
}
