package target

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/alecthomas/units"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/config"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/conf"
	"github.com/kamailio-exporter/kamailio_exporter/collector"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
)

// This file has all settings of a target: as a field, as a flag (Flags), as a key of the
// configuration file (Spec, OwnSpec), and their bounds (Check).

// Target is one Kamailio, with all settings needed to scrape it.
type Target struct {
	Source     Source
	URIs       []string                 // in order of preference; empty: there is no Kamailio
	HTTP       *config.HTTPClientConfig // nil: without credentials
	Limits     Limits
	Collectors []string // names of the enabled ones
	Options    collector.Options
	SIP        SIP
	Script     Script
}

// Limits bound the cost of a scrape.
type Limits struct {
	ScrapeTimeout     time.Duration // of a whole scrape
	TimeoutOffset     time.Duration // subtracted from Prometheus' scrape timeout
	Reuse             time.Duration // maximum age of a scrape that is served again
	RPCTimeout        time.Duration // of one call
	MaxConcurrentRPCs int
	MaxReplySize      units.Base2Bytes
}

// SIP defines the SIP sockets to probe. If Probe is empty, none are probed.
type SIP struct {
	Probe      []string
	Timeout    time.Duration
	RequestURI string
	CAFile     string
	ServerName string
}

// Script locates the page of the module xhttp_prom. If URL is empty, no page is read.
type Script struct {
	URL     string
	Timeout time.Duration
	MaxSize units.Base2Bytes
}

// OwnPrefixes returns the prefixes that are reserved for metrics about the exporter
// itself and about what it reads in addition to RPCs. No statistic or script metric may
// use them.
func OwnPrefixes() []string {
	return []string{"kamailio_exporter_", "kamailio_sip_probe_", "kamailio_xhttp_prom_", "go_", "process_"}
}

// StockURIs returns the sockets that a stock Debian Kamailio opens: the datagram socket
// for small replies, the FIFO for those that may be large.
func StockURIs() []string {
	return []string{"unix:///run/kamailio/kamailio_rpc.sock", "fifo:///run/kamailio/kamailio_rpc.fifo"}
}

const (
	httpFileFlag = "kamailio.http-config-file"
	typesFlag    = "collector.statistics.types"
)

// Flags are the settings of a target from the command line and the environment.
type Flags struct {
	HTTPConfigFile string
	URIsGiven      bool // on the command line

	target           Target
	switches         map[string]*bool // by collector
	counters, gauges []string
	typesFile        string
}

