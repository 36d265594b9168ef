//go:build linux

package main

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/kamailio-exporter/kamailio_exporter/kamrpc/kamrpctest/kamailiotest"
)

// TestSIPProbesOfARealKamailio asks all SIP sockets of a server: while it is well,
// while its SIP workers hang and its RPC processes do not, and when it is well
// again.
func TestSIPProbesOfARealKamailio(t *testing.T) {
	for _, version := range kamailiotest.Versions(t) {
		t.Run(version, func(t *testing.T) {
			server := kamailiotest.Start(t, kamailiotest.Config{Version: version})
			expires := notAfter(t, filepath.Join(server.Dir, "tls.crt"))
			targets := []string{"udp:" + server.SIPAddr, "tcp:" + server.SIPAddr, "tls:" + server.TLSAddr}
			args := []string{
				"--kamailio.uri=unix://" + server.SocketPath, "--scrape.reuse=0s",
				"--sip.tls-ca-file=" + filepath.Join(server.Dir, "tls.crt"), "--sip.tls-server-name=localhost",
			}
			for _, target := range targets {
				args = append(args, "--sip.probe="+target)
			}
			e := start(t, args...)
			check := func(state, success, status string) {
				t.Helper()
				_, page := e.get(t, "/metrics")
				if value(page, "kamailio_up") != "1" || value(page, "kamailio_core_requests_received_total") == "" {
					t.Errorf("%s: no RPCs:\n%.400s", state, page)
				}
				for _, target := range targets {
					transport, address, _ := strings.Cut(target, ":")
					labels := fmt.Sprintf(`{address="%s",transport="%s"}`, address, transport)
					if got := value(page, "kamailio_sip_probe_success"+labels); got != success {
						t.Errorf("%s: success of %s is %q", state, target, got)
					}
					if got := value(page, "kamailio_sip_probe_status_code"+labels); got != status {
						t.Errorf("%s: status of %s is %q, not %q", state, target, got, status)
					}
					seconds, err := strconv.ParseFloat(value(page, "kamailio_sip_probe_duration_seconds"+labels), 64)
					if (err == nil) != (status != "") || seconds < 0 || seconds > 2 {
						t.Errorf("%s: duration of %s is %g, %v", state, target, seconds, err)
					}
					wantExpiry, wantVerified := "", ""
					if transport == "tls" && status != "" {
						wantExpiry, wantVerified = expires, "1"
					}
					got, _ := strconv.ParseFloat(value(page, "kamailio_sip_probe_tls_certificate_not_after_timestamp_seconds"+labels), 64)
					if want, _ := strconv.ParseFloat(wantExpiry, 64); got != want {
						t.Errorf("%s: certificate of %s expires at %f, not %f", state, target, got, want)
					}
					if got := value(page, "kamailio_sip_probe_tls_verified"+labels); got != wantVerified {
						t.Errorf("%s: verified of %s is %q", state, target, got)
					}
				}
				checkMetrics(t, page)
			}
			before := len(server.Log())
			check("well", "1", "200")
			server.PauseSIP(t)
			check("SIP workers hang", "0", "")
			server.Resume()
			check("well again", "1", "200")
			for line := range strings.Lines(server.Log()[before:]) {
				// The demo's dead media relays and trunk have nothing to do with it.
				if !strings.Contains(line, ": rtpengine [") && !strings.Contains(line, ": uac [") {
					t.Errorf("the probes cost a line in Kamailio's log: %s", line)
				}
			}
			for _, target := range targets {
				for _, says := range []string{"a SIP socket does not answer", "a SIP socket answers again"} {
					if n := strings.Count(e.stderr.String(), fmt.Sprintf("msg=%q socket=%s", says, target)); n != 1 {
						t.Errorf("%d lines with %q of %s:\n%s", n, says, target, e.stderr.String())
					}
				}
			}
		})
	}
}

// notAfter is when the certificate in a file expires, in Unix time.
func notAfter(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return strconv.FormatInt(certificate.NotAfter.Unix(), 10)
}

// A stock Kamailio answers too, and one whose script refuses what is asked for.
func TestSIPProbesOfAStockKamailio(t *testing.T) {
	for _, version := range kamailiotest.Versions(t) {
		t.Run(version, func(t *testing.T) {
			server := kamailiotest.Start(t, kamailiotest.Config{Version: version, Stock: true})
			for uri, status := range map[string]string{
				"sip:" + server.SIPAddr:            "200",
				"sip:nobody@" + server.SIPAddr:     "404",
				"sip:nobody@nowhere.example:15099": "403",
			} {
				h := handlerFor(t, "--kamailio.uri=unix://"+server.SocketPath, "--sip.probe=udp:"+server.SIPAddr, "--sip.probe=tcp:"+server.SIPAddr, "--sip.request-uri="+uri)
				_, page := scrapePage(h, "10")
				for _, transport := range []string{"udp", "tcp"} {
					labels := fmt.Sprintf(`{address="%s",transport="%s"}`, server.SIPAddr, transport)
					if got := value(page, "kamailio_sip_probe_status_code"+labels); got != status || value(page, "kamailio_sip_probe_success"+labels) != "1" {
						t.Errorf("%s: %q to %s", transport, got, uri)
					}
				}
			}
		})
	}
}
