package collector_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/kamailio-exporter/kamailio_exporter/collector"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc/kamrpctest"
)

// counting returns a fake with this many statistics in each of its groups, which is
// queried over BINRPC.
func counting(t *testing.T, counters map[string]int) (*kamrpctest.Server, *collector.Coordinator) {
	t.Helper()
	server := bare(t)
	var names []string
	for group := range counters {
		names = append(names, fmt.Sprintf("%q", group))
	}
	server.Handle("cnt.grps_list", "["+strings.Join(names, ",")+"]")
	server.HandleFunc("stats.get_statistics", func(r kamrpctest.Request) kamrpctest.Response {
		var lines []string
		for group, n := range counters {
			for _, p := range r.Params {
				if p != "all" && p != group+":" {
					continue
				}
				for i := range n {
					lines = append(lines, fmt.Sprintf(`"%s:counter_%d = %d"`, group, i, i))
				}
			}
		}
		return kamrpctest.Response{Result: "[" + strings.Join(lines, ",") + "]"}
	})
	transport, err := kamrpc.Open(server.URI("binrpc+unix"), nil)
	if err != nil {
		t.Fatal(err)
	}
	client, err := kamrpc.NewClient(kamrpc.Config{Transports: []kamrpc.Transport{transport}})
	if err != nil {
		t.Fatal(err)
	}
	return server, collector.NewCoordinator(client, collector.All(collector.Options{}), collector.Limits{})
}

func statisticsResult(t *testing.T, c *collector.Coordinator) (n int, err error) {
	t.Helper()
	s := scrape(t, c, "statistics")
	for _, r := range s.Results {
		if r.Collector == "statistics" {
			err = r.Err
		}
	}
	return strings.Count(samples(t, s), "kamailio_statistic{"), err
}

func TestStatisticsInParts(t *testing.T) {
	server, c := counting(t, map[string]int{"a": 500, "b": 500, "c": 500, "d": 500, "e": 0})
	calls := 0
	for i := range 3 {
		before := server.CallCount("stats.get_statistics")
		if n, err := statisticsResult(t, c); n != 2000 || err != nil {
			t.Errorf("%d statistics, %v", n, err)
		}
		calls = server.CallCount("stats.get_statistics") - before
		if i > 0 && (calls < 2 || calls > 3) {
			t.Errorf("%d calls: what fits is known since the first scrape", calls)
		}
	}
	if n := server.CallCount("cnt.grps_list"); n != 3 {
		t.Errorf("the groups were asked for %d times", n)
	}
}

// A reply that fits no transport is requested only once until Kamailio restarts, and does
// not affect the rest of the page.
func TestOutgrownReplyIsNotRequestedAgain(t *testing.T) {
	counters := map[string]int{"tmx": 10, "b": 3000}
	server, c := counting(t, counters)
	asked := func() int { return server.CallCount("stats.get_statistics") }
	for i := range 3 {
		before := asked()
		s := scrape(t, c, "statistics", "tmx")
		for _, r := range s.Results {
			switch {
			case r.Collector == "statistics" && (!errors.Is(r.Err, kamrpc.ErrOutgrown) || !strings.HasPrefix(fmt.Sprint(r.Err), "group b: stats.get_statistics via binrpc+unix://")):
				t.Errorf("statistics: %v", r.Err)
			case r.Collector == "tmx" && r.Err != nil && !errors.Is(r.Err, collector.ErrNoData):
				t.Errorf("tmx: %v", r.Err)
			}
		}
		if n := asked() - before; i > 0 && n != 1 {
			t.Errorf("%d calls in scrape %d, want that of the group which fits", n, i)
		}
	}
	counters["b"] = 100
	server.Handle("core.uptime", uptimeSince("Mon Nov 23 04:10:00 2026"))
	if n, err := statisticsResult(t, c); n != 110 || err != nil {
		t.Errorf("after the restart %d statistics, %v", n, err)
	}
}
