package kamrpc

import (
	"slices"
	"strings"
)

// Cost tells how the work of a call grows inside Kamailio.
type Cost uint8

// The costs, from cheap to dear.
const (
	// Constant: the same however busy or full the server is.
	Constant Cost = iota
	// Walk: Kamailio counts in place (no reply that grows), in a time that grows
	// slowly with what it holds.
	Walk
	// Growing: the reply grows with what the server holds; the worker builds it
	// in its private memory, where JSON lists are appended to by walking them
	// (utils/srjson: quadratic in the worst case).
	Growing
)

// String is the word for the documentation.
func (c Cost) String() string {
	return [...]string{"constant", "walk", "growing"}[c]
}

// Effect tells what a call does to Kamailio.
type Effect uint8

// The effects. [Client.Call] makes reads only.
const (
	Read Effect = iota
	Reload
	Action
)

// String is the word for the documentation.
func (e Effect) String() string { return [...]string{"read", "reload", "action"}[e] }

// Price is what one call costs Kamailio, and what is known to be wrong with it.
type Price struct {
	Method  string
	Effect  Effect
	Cost    Cost
	Of      string // what the cost grows with
	Size    string // the constant-cost figure that tells that size beforehand
	Locks   string // what Kamailio holds while it answers
	Dangers []Danger
	Note    string // measurements and sources
}

// Danger is when a call must not be made: it is refused then, whatever the flags
// say.
type Danger struct {
	Versions  string // prefix of the version: "5." or "5.6"; empty: all
	MinParams int    // dangerous only with fewer parameters; 0: with any
	What      string // it does
}

func (d Danger) applies(version string, params int) bool {
	return (version == "" || strings.HasPrefix(version, d.Versions)) && (d.MinParams == 0 || params < d.MinParams)
}

// PriceList is every method that this program may call. [Client.Call] refuses a
// method that is not in it: a new collector must first look up what its call
// costs.
func PriceList() []Price { return slices.Clone(prices) }

var prices = []Price{
	{Method: "cnt.grps_list", Note: "modules/counters/counters.c: names; asked only where not all statistics fit into one reply over BINRPC"},
	{Method: "core.info", Note: "core/core_cmd.c: text made at start"},
	{Method: "core.psx", Cost: Walk, Of: "Kamailio's processes", Note: "core/core_cmd.c: no lock"},
	{Method: "core.shmmem", Note: "core/core_cmd.c: totals of the allocator"},
	{Method: "core.tcp_info", Note: "core/core_cmd.c: a fault when TCP is off"},
	{Method: "core.uptime", Note: "core/core_cmd.c"},
	{Method: "core.version", Note: "core/core_cmd.c"},
	{Method: "dispatcher.list", Cost: Growing, Of: "destinations", Locks: "nothing: reads the live list", Note: "modules/dispatcher/dispatcher.c; kills 5.6.3 when it races dispatcher.reload; over HTTP about 10,000 destinations exceed 8 MB of private memory"},
	{Method: "dlg.briefing", Cost: Growing, Of: "dialogs", Size: "dlg.stats_active all", Locks: "one hash slot of the dialogs at a time, while it prints it", Note: "modules/dialog/dialog.c; with its default fields 1,000 take 31 ms over HTTP, 4,800 0.5 to 1.5 s, 18,000 are never answered (FIFO: 1.7 to 6.4 s)"},
	{Method: "dlg.profile_get_size", Cost: Walk, Of: "entries of one profile", Locks: "the profile", Note: "modules/dialog/dlg_profile.c: counts"},
	{Method: "dlg.stats_active", Cost: Walk, Of: "dialogs", Locks: "one hash slot of the dialogs at a time", Note: "modules/dialog/dialog.c: counts"},
	{Method: "drouting.carrier_status", Cost: Growing, Of: "carriers", Note: "not in upstream Kamailio: some builds, or the operator's script"},
	{Method: "drouting.gw_status", Cost: Growing, Of: "gateways", Note: "not in upstream Kamailio: some builds, or the operator's script"},
	{Method: "htable.stats", Cost: Walk, Of: "slots of all tables", Locks: "one slot at a time", Note: "modules/htable/htable.c: counts"},
	{Method: "lcr.dump_rules", Cost: Growing, Of: "rules", Dangers: []Danger{{Versions: "5.", What: "kills the server when it races lcr.reload"}}, Note: "modules/lcr"},
	{Method: "mtree.list", Cost: Growing, Of: "items", Dangers: []Danger{{What: "kills the server when it races mtree.reload"}}, Note: "modules/mtree: mtree.summary is safe"},
	{Method: "pdt.list", Cost: Growing, Of: "prefixes", Dangers: []Danger{{Versions: "6.", What: "kills the server when it races pdt.reload"}}, Note: "modules/pdt"},
	{Method: "permissions.addressDump", Cost: Growing, Of: "addresses", Dangers: []Danger{{Versions: "5.", What: "kills the server when it races permissions.addressReload"}}, Note: "modules/permissions"},
	{Method: "permissions.trustedDump", Cost: Growing, Of: "trusted peers", Dangers: []Danger{{Versions: "5.", What: "kills the server when it races permissions.trustedReload"}}, Note: "modules/permissions: quadratic, 20,000 rows take 17 s"},
	{Method: "pike.top", Cost: Growing, Of: "source addresses over the limit", Locks: "one branch of the address tree at a time", Note: "modules/pike/pike_rpc.c: walks the whole tree of source addresses; without a parameter it lists only the hot ones"},
	{Method: "secfilter.print", Cost: Growing, Of: "entries", Dangers: []Danger{{MinParams: 1, What: "kills 5.6.3 when it gets no parameter"}}, Note: "modules/secfilter"},
	{Method: "sl.stats", Note: "modules/sl/sl_stats.c: sums one record per process"},
	{Method: "stats.get_statistics", Note: "modules/kex/core_stats.c: 0.4 ms with any number of users"},
	{Method: "system.listMethods", Note: "modules/jsonrpcs/jsonrpcs_mod.c: names in the binary"},
	{Method: "tm.stats", Note: "modules/tm/t_stats.c: sums one record per process"},
	{Method: "ul.dump", Cost: Growing, Of: "registered contacts", Size: "usrloc:<table>_contacts", Locks: "one hash slot of the location service at a time, while it prints it", Note: "modules/usrloc/ul_rpc.c: quadratic; over HTTP no answer from 5,000 contacts up, over the FIFO 20,000 take 2.2 s and leave that process at 117 MB"},
}

// PriceOf finds a method's price.
func PriceOf(method string) (Price, bool) {
	i := slices.IndexFunc(prices, func(p Price) bool { return p.Method == method })
	if i < 0 {
		return Price{}, false
	}
	return prices[i], true
}
