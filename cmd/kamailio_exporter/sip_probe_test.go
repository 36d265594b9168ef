package main

import (
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kamailio-exporter/kamailio_exporter/kamrpc/kamrpctest/kamailiotest"
)

// sipServer is a UDP socket that replies to SIP requests with a status after wait has
// returned; with status "" it does not reply. asked counts the requests.
func sipServer(t *testing.T, status func() string, wait func()) (address string, asked *atomic.Int32) {
	t.Helper()
	g := kamailiotest.NewGateway(t, func(string) (string, time.Duration) {
		wait()
		return status(), 0
	})
	return g.Addr, &g.Requests
}

func always(s string) func() string { return func() string { return s } }

// TestSIPProbeOnThePage checks that the log reports once that a socket stops replying and
// once that it replies again, and that such a socket has no other effect on the page.
func TestSIPProbeOnThePage(t *testing.T) {
	var status atomic.Value
	status.Store("200 OK")
	address, _ := sipServer(t, func() string { return status.Load().(string) }, func() {})
	e := start(t, "--kamailio.uri="+fake(t).URI("http"), "--sip.probe=udp:"+address, "--scrape.reuse=0s", "--sip.timeout=400ms")
	labels := `{address="` + address + `",transport="udp"}`
	for _, tc := range []struct{ status, success, code string }{
		{"200 OK", "1", "200"}, {"405 Method Not Allowed", "1", "405"}, {"", "0", ""}, {"", "0", ""}, {"503 Busy", "1", "503"},
	} {
		status.Store(tc.status)
		_, page := e.get(t, "/metrics")
		if value(page, "kamailio_sip_probe_success"+labels) != tc.success || value(page, "kamailio_sip_probe_status_code"+labels) != tc.code ||
			(value(page, "kamailio_sip_probe_duration_seconds"+labels) != "") != (tc.success == "1") ||
			value(page, "kamailio_up") != "1" || value(page, "kamailio_tm_transactions_total") == "" {
			t.Errorf("%q:\n%s", tc.status, strings.Join(regexp.MustCompile(`(?m)^kamailio_(sip|up).*`).FindAllString(page, -1), "\n"))
		}
		wholePage(t, page)
	}
	for _, line := range []string{`msg="SIP probe failed" socket=udp:` + address + ` err="no reply in time"`, `msg="SIP probe succeeds again" socket=udp:` + address} {
		if strings.Count(e.stderr.String(), line) != 1 {
			t.Errorf("not one line with %s:\n%s", line, e.stderr.String())
		}
	}
}

// TestSIPProbesOnlyIfSelected checks that no request is sent by a scrape that selects
// collectors, or without --sip.probe. (The package serve tests that concurrent scrapes
// share a probe.)
func TestSIPProbesOnlyIfSelected(t *testing.T) {
	release := make(chan struct{})
	address, asked := sipServer(t, always("200 OK"), func() { <-release })
	args := []string{"--kamailio.uri=" + fake(t).URI("http"), "--sip.probe=udp:" + address, "--scrape.reuse=0s", "--sip.timeout=20s"}
	e := start(t, args...)
	if _, page := e.get(t, "/metrics?collect[]=tm"); asked.Load() != 0 || strings.Contains(page, "kamailio_sip_probe") {
		t.Errorf("asked %d times by a scrape of tm", asked.Load())
	}
	close(release)
	if _, page := e.get(t, "/metrics"); asked.Load() == 0 || !strings.Contains(page, "kamailio_sip_probe_success") {
		t.Errorf("asked %d times by a scrape of all", asked.Load())
	}
	if _, page := scrapePage(handlerFor(t, args[0]), "10"); strings.Contains(page, "kamailio_sip_probe") {
		t.Error("there are SIP probes without --sip.probe")
	}
}

// TestSIPProbesEndWithTheScrape checks that a silent socket does not delay a scrape
// beyond its timeout, and that the results of the other sockets are exported.
func TestSIPProbesEndWithTheScrape(t *testing.T) {
	silent, _ := sipServer(t, always(""), func() {})
	good, _ := sipServer(t, always("200 OK"), func() {})
	h := handlerFor(t, "--kamailio.uri="+fake(t).URI("http"), "--sip.probe=udp:"+silent, "--sip.probe=udp:"+good, "--sip.timeout=1m")
	begun := time.Now()
	_, page := scrapePage(h, "2")
	if took := time.Since(begun); took > 1900*time.Millisecond {
		t.Errorf("a scrape of at most 1.5 s took %v", took)
	}
	for address, want := range map[string]string{silent: "0", good: "1"} {
		if got := value(page, `kamailio_sip_probe_success{address="`+address+`",transport="udp"}`); got != want {
			t.Errorf("success of %s is %q, not %s", address, got, want)
		}
	}
	if value(page, "kamailio_tm_transactions_total") == "" {
		t.Error("the rest of the page is missing")
	}
}

func TestSIPFlags(t *testing.T) {
	none := filepath.Join(t.TempDir(), "none.pem")
	if err := os.WriteFile(none, []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	for flags, says := range map[string]string{
		"--sip.probe=127.0.0.1:5060":                                                                `--sip.probe: "127.0.0.1:5060" is not TRANSPORT:HOST:PORT`,
		"--sip.probe=udp:127.0.0.1:5060 --sip.probe=udp:127.0.0.1:5060":                             "--sip.probe: udp:127.0.0.1:5060 is given twice",
		"--sip.probe=tls:127.0.0.1:5061?server_name=a --sip.probe=tls:127.0.0.1:5061?server_name=a": "--sip.probe: tls:127.0.0.1:5061?server_name=a is given twice",
		"--sip.probe=udp:127.0.0.1:5060?server_name=a":                                              "server_name must be a host name in the certificate of a TLS socket",
		"--sip.probe=udp:127.0.0.1:5060 --sip.timeout=0s":                                           "--sip.timeout must be from 1ms to 1h, not 0s",
		"--sip.probe=udp:127.0.0.1:5060 --sip.request-uri=ping":                                     `--sip.request-uri: "ping" is not a SIP URI`,
		"--sip.probe=udp:127.0.0.1:5060 --sip.tls-ca-file=/nosuch.pem":                              "--sip.tls-ca-file: open /nosuch.pem",
		"--sip.probe=udp:127.0.0.1:5060 --sip.tls-ca-file=" + none:                                  "no certificate in PEM format",
		"--sip.request-uri=sip:ping@example.com":                                                    "need --sip.probe",
		"--sip.probe=udp:127.0.0.1:5060 --sip.request-uri=sip:me:s3cret@localhost":                  "the SIP URI must not contain a password",
	} {
		err := run(t.Context(), append(strings.Fields(flags), "--web.listen-address=127.0.0.1:0"), io.Discard, io.Discard)
		if err == nil || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v; want %s", flags, err, says)
		}
	}
	t.Setenv("KAMAILIO_EXPORTER_SIP_PROBE", "udp:127.0.0.1:5060\ntls:[::1]:5061")
	s, err := settings()
	if err != nil || strings.Join(s.Target.SIP.Probe, " ") != "udp:127.0.0.1:5060 tls:[::1]:5061" {
		t.Errorf("from the environment: %q, %v", s.Target.SIP.Probe, err)
	}
}
