//go:build linux

// Package kamailiotest starts real Kamailio servers for tests.
//
// Each server has its own directory and ports and listens on loopback only, so that several
// can run at once, even from different test binaries. It stops when its test ends, and
// also when the test binary dies.
//
// The Kamailio of this machine is used for its own version. Others come from the Debian
// roots that .ci/debian-roots.sh creates and KAMAILIO_TEST_ROOTS lists. Versions that are
// missing are not tested; with KAMAILIO_TEST=require, tests fail instead. KAMAILIO_TEST=host
// uses only the Kamailio of this machine, and KAMAILIO_TEST=skip none.
package kamailiotest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

const (
	startTimeout   = 30 * time.Second
	trafficTimeout = 60 * time.Second
	stopTimeout    = 8 * time.Second
	pollInterval   = 20 * time.Millisecond
)

// Config selects the kind of server to start. The zero value is the full configuration
// (examples/kamailio/kamailio.cfg) on the Kamailio of this machine.
type Config struct {
	// Version is one that AllVersions returned, such as "6.0". Empty means the first of
	// them.
	Version string
	// Stock runs Debian's packaged configuration unchanged: RPC only on the Unix socket
	// and the FIFO, and hardly any modules.
	Stock bool
	// StockHTTP is Stock with the define WITH_JSONRPC: it also has RPC over HTTP on the
	// SIP port, which closes each connection after its reply.
	StockHTTP bool
	// Edit changes the configuration of Stock. If the result lacks jsonrpcs, or only has
	// its HTTP (transport 1), SocketPath and FIFOPath are empty.
	Edit func(config string) string
	// UDP moves the datagram RPC to a UDP port instead of the Unix socket: Kamailio
	// serves only one of the two.
	UDP bool
	// RTPProxy loads the module rtpproxy instead of rtpengine: Kamailio can load only one
	// of them.
	RTPProxy bool
	// Traffic starts gateways, registers Users phones, makes some calls of each kind, and
	// keeps Calls further calls up. Start returns when all of that is done.
	Traffic bool
	// Stream continues the traffic: some calls of each kind every second.
	Stream bool
	Users  int // 40 if zero
	Calls  int // 5 if zero; none are kept up with Stream
	// Extra is added to the full configuration, after its loadmodule lines.
	Extra string
	// PkgMB and ShmMB are the private and shared memory of Kamailio; 8 and 64 if zero.
	PkgMB, ShmMB int
}

// Server is a running Kamailio.
type Server struct {
	Dir          string
	SocketPath   string // Unix datagram RPC; "" with Config.UDP
	FIFOPath     string
	FIFOReplyDir string
	HTTPURL      string // http://127.0.0.1:PORT/RPC; "" with Config.Stock alone
	UDPAddr      string // 127.0.0.1:PORT; "" without Config.UDP
	TCPAddr      string // 127.0.0.1:PORT; "" before Kamailio 6 and with Config.Stock
	CtlPath      string // BINRPC, unix stream
	CtlAddr      string // BINRPC, 127.0.0.1:PORT; "" with Config.Stock
	SIPAddr      string // 127.0.0.1:PORT, UDP and TCP
	TLSAddr      string // 127.0.0.1:PORT; "" with Config.Stock
	Version      string

	tb      testing.TB
	env     []string
	cmd     *exec.Cmd
	exited  chan struct{}
	traffic *exec.Cmd
}

// AllVersions returns the supported Kamailio versions that can be started here, such as
// "5.6" or "6.0", with the machine's own first. If there are none, the test is skipped.
func AllVersions(tb testing.TB) []string {
	tb.Helper()
	return versions(tb, "5.4", "5.6", "6.0", "6.1")
}

// Versions returns two of AllVersions, for tests that take long.
func Versions(tb testing.TB) []string {
	tb.Helper()
	return versions(tb, "5.6", "6.0")
}

