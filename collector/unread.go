package collector

// UnreadMethod is a method that would tell something and is not asked, or tells
// less than its name says.
type UnreadMethod struct{ Method, Why string }

// Unread lists what operators may miss on the page, with the reason.
func Unread() []UnreadMethod {
	return []UnreadMethod{
		{"core.tcp_list", "one row for each connection, while all of TCP is locked (core/core_cmd.c); core.tcp_info and the statistics tcp tell the totals at constant cost"},
		{"dns.mem_info, dst_blocklist.mem_info", "over JSON-RPC the second of the two numbers, the limit, replaces the first, the memory in use (core/dns_cache.c, core/dst_blocklist.c); dns.view, dst_blocklist.view and their debug variants print all entries while these are locked"},
		{"keepalive.list", "asked, but over JSON-RPC each destination replaces the one before it: only the last is told"},
		{"lcr.dump_rules", "reads the rules without a lock while lcr.reload frees them: it kills Kamailio 5.6, and 6.0 has the same code; over JSON-RPC it also tells the last LCR instance only"},
		{"tls.options", "names the files of the certificates; when they expire is told by no method up to Kamailio 6.1 (tls/tls_rpc.c). Probe the TLS port itself, for instance with the blackbox exporter"},
		{"tm.hash_stats", "an error unless Kamailio was compiled with TM_HASH_STATS, which packages are not (tm/h_table.h)"},
		{"uac.reg_info", "tells of one registration what uac.reg_dump tells of all"},
	}
}
