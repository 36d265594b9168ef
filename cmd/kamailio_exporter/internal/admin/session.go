package admin

import (
	"crypto/rand"
	"crypto/sha256"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/action"
)

// A browser cannot send a token by itself. A user who enters a token in the page's form
// gets a session: a path that cannot be guessed, and a cookie that the browser sends
// only to that path. Cookies ignore ports: with another path, the cookie would also go
// to other services on the same host. Path and cookie are worthless without each other
// and allow only reads. They expire with the token, and end with the browser or the
// exporter.
const (
	sessionPath   = "/session"
	sessionCookie = "kamailio_exporter_session"
	sessionLife   = 12 * time.Hour
	sessionIdle   = time.Hour
	maxSessions   = 10 // per user
	maxForm       = 1 << 10
)

// session is a logged-in browser.
type session struct {
	user  string
	token [sha256.Size]byte // hash of the token that began it
	began time.Time
	used  time.Time
}

// sessions holds the sessions, in memory only.
type sessions struct {
	now  func() time.Time
	mu   sync.Mutex
	open map[[sha256.Size]byte]*session // by hash of path and cookie
}

func newSessions(now func() time.Time) *sessions {
	return &sessions{now: now, open: map[[sha256.Size]byte]*session{}}
}

func sessionKey(path, cookie string) [sha256.Size]byte {
	return sha256.Sum256([]byte(path + " " + cookie))
}

// begin starts a session with a random path and cookie.
func (l *sessions) begin(user string, token [sha256.Size]byte) (path, cookie string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.expire()
	mine := slices.DeleteFunc(slices.Collect(maps.Keys(l.open)), func(k [sha256.Size]byte) bool { return l.open[k].user != user })
	slices.SortFunc(mine, func(a, b [sha256.Size]byte) int { return l.open[a].used.Compare(l.open[b].used) })
	for len(mine) >= maxSessions {
		delete(l.open, mine[0])
		mine = mine[1:]
	}
	path, cookie = sessionPath+"/"+rand.Text(), rand.Text()
	l.open[sessionKey(path, cookie)] = &session{user: user, token: token, began: l.now(), used: l.now()}
	return path, cookie
}

// expire drops expired sessions. It must be called with mu held.
func (l *sessions) expire() {
	now := l.now()
	maps.DeleteFunc(l.open, func(_ [sha256.Size]byte, s *session) bool {
		return now.Sub(s.began) >= sessionLife || now.Sub(s.used) >= sessionIdle
	})
}

// find returns the session for a path and a cookie, or nil.
func (l *sessions) find(path, cookie string) *session {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.expire()
	s := l.open[sessionKey(path, cookie)]
	if s != nil {
		s.used = l.now()
	}
	return s
}

func (l *sessions) end(path, cookie string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.open, sessionKey(path, cookie))
}

// forBrowsers reports whether a request is for the page, in a session or to start one.
func forBrowsers(r *http.Request) bool {
	return r.RequestURI == "/" && r.Header["Authorization"] == nil || r.RequestURI == sessionPath || strings.HasPrefix(r.RequestURI, sessionPath+"/")
}

// sameOrigin reports whether a request comes from the page itself, by the headers that
// browsers set.
func sameOrigin(r *http.Request) bool {
	if site := r.Header.Get("Sec-Fetch-Site"); site != "" {
		return site == "same-origin"
	}
	origin, err := url.Parse(r.Header.Get("Origin"))
	return err == nil && origin.Host != "" && origin.Host == r.Host
}

