package serve

import (
	"fmt"
	"html"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/prometheus/common/version"
	"github.com/prometheus/exporter-toolkit/web"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/fleet"
	"github.com/kamailio-exporter/kamailio_exporter/collector"
)

// newHandler is everything that is served. one is nil without a Kamailio of the
// flags: then /metrics has the exporter's own metrics alone.
func (v *Service) newHandler(one *page) http.Handler {
	metrics := pageHandler(v.own.registry, v.slogger)
	if one != nil {
		metrics = one
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) { // GET serves HEAD too
		landing, err := v.newLandingPage(one) // a reload changes it
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		landing.ServeHTTP(w, r)
	})
	mux.Handle("GET "+v.settings.TelemetryPath, metrics)
	// Neither asks Kamailio: that it is down is no reason to restart the exporter.
	mux.Handle("GET /-/healthy", plainText("Healthy.\n"))
	mux.Handle("GET /-/ready", plainText("Ready.\n"))
	if v.targets != nil {
		v.handleTargets(mux)
	}
	return mux
}

// newOnePage is the page of the Kamailio of the flags; nil where there is none but
// those of --config.file.
func (v *Service) newOnePage() (*page, error) {
	t := v.settings.Target
	if len(t.URIs) == 0 {
		return nil, nil
	}
	one, err := newPage(t, t.Enabled(), &net.Dialer{}, v.own.observe, v.logger, v.slogger)
	if err != nil {
		return nil, err
	}
	one.own = v.own
	return one, nil
}

func plainText(text string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		fmt.Fprint(w, text)
	})
}

func (v *Service) newLandingPage(one *page) (http.Handler, error) {
	s := v.settings
	var page strings.Builder
	links := []web.LandingLinks{{Address: s.TelemetryPath, Text: "Metrics"}}
	if v.targets != nil {
		writeTargets(&page, v.targets.Targets())
		links = append(links, web.LandingLinks{Address: "/sd", Text: "Targets", Description: "for Prometheus' http_sd_configs"})
	}
	if one != nil {
		page.WriteString("<h3>Kamailio is asked at</h3>\n<ul>\n")
		for _, t := range one.client.URIs() {
			fmt.Fprintf(&page, "<li><code>%s</code></li>\n", html.EscapeString(t))
		}
		page.WriteString("</ul>\n")
	}
	page.WriteString("<h3>Collectors</h3>\n<table>\n<tr><th>Name</th><th>What it tells</th><th></th></tr>\n")
	for _, c := range collector.All(s.Target.Options) {
		link := "off"
		switch {
		case !slices.Contains(s.Target.Collectors, c.Name()):
		case one == nil:
			link = "on"
		default:
			link = fmt.Sprintf(`<a href="%s?collect[]=%s">only this</a>`, html.EscapeString(s.TelemetryPath), c.Name())
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

// probeLink is where a target of the file is served.
func probeLink(t *fleet.Target) string {
	return "/probe?" + url.Values{"target": {t.Name}}.Encode()
}
