package collector

import (
	"context"
	"strings"

	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
)

// uacModule is the totals of outgoing registrations (uac/uac_reg.c). Kamailio's regactive
// can become negative.
var uacModule = Module{
	Subsystem: "uac",
	Summary:   "Outgoing registrations (uac module), in total",
	Queries: []Query{statistics("uac",
		Metric{Field: "uac:regtotal", Name: "registrations", Kind: gauge, Help: "Outgoing registrations in total."},
		Metric{Field: "uac:regactive", Name: "registrations_active", Kind: gauge, Help: "Outgoing registrations that are registered. Kamailio's counter can fall below zero."},
		Metric{Field: "uac:regdisabled", Name: "registrations_disabled", Kind: gauge, Help: "Outgoing registrations that are disabled."},
	)},
}

func registrationDesc(name, help, field string, more ...string) *Desc {
	return NewDesc("kamailio_uac_registration_"+name, help, gauge, regDumpMethod+" "+field, append([]string{"uuid"}, more...)...)
}

var (
	regUp        = registrationDesc("up", "1 while the registration is accepted by the registrar and not expired, else 0.", "flags, diff_expires")
	regEnabled   = registrationDesc("enabled", "0 if the registration is disabled, by an operator or after a failure without reg_retry_interval, else 1.", "flags")
	regOngoing   = registrationDesc("ongoing", "1 while Kamailio waits for the reply to a REGISTER. If it stays at 1, the registrar does not reply.", "flags")
	regAuthSent  = registrationDesc("auth_sent", "1 while Kamailio waits for the reply to a REGISTER with credentials.", "flags")
	regExpiresIn = registrationDesc("expires_in_seconds", "Time until the registration expires. Kamailio renews it before. Omitted while it is not up.", "diff_expires")
	regExpires   = registrationDesc("expires_seconds", "Lifetime that Kamailio requests.", "expires")
	regInfo      = registrationDesc("info", "Always 1. The labels are the registrar's domain, and the outbound proxy if there is one.", "r_domain, auth_proxy", "domain", "proxy")
)

const regDumpMethod = "uac.reg_dump"

// The bits of flags (uac/uac_reg.c, UAC_REG_*).
const (
	regFlagDisabled = 1 << 0
	regFlagOngoing  = 1 << 1
	regFlagOnline   = 1 << 2
	regFlagAuthSent = 1 << 3
)

// uacRegistrations exports each outgoing registration (uac/uac_reg.c,
// rpc_uac_reg_add_node_helper). Kamailio's reply contains their passwords in clear text,
// so it is always read row by row, and only these fields of a row are kept.
type uacRegistrations struct{ listLimits }

var registrationRows = kamrpc.Rows{Fields: []string{"l_uuid", "r_domain", "auth_proxy", "expires", "flags", "diff_expires"}}

func (uacRegistrations) Name() string { return "uac_registrations" }
func (uacRegistrations) About() string {
	return "Outgoing registrations (uac module), one by one: up, enabled, time left"
}
func (uacRegistrations) Methods() []string { return []string{regDumpMethod} }
func (uacRegistrations) Descs() []*Desc {
	return []*Desc{regUp, regEnabled, regOngoing, regAuthSent, regExpiresIn, regExpires, regInfo}
}

func (c uacRegistrations) Guard() Guard { return c.guard(regDumpMethod, longest) }

func (uacRegistrations) Update(ctx context.Context, s *Session, emit Emit) error {
	rows, known := 0, 0
	err := s.Rows(ctx, registrationRows, func(_ kamrpc.Above, reg kamrpc.Value) error {
		rows++
		known += emitRegistration(reg, emit)
		return nil
	}, regDumpMethod)
	if isFault(err, "Not enabled") {
		return ErrNoData // without reg_db_url, uac is only used for authentication
	}
	if err != nil {
		return err
	}
	if rows > 0 && known == 0 {
		return unknownShape(regDumpMethod, "no registration has flags that are known")
	}
	return nil
}

func emitRegistration(reg kamrpc.Value, emit Emit) (known int) {
	uuid := reg.Get("l_uuid").Text()
	if bits, ok := reg.Get("flags").Float(); ok {
		known++
		flags := int64(bits)
		left, leftKnown := reg.Get("diff_expires").Float()
		// Kamailio itself uses this condition (uac_reg_status). If it is false, diff_expires
		// is the time until the next attempt, or meaningless.
		up := flags&regFlagOnline != 0 && leftKnown && left > 0
		emit(regUp, Bool01(up), uuid)
		emit(regEnabled, Bool01(flags&regFlagDisabled == 0), uuid)
		emit(regOngoing, Bool01(flags&regFlagOngoing != 0), uuid)
		emit(regAuthSent, Bool01(flags&regFlagAuthSent != 0), uuid)
		if up {
			emit(regExpiresIn, left, uuid)
		}
	}
	if expires, ok := reg.Get("expires").Float(); ok {
		emit(regExpires, expires, uuid)
	}
	emit(regInfo, 1, uuid, reg.Get("r_domain").Text(), proxyWithoutUser(reg.Get("auth_proxy").Text()))
	return known
}

// proxyWithoutUser returns a SIP URI without user and password: "sip:me:secret@proxy"
// becomes "sip:proxy". Kamailio writes "none" if there is no proxy.
func proxyWithoutUser(uri string) string {
	if uri == "none" {
		return ""
	}
	at := strings.LastIndex(uri, "@")
	if at < 0 {
		return uri
	}
	scheme, _, found := strings.Cut(uri[:at], ":")
	if !found {
		return uri[at+1:]
	}
	return scheme + ":" + uri[at+1:]
}
