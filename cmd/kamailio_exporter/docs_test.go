package main

import (
	"bytes"
	"flag"
	"fmt"
	"io/fs"
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

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/admincli"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/assets"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/cli"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/doctor"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/xhttpprom"
	"github.com/kamailio-exporter/kamailio_exporter/collector"
)

var update = flag.Bool("update", false, "rewrite the generated parts of README.md, docs/multi-target.md and docs/migrating.md")

var readmeFile = filepath.Join("..", "..", "README.md")

// TestDocs writes the tables of README.md from the flags and the collectors, with
// -update, and else checks that they are what these say.
func TestDocs(t *testing.T) {
	readme := readText(t, readmeFile)
	want := replacePart(t, readme, "flags", flagTable(t))
	want = replacePart(t, want, "collectors", collectorTable(t))
	want = replacePart(t, want, "xhttp_prom-errors", pageFaultTable())
	want = replacePart(t, want, "doctor", "```\n"+readText(t, filepath.Join("internal", "doctor", "testdata", "stock-5.6.txt"))+"```\n")
	writeDocument(t, readmeFile, readme, want)
	fleetPage := filepath.Join("..", "..", "docs/multi-target.md")
	page := readText(t, fleetPage)
	writeDocument(t, fleetPage, page, replacePart(t, page, "fleet-metrics", fleetMetricTable(t)))
}

// pageFaultTable has what can be wrong with the page of xhttp_prom.
func pageFaultTable() string {
	var b strings.Builder
	b.WriteString("| in the log | cause | fix |\n| --- | --- | --- |\n")
	for _, f := range xhttpprom.Faults() {
		fmt.Fprintf(&b, "| %s | %s | %s |\n", f.Seen, f.Cause, f.Fix)
	}
	return b.String()
}

// fleetMetricTable has what the many targets add to the exporter's own metrics.
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

// writeDocument writes what a document should be, with -update, and else checks
// that it is that.
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

// part finds what is between <!-- name --> and <!-- /name -->.
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

// flagModels are the flags that set something.
func flagModels(t *testing.T) []*kingpin.FlagModel {
	t.Helper()
	app := cli.NewApp(&cli.Settings{})
	if _, err := app.ParseContext(nil); err != nil { // names the environment variables
		t.Fatal(err)
	}
	return slices.DeleteFunc(app.Model().Flags, func(f *kingpin.FlagModel) bool {
		return f.Hidden || f.Name == "help" || f.Name == "version"
	})
}

func flagTable(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	b.WriteString("| flag | environment variable | default | meaning |\n| --- | --- | --- | --- |\n")
	for _, f := range flagModels(t) {
		name, byDefault := "--"+f.Name, f.Default
		if f.IsBoolFlag() {
			name = "--[no-]" + f.Name
			if len(byDefault) == 0 {
				byDefault = []string{"false"}
			}
		}
		fmt.Fprintf(&b, "| `%s` | `%s` | %s | %s |\n", name, f.Envar, codes(byDefault), tableCell(f.Help))
	}
	return b.String()
}

