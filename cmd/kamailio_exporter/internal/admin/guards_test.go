package admin

import (
	"strings"
	"testing"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/audit"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc/kamrpctest"
)

// Guards are checked again after the change. If one no longer holds, the change is
// undone and is never reported as verified.
func TestGuardsAreCheckedAgain(t *testing.T) {
	for name, tc := range map[string]struct {
		back    string // what happens to the other gateway while this one waits
		refuse  bool   // Kamailio refuses to restore this one
		problem string
		outcome audit.Outcome
		state   string
		sets    int
	}{
		"the other stays out":                {"", false, "undone", audit.Failed, "DX AP", 2},
		"the other is put back in time":      {"AP", false, "", audit.Applied, "AP DX", 1},
		"this target cannot be put back":     {"", true, "guard-broken", audit.Contradicted, "DX DX", 1},
		"a third client changes this target": {"IP", false, "guard-broken", audit.Contradicted, "IP IX", 1},
	} {
		t.Run(name, func(t *testing.T) {
			b := newEndpoint(t, policyText())
			d := newDispatcherFake(b.fake, 2)
			reads := 0
			b.fake.HandleFunc("dispatcher.list", func(kamrpctest.Request) kamrpctest.Response {
				d.mu.Lock()
				defer d.mu.Unlock()
				switch reads++; {
				case reads == 2: // the read after the change
					d.flags[0] = "DX"
				case reads == 3 && tc.back != "":
					d.flags[0] = tc.back
					if tc.back == "IP" {
						d.flags[1] = "IX"
					}
				}
				return kamrpctest.Response{Result: destinations(d.flags...)}
			})
			b.fake.HandleFunc("dispatcher.set_state", func(r kamrpctest.Request) kamrpctest.Response {
				d.mu.Lock()
				defer d.mu.Unlock()
				state, _ := r.Params[0].(string)
				if tc.refuse && state == "ap" {
					return kamrpctest.Response{Code: 500, Message: "State Update Failed"}
				}
				d.sets++
				d.flags[1] = strings.ToUpper(state)
				return kamrpctest.Response{Result: `"ok"`}
			})
			b.start(nil)
			r := b.run(nocToken, "dispatcher.set-state", `{"set":1,"uri":"`+gatewayURI(1)+`","state":"dx"}`)
			if r.problem() != tc.problem || tc.problem != "" && r.Problem.Outcome != tc.outcome || tc.problem == "" && !r.Verified {
				t.Errorf("%d %s", r.Status, r.Text)
			}
			if d.state() != tc.state || d.sets != tc.sets {
				t.Errorf("%s after %d changes", d.state(), d.sets)
			}
			records := b.records()
			if last := records[len(records)-1]; last.Outcome != tc.outcome || tc.problem == "guard-broken" && !last.Changed() {
				t.Errorf("%+v", last)
			}
		})
	}
}
