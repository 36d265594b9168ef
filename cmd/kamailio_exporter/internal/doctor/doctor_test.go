//go:build linux

package doctor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/sipprobe"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/xhttpprom"
	"github.com/kamailio-exporter/kamailio_exporter/collector"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc/kamrpctest"
)

func fake(t *testing.T) *kamrpctest.Server {
	t.Helper()
	s := kamrpctest.New(t)
	s.LoadDir(filepath.Join("..", "..", "..", "..", "collector", "testdata", "5.6.3"))
	s.Handle("core.uptime", fmt.Sprintf(`{"now":%q,"up_since":"Mon Nov 23 04:04:35 2026","uptime":7200}`, time.Now().Format(time.ANSIC)))
	s.Handle("core.modules", `["tm","kex","dialog","usrloc","jsonrpcs"]`)
	return s
}

func noPage(err error) func(*kamrpctest.Server, *Config) {
	return func(_ *kamrpctest.Server, cfg *Config) {
		cfg.Page = func(context.Context) *xhttpprom.Merged { return &xhttpprom.Merged{Err: fmt.Errorf("seen: %w", err)} }
	}
}

// fakeProcess makes doctor see a Kamailio process on its host.
func fakeProcess(cfg *Config) {
	dir := filepath.Join(cfg.System.Proc, "21085")
	if errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, "status"), []byte("Name:\tkamailio\nState:\tS (sleeping)\nPPid:\t1\nUid:\t0\t0\t0\t0\n"), 0o600)) != nil {
		panic("no fake process")
	}
}

// TestPermissionFixes checks that only a user who is not a member is told to join a group,
// and that systemctl is proposed only where systemd runs.
func TestPermissionFixes(t *testing.T) {
	group := func(name string) uint32 {
		g, err := user.LookupGroup(name)
		if err != nil {
			t.Fatal(err)
		}
		gid, _ := strconv.ParseUint(g.Gid, 10, 32)
		return uint32(gid)
	}
	for _, tt := range []struct {
		name, group   string
		systemd, want string
	}{
		{"not a member", "mail", "", "[usermod -aG mail daemon  # then restart the exporter]"},
		{"not a member, with systemd", "mail", "/", "[usermod -aG mail daemon  # then restart the exporter] [systemctl edit kamailio-exporter  # add these two lines [Service] SupplementaryGroups=mail]"},
		{"a member, but not in this shell", "daemon", "/", "[newgrp daemon  # daemon is a member, but this shell is older than that; or log in again]"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := &patient{cfg: Config{System: System{Systemd: tt.systemd}}}
			var got []string
			for _, fix := range p.open(account{name: "daemon"}, "unix:///x", &obstacle{path: "/x", mode: 0o660, group: group(tt.group), need: mayWrite}) {
				got = append(got, fmt.Sprint(fix.Lines))
			}
			if strings.Join(got, " ") != tt.want {
				t.Errorf("proposed: %s\nwant: %s", strings.Join(got, " "), tt.want)
			}
		})
	}
	if fixes := (account{name: "daemon", gids: []uint32{group("mail")}}).join("mail"); fixes != nil {
		t.Errorf("a member by the unit of its service is told to join: %v", fixes)
	}
}

// TestPageFixes checks that each fault of the page has its own fix.
func TestPageFixes(t *testing.T) {
	seen := map[string]*xhttpprom.Fault{}
	for _, f := range xhttpprom.Faults() {
		fixes := fmt.Sprint((&patient{}).mendPage(f))
		if other := seen[fixes]; other != nil && f != xhttpprom.ErrNotThePage && f != xhttpprom.ErrStatus {
			t.Errorf("%q has the fix of %q: %s", f.Seen, other.Seen, fixes)
		}
		seen[fixes] = f
	}
}

