//go:build linux && load

package main

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kamailio-exporter/kamailio_exporter/kamrpc/kamrpctest/kamailiotest"
)

// trunksOrNot is a proxy that counts no calls, counts them with kamailio-trunks.cfg, or
// counts the same with xhttp_prom, by the shared variable mode.
const trunksOrNot = `#!KAMAILIO
debug=0
log_stderror=yes
children=4
auto_aliases=no
loadmodule "jsonrpcs.so"
loadmodule "kex.so"
loadmodule "tm.so"
loadmodule "tmx.so"
loadmodule "sl.so"
loadmodule "rr.so"
loadmodule "pv.so"
loadmodule "textops.so"
loadmodule "siputils.so"
loadmodule "dialog.so"
loadmodule "htable.so"
loadmodule "xhttp.so"
loadmodule "xhttp_prom.so"
modparam("pv", "shvset", "mode=i:0")
modparam("xhttp_prom", "xhttp_prom_timeout", 0)
modparam("xhttp_prom", "prom_counter", "name=attempts; label=trunk")
modparam("xhttp_prom", "prom_counter", "name=answered; label=trunk")
modparam("xhttp_prom", "prom_counter", "name=refused; label=trunk:code")
modparam("xhttp_prom", "prom_counter", "name=ended; label=trunk")
modparam("xhttp_prom", "prom_counter", "name=seconds; label=trunk")
modparam("xhttp_prom", "prom_histogram", "name=delay; label=trunk; buckets=100:250:500:1000:2000:3000:5000:8000:12000:20000")
#!define TRUNKS_DIALOG
include_file "INCLUDE"

route[TRUNK_NAME] {
	$var(trunk) = $avp(gateway);
}

branch_route[TRUNKS] {
	route(TRUNKS_BRANCH);
}

onreply_route[TRUNKS] {
	route(TRUNKS_REPLY);
}

branch_route[PROM] {
	if ($tt != $null) return;
	$avp(trunk) = $avp(gateway);
	$avp(start) = ($TV(sn) mod 1000000) * 1000 + $TV(un) / 1000;
	prom_counter_inc("attempts", "1", "$avp(trunk)");
}

onreply_route[PROM] {
	if ($rs < 180 || $avp(trunk) == $null) return;
	if ($rs < 300 && $avp(start) != $null) {
		$var(ms) = ($TV(sn) mod 1000000) * 1000 + $TV(un) / 1000 - $avp(start);
		$avp(start) = $null;
		prom_histogram_observe("delay", "$var(ms)", "$avp(trunk)");
	}
	if ($rs < 200) return;
	if ($rs < 300) {
		prom_counter_inc("answered", "1", "$avp(trunk)");
		$dlg_var(prom) = $avp(trunk);
	} else {
		prom_counter_inc("refused", "1", "$avp(trunk)", "$rs");
	}
	$avp(trunk) = $null;
}

event_route[dialog:end] {
	if ($dlg_var(prom) != $null) {
		prom_counter_inc("ended", "1", "$dlg_var(prom)");
		prom_counter_inc("seconds", "$DLG_lifetime", "$dlg_var(prom)");
	} else {
		route(TRUNKS_CALL_END);
	}
}

event_route[xhttp:request] {
	prom_dispatch();
}

request_route {
	if (is_method("OPTIONS")) {
		sl_send_reply("200", "OK");
		exit;
	}
	if (has_totag()) {
		if (loose_route() || (is_method("ACK") && t_check_trans())) t_relay();
		exit;
	}
	if (!is_method("INVITE")) exit;
	dlg_manage();
	record_route();
	# As dispatcher or drouting would, which keep the chosen gateway in an AVP.
	$avp(gateway) = "trunk" + ($(ci{s.select,0,-}{s.int}) mod TRUNKS);
	if ($shv(mode) == 1) {
		t_on_branch("TRUNKS");
		t_on_reply("TRUNKS");
	} else if ($shv(mode) == 2) {
		t_on_branch("PROM");
		t_on_reply("PROM");
	}
	$ru = "sip:callee@127.0.0.1:CALLEE";
	t_relay();
}
`

