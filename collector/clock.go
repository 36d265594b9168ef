package collector

import (
	"context"
	"math"
	"strings"
	"time"

	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
)

const uptimeMethod = "core.uptime"

// startTime reads when Kamailio started. core.uptime tells it as local time
// without a zone, and as whole seconds ago, which would make a start time that
// wavers by a second from scrape to scrape. So: the time of day of the text,
// with the zone (a multiple of a quarter of an hour) that brings it nearest to
// now less uptime. Exact and steady while the two clocks agree within 7 minutes.
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

// serverClock is Kamailio's own Unix time, which its timestamps are in: ours may
// differ.
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

// LocalTime reads a time as Kamailio writes it (ctime): in its time zone, whose name
// it does not say. It is returned as if that were UTC; see [ZoneOffset].
func LocalTime(v kamrpc.Value) (local time.Time, ok bool) {
	local, err := time.Parse(time.ANSIC, strings.TrimSpace(v.Text()))
	return local, err == nil
}

// ZoneOffset is how many seconds to add to a [LocalTime] that is nearly the Unix time
// near: zones differ by quarters of an hour, and clocks by less.
func ZoneOffset(local time.Time, near float64) float64 {
	const step = 15 * 60
	return math.Round((near-float64(local.Unix()))/step) * step
}
