package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/alecthomas/units"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/config"
	"github.com/prometheus/common/promslog"
	promslogflag "github.com/prometheus/common/promslog/flag"
	"github.com/prometheus/common/version"
	"github.com/prometheus/exporter-toolkit/web"
	webflag "github.com/prometheus/exporter-toolkit/web/kingpinflag"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/conf"
	"github.com/kamailio-exporter/kamailio_exporter/collector"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
)

// The sockets that a stock Debian Kamailio opens: the datagram one for the small
// calls, the FIFO for those that may be large.
var stockURIs = []string{
	"unix:///run/kamailio/kamailio_rpc.sock",
	"fifo:///run/kamailio/kamailio_rpc.fifo",
}

// uriVariable is the environment's --kamailio.uri.
const uriVariable = "KAMAILIO_EXPORTER_KAMAILIO_URI"

// settings are what the command line and the environment say.
type settings struct {
	uris           []string // none: no Kamailio but those of --config.file
	urisGiven      bool     // on the command line
	httpConfigFile string
	httpConfig     *config.HTTPClientConfig // in place of the file
	dialer         *net.Dialer              // nil: whatever address there is
	opened         func(*http.Client)       // told of each HTTP client; nil: nobody
	callTimeout    time.Duration
	maxConcurrent  int
	maxReply       units.Base2Bytes

	scrapeTimeout, timeoutOffset, reuse time.Duration

	collectors collector.Options
	switches   map[string]*bool // by collector

	promotedCounters, promotedGauges []string

	pageURL     string
	pageTimeout time.Duration
	pageSize    units.Base2Bytes

	sipTargets                       []string
	sipTimeout                       time.Duration
	sipURI, sipCAFile, sipServerName string

	telemetryPath          string
	disableExporterMetrics bool
	giveWay                bool
	admin                  adminFlags
	fleet                  fleetFlags
	web                    *web.FlagConfig
	log                    promslog.Config
}

