package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/serve"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/sipprobe"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/xhttpprom"
	"github.com/kamailio-exporter/kamailio_exporter/collector"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
)

// TestDocsOfMetrics generates docs/metrics.md and docs/rpc-costs.md from the tables with
// -update; otherwise it checks that they are up to date.
func TestDocsOfMetrics(t *testing.T) {
	file := filepath.Join(docsDir, "metrics.md")
	writeDocument(t, file, readText(t, file), metricsPage())
	file = filepath.Join(docsDir, "rpc-costs.md")
	is := readText(t, file)
	writeDocument(t, file, is, replacePart(t, is, "prices", priceTables()))
}

// everything enables all optional metrics.
var everything = collector.Options{DialogProfiles: []string{"x"}, HTableItems: []string{"x"}, PikeAddresses: 1, DumpContacts: 1, TLSConnections: 1, CfgVariables: []string{"core.debug"}, Dialplans: []int{1}}

// besideDescs returns the metrics of the page that belong to no collector.
func besideDescs() []*collector.Desc {
	return slices.Concat(collector.ScrapeDescs(), xhttpprom.Descs(), sipprobe.Descs())
}

func descs() []*collector.Desc {
	all := besideDescs()
	for _, c := range collector.All(everything) {
		all = append(all, c.Descs()...)
	}
	return all
}

// TestNames checks the rules for names and help texts of all metrics.
func TestNames(t *testing.T) {
	name := regexp.MustCompile(`^kamailio(_[a-z0-9]+)+$`)
	label := regexp.MustCompile(`^[a-z]+(_[a-z]+)*$`)
	kinds := map[string]prometheus.ValueType{}
	helps := map[string]string{}
	for _, d := range descs() {
		if !name.MatchString(d.Name) {
			t.Errorf("%s: the name is not kamailio_<module>_<thing>_<unit>", d.Name)
		}
		if isCounter := d.Kind == prometheus.CounterValue; isCounter != strings.HasSuffix(d.Name, "_total") {
			t.Errorf("%s: counters, and only they, end in _total", d.Name)
		}
		if known, ok := helps[d.Name]; ok && known != d.Help {
			t.Errorf("%s has two help texts: the whole page would fail", d.Name)
		}
		helps[d.Name] = d.Help
		kinds[d.Name] = d.Kind
		if len(d.Help) < 10 || !strings.HasSuffix(d.Help, ".") || strings.Contains(d.Help, "\n") {
			t.Errorf("%s: help is a sentence on one line, not %q", d.Name, d.Help)
		}
		if d.Source == "" {
			t.Errorf("%s: no source", d.Name)
		}
		for _, bad := range []string{"_milliseconds", "_ms", "_kb", "_percentage", "_count", "_sum", "_bucket"} {
			if strings.HasSuffix(strings.TrimSuffix(d.Name, "_total"), bad) {
				t.Errorf("%s: base units only, and no suffix that means a histogram's", d.Name)
			}
		}
		for _, l := range d.Labels {
			if !label.MatchString(l) || slices.Contains([]string{"le", "quantile", "job", "instance", "pid", "rank"}, l) {
				t.Errorf("%s: label %s is reserved, or changes with every restart", d.Name, l)
			}
		}
	}
	// In OpenMetrics, the counter x_total belongs to the family x.
	for n, kind := range kinds {
		if kind == prometheus.CounterValue {
			if _, taken := kinds[strings.TrimSuffix(n, "_total")]; taken {
				t.Errorf("%s and %s are one name in OpenMetrics", n, strings.TrimSuffix(n, "_total"))
			}
		}
	}
}

