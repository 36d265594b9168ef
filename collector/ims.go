package collector

import "strings"

// The IMS modules have only statistics; their Diameter peers are in cdp.go. The names of
// the Diameter commands are those of 3GPP TS 29.229 (UAR, LIR, MAR, SAR), TS 29.214 (AAR)
// and RFC 8506 (CCR). Kamailio's average response times are not exported, because they are
// averages since its start.

// answers are the metrics of the answers to Diameter requests; the last four parameters
// are statistics of the group.
func answers(requests, prefix, group, received, time, timeouts, average string) []Metric {
	stat := func(name string) string { return group + ":" + name }
	return []Metric{
		{Field: stat(received), Name: prefix + "answers_total", Kind: counter, Help: "Answers to " + requests + "."},
		{Field: stat(time), Name: prefix + "answer_seconds_total", Kind: counter, Scale: 0.001, Help: "Time that all answers to " + requests + " took, together."},
		{Field: stat(timeouts), Name: prefix + "timeouts_total", Kind: counter, Help: "Timeouts of " + requests + "."},
		{Field: stat(average), Instead: "kamailio_" + group + "_" + prefix + "answer_seconds_total divided by kamailio_" + group + "_" + prefix + "answers_total"},
	}
}

// cxAnswers are answers for the statistics of the Cx interface (ims_auth/stats.c).
func cxAnswers(command, group string) []Metric {
	return answers(strings.ToUpper(command)+" requests", command+"_", group, command+"_replies_received", command+"_replies_response_time", command+"_timeouts", command+"_avg_response_time")
}

// imsRegistrarModule is the registrar of an S-CSCF
// (ims_registrar_scscf/ims_registrar_scscf_mod.c).
var imsRegistrarModule = Module{
	Subsystem: "ims_registrar_scscf",
	Summary:   "IMS: registrations at the S-CSCF, and answers of the HSS to them",
	Queries: []Query{statistics("ims_registrar_scscf", append(cxAnswers("sar", "ims_registrar_scscf"),
		Metric{Field: "ims_registrar_scscf:accepted_regs", Name: "accepted_total", Kind: counter, Help: "Registrations accepted."},
		Metric{Field: "ims_registrar_scscf:rejected_regs", Name: "rejected_total", Kind: counter, Help: "Registrations rejected."},
		Metric{Field: "ims_registrar_scscf:notifies_in_q", Name: "notify_queue_length", Kind: gauge, Help: "NOTIFY requests of the registration event package that wait to be sent."},
		Metric{Field: "ims_registrar_scscf:max_contacts", Name: "max_contacts", Kind: gauge, Help: "Maximum number of contacts per public identity (max_contacts); 0 means no limit."},
		Metric{Field: "ims_registrar_scscf:max_expires", Name: "max_expires_seconds", Kind: gauge, Help: "Maximum lifetime of a registration (max_expires); 0 means no limit."},
		Metric{Field: "ims_registrar_scscf:default_expire", Name: "default_expires_seconds", Kind: gauge, Help: "Lifetime of a registration that requests none (default_expires)."},
		Metric{Field: "ims_registrar_scscf:default_expires_range", Name: "default_expires_range_percent", Kind: gauge, Help: "Random variation of the default registration lifetime, in percent (default_expires_range)."},
	)...)},
}

// imsUsrlocSCSCFModule is the registered users of an S-CSCF
// (ims_usrloc_scscf/ul_scscf_stats.c). The collisions are not read: Kamailio counts some of
// them below 0.
var imsUsrlocSCSCFModule = Module{
	Subsystem: "ims_usrloc_scscf",
	Summary:   "IMS: public identities, contacts and subscriptions in the memory of the S-CSCF",
	Queries: []Query{statistics("ims_usrloc_scscf",
		Metric{Field: "ims_usrloc_scscf:active_impus", Name: "impus", Kind: gauge, Help: "Public identities (IMPU) in memory."},
		Metric{Field: "ims_usrloc_scscf:active_contacts", Name: "contacts", Kind: gauge, Help: "Contacts in memory."},
		Metric{Field: "ims_usrloc_scscf:active_subscriptions", Name: "subscriptions", Kind: gauge, Help: "IMS subscriptions (private identities) in memory."},
		Metric{Pattern: "ims_usrloc_scscf:(impu|contact|subscription)_collisions", Instead: "hash collisions, which Kamailio counts below 0"},
	)},
}

// imsUsrlocPCSCFModule is the registered users of a P-CSCF
// (ims_usrloc_pcscf/ims_usrloc_pcscf_mod.c).
var imsUsrlocPCSCFModule = Module{
	Subsystem: "ims_usrloc_pcscf",
	Summary:   "IMS: public identities and contacts in the memory of the P-CSCF",
	Queries: []Query{statistics("ims_usrloc_pcscf",
		Metric{Field: "ims_usrloc_pcscf:registered_impus", Name: "impus", Kind: gauge, Help: "Public identities (IMPU) in memory."},
		Metric{Field: "ims_usrloc_pcscf:registered_contacts", Name: "contacts", Kind: gauge, Help: "Contacts in memory."},
		Metric{Field: "ims_usrloc_pcscf:expired_contacts", Name: "contacts_expired_total", Kind: counter, Help: "Contacts that expired."},
	)},
}

