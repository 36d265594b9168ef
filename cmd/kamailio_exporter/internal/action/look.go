package action

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/audit"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
)

// look reads what an action is about. errNoTarget: it is not there. errUnreadable:
// nothing can be read safely on this server, which is no reason not to act.
type look func(ctx context.Context, k Kamailio, a Args) (audit.State, error)

var (
	errNoTarget   = errors.New("not there")
	errUnreadable = errors.New("cannot be read safely here")
)

// isFault tells whether Kamailio answered with a fault that says this.
func isFault(err error, says string) bool {
	var fault *kamrpc.Fault
	return errors.As(err, &fault) && strings.Contains(strings.ToLower(fault.Message), strings.ToLower(says))
}

// whole reads an integer, also from a string of digits.
func whole(v kamrpc.Value) (int64, bool) {
	n, err := strconv.ParseInt(strings.TrimSpace(v.Text()), 10, 64)
	return n, err == nil
}

// noDestinations is the fault of dispatcher.list when there are none
// (modules/dispatcher/dispatcher.c).
const noDestinations = "No Destination Sets"

// count is a number of rows, or one statistic.
type count struct {
	field     string
	method    string
	params    []any
	rows      kamrpc.Rows
	only      func(kamrpc.Value) bool
	groups    string // a member above the rows: its different texts are counted, not the rows
	statistic string // the value of "NAME = VALUE" in a list, in place of rows
	none      string // the fault that means 0
	keepAll   bool   // none may be lost
	states    bool   // those in some state, which the reload may change: none of them shows nothing
}

// lookCounts reads each method once, row by row: a list may be long. Counts of one
// method have the same rows, but for those that only and groups pass over. A count
// that this server cannot tell is left out.
func lookCounts(counts []count) look {
	return func(ctx context.Context, k Kamailio, _ Args) (audit.State, error) {
		state := audit.State{}
		for i, c := range counts {
			if i > 0 && c.method == counts[i-1].method {
				continue // counted with it
			}
			same := counts[i:]
			if end := slices.IndexFunc(same, func(o count) bool { return o.method != c.method }); end > 0 {
				same = same[:end]
			}
			found, err := countRows(ctx, k, same)
			switch {
			case err == nil:
			case c.none != "" && isFault(err, c.none):
				found = make([]int64, len(same))
			case errors.Is(err, kamrpc.ErrDangerous), errors.Is(err, kamrpc.ErrMethodNotFound):
				continue
			default:
				return nil, err
			}
			for n, c := range same {
				if found[n] >= 0 {
					state[c.field] = found[n]
				}
			}
		}
		if len(state) == 0 {
			return nil, errUnreadable
		}
		return state, nil
	}
}

// countRows makes one call for these counts; -1 is one that is not told.
func countRows(ctx context.Context, k Kamailio, counts []count) ([]int64, error) {
	found := make([]int64, len(counts))
	first := counts[0]
	if first.statistic != "" {
		result, err := k.Call(ctx, first.method, first.params...)
		if err != nil {
			return nil, err
		}
		found[0] = -1
		for line := range result.All("") {
			if value, ok := strings.CutPrefix(line.Text(), first.statistic+" = "); ok {
				if n, err := strconv.ParseInt(value, 10, 64); err == nil {
					found[0] = n
				}
			}
		}
		return found, nil
	}
	groups := map[string]bool{}
	err := k.Rows(ctx, first.rows, func(above kamrpc.Above, row kamrpc.Value) error {
		for n, c := range counts {
			if group := above.Text(c.groups); c.groups != "" && !groups[group] {
				groups[group] = true
				found[n]++
			}
			if c.groups == "" && row.Exists() && (c.only == nil || c.only(row)) {
				found[n]++
			}
		}
		return nil
	}, first.method, first.params...)
	return found, err
}

// judge compares what was read before and after a change.
type judge func(a Args, before, after audit.State, g Guards) judgement

// judgement is what was read says of a change: it was done (asAsked), it was not, or it
// cannot be told.
type judgement struct {
	why    string
	unseen bool // it cannot be told
}

var asAsked = judgement{}

func contradicted(why string) judgement { return judgement{why: why} }

func unseen(why string) judgement { return judgement{why, true} }

// judgeCounts: nothing that was there is gone altogether, and not too much of it. When
// one of them could not be read, the others do not show that all is well.
func judgeCounts(counts []count) judge {
	return func(_ Args, before, after audit.State, g Guards) judgement {
		var unread, none []string
		for _, c := range counts {
			was, had := before[c.field].(int64)
			is, has := after[c.field].(int64)
			switch {
			case c.states && was > 0 && is == 0:
				none = append(none, c.field)
			case c.states:
			case !had || !has:
				unread = append(unread, c.field)
			case c.keepAll && is < was, was > 0 && (is == 0 || float64(was-is) > g.MaxDrop*float64(was)):
				return contradicted(fmt.Sprintf("%s fell from %d to %d", c.field, was, is))
			}
		}
		if len(unread) > 0 {
			return unseen("this Kamailio cannot be asked safely for the number of " + strings.Join(unread, ", "))
		}
		if len(none) > 0 {
			return unseen("none are " + strings.Join(none, ", ") + " now: look whether that is meant, or changes with the next pings")
		}
		return asAsked
	}
}

func judgeKept(fields ...string) judge {
	counts := make([]count, len(fields))
	for i, field := range fields {
		counts[i].field = field
	}
	return judgeCounts(counts)
}

// judgeGone: a field that is 0, false or absent after it.
func judgeGone(field string) judge {
	return func(_ Args, _, after audit.State, _ Guards) judgement {
		switch after[field] {
		case nil, false, int64(0):
			return asAsked
		}
		return contradicted(field + " is still there")
	}
}

func judgeTrue(field string) judge {
	return func(_ Args, _, after audit.State, _ Guards) judgement {
		if after.Is(field) {
			return asAsked
		}
		return contradicted("not " + field)
	}
}

func answerHas(word string) func(kamrpc.Value) string {
	return func(result kamrpc.Value) string {
		if strings.Contains(result.Text(), word) {
			return ""
		}
		return "it answered: " + clean(result.Text())
	}
}
