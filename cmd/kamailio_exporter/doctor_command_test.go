//go:build linux

package main

import (
	"encoding/json"
	"io"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/cli"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/doctor"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc/kamrpctest/kamailiotest"
)

// asMe is the flag for this process's account. The service's may exist on this machine.
func asMe(t *testing.T) string {
	t.Helper()
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	return "--user=" + me.Username
}

func TestDoctorExitCodes(t *testing.T) {
	s := fake56(t)
	good := []string{"doctor", "--no-search", asMe(t), "--web.listen-address=127.0.0.1:0", "--kamailio.uri=" + s.URI("unix"), "--kamailio.uri=" + s.URI("fifo")}
	web := filepath.Join(t.TempDir(), "web.yml")
	if err := os.WriteFile(web, []byte("basic_auth_users: {me: nohash"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name           string
		more           []string
		code           int
		stdout, stderr string
	}{
		{"healthy", nil, 0, "healthy (", ""},
		{"other flags of the service", []string{"--log.level=debug", "--collector.pike.addresses=5", "--no-collector.tm", "--web.telemetry-path=/m"}, 0, "healthy (", ""},
		{"one transport is dead", []string{"--kamailio.uri=udp://127.0.0.1:1"}, doctor.ExitDegraded, "degraded (", ""},
		{"a URI that the server refuses", []string{"--kamailio.uri=http://me:hunter2@127.0.0.1/"}, doctor.ExitBroken, "broken (", ""},
		{"a web configuration that the server refuses", []string{"--web.config.file=" + web}, doctor.ExitBroken, "the exporter cannot start: --web.config.file", ""},
		{"an unknown flag", []string{"--nope"}, doctor.ExitUsage, "", "unknown long flag '--nope' (see kamailio_exporter doctor --help)\n"},
		{"a bad value", []string{"--kamailio.timeout=0s"}, doctor.ExitUsage, "", "--kamailio.timeout must be from 1ms to 1h, not 0s"},
		{"an argument", []string{"more"}, doctor.ExitUsage, "", `unexpected argument "more"`},
		{"no such HTTP configuration", []string{"--kamailio.http-config-file=/nowhere"}, doctor.ExitUsage, "", "--kamailio.http-config-file"},
		{"help", []string{"--help"}, 0, "usage: kamailio_exporter doctor [<flags>]", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			stdout, stderr, code := ended(t, process(t, slices.Concat(good, tt.more)...))
			if code != tt.code || !strings.Contains(stdout, tt.stdout) || !strings.Contains(stderr, tt.stderr) || (tt.stderr == "") != (stderr == "") {
				t.Errorf("ended with %d:\n%s\n%s", code, stdout, stderr)
			}
			if strings.Contains(stdout+stderr, "hunter2") || strings.Contains(stdout, "\x1b") {
				t.Errorf("a secret, or colours without a terminal:\n%s\n%s", stdout, stderr)
			}
		})
	}
	stdout, _, code := ended(t, process(t, append(good, "--output=json")...))
	var report doctor.Report
	if err := json.Unmarshal([]byte(stdout), &report); err != nil || code != 0 || report.Status != doctor.Healthy || report.Version != "5.6.3" || len(report.Transports) != 2 {
		t.Errorf("%v, %d: %s", err, code, stdout)
	}
	fromEnvironment := process(t, "doctor", "--no-search", asMe(t), "--web.listen-address=127.0.0.1:0")
	fromEnvironment.Env = append(fromEnvironment.Env, "KAMAILIO_EXPORTER_KAMAILIO_URI="+s.URI("unix")+"\n"+s.URI("fifo"))
	if stdout, stderr, code := ended(t, fromEnvironment); code != 0 || !strings.Contains(stdout, s.URI("unix")) {
		t.Errorf("%d: %s\n%s", code, stdout, stderr)
	}
}

