package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/action"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/adminapi"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/audit"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/repair"
)

// inForce is everything that a configuration reload replaces together.
type inForce struct {
	cfg      *Config
	policy   *action.Policy
	auth     *authenticator
	rules    *repair.Rules // nil if the endpoint accepts no alerts
	replaced chan struct{} // closed when a newer configuration replaces this one
}

// The problems of requests before any action runs, as listed in
// docs/admin-reference.md. Those of actions are in package action.
var (
	unauthenticated = action.Kind{Name: "unauthenticated", Status: http.StatusUnauthorized, Outcome: audit.Refused, Title: "Who are you?"}
	forbidden       = action.Kind{Name: "browser", Status: http.StatusForbidden, Outcome: audit.Refused, Title: "Requests from web pages are refused"}
	notFound        = action.Kind{Name: "not-found", Status: http.StatusNotFound, Outcome: audit.Refused, Title: "Not found, or not permitted"}
	badMethod       = action.Kind{Name: "method", Status: http.StatusMethodNotAllowed, Outcome: audit.Refused, Title: "HTTP method not allowed"}
	tooLarge        = action.Kind{Name: "too-large", Status: http.StatusRequestEntityTooLarge, Outcome: audit.Refused, Title: "The body is too large"}
	mediaType       = action.Kind{Name: "media-type", Status: http.StatusUnsupportedMediaType, Outcome: audit.Refused, Title: "The body must be application/json, without an encoding"}
	misdirected     = action.Kind{Name: "host", Status: http.StatusMisdirectedRequest, Outcome: audit.Refused, Title: "Host name not allowed"}
	badKey          = action.Kind{Name: "idempotency-key", Status: http.StatusUnprocessableEntity, Outcome: audit.Refused, Title: "Invalid Idempotency-Key"}
	rateLimited     = action.Kind{Name: "rate-limit", Status: http.StatusTooManyRequests, Outcome: audit.Refused, Title: "Too many requests"}
)

// handler serves HTTP. It compares paths byte by byte and does not use ServeMux, which
// would clean paths or redirect.
type handler struct {
	engine   *action.Engine
	runner   *repair.Runner
	metrics  *metrics
	limits   *limits
	sessions *sessions
	cross    *http.CrossOriginProtection
	version  string
	inForce  func() *inForce
}

// ServeHTTP writes every refusal as a problem, in one place.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("Cache-Control", "no-store")
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	header.Set("Referrer-Policy", "no-referrer")
	id := adminapi.NewID(h.engine.Now())
	connOf(r).work()
	defer connOf(r).listen()
	if who, err := h.serve(w, r, id); err != nil {
		h.refuse(w, r, id, who, action.ProblemOf(err))
	}
}

// serve serves a request. It returns the identity even if it fails after
// authentication.
func (h *handler) serve(w http.ResponseWriter, r *http.Request, id string) (identity, error) {
	s := h.inForce()
	network, _, _ := s.cfg.address()
	if r.RequestURI == "/-/healthy" && network == "unix" && r.Method == http.MethodGet {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		fmt.Fprintln(w, "Healthy.")
		return identity{}, nil
	}
	if err := h.browser(r, s); err != nil {
		return identity{}, err
	}
	if r.RequestURI == adminapi.AuditPath && r.Method == http.MethodGet && r.Header["Authorization"] == nil && connOf(r).ownsLog() {
		return identity{}, h.auditLogs(w, nil, identity{}, nil)
	}
	if forBrowsers(r) {
		return h.serveBrowser(w, r, s)
	}
	who, err := s.auth.authenticate(r, h.limits)
	if err != nil {
		return identity{}, refusal(err)
	}
	return who, h.route(w, r.WithContext(context.WithValue(r.Context(), identityKey{}, who)), s, id)
}

// refusal returns the problem for invalid credentials.
func refusal(err error) error {
	if errors.Is(err, errGuesses) {
		return rateLimited.Later("", time.Minute)
	}
	return unauthenticated.Because("")
}

