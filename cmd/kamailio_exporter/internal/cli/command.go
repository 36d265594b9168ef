package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/alecthomas/units"
	"github.com/prometheus/common/version"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/conf"
)

// Run executes a command whose flags are parsed. name includes the subcommand, as in
// "admin list".
type Run func(ctx context.Context, name string, stdout, stderr io.Writer) error

// NewApp returns the command line without its commands.
func NewApp() *kingpin.Application {
	app := kingpin.New(ProgramName, "Prometheus exporter for the Kamailio SIP server. Without a command it serves metrics, and the flags below apply. Each of these flags can also be set in the environment, for example --kamailio.uri as "+uriVariable+"; write the values of a repeatable flag on separate lines.")
	app.HelpFlag.Short('h').Help("Show help.")
	app.Version(version.Print(ProgramName))
	app.UsageTemplate(usageTemplate)
	app.UsageFuncs(map[string]any{
		"Groups": func(flags []*kingpin.FlagModel) []FlagGroup {
			for _, f := range flags {
				f.Envar = "" // all variables follow one rule, which the application's help explains
			}
			return GroupFlags(flags)
		},
		"Columns": func(commands []*kingpin.CmdModel) (rows [][2]string) {
			for _, c := range commands {
				first, _, _ := strings.Cut(c.Help, ". ")
				rows = append(rows, [2]string{c.Name, strings.TrimSuffix(first, ".") + "."})
			}
			return rows
		},
	})
	return app
}

// NewCommand adds a command. Its help ends with its exit codes.
func NewCommand(app *kingpin.Application, name, help string) *kingpin.CmdClause {
	return app.Command(name, help+exitHelp(name))
}

// usageTemplate differs from kingpin's in two ways: flags are in groups, and the help
// without a command also lists the flags of the default command.
const usageTemplate = `{{define "Flags"}}{{range .|Groups}}
{{.Title}}:
{{.Flags|FlagsToTwoColumns|FormatTwoColumns}}{{end}}{{end -}}
{{with .Context.SelectedCommand -}}
usage: {{$.App.Name}} {{.}} [<flags>]{{range .Args}} {{if not .Required}}[{{end}}<{{.Name}}>{{if .Value|IsCumulative}}...{{end}}{{if not .Required}}]{{end}}{{end}}{{if .Commands}} <command>{{end}}

{{.Help|Wrap 0}}{{if .Commands}}
Commands:
{{.Commands|Columns|FormatTwoColumns}}{{end}}{{if .Args}}
Arguments:
{{.Args|ArgsToTwoColumns|FormatTwoColumns}}{{end}}{{template "Flags" $.Context.Flags}}
{{- else -}}
usage: {{.App.Name}} [<command>] [<flags>]

{{.App.Help|Wrap 0}}
Commands ({{.App.Name}} <command> --help shows more):
{{.App.Commands|Columns|FormatTwoColumns}}{{template "Flags" .App.Flags}}{{range .App.Commands}}{{if .Default}}{{template "Flags" .Flags}}{{end}}{{end}}
{{- end}}`

// FlagGroup is a group of flags with the same prefix, under a title.
type FlagGroup struct {
	Name, Title string
	Flags       []*kingpin.FlagModel
}

// GroupFlags sorts visible flags into groups.
func GroupFlags(flags []*kingpin.FlagModel) (groups []FlagGroup) {
	for _, titled := range []FlagGroup{
		{Name: "kamailio", Title: "Connection to Kamailio"},
		{Name: "scrape", Title: "Scrapes"},
		{Name: "collector", Title: "Collectors"},
		{Name: "xhttp_prom", Title: "Metrics of the script (xhttp_prom)"},
		{Name: "sip", Title: "SIP probes"},
		{Name: "config", Title: "Many servers"},
		{Name: "admin", Title: "Admin endpoint"},
		{Name: "web", Title: "HTTP server"},
		{Name: "runtime", Title: "Process"},
		{Name: "log", Title: "Log"},
		{Title: "Flags"},
	} {
		for _, f := range flags {
			name, _, dotted := strings.Cut(f.Name, ".")
			if !f.Hidden && (name == titled.Name && dotted || titled.Name == "" && !dotted) {
				titled.Flags = append(titled.Flags, f)
			}
		}
		if titled.Flags != nil {
			groups = append(groups, titled)
		}
	}
	return groups
}

