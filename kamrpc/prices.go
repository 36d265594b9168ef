package kamrpc

import (
	"slices"
	"strings"
)

// Cost is how the work of a call grows inside Kamailio.
type Cost uint8

// The costs, cheapest first.
const (
	// Constant: does not depend on load or on the amount of data.
	Constant Cost = iota
	// Walk: Kamailio counts its data in place. The reply does not grow, but the time
	// grows slowly with the amount of data.
	Walk
	// Growing: the reply grows with the amount of data. The worker builds it in private
	// memory, where appending to a JSON list walks that list (utils/srjson: quadratic
	// in the worst case).
	Growing
)

// String returns the word that the documentation uses.
func (c Cost) String() string {
	return [...]string{"constant", "walk", "growing"}[c]
}

// Effect is what a call does to Kamailio.
type Effect uint8

// The effects. [Client.Call] only makes reads, [Client.Do] only the others.
const (
	Read Effect = iota
	// Reload: Kamailio replaces its data with the data in its database or file. No read
	// of the module runs at the same time.
	Reload
	// Action: changes something else.
	Action
)

// String returns the word that the documentation uses.
func (e Effect) String() string { return [...]string{"read", "reload", "action"}[e] }

// Price is what one call costs Kamailio, with its known problems.
type Price struct {
	Method  string
	Effect  Effect
	Cost    Cost
	Of      string // what the cost grows with
	Size    string // the constant-cost figure that reports this size before the call
	Locks   string // locks that Kamailio holds while it answers
	Dangers []Danger
	// JSONLoses is what JSON-RPC leaves out of the reply but BINRPC includes. If the C
	// code adds several values and the method is not marked as returning a list, each
	// value replaces the previous one (jsonrpcs_mod.c).
	JSONLoses string
	Note      string // measurements and sources
}

// Danger describes when a call must not be made. Such a call is always refused,
// regardless of flags.
type Danger struct {
	Versions  string // version prefixes, such as "5." or "5.1 5.2 5.3"; empty: all
	MinParams int    // dangerous only with fewer parameters; 0: with any number
	What      string // what the call does
}

func (d Danger) applies(version string, params int) bool {
	on := version == "" || d.Versions == "" ||
		slices.ContainsFunc(strings.Fields(d.Versions), func(prefix string) bool { return strings.HasPrefix(version, prefix) })
	return on && (d.MinParams == 0 || params < d.MinParams)
}

// On names the versions on which the call must not be made: "5.x", "5.1 to 5.4" or "all".
func (d Danger) On() string {
	versions := strings.Fields(d.Versions)
	switch len(versions) {
	case 0:
		return "all"
	case 1:
		return strings.TrimSuffix(versions[0], ".") + ".x"
	}
	return versions[0] + " to " + versions[len(versions)-1]
}

// PriceList returns every method that this program may call. [Client.Call] refuses
// methods that are not listed as reads, [Client.Do] those not listed as changes. So the
// cost of a call must be known before a collector or an action can use it.
func PriceList() []Price { return slices.Clone(prices) }