// imsDialogModule is the calls of ims_dialog, whose statistics are in the group dialog_ng
// (ims_dialog/ims_dialog.c).
var imsDialogModule = Module{
	Subsystem: "ims_dialog",
	Summary:   "IMS: calls",
	Queries: []Query{statistics("dialog_ng",
		Metric{Field: "dialog_ng:active", Name: "active_dialogs", Kind: gauge, Help: "Calls that are answered."},
		Metric{Field: "dialog_ng:early", Name: "early_dialogs", Kind: gauge, Help: "Calls that are not answered yet."},
		Metric{Field: "dialog_ng:processed", Name: "processed_total", Kind: counter, Help: "Calls created."},
		Metric{Field: "dialog_ng:expired", Name: "expired_total", Kind: counter, Help: "Calls that timed out instead of being ended by a BYE."},
	)},
}

// imsAuthModule is the authentication vectors that the S-CSCF asks the HSS for
// (ims_auth/ims_auth_mod.c).
var imsAuthModule = Module{
	Subsystem: "ims_auth",
	Summary:   "IMS: answers of the HSS to requests for authentication data",
	Queries:   []Query{statistics("ims_auth", cxAnswers("mar", "ims_auth")...)},
}

// imsICSCFModule is the locations that the I-CSCF asks the HSS for
// (ims_icscf/ims_icscf_mod.c).
var imsICSCFModule = Module{
	Subsystem: "ims_icscf",
	Summary:   "IMS: answers of the HSS to the I-CSCF",
	Queries:   []Query{statistics("ims_icscf", append(cxAnswers("uar", "ims_icscf"), cxAnswers("lir", "ims_icscf")...)...)},
}

// imsQoSModule is the media that the P-CSCF requests from the PCRF
// (ims_qos/ims_qos_stats.c).
var imsQoSModule = Module{
	Subsystem: "ims_qos",
	Summary:   "IMS: Rx sessions, and answers of the PCRF",
	Queries: []Query{statistics("ims_qos", append(append(rx("registration"), rx("media")...),
		Metric{Field: "ims_qos:media_rx_sessions", Name: "media_rx_sessions_opened_total", Kind: counter, Help: "Rx sessions for media that were opened."},
		Metric{Field: "ims_qos:asrs", Name: "asr_total", Kind: counter, Help: "ASR requests received: the PCRF ends a session."},
	)...)},
}

// rx are the metrics of one kind of Rx session.
func rx(kind string) []Metric {
	group, command := "ims_qos", kind+"_aar"
	metrics := answers("AAR requests for "+kind, command+"_", group, command+"_replies_received", command+"_response_time", command+"_timeouts", command+"_avg_response_time")
	return append(metrics,
		Metric{Field: group + ":active_" + kind + "_rx_sessions", Name: kind + "_rx_sessions", Kind: gauge, Help: "Rx sessions for " + kind + " that are open."},
		Metric{Field: group + ":" + kind + "_aars", Name: command + "_total", Kind: counter, Help: "AAR requests for " + kind + "."},
		Metric{Field: group + ":successful_" + kind + "_aars", Name: command + "_succeeded_total", Kind: counter, Help: "AAR requests for " + kind + " that succeeded."},
		Metric{Field: group + ":failed_" + kind + "_aars", Name: command + "_failed_total", Kind: counter, Help: "AAR requests for " + kind + " that failed."},
	)
}

// imsChargingModule is online charging (ims_charging/ims_charging_stats.c).
var imsChargingModule = Module{
	Subsystem: "ims_charging",
	Summary:   "IMS: Ro sessions, and answers of the charging system",
	Queries: []Query{statistics("ims_charging", append(answers("CCR requests", "ccr_", "ims_charging", "ccr_replies_received", "ccr_response_time", "ccr_timeouts", "ccr_avg_response_time"),
		Metric{Field: "ims_charging:active_ro_sessions", Name: "ro_sessions", Kind: gauge, Help: "Ro sessions that are open."},
		Metric{Field: "ims_charging:billed_secs", Name: "billed_seconds_total", Kind: counter, Help: "Seconds billed."},
		Metric{Field: "ims_charging:killed_calls", Name: "killed_calls_total", Kind: counter, Help: "Calls ended because there was no credit."},
		Metric{Pattern: "ims_charging:(initial|interim|final)_ccrs", PatternLabels: []string{"type"}, Name: "ccr_total", Kind: counter, Help: "CCR requests, by type."},
		Metric{Pattern: "ims_charging:successful_(initial|interim|final)_ccrs", PatternLabels: []string{"type"}, Name: "ccr_succeeded_total", Kind: counter, Help: "CCR requests that succeeded, by type."},
		Metric{Pattern: "ims_charging:failed_(initial|interim|final)_ccrs", PatternLabels: []string{"type"}, Name: "ccr_failed_total", Kind: counter, Help: "CCR requests that failed, by type."},
	)...)},
}
