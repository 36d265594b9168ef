package main

import (
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestRunbookPages checks that the exporter serves a page for the link of each alert,
// after the command of alerts/README.md, and that all links on the pages work. The
// pages may load nothing, and only their own style is in force.
func TestRunbookPages(t *testing.T) {
	h := handlerFor(t)
	get := func(path string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		return w
	}
	const host = "http://sip1.example.com:9494"
	dir := t.TempDir()
	command := regexp.MustCompile(`(?m)^sed -i .*`).FindString(readText(t, "../../alerts/README.md"))
	for _, name := range regexp.MustCompile(`\S+\.yml`).FindAllString(command, -1) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(readText(t, "../../alerts/"+name)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	sed := exec.CommandContext(t.Context(), "bash", "-c", command)
	sed.Dir = dir
	if out, err := sed.CombinedOutput(); err != nil || !strings.Contains(command, host) {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
	var open []string
	for _, name := range []string{"kamailio-alerts.yml", "kamailio-admin-alerts.yml"} {
		for _, url := range regexp.MustCompile(`runbook_url: (.*)`).FindAllStringSubmatch(readText(t, filepath.Join(dir, name)), -1) {
			target, ok := strings.CutPrefix(url[1], host)
			if !ok {
				t.Errorf("%s is unchanged in %s", url[1], name)
				continue
			}
			open = append(open, target)
		}
	}
	if len(open) < 60 {
		t.Fatalf("only %d links: %q", len(open), open)
	}
	seen := map[string]bool{}
	for open = append(open, "/", "/runbooks/"); len(open) > 0; open = open[1:] {
		at := open[0]
		if seen[at] {
			continue
		}
		seen[at] = true
		w := get(at)
		body := w.Body.String()
		if w.Code != http.StatusOK {
			t.Errorf("%s: %d %s", at, w.Code, body)
			continue
		}
		for _, link := range regexp.MustCompile(`<a href="([^"]*)"`).FindAllStringSubmatch(body, -1) {
			switch {
			case strings.HasPrefix(link[1], "https://github.com/kamailio-exporter/kamailio_exporter/blob/"):
			case strings.HasPrefix(link[1], "/runbooks/"):
				open = append(open, link[1])
			case !strings.HasPrefix(link[1], "/"):
				open = append(open, path.Join(path.Dir(at), link[1]))
			}
		}
		if at == "/" {
			continue // its links to other pages need Kamailio
		}
		if strings.Contains(body, "**") || strings.Contains(body, "```") || strings.Contains(body, "| ---") {
			t.Errorf("%s is not rendered:\n%s", at, body)
		}
		style := regexp.MustCompile(`(?s)<style>(.*)</style>`).FindStringSubmatch(body)
		if len(style) != 2 {
			t.Fatalf("%s has no style:\n%s", at, body)
		}
		sum := sha256.Sum256([]byte(style[1]))
		policy := w.Header().Get("Content-Security-Policy")
		if !strings.HasPrefix(policy, "default-src 'none'; style-src 'sha256-"+base64.StdEncoding.EncodeToString(sum[:])+"'; ") || w.Header().Get("X-Content-Type-Options") != "nosniff" || strings.Contains(body, " style=") {
			t.Errorf("%s: the style does not match %q", at, policy)
		}
	}
	for _, name := range []string{"KamailioNoSuch", "..%2f..%2fREADME.md", "..%2f..%2fdocs%2fadmin.md", ".md", "%00", "<script>", "KamailioDown%2f"} {
		if w := get("/runbooks/" + name); w.Code != http.StatusNotFound || strings.Count(w.Body.String(), "\n") != 1 || strings.Contains(w.Body.String(), "script") {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
	}
}
