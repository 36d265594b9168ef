//go:build linux

package doctor

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kamailio-exporter/kamailio_exporter/collector"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc/kamrpctest/kamailiotest"
)

var update = flag.Bool("update", false, "rewrite the golden reports")

// config is that of an exporter with default flags, except that it does not find other
// servers on this host.
func config(t *testing.T, uris ...string) Config {
	t.Helper()
	return Config{
		URIs: uris,
		Open: func(uri string) (kamrpc.Transport, func() int64, error) {
			transport, err := kamrpc.Open(uri, &http.Client{Transport: &http.Transport{}})
			return transport, func() int64 { return 0 }, err
		},
		Collectors: collector.All(collector.Options{
			DumpContacts: collector.DefaultDumpContacts, ListDialogs: collector.DefaultListDialogs,
			TLSConnections: collector.DefaultTLSConnections, ListRows: collector.DefaultListRows,
			GrowingInterval: collector.DefaultGrowingInterval,
		}),
		CallTimeout: time.Second, ScrapeTimeout: 10 * time.Second,
		MaxConcurrent: kamrpc.DefaultMaxConcurrent,
		System:        System{Proc: t.TempDir(), Systemd: t.TempDir()},
	}
}

// see makes doctor see a host on which only this server runs.
func see(t *testing.T, cfg *Config, s *kamailiotest.Server) {
	t.Helper()
	pid := strconv.Itoa(s.PID())
	if err := os.Symlink(filepath.Join("/proc", pid), filepath.Join(cfg.System.Proc, pid)); err != nil {
		t.Fatal(err)
	}
}

func examined(t *testing.T, cfg Config) *Report {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	r := Run(ctx, cfg)
	if t.Failed() || testing.Verbose() {
		var text bytes.Buffer
		r.Text(&text, false)
		t.Log("\n" + text.String())
	}
	return r
}

func findings(r *Report, check string) (all []Finding) {
	for _, f := range r.Findings {
		if f.Check == check {
			all = append(all, f)
		}
	}
	return all
}

// has checks that a check has a finding with this level and text, and with these fixes.
func has(t *testing.T, r *Report, check string, level Level, text string, fixes ...string) {
	t.Helper()
	for _, f := range findings(r, check) {
		if f.Level != level || !strings.Contains(f.Text, text) {
			continue
		}
		var lines []string
		for _, fix := range f.Fixes {
			for _, line := range fix.Lines {
				lines = append(lines, fix.Where+": "+line)
			}
		}
		for _, want := range fixes {
			if !slices.ContainsFunc(lines, func(l string) bool { return strings.HasPrefix(l, want) }) {
				t.Errorf("%s: %q is not among its fixes: %q", check, want, lines)
			}
		}
		return
	}
	t.Errorf("%s says nothing of %q at level %s: %+v", check, text, level, findings(r, check))
}

func outcome(t *testing.T, r *Report, want Status) {
	t.Helper()
	if r.Status != want {
		var text bytes.Buffer
		r.Text(&text, false)
		t.Errorf("%s, not %s:\n%s", r.Status, want, text.String())
	}
}

// golden compares the text of a report with testdata/NAME.txt, without the parts that
// vary between runs and hosts.
func golden(t *testing.T, name string, r *Report, s *kamailiotest.Server) {
	t.Helper()
	host, port, _ := strings.Cut(s.SIPAddr, ":")
	goldenFile(t, name, r, []shown{
		{regexp.QuoteMeta(s.Dir) + `(/kamailio\.cfg)`, "/etc/kamailio$1"},
		{regexp.QuoteMeta(s.Dir), "/run/kamailio"},
		{regexp.QuoteMeta(host + ":" + port), host + ":5060"},
		{`pid \d+\b`, "pid 811"},
	})
}

// goldenOf does the same for several servers, in the order of their process IDs.
func goldenOf(t *testing.T, name string, r *Report, servers ...*kamailiotest.Server) {
	t.Helper()
	var fixed []shown
	for i, s := range servers {
		letter := string(rune('a' + i))
		fixed = append(fixed, shown{regexp.QuoteMeta(s.Dir), "/run/kamailio-" + letter}, shown{fmt.Sprintf(`pid %d\b`, s.PID()), fmt.Sprintf("pid %d", 811*(i+1))})
	}
	goldenFile(t, name, r, fixed)
}

// shown is a text that varies, and its replacement in a golden report.
type shown struct{ is, as string }

