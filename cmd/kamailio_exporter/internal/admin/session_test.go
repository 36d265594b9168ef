package admin

import (
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/adminapi"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/audit"
)

// fromThePage are the headers that a browser sends with requests of the page itself.
var fromThePage = []string{"Sec-Fetch-Site", "same-origin", "Origin", "http://localhost"}

func (b *endpoint) form(path, body string, headers ...string) reply {
	b.t.Helper()
	return b.call("", "POST", path, body, append([]string{"Content-Type", "application/x-www-form-urlencoded"}, headers...)...)
}

// login starts a session and returns its path and cookie.
func (b *endpoint) login(token string, headers ...string) (path, cookie string) {
	b.t.Helper()
	r := b.form("/session", "token="+url.QueryEscape(token), append(fromThePage, headers...)...)
	cookies := (&http.Response{Header: r.Header}).Cookies()
	if r.Status != 303 || len(cookies) != 1 {
		b.t.Fatalf("%d %s %v", r.Status, r.Text, r.Header)
	}
	c := cookies[0]
	if path = r.Header.Get("Location"); c.Path != path || !c.HttpOnly || c.SameSite != http.SameSiteStrictMode || c.MaxAge != 0 || !c.Expires.IsZero() || c.Domain != "" || len(c.Value) < 26 {
		b.t.Fatalf("%+v", c)
	}
	return path, c.Name + "=" + c.Value
}

func (b *endpoint) sees(path, cookie string) bool {
	b.t.Helper()
	r := b.call("", "GET", path, "", "Cookie", cookie)
	if known := strings.Contains(r.Text, "You are <b>"); known != (r.Status == 200) || !known && (r.Status != 401 || !strings.Contains(r.Text, `name="token"`)) {
		b.t.Errorf("%d %s", r.Status, r.Text)
	}
	return r.Status == 200
}

