package main

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kingpin/v2"
	dto "github.com/prometheus/client_model/go"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/cli"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/xhttpprom"
	"github.com/kamailio-exporter/kamailio_exporter/collector"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
)

var update = flag.Bool("update", false, "rewrite the generated parts of README.md and docs/")

var (
	readmeFile = filepath.Join(top, "README.md")
	docsDir    = filepath.Join(top, "docs")
)

// TestDocs generates parts of README.md and docs/ from the code with -update; otherwise
// it checks that they are up to date.
func TestDocs(t *testing.T) {
	report := readText(t, filepath.Join("internal", "doctor", "testdata", "packaged.txt"))
	for file, parts := range map[string]map[string]string{
		readmeFile: {"doctor": "```\n" + shortened(report) + "```\n"},
		filepath.Join(docsDir, "troubleshooting.md"): {"doctor": "```\n" + report + "```\n"},
		filepath.Join(docsDir, "configuration.md"):   {"flags": flagTables(t), "exit-codes": exitCodeTable()},
		filepath.Join(docsDir, "collectors.md"):      {"collectors": collectorTable(t)},
		filepath.Join(docsDir, "compatibility.md"):   {"versions": compatibilityTable(t)},
		filepath.Join(docsDir, "script-metrics.md"):  {"xhttp_prom-errors": pageFaultTable()},
		filepath.Join(docsDir, "multi-target.md"):    {"fleet-metrics": fleetMetricTable(t)},
	} {
		is := readText(t, file)
		want := is
		for name, text := range parts {
			want = replacePart(t, want, name, text)
		}
		writeDocument(t, file, is, want)
	}
}

// shortened returns the beginning of a doctor report and its outcome.
func shortened(report string) string {
	lines := strings.SplitAfter(report, "\n")
	return strings.Join(lines[:10], "") + "…\n" + strings.Join(lines[len(lines)-3:], "")
}

// recordedVersions returns the versions of Kamailio with recorded replies.
func recordedVersions(t *testing.T) []string {
	t.Helper()
	dirs, err := filepath.Glob(filepath.Join(top, "collector", "testdata", "*.*.*"))
	if err != nil || len(dirs) < 2 {
		t.Fatalf("%d versions: %v", len(dirs), err)
	}
	for i, dir := range dirs {
		dirs[i] = filepath.Base(dir)
	}
	return dirs
}

// compatibilityTable lists the number of metrics of each collector on the golden pages of
// each recorded version.
func compatibilityTable(t *testing.T) string {
	t.Helper()
	versions := recordedVersions(t)
	var b strings.Builder
	b.WriteString("| collector | reads | " + strings.Join(versions, " | ") + " | remarks |\n| --- | --- |" + strings.Repeat(" --- |", len(versions)+1) + "\n")
	for _, c := range collector.All(everything) {
		fmt.Fprintf(&b, "| [`%s`](metrics.md#%s) | %s |", c.Name(), c.Name(), codes(c.Methods()))
		for _, version := range versions {
			dir := filepath.Join(top, "collector", "testdata", version)
			page, loaded := readText(t, filepath.Join(dir, "metrics.prom")), readText(t, filepath.Join(dir, "core.modules.json"))
			unsupported := fmt.Sprintf("kamailio_scrape_collector_supported{collector=%q} 0", c.Name())
			for _, server := range []string{"others", "ims"} {
				if other := readText(t, filepath.Join(dir, server, "metrics.prom")); strings.Contains(page, unsupported) && strings.Contains(other, "{collector="+strconv.Quote(c.Name())+"}") {
					page, loaded = other, loaded+readText(t, filepath.Join(dir, server, "core.modules.json"))
				}
			}
			found := 0
			for _, d := range c.Descs() {
				if strings.Contains(page, "\n"+d.Name+"{") || strings.Contains(page, "\n"+d.Name+" ") || strings.Contains(page, "\n"+d.Name+"_bucket{") {
					found++
				}
			}
			switch {
			case !strings.Contains(page, unsupported):
				fmt.Fprintf(&b, " %d of %d |", found, len(c.Descs()))
			case strings.Contains(loaded, fmt.Sprintf("%q", c.Name())):
				b.WriteString(" none |")
			default:
				b.WriteString(" not recorded |")
			}
		}
		var remarks []string
		for _, p := range kamrpc.PriceList() {
			for _, d := range p.Dangers {
				if slices.Contains(c.Methods(), p.Method) && d.MinParams == 0 {
					remarks = append(remarks, fmt.Sprintf("`%s` is not called on %s: it %s", p.Method, d.On(), d.What))
				}
			}
		}
		fmt.Fprintf(&b, " %s |\n", tableCell(strings.Join(remarks, "; ")))
	}
	return b.String()
}

