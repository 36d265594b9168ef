package admin

import (
	"bytes"
	"crypto/sha256"
	_ "embed" // templates and style of the pages
	"encoding/base64"
	"fmt"
	"html/template"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/adminapi"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/audit"
)

//go:embed page.html
var pageText string

//go:embed page.css
var pageStyle string

// stylePolicy returns a Content-Security-Policy that allows the page's own style, an
// inline icon and forms sent to the same origin: no scripts and nothing from elsewhere.
func stylePolicy() string {
	sum := sha256.Sum256([]byte(pageStyle))
	return "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'; img-src data:; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

func pageCSS() template.CSS { return template.CSS(pageStyle) } //nolint:gosec // our own style sheet

type pageData struct {
	Style   template.CSS
	Version string
	Session string // path of the browser's session; "" if it is authenticated by other means
	Now     time.Time
	Allowed adminapi.Actions
	Rules   []adminapi.Rule // alert rules; only for users who may see them
	Last    []audit.Record
}

type loginData struct {
	Style template.CSS
	Why   string // why the form is shown again
}

var pages = template.Must(template.New("pages").Funcs(template.FuncMap{
	"when":   func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") },
	"values": pageValues[audit.State],
	"join":   func(s []string) string { return strings.Join(s, " or ") },
	"params": pageValues[map[string]any],
	"words":  func(o audit.Outcome) string { return strings.ReplaceAll(string(o), "_", " ") },
}).Parse(pageText))

func pageValues[M ~map[string]any](m M) []string {
	parts := []string{}
	for _, name := range slices.Sorted(maps.Keys(m)) {
		parts = append(parts, fmt.Sprintf("%s=%v", name, m[name]))
	}
	return parts
}

func writePage(w http.ResponseWriter, status int, name string, data any) {
	var text bytes.Buffer
	if err := pages.ExecuteTemplate(&text, name, data); err != nil {
		http.Error(w, "the page could not be built", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Security-Policy", stylePolicy())
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(text.Bytes())
}

// page shows the actions that the caller may run and the latest operations. It is
// read-only.
func (h *handler) page(w http.ResponseWriter, s *inForce, who identity, query url.Values) error {
	if err := noQuery(query); err != nil {
		return err
	}
	h.writeMain(w, s, who, "")
	return nil
}

func (h *handler) writeMain(w http.ResponseWriter, s *inForce, who identity, session string) {
	data := pageData{
		Style: pageCSS(), Version: h.version, Session: session, Now: h.engine.Now(), Allowed: h.actionsOf(s, who.user), Last: h.engine.Journal.Last(who.user, defaultLast),
	}
	if seesRules(who) {
		data.Rules = h.runner.State().Rules
	}
	writePage(w, http.StatusOK, "main", data)
}
