// Package cli is the command line of the program: its flags, which the environment
// can set too, and the codes with which its commands end.
package cli

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/alecthomas/units"
	"github.com/prometheus/common/promslog"
	promslogflag "github.com/prometheus/common/promslog/flag"
	"github.com/prometheus/common/version"
	"github.com/prometheus/exporter-toolkit/web"
	webflag "github.com/prometheus/exporter-toolkit/web/kingpinflag"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/admin"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/conf"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/fleet"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/target"
)

// ProgramName is the name of the program.
const ProgramName = "kamailio_exporter"

// uriVariable is the environment's --kamailio.uri.
const uriVariable = "KAMAILIO_EXPORTER_KAMAILIO_URI"

// Settings are what the command line and the environment say.
type Settings struct {
	Target         target.Target // without URIs: no Kamailio but those of --config.file
	HTTPConfigFile string        // whose content is in Target

	ConfigFile  string // of many targets
	CheckConfig bool
	Lifecycle   bool

	AdminConfigFile string
	CheckAdmin      bool
	PrintGrants     bool

	TelemetryPath          string
	DisableExporterMetrics bool
	IdlePriority           bool
	Web                    *web.FlagConfig
	Log                    promslog.Config

	flags      target.Flags
	targetName string // of a command
}

// NewApp declares the flags. Each can come from the environment too, for
// containers: --kamailio.uri from KAMAILIO_EXPORTER_KAMAILIO_URI.
func NewApp(s *Settings) *kingpin.Application {
	app := kingpin.New(ProgramName, "Prometheus exporter for the Kamailio SIP server. Every flag can also be set in the environment; a repeatable one then has one value a line. Its commands: doctor examines Kamailio and the exporter's settings, rpc asks Kamailio one thing, admin is the client of the admin endpoint, assets writes the dashboards, rules and examples of this version; kamailio_exporter COMMAND --help.")
	app.DefaultEnvars()
	app.HelpFlag.Short('h').NoEnvar()
	app.Version(version.Print(ProgramName))
	app.VersionFlag.NoEnvar()

	s.flags.Declare(app)

	app.Flag("web.telemetry-path", "Path of the metrics.").
		Default("/metrics").StringVar(&s.TelemetryPath)
	app.Flag("web.disable-exporter-metrics", "Leave out the metrics about the exporter itself (go_*, process_*, kamailio_exporter_*).").
		BoolVar(&s.DisableExporterMetrics)
	app.Flag("config.file", "YAML file with many Kamailios, each served at /probe?target=NAME (docs/multi-target.md). Then /metrics asks a Kamailio only if --kamailio.uri is given too.").
		PlaceHolder("FILE").StringVar(&s.ConfigFile)
	app.Flag("config.check", "Check the file of --config.file and end.").
		NoEnvar().BoolVar(&s.CheckConfig)
	app.Flag("web.enable-lifecycle", "Let POST /-/reload read the file of --config.file anew, as SIGHUP does.").
		BoolVar(&s.Lifecycle)
	app.Flag("admin.config.file", "YAML file of the admin endpoint, which runs reloads and actions for named users (docs/admin.md). Without it there is none.").
		PlaceHolder("FILE").StringVar(&s.AdminConfigFile)
	app.Flag("admin.check", "Check the file of --admin.config.file and end.").
		NoEnvar().BoolVar(&s.CheckAdmin)
	app.Flag("admin.print-grants", "Print what the file of --admin.config.file lets each user do, and end.").
		NoEnvar().BoolVar(&s.PrintGrants)
	app.Flag("runtime.idle-priority", "Run at idle CPU priority (SCHED_IDLE) while the host has CPU time to spare, so that calls do not wait for scrapes.").
		Default("true").BoolVar(&s.IdlePriority)
	s.Web = webflag.AddFlags(app, ":9494")
	promslogflag.AddFlags(app, &s.Log)
	return app
}

// Parse returns nil settings when all there was to do was to print.
func Parse(args []string, stdout io.Writer) (*Settings, error) {
	s := &Settings{}
	return s.Parse(NewApp(s), args, stdout)
}

// Parse is the function Parse for an application that NewApp made of these
// settings.
func (s *Settings) Parse(app *kingpin.Application, args []string, stdout io.Writer) (*Settings, error) {
	_, printed, err := ParseArgs(app, args, stdout)
	switch {
	case printed:
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("%w, try --help", err)
	}
	if s.Target, err = s.flags.Target(); err != nil {
		return s, err
	}
	s.HTTPConfigFile = s.flags.HTTPConfigFile
	if s.ConfigFile != "" && !s.flags.URIsGiven && os.Getenv(uriVariable) == "" {
		s.Target.URIs = nil
	}
	return s, s.check()
}

