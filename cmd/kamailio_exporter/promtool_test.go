package main

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/cli"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc/kamrpctest/kamailiotest"
)

// promtool runs promtool, which must succeed, and returns its output.
func promtool(t *testing.T, input string, args ...string) string {
	t.Helper()
	program := kamailiotest.Needs(t, "promtool", "prometheus")
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Stdin = strings.NewReader(input)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// checkMetrics runs promtool check metrics, which must not complain about this exporter's
// metrics.
func checkMetrics(t *testing.T, page string) {
	t.Helper()
	if out := promtool(t, page, "check", "metrics"); out != "" {
		t.Errorf("promtool check metrics:\n%s", out)
	}
}

var prometheusExamples = filepath.Join("..", "..", "examples", "prometheus")

func TestPrometheusExamples(t *testing.T) {
	file := func(name string) string { return filepath.Join(prometheusExamples, name) }
	for _, name := range []string{"prometheus.yml", "file-sd.yml", "http-sd.yml"} {
		promtool(t, "", "check", "config", file(name))
	}
	promtool(t, "", "check", "config", "--agent", "--syntax-only", filepath.Join("..", "..", "examples", "agent", "prometheus.yml"))
	promtool(t, "", "check", "rules", "--lint=all", "--lint-fatal", file("florentchauveau.rules.yml"))
	promtool(t, "", "test", "rules", file("florentchauveau.test.yml"))
}

// TestRulesGiveTheOldNames checks that the rules produce every metric of
// florentchauveau's exporter that docs/migrating.md maps, from metrics that exist, and
// that the unit test covers each.
func TestRulesGiveTheOldNames(t *testing.T) {
	rules := readText(t, filepath.Join(prometheusExamples, "florentchauveau.rules.yml"))
	tests := readText(t, filepath.Join(prometheusExamples, "florentchauveau.test.yml"))
	recorded := map[string]bool{}
	for _, found := range regexp.MustCompile(`(?m)^ +- record: (\S+)$`).FindAllStringSubmatch(rules, -1) {
		recorded[found[1]] = true
		if !strings.Contains(tests, "- expr: "+found[1]+"\n") {
			t.Errorf("%s is not tested", found[1])
		}
	}
	for _, m := range migrations(t) {
		name, _, _ := strings.Cut(m.theirs, "{")
		if m.exporter != "florentchauveau" || name == "kamailio_up" || !strings.HasPrefix(name, "kamailio_") || strings.HasPrefix(name, cli.ProgramName) {
			continue
		}
		if !recorded[name] {
			t.Errorf("no rule records %s", name)
		}
	}
	exported := exported(t)
	for _, found := range regexp.MustCompile(`(?m)^ +(?:#   +)?expr: (.+)$`).FindAllStringSubmatch(rules, -1) {
		for _, wrong := range wrongNames(exported, found[1]) {
			t.Errorf("%s: %s", found[1], wrong)
		}
	}
}