var prices = []Price{
	{Method: "cdp.list_peers", Cost: Growing, Of: "Diameter peers", Locks: "the list of peers, and one peer at a time", Note: "modules/cdp/cdp_rpc.c"},
	{Method: "cfg.get", Note: "modules/cfg_rpc/cfg_rpc.c: one variable; a scrape calls it only with --collector.cfg.variables"},
	{Method: "cfg.set_now_int", Effect: Action, Locks: "the configuration framework's own, for a copy", Note: "modules/cfg_rpc/cfg_rpc.c: sets 0 if the value is a string; without a value it replies with success and does nothing"},
	{Method: "cnt.grps_list", Note: "modules/counters/counters.c: names; called only if the statistics do not fit into one reply over BINRPC"},
	{Method: "cnxcc.stats", Note: "modules/cnxcc/cnxcc_mod.c: three numbers, without a lock"},
	{Method: "core.arg", Note: "core/core_cmd.c: the command line; called once per start of Kamailio. Only -M is kept, because the line may contain passwords"},
	{Method: "core.info", Note: "core/core_cmd.c: a text that is built at start"},
	{Method: "core.modules", Cost: Walk, Of: "loaded modules", Note: "core/core_cmd.c: no lock; called by doctor, and once per start of Kamailio if dmq is loaded or no user is registered"},
	{Method: "core.psx", Cost: Walk, Of: "Kamailio's processes", Note: "core/core_cmd.c: no lock"},
	{Method: "core.runinfo", Note: "core/core_cmd.c, from 5.6: not called; where it is listed, dlg.stats_active has a parameter"},
	{Method: "core.shmmem", Note: "core/core_cmd.c: totals of the allocator"},
	{Method: "core.sockets_list", Cost: Walk, Of: "listening sockets", Note: "core/core_cmd.c: no lock; prints a line for each socket to Kamailio's standard output, so it is called once an hour"},
	{Method: "core.tcp_info", Note: "core/core_cmd.c: replies with an error if TCP is disabled"},
	{Method: "core.uptime", Note: "core/core_cmd.c"},
	{Method: "core.version", Note: "core/core_cmd.c"},
	{Method: "cr.dump_routes", Cost: Growing, Of: "routes", Locks: "nothing: holds a reference, so a reload does not free the routes", Note: "modules/carrierroute/cr_rpc.c: quadratic, 5,000 take 0.3 to 0.6 s; a 5.4.4 that several clients read and reloaded at the same time crashed once"},
	{Method: "dialplan.dump", Cost: Growing, Of: "rules of a dialplan", Locks: "nothing: reads the live rules", Dangers: []Danger{{Versions: "5.0 5.1 5.2 5.3 5.4.0 5.4.1 5.4.2 5.4.3 5.4.4", What: "kills the server if a rule lacks a value, for example its attributes"}}, Note: "modules/dialplan/dialplan.c: quadratic, 5,000 take 0.4 to 0.7 s; an unknown id logs an ERROR line; safe during dialplan.reload in our tests"},
	{Method: "dialplan.reload", Effect: Reload, Cost: Growing, Of: "rules in the database", Note: "modules/dialplan/dialplan.c: two at the same time have crashed servers (upstream issue 1874)"},
	{Method: "dispatcher.list", Cost: Growing, Of: "destinations", Locks: "nothing: reads the live list", Note: "modules/dispatcher/dispatcher.c; crashes 5.6.3 if it runs during dispatcher.reload; over HTTP about 10,000 destinations exceed 8 MB of private memory"},
	{Method: "dispatcher.reload", Effect: Reload, Cost: Growing, Of: "destinations in the database", Note: "modules/dispatcher/dispatcher.c: several at the same time crash 5.4.4, 5.6.3 and 6.1.5: 5.6.3 rarely with the default reload_delta, always with 0 (upstream issue 4807). If the source is empty, it replies with success and removes all destinations"},
	{Method: "dispatcher.set_state", Effect: Action, Cost: Walk, Of: "destinations of one set", Locks: "nothing", Note: "modules/dispatcher/dispatch.c: reads only the first letters of the state; the address all means the whole set; if several destinations have the same URI, it changes the first"},
	{Method: "dlg.bridge_dlg", Effect: Action, Note: "modules/dialog/dlg_transfer.c: starts a new call, and replies before its outcome is known"},
	{Method: "dlg.briefing", Cost: Growing, Of: "dialogs", Size: "dlg.stats_active all", Locks: "one hash slot of the dialogs at a time, while it prints it", Note: "modules/dialog/dialog.c; with the default fields, 1,000 dialogs take 31 ms over HTTP and 4,800 take 0.5 to 1.5 s; with 18,000 no reply comes (FIFO: 1.7 to 6.4 s)"},
	{Method: "dlg.dlg_list", Cost: Walk, Of: "dialogs in one hash slot", Locks: "that slot", Note: "modules/dialog/dialog.c: the dialogs of one Call-ID"},
	{Method: "dlg.end_dlg", Effect: Action, Cost: Walk, Of: "dialogs in one hash slot", Locks: "that slot", Note: "modules/dialog/dlg_req_within.c: sends a BYE to both sides"},
	{Method: "dlg.profile_get_size", Cost: Walk, Of: "entries of one profile", Locks: "the profile", Note: "modules/dialog/dlg_profile.c: counts"},
	{Method: "dlg.stats_active", Cost: Walk, Of: "dialogs", Locks: "one hash slot of the dialogs at a time", Note: "modules/dialog/dialog.c: counts"},
	{Method: "dlg.terminate_dlg", Effect: Action, Cost: Walk, Of: "dialogs in one hash slot", Locks: "that slot", Note: "modules/dialog/dialog.c: sends a BYE to both sides"},
	{Method: "dlgs.stats", Note: "modules/dlgs/dlgs_records.c: sums one record for each hash slot, without a lock"},
	{Method: "dmq.list_nodes", Cost: Growing, Of: "nodes of the cluster", Locks: "nothing: reads the live list", Note: "modules/dmq/dmq.c"},
	{Method: "domain.dump", Cost: Growing, Of: "domains and their attributes", Locks: "nothing: reads the live table", Note: "modules/domain/domain_mod.c; 5,000 take 0.1 s, 20,000 0.65 s; safe during domain.reload in our tests"},
	{Method: "domain.reload", Effect: Reload, Cost: Growing, Of: "domains in the database", Locks: "its own lock, against a second reload", Note: "modules/domain/domain_mod.c"},
	{Method: "drouting.carrier_status", Cost: Growing, Of: "carriers", Note: "not part of upstream Kamailio; some builds or scripts provide it"},
	{Method: "drouting.gw_status", Cost: Growing, Of: "gateways", Note: "not part of upstream Kamailio; some builds or scripts provide it"},
	{Method: "drouting.reload", Effect: Reload, Cost: Growing, Of: "rules in the database", Note: "modules/drouting/drouting.c: two at the same time crash 5.6.3 and 6.0.1"},
	{Method: "htable.delete", Effect: Action, Locks: "one slot of the table", Note: "modules/htable/htable.c"},
	{Method: "htable.dump", Cost: Growing, Of: "entries of one table", Size: "htable.stats all", Locks: "one slot of the table at a time, while it prints it", Note: "modules/htable/htable.c; 2,000 take 8 ms, 5,000 30 ms, 20,000 0.16 s; safe during htable.reload in our tests"},
	{Method: "htable.get", Locks: "one slot of the table", Note: "modules/htable/htable.c: one item"},
	{Method: "htable.listTables", Note: "modules/htable/htable.c: parameters of the tables"},
	{Method: "htable.reload", Effect: Reload, Cost: Growing, Of: "rows of one table in the database", Locks: "one slot of the table at a time, while it is replaced", Note: "modules/htable/htable.c"},
	{Method: "htable.seti", Effect: Action, Locks: "one slot of the table", Note: "modules/htable/htable.c: sets 0 if the value is a string"},
	{Method: "htable.sets", Effect: Action, Locks: "one slot of the table", Note: "modules/htable/htable.c"},
	{Method: "htable.setxi", Effect: Action, Locks: "one slot of the table", Note: "modules/htable/htable.c: an integer that expires; only for tables with autoexpire"},
	{Method: "htable.stats", Cost: Walk, Of: "slots of all tables", Locks: "one slot at a time", Note: "modules/htable/htable.c: counts; safe during htable.reload in our tests"},
	{Method: "keepalive.list", Cost: Walk, Of: "destinations", Locks: "nothing: reads the live list", Dangers: []Danger{{Versions: "5.1 5.2 5.3 5.4", What: "can kill the server while it has no destination: the list is not initialized"}}, JSONLoses: "all destinations but the last", Note: "modules/keepalive/keepalive_rpc.c, keepalive_mod.c"},
	{Method: "lcr.defunct_gw", Effect: Action, Cost: Walk, Of: "gateways", Note: "modules/lcr/lcr_mod.c: takes a number of seconds, although its error text says timestamp"},
	{Method: "lcr.dump_gws", Cost: Growing, Of: "gateways", Locks: "nothing: the table is never freed", Note: "modules/lcr/lcr_rpc.c"},
	{Method: "lcr.dump_rules", Cost: Growing, Of: "rules", Dangers: []Danger{{What: "can crash the server during lcr.reload"}}, Note: "modules/lcr/lcr_rpc.c: no lock; seen on 5.6.3; 6.0 has the same code"},
	{Method: "lcr.reload", Effect: Reload, Cost: Growing, Of: "gateways and rules in the database", Locks: "its own lock, against a second reload", Note: "modules/lcr/lcr_mod.c"},
	{Method: "mqueue.get_sizes", Locks: "one queue at a time", Note: "modules/mqueue/mqueue_mod.c: a counter of each queue"},
	{Method: "mtree.list", Cost: Growing, Of: "items", Dangers: []Danger{{What: "can crash the server during mtree.reload"}}, Note: "modules/mtree: mtree.summary is safe"},
	{Method: "mtree.reload", Effect: Reload, Cost: Growing, Of: "rows in the database", Note: "modules/mtree/mtree_mod.c: reloads every tree whose name begins with the given name"},
	{Method: "mtree.summary", Note: "modules/mtree/mtree_mod.c: counters of each tree; safe during mtree.reload in our tests"},
	{Method: "pdt.list", Cost: Growing, Of: "prefixes", Dangers: []Danger{{Versions: "6.", What: "can crash the server during pdt.reload"}, {What: "logs two ERROR lines for each source domain, even without an error"}}, Note: "modules/pdt/pdt.c"},
	{Method: "pdt.reload", Effect: Reload, Cost: Growing, Of: "prefixes in the database", Note: "modules/pdt/pdt.c"},
	{Method: "permissions.addressDump", Cost: Growing, Of: "addresses", Locks: "nothing: reads the live table", Dangers: []Danger{{Versions: "5.", What: "can crash the server during permissions.addressReload"}}, Note: "modules/permissions/hash.c; 5,000 take 0.1 s. 6.0.1 and 6.1.5 crashed too while several clients read and reloaded without a pause (reload_delta 0): keep its default of 5 s"},
	{Method: "permissions.addressReload", Effect: Reload, Cost: Growing, Of: "addresses in the database", Note: "modules/permissions/rpc.c: with reload_delta 0, and before 5.5, which does not have it, two at the same time free the same memory twice (upstream issue 4809)"},
	{Method: "permissions.domainDump", Cost: Growing, Of: "domain names of the table address", Locks: "nothing: reads the live table", Note: "modules/permissions/hash.c: quadratic, 2,000 take 0.1 s, 5,000 1.4 to 2.2 s, 20,000 28 s"},
	{Method: "permissions.subnetDump", Cost: Growing, Of: "subnets, at most max_subnets (512)", Locks: "nothing: reads the live table", Note: "modules/permissions/hash.c; safe during permissions.addressReload in our tests"},
	{Method: "permissions.trustedDump", Cost: Growing, Of: "trusted peers", Locks: "nothing: reads the live table", Dangers: []Danger{{Versions: "5.", What: "can crash the server during permissions.trustedReload"}}, Note: "modules/permissions/hash.c: quadratic, 2,000 take 0.06 s, 5,000 0.3 s, 20,000 17 s"},
	{Method: "permissions.trustedReload", Effect: Reload, Cost: Growing, Of: "trusted peers in the database", Note: "modules/permissions/rpc.c: with reload_delta 0, two at the same time free the same memory twice (upstream issue 4809)"},
	{Method: "pike.top", Cost: Growing, Of: "source addresses over the limit", Locks: "one branch of the address tree at a time", Note: "modules/pike/pike_rpc.c: walks the whole tree of source addresses; without a parameter it lists only the hot ones"},
	{Method: "pkg.stats", Cost: Walk, Of: "Kamailio's processes", Note: "modules/kex/pkg_stats.c: no lock; values that each process has stored"},
	{Method: "pl.list", Cost: Growing, Of: "pipes", Locks: "one slot of the pipes at a time, while it prints it", Note: "modules/pipelimit/pl_ht.c; 5,000 take 0.15 to 0.2 s"},
	{Method: "pl.stats", Cost: Growing, Of: "pipes", Locks: "one slot of the pipes at a time, while it prints it", Note: "modules/pipelimit/pl_ht.c"},
	{Method: "presence.cleanup", Effect: Action, Cost: Growing, Of: "expired presentities and watchers", Note: "modules/presence/presence.c: does the same as its timers"},
	{Method: "presence.presentity_list", Cost: Growing, Of: "presentities in memory (publ_cache)", Locks: "one slot of the presentities at a time, while it prints it", Note: "modules/presence/presence.c; 5,000 take 0.2 to 0.3 s"},
	{Method: "presence.refreshWatchers", Effect: Action, Cost: Growing, Of: "watchers of one presentity", Note: "modules/presence/presence.c: sends a NOTIFY to each"},
	{Method: "rl.get_pipes", Locks: "all pipes, of which there are 32", JSONLoses: "all pipes but the last", Note: "modules/ratelimit/ratelimit.c"},
	{Method: "rtpengine.enable", Effect: Action, Cost: Walk, Of: "media relays", Note: "modules/rtpengine/rtpengine.c: pings the relay; a failure is reported as status fail, not as an RPC error"},
	{Method: "rtpengine.reload", Effect: Reload, Cost: Growing, Of: "media relays in the database", Note: "modules/rtpengine/rtpengine.c: refuses another one for 10 s"},
	{Method: "rtpengine.show", Cost: Growing, Of: "nodes", Locks: "the list of the sets, and one set at a time: calls that need a node wait", Note: "modules/rtpengine/rtpengine.c, build_rtpp_socks: the first call in a process, and the first after rtpengine.reload, pings all nodes while it holds these locks, up to rtpengine_tout_ms times rtpengine_retr for each dead node, with two ERROR lines. The FIFO has one process; over HTTP each TCP worker is one. Safe during rtpengine.reload in our tests"},
	{Method: "rtpproxy.list", Cost: Growing, Of: "nodes", Locks: "nothing: the list does not change while Kamailio runs", Note: "modules/rtpproxy/rtpproxy.c"},
	{Method: "sca.subscription_count", Cost: Walk, Of: "subscriptions to shared call appearances", Locks: "one hash slot of the subscriptions at a time", Note: "modules/sca/sca_rpc.c: counts those of one event"},
	{Method: "secfilter.add_bl", Effect: Action, Locks: "the module's data", Dangers: []Danger{{MinParams: 2, What: "never replies"}}, Note: "modules/secfilter/secfilter_rpc.c: in memory only, until the next reload"},
	{Method: "secfilter.del_bl", Effect: Action, Locks: "the module's data", Dangers: []Danger{{MinParams: 2, What: "never replies"}}, Note: "modules/secfilter/secfilter_rpc.c: since 6.1"},
	{Method: "secfilter.print", Cost: Growing, Of: "entries", Dangers: []Danger{{MinParams: 1, What: "crashes 5.6.3 if it has no parameter"}}, Note: "modules/secfilter"},
	{Method: "secfilter.reload", Effect: Reload, Cost: Growing, Of: "rows in the database", Note: "modules/secfilter/secfilter_rpc.c: 5.6 empties the list before it loads the new one"},
	{Method: "secfilter.stats", Note: "modules/secfilter/secfilter_rpc.c: 26 counters"},
	{Method: "sl.stats", Note: "modules/sl/sl_stats.c: sums one record per process"},
	{Method: "stats.get_statistics", Note: "modules/kex/core_stats.c: 0.4 ms with any number of users"},
	{Method: "stats.reset_statistics", Effect: Action, Cost: Walk, Of: "statistics of one group", Note: "modules/kex/core_stats.c: replies with success if the group does not exist"},
	{Method: "system.listMethods", Note: "modules/jsonrpcs/jsonrpcs_mod.c: names in the binary"},
	{Method: "tls.info", Note: "modules/tls/tls_rpc.c: totals"},
	{Method: "tls.list", Cost: Growing, Of: "TCP and TLS connections", Size: "tls.info opened_connections", Locks: "all TCP connections, while it prints", Note: "modules/tls/tls_rpc.c; over HTTP, 500 TLS connections take 4 ms on 5.6.3 and 20 ms on 6.0.1; 1,000 take 10 and 30 ms; 4,000 take 0.1 to 0.3 s"},
	{Method: "tls.reload", Effect: Reload, Cost: Walk, Of: "TLS profiles and processes", Locks: "the list of TLS configurations", Note: "modules/tls/tls_rpc.c: needs a TLS configuration file; upstream warns that it leaks memory"},
	{Method: "tm.stats", Note: "modules/tm/t_stats.c: sums one record per process"},
	{Method: "uac.reg_disable", Effect: Action, Locks: "one slot of the registrations", Note: "modules/uac/uac_reg.c: a flag; the next timer run acts on it"},
	{Method: "uac.reg_dump", Cost: Growing, Of: "outgoing registrations", Locks: "one hash slot of the registrations at a time", Note: "modules/uac/uac_reg.c; the reply contains passwords in clear text; it is read row by row, without them; safe during uac.reg_reload and uac.reg_refresh in our tests"},
	{Method: "uac.reg_enable", Effect: Action, Locks: "one slot of the registrations", Note: "modules/uac/uac_reg.c: a flag; the next timer run acts on it"},
	{Method: "uac.reg_info", Locks: "one slot of the registrations", Note: "modules/uac/uac_reg.c: the reply contains a password; only the admin endpoint calls it, and keeps two fields"},
	{Method: "uac.reg_refresh", Effect: Reload, Note: "modules/uac/uac_reg.c: one row of the database"},
	{Method: "uac.reg_reload", Effect: Reload, Cost: Growing, Of: "registrations in the database", Locks: "the registrations that are about to be freed", Note: "modules/uac/uac_reg.c: all registrations start again; refuses another one for reg_gc_interval (150 s), since 6.0 for reload_delta (30 s)"},
	{Method: "ul.db_users", Note: "modules/usrloc/ul_rpc.c: called without a table, once per start of Kamailio and only if no user is registered: the text of the error shows whether there is a database. With a table it would query the database"},
	{Method: "ul.dump", Cost: Growing, Of: "registered contacts", Size: "usrloc:<table>_contacts", Locks: "one hash slot of the location service at a time, while it prints it", Note: "modules/usrloc/ul_rpc.c: quadratic; over HTTP no reply comes with 5,000 contacts or more; over the FIFO, 20,000 take 2.2 s, after which that process has 117 MB of memory"},
	{Method: "ul.lookup", Cost: Walk, Of: "contacts of one AOR", Locks: "one hash slot of the location service", Note: "modules/usrloc/ul_rpc.c"},
	{Method: "ul.rm", Effect: Action, Cost: Walk, Of: "contacts of one AOR", Locks: "one hash slot of the location service", Note: "modules/usrloc/ul_rpc.c: replies with success if the AOR does not exist"},
	{Method: "ul.rm_contact", Effect: Action, Cost: Walk, Of: "contacts of one AOR", Locks: "one hash slot of the location service", Note: "modules/usrloc/ul_rpc.c"},
}

// PriceOf returns the price of a method.
func PriceOf(method string) (Price, bool) {
	i := slices.IndexFunc(prices, func(p Price) bool { return p.Method == method })
	if i < 0 {
		return Price{}, false
	}
	return prices[i], true
}
