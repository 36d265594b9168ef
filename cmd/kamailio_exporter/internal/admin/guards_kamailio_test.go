//go:build linux

package admin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/action"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/adminapi"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/audit"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc/kamrpctest/kamailiotest"
)

// realRuled is an endpoint with rules that talks to a real Kamailio.
func realRuled(t *testing.T, server *kamailiotest.Server, mode, rules string) *ruledEndpoint {
	t.Helper()
	b := &ruledEndpoint{endpoint: newEndpoint(t, everything()+"    am: {kind: webhook, tokens: [{sha256: "+adminapi.HashToken(amToken)+"}]}\n"+
		"remediation:\n  mode: "+mode+"\n  match: {instance: 'sip1:9494'}\n  min_uptime: 1s\n  rules:"+rules)}
	way, err := kamrpc.Open(server.HTTPURL, nil)
	if err != nil {
		t.Fatal(err)
	}
	if b.client, err = kamrpc.NewClient(kamrpc.Config{Transports: []kamrpc.Transport{way}, MaxReplyBytes: action.MaxReplyBytes}); err != nil {
		t.Fatal(err)
	}
	isUp(t, server)
	b.began = b.now()
	b.good.Store(true)
	b.begin()
	return b
}

// During a storm of unconfirmed alerts, an operator's action still runs within the time
// that a person waits for the slot.
func TestOperatorsComeBeforeAlerts(t *testing.T) {
	rules := `
    - name: drain
      mode: dry_run
      match: {alertname: GatewayFails}
      action: dispatcher.set-state
      params: {set: {label: set, enum: [9]}, uri: {label: uri, any: true}, state: {value: dx}}
      confirm: {htable: [{table: gwfailed, label: uri, above: 5}]}
`
	for _, version := range kamailiotest.Versions(t) { // one at a time: it measures
		t.Run(version, func(t *testing.T) {
			server := kamailiotest.Start(t, kamailiotest.Config{Version: version})
			var rows []string
			for i := range 301 {
				rows = append(rows, fmt.Sprintf("(9, 'sip:127.0.0.1:%d', 0, 0, '', '')", 20000+i))
			}
			sql(t, server, "DELETE FROM dispatcher; INSERT INTO dispatcher (setid, destination, flags, priority, attrs, description) VALUES "+strings.Join(rows, ", ")+";")
			reloadGateways(t, server)
			b := realRuled(t, server, "enforce", rules)
			uri := func(i int) string { return fmt.Sprintf("sip:127.0.0.1:%d", 20000+i) }

			stop := make(chan struct{})
			var storm sync.WaitGroup
			var notifications atomic.Int32
			for n := range 6 { // 300 alerts, in groups of 50, repeatedly
				var alerts []map[string]any
				for i := range 50 {
					alerts = append(alerts, b.alert("firing", uri(1+n*50+i), "set", "9"))
				}
				body := payload(fmt.Sprint("group", n), alerts...)
				storm.Go(func() {
					for {
						select {
						case <-stop:
							return
						default:
							b.call(amToken, "POST", adminapi.WebhookPath, body)
							notifications.Add(1)
						}
					}
				})
			}
			for notifications.Load() == 0 {
				time.Sleep(time.Millisecond)
			}
			served := 0
			var longest time.Duration
			for i := range 50 {
				state := []string{"dx", "ax"}[i%2]
				began := time.Now()
				r := b.run(nocToken, "dispatcher.set-state", fmt.Sprintf(`{"set":9,"uri":%q,"state":%q}`, uri(0), state))
				took := time.Since(began)
				longest = max(longest, took)
				if r.Status == 200 && r.Verified && took < 2*time.Second {
					served++
				} else {
					t.Errorf("after %s: %s", took, r.Text)
				}
			}
			close(stop)
			storm.Wait()
			t.Logf("%d of 50 served, the longest took %s, beside %d notifications", served, longest, notifications.Load())
		})
	}
}

// The latency of one destination can be read even if the list of destinations is larger
// than the reply limit.
func TestLatencyAmongManyDestinations(t *testing.T) {
	onAll(t, kamailiotest.Config{PkgMB: 32}, func(t *testing.T, server *kamailiotest.Server) {
		answers := newGateway(t)
		rows := []string{fmt.Sprintf("(9, '%s', 8, 0, '', '')", answers.URI())} // 8: probed
		for i := range 4000 {
			rows = append(rows, fmt.Sprintf("(9, 'sip:127.0.0.1:9;transport=udp;gateway=%d', 0, 0, 'weight=50;duid=gateway-%d', '')", i, i))
		}
		sql(t, server, "DELETE FROM dispatcher; INSERT INTO dispatcher (setid, destination, flags, priority, attrs, description) VALUES "+strings.Join(rows, ", ")+";")
		reloadGateways(t, server)
		way, err := kamrpc.Open(server.HTTPURL, nil)
		if err != nil {
			t.Fatal(err)
		}
		client, err := kamrpc.NewClient(kamrpc.Config{Transports: []kamrpc.Transport{way}, MaxReplyBytes: action.MaxReplyBytes})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if _, err := client.Call(ctx, "dispatcher.list"); !errors.Is(err, kamrpc.ErrTooLarge) {
			t.Fatalf("the list is not larger than a reply may be: %v", err)
		}
		latency := catalogue().Get("dispatcher.set-state").Latency
		args := action.Args{"set": int64(9), "uri": strings.ToUpper(answers.URI())}
		if is, err := latency(ctx, client, args); err != nil || is < 0 || is > 5*time.Second {
			t.Errorf("%s %v", is, err)
		}
		args["set"] = int64(8)
		if _, err := latency(ctx, client, args); err == nil {
			t.Error("a destination of a set that is not there has a latency")
		}
	})
}

