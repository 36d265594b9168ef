package generate

func resources() Dashboard {
	return Dashboard{
		UID:   "kamailio-resources",
		Title: "Resources",
		About: "Memory, transactions, connections and processes: what runs out before calls fail.",
		Rows: []row{
			{title: "Now", panels: []panel{
				{
					kind: kindStat, width: 8, height: 4, title: "Shared memory",
					help: "Shared memory in use, of the server with the highest fraction. At 100%, calls and registrations fail with 500; raise -m before that.",
					unit: ratio, none: "No server answers", steps: badAbove(0.85, 0.95), min: new(0.0), max: new(1.0), places: new(1.0),
					queries: []query{{expr: `max(` + sharedMemory + `)`, legend: "used"}},
				},
				{
					kind: kindStat, width: 8, height: 4, title: "Memory lasts",
					help: "Time until the shared memory is full, if it grows as in the last hour. \"Steady\": it does not grow, or Kamailio is up for less than an hour.",
					unit: seconds, none: "No server answers", states: []state{{1e9, "Steady", green}}, steps: []step{{0, red}, {4 * 3600, orange}, {24 * 3600, green}}, places: new(1.0),
					queries: []query{{expr: `min(kamailio_core_shm_free_bytes{S} / (-deriv(kamailio_core_shm_free_bytes{S}[1h]) > 1000)` + upForAnHour + `) or max(kamailio_core_shm_free_bytes{S}) * 0 + 1e9`, legend: "time left"}},
				},
				{
					kind: kindStat, width: 8, height: 4, title: "Fullest process",
					help: "Private memory in use, of the process with the highest fraction. When it is full, that worker and its calls fail; raise -M.",
					unit: ratio, none: "No sizes of private memory", steps: badAbove(0.8, 0.9), min: new(0.0), max: new(1.0), places: new(1.0),
					queries: []query{{expr: `max(kamailio_pkg_real_used_bytes{S} / kamailio_pkg_total_bytes{S})`, legend: "used"}},
				},
				{
					kind: kindStat, width: 8, height: 4, title: "Transactions",
					help: "Transactions in memory. Many more than usual mean that a peer, a database or a DNS server is slow.",
					unit: number, none: "tm is not loaded", steps: always(blue),
					queries: []query{{expr: `sum(kamailio_tm_transactions_current{S})`, legend: "transactions"}},
				},
				{
					kind: kindStat, width: 8, height: 4, title: "TCP connections",
					help: "Open TCP and TLS connections as a fraction of their limit (tcp_max_connections), of the server with the highest fraction. At the limit, new connections are refused.",
					unit: ratio, none: "TCP is off, or no server answers", steps: badAbove(0.7, 0.85), min: new(0.0), max: new(1.0), places: new(1.0),
					queries: []query{{expr: `max(kamailio_tcp_connections{S} / (kamailio_tcp_max_connections{S} > 0))`, legend: "of the limit"}},
				},
				{
					kind: kindStat, width: 8, height: 4, title: "Youngest server",
					help: "Time since the last start of any of the chosen servers. If a restart was not planned, look for a core dump, or for the kernel's out-of-memory killer.",
					unit: seconds, none: "No server answers", steps: []step{{0, orange}, {3600, green}}, places: new(1.0),
					queries: []query{{expr: `min(time() - kamailio_start_time_seconds{S})`, legend: "up for"}},
				},
			}},
			{title: "SIP sockets", panels: []panel{
				{
					kind: kindTimeline, width: 12, height: 9, title: "SIP answers",
					help: "Whether each probed SIP socket sent a final reply to OPTIONS, with any status code; the ten worst, and first those that do not answer now. If it did not while Kamailio is up, its SIP workers hang or are all busy.",
					unit: words, none: "Nothing is probed: --sip.probe", states: []state{{0, "No answer", red}, {1, "OK", green}},
					queries: worstTimes(`min by (cluster, job, instance, transport, address, server_name) (kamailio_sip_probe_success{S})`, `kamailio_sip_probe_success{S}`,
						"cluster, job, instance, transport, address, server_name", "{{transport}}:{{address}} {{server_name}} · {{instance}}"),
				},
				{
					kind: kindGraph, width: 12, height: 9, title: "Answer time of SIP",
					help: "Time until the final reply to OPTIONS, including the connection setup (TCP) and the handshake (TLS); the ten slowest. A rise means that workers are busy, or wait for something slow.",
					unit: seconds, none: "Nothing is probed, or nothing answers: --sip.probe", min: new(0.0),
					queries: []query{{expr: worst(`max by (cluster, job, instance, transport, address, server_name) (kamailio_sip_probe_duration_seconds{S})`), legend: "{{transport}}:{{address}} {{server_name}} · {{instance}}"}},
				},
				{
					kind: kindTable, width: 24, height: 6, title: "Certificates",
					help: "Time until the certificates of the probed TLS sockets expire, and whether they are trusted and have the expected name. After a renewal, tls.reload loads the new one.",
					unit: seconds, none: "No TLS socket is probed: --sip.probe", sort: "Expires in", hidden: []string{"cluster", "job", "transport"},
					queries: []query{
						{expr: `min by (cluster, job, instance, transport, address, server_name) (kamailio_sip_probe_tls_certificate_not_after_timestamp_seconds{S} - time())`},
						{expr: `min by (cluster, job, instance, transport, address, server_name) (kamailio_sip_probe_tls_verified{S})`},
					},
					columns: []column{
						{title: "Socket", label: "address"},
						{title: "Name", label: "server_name"},
						{title: "Instance", label: "instance"},
						{title: "Expires in", query: 0, unit: seconds, width: 100, places: new(1.0), steps: []step{{-1e10, red}, {2 * 86400, orange}, {14 * 86400, green}}},
						{title: "Trusted", query: 1, unit: words, width: 75, states: []state{{0, "No", orange}, {1, "Yes", green}}},
					},
				},
			}},
			{title: "Overload", panels: []panel{
				{
					kind: kindGraph, width: 12, height: 8, title: "Receive queues",
					help: "How full the queues are in which the kernel keeps what Kamailio has not received yet: datagrams of UDP sockets, and connections that are not accepted. The ten fullest. Above 0, all workers of the socket are busy at this moment; at 100%, the kernel drops.",
					unit: ratio, none: notOnHost, min: new(0.0), limits: true, steps: []step{{0.5, orange}, {1, red}},
					queries: []query{
						{expr: worst(`max by (cluster, job, instance, address, port) (kamailio_host_udp_queue_bytes{S} / (kamailio_host_udp_queue_limit_bytes{S} > 0))`), legend: "udp:{{address}}:{{port}} · {{instance}}"},
						{expr: worst(`max by (cluster, job, instance, protocol, address, port) (kamailio_host_tcp_accept_queue_connections{S} / (kamailio_host_tcp_accept_queue_limit_connections{S} > 0))`), legend: "{{protocol}}:{{address}}:{{port}} · {{instance}}"},
					},
				},
				{
					kind: kindGraph, width: 12, height: 8, title: "Dropped by the kernel",
					help: "Datagrams and connection requests per second that the kernel dropped before Kamailio could count them; the ten highest. Senders repeat them, which makes an overload worse.",
					unit: rate, none: notOnHost, min: new(0.0),
					queries: []query{
						{expr: worst(`sum by (cluster, job, instance, address, port) (rate(kamailio_host_udp_dropped_total{S}[R]))`), legend: "udp:{{address}}:{{port}} · {{instance}}"},
						{expr: worst(`sum by (cluster, job, instance, protocol, address, port) (rate(kamailio_host_tcp_accept_dropped_total{S}[R]))`), legend: "{{protocol}}:{{address}}:{{port}} · {{instance}}"},
					},
				},
				{
					kind: kindGraph, width: 12, height: 8, title: "Busy processes",
					help: "Share of the time in which the processes of a kind do not sleep: they use a CPU or wait for one. The ten busiest. Near 100%, more traffic waits. A worker that waits for a database or DNS sleeps: look at the receive queues.",
					unit: ratio, none: notOnHost, min: new(0.0), legendTable: true,
					queries: []query{{expr: worst(`max by (cluster, job, instance, description) ((rate(kamailio_host_process_cpu_seconds_total{S}[R]) + rate(kamailio_host_process_cpu_wait_seconds_total{S}[R])) / kamailio_core_processes{S})`), legend: "{{description}} · {{instance}}"}},
				},
				{
					kind: kindGraph, width: 12, height: 8, title: "Waiting for a CPU",
					help: "CPUs that Kamailio's processes use, and that they would use in addition if they did not have to wait. If they wait as much as they run, the host has too few CPUs, or a cgroup limits them.",
					unit: number, none: notOnHost, min: new(0.0), places: new(2.0),
					queries: []query{
						{expr: `sum(rate(kamailio_host_process_cpu_seconds_total{S}[R]))`, legend: "running", style: neutral},
						{expr: `sum(rate(kamailio_host_process_cpu_wait_seconds_total{S}[R]))`, legend: "waiting", style: bad},
					},
				},
				{
					kind: kindGraph, width: 12, height: 8, title: "File descriptors",
					help: "Open file descriptors of the fullest process of a server, as a fraction of their limit (LimitNOFILE of its unit); the ten fullest. Each TCP connection takes one in the process \"tcp main process\".",
					unit: ratio, none: notOnHost + ", or its Linux is older than 6.2", min: new(0.0), limits: true, steps: []step{{0.8, red}},
					queries: []query{{expr: worst(`max by (cluster, job, instance) (kamailio_host_process_open_fds{S}) / max by (cluster, job, instance) (kamailio_host_process_max_fds{S} > 0)`), legend: "{{instance}}"}},
				},
				{
					kind: kindGraph, width: 12, height: 8, title: "Memory of the processes",
					help: "Resident memory of all processes of Kamailio, as the kernel counts it: what each has for itself, and what they share, counted once. If the private part grows day by day, a library leaks, because Kamailio's own private memory is limited (-M).",
					unit: octets, none: notOnHost, min: new(0.0),
					queries: []query{
						{expr: `sum(kamailio_host_process_private_memory_bytes{S})`, legend: "private", style: neutral},
						{expr: `sum(kamailio_host_shared_memory_bytes{S})`, legend: "shared"},
						{expr: `sum(kamailio_host_process_private_memory_bytes{S} offset 1w)`, legend: "private, last week", style: lastWeek},
					},
				},
			}},
			{title: "Memory", panels: []panel{
				{
					kind: kindGraph, width: 12, height: 8, title: "Shared memory",
					help: "Share of the shared memory in use, including the allocator's overhead, of the ten fullest servers. If it rises day by day, there is a leak, or hash table entries, dialogs or contacts never expire.",
					unit: ratio, none: "No server answers", min: new(0.0), max: new(1.0), limits: true, steps: []step{{0.85, orange}, {0.95, red}},
					queries: []query{{expr: worst(`max by (cluster, job, instance) (` + sharedMemory + `)`), legend: "{{instance}}"}},
				},
				{
					kind: kindGraph, width: 12, height: 8, title: "Shared memory in four hours",
					help: "Free shared memory of the three fullest servers, and the forecast for four hours from now, based on the last hour. If the forecast is 0, act now. There is no forecast in the first hour after a start.",
					unit: octets, none: "No server answers",
					queries: []query{
						{expr: `sum by (cluster, job, instance) (kamailio_core_shm_free_bytes{S})` + fullest, legend: "free · {{instance}}"},
						{expr: `clamp_min(sum by (cluster, job, instance) (predict_linear(kamailio_core_shm_free_bytes{S}[1h], 4 * 3600)` + upForAnHour + `), 0)` + fullest, legend: "in 4 h · {{instance}}", style: lastWeek},
					},
				},
				{
					kind: kindGraph, width: 12, height: 8, title: "Fragments of shared memory",
					help: "Free fragments of the shared memory, of the ten servers with the most. If there are many small ones, a large allocation can fail although memory is free. The number grows after the start and then stabilizes; investigate if it keeps growing.",
					unit: number, none: "No server answers",
					queries: []query{{expr: worst(`sum by (cluster, job, instance) (kamailio_core_shm_fragments{S})`), legend: "{{instance}}"}},
				},
				{
					kind: kindGraph, width: 12, height: 8, title: "Private memory, fullest processes",
					help: "Private memory in use, of the ten processes with the highest fraction. Each process has its own private memory, and fails alone when it is full.",
					unit: ratio, none: "No sizes of private memory", min: new(0.0), legendTable: true,
					queries: []query{{expr: worst(`max by (cluster, job, instance, process) (kamailio_pkg_real_used_bytes{S} / kamailio_pkg_total_bytes{S})`), legend: "{{process}} · {{instance}}"}},
				},
			}},
			{title: "Transactions", panels: []panel{
				{
					kind: kindGraph, width: 12, height: 8, title: "Transactions in memory",
					help: "All transactions in memory, and those that are complete and wait for late retransmissions. If they grow without more traffic, Kamailio waits for something slow.",
					unit: number, none: "tm is not loaded",
					queries: []query{
						{expr: `sum(kamailio_tm_transactions_current{S})`, legend: "in memory", style: neutral},
						{expr: `sum(kamailio_tm_transactions_waiting{S})`, legend: "waiting for retransmissions", style: warning},
						{expr: `sum(kamailio_tm_transactions_current{S} offset 1w)`, legend: "in memory, last week", style: lastWeek},
					},
				},
				{
					kind: kindGraph, width: 12, height: 8, title: "Transactions begun",
					help: "Transactions per second that were started by received requests, and by Kamailio itself (pings of gateways, its own registrations, presence).",
					unit: rate, none: "tm is not loaded",
					queries: []query{
						{expr: `sum(rate(kamailio_tm_transactions_total{S}[R]))`, legend: "all", style: neutral},
						{expr: `sum(rate(kamailio_tm_local_transactions_total{S}[R]))`, legend: "Kamailio's own"},
					},
				},
				{
					kind: kindGraph, width: 12, height: 8, title: "Retransmissions absorbed",
					help: "Replies received for a transaction that were not relayed, per second: mostly retransmissions. The ten highest. A rise means packet loss, or a peer that does not acknowledge.",
					unit: rate, none: "None, or tmx or kex is not loaded",
					queries: []query{{expr: worst(`sum by (cluster, job, instance) (rate(kamailio_tmx_replies_absorbed_total{S}[R]))`) + ` > 0`, legend: "{{instance}}"}},
				},
				{
					kind: kindGraph, width: 12, height: 8, title: "Transactions created and freed",
					help: "The two lines normally overlap. If created stays above freed, transactions leak or do not end.",
					unit: rate, none: "tm is not loaded",
					queries: []query{
						{expr: `sum(rate(kamailio_tm_cells_created_total{S}[R]))`, legend: "created", style: neutral},
						{expr: `sum(rate(kamailio_tm_cells_freed_total{S}[R]))`, legend: "freed", style: good},
					},
				},
			}},
			{title: "Connections", panels: []panel{
				{
					kind: kindGraph, width: 12, height: 8, title: "TCP, TLS and WebSocket connections",
					help: "Open connections. TCP includes TLS and WebSocket.",
					unit: number, none: "TCP is off, or no server answers",
					queries: []query{
						{expr: `sum(kamailio_tcp_connections{S})`, legend: "TCP", style: neutral},
						{expr: `sum(kamailio_tcp_tls_connections{S})`, legend: "TLS", style: good},
						{expr: `sum(kamailio_websocket_connections{S,protocol="all"})`, legend: "WebSocket", style: warning},
					},
				},
				{
					kind: kindGraph, width: 12, height: 8, title: "TCP trouble",
					help: "Per second: failed connects, resets by the peer, idle timeouts, connections refused (at the limit) and sends with a full queue, without those that are 0. Idle timeouts are normal.",
					unit: rate, none: "No trouble in this time range, or TCP is off",
					colors: []color{{"connect failed", red}, {"reset by peer", orange}, {"idle", blue}, {"refused", "dark-red"}, {"send queue full", "purple"}, {"send timed out", "light-purple"}},
					queries: []query{{legend: "{{what}}", expr: worst(union("what", []labeled{
						{"connect failed", `sum(rate(kamailio_tcp_connects_failed_total{S}[R]))`},
						{"reset by peer", `sum(rate(kamailio_tcp_connection_resets_total{S}[R]))`},
						{"idle", `sum(rate(kamailio_tcp_connection_timeouts_total{S}[R]))`},
						{"refused", `sum(rate(kamailio_tcp_connections_rejected_total{S}[R]))`},
						{"send queue full", `sum(rate(kamailio_tcp_send_queue_full_total{S}[R]))`},
						{"send timed out", `sum(rate(kamailio_tcp_send_timeouts_total{S}[R]))`},
					})) + ` > 0`}},
				},
				{
					kind: kindGraph, width: 12, height: 8, title: "Waiting to be sent",
					help: "Bytes queued in TCP and TLS connections for a slow receiver; the ten highest. Should return to 0 at once.",
					unit: octets, none: "Nothing waits, or TCP is off",
					queries: []query{
						{expr: worst(`sum by (cluster, job, instance) (kamailio_tcp_write_queue_bytes{S})`) + ` > 0`, legend: "{{instance}}"},
					},
				},
				{
					kind: kindGraph, width: 12, height: 8, title: "DNS and database",
					help: "DNS lookups per second that failed or were slow, and connections to MySQL or MariaDB that failed. A worker waits for each of them, so a dead resolver or database slows down everything.",
					unit: rate, none: "None, or no statistics",
					queries: []query{
						{expr: `sum(rate(kamailio_dns_failed_requests_total{S}[R])) > 0`, legend: "failed", style: bad},
						{expr: `sum(rate(kamailio_dns_slow_requests_total{S}[R])) > 0`, legend: "slow", style: warning},
						{expr: `sum(rate(kamailio_db_mysql_driver_errors_total{S}[R])) > 0`, legend: "database"},
					},
				},
			}},
			{title: "Processes", panels: []panel{
				{
					kind: kindTable, width: 12, height: 9, title: "Processes",
					help: "Kamailio's processes, by task: the smallest and the largest number on a server. It changes only with the configuration.",
					unit: number, none: "No server answers", sort: "Process",
					queries: []query{
						{expr: `min by (description) (sum by (cluster, job, instance, description) (kamailio_core_processes{S}))`},
						{expr: `max by (description) (sum by (cluster, job, instance, description) (kamailio_core_processes{S}))`},
					},
					columns: []column{
						{title: "Process", label: "description"},
						{title: "Fewest", query: 0, unit: number, width: 100},
						{title: "Most", query: 1, unit: number, width: 100},
					},
				},
				{
					kind: kindTable, width: 12, height: 9, title: "Private memory",
					help: "Private memory of the 50 processes with the highest fraction in use.",
					unit: octets, none: "No sizes of private memory", sort: "-Used", hidden: []string{"cluster", "job", "index"},
					queries: []query{
						{expr: fullestProcesses},
						{expr: `max by (cluster, job, instance, process, index) (kamailio_pkg_free_bytes{S}) and ` + fullestProcesses},
						{expr: `max by (cluster, job, instance, process, index) (kamailio_pkg_fragments{S}) and ` + fullestProcesses},
					},
					columns: []column{
						{title: "Process", label: "process"},
						{title: "Instance", label: "instance", width: 180},
						{title: "Used", query: 0, unit: ratio, width: 90, places: new(1.0), steps: badAbove(0.8, 0.9)},
						{title: "Free", query: 1, unit: octets, width: 100},
						{title: "Fragments", query: 2, unit: number, width: 100},
					},
				},
				{
					kind: kindGraph, width: 24, height: 7, title: "Uptime",
					help: "Time since the start of the ten servers that started last. Each drop to 0 is a restart.",
					unit: seconds, none: "No server answers",
					queries: []query{{expr: lowest(`sum by (cluster, job, instance) (time() - kamailio_start_time_seconds{S})`), legend: "{{instance}}"}},
				},
			}},
		},
	}
}

// fullest keeps the three servers with the highest fraction of shared memory in use.
var fullest = ` and topk(3, max by (cluster, job, instance) (` + atEnd(sharedMemory) + `))`

const fullestProcesses = `topk(50, max by (cluster, job, instance, process, index) (kamailio_pkg_real_used_bytes{S} / kamailio_pkg_total_bytes{S}))`

// upForAnHour omits servers in their first hour, in which memory always grows.
const upForAnHour = ` and on (cluster, job, instance) time() - kamailio_start_time_seconds{S} > 3600`
