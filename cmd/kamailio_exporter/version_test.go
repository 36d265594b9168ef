package main

import (
	"debug/buildinfo"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/cli"
)

// TestVersion builds the program as the Makefile does and with `go build`, and checks its
// version and revision everywhere they are shown.
func TestVersion(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the program twice")
	}
	dir := checkout(t)
	const variables = "github.com/prometheus/common/version."
	for name, flags := range map[string][]string{
		"go build":     nil,
		"linker flags": {"-buildvcs=false", "-ldflags=-X " + variables + "Version=1.2.3 -X " + variables + "Revision=abcdef -X " + variables + "Branch=main -X " + variables + "BuildDate=20260102-03:04:05"},
	} {
		t.Run(name, func(t *testing.T) {
			program := filepath.Join(t.TempDir(), cli.ProgramName)
			output(t, dir, append(append([]string{"go", "build", "-buildvcs=auto"}, flags...), "-o", program, "./cmd/"+cli.ProgramName)...)
			version, revision, date := "1.2.3", "abcdef", "20260102-03:04:05"
			if flags == nil {
				info, err := buildinfo.ReadFile(program)
				if err != nil {
					t.Fatal(err)
				}
				version = strings.TrimPrefix(info.Main.Version, "v")
				revision, date = output(t, dir, "git", "rev-parse", "HEAD"), "20260203-04:05:06"
				if !strings.HasPrefix(version, "0.0.0-20260203040506-"+revision[:12]) {
					t.Fatalf("go build has made version %s of revision %s", version, revision)
				}
			}
			info := exec.CommandContext(t.Context(), program, "--version")
			printed, _, _ := ended(t, info)
			for _, want := range []string{cli.ProgramName + ", version " + version + " (", "revision: " + revision + ")", "build date:       " + date + "\n"} {
				if !strings.Contains(printed, want) {
					t.Errorf("--version does not say %q:\n%s", want, printed)
				}
			}
			server := runBound(t, exec.CommandContext(t.Context(), program, "--kamailio.uri="+fake56(t).URI("unix"), "--web.listen-address=127.0.0.1:0"))
			e := &exporter{url: server.out.address(t)}
			_, page := e.get(t, "/metrics")
			if !strings.Contains(page, fmt.Sprintf("revision=%q", revision)) || !strings.Contains(page, fmt.Sprintf("version=%q} 1\n", version)) {
				t.Errorf("build_info is not of version %s, revision %s", version, revision)
			}
			_, landing := e.get(t, "/")
			for where, text := range map[string]string{"landing page": landing, "log": server.out.String()} {
				if !strings.Contains(text, "version="+version+",") || !strings.Contains(text, "revision="+revision+")") {
					t.Errorf("%s: neither version %s nor revision %s in\n%.600s", where, version, revision, text)
				}
			}
		})
	}
}

// checkout copies this source into a separate repository: the go command finds no
// revision in a linked worktree, or in a tree without git.
func checkout(t *testing.T) string {
	t.Helper()
	dir, root := t.TempDir(), filepath.Join("..", "..")
	for _, name := range []string{"assets.go", "go.mod", "go.sum", "VERSION", "README.md", "CHANGELOG.md", "SECURITY.md", "docs", "alerts", "cmd", "collector", "dashboards", "examples", "kamrpc"} {
		output(t, root, "cp", "-R", name, dir)
	}
	output(t, dir, "git", "init", "-q")
	output(t, dir, "git", "add", ".")
	output(t, dir, "git", "-c", "user.name=test", "-c", "user.email=test@localhost", "-c", "commit.gpgsign=false", "commit", "-q", "-m", "test")
	return dir
}

// output runs a command in a directory and returns its output.
func output(t *testing.T, dir string, command ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), command[0], command[1:]...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_COMMITTER_DATE=2026-02-03T04:05:06Z")
	for _, name := range []string{"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"} { // set inside a git hook
		cmd.Env = slices.DeleteFunc(cmd.Env, func(v string) bool { return strings.HasPrefix(v, name+"=") })
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(command, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}
