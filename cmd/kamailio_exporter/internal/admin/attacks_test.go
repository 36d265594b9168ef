package admin

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/adminapi"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/audit"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc/kamrpctest"
)

// docs/admin-security.md lists these tests ("What is tested"). Package main tests that
// nothing listens if the endpoint is disabled. kamailio_test.go tests reload storms and
// effects on a real server.

func TestConfigurationsThatAreRefused(t *testing.T) {
	good := policyText()
	for name, tc := range map[string]struct {
		head string
		mode os.FileMode
		says string
	}{
		"off loopback without client_ca":       {"  listen: 0.0.0.0:9443\n", 0o600, "not loopback"},
		"not loopback, IPv6":                   {"  listen: '[::]:9443'\n", 0o600, "not loopback"},
		"not loopback, incomplete tls section": {"  listen: 192.0.2.1:9443\n  tls: {cert_file: a, key_file: b}\n", 0o600, "client_ca_file"},
		"a name":                               {"  listen: localhost:9443\n", 0o600, "such as 127.0.0.1"},
		"no port":                              {"  listen: 127.0.0.1\n", 0o600, "must be unix:"},
		"readable by all":                      {"", 0o644, "all users"},
		"writable by all":                      {"", 0o602, "all users"},
		"unknown key":                          {"  enable: true\n", 0o600, "unknown key enable; did you mean enabled?"},
		"a repeated key":                       {"  enabled: true\n", 0o600, "already set"},
		"socket for all":                       {"  socket_mode: \"0666\"\n", 0o600, "socket_mode"},
		"a negative number of destinations":    {"  guards: {min_active: -1}\n", 0o600, "min_active"},
		"a token and no certificate":           {"  listen: 192.0.2.1:9443\n  tls: {cert_file: a, key_file: b, client_ca_file: c}\n", 0o600, "has no client_certs"},
		"uptime without a unit":                {"  guards: {min_uptime: 60}\n", 0o600, `admin: guards: min_uptime: "60" is not a duration`},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "admin.yml")
			if err := os.WriteFile(file, []byte("admin:\n  enabled: true\n"+tc.head+strings.TrimLeft(good, "\n")), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(file, tc.mode); err != nil {
				t.Fatal(err)
			}
			_, err := Load(file)
			if err == nil || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("%v", err)
			}
		})
	}
	for limit, says := range map[string]string{
		"cooldown: 25h": "admin: limits: cooldown must be from 1s to 24h, not 25h0m0s",
		"cooldown: 30":  `admin: limits: cooldown: "30" is not a duration: write a number and its unit, such as 3s`,
	} {
		_, err := Parse([]byte("admin: {enabled: true, limits: {" + limit + "}, users: {a: {peer_uid: [1], auditor: true}}}\n"))
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", limit, err)
		}
	}
	for name, text := range map[string]string{
		"empty": "", "no section": "remediation: {}\n", "no users": "admin: {enabled: true}\n", "not YAML": "admin: [",
		"user without a credential":    "admin: {enabled: true, users: {a: {grants: [{action: pdt.reload}]}}}\n",
		"user without a grant":         "admin: {enabled: true, users: {a: {peer_uid: [1]}}}\n",
		"unknown action":               "admin: {enabled: true, users: {a: {peer_uid: [1], grants: [{action: core.kill}]}}}\n",
		"unknown role":                 "admin: {enabled: true, users: {a: {peer_uid: [1], roles: [x]}}}\n",
		"parameter without constraint": "admin: {enabled: true, users: {a: {peer_uid: [1], grants: [{action: mtree.reload}]}}}\n",
		"empty constraint":             "admin: {enabled: true, users: {a: {peer_uid: [1], grants: [{action: mtree.reload, params: {tree: {}}}]}}}\n",
		"constraint of no parameter":   "admin: {enabled: true, users: {a: {peer_uid: [1], grants: [{action: pdt.reload, params: {x: {any: true}}}]}}}\n",
		"any and more":                 "admin: {enabled: true, users: {a: {peer_uid: [1], grants: [{action: mtree.reload, params: {tree: {any: true, enum: [a]}}}]}}}\n",
		"enum beyond the catalogue":    "admin: {enabled: true, users: {a: {peer_uid: [1], grants: [{action: cfg.set, params: {variable: {enum: [core.udp4_raw]}, value: {any: true}}}]}}}\n",
		"one uid, two users":           "admin: {enabled: true, users: {a: {peer_uid: [1], auditor: true}, b: {peer_uid: [1], auditor: true}}}\n",
		"one token, two users":         "admin: {enabled: true, users: {a: {tokens: [{sha256: " + strings.Repeat("1", 64) + "}], auditor: true}, b: {tokens: [{sha256: " + strings.Repeat("1", 64) + "}], auditor: true}}}\n",
		"the empty token":              "admin: {enabled: true, users: {a: {tokens: [{sha256: " + emptyHash + "}], auditor: true}}}\n",
		"a token, no hash":             "admin: {enabled: true, users: {a: {tokens: [{sha256: " + nocToken + "}], auditor: true}}}\n",
		"no day":                       "admin: {enabled: true, users: {a: {tokens: [{sha256: " + strings.Repeat("1", 64) + ", expires: soon}], auditor: true}}}\n",
		"certificates without tls":     "admin: {enabled: true, users: {a: {client_certs: ['dns:x'], auditor: true}}}\n",
		"peer_uid over TCP":            "admin: {enabled: true, listen: '127.0.0.1:1', users: {a: {peer_uid: [1], auditor: true}}}\n",
	} {
		if cfg, err := Parse([]byte(text)); err == nil {
			t.Errorf("%s: %+v", name, cfg)
		} else if strings.Contains(err.Error(), nocToken) {
			t.Errorf("%s: the error has the token", name)
		}
	}
	if cfg, err := Parse([]byte("admin: {enabled: false}\n")); cfg != nil || err != nil {
		t.Errorf("enabled: false: %v, %v", cfg, err)
	}
}

func TestBodiesThatAreRefused(t *testing.T) {
	b := newEndpoint(t, policyText()).start(func(s *Server) { s.inForce.Load().policy.Catalogue.Get("dispatcher.reload").Pause = 0 })
	for _, body := range []string{
		`{"method":"core.kill"}`, `{"params":{},"params":{}}`, `{"Params":{}}`, `{"params":{},"Params":{}}`,
		`{"params":{}}{"params":{}}`, `{"params":{}} x`, "\xef\xbb\xbf{\"params\":{}}", `{"params":{"a":{"b":{"c":{"d":1}}}}}`,
		`[{"params":{}}]`, `{"params":null}`, `{"params":"x"}`, `{"params":[]}`, ``, `null`, `{"params":{}`, `{"params":{"a":"` + "\xff" + `"}}`,
		`{"params":{"set":1,"Set":2}}`, `{"params":{"set":1,"set":2}}`, `{"jsonrpc":"2.0","method":"core.kill","id":1,"params":[]}`,
		`{"params":{},"reason":5}`, `{"params":{},"reason":"a\nb"}`, `{"params":{},"reason":"a\u009b31m"}`, `{"params":{},"reason":"a\u202eb"}`, `{"params":{"a":"\ud800"}}`, `{"params":{},}`, `{'params':{}}`,
		strings.Repeat("[", 5000),
	} {
		if r := b.call(nocToken, "POST", "/v1/actions/dispatcher.reload", body); r.Status != 400 || r.problem() != "bad-request" {
			t.Errorf("%.60q: %d %s", body, r.Status, r.Text)
		}
	}
	b.noChange("bad bodies")
	for _, body := range []string{`{}`, `{"params":{}}`, ` {"reason":"ticket 4711, Zürich" , "params" : {} } ` + "\n"} {
		if r := b.call(nocToken, "POST", "/v1/actions/dispatcher.reload", body); r.Status != 200 {
			t.Errorf("%q: %d %s", body, r.Status, r.Text)
		}
	}
}

