package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// checkMetrics is promtool check metrics, which must have nothing to say about
// our own metrics.
func checkMetrics(t *testing.T, page string) {
	t.Helper()
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		if os.Getenv("KAMAILIO_TEST") == "require" {
			t.Fatal("promtool is missing: apt install prometheus")
		}
		t.Skip("SKIPPED: promtool is missing (apt install prometheus), the page is not linted")
	}
	cmd := exec.CommandContext(t.Context(), promtool, "check", "metrics")
	cmd.Stdin = strings.NewReader(page)
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
}
