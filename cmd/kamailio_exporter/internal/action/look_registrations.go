package action

import (
	"context"
	"slices"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/audit"
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
	result, err := k.Call(ctx, "ul.lookup", a.text("table"), a.text("aor"))
	for _, none := range []string{"AOR not found", "AOR has no contacts", "Domain table not found", "Domain missing"} {
		if isFault(err, none) {
			return nil, errNoTarget
		}
	}
	if err != nil {
		return nil, err
	}
	var contacts []string
	for c := range result.All("Contacts/Contact/Address") {
		contacts = append(contacts, c.Text())
	}
	return contacts, nil
}

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
