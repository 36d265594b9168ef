//go:build linux

package main

import (
	"net"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/kamailio-exporter/kamailio_exporter/kamrpc/kamrpctest/kamailiotest"
)

// TestProbeOfARealKamailio checks that a probe of a real Kamailio has the same metrics as
// /metrics, by name and by URI, including its SIP sockets and the page of its script.
func TestProbeOfARealKamailio(t *testing.T) {
	for _, version := range kamailiotest.Versions(t) {
		t.Run(version, func(t *testing.T) {
			server := kamailiotest.Start(t, kamailiotest.Config{Version: version, Traffic: true})
			_, port, err := net.SplitHostPort(strings.TrimSuffix(strings.TrimPrefix(server.HTTPURL, "http://"), "/RPC"))
			if err != nil {
				t.Fatal(err)
			}
			e := start(t, "--kamailio.uri=fifo://"+server.FIFOPath+"?reply_dir="+server.FIFOReplyDir, "--scrape.reuse=0s", "--config.file="+fleetFile(t, `
modules: {calls: {collectors: [dialog, tm], sip: false, xhttp_prom: false}}
targets:
  sbc:
    uris: [%q, 'unix://%s']
    sip: {probe: ['udp:%s']}
    xhttp_prom: {url: 'http://127.0.0.1:%s/metrics'}
allow: {networks: [127.0.0.1/32], ports: [%s]}
`, server.HTTPURL, server.SocketPath, server.SIPAddr, port, port))

			_, one := e.get(t, "/metrics")
			_, probe := e.get(t, "/probe?target=sbc")
			for _, want := range []string{"kamailio_up 1", "kamailio_xhttp_prom_up 1", `kamailio_sip_probe_success{address="` + server.SIPAddr + `",transport="udp"} 1`} {
				has(t, probe, want)
			}
			if failed.MatchString(probe) {
				t.Errorf("collectors failed: %s", names(failed.FindAllStringSubmatch(probe, -1)))
			}
			families := func(page string) map[string]bool {
				found := map[string]bool{}
				for _, m := range regexp.MustCompile(`(?m)^# TYPE (kamailio_\S+)`).FindAllStringSubmatch(page, -1) {
					found[m[1]] = true
				}
				return found
			}
			probed := families(probe)
			for name := range families(one) {
				if !probed[name] && !strings.HasPrefix(name, "kamailio_exporter_") {
					t.Errorf("/metrics has %s, the probe has not", name)
				}
			}
			_, calls := e.get(t, "/probe?target=sbc&module=calls")
			if got := families(calls); !got["kamailio_dialog_dialogs"] || got["kamailio_core_shm_total_bytes"] || got["kamailio_sip_probe_success"] || got["kamailio_xhttp_prom_up"] {
				t.Errorf("the module calls has %v", got)
			}
			resp, guest := e.get(t, "/probe?target="+url.QueryEscape(server.HTTPURL))
			has(t, guest, "kamailio_up 1")
			if resp.StatusCode != 200 || strings.Contains(guest, "kamailio_sip_probe") {
				t.Errorf("by its URI: %s", resp.Status)
			}

			server.Stop()
			_, down := e.get(t, "/probe?target=sbc")
			has(t, down, "kamailio_up 0")
			server.Restart()
			_, again := e.get(t, "/probe?target=sbc")
			has(t, again, "kamailio_up 1")
		})
	}
}
