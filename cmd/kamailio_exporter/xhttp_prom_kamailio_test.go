//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/target"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/xhttpprom"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc/kamrpctest/kamailiotest"
)

// pageServer is a stock Kamailio with the module xhttp_prom, with these settings, and a
// page for each possible mistake in its script.
func pageServer(t *testing.T, version, settings string) (server *kamailiotest.Server, page func(path string) error) {
	t.Helper()
	server = kamailiotest.Start(t, kamailiotest.Config{Version: version, Edit: func(config string) string {
		return strings.Replace(config, "request_route {", `
loadmodule "xhttp.so"
loadmodule "xhttp_prom.so"
modparam("xhttp_prom", "xhttp_prom_timeout", 0)
modparam("xhttp_prom", "prom_counter", "name=calls_total; label=gateway;")
`+settings+`
event_route[core:worker-one-init] {
	prom_counter_inc("calls_total", "7", "gw1.example.com");
	prom_counter_inc("calls_total", "8", "gw2.example.com");
}
event_route[xhttp:request] {
	if (prom_check_uri()) { prom_dispatch(); exit; }
	if ($hu == "/silent") { exit; }
	if ($hu == "/html") { xhttp_reply("200", "OK", "text/html", "<p>Hello</p>\n"); exit; }
	if ($hu == "/closed") { xhttp_reply("403", "Forbidden", "text/plain", "Not from here\n"); exit; }
	if ($hu == "/secret") { xhttp_reply("401", "Unauthorized", "text/plain", "Who is it?\n"); exit; }
	if ($hu == "/busy") { xhttp_reply("503", "Busy", "text/plain", "Later\n"); exit; }
	xhttp_reply("404", "Not Found", "text/plain", "Not here\n");
}
request_route {`, 1)
	}})
	return server, func(path string) error { return pageError(t, "http://"+server.SIPAddr+path) }
}

// pageError returns the fault of a page.
func pageError(t *testing.T, url string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	return xhttpprom.Of(target.Target{Script: target.Script{URL: url, MaxSize: 1 << 20}}, http.DefaultClient).Read(ctx).Err
}

// TestPageFaultsOfARealKamailio makes the page of a Kamailio fail with each possible
// fault, and checks that the faults are distinguished.
func TestPageFaultsOfARealKamailio(t *testing.T) {
	for _, version := range kamailiotest.Versions(t) {
		t.Run(version, func(t *testing.T) {
			is := func(what string, err error, fault *xhttpprom.Fault) {
				t.Helper()
				if !errors.Is(err, fault) {
					t.Errorf("%s: %v, not %q", what, err, fault.Seen)
				}
			}
			server, page := pageServer(t, version, "tcp_accept_no_cl=yes\n")
			if err := page("/metrics"); err != nil {
				t.Errorf("a page that is well: %v", err)
			}
			for path, fault := range map[string]*xhttpprom.Fault{
				"/silent": xhttpprom.ErrTimedOut, "/html": xhttpprom.ErrNotThePage, "/closed": xhttpprom.ErrForbidden,
				"/secret": xhttpprom.ErrUnauthorized, "/nosuch": xhttpprom.ErrNotFound, "/busy": xhttpprom.ErrStatus,
			} {
				is(path, page(path), fault)
			}
			server.Stop()
			is("a Kamailio that is down", page("/metrics"), xhttpprom.ErrRefused)

			_, page = pageServer(t, version, "")
			is("no tcp_accept_no_cl", page("/metrics"), xhttpprom.ErrClosed)
			for what, settings := range map[string]string{
				"too small a buffer":              `modparam("xhttp_prom", "xhttp_prom_buf_size", 60)`,
				"a buffer larger than the memory": `modparam("xhttp_prom", "xhttp_prom_buf_size", 900000000)`,
				"no such statistic":               `modparam("xhttp_prom", "xhttp_prom_stats", "nosuch")`,
			} {
				_, page := pageServer(t, version, "tcp_accept_no_cl=yes\n"+settings)
				err := page("/metrics")
				is(what, err, xhttpprom.ErrBuffer)
				if text := fmt.Sprint(err); !strings.HasPrefix(text, "HTTP status 500: ") || !strings.Contains(text, "xhttp_prom_buf_size") || strings.Contains(text, "prom_dispatch") {
					t.Errorf("%s: %v", what, err)
				}
			}
		})
	}
}

// TestPageWithStatisticsThatDoNotFit checks that statistics that do not fit into
// Kamailio's buffer do not affect the script's metrics, which come before them.
func TestPageWithStatisticsThatDoNotFit(t *testing.T) {
	for _, version := range kamailiotest.Versions(t) {
		t.Run(version, func(t *testing.T) {
			server, _ := pageServer(t, version, `tcp_accept_no_cl=yes
modparam("xhttp_prom", "xhttp_prom_stats", "all")
modparam("xhttp_prom", "xhttp_prom_buf_size", 433)
`)
			url := "http://" + server.SIPAddr + "/metrics"
			if text := body(t, url); strings.HasSuffix(text, "\n") || len(text) < 400 {
				t.Fatalf("Kamailio's page is not cut off:\n%s", text)
			}
			_, page := scrapePage(handlerFor(t, "--kamailio.uri=unix://"+server.SocketPath, "--xhttp_prom.url="+url), "10")
			if got := value(page, `kamailio_calls_total{gateway="gw2.example.com"}`); got != "8" || value(page, "kamailio_xhttp_prom_up") != "1" {
				t.Errorf("8 calls are %q:\n%s", got, foreign(page))
			}
		})
	}
}

// TestPageFaultsOfConnections has a page over TLS with an untrusted certificate, a host
// name that does not resolve, and HTTP where HTTPS is expected.
func TestPageFaultsOfConnections(t *testing.T) {
	secure := scriptServer(t, textPage("my_a 1\n"))
	for url, fault := range map[string]*xhttpprom.Fault{
		strings.Replace(secure, "http:", "https:", 1): xhttpprom.ErrTLS,
		"http://nosuch.invalid:5060/metrics":          xhttpprom.ErrUnreachable,
		"http://" + closing(t) + "/metrics":           xhttpprom.ErrClosed,
	} {
		if err := pageError(t, url); !errors.Is(err, fault) {
			t.Errorf("%s: %v, not %q", url, err, fault.Seen)
		}
	}
}

// closing returns the address of a server that closes connections at once.
func closing(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			conn.Close()
		}
	}()
	return listener.Addr().String()
}
