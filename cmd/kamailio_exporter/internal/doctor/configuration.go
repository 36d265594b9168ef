package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// configurationReader reads kamailio.cfg with the files that it includes, and skips the
// branches that its conditions exclude, as Kamailio does (core/cfg.lex, core/ppcfg.c).
type configurationReader struct {
	defined map[string]bool
	// conditions are those around the current line, outermost first.
	conditions []condition
	files      int
	text       strings.Builder
}

// condition is an #!ifdef or a similar directive. If it is unknown, both branches are
// read.
type condition struct{ holds, unknown bool }

var (
	blockComment  = regexp.MustCompile(`(?s)/\*.*?\*/`)
	includeLine   = regexp.MustCompile(`^[ \t]*(?:#!|!!)?(include_file|import_file)[ \t]+"([^"\n]+)"`)
	directiveLine = regexp.MustCompile(`^[ \t]*(?:#!|!!)(define|def|trydefine|trydef|redefine|redef|undef|substdefs?|ifdef|ifndef|ifexp|else|endif)\b[ \t]*"?([^\s"]*)`)
	moduleLine    = regexp.MustCompile(`^[ \t]*loadmodule(?:x)?[ \t(]*"([^"\n]+)"`)
)

// readConfiguration reads the file and all files that it includes. defined are the names
// that the command line and Kamailio itself define.
func readConfiguration(file string, defined []string) (string, error) {
	r := &configurationReader{defined: map[string]bool{}}
	for _, name := range defined {
		r.defined[name] = true
	}
	err := r.read(file)
	return r.text.String(), err
}

func (r *configurationReader) read(file string) error {
	const mostFiles, mostBytes = 100, 4 << 20
	if r.files++; r.files > mostFiles { // a file may include itself
		return fmt.Errorf("more than %d files", mostFiles)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if len(text) > mostBytes {
		return fmt.Errorf("%s is larger than %d bytes", file, mostBytes)
	}
	for line := range strings.Lines(blockComment.ReplaceAllString(string(text), "")) {
		if found := directiveLine.FindStringSubmatch(line); found != nil {
			r.obey(found[1], found[2])
			continue
		}
		if !r.reading() {
			continue
		}
		if found := includeLine.FindStringSubmatch(line); found != nil {
			if err := r.include(file, found[2]); err != nil && (found[1] != "import_file" || !errors.Is(err, fs.ErrNotExist)) {
				return err
			}
			continue
		}
		if found := moduleLine.FindStringSubmatch(line); found != nil {
			r.defined["MOD_"+strings.TrimSuffix(filepath.Base(found[1]), ".so")] = true
		}
		r.text.WriteString(line)
	}
	return nil
}

func (r *configurationReader) include(from, file string) error {
	if !filepath.IsAbs(file) {
		file = filepath.Join(filepath.Dir(from), file)
	}
	return r.read(file)
}

// reading reports whether all conditions include the current line.
func (r *configurationReader) reading() bool {
	for _, c := range r.conditions {
		if !c.holds && !c.unknown {
			return false
		}
	}
	return true
}

// obey executes a directive.
func (r *configurationReader) obey(directive, argument string) {
	last := len(r.conditions) - 1
	switch directive {
	case "ifdef", "ifndef":
		r.conditions = append(r.conditions, condition{holds: r.defined[argument] == (directive == "ifdef")})
	case "ifexp":
		r.conditions = append(r.conditions, condition{unknown: true})
	case "else":
		if last >= 0 {
			r.conditions[last].holds = !r.conditions[last].holds
		}
	case "endif":
		if last >= 0 {
			r.conditions = r.conditions[:last]
		}
	case "undef":
		if r.reading() {
			delete(r.defined, argument)
		}
	case "substdef", "substdefs": // "!NAME!value!g", with any separator
		if parts := strings.SplitN(argument, argument[:min(1, len(argument))], 3); len(parts) == 3 && r.reading() {
			r.defined[parts[1]] = true
		}
	default:
		if r.reading() {
			r.defined[argument] = true
		}
	}
}

// predefined returns the names that Kamailio defines from its version.
func (p *patient) predefined() []string {
	var names []string
	parts := strings.Split(p.version, ".")
	for i := range parts {
		names = append(names, "KAMAILIO_"+strings.Join(parts[:i+1], "_"))
	}
	return names
}
