package action

import (
	"context"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/audit"
)

// lookRegistration keeps the flags of a reply that also has the password.
func lookRegistration(ctx context.Context, k Kamailio, a Args) (audit.State, error) {
	result, err := k.Call(ctx, "uac.reg_info", "l_uuid", a.text("uuid"))
	if isFault(err, "Record not found") {
		return nil, errNoTarget
	}
	if err != nil {
		return nil, err
	}
	flags, ok := whole(result.Get("flags"))
	if !ok {
		return nil, errUnreadable
	}
	// modules/uac/uac_reg.c: 1 disabled, 2 waiting for an answer, 4 registered.
	return audit.State{"enabled": flags&1 == 0, "ongoing": flags&2 != 0, "registered": flags&4 != 0}, nil
}
