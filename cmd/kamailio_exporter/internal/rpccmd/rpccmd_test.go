package rpccmd

import (
	"bytes"
	"encoding/json"
	"io"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/cli"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc/kamrpctest"
)

func askRPC(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	app := cli.NewApp()
	run := Declare(app)
	name, err := cli.Parse(app, append([]string{"rpc"}, args...), &out)
	if err == nil && name != "" {
		err = run(t.Context(), name, &out, io.Discard)
	}
	return out.String(), err
}

func TestRPCParam(t *testing.T) {
	for text, want := range map[string]any{
		"1": 1, "-1": -1, "007": 7, "s:5060": "5060", "s:": "", "s:s:x": "s:x", "all": "all", "": "",
		"1.5": 1.5, "-.5": -.5, "1e3": "1e3", "inf": "inf", "nan": "nan", "0x10": "0x10", "sip:a@b": "sip:a@b",
		"99999999999": "99999999999", "1.2.3.4": "1.2.3.4", " 1": " 1",
	} {
		if got := rpcParam(text); got != want {
			t.Errorf("%q is %T %v, not %T %v", text, got, got, want, want)
		}
	}
}

// TestRPCExitCodes checks that each outcome has its exit code and text, and that refused
// methods are not sent to Kamailio.
func TestRPCExitCodes(t *testing.T) {
	for _, tt := range []struct {
		name  string
		args  []string
		spoil func(s *kamrpctest.Server)
		code  int
		text  string // in the error or the output
		asked string // a method that must not be called
	}{
		{"answered", []string{"core.version"}, nil, 0, "\"kamailio 5.6.3 (x86_64/linux) \"\n", ""},
		{"a reload", []string{"dispatcher.reload"}, nil, cli.ExitRefused, "use kamailio_exporter admin run", "dispatcher.reload"},
		{"an action", []string{"ul.rm", "location", "a"}, nil, cli.ExitRefused, "changes Kamailio (action)", "ul.rm"},
		{"not priced", []string{"core.kill"}, nil, cli.ExitRefused, "not among the RPCs that the exporter may call", "core.kill"},
		{"not read on purpose", []string{"ws.dump"}, nil, cli.ExitRefused, "at most 50 connections", "ws.dump"},
		{"dangerous on all versions", []string{"mtree.list"}, nil, cli.ExitRefused, "mtree.summary is safe", "mtree.list"},
		{"dangerous on this version", []string{"permissions.addressDump"}, nil, cli.ExitRefused, "on version 5.6.3", "permissions.addressDump"},
		{"dangerous without a parameter", []string{"secfilter.print"}, nil, cli.ExitRefused, "crashes 5.6.3 if it has no parameter", "secfilter.print"},
		{"not on this server", []string{"rtpproxy.list"}, nil, cli.ExitRefused, "has no RPC rtpproxy.list", "rtpproxy.list"},
		{"not served by the script", []string{"drouting.gw_status"}, nil, cli.ExitRefused, "kamailio.cfg does not serve it", "drouting.gw_status"},
		{"above its limit", []string{"ul.dump", "--collector.usrloc_contacts.limit=5"}, nil, cli.ExitRefused, "there are 303 registered contacts, above the limit of 5. If Kamailio can afford it, allow it with --collector.usrloc_contacts.limit=303", "ul.dump"},
		{"a limit of 0", []string{"dlg.briefing", "--collector.dialog_age.limit=0"}, nil, cli.ExitRefused, "above the limit of 0", "dlg.briefing"},
		{"too large", []string{"core.info", "--kamailio.max-reply-size=4KiB"}, func(s *kamrpctest.Server) {
			s.Handle("core.info", `{"a":"`+strings.Repeat("x", 5000)+`"}`)
		}, cli.ExitRefused, "raise --kamailio.max-reply-size", ""},
		{"an error of Kamailio", []string{"cfg.get", "no", "such"}, func(s *kamrpctest.Server) { s.HandleFault("cfg.get", 400, "No such\x1b[2J") }, cli.ExitFailed, "error 400", ""},
		{"garbage", []string{"core.version"}, func(s *kamrpctest.Server) { s.Misbehave(kamrpctest.Garbage) }, ExitNoAnswer, "invalid reply", ""},
		{"silent", []string{"core.version", "--kamailio.timeout=100ms"}, func(s *kamrpctest.Server) { s.Misbehave(kamrpctest.Silent) }, ExitNoAnswer, "no answer", ""},
		{"not there", []string{"core.version"}, func(s *kamrpctest.Server) { s.Down() }, ExitNoAnswer, "not reachable", ""},
		{"no such flag", []string{"--nope"}, nil, cli.ExitTrouble, "(see kamailio_exporter rpc --help)", ""},
		{"no such URI", []string{"core.version", "--kamailio.uri=x"}, nil, cli.ExitTrouble, "--kamailio.uri", ""},
		{"help", []string{"--help"}, nil, 0, "usage: kamailio_exporter rpc [<flags>] [<method>] [<param>...]", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := fake56(t)
			if tt.spoil != nil {
				tt.spoil(s)
			}
			out, err := askRPC(t, append([]string{"--kamailio.uri=" + s.URI("unix"), "--kamailio.uri=" + s.URI("fifo")}, tt.args...)...)
			code, text := 0, out
			if err != nil {
				code, text = cli.ExitCode(err), err.Error()
			}
			if code != tt.code || !strings.Contains(text, tt.text) {
				t.Errorf("%d, not %d: %s", code, tt.code, text)
			}
			if n := s.CallCount(tt.asked); n > 0 {
				t.Errorf("%s was asked %d times", tt.asked, n)
			}
		})
	}
}

