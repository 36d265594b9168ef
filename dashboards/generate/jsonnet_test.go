package generate

import (
	"encoding/json"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-jsonnet"
	"go.yaml.in/yaml/v2"
)

// TestMixin compiles the jsonnet mixin, which must have all dashboards and rules.
func TestMixin(t *testing.T) {
	text, err := jsonnet.MakeVM().EvaluateAnonymousSnippet("test", `
		local mixin = { prometheusAlerts+:: { groups: [] }, prometheusRules+:: { groups: [] } } + import '../mixin/mixin.libsonnet';
		{ dashboards: mixin.grafanaDashboards, groups: mixin.prometheusAlerts.groups + mixin.prometheusRules.groups }`)
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Dashboards map[string]any
		Groups     []struct{ Name string }
	}
	if err := json.Unmarshal([]byte(text), &got); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("../*.json")
	if err != nil || len(files) == 0 || len(got.Dashboards) != len(files) {
		t.Errorf("%d dashboards, not %d: %v", len(got.Dashboards), len(files), err)
	}
	for _, file := range files {
		var want any
		if err := json.Unmarshal([]byte(readText(t, file)), &want); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got.Dashboards[filepath.Base(file)], want) {
			t.Errorf("mixin.libsonnet lacks %s, or has another one", file)
		}
	}
	groups := map[string]bool{}
	for _, g := range got.Groups {
		groups[g.Name] = true
	}
	rules, err := filepath.Glob("../../alerts/kamailio-*.yml")
	if err != nil || len(rules) == 0 {
		t.Fatal("no rules: ", err)
	}
	for _, file := range rules {
		var want struct{ Groups []struct{ Name string } }
		if err := yaml.Unmarshal([]byte(readText(t, file)), &want); err != nil {
			t.Fatal(err)
		}
		for _, g := range want.Groups {
			if !groups[g.Name] {
				t.Errorf("mixin.libsonnet lacks the group %s of %s", g.Name, strings.TrimPrefix(file, "../../"))
			}
		}
	}
}
