package collector_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kamailio-exporter/kamailio_exporter/collector"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
)

// TestDocs writes METRICS.md from the tables, with -update, and else checks that
// it is what they say.
func TestDocs(t *testing.T) {
	golden(t, "../METRICS.md", metricsPage())
}

func metricsPage() string {
	var b strings.Builder
	b.WriteString(`# Metrics

Made from the tables in the folder collector by ` + "`make docs`" + `; do not edit.

A field that a server does not answer is no sample: a zero is always Kamailio's own. Label values are bytes as Kamailio has them; a byte that is not UTF-8 is written ` + "`\\xHH`" + `.

What an exporter with many targets has of its own is in [FLEET.md](FLEET.md#metrics), what the admin endpoint has in [ADMIN.md](ADMIN.md#metrics).

## The scrape itself

`)
	table(&b, collector.ScrapeDescs())
	for _, c := range collector.All(everything) {
		fmt.Fprintf(&b, "\n## %s\n\n%s. Needs: %s.\n\n", c.Name(), c.About(), code(c.Methods()))
		table(&b, c.Descs())
	}
	b.WriteString(`
## The page of xhttp_prom

Metrics about the page that --xhttp_prom.url names, and with them on our page the metrics that your script defines for the module xhttp_prom, under the names that it gives them.

`)
	table(&b, collector.MergedDescs())
	b.WriteString(`
## SIP probes

What the SIP sockets answer that --sip.probe names. Any final answer is a success: a 404 or 405 too comes from a worker that lives.

`)
	table(&b, collector.SIPProbeDescs())
	b.WriteString(`
## What each call costs Kamailio

Every method that this program may call; it cannot call another. A scrape only reads; the reloads and actions are the [admin endpoint's](ADMIN.md), which is off by default. While a module reloads, nothing of it is read. *Constant*: the same however busy the server is. *Walk*: counted in place. *Growing*: the reply grows with what the server holds; such a call is made only below a limit and at most once in an interval, and after a failure not for a minute, then two, four, up to an hour, or until Kamailio restarts.

| method | effect | cost | grows with | size known from | locks | notes |
| --- | --- | --- | --- | --- | --- | --- |
`)
	for _, p := range kamrpc.PriceList() {
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s | %s | %s |\n", p.Method, p.Effect, p.Cost, p.Of, cell(p.Size), p.Locks, cell(p.Note))
	}
	b.WriteString(`
### Not read

What could be missed on the page, and why it is not there.

| method | why |
| --- | --- |
`)
	for _, u := range collector.Unread() {
		fmt.Fprintf(&b, "| `%s` | %s |\n", u.Method, cell(u.Why))
	}
	b.WriteString(`
### Never called

These are refused, on the versions named, whatever the flags say.

| method | versions | when | what it does |
| --- | --- | --- | --- |
`)
	for _, p := range kamrpc.PriceList() {
		for _, d := range p.Dangers {
			when := "always"
			if d.MinParams > 0 {
				when = fmt.Sprintf("with fewer than %d parameters", d.MinParams)
			}
			versions := "all"
			if d.Versions != "" {
				versions = d.Versions + "*"
			}
			fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", p.Method, versions, when, cell(d.What))
		}
	}
	return b.String()
}

func code(words []string) string {
	return "`" + strings.Join(words, "`, `") + "`"
}

func cell(s string) string { return strings.NewReplacer("|", `\|`, "<", "&lt;").Replace(s) }

func table(b *strings.Builder, descs []*collector.Desc) {
	b.WriteString("| metric | type | labels | meaning | from |\n| --- | --- | --- | --- | --- |\n")
	descs = slices.SortedFunc(slices.Values(descs), func(x, y *collector.Desc) int { return strings.Compare(x.Name, y.Name) })
	for _, d := range descs {
		kind := map[prometheus.ValueType]string{prometheus.GaugeValue: "gauge", prometheus.CounterValue: "counter"}[d.Kind]
		if kind == "" {
			kind = "untyped"
		}
		fmt.Fprintf(b, "| `%s` | %s | %s | %s | %s |\n", d.Name, kind, strings.Join(d.Labels, ", "), cell(d.Help), cell(d.Source))
	}
}
