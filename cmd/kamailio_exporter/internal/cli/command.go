package cli

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/alecthomas/kingpin/v2"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/fleet"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/target"
)

// CommandApp is the application of a command that takes the flags of the server.
// All work, so that those of the service can be given as they are; shown in the
// help are those that matter here, by their beginnings.
func CommandApp(s *Settings, name, help string, shown ...string) *kingpin.Application {
	app := NewApp(s)
	app.Help = help
	app.UsageTemplate(strings.ReplaceAll(kingpin.DefaultUsageTemplate, "{{.App.Name}}", ProgramName+" "+name))
	app.Flag("target", "The target that it is about, where --config.file has many (docs/multi-target.md).").
		NoEnvar().PlaceHolder("NAME").StringVar(&s.targetName)
	shown = append(shown, "help", "target", "config.file")
	for _, f := range app.Model().Flags {
		if !slices.ContainsFunc(shown, func(s string) bool { return strings.HasPrefix(f.Name, s) }) {
			app.GetFlag(f.Name).Hidden()
		}
	}
	return app
}

// TargetName is the target of the file that a command is about; "" for the
// Kamailio of the flags.
func (s *Settings) TargetName() string { return s.targetName }

// Chosen is the Kamailio that a command is about: that of the flags, or one of the
// file of --config.file, with what its module has.
func (s *Settings) Chosen() (target.Target, error) {
	if s.targetName == "" && len(s.Target.URIs) > 0 {
		return s.Target, nil
	}
	if s.ConfigFile == "" {
		return target.Target{}, errors.New("--target is for --config.file, which has the targets")
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
	return target.Target{}, fmt.Errorf("--target must name a target of %s, not %q; there are: %s", s.ConfigFile, s.targetName, strings.Join(names, ", "))
}

// UsageError gives an error a code, and names the right help.
func UsageError(err error, command string, code int) error {
	if err == nil {
		return nil
	}
	return Exit(code, strings.Replace(err.Error(), ", try --help", fmt.Sprintf(", try %s %s --help", ProgramName, command), 1))
}
