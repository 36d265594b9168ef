package fleet

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/target"
	"github.com/kamailio-exporter/kamailio_exporter/collector"
)

// testBase has the settings from the flags.
func testBase() Base {
	return Base{
		Target: target.Target{
			Limits:     target.Limits{ScrapeTimeout: 10 * time.Second, TimeoutOffset: 500 * time.Millisecond, RPCTimeout: 3 * time.Second, MaxConcurrentRPCs: 2, MaxReplySize: 16 << 20},
			Options:    collector.Options{DumpContacts: 1000, ListDialogs: 1000, TLSConnections: 500, ListRows: 5000, GrowingInterval: time.Minute},
			SIP:        target.SIP{Timeout: 2 * time.Second},
			Script:     target.Script{Timeout: 2 * time.Second, MaxSize: 2 << 20},
			Collectors: slices.DeleteFunc(collector.Names(collector.All(collector.Options{})), func(n string) bool { return n == "msilo" }),
		},
		Reserved: []string{"HTTP://192.0.2.99:5060/"}, Why: "is taken",
	}
}

func mustParse(t *testing.T, text string) *Config {
	t.Helper()
	cfg, problems := parse([]byte(text), t.TempDir(), 0o640, testBase())
	if len(problems) > 0 {
		t.Fatal(errors.Join(problems...))
	}
	return cfg
}

func TestParse(t *testing.T) {
	cfg := mustParse(t, `
modules:
  calls: {collectors: [dialog, tm], sip: false}
  most: {exclude: [pike], xhttp_prom: false}
defaults:
  module: calls
  limits: {rpc_timeout: 1s, contacts: 10}
  collectors: {dialplans: [1, 2], statistics_counters: ['script:x=Calls.']}
targets:
  b:
    uris: ['HTTP://192.0.2.1:5060', 'tcp://192.0.2.1:8091']
    labels: {site: fra}
  a:
    uris: [unix:///run/kamailio/kamailio_rpc.sock]
    module: most
    limits: {scrape_timeout: 4s, rpc_timeout: 2s, max_concurrent_rpcs: 1, max_reply_size: 1MiB, growing_interval: 5m, list_rows: 1, contacts: 0, dialogs: 2, tls_connections: 3}
    collectors: {dialog_profiles: [in], dialplans: [], pike_addresses: 5, cfg_variables: [core.debug], statistics_gauges: ['script:y=Balance.']}
    sip: {probe: ['udp:192.0.2.1:5060'], timeout: 1s, request_uri: 'sip:x@example.com', tls_server_name: sip.example.com}
    xhttp_prom: {url: 'http://192.0.2.1:5060/metrics', timeout: 1s, max_size: 1MiB}
`)
	if len(cfg.Targets) != 2 {
		t.Fatalf("%d targets", len(cfg.Targets))
	}
	a, b := cfg.Targets[0], cfg.Targets[1]
	if want := (target.Limits{
		ScrapeTimeout: 4 * time.Second, TimeoutOffset: 500 * time.Millisecond, RPCTimeout: 2 * time.Second, MaxConcurrentRPCs: 1, MaxReplySize: 1 << 20,
	}); a.Limits != want {
		t.Errorf("limits %+v, want %+v", a.Limits, want)
	}
	if o := a.Options; o.GrowingInterval != 5*time.Minute || o.ListRows != 1 || o.DumpContacts != 0 || o.ListDialogs != 2 || o.TLSConnections != 3 || o.PikeAddresses != 5 ||
		!slices.Equal(o.DialogProfiles, []string{"in"}) || len(o.Dialplans) != 0 || !slices.Equal(o.CfgVariables, []string{"core.debug"}) || len(o.Promotions) != 1 || o.Promotions[0].Statistic != "script:y" {
		t.Errorf("options %+v", o)
	}
	if want := (target.SIP{Probe: []string{"udp:192.0.2.1:5060"}, Timeout: time.Second, RequestURI: "sip:x@example.com", ServerName: "sip.example.com"}); !reflect.DeepEqual(a.SIP, want) {
		t.Errorf("sip %+v", a.SIP)
	}
	if want := (target.Script{URL: "http://192.0.2.1:5060/metrics", Timeout: time.Second, MaxSize: 1 << 20}); a.Script != want {
		t.Errorf("xhttp_prom %+v", a.Script)
	}
	// A setting that the target lacks comes from the defaults, and one that these lack
	// from the flags.
	if b.Module != "calls" || b.Limits.RPCTimeout != time.Second || b.Limits.ScrapeTimeout != 10*time.Second || b.Options.DumpContacts != 10 || b.Options.ListDialogs != 1000 ||
		len(b.Options.Dialplans) != 2 || len(b.Options.Promotions) != 1 || b.Options.Promotions[0].Statistic != "script:x" || b.Labels["site"] != "fra" || b.SIP.Probe != nil || b.Script.URL != "" {
		t.Errorf("target b: %+v", b)
	}
	if m := cfg.Modules["calls"]; !slices.Equal(m.Collectors, []string{"tm", "dialog"}) || m.SIP || !m.Script {
		t.Errorf("module calls: %+v", m)
	}
	if m := cfg.Modules["most"]; len(m.Collectors) != len(testBase().Target.Collectors)-1 || slices.Contains(m.Collectors, "pike") || !m.SIP || m.Script {
		t.Errorf("module most: %+v", m)
	}
	if m := cfg.Modules[DefaultModule]; !slices.Equal(m.Collectors, testBase().Target.Collectors) {
		t.Errorf("module default: %+v", m)
	}
}