// Declare declares the flags for the connection, the scrape and the collectors.
func (f *Flags) Declare(cmd *kingpin.CmdClause) {
	t := &f.target
	cmd.Flag("kamailio.uri", "RPC endpoint of Kamailio, repeatable, in order of preference. Large replies use the endpoint with the highest size limit. Schemes: unix, fifo, http, https, udp, tcp, binrpc+unix, binrpc+tcp. Default: the socket and the FIFO of a stock Debian Kamailio.").
		PlaceHolder("URI").Default(StockURIs()...).IsSetByUser(&f.URIsGiven).StringsVar(&t.URIs)
	cmd.Flag(httpFileFlag, "YAML file with credentials and TLS settings for http:// and https:// endpoints, in the format of Prometheus' http_config.").
		PlaceHolder("FILE").StringVar(&f.HTTPConfigFile)
	cmd.Flag("kamailio.timeout", "Timeout of one RPC.").
		Default(collector.DefaultCallTimeout.String()).DurationVar(&t.Limits.RPCTimeout)
	cmd.Flag("kamailio.max-concurrent-rpcs", "Maximum number of concurrent RPCs. Each of them occupies a Kamailio process.").
		Default(fmt.Sprint(kamrpc.DefaultMaxConcurrent)).IntVar(&t.Limits.MaxConcurrentRPCs)
	cmd.Flag("kamailio.max-reply-size", "Maximum size of a reply. A collector that receives a larger one fails.").
		Default("16MiB").BytesVar(&t.Limits.MaxReplySize)

	cmd.Flag("scrape.timeout", "Timeout of a scrape. A shorter timeout that Prometheus sends with its request takes precedence.").
		Default("10s").DurationVar(&t.Limits.ScrapeTimeout)
	cmd.Flag("scrape.timeout-offset", "Subtracted from Prometheus' scrape timeout, so that the reply arrives in time.").
		Default("500ms").DurationVar(&t.Limits.TimeoutOffset)
	cmd.Flag("scrape.reuse", "Serve the previous scrape again if it is not older than this. Kamailio is not queried then.").
		Default("250ms").DurationVar(&t.Limits.Reuse)

	f.switches = map[string]*bool{}
	for _, c := range collector.All(collector.Options{}) {
		f.switches[c.Name()] = cmd.Flag("collector."+c.Name(), c.About()+".").Default("true").Bool()
	}
	o := &t.Options
	cmd.Flag("collector.dialog_profile.names", "Dialog profile whose dialogs are counted: all of them, or those with one value; repeatable.").
		PlaceHolder("PROFILE[:VALUE]").StringsVar(&o.DialogProfiles)
	cmd.Flag("collector.dialplan.ids", "ID of a dialplan whose rules are counted; repeatable.").
		PlaceHolder("ID").IntsVar(&o.Dialplans)
	cmd.Flag("collector.pike.addresses", "Maximum number of blocked source addresses to export as labels. They are personal data, so the default is 0.").
		Default("0").IntVar(&o.PikeAddresses)
	cmd.Flag("collector.usrloc_contacts.limit", "Examine contacts one by one (ul.dump) only while there are at most this many; 0 disables it. ul.dump has quadratic cost, and locks the location service.").
		Default(fmt.Sprint(collector.DefaultDumpContacts)).IntVar(&o.DumpContacts)
	cmd.Flag("collector.statistics.counter", "Export this statistic as the counter kamailio_GROUP_NAME_total with this help text, instead of as kamailio_statistic; repeatable. Its value must never decrease. In NAME, write \\= for an equals sign, \\\\ for a backslash and \\xHH for any byte.").
		PlaceHolder("GROUP:NAME=HELP").StringsVar(&f.counters)
	cmd.Flag("collector.statistics.gauge", "Export this statistic as the gauge kamailio_GROUP_NAME with this help text, instead of as kamailio_statistic; repeatable.").
		PlaceHolder("GROUP:NAME=HELP").StringsVar(&f.gauges)
	cmd.Flag(typesFlag, "File with such statistics, one a line: counter GROUP:NAME=HELP, or gauge GROUP:NAME=HELP. A line that begins with # is a comment. It is read at the start. Statistics of Kamailio's own modules have types without it.").
		PlaceHolder("FILE").StringVar(&f.typesFile)
	cmd.Flag("collector.dialog_age.limit", "Examine dialogs one by one (dlg.briefing) only while there are at most this many; 0 disables it.").
		Default(fmt.Sprint(collector.DefaultListDialogs)).IntVar(&o.ListDialogs)
	cmd.Flag("collector.tls_connections.limit", "Examine TLS connections one by one (tls.list) only while there are at most this many; 0 disables it. tls.list locks all TCP connections.").
		Default(fmt.Sprint(collector.DefaultTLSConnections)).IntVar(&o.TLSConnections)
	cmd.Flag("collector.cfg.variables", "Numeric runtime setting of Kamailio to export, such as core.debug; repeatable.").
		PlaceHolder("GROUP.NAME").StringsVar(&o.CfgVariables)
	cmd.Flag("collector.htable_items.table", "htable whose integer items are exported as kamailio_htable_item while it has at most --scrape.list-limit entries; repeatable. Its keys become label values, so do not export a table whose keys are personal data.").
		PlaceHolder("NAME").StringsVar(&o.HTableItems)
	cmd.Flag("collector.trunks.table", "Name of the htable in which kamailio-trunks.cfg counts the calls to each trunk.").
		Default(collector.DefaultTrunksTable).StringVar(&o.TrunksTable)
	cmd.Flag("scrape.list-limit", "A list (of destinations, gateways, blocked addresses, domains and so on) that is longer than this is skipped for one hour. 0 disables the limit.").
		Default(fmt.Sprint(collector.DefaultListRows)).IntVar(&o.ListRows)
	cmd.Flag("scrape.growing-interval", "Minimum interval between calls of ul.dump, dlg.briefing and tls.list, and of lists that change only on a reload. Until then, their previous samples are served again, with their age.").
		Default(collector.DefaultGrowingInterval.String()).DurationVar(&o.GrowingInterval)

	cmd.Flag("xhttp_prom.url", "Merge the metrics that your script defines with Kamailio's module xhttp_prom. This is the http:// or https:// URL of their page; --kamailio.http-config-file applies to it.").
		PlaceHolder("URL").StringVar(&t.Script.URL)
	cmd.Flag("xhttp_prom.timeout", "Timeout for that page. The timeout of the scrape applies too.").
		Default("2s").DurationVar(&t.Script.Timeout)
	cmd.Flag("xhttp_prom.max-size", "Maximum size of that page.").
		Default("2MiB").BytesVar(&t.Script.MaxSize)

	cmd.Flag("sip.probe", "SIP socket of Kamailio to which each scrape sends an OPTIONS request, repeatable. TRANSPORT is udp, tcp or tls. If a TLS socket has several certificates, give it once for each, with ?server_name=NAME.").
		PlaceHolder("TRANSPORT:HOST:PORT[?server_name=NAME]").StringsVar(&t.SIP.Probe)
	cmd.Flag("sip.timeout", "Timeout of a probe, including the connection setup. The timeout of the scrape applies too.").
		Default("2s").DurationVar(&t.SIP.Timeout)
	cmd.Flag("sip.request-uri", "Request-URI of the OPTIONS request. Default: the probed address.").
		PlaceHolder("sip:[USER@]HOST[:PORT]").StringVar(&t.SIP.RequestURI)
	cmd.Flag("sip.tls-ca-file", "PEM file with the CA certificates to verify TLS sockets with. Default: those of the system.").
		PlaceHolder("FILE").StringVar(&t.SIP.CAFile)
	cmd.Flag("sip.tls-server-name", "Server name to send to TLS sockets (SNI) and to verify in their certificates, if --sip.probe has none. Default: the probed host.").
		PlaceHolder("NAME").StringVar(&t.SIP.ServerName)
}