func versions(tb testing.TB, wanted ...string) []string {
	tb.Helper()
	host := hostVersion()
	switch os.Getenv("KAMAILIO_TEST") {
	case "skip":
		tb.Skip("SKIPPED: needs Kamailio, and KAMAILIO_TEST is \"skip\"")
	case "host":
		if host == "" {
			tb.Fatal("KAMAILIO_TEST is \"host\", and this machine has no Kamailio: run .ci/install.sh test")
		}
		return []string{host}
	}
	var versions, without []string
	if host != "" {
		versions = append(versions, host)
	}
	for _, version := range wanted {
		switch {
		case version == host:
		case roots()[version] != "":
			versions = append(versions, version)
		default:
			without = append(without, version)
		}
	}
	if len(without) > 0 {
		missing(tb, "without %s; .ci/install.sh test installs Kamailio, and "+
			"KAMAILIO_TEST_ROOTS=$(.ci/debian-roots.sh) adds other versions", strings.Join(without, ", "))
	}
	if len(versions) == 0 {
		tb.SkipNow()
	}
	return versions
}

// missing fails the test if Kamailio is required; else it only logs a message.
func missing(tb testing.TB, format string, args ...any) {
	tb.Helper()
	message := "NOT TESTED AGAINST ALL OF KAMAILIO: " + fmt.Sprintf(format, args...)
	if os.Getenv("KAMAILIO_TEST") == "require" {
		tb.Fatal(message)
	}
	tb.Log(message)
}

// Needs finds a program of a Debian package. Without it the test is skipped, or fails if
// Kamailio is required.
func Needs(tb testing.TB, program, pkg string) string {
	tb.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		if os.Getenv("KAMAILIO_TEST") == "require" {
			tb.Fatalf("%s is missing: apt install %s", program, pkg)
		}
		tb.Skipf("SKIPPED: %s is missing (apt install %s), nothing is tested with it", program, pkg)
	}
	return path
}

var hostVersion = sync.OnceValue(func() string {
	cmd := exec.Command("kamailio", "-v")
	if cmd.Err != nil {
		cmd = exec.Command("/usr/sbin/kamailio", "-v")
	}
	out, err := cmd.Output()
	if err != nil {
		return ""
	}
	match := regexp.MustCompile(`kamailio (\d+\.\d+)`).FindSubmatch(out)
	if match == nil {
		return ""
	}
	return string(match[1])
})

// roots maps a version to the directory of a Debian that has it.
var roots = sync.OnceValue(func() map[string]string {
	found := map[string]string{}
	kamailioPackage := regexp.MustCompile(`(?m)^Package: kamailio\n(?:.+\n)*?Version: (\d+\.\d+)`)
	for _, root := range filepath.SplitList(os.Getenv("KAMAILIO_TEST_ROOTS")) {
		status, err := os.ReadFile(filepath.Join(root, "var/lib/dpkg/status"))
		if err != nil {
			continue
		}
		if match := kamailioPackage.FindSubmatch(status); match != nil {
			found[string(match[1])] = root
		}
	}
	return found
})

// CheckConfig checks a configuration with this version of Kamailio (kamailio -c), and
// returns an error with Kamailio's log output if it is invalid.
func CheckConfig(tb testing.TB, version, config string) error {
	tb.Helper()
	command := []string{"kamailio", "-c", "-f", "-"}
	if version != hostVersion() {
		command = append([]string{"chroot", roots()[version], "/usr/sbin/kamailio"}, command[1:]...)
	}
	cmd := exec.CommandContext(tb.Context(), command[0], command[1:]...)
	if cmd.Err != nil {
		cmd = exec.CommandContext(tb.Context(), "/usr/sbin/"+command[0], command[1:]...)
	}
	cmd.Stdin = strings.NewReader(config)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("kamailio %s -c: %w: %s", version, err, out)
	}
	return nil
}

// Start starts a server and waits until it answers RPC. The server is stopped
// when the test ends. Failing to start is fatal.
func Start(tb testing.TB, cfg Config) *Server {
	tb.Helper()
	if cfg.Version == "" {
		cfg.Version = Versions(tb)[0]
	}
	if cfg.Version != hostVersion() && roots()[cfg.Version] == "" {
		missing(tb, "without %s", cfg.Version)
		tb.SkipNow()
	}
	cfg.Stock = cfg.Stock || cfg.StockHTTP || cfg.Edit != nil
	if cfg.Stock && (cfg.UDP || cfg.Traffic || cfg.Stream) {
		tb.Fatal("kamailiotest: the stock configuration has neither UDP nor traffic")
	}
	const tries = 5
	for try := 1; ; try++ {
		s, err := start(tb, cfg)
		if err == nil {
			return s
		}
		// Another process may take a port between our check and Kamailio's bind.
		if try == tries || !strings.Contains(err.Error(), "Address already in use") {
			tb.Fatalf("kamailiotest: %v", err)
		}
	}
}

