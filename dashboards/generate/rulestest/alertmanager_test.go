package rulestest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kamailio-exporter/kamailio_exporter/kamrpc/kamrpctest/kamailiotest"
)

const (
	alertmanagerFile = folder + "alertmanager.yml"
	templateFile     = folder + "kamailio.tmpl"
)

// routed lists label sets of alerts with the receiver that each must reach.
var routed = []struct{ labels, receiver string }{
	{"alertname=KamailioDown severity=critical", "pager"},
	{"alertname=KamailioDispatcherSetDown severity=critical", "carriers,pager"},
	{"alertname=KamailioTrunkRegistrationDown severity=critical", "carriers,pager"},
	{"alertname=KamailioSIPNotAnswering severity=critical", "pager"},
	{"alertname=KamailioTLSCertificateExpiringSoon severity=warning", "chat"},
	{"alertname=KamailioRestarted severity=info", "none"},
	{"alertname=KamailioPikeBlocking severity=info", "none"},
	{"alertname=KamailioDispatcherDestinationDown severity=warning", "carriers"},
	{"alertname=KamailioTrunkRegistrationDisabled severity=warning", "carriers"},
	{"alertname=KamailioTrunkFailsCalls severity=warning", "carriers"},
	{"alertname=KamailioDroutingGatewayDown severity=warning", "carriers"},
	{"alertname=KamailioLCRGatewayDown severity=warning", "carriers"},
	{"alertname=KamailioKeepaliveDestinationDown severity=warning", "carriers"},
	{"alertname=KamailioSharedMemoryAlmostFull severity=warning", "chat"},
	{"alertname=KamailioCollectorFailing severity=warning", "chat"},
	{"alertname=SomethingElse severity=warning", "chat"},
}

func TestAmtool(t *testing.T) {
	amtool := kamailiotest.Needs(t, "amtool", "prometheus-alertmanager")
	run(t, amtool, "check-config", alertmanagerFile)
	run(t, amtool, "check-config", localConfig(t, "http://127.0.0.1:9"))
	for _, r := range routed {
		run(t, amtool, append([]string{"config", "routes", "test", "--config.file=" + alertmanagerFile, "--verify.receivers=" + r.receiver}, strings.Fields(r.labels)...)...)
	}
}

// localConfig is the example with its template, receivers at a local URL, and without
// delays.
func localConfig(t *testing.T, url string) string {
	t.Helper()
	dir := t.TempDir()
	template, err := filepath.Abs(templateFile)
	if err != nil {
		t.Fatal(err)
	}
	slack := filepath.Join(dir, "slack-url")
	config := read(t, alertmanagerFile)
	for _, change := range [][2]string{
		{"/etc/alertmanager/kamailio.tmpl", template},
		{"/etc/alertmanager/slack-url", slack},
		{"http://127.0.0.1:9095", url},
	} {
		if !strings.Contains(config, change[0]) {
			t.Fatalf("%s has no %s", alertmanagerFile, change[0])
		}
		config = strings.ReplaceAll(config, change[0], change[1])
	}
	config = regexp.MustCompile(`group_wait: \w+`).ReplaceAllString(config, "group_wait: 1s")
	for name, text := range map[string]string{"slack-url": url + "/chat", "alertmanager.yml": config} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "alertmanager.yml")
}

type labelSet map[string]string

func (l labelSet) String() string {
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(l)) {
		fmt.Fprintf(&b, "%s=%s ", k, l[k])
	}
	return b.String()
}

type inhibition struct {
	source       string
	mutes, stays []string
}

