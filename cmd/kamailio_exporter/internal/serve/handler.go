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
	"time"

	"github.com/prometheus/common/version"
	"github.com/prometheus/exporter-toolkit/web"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/fleet"
	"github.com/kamailio-exporter/kamailio_exporter/collector"
)

// newHandler serves all paths. one is nil if the flags name no Kamailio; /metrics then
// has only the exporter's own metrics.
func (v *Service) newHandler(one *page) http.Handler {
	var metrics http.Handler = one
	if one == nil {
		metrics = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			var own parts
			v.own.addTo(&own)
			servePage(w, r, own, v.slogger)
		})
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { // GET serves HEAD too
		writePage(w, v.landingPage(one)) // built per request: a reload or a scrape changes it
	})
	handleRunbooks(mux)
	mux.Handle("GET "+v.settings.TelemetryPath, metrics)
	// Neither path queries Kamailio: the exporter must not be restarted because Kamailio
	// is down.
	mux.Handle("GET /-/healthy", plainText("Healthy.\n"))
	mux.Handle("GET /-/ready", plainText("Ready.\n"))
	if v.targets != nil {
		v.handleTargets(mux)
	}
	return mux
}

// newOnePage makes the page of the Kamailio that the flags name. It is nil if only
// --config.file names targets.
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

// landingPage shows the configuration and the state of the last scrape. It does not
// query Kamailio.
func (v *Service) landingPage(one *page) web.LandingConfig {
	s := v.settings
	var page strings.Builder
	links := []web.LandingLinks{{Address: s.TelemetryPath, Text: "Metrics"}}
	if v.targets != nil {
		writeTargets(&page, v.targets.Targets())
		links = append(links, web.LandingLinks{Address: "/sd", Text: "Targets", Description: "for Prometheus' http_sd_configs"})
	}
	states := map[string]string{}
	if one != nil {
		states = v.writeKamailio(&page, one)
	}
	page.WriteString("<h3>Collectors</h3>\n<table>\n<tr><th>Name</th><th>State</th><th>Metrics</th><th></th></tr>\n")
	for _, c := range collector.All(s.Target.Options) {
		state, link := states[c.Name()], ""
		switch {
		case !slices.Contains(s.Target.Collectors, c.Name()):
			state = "disabled"
		case one == nil:
			state = "enabled"
		default:
			link = fmt.Sprintf(`<a href="%s?collect[]=%s">only this</a>`, html.EscapeString(s.TelemetryPath), c.Name())
		}
		fmt.Fprintf(&page, "<tr><td><code>%s</code></td><td>%s</td><td>%s</td><td>%s</td></tr>\n", c.Name(), state, html.EscapeString(c.About()), link)
	}
	page.WriteString("</table>\n")
	fmt.Fprintf(&page, `<h3>Documentation</h3>
<ul>
<li><a href="%[1]sREADME.md">Overview</a></li>
<li><a href="%[1]sdocs/metrics.md">Metrics</a></li>
<li><a href="%[1]sdocs/configuration.md">Configuration</a></li>
<li><a href="%[1]sdocs/troubleshooting.md">Troubleshooting</a></li>
</ul>
`, sourceURL())
	return web.LandingConfig{
		Name:        "Kamailio Exporter",
		Description: "Prometheus exporter for the Kamailio SIP server",
		Version:     version.Info(),
		Links: append(links,
			web.LandingLinks{Address: "/runbooks/", Text: "Runbooks", Description: "what to do about each alert"},
			web.LandingLinks{Address: "/-/healthy", Text: "Health", Description: "200 while the exporter runs, even if Kamailio is down"},
			web.LandingLinks{Address: "/-/ready", Text: "Readiness", Description: "200 while the exporter runs"},
		),
		ExtraHTML: page.String(),
	}
}

// writeKamailio writes the result of the last scrape, and returns the states of the
// collectors.
func (v *Service) writeKamailio(page *strings.Builder, one *page) map[string]string {
	states := map[string]string{}
	page.WriteString("<h3>Kamailio</h3>\n<p>")
	last := v.own.scraped.Load()
	if last == nil {
		page.WriteString("There was no scrape yet.")
	} else {
		up := 0
		if last.snapshot.Up {
			up = 1
		}
		fmt.Fprintf(page, "<code>kamailio_up %d</code> at the last scrape, %s ago.", up, time.Since(last.at).Round(time.Second))
		for _, r := range last.snapshot.Results {
			method, reason := r.Skipped()
			switch {
			case r.Err != nil:
				states[r.Collector] = "<strong>failed</strong>: see the log"
			case reason != "":
				states[r.Collector] = fmt.Sprintf("skips %s (%s)", method, reason)
			case !r.Supported:
				states[r.Collector] = "not supported by this Kamailio"
			default:
				states[r.Collector] = fmt.Sprintf("ok, %d samples", len(r.Samples))
			}
		}
	}
	page.WriteString("</p>\n<p>URIs, in order of preference:</p>\n<ul>\n")
	for _, uri := range one.client.URIs() {
		fmt.Fprintf(page, "<li><code>%s</code></li>\n", html.EscapeString(uri))
	}
	page.WriteString("</ul>\n")
	return states
}

func writeTargets(page *strings.Builder, targets []*fleet.Target) {
	fmt.Fprintf(page, "<h3>Targets (%d)</h3>\n<table>\n<tr><th>Name</th><th>URIs</th><th>Module</th><th>Labels</th></tr>\n", len(targets))
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

// probeLink returns the path that probes a target of --config.file.
func probeLink(t *fleet.Target) string {
	return "/probe?" + url.Values{"target": {t.Name}}.Encode()
}
