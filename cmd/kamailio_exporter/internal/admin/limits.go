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
	guesses  map[tokenStart]*rate.Limiter
	failed   *rate.Limiter
	all      *rate.Limiter
	perUser  rate.Limit
	burst    int
}

const (
	failuresPerSource = 5  // a minute
	failuresInAll     = 60 // a minute
	requestsInAll     = 5  // a second, of those that are not only reads
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

// mayGuess reports whether a token is to be looked up: its source, and all together,
// have not failed too often, or it may be one that is known and was not guessed at
// too often.
func (l *limits) mayGuess(source string, known *tokenStart) bool {
	return l.ofSource(source).Tokens() >= 1 && l.failed.Tokens() >= 1 ||
		known != nil && l.ofToken(*known).Tokens() >= 1
}

// failure counts credentials that were not good; false: that source, or all
// together, have had too many. Good ones never come here.
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

// renew takes the limits of a new configuration.
func (l *limits) renew(cfg LimitsConfig) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.perUser, l.burst = rate.Limit(cfg.PerUserPerSecond), cfg.Burst
	clear(l.users)
	clear(l.guesses)
}
