package admin

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// limits are the token buckets. Those by source and by user are bounded: sources
// are few (a listener on loopback, a unix socket, or clients with a certificate),
// and strangers must not make the map grow.
type limits struct {
	mu       sync.Mutex
	users    map[string]*rate.Limiter
	failures map[string]*rate.Limiter // by source
	failed   *rate.Limiter
	all      *rate.Limiter
	denials  *rate.Limiter // lines in the audit log
	perUser  rate.Limit
	burst    int
}

const (
	failuresPerSource = 5  // a minute
	failuresInAll     = 60 // a minute
	requestsInAll     = 5  // a second, of those that are not only reads
	denialsPerSecond  = 10
	maxSources        = 1024
)

func newLimits(cfg LimitsConfig) *limits {
	return &limits{
		users: map[string]*rate.Limiter{}, failures: map[string]*rate.Limiter{},
		failed:  rate.NewLimiter(rate.Every(time.Minute/failuresInAll), failuresInAll),
		all:     rate.NewLimiter(requestsInAll, 10*requestsInAll),
		denials: rate.NewLimiter(denialsPerSecond, denialsPerSecond),
		perUser: rate.Limit(cfg.PerUserPerSecond), burst: cfg.Burst,
	}
}

func (l *limits) bucket(m map[string]*rate.Limiter, key string, limit rate.Limit, burst int) *rate.Limiter {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(m) >= maxSources {
		clear(m)
	}
	b := m[key]
	if b == nil {
		b = rate.NewLimiter(limit, burst)
		m[key] = b
	}
	return b
}

// failure counts a bad credential; false: that source, or all together, have had
// too many. Good credentials never come here, so that nobody's guessing locks a
// user out.
func (l *limits) failure(source string) bool {
	mine := l.bucket(l.failures, source, rate.Every(time.Minute/failuresPerSource), failuresPerSource).Allow()
	return l.failed.Allow() && mine
}

// request counts a request of a user.
func (l *limits) request(user string) bool {
	return l.bucket(l.users, user, l.perUser, l.burst).Allow() && l.all.Allow()
}

// renew takes the limits of a new configuration.
func (l *limits) renew(cfg LimitsConfig) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.perUser, l.burst = rate.Limit(cfg.PerUserPerSecond), cfg.Burst
	clear(l.users)
}
