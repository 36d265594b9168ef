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

// Subscriber is told of every outcome, and how long it took: 0 for what a former run
// of this program had left without one.
type Subscriber func(r audit.Record, took time.Duration)

// Engine runs actions, one at a time.
type Engine struct {
	Kamailio    Kamailio
	Journal     *Journal
	Log         *audit.Log
	Logger      log.Logger
	Now         func() time.Time
	Poll        time.Duration // between two reads after
	Subscribers []Subscriber

	slot slot

	mu      sync.Mutex
	methods []string  // of the server
	upSince time.Time // when that server was started
}

// Caller is who asks.
type Caller struct {
	User   string
	Auth   string // how it is known: peer, token, cert, or webhook
	Source string // a user of the machine, an address, or an alert
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
	Cooldown  time.Duration // the policy's
	Requested time.Time

	// Confirm looks once more, in the slot and just before the change, whether it is to
	// be made; nil for a person's job.
	Confirm func(ctx context.Context, k Kamailio, before audit.State, uptime time.Duration) error
	Rule    *audit.RuleTag // the rule behind it; nil for a person's

	began time.Time
	reads Kamailio // before the change
	rank  int64    // see rankField
}

// Consider tells whether a rule's job would be refused now, by what k reads. It needs no
// slot, and Run looks again.
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

// same tells that all is as asked already.
func (j *Job) same(before audit.State) bool {
	return before != nil && j.Action.Same != nil && j.Action.Same(j.Args, before)
}

// Run does what was asked. What it was before the change is in the result too, when
// there is a problem after the RPC. Nothing in here ends because the client goes away.
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

// Busy tells whether an action runs.
func (e *Engine) Busy() bool { return e.slot.held() }

// Close refuses what comes from now on, and tells when nothing runs any more.
func (e *Engine) Close() (idle <-chan struct{}) { return e.slot.close() }

// Look finds the value of a parameter at Kamailio.
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

// local does what changes this program alone: its outcome is all that there is to do.
func (e *Engine) local(j *Job, res *adminapi.Result) (*adminapi.Result, *Problem) {
	before, after := j.Action.Local(j.Args)
	if before == nil {
		return nil, NoSuchTarget.Because("")
	}
	res.Before, res.Verified = before, true
	if err := e.Log.Writable(); err != nil {
		return nil, seeLog() // after a restart it would be as before
	}
	if after == nil || j.DryRun {
		return res, e.end(j, res, nil)
	}
	res.Outcome, res.After = audit.Applied, after
	return res, e.end(j, res, nil)
}

// look reads what the action is about, if it may run at all now.
func (e *Engine) look(ctx context.Context, j *Job) (audit.State, *Problem) {
	if left := e.Journal.CooldownLeft(j.Action, j.Cooldown); left > 0 && !j.DryRun {
		return nil, Busy.Later(fmt.Sprintf("%s ran less than %s ago", j.Action.Name, j.Action.cooldown(j.Cooldown)), left)
	}
	if err := e.Log.Writable(); err != nil {
		return nil, seeLog() // of a dry run too: its record would wait in memory
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

// allow refuses by the guards, and what a rule wants to have confirmed. The uptime comes
// behind the guards, so that what was read is of the server that is about to be changed.
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
	if least := j.Guards.MinUptime; uptime < least { // what it holds may not be all there yet
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

// offered asks once per start of Kamailio what it can do: an unknown method is an
// ERROR line in its log.
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

// has tells whether the server that was offered an action has this method.
func (e *Engine) has(method string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Contains(e.methods, method)
}

// uptimeOf is that of Kamailio, in whole seconds.
func uptimeOf(ctx context.Context, k Kamailio) (time.Duration, *Problem) {
	ctx, cancel := context.WithTimeout(ctx, defaultLookTime)
	defer cancel()
	up, err := k.Call(ctx, "core.uptime")
	if err != nil {
		return 0, ofRead(err)
	}
	seconds, ok := whole(up.Get("uptime"))
	if !ok {
		return 0, Unreachable.Because("its uptime is no number")
	}
	return time.Duration(seconds) * time.Second, nil
}

// change sends the RPC, once, and finds out what it did.
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
		res.Outcome, res.Detail = audit.Unverified, "Kamailio says it is done; "+is.why
	default:
		return NotVerified.Because(is.why)
	}
	return e.sameServer(ctx, uptime, sent)
}

// after reads until it is as asked, or until the time is up.
func (e *Engine) after(ctx context.Context, j *Job, before audit.State) (state audit.State, is judgement) {
	if before == nil {
		return nil, unseen("its target cannot be read safely on this Kamailio")
	}
	// The last read, too, has its time: one that is cut off may still run in Kamailio,
	// and holds back the next reload.
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

// failed reads once more after Kamailio said no: it may have lost what it had, such as a
// list that was emptied before the new one could not be loaded.
func (e *Engine) failed(ctx context.Context, j *Job, res *adminapi.Result, err error) error {
	p := ProblemOf(err)
	if p.Outcome != audit.Failed {
		return err // nothing was done, or nobody knows what
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

// sameServer finds out whether Kamailio was restarted meanwhile: what it answered
// is worth nothing then.
func (e *Engine) sameServer(ctx context.Context, was time.Duration, since time.Time) error {
	now, p := uptimeOf(ctx, e.Kamailio)
	if p != nil {
		return nil // it answered the change; that it does not answer this is another matter
	}
	if now < was || now+5*time.Second < was+e.Now().Sub(since).Truncate(time.Second) {
		return OutcomeUnknown.Because("kamailio was restarted in the meantime")
	}
	return nil
}

// end writes down how it ended, tells the subscribers, and makes a problem of an error.
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

// publish writes an outcome down, and tells everybody whom it concerns.
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

// Redact keeps secret parameters out of the audit log.
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

// Recover writes an outcome for every intent that has none: this program was
// killed in between, and what became of it nobody knows.
func (e *Engine) Recover() {
	for _, intent := range e.Journal.unfinished() {
		r := intent
		r.Kind, r.Time = audit.KindOutcome, e.Now().UTC()
		r.Outcome, r.Status, r.Problem = audit.Unknown, OutcomeUnknown.Status, OutcomeUnknown.Name
		r.Detail = "the exporter ended while it ran"
		e.publish(r, 0)
		_ = level.Warn(e.Logger).Log("msg", "an action of the last run has no outcome: its outcome is unknown", "action", r.Action, "id", r.ID, "user", r.User)
	}
}