// TestScriptMetrics checks the timeout of xhttp_prom in kamailio.cfg and in included
// files.
func TestScriptMetrics(t *testing.T) {
	const metric, off = `modparam("xhttp_prom", "prom_counter", "name=x;")`, `modparam("xhttp_prom", "xhttp_prom_timeout", 0)`
	for _, tc := range []struct {
		config, included string
		want             string // "": no finding
	}{
		{metric, "", "is not set, so it is 60 minutes"},
		{off + "\n" + metric, "", ""},
		{`modparam("xhttp|xhttp_prom", "xhttp_prom_timeout", 0)` + "\n" + metric, "", ""},
		{"# " + off + "\n" + metric, "", "is not set"},
		{"/*\n" + off + "\n*/\n" + metric, "", "is not set"},
		{`modparam("xhttp_prom", "xhttp_prom_timeout", 5)` + "\n" + metric, "", "is 5 minutes"},
		{off + "\n" + `modparam("xhttp_prom","xhttp_prom_timeout",10)` + "\n" + metric, "", "is 10 minutes"},
		{`modparam("xhttp_prom", "xhttp_prom_timeout", PROM_TIMEOUT)` + "\n" + metric, "", ""},
		{`loadmodule "xhttp_prom.so"`, "", ""}, // no metrics
		{metric + "\n" + `include_file "more.cfg"`, off, ""},
		{metric + "\n" + `import_file "more.cfg"`, off, ""},
		{`include_file "more.cfg"`, metric, "is not set"},
		{metric + "\n" + `import_file "nosuch.cfg"`, "", "is not set"},
		{metric + "\n" + `include_file "nosuch.cfg"`, "", "could not be read"},
		{metric + "\n" + `include_file "kamailio.cfg"`, "", "could not be read"},
	} {
		dir := t.TempDir()
		file := filepath.Join(dir, "kamailio.cfg")
		if errors.Join(os.WriteFile(file, []byte(tc.config+"\n"), 0o600), os.WriteFile(filepath.Join(dir, "more.cfg"), []byte(tc.included), 0o600)) != nil {
			t.Fatal("no files")
		}
		p := &patient{modules: []string{"xhttp_prom"}, processes: []process{{pid: 1, config: file}}}
		found := checkScriptMetrics(t.Context(), p)
		if (len(found) == 0) != (tc.want == "") || len(found) == 1 && (!strings.Contains(found[0].Text, tc.want) || found[0].Fixes[0].Lines[0] != off) {
			t.Errorf("%s\n\tgives %+v\n\twant %q", tc.config, found, tc.want)
		}
	}
	if found := checkScriptMetrics(t.Context(), &patient{modules: []string{"tm"}}); found != nil {
		t.Errorf("without the module: %+v", found)
	}
	if found := checkScriptMetrics(t.Context(), &patient{modules: []string{"xhttp_prom"}}); len(found) != 1 || found[0].Level != Note {
		t.Errorf("of another machine: %+v", found)
	}
}

