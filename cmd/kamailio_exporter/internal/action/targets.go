package action

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/audit"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/conf"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
)

// TargetKind is a kind of object in Kamailio that the actions of one module work on.
type TargetKind struct {
	Name   string   // the module in the names of its actions
	Params []string // action parameters that identify a target
	More   []string // additional fields shown for a target
	// Near means that a client that names a missing target is shown the nearest one. It
	// is off for names that are not typed by hand and for lists that are too expensive.
	Near bool

	method string
	list   func(ctx context.Context, k Kamailio, yield func(Target)) error
}

// Target is one target of a kind.
type Target struct {
	Args Args        // identifying parameters
	More audit.State // additional fields
}

// Text formats a target as the client of the endpoint accepts it.
func (t Target) Text() string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(t.Args)) {
		parts = append(parts, fmt.Sprintf("%s=%v", name, t.Args[name]))
	}
	return strings.Join(parts, " ")
}

// TargetKinds returns the kinds that are cheap enough to list. AORs, htable items and
// presentities are not included, because their number has no bound.
func TargetKinds() []TargetKind {
	return []TargetKind{
		{
			Name: "dispatcher", Params: []string{"set", "uri"}, More: []string{"flags"}, Near: true, method: "dispatcher.list",
			list: listRows(destinationRows, func(above kamrpc.Above, dest kamrpc.Value) (Target, bool) {
				set, err := strconv.ParseInt(above.Text("ID"), 10, 64)
				return Target{Args{"set": set, "uri": dest.Get("URI").Text()}, audit.State{"flags": dest.Get("FLAGS").Text()}}, err == nil && dest.Exists()
			}, "dispatcher.list"),
		},
		{
			Name: "lcr", Params: []string{"lcr_id", "gw_id"}, More: []string{"name", "defunct"}, Near: true, method: "lcr.dump_gws",
			list: listRows(kamrpc.Rows{Path: "gw", Fields: []string{"lcr_id", "gw_id", "gw_name", "defunct_until"}}, func(_ kamrpc.Above, gw kamrpc.Value) (Target, bool) {
				lcr, ok := whole(gw.Get("lcr_id"))
				id, ok2 := whole(gw.Get("gw_id"))
				until, _ := whole(gw.Get("defunct_until"))
				return Target{Args{"lcr_id": lcr, "gw_id": id}, audit.State{"name": gw.Get("gw_name").Text(), "defunct": until > time.Now().Unix()}}, ok && ok2
			}, "lcr.dump_gws"),
		},
		{
			Name: "rtpengine", Params: []string{"url"}, More: []string{"set", "disabled"}, Near: true, method: "rtpengine.show",
			list: listRows(kamrpc.Rows{Fields: []string{"url", "set", "disabled"}}, func(_ kamrpc.Above, relay kamrpc.Value) (Target, bool) {
				return Target{Args{"url": relay.Get("url").Text()}, audit.State{"set": relay.Get("set").Text(), "disabled": relay.Get("disabled").Text()}}, hasURL(relay)
			}, "rtpengine.show", "all"),
		},
		{
			// The rows contain passwords, so only these two fields are kept.
			Name: "uac", Params: []string{"uuid"}, More: []string{"enabled", "registered"}, Near: true, method: "uac.reg_dump",
			list: listRows(kamrpc.Rows{Fields: []string{"l_uuid", "flags"}}, func(_ kamrpc.Above, reg kamrpc.Value) (Target, bool) {
				flags, ok := whole(reg.Get("flags"))
				return Target{Args{"uuid": reg.Get("l_uuid").Text()}, audit.State{"enabled": flags&1 == 0, "registered": flags&4 != 0}}, ok
			}, "uac.reg_dump"),
		},
		{
			Name: "htable", Params: []string{"table"}, More: []string{"database"}, Near: true, method: "htable.listTables",
			list: listRows(kamrpc.Rows{Fields: []string{"name", "dbtable"}}, func(_ kamrpc.Above, table kamrpc.Value) (Target, bool) {
				return Target{Args{"table": table.Get("name").Text()}, audit.State{"database": table.Get("dbtable").Text() != ""}}, table.Get("name").Exists()
			}, "htable.listTables"),
		},
		{
			Name: "mtree", Params: []string{"tree"}, More: []string{"items"}, Near: true, method: "mtree.summary",
			list: listRows(kamrpc.Rows{Fields: []string{"table", "item"}}, func(_ kamrpc.Above, tree kamrpc.Value) (Target, bool) {
				n, ok := whole(tree.Get("item/nritems"))
				return Target{Args{"tree": tree.Get("table").Text()}, audit.State{"items": n}}, ok
			}, "mtree.summary"),
		},
		{Name: "dialog", Params: []string{"call_id"}, More: []string{"state", "began"}, method: "dlg.briefing", list: listDialogs},
		{Name: "usrloc", Params: []string{"table"}, More: []string{"users"}, Near: true, method: "stats.get_statistics", list: listLocations},
		{Name: "secfilter", Params: []string{"kind", "value"}, method: "secfilter.print", list: listBlocked},
		{Name: "stats", Params: []string{"group"}, More: []string{"statistics"}, Near: true, method: "stats.get_statistics", list: listGroups},
		{Name: "cfg", Params: []string{"variable"}, More: []string{"value"}, method: "cfg.get", list: listVariables},
	}
}

