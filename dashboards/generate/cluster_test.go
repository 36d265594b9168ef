package generate

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kamailio-exporter/kamailio_exporter/kamrpc/kamrpctest/kamailiotest"
)

// replicatedCalls are the values of two real nodes with enable_dmq: a handles 8 calls, 2
// of which are ringing, and b has them as replicas. From 5m on, a has restarted, and they
// are replicas on both. The nodes of the job apart share nothing, and one of them is
// older than 5.6.
const replicatedCalls = `
  - {series: 'kamailio_dialog_dialogs{job="dmq", instance="a", state="ongoing"}', values: '6x10'}
  - {series: 'kamailio_dialog_dialogs{job="dmq", instance="a", state="connecting"}', values: '2x10'}
  - {series: 'kamailio_dialog_local_dialogs{job="dmq", instance="a", state="ongoing"}', values: '6x4 0x5'}
  - {series: 'kamailio_dialog_local_dialogs{job="dmq", instance="a", state="connecting"}', values: '2x4 0x5'}
  - {series: 'kamailio_dialog_dialogs{job="dmq", instance="b", state="ongoing"}', values: '6x10'}
  - {series: 'kamailio_dialog_dialogs{job="dmq", instance="b", state="connecting"}', values: '2x10'}
  - {series: 'kamailio_dialog_local_dialogs{job="dmq", instance="b", state="ongoing"}', values: '0x10'}
  - {series: 'kamailio_dialog_local_dialogs{job="dmq", instance="b", state="connecting"}', values: '0x10'}
  - {series: 'kamailio_dialog_dialogs{job="apart", instance="c", state="ongoing"}', values: '50x10'}
  - {series: 'kamailio_dialog_local_dialogs{job="apart", instance="c", state="ongoing"}', values: '50x10'}
  - {series: 'kamailio_dialog_dialogs{job="apart", instance="old", state="ongoing"}', values: '30x10'}
  - {series: 'kamailio_dialog_profile_dialogs{job="dmq", instance="a", profile="p"}', values: '6x10'}
  - {series: 'kamailio_dialog_profile_dialogs{job="dmq", instance="b", profile="p"}', values: '6x10'}
  - {series: 'kamailio_dialog_profile_dialogs{job="apart", instance="c", profile="p"}', values: '50x10'}
  - {series: 'kamailio_dialog_profile_dialogs{job="apart", instance="old", profile="p"}', values: '30x10'}
  - {series: 'kamailio_usrloc_users{job="dmq", instance="a", domain="location"}', values: '42x10'}
  - {series: 'kamailio_usrloc_users{job="dmq", instance="b", domain="location"}', values: '41x10'}
  - {series: 'kamailio_usrloc_users{job="dmq", instance="a", domain="other"}', values: '7x10'}
  - {series: 'kamailio_usrloc_users{job="apart", instance="c", domain="location"}', values: '5x10'}
  - {series: 'kamailio_usrloc_users{job="apart", instance="old", domain="location"}', values: '5x10'}
  - {series: 'kamailio_dmq_usrloc_loaded{job="dmq", instance="a"}', values: '1x10'}
  - {series: 'kamailio_dmq_usrloc_loaded{job="dmq", instance="b"}', values: '1x10'}
  - {series: 'kamailio_dmq_usrloc_loaded{job="apart", instance="c"}', values: '0x10'}
`

// TestReplicatedIsCountedOnce checks that the dashboards count each call and each user
// once, however many nodes have it.
func TestReplicatedIsCountedOnce(t *testing.T) {
	evaluates(t, replicatedCalls, []evaluation{
		{callsNow("", "", ""), "3m", "{labels: '{}', value: 88}"},
		{callsNow("", "", ""), "8m", "{labels: '{}', value: 88}"},
		{callsNow("", "", " offset 5m"), "8m", "{labels: '{}', value: 88}"},
		{callsNow("", `,state="connecting"`, ""), "8m", "{labels: '{}', value: 2}"},
		{callsNow("state", "", ""), "3m", `{labels: '{state="ongoing"}', value: 86}, {labels: '{state="connecting"}', value: 2}`},
		{eachDialogOnce("profile", "kamailio_dialog_profile_dialogs{S}"), "3m", `{labels: '{profile="p"}', value: 86}`},
		{eachDialogOnce("", "kamailio_dialog_profile_dialogs{S}"), "8m", "{labels: '{}', value: 86}"},
		{registrations("", "kamailio_usrloc_users{S}"), "3m", "{labels: '{}', value: 59}"},
		{registrations("", "kamailio_usrloc_users{S} offset 2m"), "8m", "{labels: '{}', value: 59}"},
		{registrations("domain", "kamailio_usrloc_users{S}"), "8m", `{labels: '{domain="location"}', value: 52}, {labels: '{domain="other"}', value: 7}`},
	})
}

// evaluation is a value that an expression must have, in promtool's notation.
type evaluation struct{ expr, at, samples string }

// evaluates checks expressions of the dashboards over series of one sample each minute.
func evaluates(t *testing.T, series string, wants []evaluation) {
	t.Helper()
	promtool := kamailiotest.Needs(t, "promtool", "prometheus")
	var file strings.Builder
	file.WriteString("evaluation_interval: 1m\ntests:\n- interval: 1m\n  input_series:" + series + "  promql_expr_test:\n")
	for _, want := range wants {
		expr := strings.NewReplacer("{S,", "{", "{S}", "", "{A,", "{", "[R]", "[5m]", "$__range", "10m").Replace(want.expr)
		fmt.Fprintf(&file, "  - {expr: '%s', eval_time: %s, exp_samples: [%s]}\n", expr, want.at, want.samples)
	}
	path := filepath.Join(t.TempDir(), "once.yml")
	if err := os.WriteFile(path, []byte(file.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), promtool, "test", "rules", path).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
