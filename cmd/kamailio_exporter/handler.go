package main

import (
	"fmt"
	"html"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/go-kit/log"
	"github.com/prometheus/common/version"
	"github.com/prometheus/exporter-toolkit/web"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/fleet"
	"github.com/kamailio-exporter/kamailio_exporter/collector"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
)

// newHandler is everything that is served. client is nil without a Kamailio of its
// own, targets without --config.file.
func newHandler(s *settings, logger log.Logger, slogger *slog.Logger, client *kamrpc.Client, own *ownMetrics, targets *fleet.Fleet) (http.Handler, error) {
	metrics, err := newOnePage(s, logger, slogger, client, own)
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) { // GET serves HEAD too
		landing, err := newLandingPage(s, client, targets) // a reload changes it
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		landing.ServeHTTP(w, r)
	})
	mux.Handle("GET "+s.telemetryPath, metrics)
	// Neither asks Kamailio: that it is down is no reason to restart the exporter.
	mux.Handle("GET /-/healthy", plainText("Healthy.\n"))
	mux.Handle("GET /-/ready", plainText("Ready.\n"))
	if targets != nil {
		s.handleFleet(mux, targets)
	}
	return mux, nil
}

// newOnePage serves the one Kamailio of the flags and the exporter's own metrics,
// or these alone.
func newOnePage(s *settings, logger log.Logger, slogger *slog.Logger, client *kamrpc.Client, own *ownMetrics) (http.Handler, error) {
	if client == nil {
		return pageHandler(own.registry, slogger), nil
	}
	script, err := s.newScriptPage()
	if err != nil {
		return nil, err
	}
	probes, err := s.newSIPProbes()
	if err != nil {
		return nil, err
	}
	coordinator := collector.NewCoordinator(client, s.enabled(), collector.Limits{CallTimeout: s.callTimeout, Reuse: s.reuse})
	return newMetricsHandler(s, logger, slogger, coordinator, own, script, probes), nil
}

func plainText(text string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		fmt.Fprint(w, text)
	})
}

func newLandingPage(s *settings, client *kamrpc.Client, targets *fleet.Fleet) (http.Handler, error) {
	var page strings.Builder
	links := []web.LandingLinks{{Address: s.telemetryPath, Text: "Metrics"}}
	if targets != nil {
		writeTargets(&page, targets.Targets())
		links = append(links, web.LandingLinks{Address: "/sd", Text: "Targets", Description: "for Prometheus' http_sd_configs"})
	}
	if client != nil {
		page.WriteString("<h3>Kamailio is asked at</h3>\n<ul>\n")
		for _, t := range client.Ways() {
			fmt.Fprintf(&page, "<li><code>%s</code></li>\n", html.EscapeString(t))
		}
		page.WriteString("</ul>\n")
	}
	on := collector.Names(s.enabled())
	page.WriteString("<h3>Collectors</h3>\n<table>\n<tr><th>Name</th><th>What it tells</th><th></th></tr>\n")
	for _, c := range collector.All(s.collectors) {
		link := "off"
		switch {
		case !slices.Contains(on, c.Name()):
		case client == nil:
			link = "on"
		default:
			link = fmt.Sprintf(`<a href="%s?collect[]=%s">only this</a>`, html.EscapeString(s.telemetryPath), c.Name())
		}
		fmt.Fprintf(&page, "<tr><td><code>%s</code></td><td>%s</td><td>%s</td></tr>\n", c.Name(), html.EscapeString(c.About()), link)
	}
	page.WriteString("</table>\n")
	return web.NewLandingPage(web.LandingConfig{
		Name:        "Kamailio Exporter",
		Description: "Prometheus exporter for the Kamailio SIP server",
		HeaderColor: "#2c5f8a",
		Version:     version.Info(),
		Links: append(links,
			web.LandingLinks{Address: "/-/healthy", Text: "Health", Description: "200 while the exporter runs, whatever Kamailio does"},
			web.LandingLinks{Address: "/-/ready", Text: "Readiness", Description: "200 while the exporter runs"},
		),
		ExtraHTML: page.String(),
		ExtraCSS:  "table{border-collapse:collapse}td,th{text-align:left;padding:.2em 1em .2em 0;border-bottom:1px solid #ddd}",
		Profiling: "false",
	})
}

func writeTargets(page *strings.Builder, targets []*fleet.Target) {
	fmt.Fprintf(page, "<h3>Targets (%d)</h3>\n<table>\n<tr><th>Name</th><th>Asked at</th><th>Module</th><th>Labels</th></tr>\n", len(targets))
	for _, t := range targets {
		labels := make([]string, 0, len(t.Labels))
		for _, name := range slices.Sorted(maps.Keys(t.Labels)) {
			labels = append(labels, name+"="+t.Labels[name])
		}
		fmt.Fprintf(page, `<tr><td><a href="%s">%s</a></td><td>%s</td><td>%s</td><td>%s</td></tr>`+"\n",
			html.EscapeString(probeLink(t)), html.EscapeString(t.Name), html.EscapeString(strings.Join(t.URIs, " ")), html.EscapeString(t.Module), html.EscapeString(strings.Join(labels, ", ")))
	}
	page.WriteString("</table>\n")
}
