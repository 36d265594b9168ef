package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/adminapi"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/cli"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/conf"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc/kamrpctest"
)

// adminDir makes a directory with a configuration in which this process is the user noc.
// Its path is short, because it will contain a socket.
func adminDir(t *testing.T, listen string) (dir, file string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "adm")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if listen == "" {
		listen = "unix:" + filepath.Join(dir, "admin.sock")
	}
	file = filepath.Join(dir, "admin.yml")
	text := fmt.Sprintf(`admin:
  enabled: true
  listen: %s
  audit: {file: %s/audit.jsonl}
  limits: {per_user_per_second: 100, burst: 100}
  users:
    noc:
      peer_uid: [%d]
      tokens: [{sha256: %s}]
      grants:
        - {action: dispatcher.reload}
        - {action: pdt.reload}
        - {action: tls.reload}
        - {action: drouting.reload}
        - {action: htable.set-int, params: {table: {enum: [ipban]}, key: {any: true}, value: {min: 0, max: 9}}}
        - {action: dispatcher.set-state, params: {set: {any: true}, uri: {any: true}, state: {any: true}}}
`, listen, dir, os.Getuid(), strings.Repeat("1", 64))
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir, file
}

// changeable is a fake with the RPCs that the actions of adminDir call.
func changeable(t *testing.T) *kamrpctest.Server {
	t.Helper()
	server := fake(t)
	server.Handle("core.uptime", `{"uptime":1000}`)
	server.Handle("dispatcher.reload", `"Ok. Dispatcher successfully reloaded."`)
	server.Handle("dispatcher.set_state", `"Ok. Dispatcher state updated."`)
	server.HandleFault("pdt.reload", 500, "Reload Failed")
	server.Handle("tls.reload", `"Ok."`)
	server.Handle("drouting.reload", `"reload ok"`)
	server.Handle("htable.seti", `"Ok. Key set to new value."`)
	server.Handle("htable.get", `{"item":{"name":"k","value":3}}`)
	return server
}

// TestAdminIsOff checks that without --admin.config.file, or with enabled: false, no
// socket is opened and the metrics port has no path to the endpoint.
func TestAdminIsOff(t *testing.T) {
	_, file := adminDir(t, "")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, bytes.Replace(text, []byte("enabled: true"), []byte("enabled: false"), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, args := range map[string][]string{"no flag": nil, "enabled: false": {"--admin.config.file=" + file}} {
		server := changeable(t)
		e := start(t, append(args, "--kamailio.uri="+server.URI("http"))...)
		for _, path := range []string{"/v1/actions", "/v1/actions/dispatcher.reload", "/v1/operations"} {
			if resp, _ := e.get(t, path); resp.StatusCode != http.StatusNotFound {
				t.Errorf("%s: GET %s: %d", name, path, resp.StatusCode)
			}
			resp, err := http.Post(e.url+path, "application/json", strings.NewReader("{}"))
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != http.StatusNotFound && resp.StatusCode != http.StatusMethodNotAllowed {
				t.Errorf("%s: POST %s: %d", name, path, resp.StatusCode)
			}
		}
		if _, page := e.get(t, "/metrics"); strings.Contains(page, "kamailio_exporter_admin_") {
			t.Errorf("%s: it has metrics", name)
		}
		if strings.Contains(e.stderr.String(), "admin endpoint") {
			t.Errorf("%s: %s", name, e.stderr)
		}
		if server.CallCount("dispatcher.reload") != 0 {
			t.Errorf("%s: a reload", name)
		}
	}
}

func TestAdminStarts(t *testing.T) {
	dir, file := adminDir(t, "")
	server := changeable(t)
	e := start(t, "--kamailio.uri="+server.URI("http"), "--admin.config.file="+file)
	e.stderr.waitFor(t, "admin endpoint: listening")
	socket := filepath.Join(dir, "admin.sock")
	if info, err := os.Stat(socket); err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("%v, %v", info, err)
	}
	if out, err := adminRun(t, socket, "run", "dispatcher.reload"); err != nil || !strings.Contains(out, "dispatcher.reload: applied, verified") || !strings.Contains(out, "destinations") {
		t.Errorf("%v\n%s", err, out)
	}
	if _, page := e.get(t, "/metrics"); !strings.Contains(page, `kamailio_exporter_admin_requests_total{action="dispatcher.reload",outcome="applied",user="noc"} 1`) ||
		!strings.Contains(page, `kamailio_exporter_rpc_requests_total{method="dispatcher.reload"} 1`) {
		t.Error("the action is not on the page")
	}
	// SIGHUP loads a valid file and rejects an invalid one.
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	e.stderr.waitFor(t, "keeping the previous configuration")
	if _, page := e.get(t, "/metrics"); !strings.Contains(page, "kamailio_exporter_admin_config_last_reload_successful 0") {
		t.Error("not on the page")
	}
	if out, err := adminRun(t, socket, "list"); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if err := e.stop(); err != nil {
		t.Error(err)
	}
	if _, err := net.Dial("unix", socket); err == nil {
		t.Error("it still listens")
	}
}

