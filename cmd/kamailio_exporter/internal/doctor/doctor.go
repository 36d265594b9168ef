// Package doctor checks what works between the exporter on this host and a Kamailio,
// what does not, and how to fix it. It makes one scrape, as the service would. Beyond
// that it only calls RPCs that are in kamrpc's list of RPCs.
package doctor

import (
	"context"
	"time"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/sipprobe"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/xhttpprom"
	"github.com/kamailio-exporter/kamailio_exporter/collector"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
)

// Config describes what the exporter would do with the same flags.
type Config struct {
	URIs []string
	// Open opens the transport of a URI. dials returns the number of connections that it
	// has made (HTTP only).
	Open          func(uri string) (transport kamrpc.Transport, dials func() int64, err error)
	Collectors    []collector.Collector // the enabled ones
	TrunksTable   string                // "": the default
	CallTimeout   time.Duration
	ScrapeTimeout time.Duration
	MaxConcurrent int
	MaxReplyBytes int64
	Listen        []string // addresses that the exporter listens on

	Host collector.Host                              // nil: Kamailio runs on another host
	SIP  func(ctx context.Context) sipprobe.Results  // nil: nothing is probed
	Page func(ctx context.Context) *xhttpprom.Merged // nil: no page is merged

	// Startup has the reasons why the exporter would not start.
	Startup []error
	// Files are the files that the exporter must be able to read.
	Files []string
	// User is the account whose permissions are checked; "" means that of the service if
	// it is found, else that of this process.
	User string
	// Search also tries sockets that no flag names.
	Search bool
	// System is the host whose files are examined; tests use their own.
	System System
}

// Status is the outcome of an examination.
type Status string

// The outcomes. A report with notes only is healthy.
const (
	Healthy  Status = "healthy"  // everything that the flags configure works
	Degraded Status = "degraded" // metrics are served, but some are missing or at risk
	Broken   Status = "broken"   // the exporter does not start, or gets no metrics from Kamailio
)

// Level of a [Finding].
type Level string

// The levels. Warn makes the outcome Degraded, Fail makes it Broken.
const (
	OK   Level = "ok"
	Note Level = "note" // a suggestion, or information
	Warn Level = "warn"
	Fail Level = "fail"
)

// Finding is a single result of a check.
type Finding struct {
	Check   string `json:"check"`
	Level   Level  `json:"level"`
	Text    string `json:"text"`
	Fixes   []Fix  `json:"fixes,omitempty"`
	section string
}

// Fix is one fix. If Or is set, it is an alternative to the fix before it; otherwise all
// fixes of the finding are needed.
type Fix struct {
	Where string   `json:"where"` // kamailio.cfg, shell, or flag
	Or    bool     `json:"or,omitempty"`
	Lines []string `json:"lines"`
}

func kamailioCfg(lines ...string) Fix { return Fix{Where: "kamailio.cfg", Lines: lines} }
func shell(lines ...string) Fix       { return Fix{Where: "shell", Lines: lines} }
func byFlag(lines ...string) Fix      { return Fix{Where: "flag", Lines: lines} }
func or(f Fix) Fix                    { f.Or = true; return f }

// Transport is the result for one URI.
type Transport struct {
	URI      string  `json:"uri"`
	Flag     bool    `json:"configured"` // named by a flag, or a default
	Answers  bool    `json:"answers"`
	Version  string  `json:"version,omitempty"`
	Seconds  float64 `json:"seconds,omitempty"`
	MaxReply int64   `json:"max_reply_bytes,omitempty"`
	Error    string  `json:"error,omitempty"`
}

// Collector is the result for one enabled collector.
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
	User       string      `json:"user"` // the account whose permissions were checked
	Version    string      `json:"kamailio_version,omitempty"`
	Uptime     float64     `json:"kamailio_uptime_seconds,omitempty"`
	Modules    []string    `json:"kamailio_modules,omitempty"`
	Transports []Transport `json:"transports"`
	Collectors []Collector `json:"collectors,omitempty"`
	Findings   []Finding   `json:"findings"`
	restart    string      // the command that restarts Kamailio
}

// Run runs all checks. It returns at the latest when ctx is done, with the results so
// far.
func Run(ctx context.Context, cfg Config) *Report {
	p := examine(ctx, cfg)
	r := &Report{
		Status: Healthy, User: p.who.name, Version: p.version, Uptime: p.uptime.Seconds(),
		Modules: p.modules, Collectors: p.collectors(), Findings: []Finding{},
		restart: cfg.System.service("kamailio", "restart"),
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
