package action

import (
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/audit"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
)

// Patterns of parameters. A value that matches cannot end a JSON string, a SIP header
// or a log line, and is not a Kamailio wildcard.
const (
	namePattern  = `[A-Za-z0-9_.-]+`
	sipPattern   = `sips?:[A-Za-z0-9_.!~*'()&=+$,;/:@%\[\]-]+` // no ?: it begins headers
	wordPattern  = `[A-Za-z0-9_.!%*+'~@:<>()\[\]{}"\\/?-]+`    // RFC 3261: word
	aorPattern   = `[A-Za-z0-9_.!~*'()&=+$,;?/%-]+(@[A-Za-z0-9_.:\[\]-]+)?`
	valuePattern = `[ -~]+`
)

func sipURI(n, help string) Param { return text(n, 256, sipPattern, help) }

func tag(n string) Param {
	return text(n, 128, wordPattern, strings.ReplaceAll(n, "_", " ")+" of the dialog")
}

var (
	setParam   = integer("set", -1<<31, 1<<31-1, "number of the dispatcher set")
	tableParam = Named("table", "name of the htable")
	keyParam   = text("key", 128, valuePattern, "key of the item")
	usrParam   = Named("table", "table of the location service, such as location")
	aorParam   = text("aor", 128, aorPattern, "address of record: user@domain, or user where use_domain is off").anyCase()
	uuidParam  = text("uuid", 64, `[A-Za-z0-9_.@:-]+`, "l_uuid of the registration")
	kindParam  = enum("kind", "what is blocked", "ua", "country", "domain", "ip", "user")
	callID     = text("call_id", 128, wordPattern, "Call-ID of the dialog").found(oldestCall)
)

