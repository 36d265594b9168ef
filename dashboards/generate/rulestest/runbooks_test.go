package rulestest

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kamailio-exporter/kamailio_exporter/dashboards/generate/mixin"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc/kamrpctest/kamailiotest"
)

var sections = []string{"In short", "Confirm", "Restore service", "Find the cause", "Verify", "Escalate", "Tune"}

// unpriced are the methods in runbooks that the program never calls, with their cost and
// the place in Kamailio's source that shows it.
var unpriced = map[string]kamrpc.Price{
	"core.tcp_options":             {Note: "core/core_cmd.c: settings"},
	"corex.pkg_summary":            {Cost: kamrpc.Growing, Of: "allocations, as lines in the log", Note: "modules/corex/corex_rpc.c"},
	"dispatcher.set_duid_state":    {Effect: kamrpc.Action, Note: "modules/dispatcher/dispatcher.c"},
	"dmq.remove":                   {Effect: kamrpc.Action, Note: "modules/dmq/dmq.c"},
	"dns.delete_all":               {Effect: kamrpc.Action, Note: "core/dns_cache.c"},
	"dns.lookup":                   {Note: "core/dns_cache.c: one name"},
	"dns.mem_info":                 {Note: "core/dns_cache.c: two numbers"},
	"htable.dmqsync":               {Effect: kamrpc.Action, Note: "modules/htable/htable.c"},
	"htable.dump":                  {Cost: kamrpc.Growing, Of: "items", Locks: "one slot at a time", Note: "modules/htable/htable.c"},
	"htable.flush":                 {Effect: kamrpc.Action, Note: "modules/htable/htable.c"},
	"kafka.stats":                  {Note: "modules/kafka/kafka_mod.c: two numbers"},
	"keepalive.del":                {Effect: kamrpc.Action, Note: "modules/keepalive/keepalive_rpc.c"},
	"mod.stats":                    {Cost: kamrpc.Growing, Of: "shared memory", Locks: "all shared memory", Note: "modules/kex/mod_stats.c"},
	"mqueue.fetch":                 {Effect: kamrpc.Action, Note: "modules/mqueue/mqueue_mod.c: removes what it returns"},
	"rtpengine.ping":               {Note: "modules/rtpengine/rtpengine.c: one request to each node"},
	"rtpproxy.enable":              {Effect: kamrpc.Action, Note: "modules/rtpproxy/rtpproxy.c"},
	"tls.options":                  {Note: "modules/tls/tls_rpc.c: settings"},
	"xhttp_prom.metric_list_print": {Cost: kamrpc.Growing, Of: "series", Locks: "all metrics of the script", Note: "modules/xhttp_prom/xhttp_prom.c"},
}

func priceOf(method string) (kamrpc.Price, bool) {
	if p, ok := kamrpc.PriceOf(method); ok {
		return p, true
	}
	p, ok := unpriced[method]
	return p, ok
}

var (
	shellBlock = regexp.MustCompile("(?s)```sh\n(.*?)```")
	code       = regexp.MustCompile("`([^`\n]+)`")
	kamcmd     = regexp.MustCompile(`(sudo )?kamcmd ([a-z_]+\.\w+)`)
	saysCost   = regexp.MustCompile(`(?i)\bcosts?\b|one at a time|once`)
)

// runbook is one page in alerts/runbooks.
type runbook struct{ name, text string }

func readRunbooks(t *testing.T) (pages []runbook) {
	t.Helper()
	files, err := filepath.Glob(folder + "runbooks/*.md")
	if err != nil || len(files) < 60 {
		t.Fatalf("%d runbooks: %v", len(files), err)
	}
	for _, f := range files {
		pages = append(pages, runbook{strings.TrimSuffix(filepath.Base(f), ".md"), read(t, f)})
	}
	return pages
}

// commands returns the shell commands of a page, from its code blocks and from its
// sentences.
func (r runbook) commands() (all []string) {
	for _, block := range shellBlock.FindAllStringSubmatch(r.text, -1) {
		for line := range strings.Lines(block[1]) {
			all = append(all, strings.TrimSpace(line))
		}
	}
	for _, m := range code.FindAllStringSubmatch(shellBlock.ReplaceAllString(r.text, ""), -1) {
		if regexp.MustCompile(`^(sudo|kamailio_exporter|curl|systemctl|ss|dig|mtr|nc|ls|sipsak|openssl) `).MatchString(m[1]) {
			all = append(all, strings.ReplaceAll(m[1], `\|`, "|")) // escaped in a table
		}
	}
	return all
}