// TestDoctorHelp checks that the help lists the flags that matter, and no others.
func TestDoctorHelp(t *testing.T) {
	stdout, _, _ := ended(t, process(t, "doctor", "--help"))
	for _, flag := range []string{"--kamailio.uri", "--kamailio.http-config-file", "--sip.probe", "--user", "--output", "--[no-]search"} {
		if strings.Count(stdout, flag+"=") != 1 && strings.Count(stdout, flag+" ") != 1 {
			t.Errorf("%s is there %d times", flag, strings.Count(stdout, flag+"="))
		}
	}
	for _, flag := range []string{"--log.level", "collector.tm", "admin.check"} {
		if strings.Contains(stdout, flag) {
			t.Errorf("%s is there", flag)
		}
	}
}

// TestDoctorFindsTheExporter runs doctor while an exporter is already running.
func TestDoctorFindsTheExporter(t *testing.T) {
	s := fake56(t)
	e := start(t, "--kamailio.uri="+s.URI("unix"))
	var out strings.Builder
	err := run(t.Context(), []string{"doctor", "--no-search", asMe(t), "--kamailio.uri=" + s.URI("unix"), "--kamailio.uri=" + s.URI("fifo"), "--web.listen-address=" + strings.TrimPrefix(e.url, "http://")}, &out, io.Discard)
	if err != nil || !strings.Contains(out.String(), "an exporter is listening on 127.0.0.1:") {
		t.Errorf("%v:\n%s", err, out.String())
	}
}

// TestDoctorOfHTTPThatCloses uses Debian's configuration, which closes each connection.
func TestDoctorOfHTTPThatCloses(t *testing.T) {
	for _, version := range kamailiotest.AllVersions(t) {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			s := kamailiotest.Start(t, kamailiotest.Config{Version: version, StockHTTP: true})
			ask := func(uri string) string {
				t.Helper()
				var out strings.Builder
				if err := run(t.Context(), []string{"doctor", "--no-search", asMe(t), "--web.listen-address=127.0.0.1:0", "--kamailio.uri=" + uri, "--sip.probe=udp:" + s.SIPAddr}, &out, io.Discard); err != nil {
					t.Errorf("%v:\n%s", err, out.String())
				}
				return out.String()
			}
			out := ask(s.HTTPURL)
			if !strings.Contains(out, "closes each connection") || !strings.Contains(out, "set_reply_close();") || !strings.Contains(out, "SIP probe of udp:"+s.SIPAddr+": status ") {
				t.Error(out)
			}
			full := kamailiotest.Start(t, kamailiotest.Config{Version: version})
			s = full
			if out := ask(full.HTTPURL); strings.Contains(out, "closes each connection") {
				t.Error(out)
			}
		})
	}
}

