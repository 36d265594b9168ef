package generate

func exporter() Dashboard {
	return Dashboard{
		UID:   "kamailio-exporter",
		Title: "Exporter",
		About: "Whether the exporter exports everything it should, what it costs Kamailio, and which expensive calls it skips.",
		From:  "now-1h",
		Rows: []row{
			{title: "Now", panels: []panel{
				func() panel { p := serversDown(); p.width = 8; return p }(),
				{
					kind: kindStat, width: 8, height: 4, title: "Collectors",
					help: "Collectors that failed at the last scrape although their module is loaded. Their metrics are missing; those of the other collectors are complete.",
					unit: "suffix: failing", none: "No exporter is scraped", steps: noneMay(red),
					queries: []query{{expr: `sum(kamailio_scrape_collector_success{S} == bool 0 and kamailio_scrape_collector_supported{S} == 1)`, legend: "failing"}},
				},
				{
					kind: kindStat, width: 8, height: 4, title: "Skipped",
					help: "Expensive calls that are currently skipped, because the server holds more than the limit or because they failed. Calls that can crash this version of Kamailio are never made; they are not counted here, and the table below lists them.",
					unit: number, none: "No exporter is scraped", steps: noneMay(orange),
					queries: []query{{expr: `sum(kamailio_scrape_skipped{S,reason!="danger"}) or max(kamailio_scrape_skipped{S}) * 0`, legend: "skipped"}},
				},
				{
					kind: kindStat, width: 8, height: 4, title: "Slowest scrape",
					help: "Duration of a scrape, at the slowest server. If it exceeds Prometheus' timeout, the metrics are lost.",
					unit: seconds, none: "No exporter is scraped", steps: badAbove(2, 5),
					queries: []query{{expr: `max(kamailio_scrape_duration_seconds{S})`, legend: "scrape"}},
				},
				{
					kind: kindStat, width: 8, height: 4, title: "RPCs",
					help: "RPCs per second of all selected exporters, over 5 minutes. Each RPC occupies a Kamailio process while it runs.",
					unit: rate, none: "Exporter metrics are switched off", steps: always(blue), places: new(2.0),
					queries: []query{{expr: `sum(rate(kamailio_exporter_rpc_requests_total{S}[5m]))`, legend: "RPCs"}},
				},
				{
					kind: kindStat, width: 8, height: 4, title: "Samples",
					help: "Samples of the last scrape, of all selected exporters.",
					unit: number, none: "No exporter is scraped", steps: always(blue),
					queries: []query{{expr: `sum(scrape_samples_scraped{S} and on (cluster, job, instance) kamailio_up{S})`, legend: "samples"}},
				},
			}},
			{title: "Collectors", panels: []panel{
				{
					kind: kindTimeline, width: 12, height: 24, title: "Collectors",
					help: "Whether each collector succeeded. Collectors whose module is not loaded are not shown.",
					unit: words, none: "No exporter is scraped", states: []state{{0, "Failed", red}, {1, "OK", green}},
					queries: []query{{expr: `min by (collector) (kamailio_scrape_collector_success{S} and kamailio_scrape_collector_supported{S} == 1)`, legend: "{{collector}}"}},
				},
				{
					kind: kindGraph, width: 12, height: 24, title: "Time by collector",
					help: "Duration of each collector. They run in parallel, so that a scrape takes about as long as the slowest one.",
					unit: seconds, none: "No exporter is scraped", legendTable: true,
					queries: []query{{expr: `max by (collector) (kamailio_scrape_collector_duration_seconds{S} and kamailio_scrape_collector_supported{S} == 1)`, legend: "{{collector}}"}},
				},
				{
					kind: kindTable, width: 12, height: 8, title: "Skipped",
					help: "Expensive calls that are skipped. size: the server holds more than the limit of the collector's flag. pause: the call failed, and is skipped for one minute, then two, four, and so on up to an hour. unknown: Kamailio does not report how much it holds. danger: the call can crash this version of Kamailio, so it is never made; this is normal.",
					unit: words, none: "Nothing is skipped", sort: "Collector", hidden: []string{"cluster", "job"},
					queries: []query{{expr: `max by (cluster, job, instance, collector, method, reason) (kamailio_scrape_skipped{S}) == 1`}},
					columns: []column{
						{title: "Collector", label: "collector", width: 180},
						{title: "Method", label: "method", width: 220},
						{title: "Reason", label: "reason", width: 100},
						{title: "Instance", label: "instance"},
					},
				},
				{
					kind: kindGraph, width: 12, height: 8, title: "Age of the samples",
					help: "Age of the samples of collectors whose expensive call is not made at every scrape. Up to --scrape.growing-interval (1 minute) is normal.",
					unit: seconds, none: "All collectors ask at every scrape",
					queries: []query{{expr: `max by (collector) (kamailio_scrape_data_age_seconds{S})`, legend: "{{collector}}"}},
				},
			}},
			{title: "Calls to Kamailio", panels: []panel{
				{
					kind: kindTimeline, width: 24, height: 8, title: "URIs",
					help: "Whether each URI is used, if several are configured; the ten worst, and first those that are not used now. A URI that does not reply, or that leads to another Kamailio than those before it, is skipped; the exporter's log reports why.",
					unit: words, none: "One URI is configured", states: []state{{0, "Not used", red}, {1, "Used", green}},
					queries: worstTimes(`min by (cluster, job, instance, uri) (kamailio_scrape_uri_usable{S})`, `kamailio_scrape_uri_usable{S}`, "cluster, job, instance, uri", "{{uri}} · {{instance}}"),
				},
				{
					kind: kindGraph, width: 12, height: 8, title: "RPCs by method",
					help: "RPCs per second that the exporter sends.",
					unit: rate, none: "Exporter metrics are switched off", legendTable: true,
					queries: []query{{expr: `sum by (method) (rate(kamailio_exporter_rpc_requests_total{S}[R]))`, legend: "{{method}}"}},
				},
				{
					kind: kindGraph, width: 12, height: 8, title: "Failed RPCs",
					help: "RPCs per second that got no reply, an invalid reply, or an error. Should be 0; the exporter's log has the details.",
					unit: rate, none: "Exporter metrics are switched off",
					queries: []query{
						{expr: `sum(rate(kamailio_exporter_rpc_failures_total{S}[R]))`, legend: "all", style: good},
						{expr: `sum by (method) (rate(kamailio_exporter_rpc_failures_total{S}[R])) > 0`, legend: "{{method}}"},
					},
				},
				{
					kind: kindGraph, width: 12, height: 8, title: "Bytes of replies",
					help: "Bytes per second that Kamailio sends to the exporter, by RPC. It rises if the reply of an RPC grows with traffic.",
					unit: "Bps", none: "Exporter metrics are switched off", legendTable: true,
					queries: []query{{expr: `sum by (method) (rate(kamailio_exporter_rpc_reply_bytes_total{S}[R]))`, legend: "{{method}}"}},
				},
				{
					kind: kindGraph, width: 12, height: 8, title: "Time of a scrape",
					help: "As the exporter measures it, and as Prometheus does, of the ten slowest.",
					unit: seconds, none: "No exporter is scraped",
					queries: []query{
						{expr: worst(`max by (cluster, job, instance) (kamailio_scrape_duration_seconds{S})`), legend: "exporter · {{instance}}"},
						{expr: worst(`max by (cluster, job, instance) (scrape_duration_seconds{S} and on (cluster, job, instance) kamailio_up{S})`), legend: "Prometheus · {{instance}}", style: lastWeek},
					},
				},
				{
					kind: kindTimeline, width: 24, height: 8, title: "CPU priority",
					help: "The ten exporters that ran at normal priority for the longest time. At idle priority an exporter runs only while a CPU has nothing else to do, so that calls do not wait for scrapes. On a busy host it runs at normal priority, and also where idle priority is not permitted; the log reports that at startup.",
					unit: words, none: "Exporter metrics are switched off", states: []state{{0, "Normal", blue}, {1, "Idle", green}},
					queries: worstTimes(`min by (cluster, job, instance) (kamailio_exporter_idle_priority{S})`, `kamailio_exporter_idle_priority{S}`, "cluster, job, instance", "{{instance}}"),
				},
			}},
			{title: "Many targets of one exporter", folded: true, panels: []panel{
				{
					kind: kindGraph, width: 12, height: 7, title: "Probes",
					help: "Probes per second of an exporter with many targets (--config.file), by result: up means that Kamailio replied, down that it did not, canceled that Prometheus disconnected first. These metrics are on /metrics of the exporter: select all jobs and instances, or those of the exporter itself.",
					unit: rate, none: "No exporter has many targets",
					queries: []query{{expr: `sum by (result) (rate(kamailio_exporter_probes_total{S}[R]))`, legend: "{{result}}"}},
				},
				{
					kind: kindGraph, width: 12, height: 7, title: "Refused probes",
					help: "Probes per second that were refused, by reason. unknown_target means that Prometheus has an outdated list of targets; not_allowed, file and credentials mean that a client is misconfigured, or that someone probes for access.",
					unit: rate, none: "No exporter has many targets",
					queries: []query{{expr: `sum by (reason) (rate(kamailio_exporter_probes_refused_total{S}[R]))`, legend: "{{reason}}"}},
				},
			}},
			{title: "Rules for alerts", folded: true, panels: []panel{
				{
					kind: kindTimeline, width: 12, height: 7, title: "Rules",
					help: "Whether each rule for alerts works. Open: its breaker has stopped it until an operator runs remediation.reset. In dry-run mode, a rule only reports what it would do.",
					unit: words, none: "No rules for alerts", states: []state{{0, "Dry run", blue}, {1, "Acts", green}, {2, "Open", red}, {3, "Open", red}},
					queries: []query{{expr: `max by (rule) (kamailio_exporter_remediation_enforced{S}) + 2 * max by (rule) (kamailio_exporter_remediation_breaker_open{S})`, legend: "{{rule}}"}},
				},
				{
					kind: kindGraph, width: 12, height: 7, title: "What rules did",
					help: "Actions of rules, by result; dry_run shows what would have been done. do: the alert fired. undo: it was resolved. Should be rare.",
					unit: number, none: "Rules did nothing",
					queries: []query{{expr: `sum by (rule, step, outcome) (increase(kamailio_exporter_remediation_actions_total{S}[R])) > 0`, legend: "{{rule}} · {{step}} · {{outcome}}"}},
				},
				{
					kind: kindGraph, width: 12, height: 7, title: "What kept rules from acting",
					help: "Alerts that a rule did not act on, by the guard rail. duplicate is normal, because Alertmanager repeats alerts. Repeated guard and budget open the breaker.",
					unit: number, none: "Nothing kept a rule from acting",
					queries: []query{{expr: `sum by (rule, guard) (increase(kamailio_exporter_remediation_refused_total{S}[R])) > 0`, legend: "{{rule}} · {{guard}}"}},
				},
				{
					kind: kindTable, width: 12, height: 7, title: "Rules now",
					help: "How many actions each rule may still run within its budget, and the actions that are not undone yet, such as a gateway that is out of service.",
					unit: number, none: "No rules for alerts", sort: "Rule", hidden: []string{"cluster", "job"},
					queries: []query{
						{expr: `max by (cluster, job, instance, rule) (kamailio_exporter_remediation_open_changes{S})`},
						{expr: `min by (cluster, job, instance, rule) (kamailio_exporter_remediation_budget_left{S})`},
					},
					columns: []column{
						{title: "Rule", label: "rule", width: 220},
						{title: "Instance", label: "instance", width: 200},
						{title: "Not undone", unit: number},
						{title: "Budget left", query: 1, unit: number},
					},
				},
			}},
			{title: "The exporter's process", panels: []panel{
				{
					kind: kindGraph, width: 8, height: 7, title: "CPU",
					help: "CPU time of the exporter, as a fraction of one core. The ten highest.",
					unit: ratio, none: "Exporter metrics are switched off",
					queries: []query{{expr: worst(`sum by (cluster, job, instance) (rate(process_cpu_seconds_total{S}[R]) and on (cluster, job, instance) kamailio_exporter_build_info{S})`), legend: "{{instance}}"}},
				},
				{
					kind: kindGraph, width: 8, height: 7, title: "Memory",
					help: "Memory of the exporter (resident). The ten highest.",
					unit: octets, none: "Exporter metrics are switched off", min: new(0.0),
					queries: []query{{expr: worst(`sum by (cluster, job, instance) (process_resident_memory_bytes{S} and on (cluster, job, instance) kamailio_exporter_build_info{S})`), legend: "{{instance}}"}},
				},
				{
					kind: kindGraph, width: 8, height: 7, title: "Goroutines",
					help: "Goroutines of the exporter, the ten highest. A line that keeps rising is a bug: please report it.",
					unit: number, none: "Exporter metrics are switched off",
					queries: []query{{expr: worst(`sum by (cluster, job, instance) (go_goroutines{S} and on (cluster, job, instance) kamailio_exporter_build_info{S})`), legend: "{{instance}}"}},
				},
				{
					kind: kindTable, width: 24, height: 6, title: "Versions",
					help: "Versions of the exporters and of Kamailio. Different versions within a cluster mean that an upgrade is not finished.",
					unit: words, none: "No exporter is scraped", sort: "Instance",
					queries: []query{
						{expr: `max by (cluster, job, instance, exporter, goversion) (label_replace(kamailio_exporter_build_info{S}, "exporter", "$1", "version", "(.*)"))`},
						{expr: `max by (cluster, job, instance, version) (kamailio_build_info{S})`},
					},
					columns: []column{
						{title: "Instance", label: "instance", links: true},
						{title: "Cluster", label: "cluster", width: 150},
						{title: "Job", label: "job", width: 200},
						{title: "Kamailio", label: "version", width: 200},
						{title: "Exporter", label: "exporter", width: 200},
						{title: "Go", label: "goversion", width: 200},
					},
				},
			}},
		},
	}
}
