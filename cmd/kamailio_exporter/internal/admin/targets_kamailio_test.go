//go:build linux

package admin

import (
	"fmt"
	"strings"
	"testing"

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

// The address that secfilter.block blocks is its target: each address has a budget of
// its own, and one that a person blocked is no matter to another.
func TestAddressesToBlockAreTargets(t *testing.T) {
	for _, version := range kamailiotest.Versions(t) {
		t.Run(version, func(t *testing.T) {
			server := kamailiotest.Start(t, kamailiotest.Config{Version: version})
			b := realRuled(t, server, "enforce", blockRule)
			done := "applied"
			if strings.HasPrefix(version, "5.") {
				done = "applied_unverified" // it prints nothing over JSON
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
}
