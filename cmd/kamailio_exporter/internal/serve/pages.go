package serve

import (
	"bytes"
	"crypto/sha256"
	_ "embed" // the style of the pages
	"encoding/base64"
	"io/fs"
	"net/http"
	"net/url"
	"regexp"
	"strings"

	"github.com/prometheus/common/version"
	"github.com/prometheus/exporter-toolkit/web"
	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/extension"

	files "github.com/kamailio-exporter/kamailio_exporter"
)

//go:embed pages.css
var pageStyle string

// writePage serves a page in the frame of the landing page. The browser may use its own
// style, and no scripts and nothing from elsewhere, unless --web.config.file has other
// headers.
func writePage(w http.ResponseWriter, page web.LandingConfig) {
	page.CSS, page.Profiling = pageStyle, "false"
	framed, err := web.NewLandingPage(page)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	style := sha256.Sum256([]byte(pageStyle))
	for name, value := range map[string]string{
		"Content-Security-Policy": "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(style[:]) + "'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
		"X-Content-Type-Options":  "nosniff",
	} {
		if w.Header().Get(name) == "" {
			w.Header().Set(name, value)
		}
	}
	framed.ServeHTTP(w, &http.Request{URL: &url.URL{Path: "/"}}) // it serves only this path
}

// sourceURL is where the files of this version are.
func sourceURL() string {
	tag := "main"
	if regexp.MustCompile(`^\d+\.\d+\.\d+$`).MatchString(version.Version) {
		tag = "v" + version.Version
	}
	return "https://github.com/kamailio-exporter/kamailio_exporter/blob/" + tag + "/"
}

const runbooks = "alerts/runbooks/"

// handleRunbooks serves the runbooks of this version, so that the link of an alert works
// without the internet. Runbooks link to each other with ".md", so both names are served.
func handleRunbooks(mux *http.ServeMux) {
	mux.HandleFunc("GET /runbooks/{$}", func(w http.ResponseWriter, _ *http.Request) {
		all, _ := fs.ReadDir(files.Files, strings.TrimSuffix(runbooks, "/")) // embedded: it cannot fail
		var links []web.LandingLinks
		for _, file := range all {
			name := strings.TrimSuffix(file.Name(), ".md")
			links = append(links, web.LandingLinks{Address: "runbooks/" + name, Text: name})
		}
		writePage(w, web.LandingConfig{Name: "Runbooks", Description: "One page for each alert of this version", Links: links})
	})
	// Raw HTML in the source would not be passed on.
	markdown := goldmark.New(goldmark.WithExtensions(extension.Table))
	mux.HandleFunc("GET /runbooks/{name}", func(w http.ResponseWriter, r *http.Request) {
		name := strings.TrimSuffix(r.PathValue("name"), ".md")
		text, err := files.Files.ReadFile(runbooks + name + ".md")
		if err != nil {
			http.Error(w, "There is no runbook of this name. All of them are at /runbooks/.", http.StatusNotFound)
			return
		}
		text = bytes.TrimPrefix(text, []byte("# "+name+"\n"))
		text = bytes.ReplaceAll(text, []byte("](../../"), []byte("]("+sourceURL()))
		var page strings.Builder
		if err := markdown.Convert(text, &page); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		writePage(w, web.LandingConfig{Name: name, Links: []web.LandingLinks{{Address: "runbooks/", Text: "All runbooks"}}, ExtraHTML: page.String()})
	})
}