// TestVerifyQueriesTheExporter checks that admin verify queries the running exporter for
// its last record.
func TestVerifyQueriesTheExporter(t *testing.T) {
	dir, file := adminDir(t, "")
	server := changeable(t)
	e := start(t, "--kamailio.uri="+server.URI("http"), "--admin.config.file="+file)
	e.stderr.waitFor(t, "admin endpoint: listening")
	socket, log := filepath.Join(dir, "admin.sock"), filepath.Join(dir, "audit.jsonl")
	for _, args := range [][]string{{"run", "dispatcher.reload"}, {"run", "dispatcher.reload"}} { // one succeeds, one is refused
		_, _ = adminRun(t, socket, args...)
	}
	for _, path := range []string{log, log + ".denied"} {
		good, err := os.ReadFile(path)
		if err != nil || len(good) == 0 {
			t.Fatalf("%s: %v", path, err)
		}
		at := bytes.LastIndexByte(good[:len(good)-1], '\n') + 1 // start of the last line
		for name, text := range map[string][]byte{
			"as it is": good, "edited": append(bytes.Clone(good[:at]), bytes.Replace(good[at:], []byte(`"user":"noc"`), []byte(`"user":"bob"`), 1)...), "cut": good[:at], "truncated": nil,
		} {
			if err := os.WriteFile(path, text, 0o600); err != nil {
				t.Fatal(err)
			}
			for _, args := range [][]string{{"verify"}, {"verify", path}} {
				out, err := adminRun(t, socket, args...)
				if good := name == "as it is"; good != (err == nil) || good && !strings.Contains(out, "it is identical to what the running exporter wrote") {
					t.Errorf("%s, %s, %s: %v\n%s", filepath.Base(path), name, args, err, out)
				}
			}
		}
		if err := os.WriteFile(path, good, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// If the exporter cannot be queried, only the chain is checked, and the output says so.
	out, err := adminRun(t, filepath.Join(dir, "none.sock"), "verify", log)
	if err != nil || !strings.Contains(out, "not compared with the running exporter: ") {
		t.Errorf("%v\n%s", err, out)
	}
	if out, err := adminRun(t, filepath.Join(dir, "none.sock"), "verify"); err == nil {
		t.Errorf("%s", out)
	}
}

// TestSecondStartDoesNotTouchTheLog checks that an accidental second start ends with one
// line before it writes into the log of the first: with the same file, with another
// socket but the same log, and with an address in use.
func TestSecondStartDoesNotTouchTheLog(t *testing.T) {
	dir, file := adminDir(t, "")
	server := changeable(t)
	e := start(t, "--kamailio.uri="+server.URI("http"), "--admin.config.file="+file)
	e.stderr.waitFor(t, "admin endpoint: listening")
	socket := filepath.Join(dir, "admin.sock")
	if out, err := adminRun(t, socket, "run", "dispatcher.reload"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	log := filepath.Join(dir, "audit.jsonl")
	before, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	variant := func(name, was, is string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, bytes.ReplaceAll(text, []byte(was), []byte(is)), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	second := func(file string) error {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second) // if it starts after all, it must end
		defer cancel()
		var out bytes.Buffer
		return run(ctx, []string{"--web.listen-address=127.0.0.1:0", "--no-runtime.idle-priority", "--kamailio.uri=" + server.URI("http"), "--admin.config.file=" + file}, &out, &out)
	}
	for name, tc := range map[string]struct{ file, says string }{
		"the same file":  {file, "another process writes " + log},
		"the same log":   {variant("other.yml", "admin.sock", "other.sock"), "another process writes " + log},
		"the same place": {variant("place.yml", "audit.jsonl", "other.jsonl"), socket + " is in use by another process"},
	} {
		err := second(tc.file)
		if err == nil || !strings.Contains(err.Error(), tc.says) || cli.ExitCode(err) != 1 || strings.Contains(conf.OneLine(err), "\n") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if now, err := os.ReadFile(log); err != nil || !bytes.Equal(now, before) {
		t.Errorf("the log was written to: %v\n%s", err, now)
	}
	if _, err := os.Stat(filepath.Join(dir, "other.jsonl")); !os.IsNotExist(err) {
		t.Errorf("a log was begun before it found its place taken: %v", err)
	}
	if out, err := adminRun(t, socket, "verify", log); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// adminRun runs the client.
func adminRun(t *testing.T, socket string, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	err := run(context.Background(), append([]string{"admin", "--url=unix:" + socket}, args...), &out, &out)
	return out.String(), err
}

// TestAdminFlags checks the configurations that the flags reject.
func TestAdminFlags(t *testing.T) {
	dir, file := adminDir(t, "")
	_, sameFile := adminDir(t, "127.0.0.1:9494")
	_, openFile := adminDir(t, "0.0.0.0:9495")
	for name, tc := range map[string]struct {
		args []string
		says string
	}{
		"no file":                                 {[]string{"--admin.config.file=" + dir + "/none"}, "no such file"},
		"check without a file":                    {[]string{"--admin.check"}, "need --admin.config.file"},
		"the metrics' own address":                {[]string{"--admin.config.file=" + sameFile}, "is the address of the metrics"},
		"the metrics' own address, two listeners": {[]string{"--admin.config.file=" + sameFile, "--web.listen-address=127.0.0.1:9494"}, "is the address of the metrics"},
		"not loopback":                            {[]string{"--admin.config.file=" + openFile}, "not loopback"},
	} {
		var out bytes.Buffer
		err := run(context.Background(), tc.args, &out, &out)
		if err == nil || !strings.Contains(err.Error(), tc.says) || cli.ExitCode(err) != 1 || strings.Contains(conf.OneLine(err), "\n") {
			t.Errorf("%s: %v", name, err)
		}
	}
	var out bytes.Buffer
	if err := run(context.Background(), []string{"--admin.check", "--admin.config.file=" + file}, &out, &out); err != nil || !strings.Contains(out.String(), "is valid") {
		t.Errorf("%v: %s", err, out.String())
	}
	out.Reset()
	if err := run(context.Background(), []string{"--admin.print-grants", "--admin.config.file=" + file}, &out, &out); err != nil ||
		!strings.Contains(out.String(), "noc\n  dispatcher.reload\n") || !strings.Contains(out.String(), "htable.set-int table={ipban} key=any value=0..9") ||
		!strings.Contains(out.String(), "not granted to any user\n  cfg.set\n") {
		t.Errorf("%v: %s", err, out.String())
	}
}

func TestAdminCommands(t *testing.T) {
	dir, file := adminDir(t, "")
	server := changeable(t)
	e := start(t, "--kamailio.uri="+server.URI("http"), "--admin.config.file="+file)
	e.stderr.waitFor(t, "admin endpoint: listening")
	socket := filepath.Join(dir, "admin.sock")
	for _, tc := range []struct {
		name string
		args []string
		code int
		says string
	}{
		{"list", []string{"list"}, 0, "htable.set-int\n  Sets an item to a number.\n    table=ipban  name of the htable\n    key=TEXT (up to 128 characters)  key of the item\n    value=0..9  the number\n    existing targets: kamailio_exporter admin show htable\n"},
		{"list, a number", []string{"list"}, 0, "    set=NUMBER  "},
		{"list, an enum", []string{"list"}, 0, "    state=ip|ix|ap|ax|dx  "},
		{"show", []string{"show"}, 0, "dispatcher\nhtable\n"},
		{"show dispatcher", []string{"show", "dispatcher"}, 0, "set=2  uri=sip:127.0.0.1:5189;transport=tcp  flags AP"},
		{"show json", []string{"--output=json", "show", "htable"}, 0, `"targets":[{"database":false,"table":"ipban"}]`},
		{"show what is not granted", []string{"show", "uac"}, 2, ""},
		{"mistyped", []string{"run", "dispatcher.set-state", "set=1", "uri=sip:127.0.0.1:5091", "state=ip"}, 2, "dispatcher.set-state: refused\n"},
		{"applied", []string{"run", "dispatcher.reload", "--reason=ticket 4711"}, 0, "dispatcher.reload: applied, verified ("},
		{"json", []string{"--output=json", "run", "--dry-run", "htable.set-int", "table=ipban", "key=k", "value=7"}, 0, `"would_send":{"method":"htable.seti","params":["ipban","k",7]}`},
		{"dry run", []string{"run", "--dry-run", "htable.set-int", "table=ipban", "key=k", "value=7"}, 0, "would send htable.seti ipban k 7\n"},
		{"no change", []string{"run", "htable.set-int", "table=ipban", "key=k", "value=3"}, 0, "htable.set-int: no change, verified"},
		{"refused", []string{"run", "dispatcher.reload"}, 2, "dispatcher.reload: refused\n"},
		{"not granted", []string{"run", "htable.set-int", "table=ipban", "key=k", "value=10"}, 2, ": refused\n"},
		{"unknown", []string{"run", "core.kill"}, 2, ""},
		{"failed", []string{"run", "pdt.reload"}, 3, "pdt.reload: failed\n"},
		{"no RPC shows it", []string{"run", "tls.reload"}, 4, "tls.reload: applied unverified ("},
		{"and is not needed", []string{"run", "--no-require-verified", "drouting.reload"}, 0, "drouting.reload: applied unverified ("},
		{"not verified", []string{"run", "htable.set-int", "table=ipban", "key=k", "value=7"}, 6, "htable.set-int: contradicted\n"},
		{"usage", []string{"run", "htable.set-int", "table"}, 1, ""},
		{"no number", []string{"run", "htable.set-int", "table=ipban", "key=k", "value=x"}, 1, ""},
		{"twice", []string{"run", "htable.set-int", "table=a", "table=b"}, 1, ""},
		{"bad flag", []string{"list", "--nonsense"}, 1, ""},
		{"log", []string{"log"}, 0, "dispatcher.reload"},
		{"log json", []string{"--output=json", "log", "--limit=1"}, 0, `{"operations":[{`},
		{"verify", []string{"verify", filepath.Join(dir, "audit.jsonl")}, 0, "it is identical to what the running exporter wrote"},
		{"verify all", []string{"verify"}, 0, filepath.Join(dir, "audit.jsonl.denied") + ": "},
		{"verify another", []string{"verify", file + ".none"}, 1, ""},
		{"token", []string{"token"}, 0, "tokens: [{sha256: "},
		{"help", []string{"--help"}, 0, "Idempotency-Key"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			out, err := adminRun(t, socket, tc.args...)
			code := 0
			if err != nil {
				code = cli.ExitCode(err)
			}
			if tc.name == "help" {
				tc.says = "kamailio_exporter admin"
			}
			if code != tc.code || !strings.Contains(out, tc.says) {
				t.Errorf("ended with %d (%v):\n%s", code, err, out)
			}
		})
	}
	out, err := adminRun(t, socket, "log")
	id := regexp.MustCompile(`\b[0-9A-HJKMNP-TV-Z]{26}\b`).FindString(out)
	if err != nil || id == "" {
		t.Fatalf("%v\n%s", err, out)
	}
	if out, err := adminRun(t, socket, "log", id); err != nil || !strings.Contains(out, "operation "+id) {
		t.Errorf("%v\n%s", err, out)
	}
	if _, err := adminRun(t, filepath.Join(dir, "none.sock"), "run", "dispatcher.reload"); cli.ExitCode(err) != 1 || !strings.Contains(err.Error(), "it is off by default") {
		t.Errorf("no endpoint: %v", err)
	}
	// A wrong token is refused; a token file is read.
	token := filepath.Join(dir, "token")
	if err := os.WriteFile(token, []byte(adminapi.TokenPrefix+"WRONG\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := adminRun(t, socket, "--token-file="+token, "list"); cli.ExitCode(err) != 2 {
		t.Errorf("a wrong token: %v", err)
	}
}

// fakeEndpoint is a socket on which a test answers the client in place of the endpoint.
func fakeEndpoint(t *testing.T) (socket string, listener net.Listener) {
	t.Helper()
	dir, err := os.MkdirTemp("", "adm") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket = filepath.Join(dir, "s")
	if listener, err = net.Listen("unix", socket); err != nil {
		t.Fatal(err)
	}
	return socket, listener
}

// TestAdminCommandsEscape checks that text from a server cannot move the cursor or start
// a new line.
func TestAdminCommandsEscape(t *testing.T) {
	socket, listener := fakeEndpoint(t)
	const evil = `x\u001b[2J\u009b31m\u202e\u0007\r\u007f\n\tFORGED\ud83d\ude00\udb40\udc41`
	record := `{"time":"2026-01-01T00:00:00Z","id":"` + evil + `","user":"` + evil + `","auth":"` + evil + `","source":"` + evil + `","action":"` + evil + `","params":{"` + evil + `":"` + evil +
		`"},"reason":"` + evil + `","outcome":"` + evil + `","problem":"` + evil + `","detail":"` + evil + `","before":{"` + evil + `":"` + evil + `"}}`
	answers := map[string]string{
		"/v1/actions":     `{"user":"` + evil + `","actions":[{"name":"a.b","summary":"` + evil + `","params":[{"name":"` + evil + `","help":"` + evil + `","granted":["` + evil + `"]}]},{"name":"c.d","params":[]}]}`,
		"/v1/actions/a.b": `{"outcome":"applied","id":"` + evil + `","detail":"` + evil + `","would_send":{"method":"` + evil + `","params":["` + evil + `"]},"before":{"` + evil + `":"` + evil + `"}}`,
		"/v1/actions/c.d": `{"title":"` + evil + `","detail":"` + evil + `","instance":"` + evil + `","outcome":"failed"}`,
		"/v1/operations":  `{"operations":[` + record + `]}`, "/v1/operations/1": record,
		"/v1/remediation": `{"receiver":true,"rules":[{"name":"` + evil + `","match":"` + evil + `","on":"` + evil + `","action":"` + evil + `","budget":"` + evil + `","breaker":{"why":"` + evil + `"},"open_changes":[{"target":"` + evil + `","operation":"` + evil + `"}]}]}`,
	}
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, ok := answers[r.URL.Path]
		if !ok {
			w.WriteHeader(http.StatusNotFound)
			text = `{"title":"` + evil + `","detail":"` + evil + `"}`
		}
		_, _ = io.WriteString(w, strings.NewReplacer(`\u009b`, "\u009b", `\u202e`, "\u202e", `\u007f`, "\u007f").Replace(text)) // JSON may have these as they are
	})}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { server.Close() })
	for _, output := range []string{"text", "json"} {
		for _, args := range [][]string{{"list"}, {"run", "a.b"}, {"run", "c.d"}, {"log"}, {"log", "1"}, {"log", "2"}, {"rules"}} {
			out, err := adminRun(t, socket, append([]string{"--output=" + output}, args...)...)
			if err != nil {
				out += err.Error()
			}
			if !strings.Contains(out, "FORGED") || strings.Contains(out, "\nFORGED") || strings.Contains(out, "\tFORGED") || strings.ContainsFunc(out, func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }) {
				t.Errorf("%s %s: %q", output, args, out)
			}
			if output == "json" && err == nil && !json.Valid([]byte(out)) {
				t.Errorf("%s: no JSON: %s", args, out)
			}
		}
	}
}