// inhibited are the cases of the inhibition rules, in order: a source, what it inhibits,
// and what it does not.
var inhibited = []inhibition{
	{"KamailioDown instance=a1",
		[]string{"KamailioSharedMemoryAlmostFull instance=a1", "KamailioSIPNotAnswering instance=a1 transport=udp", "KamailioDispatcherSetDown instance=a1 set=1", "KamailioRestarted instance=a1"},
		[]string{"KamailioSharedMemoryAlmostFull instance=b1", "KamailioRestartLoop instance=a1", "KamailioCallsFarBelowLastWeek cluster=w", "SomethingElse instance=a1"}},
	{"KamailioRestartLoop instance=a2",
		[]string{"KamailioRestarted instance=a2", "KamailioSIPNotAnswering instance=a2", "KamailioRegistrationsDropped instance=a2 domain=x"},
		[]string{"KamailioRestarted instance=b2", "KamailioSharedMemoryAlmostFull instance=a2"}},
	{"KamailioSIPNotAnswering instance=a15 transport=udp",
		[]string{"KamailioCallsNotAnswered instance=a15", "KamailioCallsStopped instance=a15", "KamailioNoTraffic instance=a15", "KamailioRegistrationsDropped instance=a15 domain=x", "KamailioDispatcherSetDown instance=a15 set=1", "KamailioDispatcherDestinationDown instance=a15 set=2 uri=sip:y", "KamailioDroutingGatewayDown instance=a15 gateway=1", "KamailioTrunkRegistrationDown instance=a15 uuid=x", "KamailioTrunkNoAnswers instance=a15 trunk=x", "KamailioRTPEngineSetDown instance=a15 set=0"},
		[]string{"KamailioCallsNotAnswered instance=b15", "KamailioDispatcherEmptied instance=a15", "KamailioTLSCertificateExpiringSoon instance=a15"}},
	{"KamailioUDPWorkersHang instance=a21 port=5060",
		[]string{"KamailioSIPNotAnswering instance=a21", "KamailioPacketsDropped instance=a21 port=5060", "KamailioReceiveQueueNearLimit instance=a21 port=5060", "KamailioDispatcherSetDown instance=a21 set=1", "KamailioNoTraffic instance=a21"},
		[]string{"KamailioSIPNotAnswering instance=b21", "KamailioFileDescriptorsNearLimit instance=a21"}},
	{"KamailioPacketsDropped instance=a22 port=5060",
		[]string{"KamailioDispatcherDestinationDown instance=a22 set=1 uri=sip:v", "KamailioReceiveQueueNearLimit instance=a22 port=5060"},
		[]string{"KamailioDispatcherSetDown instance=a22 set=2", "KamailioReceiveQueueNearLimit instance=a22 port=5062", "KamailioDispatcherDestinationDown instance=b22 set=1 uri=sip:v", "KamailioWorkersSaturated instance=a22"}},
	{"KamailioReceiveQueueNearLimit instance=a23 port=5060",
		[]string{"KamailioDispatcherDestinationFlapping instance=a23 set=1 uri=sip:u"},
		[]string{"KamailioDispatcherDestinationFlapping instance=b23 set=1 uri=sip:u"}},
	{"KamailioWorkersSaturated instance=a24",
		[]string{"KamailioDispatcherLatencyHigh instance=a24 set=1 uri=sip:t", "KamailioTransactionBacklog instance=a24"},
		[]string{"KamailioTransactionBacklog instance=b24", "KamailioCallsNotAnswered instance=a24"}},
	{"KamailioNoTraffic instance=a16 cluster=y",
		[]string{"KamailioCallsStopped instance=a16 cluster=y", "KamailioRegistrationsDropped instance=a16 cluster=y", "KamailioCallsFarBelowLastWeek cluster=y"},
		[]string{"KamailioCallsStopped instance=b16", "KamailioCallsNotAnswered instance=a16 cluster=y"}},
	{"KamailioCallsStopped instance=a17 cluster=z",
		[]string{"KamailioCallsFarBelowLastWeek cluster=z"},
		[]string{"KamailioRegistrationsDropped instance=a17 cluster=z"}},
	{"KamailioCallsNotAnswered instance=a18",
		[]string{"KamailioSessionEstablishmentRatioLow instance=a18", "KamailioInviteServerErrors instance=a18"},
		[]string{"KamailioSessionEstablishmentRatioLow instance=b18", "KamailioLocalServerErrors instance=a18"}},
	{"KamailioDispatcherEmptied instance=a19",
		[]string{"KamailioCallsRefused instance=a19", "KamailioLocalServerErrors instance=a19"},
		[]string{"KamailioCallsRefused instance=b19", "KamailioRegistrationsDropped instance=a19"}},
	{"KamailioDispatcherDestinationDown instance=a20 set=1 uri=sip:z",
		[]string{"KamailioKeepaliveDestinationDown instance=a20 uri=sip:z", "KamailioDispatcherDestinationFlapping instance=a20 set=1 uri=sip:z"},
		[]string{"KamailioKeepaliveDestinationDown instance=a20 uri=sip:w"}},
	{"KamailioDispatcherSetDown instance=a3 set=1",
		[]string{"KamailioDispatcherDestinationDown instance=a3 set=1 uri=sip:x", "KamailioDispatcherDestinationFlapping instance=a3 set=1 uri=sip:x"},
		[]string{"KamailioDispatcherDestinationDown instance=a3 set=2 uri=sip:x", "KamailioDispatcherDestinationDown instance=b3 set=1 uri=sip:x", "KamailioDispatcherEmptied instance=a3"}},
	{"KamailioDroutingAllGatewaysDown instance=a4",
		[]string{"KamailioDroutingGatewayDown instance=a4 gateway=1", "KamailioCallsRefused instance=a4"},
		[]string{"KamailioDroutingGatewayDown instance=b4 gateway=1"}},
	{"KamailioLCRAllGatewaysDown instance=a5 lcr=1",
		[]string{"KamailioLCRGatewayDown instance=a5 lcr=1 gateway=1", "KamailioCallsNotAnswered instance=a5"},
		[]string{"KamailioLCRGatewayDown instance=a5 lcr=2 gateway=1", "KamailioLCRGatewayDown instance=b5 lcr=1 gateway=1"}},
	{"KamailioRTPEngineSetDown instance=a6 set=0",
		[]string{"KamailioRTPEngineNodeDown instance=a6 set=0 url=udp:x"},
		[]string{"KamailioRTPEngineNodeDown instance=a6 set=1 url=udp:x", "KamailioRTPEngineNodeDown instance=b6 set=0 url=udp:x", "KamailioDispatcherDestinationDown instance=a6 set=0"}},
	{"KamailioRTPProxySetDown instance=a7 set=0",
		[]string{"KamailioRTPProxyNodeDown instance=a7 set=0 url=udp:x"},
		[]string{"KamailioRTPProxyNodeDown instance=a7 set=1 url=udp:x", "KamailioRTPProxyNodeDown instance=b7 set=0 url=udp:x"}},
	{"KamailioSharedMemoryExhausted instance=a8",
		[]string{"KamailioSharedMemoryAlmostFull instance=a8", "KamailioSharedMemoryFillingUp instance=a8", "KamailioCallsRefused instance=a8", "KamailioSIPNotAnswering instance=a8 transport=tls"},
		[]string{"KamailioSharedMemoryAlmostFull instance=b8", "KamailioSIPNotAnswering instance=b8 transport=tls", "KamailioPrivateMemoryAlmostFull instance=a8"}},
	{"KamailioCallsRefused instance=a12",
		[]string{"KamailioLocalServerErrors instance=a12", "KamailioSessionEstablishmentRatioLow instance=a12", "KamailioCallsNotAnswered instance=a12"},
		[]string{"KamailioLocalServerErrors instance=b12", "KamailioRegistrationsRejected instance=a12"}},
	{"KamailioTrunkFailsCalls instance=a13 trunk=x",
		[]string{"KamailioTrunkTimesOut instance=a13 trunk=x", "KamailioTrunkNoAnswers instance=a13 trunk=x", "KamailioTrunkAnswerRatioCollapsed instance=a13 trunk=x", "KamailioTrunkPostDialDelayHigh instance=a13 trunk=x", "KamailioTrunkCallsShort instance=a13 trunk=x", "KamailioInviteServerErrors instance=a13"},
		[]string{"KamailioTrunkTimesOut instance=a13 trunk=y", "KamailioTrunkNoAnswers instance=b13 trunk=x", "KamailioTrunkRegistrationDown instance=a13", "KamailioInviteServerErrors instance=b13"}},
	{"KamailioTrunkNoAnswers instance=a14 trunk=x",
		[]string{"KamailioTrunkAnswerRatioCollapsed instance=a14 trunk=x"},
		[]string{"KamailioTrunkAnswerRatioCollapsed instance=a14 trunk=y", "KamailioTrunkTimesOut instance=a14 trunk=x"}},
	{"KamailioExporterDown instance=a9",
		[]string{"KamailioRestarted instance=a9"},
		[]string{"KamailioRestarted instance=b9", "KamailioCollectorFailing instance=a9 job=other"}},
	{"KamailioDown instance=a10 cluster=x",
		[]string{"KamailioScrapeSlow instance=a10 cluster=x"},
		[]string{"KamailioScrapeSlow instance=a10 cluster=y"}},
}

