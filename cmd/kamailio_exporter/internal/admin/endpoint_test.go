package admin

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-kit/log"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/action"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/adminapi"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/audit"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc/kamrpctest"
)

// Tokens of the test users.
const (
	nocToken     = adminapi.TokenPrefix + "NOC0000000000000000000000000000000000000000000000000"
	botToken     = adminapi.TokenPrefix + "BOT0000000000000000000000000000000000000000000000000"
	auditorToken = adminapi.TokenPrefix + "AUDITOR00000000000000000000000000000000000000000000"
	oldToken     = adminapi.TokenPrefix + "OLD0000000000000000000000000000000000000000000000000"
)

// policyText defines the users of most tests; %d is the UID of another user.
func policyText() string {
	return fmt.Sprintf(`
  limits: {per_user_per_second: 100, burst: 100, cooldown: 10s}
  roles:
    noc:
      - {action: dispatcher.reload}
      - {action: permissions.reload-address}
      - {action: dispatcher.set-state, params: {set: {enum: [1, 2]}, uri: {any: true}, state: {any: true}}}
      - {action: htable.delete, params: {table: {enum: [ipban]}, key: {regexp: '[0-9a-fA-F:.]{2,45}'}}}
      - {action: htable.set-string, params: {table: {enum: [ipban]}, key: {any: true}, value: {any: true}}}
      - {action: cfg.set, params: {variable: {enum: [core.debug]}, value: {min: -1, max: 2}}}
      - {action: dialog.end, params: {call_id: {any: true}}}
      - {action: rtpengine.set-enabled, params: {url: {any: true}, enabled: {any: true}}}
      - {action: uac.disable, params: {uuid: {any: true}}}
      - {action: stats.reset, params: {group: {enum: [core, sl]}}}
  users:
    noc: {tokens: [{sha256: %s}], roles: [noc]}
    bot: {tokens: [{sha256: %s}], grants: [{action: dispatcher.reload}, {action: dispatcher.set-state, params: {set: {enum: [1]}, uri: {any: true}, state: {enum: [ip]}}}]}
    boss: {tokens: [{sha256: %s}], auditor: true}
    old: {tokens: [{sha256: %s, expires: 2020-01-01}], roles: [noc]}
`, adminapi.HashToken(nocToken), adminapi.HashToken(botToken), adminapi.HashToken(auditorToken), adminapi.HashToken(oldToken))
}

// endpoint is an admin endpoint that talks to a fake Kamailio.
type endpoint struct {
	t      testing.TB
	fake   *kamrpctest.Server
	dir    string
	file   string
	audit  string
	socket string
	server *Server
	log    *syncBuffer
	stop   func()
	client *kamrpc.Client
	opts   Options // options other than those that each start sets
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// kamailioFake starts a fake Kamailio with some destinations.
func kamailioFake(t testing.TB) *kamrpctest.Server {
	fake := kamrpctest.New(t)
	fake.Handle("core.version", `"kamailio 6.0.1 (x86_64/linux)"`)
	fake.Handle("core.uptime", `{"uptime":1000}`)
	fake.Handle("dispatcher.reload", `"Ok. Dispatcher successfully reloaded."`)
	fake.Handle("dispatcher.list", destinations("AP", "AP", "AP", "IP"))
	fake.Handle("permissions.addressReload", `"Reload OK"`)
	fake.Handle("permissions.addressDump", `[{"table":1,"group":1,"item":{"ip":"192.0.2.1"}}]`)
	fake.Handle("permissions.domainDump", `{"table":1,"group":1,"item":{"domain_name":"a.example","port":0,"tag":"NULL"}}`)
	fake.Handle("permissions.subnetDump", `[{"id":1,"group":1,"item":{"ip":"192.0.2.1"}}]`)
	fake.Handle("dispatcher.set_state", `"Ok. Dispatcher state updated."`)
	fake.Handle("core.kill", `{}`)
	return fake
}

// destinations returns a dispatcher.list reply for set 1 with these flags. Each URI
// ends in the number of its destination.
func destinations(flags ...string) string {
	var dests []string
	for i, f := range flags {
		dests = append(dests, fmt.Sprintf(`{"DEST":{"URI":"sip:10.0.0.%d:5060","FLAGS":"%s","PRIORITY":0}}`, i+1, f))
	}
	return `{"NRSETS":1,"RECORDS":[{"SET":{"ID":1,"TARGETS":[` + strings.Join(dests, ",") + `]}}]}`
}

// newEndpoint prepares a configuration with this policy; start starts the endpoint.
func newEndpoint(t testing.TB, policy string) *endpoint {
	t.Helper()
	dir, err := os.MkdirTemp("", "adm") // socket paths must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	b := &endpoint{
		t: t, fake: kamailioFake(t), dir: dir, file: filepath.Join(dir, "admin.yml"),
		audit: filepath.Join(dir, "audit.jsonl"), socket: filepath.Join(dir, "admin.sock"), log: &syncBuffer{},
	}
	b.write(policy)
	return b
}