// TestRunbooks checks that each alert has a runbook, that no other runbooks exist, and
// that all have the same structure. Their metrics, flags, dashboards, panels and links
// must exist.
func TestRunbooks(t *testing.T) {
	names := mixin.Known()
	recorded := map[string]string{}
	for _, r := range load(t, ruleFile) {
		recorded[r.Record] = r.Expr
	}
	names.Recorded(recorded)
	flags := read(t, "../../../docs/configuration.md")
	panels := dashboardPanels(t)
	alerts := map[string]rule{}
	for _, r := range slices.Concat(load(t, alertFile), load(t, adminFile)) {
		alerts[r.Alert] = r
	}
	for _, page := range readRunbooks(t) {
		alert, ok := alerts[page.name]
		if !ok {
			t.Errorf("%s: there is no such alert", page.name)
		}
		delete(alerts, page.name)
		if !strings.HasPrefix(page.text, "# "+page.name+"\n") {
			t.Errorf("%s: the title is not the alert's name", page.name)
		}
		var got []string
		section := map[string]string{}
		for _, part := range strings.Split(page.text, "\n## ")[1:] {
			title, text, _ := strings.Cut(part, "\n")
			got = append(got, title)
			section[title] = text
			if len(strings.TrimSpace(text)) < 15 {
				t.Errorf("%s: the section %s is empty", page.name, title)
			}
		}
		if !slices.Equal(got, sections) {
			t.Errorf("%s: the sections are %q, not %q", page.name, got, sections)
		}
		if !strings.Contains(section["Find the cause"], "| what you see | cause | next |") {
			t.Errorf("%s: no table of causes", page.name)
		}
		if !strings.Contains(section["Confirm"], "```") {
			t.Errorf("%s: nothing to run under Confirm", page.name)
		}
		// Some alerts are about a whole job.
		if verify := section["Verify"]; !strings.Contains(verify, "```promql") || !strings.Contains(verify, "instance") && !strings.Contains(alert.Expr, "by (cluster, job") {
			t.Errorf("%s: no query for the instance under Verify", page.name)
		}
		for _, block := range regexp.MustCompile("(?s)```promql\n(.*?)```").FindAllStringSubmatch(page.text, -1) {
			for expr := range strings.Lines(block[1]) {
				for _, p := range names.Check(strings.TrimSpace(expr)) {
					t.Errorf("%s: %s", page.name, p)
				}
			}
		}
		for _, name := range regexp.MustCompile(`\bkamailio_[a-z0-9_]+`).FindAllString(page.text, -1) {
			if name != "kamailio_exporter" && !known(names, name) {
				t.Errorf("%s: no metric is named or begins with %s", page.name, name)
			}
		}
		for _, flag := range regexp.MustCompile(`--[a-z][a-z0-9_]*\.[a-z0-9_.-]*[a-z]`).FindAllString(page.text, -1) {
			if !strings.Contains(flags, "`"+flag+"`") && !strings.Contains(flags, "`--[no-]"+flag[2:]+"`") {
				t.Errorf("%s: the exporter has no flag %s", page.name, flag)
			}
		}
		for _, m := range regexp.MustCompile(`\*([^*:\n]+): ([^*\n]+)\*`).FindAllStringSubmatch(page.text, -1) {
			if !panels[m[1]+": "+m[2]] {
				t.Errorf("%s: there is no dashboard %s with a panel %s", page.name, m[1], m[2])
			}
		}
		for _, m := range regexp.MustCompile(`\]\(([^)]+)\)`).FindAllStringSubmatch(page.text, -1) {
			if _, err := os.Stat(folder + "runbooks/" + m[1]); err != nil {
				t.Errorf("%s: %v", page.name, err)
			}
		}
	}
	for name := range alerts {
		t.Errorf("%s has no runbook", name)
	}
}

// known reports whether this is a metric, or a prefix of one (for grep).
func known(names mixin.Names, name string) bool {
	for metric := range names {
		if _, record, ok := strings.Cut(metric, ":"); ok {
			metric = record
		}
		if strings.HasPrefix(metric, name) {
			return true
		}
	}
	return false
}

