package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// state is all that a new configuration replaces at once.
type state struct {
	cfg    *Config
	policy *policy
	auth   *authenticator
	// remediation is nil while there is no receiver for alerts.
	remediation *remediation
}

// handler is the HTTP side. Its routes are compared byte by byte: there is no
// ServeMux that would clean a path, or redirect.
type handler struct {
	engine  *engine
	remedy  *remediator
	state   *atomic.Pointer[state]
	limits  *limits
	cross   *http.CrossOriginProtection
	version string
}

func newHandler(e *engine, m *remediator, s *atomic.Pointer[state], l *limits, version string) *handler {
	return &handler{engine: e, remedy: m, state: s, limits: l, cross: http.NewCrossOriginProtection(), version: version}
}

// ServeHTTP turns every refusal into a problem, in one place.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("Cache-Control", "no-store")
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	header.Set("Referrer-Policy", "no-referrer")
	id := newID(h.engine.now())
	connOf(r).work()
	defer connOf(r).listen()
	if who, err := h.serve(w, r, id); err != nil {
		h.refuse(w, r, id, who, asProblem(err))
	}
}

// serve tells who asked, also when it fails after that is known.
func (h *handler) serve(w http.ResponseWriter, r *http.Request, id string) (identity, error) {
	s := h.state.Load()
	network, _, _ := s.cfg.address()
	if r.RequestURI == "/-/healthy" && network == "unix" && r.Method == http.MethodGet {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		fmt.Fprintln(w, "Healthy.")
		return identity{}, nil
	}
	if err := h.browser(r, s); err != nil {
		return identity{}, err
	}
	who, err := s.auth.authenticate(r, h.limits)
	switch {
	case errors.Is(err, errGuesses):
		return identity{}, rateLimited.later("", time.Minute)
	case err != nil:
		return identity{}, unauthenticated.because("")
	}
	return who, h.route(w, r.WithContext(context.WithValue(r.Context(), identityKey{}, who)), s, id)
}

// browser refuses what only a web page sends. A page can have any web browser on
// the machine send requests, also under a name of its own that leads to loopback.
func (h *handler) browser(r *http.Request, s *state) error {
	host := r.Host
	if name, _, err := net.SplitHostPort(host); err == nil {
		if host = name; strings.Contains(name, ":") {
			host = "[" + name + "]"
		}
	}
	if !slices.Contains(s.cfg.hosts(), strings.ToLower(host)) {
		return misdirected.because("")
	}
	switch {
	case r.Header.Get("Upgrade") != "":
		return badRequest.because("no upgrade here")
	case r.Header.Get("Sec-Fetch-Mode") == "no-cors":
		return forbidden.because("")
	case h.cross.Check(r) != nil:
		return forbidden.because("")
	}
	return nil
}

var (
	plainPath = regexp.MustCompile(`^/[A-Za-z0-9/._-]*$`)
	idPattern = regexp.MustCompile(`^[0-9A-Z]{26}$`)
	idemKey   = regexp.MustCompile(`^[A-Za-z0-9_-]{8,64}$`)
)

func (h *handler) route(w http.ResponseWriter, r *http.Request, s *state, id string) error {
	who, ok := identityOf(r.Context())
	if !ok {
		return unauthenticated.because("")
	}
	path, query, _ := strings.Cut(r.RequestURI, "?")
	if !plainPath.MatchString(path) {
		return notFound.because("")
	}
	values, err := url.ParseQuery(query)
	if err != nil {
		return badRequest.because("the query cannot be read")
	}
	if who.user.webhook || path == webhookPath {
		return h.alerts(w, r, s, who, path, values)
	}
	if action, ok := strings.CutPrefix(path, "/v1/actions/"); ok {
		a := s.policy.catalogue[action]
		if a == nil || len(who.user.grants[action]) == 0 {
			return notFound.because("")
		}
		if r.Method != http.MethodPost || overridden(r.Header) {
			w.Header().Set("Allow", http.MethodPost)
			return badMethod.because("")
		}
		return h.act(w, r, s, who, a, values, id)
	}
	read := map[string]func(http.ResponseWriter, *http.Request, *state, identity, url.Values) error{
		"/": h.page, "/v1/actions": h.listActions, "/v1/operations": h.listOperations, "/v1/remediation": h.listRules,
	}[path]
	if one, ok := strings.CutPrefix(path, "/v1/operations/"); ok && idPattern.MatchString(one) {
		read = func(w http.ResponseWriter, _ *http.Request, _ *state, who identity, _ url.Values) error {
			record := h.engine.journal.operation(one, who.user)
			if record == nil {
				return notFound.because("")
			}
			return answer(w, http.StatusOK, record)
		}
	}
	switch {
	case read == nil:
		return notFound.because("")
	case r.Method != http.MethodGet && r.Method != http.MethodHead || overridden(r.Header):
		w.Header().Set("Allow", "GET, HEAD")
		return badMethod.because("")
	case len(r.TransferEncoding) > 0:
		return badRequest.because("no body here")
	}
	return read(w, r, s, who, values)
}

