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
	"github.com/prometheus/exporter-toolkit/web"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/cli"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/sipprobe"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/target"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/xhttpprom"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
)

// Exit codes of doctor; 0 is healthy.
const (
	ExitDegraded = 1
	ExitBroken   = 2
	ExitUsage    = 3
)

// options are the flags that only doctor has.
type options struct {
	output string
	user   string
	search bool
}

// Declare declares the doctor command.
func Declare(app *kingpin.Application) cli.Run {
	s, o := &cli.Settings{}, &options{}
	cmd := cli.NewCommand(app, "doctor", "Check Kamailio and the exporter's settings. It reports which URIs and collectors work, why the others do not, and the lines that fix it. Run it with the flags and the environment of the service. It makes one scrape and changes nothing.")
	s.DeclareClient(cmd, "kamailio.", "sip.", "xhttp_prom.url", "web.listen-address", "scrape.timeout")
	cmd.Flag("output", "Format of the report: text or json. Text has colors in a terminal, unless NO_COLOR is set.").
		Default("text").EnumVar(&o.output, "text", "json")
	cmd.Flag("user", "Account whose permissions are checked. Default: the account of the service if you are root, else your own.").
		PlaceHolder("NAME").StringVar(&o.user)
	cmd.Flag("search", "Also try sockets of Kamailio on this host that no flag names.").
		Default("true").BoolVar(&o.search)
	return func(ctx context.Context, _ string, stdout, _ io.Writer) error {
		return run(ctx, s, o, stdout)
	}
}

// run checks what the flags describe, and prints the report.
func run(ctx context.Context, s *cli.Settings, o *options, stdout io.Writer) error {
	if err := s.Complete(); err != nil {
		return cli.UsageError("doctor", err)
	}
	t, err := s.Chosen()
	if err != nil {
		return cli.UsageError("doctor", err)
	}
	cfg, err := newConfig(s, t)
	if err != nil {
		return cli.UsageError("doctor", err)
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
			fmt.Fprintf(stdout, "Target %s of %s. Where a flag is named below, set the corresponding key in this file (docs/multi-target.md).\n\n", s.TargetName(), s.ConfigFile)
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

// coloured reports whether w is a terminal that wants colors (no-color.org).
func coloured(w io.Writer) bool {
	file, ok := w.(*os.File)
	if !ok || os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" {
		return false
	}
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// newConfig returns what the server would do with these settings. A reason why the server
// would not start is a finding, not an error, and so is an invalid URI.
func newConfig(s *cli.Settings, t target.Target) (Config, error) {
	cfg := Config{
		URIs: t.URIs, Open: opener(t), Collectors: t.Enabled(), Host: t.CollectorOptions().Host, TrunksTable: t.Options.TrunksTable,
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
		cfg.Listen = nil // systemd passes the sockets
	}
	startup := func(err error) {
		if err != nil {
			cfg.Startup = append(cfg.Startup, err)
		}
	}
	httpClient, err := t.HTTPClient((&net.Dialer{}).DialContext)
	if err != nil {
		return cfg, err // no URI could be tried
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

// opener returns a function that opens a transport with its own connections, and counts
// them.
func opener(t target.Target) func(uri string) (kamrpc.Transport, func() int64, error) {
	return func(uri string) (kamrpc.Transport, func() int64, error) {
		var dials atomic.Int64
		dialer := net.Dialer{Timeout: 10 * time.Second}
		client, err := t.HTTPClient(func(ctx context.Context, network, address string) (net.Conn, error) {
			dials.Add(1)
			return dialer.DialContext(ctx, network, address)
		})
		if err != nil {
			return nil, nil, err
		}
		transport, err := kamrpc.Open(uri, client)
		return transport, dials.Load, err
	}
}
