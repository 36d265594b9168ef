package action

import (
	"context"
	"slices"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/audit"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
)

func lookAOR(ctx context.Context, k Kamailio, a Args) (audit.State, error) {
	contacts, err := contactsOf(ctx, k, a)
	if err != nil {
		return nil, err
	}
	return audit.State{"contacts": int64(len(contacts))}, nil
}

func lookContact(ctx context.Context, k Kamailio, a Args) (audit.State, error) {
	contacts, err := contactsOf(ctx, k, a)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(contacts, a.text("contact")) {
		return nil, errNoTarget
	}
	return audit.State{"contacts": int64(len(contacts)), "present": true}, nil
}

func contactsOf(ctx context.Context, k Kamailio, a Args) ([]string, error) {
	var contacts []string
	err := k.Rows(ctx, kamrpc.Rows{Path: "Contacts/Contact", Fields: []string{"Address"}}, func(_ kamrpc.Above, c kamrpc.Value) error {
		if c.Exists() {
			contacts = append(contacts, c.Get("Address").Text())
		}
		return nil
	}, "ul.lookup", a.text("table"), a.text("aor"))
	for _, none := range []string{"AOR not found", "AOR has no contacts", "Domain table not found", "Domain missing"} {
		if isFault(err, none) {
			return nil, errNoTarget
		}
	}
	return contacts, err
}

// lookRegistration keeps only the flags: the reply also contains the password.
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

// judgeRegistered accepts a row that was reloaded. The trunk registers again when the
// module's timer runs, after up to reg_timer_interval.
func judgeRegistered(_ Args, _, after audit.State, _ Guards) judgement {
	switch {
	case after["enabled"] == nil:
		return contradicted("the registration is gone")
	case !after.Is("enabled"):
		return unseen("it is disabled, so Kamailio does not register")
	case !after.Is("registered"):
		return unseen("it is not registered yet: check again after reg_timer_interval")
	}
	return asAsked
}
