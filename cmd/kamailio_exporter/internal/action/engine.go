package action

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-kit/log"
	"github.com/go-kit/log/level"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/adminapi"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/audit"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
)

// Subscriber receives every outcome and its duration; 0 for an operation that an
// earlier run of this program left unfinished.
type Subscriber func(r audit.Record, took time.Duration)

// Engine runs actions, one at a time.
type Engine struct {
	Kamailio    Kamailio
	Journal     *Journal
	Log         *audit.Log
	Logger      log.Logger
	Now         func() time.Time
	Poll        time.Duration // time between two reads after the change
	Subscribers []Subscriber

	slot slot

	mu      sync.Mutex
	methods []string  // RPC methods of the running server
	upSince time.Time // when that server was started
}

// Caller identifies who made a request.
type Caller struct {
	User   string
	Auth   string // how the caller was authenticated: peer, token, cert, or webhook
	Source string // a local user, an address, or an alert
}

// Job is one request to run an action.
type Job struct {
	ID        string
	Caller    Caller
	Action    *Action
	Args      Args
	Reason    string
	Key       string // Idempotency-Key
	Print     string // fingerprint
	DryRun    bool
	Guards    Guards
	Cooldown  time.Duration // from the policy
	Requested time.Time

	// Confirm checks once more, in the slot and just before the change, whether the
	// change is still needed; nil for a person's job.
	Confirm func(ctx context.Context, k Kamailio, before audit.State, uptime time.Duration) error
	Rule    *audit.RuleTag // the rule that requested it; nil for a person's job

	began time.Time
	reads Kamailio // client for reads before the change
	rank  int64    // see rankField
}

// Consider reports whether a rule's job would be refused now, judged by reads through
// k. It needs no slot; Run checks again.
func (e *Engine) Consider(ctx context.Context, k Kamailio, j *Job) *Problem {
	if e.slot.persons() {
		return givesWay()
	}
	j.reads = k
	before, p := e.look(ctx, j)
	if p == nil && !j.same(before) {
		_, p = e.allow(ctx, j, before)
	}
	return p
}

// same reports that the requested state is already there.
func (j *Job) same(before audit.State) bool {
	return before != nil && j.Action.Same != nil && j.Action.Same(j.Args, before)
}

// Run runs the job. If a problem occurs after the RPC, the result still holds the state
// before the change. A client that disconnects does not cancel the job.
func (e *Engine) Run(ctx context.Context, j *Job) (*adminapi.Result, *Problem) {
	j.began = time.Now()
	if p := e.slot.take(ctx, j); p != nil {
		return nil, p
	}
	defer e.slot.give()
	ctx = context.WithoutCancel(ctx)
	if j.reads = e.Kamailio; j.Rule != nil {
		j.reads = yielding{e.Kamailio, &e.slot}
	}
	res := &adminapi.Result{ID: j.ID, Action: j.Action.Name, DryRun: j.DryRun, Outcome: audit.NoChange}
	if j.Action.Local != nil {
		return e.local(j, res)
	}
	var p *Problem
	if res.Before, p = e.look(ctx, j); p != nil {
		return nil, p
	}
	if j.same(res.Before) {
		res.After, res.Verified = res.Before, true
		return res, e.end(j, res, nil)
	}
	if res.Before != nil && !j.DryRun && j.Action.TakesOut != nil && j.Action.TakesOut(j.Args, res.Before) {
		end, p := e.lease(ctx, j)
		if p != nil {
			return nil, p
		}
		if end != nil {
			defer end()
			if res.Before, p = e.look(ctx, j); p != nil {
				return nil, p
			}
		}
	}
	uptime, p := e.allow(ctx, j, res.Before)
	if p != nil {
		return nil, p
	}
	params := j.Action.Send(j.Args, res.Before)
	if j.DryRun {
		res.Would = &adminapi.Would{Method: j.Action.Method, Params: append([]any{}, params...)}
		return res, e.end(j, res, nil)
	}
	if j.Rule != nil && e.slot.wanted() {
		return nil, givesWay()
	}
	intent := e.record(j, audit.KindIntent)
	intent.Before = res.Before
	if err := e.Log.Append(intent); err != nil {
		_ = level.Error(e.Logger).Log("msg", "the audit log cannot be written, and nothing was sent", "err", err)
		return nil, seeLog()
	}
	return res, e.end(j, res, e.change(ctx, j, params, uptime, res))
}

