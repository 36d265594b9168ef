package serve

import (
	"net/http"
	"testing"
	"time"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/target"
)

func TestDeadline(t *testing.T) {
	p := &page{limits: target.Limits{ScrapeTimeout: 10 * time.Second, TimeoutOffset: 500 * time.Millisecond}}
	for header, want := range map[string]time.Duration{
		"":      10 * time.Second,
		"5":     4500 * time.Millisecond,
		"2.5":   2 * time.Second,
		"60":    10 * time.Second,
		"0.5":   250 * time.Millisecond,
		"1":     500 * time.Millisecond,
		"0":     10 * time.Second,
		"-3":    10 * time.Second,
		"NaN":   10 * time.Second,
		"Inf":   10 * time.Second,
		"1e300": 10 * time.Second,
		"soon":  10 * time.Second,
	} {
		r := http.Header{}
		r.Set("X-Prometheus-Scrape-Timeout-Seconds", header)
		if got := p.deadline(r); got != want {
			t.Errorf("%q: %v, want %v", header, got, want)
		}
	}
}
