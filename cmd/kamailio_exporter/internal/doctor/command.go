package doctor

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"sync/atomic"
	"time"

	"github.com/alecthomas/kingpin/v2"
	promconfig "github.com/prometheus/common/config"
	"github.com/prometheus/exporter-toolkit/web"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/cli"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/sipprobe"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/target"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/xhttpprom"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
)

// What the process ends with after "doctor"; 0 is healthy.
const (
	ExitDegraded = 1
	ExitBroken   = 2
	ExitUsage    = 3
)

// Options are the flags that only doctor has.
type Options struct {
	output string
	user   string
	search bool
}

// NewApp declares the flags of the command.
func NewApp(s *cli.Settings, o *Options) *kingpin.Application {
	app := cli.CommandApp(s, "doctor", "Examines Kamailio and the exporter's settings: which transports work, which collectors, and what would mend or add the others. Run it with the flags and the environment of the service, all of which it takes. It makes one scrape and changes nothing. It ends with 0 when all is healthy, 1 when something is degraded, 2 when the exporter gets nothing or does not start, 3 after wrong usage.",
		"kamailio.", "sip.", "xhttp_prom.url", "web.listen-address", "scrape.timeout")
	app.Flag("output", "text, for people (with colours in a terminal, unless NO_COLOR is set), or json.").
		NoEnvar().Default("text").EnumVar(&o.output, "text", "json")
	app.Flag("user", "Whose permissions are looked at. Default: for root the user of the service, for others they themselves.").
		NoEnvar().PlaceHolder("NAME").StringVar(&o.user)
	app.Flag("search", "Also try sockets of Kamailio on this machine that no flag names.").
		NoEnvar().Default("true").BoolVar(&o.search)
	return app
}

// RunCommand is the command: it examines what the flags say, and prints the report.
func RunCommand(ctx context.Context, args []string, stdout io.Writer) error {
	s, o := &cli.Settings{}, &Options{}
	if parsed, err := s.Parse(NewApp(s, o), args, stdout); err != nil || parsed == nil {
		return cli.UsageError(err, "doctor", ExitUsage)
	}
	t, err := s.Chosen()
	if err != nil {
		return cli.UsageError(err, "doctor", ExitUsage)
	}
	cfg, err := newConfig(s, t)
	if err != nil {
		return cli.UsageError(err, "doctor", ExitUsage)
	}
	cfg.User, cfg.Search = o.user, o.search && s.TargetName() == ""
	report := Run(ctx, cfg)
	if ctx.Err() != nil {
		return cli.Exit(ExitBroken, "interrupted")
	}
	if o.output == "json" {
		if err := report.JSON(stdout); err != nil {
			return err
		}
	} else {
		if s.TargetName() != "" {
			fmt.Fprintf(stdout, "The target %s of %s: what flags are named for below is set there, see docs/multi-target.md.\n\n", s.TargetName(), s.ConfigFile)
		}
		report.Text(stdout, coloured(stdout))
	}
	switch report.Status {
	case Degraded:
		return cli.Exit(ExitDegraded, "")
	case Broken:
		return cli.Exit(ExitBroken, "")
	}
	return nil
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

// newConfig is what the server would do with these settings. What keeps it from
// starting is a finding, not an error; so is a URI that it does not take.
func newConfig(s *cli.Settings, t target.Target) (Config, error) {
	cfg := Config{
		URIs: t.URIs, Open: opener(t), Collectors: t.Enabled(),
		CallTimeout: t.Limits.RPCTimeout, ScrapeTimeout: t.Limits.ScrapeTimeout,
		MaxConcurrent: t.Limits.MaxConcurrentRPCs, MaxReplyBytes: int64(t.Limits.MaxReplySize),
		Listen: *s.Web.WebListenAddresses, System: ThisSystem(),
	}
	files := []string{s.ConfigFile, s.AdminConfigFile, *s.Web.WebConfigFile, t.SIP.CAFile}
	if t.Source == target.FromFlags {
		files = append(files, s.HTTPConfigFile)
	}
	for _, file := range files {
		if file != "" {
			cfg.Files = append(cfg.Files, file)
		}
	}
	if s.Web.WebSystemdSocket != nil && *s.Web.WebSystemdSocket {
		cfg.Listen = nil // systemd has them
	}
	startup := func(err error) {
		if err != nil {
			cfg.Startup = append(cfg.Startup, err)
		}
	}
	httpClient, err := t.HTTPClient()
	if err != nil {
		return cfg, err // not one URI could be tried
	}
	_, err = s.AdminConfig()
	startup(err)
	if err := web.Validate(*s.Web.WebConfigFile); err != nil {
		startup(fmt.Errorf("--web.config.file: %w", err))
	}
	prober, err := sipprobe.Of(t)
	startup(err)
	if prober != nil {
		cfg.SIP = func(ctx context.Context) sipprobe.Results {
			ctx, cancel := context.WithTimeout(ctx, t.SIP.Timeout)
			defer cancel()
			return prober.Probe(ctx)
		}
	}
	if reader := xhttpprom.Of(t, httpClient); reader != nil {
		cfg.Page = func(ctx context.Context) *xhttpprom.Merged {
			ctx, cancel := context.WithTimeout(ctx, t.Script.Timeout)
			defer cancel()
			return reader.Read(ctx)
		}
	}
	return cfg, nil
}

// opener opens a transport over connections of its own, which are counted.
func opener(t target.Target) func(uri string) (kamrpc.Transport, func() int64, error) {
	return func(uri string) (kamrpc.Transport, func() int64, error) {
		var dials atomic.Int64
		dialer := net.Dialer{Timeout: 10 * time.Second}
		client, err := t.HTTPClient(promconfig.WithDialContextFunc(func(ctx context.Context, network, address string) (net.Conn, error) {
			dials.Add(1)
			return dialer.DialContext(ctx, network, address)
		}))
		if err != nil {
			return nil, nil, err
		}
		transport, err := kamrpc.Open(uri, client)
		return transport, dials.Load, err
	}
}