func seeLog() *Problem { return NoAudit.Because("see the exporter's log") }

// Busy reports whether an action is running.
func (e *Engine) Busy() bool { return e.slot.held() }

// Close refuses new jobs. idle is closed when no action is running.
func (e *Engine) Close() (idle <-chan struct{}) { return e.slot.close() }

// Look queries Kamailio for the value of a parameter.
func (f *Finder) Look(ctx context.Context, k Kamailio) (string, *Problem) {
	ctx, cancel := context.WithTimeout(ctx, 2*defaultLookTime)
	defer cancel()
	found, err := f.Find(ctx, k)
	switch {
	case err != nil:
		return "", ofRead(err)
	case found == "":
		return "", NoSuchTarget.Because(f.None)
	}
	return found, nil
}

// local runs an action that changes only this program: publishing the outcome is the
// change.
func (e *Engine) local(j *Job, res *adminapi.Result) (*adminapi.Result, *Problem) {
	before, after := j.Action.Local(j.Args)
	if before == nil {
		return nil, NoSuchTarget.Because("")
	}
	res.Before, res.Verified = before, true
	if err := e.Log.Writable(); err != nil {
		return nil, seeLog() // the change would be lost after a restart
	}
	if after == nil || j.DryRun {
		return res, e.end(j, res, nil)
	}
	res.Outcome, res.After = audit.Applied, after
	return res, e.end(j, res, nil)
}

// look reads the target's state if the action may run now.
func (e *Engine) look(ctx context.Context, j *Job) (audit.State, *Problem) {
	if left := e.Journal.CooldownLeft(j.Action, j.Cooldown); left > 0 && !j.DryRun {
		return nil, Busy.Later(fmt.Sprintf("%s ran less than %s ago", j.Action.Name, j.Action.cooldown(j.Cooldown)), left)
	}
	if err := e.Log.Writable(); err != nil {
		return nil, seeLog() // for dry runs too: the record would pile up in memory
	}
	ctx, cancel := context.WithTimeout(ctx, j.Action.LookTime)
	defer cancel()
	if p := e.offered(ctx, j.reads, j.Action.Method); p != nil {
		return nil, p
	}
	if j.Action.Look == nil {
		return nil, nil
	}
	state, err := e.read(ctx, j.reads, j)
	switch {
	case errors.Is(err, errUnreadable):
		return nil, nil
	case err != nil:
		return nil, ofRead(err)
	}
	return state, nil
}

// allow checks the guards and what a rule wants confirmed. It reads the uptime after
// the guards, to be sure that their reads came from the server that is about to be
// changed.
func (e *Engine) allow(ctx context.Context, j *Job, before audit.State) (uptime time.Duration, p *Problem) {
	if before != nil && j.Action.Guard != nil {
		if err := j.Action.Guard(j.Args, before, j.Guards); err != nil {
			return 0, Guarded.Because(err.Error())
		}
	}
	if why := j.broken(before, before); before != nil && why != "" {
		return 0, Guarded.Because(why)
	}
	if uptime, p = uptimeOf(ctx, j.reads); p != nil {
		return 0, p
	}
	if least := j.Guards.MinUptime; uptime < least { // it may not have loaded everything yet
		return 0, Restarted.Later(fmt.Sprintf("it has been up for %s", uptime), least-uptime)
	}
	if j.Confirm == nil {
		return uptime, nil
	}
	ctx, cancel := context.WithTimeout(ctx, j.Action.LookTime)
	defer cancel()
	if err := j.Confirm(ctx, j.reads, before, uptime); err != nil {
		return 0, ofRead(err)
	}
	return uptime, nil
}