func TestBrowsersLogIn(t *testing.T) {
	b := newEndpoint(t, policyText()).start(nil)
	for range 100 { // viewing the form is not a failure and is not logged
		r := b.call("", "GET", "/", "", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Site", "cross-site", "Cookie", "grafana_session=1")
		if r.Status != 401 || !strings.Contains(r.Text, `<form method="post" action="/session">`) || strings.Contains(r.Text, "dispatcher") {
			t.Fatalf("%d %s", r.Status, r.Text)
		}
	}
	if n := len(b.records()); n != 1 {
		t.Errorf("%d records", n)
	}
	path, cookie := b.login(nocToken, "Cookie", "grafana_session=1")
	r := b.call("", "GET", path, "", "Cookie", "grafana_session=1; "+cookie)
	if r.Status != 200 || !strings.Contains(r.Text, "You are <b>noc</b>") || !strings.Contains(r.Text, "state=ip|ix|ap|ax|dx") || !strings.Contains(r.Text, "all times are in UTC") {
		t.Errorf("%d %s", r.Status, r.Text)
	}
	policy := r.Header.Get("Content-Security-Policy")
	for _, part := range []string{"default-src 'none'", "frame-ancestors 'none'", "form-action 'self'", "base-uri 'none'", "style-src 'sha256-"} {
		if !strings.Contains(policy, part) {
			t.Errorf("no %s: %s", part, policy)
		}
	}
	if r.Header.Get("Referrer-Policy") != "no-referrer" || r.Header.Get("Cache-Control") != "no-store" { // the path is half of the secret
		t.Errorf("%v", r.Header)
	}
	if strings.Contains(r.Text, strings.SplitN(cookie, "=", 2)[1]) || strings.Contains(r.Text, nocToken) {
		t.Error("the page has the cookie or the token")
	}
	if r := b.form(path+"/end", "", append(fromThePage, "Cookie", cookie)...); r.Status != 303 || r.Header.Get("Location") != "/" {
		t.Errorf("log out: %d %s", r.Status, r.Text)
	}
	if b.sees(path, cookie) {
		t.Error("it is still logged in")
	}
	b.noChange("the page")
}

// A session can read the page, run no action, and use no other path.
func TestSessionsRunNothing(t *testing.T) {
	b := newEndpoint(t, policyText()).start(nil)
	b.server.limits.failed.SetBurst(1000)
	path, cookie := b.login(nocToken)
	body := `{"params":{}}`
	for name, tc := range map[string]struct {
		token, method, path string
		status              int
		headers             []string
	}{
		"an action":                             {"", "POST", "/v1/actions/dispatcher.reload", 401, fromThePage},
		"an action of another page":             {"", "POST", "/v1/actions/dispatcher.reload", 403, []string{"Sec-Fetch-Site", "cross-site"}},
		"an action, with the token":             {nocToken, "POST", "/v1/actions/dispatcher.reload", 401, fromThePage},
		"an action in the session":              {"", "POST", path + "/v1/actions/dispatcher.reload", 401, fromThePage},
		"a form sent to the session":            {"", "POST", path, 405, append(fromThePage, "Content-Type", "application/x-www-form-urlencoded")},
		"PUT":                                   {"", "PUT", path, 405, fromThePage},
		"a GET to the logout path":              {"", "GET", path + "/end", 405, nil},
		"the list":                              {"", "GET", "/v1/actions", 401, nil},
		"the log":                               {"", "GET", "/v1/operations", 401, nil},
		"targets":                               {"", "GET", "/v1/targets/dispatcher", 401, nil},
		"the page without its path":             {"", "GET", "/", 401, nil},
		"a query":                               {"", "GET", path + "?x=1", 401, nil},
		"a token as well":                       {nocToken, "GET", path, 401, nil},
		"a URI with a path":                     {"", "GET", path + "/", 401, nil},
		"from another site":                     {"", "GET", path, 403, []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate"}},
		"from another port":                     {"", "GET", path, 403, []string{"Sec-Fetch-Site", "same-site", "Sec-Fetch-Mode", "cors"}},
		"as an image":                           {"", "GET", path, 403, []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "no-cors"}},
		"under another name":                    {"", "GET", path, 421, []string{"Host", "evil.example"}},
		"ended by another site":                 {"", "POST", path + "/end", 403, []string{"Sec-Fetch-Site", "cross-site"}},
		"ended by another port":                 {"", "POST", path + "/end", 403, []string{"Sec-Fetch-Site", "same-site", "Origin", "http://localhost:81"}},
		"logout with an unknown cookie":         {"", "POST", path + "/end", 403, nil},
		"logout from another port, old browser": {"", "POST", path + "/end", 403, []string{"Origin", "http://localhost:81"}},
	} {
		r := b.call(tc.token, tc.method, tc.path, body, append([]string{"Cookie", cookie}, tc.headers...)...)
		if r.Status != tc.status {
			t.Errorf("%s: %d %s", name, r.Status, r.Text)
		}
		if strings.Contains(r.Text, "You are <b>") || strings.Contains(r.Text, "dispatcher.set-state") {
			t.Errorf("%s: %s", name, r.Text)
		}
		b.server.limits.mu.Lock()
		clear(b.server.limits.failures)
		b.server.limits.mu.Unlock()
	}
	b.noChange("sessions")
	// Path or cookie alone is rejected, and so is a pair from two sessions.
	otherPath, otherCookie := b.login(botToken)
	for name, half := range map[string][2]string{
		"no cookie": {path, ""}, "another's cookie": {path, otherCookie}, "another's path": {otherPath, cookie}, "no such path": {"/session/AAAAAAAAAAAAAAAAAAAAAAAAAA", cookie},
		"two cookies": {path, cookie + "; " + cookie}, "two of them": {path, otherCookie + "; " + cookie}, "another name": {path, "x" + cookie},
	} {
		if b.sees(half[0], half[1]) {
			t.Errorf("%s is valid", name)
		}
	}
	if !b.sees(path, cookie) || !b.sees(otherPath, otherCookie) {
		t.Error("a session is gone")
	}
}

// A client cannot choose the session of another, and other sites cannot log a browser
// in.
func TestLoginsFromOtherSites(t *testing.T) {
	b := newRuledEndpoint(t, "enforce", drainRule)
	b.server.limits.failed.SetBurst(1000)
	form := "token=" + nocToken
	for name, tc := range map[string]struct {
		body    string
		status  int
		headers []string
	}{
		"another site":                {form, 403, []string{"Sec-Fetch-Site", "cross-site", "Origin", "http://evil.example"}},
		"another port":                {form, 403, []string{"Sec-Fetch-Site", "same-site", "Origin", "http://localhost:81"}},
		"an old browser's other port": {form, 403, []string{"Origin", "http://localhost:81"}},
		"origin null":                 {form, 403, []string{"Origin", "null"}},
		"not said":                    {form, 403, nil},
		"typed in":                    {form, 403, []string{"Sec-Fetch-Site", "none"}},
		"another name":                {form, 421, append(fromThePage, "Host", "evil.example")},
		"an old browser":              {form, 303, []string{"Origin", "http://localhost"}},
		"JSON":                        {`{"token":"` + nocToken + `"}`, 415, append(fromThePage, "Content-Type", "application/json")},
		"text":                        {form, 415, append(fromThePage, "Content-Type", "text/plain")},
		"two tokens":                  {form + "&" + form, 400, fromThePage},
		"another field":               {form + "&x=1", 400, fromThePage},
		"none":                        {"", 400, fromThePage},
		"too large":                   {form + strings.Repeat("x", 2000), 413, fromThePage},
		"a wrong one":                 {form + "x", 401, fromThePage},
		"an old one":                  {"token=" + oldToken, 401, fromThePage},
		"Alertmanager's":              {"token=" + amToken, 401, fromThePage},
		"a hash":                      {"token=" + adminapi.HashToken(nocToken), 401, fromThePage},
	} {
		r := b.form("/session", tc.body, tc.headers...)
		if r.Status != tc.status || (r.Header.Get("Set-Cookie") != "") != (tc.status == 303) || strings.Contains(r.Text, nocToken) || tc.status == 401 && !strings.Contains(r.Text, "This token is not valid") {
			t.Errorf("%s: %d %s", name, r.Status, r.Text)
		}
		b.server.limits.mu.Lock()
		clear(b.server.limits.failures)
		b.server.limits.mu.Unlock()
	}
	for path, status := range map[string]int{"/session": 401, "/session?token=" + nocToken: 401} {
		if r := b.call("", "GET", path, ""); r.Status != status || r.Header.Get("Set-Cookie") != "" {
			t.Errorf("GET %s: %d", path, r.Status)
		}
	}
	if got := b.raw("POST /session HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nSec-Fetch-Site: same-origin\r\nContent-Type: application/x-www-form-urlencoded\r\nTransfer-Encoding: chunked\r\n\r\n" + fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(form), form)); !strings.HasPrefix(got, "HTTP/1.1 400 ") {
		t.Errorf("chunked: %s", got)
	}
	// An existing cookie is not reused for the session.
	path, cookie := b.login(nocToken, "Cookie", sessionCookie+"=chosen-by-somebody-else-000000")
	if strings.Contains(cookie, "chosen") || b.sees(path, sessionCookie+"=chosen-by-somebody-else-000000") || b.sees("/session/chosen", sessionCookie+"=chosen-by-somebody-else-000000") {
		t.Error("it is the one that somebody chose")
	}
	if again, other := b.login(nocToken, "Cookie", cookie); again == path || other == cookie {
		t.Error("the same session once more")
	}
	written, err := os.ReadFile(audit.DeniedFile(b.audit))
	if err != nil || strings.Contains(string(written)+b.log.String(), nocToken) || !strings.Contains(string(written), `"unauthenticated"`) {
		t.Errorf("%v %s", err, written)
	}
	b.noChange("logins")
}