func TestInvalidActionNames(t *testing.T) {
	b := newEndpoint(t, policyText()).start(nil)
	for _, name := range []string{
		"Dispatcher.reload", "dispatcher.reload%20", "dispatcher.reload%00", "dispatcher%EF%BC%8Ereload", "core%2Ekill", "core.kill",
		"dispatch%D0%B5r.reload", "dispatcher.reload/", "dispatcher.reload;x", "dispatcher%2ereload", "", "dispatcher.RELOAD",
	} {
		if r := b.run(nocToken, name, `{}`); r.Status != 404 || r.problem() != "not-found" {
			t.Errorf("%q: %d %s", name, r.Status, r.Text)
		}
	}
	b.noChange("names")
}

func TestPathsAreComparedByteByByte(t *testing.T) {
	b := newEndpoint(t, policyText()).start(nil)
	for _, target := range []string{
		"/v1/actions/..%2f..%2fcore.kill", "//v1//actions/dispatcher.reload", "/v1/actions/a/../dispatcher.reload", "/v1/./actions/dispatcher.reload",
		"http://localhost/v1/actions/dispatcher.reload", "/V1/actions/dispatcher.reload", "/v1/actions//dispatcher.reload", "/v1/actions/../../metrics",
		"/metrics", "/debug/pprof/", "/debug/vars", "/v1", "/v1/", "/v1/alertmanager",
	} {
		got := b.raw("POST " + target + " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer " + nocToken + "\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")
		if !strings.HasPrefix(got, "HTTP/1.1 404 ") || strings.Contains(got, "Location:") {
			t.Errorf("%s: %.200s", target, got)
		}
	}
	b.noChange("paths")
}

func TestUngrantedActionsLookUnknown(t *testing.T) {
	b := newEndpoint(t, policyText()).start(nil)
	for _, name := range []string{"dispatcher.add", "uac.reg_dump", "future.reload", "drouting.reload", "tls.reload", "ul.flush", "htable.dump", "cfg.sets"} {
		if r := b.run(nocToken, name, `{}`); r.Status != 404 || r.problem() != "not-found" {
			t.Errorf("%s: %d %s", name, r.Status, r.Text)
		}
	}
	if r := b.run(auditorToken, "dispatcher.reload", `{}`); r.Status != 404 {
		t.Errorf("an auditor ran it: %s", r.Text)
	}
	b.noChange("not granted")
	denied := 0
	for _, r := range b.records() {
		if r.Kind == audit.KindDenied && r.User == "noc" && r.Problem == "not-found" {
			denied++
		}
	}
	if denied < 8 {
		t.Errorf("%d denials in the audit log", denied)
	}
	// An action that is not granted looks the same as an unknown one.
	if known, unknown := b.run(botToken, "cfg.set", `{}`), b.run(botToken, "x.y", `{}`); known.Status != unknown.Status || known.Problem.Type != unknown.Problem.Type || known.Detail != unknown.Detail {
		t.Errorf("%s\n%s", known.Text, unknown.Text)
	}
}

func TestSetStateParameters(t *testing.T) {
	b := newEndpoint(t, policyText()).start(nil)
	for _, params := range []string{
		`{"set":1,"uri":"all","state":"ip"}`, `{"set":"1","uri":"sip:10.0.0.1:5060","state":"ip"}`, `{"set":1.0,"uri":"sip:10.0.0.1:5060","state":"ip"}`,
		`{"set":1e0,"uri":"sip:10.0.0.1:5060","state":"ip"}`, `{"set":3,"uri":"sip:10.0.0.1:5060","state":"ip"}`, `{"set":1,"uri":"sip:10.0.0.1:5060","state":"alpha"}`,
		`{"set":1,"uri":"sip:10.0.0.9:5060","state":"ip"}`, `{"set":1,"uri":"sip:10.0.0.1:5060\n","state":"ip"}`, `{"set":1,"uri":"sip:10.0.0.1:5060\u0000","state":"ip"}`,
		`{"set":2,"uri":"sip:10.0.0.1:5060","state":"ip"}`, `{"set":1,"uri":"sip:10.0.0.1:5060"}`, `{"set":1,"uri":"sip:10.0.0.1:5060","state":"ip","x":1}`,
		`{"set":-0,"uri":"sip:10.0.0.1:5060","state":"ip"}`, `{"set":99999999999999999999,"uri":"sip:10.0.0.1:5060","state":"ip"}`, `{"set":true,"uri":"sip:10.0.0.1:5060","state":"ip"}`,
		`{"set":1,"uri":"sip:10.0.0.1:5060","state":"AP"}`, `{"set":01,"uri":"sip:10.0.0.1:5060","state":"ip"}`,
	} {
		r := b.run(nocToken, "dispatcher.set-state", params)
		want := 422
		if strings.Contains(params, ":01,") {
			want = 400 // invalid JSON
		}
		if r.Status != want {
			t.Errorf("%s: %d %s", params, r.Status, r.Text)
		}
		// A refusal repeats no value of the request, but may list what exists in
		// Kamailio.
		if there := r.problem() == "target-not-found"; strings.Contains(r.Text, "10.0.0.9") || strings.Contains(r.Text, "alpha") || strings.Contains(r.Text, "10.0.0.") != there {
			t.Errorf("%s: %s", params, r.Text)
		}
	}
	if r := b.run(botToken, "dispatcher.set-state", `{"set":1,"uri":"sip:10.0.0.1:5060","state":"dx"}`); r.Status != 422 {
		t.Errorf("a state that the bot was not granted: %s", r.Text)
	}
	b.noChange("set-state")
}

func TestCfgSetBounds(t *testing.T) {
	b := newEndpoint(t, policyText())
	b.fake.Handle("cfg.get", "1")
	b.fake.Handle("cfg.set_now_int", "{}")
	b.start(nil)
	for _, params := range []string{
		`{"variable":"core.debug","value":"x"}`, `{"variable":"core.debug","value":"2"}`, `{"variable":"core.debug","value":1.9}`, `{"variable":"core.debug","value":-99999999999}`,
		`{"variable":"core.debug","value":3}`, `{"variable":"core.debug","value":-2}`, `{"variable":"core.latency_log","value":1}`, `{"variable":"core.udp4_raw","value":1}`, `{"variable":"core","value":1}`,
	} {
		if r := b.run(nocToken, "cfg.set", params); r.Status != 422 {
			t.Errorf("%s: %d %s", params, r.Status, r.Text)
		}
	}
	b.noChange("cfg.set")
	if r := b.run(nocToken, "cfg.set", `{"variable":"core.debug","value":2}`); r.Status != 502 || r.problem() != "verification-failed" {
		t.Errorf("the value is not read back: %d %s", r.Status, r.Text)
	}
	// Only the bounds of granted variables are shown.
	if r := b.call(nocToken, "GET", "/v1/actions", ""); !strings.Contains(r.Text, `"bounds":{"core.debug":"-1 to 3 (log level: -1 errors, 0 warnings, 1 notices, 2 information, 3 debug)"}`) {
		t.Errorf("the list does not say the bounds: %s", r.Text)
	}
}