// TestAdminCommandUnknown breaks the connection after the request was sent: the outcome
// is unknown.
func TestAdminCommandUnknown(t *testing.T) {
	socket, listener := fakeEndpoint(t)
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			fmt.Fprint(w, `{"user":"noc","actions":[{"name":"a.b","params":[]}]}`)
			return
		}
		panic(http.ErrAbortHandler)
	})}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { server.Close() })
	if _, err := adminRun(t, socket, "run", "a.b"); cli.ExitCode(err) != 5 || !strings.Contains(err.Error(), "--key=") {
		t.Error(err)
	}
}

// TestAdminChild is the exporter in a separate process, for TestAdminKilled.
func TestAdminChild(t *testing.T) {
	args := os.Getenv("KAMAILIO_EXPORTER_TEST_CHILD")
	if args == "" {
		t.Skip("only for TestAdminKilled")
	}
	if err := run(t.Context(), strings.Split(args, "\n"), os.Stdout, os.Stderr); err != nil {
		t.Fatal(err)
	}
}

// child starts the exporter in a separate process and waits until it listens.
func child(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestAdminChild$") //nolint:gosec // runs this test binary
	cmd.Env = append(os.Environ(), "KAMAILIO_EXPORTER_TEST_CHILD="+strings.Join(append(args, "--web.listen-address=127.0.0.1:0"), "\n"))
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(stderr)
	for lines.Scan() {
		if strings.Contains(lines.Text(), "admin endpoint: listening") {
			go func() { _, _ = io.Copy(io.Discard, stderr) }()
			return cmd
		}
	}
	_ = cmd.Wait()
	t.Fatal("the exporter ended")
	return nil
}

