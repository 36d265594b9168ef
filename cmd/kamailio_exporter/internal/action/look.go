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

// look reads the state of an action's target. It returns errNoTarget if the target does
// not exist, and errUnreadable if nothing can be read safely on this server; the latter
// does not prevent the action.
type look func(ctx context.Context, k Kamailio, a Args) (audit.State, error)

var (
	errNoTarget   = errors.New("not there")
	errUnreadable = errors.New("cannot be read safely on this Kamailio")
)

// isFault reports whether Kamailio replied with a fault whose message contains says.
func isFault(err error, says string) bool {
	var fault *kamrpc.Fault
	return errors.As(err, &fault) && strings.Contains(strings.ToLower(fault.Message), strings.ToLower(says))
}

// whole reads an integer, also from a string of digits.
func whole(v kamrpc.Value) (int64, bool) {
	n, err := strconv.ParseInt(strings.TrimSpace(v.Text()), 10, 64)
	return n, err == nil
}

// noDestinations is the fault of dispatcher.list if there are no destinations
// (modules/dispatcher/dispatcher.c).
const noDestinations = "No Destination Sets"

// count defines a number to read: rows of a list, or one statistic.
type count struct {
	field     string
	method    string
	params    []any
	rows      kamrpc.Rows
	only      func(kamrpc.Value) bool
	groups    string // a member above the rows: its distinct values are counted instead of rows
	statistic string // the value of "NAME = VALUE" in a list is read instead of counting rows
	none      string // the fault message that means 0
	keepAll   bool   // none may be lost
	states    bool   // counts rows in a state that the reload may change, so 0 proves nothing
}

// lookCounts calls each method once and reads it row by row, because a list may be
// long. Counts of one method share its rows, except as limited by only and groups. A
// count that this server does not report is omitted.
func lookCounts(counts []count) look {
	return func(ctx context.Context, k Kamailio, _ Args) (audit.State, error) {
		state := audit.State{}
		for i, c := range counts {
			if i > 0 && c.method == counts[i-1].method {
				continue // counted together with an earlier one
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

// countRows makes one call for these counts; -1 means not reported.
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

// judge compares the states before and after a change.
type judge func(a Args, before, after audit.State, g Guards) judgement

// judgement is what the reads show about a change: it was done (asAsked), it was not
// done (why), or that is unknown (unseen).
type judgement struct {
	why    string
	unseen bool // the reads do not show whether it was done
}

var asAsked = judgement{}

func contradicted(why string) judgement { return judgement{why: why} }

func unseen(why string) judgement { return judgement{why, true} }

// judgeCounts accepts a reload if no count fell to 0 or by more than max_drop. If one
// count could not be read, the others do not prove success.
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
				why := fmt.Sprintf("%s fell from %d to %d", c.field, was, is)
				if !c.keepAll && is > 0 {
					why += fmt.Sprintf(", by more than max_drop (%.3g%%) allows", 100*g.MaxDrop)
				}
				return contradicted(why)
			}
		}
		if len(unread) > 0 {
			return unseen("this version of Kamailio has no safe RPC for the number of " + strings.Join(unread, ", "))
		}
		if len(none) > 0 {
			return unseen("none are " + strings.Join(none, ", ") + " now: check whether this is intended, or changes with the next pings")
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

// judgeGone accepts a change after which the field is 0, false or absent.
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