func TestBodiesAreBounded(t *testing.T) {
	b := newEndpoint(t, policyText()).start(nil)
	head := "POST /v1/actions/dispatcher.reload HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer " + nocToken + "\r\nContent-Type: application/json\r\n"
	for name, tc := range map[string]struct{ text, status string }{
		"Content-Length of 100 MB": {head + "Content-Length: 104857600\r\n\r\n" + strings.Repeat(" ", 1<<20), "413"},
		"chunked":                  {head + "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", "400"}, // Content-Length is required
		"gzip":                     {head + "Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}", "415"},
		"headers":                  {head + "X: " + strings.Repeat("x", 100<<10) + "\r\nContent-Length: 2\r\n\r\n{}", "431"},
		"17 KiB":                   {head + "Content-Length: 17408\r\n\r\n" + strings.Repeat(" ", 17408), "413"},
	} {
		got := b.raw(tc.text)
		if !strings.HasPrefix(got, "HTTP/1.1 "+tc.status+" ") {
			t.Errorf("%s: %.200q", name, got)
		}
	}
	// An endless body neither fills the memory nor keeps the connection open.
	nobody := strings.Replace(head, nocToken, nocToken+"x", 1)
	chunk := "1000\r\n" + strings.Repeat(" ", 4096) + "\r\n"
	for name, tc := range map[string]struct {
		head, more, status string
		every              time.Duration
	}{
		"endless":                       {head + "Transfer-Encoding: chunked\r\n\r\n", chunk, "413", 0},
		"endless, slowly":               {head + "Transfer-Encoding: chunked\r\n\r\n", "1\r\n \r\n", "413", 20 * time.Millisecond},
		"endless, no credentials":       {nobody + "Transfer-Encoding: chunked\r\n\r\n", chunk, "401", 0},
		"slowly, of nobody":             {nobody + "Transfer-Encoding: chunked\r\n\r\n", "1\r\n \r\n", "401", 20 * time.Millisecond},
		"100 MB slowly":                 {head + "Content-Length: 104857600\r\n\r\n", " ", "413", 20 * time.Millisecond},
		"200 kB slowly, no credentials": {nobody + "Content-Length: 204800\r\n\r\n", " ", "401", 20 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn, err := net.Dial("unix", b.socket)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_ = conn.SetReadDeadline(time.Now().Add(15 * time.Second))
			began := time.Now()
			ended := make(chan struct{})
			go func() { // until the connection is closed
				defer close(ended)
				_, err := io.WriteString(conn, tc.head)
				for err == nil {
					if tc.every > 0 {
						time.Sleep(tc.every)
					}
					_, err = io.WriteString(conn, tc.more)
				}
			}()
			got, _ := io.ReadAll(conn) // the connection is reset if more was sent
			<-ended
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("it kept the connection for %s", took)
			}
			if !strings.HasPrefix(string(got), "HTTP/1.1 "+tc.status+" ") || strings.Count(string(got), "HTTP/1.1 ") != 1 {
				t.Errorf("%.200q", got)
			}
		})
	}
}

func TestBodiesTakeLittleMemory(t *testing.T) {
	b := newEndpoint(t, policyText()).start(nil)
	head := "POST /v1/actions/dispatcher.reload HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer " + nocToken + "\r\nContent-Type: application/json\r\n"
	spaces, chunk := strings.Repeat(" ", 1<<20), "1000\r\n"+strings.Repeat(" ", 4096)+"\r\n"
	stays(t, 5<<20, func() {
		for _, tc := range []struct{ head, more string }{
			{head + "Content-Length: 104857600\r\n\r\n", spaces}, {head + "Transfer-Encoding: chunked\r\n\r\n", chunk}, {head + "X: ", spaces},
		} {
			conn, err := net.Dial("unix", b.socket)
			if err != nil {
				t.Fatal(err)
			}
			_ = conn.SetDeadline(time.Now().Add(15 * time.Second))
			_, err = io.WriteString(conn, tc.head)
			for err == nil { // until the connection is closed
				_, err = io.WriteString(conn, tc.more)
			}
			conn.Close()
		}
	})
	b.noChange("sizes")
}

// resident returns a field of /proc/self/status in bytes: the current or peak resident
// memory of this process.
func resident(t *testing.T, field string) int64 {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), field+":")
	kB, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return kB << 10
}

// stays fails if the memory of this process grows by more than this during do. The
// process contains the endpoint, its client and the fake Kamailio. The race detector's
// own memory is not limited.
func stays(t *testing.T, below int64, do func()) {
	t.Helper()
	if raceDetector {
		t.Log("NOT MEASURED: with the race detector memory says nothing")
		do()
		return
	}
	debug.FreeOSMemory()
	// Writing 5 restarts the peak measurement (Linux, proc(5)).
	if err := os.WriteFile("/proc/self/clear_refs", []byte("5"), 0o200); err != nil {
		t.Fatal(err)
	}
	// On a busy machine, garbage collection is late, so limit the memory in use
	// instead.
	var now runtime.MemStats
	runtime.ReadMemStats(&now)
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(int64(now.Sys-now.HeapReleased) + below*3/4)) //nolint:gosec // far below 2^63
	before := resident(t, "VmRSS")
	do()
	grown := resident(t, "VmHWM") - before
	t.Logf("the memory grew by %.1f MiB at the most", float64(grown)/(1<<20))
	if grown > below {
		t.Errorf("the memory grew by %d bytes, and may by %d", grown, below)
	}
}

func TestSlowConnectionsBlockNoClient(t *testing.T) {
	b := newEndpoint(t, policyText()).start(nil)
	began := time.Now()
	var ended sync.WaitGroup
	for i := range 300 {
		conn, err := net.Dial("unix", b.socket)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		text := "POST /v1/actions/dispatcher.reload HTTP/1.1\r\nHost: local"
		if i%3 == 0 { // half of a body
			text += "host\r\nAuthorization: Bearer " + nocToken + "\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
		}
		_, _ = io.WriteString(conn, text)
		ended.Go(func() { _, _ = io.Copy(io.Discard, conn) })
		if i == 150 || i == 299 {
			asked := time.Now()
			if r := b.call(nocToken, "GET", "/v1/actions", ""); r.Status != 200 {
				t.Errorf("another client: %d %s", r.Status, r.Text)
			}
			most := time.Second
			if raceDetector {
				most *= 4
			}
			if took := time.Since(asked); took > most {
				t.Errorf("another client waits for %s", took)
			}
		}
	}
	ended.Wait()
	if took := time.Since(began); took > 13*time.Second {
		t.Errorf("slow connections stayed for %s", took)
	}
	b.noChange("slow connections")
}

func TestBadCredentialsLookAlike(t *testing.T) {
	b := newEndpoint(t, policyText()+fmt.Sprintf("    local: {peer_uid: [%d], grants: [{action: pdt.reload}]}\n", os.Getuid()))
	b.start(nil)
	b.server.limits.failed.SetBurst(1000)
	first := ""
	for name, tc := range map[string]struct {
		token   string
		path    string
		headers []string
	}{
		"wrong token":           {token: nocToken + "x"},
		"right token, no kxe_":  {token: strings.TrimPrefix(nocToken, adminapi.TokenPrefix)},
		"expired":               {token: oldToken},
		"basic":                 {headers: []string{"Authorization", "Basic bm9jOm5vYw=="}},
		"token of another user": {token: nocToken}, // the peer is "local"
		"cookie":                {headers: []string{"Cookie", "token=" + nocToken}},
		"empty":                 {headers: []string{"Authorization", ""}},
		"empty bearer":          {headers: []string{"Authorization", "Bearer "}},
		"hash for a token":      {token: adminapi.HashToken(nocToken)},
	} {
		b.server.limits.mu.Lock()
		clear(b.server.limits.failures)
		b.server.limits.mu.Unlock()
		r := b.call(tc.token, "POST", "/v1/actions/pdt.reload", `{}`, tc.headers...)
		if r.Status != 401 {
			t.Errorf("%s: %d %s", name, r.Status, r.Text)
		}
		if first == "" {
			first = r.Text
		}
		if r.Text != first {
			t.Errorf("%s has another body: %s", name, r.Text)
		}
	}
	b.noChange("credentials")

	// Without a known peer.
	other := newEndpoint(t, policyText()).start(nil)
	for name, headers := range map[string][]string{
		"nothing": nil, "X-Remote-User": {"X-Remote-User", "noc"}, "forwarded": {"X-Forwarded-User", "noc", "Forwarded", "for=127.0.0.1"},
		"X-Auth": {"X-Authorization", "Bearer " + nocToken},
	} {
		other.server.limits.mu.Lock()
		clear(other.server.limits.failures)
		other.server.limits.mu.Unlock()
		if r := other.call("", "POST", "/v1/actions/dispatcher.reload", `{}`, headers...); r.Status != 401 || r.Text != first {
			t.Errorf("%s: %d %s", name, r.Status, r.Text)
		}
	}
	other.server.limits.mu.Lock()
	clear(other.server.limits.failures)
	other.server.limits.mu.Unlock()
	if r := other.call("", "POST", "/v1/actions/dispatcher.reload?token="+nocToken, `{}`); r.Status != 401 || r.Text != first {
		t.Errorf("a token in the query: %d", r.Status)
	}
	other.noChange("no credentials")
}

