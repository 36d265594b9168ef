package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/prometheus/common/config"
	"github.com/prometheus/exporter-toolkit/web"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/doctor"
	"github.com/kamailio-exporter/kamailio_exporter/collector"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
)

// What the process ends with after "doctor"; 0 is healthy.
const (
	exitDegraded = 1
	exitBroken   = 2
	exitUsage    = 3
)

// commandApp is the application of a command that takes the flags of the server.
// All work, so that those of the service can be given as they are; shown in the
// help are those that matter here, by their beginnings.
func commandApp(s *settings, name, help string, shown ...string) *kingpin.Application {
	app := newApp(s)
	app.Help = help
	app.UsageTemplate(strings.ReplaceAll(kingpin.DefaultUsageTemplate, "{{.App.Name}}", programName+" "+name))
	app.Flag("target", "The target that it is about, where --config.file has many (FLEET.md).").
		NoEnvar().PlaceHolder("NAME").StringVar(&s.fleet.target)
	shown = append(shown, "help", "target", "config.file")
	for _, f := range app.Model().Flags {
		if !slices.ContainsFunc(shown, func(s string) bool { return strings.HasPrefix(f.Name, s) }) {
			app.GetFlag(f.Name).Hidden()
		}
	}
	return app
}

// doctorOptions are the flags that only doctor has.
type doctorOptions struct {
	output string
	user   string
	search bool
}

func newDoctorApp(s *settings, o *doctorOptions) *kingpin.Application {
	app := commandApp(s, "doctor", "Examines Kamailio and the exporter's settings: which ways to ask work, which collectors, and what would mend or add the others. Run it with the flags and the environment of the service, all of which it takes. It makes one scrape and changes nothing. It ends with 0 when all is healthy, 1 when something is degraded, 2 when the exporter gets nothing or does not start, 3 after wrong usage.",
		"kamailio.", "sip.", "xhttp_prom.url", "web.listen-address", "scrape.timeout")
	app.Flag("output", "text, for people (with colours in a terminal, unless NO_COLOR is set), or json.").
		NoEnvar().Default("text").EnumVar(&o.output, "text", "json")
	app.Flag("user", "Whose permissions are looked at. Default: for root the user of the service, for others they themselves.").
		NoEnvar().PlaceHolder("NAME").StringVar(&o.user)
	app.Flag("search", "Also try sockets of Kamailio on this machine that no flag names.").
		NoEnvar().Default("true").BoolVar(&o.search)
	return app
}

func runDoctorCommand(ctx context.Context, args []string, stdout io.Writer) error {
	s, o := &settings{}, &doctorOptions{}
	if parsed, err := s.parse(newDoctorApp(s, o), args, stdout); err != nil || parsed == nil {
		return usageError(err, "doctor", exitUsage)
	}
	s, err := s.chosen()
	if err != nil {
		return usageError(err, "doctor", exitUsage)
	}
	cfg, err := s.doctorConfig()
	if err != nil {
		return usageError(err, "doctor", exitUsage)
	}
	cfg.User, cfg.Search = o.user, o.search && s.fleet.target == ""
	report := doctor.Run(ctx, cfg)
	if ctx.Err() != nil {
		return &codedError{exitBroken, "interrupted"}
	}
	if o.output == "json" {
		if err := report.JSON(stdout); err != nil {
			return err
		}
	} else {
		if s.fleet.target != "" {
			fmt.Fprintf(stdout, "The target %s of %s: what flags are named for below is set there, see FLEET.md.\n\n", s.fleet.target, s.fleet.configFile)
		}
		report.Text(stdout, coloured(stdout))
	}
	switch report.Status {
	case doctor.Degraded:
		return &codedError{code: exitDegraded}
	case doctor.Broken:
		return &codedError{code: exitBroken}
	}
	return nil
}

// usageError gives an error a code, and names the right help.
func usageError(err error, command string, code int) error {
	if err == nil {
		return nil
	}
	return &codedError{code, strings.Replace(err.Error(), ", try --help", fmt.Sprintf(", try %s %s --help", programName, command), 1)}
}

// coloured tells whether w is a terminal that wants colours (no-color.org).
func coloured(w io.Writer) bool {
	file, ok := w.(*os.File)
	if !ok || os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" {
		return false
	}
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// doctorConfig is what the server would do with these settings. What keeps it
// from starting is a finding, not an error; so is a URI that it does not take.
func (s *settings) doctorConfig() (doctor.Config, error) {
	cfg := doctor.Config{
		URIs: s.uris, Open: s.openCounted, Collectors: s.enabled(),
		CallTimeout: s.callTimeout, ScrapeTimeout: s.scrapeTimeout,
		MaxConcurrent: s.maxConcurrent, MaxReplyBytes: int64(s.maxReply),
		Listen: *s.web.WebListenAddresses, System: doctor.ThisSystem(),
	}
	for _, file := range []string{s.httpConfigFile, s.fleet.configFile, s.admin.configFile, *s.web.WebConfigFile, s.sipCAFile} {
		if file != "" {
			cfg.Files = append(cfg.Files, file)
		}
	}
	if s.web.WebSystemdSocket != nil && *s.web.WebSystemdSocket {
		cfg.Listen = nil // systemd has them
	}
	startup := func(err error) {
		if err != nil {
			cfg.Startup = append(cfg.Startup, err)
		}
	}
	if _, err := s.newHTTPClient(); err != nil {
		return cfg, err // not one URI could be tried
	}
	_, err := s.adminConfig()
	startup(err)
	if err := web.Validate(*s.web.WebConfigFile); err != nil {
		startup(fmt.Errorf("--web.config.file: %w", err))
	}
	probes, err := s.newSIPProbes()
	startup(err)
	if probes != nil {
		cfg.SIP = func(ctx context.Context) collector.SIPProbes {
			ctx, cancel := context.WithTimeout(ctx, s.sipTimeout)
			defer cancel()
			return probes.work(ctx)
		}
	}
	page, err := s.newScriptPage()
	startup(err)
	if page != nil {
		cfg.Page = func(ctx context.Context) *collector.Merged {
			ctx, cancel := context.WithTimeout(ctx, s.pageTimeout)
			defer cancel()
			return page.work(ctx)
		}
	}
	return cfg, nil
}

// openCounted opens a way over connections of its own, which are counted.
func (s *settings) openCounted(uri string) (kamrpc.Transport, func() int64, error) {
	var dials atomic.Int64
	dialer := net.Dialer{Timeout: 10 * time.Second}
	client, err := s.newHTTPClient(config.WithDialContextFunc(func(ctx context.Context, network, address string) (net.Conn, error) {
		dials.Add(1)
		return dialer.DialContext(ctx, network, address)
	}))
	if err != nil {
		return nil, nil, err
	}
	way, err := kamrpc.Open(uri, client)
	return way, dials.Load, err
}
