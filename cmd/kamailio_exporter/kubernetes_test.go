package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v2"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/cli"
)

var kubernetesExamples = filepath.Join(top, "examples", "kubernetes")

// object has the fields of a Kubernetes object that these tests check.
type object struct {
	APIVersion string `yaml:"apiVersion"`
	Kind       string
	Metadata   struct{ Name string }
	Spec       struct {
		Selector struct {
			MatchLabels map[string]string `yaml:"matchLabels"`
			Name        string            `yaml:"app.kubernetes.io/name"` // of a Service
		}
		Template struct {
			Metadata struct{ Labels map[string]string }
			Spec     struct {
				Volumes    []struct{ Name string }
				Containers []struct {
					Image        string
					Ports        []struct{ Name string }
					VolumeMounts []struct{ Name string } `yaml:"volumeMounts"`
				}
			}
		}
		Ports []struct {
			Port       int
			TargetPort string `yaml:"targetPort"`
		}
		PodMetricsEndpoints []struct{ Port string }      `yaml:"podMetricsEndpoints"`
		HTTPSDConfigs       []struct{ URL string }       `yaml:"httpSDConfigs"`
		StaticConfigs       []struct{ Targets []string } `yaml:"staticConfigs"`
	}
}

// kustomized returns the objects that a folder's kustomization.yaml names, including
// those of nested folders.
func kustomized(t *testing.T, dir string) (objects []object) {
	t.Helper()
	var k struct {
		APIVersion         string `yaml:"apiVersion"`
		Kind               string
		Resources          []string
		ConfigMapGenerator []struct {
			Name  string
			Files []string
		} `yaml:"configMapGenerator"`
		Images []struct {
			Name    string
			NewName string `yaml:"newName"`
			NewTag  string `yaml:"newTag"`
		}
	}
	if err := yaml.UnmarshalStrict([]byte(readText(t, filepath.Join(dir, "kustomization.yaml"))), &k); err != nil {
		t.Fatalf("%s: %v", dir, err)
	}
	version := strings.TrimSpace(readText(t, filepath.Join(top, "VERSION")))
	for _, image := range k.Images {
		if image.Name != cli.ProgramName || image.NewTag != version {
			t.Errorf("%s has the image %s:%s, this is %s:%s", dir, image.Name, image.NewTag, cli.ProgramName, version)
		}
	}
	for _, generated := range k.ConfigMapGenerator {
		for _, name := range generated.Files {
			readText(t, filepath.Join(dir, name)) // fails if the file does not exist
		}
	}
	for _, name := range k.Resources {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && info.IsDir() {
			objects = append(objects, kustomized(t, path)...)
			continue
		}
		decoder := yaml.NewDecoder(strings.NewReader(readText(t, path)))
		for {
			var o object
			err := decoder.Decode(&o)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v", path, err)
			}
			if o.APIVersion == "" || o.Kind == "" || o.Metadata.Name == "" {
				t.Errorf("%s has an object without a kind or a name", path)
			}
			objects = append(objects, o)
		}
	}
	return objects
}

// TestKubernetesExamples checks that the objects refer to each other: monitors and
// Services to pods and ports, mounts to volumes, and that each folder has the rules.
func TestKubernetesExamples(t *testing.T) {
	for dir, want := range map[string]string{
		"sidecar": "Deployment/kamailio PodMonitor/kamailio",
		"central": "Deployment/kamailio-exporter Service/kamailio-exporter ScrapeConfig/kamailio ScrapeConfig/kamailio-exporter",
	} {
		t.Run(dir, func(t *testing.T) {
			objects := kustomized(t, filepath.Join(kubernetesExamples, dir))
			var names []string
			pods, services, ports := map[string]string{}, map[string]bool{}, map[string]bool{}
			for _, o := range objects {
				names = append(names, o.Kind+"/"+o.Metadata.Name)
				switch o.Kind {
				case "Service":
					for _, p := range o.Spec.Ports {
						services[fmt.Sprintf("%s.voice.svc:%d", o.Metadata.Name, p.Port)] = true
					}
				case "Deployment":
					pods = o.Spec.Template.Metadata.Labels
					if !maps.Equal(pods, o.Spec.Selector.MatchLabels) {
						t.Errorf("%s selects other pods than its own", o.Metadata.Name)
					}
					volumes := map[string]bool{}
					for _, v := range o.Spec.Template.Spec.Volumes {
						volumes[v.Name] = true
					}
					ours := false
					for _, c := range o.Spec.Template.Spec.Containers {
						ours = ours || c.Image == cli.ProgramName
						for _, p := range c.Ports {
							ports[p.Name] = true
						}
						for _, m := range c.VolumeMounts {
							if !volumes[m.Name] {
								t.Errorf("there is no volume %s", m.Name)
							}
						}
					}
					if !ours {
						t.Errorf("no container has the image %s", cli.ProgramName)
					}
				}
			}
			want += " PrometheusRule/kamailio-alerts PrometheusRule/kamailio-rules PrometheusRule/kamailio-admin-alerts"
			if got := strings.Join(names, " "); got != want {
				t.Fatalf("the objects are %s, not %s", got, want)
			}
			for _, o := range objects {
				switch o.Kind {
				case "PodMonitor":
					if !maps.Equal(pods, o.Spec.Selector.MatchLabels) || len(o.Spec.PodMetricsEndpoints) != 1 || !ports[o.Spec.PodMetricsEndpoints[0].Port] {
						t.Errorf("the PodMonitor selects %v and %v", o.Spec.Selector.MatchLabels, o.Spec.PodMetricsEndpoints)
					}
				case "Service":
					if o.Spec.Selector.Name != pods["app.kubernetes.io/name"] || !ports[o.Spec.Ports[0].TargetPort] {
						t.Errorf("the Service leads to %s:%s", o.Spec.Selector.Name, o.Spec.Ports[0].TargetPort)
					}
				case "ScrapeConfig":
					var addresses []string
					for _, c := range o.Spec.HTTPSDConfigs {
						addresses = append(addresses, strings.TrimSuffix(strings.TrimPrefix(c.URL, "http://"), "/sd"))
					}
					for _, c := range o.Spec.StaticConfigs {
						addresses = append(addresses, c.Targets...)
					}
					if len(addresses) != 1 || !services[addresses[0]] {
						t.Errorf("%s asks %v, and there are the services %v", o.Metadata.Name, addresses, services)
					}
				}
			}
		})
	}
}
