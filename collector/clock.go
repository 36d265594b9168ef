package collector

import (
	"context"
	"math"
	"strings"
	"time"

	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
)

const uptimeMethod = "core.uptime"

// startTime returns when Kamailio started. core.uptime reports it as local time without
// a zone, and as seconds ago in whole seconds, from which a start time would vary by a
// second between scrapes. So startTime takes the local time, and the zone offset (a
// multiple of 15 minutes) that brings it closest to now minus uptime. The result is exact
// and stable as long as both clocks agree within 7 minutes.
func startTime(uptime kamrpc.Value, now time.Time) (seconds float64, ok bool) {
	ago, ok := uptime.Get("uptime").Float()
	if !ok {
		return 0, false
	}
	near := float64(now.Unix()) - ago
	local, ok := LocalTime(uptime.Get("up_since"))
	if !ok {
		return near, true
	}
	return float64(local.Unix()) + ZoneOffset(local, near), true
}

// serverClock returns Kamailio's own Unix time, on which its timestamps are based. The
// exporter's clock may differ.
func serverClock(ctx context.Context, s *Session) (float64, error) {
	uptime, err := s.Call(ctx, uptimeMethod)
	if err != nil {
		return 0, err
	}
	now := time.Now()
	if start, ok := startTime(uptime, now); ok {
		if ago, ok := uptime.Get("uptime").Float(); ok {
			return start + ago, nil
		}
	}
	return float64(now.Unix()), nil
}

// LocalTime parses a time as Kamailio writes it (ctime): in its time zone, which it does
// not report. The result is labeled as UTC; correct it with [ZoneOffset].
func LocalTime(v kamrpc.Value) (local time.Time, ok bool) {
	local, err := time.Parse(time.ANSIC, strings.TrimSpace(v.Text()))
	return local, err == nil
}

// ZoneOffset returns how many seconds to add to a [LocalTime] that is close to the Unix
// time near. Zone offsets are multiples of 15 minutes, and clocks differ by less.
func ZoneOffset(local time.Time, near float64) float64 {
	const step = 15 * 60
	return math.Round((near-float64(local.Unix()))/step) * step
}
