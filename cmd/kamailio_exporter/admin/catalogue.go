package admin

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
)

// Action is one row of the catalogue: all that this program knows of a change of
// Kamailio. A new action is a new row, and its method's row in kamrpc/prices.go.
type Action struct {
	Name    string
	Summary string
	Method  string // of Kamailio; one of the price list
	Params  []Param
	// Send makes the parameters of the method; nil: Params in their order.
	Send func(a Args, before State) []any
	// NeedsKey: doing it twice is not the same as once, so a request must carry an
	// Idempotency-Key.
	NeedsKey bool
	// Pause is the shortest time between two; the policy may make it longer. A
	// reload must have one: longer than the module's reload_delta.
	Pause time.Duration
	// Deadline of the RPC; 0 is defaultDeadline.
	Deadline time.Duration
	// Look reads what the action is about, before it and after it. nil: nothing can
	// be read, so that the outcome is never verified.
	Look look
	// Verifies says what that is, for people.
	Verifies string
	// LookTime is how long the read before may take; 0 is defaultLookTime.
	LookTime time.Duration
	// Guard refuses by what was read before.
	Guard func(a Args, before State, g Guards) error
	// Same tells that all is as asked already: nothing is sent. May be nil.
	Same func(a Args, before State) bool
	// Judge tells whether what was read after is what was asked for: "" if it is.
	// With Look, it is never nil.
	Judge func(a Args, before, after State, g Guards) string
	// Answer judges Kamailio's own answer where HTTP 200 is not success: "" if it is.
	Answer func(result kamrpc.Value) string
	// Waits: what it does shows only some seconds later, so the read after is tried
	// again until it is as asked.
	Waits time.Duration
	// Local: it changes this program, and nothing of Kamailio.
	Local bool
}

const (
	defaultDeadline = 10 * time.Second
	defaultLookTime = 2 * time.Second
	afterTime       = 5 * time.Second
	reloadPause     = 10 * time.Second
)

// Guards are the limits of what may be done to a running service.
type Guards struct {
	MinActive int     // destinations of a set that stay active
	MaxDrop   float64 // share of what is there that a reload may lose
	MinUptime time.Duration
}

// Patterns of parameters. What they let through cannot end a JSON string, a SIP
// header or a log line, and is no wildcard of Kamailio.
const (
	namePattern  = `[A-Za-z0-9_.-]+`
	sipPattern   = `sips?:[A-Za-z0-9_.!~*'()&=+$,;/:@%\[\]-]+` // no ?: it begins headers
	wordPattern  = `[A-Za-z0-9_.!%*+'~@:<>()\[\]{}"\\/?-]+`    // RFC 3261: word
	aorPattern   = `[A-Za-z0-9_.!~*'()&=+$,;?/%-]+(@[A-Za-z0-9_.:\[\]-]+)?`
	valuePattern = `[ -~]+`
)

func name(n, help string) Param {
	return Param{Name: n, Type: String, MaxLen: 64, Pattern: namePattern, Help: help}
}

func sipURI(n, help string) Param {
	return Param{Name: n, Type: String, MaxLen: 256, Pattern: sipPattern, Help: help}
}

var (
	setParam   = Param{Name: "set", Type: Int, Min: -1 << 31, Max: 1<<31 - 1, Help: "number of the dispatcher set"}
	tableParam = name("table", "name of the htable")
	keyParam   = Param{Name: "key", Type: String, MaxLen: 128, Pattern: valuePattern, Help: "key of the item"}
	usrParam   = name("table", "table of the location service, such as location")
	aorParam   = Param{Name: "aor", Type: String, MaxLen: 128, Pattern: aorPattern, Help: "address of record: user@domain, or user where use_domain is off"}
	uuidParam  = Param{Name: "uuid", Type: String, MaxLen: 64, Pattern: `[A-Za-z0-9_.@:-]+`, Help: "l_uuid of the registration"}
	kindParam  = Param{Name: "kind", Type: Enum, Enum: []string{"ua", "country", "domain", "ip", "user"}, Help: "what is blocked"}
	callID     = Param{Name: "call_id", Type: String, MaxLen: 128, Pattern: wordPattern, Help: "Call-ID of the dialog"}
)

