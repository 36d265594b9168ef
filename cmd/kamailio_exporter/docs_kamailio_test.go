//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/kamailio-exporter/kamailio_exporter/kamrpc/kamrpctest/kamailiotest"
)

// block is a fenced code block of a document.
type block struct{ document, language, text string }

func blocks(t *testing.T) (all []block) {
	t.Helper()
	for document, text := range documents(t) {
		for _, found := range regexp.MustCompile("(?ms)^( *)```([a-z0-9. ]*)\n(.*?)^ *```$").FindAllStringSubmatch(text, -1) {
			all = append(all, block{document, found[2], strings.ReplaceAll("\n"+found[3], "\n"+found[1], "\n")[1:]})
		}
	}
	return all
}

// TestDocumentedConfigurations checks that Kamailio accepts every snippet of kamailio.cfg
// in the documents, in a configuration that loads the modules that it needs.
func TestDocumentedConfigurations(t *testing.T) {
	versions := kamailiotest.AllVersions(t)
	checked := 0
	for _, b := range blocks(t) {
		language, only, _ := strings.Cut(b.language, " ")
		if language != "kamailio" {
			if regexp.MustCompile(`(?m)^(loadmodule|modparam|request_route|event_route)\b`).MatchString(b.text) {
				t.Errorf("%s: call this block kamailio, so that it is checked:\n%s", b.document, b.text)
			}
			continue
		}
		checked++
		// kamailio -c reads the configuration from its standard input, so included files
		// must be inserted.
		config := strings.ReplaceAll(b.text, `include_file "kamailio-trunks.cfg"`, readText(t, filepath.Join(top, "examples", "kamailio", "kamailio-trunks.cfg")))
		for _, m := range regexp.MustCompile(`modparam\("(\w+)"`).FindAllStringSubmatch(b.text, -1) {
			config = loaded(config, m[1])
		}
		for _, name := range []string{"tm", "sl", "rr", "pv", "textops", "siputils", "xlog", "xhttp", "jsonrpcs", "dialog"} {
			if name == "dialog" && !strings.Contains(config, "dlg_") || name == "xhttp" && !strings.Contains(config, "xhttp") || name == "jsonrpcs" && !strings.Contains(config, "jsonrpc") {
				continue
			}
			config = loaded(config, name)
		}
		if !strings.Contains(config, "route {") && !strings.Contains(config, "event_route") && regexp.MustCompile(`(?m)^\s*(if \(|\w+\(.*\);)`).MatchString(config) { // the inside of a route
			loads := regexp.MustCompile(`(?m)^(loadmodule|modparam).*\n`)
			config = strings.Join(loads.FindAllString(config, -1), "") + "request_route {\n" + loads.ReplaceAllString(config, "") + "}\n"
		} else if !strings.Contains(config, "request_route {") {
			config += "request_route { exit; }\n"
		}
		for _, version := range versions {
			if version < only {
				continue
			}
			if err := kamailiotest.CheckConfig(t, version, "#!KAMAILIO\n"+config); err != nil {
				t.Errorf("%s: %v\n%s", b.document, err, config)
			}
		}
	}
	if checked < 10 {
		t.Errorf("only %d snippets are checked", checked)
	}
}

// loaded returns a configuration that loads this module, at the top unless it already
// does.
func loaded(config, module string) string {
	if line := fmt.Sprintf("loadmodule %q\n", module+".so"); !strings.Contains(config, line) {
		return line + config
	}
	return config
}

// followed are the documents whose commands are run here, in order.
var followed = []string{"README.md", "docs/getting-started.md", "docs/configuration.md", "docs/troubleshooting.md"}

// elsewhere matches commands that .ci/packages/test.sh runs, or that need systemd.
var elsewhere = regexp.MustCompile(`^(apt|systemctl reload|journalctl) `)

// exitCodes are the exit codes of commands that are expected to fail.
var exitCodes = map[string]int{
	"kamailio_exporter rpc ul.lookup location s:alice@example.com  # exit code 3 if alice is not registered": 3,
}

// TestDocumentedCommands runs the shell commands of these documents on a host with a
// Kamailio with Debian's configuration, and compares their output with the documents.
func TestDocumentedCommands(t *testing.T) {
	for _, version := range kamailiotest.Versions(t) {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			server := kamailiotest.Start(t, kamailiotest.Config{Version: version, Stock: true})
			uris := "unix://" + server.SocketPath + "\nfifo://" + server.FIFOPath
			e := start(t, "--kamailio.uri=unix://"+server.SocketPath, "--kamailio.uri=fifo://"+server.FIFOPath, "--scrape.reuse=0s")
			dir := t.TempDir()
			program := filepath.Join(dir, "kamailio_exporter")
			if err := os.WriteFile(program, []byte("#!/bin/sh\nKAMAILIO_EXPORTER_TEST_MAIN=1 exec "+os.Args[0]+" \"$@\"\n"), 0o755); err != nil {
				t.Fatal(err)
			}
			places := strings.NewReplacer(
				"http://127.0.0.1:9494", e.url, "/etc/prometheus", dir, "--output-dir=kamailio-assets", "--output-dir="+filepath.Join(dir, "assets"),
				"/etc/default/kamailio-exporter", filepath.Join(top, "examples", "systemd", "kamailio-exporter.env"),
			)
			ran := 0
			for _, document := range followed {
				ran += follow(t, document, places, server, []string{
					"PATH=" + dir + ":" + os.Getenv("PATH"), "KAMAILIO_EXPORTER_KAMAILIO_URI=" + uris, "KAMAILIO_EXPORTER_WEB_LISTEN_ADDRESS=127.0.0.1:0",
				}, filepath.Join(dir, "prometheus.yml"))
			}
			if ran < 12 {
				t.Errorf("only %d commands were run", ran)
			}
		})
	}
}

// follow runs the commands of a document, and returns how many it ran.
func follow(t *testing.T, document string, places *strings.Replacer, server *kamailiotest.Server, env []string, prometheusYML string) (ran int) {
	t.Helper()
	output := ""
	for _, b := range blocks(t) {
		if b.document != document {
			continue
		}
		switch {
		case b.language == "yaml" && strings.Contains(b.text, "rule_files:"):
			if err := os.WriteFile(prometheusYML, []byte(places.Replace(b.text)), 0o600); err != nil {
				t.Fatal(err)
			}
		case b.language == "sh":
			output = ""
			for command := range strings.Lines(b.text) {
				switch command = strings.TrimSpace(command); {
				case elsewhere.MatchString(command):
				case command == "systemctl stop kamailio":
					server.Stop()
				case command == "systemctl start kamailio":
					server.Restart()
				default:
					cmd := exec.CommandContext(t.Context(), "sh", "-ec", places.Replace(command))
					cmd.Env = env
					out, err := cmd.CombinedOutput()
					code := 0
					if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
						code = exit.ExitCode()
					} else if err != nil {
						t.Fatal(err)
					}
					if code != exitCodes[command] {
						t.Errorf("%s: %s ends with %d: %s", document, command, code, out)
					}
					output += string(out)
					ran++
				}
			}
		case b.language == "" && output != "":
			masked := regexp.MustCompile(`(version|compiler)="[^"]*"`)
			printed := strings.Split(masked.ReplaceAllString(output, "$1"), "\n")
			for line := range strings.Lines(masked.ReplaceAllString(b.text, "$1")) {
				if strings.HasPrefix(line, "kamailio_") && !slices.Contains(printed, strings.TrimSpace(line)) {
					t.Errorf("%s shows %q, and printed is\n%s", document, line, output)
				}
			}
			output = ""
		}
	}
	return ran
}
