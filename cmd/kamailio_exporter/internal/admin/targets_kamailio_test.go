//go:build linux

package admin

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/audit"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc/kamrpctest/kamailiotest"
)

// blockRule blocks an address that the script has counted.
const blockRule = `
    - name: block
      match: {alertname: Scanner}
      action: secfilter.block
      params: {kind: {value: ip}, value: {label: address, regexp: '[0-9.]+'}}
      confirm: {htable: [{table: calls, label: address, above: 5}]}
      budget: {per_target: 1/30m, per_rule: 10/1h}
`

// The target of secfilter.block is the address: each address has its own budget, and
// blocking one by hand does not affect others.
func TestAddressesToBlockAreTargets(t *testing.T) {
	onAll(t, kamailiotest.Config{}, func(t *testing.T, server *kamailiotest.Server) {
		b := realRuled(t, server, "enforce", blockRule)
		done := "applied"
		if !six(server) {
			done = "applied_unverified" // it prints nothing over JSON-RPC
		}
		scanner := func(i int) map[string]any {
			address := fmt.Sprintf("203.0.113.%d", i)
			server.RPC(t, "htable.seti", "calls", address, 10)
			return b.alert("firing", "", "alertname", "Scanner", "address", address)
		}
		b.want("the first address", b.says(scanner(1)), done)
		b.want("another address", b.says(scanner(2)), done)
		again := scanner(2)
		again["fingerprint"] = "abc"
		b.want("the same address again", b.says(again), "target_budget")
		b.wants(t, "secfilter.block", `{"kind":"ip","value":"203.0.113.3"}`, audit.Outcome(done), done == "applied")
		b.want("one that a person has blocked", b.says(scanner(3)), "person")
		b.want("another than a person has blocked", b.says(scanner(4)), done)
		if done == "applied" {
			list := string(server.RPC(t, "secfilter.print", "ip"))
			for i := range 4 {
				if address := fmt.Sprintf("203.0.113.%d", i+1); !strings.Contains(list, address) {
					t.Errorf("%s is not blocked: %s", address, list)
				}
			}
		}
	})
}

// Kamailio ignores the case of destination URIs, so a URI in different case shares the
// same budget and undo.
func TestTargetsIgnoreCase(t *testing.T) {
	onAll(t, kamailiotest.Config{}, func(t *testing.T, server *kamailiotest.Server) {
		b := realRuled(t, server, "enforce", `
    - name: drain
      match: {alertname: GatewayFails}
      action: dispatcher.set-state
      params: {set: {label: set, enum: [1]}, uri: {label: uri, any: true}, state: {value: dx}}
      confirm: {htable: [{table: calls, label: uri, above: 5}]}
      guard: {min_active: 1, min_active_ratio: 0.1}
      budget: {per_target: 1/30m, per_rule: 10/1h}
      undo_on_resolved: true
`)
		one, two := newGateway(t), newGateway(t)
		sql(t, server, fmt.Sprintf(`DELETE FROM dispatcher WHERE setid=1; INSERT INTO dispatcher (setid, destination, flags, priority, attrs, description)
			VALUES (1, '%s;transport=udp', 0, 0, '', ''), (1, '%s', 0, 0, '', '');`, one.URI(), two.URI()))
		reloadGateways(t, server)
		alert := func(status, transport string) map[string]any {
			uri := one.URI() + ";transport=" + transport
			server.RPC(t, "htable.seti", "calls", uri, 10)
			return b.alert(status, uri)
		}
		person := func(transport, state string) {
			t.Helper()
			b.wants(t, "dispatcher.set-state", fmt.Sprintf(`{"set":1,"uri":"%s;transport=%s","state":%q}`, one.URI(), transport, state), audit.Applied, true)
		}
		flags := func() string {
			m := regexp.MustCompile(`transport=udp",\s*"FLAGS":\s*"(..)"`).FindStringSubmatch(string(server.RPC(t, "dispatcher.list")))
			if m == nil {
				t.Fatal("dispatcher.list")
			}
			return m[1]
		}
		b.want("the first alert", b.says(alert("firing", "UDP")), "applied")
		server.RPC(t, "dispatcher.set_state", "ax", 1, one.URI()+";transport=udp")
		b.want("in other letters", b.says(alert("firing", "udp")), "target_budget")
		server.RPC(t, "dispatcher.set_state", "dx", 1, one.URI()+";transport=udp")

		// The state is still what the rule left, but a person has set it since.
		person("Udp", "ax")
		person("uDP", "dx")
		b.pass(31 * time.Minute)
		b.want("resolved", b.says(alert("resolved", "UDP")), "ignored")
		if is := flags(); is != "DX" {
			t.Errorf("put back against a person's will: %s", is)
		}
	})
}
