package admin

import (
	"bytes"
	"crypto/sha256"
	_ "embed" // the page's template and style
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

// stylePolicy lets the page have its one style, and nothing else: no script, no
// image, no form.
func stylePolicy() string {
	sum := sha256.Sum256([]byte(pageStyle))
	return "default-src 'none'; frame-ancestors 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

type pageData struct {
	Style   template.CSS
	Version string
	Allowed adminapi.Actions
	Rules   []adminapi.Rule // for alerts; of those who may see them
	Last    []audit.Record
}

func newPage() *template.Template {
	return template.Must(template.New("page").Funcs(template.FuncMap{
		"when":   func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05") },
		"values": pageValues[audit.State],
		"join":   func(s []string) string { return strings.Join(s, " or ") },
		"params": pageValues[map[string]any],
	}).Parse(pageText))
}

func pageValues[M ~map[string]any](m M) string {
	parts := []string{}
	for _, name := range slices.Sorted(maps.Keys(m)) {
		parts = append(parts, fmt.Sprintf("%s=%v", name, m[name]))
	}
	return strings.Join(parts, " ")
}

// page shows what the caller may run, and what was run last. It only reads.
func (h *handler) page(w http.ResponseWriter, s *inForce, who identity, query url.Values) error {
	if err := noQuery(query); err != nil {
		return err
	}
	data := pageData{
		Style:   template.CSS(pageStyle), //nolint:gosec // ours
		Version: h.version, Allowed: h.actionsOf(s, who.user), Last: h.engine.Journal.Last(who.user, defaultLast),
	}
	if seesRules(who) {
		data.Rules = h.runner.State().Rules
	}
	var text bytes.Buffer
	if err := newPage().Execute(&text, data); err != nil {
		return err
	}
	w.Header().Set("Content-Security-Policy", stylePolicy())
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = w.Write(text.Bytes())
	return nil
}
