package admin

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"
)

func FuzzParseBody(f *testing.F) {
	for _, seed := range []string{
		`{}`, `{"params":{"set":1,"uri":"sip:a","on":true},"reason":"x"}`, `{"params":{},"params":{}}`, `{"Params":{}}`, `[]`,
		`{"params":{"a":{"b":1}}}`, `{"params":{"a":1e5}}`, `{"params":{"a":"\ud800"}}`, "\xef\xbb\xbf{}", `{"params":{"a":"\u0000"}} `,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		req, err := parseBody(text)
		if err != nil {
			if strings.ContainsAny(err.Error(), "\r\n") || !utf8.ValidString(err.Error()) {
				t.Errorf("%q", err)
			}
			return
		}
		// What is taken is an object for the standard parser too, with the same in it.
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
		if len(other.Params) != len(req.params) || other.Reason != req.reason {
			t.Fatalf("%q: %v and %v", text, req, other)
		}
		for name, value := range req.params {
			if n, ok := value.(number); ok {
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
	f.Add([]byte("admin:\n  enabled: true\n" + strings.TrimLeft(remedyText("enforce", drainRule), "\n")))
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
		// What is taken has somebody in it, and nothing open.
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

func FuzzParseNotification(f *testing.F) {
	for _, seed := range []string{
		`{}`, `{"version":"4","groupKey":"g","truncatedAlerts":0,"alerts":[{"status":"firing","labels":{"alertname":"x","uri":"sip:a"},"startsAt":"2026-01-01T00:00:00Z","endsAt":"0001-01-01T00:00:00Z","fingerprint":"ab12"}]}`,
		`{"version":"4","alerts":null}`, `{"version":"4","truncatedAlerts":-1}`, `{"version":"4","alerts":[{"labels":{"a":1}}]}`, `[]`, `{"version":"4"} {}`, `{"Version":"4","version":"3"}`,
	} {
		f.Add([]byte(seed))
	}
	rules, err := Parse([]byte("admin:\n  enabled: true\n" + strings.TrimLeft(remedyText("enforce", drainRule), "\n")))
	if err != nil {
		f.Fatal(err)
	}
	catalogue := newCatalogue()
	compiled, err := newRemediation(rules, catalogue)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		n, err := parseNotification(text)
		if err != nil {
			if strings.ContainsAny(err.Error(), "\r\n") || !utf8.ValidString(err.Error()) {
				t.Errorf("%q", err)
			}
			return
		}
		if len(n.alerts) > maxAlerts {
			t.Fatalf("%d alerts", len(n.alerts))
		}
		for _, a := range n.alerts {
			if a.status != onFiring && a.status != onResolved || !fingerprintPattern.MatchString(a.fingerprint) || a.starts.IsZero() {
				t.Fatalf("%+v", a)
			}
			// What a rule would take out of it meets the schema, whatever it is.
			for _, r := range compiled.rules {
				for _, p := range r.action.Params {
					if source := r.params[p.Name]; source.Label != "" {
						if checked, why := p.check(asGiven(p, a.labels[source.Label])); why == "" && source.meets(checked) && strings.ContainsFunc(fmt.Sprint(checked), notPrintable) {
							t.Fatalf("%q", checked)
						}
					}
				}
			}
		}
	})
}

func FuzzReadAudit(f *testing.F) {
	a := newTestAudit(f)
	for range 3 {
		if err := a.append(Record{Kind: recordIntent, ID: "1", Params: map[string]any{"a": 1}}, Record{Kind: recordOutcome, ID: "1"}); err != nil {
			f.Fatal(err)
		}
	}
	var good bytes.Buffer
	_, err := readAudit(a.path, "", func(r Record) {
		line, _ := json.Marshal(r)
		good.Write(append(line, '\n'))
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good.Bytes())
	f.Add([]byte("{}\n{}\n"))
	f.Add([]byte(`{"seq":1`))
	f.Add([]byte(`{"seq":1,"kind":"outcome","id":"1","outcome":"applied","action":"uac.disable","remediation":{"rule":"a","step":"do"}}` + "\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		lines := 0
		j, l := newJournal(a.now), newLedger(a.now)
		result, err := readRecords(bytes.NewReader(text), "", func(r Record) { lines++; j.replay(r); l.take(r) })
		if err != nil {
			return
		}
		if result.good+result.torn != int64(len(text)) || lines > result.lines || result.good < 0 {
			t.Fatalf("%+v of %d bytes", result, len(text))
		}
		j.unfinished()
	})
}