// TestRPCPrints checks that order, repeated names and unusual bytes are kept, and that
// secrets and terminal control characters are not printed.
func TestRPCPrints(t *testing.T) {
	s := fake56(t)
	s.Handle("core.info", `{"b":1,"a":-1.50,"a":"x","n":null,"t":true,"l":[],"o":{},"uni":"Zürich","quote":"\"\\","esc":"\u001b[2J\u202e","raw":"Z`+"\xfc"+`","auth_password":"topsecret","nested":{"secret_key":{"deep":["topsecret",5]}},"proxy":"sip:me:topsecret@192.0.2.1:5060;x=y","pw":12345,"password":"","plain":"sip:me@192.0.2.1:5060"}`)
	compact, err := askRPC(t, "core.info", "--output=json", "--kamailio.uri="+s.URI("unix"))
	if err != nil {
		t.Fatal(err)
	}
	want := `{"b":1,"a":-1.50,"a":"x","n":null,"t":true,"l":[],"o":{},"uni":"Zürich","quote":"\"\\","esc":"\u001b[2J\u202e","raw":"Z\\xfc","auth_password":"(hidden)","nested":{"secret_key":{"deep":["(hidden)","(hidden)"]}},"proxy":"sip:me:(hidden)@192.0.2.1:5060;x=y","pw":"(hidden)","password":"(hidden)","plain":"sip:me@192.0.2.1:5060"}` + "\n"
	if compact != want {
		t.Errorf("%s, not %s", compact, want)
	}
	text, err := askRPC(t, "core.info", "--kamailio.uri="+s.URI("unix"))
	if err != nil || !json.Valid([]byte(text)) || !strings.HasPrefix(text, "{\n  \"b\": 1,\n  \"a\": -1.50,\n  \"a\": \"x\",\n") {
		t.Errorf("%v: %s", err, text)
	}
	s.Handle("cfg.get", `"topsecret"`)
	s.Handle("htable.get", `{"item":{"name":"alice::passwd","value":"topsecret"}}`)
	for _, args := range [][]string{{"cfg.get", "db", "password"}, {"htable.get", "auth", "alice::passwd"}, {"uac.reg_dump"}} {
		out, err := askRPC(t, append(args, "--kamailio.uri="+s.URI("unix"))...)
		if err != nil || !strings.Contains(out, hidden) || strings.Contains(out, "secret\"") {
			t.Errorf("%q: %v: %s", args, err, out)
		}
	}
	out, err := askRPC(t, "cfg.get", "core", "debug", "--kamailio.uri="+s.URI("unix"))
	if err != nil || out != "\"topsecret\"\n" {
		t.Errorf("%v: %s", err, out)
	}
}

// TestRPCSends checks that parameters are sent as typed.
func TestRPCSends(t *testing.T) {
	s := fake56(t)
	sent := make(chan []any, 1)
	s.HandleFunc("cfg.get", func(r kamrpctest.Request) kamrpctest.Response {
		sent <- r.Params
		return kamrpctest.Response{Result: "1"}
	})
	if _, err := askRPC(t, "--kamailio.uri="+s.URI("unix"), "--", "cfg.get", "core", "5", "s:5", "-5", "--x", "1.5"); err != nil {
		t.Fatal(err)
	}
	got := <-sent
	if want := []any{"core", int64(5), "5", int64(-5), "--x", 1.5}; !slices.Equal(got, want) {
		t.Errorf("%#v, not %#v", got, want)
	}
}

// TestRPCList checks that the list has all methods that only read and can be called on
// some version, and no others.
func TestRPCList(t *testing.T) {
	out, err := askRPC(t)
	if err != nil {
		t.Fatal(err)
	}
	for _, price := range kamrpc.PriceList() {
		listed := strings.Contains(out, "\n"+price.Method+" ")
		_, refused := readable(price.Method)
		if listed != (refused == nil) {
			t.Errorf("%s: listed %v, refused: %v", price.Method, listed, refused)
		}
		if price.Effect != kamrpc.Read && listed {
			t.Errorf("%s is a %s", price.Method, price.Effect)
		}
	}
	machine, err := askRPC(t, "--output=json")
	var rows []struct{ Method, Cost string }
	if err != nil || json.Unmarshal([]byte(machine), &rows) != nil || len(rows) != strings.Count(out, "\n")-1-strings.Count(legend, "\n") {
		t.Errorf("%v, %s rows: %s", err, strconv.Itoa(len(rows)), machine)
	}
	for line := range strings.Lines(out) {
		if len(line) > 81 {
			t.Errorf("%d columns: %s", len(line)-1, line)
		}
	}
	if !strings.Contains(out, "destinations; refused on 5.1 to 5.4\n") || strings.Count(machine, "not initialized") != 1 {
		t.Errorf("keepalive.list is not refused on 5.1 to 5.4, or for more than one reason:\n%s", out)
	}
}

// fake56 is a Kamailio that replies as 5.6.3 did.
func fake56(t *testing.T) *kamrpctest.Server {
	t.Helper()
	s := kamrpctest.New(t)
	s.LoadDir(filepath.Join("..", "..", "..", "..", "collector", "testdata", "5.6.3"))
	return s
}