func collectorTable(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	b.WriteString("| collector | what it tells | needs | settings |\n| --- | --- | --- | --- |\n")
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

// All that list the collectors list the same.
func TestCollectorsAreNamedEverywhere(t *testing.T) {
	var help bytes.Buffer
	if _, err := cli.Parse([]string{"--help"}, &help); err != nil {
		t.Fatal(err)
	}
	landing := httptest.NewRecorder()
	handlerFor(t).ServeHTTP(landing, httptest.NewRequest(http.MethodGet, "/", nil))
	readme := readText(t, readmeFile)
	begin, end := part(t, readme, "collectors")

	want := collector.Names(collector.All(collector.Options{}))
	for place, found := range map[string][][]string{
		"--help":           regexp.MustCompile(`(?m)^ *--\[no-\]collector\.([a-z_]+)\s`).FindAllStringSubmatch(help.String(), -1),
		"the landing page": regexp.MustCompile(`<td><code>([^<]+)</code></td>`).FindAllStringSubmatch(landing.Body.String(), -1),
		"README.md":        regexp.MustCompile("(?m)^\\| `([^`]+)`").FindAllStringSubmatch(readme[begin:end], -1),
		"docs/metrics.md":  regexp.MustCompile(`(?m)^## ([a-z_]+)$`).FindAllStringSubmatch(readText(t, filepath.Join("..", "..", "docs/metrics.md")), -1),
	} {
		if got := names(found); got != strings.Join(want, " ") {
			t.Errorf("%s has the collectors %s\nwant %s", place, got, strings.Join(want, " "))
		}
	}
}

// The samples that README.md shows are of metrics that exist, with these labels.
func TestReadmeSamples(t *testing.T) {
	labels := map[string]string{"kamailio_exporter_gives_way": ""}
	for _, d := range descs() {
		labels[d.Name] = strings.Join(slices.Sorted(slices.Values(d.Labels)), ",")
	}
	found := regexp.MustCompile("(?m)(?:^|`)(kamailio_[a-z_]+)(?:{(.*)})?(?: [0-9.]+$| [0-9]`|`)").FindAllStringSubmatch(readText(t, readmeFile), -1)
	if len(found) < 10 {
		t.Errorf("only %d samples found", len(found))
	}
	for _, sample := range found {
		want, ok := labels[sample[1]]
		if !ok {
			t.Errorf("%s: there is no such metric", sample[1])
			continue
		}
		var got []string
		for _, l := range regexp.MustCompile(`([a-z_]+)="`).FindAllStringSubmatch(sample[2], -1) {
			got = append(got, l[1])
		}
		// In the text a metric may be named without its labels.
		if len(got) > 0 && strings.Join(got, ",") != want {
			t.Errorf("%s has the labels %s, not %s", sample[1], want, strings.Join(got, ","))
		}
	}
}

// documents are all Markdown files of the repository, by their path in it.
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

// anchors are the targets of links into a Markdown text, as GitHub makes them from
// its headings.
func anchors(text string) []string {
	var all []string
	text = regexp.MustCompile("(?ms)^ *```.*?^ *```$").ReplaceAllString(text, "")
	for _, heading := range regexp.MustCompile(`(?m)^#+ +(.*)$`).FindAllStringSubmatch(text, -1) {
		plain := regexp.MustCompile(`\[([^]]*)\]\([^)]*\)`).ReplaceAllString(strings.ToLower(heading[1]), "$1")
		all = append(all, strings.ReplaceAll(regexp.MustCompile(`[^\pL\pN_ -]`).ReplaceAllString(plain, ""), " ", "-"))
	}
	return all
}

// TestLinks follows every link in the repository's documents to a file of the
// repository, and to a heading of it.
func TestLinks(t *testing.T) { followLinks(t, top) }

func followLinks(t *testing.T, dir string) {
	t.Helper()
	texts := markdownIn(t, dir)
	for name, text := range texts {
		for _, link := range regexp.MustCompile(`\]\(([^)\s]+)\)`).FindAllStringSubmatch(text, -1) {
			file, heading, _ := strings.Cut(link[1], "#")
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

// Flags of other programs that the documents name.
var foreignFlags = map[string]bool{
	"system": true, "no-create-home": true, "shell": true, // useradd
	"now":     true,                                                    // systemctl
	"since":   true,                                                    // journalctl
	"network": true, "group-add": true, "build": true, "volumes": true, // docker
	"address": true, "id": true, "rule-file": true, "query": true, "alertmanagers.url": true, // thanos, mimirtool
}

func TestDocumentedFlagsExist(t *testing.T) {
	models := flagModels(t)
	client := admincli.NewApp(&admincli.Command{}).Model()
	clientFlags := append(client.Flags, assets.NewApp(&assets.Command{}).Model().Flags...)
	for _, command := range client.Commands {
		clientFlags = append(clientFlags, command.Flags...)
	}
	clientFlags = append(clientFlags, doctor.NewApp(&cli.Settings{}, &doctor.Options{}).Model().Flags...)
	exists := func(name string) bool {
		if slices.ContainsFunc(clientFlags, func(f *kingpin.FlagModel) bool { return name == f.Name || f.IsBoolFlag() && name == "no-"+f.Name }) || foreignFlags[name] || name == "help" || name == "version" {
			return true
		}
		return slices.ContainsFunc(models, func(f *kingpin.FlagModel) bool {
			// collector. is what is left of --no-collector.NAME.
			return name == f.Name || f.IsBoolFlag() && name == "no-"+f.Name || name == "no-collector." && strings.HasPrefix(f.Name, "collector.")
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
	env := readText(t, filepath.Join("..", "..", "examples", "systemd", "kamailio-exporter.env"))
	for _, name := range regexp.MustCompile(`KAMAILIO_EXPORTER_[A-Z0-9_]+`).FindAllString(readText(t, readmeFile)+env, -1) {
		if !slices.ContainsFunc(models, func(f *kingpin.FlagModel) bool { return f.Envar == name }) {
			t.Errorf("no flag is set by %s", name)
		}
	}
}

// What README.md says in brackets behind a flag is its default.
func TestDocumentedDefaults(t *testing.T) {
	models := flagModels(t)
	found := regexp.MustCompile("`--([a-z_.-]+)` \\(([0-9.]+)( s)?\\)").FindAllStringSubmatch(readText(t, readmeFile), -1)
	if len(found) == 0 {
		t.Error("no defaults found")
	}
	for _, f := range found {
		i := slices.IndexFunc(models, func(m *kingpin.FlagModel) bool { return m.Name == f[1] })
		if i < 0 {
			continue // TestDocumentedFlagsExist tells
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
			t.Errorf("README.md says that --%s is %s by default, it is %s", f[1], said, is)
		}
	}
}

// The version in VERSION is the one of image and packages in README.md, and CHANGELOG.md
// has an entry for it.
func TestDocumentedVersion(t *testing.T) {
	version := strings.TrimSpace(readText(t, filepath.Join("..", "..", "VERSION")))
	texts := documents(t)
	if !strings.Contains(texts["README.md"], " "+cli.ProgramName+":"+version+"\n") {
		t.Errorf("README.md runs an image that is not of version %s", version)
	}
	for _, name := range []string{"kamailio-exporter_" + version + "-1_amd64.deb", "kamailio-exporter-" + version + "-1.x86_64.rpm"} {
		if !strings.Contains(texts["README.md"], name) {
			t.Errorf("README.md does not install %s", name)
		}
	}
	if !regexp.MustCompile(`(?m)^## .*\b` + regexp.QuoteMeta(version) + `\b`).MatchString(texts["CHANGELOG.md"]) {
		t.Errorf("CHANGELOG.md has no entry for version %s", version)
	}
}
