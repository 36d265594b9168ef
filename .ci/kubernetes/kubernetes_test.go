// Package kubernetes tests the examples for Kubernetes. It is a module of its own because
// Helm has hundreds of dependencies.
package kubernetes

import (
	"io"
	"log"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	monitoringalpha "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1alpha1"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"helm.sh/helm/v3/pkg/lint"
	"helm.sh/helm/v3/pkg/lint/support"
	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

const examples = "../../examples/kubernetes"

// central and sidecar are values of the chart, with all that is optional.
var modes = map[string]string{
	"central": `
mode: central
targets:
  sbc-1: {uris: [http://10.0.1.11:5060/RPC], labels: {cluster: fra}}
secret: kamailio-exporter
args: [--log.level=debug]
imagePullSecrets: [{name: registry}]
podLabels: {team: voice}
podAnnotations: {note: x}
nodeSelector: {kubernetes.io/arch: arm64}
tolerations: [{key: voice, operator: Exists}]
monitor: {enabled: true, labels: {release: prometheus}}
rules: {enabled: true, labels: {release: prometheus}}
dashboards: {enabled: true, annotations: {grafana_folder: Kamailio}}
`,
	"sidecar": `
mode: sidecar
kamailio: {args: [-m, "128"], configMap: kamailio, hostNetwork: true, resources: {limits: {memory: 1Gi}}}
args: [--sip.probe=udp:127.0.0.1:5060]
podAnnotations: {note: x}
`,
	"least": "targets: {sbc-1: {uris: [http://10.0.1.11:5060/RPC]}}\nmonitor: {enabled: false}\nrules: {enabled: false}\ndashboards: {enabled: false}\nnetworkPolicy: {enabled: false}\n",
}

// objects decodes what an API server would get. A field that the kind does not have, or of
// another type, is an error.
func objects(t *testing.T, text string) map[string]runtime.Object {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{core.AddToScheme, apps.AddToScheme, networking.AddToScheme, monitoring.AddToScheme, monitoringalpha.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	decoder := json.NewSerializerWithOptions(json.DefaultMetaFactory, scheme, scheme, json.SerializerOptions{Yaml: true, Strict: true})
	found := map[string]runtime.Object{}
	for part := range strings.SplitSeq("\n"+text, "\n---") {
		var named struct {
			Metadata struct{ Name string }
		}
		if err := yaml.Unmarshal([]byte(part), &named); err != nil {
			t.Fatalf("%v in\n%.2000s", err, part)
		}
		if named.Metadata.Name == "" && !strings.Contains(part, "kind:") {
			continue
		}
		object, kind, err := decoder.Decode([]byte(part), nil, nil)
		if err != nil {
			t.Fatalf("%v in\n%.2000s", err, part)
		}
		name := kind.Kind + "/" + named.Metadata.Name
		if found[name] != nil {
			t.Errorf("%s is there twice", name)
		}
		found[name] = object
		if d, ok := object.(*apps.Deployment); ok && len(d.Spec.Template.Spec.Containers) == 1 { // without Kamailio
			restricted(t, name, d.Spec.Template)
		}
	}
	return found
}

// restricted checks that a namespace with the Pod Security Standard "restricted" admits
// these pods.
func restricted(t *testing.T, name string, pod core.PodTemplateSpec) {
	t.Helper()
	checks, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range checks.EvaluatePod(api.LevelVersion{Level: api.LevelRestricted, Version: api.LatestVersion()}, &pod.ObjectMeta, &pod.Spec) {
		if !r.Allowed {
			t.Errorf("%s: %s (%s)", name, r.ForbiddenReason, r.ForbiddenDetail)
		}
	}
}

func rendered(t *testing.T, values string) (string, error) {
	t.Helper()
	log.SetOutput(io.Discard) // Helm prints each link that it follows
	chart, err := loader.Load(filepath.Join(examples, "chart"))
	if err != nil {
		t.Fatal(err)
	}
	version, err := os.ReadFile("../../VERSION")
	if err != nil {
		t.Fatal(err)
	}
	if v := strings.TrimSpace(string(version)); chart.Metadata.Version != v || chart.AppVersion() != v {
		t.Errorf("the chart has the versions %s and %s, this is %s", chart.Metadata.Version, chart.AppVersion(), v)
	}
	parsed, err := chartutil.ReadValues([]byte(values))
	if err != nil {
		t.Fatal(err)
	}
	full, err := chartutil.ToRenderValues(chart, parsed, chartutil.ReleaseOptions{Name: "voice", Namespace: "sip", IsInstall: true}, nil)
	if err != nil {
		return "", err
	}
	files, err := engine.Render(chart, full)
	if err != nil {
		return "", err
	}
	var all strings.Builder
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if strings.HasSuffix(name, ".yaml") {
			all.WriteString("\n---\n" + files[name])
		}
	}
	return all.String(), nil
}

func TestChart(t *testing.T) {
	for mode, values := range modes {
		t.Run(mode, func(t *testing.T) {
			text, err := rendered(t, values)
			if err != nil {
				t.Fatal(err)
			}
			parsed, err := chartutil.ReadValues([]byte(values))
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range lint.AllWithKubeVersion(filepath.Join(examples, "chart"), parsed, "sip", nil).Messages {
				if m.Severity > support.InfoSev { // an icon is missing
					t.Error(m)
				}
			}
			found := objects(t, text)
			const name = "voice-kamailio-exporter"
			deployment, ok := found["Deployment/"+name].(*apps.Deployment)
			if !ok {
				t.Fatalf("there is no Deployment among %q", slices.Sorted(maps.Keys(found)))
			}
			pod := deployment.Spec.Template
			selects := func(what string, selector map[string]string) {
				t.Helper()
				for k, v := range selector {
					if pod.Labels[k] != v {
						t.Errorf("%s selects %s=%s, and the pods have %q", what, k, v, pod.Labels)
					}
				}
				if len(selector) == 0 {
					t.Errorf("%s selects everything", what)
				}
			}
			selects("the Deployment", deployment.Spec.Selector.MatchLabels)
			volumes, ports := map[string]bool{}, map[string]bool{}
			for _, v := range pod.Spec.Volumes {
				volumes[v.Name] = true
			}
			for _, c := range pod.Spec.Containers {
				for _, m := range c.VolumeMounts {
					if !volumes[m.Name] {
						t.Errorf("there is no volume %s", m.Name)
					}
				}
				for _, p := range c.Ports {
					ports[p.Name] = true
				}
			}
			if mode == "least" {
				if want := []string{"ConfigMap/" + name, "Deployment/" + name, "Service/" + name}; !slices.Equal(slices.Sorted(maps.Keys(found)), want) {
					t.Errorf("there are %q, not only %q", slices.Sorted(maps.Keys(found)), want)
				}
				return
			}
			selects("the NetworkPolicy", found["NetworkPolicy/"+name].(*networking.NetworkPolicy).Spec.PodSelector.MatchLabels)
			if mode == "sidecar" {
				monitor := found["PodMonitor/"+name].(*monitoring.PodMonitor)
				selects("the PodMonitor", monitor.Spec.Selector.MatchLabels)
				if port := monitor.Spec.PodMetricsEndpoints[0].Port; !ports[*port] {
					t.Errorf("the PodMonitor asks port %s, and the pod has %v", *port, ports)
				}
			} else {
				service := found["Service/"+name].(*core.Service)
				selects("the Service", service.Spec.Selector)
				monitor := found["ServiceMonitor/"+name].(*monitoring.ServiceMonitor)
				for k, v := range monitor.Spec.Selector.MatchLabels {
					if service.Labels[k] != v {
						t.Errorf("the ServiceMonitor selects %s=%s, and the Service has %q", k, v, service.Labels)
					}
				}
				if url := string(found["ScrapeConfig/"+name].(*monitoringalpha.ScrapeConfig).Spec.HTTPSDConfigs[0].URL); url != "http://voice-kamailio-exporter.sip.svc:9494/sd" {
					t.Errorf("targets are discovered at %s", url)
				}
				var fleet struct {
					Targets map[string]struct {
						URIs   []string          `json:"uris"`
						Labels map[string]string `json:"labels"`
					} `json:"targets"`
				}
				if err := yaml.UnmarshalStrict([]byte(found["ConfigMap/"+name].(*core.ConfigMap).Data["fleet.yml"]), &fleet); err != nil || fleet.Targets["sbc-1"].Labels["cluster"] != "fra" {
					t.Errorf("fleet.yml: %+v, %v", fleet, err)
				}
			}
			sameFiles(t, found, name)
		})
	}
}

// sameFiles checks that all rules and dashboards are there, and are those of the tree.
func sameFiles(t *testing.T, found map[string]runtime.Object, name string) {
	t.Helper()
	rules, err := filepath.Glob("../../alerts/kamailio-*.yml")
	if err != nil || len(rules) == 0 {
		t.Fatalf("rules: %q, %v", rules, err)
	}
	for _, file := range rules {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var want monitoring.PrometheusRuleSpec
		if err := yaml.UnmarshalStrict(text, &want); err != nil {
			t.Fatal(err)
		}
		key := "PrometheusRule/" + name + "-" + strings.TrimSuffix(filepath.Base(file), ".yml")
		got, ok := found[key].(*monitoring.PrometheusRule)
		if !ok {
			t.Errorf("there is no %s: link the file into chart/files/rules", key)
			continue
		}
		a, _ := yaml.Marshal(want) // of a type that can be marshaled
		b, _ := yaml.Marshal(got.Spec)
		if string(a) != string(b) {
			t.Errorf("%s differs from %s", key, file)
		}
	}
	dashboards, err := filepath.Glob("../../dashboards/*.json")
	if err != nil || len(dashboards) == 0 {
		t.Fatalf("dashboards: %q, %v", dashboards, err)
	}
	for _, file := range dashboards {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		key := "ConfigMap/" + name + "-" + strings.TrimSuffix(filepath.Base(file), ".json")
		got, ok := found[key].(*core.ConfigMap)
		if !ok {
			t.Errorf("there is no %s: link the file into chart/files/dashboards", key)
			continue
		}
		if strings.TrimSpace(got.Data[filepath.Base(file)]) != strings.TrimSpace(string(text)) {
			t.Errorf("%s differs from %s", key, file)
		}
	}
}

// TestChartRefuses checks that wrong values are refused with their reason.
func TestChartRefuses(t *testing.T) {
	for values, want := range map[string]string{
		"{}":              "targets: name at least one Kamailio",
		"mode: daemonset": "mode",
		"image: {repo: x}\ntargets: {a: {uris: [x]}}":                 "repo",
		"targets: {a: {}}":                                            "uris",
		"mode: sidecar\nkamailio: {ports: [{containerPort: 5060}]}":   "name",
		"targets: {a: {uris: [x]}}\nargs: [web.listen-address=:9494]": "args",
	} {
		if _, err := rendered(t, values); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: the error is %v, not one with %q", values, err, want)
		}
	}
}

// TestKustomizations builds the other examples as kubectl apply -k does.
func TestKustomizations(t *testing.T) {
	for dir, want := range map[string][]string{
		"rules":   {"PrometheusRule/kamailio-alerts", "PrometheusRule/kamailio-rules"},
		"central": {"Deployment/kamailio-exporter", "Service/kamailio-exporter", "ScrapeConfig/kamailio", "PrometheusRule/kamailio-alerts"},
		"sidecar": {"Deployment/kamailio", "PodMonitor/kamailio", "PrometheusRule/kamailio-alerts"},
	} {
		t.Run(dir, func(t *testing.T) {
			built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), filepath.Join(examples, dir))
			if err != nil {
				t.Fatal(err)
			}
			text, err := built.AsYaml()
			if err != nil {
				t.Fatal(err)
			}
			found := objects(t, string(text))
			for _, name := range want {
				if found[name] == nil {
					t.Errorf("there is no %s among %q", name, slices.Sorted(maps.Keys(found)))
				}
			}
		})
	}
}
