package collector

import (
	"context"
	"regexp"

	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
)

const carrierrouteMethod = "cr.dump_routes"

var (
	carrierRoutes        = NewDesc("kamailio_carrierroute_routes", "Routes of a carrier in a routing domain.", gauge, carrierrouteMethod, "carrier", "domain")
	carrierRoutesEnabled = NewDesc("kamailio_carrierroute_routes_enabled", "Enabled routes of a carrier in a routing domain (cr.deactivate_host disables one).", gauge, carrierrouteMethod+" status", "carrier", "domain")
)

// carrierroute counts routes (carrierroute/cr_rpc.c).
type carrierroute struct{ listLimits }

func (carrierroute) Name() string      { return "carrierroute" }
func (carrierroute) About() string     { return "Routes of carrierroute, by carrier and domain" }
func (carrierroute) Methods() []string { return []string{carrierrouteMethod} }
func (carrierroute) Descs() []*Desc    { return []*Desc{carrierRoutes, carrierRoutesEnabled} }

func (c carrierroute) Guard() Guard { return c.guard(carrierrouteMethod, sumOf(carrierRoutes)) }

var (
	carrierRows = kamrpc.Rows{Path: "routes/domains/data", Fields: []string{"host", "status"}, Texts: true}
	// carrierLine matches a route as Kamailio before 5.6 prints it. It also prints lines
	// about backups.
	carrierLine = regexp.MustCompile(`^ *[^ ]+: [0-9.]+ %, '.*?': (ON|OFF), '`)
)

func (carrierroute) Update(ctx context.Context, s *Session, emit Emit) error {
	var all, enabled counts
	err := countRows(ctx, s, carrierRows, func(above kamrpc.Above, row kamrpc.Value) bool {
		carrier, domain := above.Text("carrier"), above.Text("domain")
		if !row.Exists() { // an empty list of routes, domains, or carriers
			if domain != "" {
				all.add(0, carrier, domain)
				enabled.add(0, carrier, domain)
			}
			return true
		}
		status := row.Get("status").Text()
		if row.Kind() == kamrpc.String {
			line := carrierLine.FindStringSubmatch(row.Text())
			if line == nil {
				return false
			}
			status = line[1]
		}
		all.add(1, carrier, domain)
		switch status {
		case "ON":
			enabled.add(1, carrier, domain)
		case "OFF":
			enabled.add(0, carrier, domain)
		default:
			return false
		}
		return true
	}, carrierrouteMethod)
	if err != nil {
		return err
	}
	all.emit(carrierRoutes, emit)
	enabled.emit(carrierRoutesEnabled, emit)
	return nil
}
