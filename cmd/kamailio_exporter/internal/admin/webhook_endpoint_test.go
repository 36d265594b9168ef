package admin

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/adminapi"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc/kamrpctest"
)

// Tokens of Alertmanager and of the user who closes breakers.
const (
	amToken   = adminapi.TokenPrefix + "AM00000000000000000000000000000000000000000000000000"
	leadToken = adminapi.TokenPrefix + "LEAD000000000000000000000000000000000000000000000000"
)

// drainRule takes a destination out of set 1, and later puts it back.
const drainRule = `
    - name: drain
      match: {alertname: GatewayFails}
      action: dispatcher.set-state
      params: {set: {label: set, enum: [1]}, uri: {label: uri, any: true}, state: {value: dx}}
      confirm: {htable: [{table: failed, label: uri, above: 5}]}
      guard: {min_active: 3, min_active_ratio: 0.5}
      budget: {per_target: 1/30m, per_rule: 10/1h}
      undo_on_resolved: true
`

func rulesText(mode, rules string) string {
	return policyText() + fmt.Sprintf("    am: {kind: webhook, tokens: [{sha256: %s}]}\n    lead: {tokens: [{sha256: %s}], grants: [{action: remediation.reset, params: {rule: {any: true}}}]}\n",
		adminapi.HashToken(amToken), adminapi.HashToken(leadToken)) +
		"remediation:\n  mode: " + mode + "\n  match: {instance: 'sip1:9494'}\n  budget: 20/1h\n  rules:" + rules
}

// dispatcherFake simulates dispatcher set 1.
type dispatcherFake struct {
	mu     sync.Mutex
	flags  []string
	least  int // lowest number of active destinations so far
	sets   int
	failed map[string]int64 // the script's counter, by URI
}

func newDispatcherFake(fake *kamrpctest.Server, n int) *dispatcherFake {
	d := &dispatcherFake{flags: slices.Repeat([]string{"AP"}, n), least: n, failed: map[string]int64{}}
	for i := range n {
		d.failed[gatewayURI(i)] = 10
	}
	fake.HandleFunc("dispatcher.list", func(kamrpctest.Request) kamrpctest.Response {
		d.mu.Lock()
		defer d.mu.Unlock()
		return kamrpctest.Response{Result: destinations(d.flags...)}
	})
	fake.HandleFunc("dispatcher.set_state", func(r kamrpctest.Request) kamrpctest.Response {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.sets++
		for i := range d.flags {
			if gatewayURI(i) == r.Params[2] {
				d.flags[i] = strings.ToUpper(fmt.Sprint(r.Params[0]))
			}
		}
		d.least = min(d.least, d.active())
		return kamrpctest.Response{Result: `"ok"`}
	})
	fake.HandleFunc("htable.get", func(r kamrpctest.Request) kamrpctest.Response {
		d.mu.Lock()
		defer d.mu.Unlock()
		n, ok := d.failed[fmt.Sprint(r.Params[1])]
		if !ok {
			return kamrpctest.Response{Code: 500, Message: "Key name doesn't exist in htable."}
		}
		return kamrpctest.Response{Result: fmt.Sprintf(`{"item":{"name":%q,"value":%d}}`, r.Params[1], n)}
	})
	return d
}

func (d *dispatcherFake) active() int {
	n := 0
	for _, f := range d.flags {
		if strings.HasPrefix(f, "A") {
			n++
		}
	}
	return n
}

func (d *dispatcherFake) set(i int, flags string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.flags[i] = flags
}

func (d *dispatcherFake) state() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return strings.Join(d.flags, " ")
}

func gatewayURI(i int) string { return fmt.Sprintf("sip:10.0.0.%d:5060", i+1) }

// ruledEndpoint is an endpoint with rules, a set of six destinations, and a clock that
// can be moved.
type ruledEndpoint struct {
	*endpoint
	d     *dispatcherFake
	ahead atomic.Int64 // how far the clock was moved
	good  atomic.Bool  // result of the last scrape
	began time.Time    // start of the alerts, by the clock before it was moved
}

