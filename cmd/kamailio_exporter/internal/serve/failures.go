package serve

import (
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/go-kit/log"
	"github.com/go-kit/log/level"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/sipprobe"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/xhttpprom"
	"github.com/kamailio-exporter/kamailio_exporter/collector"
)

// failureLog logs one line when a failure begins, when its cause changes, and when it
// ends, instead of the same line at each scrape.
type failureLog struct {
	logger log.Logger
	mu     sync.Mutex
	failed map[string]failure // by collector; "" is Kamailio itself
	// dropped names what was dropped from the xhttp_prom page.
	dropped string
}

type failure struct {
	cause  string // the error without its numbers, such as a duration or a count
	logged time.Time
}

// causeInterval limits how often a changed cause is logged: causes can alternate.
const causeInterval = time.Minute

func newFailureLog(logger log.Logger) *failureLog {
	return &failureLog{logger: logger, failed: map[string]failure{}}
}

func (f *failureLog) note(s *collector.Snapshot) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.changed("", s.Err) {
		if s.Err != nil {
			_ = level.Error(f.logger).Log("msg", "kamailio does not answer", "err", s.Err)
		} else {
			_ = level.Info(f.logger).Log("msg", "kamailio answers again")
		}
	}
	for _, w := range s.URIs {
		if !f.changed("--kamailio.uri "+w.URI, w.Err) {
			continue
		}
		if w.Err != nil {
			_ = level.Error(f.logger).Log("msg", "skipping a URI of kamailio", "uri", w.URI, "err", w.Err)
		} else {
			_ = level.Info(f.logger).Log("msg", "using a URI of kamailio again", "uri", w.URI)
		}
	}
	for _, r := range s.Results {
		if !f.changed(r.Collector, r.Err) {
			continue
		}
		if r.Err != nil {
			_ = level.Error(f.logger).Log("msg", "collector failed", "collector", r.Collector, "err", r.Err)
		} else {
			_ = level.Info(f.logger).Log("msg", "collector recovered", "collector", r.Collector)
		}
	}
}

// notePage does the same for the xhttp_prom page. It also logs what was dropped from the
// page, whenever that changes.
func (f *failureLog) notePage(m *xhttpprom.Merged) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.changed("--xhttp_prom.url", m.Err) {
		if m.Err != nil {
			_ = level.Error(f.logger).Log("msg", "reading the xhttp_prom page failed", "err", m.Err)
		} else {
			_ = level.Info(f.logger).Log("msg", "reading the xhttp_prom page works again")
		}
	}
	if m.Err != nil {
		return
	}
	collision, invalid := someOf(m.Collisions), someOf(m.InvalidFamilies)
	if now := collision + "\n" + invalid; now != f.dropped {
		f.dropped = now
		if collision+invalid != "" {
			_ = level.Warn(f.logger).Log("msg", "skipping metrics of the xhttp_prom page", "collision", collision, "invalid", invalid)
		}
	}
}

// noteProbes does the same for the SIP probes and the certificates that they see.
func (f *failureLog) noteProbes(probes sipprobe.Results) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range probes {
		socket := p.String()
		if f.changed("--sip.probe "+socket, p.Err) {
			if p.Err != nil {
				_ = level.Error(f.logger).Log("msg", "SIP probe failed", "socket", socket, "err", p.Err)
			} else {
				_ = level.Info(f.logger).Log("msg", "SIP probe succeeds again", "socket", socket)
			}
		}
		if p.NotAfter.IsZero() || !f.changed("--sip.probe certificate "+socket, p.VerifyErr) {
			continue
		}
		if p.VerifyErr != nil {
			_ = level.Warn(f.logger).Log("msg", "SIP probe: certificate not trusted", "socket", socket, "err", p.VerifyErr)
		} else {
			_ = level.Info(f.logger).Log("msg", "SIP probe: certificate trusted again", "socket", socket)
		}
	}
}

// someOf lists only some of the names, so that an invalid page cannot flood the log.
func someOf(names []string) string {
	const most, longest = 10, 100
	var b strings.Builder
	for i, name := range names {
		if i == most {
			b.WriteString(" …")
			break
		}
		if i > 0 {
			b.WriteString(" ")
		}
		b.WriteString(name[:min(longest, len(name))])
	}
	return b.String()
}

// changed reports whether a failure began, ended, or has another cause since the last line
// about it.
func (f *failureLog) changed(what string, err error) bool {
	before, failed := f.failed[what]
	if err == nil {
		delete(f.failed, what)
		return failed
	}
	cause := strings.Map(func(r rune) rune {
		if unicode.IsDigit(r) {
			return -1
		}
		return r
	}, err.Error())
	if failed && (cause == before.cause || time.Since(before.logged) < causeInterval) {
		return false
	}
	f.failed[what] = failure{cause, time.Now()}
	return true
}
