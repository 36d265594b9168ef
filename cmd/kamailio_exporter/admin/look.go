package admin

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
)

// State is what was read of Kamailio, by names of the catalogue: numbers, strings
// and bools. What Kamailio says beyond that stays in here.
type State map[string]any

// is tells whether a bool is there and true.
func (s State) is(name string) bool { b, _ := s[name].(bool); return b }

// look reads what an action is about. errNoTarget: it is not there. errUnreadable:
// nothing can be read safely on this server, which is no reason not to act.
type look func(ctx context.Context, k Kamailio, a Args) (State, error)

var (
	errNoTarget   = errors.New("not there")
	errUnreadable = errors.New("cannot be read safely here")
)

// isFault tells whether Kamailio answered with a fault that says this.
func isFault(err error, says string) bool {
	var fault *kamrpc.Fault
	return errors.As(err, &fault) && strings.Contains(strings.ToLower(fault.Message), strings.ToLower(says))
}

// number reads an integer, also from a string of digits.
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
	told      bool   // told, and not judged
}

// lookCounts reads each method once, row by row: a list may be long. Counts of one
// method have the same rows, but for those that only and groups pass over. A count
// that this server cannot tell is left out.
func lookCounts(counts []count) look {
	return func(ctx context.Context, k Kamailio, _ Args) (State, error) {
		state := State{}
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

// judgeCounts: nothing that was there is gone altogether, and not too much of it.
func judgeCounts(counts []count) func(Args, State, State, Guards) string {
	return func(_ Args, before, after State, g Guards) string {
		for _, c := range counts {
			was, had := before[c.field].(int64)
			is, has := after[c.field].(int64)
			switch {
			case c.told || !had || !has:
			case c.keepAll && is < was:
				return fmt.Sprintf("%s fell from %d to %d", c.field, was, is)
			case was > 0 && (is == 0 || float64(was-is) > g.MaxDrop*float64(was)):
				return fmt.Sprintf("%s fell from %d to %d", c.field, was, is)
			}
		}
		return ""
	}
}

func judgeKept(field string) func(Args, State, State, Guards) string {
	return judgeCounts([]count{{field: field}})
}

// judgeGone: a field that is 0, false or absent after it.
func judgeGone(field string) func(Args, State, State, Guards) string {
	return func(_ Args, _, after State, _ Guards) string {
		switch after[field] {
		case nil, false, int64(0):
			return ""
		}
		return field + " is still there"
	}
}

func judgeTrue(field string) func(Args, State, State, Guards) string {
	return func(_ Args, _, after State, _ Guards) string {
		if after.is(field) {
			return ""
		}
		return "not " + field
	}
}

func answerHas(word string) func(kamrpc.Value) string {
	return func(result kamrpc.Value) string {
		if strings.Contains(result.Text(), word) {
			return ""
		}
		return "its answer does not say so"
	}
}

// ----- dispatcher -----

// destinationUp: what Kamailio sends calls to. Flags are two letters: the first is
// A (active), I (inactive), D (disabled) or T (trying, which gets calls), the
// second P or X (modules/dispatcher/dispatcher.c).
func destinationUp(flags string) bool {
	return strings.HasPrefix(flags, "A") || strings.HasPrefix(flags, "T")
}

func isActive(dest kamrpc.Value) bool { return destinationUp(dest.Get("FLAGS").Text()) }

// destinationRows are the destinations of all sets.
var destinationRows = kamrpc.Rows{Path: "RECORDS/SET/TARGETS/DEST", Fields: []string{"URI", "FLAGS"}}

func lookDestination(ctx context.Context, k Kamailio, a Args) (State, error) {
	state := State{}
	active, total := int64(0), int64(0)
	set := strconv.FormatInt(a.number("set"), 10)
	err := k.Rows(ctx, destinationRows, func(above kamrpc.Above, dest kamrpc.Value) error {
		if !dest.Exists() || above.Text("ID") != set {
			return nil
		}
		total++
		if isActive(dest) {
			active++
		}
		// Of destinations with the same URI Kamailio changes the first.
		if _, found := state["flags"]; !found && strings.EqualFold(dest.Get("URI").Text(), a.text("uri")) {
			state["flags"] = dest.Get("FLAGS").Text()
		}
		return nil
	}, "dispatcher.list")
	if isFault(err, noDestinations) {
		return nil, errNoTarget
	}
	if err != nil {
		return nil, err
	}
	if _, found := state["flags"]; !found {
		return nil, errNoTarget
	}
	state["active"], state["destinations"] = active, total
	return state, nil
}

func guardDestination(a Args, before State, g Guards) error {
	flags, _ := before["flags"].(string)
	active, _ := before["active"].(int64)
	if !strings.HasPrefix(a.text("state"), "a") && destinationUp(flags) && int(active)-1 < g.MinActive {
		return fmt.Errorf("the set has %d active destinations, and %d must stay", active, g.MinActive)
	}
	return nil
}

// A destination that is probed may change by itself from active to inactive or
// trying and back.
func judgeDestination(a Args, before, after State, _ Guards) string {
	flags, _ := after["flags"].(string)
	want := strings.ToUpper(a.text("state"))
	switch {
	case flags == want:
		return ""
	case want == "AP" && len(flags) == 2 && flags[1] == 'P' && flags != before["flags"]:
		return ""
	}
	return "its flags are " + flags
}

// ----- dialogs -----

func lookDialog(ctx context.Context, k Kamailio, a Args) (State, error) {
	return dialog(ctx, k, a.text("call_id"), "")
}

func lookDialogWithTags(ctx context.Context, k Kamailio, a Args) (State, error) {
	return dialog(ctx, k, a.text("call_id"), a.text("from_tag"))
}

// dialog reads the dialog with this Call-ID; more than one are not told apart.
func dialog(ctx context.Context, k Kamailio, callID, fromTag string) (State, error) {
	params := []any{callID}
	if fromTag != "" {
		params = append(params, fromTag)
	}
	result, err := k.Call(ctx, "dlg.dlg_list", params...)
	if err != nil {
		return nil, err
	}
	state := State{}
	for d := range result.All("") {
		entry, ok := whole(d.Get("h_entry"))
		id, ok2 := whole(d.Get("h_id"))
		if !ok || !ok2 {
			continue
		}
		if len(state) > 0 {
			return nil, &guardError{"more than one dialog has this Call-ID"}
		}
		number, _ := whole(d.Get("state"))
		duration, _ := whole(d.Get("duration"))
		state = State{"h_entry": int(entry), "h_id": int(id), "state": number, "duration_seconds": duration}
	}
	if len(state) == 0 {
		return nil, errNoTarget
	}
	return state, nil
}

// dialogDeleted is DLG_STATE_DELETED of modules/dialog/dlg_hash.h.
const dialogDeleted = 5

func judgeDialogGone(_ Args, _, after State, _ Guards) string {
	if n, ok := after["state"].(int64); !ok || n == dialogDeleted {
		return ""
	}
	return "the dialog is still there"
}

// ----- location service -----

func lookAOR(ctx context.Context, k Kamailio, a Args) (State, error) {
	contacts, err := contactsOf(ctx, k, a)
	if err != nil {
		return nil, err
	}
	return State{"contacts": int64(len(contacts))}, nil
}

func lookContact(ctx context.Context, k Kamailio, a Args) (State, error) {
	contacts, err := contactsOf(ctx, k, a)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(contacts, a.text("contact")) {
		return nil, errNoTarget
	}
	return State{"contacts": int64(len(contacts)), "present": true}, nil
}

func contactsOf(ctx context.Context, k Kamailio, a Args) ([]string, error) {
	result, err := k.Call(ctx, "ul.lookup", a.text("table"), a.text("aor"))
	for _, none := range []string{"AOR not found", "AOR has no contacts", "Domain table not found", "Domain missing"} {
		if isFault(err, none) {
			return nil, errNoTarget
		}
	}
	if err != nil {
		return nil, err
	}
	var contacts []string
	for c := range result.All("Contacts/Contact/Address") {
		contacts = append(contacts, c.Text())
	}
	return contacts, nil
}

// ----- htable -----

// lookItem reads an item; one that is not there is no error, and its table must be.
func lookItem(ctx context.Context, k Kamailio, a Args) (State, error) {
	result, err := k.Call(ctx, "htable.get", a.text("table"), a.text("key"))
	switch {
	case isFault(err, "Key name doesn't exist"):
		return State{"present": false}, nil
	case isFault(err, "No such htable"):
		return nil, errNoTarget
	case err != nil:
		return nil, err
	}
	value := result.Get("item/value")
	if n, ok := whole(value); ok && value.Kind() == kamrpc.Number {
		return State{"present": true, "value": n}, nil
	}
	return State{"present": true, "value": value.Text()}, nil
}

// lookItemAs says whether the item is as asked. What it was is for nobody's eyes.
func lookItemAs(ctx context.Context, k Kamailio, a Args) (State, error) {
	state, err := lookItem(ctx, k, a)
	if err != nil {
		return nil, err
	}
	return State{"present": state.is("present"), "as_asked": sameItem(a, state)}, nil
}

// lookItemThere says of the value only that there is one: what an item holds is
// not the concern of whoever may delete it.
func lookItemThere(ctx context.Context, k Kamailio, a Args) (State, error) {
	state, err := lookItem(ctx, k, a)
	if err == nil && !state.is("present") {
		return nil, errNoTarget
	}
	delete(state, "value")
	return state, err
}

func sameItem(a Args, before State) bool { return before["value"] == a["value"] }

func judgeItem(a Args, _, after State, _ Guards) string {
	if sameItem(a, after) {
		return ""
	}
	return "another value is read back"
}

func lookTable(ctx context.Context, k Kamailio, a Args) (State, error) {
	tables, err := k.Call(ctx, "htable.listTables")
	if err != nil {
		return nil, err
	}
	found := false
	for t := range tables.All("") {
		if t.Get("name").Text() == a.text("table") {
			found = true
			if t.Get("dbtable").Text() == "" {
				return nil, &guardError{"the htable has no database table"}
			}
		}
	}
	if !found {
		return nil, errNoTarget
	}
	result, err := k.Call(ctx, "htable.stats")
	if err != nil {
		return nil, err
	}
	for t := range result.All("") {
		if t.Get("name").Text() == a.text("table") {
			if n, ok := whole(t.Get("all")); ok {
				return State{"items": n}, nil
			}
		}
	}
	return nil, errUnreadable
}

// ----- mtree -----

func lookTree(ctx context.Context, k Kamailio, a Args) (State, error) {
	result, err := k.Call(ctx, "mtree.summary")
	if err != nil {
		return nil, err
	}
	var state State
	for t := range result.All("") {
		table := t.Get("table").Text()
		if table == a.text("tree") {
			n, ok := whole(t.Get("item/nritems"))
			if !ok {
				return nil, errUnreadable
			}
			state = State{"items": n}
		} else if strings.HasPrefix(table, a.text("tree")) {
			// modules/mtree/mtree_mod.c: a name stands for all that begin with it.
			return nil, &guardError{"there is a tree whose name begins with this one's: Kamailio would reload both"}
		}
	}
	if state == nil {
		return nil, errNoTarget
	}
	return state, nil
}

// ----- secfilter -----

// lookBlocked looks for the value in the list of its kind. Kamailio 5.6 prints
// nothing over JSON.
func lookBlocked(ctx context.Context, k Kamailio, a Args) (State, error) {
	result, err := k.Call(ctx, "secfilter.print", a.text("kind"))
	if err != nil {
		return nil, err
	}
	if result.Kind() != kamrpc.Object {
		return nil, errUnreadable
	}
	blocked := false
	for kind := range result.Members() {
		for v := range kind.Value.All("Blacklisted/Value") {
			blocked = blocked || v.Text() == a.text("value")
		}
	}
	return State{"blocked": blocked}, nil
}

func judgeBlocked(_ Args, _, after State, _ Guards) string {
	if after.is("blocked") {
		return ""
	}
	return "it is not in the list"
}

// ----- registrations at other servers -----

// lookRegistration keeps the flags of a reply that also has the password.
func lookRegistration(ctx context.Context, k Kamailio, a Args) (State, error) {
	result, err := k.Call(ctx, "uac.reg_info", "l_uuid", a.text("uuid"))
	if isFault(err, "Record not found") {
		return nil, errNoTarget
	}
	if err != nil {
		return nil, err
	}
	flags, ok := whole(result.Get("flags"))
	if !ok {
		return nil, errUnreadable
	}
	// modules/uac/uac_reg.c: 1 disabled, 2 waiting for an answer, 4 registered.
	return State{"enabled": flags&1 == 0, "ongoing": flags&2 != 0, "registered": flags&4 != 0}, nil
}

// ----- media relays -----

func hasURL(relay kamrpc.Value) bool { return relay.Get("url").Exists() }

func lookRelay(ctx context.Context, k Kamailio, a Args) (State, error) {
	result, err := k.Call(ctx, "rtpengine.show", "all")
	if isFault(err, "Instance not found") {
		return nil, errNoTarget
	}
	if err != nil {
		return nil, err
	}
	enabled := map[string]int64{} // by set
	others := map[string]int64{}
	state := State{}
	for node := range result.All("") {
		set := node.Get("set").Text()
		// 5.6 calls a relay disabled that does not answer, too: 0, 1 or
		// "1(permanent)". 6 has false or true, and whether it answers beside it.
		said := node.Get("disabled").Text()
		off := said == "true" || strings.Contains(said, "permanent")
		on := !off && said != "1" && node.Get("active").Text() != "false"
		if node.Get("url").Text() == a.text("url") {
			wasOn, seen := state["enabled"].(bool)
			wasOff, _ := state["disabled"].(bool)
			state["enabled"], state["disabled"] = on && (wasOn || !seen), off && (wasOff || !seen) // of several, all
			enabled[set] += 0
		} else if on {
			others[set]++
		}
	}
	if len(state) == 0 {
		return nil, errNoTarget
	}
	// The set that would be worst off.
	least := int64(-1)
	for set := range enabled {
		if least < 0 || others[set] < least {
			least = others[set]
		}
	}
	state["others_enabled"] = least
	return state, nil
}

func guardRelay(a Args, before State, g Guards) error {
	others, _ := before["others_enabled"].(int64)
	if !a.truth("enabled") && before.is("enabled") && int(others) < g.MinActive {
		return fmt.Errorf("its set has %d other relays that are enabled, and %d must stay", others, g.MinActive)
	}
	return nil
}

func sameRelay(a Args, state State) bool {
	if a.truth("enabled") {
		return state.is("enabled")
	}
	return state.is("disabled")
}

func judgeRelay(a Args, _, after State, _ Guards) string {
	if sameRelay(a, after) {
		return ""
	}
	return "the relay is not as asked"
}

// answerStatus: a failure is HTTP 200 with a status of its own
// (modules/rtpengine/rtpengine.c).
func answerStatus(result kamrpc.Value) string {
	if s := result.Get("status").Text(); s != "enable" && s != "disable" {
		return "kamailio could not reach the relay"
	}
	return ""
}

// ----- lcr -----

func lookGateway(ctx context.Context, k Kamailio, a Args) (State, error) {
	result, err := k.Call(ctx, "lcr.dump_gws")
	if err != nil {
		return nil, err
	}
	var state State
	usable := int64(0)
	for gw := range result.All("gw") {
		if n, ok := whole(gw.Get("lcr_id")); !ok || n != a.number("lcr_id") {
			continue
		}
		until, _ := whole(gw.Get("defunct_until"))
		defunct := until > time.Now().Unix()
		if n, ok := whole(gw.Get("gw_id")); ok && n == a.number("gw_id") {
			state = State{"defunct": defunct}
		} else if !defunct {
			usable++
		}
	}
	if state == nil {
		return nil, errNoTarget
	}
	state["others_usable"] = usable
	return state, nil
}

func guardGateway(_ Args, before State, g Guards) error {
	if others, _ := before["others_usable"].(int64); int(others) < g.MinActive {
		return fmt.Errorf("there are %d other gateways that can be used, and %d must stay", others, g.MinActive)
	}
	return nil
}

// ----- core -----

func lookGroup(ctx context.Context, k Kamailio, a Args) (State, error) {
	result, err := k.Call(ctx, "stats.get_statistics", a.text("group")+":")
	if err != nil {
		return nil, err
	}
	n, sum := int64(0), int64(0)
	for line := range result.All("") {
		_, value, ok := strings.Cut(line.Text(), " = ")
		if v, err := strconv.ParseInt(value, 10, 64); ok && err == nil {
			n++
			sum += v
		}
	}
	if n == 0 {
		return nil, errNoTarget
	}
	return State{"statistics": n, "sum": sum}, nil
}

func judgeReset(_ Args, before, after State, _ Guards) string {
	was, _ := before["sum"].(int64)
	is, _ := after["sum"].(int64)
	if was <= 0 || is < was {
		return ""
	}
	return "the counters did not fall"
}

func lookVariable(ctx context.Context, k Kamailio, a Args) (State, error) {
	group, variable, _ := strings.Cut(a.text("variable"), ".")
	result, err := k.Call(ctx, "cfg.get", group, variable)
	if fault := (*kamrpc.Fault)(nil); errors.As(err, &fault) {
		return nil, errNoTarget // the module is not loaded
	}
	if err != nil {
		return nil, err
	}
	n, ok := whole(result)
	if !ok {
		return nil, errUnreadable
	}
	return State{"value": n}, nil
}

func judgeVariable(a Args, _, after State, _ Guards) string {
	if after["value"] == a.number("value") {
		return ""
	}
	return "another value is read back"
}