func newRuledEndpoint(t *testing.T, mode, rules string) *ruledEndpoint {
	t.Helper()
	b := &ruledEndpoint{endpoint: newEndpoint(t, rulesText(mode, rules)), began: time.Now().Add(-time.Minute)}
	b.d = newDispatcherFake(b.fake, 6)
	b.good.Store(true)
	b.begin()
	return b
}

func (b *ruledEndpoint) now() time.Time { return time.Now().Add(time.Duration(b.ahead.Load())) }

func (b *ruledEndpoint) pass(d time.Duration) { b.ahead.Add(int64(d)) }

func (b *ruledEndpoint) begin() {
	b.t.Helper()
	b.opts.now, b.opts.Scraped = b.now, func() (time.Time, bool) { return b.now(), b.good.Load() }
	b.start(nil)
}

// again restarts the endpoint with the same audit log.
func (b *ruledEndpoint) again() {
	b.t.Helper()
	b.stop()
	b.begin()
}

// fires returns an alert about a gateway. labels are pairs of name and value.
func (b *ruledEndpoint) fires(i int, labels ...string) map[string]any {
	return b.alert("firing", gatewayURI(i), labels...)
}

func (b *ruledEndpoint) alert(status, uri string, labels ...string) map[string]any {
	all := map[string]string{"alertname": "GatewayFails", "instance": "sip1:9494", "set": "1", "uri": uri}
	for i := 0; i+1 < len(labels); i += 2 {
		all[labels[i]] = labels[i+1]
	}
	return map[string]any{
		"status": status, "labels": all, "annotations": map[string]string{"summary": "x"}, "generatorURL": "http://evil.example/",
		"startsAt": b.began.Add(time.Duration(b.ahead.Load())).Format(time.RFC3339Nano), "endsAt": b.now().Format(time.RFC3339Nano), "fingerprint": adminapi.HashToken(uri + fmt.Sprint(labels))[:16],
	}
}

func payload(group string, alerts ...map[string]any) string {
	text, err := json.Marshal(map[string]any{
		"version": "4", "groupKey": group, "truncatedAlerts": 0, "status": "firing", "receiver": "repair", "groupLabels": map[string]string{},
		"commonLabels": map[string]string{}, "commonAnnotations": map[string]string{}, "externalURL": "http://x", "alerts": alerts,
	})
	if err != nil {
		panic(err)
	}
	return string(text)
}

type notified struct {
	reply
	adminapi.Verdicts
}

func (b *ruledEndpoint) send(body string) notified {
	b.t.Helper()
	n := notified{reply: b.call(amToken, "POST", adminapi.WebhookPath, body)}
	if n.Status == 202 {
		if err := json.Unmarshal([]byte(n.Text), &n.Verdicts); err != nil {
			b.t.Fatal(err)
		}
	}
	return n
}

// says sends a group of one alert and returns the result: an outcome, or the guard
// rail.
func (b *ruledEndpoint) says(a map[string]any) string {
	b.t.Helper()
	n := b.send(payload(fmt.Sprint(a["fingerprint"]), a))
	return n.word()
}

func (n notified) word() string {
	switch {
	case n.Status != 202:
		return fmt.Sprintf("%d %s", n.Status, n.problem())
	case len(n.Results) == 0:
		return "ignored"
	}
	last := n.Results[len(n.Results)-1]
	if last.By != "" {
		return last.By
	}
	return string(last.Outcome)
}

func (b *ruledEndpoint) want(what, got, want string) {
	b.t.Helper()
	if got != want {
		b.t.Errorf("%s: %s, not %s", what, got, want)
	}
}

// metric returns the value of one series; -1 if it does not exist.
func (b *ruledEndpoint) metric(name string, labels ...string) float64 {
	b.t.Helper()
	registry := prometheus.NewRegistry()
	registry.MustRegister(b.server.Metrics())
	families, err := registry.Gather()
	if err != nil {
		b.t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			if hasLabels(m, labels) {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
			}
		}
	}
	return -1
}

func hasLabels(m *dto.Metric, labels []string) bool {
	have := map[string]string{}
	for _, l := range m.GetLabel() {
		have[l.GetName()] = l.GetValue()
	}
	for i := 0; i+1 < len(labels); i += 2 {
		if have[labels[i]] != labels[i+1] {
			return false
		}
	}
	return true
}