// TestAlertmanager runs a real Alertmanager with the example, and checks which alerts are
// active, which are inhibited, and what the receivers get.
func TestAlertmanager(t *testing.T) {
	binary := kamailiotest.Needs(t, "prometheus-alertmanager", "prometheus-alertmanager")
	severity := map[string]string{"SomethingElse": "warning"}
	for _, r := range load(t, alertFile) {
		severity[r.Alert] = r.Labels["severity"]
	}

	var posted []map[string]any
	want := map[string]string{}
	post := func(text, state string) {
		words := strings.Fields(text)
		l := labelSet{"alertname": words[0], "job": "kamailio", "severity": severity[words[0]]}
		if l["severity"] == "" {
			t.Fatalf("there is no alert %s", words[0])
		}
		for _, w := range words[1:] {
			k, v, _ := strings.Cut(w, "=")
			l[k] = v
		}
		if _, twice := want[l.String()]; twice {
			t.Fatalf("two cases with %s", l)
		}
		want[l.String()] = state
		posted = append(posted, map[string]any{"labels": l, "annotations": labelSet{
			"summary": "summary of " + text, "description": "d", "dashboard": "/d/x?var-job=y", "runbook_url": runbooks(t) + words[0] + ".md",
		}})
	}
	for _, c := range inhibited {
		post(c.source, "active")
		for _, a := range c.mutes {
			post(a, "suppressed")
		}
		for _, a := range c.stays {
			post(a, "active")
		}
	}

	// One gateway in two sets, seen by twelve servers, is one message; so is a set.
	for i := range 12 {
		post(fmt.Sprintf("KamailioDispatcherDestinationDown instance=peer%d set=%d uri=sip:shared", i, i%2), "active")
		post(fmt.Sprintf("KamailioDispatcherSetDown instance=peer%d set=shared", i), "active")
	}

	receivers := newReceivers(t)
	api := startAlertmanager(t, binary, localConfig(t, receivers.URL))
	body, err := json.Marshal(posted)
	if err != nil {
		t.Fatal(err)
	}
	request(t, http.MethodPost, api+"/alerts", body)

	var got map[string]string
	eventually(t, func() bool { got = states(t, api); return maps.Equal(got, want) }, func() string {
		var b strings.Builder
		for _, l := range slices.Sorted(maps.Keys(want)) {
			if got[l] != want[l] {
				fmt.Fprintf(&b, "%s is %q, not %q\n", l, got[l], want[l])
			}
		}
		return b.String()
	})

	for path, texts := range map[string][]string{
		"/pager":    {"summary of KamailioDown instance=a1", "summary of KamailioRestartLoop instance=a1"},
		"/carriers": {"summary of KamailioDispatcherDestinationDown instance=b3 set=1 uri=sip:x"},
		"/chat":     {"summary of KamailioSharedMemoryAlmostFull instance=b8", "[FIRING: ", runbooks(t) + "KamailioSharedMemoryAlmostFull.md", "https://grafana.example.com/d/x?var-job=y", "(since 20"},
	} {
		for _, text := range texts {
			eventually(t, func() bool { return receivers.got(path, text) }, func() string {
				return fmt.Sprintf("%s never got %q", path, text)
			})
		}
	}
	for path, label := range map[string]labelSet{"/carriers": {"uri": "sip:shared"}, "/pager": {"set": "shared"}} {
		var groups map[string]int
		eventually(t, func() bool {
			groups = receivers.groups(t, path, label)
			return len(groups) == 1 && slices.Collect(maps.Values(groups))[0] == 12
		}, func() string { return fmt.Sprintf("%s got %v, not one group of 12", path, groups) })
	}
	for _, c := range inhibited {
		for _, a := range c.mutes {
			for path := range receivers.all() {
				if receivers.got(path, "summary of "+a+"\"") || receivers.got(path, "summary of "+a+"\\n") {
					t.Errorf("%s was told of %s, which is inhibited", path, a)
				}
			}
		}
	}
}

