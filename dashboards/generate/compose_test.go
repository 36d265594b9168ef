package generate

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/kamailio-exporter/kamailio_exporter/kamrpc/kamrpctest/kamailiotest"
)

// TestCompose checks that the files that examples/compose mounts exist, and that its
// configurations are valid as far as this can be checked without containers.
func TestCompose(t *testing.T) {
	const dir = "../../examples/compose"
	text, err := os.ReadFile(filepath.Join(dir, "compose.yml"))
	if err != nil {
		t.Fatal(err)
	}
	mounts := regexp.MustCompile(`(?m)^ +- (\.[^:]*):/`).FindAllSubmatch(text, -1)
	if len(mounts) < 6 {
		t.Errorf("only %d mounts found", len(mounts))
	}
	for _, m := range mounts {
		if _, err := os.Stat(filepath.Join(dir, string(m[1]))); err != nil {
			t.Errorf("compose.yml mounts what is not there: %v", err)
		}
	}
	config, err := os.ReadFile(filepath.Join(dir, "prometheus.yml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`/etc/prometheus/(alerts/.*\.yml)`).FindAllSubmatch(config, -1) {
		if _, err := os.Stat(filepath.Join("../..", string(m[1]))); err != nil {
			t.Errorf("prometheus.yml loads what is not there: %v", err)
		}
	}
	for _, check := range [][]string{
		{kamailiotest.Needs(t, "promtool", "prometheus"), "check", "config", "--syntax-only", filepath.Join(dir, "prometheus.yml")},
		{kamailiotest.Needs(t, "amtool", "prometheus-alertmanager"), "check-config", filepath.Join(dir, "alertmanager.yml")},
	} {
		if out, err := exec.CommandContext(t.Context(), check[0], check[1:]...).CombinedOutput(); err != nil {
			t.Errorf("%q: %v\n%s", check, err, out)
		}
	}
}
