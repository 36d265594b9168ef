package kamrpc

// shape is what BINRPC leaves out of a reply: it has the same record for lists and
// structures, the same for all integers, and none around the whole. For JSON, the C code
// of the method decides ("[" or "{", "u" or "d" in its format strings, and RPC_RET_ARRAY
// where it is exported).
type shape struct {
	whole    bool     // the result is a list, even with one element or none
	lists    []string // members that hold lists
	unsigned []string // members that are unsigned 32-bit numbers
}

// shapes lists the methods of the cost table that need one. Without an entry here,
// collectors can still read a reply, but the Value differs from that of JSON-RPC: lists
// whose elements have names are objects, an empty list is an empty object, and numbers
// of 2^31 and above are negative.
var shapes = map[string]shape{
	"cnt.grps_list":            {whole: true},                                       // modules/counters/counters.c
	"core.arg":                 {whole: true},                                       // core/core_cmd.c
	"core.modules":             {whole: true},                                       // core/core_cmd.c
	"core.psx":                 {whole: true},                                       // core/core_cmd.c
	"cr.dump_routes":           {lists: []string{"routes", "domains", "data"}},      // modules/carrierroute/cr_fifo.c
	"dialplan.dump":            {lists: []string{"ENTRIES"}},                        // modules/dialplan/dialplan.c
	"dispatcher.list":          {lists: []string{"RECORDS", "TARGETS"}},             // modules/dispatcher/dispatcher.c
	"dlg.briefing":             {whole: true},                                       // modules/dialog/dialog.c
	"dmq.list_nodes":           {whole: true},                                       // modules/dmq/dmq.c
	"domain.dump":              {lists: []string{"domains", "attributes", "attrs"}}, // modules/domain/domain_mod.c
	"drouting.carrier_status":  {lists: []string{"Carriers"}},                       // not upstream; same as OpenSIPS
	"drouting.gw_status":       {lists: []string{"Gateways"}},                       // not upstream; same as OpenSIPS
	"htable.dump":              {whole: true, lists: []string{"slot"}},              // modules/htable/htable.c
	"htable.listTables":        {whole: true},                                       // modules/htable/htable.c
	"htable.stats":             {whole: true},                                       // modules/htable/htable.c
	"keepalive.list":           {whole: true},                                       // modules/keepalive/keepalive_rpc.c: all rows; JSON-RPC returns only the last
	"lcr.dump_gws":             {lists: []string{"gw"}},                             // modules/lcr/lcr_rpc.c
	"lcr.dump_rules":           {lists: []string{"rule", "gw", "prefix_len"}},       // modules/lcr/lcr_rpc.c
	"mqueue.get_sizes":         {whole: true},                                       // modules/mqueue/mqueue_mod.c
	"mtree.list":               {whole: true, lists: []string{"tvalue"}},            // modules/mtree/mtree_mod.c
	"mtree.summary":            {whole: true},                                       // modules/mtree/mtree_mod.c
	"permissions.addressDump":  {whole: true},                                       // modules/permissions/permissions.c
	"permissions.subnetDump":   {whole: true},                                       // modules/permissions/permissions.c
	"pike.top":                 {lists: []string{"list"}},                           // modules/pike/pike_rpc.c
	"pl.list":                  {whole: true},                                       // modules/pipelimit/pipelimit.c
	"pl.stats":                 {whole: true},                                       // modules/pipelimit/pipelimit.c
	"presence.presentity_list": {whole: true},                                       // modules/presence/presence.c
	"rl.get_pipes":             {whole: true},                                       // modules/ratelimit/ratelimit.c: all lines; JSON-RPC returns only the last
	"rtpengine.show":           {whole: true},                                       // modules/rtpengine/rtpengine.c
	"rtpproxy.list":            {whole: true},                                       // modules/rtpproxy/rtpproxy.c
	"stats.get_statistics":     {whole: true},                                       // modules/kex/core_stats.c
	"system.listMethods":       {whole: true},                                       // core/core_cmd.c
	"tls.list":                 {whole: true},                                       // modules/tls/tls_rpc.c
	"uac.reg_dump":             {whole: true},                                       // modules/uac/uac_reg.c
	"dlgs.stats": { // modules/dlgs/dlgs_records.c
		unsigned: []string{"init", "progress", "answered", "confirmed", "terminted", "terminated", "notanswered"},
	},
	"pkg.stats": { // modules/kex/pkg_stats.c
		whole:    true,
		unsigned: []string{"pid", "used", "free", "real_used", "total_size", "total_frags"},
	},
	"ul.dump": { // modules/usrloc/ul_rpc.c
		lists:    []string{"Domains", "AoRs", "Contacts"},
		unsigned: []string{"HashID", "Flags", "CFlags", "Methods", "Reg-Id"},
	},
}
