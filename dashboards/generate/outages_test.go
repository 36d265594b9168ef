package generate

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kamailio-exporter/kamailio_exporter/kamrpc/kamrpctest/kamailiotest"
)

// faster returns copies of the rules of [hasty] in which all windows and offsets are a
// twentieth: what must fire within five minutes fires within 15 seconds.
func faster(t *testing.T) []string {
	t.Helper()
	files := hasty(t)
	span := regexp.MustCompile(`(\[|offset )(\d+)([mhd])\b`)
	seconds := map[string]int{"m": 60, "h": 3600, "d": 86400}
	for _, file := range files {
		text := span.ReplaceAllStringFunc(readText(t, file), func(found string) string {
			m := span.FindStringSubmatch(found)
			n, err := strconv.Atoi(m[2])
			if err != nil {
				t.Fatal(err)
			}
			return fmt.Sprintf("%s%ds", m[1], n*seconds[m[3]]/20)
		})
		write(t, file, text)
	}
	return files
}

// registering is a registrar, and a proxy that sends a call to the gateway at this port
// after its own.
const registering = proxyHeader + `
loadmodule "usrloc.so"
loadmodule "registrar.so"

request_route {
	if (is_method("REGISTER")) {
		save("location");
		exit;
	}
	route(OF_CALL);
	if (!is_method("INVITE")) {
		sl_send_reply("200", "OK");
		exit;
	}
	dlg_manage();
	if ($rU == "11") dlg_set_timeout("2"); # a call without BYE
	record_route();
	$var(port) = $(rU{s.substr,0,1}{s.int}) + $Rp;
	$ru = "sip:gw@127.0.0.1:" + $var(port);
	t_relay();
}
`

// TestOutagesFireAlerts checks that what users notice at once fires within five minutes:
// no call is answered, calls stop, all traffic stops, users are gone, phones register too
// often, calls end without BYE, Kamailio restarts again and again. All while --sip.probe sends OPTIONS.
func TestOutagesFireAlerts(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: starts real servers")
	}
	t.Parallel() // it mostly waits
	versions := kamailiotest.Versions(t)
	kamailiotest.Needs(t, "prometheus", "prometheus")
	sipp := kamailiotest.Needs(t, "sipp", "sip-tester")
	exporter := buildExporter(t)
	phones := filepath.Join(t.TempDir(), "phones.csv")
	users := []string{"SEQUENTIAL"}
	for i := range 45 {
		users = append(users, fmt.Sprintf("user%d;example.com;SIPp;5070;", i))
	}
	write(t, phones, strings.Join(users, "\n")+"\n")
	for _, version := range versions {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			server := kamailiotest.Start(t, kamailiotest.Config{Version: version, Edit: func(string) string { return registering }})
			first, err := strconv.Atoi(strings.TrimPrefix(server.SIPAddr, "127.0.0.1:"))
			if err != nil {
				t.Fatal(err)
			}
			for i, does := range []string{"180 200 ACK BYE ok", "180 CANCEL ok 487 ACK"} {
				program(t, sipp, "-nostdin", "-skip_rlimit", "-i", "127.0.0.1", "-mi", anyLoopback(), "-p", strconv.Itoa(first+i+1),
					"-sf", write(t, filepath.Join(t.TempDir(), "uas.xml"), gatewayScenario(does)))
			}
			prometheus := runPrometheus(t, []string{exporterAt(t, exporter, "--kamailio.uri=unix://"+server.SocketPath, "--sip.probe=udp:"+server.SIPAddr)}, faster(t))
			// traffic runs SIPp until stop.
			traffic := func(args ...string) (stop func()) {
				ctx, cancel := context.WithCancel(t.Context())
				cmd := exec.CommandContext(ctx, sipp, append([]string{"-nostdin", "-skip_rlimit", "-i", "127.0.0.1", "-mi", anyLoopback(), server.SIPAddr}, args...)...)
				cmd.Dir = t.TempDir()
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				return func() { cancel(); _ = cmd.Wait() }
			}
			register := func(perSecond string) (stop func()) {
				return traffic("-sf", abs(t, "../../examples/demo/sipp/register.xml"), "-inf", phones, "-r", perSecond)
			}
			call := func(to, does string) (stop func()) {
				return traffic("-sf", write(t, filepath.Join(t.TempDir(), "uac.xml"), callerScenario(does)), "-s", to, "-r", "3")
			}
			began := time.Now()
			// fires checks that these are the critical alerts and those on registrations now. On a
			// busy machine the exporter answers some scrapes too late.
			fires := func(limit time.Duration, names ...string) {
				t.Helper()
				var found map[string]bool
				if !until(limit, func() bool {
					found = map[string]bool{}
					for _, s := range prometheus.query(t, `ALERTS{alertstate="firing", severity="critical", alertname!="KamailioExporterDown"} or ALERTS{alertstate="firing", alertname=~"KamailioRegistrationStorm|KamailioDialogsExpiring"}`) {
						found[strings.TrimPrefix(s.labels["alertname"], "Kamailio")] = true
					}
					for _, name := range names {
						if !found[name] {
							return false
						}
					}
					return len(found) == len(names)
				}) {
					t.Errorf("%v fire, not %q", found, names)
				}
				t.Logf("after %v: %q", time.Since(began).Round(time.Second), names)
				began = time.Now()
			}
			const limit = 15*time.Second + 15*time.Second // a twentieth of five minutes, and for a busy machine
			stop := register("3")
			answered := call("1", "INVITE 200 ACK BYE")
			<-time.After(40 * time.Second) // the calls before
			fires(0)
			answered()
			rings := call("2", "INVITE 180 CANCEL 487 ACK")
			began = time.Now()
			fires(limit, "CallsNotAnswered")
			rings()
			answered = call("1", "INVITE 200 ACK BYE")
			fires(limit)
			answered()
			began = time.Now()
			fires(limit, "CallsStopped")
			stop()
			began = time.Now()
			fires(limit, "CallsStopped", "NoTraffic")
			for i := range 45 {
				server.RPC(t, "ul.rm", "location", fmt.Sprintf("user%d", i))
			}
			fires(limit, "CallsStopped", "NoTraffic", "RegistrationsDropped")
			stop = register("60")
			defer stop()
			fires(limit, "CallsStopped", "RegistrationStorm")
			defer call("11", "INVITE 200 ACK")()
			fires(limit, "DialogsExpiring", "RegistrationStorm")
			// A restart within a second of another, or without a scrape before it, is not seen.
			seen := func(restarts int) bool {
				return slices.ContainsFunc(prometheus.query(t, `changes(kamailio_start_time_seconds[3m])`), func(s series) bool { return s.value >= float64(restarts) })
			}
			for restarts := 1; restarts <= 4; restarts++ {
				if !until(time.Minute, func() bool {
					server.Restart()
					return until(5*time.Second, func() bool { return seen(restarts) })
				}) {
					t.Fatalf("restart %d is not seen", restarts)
				}
			}
			if !until(limit, func() bool {
				return len(prometheus.query(t, `ALERTS{alertstate="firing", alertname="KamailioRestartLoop"}`)) > 0
			}) {
				t.Error("RestartLoop does not fire")
			}
		})
	}
}