func goldenFile(t *testing.T, name string, r *Report, fixed []shown) {
	t.Helper()
	report := *r
	report.Findings = slices.DeleteFunc(slices.Clone(r.Findings), func(f Finding) bool {
		return f.Check == "permissions" || strings.HasPrefix(f.Text, "it started less than a minute ago")
	})
	fixed = append(fixed, []shown{
		{`\d+\.\d ms`, "0.5 ms"},
		{`\d+ samples in \d+ ms`, "317 samples in 9 ms"},
		{`(the largest reply of a scrape is that of) \S+ \(\d+ KiB\)`, "$1 stats.get_statistics (5 KiB)"},
		{`up for \d+ \w+`, "up for 3 days"},
		{`runs on this host as user \w+ \(pid (\d+)\)`, "runs on this host as user kamailio (pid $1)"},
	}...)
	replace := func(text string) string {
		for _, f := range fixed {
			text = regexp.MustCompile(f.is).ReplaceAllString(text, f.as)
		}
		return text
	}
	for i := range report.Findings {
		f := &report.Findings[i]
		f.Text = replace(f.Text)
		f.Fixes = slices.Clone(f.Fixes)
		for j := range f.Fixes {
			lines := slices.Clone(f.Fixes[j].Lines)
			for k := range lines {
				lines[k] = replace(lines[k])
			}
			f.Fixes[j].Lines = lines
		}
	}
	// Findings about several servers are sorted by their directories, whose names are
	// random.
	place := func(f Finding) int {
		return slices.IndexFunc(checks, func(c check) bool { return c.name == f.Check })
	}
	slices.SortStableFunc(report.Findings, func(a, b Finding) int {
		if a.Check == b.Check && (a.Check == "processes" || a.Check == "found") {
			return strings.Compare(a.Text, b.Text)
		}
		return place(a) - place(b)
	})
	var got bytes.Buffer
	report.Text(&got, false)
	file := filepath.Join("testdata", name+".txt")
	if *update {
		if err := os.WriteFile(file, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got.String() != string(want) {
		t.Errorf("%s differs (-update writes it):\n%s", file, got.String())
	}
}

func eachVersion(t *testing.T, test func(t *testing.T, version string)) {
	t.Helper()
	for _, version := range kamailiotest.AllVersions(t) {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			test(t, version)
		})
	}
}

// TestStock checks that Debian's unchanged package works, and that the report lists
// possible additions.
func TestStock(t *testing.T) {
	eachVersion(t, func(t *testing.T, version string) {
		s := kamailiotest.Start(t, kamailiotest.Config{Version: version, Stock: true})
		logged := s.LogLines()
		cfg := config(t, "unix://"+s.SocketPath, "fifo://"+s.FIFOPath)
		see(t, &cfg, s)
		r := examined(t, cfg)
		outcome(t, r, Healthy)
		has(t, r, "modules", Note, "the module dialog would add", `kamailio.cfg: loadmodule "dialog.so"`)
		has(t, r, "sockets", Note, "SIP is not probed", "flag: --sip.probe=udp:"+s.SIPAddr, "flag: --sip.probe=tcp:"+s.SIPAddr)
		has(t, r, "processes", OK, "(pid "+strconv.Itoa(s.PID())+")")
		has(t, r, "clock", OK, "")
		golden(t, "stock-"+version, r, s)
		if now := s.Logged(); len(now) != logged {
			t.Errorf("Kamailio logged:\n%s", strings.Join(now[logged:], ""))
		}
	})
}

// TestProposedParameters checks that each version knows the parameters in proposed lines.
func TestProposedParameters(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	config := "#!KAMAILIO\nloadmodule \"xhttp.so\"\nloadmodule \"jsonrpcs.so\"\nloadmodule \"ctl.so\"\nloadmodule \"xhttp_prom.so\"\nloadmodule \"usrloc.so\"\nloadmodule \"htable.so\"\n"
	found := 0
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		for _, line := range regexp.MustCompile("`(modparam\\(\"[a-z_]+\", \"[a-z_%]+\", [^)]+\\))").FindAllStringSubmatch(string(readFile(t, file)), -1) {
			found++
			for _, kind := range []string{"dgram", "fifo"} {
				line := strings.NewReplacer(`"jsonrpcs", "%s"`, `"jsonrpcs", "dgram_socket"`, "%s_", kind+"_", `group", "%s"`, `group", "root"`, "%s", "/tmp/proposed").Replace(line[1])
				if !strings.Contains(line, "tcp_socket") && !strings.Contains(config, line) { // proposed for Kamailio 6 only
					config += line + "\n"
				}
			}
		}
	}
	if found < 15 {
		t.Errorf("only %d lines", found)
	}
	eachVersion(t, func(t *testing.T, version string) {
		if err := kamailiotest.CheckConfig(t, version, config+"request_route { exit; }\n"); err != nil {
			t.Error(err)
		}
	})
}

