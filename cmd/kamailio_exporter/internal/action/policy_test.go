package action

import (
	"testing"

	"go.yaml.in/yaml/v2"
)

func TestDomainOf(t *testing.T) {
	for text, want := range map[string]string{
		"sip:a@example.com": "example.com", "sips:a@Example.com:5061": "example.com", "sip:example.com": "example.com", "a@example.com": "example.com",
		"sip:a@[2001:db8::1]:5060": "[2001:db8::1]", "sip:a@[2001:db8::1]": "[2001:db8::1]",
		// A URI that may lead to a different host has no domain.
		"sip:a@example.com;maddr=evil.example": "", "sip:a@example.com?Route=x": "", "sip:a@b@example.com": "", "sip:a%40example.com": "", "sip:evil.example;x=@example.com": "",
	} {
		if got := domainOf(text); got != want {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
}

// policyOf builds the policy of a user named a with these grants.
func policyOf(t *testing.T, grants string) *Policy {
	t.Helper()
	var all []Grant
	if err := yaml.UnmarshalStrict([]byte(grants), &all); err != nil {
		t.Fatalf("%s: %v", grants, err)
	}
	policy, err := NewPolicy(NewCatalogue(), nil, map[string]Account{"a": {Grants: all}})
	if err != nil {
		t.Fatalf("%s: %v", grants, err)
	}
	return policy
}

// constraint parses a constraint for the parameter of an action.
func constraint(t *testing.T, action, param, text string) (Param, Constraint) {
	t.Helper()
	policy := policyOf(t, "[{action: "+action+", params: "+text+"}]")
	for _, p := range policy.Catalogue.Get(action).Params {
		if p.Name == param {
			return p, policy.User("a").Grants(action)[0].Params[param]
		}
	}
	t.Fatalf("%s has no parameter %s", action, param)
	return Param{}, Constraint{}
}

func TestConstraints(t *testing.T) {
	const bridge = "dialog.bridge"
	for _, tc := range []struct {
		action, param, grant string
		good, bad            []any
	}{
		{"usrloc.remove", "aor", "{table: {any: true}, aor: {domains: [example.com]}}", []any{"a@example.com"}, []any{"a", "a@example.net", "a@example.com.evil", "example.com@evil"}},
		{bridge, "from", "{from: {domains: [example.com]}, to: {any: true}}", []any{"sip:a@example.com"}, []any{"sip:a@evil", "sip:a@example.com;maddr=evil", "sip:a@example.com@evil"}},
		{"htable.delete", "key", "{table: {any: true}, key: {regexp: 'a|b'}}", []any{"a", "b"}, []any{"ab", "xa", "bx", "a\n"}},
		{"htable.delete", "key", "{table: {any: true}, key: {regexp: '(?m)^a$'}}", []any{"a"}, []any{"aa"}},
		{"htable.delete", "key", "{table: {any: true}, key: {enum: [a], regexp: '.*'}}", []any{"a"}, []any{"b"}},
		{"htable.set-int", "value", "{table: {any: true}, key: {any: true}, value: {min: -1, max: 2}}", []any{Number("-1"), Number("2")}, []any{Number("-2"), Number("3"), Number("1.0"), Number("1e0"), Number("+1"), Number("01"), Number("-0"), "1", true}},
		{"htable.set-int", "value", "{table: {any: true}, key: {any: true}, value: {enum: [1, 5]}}", []any{Number("1"), Number("5")}, []any{Number("2")}},
		{"rtpengine.set-enabled", "enabled", "{url: {any: true}, enabled: {enum: ['true']}}", []any{true}, []any{false, "true", Number("1")}},
		{"dispatcher.set-state", "uri", "{set: {any: true}, uri: {any: true}, state: {any: true}}", []any{"sip:10.0.0.1", "sip:[::1]:5060;transport=tcp"}, []any{"all", "", "sip:", "sip:a b", "sip:a\r\nX: y", "sip:a?b=c", "tel:1", "sip:ü"}},
		{"dialog.end", "call_id", "{call_id: {any: true}}", []any{"1-2@127.0.0.1", "a(b)c"}, []any{"a b", "a\tb", "", "ä"}},
		{"cfg.set", "variable", "{variable: {any: true}, value: {any: true}}", []any{"core.debug"}, []any{"core.udp4_raw", "core.debug ", "Core.debug"}},
	} {
		p, c := constraint(t, tc.action, tc.param, tc.grant)
		granted := func(value any) bool {
			checked, why := p.Check(value)
			return why == "" && c.Meets(checked)
		}
		for _, value := range tc.good {
			if !granted(value) {
				t.Errorf("%s %s: %v is not granted", tc.action, tc.grant, value)
			}
		}
		for _, value := range tc.bad {
			if granted(value) {
				t.Errorf("%s %s: %q is granted", tc.action, tc.grant, value)
			}
		}
	}
}

// One grant must allow all parameters; two grants are not combined.
func TestGrantsDoNotMix(t *testing.T) {
	policy := policyOf(t, `
- {action: htable.delete, params: {table: {enum: [one]}, key: {enum: [x]}}}
- {action: htable.delete, params: {table: {enum: [two]}, key: {enum: [y]}}}
`)
	action := policy.Catalogue.Get("htable.delete")
	for _, tc := range []struct {
		table, key string
		want       bool
	}{{"one", "x", true}, {"two", "y", true}, {"one", "y", false}, {"two", "x", false}, {"three", "x", false}} {
		if got := policy.User("a").Denied(action, Args{"table": tc.table, "key": tc.key}) == ""; got != tc.want {
			t.Errorf("%s %s: %t", tc.table, tc.key, got)
		}
	}
}