func TestTokensAreComparedInTheSameTime(t *testing.T) {
	cfg, err := Parse([]byte("admin:\n  enabled: true\n" + strings.TrimLeft(policyText(), "\n")))
	if err != nil {
		t.Fatal(err)
	}
	p, _, err := cfg.compile(nil)
	if err != nil {
		t.Fatal(err)
	}
	a := newAuthenticator(cfg, p, time.Now)
	var requests []*http.Request
	for _, token := range []string{
		"kxf_" + nocToken[4:], nocToken[:len(nocToken)-1] + "1", adminapi.TokenPrefix + strings.Repeat("Z", len(nocToken)-4), // first byte, last byte, unknown
	} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header.Set("Authorization", "Bearer "+token)
		requests = append(requests, r)
	}
	// Alternate between the cases, so that other load affects all of them, and use the
	// best of several tries.
	var spread float64
	for range 5 {
		times := make([][]time.Duration, len(requests))
		for range 2000 {
			for i, r := range requests {
				began := time.Now()
				for range 10 {
					if _, err := a.identify(r); err == nil {
						t.Fatal("it was taken")
					}
				}
				times[i] = append(times[i], time.Since(began))
			}
		}
		var medians []time.Duration
		for _, all := range times {
			slices.Sort(all)
			medians = append(medians, all[len(all)/2])
		}
		least, most := slices.Min(medians), slices.Max(medians)
		if spread = float64(most-least) / float64(least); spread < 0.05 {
			return
		}
	}
	t.Errorf("the medians differ by %.0f %%", spread*100)
}

func TestGuessingLocksNoUserOut(t *testing.T) {
	b := newEndpoint(t, policyText()).start(nil)
	stop, refused := make(chan struct{}), make(chan struct{})
	var once sync.Once
	var guessing sync.WaitGroup
	var guesses atomic.Int32
	for i := range 4 { // together 1,000 per second, if the machine is fast enough
		guessing.Go(func() {
			tick := time.NewTicker(4 * time.Millisecond)
			defer tick.Stop()
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				case <-tick.C:
				}
				guesses.Add(1)
				r := b.call(fmt.Sprintf("%sGUESS%d-%d", adminapi.TokenPrefix, i, n), "GET", "/v1/actions", "")
				switch {
				case r.Status == 429 && r.Header.Get("Retry-After") != "":
					once.Do(func() { close(refused) })
				case r.Status != 401:
					t.Errorf("status %d %v", r.Status, r.Header)
					return
				}
			}
		})
	}
	<-refused // so that the valid token is used for the first time after a refusal
	var times []time.Duration
	for n := 0; n < 20 || guesses.Load() < 1000; n++ {
		began := time.Now()
		if r := b.call(nocToken, "GET", "/v1/actions", ""); r.Status != 200 {
			t.Errorf("the right token: %d %s", r.Status, r.Text)
		}
		times = append(times, time.Since(began))
	}
	slices.Sort(times)
	most := 50 * time.Millisecond
	if raceDetector {
		most *= 4
	}
	if median := times[len(times)/2]; median > most {
		t.Errorf("the right token takes %s", median)
	}
	close(stop)
	guessing.Wait()
	if r := b.run(nocToken, "dispatcher.reload", `{}`); r.Status != 200 {
		t.Errorf("locked out: %d %s", r.Status, r.Text)
	}
	b.stop()
	perSecond := map[int64]int{}
	summaries := 0
	for _, r := range b.records() {
		switch r.Kind {
		case audit.KindDenied:
			perSecond[r.Time.Unix()]++
		case audit.KindSummary:
			summaries += r.Count
		}
	}
	for second, n := range perSecond {
		if n > 2*audit.DenialsPerSecond { // the burst and one second's worth
			t.Errorf("%d lines in second %d", n, second)
		}
	}
	if summaries == 0 {
		t.Error("what has no line is not counted")
	}
}

// A guess is not looked up after too many failures. Guesses at one token, even by
// someone who knows how its hash begins, do not affect other tokens, or other sources
// at all.
func TestTooManyGuessesAreRefused(t *testing.T) {
	cfg, err := Parse([]byte("admin:\n  enabled: true\n" + strings.TrimLeft(policyText(), "\n")))
	if err != nil {
		t.Fatal(err)
	}
	p, _, err := cfg.compile(nil)
	if err != nil {
		t.Fatal(err)
	}
	a, l := newAuthenticator(cfg, p, time.Now), newLimits(cfg.Limits)
	try := func(from, token string) error {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.RemoteAddr = from + ":1"
		r.Header.Set("Authorization", "Bearer "+token)
		_, err := a.authenticate(r, l)
		return err
	}
	near := adminapi.TokenPrefix + "NEAR"
	sum := sha256.Sum256([]byte(near))
	a.starts[tokenStart(sum[:])] = true
	looked := func(from, token string, times int) (n int) {
		for range times {
			if err := try(from, token); errors.Is(err, errNobody) {
				n++
			} else if !errors.Is(err, errGuesses) {
				t.Fatal(err)
			}
		}
		return n
	}
	if n := looked("192.0.2.1", adminapi.TokenPrefix+"FAR", 50); n != failuresPerSource {
		t.Errorf("%d guesses were looked up", n)
	}
	before := l.ofSource("192.0.2.1").Tokens()
	if err := try("192.0.2.1", nocToken); err != nil {
		t.Errorf("the right token, from where it is guessed at: %v", err)
	}
	if l.ofSource("192.0.2.1").Tokens() < before {
		t.Error("the right token counts as a failure")
	}
	for range 50 { // a possible match is looked up, but only a few times
		_ = try("192.0.2.1", near)
	}
	if l.mayGuess("192.0.2.1", (*tokenStart)(sum[:])) {
		t.Error("guesses at one token without end")
	}
	for from, token := range map[string]string{"192.0.2.1": nocToken, "192.0.2.2": nocToken, "192.0.2.3": botToken} {
		if err := try(from, token); err != nil {
			t.Errorf("%s: %v", from, err)
		}
	}
	for i := range 100 { // from many sources
		_ = looked(fmt.Sprint("198.51.100.", i), adminapi.TokenPrefix+"FAR", 1)
	}
	if n := looked("203.0.113.1", adminapi.TokenPrefix+"FAR", 10); n != 0 {
		t.Errorf("%d guesses beyond the limit of all", n)
	}
	if err := try("203.0.113.1", nocToken); err != nil {
		t.Errorf("the right token, while all guess: %v", err)
	}
}

func TestBrowsersAreRefused(t *testing.T) {
	b := newEndpoint(t, policyText()).start(nil)
	for name, tc := range map[string]struct {
		headers []string
		status  int
	}{
		"cross-site":          {[]string{"Sec-Fetch-Site", "cross-site", "Origin", "https://evil.example"}, 403},
		"same-site subdomain": {[]string{"Sec-Fetch-Site", "same-site", "Origin", "http://x.localhost"}, 403},
		"foreign origin":      {[]string{"Origin", "https://evil.example"}, 403},
		"origin null":         {[]string{"Origin", "null"}, 403},
		"no-cors":             {[]string{"Sec-Fetch-Mode", "no-cors", "Sec-Fetch-Site", "same-origin"}, 403},
		"websocket":           {[]string{"Upgrade", "websocket", "Connection", "Upgrade"}, 400},
		"text/plain":          {[]string{"Content-Type", "text/plain"}, 415},
		"form":                {[]string{"Content-Type", "application/x-www-form-urlencoded"}, 415},
		"charset":             {[]string{"Content-Type", "application/json; charset=utf-8"}, 415},
		"cookie":              {[]string{"Cookie", "a=b"}, 401},
	} {
		r := b.run(nocToken, "dispatcher.reload", `{}`, tc.headers...)
		if r.Status != tc.status {
			t.Errorf("%s: %d %s", name, r.Status, r.Text)
		}
		for header := range r.Header {
			if strings.HasPrefix(header, "Access-Control-") {
				t.Errorf("%s: %s", name, header)
			}
		}
	}
	b.noChange("browser")
}

