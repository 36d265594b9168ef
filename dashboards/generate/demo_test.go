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

// demoFaults are the lines of the menu of make demo FAULT=NAME: name, alert, time and text.
func demoFaults(t *testing.T) [][]string {
	t.Helper()
	faults := regexp.MustCompile(`(?m)^([a-z0-9-]+)\|(\w+)\|(\d+ (?:s|min))\|(.+)$`).FindAllStringSubmatch(readText(t, "../../examples/demo/faults.sh"), -1)
	if len(faults) < 19 {
		t.Fatalf("only %d faults: %q", len(faults), faults)
	}
	return faults
}

// TestDemoFaults checks that each fault of the menu can be brought about, and that its
// alert exists and can fire within the time that the menu promises.
func TestDemoFaults(t *testing.T) {
	rules := readText(t, "../../alerts/kamailio-alerts.yml")
	menu := func(fault string) (string, error) {
		cmd := exec.CommandContext(t.Context(), "../../examples/demo/run.sh", "monitored")
		cmd.Env = append(os.Environ(), "FAULT="+fault)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	listed, err := menu("list")
	if err != nil {
		t.Fatalf("%v: %s", err, listed)
	}
	if out, err := menu("nosuch"); err == nil || !strings.Contains(out, listed+"run.sh: there is no fault nosuch\n") {
		t.Errorf("an unknown fault: %v, %s", err, out)
	}
	script := readText(t, "../../examples/demo/faults.sh")
	script = script[strings.Index(script, "\nbegin()"):]
	for _, f := range demoFaults(t) {
		name, alert, after, text := f[1], f[2], f[3], f[4]
		if !strings.Contains(listed, "  "+name+" ") || !strings.Contains(listed, text+"\n") || !strings.Contains(listed, alert+", after about "+after+"\n") {
			t.Errorf("the menu does not explain %s", name)
		}
		if !regexp.MustCompile(`(?m)^\t` + name + `\)`).MatchString(script) {
			t.Errorf("no code brings about %s", name)
		}
		rule := regexp.MustCompile(`(?s)- alert: ` + alert + `\n.*?\n        labels:`).FindString(rules)
		if rule == "" {
			t.Errorf("%s: there is no alert %s", name, alert)
			continue
		}
		promised, err := time.ParseDuration(strings.NewReplacer(" ", "", "min", "m").Replace(after))
		if err != nil {
			t.Fatal(err)
		}
		if wait := regexp.MustCompile(`\n        for: (\w+)`).FindStringSubmatch(rule); wait != nil {
			if least, err := time.ParseDuration(wait[1]); err != nil || promised < least {
				t.Errorf("%s: %s waits for %s (%v), and the menu promises %s", name, alert, wait[1], err, after)
			}
		}
	}
}

// TestDemo checks that make demo starts everything, prints where it is, brings about a
// fault whose alert fires, and leaves no processes behind, neither after Ctrl-C nor when
// one of its servers dies.
func TestDemo(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: starts real servers")
	}
	kamailiotest.Versions(t)
	kamailiotest.Needs(t, "prometheus", "prometheus")
	kamailiotest.Needs(t, "prometheus-alertmanager", "prometheus-alertmanager")
	for _, test := range []struct {
		name  string
		fault string
		end   func(demo int, dir string) error
		code  int
		says  string
	}{
		{"Ctrl-C", "certificate", func(demo int, _ string) error { return syscall.Kill(demo, syscall.SIGINT) }, 0, "Stopping."},
		{"Prometheus dies", "flood", func(_ int, dir string) error {
			for pid := range processesWith("storage.tsdb.path=" + dir) {
				return syscall.Kill(pid, syscall.SIGKILL)
			}
			return errors.New("there is no Prometheus")
		}, 1, "Prometheus has ended"},
		{"Kamailio is stopped", "stopped", func(demo int, _ string) error { return syscall.Kill(demo, syscall.SIGTERM) }, 143, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel() // it mostly waits
			output := filepath.Join(t.TempDir(), "output")
			out, err := os.Create(output)
			if err != nil {
				t.Fatal(err)
			}
			defer out.Close()
			cmd := exec.Command("../../examples/demo/run.sh", "monitored")
			cmd.Env = append(os.Environ(), append(demoPorts(t), "FAULT="+test.fault, "DEMO_FAULT_AFTER=15")...)
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
			if !until(5*time.Minute, func() bool {
				if found := regexp.MustCompile(`(/\S+kamailio_demo\.\w+)/\*\.log`).FindStringSubmatch(said()); found != nil {
					dir = found[1]
				}
				return dir != "" && strings.Contains(said(), "Ctrl-C stops it")
			}) {
				t.Fatalf("the demo is not up: %s", said())
			}
			if !until(3*time.Minute, func() bool { return regexp.MustCompile(`\d Kamailio\w+ fires, \d+ s after`).MatchString(said()) }) {
				t.Errorf("no alert fires: %s", said())
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