// ownMetrics returns the metrics about the exporter itself with these flags, after a
// scrape of a Kamailio that is down.
func ownMetrics(t *testing.T, args ...string) []*dto.MetricFamily {
	t.Helper()
	s, err := settings(args...)
	if err != nil {
		t.Fatal(err)
	}
	service, err := serve.New(s, nil, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	service.Handler().ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/metrics", nil))
	families, err := service.OwnMetrics().Gather()
	if err != nil {
		t.Fatal(err)
	}
	return families
}

func metricsPage() string {
	var b strings.Builder
	b.WriteString(`# Metrics

Generated from the code by ` + "`make docs`" + `; do not edit.

A value that a server does not report is absent: a zero always comes from Kamailio. Label values are the bytes that Kamailio sends; a byte that is not UTF-8 is written ` + "`\\xHH`" + `. The column "from" names the RPC and field, or the statistic.

The metrics of an exporter with many servers are in [Many servers](multi-target.md#metrics), those of the admin endpoint in [Admin endpoint](admin.md#metrics).

From the page of the demo:

` + "```" + `
kamailio_up 1
kamailio_build_info{compiler="gcc 12.2.0",version="5.6.3"} 1
kamailio_core_requests_received_by_method_total{method="INVITE"} 539
kamailio_dialog_local_dialogs{state="ongoing"} 7
kamailio_dialog_processed_total 534
kamailio_dialog_failed_total 105
kamailio_usrloc_contacts{domain="location"} 31
kamailio_dispatcher_destination_up{duid="gw1c",index="0",set="2",socket="",uri="sip:127.0.0.1:15090"} 1
kamailio_dispatcher_destination_up{duid="off",index="0",set="2",socket="",uri="sip:127.0.0.1:15092"} 0
kamailio_drouting_gateway_up{address="127.0.0.1:15098",gateway="4"} 0
kamailio_statistic{group="script",name="demo_calls"} 539
kamailio_scrape_collector_success{collector="core"} 1
` + "```" + `

## The scrape itself

`)
	metricTable(&b, collector.ScrapeDescs())
	for _, c := range collector.All(everything) {
		fmt.Fprintf(&b, "\n## %s\n\n%s. Needs: %s.\n\n", c.Name(), c.About(), docCode(c.Methods()))
		metricTable(&b, c.Descs())
	}
	b.WriteString(`
## The page of xhttp_prom

Metrics about the page of --xhttp_prom.url. The metrics that your script defines for the module xhttp_prom are exported beside them, under the names that it gives them.

`)
	metricTable(&b, xhttpprom.Descs())
	b.WriteString(`
## SIP probes

Replies of the SIP sockets of --sip.probe. Any final reply is a success: a 404 or 405 also comes from a live worker.

`)
	metricTable(&b, sipprobe.Descs())
	return b.String()
}

// priceTables lists the cost of each RPC, and the RPCs that are never called.
func priceTables() string {
	var b strings.Builder
	b.WriteString(`Every RPC that the exporter can call; it cannot call another. A scrape only reads. Reloads and actions belong to the [admin endpoint](admin.md), which is off by default. While a module reloads, nothing of it is read.

## What each call costs Kamailio

- **constant**: the same however busy the server is.
- **walk**: counted in place.
- **growing**: the reply grows with what the server holds. Such a call is made only below a limit and at most once in an interval. After a failure it is paused for one minute, then two, four, up to an hour, or until Kamailio restarts.

The limits were measured on Kamailio 5.6.3 and 6.0.1 with 8 MB of private memory. [Collectors](collectors.md#what-is-skipped-and-when) explains them.

| method | effect | cost | grows with | size known from | locks | notes |
| --- | --- | --- | --- | --- | --- | --- |
`)
	for _, p := range kamrpc.PriceList() {
		note := p.Note
		if p.JSONLoses != "" {
			note += "; over JSON-RPC Kamailio leaves out " + p.JSONLoses + ", so it is called over BINRPC where a URI is one"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s | %s | %s |\n", p.Method, p.Effect, p.Cost, p.Of, docCell(p.Size), p.Locks, docCell(note))
	}
	b.WriteString(`
## Not read

What you might miss among the metrics, and why it is not exported.

| method | why |
| --- | --- |
`)
	for _, u := range collector.Unread() {
		fmt.Fprintf(&b, "| `%s` | %s |\n", u.Method, docCell(u.Why))
	}
	b.WriteString(`
## Never called

These calls are refused on the versions named, whatever the flags say.

| method | versions | when | what it does |
| --- | --- | --- | --- |
`)
	for _, p := range kamrpc.PriceList() {
		for _, d := range p.Dangers {
			when := "always"
			if d.MinParams > 0 {
				when = fmt.Sprintf("with fewer than %d parameters", d.MinParams)
			}
			fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", p.Method, d.On(), when, docCell(d.What))
		}
	}
	return b.String()
}

func docCode(words []string) string {
	return "`" + strings.Join(words, "`, `") + "`"
}

func docCell(s string) string { return strings.NewReplacer("|", `\|`, "<", "&lt;").Replace(s) }

func metricTable(b *strings.Builder, descs []*collector.Desc) {
	b.WriteString("| metric | type | labels | meaning | from |\n| --- | --- | --- | --- | --- |\n")
	descs = slices.SortedFunc(slices.Values(descs), func(x, y *collector.Desc) int { return strings.Compare(x.Name, y.Name) })
	for _, d := range descs {
		kind := map[prometheus.ValueType]string{prometheus.GaugeValue: "gauge", prometheus.CounterValue: "counter"}[d.Kind]
		if d.Bounds != nil {
			kind = "histogram"
		}
		kind = cmp.Or(kind, "untyped")
		fmt.Fprintf(b, "| `%s` | %s | %s | %s | %s |\n", d.Name, kind, strings.Join(d.Labels, ", "), docCell(d.Help), docCell(d.Source))
	}
}

// metricsFile lists the name and the labels of each metric for the tests of dashboards
// and rules, which are in another module and cannot import internal packages.
var metricsFile = filepath.Join("..", "..", "dashboards", "generate", "mixin", "metrics.tsv")

// TestDocsMetricNames writes metricsFile with -update; otherwise it checks that the file
// is complete.
func TestDocsMetricNames(t *testing.T) {
	labels := map[string]string{}
	for _, d := range descs() {
		if d.Bounds == nil {
			labels[d.Name] = strings.Join(d.Labels, ",")
			continue
		}
		for series, more := range map[string][]string{"_bucket": {"le"}, "_sum": nil, "_count": nil} {
			labels[d.Name+series] = strings.Join(slices.Concat(d.Labels, more), ",")
		}
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "admin.yml")
	text := strings.ReplaceAll(readText(t, filepath.Join("..", "..", "examples", "admin", "repair", "admin.yml")), "/var/lib/kamailio-exporter/", dir+"/")
	if err := os.WriteFile(file, []byte(strings.Replace(text, "127.0.0.1:9443", "127.0.0.1:0", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := settings(
		"--kamailio.uri=unix:///none", "--admin.config.file="+file,
		"--config.file="+fleetFile(t, "targets: {a: {uris: ['tcp://192.0.2.1:8091']}}"),
	)
	if err != nil {
		t.Fatal(err)
	}
	adminConfig, err := s.AdminConfig()
	if err != nil {
		t.Fatal(err)
	}
	service, err := serve.New(s, adminConfig, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	all := make(chan *prometheus.Desc)
	go func() { defer close(all); service.OwnMetrics().Describe(all) }()
	// client_golang has no other way to read the name and labels of a Desc.
	described := regexp.MustCompile(`fqName: "([^"]+)".*constLabels: \{([^}]*)\}, variableLabels: \{([^}]*)\}`)
	for d := range all {
		found := described.FindStringSubmatch(d.String())
		if found == nil {
			t.Fatalf("%s: neither name nor labels found", d)
		}
		constant := regexp.MustCompile(`="[^"]*"`).ReplaceAllString(found[2], "")
		labels[found[1]] = strings.Trim(constant+","+found[3], ",")
	}
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		fmt.Fprintf(&b, "%s\t%s\n", name, labels[name])
	}
	is, _ := os.ReadFile(metricsFile)
	writeDocument(t, metricsFile, string(is), b.String())
}