// serveBrowser serves the page if the connection or session is authenticated, and
// otherwise a login form.
func (h *handler) serveBrowser(w http.ResponseWriter, r *http.Request, s *inForce) (identity, error) {
	path, end := strings.CutSuffix(r.RequestURI, "/end")
	switch {
	case r.RequestURI == sessionPath && r.Method == http.MethodPost:
		return h.login(w, r)
	case path == "/" || path == sessionPath: // reloading the page after a failed login requests this path
		if err := only(w, r, http.MethodGet, http.MethodHead); err != nil {
			return identity{}, err
		}
		who, err := s.auth.identify(r)
		if err != nil {
			loginPage(w, unauthenticated.Because(""), "")
			return identity{}, nil
		}
		return who, h.page(w, s, who, nil)
	}
	cookies := r.CookiesNamed(sessionCookie)
	if len(cookies) != 1 || r.Header["Authorization"] != nil {
		return identity{}, unauthenticated.Because("")
	}
	known := h.sessions.find(path, cookies[0].Value)
	if known == nil {
		return identity{}, unauthenticated.Because("")
	}
	token := s.auth.byHash(known.token)
	who, err := s.auth.agree(r, token, "session")
	if token == nil || err != nil || who.user.Name != known.user {
		h.sessions.end(path, cookies[0].Value)
		return identity{}, unauthenticated.Because("")
	}
	if !end {
		if site := r.Header.Get("Sec-Fetch-Site"); site != "" && site != "none" && site != "same-origin" {
			return who, forbidden.Because("")
		}
		if err := only(w, r, http.MethodGet, http.MethodHead); err != nil {
			return who, err
		}
		h.writeMain(w, s, who, path)
		return who, nil
	}
	if err := only(w, r, http.MethodPost); err != nil {
		return who, err
	}
	if !sameOrigin(r) {
		return who, forbidden.Because("")
	}
	h.sessions.end(path, cookies[0].Value)
	http.Redirect(w, r, "/", http.StatusSeeOther)
	return who, nil
}

// login starts a session for a token. The token has the same limits as one in a header.
func (h *handler) login(w http.ResponseWriter, r *http.Request) (identity, error) {
	if overridden(r.Header) || !sameOrigin(r) {
		return identity{}, forbidden.Because("")
	}
	token, err := h.readForm(w, r)
	if err != nil {
		return identity{}, err
	}
	as := r.Clone(r.Context())
	as.Header.Set("Authorization", "Bearer "+token)
	as.Header.Del("Cookie")                                 // may be set by other services on this host
	who, err := h.inForce().auth.authenticate(as, h.limits) // with the current configuration: the form may have taken long to arrive
	if err != nil {
		return identity{}, refusal(err)
	}
	if who.user.Webhook {
		return identity{}, unauthenticated.Because("")
	}
	path, cookie := h.sessions.begin(who.user.Name, sha256.Sum256([]byte(token)))
	http.SetCookie(w, &http.Cookie{Name: sessionCookie, Value: cookie, Path: path, HttpOnly: true, SameSite: http.SameSiteStrictMode, Secure: r.TLS != nil}) //nolint:gosec // without TLS only on loopback, where some browsers reject Secure cookies
	http.Redirect(w, r, path, http.StatusSeeOther)
	return who, nil
}

// readForm returns the token from a form that contains nothing else.
func (h *handler) readForm(w http.ResponseWriter, r *http.Request) (string, error) {
	switch {
	case r.Header.Get("Content-Type") != "application/x-www-form-urlencoded" || r.Header.Get("Content-Encoding") != "":
		return "", mediaType.Because("")
	case r.ContentLength > maxForm:
		return "", tooLarge.Because("")
	}
	connOf(r).listen()
	defer connOf(r).work()
	if len(r.TransferEncoding) > 0 {
		return "", noLength(w, r, maxForm)
	}
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxForm))
	if err != nil {
		return "", action.Malformed.Because("the body did not arrive in time")
	}
	form, err := url.ParseQuery(string(text))
	if err != nil || len(form) != 1 || len(form["token"]) != 1 {
		return "", action.Malformed.Because("must contain a token, and nothing else")
	}
	return strings.TrimSpace(form["token"][0]), nil
}

// loginPage writes the login form, and why it is shown: because of a problem, or the
// first login.
func loginPage(w http.ResponseWriter, p *action.Problem, why string) {
	setHeaders(w, p)
	w.Header().Set("Referrer-Policy", "same-origin") // otherwise the browser does not send the origin of the form
	writePage(w, p.Status, "login", loginData{Style: pageCSS(), Why: why})
}
