package generate

func fleet() Dashboard {
	return Dashboard{
		UID:   "kamailio-fleet",
		Title: "Fleet",
		About: "All servers side by side, with one row or line for each, to find the one that differs. The names link to the dashboards of a server.",
		Rows: []row{
			{title: "Servers", panels: []panel{
				{
					kind: kindStat, width: 6, height: 4, title: "Servers up",
					help: "Servers whose Kamailio replies.",
					unit: number, none: "No exporter is scraped", steps: always(green),
					queries: []query{{expr: `sum(kamailio_up{S})`, legend: "up"}},
				},
				{
					kind: kindStat, width: 6, height: 4, title: "Servers down",
					help: "Servers whose Kamailio does not reply, or whose exporter was scraped in the selected time range and no longer is.",
					unit: number, none: "No exporter is scraped", steps: noneMay(red),
					queries: []query{{expr: `sum((` + up + `) <= bool 0)`, legend: "down"}},
				},
				{
					kind: kindStat, width: 6, height: 4, title: "Versions of Kamailio",
					help: "Number of different versions that run. If it stays above one, an upgrade is not finished.",
					unit: number, none: "No server answers", steps: []step{{0, green}, {2, orange}},
					queries: []query{{expr: `count(count by (version) (kamailio_build_info{S}))`, legend: "versions"}},
				},
				{
					kind: kindStat, width: 6, height: 4, title: "Restarts, last day",
					help: "Restarts of all servers within the last 24 hours that Prometheus has data for.",
					unit: number, none: "No server answers", steps: anyIsBad(), places: new(0.0),
					queries: []query{{expr: `sum(changes(kamailio_start_time_seconds{S}[1d]))`, legend: "restarts"}},
				},
				func() panel { p := serverTable(); p.height = 10; return p }(),
			}},
			{title: "State", panels: []panel{
				{
					kind: kindTimeline, width: 24, height: 6, title: "State",
					help: "Whether each server replied, over time.",
					unit: words, none: "No exporter is scraped", states: serverStates,
					queries: []query{{expr: `min by (instance) (` + up + `)`, legend: "{{instance}}"}},
				},
			}},
			{title: "Side by side", panels: []panel{
				sideBySide("Active calls", "Calls in progress that the server handles itself, without those that DMQ replicated. Servers that share the load evenly have similar values.", number, "dialog is not loaded",
					`sum by (instance) (kamailio_dialog_local_dialogs{S} or kamailio_dialog_dialogs{S})`),
				sideBySide("Dialogs in memory", "Calls in the server's memory, including those that DMQ replicated from other nodes (enable_dmq). The nodes of a replicating cluster have the same value; a node below the others has lost dialogs.", number, "dialog is not loaded",
					`sum by (instance) (kamailio_dialog_dialogs{S})`),
				sideBySide("New calls", "Call attempts per second, each counted once.", rate, "dialog is not loaded",
					`sum by (instance) (rate(kamailio_dialog_processed_total{S}[R]))`),
				sideBySide("Answered (SER)", serHelp, ratio, "No calls",
					ser(" by (instance) ", "[15m]")),
				sideBySide("Registered users", "Addresses of record with at least one contact.", number, notCounted,
					`sum by (instance) (kamailio_usrloc_registered_users{S})`),
				sideBySide("Shared memory", "Shared memory in use.", ratio, "No server answers",
					`max by (instance) (`+sharedMemory+`)`),
				sideBySide("Transactions in memory", "A server with many more transactions than the others waits for something slow.", number, "tm is not loaded",
					`sum by (instance) (kamailio_tm_transactions_current{S})`),
				sideBySide("Requests received", "SIP requests per second, including retransmissions. This is the sum over all methods, because Kamailio's total also counts HTTP requests.", requests, "kex is not loaded",
					`sum by (instance) (rate(kamailio_core_requests_received_by_method_total{S}[R]))`),
				sideBySide("Internal errors", "5xx replies that the server generated itself, per second. Should be 0.", rate, "sl is not loaded",
					ownErrors),
			}},
		},
	}
}

// sideBySide is a graph with one line for each server.
func sideBySide(title, help string, u unit, none, expr string) panel {
	return panel{
		kind: kindGraph, width: 12, height: 8, title: title, help: help, unit: u, none: none, legendTable: true,
		queries: []query{{expr: expr, legend: "{{instance}}"}},
	}
}