type inhibitRule struct {
	SourceMatchers []string `yaml:"source_matchers"`
	TargetMatchers []string `yaml:"target_matchers"`
}

func inhibitRules(t *testing.T) []inhibitRule {
	t.Helper()
	var config struct {
		InhibitRules []inhibitRule `yaml:"inhibit_rules"`
	}
	unmarshal(t, alertmanagerFile, &config)
	if len(config.InhibitRules) == 0 {
		t.Fatal("no inhibition rules")
	}
	return config.InhibitRules
}

// matches reports whether matchers of the name match an alert.
func matches(t *testing.T, matchers []string, alert string) bool {
	t.Helper()
	for _, m := range matchers {
		parts := regexp.MustCompile(`^alertname (=~?|!~) "?([^"]+)"?$`).FindStringSubmatch(m)
		if parts == nil {
			t.Fatalf("%s: not about the name of an alert", m)
		}
		if regexp.MustCompile("^(?:"+parts[2]+")$").MatchString(alert) == (parts[1] == "!~") {
			return false
		}
	}
	return true
}

// TestInhibitionIsTested checks that each inhibition rule of the example has a case.
func TestInhibitionIsTested(t *testing.T) {
	for _, r := range inhibitRules(t) {
		for _, source := range load(t, alertFile) {
			if matches(t, r.SourceMatchers, source.Alert) && !slices.ContainsFunc(inhibited, func(c inhibition) bool { return strings.HasPrefix(c.source, source.Alert+" ") }) {
				t.Errorf("no case for what %s mutes", source.Alert)
			}
		}
	}
}

