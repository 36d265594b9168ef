//go:build linux

package main

import (
	"fmt"
	"net"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/kamailio-exporter/kamailio_exporter/kamrpc/kamrpctest/kamailiotest"
)

func usable(page, uri string) string {
	return value(page, `kamailio_scrape_uri_usable{uri="`+uri+`"}`)
}

// TestTwoKamailios checks that with URIs of two servers, the page is about the first one
// only, and the log reports it once. The second server is only queried for its identity.
func TestTwoKamailios(t *testing.T) {
	for _, version := range kamailiotest.Versions(t) {
		t.Run(version, func(t *testing.T) {
			first := kamailiotest.Start(t, kamailiotest.Config{Version: version})
			second := kamailiotest.Start(t, kamailiotest.Config{Version: version})
			unix, fifo := "unix://"+first.SocketPath, "fifo://"+second.FIFOPath
			e := start(t, uriFlags([]string{unix, fifo + "?reply_dir=" + second.FIFOReplyDir})...)
			_, port, err := net.SplitHostPort(second.SIPAddr)
			if err != nil {
				t.Fatal(err)
			}
			number, err := strconv.Atoi(port)
			if err != nil {
				t.Fatal(err)
			}
			theirs := fmt.Sprintf("127.0.0.1:%d", number+5) // a gateway of the second server
			before := second.LogLines()
			for range 3 {
				_, page := e.get(t, "/metrics")
				if up := value(page, "kamailio_up"); up != "1" || usable(page, unix) != "1" || usable(page, fifo) != "0" {
					t.Errorf("up %q, usable: %q and %q", up, usable(page, unix), usable(page, fifo))
				}
				if strings.Contains(page, theirs) || !strings.Contains(page, "kamailio_dispatcher_destination_up{") {
					t.Errorf("the page has destinations of the second server, or none")
				}
				if n := len(failed.FindAllString(page, -1)); n != 0 {
					t.Errorf("%d collectors fail", n)
				}
			}
			if n := second.LogLines() - before; n != 0 {
				t.Errorf("the second server logged %d lines", n)
			}
			log := e.stderr.String()
			line := regexp.MustCompile(`level=error .*skipping a URI of kamailio.* uri=` + fifo + ` err="leads to another Kamailio \(process ` + strconv.Itoa(second.PID()) + `, up since [^)]*\) than ` + unix + ` \(process ` + strconv.Itoa(first.PID()) + `, `)
			if strings.Count(log, "skipping a URI of kamailio") != 1 || !line.MatchString(log) {
				t.Errorf("the log: %s", log)
			}
			// While the first server is down, the page must not be about the second.
			first.Stop()
			if _, page := e.get(t, "/metrics"); value(page, "kamailio_up") != "0" || strings.Contains(page, "kamailio_dispatcher") {
				t.Errorf("with the first one stopped: up %s", value(page, "kamailio_up"))
			}
			// Nor after it has restarted.
			first.Restart()
			_, page := e.get(t, "/metrics")
			if up := value(page, "kamailio_up"); up != "1" || usable(page, unix) != "1" || usable(page, fifo) != "0" || strings.Contains(page, theirs) {
				t.Errorf("after a restart: up %q, usable: %q and %q", up, usable(page, unix), usable(page, fifo))
			}
		})
	}
}

// TestFIFOWithAnotherReplyDirectory has replies of the FIFO written to another directory
// than the exporter reads. All collectors must work over the other URI from the first
// scrape on, and Kamailio logs the errors of only one request.
func TestFIFOWithAnotherReplyDirectory(t *testing.T) {
	for _, version := range kamailiotest.Versions(t) {
		for _, fifoFirst := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s FIFO first %t", version, fifoFirst), func(t *testing.T) {
				server := kamailiotest.Start(t, kamailiotest.Config{Version: version})
				fifo := "fifo://" + server.FIFOPath
				uris := []string{server.HTTPURL, fifo + "?reply_dir=" + t.TempDir()}
				if fifoFirst {
					uris[0], uris[1] = uris[1], uris[0]
				}
				e := start(t, uriFlags(uris)...)
				for range 3 {
					_, page := e.get(t, "/metrics")
					if up := value(page, "kamailio_up"); up != "1" || usable(page, server.HTTPURL) != "1" || usable(page, fifo) != "0" {
						t.Errorf("up %q, usable: HTTP %q, FIFO %q", up, usable(page, server.HTTPURL), usable(page, fifo))
					}
					if failing := failed.FindAllStringSubmatch(page, -1); len(failing) != 0 {
						t.Errorf("failing: %s", names(failing))
					}
				}
				if n := strings.Count(server.Log(), "ERROR: jsonrpcs"); n > 2 { // those of one request
					t.Errorf("Kamailio logged %d lines:\n%s", n, server.Log())
				}
				if log := e.stderr.String(); strings.Count(log, "level=error") != 1 || !strings.Contains(log, "jsonrpcs writes its replies to another directory than") {
					t.Errorf("the log: %s", log)
				}
			})
		}
	}
}

// TestAllRows checks that lists of which JSON-RPC returns only the last row are complete
// if any of the URIs is a BINRPC one, at any position.
func TestAllRows(t *testing.T) {
	for _, version := range kamailiotest.Versions(t) {
		t.Run(version, func(t *testing.T) {
			server := kamailiotest.Start(t, kamailiotest.Config{Version: version, Extra: `
modparam("keepalive", "destination", "sip:127.0.0.1:9001")
modparam("keepalive", "destination", "sip:127.0.0.1:9002")
`})
			unix, binrpc := "unix://"+server.SocketPath, "binrpc+unix://"+server.CtlPath
			for _, test := range []struct {
				name         string
				uris         []string
				destinations int
				pipes        string
			}{
				{"JSON-RPC alone", []string{unix}, 1, " 1000"},
				{"BINRPC as the second URI", []string{unix, binrpc}, 4, "2000 1000"},
				{"BINRPC first", []string{binrpc, unix}, 4, "2000 1000"},
				{"BINRPC alone", []string{binrpc}, 4, "2000 1000"},
			} {
				t.Run(test.name, func(t *testing.T) {
					_, page := scrapePage(handlerFor(t, uriFlags(test.uris)...), "10")
					if failing := failed.FindAllStringSubmatch(page, -1); len(failing) != 0 {
						t.Errorf("failing: %s", names(failing))
					}
					if n := strings.Count(page, "\nkamailio_keepalive_destination_state{"); n != test.destinations {
						t.Errorf("%d destinations of keepalive, want %d", n, test.destinations)
					}
					pipes := value(page, `kamailio_ratelimit_pipe_limit{pipe="0"}`) + " " + value(page, `kamailio_ratelimit_pipe_limit{pipe="1"}`)
					if pipes != test.pipes {
						t.Errorf("limits of the pipes: %q, want %q", pipes, test.pipes)
					}
				})
			}
		})
	}
}