// rows returns the table of all actions of Kamailio.
func rows() []Action {
	return []Action{
		// Reloads: Kamailio reads the database or file again.
		reload("dispatcher.reload", "dispatcher.reload", "dispatcher sets",
			count{field: "sets", method: "dispatcher.list", rows: destinationRows, groups: "ID", none: noDestinations, keepAll: true},
			count{field: "destinations", method: "dispatcher.list", rows: destinationRows, none: noDestinations},
			count{field: "active", method: "dispatcher.list", rows: destinationRows, none: noDestinations, only: isActive, states: true}),
		droutingReload(),
		reload("domain.reload", "domain.reload", "domains", count{field: "domains", method: "domain.dump", rows: kamrpc.Rows{Path: "domains"}}),
		reload("permissions.reload-address", "permissions.addressReload", "addresses",
			count{field: "addresses", method: "permissions.addressDump", rows: kamrpc.Rows{Path: "item"}},
			count{field: "subnets", method: "permissions.subnetDump", rows: kamrpc.Rows{Path: "item"}},
			count{field: "domain_names", method: "permissions.domainDump", rows: kamrpc.Rows{Path: "item"}, none: "No domain list table"}),
		reload("permissions.reload-trusted", "permissions.trustedReload", "trusted peers",
			count{field: "trusted", method: "permissions.trustedDump", rows: kamrpc.Rows{Path: "item"}}),
		reload("pdt.reload", "pdt.reload", "prefixes"),
		listsReload(),
		reload("lcr.reload", "lcr.reload", "gateways and rules",
			count{field: "gateways", method: "lcr.dump_gws", rows: kamrpc.Rows{Path: "gw"}},
			count{field: "rules", method: "lcr.dump_rules", rows: kamrpc.Rows{Path: "rule"}}),
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
				setParam, sipURI("uri", "URI of the destination, as dispatcher.list shows it").anyCase(),
				enum("state", "dx: out of service until it is enabled again; ip: inactive until it answers a ping; ix: inactive, and not pinged unless all are; ap: active and pinged; ax: active", "ip", "ix", "ap", "ax", "dx").sets(),
			},
			Send: func(a Args, _ audit.State) []any { return []any{a.text("state"), int(a.number("set")), a.text("uri")} },
			Look: lookDestination, Waits: afterTime,
			Guard: guardDestination, Latency: latencyOfDestination,
			TakesOut: takesOutDestination, Rest: restOfSet, Back: destinationBack, Claims: claimsDestination, Unproven: unprovenDestinations,
			Same: sameDestination, Judge: judgeDestination,
			Verified: "`dispatcher.list` has these flags, and no other active destination of the set has this URI when it is taken out. Pings may change all but dx again",
			Undo: &Undo{Action: "dispatcher.set-state", Fields: []string{"flags"}, Args: func(params map[string]any, before audit.State) map[string]any {
				flags, _ := before["flags"].(string)
				back := maps.Clone(params)
				back["state"] = stateOf(flags)
				return back
			}},
		},

		// Dialogs.
		{
			Name: "dialog.end", Method: "dlg.end_dlg", NeedsKey: true,
			Summary: "Ends a call: Kamailio sends a BYE to both sides.",
			Params:  []Param{callID},
			Send:    func(_ Args, before audit.State) []any { return []any{before["h_entry"], before["h_id"]} },
			Look:    lookDialog, Verified: callEnded, Same: dialogOver, Guard: guardDialog, Judge: judgeDialogGone, Waits: afterTime,
		},
		{
			Name: "dialog.terminate", Method: "dlg.terminate_dlg", NeedsKey: true,
			Summary: "Ends a call that is named by its Call-ID and both tags.",
			Params:  []Param{callID, tag("from_tag"), tag("to_tag")},
			Look:    lookDialogWithTags, Verified: callEnded, Same: dialogOver, Guard: guardDialog, Judge: judgeDialogGone, Waits: afterTime,
		},
		{
			Name: "dialog.bridge", Method: "dlg.bridge_dlg", NeedsKey: true,
			Summary:  "Calls one party, then connects it to another (REFER).",
			Params:   []Param{sipURI("from", "party to call first"), sipURI("to", "whom to connect")},
			Verified: "Kamailio answers before it calls anyone, and gives no name to the call that it makes",
		},

		// Registrations of users.
		{
			Name: "usrloc.remove", Method: "ul.rm", NeedsKey: true,
			Summary: "Removes all contacts of a user, until its next REGISTER.",
			Params:  []Param{usrParam, aorParam}, Look: lookAOR, Verified: "`ul.lookup` has no contact of the user", Judge: judgeGone("contacts"),
		},
		{
			Name: "usrloc.remove-contact", Method: "ul.rm_contact", NeedsKey: true,
			Summary: "Removes one contact of a user, until its next REGISTER.",
			Params:  []Param{usrParam, aorParam, sipURI("contact", "address of the contact, as ul.lookup shows it")},
			Look:    lookContact, Verified: "`ul.lookup` does not have the contact", Judge: judgeGone("present"),
		},

		// htable.
		{
			Name: "htable.delete", Method: "htable.delete",
			Summary: "Deletes an item, for example to lift a ban.",
			Params:  []Param{tableParam, keyParam}, Look: lookItemThere, Verified: "`htable.get` finds no such item", Judge: judgeGone("present"),
		},
		{
			Name: "htable.set-string", Method: "htable.sets",
			Summary: "Sets an item to a text.",
			Params:  []Param{tableParam, keyParam, text("value", 128, valuePattern, "the text").sets().secret()},
			Look:    lookItemAs, Verified: "`htable.get` has the text", Judge: judgeTrue("as_asked"), Same: func(_ Args, before audit.State) bool { return before.Is("as_asked") },
		},
		{
			Name: "htable.set-int", Method: "htable.seti",
			Summary: "Sets an item to a number.",
			Params:  []Param{tableParam, keyParam, integer("value", -1<<31, 1<<31-1, "the number").sets()},
			Look:    lookItemNumber, Verified: "`htable.get` has the number", Judge: judgeItem, Same: sameItem,
		},

		// secfilter.
		{
			Name: "secfilter.block", Method: "secfilter.add_bl",
			Summary: "Blocks a user agent, country, domain, address or user, until the next reload of secfilter.",
			Params:  []Param{kindParam, blockedParam("what to block; it matches everything that begins with it: 192.0.2.1 also 192.0.2.10").by("kind", blockedForms(true))},
			Look:    lookBlocked, Verified: "`secfilter.print` has the value in the blacklist, which no entry of the whitelist overrides. Before 6.0 it prints nothing over JSON", Same: sameBlocked, Guard: guardBlocked, Judge: judgeTrue("blocked"),
			Answer: answerHas("inserted"),
		},
		{
			Name: "secfilter.unblock", Method: "secfilter.del_bl",
			Summary: "Undoes secfilter.block (Kamailio 6.1 and later).",
			Params:  []Param{kindParam, blockedParam("what to unblock").by("kind", blockedForms(false))},
			Look:    lookBlocked, Verified: "`secfilter.print` does not have the value in the blacklist", Judge: judgeGone("blocked"), Answer: answerHas("removed"),
			Same: func(_ Args, before audit.State) bool { return !before.Is("blocked") },
		},

		// Kamailio's own registrations at other servers (uac).
		{
			Name: "uac.enable", Method: "uac.reg_enable", Summary: "Enables a registration at another server.",
			Params: []Param{uuidParam}, Send: byUUID, Look: lookRegistration, Verified: "`uac.reg_info` has it as enabled; it registers when the timer of uac comes to it",
			Judge: judgeTrue("enabled"), Same: func(_ Args, before audit.State) bool { return before.Is("enabled") },
			Undo: undoByOpposite("uac.disable"),
		},
		{
			Name: "uac.disable", Method: "uac.reg_disable", Summary: "Disables a registration at another server.",
			Params: []Param{uuidParam}, Send: byUUID, Look: lookRegistration, Verified: "`uac.reg_info` has it as disabled; the other server keeps the registration until it expires",
			Judge: judgeGone("enabled"), Same: func(_ Args, before audit.State) bool { return !before.Is("enabled") },
			Undo: undoByOpposite("uac.enable"),
		},
		{
			Name: "uac.refresh", Method: "uac.reg_refresh", Summary: "Reloads one registration at another server from the database.",
			Params: []Param{uuidParam}, Look: lookRegistration, Verified: "`uac.reg_info` has it as registered, which it is only after it has registered again", Pause: ReloadPause,
			Judge: judgeRegistered, Waits: 8 * time.Second,
		},

		// Media relays and gateways.
		{
			Name: "rtpengine.set-enabled", Method: "rtpengine.enable",
			Summary: "Enables or disables a media relay.",
			Params: []Param{
				text("url", 128, `(udp6?|tcp6?|unix|ws|wss):[A-Za-z0-9_.:/\[\]-]+`, "URL of the relay, as rtpengine.show has it"),
				boolean("enabled", "true or false").sets(),
			},
			Send: func(a Args, _ audit.State) []any { return []any{a.text("url"), oneIf(a.truth("enabled"))} },
			Look: lookRelay, Verified: "the answer has no failure, and `rtpengine.show` has the relay as asked in every set", Judge: judgeRelay, Answer: answerStatus,
			Same: sameRelay, TakesOut: takesOutRelay, Rest: restOfRelays,
			Back: func(a Args, _ audit.State) Args { return Args{"url": a["url"], "enabled": true} },
			Undo: &Undo{Action: "rtpengine.set-enabled", Fields: []string{"enabled", "disabled"}, Args: func(params map[string]any, _ audit.State) map[string]any {
				back := maps.Clone(params)
				on, _ := params["enabled"].(bool)
				back["enabled"] = !on
				return back
			}},
		},
		{
			Name: "lcr.defunct", Method: "lcr.defunct_gw",
			Summary: "Disables an lcr gateway for some time.",
			Params: []Param{
				integer("lcr_id", 1, 1<<20, "number of the LCR instance"),
				integer("gw_id", 1, 1<<31-1, "number of the gateway"),
				integer("seconds", 1, 7*86400, "for how long").sets(),
			},
			Look: lookGateway, Verified: "`lcr.dump_gws` has the gateway as defunct, until about then", Judge: judgeGateway,
			TakesOut: takesOutGateway, Rest: restOfGateways,
			Back: func(a Args, _ audit.State) Args {
				return Args{"lcr_id": a["lcr_id"], "gw_id": a["gw_id"], "seconds": int64(0)}
			},
		},

		// Presence.
		{
			Name: "presence.cleanup", Method: "presence.cleanup", Summary: "Removes expired presentities and watchers now.",
			Pause: ReloadPause, Deadline: 30 * time.Second, Verified: "Kamailio does not count what has expired",
		},
		{
			Name: "presence.refresh-watchers", Method: "presence.refreshWatchers",
			Summary: "Notifies all watchers of a presentity.",
			Params: []Param{
				sipURI("uri", "URI of the presentity"),
				enum("event", "event package", "presence", "dialog", "message-summary", "presence.winfo", "dialog;sla", "xcap-diff"),
				enum("type", "what changed: the published state, or the rules of who may see it", "published", "rules"),
			},
			Verified: "whether a NOTIFY arrives is known to its watcher alone",
			// modules/presence: 0 reloads the rules, 1 sends what was published.
			Send: func(a Args, _ audit.State) []any {
				return []any{a.text("uri"), a.text("event"), oneIf(a.text("type") == "published")}
			},
		},

		// Core.
		{
			Name: "stats.reset", Method: "stats.reset_statistics", NeedsKey: true, ResetsStatistics: true,
			Summary: "Sets the counters of one group to 0. Prometheus rates treat that as a restart.",
			Params:  []Param{text("group", 64, `[A-Za-z0-9_-]+`, "group, such as core")},
			Send:    func(a Args, _ audit.State) []any { return []any{a.text("group") + ":"} },
			Look:    lookGroup, Verified: "in `stats.get_statistics` a statistic of the group is 0 or less than half; those that cannot be reset (gauges, and what is computed when it is read) are no failure", Judge: judgeReset,
		},
		{
			Name: "cfg.set", Method: "cfg.set_now_int",
			Summary: "Sets a variable of Kamailio's configuration to a number.",
			Params: []Param{
				// The policy decides which of these variables a user may set.
				enum("variable", "group.name of the variable", names(cfgVariables)...),
				numberFor("variable", cfgVariables).sets(),
			},
			Send: func(a Args, _ audit.State) []any {
				group, variable, _ := strings.Cut(a.text("variable"), ".")
				return []any{group, variable, int(a.number("value"))}
			},
			Look: lookVariable, Verified: "`cfg.get` has the number", Judge: judgeVariable,
			Same: func(a Args, before audit.State) bool { return before["value"] == a.number("value") },
		},
	}
}

