// Package assets implements the command assets, which writes the documents, dashboards,
// rules and examples of this version.
package assets

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"github.com/alecthomas/kingpin/v2"
	"github.com/prometheus/common/version"

	files "github.com/kamailio-exporter/kamailio_exporter"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/cli"
)

// command has the flags of the command.
type command struct {
	dir   string
	list  bool
	force bool
}

// Declare declares the assets command.
func Declare(app *kingpin.Application) cli.Run {
	c := &command{}
	cmd := cli.NewCommand(app, "assets", "Write the Grafana dashboards, the rules with their runbooks, the documentation and the example configurations of exactly this version.")
	cmd.Flag("output-dir", "Directory to write to. It is created if it does not exist.").PlaceHolder("DIR").StringVar(&c.dir)
	cmd.Flag("list", "List the files, and write nothing.").BoolVar(&c.list)
	cmd.Flag("force", "Overwrite existing files that differ.").BoolVar(&c.force)
	return func(_ context.Context, _ string, stdout, _ io.Writer) error { return c.run(stdout) }
}

func (c *command) run(stdout io.Writer) error {
	if !c.list && c.dir == "" {
		return errors.New("no directory given: add --output-dir=DIR, or --list to see the files")
	}
	names, err := Names()
	if err != nil {
		return err
	}
	if c.list {
		_, err := fmt.Fprintln(stdout, strings.Join(names, "\n"))
		return err
	}
	return c.write(names, stdout)
}

// Names returns the names of the files in alphabetical order, with slashes.
func Names() ([]string, error) {
	var names []string
	err := fs.WalkDir(files.Files, ".", func(name string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			names = append(names, name)
		}
		return err
	})
	return names, err
}

// write checks all files before it writes the first one, so that a conflict leaves the
// directory unchanged.
func (c *command) write(names []string, stdout io.Writer) error {
	if err := os.MkdirAll(c.dir, 0o755); err != nil { //nolint:gosec // Grafana and Prometheus read there
		return fmt.Errorf("--output-dir: %w", err)
	}
	dir, err := os.OpenRoot(c.dir) // no symbolic link can lead out of it
	if err != nil {
		return fmt.Errorf("--output-dir: %w", err)
	}
	defer dir.Close()

	var missing, differ []string
	for _, name := range names {
		want, err := files.Files.ReadFile(name)
		if err != nil {
			return err
		}
		switch is, err := dir.ReadFile(name); {
		case errors.Is(err, fs.ErrNotExist):
			missing = append(missing, name)
		case err != nil:
			return fmt.Errorf("--output-dir: %w", err)
		case !bytes.Equal(is, want):
			differ = append(differ, name)
		}
	}
	if len(differ) > 0 && !c.force {
		return fmt.Errorf("nothing was written, because files in %s differ from those of this version: %s; --force overwrites them", c.dir, strings.Join(differ, ", "))
	}
	for _, name := range append(missing, differ...) {
		if err := writeAsset(dir, name); err != nil {
			return err
		}
	}
	_, err = fmt.Fprintf(stdout, "version %s in %s: %d files written, %d overwritten, %d unchanged\n",
		version.Version, c.dir, len(missing), len(differ), len(names)-len(missing)-len(differ))
	return err
}

// writeAsset renames a file into place once it is complete, so that a Prometheus that
// reloads meanwhile reads either the old file or the new one.
func writeAsset(dir *os.Root, name string) error {
	text, err := files.Files.ReadFile(name)
	if err != nil {
		return err
	}
	if err := dir.MkdirAll(path.Dir(name), 0o755); err != nil {
		return fmt.Errorf("--output-dir: %w", err)
	}
	part := name + ".part"
	err = dir.WriteFile(part, text, 0o644)
	if err == nil {
		err = dir.Rename(part, name)
	}
	if err != nil {
		_ = dir.Remove(part)
		return fmt.Errorf("--output-dir: %w", err)
	}
	return nil
}