func listRows(rows kamrpc.Rows, target func(above kamrpc.Above, row kamrpc.Value) (Target, bool), method string, params ...any) func(context.Context, Kamailio, func(Target)) error {
	return func(ctx context.Context, k Kamailio, yield func(Target)) error {
		return k.Rows(ctx, rows, func(above kamrpc.Above, row kamrpc.Value) error {
			if t, ok := target(above, row); ok {
				yield(t)
			}
			return nil
		}, method, params...)
	}
}

// listDialogs omits the caller and the callee.
func listDialogs(ctx context.Context, k Kamailio, yield func(Target)) error {
	if err := fewCalls(ctx, k); err != nil {
		return err
	}
	states := []string{"", "unconfirmed", "early", "confirmed, without ACK", "confirmed", "deleted"} // dialog/dlg_hash.h
	return listRows(kamrpc.Rows{Fields: []string{"state", "start_ts", "call-id"}}, func(_ kamrpc.Above, dialog kamrpc.Value) (Target, bool) {
		more := audit.State{}
		if n, ok := whole(dialog.Get("state")); ok && n > 0 && n < int64(len(states)) {
			more["state"] = states[n]
		}
		if began, ok := whole(dialog.Get("start_ts")); ok && began > 0 {
			more["began"] = time.Unix(began, 0).UTC().Format(time.RFC3339)
		}
		return Target{Args{"call_id": dialog.Get("call-id").Text()}, more}, dialog.Get("call-id").Exists()
	}, "dlg.briefing", "sSc")(ctx, k, yield)
}

// listLocations reads the names of usrloc's tables from its statistics.
func listLocations(ctx context.Context, k Kamailio, yield func(Target)) error {
	return eachStatistic(ctx, k, "usrloc:", func(_, name string, value int64) {
		for _, separator := range []string{"_users", "-users"} { // up to Kamailio 5.3
			if table, ok := strings.CutSuffix(name, separator); ok && table != "registered" {
				yield(Target{Args{"table": table}, audit.State{"users": value}})
			}
		}
	})
}

func listGroups(ctx context.Context, k Kamailio, yield func(Target)) error {
	counted := map[string]int64{}
	err := eachStatistic(ctx, k, "all", func(group, _ string, _ int64) { counted[group]++ })
	for _, group := range slices.Sorted(maps.Keys(counted)) {
		yield(Target{Args{"group": group}, audit.State{"statistics": counted[group]}})
	}
	return err
}