func start(tb testing.TB, cfg Config) (*Server, error) {
	tb.Helper()
	scripts, err := scriptDir()
	if err != nil {
		return nil, err
	}
	port, release, err := FreePorts()
	if err != nil {
		return nil, err
	}
	// Not tb.TempDir: its path is long, and that of a Unix socket must be short.
	dir, err := os.MkdirTemp("", "kam-")
	if err != nil {
		release()
		return nil, err
	}
	addr := func(n int) string { return "127.0.0.1:" + strconv.Itoa(port+n) }
	s := &Server{
		Dir:          dir,
		SocketPath:   filepath.Join(dir, "kamailio_rpc.sock"),
		FIFOPath:     filepath.Join(dir, "kamailio_rpc.fifo"),
		FIFOReplyDir: dir,
		CtlPath:      filepath.Join(dir, "kamailio_ctl"),
		SIPAddr:      addr(0),
		Version:      cfg.Version,
		tb:           tb,
	}
	tb.Cleanup(func() {
		s.Stop()
		release()
		if err := os.RemoveAll(dir); err != nil {
			tb.Errorf("kamailiotest: %v", err)
		}
	})
	env := map[string]string{
		"KAM_DIR":          dir,
		"KAM_CONFIG":       "full",
		"KAM_MEDIA":        "rtpengine",
		"KAM_SIP_PORT":     strconv.Itoa(port),
		"KAM_TLS_PORT":     strconv.Itoa(port + 1),
		"KAM_RPC_PORT":     strconv.Itoa(port + 2),
		"KAM_RPC_TCP_PORT": strconv.Itoa(port + 3),
		"KAM_GW_PORT":      strconv.Itoa(port + 5),
		"KAM_CTL_PORT":     strconv.Itoa(port + 14),
		"KAM_RPC_UDP_PORT": "",
		"KAM_DRGW_SECONDS": "3600", // on a busy machine, a test may take longer than 120 s
		"KAM_PKG_MB":       strconv.Itoa(orDefault(cfg.PkgMB, 8)),
		"KAM_SHM_MB":       strconv.Itoa(orDefault(cfg.ShmMB, 64)),
		"TRAFFIC_ONCE":     "1",
		"TRAFFIC_USERS":    strconv.Itoa(orDefault(cfg.Users, 40)),
		"TRAFFIC_CALLS":    strconv.Itoa(orDefault(cfg.Calls, 5)),
	}
	if cfg.Stream {
		env["TRAFFIC_ONCE"] = ""
		env["TRAFFIC_RATE"] = "40"
		env["TRAFFIC_HOLD_MS"] = "4000"
	}
	if cfg.Version != hostVersion() {
		env["KAM_ROOT"] = roots()[cfg.Version]
	}
	if cfg.RTPProxy {
		env["KAM_MEDIA"] = "rtpproxy"
	}
	if cfg.StockHTTP {
		env["KAM_STOCK_DEFINE"] = "WITH_JSONRPC"
	}
	if cfg.Stock {
		env["KAM_CONFIG"] = "stock"
		s.FIFOReplyDir = "/tmp" // Kamailio's default
		if cfg.StockHTTP {
			s.HTTPURL = "http://" + s.SIPAddr + "/RPC"
		}
	} else {
		s.HTTPURL = "http://" + addr(2) + "/RPC"
		s.TLSAddr = addr(1)
		s.CtlAddr = addr(14)
		if !strings.HasPrefix(cfg.Version, "5.") {
			s.TCPAddr = addr(3)
		}
	}
	if cfg.Edit != nil {
		stock, err := os.ReadFile(filepath.Join(env["KAM_ROOT"], "/etc/kamailio/kamailio.cfg"))
		if err != nil {
			return nil, err
		}
		edited := cfg.Edit(string(stock))
		env["KAM_STOCK_FILE"] = filepath.Join(dir, "kamailio.cfg")
		if err := os.WriteFile(env["KAM_STOCK_FILE"], []byte(edited), 0o644); err != nil {
			return nil, err
		}
		if !strings.Contains(edited, "jsonrpcs.so") || strings.Contains(edited, `"transport", 1)`) {
			s.SocketPath, s.FIFOPath = "", ""
		}
	}
	if cfg.UDP {
		env["KAM_RPC_UDP_PORT"] = strconv.Itoa(port + 4)
		s.UDPAddr = addr(4)
		s.SocketPath = ""
	}
	if cfg.Extra != "" {
		if err := os.WriteFile(filepath.Join(dir, "local.cfg"), []byte(cfg.Extra), 0o644); err != nil {
			return nil, err
		}
	}
	s.env = os.Environ()
	for name, value := range env {
		s.env = append(s.env, name+"="+value)
	}
	if err := s.launch(scripts); err != nil {
		return nil, err
	}
	calls := orDefault(cfg.Calls, 5)
	if cfg.Stream {
		calls = 1
	}
	if cfg.Traffic || cfg.Stream {
		if err := s.startTraffic(scripts, calls); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func orDefault(n, def int) int {
	if n == 0 {
		return def
	}
	return n
}

// launch runs the server and waits until it answers.
func (s *Server) launch(scripts string) error {
	var script bytes.Buffer
	cmd := exec.Command(filepath.Join(scripts, "start-kamailio.sh"))
	cmd.Env = s.env
	cmd.Stdout, cmd.Stderr = &script, &script
	if err := startBound(cmd); err != nil {
		return err
	}
	exited := make(chan struct{})
	s.cmd, s.exited = cmd, exited
	go func() {
		defer close(exited)
		_ = cmd.Wait() // its log shows how it ended
	}()
	err := poll(startTimeout, func() (bool, error) {
		select {
		case <-exited:
			return false, errors.New("Kamailio ended")
		default:
		}
		return s.answers(), nil
	})
	if err == nil {
		return nil
	}
	s.Stop() // after this, the buffer is no longer written to
	return fmt.Errorf("Kamailio %s did not start: %w\n%s%s", s.Version, err, script.Bytes(), tail(s.Log()))
}

// answers reports whether every transport answers that a client may use first.
func (s *Server) answers() bool {
	const request = `{"jsonrpc":"2.0","method":"core.version","id":1}`
	if s.SocketPath == "" && s.UDPAddr == "" && s.HTTPURL == "" { // no jsonrpcs
		conn, err := net.DialTimeout("unix", s.CtlPath, time.Second)
		if err != nil {
			return false
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(time.Second))
		_, _ = io.WriteString(conn, "\xa1\x03\x0f\x00\x00\x00\x01\x91\x0dcore.version\x00") // BINRPC
		n, _ := conn.Read(make([]byte, 1))
		return n == 1
	}
	if s.FIFOPath != "" {
		if _, err := os.Stat(s.FIFOPath); err != nil {
			return false
		}
	}
	if s.HTTPURL != "" {
		if _, err := s.askHTTP([]byte(request), time.Second); err != nil {
			return false
		}
	}
	if s.TCPAddr != "" {
		conn, err := net.DialTimeout("tcp", s.TCPAddr, time.Second)
		if err != nil {
			return false
		}
		_, _ = io.WriteString(conn, request)
		_, _ = io.Copy(io.Discard, conn)
		_ = conn.Close()
	}
	// The TCP main process is the last one that Kamailio forks.
	const processes = `{"jsonrpc":"2.0","method":"core.psa","id":1}`
	ask := s.askDatagram
	if s.SocketPath == "" && s.UDPAddr == "" {
		ask = s.askHTTP
	}
	reply, err := ask([]byte(processes), time.Second)
	return err == nil && bytes.Contains(reply, []byte("tcp main process"))
}

// RPC calls a method over HTTP, or over the Unix socket if there is no HTTP, and returns
// the raw result. It is for the tests' own checks of the server; any reply other than a
// result is fatal.
func (s *Server) RPC(tb testing.TB, method string, params ...any) json.RawMessage {
	tb.Helper()
	result, err := s.rpc(method, params...)
	if err != nil {
		tb.Fatalf("kamailiotest: %s: %v", method, err)
	}
	return result
}

// RPCError returns the error of a call that is expected to fail.
func (s *Server) RPCError(method string, params ...any) error {
	_, err := s.rpc(method, params...)
	return err
}

func (s *Server) rpc(method string, params ...any) (json.RawMessage, error) {
	request, err := json.Marshal(struct {
		Version string `json:"jsonrpc"`
		Method  string `json:"method"`
		Params  []any  `json:"params,omitempty"`
		ID      int    `json:"id"`
	}{"2.0", method, params, 1})
	if err != nil {
		return nil, err
	}
	ask := s.askHTTP
	if s.HTTPURL == "" {
		ask = s.askDatagram
	}
	reply, err := ask(request, 10*time.Second)
	if err != nil {
		return nil, err
	}
	var answer struct{ Result, Error json.RawMessage }
	if err := json.Unmarshal(reply, &answer); err != nil {
		return nil, fmt.Errorf("%w in %q", err, reply)
	}
	if answer.Error != nil {
		return nil, fmt.Errorf("error %s", answer.Error)
	}
	return answer.Result, nil
}

func (s *Server) askHTTP(request []byte, timeout time.Duration) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.HTTPURL, bytes.NewReader(request))
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{Proxy: nil, DisableKeepAlives: true}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return io.ReadAll(resp.Body)
}