// leaseTable is the htable that two exporters need in kamailio.cfg.
const leaseTable = `
modparam("htable", "htable", "exporter_lease=>size=2;autoexpire=60;")
`

// races is how often two exporters at once each take out one of the two gateways of a
// set: 25 times, or KAMAILIO_TEST_RACES.
func races(t *testing.T) int {
	t.Helper()
	n, err := strconv.Atoi(cmp.Or(os.Getenv("KAMAILIO_TEST_RACES"), "25"))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// Two exporters each take out one of two gateways, of which one must stay. One of them
// is refused or undoes its change, but never both, and neither reports success with no
// gateway left.
func TestTwoExportersOneKamailio(t *testing.T) {
	race := races(t)
	for _, version := range kamailiotest.Versions(t) {
		for name, extra := range map[string]string{"with a lease": leaseTable, "without": ""} {
			t.Run(version+" "+name, func(t *testing.T) {
				t.Parallel() // it mostly waits
				server := kamailiotest.Start(t, kamailiotest.Config{Version: version, Extra: extra})
				uris := []string{"sip:127.0.0.1:20001", "sip:127.0.0.1:20002"}
				sql(t, server, fmt.Sprintf("DELETE FROM dispatcher; INSERT INTO dispatcher (setid, destination, flags, priority, attrs, description) VALUES (9, '%s', 0, 0, '', ''), (9, '%s', 0, 0, '', '');", uris[0], uris[1]))
				reloadGateways(t, server)
				isUp(t, server)
				both := []*endpoint{realEndpoint(t, server.HTTPURL), realEndpoint(t, server.HTTPURL)}
				none, neither, undone, refused := 0, 0, 0, 0
				for range race {
					for _, uri := range uris {
						server.RPC(t, "dispatcher.set_state", "ax", 9, uri)
					}
					var replies [2]reply
					var ran sync.WaitGroup
					for i, b := range both {
						ran.Go(func() {
							replies[i] = b.run(nocToken, "dispatcher.set-state", fmt.Sprintf(`{"set":9,"uri":%q,"state":"dx"}`, uris[i]))
						})
					}
					ran.Wait()
					done := 0
					for _, r := range replies {
						switch r.problem() {
						case "":
							if done++; !r.Verified || r.After["active"] == 0.0 {
								t.Errorf("%d %s", r.Status, r.Text)
							}
						case "undone":
							undone++
						case "guard", "busy":
							refused++
						default:
							t.Errorf("%d %s", r.Status, r.Text)
						}
					}
					active := strings.Count(string(server.RPC(t, "dispatcher.list")), `"AX"`)
					if active == 0 {
						none++
					}
					if done == 0 {
						neither++
					}
					if active != 2-done {
						t.Errorf("%d are active, and %d were taken out", active, done)
					}
				}
				t.Logf("of %d: %d with none left, %d where neither was done; %d refused, %d undone", race, none, neither, refused, undone)
				if none > 0 || neither > 1+race/20 {
					t.Errorf("%d with none left, %d where neither was done", none, neither)
				}
			})
		}
	}
}

// A gateway that was only set to active does not count as remaining until it answers a
// ping.
func TestUnprovenDestinationsDoNotCount(t *testing.T) {
	onAll(t, kamailiotest.Config{}, func(t *testing.T, server *kamailiotest.Server) {
		// Replies take longer each time, so that each one changes the latency.
		var asked atomic.Int64
		alive := kamailiotest.NewGateway(t, func(string) (string, time.Duration) {
			return "200 OK", time.Duration(20+10*asked.Add(1)%80) * time.Millisecond
		})
		other := newGateway(t)
		dead := "sip:127.0.0.1:9"
		sql(t, server, fmt.Sprintf("DELETE FROM dispatcher; INSERT INTO dispatcher (setid, destination, flags, priority, attrs, description) VALUES (9, '%s', 0, 0, '', ''), (9, '%s', 8, 0, '', ''), (9, '%s', 1, 0, '', '');", other.URI(), alive.URI(), dead))
		reloadGateways(t, server)
		b := realEndpoint(t, server.HTTPURL)
		isUp(t, server)
		set := func(uri, state string) reply {
			return b.run(nocToken, "dispatcher.set-state", fmt.Sprintf(`{"set":9,"uri":%q,"state":%q}`, uri, state))
		}
		must := func(what string, r reply) {
			t.Helper()
			if r.Status != 200 || r.Outcome != audit.Applied {
				t.Errorf("%s: %s", what, r.Text)
			}
		}
		must("the living one out", set(alive.URI(), "dx"))
		must("a dead one is called active", set(dead, "ax"))
		if r := set(other.URI(), "dx"); r.problem() != "guard" || !strings.Contains(r.Text, "have not answered a ping since") {
			t.Errorf("only a claim is left: %s", r.Text)
		}
		if state := string(server.RPC(t, "dispatcher.list")); strings.Count(state, `"AX"`) != 2 {
			t.Errorf("%s", state)
		}
		must("the living one back", set(alive.URI(), "ap"))
		until(t, "an answer to a ping counts", func() bool { return set(other.URI(), "dx").Status == 200 })
		if r := b.call(nocToken, "GET", adminapi.OperationsPath, ""); !strings.Contains(r.Text, `"pings_ms"`) {
			t.Errorf("%s", r.Text)
		}
	})
}