func overridden(h http.Header) bool {
	return h.Get("X-HTTP-Method-Override") != "" || h.Get("X-HTTP-Method") != "" || h.Get("X-Method-Override") != ""
}

// act runs an action.
func (h *handler) act(w http.ResponseWriter, r *http.Request, s *state, who identity, a *Action, query url.Values, id string) error {
	if !h.limits.request(who.user.name) {
		return rateLimited.later("", time.Second)
	}
	j := &job{
		id: id, who: who, source: source(r), action: a, request: h.engine.now(),
		guards: Guards(s.cfg.Guards), pause: pauseOf(a, s.cfg.Limits.Cooldown),
	}
	for name, values := range query {
		if name != "dry_run" || len(values) != 1 || values[0] != "true" && values[0] != "false" {
			return badRequest.because("the query can only be dry_run=true")
		}
		j.dryRun = values[0] == "true"
	}
	keys := r.Header.Values("Idempotency-Key")
	switch {
	case len(keys) > 1 || len(keys) == 1 && !idemKey.MatchString(keys[0]):
		return badKey.because("want one of 8 to 64 letters, digits, _ and -")
	case len(keys) == 1:
		j.key = keys[0]
	case a.NeedsKey && !j.dryRun:
		return badKey.because("this action needs one: doing it twice is not the same as once")
	}
	req, err := readBody(w, r)
	if err != nil {
		return err
	}
	j.reason = req.reason
	if j.args, err = check(a.Params, req.params); err != nil {
		return badParameter.because(err.Error())
	}
	if denied := who.user.allows(a, j.args); denied != "" {
		return badParameter.because((&paramError{denied, "has a value that is not granted"}).Error())
	}
	return h.once(r.Context(), w, j)
}

// once runs a job, or says again what became of it when its key was used before.
func (h *handler) once(ctx context.Context, w http.ResponseWriter, j *job) error {
	if j.key != "" {
		j.print = fingerprint(j.action.Name, j.args, j.dryRun)
		before, err := h.engine.journal.claim(j.who.user.name, j.key, j.print)
		switch {
		case errors.Is(err, errKeyOther):
			return badKey.because(err.Error())
		case err != nil:
			return busy.later(err.Error(), 2*time.Second)
		case before != nil:
			w.Header().Set("Idempotent-Replay", "true")
			return h.replay(w, before)
		}
		defer h.engine.journal.release(j.who.user.name, j.key)
	}
	res, p := h.engine.run(ctx, j)
	if res == nil {
		return p
	}
	if p == nil {
		return answer(w, http.StatusOK, res)
	}
	return writeProblem(w, p, res.ID, res)
}

// replay answers from the audit log.
func (h *handler) replay(w http.ResponseWriter, r *Record) error {
	res := &result{
		ID: r.ID, Action: r.Action, Outcome: r.Outcome, Verified: r.Verified, DryRun: r.DryRun,
		Before: r.Before, After: r.After, Detail: r.Detail, Duration: r.Duration,
	}
	if r.Problem == "" {
		return answer(w, http.StatusOK, res)
	}
	for _, k := range []kind{noTarget, rejected, kamailioError, notVerified, outcomeUnknown} {
		if k.name == r.Problem {
			return writeProblem(w, k.because(r.Detail), r.ID, res)
		}
	}
	return writeProblem(w, kamailioError.because(r.Detail), r.ID, res)
}

func answer(w http.ResponseWriter, status int, body any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(text, '\n')) // a client that is gone is no error
	return nil
}

// problemBody is RFC 9457, with members of our own behind.
type problemBody struct {
	Type     string  `json:"type"`
	Title    string  `json:"title"`
	Status   int     `json:"status"`
	Detail   string  `json:"detail,omitempty"`
	Instance string  `json:"instance"`
	Outcome  Outcome `json:"outcome"`
	Retry    int     `json:"retry_after_s,omitempty"`
	Action   string  `json:"action,omitempty"`
	Before   State   `json:"before,omitempty"`
	After    State   `json:"after,omitempty"`
}