func tag(n string) Param {
	return Param{Name: n, Type: String, MaxLen: 128, Pattern: wordPattern, Help: strings.ReplaceAll(n, "_", " ") + " of the dialog"}
}

// catalogue makes the table of all actions.
func catalogue() []Action {
	return []Action{
		// Reloads: the database or file is read anew.
		reload("dispatcher.reload", "dispatcher.reload", "dispatcher sets",
			count{field: "sets", method: "dispatcher.list", rows: destinationRows, groups: "ID", none: noDestinations, keepAll: true},
			count{field: "destinations", method: "dispatcher.list", rows: destinationRows, none: noDestinations},
			count{field: "active", method: "dispatcher.list", rows: destinationRows, none: noDestinations, only: isActive, told: true}),
		reload("drouting.reload", "drouting.reload", "routes and gateways"),
		reload("domain.reload", "domain.reload", "domains", count{field: "domains", method: "domain.dump", rows: kamrpc.Rows{Path: "domains"}}),
		reload("permissions.reload-address", "permissions.addressReload", "addresses",
			count{field: "addresses", method: "permissions.addressDump", rows: kamrpc.Rows{Path: "item"}},
			count{field: "subnets", method: "permissions.subnetDump", rows: kamrpc.Rows{Path: "item"}}),
		reload("permissions.reload-trusted", "permissions.trustedReload", "trusted peers",
			count{field: "trusted", method: "permissions.trustedDump", rows: kamrpc.Rows{Path: "item"}}),
		reload("pdt.reload", "pdt.reload", "prefixes"),
		reload("secfilter.reload", "secfilter.reload", "lists of secfilter"),
		reload("lcr.reload", "lcr.reload", "gateways and rules", count{field: "gateways", method: "lcr.dump_gws", rows: kamrpc.Rows{Path: "gw"}}),
		reload("dialplan.reload", "dialplan.reload", "dialplan rules"),
		reload("tls.reload", "tls.reload", "TLS profiles from the TLS configuration file"),
		reload("uac.reload", "uac.reg_reload", "registrations at other servers",
			count{field: "registrations", method: "stats.get_statistics", params: []any{"uac:"}, statistic: "uac:regtotal"}),
		reload("rtpengine.reload", "rtpengine.reload", "media relays", count{field: "relays", method: "rtpengine.show", params: []any{"all"}, rows: kamrpc.Rows{Fields: []string{"url"}}, only: hasURL}),
		mtreeReload(), htableReload(),

		// Dispatcher.
		{
			Name: "dispatcher.set-state", Method: "dispatcher.set_state",
			Summary: "Sets the state of one destination, for example to take a gateway out of service.",
			Params: []Param{
				setParam, sipURI("uri", "URI of the destination, as dispatcher.list shows it"),
				{Name: "state", Type: Enum, Enum: []string{"ip", "ix", "ap", "ax", "dx"}, Help: "ip: inactive and probed, ix: inactive, ap: active and probed, ax: active, dx: disabled"},
			},
			Send: func(a Args, _ State) []any { return []any{a.text("state"), int(a.number("set")), a.text("uri")} },
			Look: lookDestination, Verifies: "its flags (`dispatcher.list`)", Guard: guardDestination, Waits: afterTime,
			Same: func(a Args, before State) bool {
				return before["flags"] == strings.ToUpper(a.text("state"))
			},
			Judge: judgeDestination,
		},

		// Dialogs.
		{
			Name: "dialog.end", Method: "dlg.end_dlg", NeedsKey: true,
			Summary: "Ends a call: Kamailio sends a BYE to both sides.",
			Params:  []Param{callID},
			Send:    func(_ Args, before State) []any { return []any{before["h_entry"], before["h_id"]} },
			Look:    lookDialog, Verifies: "`dlg.dlg_list`", Judge: judgeDialogGone, Waits: afterTime,
		},
		{
			Name: "dialog.terminate", Method: "dlg.terminate_dlg", NeedsKey: true,
			Summary: "Ends a call that is named by its Call-ID and both tags.",
			Params:  []Param{callID, tag("from_tag"), tag("to_tag")},
			Look:    lookDialogWithTags, Verifies: "`dlg.dlg_list`", Judge: judgeDialogGone, Waits: afterTime,
		},
		{
			Name: "dialog.bridge", Method: "dlg.bridge_dlg", NeedsKey: true,
			Summary: "Calls one party and connects it to another (REFER).",
			Params:  []Param{sipURI("from", "whom to call first"), sipURI("to", "whom to connect")},
		},

		// Registrations of users.
		{
			Name: "usrloc.remove", Method: "ul.rm", NeedsKey: true,
			Summary: "Removes all contacts of a user, until its next REGISTER.",
			Params:  []Param{usrParam, aorParam}, Look: lookAOR, Verifies: "`ul.lookup`", Judge: judgeGone("contacts"),
		},
		{
			Name: "usrloc.remove-contact", Method: "ul.rm_contact", NeedsKey: true,
			Summary: "Removes one contact of a user, until its next REGISTER.",
			Params:  []Param{usrParam, aorParam, sipURI("contact", "address of the contact, as ul.lookup shows it")},
			Look:    lookContact, Verifies: "`ul.lookup`", Judge: judgeGone("present"),
		},

		// htable.
		{
			Name: "htable.delete", Method: "htable.delete",
			Summary: "Deletes an item, for example to lift a ban.",
			Params:  []Param{tableParam, keyParam}, Look: lookItemThere, Verifies: "`htable.get`", Judge: judgeGone("present"),
		},
		{
			Name: "htable.set-string", Method: "htable.sets",
			Summary: "Sets an item to a text.",
			Params:  []Param{tableParam, keyParam, {Name: "value", Type: String, MaxLen: 128, Pattern: valuePattern, Secret: true, Help: "the text"}},
			Look:    lookItemAs, Verifies: "`htable.get`", Judge: judgeTrue("as_asked"), Same: func(_ Args, before State) bool { return before.is("as_asked") },
		},
		{
			Name: "htable.set-int", Method: "htable.seti",
			Summary: "Sets an item to a number.",
			Params:  []Param{tableParam, keyParam, {Name: "value", Type: Int, Min: -1 << 31, Max: 1<<31 - 1, Help: "the number"}},
			Look:    lookItem, Verifies: "`htable.get`", Judge: judgeItem, Same: sameItem,
		},

		// secfilter.
		{
			Name: "secfilter.block", Method: "secfilter.add_bl",
			Summary: "Blocks a user agent, country, domain, address or user, until the next reload of secfilter.",
			Params:  []Param{kindParam, {Name: "value", Type: String, MaxLen: 64, Pattern: valuePattern, Help: "what to block; it matches everything that begins with it"}},
			Look:    lookBlocked, Verifies: "`secfilter.print`, from 6.0 on", Judge: judgeBlocked, Same: func(_ Args, before State) bool { return before.is("blocked") },
			Answer: answerHas("inserted"),
		},
		{
			Name: "secfilter.unblock", Method: "secfilter.del_bl",
			Summary: "Takes back secfilter.block. From Kamailio 6.1 on.",
			Params:  []Param{kindParam, {Name: "value", Type: String, MaxLen: 64, Pattern: valuePattern, Help: "what to unblock"}},
			Look:    lookBlocked, Verifies: "`secfilter.print`, from 6.0 on", Judge: judgeGone("blocked"), Answer: answerHas("removed"),
		},

		// Registrations of Kamailio's own at other servers.
		{
			Name: "uac.enable", Method: "uac.reg_enable", Summary: "Switches a registration at another server on.",
			Params: []Param{uuidParam}, Send: byUUID, Look: lookRegistration, Verifies: "`uac.reg_info`",
			Judge: judgeTrue("enabled"), Same: func(_ Args, before State) bool { return before.is("enabled") },
		},
		{
			Name: "uac.disable", Method: "uac.reg_disable", Summary: "Switches a registration at another server off.",
			Params: []Param{uuidParam}, Send: byUUID, Look: lookRegistration, Verifies: "`uac.reg_info`",
			Judge: judgeGone("enabled"), Same: func(_ Args, before State) bool { return !before.is("enabled") },
		},
		{
			Name: "uac.refresh", Method: "uac.reg_refresh", Summary: "Reads a registration at another server anew from the database.",
			Params: []Param{uuidParam}, Look: lookRegistration, Verifies: "`uac.reg_info`", Pause: reloadPause,
			Judge: func(Args, State, State, Guards) string { return "" }, // it is still there
		},

		// Media relays and gateways.
		{
			Name: "rtpengine.set-enabled", Method: "rtpengine.enable",
			Summary: "Switches a media relay on or off.",
			Params: []Param{
				{Name: "url", Type: String, MaxLen: 128, Pattern: `(udp6?|tcp6?|unix|ws|wss):[A-Za-z0-9_.:/\[\]-]+`, Help: "URL of the relay, as rtpengine.show has it"},
				{Name: "enabled", Type: Bool, Help: "true or false"},
			},
			Send: func(a Args, _ State) []any { return []any{a.text("url"), oneIf(a.truth("enabled"))} },
			Look: lookRelay, Verifies: "`rtpengine.show`, and the status of the answer", Guard: guardRelay, Judge: judgeRelay, Answer: answerStatus,
			Same: sameRelay,
		},
		{
			Name: "lcr.defunct", Method: "lcr.defunct_gw",
			Summary: "Takes a gateway of lcr out of use for some time.",
			Params: []Param{
				{Name: "lcr_id", Type: Int, Min: 1, Max: 1 << 20, Help: "number of the LCR instance"},
				{Name: "gw_id", Type: Int, Min: 1, Max: 1<<31 - 1, Help: "number of the gateway"},
				{Name: "seconds", Type: Int, Min: 1, Max: 7 * 86400, Help: "for how long"},
			},
			Look: lookGateway, Verifies: "`lcr.dump_gws`", Guard: guardGateway, Judge: judgeTrue("defunct"),
		},

		// Presence.
		{
			Name: "presence.cleanup", Method: "presence.cleanup", Summary: "Removes expired presentities and watchers now.",
			Pause: reloadPause, Deadline: 30 * time.Second,
		},
		{
			Name: "presence.refresh-watchers", Method: "presence.refreshWatchers",
			Summary: "Notifies all watchers of a presentity.",
			Params: []Param{
				sipURI("uri", "URI of the presentity"),
				{Name: "event", Type: Enum, Enum: []string{"presence", "dialog", "message-summary", "presence.winfo", "dialog;sla", "xcap-diff"}, Help: "event package"},
				{Name: "type", Type: Enum, Enum: []string{"published", "rules"}, Help: "what changed: the published state, or the rules of who may see it"},
			},
			// modules/presence: 0 reads the rules anew, 1 sends what was published.
			Send: func(a Args, _ State) []any {
				return []any{a.text("uri"), a.text("event"), oneIf(a.text("type") == "published")}
			},
		},

		// Core.
		{
			Name: "stats.reset", Method: "stats.reset_statistics", NeedsKey: true,
			Summary: "Sets the counters of one group to 0. Rates of Prometheus take it for a restart.",
			Params:  []Param{{Name: "group", Type: String, MaxLen: 64, Pattern: `[A-Za-z0-9_-]+`, Help: "group, such as core"}},
			Send:    func(a Args, _ State) []any { return []any{a.text("group") + ":"} },
			Look:    lookGroup, Verifies: "`stats.get_statistics`", Judge: judgeReset,
		},
		{
			Name: "cfg.set", Method: "cfg.set_now_int",
			Summary: "Sets a variable of Kamailio's configuration to a number.",
			Params: []Param{
				// One row for each that may be set; the policy names which of them.
				{Name: "variable", Type: Enum, Enum: cfgVariables, Help: "group.name of the variable"},
				{Name: "value", Type: Int, Min: -3, Max: 1 << 20, Help: "the number"},
			},
			Send: func(a Args, _ State) []any {
				group, variable, _ := strings.Cut(a.text("variable"), ".")
				return []any{group, variable, int(a.number("value"))}
			},
			Look: lookVariable, Verifies: "`cfg.get`", Judge: judgeVariable,
			Same: func(a Args, before State) bool { return before["value"] == a.number("value") },
		},

		// This program.
		{
			Name: ResetAction, Local: true,
			Summary: "Lets a rule for alerts act again whose breaker is open (REPAIR.md).",
			Params:  []Param{{Name: "rule", Type: String, MaxLen: 64, Pattern: namePattern, Help: "name of the rule, or all"}},
		},
	}
}