// TestFindings checks that each problem of a Kamailio leads to its finding.
func TestFindings(t *testing.T) {
	for _, tt := range []struct {
		name    string
		spoil   func(s *kamrpctest.Server, cfg *Config)
		outcome Status
		check   string
		level   Level
		text    string
		fix     string
	}{
		{"well", func(*kamrpctest.Server, *Config) {}, Healthy, "version", OK, "version 5.6.3, up for 2 hours, 5 modules: dialog, jsonrpcs", ""},
		{
			"its clock is 40 s ahead, in another time zone", func(s *kamrpctest.Server, _ *Config) {
				s.Handle("core.uptime", fmt.Sprintf(`{"now":%q,"uptime":7200}`, time.Now().Add(5*time.Hour+45*time.Minute+40*time.Second).Format(time.ANSIC)))
			},
			Degraded, "clock", Warn, "s ahead of", "shell: timedatectl set-ntp true",
		},
		{
			"its clock is behind", func(s *kamrpctest.Server, _ *Config) {
				s.Handle("core.uptime", fmt.Sprintf(`{"now":%q,"uptime":7200}`, time.Now().Add(-2*time.Minute).Format(time.ANSIC)))
			},
			Degraded, "clock", Warn, " behind this", "",
		},
		{"an untested version", func(s *kamrpctest.Server, _ *Config) {
			s.Handle("core.version", `"kamailio 5.9.1 (x86_64/linux) "`)
		}, Healthy, "version", Note, "tested against 5.4, 5.6, 6.0, 6.1", ""},
		{"a version that is not a string", func(s *kamrpctest.Server, _ *Config) { s.Handle("core.version", `{"a":[1,2]}`) }, Healthy, "transports", OK, "replies in", ""},
		{"garbage", func(s *kamrpctest.Server, _ *Config) { s.Misbehave(kamrpctest.Garbage) }, Broken, "transports", Fail, "invalid reply", ""},
		{"endless", func(s *kamrpctest.Server, _ *Config) { s.Misbehave(kamrpctest.Endless) }, Broken, "transports", Fail, "", ""},
		{"deep", func(s *kamrpctest.Server, _ *Config) { s.Misbehave(kamrpctest.Deep) }, Broken, "transports", Fail, "nested", ""},
		{"silent", func(s *kamrpctest.Server, _ *Config) { s.Misbehave(kamrpctest.Silent) }, Broken, "transports", Fail, "no answer before the deadline", "shell: journalctl"},
		{"one module's garbage", func(s *kamrpctest.Server, _ *Config) { s.Misbehave(kamrpctest.Garbage, "tm.stats") }, Degraded, "collectors", Warn, "tm fails: tm.stats", ""},
		{"one call is not answered", func(s *kamrpctest.Server, _ *Config) { s.Misbehave(kamrpctest.Silent, "tm.stats") }, Degraded, "collectors", Warn, "tm fails: tm.stats", "flag: --no-collector.tm"},
		{"no client has registered yet", func(s *kamrpctest.Server, _ *Config) {
			s.Handle("core.modules", `["db_sqlite","usrloc"]`)
			s.HandleFault("ul.db_users", 500, "Not enough parameters (table to lookup)")
			s.Handle("stats.get_statistics", `["usrloc:registered_users = 0","usrloc:location_users = 0","usrloc:location_contacts = 0"]`)
		}, Healthy, "usrloc", Note, "No client has registered since Kamailio started, or", ""},
		{"registrations are not counted", func(s *kamrpctest.Server, _ *Config) {
			s.Handle("core.modules", `["db_sqlite","usrloc"]`)
			s.HandleFault("ul.db_users", 500, "Not enough parameters (table to lookup)")
			s.Handle("stats.get_statistics", `["registrar:accepted_regs = 20","usrloc:registered_users = 0","usrloc:location_users = 0","usrloc:location_contacts = 0"]`)
		}, Healthy, "usrloc", Note, "although 20 registrations were accepted", `kamailio.cfg: modparam("usrloc", "db_mode", 2)`},
		{"contacts are not counted", func(s *kamrpctest.Server, _ *Config) {
			s.Handle("stats.get_statistics", `["usrloc:registered_users = 0"]`)
		}, Healthy, "collectors", Note, "usrloc_contacts: ul.dump is skipped because Kamailio does not report the number of registered contacts", ""},
		{"private memory beyond 32 bits", func(s *kamrpctest.Server, _ *Config) {
			s.Handle("core.arg", `["kamailio","-M","5000"]`)
		}, Healthy, "pkg", Note, "Kamailio reports them in 32 bits", "shell: ps -o args="},
		{"a call that can crash this version", func(s *kamrpctest.Server, _ *Config) {
			s.Handle("core.version", `"kamailio 5.4.4 (x86_64/linux) "`)
		}, Healthy, "collectors", Note, "keepalive: keepalive.list is skipped because it can crash Kamailio 5.4.4", ""},
		{"no list of methods", func(s *kamrpctest.Server, _ *Config) {
			s.HandleFault("system.listMethods", 500, "Method Not Found")
			s.Handle("cdp.list_peers", `{}`)
			s.Handle("cnxcc.stats", `{"active":0}`)
			s.Handle("dlgs.stats", `{"active":{"init":0},"final":{"init":0}}`)
			s.Handle("rtpproxy.list", `[]`)
		}, Healthy, "version", OK, "version 5.6.3", ""},
		{
			"a reply that is nearly too large", func(s *kamrpctest.Server, cfg *Config) {
				cfg.URIs = cfg.URIs[:1]
				s.Handle("core.info", `{"version":"kamailio 5.6.3","flags":"`+strings.Repeat("x", 100_000)+`"}`)
			},
			Degraded, "replies", Warn, "the reply of core.info has 98 KiB, and this transport carries at most 128 KiB", "flag: --kamailio.uri=fifo:",
		},
		{"no transport for large replies", func(_ *kamrpctest.Server, cfg *Config) { cfg.URIs = cfg.URIs[:1] }, Degraded, "large", Note, "do not fit this transport. Add this one", "flag: --kamailio.uri=fifo:"},
		{"HTTP with too few workers", func(s *kamrpctest.Server, cfg *Config) {
			cfg.URIs = []string{s.URI("http")}
			s.Handle("core.psx", `[{"IDX":1,"PID":2,"DSC":"tcp receiver (generic) child=0"},{"IDX":2,"PID":3,"DSC":"tcp receiver (generic) child=1"}]`)
		}, Degraded, "workers", Warn, "Kamailio has 2 TCP workers", "flag: --kamailio.max-concurrent-rpcs=1"},
		{"HTTP that closes connections", func(s *kamrpctest.Server, cfg *Config) {
			cfg.URIs = []string{s.URI("http")}
			open := cfg.Open
			cfg.Open = func(uri string) (transport kamrpc.Transport, dials func() int64, err error) {
				transport, _, err = open(uri)
				return transport, func() int64 { return 2 }, err
			}
		}, Healthy, "closed", Note, "closes each connection", "kamailio.cfg: set_reply_close();"},
		{"HTTP that requires a password", func(s *kamrpctest.Server, cfg *Config) {
			cfg.URIs = []string{s.URI("http")}
			s.Misbehave(kamrpctest.HTTPError(401))
		}, Broken, "transports", Fail, "HTTP status 401", "flag: --kamailio.http-config-file=FILE"},
		{"an invalid URI", func(_ *kamrpctest.Server, cfg *Config) {
			cfg.URIs = append(cfg.URIs, "http://me:hunter2@127.0.0.1/RPC")
		}, Broken, "transports", Fail, "the exporter cannot start: http://127.0.0.1/RPC", "flag: --kamailio.uri="},
		{"a stream socket in place of a datagram socket", func(s *kamrpctest.Server, cfg *Config) {
			cfg.URIs[1] = strings.TrimPrefix(s.URI("binrpc+unix"), "binrpc+")
		}, Degraded, "transports", Warn, "wrong type for socket", "flag: --kamailio.uri=binrpc+unix:///"},
		{"a reply directory that is not there", func(s *kamrpctest.Server, cfg *Config) {
			cfg.URIs[1], _, _ = strings.Cut(s.URI("fifo"), "?")
			cfg.URIs[1] += "?reply_dir=/nowhere/at/all"
		}, Degraded, "transports", Warn, "cannot create a reply FIFO", "shell: install -d"},
		{"a Kamailio whose unit has PrivateTmp", func(s *kamrpctest.Server, cfg *Config) {
			replies := filepath.Join(filepath.Dir(s.ReplyDir()), "others")
			theirs := filepath.Join(cfg.System.Proc, "21085", "root", replies)
			fakeProcess(cfg)
			if errors.Join(os.Mkdir(replies, 0o755), os.MkdirAll(theirs, 0o755)) != nil {
				panic("no directories")
			}
			cfg.URIs[1], _, _ = strings.Cut(s.URI("fifo"), "?")
			cfg.URIs[1] += "?reply_dir=" + replies
		}, Degraded, "transports", Warn, "no answer before the deadline", "shell: PrivateTmp=no"},
		{"a socket that a stopped Kamailio left", func(s *kamrpctest.Server, cfg *Config) {
			fakeProcess(cfg)
			socket := filepath.Join(filepath.Dir(s.ReplyDir()), "left")
			c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
			if err != nil {
				panic(err)
			}
			c.Close()
			cfg.URIs = []string{"unix://" + socket}
		}, Broken, "transports", Fail, "connection refused", "shell: systemctl restart kamailio"},
		{"a file that it cannot start with", func(_ *kamrpctest.Server, cfg *Config) {
			cfg.Startup = []error{errors.New("--web.config.file:\n no")}
		}, Broken, "startup", Fail, "the exporter cannot start: --web.config.file: no", ""},
		{"a file that this user may not read", func(_ *kamrpctest.Server, cfg *Config) {
			cfg.Startup = []error{fmt.Errorf("--web.config.file: %w", os.ErrPermission)}
		}, Degraded, "startup", Warn, "the exporter cannot start as user ", "shell: sudo"},
		{"SIP is not answered", func(_ *kamrpctest.Server, cfg *Config) {
			cfg.SIP = func(context.Context) sipprobe.Results {
				return sipprobe.Results{{Target: sipprobe.Target{Transport: "udp", Address: "127.0.0.1:5060"}, Err: errors.New("no reply in time")}}
			}
		}, Degraded, "sip", Warn, "SIP probe of udp:127.0.0.1:5060 failed", "shell: sudo kamcmd core.psx"},
		{"SIP is refused", func(_ *kamrpctest.Server, cfg *Config) {
			cfg.SIP = func(context.Context) sipprobe.Results {
				return sipprobe.Results{{Target: sipprobe.Target{Transport: "tls", Address: "127.0.0.1:5061", ServerName: "a"}, Err: &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}}}
			}
		}, Degraded, "sip", Warn, "SIP probe of tls:127.0.0.1:5061?server_name=a failed", "kamailio.cfg: listen=tls:127.0.0.1:5061"},
		{"TLS probe of a socket without TLS", func(_ *kamrpctest.Server, cfg *Config) {
			cfg.SIP = func(context.Context) sipprobe.Results {
				return sipprobe.Results{{Target: sipprobe.Target{Transport: "tls", Address: "127.0.0.1:5060"}, Err: errors.New("TLS handshake: EOF")}}
			}
		}, Degraded, "sip", Warn, "TLS handshake", "shell: openssl s_client"},
		{"a certificate that expires", func(_ *kamrpctest.Server, cfg *Config) {
			cfg.SIP = func(context.Context) sipprobe.Results {
				return sipprobe.Results{{Target: sipprobe.Target{Transport: "tls", Address: "127.0.0.1:5061"}, Status: 200, NotAfter: time.Now().Add(73 * time.Hour)}}
			}
		}, Degraded, "sip", Warn, "expires in 3 days", ""},
		{"no page of xhttp_prom", noPage(xhttpprom.ErrNotFound), Degraded, "page", Warn, "does not serve this path", `kamailio.cfg: loadmodule "xhttp_prom.so"`},
		{"trunks that count", func(*kamrpctest.Server, *Config) {}, Healthy, "trunks", OK, "the htable trunks counts the calls to trunks: 12 attempts", ""},
		{"trunks without the include", func(s *kamrpctest.Server, _ *Config) { s.Handle("htable.listTables", `[]`) }, Healthy, "trunks", Note, "the calls to each trunk or gateway are not counted", `kamailio.cfg: include_file "kamailio-trunks.cfg"`},
		{"trunks of a database", func(s *kamrpctest.Server, _ *Config) {
			s.Handle("htable.listTables", `[{"name":"trunks","dbtable":"trunks","dmqreplicate":0}]`)
		}, Degraded, "trunks", Warn, "has dbtable or dmqreplicate", `kamailio.cfg: modparam("htable", "htable", "trunks=>size=10;initval=0;")`},
		{"trunks without calls out", func(s *kamrpctest.Server, _ *Config) {
			s.Handle("stats.get_statistics", `["core:rcv_replies_2xx_invite = 0"]`)
			s.Handle("htable.dump", `[]`)
		}, Healthy, "trunks", OK, "0 attempts", ""},
		{"trunks without a length", func(s *kamrpctest.Server, _ *Config) {
			s.Handle("stats.get_statistics", `["core:rcv_replies_2xx_invite = 5","core:rcv_requests_bye = 5"]`)
			s.Handle("htable.dump", `[{"entry":1,"size":2,"slot":[{"name":"attempts|a","value":5,"type":"int"},{"name":"answered|a","value":5,"type":"int"}]}]`)
		}, Healthy, "trunks", Note, "the length of the calls to trunks is not counted", "kamailio.cfg: event_route[dialog:end]"},
		{"a page that does not fit", noPage(xhttpprom.ErrBuffer), Degraded, "page", Warn, "its buffer is too small", `kamailio.cfg: modparam("xhttp_prom", "xhttp_prom_buf_size", 1000000)`},
		{"the page refuses the exporter", noPage(xhttpprom.ErrForbidden), Degraded, "page", Warn, "refuses the exporter's address", "kamailio.cfg: if (src_ip == "},
		{"no listener at the page's address", noPage(xhttpprom.ErrRefused), Degraded, "page", Warn, "does not listen", "kamailio.cfg: listen=tcp:"},
		{"no Content-Length in the request", noPage(xhttpprom.ErrClosed), Degraded, "page", Warn, "closed the connection", "kamailio.cfg: tcp_accept_no_cl=yes"},
		{"a page without a reply", noPage(xhttpprom.ErrTimedOut), Degraded, "page", Warn, "TCP workers are busy", `kamailio.cfg: modparam("xhttp_prom", "xhttp_prom_timeout", 0)`},
		{"a page that is too large", noPage(xhttpprom.ErrTooLarge), Degraded, "page", Warn, "too many metrics", "flag: --xhttp_prom.max-size=8MiB"},
		{"HTTP that refuses this address", func(s *kamrpctest.Server, cfg *Config) {
			cfg.URIs = []string{s.URI("http")}
			s.Misbehave(kamrpctest.HTTPError(403))
		}, Broken, "transports", Fail, "HTTP status 403", "kamailio.cfg: if (src_ip == "},
		{"HTTP with another path", func(s *kamrpctest.Server, cfg *Config) {
			cfg.URIs = []string{s.URI("http")}
			s.Misbehave(kamrpctest.HTTPError(404))
		}, Broken, "transports", Fail, "HTTP status 404", "flag: --kamailio.uri=http://"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := fake(t)
			cfg := config(t, s.URI("unix"), s.URI("fifo"))
			cfg.CallTimeout = 500 * time.Millisecond
			tt.spoil(s, &cfg)
			r := examined(t, cfg)
			outcome(t, r, tt.outcome)
			if tt.fix == "" {
				has(t, r, tt.check, tt.level, tt.text)
			} else {
				has(t, r, tt.check, tt.level, tt.text, tt.fix)
			}
			var text, machine bytes.Buffer
			r.Text(&text, true)
			if err := r.JSON(&machine); err != nil || !json.Valid(machine.Bytes()) {
				t.Errorf("no JSON: %v", err)
			}
			for _, secret := range []string{"hunter2", "secret"} { // the latter is a password in the recordings
				if strings.Contains(text.String(), secret) || strings.Contains(machine.String(), secret) {
					t.Errorf("%s is shown", secret)
				}
			}
			for _, f := range r.Findings {
				if f.section == "" || f.Text == "" {
					t.Errorf("%+v", f)
				}
			}
		})
	}
}