// TestAdminKilled sends a real SIGKILL between the intent and the outcome.
func TestAdminKilled(t *testing.T) {
	dir, file := adminDir(t, "")
	server := changeable(t)
	inside, leave := make(chan struct{}), make(chan struct{})
	server.HandleFunc("dispatcher.reload", func(kamrpctest.Request) kamrpctest.Response {
		close(inside)
		<-leave
		return kamrpctest.Response{}
	})
	t.Cleanup(func() { close(leave) })
	args := []string{"--kamailio.uri=" + server.URI("unix"), "--admin.config.file=" + file}
	cmd := child(t, args...)
	socket := filepath.Join(dir, "admin.sock")
	ended := make(chan error)
	go func() {
		_, err := adminRun(t, socket, "run", "dispatcher.reload", "--key=key-of-the-test", "--reason=kill")
		ended <- err
	}()
	<-inside
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if err := <-ended; cli.ExitCode(err) != 5 {
		t.Errorf("the client: %v", err)
	}
	cmd = child(t, args...)
	defer func() { _ = cmd.Wait() }()
	defer func() { _ = cmd.Process.Signal(syscall.SIGTERM) }()
	out, err := adminRun(t, socket, "log")
	if err != nil || !strings.Contains(out, "unknown") || !strings.Contains(out, "kill") {
		t.Errorf("%v\n%s", err, out)
	}
	// A repeated key gets the recorded reply, and nothing is sent again.
	if out, err := adminRun(t, socket, "run", "dispatcher.reload", "--key=key-of-the-test", "--reason=kill"); cli.ExitCode(err) != 5 || server.CallCount("dispatcher.reload") != 1 {
		t.Errorf("%v, sent %d times\n%s", err, server.CallCount("dispatcher.reload"), out)
	}
	if out, err := adminRun(t, socket, "verify", filepath.Join(dir, "audit.jsonl")); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestScrapeDuringAction checks that a scrape during an action has everything that the
// action does not touch, and in time.
func TestScrapeDuringAction(t *testing.T) {
	dir, file := adminDir(t, "")
	server := changeable(t)
	inside, leave := make(chan struct{}), make(chan struct{})
	server.HandleFunc("dispatcher.reload", func(kamrpctest.Request) kamrpctest.Response {
		close(inside)
		<-leave
		return kamrpctest.Response{Result: `"ok"`}
	})
	e := start(t, "--kamailio.uri="+server.URI("http"), "--admin.config.file="+file, "--kamailio.timeout=500ms", "--scrape.reuse=0s")
	e.stderr.waitFor(t, "admin endpoint: listening")
	before := server.CallCount("dispatcher.list")
	ended := make(chan error)
	go func() {
		_, err := adminRun(t, filepath.Join(dir, "admin.sock"), "run", "dispatcher.reload")
		ended <- err
	}()
	<-inside
	asked := server.CallCount("dispatcher.list")
	if asked != before+1 {
		t.Errorf("%d lists before the reload", asked-before)
	}
	began := time.Now()
	_, page := e.get(t, "/metrics")
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("the scrape took %s", took)
	}
	if f := failed.FindAllStringSubmatch(page, -1); names(f) != "dispatcher" || value(page, "kamailio_up") != "1" {
		t.Errorf("failed: %s", names(f))
	}
	if n := server.CallCount("dispatcher.list"); n != asked {
		t.Error("it was read while it reloads")
	}
	close(leave)
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if _, page := e.get(t, "/metrics"); failed.MatchString(page) {
		t.Errorf("failed afterwards: %s", names(failed.FindAllStringSubmatch(page, -1)))
	}
}