// browser refuses requests that only a web page sends. Any web page can make a local
// browser send requests, also to a host name of its own that resolves to loopback.
func (h *handler) browser(r *http.Request, s *inForce) error {
	host := r.Host
	if name, _, err := net.SplitHostPort(host); err == nil {
		if host = name; strings.Contains(name, ":") {
			host = "[" + name + "]"
		}
	}
	if !slices.Contains(s.cfg.hosts(), strings.ToLower(host)) {
		return misdirected.Because("")
	}
	switch {
	case r.Header.Get("Upgrade") != "":
		return action.Malformed.Because("no upgrade here")
	case r.Header.Get("Sec-Fetch-Mode") == "no-cors":
		return forbidden.Because("")
	case h.cross.Check(r) != nil:
		return forbidden.Because("")
	}
	return nil
}

var (
	plainPath = regexp.MustCompile(`^/[A-Za-z0-9/._-]*$`)
	idPattern = regexp.MustCompile(`^[0-9A-Z]{26}$`)
	idemKey   = regexp.MustCompile(`^[A-Za-z0-9_-]{8,64}$`)
)

func (h *handler) route(w http.ResponseWriter, r *http.Request, s *inForce, id string) error {
	who, ok := identityOf(r.Context())
	if !ok {
		return unauthenticated.Because("")
	}
	path, query, _ := strings.Cut(r.RequestURI, "?")
	if !plainPath.MatchString(path) {
		return notFound.Because("")
	}
	values, err := url.ParseQuery(query)
	if err != nil {
		return action.Malformed.Because("invalid query string")
	}
	if who.user.Webhook || path == adminapi.WebhookPath {
		return h.alerts(w, r, s, who, path, values)
	}
	if name, ok := strings.CutPrefix(path, adminapi.ActionsPath+"/"); ok {
		a := s.policy.Catalogue.Get(name)
		if a == nil || len(who.user.Grants(name)) == 0 {
			return notFound.Because("")
		}
		if err := only(w, r, http.MethodPost); err != nil {
			return err
		}
		return h.act(w, r, s, who, a, values, id)
	}
	read := map[string]func(http.ResponseWriter, *inForce, identity, url.Values) error{
		"/": h.page, adminapi.ActionsPath: h.listActions, adminapi.OperationsPath: h.listOperations, adminapi.RulesPath: h.listRules,
		adminapi.AuditPath: h.auditLogs,
	}[path]
	if one, ok := strings.CutPrefix(path, adminapi.OperationsPath+"/"); ok && idPattern.MatchString(one) {
		read = func(w http.ResponseWriter, _ *inForce, who identity, _ url.Values) error {
			record := h.engine.Journal.Operation(one, who.user)
			if record == nil {
				record = h.engine.Log.Denied(one)
			}
			if record == nil || !who.user.Sees(*record) {
				return notFound.Because("")
			}
			return answer(w, http.StatusOK, record)
		}
	}
	kind, listed := strings.CutPrefix(path, adminapi.TargetsPath)
	listed = listed && (kind == "" || kind[0] == '/')
	if read == nil && !listed {
		return notFound.Because("")
	}
	if err := only(w, r, http.MethodGet, http.MethodHead); err != nil {
		return err
	}
	if len(r.TransferEncoding) > 0 {
		return action.Malformed.Because("no body here")
	}
	if listed {
		return h.targets(r.Context(), w, s, who, kind, values)
	}
	return read(w, s, who, values)
}

// only refuses all other methods, including method overrides in a header.
func only(w http.ResponseWriter, r *http.Request, methods ...string) error {
	if !slices.Contains(methods, r.Method) || overridden(r.Header) {
		w.Header().Set("Allow", strings.Join(methods, ", "))
		return badMethod.Because("")
	}
	return nil
}

func noQuery(query url.Values) error {
	if len(query) > 0 {
		return action.Malformed.Because("no query here")
	}
	return nil
}

func overridden(h http.Header) bool {
	return h.Get("X-HTTP-Method-Override") != "" || h.Get("X-HTTP-Method") != "" || h.Get("X-Method-Override") != ""
}

