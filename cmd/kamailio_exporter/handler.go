package main

import (
	"fmt"
	"html"
	"log/slog"
	"net/http"
	"slices"
	"strings"

	"github.com/go-kit/log"
	"github.com/prometheus/common/version"
	"github.com/prometheus/exporter-toolkit/web"

	"github.com/kamailio-exporter/kamailio_exporter/collector"
)

// newHandler is everything that is served.
func newHandler(s *settings, logger log.Logger, slogger *slog.Logger, c *collector.Coordinator, own *ownMetrics, targets []string) (http.Handler, error) {
	landing, err := newLandingPage(s, targets)
	if err != nil {
		return nil, err
	}
	script, err := s.newScriptPage()
	if err != nil {
		return nil, err
	}
	probes, err := s.newSIPProbes()
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("GET /{$}", landing) // GET serves HEAD too
	mux.Handle("GET "+s.telemetryPath, newMetricsHandler(s, logger, slogger, c, own, script, probes))
	// Neither asks Kamailio: that it is down is no reason to restart the exporter.
	mux.Handle("GET /-/healthy", plainText("Healthy.\n"))
	mux.Handle("GET /-/ready", plainText("Ready.\n"))
	return mux, nil
}

func plainText(text string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		fmt.Fprint(w, text)
	})
}

func newLandingPage(s *settings, targets []string) (http.Handler, error) {
	on := collector.Names(s.enabled())
	var page strings.Builder
	page.WriteString("<h3>Kamailio is asked at</h3>\n<ul>\n")
	for _, t := range targets {
		fmt.Fprintf(&page, "<li><code>%s</code></li>\n", html.EscapeString(t))
	}
	page.WriteString("</ul>\n<h3>Collectors</h3>\n<table>\n<tr><th>Name</th><th>What it tells</th><th></th></tr>\n")
	for _, c := range collector.All(s.collectors) {
		link := "off"
		if slices.Contains(on, c.Name()) {
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
		Links: []web.LandingLinks{
			{Address: s.telemetryPath, Text: "Metrics"},
			{Address: "/-/healthy", Text: "Health", Description: "200 while the exporter runs, whatever Kamailio does"},
			{Address: "/-/ready", Text: "Readiness", Description: "200 while the exporter runs"},
		},
		ExtraHTML: page.String(),
		ExtraCSS:  "table{border-collapse:collapse}td,th{text-align:left;padding:.2em 1em .2em 0;border-bottom:1px solid #ddd}",
		Profiling: "false",
	})
}
