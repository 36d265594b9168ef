//go:build linux

package doctor

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kamailio-exporter/kamailio_exporter/kamrpc/kamrpctest/kamailiotest"
)

// TestTrunkHooks removes the hooks of the guide's example one by one.
func TestTrunkHooks(t *testing.T) {
	guide, err := os.ReadFile("../../../../docs/trunks.md")
	if err != nil {
		t.Fatal(err)
	}
	_, example, _ := strings.Cut(string(guide), "```kamailio\n")
	example, _, _ = strings.Cut(example, "```")
	const include = `include_file "kamailio-trunks.cfg"`
	eachVersion(t, func(t *testing.T, version string) {
		dir := t.TempDir()
		if err := os.CopyFS(dir, os.DirFS("../../../../examples/kamailio")); err != nil {
			t.Fatal(err)
		}
		gateway := kamailiotest.NewGateway(t, func(string) (string, time.Duration) { return "486 Busy Here", 0 })
		if err := os.WriteFile(filepath.Join(dir, "dispatcher.list"), []byte("1 "+gateway.URI()+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		for _, tt := range []struct {
			name    string
			edit    []string
			outcome Status
			level   Level
			text    string
			fix     string
		}{
			{"complete", nil, Healthy, OK, "counts the calls to trunks: 3 attempts", ""},
			{"no include", []string{include, "", "route(TRUNKS_BRANCH)", "exit", "route(TRUNKS_REPLY)", "exit", "route(TRUNKS_CALL_END)", "exit"}, Healthy, Note, "are not counted", "kamailio.cfg: " + include},
			{"no name", []string{`$_s($nh(d):$nh(p))`, `""`}, Degraded, Warn, "counts no attempt, although Kamailio", "kamailio.cfg: route[TRUNK_NAME] {"},
			{"no branch route", []string{`t_on_branch("TO_TRUNK");`, ""}, Degraded, Warn, "counts no attempt, although Kamailio", `kamailio.cfg: t_on_branch("TO_TRUNK");`},
			{"no reply route", []string{`t_on_reply("FROM_TRUNK");`, ""}, Degraded, Warn, "has 3 attempts, none of them answered or refused", `kamailio.cfg: t_on_reply("FROM_TRUNK");`},
			{"another table", []string{include, strings.ReplaceAll(string(readFile(t, filepath.Join(dir, "kamailio-trunks.cfg"))), "trunks=>", "carriers=>")}, Degraded, Warn, "in the htable carriers, but the exporter reads the htable trunks", "flag: --collector.trunks.table=carriers"},
		} {
			t.Run(tt.name, func(t *testing.T) {
				edit := append(tt.edit, "listen=udp:127.0.0.1:5060\n", "", include, `include_file "`+dir+`/kamailio-trunks.cfg"`, "/etc/kamailio/", dir+"/")
				s := kamailiotest.Start(t, kamailiotest.Config{Version: version, Edit: func(string) string { return strings.NewReplacer(edit...).Replace(example) }})
				refusedCalls(t, s, "anyone", 3)
				cfg := config(t, "unix://"+s.SocketPath, "fifo://"+s.FIFOPath)
				cfg.CallTimeout, cfg.ScrapeTimeout = 5*time.Second, 20*time.Second // a slow machine is no fault here
				see(t, &cfg, s)
				r := examined(t, cfg)
				outcome(t, r, tt.outcome)
				if tt.fix == "" {
					has(t, r, "trunks", tt.level, tt.text)
				} else {
					has(t, r, "trunks", tt.level, tt.text, tt.fix)
				}
			})
		}
	})
}

func readFile(t *testing.T, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return text
}
