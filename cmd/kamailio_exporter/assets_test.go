package main

import (
	"bytes"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	embedded "github.com/kamailio-exporter/kamailio_exporter"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/assets"
)

const top = "../.."

// notAssets are files that are not needed by users who only have the program.
var notAssets = map[string]string{
	"alerts/tests":               "our tests of the rules",
	"dashboards/README.md":       "shows pictures that are not embedded",
	"dashboards/generate":        "makes the dashboards",
	"dashboards/mixin":           "imports files of a checkout",
	"dashboards/screenshots":     "large; README.md shows two of them",
	"examples/compose":           "builds the image of a checkout",
	"examples/demo":              "runs in a checkout",
	"examples/kamailio/data.sql": "of the demo",
	"examples/kubernetes/chart":  "has links to other files",
}

// TestAssetsEqualTheRepository checks that the program contains each file of these
// folders unchanged, except those above.
func TestAssetsEqualTheRepository(t *testing.T) {
	names, err := assets.Names()
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	unused := maps.Clone(notAssets)
	for _, root := range []string{"CHANGELOG.md", "README.md", "SECURITY.md", "alerts", "dashboards", "docs", "examples"} {
		err := fs.WalkDir(os.DirFS(top), root, func(name string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if _, left := notAssets[name]; left {
				delete(unused, name)
				if d.IsDir() {
					return fs.SkipDir
				}
				return nil
			}
			if !d.IsDir() {
				want = append(want, name)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	// Used in README.md.
	want = append(want, "dashboards/screenshots/overview-incident.png", "dashboards/screenshots/trunks.png")
	slices.Sort(want)
	for name := range unused {
		t.Errorf("%s is left out, and there is no such thing", name)
	}
	if !slices.Equal(names, want) {
		for _, name := range want {
			if !slices.Contains(names, name) {
				t.Errorf("%s is not embedded: see assets.go, or say here why not", name)
			}
		}
		t.Fatalf("embedded are\n%s\nand there are\n%s", strings.Join(names, "\n"), strings.Join(want, "\n"))
	}
	for _, name := range names {
		sameAsInTree(t, name, func() ([]byte, error) { return embedded.Files.ReadFile(name) })
	}
}

func sameAsInTree(t *testing.T, name string, read func() ([]byte, error)) {
	t.Helper()
	is, err := read()
	if err != nil {
		t.Error(err)
		return
	}
	if want := readText(t, filepath.Join(top, name)); string(is) != want {
		t.Errorf("%s is not what is in the tree", name)
	}
}

func runAssets(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	err := run(t.Context(), append([]string{"assets"}, args...), &out, &out)
	return out.String(), err
}

func TestAssets(t *testing.T) {
	names, err := assets.Names()
	if err != nil {
		t.Fatal(err)
	}
	listed, err := runAssets(t, "--list")
	if err != nil || listed != strings.Join(names, "\n")+"\n" {
		t.Errorf("--list: %v\n%s", err, listed)
	}
	dir := filepath.Join(t.TempDir(), "new", "folder")
	out, err := runAssets(t, "--output-dir", dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		sameAsInTree(t, name, func() ([]byte, error) { return os.ReadFile(filepath.Join(dir, name)) })
	}
	if want := fmt.Sprintf(" in %s: %d files written, 0 overwritten, 0 unchanged\n", dir, len(names)); !strings.HasSuffix(out, want) || strings.Count(out, "\n") != 1 {
		t.Errorf("%s is printed, not %s", out, want)
	}
	files := 0
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			files++
		}
		return err
	})
	if err != nil || files != len(names) {
		t.Errorf("%d files written, not %d (%v)", files, len(names), err)
	}
	followLinks(t, dir)
	if out, err := runAssets(t, "--output-dir", dir); err != nil || strings.Count(out, "\n") != 1 || !strings.Contains(out, " 0 files written, 0 overwritten") {
		t.Errorf("the second time: %v\n%s", err, out)
	}

	// A changed file is kept, and then no file is written.
	const changed, gone = "alerts/kamailio-alerts.yml", "examples/systemd/kamailio-exporter.env"
	if err := os.WriteFile(filepath.Join(dir, changed), []byte("mine\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, gone)); err != nil {
		t.Fatal(err)
	}
	_, err = runAssets(t, "--output-dir", dir)
	if err == nil || !strings.Contains(err.Error(), changed) || !strings.Contains(err.Error(), "--force") || strings.Contains(err.Error(), gone) {
		t.Errorf("over a changed file: %v", err)
	}
	if text := readText(t, filepath.Join(dir, changed)); text != "mine\n" {
		t.Error("the changed file is overwritten")
	}
	if _, err := os.Stat(filepath.Join(dir, gone)); err == nil {
		t.Error("a file is written although another could not be")
	}
	out, err = runAssets(t, "--output-dir", dir, "--force")
	if err != nil || !strings.Contains(out, " 1 files written, 1 overwritten") {
		t.Errorf("--force: %v\n%s", err, out)
	}
	for _, name := range []string{changed, gone} {
		sameAsInTree(t, name, func() ([]byte, error) { return os.ReadFile(filepath.Join(dir, name)) })
	}
}

func TestAssetsRefuses(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	outside := t.TempDir()
	linked := t.TempDir()
	if err := os.Symlink(outside, filepath.Join(linked, "alerts")); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		args []string
		want string
	}{
		"nowhere":          {nil, "--output-dir"},
		"a file":           {[]string{"--output-dir", file}, "--output-dir: "},
		"an external link": {[]string{"--output-dir", linked}, "--output-dir: "},
		"unknown flag":     {[]string{"--all"}, "assets --help"},
		"an argument":      {[]string{"here"}, "assets --help"},
	} {
		if _, err := runAssets(t, test.args...); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if entries, err := os.ReadDir(outside); err != nil || len(entries) > 0 {
		t.Errorf("written through a link: %v %v", entries, err)
	}
	if out, err := runAssets(t, "--help"); err != nil || strings.Count(out, "--output-dir") != 1 {
		t.Errorf("--help: %v\n%s", err, out)
	}
}
