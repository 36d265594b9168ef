//go:build linux

package doctor

import (
	"bytes"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/kamailio-exporter/kamailio_exporter/kamrpc/kamrpctest/kamailiotest"
)

// ask sends a request over UDP, and repeats it until there is a final reply.
func ask(t *testing.T, conn net.Conn, request string) (reply string) {
	t.Helper()
	buffer := make([]byte, 1<<16)
	for range 20 {
		if _, err := conn.Write([]byte(request)); err != nil {
			t.Fatal(err)
		}
		for {
			if err := conn.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
				t.Fatal(err)
			}
			n, err := conn.Read(buffer)
			if err != nil {
				break // send it again
			}
			if reply := string(buffer[:n]); !strings.HasPrefix(reply, "SIP/2.0 1") {
				return reply
			}
		}
	}
	t.Fatal("no final reply to an INVITE")
	return ""
}

// refusedCalls makes calls to a user for whom Kamailio rejects them.
func refusedCalls(t *testing.T, s *kamailiotest.Server, user string, calls int) {
	t.Helper()
	conn, err := net.Dial("udp", s.SIPAddr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for i := range calls {
		header := func(method, to string) string {
			return fmt.Sprintf("%s sip:%s@example.com SIP/2.0\r\nVia: SIP/2.0/UDP %s;branch=z9hG4bK-%s-%d\r\nFrom: <sip:caller@example.com>;tag=c%d\r\n%s\r\n"+
				"Call-ID: %s-%d\r\nCSeq: 1 %s\r\nMax-Forwards: 70\r\nContact: <sip:caller@%s>\r\nContent-Length: 0\r\n\r\n",
				method, user, conn.LocalAddr(), user, i, i, to, user, i, method, conn.LocalAddr())
		}
		reply := ask(t, conn, header("INVITE", "To: <sip:"+user+"@example.com>"))
		_, to, _ := bytes.Cut([]byte(reply), []byte("\nTo: "))
		to, _, _ = bytes.Cut(to, []byte("\r\n"))
		if _, err := conn.Write([]byte(header("ACK", "To: "+string(to)))); err != nil {
			t.Fatal(err)
		}
	}
}

// TestRefusedCallsCountAsAnswered has a script that rejects calls without a transaction.
func TestRefusedCallsCountAsAnswered(t *testing.T) {
	const script = `#!KAMAILIO
debug=0
log_stderror=yes
children=2
loadmodule "jsonrpcs.so"
loadmodule "kex.so"
loadmodule "tm.so"
loadmodule "sl.so"
loadmodule "rr.so"
loadmodule "pv.so"
loadmodule "textops.so"
loadmodule "siputils.so"
loadmodule "dialog.so"
request_route {
	if (!is_method("INVITE")) exit;
	if ($rU == "before") {
		sl_send_reply("403", "Refused");
		exit;
	}
	if ($rU == "with") t_newtran();
	dlg_manage();
	send_reply("503", "Refused");
}
`
	eachVersion(t, func(t *testing.T, version string) {
		s := kamailiotest.Start(t, kamailiotest.Config{Version: version, Edit: func(string) string { return script }})
		cfg := config(t, "unix://"+s.SocketPath, "fifo://"+s.FIFOPath)
		answered := func() []Finding { return findings(examined(t, cfg), "answered") }

		refusedCalls(t, s, "with", 2*manyRefused)
		if f := answered(); len(f) > 0 {
			t.Errorf("calls that were refused with a transaction: %+v", f)
		}
		refusedCalls(t, s, "before", 2*manyRefused)
		settled(t, func() bool { // sl updates its statistics each second
			f := answered()
			return len(f) == 1 && f[0].Level == Note && strings.Contains(f[0].Text, "40 INVITEs were rejected without a transaction, and 40 calls processed")
		})
		refusedCalls(t, s, "after", manyRefused)
		r := examined(t, cfg)
		outcome(t, r, Degraded)
		has(t, r, "answered", Warn, "the script rejected at least 20 of 60 calls after dlg_manage() and without a transaction",
			"kamailio.cfg: dlg_manage();", "kamailio.cfg: \tt_newtran();")
	})
}

func settled(t *testing.T, so func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !so() {
		if time.Now().After(deadline) {
			t.Fatal("the doctor does not see the refused calls")
		}
	}
}
