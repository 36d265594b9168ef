package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// refused are words that no operator searches for, with replacements. It has only words
// that are wrong everywhere in our texts.
var refused = []struct{ word, instead string }{
	{`anew`, "again; reload"},
	{`mend(s|ed|ing)?`, "fix"},
	{`tells|is told|are told`, "reports, shows, exports"},
	{`(asks?|asked|asking) Kamailio|is asked (for|at)|are asked (for|at)|asked for again`, "query, call"},
	{`(too|is|are) dear`, "expensive"},
	{`ways? to (ask|Kamailio)`, "transport, URI"},
	{`(is|are) no samples?`, "is omitted, is not exported"},
	{`(held|kept) back`, "skipped; subtracted from"},
	{`gives? way|giving way`, "runs at idle priority"},
	{`foreign data`, "untrusted input"},
	{`nobody`, "no client, no user"},
	{`under way`, "in progress"},
	{`no such thing`, "name it"},
	{`time-outs?`, "timeout"},
	{`price lists?`, "cost table"},
	{`(taken|took|takes?) (it )?back`, "undone, undo"},
	{`answers? well`, "replies with success"},
	{`(at a time|while) it races|when it races`, "during"},
	{`: want|want an object`, "must be, must have, give"},
	{`is none of|is no (number|text|URI|port|change|name)`, "is not a"},
	{`known are|there are ever`, "the collectors are"},
	{`say (enabled|which values|in )`, "set, list"},
	{`asked (once|only|from|without|safely)|is asked`, "called, queried"},
	{`could be had|more to be had`, "could be added"},
	{`may not be as it is`, "say it in other words"},
	{`licences?|colours?|behaviours?|favour|centres?|labelled|(initial|recogn|organ|summar)is(e|ed|es|ing|able)`, "American spelling"},
}

// TestWords finds refused words in documents, alerts, runbooks, and the strings of the
// program: help texts, log messages, errors and replies. `make lint` runs it.
func TestWords(t *testing.T) {
	if raceDetector {
		t.Skip("SKIPPED under the race detector: make lint, which make test runs, reads the texts without it")
	}
	texts := map[string]map[string]string{"documents": {}, "runbooks": {}, "rules": {}}
	generated := regexp.MustCompile(`(?s)<!-- ([a-z_-]+) -->\n.*?<!-- /[a-z_-]+ -->`)
	code := regexp.MustCompile("(?s)```.*?```|`[^`\n]*`")
	for name, text := range documents(t) {
		kind := "documents"
		if strings.HasPrefix(name, "alerts/runbooks/") {
			kind = "runbooks"
		}
		if name != "docs/metrics.md" { // generated from the strings of the program
			texts[kind][name] = code.ReplaceAllString(generated.ReplaceAllString(text, ""), "")
		}
	}
	for _, name := range []string{"kamailio-alerts.yml", "kamailio-admin-alerts.yml", "kamailio-rules.yml"} {
		texts["rules"]["alerts/"+name] = readText(t, filepath.Join(top, "alerts", name))
	}
	texts["examples"] = map[string]string{}
	err := fs.WalkDir(os.DirFS(top), "examples", func(name string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && filepath.Ext(name) != ".md" && !strings.HasPrefix(name, "examples/kubernetes/rules/") {
			texts["examples"][name] = readText(t, filepath.Join(top, name))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	texts["Go strings"] = goStrings(t, ".")
	for kind, files := range texts {
		for name, text := range files {
			for _, r := range refused {
				for _, at := range regexp.MustCompile(`(?i)\b(`+r.word+`)\b`).FindAllStringIndex(text, -1) {
					around := text[max(0, at[0]-30):min(len(text), at[1]+30)]
					t.Errorf("%s: %q: write %s", name, around, r.instead)
				}
			}
		}
		if len(files) == 0 {
			t.Errorf("no %s", kind)
		}
	}
}

// goStrings returns the strings of the program that are sentences, by file.
func goStrings(t *testing.T, dir string) map[string]string {
	t.Helper()
	texts := map[string]string{}
	err := fs.WalkDir(os.DirFS(top), dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") || strings.Contains(name, "kamrpctest") {
			return err
		}
		texts[name] = literals(t, filepath.Join(top, name))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return texts
}

// literals returns the string literals of one Go file.
func literals(t *testing.T, file string) string {
	t.Helper()
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	ast.Inspect(parsed, func(node ast.Node) bool {
		if l, ok := node.(*ast.BasicLit); ok && l.Kind == token.STRING && strings.Contains(l.Value, " ") {
			b.WriteString(l.Value + "\n")
		}
		return true
	})
	return b.String()
}
