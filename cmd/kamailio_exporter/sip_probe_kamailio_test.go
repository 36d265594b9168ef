//go:build linux

package main

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kamailio-exporter/kamailio_exporter/kamrpc/kamrpctest/kamailiotest"
)

// patient is for probes that must succeed on a busy machine, under the race detector too.
const patient = "--sip.timeout=8s"

// TestSIPProbesOfARealKamailio probes all SIP sockets of a server: while it works, while
// its SIP workers hang but its RPC processes do not, and after it has recovered.
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
				// Ignore the demo's dead media relays and trunk.
				if !strings.Contains(line, ": rtpengine [") && !strings.Contains(line, ": uac [") {
					t.Errorf("the probes cost a line in Kamailio's log: %s", line)
				}
			}
			for _, target := range targets {
				for _, says := range []string{"SIP probe failed", "SIP probe succeeds again"} {
					if n := strings.Count(e.stderr.String(), fmt.Sprintf("msg=%q socket=%s", says, target)); n != 1 {
						t.Errorf("%d lines with %q of %s:\n%s", n, says, target, e.stderr.String())
					}
				}
			}
		})
	}
}

// notAfter returns when the certificate in a file expires, in Unix time.
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

// TestSIPProbesOfAStockKamailio checks that a stock Kamailio replies too, and one whose
// script rejects the request.
func TestSIPProbesOfAStockKamailio(t *testing.T) {
	for _, version := range kamailiotest.Versions(t) {
		t.Run(version, func(t *testing.T) {
			server := kamailiotest.Start(t, kamailiotest.Config{Version: version, Stock: true})
			for uri, status := range map[string]string{
				"sip:" + server.SIPAddr:            "200",
				"sip:nobody@" + server.SIPAddr:     "404",
				"sip:nobody@nowhere.example:15099": "403",
			} {
				h := handlerFor(t, "--kamailio.uri=unix://"+server.SocketPath, "--sip.probe=udp:"+server.SIPAddr, "--sip.probe=tcp:"+server.SIPAddr, patient, "--sip.request-uri="+uri)
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

// TestCertificatesOfOneSocket probes a TLS socket with several certificates once for each
// name, so that no expiring certificate is missed.
func TestCertificatesOfOneSocket(t *testing.T) {
	const east, west = "east.example.com", "west.example.com"
	for _, version := range kamailiotest.Versions(t) {
		t.Run(version, func(t *testing.T) {
			server := kamailiotest.Start(t, kamailiotest.Config{Version: version})
			file := func(name string) string { return filepath.Join(server.Dir, name) }
			profiles, err := os.ReadFile(file("tls.cfg"))
			if err != nil {
				t.Fatal(err)
			}
			trusted, err := os.ReadFile(file("tls.crt"))
			if err != nil {
				t.Fatal(err)
			}
			ends := map[string]time.Time{east: time.Now().Add(5 * 24 * time.Hour), west: time.Now().Add(90 * 24 * time.Hour)}
			for name, end := range ends {
				trusted = append(trusted, writeCertificate(t, file(name), name, end)...)
				profiles = fmt.Appendf(profiles, "[server:%s]\nmethod = TLSv1.2+\nserver_name = %s\nprivate_key = %s.key\ncertificate = %s.crt\n\n", server.TLSAddr, name, file(name), file(name))
			}
			for name, text := range map[string][]byte{"tls.cfg": profiles, "trusted.pem": trusted} {
				if err := os.WriteFile(file(name), text, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			server.RPC(t, "tls.reload")
			socket := "tls:" + server.TLSAddr
			flags := []string{"--kamailio.uri=unix://" + server.SocketPath, patient, "--sip.tls-ca-file=" + file("trusted.pem"), "--sip.probe=" + socket + "?server_name=localhost"}
			for name := range ends {
				flags = append(flags, "--sip.probe="+socket+"?server_name="+name)
			}
			flags = append(flags, "--sip.probe="+socket)
			_, page := scrapePage(handlerFor(t, flags...), "10")
			checkMetrics(t, page)
			wholePage(t, page)
			// Without a name, Kamailio chooses the certificate.
			if value(page, `kamailio_sip_probe_success{address="`+server.TLSAddr+`",transport="tls"}`) != "1" {
				t.Error("no probe without a name")
			}
			expiry := func(labels string) string {
				seconds, _ := strconv.ParseFloat(value(page, "kamailio_sip_probe_tls_certificate_not_after_timestamp_seconds"+labels), 64)
				return strconv.FormatInt(int64(seconds), 10)
			}
			for _, tc := range []struct{ labels, expires, verified string }{
				{`server_name="east.example.com",transport="tls"}`, strconv.FormatInt(ends[east].Unix(), 10), "1"},
				{`server_name="west.example.com",transport="tls"}`, strconv.FormatInt(ends[west].Unix(), 10), "1"},
				{`server_name="localhost",transport="tls"}`, notAfter(t, file("tls.crt")), "1"},
			} {
				labels := `{address="` + server.TLSAddr + `",` + tc.labels
				if got := expiry(labels); got != tc.expires || value(page, "kamailio_sip_probe_success"+labels) != "1" || value(page, "kamailio_sip_probe_tls_verified"+labels) != tc.verified {
					t.Errorf("%s: expires at %s, want %s; success %s, verified %s", labels, got, tc.expires, value(page, "kamailio_sip_probe_success"+labels), value(page, "kamailio_sip_probe_tls_verified"+labels))
				}
			}
		})
	}
}

// writeCertificate makes NAME.crt and NAME.key for a name, valid until the given time.
func writeCertificate(t *testing.T, file, name string, until time.Time) []byte {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: until, DNSNames: []string{name},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	for file, text := range map[string][]byte{file + ".crt": certificate, file + ".key": pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})} {
		if err := os.WriteFile(file, text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return certificate
}