// dashboardPanels returns the titles of dashboards and their panels, as "Overview:
// Calls".
func dashboardPanels(t *testing.T) map[string]bool {
	t.Helper()
	files, err := filepath.Glob("../../*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no dashboards: %v", err)
	}
	type panel struct {
		Title  string
		Panels []panel
	}
	titles := map[string]bool{}
	for _, f := range files {
		var dashboard panel
		if err := json.Unmarshal([]byte(read(t, f)), &dashboard); err != nil {
			t.Fatalf("%s: %v", f, err)
		}
		for _, p := range dashboard.Panels {
			for _, p := range append(p.Panels, p) { // a folded row contains its panels
				titles[strings.TrimPrefix(dashboard.Title, "Kamailio / ")+": "+p.Title] = true
			}
		}
	}
	return titles
}

// TestRunbookCommands checks that an operator with sudo can run the commands of the
// runbooks unchanged, and that the page states the cost of each expensive one.
func TestRunbookCommands(t *testing.T) {
	bash := kamailiotest.Needs(t, "bash", "bash")
	for _, page := range readRunbooks(t) {
		for line := range strings.Lines(page.text) {
			for _, m := range kamcmd.FindAllStringSubmatch(line, -1) {
				price, ok := priceOf(m[2])
				switch {
				case !ok:
					t.Errorf("%s: what does %s cost? It is not in kamrpc/prices.go", page.name, m[2])
				case m[1] == "":
					t.Errorf("%s: kamcmd %s without sudo: the socket is 0600", page.name, m[2])
				case (price.Cost == kamrpc.Growing || price.Effect == kamrpc.Reload || len(price.Dangers) > 0 && price.Effect == kamrpc.Read && m[2] != "keepalive.list") && !saysCost.MatchString(line):
					t.Errorf("%s: %s is expensive or a reload, and its line does not say what it costs:\n%s", page.name, m[2], line)
				}
			}
			for _, m := range regexp.MustCompile("`(dns.view|ul.dump|dlg.list|tls.list|uac.reg_dump|uac.reg_info|permissions.addressDump|permissions.trustedDump)`").FindAllStringSubmatch(line, -1) {
				if !regexp.MustCompile(`(?i)do not use|locks?\b|lists? everything`).MatchString(line) {
					t.Errorf("%s: %s is named without a warning:\n%s", page.name, m[1], line)
				}
			}
		}
		commands := strings.Join(page.commands(), "\n")
		cmd := exec.CommandContext(t.Context(), bash, "-n")
		cmd.Stdin = strings.NewReader(commands)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: bash -n: %v\n%s\n%s", page.name, err, out, commands)
		}
		for c := range strings.Lines(commands) {
			if regexp.MustCompile(`^(systemctl (re|st(art|op))|journalctl|tcpdump|kamailio -c|gdb)`).MatchString(c) {
				t.Errorf("%s: needs sudo: %s", page.name, c)
			}
		}
	}
}

// shown are the fields that runbooks explain, by the command that prints them.
var shown = map[string][]string{
	"core.psx":                        {"DSC: udp receiver"},
	"core.tcp_info":                   {"opened_connections:", "max_connections:", "write_queued_bytes:"},
	"core.tcp_options":                {"connect_timeout:", "async:", "conn_wq_max:", "wq_max:"},
	"core.uptime":                     {"up_since:", "uptime:"},
	"dispatcher.list":                 {"URI:", "FLAGS:", "EST:"},
	"dlg.stats_active":                {"starting:", "connecting:", "answering:", "ongoing:"},
	"dmq.list_nodes":                  {"status: active"},
	"keepalive.list":                  {"owner: _params", "last checked:", "last up:", "state:"},
	"lcr.dump_gws":                    {"state: 0", "defunct_until:"},
	"mqueue.get_sizes":                {"size:"},
	"pkg.stats":                       {"entry:", "real_used:", "total_size:", "desc:"},
	"rtpengine.show all":              {"disabled:"},
	"rtpproxy.list":                   {"disabled:"},
	"sl.stats":                        {"500:", "5xx:"},
	"stats.get_statistics registrar:": {"registrar:rejected_regs"},
	"stats.get_statistics shmem:":     {"shmem:free_size", "shmem:real_used_size", "shmem:total_size"},
	"stats.get_statistics usrloc: registrar:": {"usrloc:location_users"},
	"tls.info":    {"opened_connections:", "max_connections:"},
	"tls.options": {"config:", "certificate:"},
	"tm.stats":    {"current:", "waiting:"},
}