var datagramClients atomic.Int64

func (s *Server) askDatagram(request []byte, timeout time.Duration) ([]byte, error) {
	var conn net.Conn
	var err error
	if s.UDPAddr != "" {
		conn, err = net.Dial("udp", s.UDPAddr)
	} else {
		// An abstract name: Kamailio needs an address to reply to.
		name := fmt.Sprintf("@kamailiotest-%d-%d", os.Getpid(), datagramClients.Add(1))
		conn, err = net.DialUnix("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"},
			&net.UnixAddr{Name: s.SocketPath, Net: "unixgram"})
	}
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(timeout)); err != nil {
		return nil, err
	}
	if _, err := conn.Write(request); err != nil {
		return nil, err
	}
	reply := make([]byte, 1<<20)
	n, err := conn.Read(reply)
	return reply[:n], err
}

// StartTraffic is [Config.Traffic] for a server that is already running. A failure is
// fatal.
func (s *Server) StartTraffic(tb testing.TB, calls int) {
	tb.Helper()
	scripts, err := scriptDir()
	if err == nil {
		s.env = append(s.env, "TRAFFIC_CALLS="+strconv.Itoa(calls))
		err = s.startTraffic(scripts, calls)
	}
	if err != nil {
		tb.Fatalf("kamailiotest: %v", err)
	}
}

