//go:build linux

package admin

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/audit"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc/kamrpctest"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc/kamrpctest/kamailiotest"
)

// outcomesOf starts each version of Kamailio, with an endpoint before it.
func outcomesOf(t *testing.T, run func(t *testing.T, server *kamailiotest.Server, b *endpoint, six bool)) {
	t.Helper()
	for _, version := range kamailiotest.Versions(t) {
		t.Run(version, func(t *testing.T) {
			server := kamailiotest.Start(t, kamailiotest.Config{Version: version})
			b := realEndpoint(t, server.HTTPURL)
			until(t, "an uptime above the guard's", func() bool {
				var uptime struct{ Uptime int }
				return json.Unmarshal(server.RPC(t, "core.uptime"), &uptime) == nil && uptime.Uptime > 1
			})
			run(t, server, b, !strings.HasPrefix(version, "5."))
		})
	}
}

func isFalse(v any) bool {
	is, ok := v.(bool)
	return ok && !is
}

// What was read in part is not verified, and what cannot be done at all is no alarm.
func TestVerifiedIsWhatWasRead(t *testing.T) {
	outcomesOf(t, func(t *testing.T, server *kamailiotest.Server, b *endpoint, six bool) {
		// 5.6 cannot be asked for its addresses, only for its subnets.
		sql(t, server, "DELETE FROM address WHERE mask=32;")
		outcome, said := audit.Unverified, "asked safely for the number of addresses"
		if six {
			outcome, said = audit.Contradicted, "addresses fell from"
		}
		if r := b.wants(t, "permissions.reload-address", `{}`, outcome, false); !strings.Contains(r.Text, said) {
			t.Errorf("%s", r.Text)
		}

		// A trunk whose other side is dead is read anew, and does not register.
		if r := b.wants(t, "uac.refresh", `{"uuid":"trunk-dead"}`, audit.Unverified, false); !isFalse(r.After["registered"]) {
			t.Errorf("%s", r.Text)
		}
		b.wants(t, "uac.refresh", `{"uuid":"trunk-b"}`, audit.Applied, true)

		// What sl counts is computed when it is read, and nothing resets it.
		server.RPC(t, "core.uptime")
		if r := b.wants(t, "stats.reset", `{"group":"sl"}`, audit.Unverified, false); r.Status != 200 || r.problem() != "" {
			t.Errorf("%s", r.Text)
		}
		if r := b.run(nocToken, "remediation.reset", `{"rule":"nosuch"}`); r.problem() != "target-not-found" {
			t.Errorf("%s", r.Text)
		}
	})
}

// What failed may have lost what was there.
func TestFailedIsNotUnchanged(t *testing.T) {
	outcomesOf(t, func(t *testing.T, server *kamailiotest.Server, b *endpoint, six bool) {
		sql(t, server, "ALTER TABLE uacreg RENAME TO away; ALTER TABLE secfilter RENAME TO away2;")
		r := b.wants(t, "uac.reload", `{}`, audit.Failed, false)
		if r.problem() != "failed-changed" || r.Before["registrations"] != 4.0 || r.After["registrations"] != 0.0 || !strings.Contains(r.Text, "registrations 4 to 0") {
			t.Errorf("%s", r.Text)
		}
		if !strings.Contains(b.log.String(), `changed="registrations 4 to 0"`) {
			t.Error("the log does not say what was lost")
		}
		r = b.wants(t, "secfilter.reload", `{}`, audit.Failed, false)
		switch {
		case six && (r.problem() != "failed-changed" || r.Before["blocked"] != 7.0 || r.After["blocked"] != 0.0 || r.After["allowed"] != 0.0):
			t.Errorf("%s", r.Text)
		case !six && !strings.Contains(r.Text, "what it left cannot be read here"):
			t.Errorf("%s", r.Text)
		}
		for _, r := range b.records() {
			if r.Kind == audit.KindOutcome && r.Action == "uac.reload" && !r.Changed() {
				t.Errorf("the audit log has it as no change: %s", fmt.Sprint(r))
			}
		}
	})
}

// The read that is in progress when the patience ends is not cut off: what it asks for would
// be skipped, for scrapes and for the next action.
func TestLastReadAfterwardsIsNotCutOff(t *testing.T) {
	b := newEndpoint(t, everything())
	began := time.Now()
	b.fake.HandleFunc("core.uptime", func(kamrpctest.Request) kamrpctest.Response {
		return kamrpctest.Response{Result: fmt.Sprintf(`{"uptime":%d}`, 1000+int(time.Since(began).Seconds()))}
	})
	b.fake.HandleFunc("uac.reg_info", func(kamrpctest.Request) kamrpctest.Response {
		time.Sleep(700 * time.Millisecond) // a slow server
		return kamrpctest.Response{Result: `{"l_uuid":"a","flags":16}`}
	})
	b.fake.Handle("uac.reg_refresh", "{}")
	b.start(func(s *Server) { hurry(s.inForce.Load()) })
	b.server.inForce.Load().policy.Catalogue.Get("uac.refresh").Waits = 6 * time.Second
	if r := b.run(nocToken, "uac.refresh", `{"uuid":"a"}`); r.Outcome != audit.Unverified || !strings.Contains(r.Detail, "not registered yet") {
		t.Errorf("%s", r.Text)
	}
	if r := b.run(nocToken, "uac.refresh", `{"uuid":"a"}`); r.Outcome != audit.Unverified {
		t.Errorf("%s", r.Text)
	}
}
