package repair

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"go.yaml.in/yaml/v2"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/action"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/audit"
)

// drainRule takes a destination out of set 1, and later puts it back.
const drainRule = `
mode: enforce
match: {instance: 'sip1:9494'}
rules:
  - name: drain
    match: {alertname: GatewayFails}
    action: dispatcher.set-state
    params: {set: {label: set, enum: [1]}, uri: {label: uri, any: true}, state: {value: dx}}
    confirm: {htable: [{table: failed, label: uri, above: 5}]}
    undo_on_resolved: true
`

// drain is drainRule after validation.
func drain(t testing.TB) *Rules {
	t.Helper()
	var cfg Config
	if err := yaml.UnmarshalStrict([]byte(drainRule), &cfg); err != nil {
		t.Fatal(err)
	}
	rules, err := NewRules(&cfg, action.NewCatalogue(), action.Guards{MinActive: 1, MaxDrop: 0.5, MinUptime: time.Second}, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	return rules
}

func FuzzParseNotification(f *testing.F) {
	for _, seed := range []string{
		`{}`, `{"version":"4","groupKey":"g","truncatedAlerts":0,"alerts":[{"status":"firing","labels":{"alertname":"x","uri":"sip:a"},"startsAt":"2026-01-01T00:00:00Z","endsAt":"0001-01-01T00:00:00Z","fingerprint":"ab12"}]}`,
		`{"version":"4","alerts":null}`, `{"version":"4","truncatedAlerts":-1}`, `{"version":"4","alerts":[{"labels":{"a":1}}]}`, `[]`, `{"version":"4"} {}`, `{"Version":"4","version":"3"}`,
	} {
		f.Add([]byte(seed))
	}
	compiled := drain(f)
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
			// The values that a rule would read from it must match the schema.
			for _, r := range compiled.rules {
				for _, p := range r.action.Params {
					if source := r.params[p.Name]; source.Label != "" {
						if checked, why := p.Check(p.Given(a.labels[source.Label])); why == "" && source.Meets(checked) && strings.ContainsFunc(fmt.Sprint(checked), action.NotPrintable) {
							t.Fatalf("%q", checked)
						}
					}
				}
			}
		}
	})
}

func FuzzReplay(f *testing.F) {
	file := filepath.Join(f.TempDir(), "audit.jsonl")
	log := audit.New(audit.Config{File: file, MaxSizeMB: 64, Keep: 3, MinFreeMB: 1}, audit.Options{Now: time.Now})
	if err := log.Start(func(audit.Record) {}); err != nil {
		f.Fatal(err)
	}
	for range 3 {
		if err := log.Append(audit.Record{Kind: audit.KindIntent, ID: "1", Params: map[string]any{"a": 1}}, audit.Record{Kind: audit.KindOutcome, ID: "1"}); err != nil {
			f.Fatal(err)
		}
	}
	if err := log.Close(); err != nil {
		f.Fatal(err)
	}
	good, err := os.ReadFile(file)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte("{}\n{}\n"))
	f.Add([]byte(`{"seq":1`))
	f.Add([]byte(`{"seq":1,"kind":"outcome","id":"1","outcome":"applied","action":"uac.disable","remediation":{"rule":"a","step":"do"}}` + "\n"))
	f.Fuzz(func(_ *testing.T, text []byte) {
		j, l := action.NewJournal(time.Now), NewLedger(time.Now)
		_ = audit.Read(bytes.NewReader(text), func(r audit.Record) { j.Replay(r); l.Take(r) })
		l.open()
	})
}
