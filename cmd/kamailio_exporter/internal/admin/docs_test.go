package admin

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/action"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/adminapi"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/repair"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
)

var update = flag.Bool("update", false, "rewrite the generated parts of the documents of the admin endpoint")

// catalogue returns the endpoint's catalogue.
func catalogue() *action.Catalogue { return action.NewCatalogue((*repair.Ledger)(nil).Reset(nil)) }

var root = filepath.Join("..", "..", "..", "..")

// TestDocs updates the tables and examples of docs/admin.md and docs/admin-reference.md
// with -update. Otherwise it checks that they match the catalogue and examples/admin.
func TestDocs(t *testing.T) {
	parts := map[string]map[string]string{
		"admin.md":           {},
		"admin-reference.md": {"actions": actionTable(t), "variables": formTable("cfg.set") + "\n" + formTable("secfilter.block")},
	}
	for _, example := range []string{"small-office", "carrier-night-shift", "ci-job"} {
		text, err := os.ReadFile(filepath.Join(root, "examples", "admin", example+".yml"))
		if err != nil {
			t.Fatal(err)
		}
		parts["admin.md"][example] = "```yaml\n" + string(text) + "```\n"
	}
	for name, of := range parts {
		file := filepath.Join(root, "docs", name)
		is, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		want := string(is)
		for part, text := range of {
			want = replacePart(t, want, part, text)
		}
		if want == string(is) {
			continue
		}
		if !*update {
			t.Fatalf("docs/%s is not what the catalogue and examples/admin say: make docs", name)
		}
		if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// Results in docs/admin-reference.md for an action and a version of Kamailio.
const (
	seenVerified   = "verified"
	seenUnverified = "unverified"
	seenNoRPC      = "no such RPC"
)

// outcomesFile holds the observed result on each version, by action.
const outcomesFile = "testdata/outcomes.json"

func recordedOutcomes(t *testing.T) map[string]map[string]string {
	t.Helper()
	outcomes := map[string]map[string]string{}
	text, err := os.ReadFile(outcomesFile)
	if err == nil {
		err = json.Unmarshal(text, &outcomes)
	}
	if err != nil && !*update {
		t.Fatal(err)
	}
	return outcomes
}

// The actions and parameters in runbooks exist in the catalogue.
func TestRunbooksNameActions(t *testing.T) {
	runbooks, err := filepath.Glob(filepath.Join(root, "alerts", "runbooks", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	named := 0
	for _, runbook := range runbooks {
		text, err := os.ReadFile(runbook)
		if err != nil {
			t.Fatal(err)
		}
		for _, found := range regexp.MustCompile("(?:admin run |actions? `)([a-z.-]+)((?: [a-z_]+=[^ `]+)*)").FindAllStringSubmatch(string(text), -1) {
			named++
			a := catalogue().Get(found[1])
			if a == nil {
				t.Errorf("%s names the action %s: there is none", filepath.Base(runbook), found[1])
				continue
			}
			for _, param := range regexp.MustCompile(`([a-z_]+)=`).FindAllStringSubmatch(found[2], -1) {
				if !slices.ContainsFunc(a.Params, func(p action.Param) bool { return p.Name == param[1] }) {
					t.Errorf("%s: %s has no parameter %s", filepath.Base(runbook), found[1], param[1])
				}
			}
		}
	}
	if named < 10 {
		t.Errorf("only %d actions are named", named)
	}
}

func replacePart(t *testing.T, text, name, with string) string {
	t.Helper()
	opening, closing := "<!-- "+name+" -->\n", "<!-- /"+name+" -->\n"
	begin := strings.Index(text, opening) + len(opening)
	end := strings.Index(text, closing)
	if begin < len(opening) || end < begin {
		t.Fatalf("there is no part between %q and %q", opening, closing)
	}
	return text[:begin] + with + text[end:]
}

func actionTable(t *testing.T) string {
	var b strings.Builder
	outcomes := recordedOutcomes(t)
	versions := slices.Sorted(maps.Keys(outcomes))
	fmt.Fprintf(&b, "| action | what it does | parameters | RPC | %s | what verified means | key |\n| --- | --- | --- | --- | %s--- | --- |\n", strings.Join(versions, " | "), strings.Repeat("--- | ", len(versions)))
	for _, a := range catalogue().Actions {
		var params, seen []string
		for _, p := range a.Params {
			params = append(params, "`"+p.Name+"` "+bounds(p))
		}
		method, verified, key := "`"+a.Method+"`", a.Verified, ""
		for _, version := range versions {
			word := outcomes[version][a.Name]
			if a.Local != nil {
				word = seenVerified
			} else if word == "" {
				t.Errorf("%s was not seen on %s", a.Name, version)
			}
			seen = append(seen, word)
		}
		if a.NeedsKey {
			key = "yes"
		}
		switch {
		case a.Local != nil:
			method, verified = "none", "its own state is as asked"
		case a.Look == nil:
			verified = "never: " + verified
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s | %s | %s |\n", a.Name, a.Summary, strings.Join(params, ", "), method, strings.Join(seen, " | "), verified, key)
	}
	return b.String()
}

// formTable lists the forms of a parameter that depend on another one.
func formTable(name string) string {
	var b strings.Builder
	a := catalogue().Get(name)
	for _, p := range a.Params {
		by := slices.IndexFunc(a.Params, func(o action.Param) bool { return o.Name == p.By })
		if by < 0 {
			continue
		}
		fmt.Fprintf(&b, "| `%s`: `%s` | `%s` |\n| --- | --- |\n", name, p.By, p.Name)
		for _, value := range a.Params[by].Enum {
			fmt.Fprintf(&b, "| `%s` | %s |\n", value, p.Forms[value])
		}
	}
	return b.String()
}

func bounds(p action.Param) string {
	if p.By != "" {
		return "by `" + p.By + "`, see below"
	}
	switch p.Type {
	case adminapi.Int:
		if p.Max >= 1<<31-1 {
			return "int"
		}
		return fmt.Sprintf("%d to %d", p.Min, p.Max)
	case adminapi.Enum:
		if len(p.Enum) > 6 {
			return "see below"
		}
		return strings.Join(p.Enum, ", ")
	}
	return string(p.Type)
}

// The examples are valid configurations, apart from the files that they name.
func TestExamples(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(root, "examples", "admin", "*.yml"))
	if err != nil || len(files) != 3 {
		t.Fatalf("%q: %v", files, err)
	}
	files = append(files, filepath.Join(root, "examples", "admin", "repair", "admin.yml"))
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		cfg, err := Parse(text)
		if err != nil || cfg == nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		var grants bytes.Buffer
		if err := PrintGrants(&grants, cfg); err != nil || grants.Len() == 0 {
			t.Errorf("%s: %v", file, err)
		}
	}
}

// Every row of the catalogue is complete, and every change of the cost table is in it.
func TestCatalogue(t *testing.T) {
	methods := map[string]bool{"htable.setxi": true} // used by the engine for the lease only
	for _, a := range catalogue().Actions {
		name := a.Name
		methods[a.Method] = true
		if a.Summary == "" || !strings.HasSuffix(a.Summary, ".") {
			t.Errorf("%s: summary %q", name, a.Summary)
		}
		if (a.Local == nil) != (a.Verified != "") {
			t.Errorf("%s: what does verified mean?", name)
		}
		if !plainPath.MatchString("/v1/actions/" + name) {
			t.Errorf("%s is no path", name)
		}
		for _, p := range a.Params {
			if p.Help == "" {
				t.Errorf("%s: %s has no help", name, p.Name)
			}
			if p.Type == adminapi.String && p.MaxLen == 0 || p.Type == adminapi.Int && p.Min >= p.Max || p.Type == adminapi.Enum && len(p.Enum) == 0 {
				t.Errorf("%s: %s has no bounds", name, p.Name)
			}
		}
	}
	for _, p := range kamrpc.PriceList() {
		if p.Effect != kamrpc.Read && !methods[p.Method] {
			t.Errorf("%s is in the cost table, and no action calls it", p.Method)
		}
	}
	for _, never := range []string{"core.kill", "cfg.set_now_string", "cfg.sets", "jsonrpc.exec", "corex.shm_status", "mqueue.add", "uac.reg_dump", "uac.reg_add", "tls.kill", "dispatcher.add", "dispatcher.remove", "ul.add", "ul.flush", "htable.dump"} {
		if methods[never] {
			t.Errorf("%s is in the catalogue", never)
		}
	}
}
