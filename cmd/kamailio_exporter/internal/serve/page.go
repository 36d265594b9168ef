package serve

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/go-kit/log"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/fleet"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/sipprobe"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/target"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/xhttpprom"
	"github.com/kamailio-exporter/kamailio_exporter/collector"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
)

// page serves the metrics of one Kamailio. A response contains the samples of one
// snapshot, so that no sample of an earlier scrape can remain in it.
type page struct {
	client      *kamrpc.Client
	coordinator *collector.Coordinator
	own         *ownMetrics                // nil: not on this page
	script      *shared[*xhttpprom.Merged] // nil: no xhttp_prom page is merged
	sip         *shared[sipprobe.Results]  // nil: no SIP probes
	limits      target.Limits
	failures    *failureLog
	slogger     *slog.Logger
	closers     []func()
}

// newPage makes the page of a Kamailio with the collectors that a request can select. All
// connections are made with dialer.
func newPage(t target.Target, collectors []collector.Collector, dialer *net.Dialer, observe func(kamrpc.Observation), logger log.Logger, slogger *slog.Logger) (*page, error) {
	p := &page{limits: t.Limits, failures: newFailureLog(logger), slogger: slogger}
	httpClient := func() (*http.Client, error) {
		client, err := t.HTTPClient(dialer.DialContext)
		if err == nil {
			p.closers = append(p.closers, client.CloseIdleConnections)
		}
		return client, err
	}
	forRPC, err := httpClient()
	if err != nil {
		return nil, err
	}
	transports, err := t.Transports(forRPC, dialer)
	if err != nil {
		return nil, err
	}
	if p.client, err = t.Client(transports, observe); err != nil {
		return nil, err
	}
	p.coordinator = collector.NewCoordinator(p.client, collectors, collector.Limits{CallTimeout: t.Limits.RPCTimeout, Reuse: t.Limits.Reuse})
	if t.Script.URL != "" {
		forScript, err := httpClient()
		if err != nil {
			return nil, err
		}
		reader := xhttpprom.Of(t, forScript)
		p.script = &shared[*xhttpprom.Merged]{
			do: reader.Read, timeout: t.Script.Timeout, joint: collector.Joint[**xhttpprom.Merged]{Reuse: t.Limits.Reuse},
			late: func(err error, waited time.Duration) *xhttpprom.Merged {
				return &xhttpprom.Merged{Err: fmt.Errorf("%w: %w", err, xhttpprom.ErrTimedOut), Duration: waited}
			},
		}
	}
	prober, err := sipprobe.Of(t)
	if err != nil {
		return nil, err
	}
	if prober != nil {
		p.sip = &shared[sipprobe.Results]{
			do: prober.Probe, timeout: t.SIP.Timeout, joint: collector.Joint[*sipprobe.Results]{Reuse: t.Limits.Reuse},
			late: func(err error, _ time.Duration) sipprobe.Results { return prober.Failed(err) },
		}
	}
	return p, nil
}

// Close implements fleet.Page. Only HTTP keeps connections open.
func (p *page) Close() {
	for _, closeIdle := range p.closers {
		closeIdle()
	}
}

// Serve implements fleet.Page.
func (p *page) Serve(w http.ResponseWriter, r *http.Request, m fleet.Module) fleet.Outcome {
	return p.serve(w, r, m.Collectors, m.SIP, m.Script)
}

func (p *page) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	names, err := p.coordinator.Select(query["collect[]"], query["exclude[]"])
	if unknown := (*collector.UnknownCollectorError)(nil); errors.As(err, &unknown) {
		http.Error(w, unknown.Error(), http.StatusBadRequest)
		return
	}
	if len(names) == 0 {
		http.Error(w, "collect[] and exclude[] leave no collector", http.StatusBadRequest)
		return
	}
	whole := len(query["collect[]"]) == 0
	p.serve(w, r, names, whole, whole)
}

// serve writes the metrics of these collectors and, if wanted, of the SIP probes and the
// xhttp_prom page.
func (p *page) serve(w http.ResponseWriter, r *http.Request, names []string, withSIP, withScript bool) fleet.Outcome {
	ctx, cancel := context.WithTimeout(r.Context(), p.deadline(r.Header))
	defer cancel()
	// Both run at the same time as the scrape.
	var script func() *xhttpprom.Merged
	if p.script != nil && withScript {
		script = p.script.begin(ctx)
	}
	var sip func() sipprobe.Results
	if p.sip != nil && withSIP {
		sip = p.sip.begin(ctx)
	}
	snapshot, err := p.coordinator.Scrape(ctx, names...)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return fleet.Failed
	}
	all := parts{samplers: []sampler{snapshot}}
	if p.own != nil {
		p.own.addTo(&all)
	}
	var merged *xhttpprom.Merged
	if script != nil {
		merged = script()
		all.gatherers = append(all.gatherers, merged)
	}
	var probes sipprobe.Results
	if sip != nil {
		probes = sip()
		all.gatherers = append(all.gatherers, probes)
	}
	if r.Context().Err() != nil {
		return fleet.Canceled // the client disconnected, so what was canceled is not a failure
	}
	p.failures.note(snapshot)
	if p.own != nil {
		p.own.scraped.Store(&lastScrape{time.Now(), snapshot})
	}
	if merged != nil {
		p.failures.notePage(merged)
	}
	p.failures.noteProbes(probes)
	servePage(w, r, all, p.slogger)
	if !snapshot.Up {
		return fleet.Down
	}
	return fleet.Up
}

// deadline returns how long a scrape may take: the limit from the flags, or less if
// Prometheus sends a shorter scrape timeout.
func (p *page) deadline(header http.Header) time.Duration {
	seconds, err := strconv.ParseFloat(header.Get("X-Prometheus-Scrape-Timeout-Seconds"), 64)
	if err != nil || math.IsNaN(seconds) || seconds <= 0 || seconds > p.limits.ScrapeTimeout.Seconds() {
		return p.limits.ScrapeTimeout
	}
	told := time.Duration(seconds * float64(time.Second))
	if told > 2*p.limits.TimeoutOffset {
		return told - p.limits.TimeoutOffset
	}
	return told / 2
}