// act runs an action.
func (h *handler) act(w http.ResponseWriter, r *http.Request, s *inForce, who identity, a *action.Action, query url.Values, id string) error {
	if !h.limits.request(who.user.Name) {
		return rateLimited.Later("", time.Second)
	}
	j := &action.Job{ID: id, Requested: h.engine.Now()}
	for name, values := range query {
		if name != "dry_run" || len(values) != 1 || values[0] != "true" && values[0] != "false" {
			return action.Malformed.Because("the query can only be dry_run=true")
		}
		j.DryRun = values[0] == "true"
	}
	keys := r.Header.Values("Idempotency-Key")
	switch {
	case len(keys) > 1 || len(keys) == 1 && !idemKey.MatchString(keys[0]):
		return badKey.Because("must have 8 to 64 letters, digits, _ and -")
	case len(keys) == 1:
		j.Key = keys[0]
	case a.NeedsKey && !j.DryRun:
		return badKey.Because("this action needs one, because running it twice differs from running it once")
	}
	text, s, who, err := h.readBody(w, r, s, maxBody)
	if err != nil {
		return err
	}
	if a = s.policy.Catalogue.Get(a.Name); len(who.user.Grants(a.Name)) == 0 {
		return notFound.Because("") // access was revoked while the body was read
	}
	req, err := parseRequest(text)
	if err != nil {
		return action.Malformed.Because(err.Error())
	}
	j.Caller, j.Action, j.Reason, j.Guards, j.Cooldown = who.caller(r), a, req.Reason, s.cfg.Guards, s.cfg.Limits.Cooldown
	if j.Args, err = a.Check(req.Params); err != nil {
		return action.BadParameter.Because(err.Error())
	}
	if denied := who.user.Denied(a, j.Args); denied != "" {
		return action.BadParameter.Because((&action.ParamError{Name: denied, Why: "has a value that is not granted"}).Error())
	}
	err = h.once(r.Context(), w, j)
	if p, ok := errors.AsType[*action.Problem](err); ok && p.Kind == action.NoSuchTarget && p.Detail == "" {
		return p.Because(h.engine.Nearest(r.Context(), a, j.Args, func(args action.Args) bool {
			return who.user.MayTarget(s.policy.Catalogue, action.Module(a.Name), args)
		}))
	}
	return err
}

// targets lists the targets of a kind that a user may name in actions or, without a
// kind, the kinds.
func (h *handler) targets(ctx context.Context, w http.ResponseWriter, s *inForce, who identity, name string, query url.Values) error {
	if err := noQuery(query); err != nil {
		return err
	}
	kinds := slices.DeleteFunc(action.TargetKinds(), func(k action.TargetKind) bool { return !who.user.MayShow(s.policy.Catalogue, k) })
	if name == "" {
		all := adminapi.Kinds{Kinds: []string{}}
		for _, k := range kinds {
			all.Kinds = append(all.Kinds, k.Name)
		}
		return answer(w, http.StatusOK, all)
	}
	i := slices.IndexFunc(kinds, func(k action.TargetKind) bool { return "/"+k.Name == name })
	if i < 0 {
		return notFound.Because("")
	}
	if !h.limits.request(who.user.Name) {
		return rateLimited.Later("", time.Second)
	}
	found, n, p := h.engine.Targets(ctx, kinds[i], func(args action.Args) bool { return who.user.MayTarget(s.policy.Catalogue, kinds[i].Name, args) })
	if p != nil {
		return p
	}
	told := adminapi.Targets{Kind: kinds[i].Name, Params: kinds[i].Params, Fields: append([]string{}, kinds[i].More...), All: n, Targets: []map[string]any{}}
	for _, t := range found {
		one := maps.Clone(map[string]any(t.Args))
		maps.Copy(one, t.More)
		told.Targets = append(told.Targets, one)
	}
	return answer(w, http.StatusOK, told)
}

// once runs a job, or returns the earlier result if its Idempotency-Key was used
// before.
func (h *handler) once(ctx context.Context, w http.ResponseWriter, j *action.Job) error {
	if j.Key != "" {
		j.Print = action.Fingerprint(j.Action.Name, j.Args, j.DryRun)
		before, err := h.engine.Journal.Claim(j.Caller.User, j.Key, j.Print)
		switch {
		case errors.Is(err, action.ErrOtherRequest):
			return badKey.Because(err.Error())
		case err != nil:
			return action.Busy.Later(err.Error(), 2*time.Second)
		case before != nil:
			w.Header().Set("Idempotent-Replay", "true")
			var p *action.Problem
			if before.Problem != "" {
				p = action.AfterSending(before.Problem, before.Detail)
			}
			return answerResult(w, adminapi.ResultOf(*before), p)
		}
		defer h.engine.Journal.Release(j.Caller.User, j.Key)
	}
	res, p := h.engine.Run(ctx, j)
	if res == nil {
		return p
	}
	return answerResult(w, res, p)
}