func writeProblem(w http.ResponseWriter, p *problem, id string, res *result) error {
	body := problemBody{
		Type: problemPrefix + p.name, Title: p.title, Status: p.status, Detail: p.detail,
		Instance: "/v1/operations/" + id, Outcome: p.outcome,
	}
	if res != nil {
		body.Action, body.Before, body.After = res.Action, res.Before, res.After
	}
	if p.name == unauthenticated.name || p.name == rateLimited.name && p.detail == "" {
		body.Instance = "/" // nothing tells one of these from another
	}
	if p.retry > 0 {
		body.Retry = int(math.Ceil(p.retry.Seconds()))
		w.Header().Set("Retry-After", strconv.Itoa(body.Retry))
	}
	if p.status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(p.status)
	_, _ = w.Write(append(text, '\n'))
	return nil
}

// refuse answers, counts and writes down.
func (h *handler) refuse(w http.ResponseWriter, r *http.Request, id string, who identity, p *problem) {
	record := Record{Kind: recordDenied, ID: id, Source: source(r), Outcome: Refused, Status: p.status, Problem: p.name, Detail: p.detail}
	h.engine.metrics.denied.WithLabelValues(p.name).Inc()
	if who.user != nil {
		record.User, record.Auth = who.user.name, who.kind
		if action, ok := strings.CutPrefix(r.RequestURI, "/v1/actions/"); ok {
			action, _, _ = strings.Cut(action, "?")
			if len(who.user.grants[action]) > 0 {
				record.Action = action
				h.engine.metrics.count(who.user.name, action, Refused)
			}
		}
	}
	h.engine.audit.denied(record, h.limits.denials.Allow())
	if r.ContentLength != 0 {
		// What is left of the body is thrown away for a moment, so that the answer
		// arrives (a connection closed on unread data is reset), and not waited for.
		w.Header().Set("Connection", "close")
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(lingerTime))
	}
	_ = writeProblem(w, p, id, nil)
}

const lingerTime = 500 * time.Millisecond

// source is where a request comes from: a user of the machine, or an address.
func source(r *http.Request) string {
	if c := connOf(r); c != nil {
		return c.source
	}
	return sourceOf(peer{}, r.RemoteAddr)
}

// actionInfo is what a user sees of an action.
type actionInfo struct {
	Name     string      `json:"name"`
	Summary  string      `json:"summary"`
	Params   []paramInfo `json:"params"`
	NeedsKey bool        `json:"needs_idempotency_key"`
	Verifies bool        `json:"verifies"`
	Cooldown int         `json:"cooldown_left_s"`
}

type paramInfo struct {
	Param
	Granted []string `json:"granted"` // by one grant or another
}

func (h *handler) infos(s *state, u *user) []actionInfo {
	all := []actionInfo{}
	for _, name := range s.policy.catalogue.names() {
		grants := u.grants[name]
		if len(grants) == 0 {
			continue
		}
		a := s.policy.catalogue[name]
		info := actionInfo{Name: name, Summary: a.Summary, NeedsKey: a.NeedsKey, Verifies: a.Look != nil, Params: []paramInfo{}}
		info.Cooldown = int(math.Ceil(h.engine.journal.pauseLeft(name, pauseOf(a, s.cfg.Limits.Cooldown)).Seconds()))
		for _, p := range a.Params {
			granted := paramInfo{Param: p}
			for _, g := range grants {
				if text := g.Params[p.Name].String(); !slices.Contains(granted.Granted, text) {
					granted.Granted = append(granted.Granted, text)
				}
			}
			info.Params = append(info.Params, granted)
		}
		all = append(all, info)
	}
	return all
}

func (h *handler) listActions(w http.ResponseWriter, _ *http.Request, s *state, who identity, query url.Values) error {
	if len(query) > 0 {
		return badRequest.because("no query here")
	}
	return answer(w, http.StatusOK, map[string]any{"user": who.user.name, "busy": h.engine.slot.held(), "actions": h.infos(s, who.user)})
}

const (
	defaultLast = 50
	maxLast     = 1000
)

func (h *handler) listOperations(w http.ResponseWriter, _ *http.Request, _ *state, who identity, query url.Values) error {
	limit := defaultLast
	for name, values := range query {
		n, err := strconv.Atoi(values[0])
		if name != "limit" || len(values) != 1 || err != nil || n < 1 || n > maxLast {
			return badRequest.because(fmt.Sprintf("the query can only be limit, from 1 to %d", maxLast))
		}
		limit = n
	}
	last := h.engine.journal.last(who.user, limit)
	if last == nil {
		last = []Record{}
	}
	return answer(w, http.StatusOK, map[string]any{"operations": last})
}