// Target returns the target that the flags describe. The flags must be parsed.
func (f *Flags) Target() (Target, error) {
	t := f.target
	if f.HTTPConfigFile != "" {
		loaded, _, err := config.LoadHTTPConfigFile(f.HTTPConfigFile)
		if err != nil {
			return t, fmt.Errorf("--%s: %w", httpFileFlag, err)
		}
		t.HTTP = loaded
	}
	for _, name := range collector.Names(collector.All(collector.Options{})) {
		if *f.switches[name] {
			t.Collectors = append(t.Collectors, name)
		}
	}
	if len(t.SIP.Probe) == 0 && (t.SIP.RequestURI != "" || t.SIP.CAFile != "" || t.SIP.ServerName != "") {
		return t, errors.New("--sip.request-uri and --sip.tls-* need --sip.probe, which defines the SIP sockets")
	}
	types, err := readTypes(f.typesFile)
	if err != nil {
		return t, fmt.Errorf("--%s: %w", typesFlag, err)
	}
	errs := append(t.Check(), t.promote(f.counters, f.gauges, types)...)
	if len(errs) > 0 {
		return t, errs[0]
	}
	if len(t.Options.Promotions) > 0 && !slices.Contains(t.Collectors, "statistics") {
		return t, errors.New("--collector.statistics.* need the collector statistics, which is disabled")
	}
	return t, nil
}

// readTypes returns the text of the file, or "" without a file.
func readTypes(file string) (string, error) {
	if file == "" {
		return "", nil
	}
	text, err := os.ReadFile(file)
	return string(text), err
}

// promote parses the names of statistics that get metrics of their own. The lines of types
// begin with the type.
func (t *Target) promote(counters, gauges []string, types string) (errs []error) {
	t.Options.Promotions = nil
	add := func(from, text string, kind prometheus.ValueType) {
		p, err := collector.ParsePromotion(text, kind)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %q: %w", from, text, err))
			return
		}
		t.Options.Promotions = append(t.Options.Promotions, p)
	}
	counterName := t.Name("collector.statistics.counter", "collectors: statistics_counters")
	gaugeName := t.Name("collector.statistics.gauge", "collectors: statistics_gauges")
	for _, text := range counters {
		add(counterName, text, prometheus.CounterValue)
	}
	for _, text := range gauges {
		add(gaugeName, text, prometheus.GaugeValue)
	}
	for line := range strings.Lines(types) {
		line = strings.TrimSpace(line)
		switch kind, text, _ := strings.Cut(line, " "); {
		case line == "" || line[0] == '#':
		case kind == "counter":
			add("--"+typesFlag, text, prometheus.CounterValue)
		case kind == "gauge":
			add("--"+typesFlag, text, prometheus.GaugeValue)
		default:
			errs = append(errs, fmt.Errorf("--%s: %q begins with neither counter nor gauge", typesFlag, line))
		}
	}
	if err := collector.CheckPromotions(t.Options.Promotions, OwnPrefixes()...); err != nil {
		errs = append(errs, fmt.Errorf("%s, %s: %w", counterName, gaugeName, err))
	}
	return errs
}

