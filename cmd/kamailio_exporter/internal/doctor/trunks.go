package doctor

import (
	"cmp"
	"context"
	"fmt"
	"regexp"

	"github.com/kamailio-exporter/kamailio_exporter/collector"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
)

// The lines of the hooks of examples/kamailio/kamailio-trunks.cfg.
var (
	trunkTable   = []string{`modparam("htable", "htable", "trunks=>size=10;initval=0;")`}
	trunkInclude = []string{`include_file "kamailio-trunks.cfg"  # docs/trunks.md has a complete example`}
	trunkBranch  = []string{"route[TRUNK_NAME] {", "\t$var(trunk) = $_s($nh(d):$nh(p));", "}", "branch_route[TO_TRUNK] {", "\troute(TRUNKS_BRANCH);", "}", "# before t_relay() of each call:", `t_on_branch("TO_TRUNK");`}
	trunkReply   = []string{"onreply_route[FROM_TRUNK] {", "\troute(TRUNKS_REPLY);", "}", "# before t_relay() of each call:", `t_on_reply("FROM_TRUNK");`}
	trunkEnd     = []string{"#!define TRUNKS_DIALOG  # before the include", "event_route[dialog:end] {", "\troute(TRUNKS_CALL_END);", "}"}

	countsAttempts = regexp.MustCompile(`(?m)^[^#\n]*\$shtinc\(\s*([\w-]+)\s*=>\s*attempts\|`)
)

// checkTrunks reports whether kamailio.cfg counts the calls to trunks, and which of its
// hooks does not run. Replies to INVITEs show that INVITEs were sent.
func checkTrunks(_ context.Context, p *patient) (all []Finding) {
	if p.snapshot == nil || !p.snapshot.Up {
		return nil
	}
	name := cmp.Or(p.cfg.TrunksTable, collector.DefaultTrunksTable)
	if config, _ := p.configuration(); config != "" {
		if found := countsAttempts.FindStringSubmatch(config); found != nil && found[1] != name {
			return one(Warn, fmt.Sprintf("kamailio.cfg counts the calls to trunks in the htable %s, but the exporter reads the htable %s", found[1], name), byFlag("--collector.trunks.table="+found[1]))
		}
	}
	finals, _ := p.total("kamailio_core_replies_received_by_method_total", "INVITE", "2xx", "3xx", "4xx", "5xx", "6xx")
	var table kamrpc.Value
	for t := range p.tables.All("") {
		if t.Get("name").Text() == name {
			table = t
		}
	}
	if !table.Exists() {
		if finals == 0 {
			return nil
		}
		hooks := append(append([]string{}, trunkInclude...), append(trunkBranch, trunkReply...)...)
		return one(Note, "the calls to each trunk or gateway are not counted. An include for kamailio.cfg adds attempts, answers, refusals, timeouts and post-dial delay by trunk; scripts in Lua and Python have one too",
			shell("kamailio_exporter assets --output-dir=kamailio-assets", "sudo cp kamailio-assets/examples/kamailio/kamailio-trunks.cfg /etc/kamailio/"), kamailioCfg(hooks...))
	}
	if database, replicated := table.Get("dbtable").Text(), table.Get("dmqreplicate").Text(); database != "" || replicated != "0" {
		all = one(Warn, fmt.Sprintf("the htable %s has dbtable or dmqreplicate: a reload or another node changes the counters, so that rates are wrong", name), kamailioCfg(trunkTable...))
	}
	// Without samples, the collector is disabled, skipped or fails, or nothing is counted.
	read := false
	for _, r := range p.snapshot.Results {
		_, skipped := r.Skipped()
		read = read || r.Collector == "trunks" && r.Err == nil && skipped == ""
	}
	if !read {
		return all
	}
	count := func(what string) float64 {
		n, _ := p.total("kamailio_trunk_" + what)
		return n
	}
	attempts, answered, refused := count("attempts_total"), count("answered_total"), count("refused_total")
	byes, _ := p.total("kamailio_core_requests_received_by_method_total", "BYE")
	dialogs, _ := p.loads("dialog")
	switch {
	case attempts == 0 && finals > 0:
		all = append(all, Finding{Level: Warn, Text: fmt.Sprintf("the htable %s counts no attempt, although Kamailio received %.0f final replies to INVITEs: the branch route does not run for them, or route[TRUNK_NAME] leaves $var(trunk) empty. Ignore this if all calls go to registered users", name, finals),
			Fixes: []Fix{kamailioCfg(trunkBranch...)}})
	case attempts > 0 && finals > 0 && answered+refused == 0:
		all = append(all, Finding{Level: Warn, Text: fmt.Sprintf("the htable %s has %.0f attempts, none of them answered or refused, although Kamailio received %.0f final replies to INVITEs: the reply route does not run for them", name, attempts, finals),
			Fixes: []Fix{kamailioCfg(trunkReply...)}})
	case answered > 0 && byes > 0 && dialogs && count("calls_ended_total") == 0:
		all = append(all, Finding{Level: Note, Text: "the length of the calls to trunks is not counted", Fixes: []Fix{kamailioCfg(trunkEnd...)}})
	default:
		all = append(all, Finding{Level: OK, Text: fmt.Sprintf("the htable %s counts the calls to trunks: %.0f attempts", name, attempts)})
	}
	return all
}