// eachStatistic calls each for every statistic of a group ("core:"), or of all groups.
func eachStatistic(ctx context.Context, k Kamailio, which string, each func(group, name string, value int64)) error {
	result, err := k.Call(ctx, "stats.get_statistics", which)
	if err != nil {
		return err
	}
	for line := range result.All("") {
		name, value, _ := strings.Cut(line.Text(), " = ")
		group, name, ok := strings.Cut(name, ":")
		if n, err := strconv.ParseInt(value, 10, 64); ok && err == nil {
			each(group, name, n)
		}
	}
	return nil
}

func listBlocked(ctx context.Context, k Kamailio, yield func(Target)) error {
	for _, kind := range kindParam.Enum {
		result, err := k.Call(ctx, "secfilter.print", kind)
		if err != nil {
			return err
		}
		if result.Kind() != kamrpc.Object {
			return errUnreadable // before 6.0 it prints nothing over JSON
		}
		for list := range result.Members() {
			for v := range list.Value.All("Blacklisted/Value") {
				yield(Target{Args{"kind": kind, "value": v.Text()}, nil})
			}
		}
	}
	return nil
}

func listVariables(ctx context.Context, k Kamailio, yield func(Target)) error {
	for _, variable := range cfgVariables {
		state, err := lookVariable(ctx, k, Args{"variable": variable.name})
		switch {
		case err == nil:
			yield(Target{Args{"variable": variable.name}, state})
		case !errors.Is(err, errNoTarget) && !errors.Is(err, errUnreadable):
			return err
		}
	}
	return nil
}

// MaxTargets is the maximum number of targets listed.
const MaxTargets = 1000

// Targets lists up to MaxTargets targets of a kind that the caller may name; all counts
// every one of those. It does not take the slot: the RPC client never runs a read
// during a reload of its module.
func (e *Engine) Targets(ctx context.Context, kind TargetKind, may func(Args) bool) (found []Target, all int, p *Problem) {
	ctx, cancel := context.WithTimeout(ctx, listTime)
	defer cancel()
	if p := e.offered(ctx, e.Kamailio, kind.method); p != nil {
		return nil, 0, p
	}
	err := kind.list(ctx, e.Kamailio, func(t Target) {
		if may(t.Args) {
			if all++; all <= MaxTargets {
				found = append(found, t)
			}
		}
	})
	switch {
	case err == nil, isFault(err, noDestinations), isFault(err, "Not enabled"): // uac without reg_db_url
		return found, all, nil
	case errors.Is(err, errUnreadable):
		return nil, 0, ModuleMissing.Because("this version of Kamailio cannot be asked for them")
	}
	return nil, 0, ofRead(err)
}

const listTime = 10 * time.Second

// Nearest suggests existing targets in place of a missing one; "" if there is no useful
// suggestion. It never repeats the client's input.
func (e *Engine) Nearest(ctx context.Context, a *Action, args Args, may func(Args) bool) string {
	kinds := TargetKinds()
	i := slices.IndexFunc(kinds, func(k TargetKind) bool { return k.Name == Module(a.Name) && k.Near })
	if i < 0 {
		return ""
	}
	found, all, p := e.Targets(ctx, kinds[i], may)
	if p != nil {
		return ""
	}
	far := func(t Target) (sum int) {
		for name, value := range t.Args {
			sum += conf.Distance(fmt.Sprint(value), fmt.Sprint(args[name]))
		}
		return sum
	}
	slices.SortStableFunc(found, func(x, y Target) int { return cmp.Compare(far(x), far(y)) })
	if len(found) == 0 {
		return "there is none that you may name"
	}
	if far(found[0]) == 0 {
		return "" // the missing part is something inside the target
	}
	var texts []string
	for _, t := range found[:min(len(found), 3)] {
		texts = append(texts, clean(t.Text()))
	}
	return fmt.Sprintf("there are %d that you may name, the nearest first: %s", all, strings.Join(texts, ", "))
}
