package admin

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/action"
)

func FuzzParseRequest(f *testing.F) {
	for _, seed := range []string{
		`{}`, `{"params":{"set":1,"uri":"sip:a","on":true},"reason":"x"}`, `{"params":{},"params":{}}`, `{"Params":{}}`, `[]`,
		`{"params":{"a":{"b":1}}}`, `{"params":{"a":1e5}}`, `{"params":{"a":"\ud800"}}`, "\xef\xbb\xbf{}", `{"params":{"a":"\u0000"}} `,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		req, err := parseRequest(text)
		if err != nil {
			if strings.ContainsAny(err.Error(), "\r\n") || !utf8.ValidString(err.Error()) {
				t.Errorf("%q", err)
			}
			return
		}
		// An accepted body is also valid for the standard parser, with the same
		// content.
		var other struct {
			Params map[string]any `json:"params"`
			Reason string         `json:"reason"`
		}
		d := json.NewDecoder(bytes.NewReader(text))
		d.UseNumber()
		d.DisallowUnknownFields()
		if err := d.Decode(&other); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		if len(other.Params) != len(req.Params) || other.Reason != req.Reason {
			t.Fatalf("%q: %v and %v", text, req, other)
		}
		for name, value := range req.Params {
			if n, ok := value.(action.Number); ok {
				value = json.Number(n)
			}
			if other.Params[name] != value {
				t.Errorf("%q: %s is %v and %v", text, name, value, other.Params[name])
			}
		}
	})
}

func FuzzParseConfig(f *testing.F) {
	f.Add([]byte("admin:\n  enabled: true\n" + strings.TrimLeft(policyText(), "\n")))
	f.Add([]byte("admin:\n  enabled: true\n" + strings.TrimLeft(rulesText("enforce", drainRule), "\n")))
	for _, seed := range []string{
		"admin: {enabled: false}\n", "admin: {enabled: true, users: {a: {peer_uid: [0], grants: [{action: pdt.reload}]}}}\n",
		"admin: &a {roles: *a}\n", "admin: {enabled: true, listen: '[::]:1', tls: {}}\n", "admin: {enabled: true, limits: {cooldown: 99999h}}\n", "admin: [1]\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		cfg, err := Parse(text)
		if err != nil || cfg == nil {
			return
		}
		// An accepted configuration has at least one user, and TLS off loopback.
		if len(cfg.Users) == 0 {
			t.Fatal("no users")
		}
		network, address, err := cfg.address()
		if err != nil || network == "tcp" && cfg.TLS == nil && !strings.HasPrefix(address, "127.") && !strings.HasPrefix(address, "[") {
			t.Fatalf("%s %s %v", network, address, err)
		}
		if err := PrintGrants(&bytes.Buffer{}, cfg); err != nil {
			t.Fatal(err)
		}
	})
}
