package admin

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/go-kit/log"
	"github.com/go-kit/log/level"

	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
)

// engine runs actions.
type engine struct {
	kamailio Kamailio
	slot     *slot
	journal  *journal
	ledger   *ledger
	audit    *audit
	metrics  *metrics
	logger   log.Logger
	now      func() time.Time
	poll     time.Duration // between two reads after

	// Of whoever holds the slot.
	methods []string  // of the server
	upSince time.Time // when that server was started
}

// job is one request to run an action.
type job struct {
	id      string
	who     identity
	source  string
	action  *Action
	args    Args
	reason  string
	key     string
	print   string
	dryRun  bool
	guards  Guards
	pause   time.Duration
	request time.Time

	confirm confirmation // of a rule; may be nil
	remedy  *Remedy      // the rule behind it; nil for a person's
}

// confirmation looks once more, in the slot and just before the change, whether it
// is to be made.
type confirmation func(ctx context.Context, before State, uptime time.Duration) error

// result is the answer to it.
type result struct {
	ID       string  `json:"id"`
	Action   string  `json:"action"`
	Outcome  Outcome `json:"outcome"`
	Verified bool    `json:"verified"`
	DryRun   bool    `json:"dry_run"`
	Before   State   `json:"before,omitempty"`
	After    State   `json:"after,omitempty"`
	Detail   string  `json:"detail,omitempty"`
	Would    *would  `json:"would_send,omitempty"`
	Duration int64   `json:"duration_ms"`
}

// would is what a dry run does not send.
type would struct {
	Method string `json:"method"`
	Params []any  `json:"params"`
}

// run does what was asked. What it was before the change is in the error too, when
// there is one after the RPC. Nothing in here ends because the client goes away.
func (e *engine) run(ctx context.Context, j *job) (res *result, p *problem) {
	ctx = context.WithoutCancel(ctx)
	began := time.Now()
	defer func() {
		if res != nil {
			e.metrics.ended(j, time.Since(began), res, p)
		}
	}()
	if err := e.slot.take(j.action.Name, j.id); err != nil {
		return nil, asProblem(err)
	}
	e.metrics.busy.Set(1)
	defer func() {
		e.metrics.busy.Set(0)
		e.slot.give()
	}()
	if j.action.Local {
		return e.reset(j)
	}
	if left := e.journal.pauseLeft(j.action.Name, j.pause); left > 0 && !j.dryRun {
		return nil, busy.later(fmt.Sprintf("%s has run less than %s ago", j.action.Name, j.pause), left)
	}
	if err := e.audit.writable(); err != nil && !j.dryRun {
		return nil, noAudit.because("see the exporter's log")
	}
	before, p := e.look(ctx, j)
	if p != nil {
		return nil, p
	}
	res = &result{ID: j.id, Action: j.action.Name, DryRun: j.dryRun, Before: before, Outcome: NoChange}
	if before != nil && j.action.Same != nil && j.action.Same(j.args, before) {
		res.After, res.Verified = before, true
		res.Duration = e.now().Sub(j.request).Milliseconds()
		return res, e.end(j, res, nil)
	}
	if before != nil && j.action.Guard != nil {
		if err := j.action.Guard(j.args, before, j.guards); err != nil {
			return nil, guarded.because(err.Error())
		}
	}
	// Last, so that what was read is of the server that is about to be changed.
	uptime, p := e.uptime(ctx, j.guards.MinUptime)
	if p != nil {
		return nil, p
	}
	if j.confirm != nil {
		ctx, cancel := context.WithTimeout(ctx, j.action.LookTime)
		err := j.confirm(ctx, before, uptime)
		cancel()
		if p, ok := errors.AsType[*problem](err); ok {
			return nil, p
		}
		if err != nil {
			return nil, ofRead(err)
		}
	}
	params := j.action.Send(j.args, before)
	if j.dryRun {
		res.Would = &would{j.action.Method, params}
		if params == nil {
			res.Would.Params = []any{}
		}
		res.Duration = e.now().Sub(j.request).Milliseconds()
		return res, e.end(j, res, nil)
	}
	intent := j.record(recordIntent)
	intent.Params, intent.Before = e.audit.redact(j.action.Params, j.args), before
	if err := e.audit.append(intent); err != nil {
		_ = level.Error(e.logger).Log("msg", "the audit log cannot be written, and nothing was sent", "err", err)
		return nil, noAudit.because("see the exporter's log")
	}
	callErr := e.change(ctx, j, params, uptime, res)
	res.Duration = e.now().Sub(j.request).Milliseconds()
	return res, e.end(j, res, callErr)
}