// namedForm is the form of one parameter for one value of another.
type namedForm struct {
	name string
	Form
}

const (
	levels  = "log level: -1 errors, 0 warnings, 1 notices, 2 information, 3 debug"
	day     = 86400
	seconds = "seconds"
)

// cfgVariables are the variables that cfg.set may set, with our bounds: Kamailio has
// none (cfg_def_t in core/cfg_core.c, modules/dispatcher/config.c, registrar/config.c).
// None of them opens a port, disables a check or changes where SIP goes.
var cfgVariables = []namedForm{
	{"core.debug", Form{Min: -1, Max: 3, Unit: levels}},
	{"core.corelog", Form{Min: -1, Max: 3, Unit: levels}},
	{"core.latency_log", Form{Min: -1, Max: 3, Unit: levels}},
	{"core.latency_cfg_log", Form{Min: -1, Max: 3, Unit: levels}},
	{"core.latency_limit_action", Form{Min: 1000, Max: 60_000_000, Unit: "microseconds", Zero: "no limit"}},
	{"core.latency_limit_cfg", Form{Min: 1000, Max: 60_000_000, Unit: "microseconds", Zero: "every message is logged"}},
	{"core.latency_limit_db", Form{Min: 1000, Max: 60_000_000, Unit: "microseconds", Zero: "no limit"}},
	{"dispatcher.probing_threshold", Form{Min: 1, Max: 100, Unit: "failed pings"}},
	{"dispatcher.inactive_threshold", Form{Min: 1, Max: 100, Unit: "answered pings"}},
	{"registrar.default_expires", Form{Min: 60, Max: 7 * day, Unit: seconds}},
	{"registrar.min_expires", Form{Min: 10, Max: day, Unit: seconds, Zero: "no minimum"}},
	{"registrar.max_expires", Form{Min: 60, Max: 7 * day, Unit: seconds, Zero: "no maximum"}},
	{"registrar.max_contacts", Form{Min: 1, Max: 1000, Unit: "contacts of a user", Zero: "no limit"}},
}

