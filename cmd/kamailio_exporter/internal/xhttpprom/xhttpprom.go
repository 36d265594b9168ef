// Package xhttpprom merges the page of Kamailio's module xhttp_prom, which has the
// metrics that the operator's script defines, into the exporter's page.
package xhttpprom

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/target"
	"github.com/kamailio-exporter/kamailio_exporter/collector"
)

// Reader reads the page, one request at a time: one of Kamailio's TCP workers builds it
// in its private memory, and holds the lock of the script's metrics meanwhile
// (xhttp_prom/prom_metric.c).
type Reader struct {
	url    string
	client *http.Client
	limit  int64
	taken  func(name string) bool

	pause   error // why the page is not requested until then
	pauseTo time.Time
}

// pagePause is how long the page is not requested after it was too large or too late:
// each such request costs Kamailio a worker's time, and an ERROR line when the exporter
// disconnects.
const pagePause = time.Minute

// Of makes the reader of a Kamailio's page, which uses httpClient. It returns nil if
// there is no page to read.
func Of(t target.Target, httpClient *http.Client) *Reader {
	if t.Script.URL == "" {
		return nil
	}
	taken := collector.TakenNames(t.Options)
	return &Reader{
		url: t.Script.URL, client: httpClient, limit: int64(t.Script.MaxSize),
		taken: func(name string) bool {
			return taken[name] || slices.ContainsFunc(target.OwnPrefixes(), func(p string) bool { return strings.HasPrefix(name, p) })
		},
	}
}

// Read reads the page. It must not run twice at the same time.
func (p *Reader) Read(ctx context.Context) *Merged {
	begun := time.Now()
	if begun.Before(p.pauseTo) {
		return &Merged{Err: p.pause}
	}
	page := p.read(ctx)
	ended := time.Now()
	page.Duration = ended.Sub(begun)
	if errors.Is(page.Err, ErrTimedOut) || errors.Is(page.Err, ErrTooLarge) {
		p.pause, p.pauseTo = page.Err, ended.Add(pagePause)
	}
	return page
}

func (p *Reader) read(ctx context.Context) (page *Merged) {
	page = &Merged{}
	defer func() {
		if r := recover(); r != nil { // untrusted input must not crash the program
			page = &Merged{Err: fmt.Errorf("panic: %v\n%s", r, debug.Stack())}
		}
	}()
	text, err := p.fetch(ctx)
	if err != nil {
		page.Err = err
		return page
	}
	families, invalid, samples := parseScriptPage(text)
	page.InvalidFamilies, page.InvalidSamples = invalid, samples
	page.Keep(families, p.taken)
	return page
}

func (p *Reader) fetch(ctx context.Context) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url, nil)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Accept", "text/plain")
	r.Header.Set("Accept-Encoding", "identity") // a small gzip bomb is a large page
	resp, err := p.client.Do(r)
	if err != nil {
		if wrapped := (*url.Error)(nil); errors.As(err, &wrapped) {
			err = wrapped.Err // without the URL: its query may contain a secret
		}
		return nil, noReply(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, p.limit+1))
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	switch {
	case resp.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("HTTP status %d: %w", resp.StatusCode, ofStatus(resp.StatusCode))
	case errors.Is(err, context.DeadlineExceeded):
		return nil, fmt.Errorf("reading the page: %w: %w", err, ErrTimedOut)
	case err != nil:
		return nil, fmt.Errorf("reading the page: %w: %w", err, ErrCutOff)
	case int64(len(text)) > p.limit:
		return nil, fmt.Errorf("the page is larger than --xhttp_prom.max-size: %w", ErrTooLarge)
	case resp.Header.Get("Content-Encoding") != "" && resp.Header.Get("Content-Encoding") != "identity":
		return nil, fmt.Errorf("the page is compressed, although the exporter did not request that: %w", ErrNotThePage)
	case kind != "" && kind != "text/plain":
		return nil, fmt.Errorf("the page is %.40q, not text/plain: %w", kind, ErrNotThePage)
	case bytes.IndexByte(text, 0) >= 0:
		return nil, fmt.Errorf("the page is not text: %w", ErrNotThePage)
	}
	// Kamailio leaves out statistics that do not fit, and continues. The script's metrics
	// before them are complete even then.
	if text = ofTheScript(text); len(text) > 0 && text[len(text)-1] != '\n' {
		return nil, fmt.Errorf("the page is truncated, its last line is incomplete: %w", ErrCutOff)
	}
	return text, nil
}

