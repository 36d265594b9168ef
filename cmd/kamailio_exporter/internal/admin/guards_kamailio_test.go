//go:build linux

package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/action"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/adminapi"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc/kamrpctest/kamailiotest"
)

// realRuled is an endpoint with rules and a real Kamailio behind it.
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
	until(t, "an uptime above the guards'", func() bool {
		var uptime struct{ Uptime int }
		return json.Unmarshal(server.RPC(t, "core.uptime"), &uptime) == nil && uptime.Uptime > 1
	})
	b.began = b.now()
	b.good.Store(true)
	b.begin()
	return b
}

// During a storm of alerts that Kamailio does not confirm, an operator is served, and
// within the time that a person waits.
func TestOperatorsComeBeforeAlerts(t *testing.T) {
	rules := `
    - name: drain
      mode: dry_run
      match: {alertname: GatewayFails}
      action: dispatcher.set-state
      params: {set: {label: set, enum: [9]}, uri: {label: uri, any: true}, state: {value: dx}}
      confirm: {htable: [{table: gwfailed, label: uri, above: 5}]}
`
	for _, version := range kamailiotest.Versions(t) {
		t.Run(version, func(t *testing.T) {
			server := kamailiotest.Start(t, kamailiotest.Config{Version: version})
			var rows []string
			for i := range 301 {
				rows = append(rows, fmt.Sprintf("(9, 'sip:127.0.0.1:%d', 0, 0, '', '')", 20000+i))
			}
			sql(t, server, "DELETE FROM dispatcher; INSERT INTO dispatcher (setid, destination, flags, priority, attrs, description) VALUES "+strings.Join(rows, ", ")+";")
			server.RPC(t, "dispatcher.reload")
			b := realRuled(t, server, "enforce", rules)
			uri := func(i int) string { return fmt.Sprintf("sip:127.0.0.1:%d", 20000+i) }

			stop := make(chan struct{})
			var storm sync.WaitGroup
			var notifications atomic.Int32
			for n := range 6 { // 300 alerts, in groups of 50, again and again
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

// A list of destinations that is larger than one reply may be still says how long one of
// them takes to answer.
func TestLatencyAmongManyDestinations(t *testing.T) {
	for _, version := range kamailiotest.Versions(t) {
		t.Run(version, func(t *testing.T) {
			server := kamailiotest.Start(t, kamailiotest.Config{Version: version, PkgMB: 32})
			answers := newGateway(t)
			rows := []string{fmt.Sprintf("(9, '%s', 8, 0, '', '')", answers.URI())} // 8: probed
			for i := range 4000 {
				rows = append(rows, fmt.Sprintf("(9, 'sip:127.0.0.1:9;transport=udp;gateway=%d', 0, 0, 'weight=50;duid=gateway-%d', '')", i, i))
			}
			sql(t, server, "DELETE FROM dispatcher; INSERT INTO dispatcher (setid, destination, flags, priority, attrs, description) VALUES "+strings.Join(rows, ", ")+";")
			server.RPC(t, "dispatcher.reload")
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
}