// TestStockWithProposedModules checks that the proposed lines for Debian's configuration
// have the promised effect.
func TestStockWithProposedModules(t *testing.T) {
	eachVersion(t, func(t *testing.T, version string) {
		s := kamailiotest.Start(t, kamailiotest.Config{Version: version, Edit: func(config string) string {
			dialog := useful[slices.IndexFunc(useful, func(u usefulModule) bool { return u.module == "dialog" })].lines
			config = strings.Replace(config, `loadmodule "pv.so"`, dialog[0]+"\n"+`loadmodule "pv.so"`, 1)
			if !strings.Contains(config, "record_route();") {
				t.Fatal("Debian's configuration has no record_route()")
			}
			return strings.Replace(config, "record_route();", "record_route();\n"+strings.Join(dialog[1:], "\n"), 1)
		}})
		r := examined(t, config(t, "unix://"+s.SocketPath, "fifo://"+s.FIFOPath))
		outcome(t, r, Healthy)
		if i := slices.IndexFunc(r.Collectors, func(c Collector) bool { return c.Name == "dialog" }); r.Collectors[i].State != "works" || r.Collectors[i].Samples == 0 {
			t.Errorf("dialog: %+v", r.Collectors[i])
		}
	})
}

func TestFullServer(t *testing.T) {
	eachVersion(t, func(t *testing.T, version string) {
		s := kamailiotest.Start(t, kamailiotest.Config{Version: version})
		cfg := config(t, s.HTTPURL, "unix://"+s.SocketPath, "fifo://"+s.FIFOPath+"?reply_dir="+s.FIFOReplyDir)
		r := examined(t, cfg)
		outcome(t, r, Healthy)
		five := strings.HasPrefix(version, "5.")
		for _, c := range r.Collectors {
			switch {
			case c.State == "fails":
				t.Errorf("%+v", c)
			case c.Name == "permissions" && five && c.State != "skipped":
				t.Errorf("%+v is called", c)
			}
		}
		if five {
			has(t, r, "collectors", Note, "permissions.addressDump is skipped")
		}
		has(t, r, "limits", OK, "dialog_age: 0 dialogs")
	})
}

// TestLimits checks that numbers above a limit are reported with the flag that raises it.
func TestLimits(t *testing.T) {
	s := kamailiotest.Start(t, kamailiotest.Config{})
	for i := range 30 {
		s.RPC(t, "ul.add", "location", "u"+strconv.Itoa(i)+"@127.0.0.1", "sip:u"+strconv.Itoa(i)+"@127.0.0.1:9", 3600, 1, "", 0, 0, 0)
	}
	cfg := config(t, "unix://"+s.SocketPath, "fifo://"+s.FIFOPath+"?reply_dir="+s.FIFOReplyDir)
	cfg.Collectors = collector.All(collector.Options{DumpContacts: 20, ListDialogs: 0, TLSConnections: 5, ListRows: 5000, GrowingInterval: time.Minute})
	r := examined(t, cfg)
	outcome(t, r, Healthy)
	has(t, r, "limits", Note, "registered contacts, more than --collector.usrloc_contacts.limit=20", "flag: --collector.usrloc_contacts.limit=1000")
	has(t, r, "limits", Note, "--collector.dialog_age.limit=0 disables dlg.briefing")
}

// TestRegistrationsInTheDatabase has a usrloc that counts nothing. The reason is in
// kamailio.cfg, if that can be read.
func TestRegistrationsInTheDatabase(t *testing.T) {
	eachVersion(t, func(t *testing.T, version string) {
		dir, err := os.MkdirTemp("", "location-") // where a server in another root can see it too
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		const schema = ".read /usr/share/kamailio/db_sqlite/"
		db := filepath.Join(dir, "kamailio.sqlite")
		if out, err := exec.CommandContext(t.Context(), "sqlite3", db, schema+"standard-create.sql", schema+"usrloc-create.sql").CombinedOutput(); err != nil {
			t.Fatalf("%s%v", out, err)
		}
		s := kamailiotest.Start(t, kamailiotest.Config{Version: version, Edit: func(config string) string {
			return strings.Replace(config, `loadmodule "usrloc.so"`, `loadmodule "db_sqlite.so"
loadmodule "usrloc.so"
modparam("usrloc", "db_url", "sqlite:///`+db+`")
modparam("usrloc", "db_mode", 3)`, 1)
		}})
		cfg := config(t, "unix://"+s.SocketPath, "fifo://"+s.FIFOPath)
		r := examined(t, cfg)
		outcome(t, r, Healthy)
		has(t, r, "usrloc", Note, "No client has registered since Kamailio started, or it keeps them only in the database")
		see(t, &cfg, s)
		r = examined(t, cfg)
		outcome(t, r, Healthy)
		has(t, r, "usrloc", Note, "usrloc keeps them only in the database (db_mode 3), and does not count them", `kamailio.cfg: modparam("usrloc", "db_mode", 2)`)
	})
}