// newApp declares the flags. Each can come from the environment too, for
// containers: --kamailio.uri from KAMAILIO_EXPORTER_KAMAILIO_URI.
func newApp(s *settings) *kingpin.Application {
	app := kingpin.New(programName, "Prometheus exporter for the Kamailio SIP server. Every flag can also be set in the environment; a repeatable one then has one value a line. Its commands: doctor examines Kamailio and the exporter's settings, rpc asks Kamailio one thing, admin is the client of the admin endpoint, assets writes the dashboards, rules and examples of this version; kamailio_exporter COMMAND --help.")
	app.DefaultEnvars()
	app.HelpFlag.Short('h').NoEnvar()
	app.Version(version.Print(programName))
	app.VersionFlag.NoEnvar()

	app.Flag("kamailio.uri", "Where to ask Kamailio; repeatable. The first is preferred, large replies go by the way that carries most. Schemes: unix, fifo, http, https, udp, tcp, binrpc+unix, binrpc+tcp.").
		Default(stockURIs...).IsSetByUser(&s.urisGiven).StringsVar(&s.uris)
	app.Flag("kamailio.http-config-file", "YAML file with user, password, TLS and CA options for http:// and https:// (Prometheus' http_config).").
		PlaceHolder("FILE").StringVar(&s.httpConfigFile)
	app.Flag("kamailio.timeout", "Longest time for one RPC.").
		Default(collector.DefaultCallTimeout.String()).DurationVar(&s.callTimeout)
	app.Flag("kamailio.max-concurrent-rpcs", "RPCs at the same time; each one occupies a Kamailio process.").
		Default(fmt.Sprint(kamrpc.DefaultMaxConcurrent)).IntVar(&s.maxConcurrent)
	app.Flag("kamailio.max-reply-size", "Largest reply that is read; a collector that gets a larger one fails.").
		Default("16MiB").BytesVar(&s.maxReply)

	app.Flag("scrape.timeout", "Longest time for a scrape; shorter where Prometheus says so in its request.").
		Default("10s").DurationVar(&s.scrapeTimeout)
	app.Flag("scrape.timeout-offset", "Time kept back of Prometheus' own time-out, for the answer to arrive.").
		Default("500ms").DurationVar(&s.timeoutOffset)
	app.Flag("scrape.reuse", "A scrape that ended less than this ago is served again instead of asking Kamailio anew.").
		Default("250ms").DurationVar(&s.reuse)

	s.switches = map[string]*bool{}
	for _, c := range collector.All(collector.Options{}) {
		s.switches[c.Name()] = app.Flag("collector."+c.Name(), c.About()+".").Default("true").Bool()
	}
	app.Flag("collector.dialog_profile.names", "Dialog profile to count; repeatable.").
		PlaceHolder("NAME").StringsVar(&s.collectors.DialogProfiles)
	app.Flag("collector.dialplan.ids", "Id of a dialplan whose rules to count; repeatable.").
		PlaceHolder("ID").IntsVar(&s.collectors.Dialplans)
	app.Flag("collector.pike.addresses", "Show up to so many blocked source addresses one by one. They are personal data, hence none by default.").
		Default("0").IntVar(&s.collectors.PikeAddresses)
	app.Flag("collector.usrloc_contacts.limit", "Look into the contacts (ul.dump) while there are at most so many; 0 is never. Its cost is quadratic, and it locks the location service.").
		Default(fmt.Sprint(collector.DefaultDumpContacts)).IntVar(&s.collectors.DumpContacts)

	app.Flag("collector.statistics.counter", "Statistic that only grows, to be a counter kamailio_GROUP_NAME_total with this help text rather than a kamailio_statistic; repeatable. In the name, \\= is an equals sign, \\\\ a backslash and \\xHH any byte.").
		PlaceHolder("GROUP:NAME=HELP").StringsVar(&s.promotedCounters)
	app.Flag("collector.statistics.gauge", "The same for a statistic that goes up and down, as a gauge kamailio_GROUP_NAME; repeatable.").
		PlaceHolder("GROUP:NAME=HELP").StringsVar(&s.promotedGauges)
	app.Flag("collector.dialog_age.limit", "Look at the dialogs one by one (dlg.briefing) while there are at most so many; 0 is never.").
		Default(fmt.Sprint(collector.DefaultListDialogs)).IntVar(&s.collectors.ListDialogs)
	app.Flag("collector.tls_connections.limit", "Look at the TLS connections (tls.list) while there are at most so many; 0 is never. It locks all of TCP.").
		Default(fmt.Sprint(collector.DefaultTLSConnections)).IntVar(&s.collectors.TLSConnections)
	app.Flag("collector.cfg.variables", "Numeric setting to show, such as core.debug; repeatable.").
		PlaceHolder("GROUP.NAME").StringsVar(&s.collectors.CfgVariables)
	app.Flag("scrape.list-limit", "Longest list (of destinations, gateways, blocked addresses, domains, ...) that is asked for again; after a longer one it is not for an hour. 0 is no limit.").
		Default(fmt.Sprint(collector.DefaultListRows)).IntVar(&s.collectors.ListRows)
	app.Flag("scrape.growing-interval", "ul.dump, dlg.briefing, tls.list and lists that only a reload changes are asked at most this often; in between their last samples are served, with their age.").
		Default(collector.DefaultGrowingInterval.String()).DurationVar(&s.collectors.GrowingInterval)

	app.Flag("xhttp_prom.url", "Merge the metrics that your script defines for Kamailio's module xhttp_prom, from its page at this http:// or https:// URL, asked as --kamailio.http-config-file says.").
		PlaceHolder("URL").StringVar(&s.pageURL)
	app.Flag("xhttp_prom.timeout", "Longest time for that page; it is never waited for longer than the scrape may take.").
		Default("2s").DurationVar(&s.pageTimeout)
	app.Flag("xhttp_prom.max-size", "Largest page that is merged.").
		Default("2MiB").BytesVar(&s.pageSize)

	app.Flag("sip.probe", "SIP socket of Kamailio to send an OPTIONS request to at every scrape; repeatable. TRANSPORT is udp, tcp or tls. A TLS socket with several certificates is probed for each with ?server_name=NAME behind it.").
		PlaceHolder("TRANSPORT:HOST:PORT[?server_name=NAME]").StringsVar(&s.sipTargets)
	app.Flag("sip.timeout", "Longest time for the answer, with connecting; it is never waited for longer than the scrape may take.").
		Default("2s").DurationVar(&s.sipTimeout)
	app.Flag("sip.request-uri", "SIP URI that is asked for; the probed address by default.").
		PlaceHolder("sip:[USER@]HOST[:PORT]").StringVar(&s.sipURI)
	app.Flag("sip.tls-ca-file", "PEM file of the authorities that the certificates of TLS sockets are held against; those of the system by default.").
		PlaceHolder("FILE").StringVar(&s.sipCAFile)
	app.Flag("sip.tls-server-name", "Name that TLS sockets are asked for (SNI) and that their certificates must have, where --sip.probe says none; the probed host by default.").
		PlaceHolder("NAME").StringVar(&s.sipServerName)

	app.Flag("web.telemetry-path", "Path of the metrics.").
		Default("/metrics").StringVar(&s.telemetryPath)
	app.Flag("web.disable-exporter-metrics", "Leave out the metrics about the exporter itself (go_*, process_*, kamailio_exporter_*).").
		BoolVar(&s.disableExporterMetrics)
	app.Flag("config.file", "YAML file with many Kamailios, each served at /probe?target=NAME (FLEET.md). Then /metrics asks a Kamailio only if --kamailio.uri is given too.").
		PlaceHolder("FILE").StringVar(&s.fleet.configFile)
	app.Flag("config.check", "Check the file of --config.file and end.").
		NoEnvar().BoolVar(&s.fleet.check)
	app.Flag("web.enable-lifecycle", "Let POST /-/reload read the file of --config.file anew, as SIGHUP does.").
		BoolVar(&s.fleet.lifecycle)
	app.Flag("admin.config.file", "YAML file of the admin endpoint, which runs reloads and actions for named users (ADMIN.md). Without it there is none.").
		PlaceHolder("FILE").StringVar(&s.admin.configFile)
	app.Flag("admin.check", "Check the file of --admin.config.file and end.").
		NoEnvar().BoolVar(&s.admin.check)
	app.Flag("admin.print-grants", "Print what the file of --admin.config.file lets each user do, and end.").
		NoEnvar().BoolVar(&s.admin.printGrants)
	app.Flag("runtime.give-way", "Run only while a CPU has nothing else to do (SCHED_IDLE), so that calls do not wait for scrapes. Not on a busy host, nor where the exporter may not return from it.").
		Default("true").BoolVar(&s.giveWay)
	s.web = webflag.AddFlags(app, ":9494")
	promslogflag.AddFlags(app, &s.log)
	return app
}