func answerResult(w http.ResponseWriter, res *adminapi.Result, p *action.Problem) error {
	if p == nil {
		return answer(w, http.StatusOK, res)
	}
	return writeProblem(w, p, res.ID, res)
}

func answer(w http.ResponseWriter, status int, body any) error {
	return write(w, status, "application/json", body)
}

func write(w http.ResponseWriter, status int, contentType string, body any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(status)
	_, _ = w.Write(append(text, '\n')) // a client that disconnected is not an error
	return nil
}

func writeProblem(w http.ResponseWriter, p *action.Problem, id string, res *adminapi.Result) error {
	body := adminapi.Problem{
		Type: adminapi.ProblemPrefix + p.Name, Title: p.Title, Status: p.Status, Detail: p.Detail,
		Instance: adminapi.OperationsPath + "/" + id, Outcome: p.Outcome,
	}
	if res != nil {
		body.Action, body.Before, body.After = res.Action, res.Before, res.After
	}
	if p.Kind == unauthenticated || p.Kind == rateLimited && p.Detail == "" {
		body.Instance = "/" // nothing distinguishes these from each other
	}
	body.Retry = setHeaders(w, p)
	return write(w, p.Status, "application/problem+json", body)
}

// setHeaders sets the headers of a problem: how to authenticate and when to retry. It
// returns the retry time in seconds.
func setHeaders(w http.ResponseWriter, p *action.Problem) (retry int) {
	if p.Status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	if p.Retry > 0 {
		retry = int(math.Ceil(p.Retry.Seconds()))
		w.Header().Set("Retry-After", strconv.Itoa(retry))
	}
	return retry
}

// refuse answers, counts and logs a refusal.
func (h *handler) refuse(w http.ResponseWriter, r *http.Request, id string, who identity, p *action.Problem) {
	record := audit.Record{ID: id, Source: source(r), Status: p.Status, Problem: p.Name, Detail: p.Detail}
	h.metrics.denied.WithLabelValues(p.Name).Inc()
	if who.user != nil {
		record.User, record.Auth = who.user.Name, who.auth
		if name, ok := strings.CutPrefix(r.RequestURI, adminapi.ActionsPath+"/"); ok {
			name, _, _ = strings.Cut(name, "?")
			if len(who.user.Grants(name)) > 0 {
				record.Action = name
				h.metrics.count(who.user.Name, name, audit.Refused)
			}
		}
	}
	h.engine.Log.Deny(record)
	if r.ContentLength != 0 {
		// Discard the rest of the body for a short time, without making the client
		// wait. If the connection were closed with unread data, it would be reset and
		// the answer lost.
		w.Header().Set("Connection", "close")
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(lingerTime))
	}
	switch {
	case forBrowsers(r) && p.Kind == unauthenticated:
		loginPage(w, p, "This token is not valid, or the session has ended.")
		return
	case forBrowsers(r) && p.Kind == rateLimited:
		loginPage(w, p, "Too many attempts failed. Try again in a minute.")
		return
	}
	_ = writeProblem(w, p, id, nil)
}

const lingerTime = 500 * time.Millisecond

// source returns where a request comes from: a local user or an address.
func source(r *http.Request) string {
	if c := connOf(r); c != nil {
		return c.source
	}
	return sourceOf(peer{}, r.RemoteAddr)
}

