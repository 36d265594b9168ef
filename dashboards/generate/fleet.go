package generate

func fleet() Dashboard {
	return Dashboard{
		UID:   "kamailio-fleet",
		Title: "Fleet",
		About: "All servers side by side, with one row or line for each, to find the one that differs. The names link to the dashboards of a server.",
		Rows: []row{
			{title: "Servers", panels: []panel{
				serversDown(),
				{
					kind: kindStat, width: 6, height: 4, title: "Exporters",
					help: "Exporters that are scraped.",
					unit: number, none: "No exporter is scraped", steps: always(blue),
					queries: []query{{expr: `count(kamailio_up{S})`, legend: "exporters"}},
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
					kind: kindTimeline, width: 24, height: 8, title: "State",
					help: "Whether each server worked, over time: those that do not work now, and then those that did not work before. The ten worst are shown.",
					unit: words, none: "No exporter is scraped", states: serverStates,
					queries: worstWorking(`min by (cluster, job, instance) (`+serverState+`)`, `kamailio_up{S}`, `(`+serverState+`) == bool 2`, "cluster, job, instance", "{{instance}}"),
				},
			}},
			{title: "Side by side", panels: []panel{
				sideBySide("Active calls", "Calls in progress that the server handles itself, without those that DMQ replicated. Servers that share the load evenly have similar values.", number, "dialog is not loaded",
					`sum by (cluster, job, instance) (kamailio_dialog_local_dialogs{S} or kamailio_dialog_dialogs{S})`),
				sideBySide("Dialogs in memory", "Calls in the server's memory, including those that DMQ replicated from other nodes (enable_dmq). The nodes of a replicating cluster have the same value; a node below the others has lost dialogs.", number, "dialog is not loaded",
					`sum by (cluster, job, instance) (kamailio_dialog_dialogs{S})`),
				sideBySide("New calls", "Call attempts per second, each counted once.", rate, "dialog is not loaded",
					`sum by (cluster, job, instance) (rate(kamailio_dialog_processed_total{S}[R]))`),
				func() panel {
					p := sideBySide("Answered (SER)", serHelp, ratio, "No calls", ser(" by (cluster, job, instance) ", "[15m]"))
					p.lowFirst = true
					return p
				}(),
				sideBySide("Registered users", "Addresses of record with at least one contact.", number, notCounted,
					`sum by (cluster, job, instance) (kamailio_usrloc_registered_users{S})`),
				sideBySide("Shared memory", "Shared memory in use.", ratio, "No server answers",
					`max by (cluster, job, instance) (`+sharedMemory+`)`),
				sideBySide("Transactions in memory", "A server with many more transactions than the others waits for something slow.", number, "tm is not loaded",
					`sum by (cluster, job, instance) (kamailio_tm_transactions_current{S})`),
				sideBySide("Requests received", "SIP requests per second, including retransmissions. This is the sum over all methods, because Kamailio's total also counts HTTP requests.", requests, "kex is not loaded",
					`sum by (cluster, job, instance) (rate(kamailio_core_requests_received_by_method_total{S}[R]))`),
				{
					kind: kindGraph, width: 12, height: 8, title: "Internal errors", unit: rate, none: "No errors in this time range, or sl is not loaded", legendTable: true,
					help:    "5xx replies that the server generated itself, per second: the ten highest, without those that are 0 in the whole time range. Should be 0.",
					queries: []query{{expr: worst(ownErrors) + ` > 0`, legend: "{{instance}}"}},
				},
			}},
		},
	}
}

// sideBySide compares the servers: the ten with the highest values at the end of the time
// range, the ten with the lowest, and the median of all.
func sideBySide(title, help string, u unit, none, expr string) panel {
	return panel{
		kind: kindGraph, width: 12, height: 8, title: title, unit: u, none: none, legendTable: true,
		help: help + " The ten highest and the ten lowest are shown, and the median of all servers.",
		queries: []query{
			{expr: `(` + expr + `) and (topk(10, ` + atEnd(expr) + `) or bottomk(10, ` + atEnd(expr) + `))`, legend: "{{instance}}"},
			{expr: `quantile(0.5, ` + expr + `)`, legend: "median", style: lastWeek},
		},
	}
}