// TestRunbookFindsExhaustedMemory checks that Kamailio's log messages about exhausted
// shared memory match the runbook.
func TestRunbookFindsExhaustedMemory(t *testing.T) {
	var patterns []string
	for _, m := range regexp.MustCompile(`-e '([^']+)'`).FindAllStringSubmatch(read(t, folder+"runbooks/KamailioSharedMemoryExhausted.md"), -1) {
		patterns = append(patterns, m[1])
	}
	search := regexp.MustCompile("(?i)" + strings.Join(patterns, "|"))
	for _, version := range kamailiotest.Versions(t) {
		t.Run(version, func(t *testing.T) {
			server := kamailiotest.Start(t, kamailiotest.Config{Version: version, ShmMB: 16})
			wanted := []string{"could not allocate shared memory from shm pool", "no more shm"}
			for round := range 20 { // transactions that end free memory
				for _, size := range []int{12 << 10, 1 << 10} {
					for i := range 1400 { // 16 MB in the first round
						if _, err := ask(t, server, "htable.sets", "ipban", fmt.Sprintf("s:%d-%d-%d", round, size, i), "s:"+strings.Repeat("x", size)); err != nil {
							break
						}
					}
				}
				invite(t, server.SIPAddr)
				if strings.Contains(server.Log(), wanted[0]) {
					break
				}
			}
			for _, w := range wanted {
				if log := server.Log(); !search.MatchString(w) || !strings.Contains(log, w) {
					t.Errorf("%q are to find %q in\n%s", patterns, w, log)
				}
			}
		})
	}
}

// ask runs kamcmd. An error reply is returned as an error.
func ask(t *testing.T, server *kamailiotest.Server, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), kamailiotest.Needs(t, "kamcmd", "kamailio"), append([]string{"-s", "unix:" + server.CtlPath}, args...)...)
	out, err := cmd.CombinedOutput()
	if err == nil && strings.HasPrefix(string(out), "error") {
		err = errors.New("refused")
	}
	return string(out), err
}

// invite sends an INVITE, for which Kamailio needs a transaction, and waits for any
// reply.
func invite(t *testing.T, address string) {
	t.Helper()
	conn, err := net.Dial("udp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	request := strings.Join([]string{
		"INVITE sip:1234@127.0.0.1 SIP/2.0", "Via: SIP/2.0/UDP " + conn.LocalAddr().String() + ";branch=z9hG4bK-" + conn.LocalAddr().String(), "Max-Forwards: 70",
		"From: <sip:runbook@127.0.0.1>;tag=full", "To: <sip:1234@127.0.0.1>", "Call-ID: " + conn.LocalAddr().String(), "CSeq: 1 INVITE", "Contact: <sip:runbook@" + conn.LocalAddr().String() + ">", "Content-Length: 0", "", "",
	}, "\r\n")
	if _, err := conn.Write([]byte(request)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 4096)); err != nil {
		t.Errorf("no answer to INVITE: %v", err)
	}
}

// kamcmdOf returns the kamcmd commands of the runbooks that read, or those that change
// Kamailio.
func kamcmdOf(t *testing.T, read bool) map[string]bool {
	t.Helper()
	all := map[string]bool{}
	for _, page := range readRunbooks(t) {
		for _, c := range page.commands() {
			m := regexp.MustCompile(`sudo kamcmd (([a-z_]+\.\w+)[^#>|)]*)`).FindStringSubmatch(c)
			if m == nil {
				continue
			}
			if price, _ := priceOf(m[2]); (price.Effect == kamrpc.Read) == read {
				all[strings.TrimSpace(m[1])] = true
			}
		}
	}
	if len(all) < 20 {
		t.Fatalf("only %d commands", len(all))
	}
	return all
}

// notChanged are the commands that the servers of the tests refuse, with the reason.
var notChanged = map[string]string{
	"rtpengine.reload":    "their relays are not in a database",
	"htable.dmqsync NAME": "5.6 does not have it, and their tables are not replicated",
}