func TestOtherHostNamesAreRefused(t *testing.T) {
	b := newEndpoint(t, policyText()).start(nil)
	for _, host := range []string{"evil.example", "evil.example:80", "localhost.evil.example", "127.0.0.1.evil.example", "0.0.0.0", "2130706433", ""} {
		got := b.raw("POST /v1/actions/dispatcher.reload HTTP/1.1\r\nHost: " + host + "\r\nOrigin: http://" + host + "\r\nSec-Fetch-Site: same-origin\r\nConnection: close\r\nAuthorization: Bearer " + nocToken + "\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")
		if !strings.HasPrefix(got, "HTTP/1.1 421 ") {
			t.Errorf("%q: %.100s", host, got)
		}
	}
	b.noChange("rebinding")
}

func TestOnlyPostRuns(t *testing.T) {
	b := newEndpoint(t, policyText()).start(nil)
	for _, method := range []string{"GET", "HEAD", "PUT", "OPTIONS", "DELETE", "PATCH", "post"} {
		r := b.call(nocToken, method, "/v1/actions/dispatcher.reload", "")
		if r.Status != 405 || r.Header.Get("Allow") != "POST" || r.Header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s: %d %v", method, r.Status, r.Header)
		}
	}
	for _, header := range []string{"X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"} {
		if r := b.run(nocToken, "dispatcher.reload", `{}`, header, "POST"); r.Status != 405 {
			t.Errorf("%s: %d", header, r.Status)
		}
	}
	if r := b.call(nocToken, "POST", "/v1/operations", "{}"); r.Status != 405 {
		t.Errorf("POST to what is only read: %d", r.Status)
	}
	b.noChange("methods")
}

func TestSmuggledRequestsAreNotRun(t *testing.T) {
	b := newEndpoint(t, policyText()).start(nil)
	second := "POST /v1/actions/dispatcher.reload HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer " + nocToken + "\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
	first := "POST /v1/actions/dispatcher.reload HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer " + nocToken + "\r\nContent-Type: application/json\r\n"
	for name, text := range map[string]string{
		"CL and TE":        first + "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + second,
		"two lengths":      first + "Content-Length: 2\r\nContent-Length: 4\r\n\r\n{}" + second,
		"xchunked":         first + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + second,
		"chunked twice":    first + "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n" + second,
		"space in a name":  first + "Content-Length : 2\r\n\r\n{}" + second,
		"folded":           first + "X: a\r\n Content-Length: 2\r\n\r\n" + second,
		"negative length":  first + "Content-Length: -1\r\n\r\n{}" + second,
		"length with plus": first + "Content-Length: +2\r\n\r\n{}" + second,
	} {
		got := b.raw(text)
		if !strings.HasPrefix(got, "HTTP/1.1 400 ") && !strings.HasPrefix(got, "HTTP/1.1 501 ") && name != "folded" || strings.Contains(got, `"applied"`) && name != "folded" {
			t.Errorf("%s: %.200s", name, got)
		}
		if n := strings.Count(got, "HTTP/1.1 "); n != 1 && name != "folded" {
			t.Errorf("%s: %d answers", name, n)
		}
	}
}

func TestActionsRunOneAtATime(t *testing.T) {
	b := newEndpoint(t, policyText())
	inside, leave := make(chan struct{}), make(chan struct{})
	b.fake.HandleFunc("dispatcher.reload", func(kamrpctest.Request) kamrpctest.Response {
		close(inside)
		<-leave
		return kamrpctest.Response{Result: `"ok"`}
	})
	b.start(nil)
	done := make(chan reply)
	go func() { done <- b.run(nocToken, "dispatcher.reload", `{}`) }()
	<-inside
	for _, action := range []string{"permissions.reload-address", "dispatcher.reload"} {
		r := b.run(nocToken, action, `{}`)
		if r.Status != 409 || r.problem() != "busy" || r.Header.Get("Retry-After") == "" {
			t.Errorf("%s meanwhile: %d %s", action, r.Status, r.Text)
		}
	}
	close(leave)
	if r := <-done; r.Status != 200 || r.Outcome != audit.Applied {
		t.Errorf("%d %s", r.Status, r.Text)
	}
	if r := b.run(nocToken, "dispatcher.reload", `{}`); r.Status != 409 || r.problem() != "busy" {
		t.Errorf("no cooldown: %d %s", r.Status, r.Text)
	}
	if r := b.run(nocToken, "permissions.reload-address", `{}`); r.Status != 200 {
		t.Errorf("another action afterwards: %d %s", r.Status, r.Text)
	}
	if n := b.fake.CallCount("dispatcher.reload"); n != 1 {
		t.Errorf("%d reloads", n)
	}
}

// A canceled read may still run inside Kamailio.
func TestReadThatMayStillRun(t *testing.T) {
	b := newEndpoint(t, policyText()).start(nil)
	b.fake.Misbehave(kamrpctest.Silent, "dispatcher.list")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := b.client.Call(ctx, "dispatcher.list"); err == nil {
		t.Fatal("an answer")
	}
	b.fake.Misbehave(kamrpctest.OK, "dispatcher.list")
	r := b.run(nocToken, "dispatcher.reload", `{}`, "Idempotency-Key", "key-00000001")
	if wait, _ := strconv.Atoi(r.Header.Get("Retry-After")); r.Status != 409 || r.problem() != "busy" || r.Outcome != audit.Refused || wait < 20 || wait > 30 {
		t.Errorf("%d %s", r.Status, r.Text)
	}
	b.noChange("a read that may still run")
	if r := b.run(nocToken, "permissions.reload-address", `{}`); r.Status != 200 {
		t.Errorf("another module: %d %s", r.Status, r.Text)
	}
}

// endDialog adds a dialog to the fake that dlg.end_dlg ends.
func endDialog(b *endpoint) {
	var mu sync.Mutex
	ended := false
	b.fake.HandleFunc("dlg.dlg_list", func(kamrpctest.Request) kamrpctest.Response {
		mu.Lock()
		defer mu.Unlock()
		if ended {
			return kamrpctest.Response{}
		}
		return kamrpctest.Response{Result: `{"h_entry":7,"h_id":42,"call-id":"x","state":4,"duration":3}`}
	})
	b.fake.HandleFunc("dlg.end_dlg", func(r kamrpctest.Request) kamrpctest.Response {
		mu.Lock()
		defer mu.Unlock()
		if len(r.Params) == 2 && r.Params[0] == int64(7) && r.Params[1] == int64(42) {
			ended = true
		}
		return kamrpctest.Response{}
	})
}

func TestKeyRunsOnce(t *testing.T) {
	b := newEndpoint(t, strings.Replace(policyText(), "grants: [{action: dispatcher.reload}, ", "grants: [{action: dispatcher.reload}, {action: dialog.end, params: {call_id: {any: true}}}, ", 1))
	endDialog(b)
	b.start(nil)
	if r := b.run(nocToken, "dialog.end", `{"call_id":"x"}`); r.Status != 422 || r.problem() != "idempotency-key" {
		t.Errorf("without a key: %d %s", r.Status, r.Text)
	}
	for _, bad := range []string{"short", strings.Repeat("x", 65), "with space 1", "ünicode-key"} {
		if r := b.run(nocToken, "dialog.end", `{"call_id":"x"}`, "Idempotency-Key", bad); r.Status != 422 {
			t.Errorf("key %q: %d", bad, r.Status)
		}
	}
	first := b.run(nocToken, "dialog.end", `{"call_id":"x"}`, "Idempotency-Key", "key-00000001")
	if first.Status != 200 || first.Outcome != audit.Applied || !first.Verified {
		t.Fatalf("%d %s", first.Status, first.Text)
	}
	again := b.run(nocToken, "dialog.end", `{"call_id":"x"}`, "Idempotency-Key", "key-00000001")
	if again.Status != 200 || again.ID != first.ID || again.Header.Get("Idempotent-Replay") != "true" {
		t.Errorf("the same again: %d %s", again.Status, again.Text)
	}
	if r := b.run(nocToken, "dialog.end", `{"call_id":"y"}`, "Idempotency-Key", "key-00000001"); r.Status != 422 {
		t.Errorf("another body: %d %s", r.Status, r.Text)
	}
	if n := b.fake.CallCount("dlg.end_dlg"); n != 1 {
		t.Errorf("sent %d times", n)
	}
	// The same key of another user is a different key; by now the dialog is gone.
	if r := b.run(botToken, "dialog.end", `{"call_id":"x"}`, "Idempotency-Key", "key-00000001"); r.Status != 422 || r.problem() != "target-not-found" {
		t.Errorf("another user: %d %s", r.Status, r.Text)
	}
	b.stop()
	b.start(nil)
	again = b.run(nocToken, "dialog.end", `{"call_id":"x"}`, "Idempotency-Key", "key-00000001")
	if again.Status != 200 || again.ID != first.ID || again.Header.Get("Idempotent-Replay") != "true" {
		t.Errorf("after a restart: %d %s", again.Status, again.Text)
	}

	// In parallel.
	inside, leave := make(chan struct{}), make(chan struct{})
	b.fake.HandleFunc("dispatcher.reload", func(kamrpctest.Request) kamrpctest.Response {
		close(inside)
		<-leave
		return kamrpctest.Response{}
	})
	done := make(chan reply)
	go func() { done <- b.run(nocToken, "dispatcher.reload", `{}`, "Idempotency-Key", "key-00000002") }()
	<-inside
	if r := b.run(nocToken, "dispatcher.reload", `{}`, "Idempotency-Key", "key-00000002"); r.Status != 409 || !strings.Contains(r.Detail, "still running") {
		t.Errorf("in parallel: %d %s", r.Status, r.Text)
	}
	close(leave)
	if r := <-done; r.Status != 200 {
		t.Errorf("%s", r.Text)
	}
}

