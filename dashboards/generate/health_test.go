package generate

import "testing"

// unwell are four servers, of which one is well, and three fail after five minutes: b is
// down, the exporter of c is gone, and d does not answer SIP. From minute 40 on nothing is
// scraped any more. From minute 65 on six other servers have alerts.
const unwell = `
  - {series: 'kamailio_up{job="j", instance="a"}', values: '1x39 stale'}
  - {series: 'kamailio_up{job="j", instance="b"}', values: '1x4 0x34 stale'}
  - {series: 'kamailio_up{job="j", instance="c"}', values: '1x4 stale'}
  - {series: 'kamailio_up{job="j", instance="d"}', values: '1x39 stale'}
  - {series: 'kamailio_sip_probe_success{job="j", instance="a", address="a"}', values: '1x39 stale'}
  - {series: 'kamailio_sip_probe_success{job="j", instance="d", address="d"}', values: '1x4 0x34 stale'}
  - {series: 'kamailio_dispatcher_destination_up{job="j", instance="a", set="1", uri="x"}', values: '1x4 0x34 stale'}
  - {series: 'kamailio_dispatcher_destination_up{job="j", instance="a", set="1", uri="y"}', values: '1x39 stale'}
  - {series: 'kamailio_dispatcher_destination_up{job="j", instance="a", set="2", uri="z"}', values: '0x39 stale'}
  - {series: 'kamailio_dispatcher_destination_state{job="j", instance="a", set="2", uri="z"}', values: '3x39 stale'}
  - {series: 'kamailio_dialog_processed_total{job="j", instance="a"}', values: '0+60x39 stale'}
  - {series: 'kamailio_dialog_failed_total{job="j", instance="a"}', values: '0+12x20 300+60x18 stale'}
  - {series: 'ALERTS{job="j", instance="a", alertname="KamailioTrunkFailsCalls", trunk="u", alertstate="firing", severity="warning"}', values: '_x6 1x32 stale'}
  - {series: 'ALERTS{job="j", instance="b", alertname="KamailioDown", alertstate="firing", severity="critical"}', values: '_x5 1x33 stale'}
  - {series: 'ALERTS{job="j", instance="b", alertname="KamailioSIPNotAnswering", address="b", alertstate="firing", severity="critical"}', values: '1x39 stale'}
  - {series: 'kamailio_trunk_attempts_total{job="j", instance="a", trunk="t"}', values: '0+60x39 stale'}
  - {series: 'kamailio_trunk_timeouts_total{job="j", instance="a", trunk="t", stage="silent"}', values: '0x39 stale'}
  - {series: 'kamailio_trunk_attempts_total{job="j", instance="a", trunk="u"}', values: '0+60x39 stale'}
  - {series: 'kamailio_trunk_timeouts_total{job="j", instance="a", trunk="u", stage="silent"}', values: '0x39 stale'}
  - {series: 'kamailio_trunk_refused_total{job="j", instance="a", trunk="u", code="503"}', values: '0x19 60+60x19 stale'}
  - {series: 'ALERTS{job="j", instance="1", alertname="KamailioCallsNotAnswered", alertstate="firing", severity="critical"}', values: '_x64 1x9'}
  - {series: 'ALERTS_FOR_STATE{job="j", instance="1", alertname="KamailioCallsNotAnswered", severity="critical"}', values: '_x64 3900x9'}
  - {series: 'ALERTS{job="j", instance="1", alertname="KamailioInviteServerErrors", alertstate="firing", severity="warning"}', values: '_x64 1x9'}
  - {series: 'ALERTS_FOR_STATE{job="j", instance="1", alertname="KamailioInviteServerErrors", severity="warning"}', values: '_x64 3840x9'}
  - {series: 'ALERTS{job="j", instance="2", alertname="KamailioCallsNotAnswered", alertstate="firing", severity="critical"}', values: '_x64 1x9'}
  - {series: 'ALERTS_FOR_STATE{job="j", instance="2", alertname="KamailioCallsNotAnswered", severity="critical"}', values: '_x64 3900x9'}
  - {series: 'ALERTS{job="j", instance="2", alertname="KamailioSIPNotAnswering", alertstate="firing", severity="critical"}', values: '_x64 1x9'}
  - {series: 'ALERTS_FOR_STATE{job="j", instance="2", alertname="KamailioSIPNotAnswering", severity="critical"}', values: '_x64 3840x9'}
  - {series: 'ALERTS{job="j", instance="3", alertname="KamailioPikeBlocking", alertstate="firing", severity="info"}', values: '_x64 1x9'}
  - {series: 'ALERTS_FOR_STATE{job="j", instance="3", alertname="KamailioPikeBlocking", severity="info"}', values: '_x64 3900x9'}
  - {series: 'ALERTS{job="j", instance="4", alertname="KamailioPikeBlocking", alertstate="firing", severity="info"}', values: '_x64 1x9'}
  - {series: 'ALERTS_FOR_STATE{job="j", instance="4", alertname="KamailioPikeBlocking", severity="info"}', values: '_x64 3900x9'}
  - {series: 'ALERTS{job="j", instance="5", alertname="KamailioPikeBlocking", alertstate="firing", severity="info"}', values: '_x64 1x9'}
  - {series: 'ALERTS_FOR_STATE{job="j", instance="5", alertname="KamailioPikeBlocking", severity="info"}', values: '_x64 3900x9'}
  - {series: 'ALERTS{job="j", instance="6", alertname="KamailioPikeBlocking", alertstate="firing", severity="info"}', values: '_x64 1x9'}
  - {series: 'ALERTS_FOR_STATE{job="j", instance="6", alertname="KamailioPikeBlocking", severity="info"}', values: '_x64 3900x9'}
`

