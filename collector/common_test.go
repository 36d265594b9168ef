package collector_test

import (
	"bytes"
	"context"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"

	"github.com/kamailio-exporter/kamailio_exporter/collector"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc/kamrpctest"
)

var update = flag.Bool("update", false, "rewrite the golden files and the generated documents")

// versions returns the versions whose replies are recorded in testdata.
func versions(t *testing.T) []string {
	t.Helper()
	dirs, err := filepath.Glob("testdata/[0-9]*")
	for i := range dirs {
		dirs[i] = filepath.Base(dirs[i])
	}
	if want := []string{"5.4.4", "5.6.3", "6.0.1", "6.1.5"}; err != nil || !slices.Equal(dirs, want) {
		t.Fatalf("replies of %q are recorded, want %q: %v", dirs, want, err)
	}
	return dirs
}

// client calls the fake over HTTP, where kamailio.cfg could answer too.
func client(t testing.TB, server *kamrpctest.Server) *kamrpc.Client {
	t.Helper()
	transport, err := kamrpc.Open(server.URI("http"), nil)
	if err != nil {
		t.Fatal(err)
	}
	c, err := kamrpc.NewClient(kamrpc.Config{Transports: []kamrpc.Transport{transport}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// bare returns a fake that only answers the calls that every scrape starts with.
func bare(t testing.TB) *kamrpctest.Server {
	t.Helper()
	server := kamrpctest.New(t)
	server.Handle("core.uptime", uptimeSince("Mon Nov 23 04:04:35 2026"))
	return server
}

func uptimeSince(start string) string {
	return `{"now":"Mon Nov 23 04:05:05 2026","up_since":"` + start + `","uptime":30}`
}

func scrape(t testing.TB, c *collector.Coordinator, names ...string) *collector.Snapshot {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	s, err := c.Scrape(ctx, names...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// page returns the snapshot in the text format.
func page(t testing.TB, s *collector.Snapshot) string {
	t.Helper()
	families, err := s.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	for _, f := range families {
		if _, err := expfmt.MetricFamilyToText(&out, f); err != nil {
			t.Fatal(err)
		}
	}
	return out.String()
}

// samples returns the lines of the page about Kamailio itself, without comments.
func samples(t testing.TB, s *collector.Snapshot) string {
	t.Helper()
	lines := slices.DeleteFunc(strings.SplitAfter(page(t, s), "\n"), func(line string) bool {
		return line == "" || line[0] == '#' || strings.HasPrefix(line, "kamailio_scrape_") || strings.HasPrefix(line, "kamailio_up ")
	})
	return strings.Join(lines, "")
}

// golden compares with a file, or rewrites the file.
func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s is not what it was; if that is meant: go test ./collector -update\n%s", file, firstDifference(string(want), got))
	}
}

func firstDifference(want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range max(len(w), len(g)) {
		var a, b string
		if i < len(w) {
			a = w[i]
		}
		if i < len(g) {
			b = g[i]
		}
		if a != b {
			return "want " + a + "\ngot  " + b
		}
	}
	return ""
}

func equal(t *testing.T, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

var wavering = regexp.MustCompile(`(?m)^((?:kamailio_start_time_seconds|kamailio_keepalive_destination_last_[a-z]+_timestamp_seconds|kamailio_scrape_(?:(?:collector_)?duration|data_age|skipped_since_timestamp)_seconds|kamailio_dialog_(?:oldest_dialog_seconds|dialogs_older_than))(?:{[^}]*})?) .*$`)

// steady zeroes the values that vary between runs: times.
func steady(page string) string { return wavering.ReplaceAllString(page, "$1 0") }
