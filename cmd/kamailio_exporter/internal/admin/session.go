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

// A browser cannot send a token by itself. Whoever gives one in the form of the page gets
// a session: a path that cannot be guessed, and a cookie that the browser sends to that
// path alone. A cookie knows no ports: to another path it would also go to whatever else
// listens on the same host. Neither is worth anything without the other, they only read,
// and they end with the token, the browser and the exporter.
const (
	sessionPath   = "/session"
	sessionCookie = "kamailio_exporter_session"
	sessionLife   = 12 * time.Hour
	sessionIdle   = time.Hour
	maxSessions   = 10 // of a user
	maxForm       = 1 << 10
)

// session is a browser that is logged in.
type session struct {
	user  string
	token [sha256.Size]byte // hash of the token that it lives by
	began time.Time
	used  time.Time
}

// sessions are kept in memory only.
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

// begin makes a new one, of names that nobody gave it.
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

// expire must be called with mu held.
func (l *sessions) expire() {
	now := l.now()
	maps.DeleteFunc(l.open, func(_ [sha256.Size]byte, s *session) bool {
		return now.Sub(s.began) >= sessionLife || now.Sub(s.used) >= sessionIdle
	})
}

// find is the session of a path and a cookie; nil if there is none.
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

// forBrowsers reports whether a request is for the page, by a session or to begin one.
func forBrowsers(r *http.Request) bool {
	return r.RequestURI == "/" && r.Header["Authorization"] == nil || r.RequestURI == sessionPath || strings.HasPrefix(r.RequestURI, sessionPath+"/")
}

// sameOrigin: only the page itself sends this. Browsers say so, one way or the other.
func sameOrigin(r *http.Request) bool {
	if site := r.Header.Get("Sec-Fetch-Site"); site != "" {
		return site == "same-origin"
	}
	origin, err := url.Parse(r.Header.Get("Origin"))
	return err == nil && origin.Host != "" && origin.Host == r.Host
}

// serveBrowser serves the page: to whom the connection is known, to a session, or with a
// form for a token.
func (h *handler) serveBrowser(w http.ResponseWriter, r *http.Request, s *inForce) (identity, error) {
	path, end := strings.CutSuffix(r.RequestURI, "/end")
	switch {
	case r.RequestURI == sessionPath && r.Method == http.MethodPost:
		return h.login(w, r)
	case path == "/" || path == sessionPath: // where a form that came again is loaded again
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

// login begins a session for a token. It is a credential like that in a header, with the
// same limits.
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
	as.Header.Del("Cookie")                                 // of others on this host
	who, err := h.inForce().auth.authenticate(as, h.limits) // by now: the form may have taken its time
	if err != nil {
		return identity{}, refusal(err)
	}
	if who.user.Webhook {
		return identity{}, unauthenticated.Because("")
	}
	path, cookie := h.sessions.begin(who.user.Name, sha256.Sum256([]byte(token)))
	http.SetCookie(w, &http.Cookie{Name: sessionCookie, Value: cookie, Path: path, HttpOnly: true, SameSite: http.SameSiteStrictMode, Secure: r.TLS != nil}) //nolint:gosec // without TLS only on loopback, where not every browser takes a secure one
	http.Redirect(w, r, path, http.StatusSeeOther)
	return who, nil
}

// readForm is the token of a form with nothing else in it.
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
		return "", action.Malformed.Because("the body did not arrive")
	}
	form, err := url.ParseQuery(string(text))
	if err != nil || len(form) != 1 || len(form["token"]) != 1 {
		return "", action.Malformed.Because("want a token, and nothing else")
	}
	return strings.TrimSpace(form["token"][0]), nil
}

// loginPage is the form, and why it comes: because of a problem, or for the first time.
func loginPage(w http.ResponseWriter, p *action.Problem, why string) {
	setHeaders(w, p)
	w.Header().Set("Referrer-Policy", "same-origin") // else a browser hides from where its form is sent
	writePage(w, p.Status, "login", loginData{Style: pageCSS(), Why: why})
}