const oneTarget = "targets: {a: {uris: ['tcp://192.0.2.1:8091']}}\n"

func TestParseRefuses(t *testing.T) {
	for _, tc := range []struct{ text, want string }{
		{"", "the file is empty"},
		{"{}", "neither targets nor allow"},
		{oneTarget + "target: {}", "line 2: unknown key target; did you mean targets?"},
		{"targets:\n  a:\n    uri: ['tcp://192.0.2.1:8091']", "line 3: unknown key uri; did you mean uris?"},
		{"targets: {a: {uris: ['tcp://192.0.2.1:8091'], limits: {rpc_timeout: soon}}}", `targets: a: limits: rpc_timeout: "soon" is not a duration`},
		{"targets:\n  a: {uris: ['tcp://192.0.2.1:8091']}\n  a: {uris: ['tcp://192.0.2.2:8091']}", `line 3: key "a" already set in map`},
		{"targets: [", "line 1: did not find expected"},
		{"targets: {a: {}}", "targets: a: uris is missing"},
		{"targets: {'a b': {uris: ['tcp://192.0.2.1:8091']}}", "targets: a b: a name has at most 128 letters"},
		{"targets: {a: {uris: ['192.0.2.1:8091']}}", "targets: a: uris: not a URI"},
		{"targets: {a: {uris: ['http://u:s3cret@192.0.2.1/RPC']}}", "targets: a: uris: http://192.0.2.1: the URI must not contain a user or password"},
		{"targets: {a: {uris: ['tcp://192.0.2.1:8091']}, b: {uris: ['TCP://192.0.2.1:8091']}}", "targets: b: uris: tcp://192.0.2.1:8091 already belongs to a"},
		{"targets: {a: {uris: ['http://192.0.2.99:5060']}}", "targets: a: uris: http://192.0.2.99:5060/RPC is taken"},
		{"targets: {a: {uris: ['tcp://192.0.2.1:8091'], module: x}}", `targets: a: module: there is no module "x"; there are: default`},
		{"targets: {a: {uris: ['tcp://192.0.2.1:8091'], labels: {instance: x}}}", `targets: a: labels: "instance" is not permitted`},
		{"targets: {a: {uris: ['tcp://192.0.2.1:8091'], labels: {'a-b': x}}}", `targets: a: labels: "a-b" is not permitted`},
		{"targets: {a: {uris: ['tcp://192.0.2.1:8091'], limits: {scrape_timeout: 100ms}}}", "targets: a: limits: scrape_timeout must be more than --scrape.timeout-offset (500ms)"},
		{"targets: {a: {uris: ['tcp://192.0.2.1:8091'], limits: {rpc_timeout: 0s}}}", "targets: a: limits: rpc_timeout must be from 1ms to 1h, not 0s"},
		{"targets: {a: {uris: ['tcp://192.0.2.1:8091'], limits: {max_concurrent_rpcs: 0}}}", "max_concurrent_rpcs must be at least 1"},
		{"targets: {a: {uris: ['tcp://192.0.2.1:8091'], limits: {max_reply_size: 1KiB}}}", "max_reply_size must be from 4KiB to 1GiB, not 1KiB"},
		{"targets: {a: {uris: ['tcp://192.0.2.1:8091'], limits: {contacts: -1}}}", "contacts must be at least 0"},
		{"targets: {a: {uris: ['tcp://192.0.2.1:8091'], collectors: {cfg_variables: [debug]}}}", "cfg_variables must be GROUP.NAME"},
		{"targets: {a: {uris: ['tcp://192.0.2.1:8091'], collectors: {pike_addresses: -1}}}", "pike_addresses must be at least 0"},
		{"targets: {a: {uris: ['tcp://192.0.2.1:8091'], collectors: {statistics_counters: [x]}}}", "statistics_counters: \"x\""},
		{"targets: {a: {uris: ['tcp://192.0.2.1:8091'], collectors: {statistics_counters: ['tm:x=a', 'tm:x=a']}}}", "targets: a: collectors: statistics"},
		{"targets: {a: {uris: ['tcp://192.0.2.1:8091'], sip: {probe: [x]}}}", "targets: a: sip: probe"},
		{"targets: {a: {uris: ['tcp://192.0.2.1:8091'], sip: {timeout: 1s}}}", "targets: a: sip: probe is missing"},
		{"targets: {a: {uris: ['tcp://192.0.2.1:8091'], sip: {probe: ['udp:192.0.2.1:5060', 'udp:192.0.2.1:5060']}}}", "is given twice"},
		{"targets: {a: {uris: ['tcp://192.0.2.1:8091'], sip: {probe: ['tls:192.0.2.1:5061'], tls_ca_file: none.pem}}}", "none.pem: no such file"},
		{"targets: {a: {uris: ['tcp://192.0.2.1:8091'], xhttp_prom: {url: 'ftp://192.0.2.1/'}}}", "xhttp_prom: url must be the address"},
		{"targets: {a: {uris: ['tcp://192.0.2.1:8091'], xhttp_prom: {url: 'http://u:s3cret@192.0.2.1/'}}}", "xhttp_prom: url must not contain a user or password"},
		{"targets: {a: {uris: ['tcp://192.0.2.1:8091'], xhttp_prom: {timeout: 1s}}}", "xhttp_prom: url is missing"},
		{"targets: {a: {uris: ['tcp://192.0.2.1:8091'], http_config: {basic_auth: s3cret}}}", "line 1: cannot unmarshal !!str"},
		{"targets: {a: {uris: ['tcp://192.0.2.1:8091'], http_config: {basic_auth: {username: a, password_file: none}}}}", "none: no such file"},
		{"targets: {a: {uris: ['tcp://192.0.2.1:8091'], http_config: {basic_auth: {username: a, password_ref: FLEET_NONE}}}}", "the environment variable FLEET_NONE is not set"},
		{"targets: {a: {uris: ['tcp://192.0.2.1:8091'], http_config: {tls_config: {ca_file: none.pem}}}}", "none.pem"},
		{"modules: {x: {collectors: [nosuch]}}\n" + oneTarget, `modules: x: unknown collector "nosuch"; the collectors are: core`},
		{"modules: {x: {collectors: [tm], exclude: [sl]}}\n" + oneTarget, "modules: x: give either collectors or exclude"},
		{"modules: {x: {collectors: []}}\n" + oneTarget, "modules: x: no collector is left"},
		{"modules: {'x y': {collectors: [tm]}}\n" + oneTarget, "modules: x y: a name has at most 64 letters"},
		{"defaults: {module: x}\n" + oneTarget, `defaults: module: there is no module "x"`},
		{"allow: {}", "allow: networks is missing"},
		{"allow: {networks: [192.0.2.1]}", `allow: networks: "192.0.2.1": must be an address and a length`},
		{"allow: {networks: [192.0.2.1/24]}", "did you mean 192.0.2.0/24?"},
		{"allow: {networks: ['::ffff:192.0.2.0/120']}", "write it as an IPv4 network"},
		{"allow: {networks: [192.0.2.0/24], ports: [0]}", "allow: ports: 0 is not a port"},
		{"allow: {networks: [192.0.2.0/24], ports: [70000]}", "line 1: cannot unmarshal !!int `70000`"},
		{"allow: {networks: [192.0.2.0/24], paths: [RPC]}", `allow: paths: "RPC"`},
		{"allow: {networks: [192.0.2.0/24], max_targets: 0}", "max_targets must be from 1"},
		{"allow: {networks: [192.0.2.0/24], http_config: {proxy_url: 'http://192.0.2.1'}}", "allow: http_config: a proxy is not allowed here"},
	} {
		cfg, problems := parse([]byte(tc.text), t.TempDir(), 0o640, testBase())
		err := errors.Join(problems...)
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s\n\tgives %v, %+v\n\twant %s", tc.text, err, cfg, tc.want)
			continue
		}
		for _, p := range problems {
			if strings.Contains(p.Error(), "s3cret") || strings.Contains(p.Error(), "fleet.") || strings.Contains(p.Error(), "\n") {
				t.Errorf("%s\n\tgives %v", tc.text, p)
			}
		}
	}
}