// statisticsFollow matches the lines that Kamailio's own statistics follow
// (xhttp_prom/prom.c, prom_stats_get). The exporter already has these statistics.
var statisticsFollow = regexp.MustCompile(`(?m)^# Kamailio (whole internal statistics|statistics for)`)

// ofTheScript returns the page up to the line that statisticsFollow matches.
func ofTheScript(text []byte) []byte {
	if at := statisticsFollow.FindIndex(text); at != nil {
		return text[:at[0]]
	}
	return text
}

var (
	sampleName = regexp.MustCompile(`^[a-zA-Z_:][a-zA-Z0-9_:]*`)
	metadata   = regexp.MustCompile(`^# (TYPE|HELP) ([a-zA-Z_:][a-zA-Z0-9_:]*) +(.*)$`)
	// Private memory by process and the uptime, which the exporter already has
	// (xhttp_prom/prom.c).
	moduleOwn = regexp.MustCompile(`^(?:[a-zA-Z0-9_:]*pkgmem_(?:used|available|real_used|total_frags|total_size)\{pid="|kamailio_uptime[{ ])`)
)

// textFamily is the text of one metric on the page.
type textFamily struct {
	name, help, kind string
	lines            []string
}

// parseScriptPage parses the metrics of the operator's script. It parses each metric
// separately and, if that fails, each of its lines: xhttp_prom escapes nothing, so an
// invalid label value from a SIP message must cost only its own line.
func parseScriptPage(text []byte) (families []*dto.MetricFamily, invalid []string, samples int) {
	found, samples := splitScriptPage(text)
	for _, f := range found {
		if len(f.lines) == 0 {
			continue // declared, but without a value yet
		}
		family, err := f.parse(f.lines)
		if err != nil {
			good := slices.DeleteFunc(slices.Clone(f.lines), func(line string) bool {
				_, err := f.parse([]string{line})
				return err != nil
			})
			samples += len(f.lines) - len(good)
			family, err = f.parse(good)
		}
		if err != nil {
			invalid = append(invalid, f.name)
			continue
		}
		families = append(families, family)
	}
	return families, invalid, samples
}

// splitScriptPage groups the lines by metric, in the order of the page, and counts the
// lines that belong to no metric.
func splitScriptPage(text []byte) (found []*textFamily, odd int) {
	byName := map[string]*textFamily{}
	get := func(name string) *textFamily {
		if byName[name] == nil {
			byName[name] = &textFamily{name: name, kind: "untyped"}
			found = append(found, byName[name])
		}
		return byName[name]
	}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimRight(line, "\r\n")
		if m := metadata.FindStringSubmatch(line); m != nil {
			switch f := get(m[2]); {
			case m[1] == "HELP":
				f.help = collector.EscapeBytes(m[3], `\x%02x`)
			case slices.Contains([]string{"counter", "gauge", "histogram", "summary"}, m[3]):
				f.kind = m[3]
			}
			continue
		}
		if strings.TrimSpace(line) == "" || line[0] == '#' || moduleOwn.MatchString(line) {
			continue
		}
		name := sampleName.FindString(line)
		if name == "" {
			odd++
			continue
		}
		for _, suffix := range []string{"_bucket", "_sum", "_count"} {
			if f := byName[strings.TrimSuffix(name, suffix)]; strings.HasSuffix(name, suffix) && f != nil && (f.kind == "histogram" || f.kind == "summary") {
				name = f.name
				break
			}
		}
		f := get(name)
		f.lines = append(f.lines, collector.EscapeBytes(withoutTime(line), `\\x%02x`))
	}
	return found, odd
}

// withoutTime cuts off the timestamp: the value is current, and one of its formats
// (timestamp_format "sf") is not valid in Prometheus.
func withoutTime(line string) string {
	at := strings.LastIndexByte(line, '}') + 1
	if at == 0 {
		at = len(sampleName.FindString(line))
	}
	if fields := strings.Fields(line[at:]); len(fields) == 2 {
		return line[:at] + " " + fields[0]
	}
	return line
}

func (f *textFamily) parse(lines []string) (*dto.MetricFamily, error) {
	parser := expfmt.NewTextParser(model.LegacyValidation)
	text := "# TYPE " + f.name + " " + f.kind + "\n" + strings.Join(lines, "\n") + "\n"
	parsed, err := parser.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		return nil, err
	}
	family := parsed[f.name]
	if len(parsed) != 1 || family == nil {
		return nil, errors.New("no metric could be parsed")
	}
	if f.help != "" {
		family.Help = &f.help
	}
	return family, nil
}