// TestAdminOverClosedConnections uses a Kamailio that closes each connection without
// announcing it, as Debian's does, behind a password: a request that is sent once must
// arrive once.
func TestAdminOverClosedConnections(t *testing.T) {
	dir, file := adminDir(t, "")
	server := changeable(t)
	target, err := url.Parse(server.URI("http"))
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: target.Host})
	closing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer := httptest.NewRecorder()
		proxy.ServeHTTP(answer, r)
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		fmt.Fprintf(conn, "HTTP/1.1 %d x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", answer.Code, answer.Body.Len(), answer.Body)
	}))
	defer closing.Close()
	httpConfig := filepath.Join(dir, "http.yml")
	if err := os.WriteFile(httpConfig, []byte("basic_auth: {username: a, password: b}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	e := start(t, "--kamailio.uri="+closing.URL+"/RPC", "--kamailio.http-config-file="+httpConfig, "--admin.config.file="+file)
	e.stderr.waitFor(t, "admin endpoint: listening")
	for i := range 5 {
		// The fake's item stays 3: the request was sent and answered, but the value did
		// not change.
		if out, err := adminRun(t, filepath.Join(dir, "admin.sock"), "run", "htable.set-int", "table=ipban", "key=k", "value=7"); cli.ExitCode(err) != cli.ExitContradicted {
			t.Errorf("%d: %v\n%s", i, err, out)
		}
	}
	if n := server.CallCount("htable.seti"); n != 5 {
		t.Errorf("sent %d times", n)
	}
}