// startTraffic runs traffic.sh and waits until its calls are up.
func (s *Server) startTraffic(scripts string, calls int) error {
	var output bytes.Buffer
	cmd := exec.Command(filepath.Join(scripts, "traffic.sh"))
	cmd.Env = s.env
	cmd.Stdout, cmd.Stderr = &output, &output
	// SIPp's processes keep the output open: do not wait for them forever.
	cmd.WaitDelay = time.Second
	if err := startBound(cmd); err != nil {
		return err
	}
	exited := make(chan struct{})
	s.traffic = cmd
	s.tb.Cleanup(func() { // runs before the one that stops the server
		s.stopTraffic()
		<-exited
	})
	go func() {
		defer close(exited)
		_ = cmd.Wait()
	}()
	err := poll(trafficTimeout, func() (bool, error) {
		select {
		case <-exited:
			return false, errors.New("traffic.sh ended")
		default:
		}
		if _, err := os.Stat(filepath.Join(s.Dir, "traffic.ready")); err != nil {
			return false, nil
		}
		result, err := s.rpc("dlg.stats_active")
		if err != nil {
			return false, nil // not yet
		}
		var dialogs struct{ Ongoing int }
		if err := json.Unmarshal(result, &dialogs); err != nil {
			return false, err
		}
		return dialogs.Ongoing >= calls, nil
	})
	if err != nil {
		s.stopTraffic()
		<-exited
		return fmt.Errorf("no traffic: %w\n%s", err, output.Bytes())
	}
	return nil
}

func (s *Server) stopTraffic() {
	if s.traffic != nil {
		stopGroup(s.tb, s.traffic.Process.Pid)
		s.traffic = nil
	}
}

// PauseGateway stops one of the traffic's gateways, as if it hung: "gw-answers",
// "gw-busy", "gw-rejects", "gw-rings", or "gw-ipv6". ResumeGateway continues it.
func (s *Server) PauseGateway(name string) { s.signalGateway(name, syscall.SIGSTOP) }