// TestDoctorWithoutPermission runs doctor as a user without access to the sockets, then
// with the group that doctor proposes.
func TestDoctorWithoutPermission(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: only root can run the program as another user")
	}
	group, err := user.LookupGroup("daemon")
	if err != nil {
		t.Fatal(err)
	}
	gid, _ := strconv.Atoi(group.Gid)
	const nobody = 65534
	s := kamailiotest.Start(t, kamailiotest.Config{Stock: true})
	for _, path := range []string{s.Dir, s.SocketPath, s.FIFOPath} {
		if err := os.Chown(path, -1, gid); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(s.Dir, 0o755); err != nil { //nolint:gosec // other users must be able to enter
		t.Fatal(err)
	}
	text, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(s.Dir, "program") // a path from which other users can run it
	if err := os.WriteFile(program, text, 0o755); err != nil {
		t.Fatal(err)
	}
	ask := func(uid uint32, groups ...uint32) (string, int) {
		t.Helper()
		cmd := process(t, "doctor", "--no-search", asMe(t), "--web.listen-address=127.0.0.1:0", "--kamailio.uri=unix://"+s.SocketPath, "--kamailio.uri=fifo://"+s.FIFOPath)
		cmd.Path = program
		cmd.Dir = "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: nobody, Groups: groups}}
		stdout, stderr, code := ended(t, cmd)
		return stdout + stderr, code
	}
	out, code := ask(nobody)
	if code != doctor.ExitBroken || !strings.Contains(out, "no permission") || strings.Count(out, "usermod -aG daemon nobody") != 1 {
		t.Errorf("%d:\n%s", code, out)
	}
	if out, code := ask(nobody, uint32(gid)); code != 0 { //nolint:gosec // a group ID
		t.Errorf("%d:\n%s", code, out)
	}
	// A member of the group whose shell is older than the membership.
	daemon, err := user.Lookup("daemon")
	if err != nil {
		t.Fatal(err)
	}
	uid, _ := strconv.Atoi(daemon.Uid)
	out, code = ask(uint32(uid)) //nolint:gosec // a user ID
	if code != doctor.ExitBroken || strings.Contains(out, "usermod") || strings.Count(out, "newgrp daemon") != 1 || !strings.Contains(out, "(same fix as above)") {
		t.Errorf("%d:\n%s", code, out)
	}

	// Now as root, before the service is started.
	var asRoot strings.Builder
	err = run(t.Context(), []string{"doctor", "--user=nobody", "--no-search", "--web.listen-address=127.0.0.1:0", "--kamailio.uri=unix://" + s.SocketPath, "--kamailio.uri=fifo://" + s.FIFOPath}, &asRoot, io.Discard)
	if cli.ExitCode(err) != doctor.ExitBroken || !strings.Contains(asRoot.String(), "usermod -aG daemon nobody") || !strings.Contains(asRoot.String(), "nobody (from --user) may not use") {
		t.Errorf("%v:\n%s", err, asRoot.String())
	}
	web := filepath.Join(s.Dir, "web.yml")
	if err := os.WriteFile(web, []byte("{}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	asRoot.Reset()
	err = run(t.Context(), []string{"doctor", "--user=daemon", "--no-search", "--web.listen-address=127.0.0.1:0", "--web.config.file=" + web, "--kamailio.uri=unix://" + s.SocketPath, "--kamailio.uri=fifo://" + s.FIFOPath}, &asRoot, io.Discard)
	if cli.ExitCode(err) != doctor.ExitBroken || !strings.Contains(asRoot.String(), "chgrp daemon "+web+" && chmod g+r "+web) {
		t.Errorf("%v:\n%s", err, asRoot.String())
	}
	asRoot.Reset()
	err = run(t.Context(), []string{"doctor", "--user=daemon", "--no-search", "--web.listen-address=127.0.0.1:0", "--kamailio.uri=unix://" + s.SocketPath, "--kamailio.uri=fifo://" + s.FIFOPath}, &asRoot, io.Discard)
	if err != nil || !strings.Contains(asRoot.String(), "daemon (from --user) may use") {
		t.Errorf("%v:\n%s", err, asRoot.String())
	}
}

// TestDoctorChangesNothing checks that doctor causes no errors in Kamailio's log.
func TestDoctorChangesNothing(t *testing.T) {
	s := kamailiotest.Start(t, kamailiotest.Config{})
	logged := s.LogLines()
	for range 3 {
		var out strings.Builder
		if err := run(t.Context(), []string{"doctor", "--no-search", asMe(t), "--web.listen-address=127.0.0.1:0", "--kamailio.uri=unix://" + s.SocketPath, "--kamailio.uri=fifo://" + s.FIFOPath + "?reply_dir=" + s.FIFOReplyDir}, &out, io.Discard); err != nil {
			t.Errorf("%v:\n%s", err, out.String())
		}
	}
	for _, line := range s.Logged()[logged:] {
		// Ignore the demo's dead media relays and its dead registrar.
		if strings.Contains(line, "ERROR") && !strings.Contains(line, " rtpengine ") && !strings.Contains(line, " uac ") {
			t.Errorf("Kamailio logged: %s", line)
		}
	}
}
