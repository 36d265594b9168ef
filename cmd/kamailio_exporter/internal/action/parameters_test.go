package action

import (
	"testing"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/audit"
)

// The form of a parameter can depend on the value of another parameter.
func TestForms(t *testing.T) {
	for _, tc := range []struct {
		action string
		given  map[string]any
		want   any // nil: refused
	}{
		{"cfg.set", map[string]any{"variable": "registrar.max_expires", "value": Number("1")}, nil},
		{"cfg.set", map[string]any{"variable": "registrar.max_expires", "value": Number("-1")}, nil},
		{"cfg.set", map[string]any{"variable": "registrar.max_expires", "value": Number("0")}, int64(0)},
		{"cfg.set", map[string]any{"variable": "registrar.max_expires", "value": Number("60")}, int64(60)},
		{"cfg.set", map[string]any{"variable": "registrar.default_expires", "value": Number("0")}, nil},
		{"cfg.set", map[string]any{"variable": "core.debug", "value": Number("-1")}, int64(-1)},
		{"cfg.set", map[string]any{"variable": "core.debug", "value": Number("4")}, nil},
		{"secfilter.block", map[string]any{"kind": "ip", "value": "1"}, nil},
		{"secfilter.block", map[string]any{"kind": "ip", "value": "fe80::1%eth0"}, nil},
		{"secfilter.block", map[string]any{"kind": "ip", "value": "2001:DB8::0:1"}, "2001:db8::1"},
		{"secfilter.block", map[string]any{"kind": "user", "value": "12"}, nil},
		{"secfilter.unblock", map[string]any{"kind": "ip", "value": "1"}, "1"},
		{"secfilter.unblock", map[string]any{"kind": "ip", "value": "2001:DB8::0:1"}, "2001:db8::1"},
	} {
		args, err := NewCatalogue().Get(tc.action).Check(tc.given)
		switch {
		case tc.want == nil && err == nil:
			t.Errorf("%v is let through", tc.given)
		case tc.want != nil && (err != nil || args["value"] != tc.want):
			t.Errorf("%v: %v, %v", tc.given, args["value"], err)
		}
	}
}

// Values that Kamailio compares without case name the same target.
func TestTargetsWithoutCase(t *testing.T) {
	for _, tc := range []struct {
		action, param, is, other string
		same                     bool
	}{
		{"dispatcher.set-state", "uri", "sip:gw.example;transport=UDP", "sip:GW.example;transport=udp", true},
		{"dispatcher.set-state", "uri", "sip:gw.example", "sip:gw2.example", false},
		{"secfilter.block", "value", "Evil", "evil", true},
		{"usrloc.remove", "aor", "Alice@example.com", "alice@example.com", true},
		{"htable.delete", "key", "Alice", "alice", false},
		{"uac.enable", "uuid", "Trunk", "trunk", false},
	} {
		a := NewCatalogue().Get(tc.action)
		is, other := map[string]any{tc.param: tc.is}, map[string]any{tc.param: tc.other}
		if a.Touched(audit.Record{Params: other}, is) != tc.same || (a.Target(is) == a.Target(other)) != tc.same {
			t.Errorf("%s: %s and %s: one target: %t", tc.action, tc.is, tc.other, !tc.same)
		}
	}
}