// ResumeGateway continues a paused gateway.
func (s *Server) ResumeGateway(name string) { s.signalGateway(name, syscall.SIGCONT) }

func (s *Server) signalGateway(name string, sig syscall.Signal) {
	s.tb.Helper()
	text, err := os.ReadFile(filepath.Join(s.Dir, "traffic", name+".pid"))
	if err == nil {
		var pid int
		if pid, err = strconv.Atoi(strings.TrimSpace(string(text))); err == nil {
			err = syscall.Kill(pid, sig)
		}
	}
	if err != nil {
		s.tb.Errorf("kamailiotest: gateway %s: %v", name, err)
	}
}

// Log returns what the server has logged so far.
func (s *Server) Log() string {
	text, err := os.ReadFile(filepath.Join(s.Dir, "kamailio.log"))
	if err != nil {
		return ""
	}
	return string(text)
}

// byItself matches what a server with the demo's configuration logs occasionally, even
// without any RPC call: one of its trunks never answers. And it matches what is logged with
// the debug level of Debian's configuration: 5.4.4 logs each call over BINRPC, and two
// processes log a line at their start, perhaps after others have begun to reply.
var byItself = regexp.MustCompile(`got sip response \d+ while registering \[trunk-dead\]|INFO: ctl .*handle_stream_read\(\): bytes (read|processed): \d+|INFO: .*(tcp_main_loop|io_listen_loop)\(\)`)

// Logged returns the lines that the server has logged so far, without those of byItself.
func (s *Server) Logged() []string {
	return slices.DeleteFunc(slices.Collect(strings.Lines(s.Log())), byItself.MatchString)
}

// LogLines returns the number of lines in Logged.
func (s *Server) LogLines() int { return len(s.Logged()) }

// PID returns the process id of Kamailio's main process, which is also the id of the
// process group of all its processes.
func (s *Server) PID() int { return s.cmd.Process.Pid }

// Pause stops all processes of the server, as if the machine were frozen: its sockets
// stay open, but nothing answers.
func (s *Server) Pause() { s.signal(syscall.SIGSTOP) }

// PauseSIP stops the processes that read SIP (and thus HTTP), as if all of them hung. Those
// that serve RPC on the Unix socket and the FIFO keep running.
func (s *Server) PauseSIP(tb testing.TB) {
	tb.Helper()
	s.PauseTasks(tb, "udp receiver", "tcp receiver")
}

// PauseTasks stops the processes whose descriptions begin with one of these.
func (s *Server) PauseTasks(tb testing.TB, tasks ...string) {
	tb.Helper()
	var processes []struct {
		PID int
		DSC string
	}
	if err := json.Unmarshal(s.RPC(tb, "core.psx"), &processes); err != nil {
		tb.Fatalf("kamailiotest: %v", err)
	}
	paused := 0
	for _, p := range processes {
		if !slices.ContainsFunc(tasks, func(task string) bool { return strings.HasPrefix(p.DSC, task) }) {
			continue
		}
		if err := syscall.Kill(p.PID, syscall.SIGSTOP); err != nil {
			tb.Fatalf("kamailiotest: stopping %q: %v", p.DSC, err)
		}
		paused++
	}
	if paused == 0 {
		tb.Fatalf("kamailiotest: none of %+v is %q", processes, tasks)
	}
}

// Resume continues a paused server.
func (s *Server) Resume() { s.signal(syscall.SIGCONT) }

func (s *Server) signal(sig syscall.Signal) {
	if err := syscall.Kill(-s.PID(), sig); err != nil {
		s.tb.Errorf("kamailiotest: signal %v: %v", sig, err)
	}
}

// Stop stops the server (not its traffic) and waits until none of its processes
// is left. It does nothing if the server is not running.
func (s *Server) Stop() {
	if s.cmd == nil {
		return
	}
	stopGroup(s.tb, s.PID())
	<-s.exited
	s.cmd = nil
}

// Kill ends all processes of the server at once, like a crash: the FIFO and the socket
// files are not removed.
func (s *Server) Kill() {
	s.signal(syscall.SIGKILL)
	<-s.exited
	if err := waitForGroup(s.PID()); err != nil {
		s.tb.Errorf("kamailiotest: %v", err)
	}
	s.cmd = nil
}

