//go:build linux

package rpccmd

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/cli"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc/kamrpctest/kamailiotest"
)

// TestRPCOfRealKamailio calls every method that can be called, over jsonrpcs and over
// ctl.
func TestRPCOfRealKamailio(t *testing.T) {
	for _, version := range kamailiotest.Versions(t) {
		t.Run(version, func(t *testing.T) {
			s := kamailiotest.Start(t, kamailiotest.Config{Version: version})
			transports := [][]string{
				{"--kamailio.uri=unix://" + s.SocketPath, "--kamailio.uri=fifo://" + s.FIFOPath + "?reply_dir=" + s.FIFOReplyDir},
				{"--kamailio.uri=binrpc+unix://" + s.CtlPath},
			}
			parameters := map[string][]string{
				"cfg.get": {"core", "debug"}, "stats.get_statistics": {"all"}, "uac.reg_info": {"l_uuid", "trunk-a"},
				"dialplan.dump": {"1"}, "dlg.profile_get_size": {"calls"}, "htable.dump": {"trunks"}, "htable.get": {"a", "b"},
				"ul.lookup": {"location", "s:nobody@example.com"}, "dlg.dlg_list": {"no-such-call-id"}, "dlg.briefing": {"sSI"},
			}
			for _, price := range kamrpc.PriceList() {
				if _, err := readable(price.Method); err != nil {
					continue
				}
				answers := map[int]string{}
				for _, transport := range transports {
					out, err := askRPC(t, append(append(transport, price.Method), parameters[price.Method]...)...)
					code := 0
					if err != nil {
						code, out = cli.ExitCode(err), err.Error()
					}
					answers[code] = out
					switch {
					case code == 0 && !json.Valid([]byte(out)):
						t.Errorf("%s: not JSON: %s", price.Method, out)
					case code == 0 && strings.Contains(out, `"secret"`):
						t.Errorf("%s shows a password: %s", price.Method, out)
					case code != 0 && code != cli.ExitFailed && code != cli.ExitRefused:
						t.Errorf("%s: %s", price.Method, out)
					}
				}
				if len(answers) != 1 {
					t.Errorf("%s ends differently by jsonrpcs and by ctl: %v", price.Method, answers)
				}
			}

			for i := range 12 {
				s.RPC(t, "ul.add", "location", fmt.Sprintf("u%d@example.com", i), fmt.Sprintf("sip:u%d@127.0.0.1:9", i), 3600, 1, "", 0, 0, 0)
			}
			before := s.LogLines()
			for _, args := range [][]string{{"ul.dump", "--collector.usrloc_contacts.limit=5"}, {"rtpproxy.list"}, {"ul.rm", "location", "u1"}, {"nope.nope"}} {
				if out, err := askRPC(t, append(args, transports[0]...)...); cli.ExitCode(err) != cli.ExitRefused || err == nil || out != "" {
					t.Errorf("%q: %v %s", args, err, out)
				}
			}
			for _, line := range s.Logged()[before:] {
				if strings.Contains(line, " jsonrpcs ") { // an unknown method was called
					t.Errorf("Kamailio logged what was refused: %s", line)
				}
			}
			out, err := askRPC(t, append([]string{"ul.dump"}, transports[0]...)...)
			if err != nil || strings.Count(out, `"Address": "sip:u`) < 12 {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
}