func names(forms []namedForm) []string {
	var all []string
	for _, f := range forms {
		all = append(all, f.name)
	}
	return all
}

// numberFor returns a number parameter whose bounds depend on the value of another
// parameter.
func numberFor(other string, forms []namedForm) Param {
	by, least, most := map[string]Form{}, forms[0].Min, forms[0].Max
	for _, f := range forms {
		by[f.name], least, most = f.Form, min(least, f.Min), max(most, f.Max)
	}
	return integer("value", least, most, "the number; each "+other+" has bounds of its own").by(other, by)
}

func blockedParam(help string) Param { return text("value", 64, valuePattern, help).anyCase() }

// blockedForms returns the allowed values for each kind of secfilter entry. secfilter
// matches by prefix, so a short entry blocks too much. An entry that is already in the
// list can always be removed.
func blockedForms(add bool) map[string]Form {
	matching := func(pattern, want string) Form {
		whole := regexp.MustCompile(`^(?:` + pattern + `)$`)
		return Form{Unit: want, Canonical: func(s string) (string, bool) { return s, whole.MatchString(s) || !add }}
	}
	return map[string]Form{
		"ua":      matching(`.{3,}`, "3 or more bytes"),
		"user":    matching(`.{3,}`, "3 or more bytes"),
		"country": matching(`[A-Za-z]{2}`, "a code of two letters"),
		"domain":  matching(`[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+`, "a whole domain name"),
		"ip": {Unit: "a whole address", Canonical: func(s string) (string, bool) {
			addr, err := netip.ParseAddr(s)
			if err != nil || addr.Zone() != "" {
				return s, !add
			}
			return addr.Unmap().String(), true // as Kamailio writes it (core/ip_addr.c, ipv6_hex_style)
		}},
	}
}