func (b *endpoint) write(policy string) {
	b.t.Helper()
	text := "admin:\n  enabled: true\n  listen: unix:" + b.socket + "\n  audit: {file: " + b.audit + ", copy_to_log: true}\n" + strings.TrimLeft(policy, "\n")
	if err := os.WriteFile(b.file, []byte(text), 0o600); err != nil {
		b.t.Fatal(err)
	}
}

func (b *endpoint) start(change func(*Server)) *endpoint {
	b.t.Helper()
	cfg, err := Load(b.file)
	if err != nil {
		b.t.Fatal(err)
	}
	if b.client == nil {
		transport, err := kamrpc.Open(b.fake.URI("http"), nil)
		if err != nil {
			b.t.Fatal(err)
		}
		if b.client, err = kamrpc.NewClient(kamrpc.Config{Transports: []kamrpc.Transport{transport}, MaxReplyBytes: action.MaxReplyBytes}); err != nil {
			b.t.Fatal(err)
		}
	}
	b.opts.File, b.opts.Kamailio, b.opts.Logger, b.opts.Version = b.file, b.client, log.NewLogfmtLogger(log.NewSyncWriter(b.log)), "test"
	server, err := New(cfg, b.opts)
	if err != nil {
		b.t.Fatal(err)
	}
	server.engine.Poll = time.Millisecond
	server.limits.all.SetLimit(1e6)
	server.limits.all.SetBurst(1e6)
	if change != nil {
		change(server)
	}
	b.server = server
	served := make(chan error, 1)
	go func() { served <- server.Serve(context.Background()) }()
	var once sync.Once
	b.stop = func() {
		once.Do(func() {
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			defer cancel()
			if err := server.Shutdown(ctx); err != nil {
				b.t.Error(err)
			}
			if err := <-served; err != nil {
				b.t.Error(err)
			}
		})
	}
	b.t.Cleanup(b.stop)
	return b
}

// reply is the response to a request: a result or a problem.
type reply struct {
	Status int
	Header http.Header
	Text   string
	adminapi.Result
	Problem adminapi.Problem
}

func (r reply) problem() string { return strings.TrimPrefix(r.Problem.Type, adminapi.ProblemPrefix) }

// call sends one request with this token. headers are pairs of name and value.
func (b *endpoint) call(token, method, path, body string, headers ...string) reply {
	b.t.Helper()
	r, err := http.NewRequestWithContext(context.Background(), method, "http://localhost"+path, strings.NewReader(body))
	if err != nil {
		b.t.Fatal(err)
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	if method == http.MethodPost {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(headers); i += 2 {
		switch headers[i] {
		case "Host":
			r.Host = headers[i+1]
		case "":
		default:
			r.Header.Set(headers[i], headers[i+1])
		}
	}
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", b.socket)
	}, DisableKeepAlives: true, DisableCompression: true}
	resp, err := transport.RoundTrip(r)
	if err != nil {
		b.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	out := reply{Status: resp.StatusCode, Header: resp.Header, Text: string(text)}
	_ = json.Unmarshal(text, &out.Result)
	_ = json.Unmarshal(text, &out.Problem)
	return out
}

func (b *endpoint) run(token, action, params string, headers ...string) reply {
	b.t.Helper()
	return b.call(token, http.MethodPost, "/v1/actions/"+action, `{"params":`+params+`}`, headers...)
}

// raw sends text as is and returns everything received until the connection ends.
func (b *endpoint) raw(text string) string {
	b.t.Helper()
	conn, err := net.Dial("unix", b.socket)
	if err != nil {
		b.t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(15 * time.Second))
	_, _ = io.WriteString(conn, text)
	all, _ := io.ReadAll(bufio.NewReader(conn))
	return string(all)
}

// changes counts the calls that would have changed Kamailio.
func (b *endpoint) changes() int {
	n := 0
	for method, calls := range b.fake.Calls() {
		if price, ok := kamrpc.PriceOf(method); !ok || price.Effect != kamrpc.Read {
			n += calls
		}
	}
	return n
}

func (b *endpoint) noChange(what string) {
	b.t.Helper()
	if n := b.changes(); n != 0 {
		b.t.Fatalf("%s: %d calls reached Kamailio: %v", what, n, b.fake.Calls())
	}
}

// records returns the records of the audit log and of its denials, by time.
func (b *endpoint) records() []audit.Record {
	b.t.Helper()
	var all []audit.Record
	for _, path := range []string{b.audit, audit.DeniedFile(b.audit)} {
		text, err := os.ReadFile(path)
		if err != nil {
			b.t.Fatal(err)
		}
		if err := audit.Read(bytes.NewReader(text), func(r audit.Record) { all = append(all, r) }); err != nil {
			b.t.Fatal(err)
		}
	}
	slices.SortStableFunc(all, func(x, y audit.Record) int { return x.Time.Compare(y.Time) })
	return all
}
