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

// Fields of a state that the engine takes out of it, or puts into it.
const (
	rankField    = "rank"    // how many others are out of service, and listed before the target
	claimedField = "claimed" // how many others are in service by our word alone
)

const (
	// claimTime is for how long a target that was put into service is not counted, unless
	// it has answered a ping since: longer than pings take to find out.
	claimTime = 5 * time.Minute
	rankTime  = 200 * time.Millisecond // by which one waits longer than the one before it
	maxRank   = 4
)

// read is what the action is about, now. What others have claimed is counted.
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

// broken tells which guard of a job does not hold in a state, when its target is out of
// service; "" when all do.
func (j *Job) broken(before, now audit.State) string {
	if j.Action.TakesOut == nil || !j.Action.TakesOut(j.Args, before) {
		return ""
	}
	rest, of := j.Action.Rest(now)
	why, claimed := "", int64(0)
	if claimed, _ = now[claimedField].(int64); claimed > 0 {
		rest -= claimed
		why = fmt.Sprintf("; %d more are active only because they were set so less than %s ago, and have answered no ping since", claimed, claimTime)
	}
	switch {
	case rest < int64(j.Guards.MinActive):
		return fmt.Sprintf("%d others are in service, and %d must stay%s", rest, j.Guards.MinActive, why)
	case float64(rest) < j.Guards.MinRatio*float64(of):
		return fmt.Sprintf("%d others of %d are in service, and the share %g must stay%s", rest, of, j.Guards.MinRatio, why)
	}
	return ""
}

// keeps judges the guards again after the change: somebody else may have taken another
// target out at the same time, after both had counted. Then the change is taken back.
// Of two that find this out at once, the one whose target is listed later waits and reads
// again: the other's has been put back by then, and one change is kept.
func (e *Engine) keeps(ctx context.Context, j *Job, res *adminapi.Result) error {
	why := j.broken(res.Before, res.After)
	if why == "" || j.Action.TakesOut(j.Args, res.After) { // all is well, or it is in service again
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, j.Action.Deadline+3*afterTime)
	defer cancel()
	for range min(j.rank, maxRank) {
		time.Sleep(rankTime + rand.N(rankTime/4)) //nolint:gosec // spreads, and is no secret
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
		return GuardBroken.Because(why + "; the target is not as this action left it, and was left alone: " + is.why)
	}
	_ = level.Error(e.Logger).Log("msg", "guard broken: taking the action back", "action", j.Action.Name, "id", j.ID, "guard", why)
	if err := e.takeBack(ctx, j, res); err != nil {
		return errors.Join(GuardBroken.Because(why+"; "+ProblemOf(err).Error()), err)
	}
	return TakenBack.Because(why)
}

// takeBack puts the target back as it was, and sees that it is in service.
func (e *Engine) takeBack(ctx context.Context, j *Job, res *adminapi.Result) error {
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
