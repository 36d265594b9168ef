package main

import (
	"fmt"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	migrationData = filepath.Join("testdata", "migration.tsv")
	migratingFile = filepath.Join("..", "..", "docs/migrating.md")
)

// migration maps a metric of another exporter to metrics of this one.
type migration struct{ exporter, theirs, ours, differs string }

func migrations(t *testing.T) []migration {
	t.Helper()
	var all []migration
	for line := range strings.Lines(readText(t, migrationData)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		fields := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		for len(fields) < 4 {
			fields = append(fields, "")
		}
		all = append(all, migration{fields[0], fields[1], fields[2], fields[3]})
	}
	if len(all) < 200 {
		t.Fatalf("only %d metrics in %s", len(all), migrationData)
	}
	return all
}

func migrationTable(all []migration, exporter string) string {
	var b strings.Builder
	b.WriteString("| theirs | here | what differs |\n| --- | --- | --- |\n")
	for _, m := range all {
		if m.exporter != exporter {
			continue
		}
		theirs := m.theirs
		name, remark, found := strings.Cut(theirs, " (")
		switch {
		case strings.HasPrefix(theirs, "the "):
		case found:
			theirs = "`" + name + "` (" + remark
		default:
			theirs = codes(strings.Split(theirs, ", "))
		}
		ours := m.ours
		if strings.HasPrefix(ours, "the same") {
			ours = strings.ReplaceAll(ours, "--xhttp_prom.url", "`--xhttp_prom.url`")
		} else {
			ours = codes(strings.Split(ours, "; "))
		}
		fmt.Fprintf(&b, "| %s | %s | %s |\n", theirs, ours, tableCell(m.differs))
	}
	return b.String()
}

// exported returns all metrics of this exporter with their labels.
func exported(t *testing.T) map[string][]string {
	t.Helper()
	labels := map[string][]string{}
	for _, d := range descs() {
		labels[d.Name] = d.Labels
	}
	for _, f := range ownMetrics(t) {
		labels[f.GetName()] = nil
		for _, l := range f.GetMetric()[0].GetLabel() {
			labels[f.GetName()] = append(labels[f.GetName()], l.GetName())
		}
	}
	return labels
}

var named = regexp.MustCompile(`\b(kamailio_[a-z0-9_]*[a-z0-9])\b(?:\{([^}]*)\})?`)

// wrongNames returns the metrics of this exporter in a text that do not exist, or have
// other labels.
func wrongNames(exported map[string][]string, text string) (wrong []string) {
	for _, m := range named.FindAllStringSubmatch(text, -1) {
		labels, ok := exported[m[1]]
		if !ok {
			wrong = append(wrong, m[1]+" does not exist")
			continue
		}
		for l := range strings.SplitSeq(m[2], ",") {
			if end := strings.IndexAny(l, "=!"); end >= 0 { // a matcher
				l = l[:end]
			}
			if l = strings.TrimSpace(l); l != "" && !slices.Contains(labels, l) {
				wrong = append(wrong, fmt.Sprintf("%s has no label %s, but %s", m[1], l, strings.Join(labels, ",")))
			}
		}
	}
	return wrong
}

// TestMigratingDocs writes the tables of docs/migrating.md with -update; otherwise it
// checks them, and that all metrics of this exporter in them exist.
func TestMigratingDocs(t *testing.T) {
	all := migrations(t)
	text := readText(t, migratingFile)
	exporters := map[string]bool{}
	exported := exported(t)
	theirs := map[string]bool{}
	for _, m := range all {
		exporters[m.exporter] = true
		for _, found := range named.FindAllStringSubmatch(m.theirs, -1) {
			theirs[found[1]] = true
		}
		if m.ours == "" && !strings.HasPrefix(m.differs, "Not there") && !strings.HasPrefix(m.differs, "Let Prometheus") {
			t.Errorf("%s: %s has no match, and nothing says why", m.exporter, m.theirs)
		}
	}
	for name := range theirs { // a remark may name one of their metrics
		if _, ok := exported[name]; ok {
			delete(theirs, name)
		}
	}
	for _, m := range all {
		for _, wrong := range wrongNames(exported, m.ours) {
			t.Errorf("%s: %s: %s", m.exporter, m.theirs, wrong)
		}
		for _, wrong := range wrongNames(exported, m.differs) {
			if !theirs[strings.TrimSuffix(wrong, " does not exist")] {
				t.Errorf("%s: %s: %s", m.exporter, m.theirs, wrong)
			}
		}
	}
	want := text
	for _, exporter := range slices.Sorted(maps.Keys(exporters)) {
		want = replacePart(t, want, exporter, migrationTable(all, exporter))
	}
	writeDocument(t, migratingFile, text, want)
}

// TestFlagsOfOtherExporters checks that each flag of another exporter is either a flag here, or
// gives an error with a suggestion.
func TestFlagsOfOtherExporters(t *testing.T) {
	_, text, _ := strings.Cut(readText(t, filepath.Join(docsDir, "migrating.md")), "\n## Flags\n")
	text, _, _ = strings.Cut(text, "\n## ")
	found := 0
	for _, row := range regexp.MustCompile(`(?m)^\| ([^|]*) \|`).FindAllStringSubmatch(text, -1) {
		for _, flag := range regexp.MustCompile("--([A-Za-z][A-Za-z_.-]+)").FindAllStringSubmatch(row[1], -1) {
			_, err := settings(flag[0] + "=x")
			if err != nil && strings.Contains(err.Error(), "unknown long flag") && !strings.Contains(err.Error(), "it belongs to another exporter; here it is ") {
				t.Errorf("%s: %v", flag[0], err)
			}
			found++
		}
	}
	if found < 20 {
		t.Errorf("only %d flags found", found)
	}
}