// together are pairs about the same metrics that may be active at once, with the reason.
var together = map[string]string{
	"KamailioExporterAbsent KamailioXhttpPromDown":                            "without a target there is no other alert",
	"KamailioRestartLoop KamailioSharedMemoryFillingUp":                       "one has the start as a condition only",
	"KamailioSharedMemoryFillingUp KamailioRestarted":                         "one has the start as a condition only",
	"KamailioNoTraffic KamailioSessionEstablishmentRatioLow":                  "needs requests",
	"KamailioNoTraffic KamailioLocalServerErrors":                             "needs requests",
	"KamailioNoTraffic KamailioRequestErrors":                                 "needs requests",
	"KamailioNoTraffic KamailioAnswersRetransmitted":                          "needs requests",
	"KamailioNoTraffic KamailioRegistrationStorm":                             "needs requests",
	"KamailioCallsStopped KamailioSessionEstablishmentRatioLow":               "needs calls",
	"KamailioCallsNotAnswered KamailioCallsFarBelowLastWeek":                  "one is about how many calls there are",
	"KamailioTrunkRegistrationDown KamailioTrunkRegistrationDisabled":         "a registration is one of both",
	"KamailioTLSCertificateExpiryImminent KamailioTLSCertificateExpiringSoon": "a certificate is one of both",
}

// TestSeverePairsAreInhibited checks that of two alerts about the same metrics, the more
// severe one inhibits the other.
func TestSeverePairsAreInhibited(t *testing.T) {
	metrics := func(r rule) map[string]bool {
		names := map[string]bool{}
		for _, name := range regexp.MustCompile(`kamailio_\w+`).FindAllString(r.Expr, -1) {
			names[name] = true
		}
		return names
	}
	config := inhibitRules(t)
	mutes := func(source, target string) bool {
		return slices.ContainsFunc(config, func(r inhibitRule) bool {
			return matches(t, r.SourceMatchers, source) && matches(t, r.TargetMatchers, target)
		})
	}
	rules := load(t, alertFile)
	used := map[string]bool{}
	for _, severe := range rules {
		of := metrics(severe)
		for _, mild := range rules {
			if slices.Index(severities, severe.Labels["severity"]) >= slices.Index(severities, mild.Labels["severity"]) || len(of) == 0 {
				continue
			}
			same := 0
			others := metrics(mild)
			for name := range others {
				if of[name] {
					same++
				}
			}
			if pair := severe.Alert + " " + mild.Alert; same < min(len(of), len(others)) || mutes(severe.Alert, mild.Alert) {
				continue
			} else if together[pair] == "" {
				t.Errorf("%s does not inhibit %s, which is about the same metrics, and together has no reason", severe.Alert, mild.Alert)
			} else {
				used[pair] = true
			}
		}
	}
	for pair := range together {
		if !used[pair] {
			t.Errorf("%s is no such pair", pair)
		}
	}
}