// Check reports settings that are out of bounds or contradict each other.
func (t Target) Check() (errs []error) {
	must := func(flag, key string, ok bool, be string, is any) {
		if !ok {
			errs = append(errs, fmt.Errorf("%s must be %s, not %v", t.Name(flag, key), be, is))
		}
	}
	quantity := func(flag, key string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("%s %w", t.Name(flag, key), err))
		}
	}
	l, o := t.Limits, t.Options
	quantity("kamailio.timeout", "limits: rpc_timeout", conf.Timeout(l.RPCTimeout))
	quantity("scrape.timeout", "limits: scrape_timeout", conf.Timeout(l.ScrapeTimeout))
	if t.Source == FromFile { // the offset can only be set by a flag
		must("", "limits: scrape_timeout", l.ScrapeTimeout > l.TimeoutOffset, fmt.Sprintf("more than --scrape.timeout-offset (%s)", l.TimeoutOffset), l.ScrapeTimeout)
	} else {
		must("scrape.timeout-offset", "", l.TimeoutOffset >= 0 && l.TimeoutOffset < l.ScrapeTimeout, "at least 0 and below --scrape.timeout", l.TimeoutOffset)
		quantity("scrape.reuse", "", conf.Duration(l.Reuse, 0, time.Hour))
	}
	must("kamailio.max-concurrent-rpcs", "limits: max_concurrent_rpcs", l.MaxConcurrentRPCs >= 1, "at least 1", l.MaxConcurrentRPCs)
	quantity("kamailio.max-reply-size", "limits: max_reply_size", conf.Size(l.MaxReplySize, 4*units.KiB))
	quantity("scrape.growing-interval", "limits: growing_interval", conf.Duration(o.GrowingInterval, 0, 24*time.Hour))
	quantity("xhttp_prom.timeout", "xhttp_prom: timeout", conf.Timeout(t.Script.Timeout))
	quantity("xhttp_prom.max-size", "xhttp_prom: max_size", conf.Size(t.Script.MaxSize, units.KiB))
	quantity("sip.timeout", "sip: timeout", conf.Timeout(t.SIP.Timeout))
	must("collector.pike.addresses", "collectors: pike_addresses", o.PikeAddresses >= 0, "at least 0", o.PikeAddresses)
	must("collector.usrloc_contacts.limit", "limits: contacts", o.DumpContacts >= 0, "at least 0", o.DumpContacts)
	must("collector.dialog_age.limit", "limits: dialogs", o.ListDialogs >= 0, "at least 0", o.ListDialogs)
	must("collector.tls_connections.limit", "limits: tls_connections", o.TLSConnections >= 0, "at least 0", o.TLSConnections)
	must("scrape.list-limit", "limits: list_rows", o.ListRows >= 0, "at least 0", o.ListRows)
	for _, v := range o.CfgVariables {
		group, name, _ := strings.Cut(v, ".")
		if group == "" || name == "" {
			errs = append(errs, fmt.Errorf("%s must be GROUP.NAME, such as core.debug, not %q", t.Name("collector.cfg.variables", "collectors: cfg_variables"), v))
		}
	}
	if t.Script.URL != "" {
		if err := t.checkPage(); err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}

// checkPage does not print the URL, which may contain a password.
func (t Target) checkPage() error {
	name := t.Name("xhttp_prom.url", "xhttp_prom: url")
	u, err := url.Parse(t.Script.URL)
	switch {
	case err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "":
		return fmt.Errorf("%s must be the address of Kamailio's page, such as http://127.0.0.1:5060/metrics", name)
	case u.User != nil:
		where := "http_config"
		if t.Source == FromFlags {
			where = "the HTTP configuration file (--" + httpFileFlag + ")"
		}
		return fmt.Errorf("%s must not contain a user or password; put them into %s", name, where)
	}
	return nil
}

// Spec has the settings that the file can give for one target or for all of them. A nil
// field leaves the setting unchanged.
type Spec struct {
	HTTP       *config.HTTPClientConfig `yaml:"http_config"`
	Limits     limitsSpec               `yaml:"limits"`
	Collectors collectorsSpec           `yaml:"collectors"`
}

type limitsSpec struct {
	ScrapeTimeout     *time.Duration    `yaml:"scrape_timeout"`
	RPCTimeout        *time.Duration    `yaml:"rpc_timeout"`
	MaxConcurrentRPCs *int              `yaml:"max_concurrent_rpcs"`
	MaxReplySize      *units.Base2Bytes `yaml:"max_reply_size"`
	GrowingInterval   *time.Duration    `yaml:"growing_interval"`
	ListRows          *int              `yaml:"list_rows"`
	Contacts          *int              `yaml:"contacts"`
	Dialogs           *int              `yaml:"dialogs"`
	TLSConnections    *int              `yaml:"tls_connections"`
}

