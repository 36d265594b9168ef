package collector

import (
	"context"

	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
)

const domainMethod = "domain.dump"

var (
	domainDomains    = NewDesc("kamailio_domain_domains", "Domains that the domain module has loaded as local (table domain).", gauge, domainMethod+" domains")
	domainAttributes = NewDesc("kamailio_domain_attributes", "Domain attributes that the domain module has loaded (table domain_attrs).", gauge, domainMethod+" attributes")
)

// domains counts the domains that Kamailio serves (domain/domain_mod.c).
type domains struct{ listLimits }

func (domains) Name() string      { return "domain" }
func (domains) About() string     { return "Domains that Kamailio serves (domain module)" }
func (domains) Methods() []string { return []string{domainMethod} }
func (domains) Descs() []*Desc    { return []*Desc{domainDomains, domainAttributes} }

func (d domains) Guard() Guard { return d.guard(domainMethod, sumOf(domainDomains, domainAttributes)) }

// domainRows selects both lists of the reply: a row of domains has the domain's name, a
// row of attributes the names of all attributes of a domain.
var domainRows = kamrpc.Rows{Path: "*", Fields: []string{"domain", "attrs"}}

func (domains) Update(ctx context.Context, s *Session, emit Emit) error {
	domains, attributes := 0, 0
	err := countRows(ctx, s, domainRows, func(_ kamrpc.Above, row kamrpc.Value) bool {
		switch attrs := row.Get("attrs"); {
		case attrs.Exists():
			attributes += attrs.Len()
		case row.Get("domain").Exists():
			domains++
		case row.Exists():
			return false
		}
		return true
	}, domainMethod)
	if isFault(err, "Server Domain Cache Empty") {
		return nil
	}
	if err != nil {
		return err
	}
	emit(domainDomains, float64(domains))
	emit(domainAttributes, float64(attributes))
	return nil
}