// pageFaultTable lists the possible faults of the xhttp_prom page.
func pageFaultTable() string {
	var b strings.Builder
	b.WriteString("| in the log | cause | fix |\n| --- | --- | --- |\n")
	for _, f := range xhttpprom.Faults() {
		fmt.Fprintf(&b, "| %s | %s | %s |\n", f.Seen, f.Cause, f.Fix)
	}
	return b.String()
}

// fleetMetricTable lists the metrics about the exporter itself that exist only with many
// targets.
func fleetMetricTable(t *testing.T) string {
	t.Helper()
	plain := map[string]bool{}
	for _, f := range ownMetrics(t) {
		plain[f.GetName()] = true
	}
	families := slices.DeleteFunc(ownMetrics(t, "--config.file="+fleetFile(t, "targets: {a: {uris: ['tcp://192.0.2.1:8091']}}")), func(f *dto.MetricFamily) bool {
		return plain[f.GetName()]
	})
	var b strings.Builder
	b.WriteString("| metric | type | labels | meaning |\n| --- | --- | --- | --- |\n")
	for _, f := range families {
		labels := map[string][]string{}
		for _, m := range f.Metric {
			for _, l := range m.Label {
				labels[l.GetName()] = append(labels[l.GetName()], l.GetValue())
			}
		}
		var texts []string
		for name, values := range labels {
			texts = append(texts, name+" ("+strings.Join(values, ", ")+")")
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", f.GetName(), strings.ToLower(f.GetType().String()), strings.Join(texts, ", "), tableCell(f.GetHelp()))
	}
	return b.String()
}

// writeDocument writes a document with -update; otherwise it checks that the document is
// up to date.
func writeDocument(t *testing.T, file, is, want string) {
	t.Helper()
	if want == is {
		return
	}
	if !*update {
		t.Fatalf("the tables of %s are not what they are made from: make docs", filepath.Base(file))
	}
	if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
		t.Fatal(err)
	}
}