// TestCostOfTrunks compares Kamailio's reply times and its CPU per call without counters
// by trunk, with the include, and with the same counters of xhttp_prom. The modes
// alternate in one server while the calls continue, so that other load affects all alike.
func TestCostOfTrunks(t *testing.T) {
	if *load == 0 {
		t.Skip("takes minutes: make bench runs it")
	}
	const trunks = 50
	modes := []string{"no counters", "kamailio-trunks.cfg", "xhttp_prom"}
	include := readText(t, filepath.Join(top, "examples", "kamailio", "kamailio-trunks.cfg"))
	for _, version := range kamailiotest.Versions(t) {
		t.Run(version, func(t *testing.T) {
			callee := kamailiotest.NewGateway(t, nil)
			server := kamailiotest.Start(t, kamailiotest.Config{Version: version, Edit: func(string) string {
				return strings.NewReplacer(`include_file "INCLUDE"`, include, "TRUNKS);", fmt.Sprintf("%d);", trunks), "CALLEE", fmt.Sprint(callee.Port())).Replace(trunksOrNot)
			}})
			describeMachine(t, server)
			phones := newCaller(t, server)
			const settle = 2 * time.Second // of each window: calls of the mode before it end
			const inRun = 2 * 3
			processes := processesOf(t, server)
			medians, cpus := make([][]float64, len(modes)), make([][]float64, len(modes))
			printf(t, "\n%d trunks, %d calls per second, %d runs of %d windows of %v. Median of the runs (min..max).\n\n| | INVITE to 200, median | to no counters | Kamailio CPU per call | to no counters |\n| --- | --- | --- | --- | --- |\n", trunks, callsPerSecond, runsInTurn, inRun, *load)
			for run := range runsInTurn + 1 { // the first is a warm-up
				calls := phones.call(t, callsPerSecond, settle+inRun*(*load+settle))
				time.Sleep(settle)
				began := time.Now()
				var starts, ends []time.Time
				cpu := make([]time.Duration, len(modes))
				for i := range inRun {
					mode := (run + i) % len(modes)
					server.RPC(t, "pv.shvSet", "mode", "int", mode)
					time.Sleep(settle)
					starts = append(starts, time.Now())
					before := cpuTime(t, processes)
					time.Sleep(*load)
					cpu[mode] += cpuTime(t, processes) - before
					ends = append(ends, time.Now())
				}
				r := calls.result(t, began, time.Now())
				if run == 0 {
					continue
				}
				if r.failed > 0 {
					t.Errorf("%d calls failed", r.failed)
				}
				times := make([][]time.Duration, len(modes))
				for i, sent := range r.inviteSent {
					window := slices.IndexFunc(ends, sent.Before)
					if window >= 0 && sent.After(starts[window]) {
						mode := (run + window) % len(modes)
						times[mode] = append(times[mode], r.invite[i])
					}
				}
				for mode := range modes {
					medians[mode] = append(medians[mode], ms(quantile(times[mode], 0.5)))
					cpus[mode] = append(cpus[mode], ms(cpu[mode])/float64(len(times[mode])))
				}
			}
			for mode, name := range modes {
				var median, cpu []float64
				for i := range medians[mode] {
					median, cpu = append(median, medians[mode][i]/medians[0][i]), append(cpu, cpus[mode][i]/cpus[0][i])
				}
				printf(t, "| %s | %s ms | %s | %s ms | %s |\n", name, spreadOf(slices.Clone(medians[mode]), "%.3f"), spreadOf(median, "%.3f"), spreadOf(slices.Clone(cpus[mode]), "%.3f"), spreadOf(cpu, "%.3f"))
			}
			exporter := runExporter(t, []string{"unix://" + server.SocketPath, "fifo://" + server.FIFOPath}, "--scrape.growing-interval=0")
			var scrapes []float64
			for range 200 {
				page, err := exporter.get()
				if err != nil {
					t.Fatal(err)
				}
				if got := strings.Count(page, "\nkamailio_trunk_attempts_total{"); got != trunks {
					t.Fatalf("%d trunks are exported", got)
				}
				seconds := value(page, `kamailio_scrape_collector_duration_seconds{collector="trunks"}`)
				var s float64
				if _, err := fmt.Sscan(seconds, &s); err != nil {
					t.Fatalf("duration %q: %v", seconds, err)
				}
				scrapes = append(scrapes, s*1e3)
			}
			printf(t, "\nThe collector trunks takes %s ms.\n%s\n", spreadOf(scrapes, "%.2f"), loadAverage())
		})
	}
}