const callEnded = "`dlg.dlg_list` has no such dialog, or has it as deleted. While neither side answers the BYE it is unverified"

func oneIf(b bool) int {
	if b {
		return 1
	}
	return 0
}

// undoByOpposite undoes an action that only enables or disables.
func undoByOpposite(action string) *Undo {
	return &Undo{Action: action, Fields: []string{"enabled"}, Args: func(params map[string]any, _ audit.State) map[string]any { return params }}
}

func byUUID(a Args, _ audit.State) []any { return []any{"l_uuid", a.text("uuid")} }

// reload returns a row for a method without parameters. Without counts, nothing of the
// module can be read safely and the outcome is not verified.
func reload(n, method, what string, counts ...count) Action {
	a := Action{
		Name: n, Method: method, Summary: "Reloads the " + what + ".",
		Pause: ReloadPause, Deadline: 60 * time.Second, LookTime: 20 * time.Second,
	}
	if len(counts) == 0 {
		a.Verified = "no RPC shows safely what is loaded now"
	} else {
		a.Look, a.Judge = lookCounts(counts), judgeCounts(counts)
		var fields, methods, unread []string
		for _, c := range counts {
			fields = append(fields, c.field)
			if m := "`" + c.method + "`"; !slices.Contains(methods, m) {
				methods = append(methods, m)
				unread = append(unread, notRead(c.method))
			}
		}
		a.Verified = keptIs(strings.Join(fields, ", ")+" ("+strings.Join(methods, ", ")+")") + strings.Join(unread, "")
	}
	return a
}

// notRead says why a method cannot be called safely.
func notRead(method string) string {
	price, _ := kamrpc.PriceOf(method)
	for _, d := range price.Dangers {
		if d.MinParams == 0 {
			return "; " + map[bool]string{true: "never", false: "not on " + d.On()}[d.Versions == ""] + ", since `" + method + "` " + d.What
		}
	}
	return ""
}

// keptIs describes "verified" for a reload that judgeCounts judges.
func keptIs(what string) string {
	return "the number of " + what + " did not fall by more than `max_drop`, nor to 0"
}

// droutingReload judges the reply: if the tables cannot be loaded, the reply says so
// but is not a fault. No RPC of the module shows what it has loaded.
func droutingReload() Action {
	a := reload("drouting.reload", "drouting.reload", "routes and gateways")
	a.Answer = answerHas("reload ok")
	a.Verified = "the module has no RPC that shows its routes, and calls it a success when the table is empty: make a call"
	return a
}

func listsReload() Action {
	a := reload("secfilter.reload", "secfilter.reload", "lists of secfilter")
	a.Look, a.Verified = lookLists, keptIs("entries in the blacklists and in the whitelists (`secfilter.print`)")+". Before 6.0 it prints nothing over JSON"
	a.Judge = judgeCounts([]count{{field: "blocked"}, {field: "allowed"}})
	a.Answer = answerHas("reloaded") // before 5.6, an error is a reply too
	return a
}

func mtreeReload() Action {
	a := reload("mtree.reload", "mtree.reload", "entries of one tree")
	a.Params = []Param{Named("tree", "name of the tree")}
	a.Look, a.Judge, a.Verified = lookTree, judgeKept("items", "items_of_others"), keptIs("items of this tree, and of the others together (`mtree.summary`),")
	return a
}

func htableReload() Action {
	a := reload("htable.reload", "htable.reload", "items of one htable from its database table")
	a.Params = []Param{tableParam}
	a.Look, a.Judge, a.Verified = lookTable, judgeKept("items"), keptIs("items (`htable.stats`)")
	return a
}