// TestNoJSONRPC has only ctl, which no flag names.
func TestNoJSONRPC(t *testing.T) {
	eachVersion(t, func(t *testing.T, version string) {
		s := kamailiotest.Start(t, kamailiotest.Config{Version: version, Edit: func(config string) string {
			return regexp.MustCompile(`(?m)^.*jsonrpc.*$`).ReplaceAllString(config, "")
		}})
		cfg := config(t, "unix://"+s.Dir+"/kamailio_rpc.sock", "fifo://"+s.Dir+"/kamailio_rpc.fifo")
		see(t, &cfg, s)
		cfg.Search = true
		r := examined(t, cfg)
		outcome(t, r, Broken)
		has(t, r, "transports", Fail, "the file does not exist", `kamailio.cfg: loadmodule "jsonrpcs.so"`)
		has(t, r, "found", Note, "kamailio_ctl works", "flag: --kamailio.uri=binrpc+unix://"+s.CtlPath)
		golden(t, "no-jsonrpcs-"+version, r, s)

		cfg.URIs = []string{"binrpc+unix://" + s.CtlPath} // as the report proposes
		outcome(t, examined(t, cfg), Healthy)
	})
}

// TestReplyDirWithoutSlash has a FIFO that accepts requests, but writes its replies
// elsewhere.
func TestReplyDirWithoutSlash(t *testing.T) {
	eachVersion(t, func(t *testing.T, version string) {
		dir := t.TempDir()
		edit := func(value string) func(string) string {
			return func(config string) string {
				return strings.Replace(config, `modparam("jsonrpcs", "pretty_format", 1)`, `modparam("jsonrpcs", "fifo_reply_dir", "`+value+`")`, 1)
			}
		}
		if version != kamailiotest.AllVersions(t)[0] { // a chroot, which only has /tmp and the server's own directory
			dir = "/tmp"
		}
		s := kamailiotest.Start(t, kamailiotest.Config{Version: version, Edit: edit(dir)})
		cfg := config(t, "unix://"+s.SocketPath, "fifo://"+s.FIFOPath+"?reply_dir="+dir)
		see(t, &cfg, s)
		r := examined(t, cfg)
		outcome(t, r, Degraded)
		has(t, r, "transports", Warn, "no answer before the deadline", `kamailio.cfg: modparam("jsonrpcs", "fifo_reply_dir", "`+dir+`/")`)

		s = kamailiotest.Start(t, kamailiotest.Config{Version: version, Edit: edit(dir + "/")})
		cfg = config(t, "unix://"+s.SocketPath, "fifo://"+s.FIFOPath+"?reply_dir="+dir)
		outcome(t, examined(t, cfg), Healthy)
	})
}

// TestReplyDirElsewhere has a flag that names another directory than kamailio.cfg.
func TestReplyDirElsewhere(t *testing.T) {
	s := kamailiotest.Start(t, kamailiotest.Config{Edit: func(config string) string {
		return strings.Replace(config, `modparam("jsonrpcs", "pretty_format", 1)`, `modparam("jsonrpcs", "fifo_reply_dir", "/var/tmp/")`, 1)
	}})
	cfg := config(t, "unix://"+s.SocketPath, "fifo://"+s.FIFOPath)
	see(t, &cfg, s)
	r := examined(t, cfg)
	outcome(t, r, Degraded)
	has(t, r, "transports", Warn, "no answer before the deadline", "flag: --kamailio.uri=fifo://"+s.FIFOPath+"?reply_dir=/var/tmp")
}