// ParseArgs tells whether all there was to do was to print: --help, --version.
func ParseArgs(app *kingpin.Application, args []string, stdout io.Writer) (command string, printed bool, err error) {
	app.UsageWriter(stdout)
	app.Terminate(func(int) {
		printed = true
		app.UsageWriter(io.Discard) // kingpin goes on, and would print it again
	})
	command, err = app.Parse(args)
	if err != nil && !printed {
		if bad := badValue(app, args); bad != nil {
			err = bad
		}
	}
	return command, printed, err
}

// badValue is the error of the first value that does not parse, with the name of
// its flag or variable: kingpin tells only what is wrong with it.
func badValue(app *kingpin.Application, args []string) error {
	parsed, err := app.ParseContext(args)
	if err != nil {
		return nil // not about a value, and kingpin names the flag
	}
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
	for _, m := range app.Model().Flags {
		if v := os.Getenv(m.Envar); v != "" && !given[m.Name] {
			if err := setValue(m, v); err != nil {
				return fmt.Errorf("%s: %w", m.Envar, err)
			}
		}
	}
	return nil
}

// setValue gives a flag a value; of a quantity its error tells how one is written.
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

// check refuses what parses and cannot be meant.
func (s *Settings) check() error {
	path := s.TelemetryPath
	switch {
	case !strings.HasPrefix(path, "/") || path == "/":
		return fmt.Errorf("--web.telemetry-path must be a path below /, such as /metrics, not %q", path)
	case strings.HasPrefix(path, "/-/") || strings.ContainsAny(path, " {}"):
		return fmt.Errorf("--web.telemetry-path %q is not free for metrics", path)
	case s.ConfigFile != "" && (path == "/probe" || path == "/sd"):
		return fmt.Errorf("--web.telemetry-path %q is taken with --config.file: choose another", path)
	case s.ConfigFile != "" && len(s.Target.URIs) == 0 && (s.HTTPConfigFile != "" || s.Target.Script.URL != "" || len(s.Target.SIP.Probe) > 0):
		return errors.New("--kamailio.http-config-file, --xhttp_prom.url and --sip.probe are for --kamailio.uri, which is not given: those of a target are in the file of --config.file")
	case s.ConfigFile == "" && s.CheckConfig:
		return errors.New("--config.check needs --config.file")
	case s.ConfigFile == "" && s.Lifecycle:
		return errors.New("--web.enable-lifecycle is for --config.file, which is what /-/reload reads")
	}
	return nil
}

// FleetBase is what the flags say for the targets of the file. What is named for
// one Kamailio (URI, credentials, SIP sockets, page) is for that one alone.
func (s *Settings) FleetBase() fleet.Base {
	base := fleet.Base{Target: s.Target}
	t := &base.Target
	t.URIs, t.HTTP = nil, nil
	t.SIP = target.SIP{Timeout: t.SIP.Timeout}
	t.Script.URL = ""
	if s.AdminConfigFile != "" {
		base.Reserved, base.Why = s.Target.URIs, "is the admin endpoint's (--kamailio.uri): a read from here could meet a reload from there, so scrape it at "+s.TelemetryPath
	}
	return base
}

// AdminConfig is nil while the endpoint is off: without a file, or with one that
// says so.
func (s *Settings) AdminConfig() (*admin.Config, error) {
	if s.AdminConfigFile == "" {
		if s.CheckAdmin || s.PrintGrants {
			return nil, errors.New("--admin.check and --admin.print-grants need --admin.config.file")
		}
		return nil, nil
	}
	cfg, err := admin.Load(s.AdminConfigFile)
	if err != nil {
		return nil, fmt.Errorf("--admin.config.file: %w", err)
	}
	if cfg != nil && len(s.Target.URIs) == 0 {
		return nil, errors.New("--admin.config.file needs --kamailio.uri beside --config.file: it is that Kamailio which the admin endpoint changes")
	}
	if cfg != nil {
		for _, address := range *s.Web.WebListenAddresses {
			if sameAddress(address, cfg.Listen) {
				return nil, fmt.Errorf("--admin.config.file: listen: %s is the address of the metrics: choose another", cfg.Listen)
			}
		}
	}
	return cfg, nil
}

// sameAddress tells whether one listener would take connections for the other.
func sameAddress(a, b string) bool {
	hostA, portA, errA := net.SplitHostPort(a)
	hostB, portB, errB := net.SplitHostPort(b)
	if errA != nil || errB != nil || portA != portB || portA == "0" {
		return false
	}
	every := func(host string) bool { return host == "" || host == "0.0.0.0" || host == "::" }
	return hostA == hostB || every(hostA) || every(hostB) || hostA == "localhost"
}