// Parse selects a command and sets its flags. name is empty if the arguments only asked
// for output such as the help.
func Parse(app *kingpin.Application, args []string, stdout io.Writer) (name string, err error) {
	printed := false
	app.UsageWriter(stdout)
	app.Terminate(func(int) {
		printed = true
		app.UsageWriter(io.Discard) // kingpin continues, and would print the help again
	})
	name, err = app.Parse(args)
	switch {
	case printed:
		return "", nil
	case err == nil:
		return name, nil
	}
	parsed, parseErr := app.ParseContext(args)
	command := &kingpin.CmdModel{FlagGroupModel: app.Model().FlagGroupModel}
	if parsed.SelectedCommand != nil {
		command = parsed.SelectedCommand.Model()
	}
	if parseErr == nil {
		err = badValue(parsed, command.Flags, err)
	}
	name = command.FullCommand
	help := name + " --help"
	if command.Default && !slices.Contains(args, name) {
		help = "--help"
	}
	first, _, _ := strings.Cut(name, " ")
	return "", UsageError(first, fmt.Errorf("%w (see %s %s)", explain(app, command, err), ProgramName, help))
}

// badValue adds the flag or variable of the first invalid value to the error: kingpin's
// error only says what is wrong with the value.
func badValue(parsed *kingpin.ParseContext, flags []*kingpin.FlagModel, err error) error {
	given := map[string]bool{}
	for _, e := range parsed.Elements {
		if f, ok := e.Clause.(*kingpin.FlagClause); ok && e.Value != nil {
			m := f.Model()
			given[m.Name] = true
			if err := setValue(m, *e.Value); err != nil {
				return fmt.Errorf("--%s: %w", m.Name, err)
			}
		}
	}
	for _, m := range flags {
		if v := os.Getenv(m.Envar); v != "" && !given[m.Name] {
			if err := setValue(m, v); err != nil {
				return fmt.Errorf("%s: %w", m.Envar, err)
			}
		}
	}
	return err
}

// setValue sets a flag. An error about a quantity explains how to write one.
func setValue(m *kingpin.FlagModel, text string) error {
	err := m.Value.Set(text)
	getter, ok := m.Value.(kingpin.Getter)
	if err == nil || !ok {
		return err
	}
	switch getter.Get().(type) {
	case time.Duration:
		return conf.NoDuration(text)
	case units.Base2Bytes:
		return conf.NoSize(text)
	}
	return err
}

// explain adds a suggestion to an error about an unknown flag or command.
func explain(app *kingpin.Application, command *kingpin.CmdModel, err error) error {
	var known []string
	if flag, ok := strings.CutPrefix(err.Error(), "unknown long flag '--"); ok {
		flag = strings.TrimSuffix(flag, "'")
		if ours := foreignFlags()[flag]; ours != "" {
			return fmt.Errorf("%w: it belongs to another exporter; here it is %s (docs/migrating.md)", err, ours)
		}
		for _, f := range command.Flags {
			known = append(known, "--"+f.Name)
			if f.IsBoolFlag() {
				known = append(known, "--no-"+f.Name)
			}
		}
		return fmt.Errorf("%w%s", err, conf.DidYouMean("--"+flag, known))
	}
	commands := command.Commands // the subcommands of admin
	if command.Default {
		commands = app.Model().Commands
	}
	for _, c := range commands {
		known = append(known, c.Name)
	}
	word, unexpected := strings.CutPrefix(err.Error(), "unexpected ")
	if !unexpected {
		word, unexpected = strings.CutPrefix(err.Error(), "expected command but got ")
	}
	switch word = strings.Trim(word, `"`); {
	case !unexpected:
		return err
	case len(commands) == 0:
		return fmt.Errorf("unexpected argument %q", word)
	}
	return fmt.Errorf("unknown command %q%s", word, conf.DidYouMean(word, known))
}

// foreignFlags returns the flags of other Kamailio exporters, and what to use here
// instead.
func foreignFlags() map[string]string {
	return map[string]string{
		"kamailio.scrape-uri":          "--kamailio.uri=binrpc+unix:///PATH or binrpc+tcp://HOST:PORT, or nothing on Debian",
		"kamailio.methods":             "--no-collector.NAME to disable a collector; all are enabled",
		"kamailio.stats-groups":        "nothing: all groups are exported",
		"kamailio.binrpc-uri":          "--kamailio.uri=binrpc+unix:///PATH or binrpc+tcp://HOST:PORT, or nothing on Debian",
		"kamailio.custom-metrics-url":  "--xhttp_prom.url",
		"collector.dispatcher.mapping": "a join with the label set in PromQL",
		"collector.dialog.profiles":    "--collector.dialog_profile.names",
		"web.rtp-telemetry-path":       "a scrape of rtpengine itself",
		"socketPath":                   "--kamailio.uri=binrpc+unix:///PATH, or nothing on Debian",
		"host":                         "--kamailio.uri=binrpc+tcp://HOST:PORT",
		"port":                         "--kamailio.uri=binrpc+tcp://HOST:PORT",
		"bindIp":                       "--web.listen-address=IP:PORT",
		"bindPort":                     "--web.listen-address=IP:PORT",
		"metricsPath":                  "--web.telemetry-path",
		"customKamailioMetricsURL":     "--xhttp_prom.url",
		"rtpmetricsPath":               "a scrape of rtpengine itself",
		"debug":                        "--log.level=debug",
	}
}
