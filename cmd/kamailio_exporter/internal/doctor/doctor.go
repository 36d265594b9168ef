// Package doctor checks what works between the exporter on this host and a
// Kamailio, what does not, and how to fix it. It makes one scrape, as the
// service would, and asks nothing that a scrape does not ask but for what
// kamrpc's price list has for it.
package doctor

import (
	"context"
	"time"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/sipprobe"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/xhttpprom"
	"github.com/kamailio-exporter/kamailio_exporter/collector"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
)

// Config is what the exporter would do with the same flags.
type Config struct {
	URIs []string
	// Open makes the transport of a URI; dials counts the connections that it has made
	// (HTTP only).
	Open          func(uri string) (transport kamrpc.Transport, dials func() int64, err error)
	Collectors    []collector.Collector // that are switched on
	CallTimeout   time.Duration
	ScrapeTimeout time.Duration
	MaxConcurrent int
	MaxReplyBytes int64
	Listen        []string // addresses of the page

	SIP  func(ctx context.Context) sipprobe.Results  // nil: nothing is probed
	Page func(ctx context.Context) *xhttpprom.Merged // nil: no page is merged

	// Startup are the reasons for which the exporter would not start.
	Startup []error
	// Files are those that it has to read.
	Files []string
	// User is whose permissions count; "": those of the service, if it is found, or
	// of this process.
	User string
	// Search also looks for sockets that no flag names.
	Search bool
	// System is where files are looked at; tests have their own.
	System System
}

// Status is the outcome of an examination.
type Status string

// The outcomes. Notes alone are healthy.
const (
	Healthy  Status = "healthy"  // all that the flags ask for works
	Degraded Status = "degraded" // there is a page, and something is missing on it, or at risk
	Broken   Status = "broken"   // the exporter does not start, or gets nothing from Kamailio
)

// Level of a [Finding].
type Level string

// The levels. Warn makes the outcome Degraded, Fail Broken.
const (
	OK   Level = "ok"
	Note Level = "note" // what more could be had, or is good to know
	Warn Level = "warn"
	Fail Level = "fail"
)

// Finding is what one check says about one thing.
type Finding struct {
	Check   string `json:"check"`
	Level   Level  `json:"level"`
	Text    string `json:"text"`
	Fixes   []Fix  `json:"fixes,omitempty"`
	section string
}

// Fix is one fix. Several of a finding are alternatives if Or is set, and
// else all needed.
type Fix struct {
	Where string   `json:"where"` // kamailio.cfg, shell, or flag
	Or    bool     `json:"or,omitempty"`
	Lines []string `json:"lines"`
}

func kamailioCfg(lines ...string) Fix { return Fix{Where: "kamailio.cfg", Lines: lines} }
func shell(lines ...string) Fix       { return Fix{Where: "shell", Lines: lines} }
func byFlag(lines ...string) Fix      { return Fix{Where: "flag", Lines: lines} }
func or(f Fix) Fix                    { f.Or = true; return f }

// Transport is how one URI answers.
type Transport struct {
	URI      string  `json:"uri"`
	Flag     bool    `json:"configured"` // named by a flag, or a default
	Answers  bool    `json:"answers"`
	Version  string  `json:"version,omitempty"`
	Seconds  float64 `json:"seconds,omitempty"`
	MaxReply int64   `json:"max_reply_bytes,omitempty"`
	Error    string  `json:"error,omitempty"`
}

// Collector is how one collector of those switched on does.
type Collector struct {
	Name    string  `json:"name"`
	State   string  `json:"state"` // works, skipped, fails or absent
	Why     string  `json:"why,omitempty"`
	Samples int     `json:"samples"`
	Seconds float64 `json:"seconds"`
}

// Report is the outcome of all checks.
type Report struct {
	Status     Status      `json:"status"`
	User       string      `json:"user"` // whose permissions were looked at
	Version    string      `json:"kamailio_version,omitempty"`
	Uptime     float64     `json:"kamailio_uptime_seconds,omitempty"`
	Modules    []string    `json:"kamailio_modules,omitempty"`
	Transports []Transport `json:"transports"`
	Collectors []Collector `json:"collectors,omitempty"`
	Findings   []Finding   `json:"findings"`
}

// Run examines, and returns when ctx is done at the latest, with what is known
// then.
func Run(ctx context.Context, cfg Config) *Report {
	p := examine(ctx, cfg)
	r := &Report{
		Status: Healthy, User: p.who.name, Version: p.version, Uptime: p.uptime.Seconds(),
		Modules: p.modules, Collectors: p.collectors(), Findings: []Finding{},
	}
	for _, t := range p.trials {
		r.Transports = append(r.Transports, t.Transport)
	}
	for _, c := range checks {
		for _, f := range c.run(ctx, p) {
			f.Check, f.section = c.name, c.section
			r.Findings = append(r.Findings, f)
			switch f.Level {
			case Fail:
				r.Status = Broken
			case Warn:
				if r.Status == Healthy {
					r.Status = Degraded
				}
			}
		}
	}
	return r
}