// TestQuantitiesHaveUnits checks that a number without a unit is rejected: the YAML
// package would read 3 as 3 ns.
func TestQuantitiesHaveUnits(t *testing.T) {
	for key, value := range map[string]string{
		"limits: scrape_timeout": "10", "limits: rpc_timeout": "3", "limits: growing_interval": "60", "sip: timeout": "2", "xhttp_prom: timeout": "2.5",
		"limits: max_reply_size": "16777216", "xhttp_prom: max_size": "2097152",
	} {
		section, name, _ := strings.Cut(key, ": ")
		text := "{" + section + ": {" + name + ": " + value + "}, uris: ['tcp://192.0.2.1:8091']}"
		texts := map[string]string{"targets: a: ": "targets: {a: " + text + "}"}
		if section == "limits" {
			texts["defaults: "] = "defaults: {limits: {" + name + ": " + value + "}}\n" + oneTarget
			texts["allow: "] = "allow: {networks: [192.0.2.0/24], limits: {" + name + ": " + value + "}}"
		}
		for where, text := range texts {
			want := fmt.Sprintf("%s%s: %q is not a ", where, key, value)
			_, problems := parse([]byte(text), t.TempDir(), 0o640, testBase())
			if err := errors.Join(problems...); len(problems) != 1 || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "such as ") {
				t.Errorf("%s\n\tgives %v\n\twant %s", text, err, want)
			}
		}
	}
}