// TestRunbookChanges runs each kamcmd command of the runbooks that changes Kamailio on
// real servers, with targets that exist there.
func TestRunbookChanges(t *testing.T) {
	changes := kamcmdOf(t, false)
	for _, version := range kamailiotest.Versions(t) {
		t.Run(version, func(t *testing.T) {
			server := kamailiotest.Start(t, kamailiotest.Config{Version: version, Traffic: true, Users: 2, Calls: 1})
			rtpproxy := kamailiotest.Start(t, kamailiotest.Config{Version: version, RTPProxy: true})
			matched := func(at *kamailiotest.Server, list, pattern string) []string {
				t.Helper()
				answer, err := ask(t, at, strings.Fields(list)...)
				m := regexp.MustCompile(pattern).FindStringSubmatch(answer)
				if err != nil || m == nil {
					t.Fatalf("%s has no %s: %v %s", list, pattern, err, answer)
				}
				return m[1:]
			}
			found := func(at *kamailiotest.Server, list, field string) string {
				t.Helper()
				return matched(at, list, `(?m)^\s*`+field+`:? (\S+)`)[0]
			}
			destination := found(server, "dispatcher.list", "URI")
			for c := range changes {
				at, relay := server, "rtpengine.show all"
				if strings.HasPrefix(c, "rtpproxy.") {
					at, relay = rtpproxy, "rtpproxy.list"
				}
				places := []string{"SET", "1", "DUID", "gw1", "LCR_ID", "1", "GW_ID", "1", "SECONDS", "60", "UUID", "trunk-a", "drgw", "ipban", "HOST:PORT", server.SIPAddr, "NAME", "ipban", "ADDRESS", "198.51.100.7", "KEY", "198.51.100.7", "OWNER", "_params"}
				switch {
				case strings.HasPrefix(c, "keepalive."):
					places = append(places, "URI", found(server, "keepalive.list", "uri"))
				case strings.HasPrefix(c, "dispatcher."):
					places = append(places, "URI", destination)
				case strings.HasPrefix(c, "dlg."):
					call := matched(server, "dlg.list", `h_entry: (\d+)\s+h_id: (\d+)[^{}]*\sstate: 4\s`) // not one that has ended
					places = append(places, "ENTRY", call[0], "ID", call[1])
				case strings.HasPrefix(c, "rtp"):
					places = append(places, "URL", found(at, relay, "url"))
				case strings.HasPrefix(c, "ul."):
					places = append(places, "USER", found(server, "ul.dump", "AoR"))
				case strings.HasPrefix(c, "mqueue."):
					places = append([]string{"NAME", "backlog"}, places...)
				case strings.HasPrefix(c, "htable.delete"):
					if _, err := ask(t, server, "htable.sets", "ipban", "198.51.100.7", "s:1"); err != nil {
						t.Fatal(err)
					}
				}
				command := strings.NewReplacer(places...).Replace(c)
				if answer, err := ask(t, at, strings.Fields(command)...); err != nil && notChanged[c] == "" {
					t.Errorf("%s: %v %s", command, err, answer)
				}
			}
		})
	}
}

// TestRunbookReads runs each read-only kamcmd command of the runbooks on real servers,
// and checks that the reply has the fields that the pages explain.
func TestRunbookReads(t *testing.T) {
	reads := kamcmdOf(t, true)
	for c := range shown {
		if !reads[c] {
			t.Errorf("no runbook runs %s", c)
		}
	}
	places := strings.NewReplacer("INDEX", "1", "TABLE KEY", "ipban 198.51.100.7", "drgw", "ipban", " NAME", " localhost")
	for _, version := range kamailiotest.Versions(t) {
		t.Run(version, func(t *testing.T) {
			server := kamailiotest.Start(t, kamailiotest.Config{Version: version})
			rtpproxy := kamailiotest.Start(t, kamailiotest.Config{Version: version, RTPProxy: true})
			for c := range reads {
				at := server
				if strings.HasPrefix(c, "rtpproxy.") {
					at = rtpproxy
				}
				answer, err := ask(t, at, strings.Fields(places.Replace(c))...)
				switch {
				case c == "kafka.stats" && strings.Contains(answer, "not found"): // the server of the tests has no Kafka
				case strings.HasPrefix(c, "dns.lookup") && strings.Contains(answer, "400 - Not found"): // nothing was looked up yet
				case err != nil:
					t.Errorf("%s: %v %s", c, err, answer)
				}
				for _, field := range shown[c] {
					if !strings.Contains(answer, field) {
						t.Errorf("%s: no %q in\n%s", c, field, answer)
					}
				}
			}
		})
	}
}