// TestHealth checks what the first screen of the overview says: a gateway of a set that
// still has another, and a disabled one, are no failures.
func TestHealth(t *testing.T) {
	const nothing = `{labels: '{part="Unknown"}', value: -1}`
	down := outOf(`(`+serverState+`) != bool 2`, "failing", "No exporter is scraped")
	state := worstWorking(`min by (cluster, job, instance) (`+serverState+`)`, `kamailio_up{S}`, `(`+serverState+`) == bool 2`, "cluster, job, instance", "{{instance}}")
	evaluates(t, unwell, []evaluation{
		{canCall, "4m", "{labels: '{}', value: 2}"},
		{affected, "4m", `{labels: '{part="Nothing"}', value: 2}`},
		{lastGood, "4m", "{labels: '{}', value: 240000}"},
		{down, "4m", `{labels: '{n="0", of="4", text="0 of 4 failing"}', value: 0}`},

		{whichAlert(firing), "4m", `{labels: '{job="j", instance="b", alert="SIPNotAnswering", about="b"}', value: 3}`},
		{whichAlert(firing), "8m", `{labels: '{job="j", instance="a", alert="TrunkFailsCalls", about="u"}', value: 2}, {labels: '{job="j", instance="b", alert="Down"}', value: 4}`},
		{canCall, "8m", "{labels: '{}', value: 1}"},
		// An alert is enough for Trunks, although no calls have failed yet.
		{affected, "8m", `{labels: '{part="Servers"}', value: 1}, {labels: '{part="SIP sockets"}', value: 1}, {labels: '{part="Trunks"}', value: 1}`},
		{lastGood, "8m", "{labels: '{}', value: 270000}"},
		{down, "8m", `{labels: '{n="3", of="4", text="3 of 4 failing"}', value: 3}`},
		{state[0].expr, "8m", `{labels: '{job="j", instance="b"}', value: 0}, {labels: '{job="j", instance="c"}', value: -1}, {labels: '{job="j", instance="d"}', value: 1}`},
		// With few servers, all alerts; with more than five, the worst of each.
		{listed, "8m", `{labels: '{job="j", instance="a", alert="TrunkFailsCalls", about="u"}', value: 2}, {labels: '{job="j", instance="b", alert="Down"}', value: 4}`},
		{state[1].expr, "8m", `{labels: '{job="j", instance="a"}', value: 2}`},

		// Nobody answers any more, and one of two trunks refuses its calls.
		{affected, "35m", `{labels: '{part="Servers"}', value: 1}, {labels: '{part="SIP sockets"}', value: 1}, {labels: '{part="Trunks"}', value: 1}, {labels: '{part="Calls"}', value: 0}`},
		{canCall, "35m", "{labels: '{}', value: 0}"},
		{lastGood, "35m", "{labels: '{}', value: 30000}"},

		{canCall, "41m", ""}, // the rates of 5 minutes still have values
		{affected, "41m", nothing},
		{canCall, "55m", ""},
		{affected, "55m", nothing},
		{listed, "70m", `{labels: '{job="j", instance="1", alert="CallsNotAnswered"}', value: 3}, {labels: '{job="j", instance="2", alert="SIPNotAnswering"}', value: 3}, ` +
			`{labels: '{job="j", instance="3", alert="PikeBlocking"}', value: 1}, {labels: '{job="j", instance="4", alert="PikeBlocking"}', value: 1}, ` +
			`{labels: '{job="j", instance="5", alert="PikeBlocking"}', value: 1}, {labels: '{job="j", instance="6", alert="PikeBlocking"}', value: 1}`},
		{down, "55m", `{labels: '{text="No exporter is scraped"}', value: -1}`},
	})
}