// TestHTTP uses Debian's configuration with WITH_JSONRPC, and without it.
func TestHTTP(t *testing.T) {
	eachVersion(t, func(t *testing.T, version string) {
		s := kamailiotest.Start(t, kamailiotest.Config{Version: version, StockHTTP: true})
		r := examined(t, config(t, s.HTTPURL))
		outcome(t, r, Healthy)

		s = kamailiotest.Start(t, kamailiotest.Config{Version: version, Stock: true})
		r = examined(t, config(t, "http://"+s.SIPAddr+"/RPC"))
		outcome(t, r, Broken)
		has(t, r, "transports", Fail, "kamailio.cfg does not serve RPC over HTTP", "kamailio.cfg: #!define WITH_JSONRPC", "kamailio.cfg: event_route[xhttp:request]")
	})
}

// TestStopped checks a server that was killed, so that its files remain, one that was
// stopped, so that they are removed, and one that hangs.
func TestStopped(t *testing.T) {
	eachVersion(t, func(t *testing.T, version string) {
		s := kamailiotest.Start(t, kamailiotest.Config{Version: version, Stock: true})
		cfg := config(t, "unix://"+s.SocketPath, "fifo://"+s.FIFOPath)
		s.Pause()
		r := examined(t, cfg)
		s.Resume()
		outcome(t, r, Broken)
		has(t, r, "transports", Fail, "kamailio hangs", "shell: journalctl -u kamailio")

		s.Kill()
		r = examined(t, cfg)
		outcome(t, r, Broken)
		const stopped = "no Kamailio process runs on this host, so nothing answers at unix:///"
		has(t, r, "processes", Fail, stopped, "shell: systemctl start kamailio")
		golden(t, "killed", r, s)

		for _, file := range []string{s.SocketPath, s.FIFOPath} {
			if err := os.Remove(file); err != nil {
				t.Fatal(err)
			}
		}
		cfg.System.Systemd = "/nowhere"
		r = examined(t, cfg)
		outcome(t, r, Broken)
		has(t, r, "processes", Fail, stopped, "shell: service kamailio start", "shell: grep kamailio /var/log/syslog")
		if len(r.Findings) != 1 {
			t.Errorf("one cause has %d findings: %+v", len(r.Findings), r.Findings)
		}
	})
}

// TestServiceStoppedBesideAnother checks that the first advice is to start the service,
// and not to use another Kamailio that runs on the same host.
func TestServiceStoppedBesideAnother(t *testing.T) {
	s := kamailiotest.Start(t, kamailiotest.Config{Stock: true})
	cfg := config(t, "unix:///nowhere/kamailio_rpc.sock", "fifo:///nowhere/kamailio_rpc.fifo")
	see(t, &cfg, s)
	cfg.Search = true
	cfg.System.Config = filepath.Join(t.TempDir(), "kamailio.cfg")
	if err := os.WriteFile(cfg.System.Config, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	cfg.System.RunDirs = []string{s.Dir}
	r := examined(t, cfg)
	outcome(t, r, Broken)
	has(t, r, "processes", Fail, "no Kamailio process runs with "+cfg.System.Config+", so nothing answers at unix:///nowhere/", "shell: systemctl start kamailio")
	has(t, r, "processes", Note, "other Kamailio servers run on this host")
	has(t, r, "found", Note, "no flag names", "flag: --kamailio.uri=unix://"+s.SocketPath)
	if r.Findings[0].Level != Fail || len(findings(r, "transports")) != 0 || len(findings(r, "version")) != 0 {
		t.Errorf("the first finding is not the stopped service, or there are others: %+v", r.Findings)
	}
}

// TestScriptMetricsOfARealKamailio checks that the timeout of xhttp_prom is found, also
// in an included file.
func TestScriptMetricsOfARealKamailio(t *testing.T) {
	const metric = `
loadmodule "xhttp.so"
loadmodule "xhttp_prom.so"
modparam("xhttp_prom", "prom_counter", "name=calls_total; label=gateway;")
`
	eachVersion(t, func(t *testing.T, version string) {
		for settings, level := range map[string]Level{"": Warn, noTimeoutLine + "\n": ""} {
			server := kamailiotest.Start(t, kamailiotest.Config{Version: version, Edit: func(config string) string {
				return strings.Replace(config, "request_route {", metric+settings+"event_route[xhttp:request] {\n\tprom_dispatch();\n}\nrequest_route {", 1)
			}})
			cfg := config(t, "unix://"+server.SocketPath)
			see(t, &cfg, server)
			r := examined(t, cfg)
			if level != "" {
				has(t, r, "script metrics", level, "xhttp_prom_timeout is not set, so it is 60 minutes", "kamailio.cfg: "+noTimeoutLine)
			} else if found := findings(r, "script metrics"); found != nil {
				t.Errorf("with %s: %+v", settings, found)
			}
		}
	})
}
