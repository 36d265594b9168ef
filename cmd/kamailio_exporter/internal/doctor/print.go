package doctor

import (
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// JSON writes the report as JSON.
func (r *Report) JSON(w io.Writer) error {
	out := json.NewEncoder(w)
	out.SetIndent("", "  ")
	out.SetEscapeHTML(false)
	return out.Encode(r)
}

// colours maps the levels and outcomes to terminal colors.
var colours = map[string]string{
	"ok": "\x1b[32m", "note": "\x1b[36m", "warn": "\x1b[33m", "fail": "\x1b[1;31m",
	"healthy": "\x1b[1;32m", "degraded": "\x1b[1;33m", "broken": "\x1b[1;31m",
	"bold": "\x1b[1m", "dim": "\x1b[2m",
}

// lineWidth is the width at which text wraps. Lines to copy do not wrap.
const lineWidth = 79

type printer struct {
	w      io.Writer
	colour bool
}

func (p printer) paint(colour, text string) string {
	if !p.colour {
		return text
	}
	return colours[colour] + text + "\x1b[0m"
}

// Text writes the report as text: the outcome, then the findings.
func (r *Report) Text(w io.Writer, colour bool) {
	p := printer{w, colour}
	p.verdict(r)
	section, restart, last := "", false, []Fix(nil)
	for _, f := range r.Findings {
		if f.section != section {
			section = f.section
			fmt.Fprintln(w, "\n"+p.paint("bold", section))
		}
		if fixes := f.Fixes; len(fixes) > 0 && reflect.DeepEqual(fixes, last) {
			f.Fixes, f.Text = nil, f.Text+" (same fix as above)"
		} else {
			last = fixes
		}
		p.finding(f)
		restart = restart || slices.ContainsFunc(f.Fixes, func(fix Fix) bool { return fix.Where == "kamailio.cfg" })
	}
	if restart {
		fmt.Fprintf(w, "\nAfter a change of kamailio.cfg: kamailio -c, then %s.\n", r.restart)
	}
}

func (p printer) finding(f Finding) {
	const indent = 8
	for i, line := range wrap(plain(f.Text), lineWidth-indent) {
		mark := strings.Repeat(" ", indent)
		if i == 0 {
			mark = "  " + p.paint(string(f.Level), fmt.Sprintf("%-4s", f.Level)) + "  "
		}
		fmt.Fprintln(p.w, mark+line)
	}
	for _, fix := range f.Fixes {
		where := fix.Where
		if fix.Or {
			where = "or " + where
		}
		fmt.Fprintln(p.w, strings.Repeat(" ", indent)+p.paint("dim", where+":"))
		for _, line := range fix.Lines {
			fmt.Fprintln(p.w, strings.Repeat(" ", indent+4)+plain(strings.ReplaceAll(line, "\t", "    ")))
		}
	}
}

func (p printer) verdict(r *Report) {
	counts := map[Level]int{}
	for _, f := range r.Findings {
		counts[f.Level]++
	}
	text := map[Status]string{
		Healthy:  "everything that is configured works",
		Degraded: "fix the lines marked warn",
		Broken:   "fix the lines marked fail first",
	}[r.Status]
	fmt.Fprintf(p.w, "%s (%d ok, %d note, %d warn, %d fail): %s.\n", p.paint(string(r.Status), string(r.Status)), counts[OK], counts[Note], counts[Warn], counts[Fail], text)
}

// plain replaces control characters, since parts of the text are untrusted input.
func plain(text string) string {
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, text)
}

// wrap breaks a text at spaces into lines of at most width runes. A longer word gets its
// own line.
func wrap(text string, width int) (lines []string) {
	line, length := "", 0
	for word := range strings.FieldsSeq(text) {
		n := utf8.RuneCountInString(word)
		if line != "" && length+1+n > width {
			lines = append(lines, line)
			line, length = "", 0
		}
		if line != "" {
			line, length = line+" ", length+1
		}
		line, length = line+word, length+n
	}
	return append(lines, line)
}