func TestKamailioMisbehaves(t *testing.T) {
	for name, tc := range map[string]struct {
		mode    kamrpctest.Mode
		status  int
		outcome audit.Outcome
	}{
		"hang":       {kamrpctest.Silent, 504, audit.Unknown},
		"trickle":    {kamrpctest.Trickle(50 * time.Millisecond), 504, audit.Unknown},
		"truncate":   {kamrpctest.Truncate, 504, audit.Unknown},
		"reset":      {kamrpctest.Empty, 504, audit.Unknown},
		"garbage":    {kamrpctest.Garbage, 504, audit.Unknown},
		"wrong id":   {kamrpctest.OtherID, 504, audit.Unknown},
		"huge":       {kamrpctest.Endless, 504, audit.Unknown},
		"nested":     {kamrpctest.Deep, 504, audit.Unknown},
		"gzip bomb":  {kamrpctest.GzipBomb, 504, audit.Unknown},
		"redirect":   {kamrpctest.Redirect, 504, audit.Unknown},
		"http error": {kamrpctest.HTTPError(500), 504, audit.Unknown},
	} {
		t.Run(name, func(t *testing.T) {
			b := newEndpoint(t, policyText())
			b.start(func(s *Server) {
				s.inForce.Load().policy.Catalogue.Get("dispatcher.reload").Deadline = 500 * time.Millisecond
			})
			b.fake.Misbehave(tc.mode, "dispatcher.reload")
			began := time.Now()
			r := b.run(nocToken, "dispatcher.reload", `{}`)
			if r.Status != tc.status || r.Outcome != tc.outcome {
				t.Errorf("%d %s", r.Status, r.Text)
			}
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("after %s", took)
			}
			if n := b.fake.CallCount("dispatcher.reload"); n != 1 {
				t.Errorf("sent %d times", n)
			}
			if id := strings.TrimPrefix(r.Problem.Instance, "/v1/operations/"); b.call(nocToken, "GET", "/v1/operations/"+id, "").Outcome != audit.Unknown {
				t.Error("the operation is not told")
			}
			// Neither automatically nor immediately on request of another user.
			if r := b.run(botToken, "dispatcher.reload", `{}`); r.Status != 409 {
				t.Errorf("right afterwards: %d %s", r.Status, r.Text)
			}
		})
	}
	for name, tc := range map[string]struct {
		code    int
		message string
		status  int
		problem string
		outcome audit.Outcome
	}{
		"failed":   {500, "Reload Failed", 502, "kamailio-error", audit.Failed},
		"ongoing":  {500, "Ongoing reload", 409, "busy", audit.Refused},
		"too fast": {500, "Command Executed Too Fast", 409, "busy", audit.Refused},
		"params":   {500, "Invalid Parameters", 502, "rejected", audit.Failed},
		"secret":   {500, "db error: mysql://user:password@host/db", 502, "kamailio-error", audit.Failed},
		"missing":  {500, "Method Not Found", 501, "module-missing", audit.Refused},
	} {
		t.Run("fault "+name, func(t *testing.T) {
			b := newEndpoint(t, policyText())
			b.fake.HandleFault("dispatcher.reload", tc.code, tc.message)
			b.start(nil)
			r := b.run(nocToken, "dispatcher.reload", `{}`)
			if r.Status != tc.status || r.problem() != tc.problem || r.Outcome != tc.outcome || strings.Contains(r.Text, "password") {
				t.Errorf("%d %s", r.Status, r.Text)
			}
			if n := b.fake.CallCount("dispatcher.reload"); n != 1 {
				t.Errorf("sent %d times", n)
			}
		})
	}
	t.Run("duplicate", func(t *testing.T) {
		b := newEndpoint(t, policyText())
		b.fake.HandleFunc("dispatcher.reload", func(r kamrpctest.Request) kamrpctest.Response {
			return kamrpctest.Response{Raw: []byte(strings.Repeat(`{"jsonrpc":"2.0","result":"ok","id":`+r.ID+`}`, 2))}
		})
		b.start(nil)
		if r := b.run(nocToken, "dispatcher.reload", `{}`); r.Outcome != audit.Applied || b.changes() != 1 {
			t.Errorf("%d %s", r.Status, r.Text)
		}
	})
	t.Run("down", func(t *testing.T) {
		b := newEndpoint(t, policyText()).start(nil)
		b.fake.Down()
		if r := b.run(nocToken, "dispatcher.reload", `{}`); r.Status != 503 || r.problem() != "unreachable" || r.Outcome != audit.Refused {
			t.Errorf("%d %s", r.Status, r.Text)
		}
	})
	t.Run("not loaded", func(t *testing.T) {
		b := newEndpoint(t, policyText())
		b.fake.HandleFunc("permissions.addressReload", nil)
		b.start(nil)
		if r := b.run(nocToken, "permissions.reload-address", `{}`); r.Status != 501 || r.problem() != "module-missing" || b.fake.CallCount("permissions.addressReload") != 0 {
			t.Errorf("%d %s", r.Status, r.Text)
		}
	})
}

// Whatever Kamailio replies, to the change or to the reads around it, the memory grows
// by less than 20 MiB.
func TestMisbehavingKamailioTakesLittleMemory(t *testing.T) {
	modes := map[string]kamrpctest.Mode{
		"hang": kamrpctest.Silent, "trickle": kamrpctest.Trickle(20 * time.Millisecond), "truncate": kamrpctest.Truncate, "reset": kamrpctest.Empty,
		"garbage": kamrpctest.Garbage, "wrong id": kamrpctest.OtherID, "late": kamrpctest.LateThenRight, "huge": kamrpctest.Endless, "nested": kamrpctest.Deep,
		"gzip bomb": kamrpctest.GzipBomb, "redirect": kamrpctest.Redirect, "announced": kamrpctest.Announce, "http error": kamrpctest.HTTPError(500),
	}
	for _, method := range []string{"dispatcher.reload", "dispatcher.list", "core.uptime", "system.listMethods", "htable.get"} {
		for name, mode := range modes {
			if !strings.HasPrefix(method, "dispatcher.") && !strings.Contains("huge nested gzip bomb announced", name) {
				continue
			}
			t.Run(method+" "+name, func(t *testing.T) {
				b := newEndpoint(t, policyText())
				b.fake.Handle("htable.get", `{"item":{"name":"k","value":"v"}}`)
				b.fake.Handle("htable.delete", `"Ok. Key deleted."`)
				b.start(func(s *Server) {
					for _, a := range s.inForce.Load().policy.Catalogue.Actions {
						a.Deadline, a.LookTime = 300*time.Millisecond, 300*time.Millisecond
					}
				})
				_ = b.call(nocToken, "GET", "/v1/actions", "") // memory that the first request allocates once
				b.fake.Misbehave(mode, method)
				action, params := "dispatcher.reload", `{}`
				if method == "htable.get" {
					action, params = "htable.delete", `{"table":"ipban","key":"k"}`
				}
				stays(t, 20<<20, func() {
					r := b.run(nocToken, action, params)
					// Late, redirected and announced replies are valid if the mode does
					// not apply to this transport or the reply is complete.
					if r.Status == 200 && name != "late" && name != "announced" && name != "wrong id" {
						t.Errorf("%d %s", r.Status, r.Text)
					}
				})
				if n := b.fake.CallCount("dispatcher.reload"); n > 1 {
					t.Errorf("sent %d times", n)
				}
			})
		}
	}
}

