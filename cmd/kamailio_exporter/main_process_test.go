package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kamailio-exporter/kamailio_exporter/kamrpc/kamrpctest"
)

// TestMain lets tests run the program itself in a separate process, see process.
func TestMain(m *testing.M) {
	if os.Getenv("KAMAILIO_EXPORTER_TEST_MAIN") != "" {
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// process prepares the program with these arguments and an otherwise empty environment.
func process(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], args...) //nolint:gosec // runs this test binary
	cmd.Env = []string{"KAMAILIO_EXPORTER_TEST_MAIN=1", "PATH=" + os.Getenv("PATH")}
	return cmd
}

// fake56 is a Kamailio that replies as 5.6.3 does, with a correct clock.
func fake56(t *testing.T) *kamrpctest.Server {
	t.Helper()
	s := kamrpctest.New(t)
	s.LoadDir(filepath.Join("..", "..", "collector", "testdata", "5.6.3"))
	s.HandleFunc("core.uptime", func(kamrpctest.Request) kamrpctest.Response {
		return kamrpctest.Response{Result: fmt.Sprintf(`{"now":%q,"up_since":"Mon Nov 23 04:04:35 2026","uptime":7200}`, time.Now().Format(time.ANSIC))}
	})
	return s
}

// ended runs the command, and returns its output and exit code.
func ended(t *testing.T, cmd *exec.Cmd) (stdout, stderr string, code int) {
	t.Helper()
	var out, err bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &err
	failed := cmd.Run()
	if exit := (*exec.ExitError)(nil); failed != nil && !errors.As(failed, &exit) {
		t.Fatal(failed)
	}
	return out.String(), err.String(), cmd.ProcessState.ExitCode()
}

// boundProcess is a program that runs until the test or this process ends.
type boundProcess struct {
	pid   int
	out   *logBuffer // its output, with "ended: ..." at the end
	ended chan struct{}
	code  int // set once it has ended
}

func runBound(t *testing.T, cmd *exec.Cmd) *boundProcess {
	t.Helper()
	p := &boundProcess{out: newLogBuffer(), ended: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = p.out, p.out
	// The signal is sent when the thread that started it ends. Go does not end threads on
	// its own.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p.pid = cmd.Process.Pid
	go func() {
		defer close(p.ended)
		fmt.Fprintln(p.out, "ended:", cmd.Wait())
		p.code = cmd.ProcessState.ExitCode()
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-p.ended:
		case <-time.After(5 * time.Second):
			_ = cmd.Process.Kill()
			<-p.ended
		}
	})
	return p
}

// TestProcessors checks that the program uses one processor for one Kamailio, or as many as
// it is given.
func TestProcessors(t *testing.T) {
	file := fleetFile(t, "targets: {a: {uris: ['tcp://192.0.2.1:8091']}}")
	for _, tc := range []struct{ given, flag, want string }{
		{"", "--kamailio.uri=unix:///none", "1"},
		{"3", "--kamailio.uri=unix:///none", "3"},
		{"", "--config.file=" + file, fmt.Sprint(runtime.GOMAXPROCS(0))},
		{"3", "--config.file=" + file, "3"},
	} {
		cmd := process(t, tc.flag, "--web.listen-address=127.0.0.1:0")
		if tc.given != "" {
			cmd.Env = append(cmd.Env, "GOMAXPROCS="+tc.given)
		}
		_, page := (&exporter{url: runBound(t, cmd).out.address(t)}).get(t, "/metrics")
		if got := value(page, "go_sched_gomaxprocs_threads"); got != tc.want {
			t.Errorf("GOMAXPROCS=%s %s: %s processors, want %s", tc.given, tc.flag, got, tc.want)
		}
	}
}

// TestIdlePriority checks that the program runs at idle priority where possible, unless
// it is disabled.
func TestIdlePriority(t *testing.T) {
	uri := "--kamailio.uri=" + fake56(t).URI("unix")
	if _, page := start(t, uri).get(t, "/metrics"); value(page, "kamailio_exporter_idle_priority") != "" {
		t.Errorf("switched off: %s %s", "kamailio_exporter_idle_priority", value(page, "kamailio_exporter_idle_priority"))
	}
	server := runBound(t, process(t, uri, "--web.listen-address=127.0.0.1:0"))
	e := &exporter{url: server.out.address(t)}
	_, page := e.get(t, "/metrics")
	got, says := value(page, "kamailio_exporter_idle_priority"), strings.Contains(server.out.String(), "running at normal CPU priority")
	if got == "" || says && got != "0" || says && os.Geteuid() == 0 {
		t.Errorf("%s is %q; log: %s", "kamailio_exporter_idle_priority", got, server.out)
	}
}