func readText(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// part finds the text between <!-- name --> and <!-- /name -->.
func part(t *testing.T, text, name string) (begin, end int) {
	t.Helper()
	opening, closing := "<!-- "+name+" -->\n", "<!-- /"+name+" -->\n"
	begin = strings.Index(text, opening) + len(opening)
	end = strings.Index(text, closing)
	if begin < len(opening) || end < begin {
		t.Fatalf("there is no part between %q and %q", opening, closing)
	}
	return begin, end
}

func replacePart(t *testing.T, text, name, with string) string {
	t.Helper()
	begin, end := part(t, text, name)
	return text[:begin] + with + text[end:]
}

// flagModels returns the flags that set something.
func flagModels(t *testing.T) []*kingpin.FlagModel {
	t.Helper()
	app, s := cli.NewApp(), &cli.Settings{}
	s.Declare(app.Command("serve", ""))
	return app.Model().Commands[0].Flags
}

// flagTables has a table for each group of flags with the same prefix. Flags that only
// enable a collector share one row.
func flagTables(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	for _, group := range cli.GroupFlags(flagModels(t)) {
		fmt.Fprintf(&b, "\n### %s\n\n| flag | environment variable | default | meaning |\n| --- | --- | --- | --- |\n", group.Title)
		collectors := false
		for _, f := range group.Flags {
			name, byDefault, variable := "--"+f.Name, f.Default, ""
			if f.IsBoolFlag() {
				name = "--[no-]" + f.Name
				if len(byDefault) == 0 {
					byDefault = []string{"false"}
				}
			}
			if group.Name == "collector" && f.IsBoolFlag() && strings.Count(f.Name, ".") == 1 {
				if !collectors {
					b.WriteString("| `--[no-]collector.NAME` | `KAMAILIO_EXPORTER_COLLECTOR_NAME` | `true` | Enables one of the [collectors](collectors.md). |\n")
				}
				collectors = true
				continue
			}
			if f.Envar != "" {
				variable = "`" + f.Envar + "`"
			}
			fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", name, variable, codes(byDefault), tableCell(f.Help))
		}
	}
	return b.String() + "\n"
}

// exitCodeTable lists the exit codes of each command and their meanings.
func exitCodeTable() string {
	commands := []string{"serve", "doctor", "rpc", "admin", "assets", "healthcheck"}
	var b strings.Builder
	b.WriteString("| code | `" + strings.Join(commands, "` | `") + "` |\n| ---" + strings.Repeat(" | ---", len(commands)) + " |\n")
	for code := range 7 {
		fmt.Fprintf(&b, "| %d |", code)
		for _, command := range commands {
			meaning := ""
			if all := cli.ExitCodes(command); code < len(all) {
				meaning = all[code]
			}
			fmt.Fprintf(&b, " %s |", meaning)
		}
		b.WriteString("\n")
	}
	return b.String()
}

func collectorTable(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	b.WriteString("| collector | what it exports | needs | settings |\n| --- | --- | --- | --- |\n")
	for _, c := range collector.All(collector.Options{}) {
		var flags []string
		for _, f := range flagModels(t) {
			if strings.HasPrefix(f.Name, "collector."+c.Name()+".") {
				flags = append(flags, "--"+f.Name)
			}
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", c.Name(), tableCell(c.About()), codes(c.Methods()), codes(flags))
	}
	return b.String()
}

func codes(words []string) string {
	quoted := make([]string, 0, len(words))
	for _, w := range words {
		if w != "" {
			quoted = append(quoted, "`"+strings.ReplaceAll(w, "|", `\|`)+"`")
		}
	}
	return strings.Join(quoted, ", ")
}

func tableCell(s string) string {
	return strings.NewReplacer("|", `\|`, "<", "&lt;", "*", `\*`).Replace(s)
}

// TestCollectorsAreNamedEverywhere checks that all lists of the collectors are the same.
func TestCollectorsAreNamedEverywhere(t *testing.T) {
	var help bytes.Buffer
	if err := run(t.Context(), []string{"--help"}, &help, io.Discard); err != nil {
		t.Fatal(err)
	}
	landing := httptest.NewRecorder()
	handlerFor(t).ServeHTTP(landing, httptest.NewRequest(http.MethodGet, "/", nil))
	list := readText(t, filepath.Join(docsDir, "collectors.md"))
	begin, end := part(t, list, "collectors")

	want := collector.Names(collector.All(collector.Options{}))
	for place, found := range map[string][][]string{
		"--help":           regexp.MustCompile(`(?m)^ *--\[no-\]collector\.([a-z_]+)\s`).FindAllStringSubmatch(help.String(), -1),
		"the landing page": regexp.MustCompile(`<td><code>([^<]+)</code></td>`).FindAllStringSubmatch(landing.Body.String(), -1),
		"collectors.md":    regexp.MustCompile("(?m)^\\| `([^`]+)`").FindAllStringSubmatch(list[begin:end], -1),
		"metrics.md":       regexp.MustCompile(`(?m)^## ([a-z_]+)$`).FindAllStringSubmatch(readText(t, filepath.Join(docsDir, "metrics.md")), -1),
	} {
		if number := fmt.Sprintf("**%d collectors", len(want)); !strings.Contains(readText(t, readmeFile), number) {
			t.Errorf("README.md does not say %q", number)
		}
		if got := names(found); got != strings.Join(want, " ") {
			t.Errorf("%s has the collectors %s\nwant %s", place, got, strings.Join(want, " "))
		}
	}
}

// TestDocumentedMetrics checks that the metrics in documents exist, with the labels that
// the documents show.
func TestDocumentedMetrics(t *testing.T) {
	labels := map[string][]string{}
	for line := range strings.Lines(readText(t, metricsFile)) {
		name, all, _ := strings.Cut(strings.TrimSpace(line), "\t")
		labels[name] = strings.Split(all, ",")
		labels[strings.TrimSuffix(name, "_bucket")] = labels[name] // a histogram
	}
	named := 0
	for file, text := range documents(t) {
		if file == "docs/migrating.md" || strings.HasPrefix(file, "alerts/runbooks/") || file == "CHANGELOG.md" {
			continue // TestMigratingDocs and TestRunbooks check these; old names
		}
		for _, sample := range regexp.MustCompile("(?m)(?:^|`)(kamailio_[a-z0-9_]+)(?:{(.*)})?(?: [0-9.]+$| [0-9]`|`)").FindAllStringSubmatch(text, -1) {
			want, ok := labels[sample[1]]
			if !ok && !ownNames[sample[1]] {
				t.Errorf("%s: there is no metric %s", file, sample[1])
				continue
			}
			named++
			for _, l := range regexp.MustCompile(`([a-z_]+)="`).FindAllStringSubmatch(sample[2], -1) {
				if !slices.Contains(want, l[1]) {
					t.Errorf("%s: %s has no label %s, but %s", file, sample[1], l[1], strings.Join(want, ","))
				}
			}
		}
	}
	if named < 30 {
		t.Errorf("only %d metrics are named", named)
	}
}

// ownNames are names in documents that look like metrics but are not.
var ownNames = map[string]bool{
	"kamailio_exporter": true, "kamailio_exporter_admin_": true, "kamailio_": true,
	"kamailio_rpc": true, "kamailio_ctl": true,
}

// documents returns all Markdown files of the repository, by path.
func documents(t *testing.T) map[string]string {
	t.Helper()
	return markdownIn(t, top)
}

func markdownIn(t *testing.T, dir string) map[string]string {
	t.Helper()
	texts := map[string]string{}
	err := fs.WalkDir(os.DirFS(dir), ".", func(name string, d fs.DirEntry, err error) error {
		if d != nil && d.IsDir() && d.Name() == ".git" {
			return fs.SkipDir
		}
		if err == nil && path.Ext(name) == ".md" {
			texts[name] = readText(t, filepath.Join(dir, name))
		}
		return err
	})
	if err != nil || len(texts) < 4 {
		t.Fatalf("%d documents: %v", len(texts), err)
	}
	return texts
}

// anchors returns the anchors of a Markdown text, as GitHub derives them from its
// headings.
func anchors(text string) []string {
	var all []string
	text = regexp.MustCompile("(?ms)^ *```.*?^ *```$").ReplaceAllString(text, "")
	for _, heading := range regexp.MustCompile(`(?m)^#+ +(.*)$`).FindAllStringSubmatch(text, -1) {
		plain := regexp.MustCompile(`\[([^]]*)\]\([^)]*\)`).ReplaceAllString(strings.ToLower(heading[1]), "$1")
		all = append(all, strings.ReplaceAll(regexp.MustCompile(`[^\pL\pN_ -]`).ReplaceAllString(plain, ""), " ", "-"))
	}
	return all
}

// TestLinks checks every link in the repository's documents to a file of the repository,
// and to a heading in it. TestAssets does the same for the files that the program writes,
// which are also those of the packages in /usr/share/doc.
func TestLinks(t *testing.T) { followLinks(t, top) }

// ownLink matches an absolute link into this repository.
var ownLink = regexp.MustCompile(`^https://github\.com/kamailio-exporter/kamailio_exporter/(?:blob|tree)/[^/]+/(.+)$`)

func followLinks(t *testing.T, dir string) {
	t.Helper()
	texts := markdownIn(t, dir)
	for name, text := range texts {
		for _, link := range regexp.MustCompile(`\]\(([^)\s]+)\)`).FindAllStringSubmatch(text, -1) {
			file, heading, _ := strings.Cut(link[1], "#")
			if own := ownLink.FindStringSubmatch(file); own != nil {
				if _, err := os.Stat(filepath.Join(top, own[1])); err != nil {
					t.Errorf("%s: the link %s leads nowhere: %v", name, link[1], err)
				}
			}
			if strings.Contains(file, "://") {
				continue
			}
			target := name
			if file != "" {
				target = path.Join(path.Dir(name), file)
			}
			if _, err := os.Stat(filepath.Join(dir, filepath.FromSlash(target))); err != nil {
				t.Errorf("%s: the link %s leads nowhere: %v", name, link[1], err)
			} else if heading != "" && !slices.Contains(anchors(texts[target]), heading) {
				t.Errorf("%s: the link %s leads to no heading of %s", name, link[1], target)
			}
		}
	}
}

// foreignFlags are flags of other programs in the documents.
var foreignFlags = map[string]bool{
	"system": true, "no-create-home": true, "shell": true, // useradd
	"allow-downgrades": true, "force-confold": true, // apt, dpkg
	"now":     true,                                                                                                 // systemctl
	"since":   true,                                                                                                 // journalctl
	"network": true, "pid": true, "group-add": true, "build": true, "volumes": true, "read-only": true, "all": true, // docker, podman
	"kamailio.scrape-uri": true, "kamailio.methods": true, "kamailio.stats-groups": true, // florentchauveau's
	"kamailio.binrpc-uri": true, "kamailio.custom-metrics-url": true, "collector.dispatcher.mapping": true, "collector.dialog.profiles": true, "web.rtp-telemetry-path": true, // voiplens'
	"socket": true, "host": true, "port": true, "bind": true, "metrics": true, "custom": true, "debug": true, // pascomnet's: the test cuts them at a capital
	"verify": true, "ignore-missing": true, "check": true, // gpg, sha256sum
	"no-pager": true,                                                                          // journalctl
	"address":  true, "id": true, "rule-file": true, "query": true, "alertmanagers.url": true, // thanos, mimirtool
}

func TestDocumentedFlagsExist(t *testing.T) {
	app, _ := newApp()
	var all []*kingpin.FlagModel
	for _, command := range app.Model().Commands {
		all = append(all, command.Flags...)
		for _, below := range command.Commands {
			all = append(all, below.Flags...)
		}
	}
	exists := func(name string) bool {
		if foreignFlags[name] || name == "help" || name == "version" {
			return true
		}
		return slices.ContainsFunc(all, func(f *kingpin.FlagModel) bool {
			// In --no-collector.NAME and --[no-]collector.NAME, the pattern only finds
			// the part up to "collector.".
			return name == f.Name || f.IsBoolFlag() && name == "no-"+f.Name || (name == "no-collector." || name == "collector.") && strings.HasPrefix(f.Name, "collector.")
		})
	}
	for file, text := range documents(t) {
		for _, found := range regexp.MustCompile(`--(?:\[no-\])?([a-z][a-z0-9_.-]*)([A-Z]*)`).FindAllStringSubmatch(text, -1) {
			name := found[1]
			if found[2] == "" {
				name = strings.TrimRight(name, ".")
			}
			if !exists(name) {
				t.Errorf("%s names %s, and there is no such flag", file, found[0])
			}
		}
	}
	named := ""
	for file, text := range documents(t) {
		if strings.HasPrefix(file, "docs/") || file == "README.md" {
			named += strings.ReplaceAll(text, "KAMAILIO_EXPORTER_COLLECTOR_NAME", "")
		}
	}
	env := readText(t, filepath.Join("..", "..", "examples", "systemd", "kamailio-exporter.env"))
	for _, name := range regexp.MustCompile(`KAMAILIO_EXPORTER_[A-Z0-9_]+`).FindAllString(named+env, -1) {
		if !slices.ContainsFunc(all, func(f *kingpin.FlagModel) bool { return f.Envar == name }) {
			t.Errorf("no flag is set by %s", name)
		}
	}
}

// TestDocumentedMessages checks that the program prints the messages that documents and
// runbooks quote.
func TestDocumentedMessages(t *testing.T) {
	program := ""
	for _, dir := range []string{"cmd", "kamrpc"} {
		for _, text := range goStrings(t, dir) {
			program += text
		}
	}
	quoted := regexp.MustCompile("log: `([^`]+)`").FindAllStringSubmatch(strings.Join(slices.Collect(maps.Values(documents(t))), ""), -1)
	if len(quoted) < 4 {
		t.Errorf("only %d messages are quoted", len(quoted))
	}
	for _, m := range quoted {
		if !strings.Contains(program, m[1]) {
			t.Errorf("no message has %q", m[1])
		}
	}
}

// TestDocumentedAlertsAndFiles checks that the alerts in documents exist, and the files
// of this repository that documents and the program's texts name.
func TestDocumentedAlertsAndFiles(t *testing.T) {
	rules := readText(t, filepath.Join(top, "alerts", "kamailio-alerts.yml")) + readText(t, filepath.Join(top, "alerts", "kamailio-admin-alerts.yml"))
	texts := documents(t)
	for name, text := range texts {
		for _, found := range regexp.MustCompile(`\bKamailio[A-Z][A-Za-z]+\b`).FindAllString(text, -1) {
			if !strings.Contains(rules, "alert: "+found+"\n") && found != "KamailioDataChanged" { // which a pipeline sends
				t.Errorf("%s: there is no alert %s", name, found)
			}
		}
	}
	err := fs.WalkDir(os.DirFS(top), "cmd", func(name string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && strings.HasSuffix(name, ".go") && !strings.HasSuffix(name, "_test.go") {
			texts[name] = readText(t, filepath.Join(top, name))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range texts {
		for _, found := range regexp.MustCompile(`\b(?:docs|examples|alerts|dashboards)/[a-zA-Z0-9_/-]+\.(?:md|yml|yaml|cfg|json|tmpl|env|service)\b`).FindAllStringIndex(text, -1) {
			file := text[found[0]:found[1]]
			if found[0] > 0 && text[found[0]-1] == '/' { // part of another path
				continue
			}
			if _, err := os.Stat(filepath.Join(top, file)); err != nil && !strings.Contains(file, "-*") {
				t.Errorf("%s names %s: %v", name, file, err)
			}
		}
	}
}

// TestDocumentedDefaults checks that a value in parentheses after a flag is its default.
func TestDocumentedDefaults(t *testing.T) {
	models := flagModels(t)
	var found [][]string
	for file, text := range documents(t) {
		if strings.HasPrefix(file, "docs/") || file == "README.md" {
			found = append(found, regexp.MustCompile("`--([a-z_.-]+)` \\(([0-9.]+)( s)?\\)").FindAllStringSubmatch(text, -1)...)
		}
	}
	if len(found) < 5 {
		t.Errorf("only %d defaults found", len(found))
	}
	for _, f := range found {
		i := slices.IndexFunc(models, func(m *kingpin.FlagModel) bool { return m.Name == f[1] })
		if i < 0 {
			continue // TestDocumentedFlagsExist reports it
		}
		said := f[2]
		if f[3] != "" {
			seconds, err := strconv.ParseFloat(said, 64)
			if err != nil {
				t.Fatal(err)
			}
			said = time.Duration(seconds * float64(time.Second)).String()
		}
		if is := strings.Join(models[i].Default, ""); said != is {
			t.Errorf("the documents say that --%s is %s by default, it is %s", f[1], said, is)
		}
	}
}

// TestDocumentedVersion checks that images and packages in all documents have the version
// in VERSION, and that CHANGELOG.md has an entry for it.
func TestDocumentedVersion(t *testing.T) {
	version := strings.TrimSpace(readText(t, filepath.Join(top, "VERSION")))
	found := 0
	for file, text := range documents(t) {
		for _, m := range regexp.MustCompile(`kamailio[_-]exporter[:_-]v?([0-9]+\.[0-9]+\.[0-9]+)`).FindAllStringSubmatch(text, -1) {
			if found++; m[1] != version && file != "CHANGELOG.md" && file != "docs/migrating.md" {
				t.Errorf("%s: %s is not of version %s", file, m[0], version)
			}
		}
	}
	if found < 5 {
		t.Errorf("only %d images and packages are named", found)
	}
	if !regexp.MustCompile(`(?m)^## .*\b` + regexp.QuoteMeta(version) + `\b`).MatchString(readText(t, filepath.Join(top, "CHANGELOG.md"))) {
		t.Errorf("CHANGELOG.md has no entry for version %s", version)
	}
}

// TestDocumentsAreShort limits the length of documents. Generated parts do not count,
// since they are for reference.
func TestDocumentsAreShort(t *testing.T) {
	generated := regexp.MustCompile(`(?s)<!-- ([a-z_-]+) -->\n.*?<!-- /[a-z_-]+ -->`)
	for file, text := range documents(t) {
		limit := 20_000
		if file == "README.md" {
			limit = 9_000
		} else if file == "docs/metrics.md" { // completely generated
			continue
		}
		if n := len(generated.ReplaceAllString(text, "")); n > limit {
			t.Errorf("%s has %d bytes that are not generated, more than %d", file, n, limit)
		}
	}
	for _, want := range []string{"docs/getting-started.md", "docs/admin-security.md", "SECURITY.md"} {
		if !strings.Contains(readText(t, readmeFile), want) {
			t.Errorf("README.md does not link to %s", want)
		}
	}
}