func TestEmptyListIsNotSuccess(t *testing.T) {
	b := newEndpoint(t, policyText())
	b.fake.HandleFunc("dispatcher.reload", func(kamrpctest.Request) kamrpctest.Response {
		b.fake.HandleFault("dispatcher.list", 500, "No Destination Sets")
		return kamrpctest.Response{Result: `"Ok. Dispatcher successfully reloaded."`}
	})
	b.start(nil)
	r := b.run(nocToken, "dispatcher.reload", `{}`)
	if r.Status != 502 || r.problem() != "verification-failed" || r.Outcome != audit.Contradicted || r.Before["destinations"] != 4.0 || r.After["destinations"] != 0.0 {
		t.Errorf("%d %s", r.Status, r.Text)
	}
	if got := gather(t, b.server)[`kamailio_exporter_admin_unverified_total{action="dispatcher.reload"}`]; got != 1 {
		t.Errorf("the metric is %v", got)
	}
}

func TestAnswersWithoutEffect(t *testing.T) {
	b := newEndpoint(t, policyText())
	b.fake.Handle("rtpengine.show", `[{"url":"udp:127.0.0.1:22222","set":0,"disabled":true},{"url":"udp:127.0.0.1:22223","set":0,"disabled":false}]`)
	b.fake.Handle("rtpengine.enable", `{"url":"udp:127.0.0.1:22222","status":"fail"}`)
	b.fake.Handle("uac.reg_info", `{"l_uuid":"a","auth_password":"topsecret","flags":20}`)
	b.fake.Handle("uac.reg_disable", `{}`)
	b.start(nil)
	if r := b.run(nocToken, "rtpengine.set-enabled", `{"url":"udp:127.0.0.1:22222","enabled":true}`); r.Outcome != audit.Failed || r.problem() != "kamailio-error" {
		t.Errorf("%d %s", r.Status, r.Text)
	}
	if r := b.run(nocToken, "uac.disable", `{"uuid":"a"}`); r.Status != 502 || r.problem() != "verification-failed" {
		t.Errorf("%d %s", r.Status, r.Text)
	}
	// The last relay of a set cannot be disabled.
	if r := b.run(nocToken, "rtpengine.set-enabled", `{"url":"udp:127.0.0.1:22223","enabled":false}`); r.Status != 409 || r.problem() != "guard" {
		t.Errorf("%d %s", r.Status, r.Text)
	}
}

// secfilter.del_bl is missing on all test servers, so the fake replies as
// modules/secfilter of Kamailio 6.1.
func TestUnblock(t *testing.T) {
	b := newEndpoint(t, everything())
	var mu sync.Mutex
	blocked := `"Value":"bad","Value":"worse"`
	b.fake.HandleFunc("secfilter.print", func(kamrpctest.Request) kamrpctest.Response {
		mu.Lock()
		defer mu.Unlock()
		return kamrpctest.Response{Result: `{"User-Agent":{"Blacklisted":{` + blocked + `},"Whitelisted":{"Value":"good"}}}`}
	})
	b.fake.HandleFunc("secfilter.del_bl", func(r kamrpctest.Request) kamrpctest.Response {
		mu.Lock()
		defer mu.Unlock()
		if fmt.Sprint(r.Params) != "[ua bad]" {
			return kamrpctest.Response{Code: 500, Message: "Error removing value from blacklist"}
		}
		blocked = `"Value":"worse"`
		return kamrpctest.Response{Result: `"Value (ua, bad) removed from blacklist"`}
	})
	b.start(nil)
	if r := b.run(nocToken, "secfilter.unblock", `{"kind":"ua","value":"bad"}`); r.Outcome != audit.Applied || !r.Verified || fmt.Sprint(r.Before, r.After) != "map[blocked:true] map[blocked:false]" {
		t.Errorf("%d %s", r.Status, r.Text)
	}
	if r := b.run(nocToken, "secfilter.unblock", `{"kind":"ua","value":"nobody"}`); r.Outcome != audit.NoChange || b.fake.CallCount("secfilter.del_bl") != 1 {
		t.Errorf("%d %s", r.Status, r.Text)
	}
	// Without the method, as in Kamailio 5.6 and 6.0.
	b = newEndpoint(t, everything())
	b.start(nil)
	if r := b.run(nocToken, "secfilter.unblock", `{"kind":"ua","value":"bad"}`); r.Status != 501 || r.problem() != "module-missing" || r.Outcome != audit.Refused || b.fake.CallCount("secfilter.del_bl") != 0 {
		t.Errorf("%d %s", r.Status, r.Text)
	}
}

// setState makes set 1 of the fake change its state like a real one.
func setState(b *endpoint, flags ...string) {
	var mu sync.Mutex
	b.fake.HandleFunc("dispatcher.list", func(kamrpctest.Request) kamrpctest.Response {
		mu.Lock()
		defer mu.Unlock()
		return kamrpctest.Response{Result: destinations(flags...)}
	})
	b.fake.HandleFunc("dispatcher.set_state", func(r kamrpctest.Request) kamrpctest.Response {
		mu.Lock()
		defer mu.Unlock()
		for i := range flags {
			if r.Params[2] == fmt.Sprintf("sip:10.0.0.%d:5060", i+1) && r.Params[1] == int64(1) {
				flags[i] = strings.ToUpper(r.Params[0].(string))
			}
		}
		return kamrpctest.Response{Result: `"Ok. Dispatcher state updated."`}
	})
}

func TestLastDestinationStays(t *testing.T) {
	b := newEndpoint(t, policyText())
	setState(b, "AP", "AP", "IP")
	b.start(nil)
	var wait sync.WaitGroup
	replies := make([]reply, 2)
	for i, token := range []string{nocToken, botToken} {
		wait.Go(func() {
			for {
				replies[i] = b.run(token, "dispatcher.set-state", fmt.Sprintf(`{"set":1,"uri":"sip:10.0.0.%d:5060","state":"ip"}`, i+1))
				if replies[i].problem() != "busy" {
					return
				}
			}
		})
	}
	wait.Wait()
	slices.SortFunc(replies, func(a, b reply) int { return a.Status - b.Status })
	if replies[0].Outcome != audit.Applied || !replies[0].Verified || replies[1].Status != 409 || replies[1].problem() != "guard" {
		t.Errorf("%s\n%s", replies[0].Text, replies[1].Text)
	}
	if n := b.fake.CallCount("dispatcher.set_state"); n != 1 {
		t.Errorf("%d calls", n)
	}
	// If the requested state is already there, nothing is sent.
	if r := b.run(nocToken, "dispatcher.set-state", `{"set":1,"uri":"sip:10.0.0.3:5060","state":"ip"}`); r.Outcome != audit.NoChange || b.fake.CallCount("dispatcher.set_state") != 1 {
		t.Errorf("%s", r.Text)
	}
	// And the way back.
	if r := b.run(nocToken, "dispatcher.set-state", `{"set":1,"uri":"sip:10.0.0.3:5060","state":"ap"}`); r.Outcome != audit.Applied || r.Before["active"] != 1.0 || r.After["active"] != 2.0 {
		t.Errorf("%s", r.Text)
	}
}

