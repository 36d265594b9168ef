package admin

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/action"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc/kamrpctest"
)

// Every parameter that names an object of Kamailio can be listed, except objects
// without an upper bound and values that only a person can know.
func TestTargetsOfAllActionsAreListed(t *testing.T) {
	unlisted := []string{
		"dialog.terminate from_tag", "dialog.terminate to_tag", "dialog.bridge from", "dialog.bridge to", // of one call
		"usrloc.remove aor", "usrloc.remove-contact aor", "usrloc.remove-contact contact",
		"htable.delete key", "htable.set-string key", "htable.set-int key",
		"presence.refresh-watchers uri", "presence.refresh-watchers event", "presence.refresh-watchers type",
		"remediation.reset rule", // admin rules
	}
	for _, a := range catalogue().Actions {
		for _, p := range a.Params {
			if p.Sets || slices.Contains(unlisted, a.Name+" "+p.Name) {
				continue
			}
			if !slices.ContainsFunc(action.TargetKinds(), func(k action.TargetKind) bool {
				return k.Name == action.Module(a.Name) && slices.Contains(k.Params, p.Name)
			}) {
				t.Errorf("%s of %s cannot be looked up", p.Name, a.Name)
			}
		}
	}
}

func twoSets(fake *kamrpctest.Server) {
	dest := func(uri string) string { return `{"DEST":{"URI":"` + uri + `","FLAGS":"AP"}}` }
	fake.Handle("dispatcher.list", `{"NRSETS":2,"RECORDS":[{"SET":{"ID":1,"TARGETS":[`+dest("sip:10.0.0.1:5060")+","+dest("sip:10.0.0.2:5060")+`]}},{"SET":{"ID":2,"TARGETS":[`+dest("sip:10.0.1.7:5060;transport=tcp")+`]}}]}`)
}

// A user sees the targets that it may name, and no others.
func TestTargetsAreThoseOfTheGrants(t *testing.T) {
	b := newRuledEndpoint(t, "enforce", drainRule)
	twoSets(b.fake)
	b.fake.Handle("htable.listTables", `[{"name":"ipban","dbtable":""},{"name":"secrets","dbtable":"x"}]`)
	b.fake.Handle("uac.reg_dump", `[{"l_uuid":"trunk-a","auth_password":"topsecret","r_domain":"x","flags":20}]`)
	for name, tc := range map[string]struct {
		token, path string
		status      int
		has, hasNot []string
	}{
		"both sets of numbers":     {nocToken, "/dispatcher", 200, []string{`"uri":"sip:10.0.0.1:5060"`, `"set":2`, `"all":3`}, nil},
		"one set":                  {botToken, "/dispatcher", 200, []string{`"uri":"sip:10.0.0.1:5060"`, `"all":2`}, []string{`"set":2`, "10.0.1.7"}},
		"one table":                {nocToken, "/htable", 200, []string{"ipban"}, []string{"secrets"}},
		"no password":              {nocToken, "/uac", 200, []string{`{"enabled":true,"registered":true,"uuid":"trunk-a"}`}, []string{"topsecret"}},
		"an auditor":               {auditorToken, "/htable", 200, []string{"ipban", "secrets"}, nil},
		"nothing granted":          {botToken, "/htable", 404, nil, []string{"ipban"}},
		"no such kind":             {nocToken, "/nonsense", 404, nil, nil},
		"no path":                  {nocToken, "/dispatcher/x", 404, nil, nil},
		"a query":                  {nocToken, "/dispatcher?set=1", 400, nil, nil},
		"the module is not loaded": {nocToken, "/rtpengine", 501, nil, nil},
		"kinds":                    {botToken, "", 200, []string{`{"kinds":["dispatcher"]}`}, nil},
		"kinds of Alertmanager":    {amToken, "", 404, nil, nil},
		"nobody":                   {"", "/dispatcher", 401, nil, nil},
	} {
		r := b.call(tc.token, "GET", "/v1/targets"+tc.path, "")
		if r.Status != tc.status {
			t.Errorf("%s: %d %s", name, r.Status, r.Text)
		}
		for _, text := range tc.has {
			if !strings.Contains(r.Text, text) {
				t.Errorf("%s: no %s: %s", name, text, r.Text)
			}
		}
		for _, text := range tc.hasNot {
			if strings.Contains(r.Text, text) {
				t.Errorf("%s: %s: %s", name, text, r.Text)
			}
		}
	}
	if r := b.call(nocToken, "POST", "/v1/targets/dispatcher", `{}`); r.Status != 405 {
		t.Errorf("POST: %d", r.Status)
	}
	b.noChange("targets")

	// A long list is truncated, and the total is reported.
	flags := slices.Repeat([]string{"AP"}, action.MaxTargets+5)
	b.fake.Handle("dispatcher.list", destinations(flags...))
	if r := b.call(nocToken, "GET", "/v1/targets/dispatcher", ""); strings.Count(r.Text, `"uri":`) != action.MaxTargets || !strings.Contains(r.Text, fmt.Sprintf(`"all":%d`, len(flags))) {
		t.Errorf("%.300s", r.Text)
	}
	// Queries of Kamailio are limited.
	b.fake.HandleFault("dispatcher.list", 404, "No Destination Sets")
	if r := b.call(nocToken, "GET", "/v1/targets/dispatcher", ""); r.Status != 200 || !strings.Contains(r.Text, `"targets":[]`) {
		t.Errorf("no destinations: %d %s", r.Status, r.Text)
	}
}

