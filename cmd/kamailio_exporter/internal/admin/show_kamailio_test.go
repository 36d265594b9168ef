//go:build linux

package admin

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/action"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/adminapi"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/audit"

	"github.com/kamailio-exporter/kamailio_exporter/kamrpc/kamrpctest/kamailiotest"
)

func TestOldTextsOfRealKamailioAreHidden(t *testing.T) {
	outcomesOf(t, func(t *testing.T, server *kamailiotest.Server, b *endpoint) {
		server.RPC(t, "htable.sets", "ipban", "k", "topsecret")
		oldTexts(t, b)
	})
}

// The listed targets of each kind are the existing ones, and can be used in an action
// unchanged.
func TestTargetsOfRealKamailio(t *testing.T) {
	onAll(t, kamailiotest.Config{Traffic: true}, func(t *testing.T, server *kamailiotest.Server) {
		b := realEndpoint(t, server.HTTPURL)
		server.RPC(t, "secfilter.add_bl", "ua", "bad agent")
		list := func(kind string) (all adminapi.Targets, r reply) {
			r = b.call(nocToken, "GET", adminapi.TargetsPath+"/"+kind, "")
			if r.Status == 200 {
				if err := json.Unmarshal([]byte(r.Text), &all); err != nil {
					t.Fatal(err)
				}
			}
			return all, r
		}
		until(t, "a call", func() bool { all, _ := list("dialog"); return all.All > 0 })
		for kind, want := range map[string]string{
			"dispatcher": `"set":1`, "lcr": `"gw_id":1,"lcr_id":1,"name":"lcr-a"`, "rtpengine": `"url":"udp:127.0.0.1:`, "uac": `"registered":true,"uuid":"trunk-a"`,
			"htable": `{"database":false,"table":"ipban"}`, "mtree": `"tree":"prefixes"`, "dialog": `"state":"confirmed"`, "usrloc": `"table":"location","users":`,
			"secfilter": `{"kind":"ua","value":"bad agent"}`, "stats": `{"group":"core","statistics":`, "cfg": `{"value":`,
		} {
			all, r := list(kind)
			if kind == "secfilter" && !six(server) { // before 6.0 it prints nothing
				if r.Status != 501 || r.problem() != "module-missing" {
					t.Errorf("secfilter: %d %s", r.Status, r.Text)
				}
				continue
			}
			if r.Status != 200 || !strings.Contains(r.Text, want) || all.All != len(all.Targets) {
				t.Errorf("%s: %d, no %s: %.1500s", kind, r.Status, want, r.Text)
			}
			for _, secret := range []string{"secret", "auth_", "sip:ring", "sip:caller"} { // passwords, and the parties of calls
				if strings.Contains(r.Text, secret) {
					t.Errorf("%s: %s: %s", kind, secret, r.Text)
				}
			}
			// Each target can be given to every action of its kind, without further
			// parameters to identify it.
			for _, a := range catalogue().Actions {
				for _, p := range a.Params {
					if action.Module(a.Name) != kind || !slices.Contains(all.Params, p.Name) {
						continue
					}
					for _, one := range all.Targets {
						text := audit.TextOf(one[p.Name])
						full := slices.IndexFunc(catalogue().Get(a.Name).Params, func(q action.Param) bool { return q.Name == p.Name })
						if _, why := catalogue().Get(a.Name).Params[full].Check(p.Given(text)); why != "" {
							t.Errorf("%s: %s %q %s", a.Name, p.Name, text, why)
						}
					}
				}
			}
		}
		if len(action.TargetKinds()) != 11 {
			t.Errorf("%d kinds, and not all are tried", len(action.TargetKinds()))
		}

		// A mistyped target is not found, and the intended one is suggested.
		all, _ := list("dispatcher")
		uri := fmt.Sprint(all.Targets[0]["uri"])
		r := b.run(nocToken, "dispatcher.set-state", fmt.Sprintf(`{"set":%v,"uri":"%s9","state":"ip"}`, all.Targets[0]["set"], uri))
		if r.Status != 422 || !strings.Contains(r.Detail, fmt.Sprintf("the nearest first: set=%v uri=%s, ", all.Targets[0]["set"], uri)) {
			t.Errorf("%s", r.Text)
		}
		r = b.run(nocToken, "uac.disable", `{"uuid":"trunk-aa"}`)
		if r.Status != 422 || !strings.Contains(r.Detail, "the nearest first: uuid=trunk-a, ") {
			t.Errorf("%s", r.Text)
		}
	})
}
