// Package cli is the command line of the program: the flags, which environment variables
// can also set, and the exit codes of the commands.
package cli

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"

	"github.com/alecthomas/kingpin/v2"
	"github.com/prometheus/common/promslog"
	promslogflag "github.com/prometheus/common/promslog/flag"
	"github.com/prometheus/exporter-toolkit/web"
	webflag "github.com/prometheus/exporter-toolkit/web/kingpinflag"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/admin"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/fleet"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/target"
)

// ProgramName is the name of the program.
const ProgramName = "kamailio_exporter"

// uriVariable is the environment variable for --kamailio.uri.
const uriVariable = "KAMAILIO_EXPORTER_KAMAILIO_URI"

// Settings are the values from the command line and the environment.
type Settings struct {
	Target         target.Target // without URIs: only the targets of --config.file
	HTTPConfigFile string        // its content is in Target

	ConfigFile  string // the file of many targets
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
	targetName string // of --target
}

// Declare declares the flags of the service on a command that uses them. Flags that
// select a mode (--config.check) are not read from the environment.
func (s *Settings) Declare(cmd *kingpin.CmdClause) {
	s.flags.Declare(cmd)
	cmd.Flag("web.telemetry-path", "Path of the metrics.").
		Default("/metrics").StringVar(&s.TelemetryPath)
	cmd.Flag("web.disable-exporter-metrics", "Omit the metrics about the exporter itself (go_*, process_*, kamailio_exporter_*).").
		BoolVar(&s.DisableExporterMetrics)
	cmd.Flag("web.enable-lifecycle", "Reload the file of --config.file on POST /-/reload, as on SIGHUP.").
		BoolVar(&s.Lifecycle)
	s.Web = webflag.AddFlags(cmd, ":9494")
	cmd.Flag("config.file", "YAML file with many Kamailio servers, each served at /probe?target=NAME (docs/multi-target.md). If it is set, /metrics has a Kamailio only if --kamailio.uri is set too.").
		PlaceHolder("FILE").StringVar(&s.ConfigFile)
	cmd.Flag("admin.config.file", "YAML file of the admin endpoint, which runs reloads and actions for authenticated users (docs/admin.md). Without it the endpoint is disabled.").
		PlaceHolder("FILE").StringVar(&s.AdminConfigFile)
	cmd.Flag("runtime.idle-priority", "Run at idle CPU priority (SCHED_IDLE) while the host has CPU time to spare, so that calls do not wait for scrapes.").
		Default("true").BoolVar(&s.IdlePriority)
	s.Log = promslog.Config{Level: promslog.NewLevel(), Format: promslog.NewFormat()}
	cmd.Flag(promslogflag.LevelFlagName, promslogflag.LevelFlagHelp).Default("info").SetValue(s.Log.Level)
	cmd.Flag(promslogflag.FormatFlagName, promslogflag.FormatFlagHelp).Default("logfmt").SetValue(s.Log.Format)
	for _, f := range cmd.Model().Flags {
		cmd.GetFlag(f.Name).Envar(variable(f.Name))
	}
	cmd.Flag("config.check", "Check the file of --config.file, then exit.").BoolVar(&s.CheckConfig)
	cmd.Flag("admin.check", "Check the file of --admin.config.file, then exit.").BoolVar(&s.CheckAdmin)
	cmd.Flag("admin.print-grants", "Print what each user may do according to --admin.config.file, then exit.").BoolVar(&s.PrintGrants)
}

// variable returns the name of a flag's environment variable.
func variable(flag string) string {
	return strings.ToUpper(ProgramName + "_" + strings.NewReplacer(".", "_", "-", "_").Replace(flag))
}

// DeclareClient declares the flags of the service on a command that examines a Kamailio
// as the service does. The command accepts all of them, so that they can be copied from
// the service. Its help lists only those that begin with one of shown.
func (s *Settings) DeclareClient(cmd *kingpin.CmdClause, shown ...string) {
	s.Declare(cmd)
	shown = append(shown, "config.file")
	for _, f := range cmd.Model().Flags {
		if !slices.ContainsFunc(shown, func(s string) bool { return strings.HasPrefix(f.Name, s) }) {
			cmd.GetFlag(f.Name).Hidden()
		}
	}
	cmd.Flag("target", "Target of --config.file to examine (docs/multi-target.md).").
		PlaceHolder("NAME").StringVar(&s.targetName)
}

// TargetName returns the target that --target selects; "" means the Kamailio of the
// flags.
func (s *Settings) TargetName() string { return s.targetName }

