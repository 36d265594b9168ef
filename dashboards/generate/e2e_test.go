package generate

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/kamailio-exporter/kamailio_exporter/kamrpc/kamrpctest/kamailiotest"
)

// mayBeEmpty are queries without data on a server that has run for a few minutes, with
// the reason. The key is dashboard/panel/query.
var mayBeEmpty = map[string]string{
	"kamailio-overview/Alerts/A":                       "no rules are loaded",
	"kamailio-overview/Firing alerts/A":                "no rules are loaded",
	"kamailio-overview/Firing alerts/B":                "no rules are loaded",
	"kamailio-overview/Firing alerts/C":                "no rules are loaded",
	"kamailio-overview/Errors/A":                       "nothing fails",
	"kamailio-overview/Everything worked/A":            "gateways are down on purpose",
	"kamailio-overview/Nearest to a limit/A":           "nothing is near a limit",
	"kamailio-overview/Parts of the service/E":         "needs five calls in five minutes",
	"kamailio-overview/Parts of the service/F":         "needs five calls in five minutes",
	"kamailio-overview/Parts of the service/G":         "needs two hours",
	"kamailio-calls/Mean call length/A":                "needs an hour",
	"kamailio-gateways/Diameter peers (IMS)/A":         "cdp is not loaded",
	"kamailio-gateways/Diameter peers (IMS)/B":         "cdp is not loaded",
	"kamailio-fleet/Internal errors/A":                 "nothing fails",
	"kamailio-resources/Shared memory in four hours/B": "needs an hour",
	"kamailio-resources/Retransmissions absorbed/A":    "nothing is sent twice",
	"kamailio-resources/DNS and database/A":            "nothing fails",
	"kamailio-resources/DNS and database/B":            "nothing is slow",
	"kamailio-resources/DNS and database/C":            "db_mysql is not loaded",
	"kamailio-security/Malformed messages/A":           "nothing is malformed",
	"kamailio-security/Malformed messages/B":           "nothing is malformed",
	"kamailio-security/Malformed messages/C":           "nothing is malformed",
	"kamailio-trunks/How calls fail/B":                 "every trunk replies",
	"kamailio-trunks/Timeouts by trunk/A":              "every trunk replies",
	"kamailio-resources/TCP trouble/A":                 "nothing fails",
	"kamailio-resources/Waiting to be sent/A":          "nothing waits",
	"kamailio-exporter/Skipped/A":                      "nothing is skipped",
	"kamailio-exporter/Failed RPCs/B":                  "nothing fails",
	"kamailio-exporter/Probes/A":                       "no exporter has many targets",
	"kamailio-exporter/Refused probes/A":               "no exporter has many targets",
	"kamailio-exporter/Rules/A":                        "there are no rules for alerts",
	"kamailio-exporter/What rules did/A":               "there are no rules for alerts",
	"kamailio-exporter/What kept rules from acting/A":  "there are no rules for alerts",
	"kamailio-exporter/Rules now/A":                    "there are no rules for alerts",
	"kamailio-exporter/Rules now/B":                    "there are no rules for alerts",
}

// reasonToBeEmpty returns why a query may be empty, or "" if it must not be. empty are
// all that are.
func reasonToBeEmpty(key, expr string, empty map[string]string) string {
	if strings.Contains(expr, "offset 1w") {
		return "needs a week"
	}
	if strings.Contains(expr, "bottomk(10, min by") {
		panel, query := key[:len(key)-1], key[len(key)-1:]
		if _, also := empty[panel+map[string]string{"A": "B", "B": "A"}[query]]; !also {
			return "all are up, or none is"
		}
	}
	return mayBeEmpty[key]
}

// TestQueriesHaveData checks that every query of every dashboard has data while Kamailio
// has traffic, and no NaN.
func TestQueriesHaveData(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: starts real servers")
	}
	versions := kamailiotest.Versions(t)
	kamailiotest.Needs(t, "prometheus", "prometheus")
	program := buildExporter(t)
	var exporters []string
	for _, version := range versions {
		server := kamailiotest.Start(t, kamailiotest.Config{Version: version, Stream: true})
		exporters = append(exporters, runExporter(t, program, server))
	}
	prometheus := runPrometheus(t, exporters, nil)

	for i, version := range versions {
		t.Run(version, func(t *testing.T) {
			variables := grafanaAt(exporters[i])
			empty := map[string]string{} // expressions, by their keys
			asked := 0
			for _, d := range files(t) {
				for _, p := range d.panels() {
					for _, q := range p.Targets {
						asked++
						empty[d.UID+"/"+p.Title+"/"+q.RefID] = variables.Replace(q.Expr)
					}
				}
			}
			if asked < 100 {
				t.Fatalf("only %d queries", asked)
			}
			until(2*time.Minute, func() bool {
				open := 0
				for key, expr := range empty {
					found := prometheus.query(t, expr)
					for _, s := range found {
						if math.IsNaN(s.value) || math.IsInf(s.value, 0) {
							t.Errorf("%s: %v from %s", key, s.value, expr)
						}
					}
					if len(found) > 0 {
						delete(empty, key)
					} else if reasonToBeEmpty(key, expr, empty) == "" {
						open++
					}
				}
				return open == 0
			})
			for key, expr := range empty {
				if reasonToBeEmpty(key, expr, empty) == "" {
					t.Errorf("%s: no data from %s", key, expr)
				}
			}
			t.Logf("Kamailio %s: %d queries, %d without data for a reason", version, asked, len(empty))
		})
	}
}