// Restart stops the server if it is running, and starts it again with the same directory
// and ports. All calls and registrations are lost.
func (s *Server) Restart() {
	s.tb.Helper()
	s.Stop()
	scripts, err := scriptDir()
	if err == nil {
		err = s.launch(scripts)
	}
	if err != nil {
		s.tb.Fatalf("kamailiotest: %v", err)
	}
}

// stopGroup asks the leader of a process group to end, which stops the others in it, and
// kills what is left after a while. Occasionally, a Kamailio that is stopped soon after its
// start waits forever for one of its processes, or for a lock that such a process held
// when it ended.
func stopGroup(tb testing.TB, pid int) {
	tb.Helper()
	_ = syscall.Kill(pid, syscall.SIGTERM)
	_ = syscall.Kill(-pid, syscall.SIGCONT) // it may have been paused
	if waitForGroup(pid) == nil {
		return
	}
	tb.Logf("kamailiotest: process group %d did not stop within %v: killing it", pid, stopTimeout)
	_ = syscall.Kill(-pid, syscall.SIGKILL)
	if err := waitForGroup(pid); err != nil {
		tb.Errorf("kamailiotest: %v", err)
	}
}

func waitForGroup(pid int) error {
	err := poll(stopTimeout, func() (bool, error) {
		return errors.Is(syscall.Kill(-pid, 0), syscall.ESRCH), nil
	})
	if err != nil {
		return fmt.Errorf("process group %d is still there: %w", pid, err)
	}
	return nil
}

// startBound starts a command in its own process group. The command receives a signal when
// this process dies, even if no cleanup runs (go test -timeout).
func startBound(cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	result := make(chan error)
	starter() <- func() { result <- cmd.Start() }
	return <-result
}

// starter returns the channel of a goroutine that starts processes. Pdeathsig is sent when
// the thread that started the child ends, so that thread must not end.
var starter = sync.OnceValue(func() chan<- func() {
	work := make(chan func())
	go func() {
		runtime.LockOSThread()
		for f := range work {
			f()
		}
	}()
	return work
})

// FreePorts returns the first of portBlock ports that are free for UDP and TCP. They are
// below the system's range for outgoing connections, which could take a port at any time.
// Until release, a name in the abstract socket space reserves them among all test binaries.
func FreePorts() (first int, release func(), err error) {
	const lowest, highest = 20000, 32000
	for range 200 {
		first = lowest + rand.IntN((highest-lowest)/portBlock)*portBlock
		lock, err := net.ListenUnixgram("unixgram",
			&net.UnixAddr{Name: fmt.Sprintf("@kamailiotest-ports-%d", first), Net: "unixgram"})
		if err != nil {
			continue
		}
		if portsFree(first) {
			return first, func() { _ = lock.Close() }, nil
		}
		_ = lock.Close()
	}
	return 0, nil, errors.New("no free ports found")
}

const portBlock = 20

func portsFree(first int) bool {
	for port := first; port < first+portBlock; port++ {
		addr := "127.0.0.1:" + strconv.Itoa(port)
		tcp, err := net.Listen("tcp", addr)
		if err != nil {
			return false
		}
		_ = tcp.Close()
		udp, err := net.ListenPacket("udp", addr)
		if err != nil {
			return false
		}
		_ = udp.Close()
	}
	return true
}

// poll calls done until it returns true or an error, or until the timeout.
func poll(timeout time.Duration, done func() (bool, error)) error {
	deadline := time.NewTimer(timeout)
	defer deadline.Stop()
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	for {
		ok, err := done()
		if ok || err != nil {
			return err
		}
		select {
		case <-ticker.C:
		case <-deadline.C:
			return fmt.Errorf("not within %v", timeout)
		}
	}
}

// scriptDir finds examples/demo, starting in the directory in which the test runs.
func scriptDir() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for at := dir; ; at = filepath.Dir(at) {
		scripts := filepath.Join(at, "examples", "demo")
		if _, err := os.Stat(filepath.Join(scripts, "start-kamailio.sh")); err == nil {
			return scripts, nil
		}
		if at == filepath.Dir(at) {
			return "", fmt.Errorf("examples/demo/start-kamailio.sh is not above %s", dir)
		}
	}
}

func tail(text string) string {
	const lines = 30
	all := strings.SplitAfter(text, "\n")
	return strings.Join(all[max(0, len(all)-lines):], "")
}