// offered lists Kamailio's methods once per start of Kamailio, because calling an
// unknown method logs an ERROR there.
func (e *Engine) offered(ctx context.Context, k Kamailio, method string) *Problem {
	uptime, p := uptimeOf(ctx, k)
	if p != nil {
		return p
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	since := e.Now().Add(-uptime)
	if e.methods == nil || since.Sub(e.upSince).Abs() > 5*time.Second {
		list, err := k.Call(ctx, "system.listMethods")
		if err != nil {
			return ofRead(err)
		}
		e.methods = nil
		for m := range list.All("") {
			e.methods = append(e.methods, m.Text())
		}
		e.upSince = since
	}
	if !slices.Contains(e.methods, method) {
		return ModuleMissing.Because(noModule)
	}
	return nil
}

// has reports whether the server last checked by offered has this method.
func (e *Engine) has(method string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Contains(e.methods, method)
}

// uptimeOf returns Kamailio's uptime, in whole seconds.
func uptimeOf(ctx context.Context, k Kamailio) (time.Duration, *Problem) {
	ctx, cancel := context.WithTimeout(ctx, defaultLookTime)
	defer cancel()
	up, err := k.Call(ctx, "core.uptime")
	if err != nil {
		return 0, ofRead(err)
	}
	seconds, ok := whole(up.Get("uptime"))
	if !ok {
		return 0, Unreachable.Because("its uptime is not a number")
	}
	return time.Duration(seconds) * time.Second, nil
}

// change sends the RPC once and determines its effect.
func (e *Engine) change(ctx context.Context, j *Job, params []any, uptime time.Duration, res *adminapi.Result) error {
	sent := e.Now()
	callCtx, cancel := context.WithTimeout(ctx, j.Action.Deadline)
	answer, err := e.Kamailio.Do(callCtx, j.Action.Method, params...)
	cancel()
	if err != nil {
		return e.failed(ctx, j, res, err)
	}
	if j.Action.Answer != nil {
		if why := j.Action.Answer(answer); why != "" {
			return e.failed(ctx, j, res, KamailioError.Because(why))
		}
	}
	is := unseen(j.Action.Verified)
	if j.Action.Look != nil {
		res.After, is = e.after(ctx, j, res.Before)
	}
	if is.why == "" {
		if err := e.keeps(ctx, j, res); err != nil {
			return err
		}
	}
	switch {
	case is.why == "":
		res.Outcome, res.Verified = audit.Applied, true
	case is.unseen:
		res.Outcome, res.Detail = audit.Unverified, "Kamailio reported success; "+is.why
	default:
		return NotVerified.Because(is.why)
	}
	return e.sameServer(ctx, uptime, sent)
}

// after reads until the state is as requested or Waits is over.
func (e *Engine) after(ctx context.Context, j *Job, before audit.State) (state audit.State, is judgement) {
	if before == nil {
		return nil, unseen("its target cannot be read safely on this Kamailio")
	}
	// The last read gets its full time too: a canceled read may still run in Kamailio
	// and delay the next reload.
	ctx, cancel := context.WithTimeout(ctx, j.Action.Waits+max(j.Action.LookTime, afterTime))
	defer cancel()
	patience := e.Now().Add(j.Action.Waits)
	is = unseen("the state could not be read afterwards")
	for {
		now, err := e.read(ctx, e.Kamailio, j)
		switch {
		case errors.Is(err, errNoTarget):
			now = audit.State{"present": false}
		case err != nil:
			return state, is
		}
		state, is = now, j.Action.Judge(j.Args, before, now, j.Guards)
		if is.why == "" || !e.Now().Before(patience) {
			return state, is
		}
		select {
		case <-time.After(e.Poll):
		case <-ctx.Done():
			return state, is
		}
	}
}

// failed reads once more after Kamailio returned an error: a reload may have emptied a
// list before loading the new one failed.
func (e *Engine) failed(ctx context.Context, j *Job, res *adminapi.Result, err error) error {
	p := ProblemOf(err)
	if p.Outcome != audit.Failed {
		return err // nothing was done, or the outcome is unknown
	}
	if res.Before == nil {
		return errors.Join(p.and("its effect cannot be read here"), err)
	}
	ctx, cancel := context.WithTimeout(ctx, max(j.Action.LookTime, afterTime))
	defer cancel()
	now, readErr := e.read(ctx, e.Kamailio, j)
	switch {
	case errors.Is(readErr, errNoTarget):
		now = audit.State{"present": false}
	case readErr != nil:
		return errors.Join(p.and("its effect could not be read afterwards"), err)
	}
	res.After = now
	changed := res.Before.Differences(now, durationField, pingsField)
	if len(changed) == 0 {
		return err
	}
	_ = level.Error(e.Logger).Log("msg", "action failed, and data in Kamailio changed", "action", j.Action.Name, "id", j.ID, "changed", strings.Join(changed, ", "))
	p.Kind = FailedChanged
	return errors.Join(p.and("DATA CHANGED: "+strings.Join(changed, ", ")), err)
}

// sameServer checks whether Kamailio was restarted in the meantime, which makes its
// answers useless.
func (e *Engine) sameServer(ctx context.Context, was time.Duration, since time.Time) error {
	now, p := uptimeOf(ctx, e.Kamailio)
	if p != nil {
		return nil // it answered the change, so this failure does not count against it
	}
	if now < was || now+5*time.Second < was+e.Now().Sub(since).Truncate(time.Second) {
		return OutcomeUnknown.Because("kamailio was restarted in the meantime")
	}
	return nil
}

// end records the outcome, notifies the subscribers and turns an error into a problem.
func (e *Engine) end(j *Job, res *adminapi.Result, err error) *Problem {
	res.Duration = e.Now().Sub(j.Requested).Milliseconds()
	r := e.record(j, audit.KindOutcome)
	r.Status = 200
	var p *Problem
	if err != nil {
		p = ProblemOf(err)
		res.Outcome, res.Verified, res.Detail = p.Outcome, false, p.Detail
		r.Status, r.Problem = p.Status, p.Name
	}
	if fault := (*kamrpc.Fault)(nil); errors.As(err, &fault) {
		r.Code = fault.Code
	}
	r.Time = e.Now().UTC()
	r.Outcome, r.Verified, r.Before, r.After, r.Detail, r.Duration = res.Outcome, res.Verified, res.Before, res.After, res.Detail, res.Duration
	e.publish(r, time.Since(j.began))
	if p != nil {
		_ = level.Warn(e.Logger).Log("msg", "action failed", "action", j.Action.Name, "id", j.ID, "user", j.Caller.User, "outcome", res.Outcome, "problem", p.Name)
	}
	return p
}

// publish writes an outcome to the log and passes it to the journal and the
// subscribers.
func (e *Engine) publish(r audit.Record, took time.Duration) {
	e.Log.Keep(r)
	e.Journal.finish(r)
	for _, tell := range e.Subscribers {
		tell(r, took)
	}
}

func (e *Engine) record(j *Job, kind string) audit.Record {
	return audit.Record{
		Kind: kind, ID: j.ID, User: j.Caller.User, Auth: j.Caller.Auth, Source: j.Caller.Source,
		Action: j.Action.Name, Params: j.Action.Redact(e.Log, j.Args), Reason: j.Reason, Key: j.Key, Print: j.Print, DryRun: j.DryRun, Rule: j.Rule,
	}
}

// Redact returns the parameters for the audit log, without secret values.
func (a *Action) Redact(l *audit.Log, args Args) map[string]any {
	if len(args) == 0 {
		return nil
	}
	kept := map[string]any{}
	for _, p := range a.Params {
		kept[p.Name] = args[p.Name]
		if p.Secret {
			kept[p.Name] = l.Secret(args[p.Name])
		}
	}
	return kept
}

// Recover writes an outcome for every intent without one: this program was killed in
// between, and the outcome of the RPC is unknown.
func (e *Engine) Recover() {
	for _, intent := range e.Journal.unfinished() {
		r := intent
		r.Kind, r.Time = audit.KindOutcome, e.Now().UTC()
		r.Outcome, r.Status, r.Problem = audit.Unknown, OutcomeUnknown.Status, OutcomeUnknown.Name
		r.Detail = "the exporter ended while it ran"
		e.publish(r, 0)
		_ = level.Warn(e.Logger).Log("msg", "an action of the last run was interrupted: its outcome is unknown", "action", r.Action, "id", r.ID, "user", r.User)
	}
}
