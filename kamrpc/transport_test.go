package kamrpc_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
)

func TestOpen(t *testing.T) {
	const notURI = "not a URI; write for example unix:///run/kamailio/kamailio_rpc.sock or http://127.0.0.1:5060/RPC"
	for _, test := range []struct {
		uri     string
		want    string // String()
		wantErr string
	}{
		{uri: "http://127.0.0.1:5060/RPC", want: "http://127.0.0.1:5060/RPC"},
		{uri: "http://127.0.0.1:5060", want: "http://127.0.0.1:5060/RPC"},
		{uri: "http://127.0.0.1:5060/", want: "http://127.0.0.1:5060/RPC"},
		{uri: "https://kam.example.com/rpc/1?x=y", want: "https://kam.example.com/rpc/1?x=y"},
		{uri: "http://[::1]:5060/RPC", want: "http://[::1]:5060/RPC"},
		{uri: "HTTP://127.0.0.1:5060/RPC", want: "http://127.0.0.1:5060/RPC"},
		{uri: "unix:///run/kamailio/kamailio_rpc.sock", want: "unix:///run/kamailio/kamailio_rpc.sock"},
		{uri: "unix:/run/kamailio/kamailio_rpc.sock", want: "unix:///run/kamailio/kamailio_rpc.sock"},
		{uri: "unix:///run/a%20b@c.sock", want: "unix:///run/a b@c.sock"},
		{uri: "udp://127.0.0.1:8090", want: "udp://127.0.0.1:8090"},
		{uri: "udp://[::1]:8090/", want: "udp://[::1]:8090"},
		{uri: "tcp://kam.example.com:8091", want: "tcp://kam.example.com:8091"},
		{uri: "fifo:///run/kamailio/kamailio_rpc.fifo", want: "fifo:///run/kamailio/kamailio_rpc.fifo"},
		{uri: "binrpc+unix:///run/kamailio/kamailio_ctl", want: "binrpc+unix:///run/kamailio/kamailio_ctl"},
		{uri: "binrpc+tcp://[::1]:2046", want: "binrpc+tcp://[::1]:2046"},
		{uri: "fifo:///run/k.fifo?reply_dir=/run/replies", want: "fifo:///run/k.fifo"},

		{uri: "", wantErr: notURI},
		{uri: "/run/kamailio/kamailio_rpc.sock", wantErr: notURI},
		{uri: "127.0.0.1:5060", wantErr: notURI},
		{uri: "localhost:5060/RPC", wantErr: notURI},
		{uri: "admin:s3cret@localhost:5060/RPC", wantErr: notURI},
		{uri: "http:admin:s3cret@localhost/RPC", wantErr: notURI},
		{uri: "http://admin:s3cret@localhost:50x/RPC", wantErr: notURI},
		{uri: "http://admin:s3%zzcret@localhost/RPC", wantErr: notURI},
		{uri: "http://a b/", wantErr: notURI},
		{uri: "http://h/\x01s3cret", wantErr: notURI},
		{uri: "http://admin:s3cret@localhost:5060/RPC", wantErr: "http://localhost:5060: the URI must not contain a user or password; put them into the HTTP configuration file"},
		{uri: "https://s3cret@localhost/RPC", wantErr: "https://localhost: the URI must not contain a user or password; put them into the HTTP configuration file"},
		{uri: "udp://admin:s3cret@localhost:1", wantErr: "udp://localhost:1: the URI must not contain a user or password; put them into the HTTP configuration file"},
		{uri: "http:///RPC", wantErr: "http: the host is missing; write for example http://127.0.0.1:5060/RPC"},
		{uri: "http://:5060/RPC", wantErr: "http: the host is missing; write for example http://127.0.0.1:5060/RPC"},
		{uri: "http:/admin:s3cret@localhost/RPC", wantErr: "http: the host is missing; write for example http://127.0.0.1:5060/RPC"},
		{uri: "unix://run/kamailio.sock", wantErr: "unix://run/kamailio.sock: the path must be absolute; write three slashes, as in unix:///run/kamailio/…"},
		{uri: "unix://", wantErr: "unix:: the path must be absolute; write three slashes, as in unix:///run/kamailio/…"},
		{uri: "unix:///", wantErr: "unix:///: the path must be absolute; write three slashes, as in unix:///run/kamailio/…"},
		{uri: "unix:///" + strings.Repeat("x", 107), wantErr: "unix:///" + strings.Repeat("x", 107) + ": the path is too long; a unix socket's path has at most 107 bytes"},
		{uri: "unix:///run/k.sock?reply_dir=/tmp", wantErr: `unix:///run/k.sock?reply_dir=/tmp: unknown parameter "reply_dir"`},
		{uri: "fifo://run/k.fifo", wantErr: "fifo://run/k.fifo: the path must be absolute; write three slashes, as in fifo:///run/kamailio/…"},
		{uri: "fifo:///run/k.fifo?replydir=/tmp", wantErr: `fifo:///run/k.fifo?replydir=/tmp: unknown parameter "replydir"`},
		{uri: "fifo:///run/k.fifo?reply_dir=tmp", wantErr: "fifo:///run/k.fifo?reply_dir=tmp: reply_dir must be an absolute path"},
		{uri: "udp://localhost", wantErr: "udp://localhost: host and port are required, as in udp://127.0.0.1:8090"},
		{uri: "udp://localhost:99999", wantErr: "udp://localhost:99999: host and port are required, as in udp://127.0.0.1:8090"},
		{uri: "tcp://localhost:0", wantErr: "tcp://localhost:0: host and port are required, as in tcp://127.0.0.1:8090"},
		{uri: "tcp://:8090", wantErr: "tcp://:8090: host and port are required, as in tcp://127.0.0.1:8090"},
		{uri: "tcp://localhost:8090/RPC", wantErr: "tcp://localhost:8090/RPC: a path is not allowed; write tcp://localhost:8090"},
		{uri: "tcp://localhost:8090?x=1", wantErr: `tcp://localhost:8090?x=1: unknown parameter "x"`},
		{uri: "binrpc+unix://run/kamailio_ctl", wantErr: "binrpc+unix://run/kamailio_ctl: the path must be absolute; write three slashes, as in binrpc+unix:///run/kamailio/…"},
		{uri: "binrpc+unix:///" + strings.Repeat("x", 107), wantErr: "binrpc+unix:///" + strings.Repeat("x", 107) + ": the path is too long; a unix socket's path has at most 107 bytes"},
		{uri: "binrpc+tcp://localhost", wantErr: "binrpc+tcp://localhost: host and port are required, as in binrpc+tcp://127.0.0.1:8090"},
		{uri: "binrpc+tcp://localhost:2046/ctl", wantErr: "binrpc+tcp://localhost:2046/ctl: a path is not allowed; write binrpc+tcp://localhost:2046"},
		{uri: "binrpc:///run/kamailio/kamailio_ctl", wantErr: `unknown scheme "binrpc"; use http, https, unix, udp, tcp, fifo, binrpc+unix or binrpc+tcp`},
	} {
		t.Run(test.uri, func(t *testing.T) {
			transport, err := kamrpc.Open(test.uri, nil)
			if test.wantErr != "" {
				if fmt.Sprint(err) != test.wantErr {
					t.Errorf("got %q, want %q", err, test.wantErr)
				}
				if err != nil && (strings.Contains(err.Error(), "s3cret") || strings.Contains(err.Error(), "\n")) {
					t.Errorf("%q repeats a secret or has a second line", err)
				}
				if transport != nil {
					t.Errorf("a transport beside the error: %v", transport)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := transport.String(); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func TestTraits(t *testing.T) {
	for _, test := range []struct {
		uri  string
		want kamrpc.Traits
	}{
		{"http://h/RPC", kamrpc.Traits{MaxReply: 3 << 20, Scripted: true}},
		{"unix:///s", kamrpc.Traits{MaxReply: 131_040}},
		{"udp://h:1", kamrpc.Traits{MaxReply: 65_507}},
		{"fifo:///f", kamrpc.Traits{}},
		{"tcp://h:1", kamrpc.Traits{}},
		{"binrpc+unix:///s", kamrpc.Traits{MaxReply: 32_768, Complete: true}},
		{"binrpc+tcp://h:1", kamrpc.Traits{MaxReply: 32_768, Complete: true}},
	} {
		transport, err := kamrpc.Open(test.uri, nil)
		if err != nil {
			t.Fatal(err)
		}
		got := transport.Traits()
		if got.Silence = ""; got != test.want { // contract_test.go checks this text
			t.Errorf("%s: got %+v, want %+v", test.uri, got, test.want)
		}
	}
}