// cfgVariables are those that cfg.set may set. None of them opens a port, turns a
// check off or changes where SIP goes.
var cfgVariables = []string{
	"core.debug", "core.corelog", "core.latency_log", "core.latency_cfg_log",
	"core.latency_limit_action", "core.latency_limit_cfg", "core.latency_limit_db",
	"dispatcher.probing_threshold", "dispatcher.inactive_threshold",
	"registrar.default_expires", "registrar.min_expires", "registrar.max_expires", "registrar.max_contacts",
}

func oneIf(b bool) int {
	if b {
		return 1
	}
	return 0
}

func byUUID(a Args, _ State) []any { return []any{"l_uuid", a.text("uuid")} }

// reload is a row for a method without parameters. Without counts nothing of the
// module can be read safely, and the outcome is not verified.
func reload(n, method, what string, counts ...count) Action {
	a := Action{
		Name: n, Method: method, Summary: "Loads the " + what + " anew.",
		Pause: reloadPause, Deadline: 60 * time.Second, LookTime: 20 * time.Second,
	}
	if len(counts) > 0 {
		a.Look, a.Judge = lookCounts(counts), judgeCounts(counts)
		var fields, methods []string
		for _, c := range counts {
			fields = append(fields, c.field)
			if m := "`" + c.method + "`"; !slices.Contains(methods, m) {
				methods = append(methods, m)
			}
		}
		a.Verifies = "number of " + strings.Join(fields, ", ") + " (" + strings.Join(methods, ", ") + ")"
	}
	return a
}