// parseFlags returns nil settings when all there was to do was to print.
func parseFlags(args []string, stdout io.Writer) (*settings, error) {
	s := &settings{}
	return s.parse(newApp(s), args, stdout)
}

// parse is parseFlags of an application that newApp made.
func (s *settings) parse(app *kingpin.Application, args []string, stdout io.Writer) (*settings, error) {
	_, printed, err := parseArgs(app, args, stdout)
	switch {
	case printed:
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("%w, try --help", err)
	}
	if s.fleet.configFile != "" && !s.urisGiven && os.Getenv(uriVariable) == "" {
		s.uris = nil
	}
	return s, s.check()
}

// parseArgs tells whether all there was to do was to print: --help, --version.
func parseArgs(app *kingpin.Application, args []string, stdout io.Writer) (command string, printed bool, err error) {
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
func (s *settings) check() error {
	for _, q := range []struct {
		flag string
		err  error
	}{
		{"--kamailio.timeout", conf.Timeout(s.callTimeout)},
		{"--kamailio.max-reply-size", conf.Size(s.maxReply, 4*units.KiB)},
		{"--scrape.timeout", conf.Timeout(s.scrapeTimeout)},
		{"--scrape.reuse", conf.Duration(s.reuse, 0, time.Hour)},
		{"--scrape.growing-interval", conf.Duration(s.collectors.GrowingInterval, 0, 24*time.Hour)},
		{"--xhttp_prom.timeout", conf.Timeout(s.pageTimeout)},
		{"--xhttp_prom.max-size", conf.Size(s.pageSize, units.KiB)},
		{"--sip.timeout", conf.Timeout(s.sipTimeout)},
	} {
		if q.err != nil {
			return fmt.Errorf("%s %w", q.flag, q.err)
		}
	}
	switch {
	case s.timeoutOffset < 0 || s.timeoutOffset >= s.scrapeTimeout:
		return fmt.Errorf("--scrape.timeout-offset must be at least 0 and below --scrape.timeout, not %s", s.timeoutOffset)
	case s.maxConcurrent < 1:
		return fmt.Errorf("--kamailio.max-concurrent-rpcs must be at least 1, not %d", s.maxConcurrent)
	case s.collectors.PikeAddresses < 0:
		return fmt.Errorf("--collector.pike.addresses must be at least 0, not %d", s.collectors.PikeAddresses)
	case s.collectors.DumpContacts < 0:
		return fmt.Errorf("--collector.usrloc_contacts.limit must be at least 0, not %d", s.collectors.DumpContacts)
	case s.collectors.ListDialogs < 0:
		return fmt.Errorf("--collector.dialog_age.limit must be at least 0, not %d", s.collectors.ListDialogs)
	case s.collectors.TLSConnections < 0:
		return fmt.Errorf("--collector.tls_connections.limit must be at least 0, not %d", s.collectors.TLSConnections)
	case s.collectors.ListRows < 0:
		return fmt.Errorf("--scrape.list-limit must be at least 0, not %d", s.collectors.ListRows)
	case !strings.HasPrefix(s.telemetryPath, "/") || s.telemetryPath == "/":
		return fmt.Errorf("--web.telemetry-path must be a path below /, such as /metrics, not %q", s.telemetryPath)
	case strings.HasPrefix(s.telemetryPath, "/-/") || strings.ContainsAny(s.telemetryPath, " {}"):
		return fmt.Errorf("--web.telemetry-path %q is not free for metrics", s.telemetryPath)
	}
	for _, v := range s.collectors.CfgVariables {
		if group, name, ok := strings.Cut(v, "."); !ok || group == "" || name == "" {
			return fmt.Errorf("--collector.cfg.variables is a group and a name, such as core.debug, not %q", v)
		}
	}
	if s.pageURL != "" {
		if err := checkPageURL(s.pageURL); err != nil {
			return err
		}
	}
	if err := s.checkSIP(); err != nil {
		return err
	}
	if err := s.checkFleet(); err != nil {
		return err
	}
	return s.promote()
}

// promote reads the statistics that are to have metrics of their own.
func (s *settings) promote() error {
	const counterFlag, gaugeFlag = "--collector.statistics.counter", "--collector.statistics.gauge"
	for _, f := range []struct {
		flag  string
		texts []string
		kind  prometheus.ValueType
	}{
		{counterFlag, s.promotedCounters, prometheus.CounterValue},
		{gaugeFlag, s.promotedGauges, prometheus.GaugeValue},
	} {
		for _, text := range f.texts {
			p, err := collector.ParsePromotion(text, f.kind)
			if err != nil {
				return fmt.Errorf("%s=%q: %w", f.flag, text, err)
			}
			if !*s.switches["statistics"] {
				return fmt.Errorf("%s needs the collector statistics, which is switched off", f.flag)
			}
			s.collectors.Promotions = append(s.collectors.Promotions, p)
		}
	}
	if err := collector.CheckPromotions(s.collectors.Promotions, programName+"_"); err != nil {
		return fmt.Errorf("%s, %s: %w", counterFlag, gaugeFlag, err)
	}
	return nil
}

// enabled are the collectors that are not switched off.
func (s *settings) enabled() []collector.Collector {
	var on []collector.Collector
	for _, c := range collector.All(s.collectors) {
		if *s.switches[c.Name()] {
			on = append(on, c)
		}
	}
	return on
}
