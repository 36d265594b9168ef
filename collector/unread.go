package collector

// UnreadMethod is a method that has useful data but is not called, or that reports less
// than its name suggests.
type UnreadMethod struct{ Method, Why string }

// Unread lists the data that operators may miss on the page, with the reason.
func Unread() []UnreadMethod {
	return []UnreadMethod{
		{"core.tcp_list", "one row for each connection, while all of TCP is locked (core/core_cmd.c); core.tcp_info and the statistics tcp tell the totals at constant cost"},
		{"dialplan.dump", "without an id it is an error, and Kamailio does not list the ids: name them with --collector.dialplan.ids"},
		{"dns.mem_info, dst_blocklist.mem_info", "over JSON-RPC the second of the two numbers, the limit, replaces the first, the memory in use (core/dns_cache.c, core/dst_blocklist.c); dns.view, dst_blocklist.view and their debug variants print all entries while these are locked"},
		{"htable.dump", "called for the tables that you name only: what a script stores may be personal data, and grows with it. The numbers of entries of all tables are in htable.stats"},
		{"keepalive.list", "called, but over JSON-RPC each destination replaces the one before it, so that only the last is exported. Add a binrpc URI to export all"},
		{"lcr.dump_rules", "reads the rules without a lock while lcr.reload frees them: it kills Kamailio 5.6, and 6.0 has the same code; over JSON-RPC it also returns the last LCR instance only"},
		{"mtree.list", "kills every version when it races mtree.reload; mtree.summary has the counts"},
		{"pdt.list", "writes two ERROR lines into Kamailio's log for each source domain at each call (modules/pdt/pdt.c), and kills Kamailio 6 when it races pdt.reload; there is no other method that counts prefixes"},
		{"permissions.addressDump", "kills Kamailio 5.6 when it races permissions.addressReload; asked from 6 on. 5.6 exports subnets and domain names only"},
		{"permissions.trustedDump", "kills Kamailio 5.6 when it races permissions.trustedReload; asked from 6 on"},
		{"presence.watcher_list", "lists the watchers of one presentity, which must be named; no RPC has the total number of watchers"},
		{"rl.get_pipes", "called, but over JSON-RPC each line of the reply replaces the one before it, so that only the last pipe in use is exported. Add a binrpc URI to export all; pipelimit, the newer module, reports all over JSON-RPC too"},
		{"rl.get_queues, rl.stats", "rl.get_queues has no numbers, only which queue goes to which pipe; rl.stats has nothing that rl.get_pipes does not have, and has it for pipes without an algorithm too"},
		{"secfilter.print", "without a parameter it kills Kamailio 5.6; the lists grow, and with one it answers an empty text there, as each line replaces the one before it"},
		{"secfilter.stats", "Kamailio 5.6 answers an empty text, the last of its lines; read from 6 on"},
		{"tls.options", "names the files of the certificates; no RPC up to Kamailio 6.1 has their expiry (tls/tls_rpc.c). --sip.probe reads it from the TLS socket"},
		{"tm.hash_stats", "an error unless Kamailio was compiled with TM_HASH_STATS, which packages are not (tm/h_table.h)"},
		{"uac.reg_info", "has for one registration what uac.reg_dump has for all"},
		{"ws.dump", "lists connections one by one, 50 at the most; the statistics of websocket count them"},
	}
}
