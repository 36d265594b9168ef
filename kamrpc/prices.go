package kamrpc

import "slices"

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

// Price is what one call costs Kamailio, and what is known to be wrong with it.
type Price struct {
	Method string
	Cost   Cost
	Of     string // what the cost grows with
	Size   string // the constant-cost statistic that tells that size beforehand
	Note   string // dangers and sources
}

// PriceList is every method that this program may call. [Client.Call] refuses a
// method that is not in it: a new collector must first look up what its call
// costs.
func PriceList() []Price { return slices.Clone(prices) }

var prices = []Price{
	{Method: "core.info", Note: "core/core_cmd.c: text made at start"},
	{Method: "core.psx", Cost: Walk, Of: "Kamailio's processes", Note: "core/core_cmd.c: no lock"},
	{Method: "core.shmmem", Note: "core/core_cmd.c: totals of the allocator"},
	{Method: "core.tcp_info", Note: "core/core_cmd.c: a fault when TCP is off"},
	{Method: "core.uptime", Note: "core/core_cmd.c"},
	{Method: "core.version", Note: "core/core_cmd.c"},
	{Method: "dispatcher.list", Cost: Growing, Of: "destinations", Note: "modules/dispatcher/dispatcher.c: reads the live list; kills 5.6.3 when it races dispatcher.reload; over HTTP about 10,000 destinations exceed 8 MB of private memory"},
	{Method: "dlg.briefing", Cost: Growing, Of: "dialogs", Size: "dlg.stats_active all", Note: "modules/dialog/dialog.c: one hash slot locked while it is printed; with its default fields 1,000 take 31 ms over HTTP, 4,800 0.5 to 1.5 s, 18,000 are never answered (FIFO: 1.7 to 6.4 s)"},
	{Method: "dlg.profile_get_size", Cost: Walk, Of: "entries of one profile", Note: "modules/dialog/dlg_profile.c: counts under the profile's lock"},
	{Method: "dlg.stats_active", Cost: Walk, Of: "dialogs", Note: "modules/dialog/dialog.c: counts, one hash slot locked at a time"},
	{Method: "drouting.carrier_status", Cost: Growing, Of: "carriers", Note: "not in upstream Kamailio: some builds, or the operator's script"},
	{Method: "drouting.gw_status", Cost: Growing, Of: "gateways", Note: "not in upstream Kamailio: some builds, or the operator's script"},
	{Method: "htable.stats", Cost: Walk, Of: "slots of all tables", Note: "modules/htable/htable.c: one slot locked at a time"},
	{Method: "pike.top", Cost: Growing, Of: "source addresses over the limit", Note: "modules/pike/pike_rpc.c: walks the tree of source addresses, one branch locked at a time; without a parameter it lists only the hot ones"},
	{Method: "sl.stats", Note: "modules/sl/sl_stats.c: sums one record per process"},
	{Method: "stats.get_statistics", Note: "modules/kex/core_stats.c: 0.4 ms with any number of users"},
	{Method: "system.listMethods", Note: "modules/jsonrpcs/jsonrpcs_mod.c: names in the binary"},
	{Method: "tm.stats", Note: "modules/tm/t_stats.c: sums one record per process"},
	{Method: "ul.dump", Cost: Growing, Of: "registered contacts", Size: "usrloc:<table>_contacts", Note: "modules/usrloc/ul_rpc.c: quadratic, locks each slot while it prints it; over HTTP no answer from 5,000 contacts up, over the FIFO 20,000 take 2.2 s and leave that process at 117 MB"},
}

// PriceOf finds a method's price.
func PriceOf(method string) (Price, bool) {
	i := slices.IndexFunc(prices, func(p Price) bool { return p.Method == method })
	if i < 0 {
		return Price{}, false
	}
	return prices[i], true
}