type collectorsSpec struct {
	DialogProfiles []string `yaml:"dialog_profiles"`
	Dialplans      []int    `yaml:"dialplans"`
	PikeAddresses  *int     `yaml:"pike_addresses"`
	CfgVariables   []string `yaml:"cfg_variables"`
	TrunksTable    *string  `yaml:"trunks_table"`
	HTableItems    []string `yaml:"htable_items"`
	Counters       []string `yaml:"statistics_counters"`
	Gauges         []string `yaml:"statistics_gauges"`
}

// OwnSpec has the settings that the file can give for one target only.
type OwnSpec struct {
	SIP    sipSpec    `yaml:"sip"`
	Script scriptSpec `yaml:"xhttp_prom"`
}

type sipSpec struct {
	Probe      []string       `yaml:"probe"`
	Timeout    *time.Duration `yaml:"timeout"`
	RequestURI string         `yaml:"request_uri"`
	CAFile     string         `yaml:"tls_ca_file"`
	ServerName string         `yaml:"tls_server_name"`
}

type scriptSpec struct {
	URL     string            `yaml:"url"`
	Timeout *time.Duration    `yaml:"timeout"`
	MaxSize *units.Base2Bytes `yaml:"max_size"`
}

// Apply sets the fields that the file gives.
func (s Spec) Apply(t *Target) (errs []error) {
	t.Source = FromFile
	if s.HTTP != nil {
		t.HTTP = s.HTTP
	}
	set(&t.Limits.ScrapeTimeout, s.Limits.ScrapeTimeout)
	set(&t.Limits.RPCTimeout, s.Limits.RPCTimeout)
	set(&t.Limits.MaxConcurrentRPCs, s.Limits.MaxConcurrentRPCs)
	set(&t.Limits.MaxReplySize, s.Limits.MaxReplySize)
	set(&t.Options.GrowingInterval, s.Limits.GrowingInterval)
	set(&t.Options.ListRows, s.Limits.ListRows)
	set(&t.Options.DumpContacts, s.Limits.Contacts)
	set(&t.Options.ListDialogs, s.Limits.Dialogs)
	set(&t.Options.TLSConnections, s.Limits.TLSConnections)
	setList(&t.Options.DialogProfiles, s.Collectors.DialogProfiles)
	setList(&t.Options.Dialplans, s.Collectors.Dialplans)
	set(&t.Options.PikeAddresses, s.Collectors.PikeAddresses)
	setList(&t.Options.CfgVariables, s.Collectors.CfgVariables)
	set(&t.Options.TrunksTable, s.Collectors.TrunksTable)
	setList(&t.Options.HTableItems, s.Collectors.HTableItems)
	if s.Collectors.Counters != nil || s.Collectors.Gauges != nil {
		errs = t.promote(s.Collectors.Counters, s.Collectors.Gauges, "")
	}
	return errs
}

// Apply sets the fields that the file gives.
func (s OwnSpec) Apply(t *Target) (errs []error) {
	t.Source = FromFile
	t.SIP.Probe, t.SIP.RequestURI, t.SIP.CAFile, t.SIP.ServerName = s.SIP.Probe, s.SIP.RequestURI, s.SIP.CAFile, s.SIP.ServerName
	set(&t.SIP.Timeout, s.SIP.Timeout)
	t.Script.URL = s.Script.URL
	set(&t.Script.Timeout, s.Script.Timeout)
	set(&t.Script.MaxSize, s.Script.MaxSize)
	if len(s.SIP.Probe) == 0 && (s.SIP.Timeout != nil || s.SIP.RequestURI != "" || s.SIP.CAFile != "" || s.SIP.ServerName != "") {
		errs = append(errs, errors.New("sip: probe is missing; it defines the SIP sockets, such as probe: [udp:192.0.2.10:5060]"))
	}
	if s.Script.URL == "" && (s.Script.Timeout != nil || s.Script.MaxSize != nil) {
		errs = append(errs, errors.New("xhttp_prom: url is missing; it defines the page, such as url: http://192.0.2.10:5060/metrics"))
	}
	return errs
}

func set[T any](setting *T, to *T) {
	if to != nil {
		*setting = *to
	}
}

func setList[T any](setting *[]T, to []T) {
	if to != nil {
		*setting = to
	}
}