// actionsOf returns the actions that a user may run.
func (h *handler) actionsOf(s *inForce, u *action.User) adminapi.Actions {
	kinds := action.TargetKinds()
	all := adminapi.Actions{User: u.Name, Busy: h.engine.Busy(), Actions: []adminapi.Action{}}
	for _, name := range s.policy.Catalogue.Names() {
		grants := u.Grants(name)
		if len(grants) == 0 {
			continue
		}
		a := s.policy.Catalogue.Get(name)
		one := adminapi.Action{Name: name, Summary: a.Summary, NeedsKey: a.NeedsKey, Verifies: a.Look != nil, Params: []adminapi.GrantedParam{}}
		one.Cooldown = int(math.Ceil(h.engine.Journal.CooldownLeft(a, s.cfg.Limits.Cooldown).Seconds()))
		if i := slices.IndexFunc(kinds, func(k action.TargetKind) bool { return k.Name == action.Module(name) }); i >= 0 && slices.ContainsFunc(a.Params, func(p action.Param) bool { return slices.Contains(kinds[i].Params, p.Name) }) {
			one.Targets = kinds[i].Name
		}
		for _, p := range a.Params {
			granted := adminapi.GrantedParam{Param: p.Param, Bounds: map[string]string{}}
			for _, g := range grants {
				if text := g.Params[p.Name].Allows(p); !slices.Contains(granted.Granted, text) {
					granted.Granted = append(granted.Granted, text)
				}
				for value, form := range p.Forms {
					if g.Params[p.By].Meets(value) {
						granted.Bounds[value] = form.String()
					}
				}
			}
			one.Params = append(one.Params, granted)
		}
		all.Actions = append(all.Actions, one)
	}
	return all
}

func (h *handler) listActions(w http.ResponseWriter, s *inForce, who identity, query url.Values) error {
	if err := noQuery(query); err != nil {
		return err
	}
	return answer(w, http.StatusOK, h.actionsOf(s, who.user))
}

const (
	defaultLast = 50
	maxLast     = 1000
)

func (h *handler) listOperations(w http.ResponseWriter, _ *inForce, who identity, query url.Values) error {
	limit := defaultLast
	for name, values := range query {
		n, err := strconv.Atoi(values[0])
		if name != "limit" || len(values) != 1 || err != nil || n < 1 || n > maxLast {
			return action.Malformed.Because(fmt.Sprintf("the query can only be limit, from 1 to %d", maxLast))
		}
		limit = n
	}
	return answer(w, http.StatusOK, adminapi.Operations{Operations: h.engine.Journal.Last(who.user, limit)})
}

// auditLogs returns where the audit logs end. That reveals nothing of their content.
func (h *handler) auditLogs(w http.ResponseWriter, _ *inForce, _ identity, query url.Values) error {
	if err := noQuery(query); err != nil {
		return err
	}
	return answer(w, http.StatusOK, adminapi.AuditLogs{Logs: h.engine.Log.Heads()})
}

// seesRules reports whether a user may see the rules: an auditor, or a user who may
// close breakers.
func seesRules(who identity) bool {
	return who.user.Auditor || len(who.user.Grants(adminapi.ResetAction)) > 0
}

// listRules returns the state of the rules.
func (h *handler) listRules(w http.ResponseWriter, _ *inForce, who identity, query url.Values) error {
	if !seesRules(who) {
		return notFound.Because("")
	}
	if err := noQuery(query); err != nil {
		return err
	}
	return answer(w, http.StatusOK, h.runner.State())
}

// alerts accepts a notification. The path exists only with rules and only for webhook
// users, who can use no other path.
func (h *handler) alerts(w http.ResponseWriter, r *http.Request, s *inForce, who identity, path string, query url.Values) error {
	if !who.user.Webhook || path != adminapi.WebhookPath || s.rules == nil {
		return notFound.Because("")
	}
	if err := only(w, r, http.MethodPost); err != nil {
		return err
	}
	if err := noQuery(query); err != nil {
		return err
	}
	text, s, who, err := h.readBody(w, r, s, repair.MaxNotification)
	if err != nil {
		h.runner.Unreadable()
		return err
	}
	if !who.user.Webhook || s.rules == nil {
		return notFound.Because("") // access was revoked while the body was read
	}
	ctx, cancel := context.WithCancel(r.Context()) // it may have to wait for its turn
	defer cancel()
	defer h.untilRevoked(r, s, cancel)()
	verdicts, p := h.runner.Notify(ctx, who.caller(r), text)
	if p != nil {
		return p
	}
	return answer(w, http.StatusAccepted, adminapi.Verdicts{Results: verdicts})
}