func TestSecretsAreHidden(t *testing.T) {
	b := newEndpoint(t, policyText())
	b.fake.Handle("uac.reg_info", `{"l_uuid":"a","auth_username":"au","auth_password":"topsecret","auth_ha1":"topsecret","flags":20}`)
	b.fake.Handle("uac.reg_disable", `{"auth_password":"topsecret"}`)
	b.fake.Handle("htable.get", `{"item":{"name":"k","value":"topsecret"}}`)
	b.fake.Handle("htable.sets", `"Ok. Key set to new value."`)
	b.fake.Handle("htable.delete", `"Ok. Key deleted."`)
	b.start(nil)
	var all strings.Builder
	all.WriteString(b.run(nocToken, "uac.disable", `{"uuid":"a"}`).Text)
	all.WriteString(b.run(nocToken, "htable.delete", `{"table":"ipban","key":"192.0.2.1"}`).Text)
	all.WriteString(b.call(nocToken, "GET", "/v1/operations", "").Text)
	all.WriteString(b.call(nocToken, "GET", "/", "").Text)
	written, _ := os.ReadFile(b.audit)
	all.Write(written)
	all.WriteString(b.log.String())
	for series := range gather(t, b.server) {
		all.WriteString(series)
	}
	for _, secret := range []string{"topsecret", nocToken, adminapi.HashToken(nocToken)} {
		if strings.Contains(all.String(), secret) {
			t.Errorf("%q was told", secret)
		}
	}
	// The new value is not in the log either.
	_ = b.run(nocToken, "htable.set-string", `{"table":"ipban","key":"k","value":"hush-hush"}`)
	written, _ = os.ReadFile(b.audit)
	if strings.Contains(string(written)+b.log.String(), "hush-hush") || strings.Contains(string(written), "topsecret") {
		t.Error("a secret parameter is in the audit log")
	}
}

func TestInvalidConfigurationKeepsTheOldOne(t *testing.T) {
	b := newEndpoint(t, policyText()).start(nil)
	good, err := os.ReadFile(b.file)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"emptied": "", "half written": string(good[:len(good)/2]), "users removed": string(good[:strings.Index(string(good), "  users:")]),
		"unknown key": strings.Replace(string(good), "  roles:", "  rolls: {}\n  roles:", 1), "disabled": "admin: {enabled: false}\n",
		"another listener": strings.Replace(string(good), "admin.sock", "other.sock", 1), "no more": "\x00",
	} {
		if err := os.WriteFile(b.file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := b.server.Reload(); err == nil {
			t.Errorf("%s: taken", name)
		}
		if got := gather(t, b.server)["kamailio_exporter_admin_config_last_reload_successful"]; got != 0 {
			t.Errorf("%s: the metric is %v", name, got)
		}
		if r := b.call(nocToken, "GET", "/v1/actions", ""); r.Status != 200 {
			t.Errorf("%s: the old one is gone: %d", name, r.Status)
		}
		if r := b.call("", "GET", "/v1/actions", ""); r.Status == 200 {
			t.Errorf("%s: an open door", name)
		}
	}
	if err := os.WriteFile(b.file, good, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(b.file, 0o644); err != nil { //nolint:gosec // a mode that must be refused
		t.Fatal(err)
	}
	if b.server.Reload() == nil {
		t.Error("readable by everybody: taken")
	}
	_ = os.Chmod(b.file, 0o600)
	if err := os.WriteFile(b.file, []byte(strings.Replace(string(good), "    noc: {tokens", "    day: {tokens", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := b.server.Reload(); err != nil {
		t.Fatal(err)
	}
	if r := b.call(nocToken, "GET", "/v1/actions", ""); r.Status != 200 || !strings.Contains(r.Text, `"user":"day"`) {
		t.Errorf("the new one is not in use: %s", r.Text)
	}
	if got := gather(t, b.server)["kamailio_exporter_admin_config_last_reload_successful"]; got != 1 {
		t.Errorf("the metric is %v", got)
	}
}

func TestClientLeaves(t *testing.T) {
	b := newEndpoint(t, policyText())
	inside, leave := make(chan struct{}), make(chan struct{})
	b.fake.HandleFunc("dispatcher.reload", func(kamrpctest.Request) kamrpctest.Response {
		close(inside)
		<-leave
		return kamrpctest.Response{Result: `"ok"`}
	})
	b.start(nil)
	conn, err := net.Dial("unix", b.socket)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(conn, "POST /v1/actions/dispatcher.reload HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer "+nocToken+"\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")
	<-inside
	conn.Close()
	close(leave)
	b.stop() // waits for the action
	last := audit.Record{}
	for _, r := range b.records() {
		if r.Kind == audit.KindOutcome {
			last = r
		}
	}
	if last.Outcome != audit.Applied || last.Action != "dispatcher.reload" {
		t.Errorf("%+v", last)
	}
}

func TestStopWaitsForTheAction(t *testing.T) {
	b := newEndpoint(t, policyText())
	inside, leave := make(chan struct{}), make(chan struct{})
	b.fake.HandleFunc("dispatcher.reload", func(kamrpctest.Request) kamrpctest.Response {
		close(inside)
		<-leave
		return kamrpctest.Response{Result: `"ok"`}
	})
	b.start(nil)
	done := make(chan reply)
	go func() { done <- b.run(nocToken, "dispatcher.reload", `{}`) }()
	<-inside
	stopped := make(chan struct{})
	go func() { b.stop(); close(stopped) }()
	for b.run(nocToken, "permissions.reload-address", `{}`).problem() == "busy" {
		time.Sleep(time.Millisecond)
	}
	if r := b.run(botToken, "dispatcher.reload", `{}`); r.Status != 503 || r.problem() != "shutting-down" {
		t.Errorf("while it stops: %d %s", r.Status, r.Text)
	}
	close(leave)
	if r := <-done; r.Status != 200 || r.Outcome != audit.Applied {
		t.Errorf("%d %s", r.Status, r.Text)
	}
	<-stopped
	if _, err := audit.Verify([]string{b.audit}); err != nil {
		t.Error(err)
	}
	var kinds []string
	for _, r := range b.records() {
		if r.Action == "dispatcher.reload" {
			kinds = append(kinds, r.Kind)
		}
	}
	if got := strings.Join(kinds, " "); got != "intent denied outcome" {
		t.Errorf("the audit log has %s", got)
	}
}

func TestRestartOfKamailio(t *testing.T) {
	b := newEndpoint(t, policyText()).start(nil)
	// Between the read before the change and the RPC.
	b.fake.HandleFunc("dispatcher.list", func(kamrpctest.Request) kamrpctest.Response {
		b.fake.Handle("core.uptime", `{"uptime":1}`)
		return kamrpctest.Response{Result: destinations("AP")}
	})
	if r := b.run(nocToken, "dispatcher.reload", `{}`); r.Status != 503 || r.problem() != "restarted" || b.changes() != 0 {
		t.Errorf("%d %s", r.Status, r.Text)
	}
	// While the action is running.
	b.fake.Handle("core.uptime", `{"uptime":1000}`)
	b.fake.Handle("dispatcher.list", destinations("AP"))
	b.fake.HandleFunc("dispatcher.reload", func(kamrpctest.Request) kamrpctest.Response {
		b.fake.Handle("core.uptime", `{"uptime":2}`)
		return kamrpctest.Response{Result: `"ok"`}
	})
	if r := b.run(nocToken, "dispatcher.reload", `{}`); r.Status != 504 || r.Outcome != audit.Unknown || b.changes() != 1 {
		t.Errorf("%d %s", r.Status, r.Text)
	}
}

// gather returns the endpoint's metrics by series.
func gather(t testing.TB, s *Server) map[string]float64 {
	t.Helper()
	return gatherSeries(t, s.Metrics())
}

func TestHashIsOfTheWholeToken(t *testing.T) {
	token, hash := adminapi.NewToken()
	sum := sha256.Sum256([]byte(token))
	if hash != hex.EncodeToString(sum[:]) || !strings.HasPrefix(token, adminapi.TokenPrefix) || len(token) < 50 {
		t.Error(token, hash)
	}
	if another, _ := adminapi.NewToken(); another == token {
		t.Error("the same token twice")
	}
}