// look reads what the action is about.
func (e *engine) look(ctx context.Context, j *job) (State, *problem) {
	ctx, cancel := context.WithTimeout(ctx, j.action.LookTime)
	defer cancel()
	if p := e.offered(ctx, j.action.Method); p != nil {
		return nil, p
	}
	if j.action.Look == nil {
		return nil, nil
	}
	state, err := j.action.Look(ctx, e.kamailio, j.args)
	if errors.Is(err, errUnreadable) {
		return nil, nil
	}
	if err != nil {
		return nil, ofRead(err)
	}
	return state, nil
}

// offered asks once per start of Kamailio what it can do: an unknown method is an
// ERROR line in its log.
func (e *engine) offered(ctx context.Context, method string) *problem {
	up, err := e.kamailio.Call(ctx, "core.uptime")
	if err != nil {
		return unreachable.because(kamailioSays(err))
	}
	seconds, ok := whole(up.Get("uptime"))
	if !ok {
		return unreachable.because("its uptime is no number")
	}
	since := e.now().Add(-time.Duration(seconds) * time.Second)
	if e.methods == nil || since.Sub(e.upSince).Abs() > 5*time.Second {
		list, err := e.kamailio.Call(ctx, "system.listMethods")
		if err != nil {
			return unreachable.because(kamailioSays(err))
		}
		e.methods = nil
		for m := range list.All("") {
			e.methods = append(e.methods, m.Text())
		}
		e.upSince = since
	}
	if !slices.Contains(e.methods, method) {
		return moduleMissing.because("the module is not loaded, or has no such RPC in this version")
	}
	return nil
}

// uptime refuses a server that has just been started: what it holds may not be all
// there yet.
func (e *engine) uptime(ctx context.Context, least time.Duration) (time.Duration, *problem) {
	ctx, cancel := context.WithTimeout(ctx, defaultLookTime)
	defer cancel()
	up, err := e.kamailio.Call(ctx, "core.uptime")
	if err != nil {
		return 0, unreachable.because(kamailioSays(err))
	}
	seconds, ok := whole(up.Get("uptime"))
	if !ok {
		return 0, unreachable.because("its uptime is no number")
	}
	uptime := time.Duration(seconds) * time.Second
	if uptime < least {
		return 0, restarted.later(fmt.Sprintf("it is up for %s", uptime), least-uptime)
	}
	return uptime, nil
}

// change sends the RPC, once, and finds out what it did.
func (e *engine) change(ctx context.Context, j *job, params []any, uptime time.Duration, res *result) error {
	sent := e.now()
	callCtx, cancel := context.WithTimeout(ctx, j.action.Deadline)
	answer, err := e.kamailio.Do(callCtx, j.action.Method, params...)
	cancel()
	if err != nil {
		return err
	}
	why := ""
	if j.action.Answer != nil {
		why = j.action.Answer(answer)
	}
	if why == "" && j.action.Judge != nil && res.Before != nil {
		var settled bool
		if res.After, settled, why = e.after(ctx, j, res.Before); !settled {
			res.Outcome, res.Detail = Unverified, "it could not be read afterwards"
			return e.sameServer(ctx, uptime, sent)
		}
		res.Verified = why == ""
	}
	if why != "" {
		return notVerified.because(why)
	}
	res.Outcome = Unverified
	if res.Verified {
		res.Outcome = Applied
	} else {
		res.Detail = "Kamailio says it is done; there is nothing to read that would show it"
	}
	return e.sameServer(ctx, uptime, sent)
}

// after reads until it is as asked, or until the time is up. settled is false when
// nothing could be read.
func (e *engine) after(ctx context.Context, j *job, before State) (state State, settled bool, why string) {
	ctx, cancel := context.WithTimeout(ctx, max(j.action.LookTime, j.action.Waits, afterTime))
	defer cancel()
	patience := e.now().Add(j.action.Waits)
	for {
		now, err := j.action.Look(ctx, e.kamailio, j.args)
		switch {
		case errors.Is(err, errNoTarget):
			now = State{"present": false}
		case err != nil:
			return state, state != nil, why
		}
		state, why = now, j.action.Judge(j.args, before, now, j.guards)
		if why == "" || !e.now().Before(patience) {
			return state, true, why
		}
		select {
		case <-time.After(e.poll):
		case <-ctx.Done():
			return state, true, why
		}
	}
}

