package action

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/go-kit/log/level"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/adminapi"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/audit"
)

// Fields that a Look sets for the engine, or that the engine adds to a state.
const (
	rankField    = "rank"    // how many destinations listed before the target are out of service
	claimedField = "claimed" // how many others are in service only because we set them so
)

const (
	// claimTime is how long a target that was put into service is not counted, unless
	// it has answered a ping since. It is longer than pings need to detect a dead
	// target.
	claimTime = 5 * time.Minute
	rankTime  = 200 * time.Millisecond // added wait per rank
	maxRank   = 4
)

// read reads the current state of the target and counts the claims of others.
func (e *Engine) read(ctx context.Context, k Kamailio, j *Job) (audit.State, error) {
	state, err := j.Action.Look(ctx, k, j.Args)
	if err != nil {
		return nil, err
	}
	j.rank, _ = state[rankField].(int64)
	delete(state, rankField)
	if j.Action.Claims == nil {
		return state, nil
	}
	claims := e.Journal.claims(j.Action)
	if len(claims) == 0 {
		return state, nil
	}
	n, err := j.Action.Unproven(ctx, k, j.Args, claims)
	if n > 0 {
		state[claimedField] = n
	}
	return state, err
}

// broken describes the guard that does not hold if the job's target is out of service;
// "" if all hold.
func (j *Job) broken(before, now audit.State) string {
	if j.Action.TakesOut == nil || !j.Action.TakesOut(j.Args, before) {
		return ""
	}
	rest, of := j.Action.Rest(now)
	why, claimed := "", int64(0)
	if claimed, _ = now[claimedField].(int64); claimed > 0 {
		rest -= claimed
		why = fmt.Sprintf("; %d more were set to active less than %s ago and have not answered a ping since", claimed, claimTime)
	}
	switch {
	case rest < int64(j.Guards.MinActive):
		return fmt.Sprintf("%d others are in service, but at least %d must be%s", rest, j.Guards.MinActive, why)
	case float64(rest) < j.Guards.MinRatio*float64(of):
		return fmt.Sprintf("%d others are in service, but at least %.3g%% of the %d must be%s", rest, 100*j.Guards.MinRatio, of, why)
	}
	return ""
}

// keeps checks the guards again after the change: two clients may have counted at the
// same time and then each taken out a target. In that case the change is undone. If
// both notice it, the one whose target is listed later waits and reads again. By then
// the other change has been undone, so one of the two is kept.
func (e *Engine) keeps(ctx context.Context, j *Job, res *adminapi.Result) error {
	why := j.broken(res.Before, res.After)
	if why == "" || j.Action.TakesOut(j.Args, res.After) { // all guards hold, or the target is in service again
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, j.Action.Deadline+3*afterTime)
	defer cancel()
	for range min(j.rank, maxRank) {
		time.Sleep(rankTime + rand.N(rankTime/4)) //nolint:gosec // only spreads the load, not a secret
		now, err := e.read(ctx, e.Kamailio, j)
		if err != nil {
			break
		}
		res.After = now
		if why = j.broken(res.Before, now); why == "" {
			return nil
		}
	}
	if is := j.Action.Judge(j.Args, res.Before, res.After, j.Guards); is.why != "" {
		return GuardBroken.Because(why + "; the target changed after this action and was not changed back: " + is.why)
	}
	_ = level.Error(e.Logger).Log("msg", "guard broken: undoing the action", "action", j.Action.Name, "id", j.ID, "guard", why)
	if err := e.undo(ctx, j, res); err != nil {
		return errors.Join(GuardBroken.Because(why+"; "+ProblemOf(err).Error()), err)
	}
	return Undone.Because(why)
}

// undo restores the target and checks that it is in service.
func (e *Engine) undo(ctx context.Context, j *Job, res *adminapi.Result) error {
	call, cancel := context.WithTimeout(ctx, j.Action.Deadline)
	defer cancel()
	answer, err := e.Kamailio.Do(call, j.Action.Method, j.Action.Send(j.Action.Back(j.Args, res.Before), res.After)...)
	if err != nil {
		return err
	}
	if j.Action.Answer != nil {
		if why := j.Action.Answer(answer); why != "" {
			return NotVerified.Because(why)
		}
	}
	now, err := e.read(ctx, e.Kamailio, j)
	if err != nil {
		return err
	}
	if res.After = now; !j.Action.TakesOut(j.Args, now) {
		return NotVerified.Because("it is not in service again")
	}
	return nil
}
