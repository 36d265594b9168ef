package collector

import (
	"slices"
	"strings"
	"testing"

	"github.com/kamailio-exporter/kamailio_exporter/kamrpc/kamrpctest"
)

// diameterPeers is what Kamailio 5.6.3 replied with one connected peer of two, except for
// the third peer.
const diameterPeers = `{
	"Realm":	"example.net",
	"Identity":	"scscf.example.net",
	"Peer count":	3,
	"Peers":	{
		"FQDN":	"hss1.example.net",
		"Details":	{"State": "I_Open", "Disabled": "False", "Last used": 1795926877, "Applications": {"appid:vendorid": "16777216:10415", "appid:vendorid": "16777216:0"}},
		"FQDN":	"hss2.example.net",
		"Details":	{"State": "Closed", "Disabled": "True", "Last used": 0, "Applications": {}},
		"FQDN":	"hss2.example.net",
		"Details":	{"State": "Wait_I_CEA", "Disabled": "False", "Last used": 0, "Applications": {}}
	}
}`

func TestDiameterPeers(t *testing.T) {
	for _, tc := range []struct{ name, reply, want, err string }{
		{"open, closed, twice", diameterPeers,
			"peer_state hss1.example.net,0 6\npeer_up hss1.example.net,0 1\npeer_enabled hss1.example.net,0 1\n" +
				"peer_state hss2.example.net,0 0\npeer_up hss2.example.net,0 0\npeer_enabled hss2.example.net,0 0\n" +
				"peer_state hss2.example.net,1 2\npeer_up hss2.example.net,1 0\npeer_enabled hss2.example.net,1 1\nqueue_length 4\n", ""},
		{"no peers", `{"Realm": "example.net", "Peer count": 0, "Peers": {}}`, "queue_length 4\n", ""},
		{"a new state", `{"Peers": {"FQDN": "a", "Details": {"State": "Asleep", "Disabled": "False"}}}`, "peer_enabled a,0 1\n", "no peer has a known state"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			server := kamrpctest.New(t)
			server.Handle(cdpMethod, tc.reply)
			server.Handle(statisticsMethod, `["cdp:queuelength = 4"]`)
			got, err := emittedFrom(t, newCDP(listLimits{rows: 5000}), server, []string{cdpMethod, statisticsMethod})
			if want := prefixed("cdp_", tc.want); got != want || (err != nil) != (tc.err != "") || err != nil && !strings.Contains(err.Error(), tc.err) {
				t.Errorf("got\n%s%v, want\n%s%s", got, err, want, tc.err)
			}
		})
	}
}

// The statistics of an S-CSCF of Kamailio 5.6.3, with other numbers.
func TestIMSStatistics(t *testing.T) {
	server := kamrpctest.New(t)
	server.Handle(statisticsMethod, `["dialog_ng:active = 1", "dialog_ng:early = 2", "dialog_ng:expired = 3", "dialog_ng:processed = 4",
		"ims_auth:mar_avg_response_time = 50", "ims_auth:mar_replies_received = 5", "ims_auth:mar_replies_response_time = 250", "ims_auth:mar_timeouts = 6",
		"ims_usrloc_scscf:active_contacts = 7", "ims_usrloc_scscf:active_impus = 8", "ims_usrloc_scscf:active_subscriptions = 9",
		"ims_usrloc_scscf:contact_collisions = 0", "ims_usrloc_scscf:impu_collisions = 18446744073709551615",
		"ims_charging:initial_ccrs = 10", "ims_charging:failed_initial_ccrs = 11", "ims_charging:ccr_response_time = 1500"]`)
	for _, tc := range []struct {
		module Module
		want   string
	}{
		{imsDialogModule, "active_dialogs 1\nearly_dialogs 2\nprocessed_total 4\nexpired_total 3\n"},
		{imsAuthModule, "mar_answers_total 5\nmar_answer_seconds_total 0.25\nmar_timeouts_total 6\n"},
		{imsUsrlocSCSCFModule, "impus 8\ncontacts 7\nsubscriptions 9\n"},
		{imsChargingModule, "ccr_answer_seconds_total 1.5\nccr_total initial 10\nccr_failed_total initial 11\n"},
	} {
		got, err := emittedFrom(t, tc.module.Collector(), server, []string{statisticsMethod})
		if want := prefixed(tc.module.Subsystem+"_", tc.want); err != nil || !slices.Equal(slices.Sorted(strings.SplitSeq(got, "\n")), slices.Sorted(strings.SplitSeq(want, "\n"))) {
			t.Errorf("%s: got\n%s%v, want\n%s", tc.module.Subsystem, got, err, want)
		}
	}
}