// sameServer finds out whether Kamailio was restarted meanwhile: what it answered
// is worth nothing then.
func (e *engine) sameServer(ctx context.Context, was time.Duration, since time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, defaultLookTime)
	defer cancel()
	up, err := e.kamailio.Call(ctx, "core.uptime")
	seconds, ok := whole(up.Get("uptime"))
	if err != nil || !ok {
		return nil // it answered the change; that it does not answer this is another matter
	}
	if now := time.Duration(seconds) * time.Second; now < was || now+5*time.Second < was+e.now().Sub(since).Truncate(time.Second) {
		return outcomeUnknown.because("kamailio was restarted meanwhile")
	}
	return nil
}

// end writes down how it ended, and makes a problem of an error.
func (e *engine) end(j *job, res *result, err error) *problem {
	var p *problem
	if err != nil {
		p = asProblem(err)
		res.Outcome, res.Verified, res.Detail = p.outcome, false, p.detail
	}
	r := j.record(recordOutcome)
	r.Params = e.audit.redact(j.action.Params, j.args)
	r.Time = e.now().UTC()
	r.Outcome, r.Verified, r.Before, r.After, r.Detail, r.Duration = res.Outcome, res.Verified, res.Before, res.After, res.Detail, res.Duration
	r.Status = 200
	if p != nil {
		r.Status, r.Problem = p.status, p.name
	}
	if fault := (*kamrpc.Fault)(nil); errors.As(err, &fault) {
		r.Code = fault.Code
	}
	e.audit.outcome(r)
	e.journal.finish(r)
	e.ledger.take(r)
	if err != nil {
		_ = level.Warn(e.logger).Log("msg", "an action did not go well", "action", j.action.Name, "id", j.id, "user", j.who.user.name, "outcome", res.Outcome, "problem", p.name)
	}
	return p
}

func asProblem(err error) *problem {
	if p, ok := errors.AsType[*problem](err); ok {
		return p
	}
	return ofCall(err)
}

func (j *job) record(kind string) Record {
	return Record{
		Kind: kind, ID: j.id, User: j.who.user.name, Auth: j.who.kind, Source: j.source,
		Action: j.action.Name, Reason: j.reason, Key: j.key, Print: j.print, DryRun: j.dryRun, Remedy: j.remedy,
	}
}

// reset closes breakers: the one action that changes this program, and nothing of
// Kamailio.
func (e *engine) reset(j *job) (*result, *problem) {
	open := e.ledger.countOpen(j.args.text("rule"))
	res := &result{ID: j.id, Action: j.action.Name, DryRun: j.dryRun, Before: State{"open": open}, Outcome: NoChange, Verified: true}
	if open == 0 || j.dryRun {
		return res, e.end(j, res, nil)
	}
	if err := e.audit.writable(); err != nil {
		return nil, noAudit.because("see the exporter's log") // after a restart it would be open again
	}
	res.Outcome, res.After = Applied, State{"open": int64(0)}
	return res, e.end(j, res, nil)
}

// recover writes an outcome for every intent that has none: this program was
// killed in between, and what became of it nobody knows.
func (e *engine) recover() {
	for _, intent := range e.journal.unfinished() {
		r := intent
		r.Kind, r.Time = recordOutcome, e.now().UTC()
		r.Outcome, r.Status, r.Problem = Unknown, outcomeUnknown.status, outcomeUnknown.name
		r.Detail = "the exporter ended while it ran"
		e.audit.outcome(r)
		e.journal.finish(r)
		e.ledger.take(r)
		e.metrics.count(r.User, r.Action, Unknown)
		_ = level.Warn(e.logger).Log("msg", "an action of the last run has no outcome: nobody knows whether it was done", "action", r.Action, "id", r.ID, "user", r.User)
	}
}

// pauseOf is the longer of the catalogue's pause and the policy's. Only what
// pauses at all is made to pause longer.
func pauseOf(a *Action, cooldown time.Duration) time.Duration {
	if a.Pause == 0 {
		return 0
	}
	return max(a.Pause, cooldown)
}