func mtreeReload() Action {
	a := reload("mtree.reload", "mtree.reload", "entries of one tree")
	a.Params = []Param{name("tree", "name of the tree")}
	a.Look, a.Judge, a.Verifies = lookTree, judgeKept("items"), "number of items (`mtree.summary`)"
	return a
}

func htableReload() Action {
	a := reload("htable.reload", "htable.reload", "items of one htable from its database table")
	a.Params = []Param{tableParam}
	a.Look, a.Judge, a.Verifies = lookTable, judgeKept("items"), "number of items (`htable.stats`)"
	return a
}

// newCatalogue is the actions by name, with their patterns compiled. It panics when a
// row is not right: a test looks at them all.
func newCatalogue() catalogueMap {
	actions := catalogueMap{}
	for _, a := range catalogue() {
		price, ok := kamrpc.PriceOf(a.Method)
		if a.Local {
			ok, price.Effect = a.Method == "", kamrpc.Action
		}
		if !ok || price.Effect == kamrpc.Read || (a.Look != nil) != (a.Judge != nil) || actions[a.Name] != nil {
			panic(fmt.Sprintf("catalogue: %s", a.Name))
		}
		if price.Effect == kamrpc.Reload && a.Pause == 0 {
			panic(fmt.Sprintf("catalogue: %s: a reload without a pause", a.Name))
		}
		if a.Deadline == 0 {
			a.Deadline = defaultDeadline
		}
		if a.LookTime == 0 {
			a.LookTime = defaultLookTime
		}
		a.Params = slices.Clone(a.Params)
		for i := range a.Params {
			if p := &a.Params[i]; p.Type == String {
				anchored, err := anchor(p.Pattern)
				if err != nil {
					panic(fmt.Sprintf("catalogue: %s: %v", a.Name, err))
				}
				p.anchored = anchored
			}
		}
		if a.Send == nil {
			a.Send = inOrder(a.Params)
		}
		actions[a.Name] = &a
	}
	return actions
}

func inOrder(params []Param) func(Args, State) []any {
	return func(args Args, _ State) []any {
		sent := make([]any, len(params))
		for i, p := range params {
			sent[i] = args[p.Name]
			if n, ok := sent[i].(int64); ok {
				sent[i] = int(n)
			}
		}
		return sent
	}
}

// Names of all actions, sorted.
func (c catalogueMap) names() []string { return slices.Sorted(maps.Keys(c)) }

type catalogueMap map[string]*Action