// TestServersShareNotifications checks that no route of the example makes a group for
// each server: what many of them see is one notification.
func TestServersShareNotifications(t *testing.T) {
	groups := regexp.MustCompile(`group_by: \[(.*)\]`).FindAllStringSubmatch(read(t, alertmanagerFile), -1)
	if len(groups) < 4 {
		t.Fatalf("%d groups", len(groups))
	}
	for _, g := range groups {
		if strings.Contains(g[1], "instance") {
			t.Errorf("group_by: [%s]", g[1])
		}
	}
}

// states returns the alerts in Alertmanager, and whether they are active.
func states(t *testing.T, api string) map[string]string {
	t.Helper()
	var alerts []struct {
		Labels labelSet
		Status struct{ State string }
	}
	if err := json.Unmarshal(request(t, http.MethodGet, api+"/alerts", nil), &alerts); err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, a := range alerts {
		got[a.Labels.String()] = a.Status.State
	}
	return got
}

// receivers record what they receive.
type receivers struct {
	*httptest.Server
	mu     sync.Mutex
	bodies map[string]string
}

func newReceivers(t *testing.T) *receivers {
	t.Helper()
	r := &receivers{bodies: map[string]string{}}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, err := io.ReadAll(req.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.bodies[req.URL.Path] += string(body)
		fmt.Fprint(w, "ok") // Slack's reply
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *receivers) got(path, text string) bool { return strings.Contains(r.all()[path], text) }

func (r *receivers) all() map[string]string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.bodies)
}

// groups counts the alerts with these labels by their group, in what a webhook received.
func (r *receivers) groups(t *testing.T, path string, labels labelSet) map[string]int {
	t.Helper()
	seen := map[string]map[string]bool{}
	for d := json.NewDecoder(strings.NewReader(r.all()[path])); d.More(); {
		var message struct {
			GroupKey string
			Alerts   []struct{ Labels labelSet }
		}
		if err := d.Decode(&message); err != nil {
			t.Fatal(err)
		}
		for _, a := range message.Alerts {
			for k, v := range labels {
				if a.Labels[k] != v {
					continue
				}
				if seen[message.GroupKey] == nil {
					seen[message.GroupKey] = map[string]bool{}
				}
				seen[message.GroupKey][a.Labels.String()] = true
			}
		}
	}
	counts := map[string]int{}
	for key, alerts := range seen {
		counts[key] = len(alerts)
	}
	return counts
}

// startAlertmanager starts an Alertmanager and returns the URL of its API.
func startAlertmanager(t *testing.T, binary, config string) string {
	t.Helper()
	address := freeAddress(t)
	start(t, address, binary, "--config.file="+config, "--storage.path="+t.TempDir(),
		"--web.listen-address="+address, "--cluster.listen-address=")
	return "http://" + address + "/api/v2"
}

// start runs a server of the Prometheus family until the test ends, and waits until it is
// ready.
func start(t *testing.T, address, binary string, args ...string) {
	t.Helper()
	var log bytes.Buffer
	cmd := exec.CommandContext(t.Context(), binary, args...)
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var exit error
	ended := make(chan struct{})
	go func() { exit = cmd.Wait(); close(ended) }()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
	})
	for deadline := time.After(30 * time.Second); ; {
		if r, err := http.Get("http://" + address + "/-/ready"); err == nil {
			r.Body.Close()
			if r.StatusCode == http.StatusOK {
				return
			}
		}
		select {
		case <-ended:
			t.Fatalf("%s: %v\n%s", filepath.Base(binary), exit, log.String())
		case <-deadline:
			t.Fatalf("%s is not ready after 30 s", filepath.Base(binary))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// freeAddress returns an address on which no process listens now.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func request(t *testing.T, method, url string, body []byte) []byte {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	r, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	answer, err := io.ReadAll(r.Body)
	if err != nil || r.StatusCode != http.StatusOK {
		t.Fatalf("%s %s: %s %v\n%s", method, url, r.Status, err, answer)
	}
	return answer
}

// eventually waits until so returns true, and otherwise fails with the text of wrong.
func eventually(t *testing.T, so func() bool, wrong func() string) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !so(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal(wrong())
		}
	}
}