// Guesses in the form are limited like other guesses, and lock no user out.
func TestLoginsAreLimited(t *testing.T) {
	b := newEndpoint(t, policyText()).start(nil)
	looked := 0
	for i := range 50 {
		r := b.form("/session", fmt.Sprintf("token=%sGUESS%d", adminapi.TokenPrefix, i), fromThePage...)
		switch {
		case r.Status == 401:
			looked++
		case r.Status != 429 || r.Header.Get("Retry-After") == "" || !strings.Contains(r.Text, "Try again in a minute"):
			t.Errorf("%d %v %s", r.Status, r.Header, r.Text)
		}
	}
	if looked != failuresPerSource {
		t.Errorf("%d were looked up", looked)
	}
	if path, cookie := b.login(nocToken); !b.sees(path, cookie) {
		t.Error("the right one is locked out")
	}
}

// The connection and the token must belong to the same user, as for other requests.
func TestLoginsAgreeWithTheConnection(t *testing.T) {
	policy := policyText() + fmt.Sprintf("    local: {peer_uid: [%d], tokens: [{sha256: %s}], grants: [{action: pdt.reload}]}\n", os.Getuid(), adminapi.HashToken(leadToken))
	b := newEndpoint(t, policy).start(nil)
	path, cookie := b.login(leadToken)
	b.write(strings.Replace(policy, adminapi.HashToken(leadToken), adminapi.HashToken("another"), 1))
	if err := b.server.Reload(); err != nil {
		t.Fatal(err)
	}
	if b.sees(path, cookie) {
		t.Error("its token was revoked, and the connection is no login")
	}
	if r := b.call("", "GET", "/", ""); r.Status != 200 || !strings.Contains(r.Text, "You are <b>local</b>") || strings.Contains(r.Text, "Log out") {
		t.Errorf("known by the connection: %d %s", r.Status, r.Text)
	}
	if r := b.form("/session", "token="+nocToken, fromThePage...); r.Status != 401 || r.Header.Get("Set-Cookie") != "" {
		t.Errorf("%d %s", r.Status, r.Text)
	}
}

