package collector

// UnreadMethod is a method that has useful data but is not called, or that reports less
// than its name suggests.
type UnreadMethod struct{ Method, Why string }

// Unread lists the data that operators may miss on the page, with the reason.
func Unread() []UnreadMethod {
	return []UnreadMethod{
		{"core.tcp_list", "returns a row for each connection and locks all TCP connections meanwhile (core/core_cmd.c); core.tcp_info and the statistics of tcp report the totals at constant cost"},
		{"dialplan.dump", "needs the id of a dialplan, and no RPC lists the ids: name them with --collector.dialplan.ids"},
		{"dispatcher.oclist", "has what the script itself sets with ds_oc_set_attrs (overload control, Kamailio 6.0 and later), one set of destinations per call. A set that does not exist logs an ERROR line, and the list is read without a lock (dispatcher/dispatcher.c)"},
		{"dns.mem_info, dst_blocklist.mem_info", "over JSON-RPC the second of the two numbers, the limit, replaces the first, the memory in use (core/dns_cache.c, core/dst_blocklist.c); dns.view, dst_blocklist.view and their debug variants print all entries while these are locked"},
		{"htable.dump", "called only for the tables that you name, because a table can be large and can contain personal data. htable.stats has the number of entries of all tables"},
		{"keepalive.list", "called, but over JSON-RPC each destination replaces the previous one, so that only the last is exported. Add a BINRPC URI to export all"},
		{"lcr.dump_rules", "reads the rules without a lock while lcr.reload frees them. This crashes Kamailio 5.6, and 6.0 has the same code. Over JSON-RPC it also returns only the last LCR instance"},
		{"mtree.list", "can crash every version during mtree.reload; mtree.summary has the counts"},
		{"pdt.list", "logs two ERROR lines for each source domain at each call (modules/pdt/pdt.c), and can crash Kamailio 6 during pdt.reload. No other RPC counts the prefixes"},
		{"permissions.addressDump", "can crash Kamailio 5 during permissions.addressReload; called on Kamailio 6 and later. On 5.x, only subnets and domain names are exported"},
		{"permissions.trustedDump", "can crash Kamailio 5 during permissions.trustedReload; called on Kamailio 6 and later"},
		{"presence.watcher_list", "lists the watchers of one presentity, which must be given; no RPC has the total number of watchers"},
		{"rl.get_pipes", "called, but over JSON-RPC each pipe replaces the previous one, so that only the last is exported. Add a BINRPC URI to export all, or use the newer module pipelimit, which reports all over JSON-RPC"},
		{"rl.get_queues, rl.stats", "rl.get_queues has no numbers, only the pipe of each queue; rl.stats has nothing beyond rl.get_pipes"},
		{"sca.all_appearances, sca.all_subscriptions", "over JSON-RPC only the last line is returned, because each line replaces the previous one (modules/sca/sca.c). sca.subscription_count has the number of subscriptions"},
		{"secfilter.print", "without a parameter it crashes Kamailio 5.6. With one it returns an empty string there, because each line replaces the previous one. Its lists can be long"},
		{"secfilter.stats", "Kamailio 5.6 returns an empty string, the last of its lines; read on Kamailio 6 and later"},
		{"tls.options", "names the certificate files, but no RPC up to Kamailio 6.1 has their expiry dates (tls/tls_rpc.c). --sip.probe reads them from the TLS socket"},
		{"tm.hash_stats", "works only if Kamailio was compiled with TM_HASH_STATS, which is not the case for packages (tm/h_table.h)"},
		{"uac.reg_info", "reports one registration; uac.reg_dump reports all"},
		{"ws.dump", "lists at most 50 connections; the statistics of websocket count all"},
	}
}