// Chosen returns the Kamailio that a command examines: that of the flags, or a target of
// --config.file with the settings of its module.
func (s *Settings) Chosen() (target.Target, error) {
	if s.targetName == "" && len(s.Target.URIs) > 0 {
		return s.Target, nil
	}
	if s.ConfigFile == "" {
		return target.Target{}, errors.New("--target needs --config.file, which defines the targets")
	}
	cfg, err := fleet.Load(s.ConfigFile, s.FleetBase())
	if err != nil {
		return target.Target{}, fmt.Errorf("--config.file: %w", err)
	}
	var names []string
	for _, t := range cfg.Targets {
		if t.Name == s.targetName {
			return cfg.Modules[t.Module].Narrow(t.Target), nil
		}
		names = append(names, t.Name)
	}
	const most = 20
	if more := len(names) - most; more > 0 {
		names = append(names[:most], fmt.Sprintf("%d more", more))
	}
	return target.Target{}, fmt.Errorf("--target must be a target of %s, not %q; its targets: %s", s.ConfigFile, s.targetName, strings.Join(names, ", "))
}

// Complete reads the files that the flags name, and checks the settings. The flags must
// be parsed.
func (s *Settings) Complete() (err error) {
	if s.Target, err = s.flags.Target(); err != nil {
		return err
	}
	s.HTTPConfigFile = s.flags.HTTPConfigFile
	if s.ConfigFile != "" && !s.flags.URIsGiven && os.Getenv(uriVariable) == "" {
		s.Target.URIs = nil
	}
	return s.check()
}

// check rejects settings that parse but cannot be used.
func (s *Settings) check() error {
	path := s.TelemetryPath
	switch {
	case !strings.HasPrefix(path, "/") || path == "/":
		return fmt.Errorf("--web.telemetry-path must be a path below /, such as /metrics, not %q", path)
	case strings.HasPrefix(path, "/-/") || strings.HasPrefix(path, "/runbooks/") || strings.ContainsAny(path, " {}"):
		return fmt.Errorf("--web.telemetry-path %q is reserved; choose another, such as /metrics", path)
	case s.ConfigFile != "" && (path == "/probe" || path == "/sd"):
		return fmt.Errorf("--web.telemetry-path %q is used for targets when --config.file is set; choose another", path)
	case s.ConfigFile != "" && len(s.Target.URIs) == 0 && (s.HTTPConfigFile != "" || s.Target.Script.URL != "" || len(s.Target.SIP.Probe) > 0):
		return errors.New("--kamailio.http-config-file, --xhttp_prom.url and --sip.probe apply to --kamailio.uri, which is not set; for a target, set them in the file of --config.file")
	case s.ConfigFile == "" && s.CheckConfig:
		return errors.New("--config.check needs --config.file")
	case s.ConfigFile == "" && s.Lifecycle:
		return errors.New("--web.enable-lifecycle needs --config.file, the file that /-/reload reloads")
	}
	return nil
}

// FleetBase returns the settings that the flags give to the targets of the file. Settings
// of a single Kamailio (URI, credentials, SIP sockets, page) are not passed on.
func (s *Settings) FleetBase() fleet.Base {
	base := fleet.Base{Target: s.Target}
	t := &base.Target
	t.URIs, t.HTTP = nil, nil
	t.SIP = target.SIP{Timeout: t.SIP.Timeout}
	t.Script.URL = ""
	if s.AdminConfigFile != "" {
		base.Reserved, base.Why = s.Target.URIs, "is also changed by the admin endpoint (--kamailio.uri), and must not be read during its reloads: scrape it at "+s.TelemetryPath
	}
	return base
}

// AdminConfig returns nil if the endpoint is off: without a file, or if the file turns it
// off.
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
		return nil, errors.New("--admin.config.file needs --kamailio.uri in addition to --config.file: the admin endpoint changes that Kamailio")
	}
	if cfg != nil {
		for _, address := range *s.Web.WebListenAddresses {
			if sameAddress(address, cfg.Listen) {
				return nil, fmt.Errorf("--admin.config.file: listen: %s is the address of the metrics; choose another", cfg.Listen)
			}
		}
	}
	return cfg, nil
}

// sameAddress reports whether one listener would accept connections for the other.
func sameAddress(a, b string) bool {
	hostA, portA, errA := net.SplitHostPort(a)
	hostB, portB, errB := net.SplitHostPort(b)
	if errA != nil || errB != nil || portA != portB || portA == "0" {
		return false
	}
	every := func(host string) bool { return host == "" || host == "0.0.0.0" || host == "::" }
	return hostA == hostB || every(hostA) || every(hostB) || hostA == "localhost"
}