func TestSessionsEnd(t *testing.T) {
	var ahead atomic.Int64
	b := newEndpoint(t, strings.Replace(policyText(), "{tokens: [{sha256: "+adminapi.HashToken(botToken)+"}]", "{tokens: [{sha256: "+adminapi.HashToken(botToken)+", expires: "+time.Now().UTC().Format("2006-01-02")+"}]", 1))
	b.opts.now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	b.start(nil)
	reload := func(was, is string) {
		t.Helper()
		text, err := os.ReadFile(b.file)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(b.file, []byte(strings.ReplaceAll(string(text), was, is)), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := b.server.Reload(); err != nil {
			t.Fatal(err)
		}
	}
	path, cookie := b.login(nocToken)
	bossPath, bossCookie := b.login(auditorToken)
	botPath, botCookie := b.login(botToken)
	gone := adminapi.HashToken("another")

	reload(adminapi.HashToken(nocToken), gone)
	if b.sees(path, cookie) {
		t.Error("its token was revoked")
	}
	reload(gone, adminapi.HashToken(nocToken))
	if b.sees(path, cookie) {
		t.Error("it came back with its token")
	}
	if !b.sees(bossPath, bossCookie) {
		t.Error("a reload ends the sessions of others")
	}
	path, cookie = b.login(nocToken)
	reload("    noc: {tokens", "    day: {tokens")
	if b.sees(path, cookie) {
		t.Error("its token is another user's now")
	}
	reload("    day: {tokens", "    noc: {tokens")

	// Expiry: one hour without use, twelve hours in total, and the end of the token.
	path, cookie = b.login(nocToken)
	ahead.Add(int64(sessionIdle - time.Second))
	if !b.sees(path, cookie) {
		t.Error("it ends too early")
	}
	ahead.Add(int64(sessionIdle))
	if b.sees(path, cookie) {
		t.Error("nobody has looked for an hour")
	}
	path, cookie = b.login(nocToken)
	for began := ahead.Load(); ahead.Load()-began < int64(sessionLife-sessionIdle); {
		ahead.Add(int64(sessionIdle) / 2)
		if !b.sees(path, cookie) {
			t.Fatalf("it ends after %s", time.Duration(ahead.Load()-began))
		}
	}
	ahead.Add(int64(sessionIdle) / 2)
	ahead.Add(int64(sessionIdle) / 2)
	if b.sees(path, cookie) {
		t.Error("it lives on and on")
	}
	ahead.Store(0)
	if b.sees(botPath, botCookie) {
		t.Error("it was idle before, and is back") // it expired while the clock was ahead
	}
	botPath, botCookie = b.login(botToken)
	midnight := time.Now().UTC().Truncate(24*time.Hour).AddDate(0, 0, 1)
	for !b.opts.now().After(midnight) {
		if !b.sees(botPath, botCookie) && !b.opts.now().After(midnight) {
			botPath, botCookie = b.login(botToken) // twelve hours
		}
		ahead.Add(int64(sessionIdle) / 4)
	}
	if b.sees(botPath, botCookie) {
		t.Error("its token has ended")
	}
	ahead.Store(0)

	// If there are too many sessions, the least recently used one ends.
	path, cookie = b.login(nocToken)
	bossPath, bossCookie = b.login(auditorToken)
	for range maxSessions {
		b.login(nocToken)
	}
	if b.sees(path, cookie) || !b.sees(bossPath, bossCookie) || len(b.server.http.Handler.(*handler).sessions.open) > 2*maxSessions {
		t.Error("sessions without end")
	}
	b.stop()
	b.start(nil)
	if b.sees(bossPath, bossCookie) {
		t.Error("it outlives the exporter")
	}
}
