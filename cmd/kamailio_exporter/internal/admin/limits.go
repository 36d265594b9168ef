package admin

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// limits holds the token buckets. Those by source and by user cannot grow without
// bound: sources are few (loopback, a unix socket, or clients with a certificate), and
// requests of unknown senders must not enlarge the map.
type limits struct {
	mu       sync.Mutex
	users    map[string]*rate.Limiter
	failures map[string]*rate.Limiter // by source
	guesses  map[tokenStart]*rate.Limiter
	failed   *rate.Limiter
	all      *rate.Limiter
	perUser  rate.Limit
	burst    int
}

const (
	failuresPerSource = 5  // per minute
	failuresInAll     = 60 // per minute
	requestsInAll     = 5  // per second, for requests that may change something
	maxSources        = 1024
)

func newLimits(cfg LimitsConfig) *limits {
	return &limits{
		users: map[string]*rate.Limiter{}, failures: map[string]*rate.Limiter{}, guesses: map[tokenStart]*rate.Limiter{},
		failed:  rate.NewLimiter(rate.Every(time.Minute/failuresInAll), failuresInAll),
		all:     rate.NewLimiter(requestsInAll, 10*requestsInAll),
		perUser: rate.Limit(cfg.PerUserPerSecond), burst: cfg.Burst,
	}
}

func bucket[K comparable](l *limits, m map[K]*rate.Limiter, key K, limit rate.Limit, burst int) *rate.Limiter {
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

func (l *limits) ofSource(source string) *rate.Limiter {
	return bucket(l, l.failures, source, rate.Every(time.Minute/failuresPerSource), failuresPerSource)
}

func (l *limits) ofToken(start tokenStart) *rate.Limiter {
	return bucket(l, l.guesses, start, rate.Every(time.Minute/failuresPerSource), failuresPerSource)
}

// mayGuess reports whether a token may be looked up: either its source and all sources
// together have not failed too often, or the token may be a known one with guesses
// left.
func (l *limits) mayGuess(source string, known *tokenStart) bool {
	return l.ofSource(source).Tokens() >= 1 && l.failed.Tokens() >= 1 ||
		known != nil && l.ofToken(*known).Tokens() >= 1
}

// failure counts invalid credentials. It returns false if the source, or all sources
// together, had too many. Valid credentials are never counted.
func (l *limits) failure(source string, known *tokenStart) bool {
	if known != nil {
		l.ofToken(*known).Allow()
	}
	mine := l.ofSource(source).Allow()
	return l.failed.Allow() && mine
}

// request counts a request of a user.
func (l *limits) request(user string) bool {
	return bucket(l, l.users, user, l.perUser, l.burst).Allow() && l.all.Allow()
}

// renew applies the limits of a new configuration.
func (l *limits) renew(cfg LimitsConfig) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.perUser, l.burst = rate.Limit(cfg.PerUserPerSecond), cfg.Burst
	clear(l.users)
	clear(l.guesses)
}