// TestLoadReportsAllProblems checks that all problems are reported at once.
func TestLoadReportsAllProblems(t *testing.T) {
	file := filepath.Join(t.TempDir(), "fleet.yml")
	if err := os.WriteFile(file, []byte("targets:\n  a: {}\n  b: {uris: [x]}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := Load(file, testBase())
	if err == nil || strings.Count(err.Error(), file+": targets: ") != 2 {
		t.Errorf("%v", err)
	}
	if _, err := Load(file+".none", testBase()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
}

// TestSecretsInTheFile checks that a file with a secret must not be readable for
// everyone.
func TestSecretsInTheFile(t *testing.T) {
	t.Setenv("FLEET_SECRET", "x")
	for text, bad := range map[string]bool{
		"basic_auth: {username: a, password: s3cret}":           true,
		"authorization: {credentials: s3cret}":                  true,
		"http_headers: {X-Key: {secrets: [s3cret]}}":            true,
		"basic_auth: {username: a, password_ref: FLEET_SECRET}": false,
		"basic_auth: {username: a}":                             false,
	} {
		text := "defaults: {http_config: {" + text + "}}\n" + oneTarget
		for _, mode := range []fs.FileMode{0o600, 0o640, 0o644} {
			_, problems := parse([]byte(text), t.TempDir(), mode, testBase())
			err := errors.Join(problems...)
			if want := bad && mode == 0o644; (err != nil) != want {
				t.Errorf("%s with mode %04o: %v", text, mode, err)
			} else if err != nil && (!strings.Contains(err.Error(), "it contains a secret") || strings.Contains(err.Error(), "s3cret")) {
				t.Error(err)
			}
		}
	}
}
