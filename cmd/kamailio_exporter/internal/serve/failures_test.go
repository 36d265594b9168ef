package serve

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-kit/log"

	"github.com/kamailio-exporter/kamailio_exporter/collector"
)

// A failure is logged when it begins, when its cause changes, and when it ends; causes that
// alternate are logged once a minute.
func TestFailuresAreLoggedByCause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var lines bytes.Buffer
		failures := newFailureLog(log.NewLogfmtLogger(&lines))
		stopped, forbidden := errors.New("the file does not exist"), errors.New("no permission")
		for _, step := range []struct {
			err    error
			after  time.Duration
			logged string
		}{
			{nil, 0, ""},
			{stopped, 0, "the file does not exist"},
			{stopped, time.Hour, ""},
			{forbidden, 0, "no permission"},
			{stopped, 59 * time.Second, ""},
			{stopped, time.Second, "the file does not exist"},
			{forbidden, 30 * time.Second, ""},
			{stopped, time.Hour, ""},
			{nil, 0, "answers again"},
			{errors.New("no answer after 1.2s"), 0, "no answer after 1.2s"},
			{errors.New("no answer after 999ms"), time.Hour, "no answer after 999ms"}, // another unit
			{errors.New("no answer after 12ms"), time.Hour, ""},
			{nil, 0, "answers again"},
			{nil, time.Hour, ""},
		} {
			time.Sleep(step.after) // of the test's own clock
			lines.Reset()
			failures.note(&collector.Snapshot{Err: step.err})
			if (step.logged == "") != (lines.Len() == 0) || !strings.Contains(lines.String(), step.logged) {
				t.Errorf("%v after %s: logged %q, want %q", step.err, step.after, lines.String(), step.logged)
			}
		}
	})
}
