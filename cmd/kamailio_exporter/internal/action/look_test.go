package action

import (
	"testing"
	"time"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/audit"
)

// A change is verified only by the fields that it was meant to change.
func TestJudgements(t *testing.T) {
	type state = audit.State
	until := time.Now().Unix() + 600
	for _, tc := range []struct {
		what          string
		action        string
		args          Args
		before, after state
		want          string
	}{
		{"taken out", "dispatcher.set-state", Args{"state": "dx"}, state{"flags": "AP"}, state{"flags": "DX"}, "verified"},
		{"taken out, and a duplicate exists", "dispatcher.set-state", Args{"state": "dx"}, state{"flags": "AP", sameURIField: int64(0)}, state{"flags": "DX", sameURIField: int64(1)}, "contradicted"},
		{"put back, and a duplicate exists", "dispatcher.set-state", Args{"state": "ap"}, state{"flags": "DX", sameURIField: int64(1)}, state{"flags": "AP", sameURIField: int64(1)}, "verified"},
		{"no active destination left", "dispatcher.reload", nil, state{"sets": int64(1), "destinations": int64(3), "active": int64(3)}, state{"sets": int64(1), "destinations": int64(3), "active": int64(0)}, "unverified"},
		{"fewer active", "dispatcher.reload", nil, state{"sets": int64(1), "destinations": int64(3), "active": int64(3)}, state{"sets": int64(1), "destinations": int64(3), "active": int64(1)}, "verified"},
		{"another tree has fewer items", "mtree.reload", nil, state{"items": int64(5), "items_of_others": int64(5)}, state{"items": int64(5), "items_of_others": int64(0)}, "contradicted"},
		{"a stuck call", "dialog.end", nil, state{"state": int64(4)}, state{"state": int64(4)}, "unverified"},
		{"an ended call", "dialog.end", nil, state{"state": int64(4)}, state{"state": int64(5)}, "verified"},
		{"a gauge that falls", "stats.reset", nil, state{"used_size": int64(100)}, state{"used_size": int64(90)}, "unverified"},
		{"a counter and a growing gauge", "stats.reset", nil, state{"calls": int64(9), "used_size": int64(100)}, state{"calls": int64(1), "used_size": int64(900)}, "verified"},
		{"a gauge below 0", "stats.reset", nil, state{"balance": int64(-7)}, state{"balance": int64(-8)}, "unverified"},
		{"the defunct time is unchanged", "lcr.defunct", Args{"seconds": int64(3600)}, state{"defunct": true, "defunct_until": until}, state{"defunct": true, "defunct_until": until}, "contradicted"},
		{"defunct until the requested time", "lcr.defunct", Args{"seconds": int64(600)}, state{"defunct": false}, state{"defunct": true, "defunct_until": until}, "verified"},
	} {
		is := NewCatalogue().Get(tc.action).Judge(tc.args, tc.before, tc.after, Guards{MaxDrop: 0.5})
		got := "contradicted"
		switch {
		case is.why == "":
			got = "verified"
		case is.unseen:
			got = "unverified"
		}
		if got != tc.want {
			t.Errorf("%s: %s %s", tc.what, got, is.why)
		}
	}
}