// TestDoctorCallsOnlyPricedRPCs checks that only the methods of a scrape are called, and
// the few that identify the server.
func TestDoctorCallsOnlyPricedRPCs(t *testing.T) {
	s := fake(t)
	cfg := config(t, s.URI("unix"), s.URI("fifo"))
	examined(t, cfg)
	if n := s.CallCount("system.listMethods"); n == 0 || n > 3 {
		t.Errorf("system.listMethods was asked %d times", n)
	}
	for _, method := range []string{"ul.dump", "dlg.briefing", "tls.list", "dispatcher.list"} {
		if n := s.CallCount(method); n > 1 {
			t.Errorf("%s was asked %d times", method, n)
		}
	}
}

// TestPort checks a free port, one of an exporter, and one of another program.
func TestPort(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	go func() {
		for {
			c, err := taken.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	cfg := config(t)
	cfg.Listen = []string{taken.Addr().String(), "127.0.0.1:0", "vsock://:9100", "256.0.0.1:1"}
	r := examined(t, cfg)
	has(t, r, "port", Warn, "in use, by another program", "flag: --web.listen-address=:9495", "shell: ss -ltnp 'sport = :")
	has(t, r, "port", OK, "127.0.0.1:0 is free")
	has(t, r, "port", Fail, "cannot listen on 256.0.0.1:1", "flag: --web.listen-address")
	if n := len(findings(r, "port")); n != 3 {
		t.Errorf("%d findings", n)
	}
}

func TestEnvironment(t *testing.T) {
	cfg := config(t)
	cfg.System.EnvFile = filepath.Join(t.TempDir(), "kamailio-exporter")
	text := "# KAMAILIO_EXPORTER_A=1\nKAMAILIO_EXPORTER_DOCTOR_TEST_B=hunter2\n  KAMAILIO_EXPORTER_DOCTOR_TEST_C=\"x\nfifo://y=1\"\nOTHER=1\n"
	if err := os.WriteFile(cfg.System.EnvFile, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("KAMAILIO_EXPORTER_DOCTOR_TEST_C", "")
	r := examined(t, cfg)
	has(t, r, "environment", Note, "kamailio-exporter: KAMAILIO_EXPORTER_DOCTOR_TEST_B", "shell: (set -a; . "+cfg.System.EnvFile)
	if text := findings(r, "environment")[0].Text; strings.Contains(text, "hunter2") || strings.Contains(text, "TEST_C") {
		t.Error(text)
	}
}

// TestAccountOfTheService checks that for root, the account is that of the service's unit, with its
// groups.
func TestAccountOfTheService(t *testing.T) {
	first, second := t.TempDir(), t.TempDir()
	write := func(file, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(filepath.Join(second, "kamailio-exporter.service"), "[Service]\nUser=nobody\nSupplementaryGroups=daemon\n")
	write(filepath.Join(first, "kamailio-exporter.service.d", "x.conf"), "[Service]\n# no\nSupplementaryGroups=mail\n")
	s := System{Units: []string{first, second}}
	unit := s.unit()
	if unit["User"] != "nobody" || strings.TrimSpace(unit["SupplementaryGroups"]) != "daemon mail" {
		t.Errorf("%q", unit)
	}
	a, err := s.whose("")
	if err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() != 0 {
		if !a.self {
			t.Errorf("%+v", a)
		}
		return
	}
	daemon, err := user.LookupGroup("daemon")
	if err != nil {
		t.Fatal(err)
	}
	gid, _ := strconv.ParseUint(daemon.Gid, 10, 32)
	if a.name != "nobody" || a.self || !slices.Contains(a.gids, uint32(gid)) {
		t.Errorf("%+v", a)
	}
	if _, err := s.whose("nobody-at-all"); err == nil {
		t.Error("a user who is not there")
	}
}

// TestReach checks access to a socket as another user.
func TestReach(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil { //nolint:gosec // other users must be able to enter
		t.Fatal(err)
	}
	file := filepath.Join(dir, "socket")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	owner := currentAccount()
	stranger := account{name: "stranger", uid: 54321, gids: []uint32{54321}}
	friend := account{name: "friend", uid: 54322, gids: owner.gids}
	for _, tt := range []struct {
		dir, file         os.FileMode
		stranger, friend  string // the obstacle; "": none
		strangerGroupHelp bool
	}{
		{0o755, 0o666, "", "", false},
		{0o755, 0o660, file, "", owner.gids[0] != 0},
		{0o755, 0o600, file, file, false},
		{0o750, 0o666, dir, "", owner.gids[0] != 0},
		{0o700, 0o666, dir, dir, false},
		{0o755, 0o606, "", file, false}, // the group's bits apply, not those of others
	} {
		for path, mode := range map[string]os.FileMode{dir: tt.dir, file: tt.file} {
			if err := os.Chmod(path, mode); err != nil {
				t.Fatal(err)
			}
		}
		for _, who := range []struct {
			account
			want string
		}{{stranger, tt.stranger}, {friend, tt.friend}, {owner, ""}} {
			o, err := who.reach(file, mayWrite)
			got := ""
			if o != nil {
				got = o.path
			}
			if err != nil || got != who.want {
				t.Errorf("%04o %04o: %s meets %q (%v), not %q", tt.dir, tt.file, who.name, got, err, who.want)
			}
			if o != nil && who.name == "stranger" && o.groupHelps() != tt.strangerGroupHelp {
				t.Errorf("%04o %04o: would the group help? %v", tt.dir, tt.file, o.groupHelps())
			}
		}
		if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // opens the directory for the next case
			t.Fatal(err)
		}
	}
	if _, err := stranger.reach(filepath.Join(dir, "missing"), mayRead); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

func TestSearch(t *testing.T) {
	s := fake(t)
	dir := filepath.Dir(s.ReplyDir())
	proc := t.TempDir()
	if err := os.MkdirAll(filepath.Join(proc, "net"), 0o755); err != nil {
		t.Fatal(err)
	}
	odd := filepath.Join(dir, "kamailio_my_rpc")
	if err := os.Symlink(filepath.Join(dir, "rpc.sock"), odd); err != nil {
		t.Fatal(err)
	}
	list := "Num       RefCount Protocol Flags    Type St Inode Path\n" +
		"00000000: 00000002 00000000 00000000 0002 01 1 " + odd + "\n" +
		"00000000: 00000002 00000000 00000000 0002 01 1 /nowhere/kamailio_rpc.sock\n" +
		"00000000: 00000002 00000000 00000000 0002 01 1 @kamailio_rpc\n" +
		"00000000: 00000002 00000000 00000000 0002 01 1\ngarbage\n"
	if err := os.WriteFile(filepath.Join(proc, "net", "unix"), []byte(list), 0o600); err != nil {
		t.Fatal(err)
	}
	got := System{Proc: proc, RunDirs: []string{dir, "/nowhere"}}.search(nil)
	if want := []string{s.URI("unix")}; !slices.Equal(got, want) {
		t.Errorf("%q, not %q", got, want)
	}
}

// TestLargeTransport checks that the FIFO of another host is not proposed.
func TestLargeTransport(t *testing.T) {
	for uri, want := range map[string]string{
		"unix:///run/kamailio/kamailio_rpc.sock": "--kamailio.uri=fifo:///run/kamailio/kamailio_rpc.fifo",
		"binrpc+tcp://127.0.0.1:2046":            "--kamailio.uri=fifo:///run/kamailio/kamailio_rpc.fifo",
		"udp://192.0.2.1:8090":                   "--kamailio.uri=http://192.0.2.1:5060/RPC",
		"binrpc+tcp://[2001:db8::1]:2046":        "--kamailio.uri=http://[2001:db8::1]:5060/RPC",
	} {
		p := &patient{trials: []*trial{{Transport: Transport{Answers: true, Flag: true}, given: uri}}}
		if got := p.largeTransport(); got != want {
			t.Errorf("%s: %s, not %s", uri, got, want)
		}
	}
}

// TestText checks that colors appear only if wanted, that prose is at most 80 columns
// wide, and that untrusted text contains no terminal control characters.
func TestText(t *testing.T) {
	r := &Report{Status: Degraded, Findings: []Finding{
		{Level: Warn, section: "Transports", Text: strings.Repeat("words ", 40) + "\x1b[2J\u202e\x07" + "\xff", Fixes: []Fix{kamailioCfg("\tline"), or(shell("x"))}},
		{Level: Note, section: "Transports", Text: "short"},
	}}
	var plain, coloured bytes.Buffer
	r.Text(&plain, false)
	r.Text(&coloured, true)
	if strings.ContainsAny(plain.String(), "\x1b\x07\u202e") || strings.Count(coloured.String(), "\x1b[2J") > 0 || !strings.Contains(coloured.String(), "\x1b[33mwarn\x1b[0m") {
		t.Errorf("%q\n%q", plain.String(), coloured.String())
	}
	for line := range strings.Lines(plain.String()) {
		if n := len([]rune(strings.TrimSuffix(line, "\n"))); n > 80 {
			t.Errorf("%d columns: %s", n, line)
		}
	}
	if !strings.Contains(plain.String(), "        or shell:\n            x\n") || !strings.Contains(plain.String(), "degraded (0 ok, 1 note, 1 warn, 0 fail)") {
		t.Error(plain.String())
	}
}

// hiddenHost is a host on which Kamailio's processes are not visible.
type hiddenHost struct{}

func (hiddenHost) Open(pids []int, _ time.Time) (collector.HostProcesses, error) {
	return nil, fmt.Errorf("%w: process %d of Kamailio is not visible here", collector.ErrNoData, pids[0])
}

// TestHost checks what doctor says of processes and sockets that cannot be read.
func TestHost(t *testing.T) {
	const unit, mounts = "kamailio-exporter.service", "mounts"
	for _, tc := range []struct {
		name, file, text string
		want, fix        string // "": no finding
	}{
		{"another process namespace", "", "", "process 21085 of Kamailio is not visible here", "shell: docker run --pid=container:KAMAILIO"},
		{"a unit that hides processes", unit, "[Service]\nProtectProc=invisible\n", "its unit has ProtectProc=invisible", "shell: ProtectProc=default"},
		{"a /proc that hides processes", mounts, "proc /proc proc rw,nosuid,hidepid=invisible,gid=4 0 0\n", "/proc is mounted with hidepid=invisible", "shell: SupplementaryGroups=GROUP"},
		{"a /proc that hides none", mounts, "proc /proc proc rw,nosuid,hidepid=off 0 0\n", "process 21085 of Kamailio is not visible here", "shell: docker run"},
		{"Kamailio on another host", "", "", "", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := fake(t)
			cfg := config(t, s.URI("unix"))
			cfg.System.Units = []string{t.TempDir()}
			cfg.User = "nobody"
			if tc.want != "" {
				cfg.Host = hiddenHost{}
			}
			cfg.Collectors = collector.All(collector.Options{Host: cfg.Host})
			file := filepath.Join(cfg.System.Units[0], tc.file)
			if tc.file == mounts {
				file = filepath.Join(cfg.System.Proc, tc.file)
			}
			if tc.file != "" && os.WriteFile(file, []byte(tc.text), 0o600) != nil {
				t.Fatal("no file")
			}
			r := examined(t, cfg)
			if tc.want == "" {
				if all := findings(r, "host"); len(all) > 0 {
					t.Errorf("found %+v", all)
				}
				return
			}
			has(t, r, "host", Note, tc.want, tc.fix)
		})
	}
}
