package generate

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kamailio-exporter/kamailio_exporter/kamrpc/kamrpctest/kamailiotest"
)

// TestDemo checks that make demo starts everything, prints where it is, and leaves no
// processes behind, neither after Ctrl-C nor when one of its servers dies.
func TestDemo(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: starts real servers")
	}
	kamailiotest.Versions(t)
	needs(t, "prometheus", "prometheus")
	needs(t, "prometheus-alertmanager", "prometheus-alertmanager")
	for _, test := range []struct {
		name string
		end  func(demo int, dir string) error
		code int
		says string
	}{
		{"Ctrl-C", func(demo int, _ string) error { return syscall.Kill(demo, syscall.SIGINT) }, 0, "Stopping."},
		{"Prometheus dies", func(_ int, dir string) error {
			for pid := range processesWith("storage.tsdb.path=" + dir) {
				return syscall.Kill(pid, syscall.SIGKILL)
			}
			return errors.New("there is no Prometheus")
		}, 1, "Prometheus has ended"},
	} {
		t.Run(test.name, func(t *testing.T) {
			output := filepath.Join(t.TempDir(), "output")
			out, err := os.Create(output)
			if err != nil {
				t.Fatal(err)
			}
			defer out.Close()
			cmd := exec.Command("../../examples/demo/run.sh", "monitored")
			cmd.Env = append(os.Environ(), demoPorts(t)...)
			cmd.Stdout, cmd.Stderr = out, out
			cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			ended := make(chan struct{})
			go func() { defer close(ended); _ = cmd.Wait() }() // its exit code is checked below
			t.Cleanup(func() { _ = cmd.Process.Signal(syscall.SIGTERM); <-ended })

			var dir string
			said := func() string { text, _ := os.ReadFile(output); return string(text) }
			if !until(2*time.Minute, func() bool {
				if found := regexp.MustCompile(`(/\S+kamailio_demo\.\w+)/\*\.log`).FindStringSubmatch(said()); found != nil {
					dir = found[1]
				}
				return dir != "" && strings.Contains(said(), "Ctrl-C stops it")
			}) {
				t.Fatalf("the demo is not up: %s", said())
			}
			if err := test.end(cmd.Process.Pid, dir); err != nil {
				t.Fatal(err)
			}
			select {
			case <-ended:
			case <-time.After(time.Minute):
				t.Fatalf("the demo does not end: %s", said())
			}
			if code := cmd.ProcessState.ExitCode(); code != test.code || !strings.Contains(said(), test.says) {
				t.Errorf("exit code %d, not %d with %q: %s", code, test.code, test.says, said())
			}
			if _, err := os.Stat(dir); !os.IsNotExist(err) {
				t.Errorf("%s is left: %v", dir, err)
			}
			if left := processesWith(dir); len(left) > 0 {
				t.Errorf("processes are left: %v", left)
			}
		})
	}
}

// processesWith returns the processes with this text in their command lines.
func processesWith(text string) map[int]string {
	found := map[int]string{}
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		line, _ := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline")) // the process may have ended
		if bytes.Contains(line, []byte(text)) {
			found[pid] = strings.ReplaceAll(string(line), "\x00", " ")
		}
	}
	return found
}
