//go:build linux

package admin

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/action"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc/kamrpctest/kamailiotest"
)

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
			client, err := kamrpc.NewClient(kamrpc.Config{Ways: []kamrpc.Transport{way}, MaxReplyBytes: action.MaxReplyBytes})
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