func TestListsAreLimited(t *testing.T) {
	b := newEndpoint(t, strings.Replace(policyText(), "burst: 100", "burst: 3", 1))
	b.write(strings.Replace(strings.Replace(policyText(), "burst: 100", "burst: 3", 1), "per_user_per_second: 100", "per_user_per_second: 0.001", 1))
	b.start(nil)
	for range 10 {
		_ = b.call(nocToken, "GET", "/v1/targets/dispatcher", "")
	}
	if n := b.fake.CallCount("dispatcher.list"); n != 3 {
		t.Errorf("%d lists", n)
	}
}

// A client that names a missing target is shown the nearest ones that it may name.
func TestNearestIsNamed(t *testing.T) {
	b := newEndpoint(t, policyText())
	twoSets(b.fake)
	b.fake.Handle("htable.listTables", `[{"name":"ipban","dbtable":""},{"name":"secrets","dbtable":"x"}]`)
	b.fake.HandleFault("htable.get", 500, "Key name doesn't exist in htable.")
	b.fake.Handle("htable.delete", `"Ok. Key deleted."`)
	b.start(nil)
	for name, tc := range map[string]struct{ token, action, params, detail string }{
		"a digit":       {nocToken, "dispatcher.set-state", `{"set":1,"uri":"sip:10.0.0.22:5060","state":"ip"}`, "there are 3 that you may name, the nearest first: set=1 uri=sip:10.0.0.2:5060, set=1 uri=sip:10.0.0.1:5060, set=2 uri=sip:10.0.1.7:5060;transport=tcp"},
		"a transport":   {nocToken, "dispatcher.set-state", `{"set":2,"uri":"sip:10.0.1.7:5060","state":"ip"}`, ""},
		"another set":   {nocToken, "dispatcher.set-state", `{"set":2,"uri":"sip:10.0.0.1:5060","state":"ip"}`, "there are 3 that you may name, the nearest first: set=1 uri=sip:10.0.0.1:5060, "},
		"granted alone": {botToken, "dispatcher.set-state", `{"set":1,"uri":"sip:10.0.1.7:5060;transport=tcp","state":"ip"}`, "there are 2 that you may name, the nearest first: set=1 uri=sip:10.0.0."},
		"an item":       {nocToken, "htable.delete", `{"table":"ipban","key":"192.0.2.1"}`, ""},
	} {
		r := b.run(tc.token, tc.action, tc.params)
		if r.problem() != "target-not-found" || !strings.HasPrefix(r.Detail, tc.detail) || (name == "an item") != (r.Detail == "") || name == "granted alone" && strings.Contains(r.Text, "10.0.1.7") {
			t.Errorf("%s: %s", name, r.Text)
		}
	}
	b.noChange("mistyped")
}
