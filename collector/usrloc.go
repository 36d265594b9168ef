package collector

import (
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
)

// usrlocModule is the totals of the location service (usrloc/udomain.c), at a cost that
// does not depend on the number of users. A "domain" is a table of save(). Its name and
// that of the statistic are joined by the core parameter stats_name_separator: "-" up to
// Kamailio 5.3, "_" by default since then.
var usrlocModule = Module{
	Subsystem: "usrloc",
	Summary:   "Registered users and contacts, in total",
	Queries: []Query{statistics("usrloc",
		Metric{Field: "usrloc:registered_users", Name: "registered_users", Kind: gauge, Help: "Addresses of record with a registered contact, in all domains. " + whereInMemory},
		Metric{Pattern: "usrloc:(.+)[-_]users", PatternLabels: []string{"domain"}, Name: "users", Kind: gauge, Help: "Addresses of record with a registered contact, by domain (location table). " + whereInMemory},
		Metric{Pattern: "usrloc:(.+)[-_]contacts", PatternLabels: []string{"domain"}, Name: "contacts", Kind: gauge, Help: "Registered contacts, by domain (location table). " + whereInMemory},
		Metric{Pattern: "usrloc:(.+)[-_]expires", PatternLabels: []string{"domain"}, Name: "expired_contacts_total", Kind: counter, Help: "Contacts that expired without being refreshed, by domain (location table). " + whereInMemory},
	)},
}

const whereInMemory = "Omitted while kamailio_usrloc_in_memory is 0."

var usrlocMemory = NewDesc("kamailio_usrloc_in_memory", "1 if Kamailio is known to keep registrations in memory, where it counts them. 0 while all counts are 0: Kamailio may keep registrations only in the database (db_mode 3 of usrloc), which it does not count.",
	gauge, "statistics usrloc, core.modules, ul.db_users")

// usrloc is that table, if its zeros really mean that there are no registrations.
type usrloc struct{ *table }

func newUsrloc() usrloc { return usrloc{usrlocModule.Collector().(*table)} }

func (u usrloc) base() *table { return u.table }

func (u usrloc) Descs() []*Desc { return append([]*Desc{usrlocMemory}, u.table.Descs()...) }

func (u usrloc) Update(ctx context.Context, s *Session, emit Emit) error {
	statistics, err := s.StatisticsOf(ctx, "usrloc")
	if err != nil {
		return err
	}
	if statistics.Len() == 0 {
		return ErrNoData
	}
	inMemory, err := s.usrlocInMemory(ctx, statistics)
	if err != nil {
		return err
	}
	emit(usrlocMemory, Bool01(inMemory))
	if !inMemory {
		return nil
	}
	return u.table.Update(ctx, s, emit)
}

const (
	modulesMethod = "core.modules"
	dbUsersMethod = "ul.db_users"
)

// usrlocInMemory reports whether usrloc is known to count its registrations. With db_mode
// 3, the statistics exist but stay 0 (usrloc/urecord.c, udomain.c). Any number above 0
// proves another mode. Until then, only mode 0 can be recognized: either no database
// module is loaded, or the error of a ul.db_users call without a table shows it, before
// Kamailio accesses the database. That call is made last, because Kamailio 6.0 logs an
// error for faults that it returns over HTTP (sl_funcs.c).
func (s *Session) usrlocInMemory(ctx context.Context, statistics kamrpc.Value) (bool, error) {
	const fact = "usrloc in memory"
	is, known := s.recall(fact)
	if is == 1 {
		return true, nil
	}
	for m := range statistics.Members() {
		if n, ok := m.Value.Float(); ok && n != 0 {
			s.keep(fact, 1)
			return true, nil
		}
	}
	if known {
		return false, nil
	}
	if s.Has(modulesMethod) {
		switch modules, err := s.Call(ctx, modulesMethod); {
		case err != nil && !errors.As(err, new(*kamrpc.Fault)):
			return false, err
		case err == nil && !slices.ContainsFunc(modules.Texts(), isDatabase):
			s.keep(fact, 1)
			return true, nil
		}
	}
	if !s.Has(dbUsersMethod) {
		return false, nil
	}
	_, err := s.Call(ctx, dbUsersMethod)
	switch {
	case isFault(err, "Command is not supported in db_mode=0"):
		s.keep(fact, 1)
		return true, nil
	case err == nil, errors.As(err, new(*kamrpc.Fault)):
		s.keep(fact, 0)
		return false, nil
	}
	return false, err
}

// isDatabase reports whether usrloc may use a module to store registrations.
func isDatabase(module string) bool {
	return strings.HasPrefix(module, "db_") || strings.HasPrefix(module, "db2_")
}

var (
	contactsByTransport = NewDesc("kamailio_usrloc_contacts_by_transport", "Registered contacts, by transport of the contact's socket or URI.", gauge, "ul.dump", "domain", "transport")
	contactsByAgent     = NewDesc("kamailio_usrloc_contacts_by_user_agent", "Registered contacts, by user agent family.", gauge, "ul.dump", "domain", "user_agent")
	contactsByState     = NewDesc("kamailio_usrloc_contacts_by_state", "Registered contacts, by their state in the database: new (not written yet), sync (written), dirty (changed since).", gauge, "ul.dump", "domain", "state")
	contactsByLifetime  = NewDesc("kamailio_usrloc_contacts_by_lifetime", "Registered contacts, by the remaining seconds until they expire.", gauge, "ul.dump", "domain", "remaining")
)

const dumpMethod = "ul.dump"

// usrlocContacts reads the contacts themselves, but only if there are few: the reply of
// ul.dump grows with them, and Kamailio locks the location service while it builds the
// reply (kamrpc.PriceList).
type usrlocContacts struct {
	limit    int
	interval time.Duration
}

func (usrlocContacts) Name() string { return "usrloc_contacts" }
func (usrlocContacts) About() string {
	return "Registered contacts by transport, user agent, state and lifetime, up to a number of contacts"
}
func (usrlocContacts) Methods() []string { return []string{dumpMethod, statisticsMethod} }
func (usrlocContacts) Descs() []*Desc {
	return []*Desc{contactsByTransport, contactsByAgent, contactsByState, contactsByLifetime}
}

func (c usrlocContacts) Guard() Guard {
	return Guard{Method: dumpMethod, Interval: c.interval, Limit: c.limit, Size: func(ctx context.Context, s *Session) (size float64, known bool, err error) {
		usrloc, err := s.StatisticsOf(ctx, "usrloc")
		if err != nil {
			return 0, false, err
		}
		for m := range usrloc.Members() {
			if strings.HasSuffix(m.Name, "_contacts") || strings.HasSuffix(m.Name, "-contacts") {
				n, ok := m.Value.Float()
				known = known || ok
				size += max(n, 0)
			}
		}
		if !known {
			return 0, false, nil
		}
		known, err = s.usrlocInMemory(ctx, usrloc)
		return size, known, err
	}}
}

// contactRows selects the contacts of a dump (usrloc/ul_rpc.c), and the fields that are
// counted.
var contactRows = kamrpc.Rows{
	Path:   "Domains/Domain/AoRs/Info/Contacts/Contact",
	Fields: []string{"Address", "Expires", "User-Agent", "State", "Socket"},
}

// domainTally holds the counts for one domain's contacts.
type domainTally struct{ transports, agents, states, lifetimes tally }

func (usrlocContacts) Update(ctx context.Context, s *Session, emit Emit) error {
	var order []string
	domains := map[string]*domainTally{}
	agents := agentCache{}
	err := s.Rows(ctx, contactRows, func(above kamrpc.Above, contact kamrpc.Value) error {
		name := above.Text("Domain")
		if name == "" {
			return nil // an empty list of domains
		}
		d := domains[name]
		if d == nil {
			d = &domainTally{}
			domains[name] = d
			order = append(order, name)
			// If a domain was read, 0 contacts about to expire is a valid count.
			for _, l := range lifetimeRanges {
				d.lifetimes.add(l.label, 0)
			}
		}
		if !contact.Exists() {
			return nil
		}
		d.transports.add(contactTransport(contact), 1)
		d.agents.add(agents.family(contact.Get("User-Agent").Text()), 1)
		d.states.add(contactState(contact.Get("State").Text()), 1)
		d.lifetimes.add(lifetime(contact.Get("Expires")), 1)
		return nil
	}, dumpMethod)
	if err != nil {
		return err
	}
	for _, name := range order {
		d := domains[name]
		d.transports.emit(contactsByTransport, name, emit)
		d.agents.emit(contactsByAgent, name, emit)
		d.states.emit(contactsByState, name, emit)
		d.lifetimes.emit(contactsByLifetime, name, emit)
	}
	return nil
}

// tally counts by label, and keeps the order of first appearance.
type tally struct {
	order []string
	count map[string]float64
}

func (t *tally) add(label string, n float64) {
	if t.count == nil {
		t.count = map[string]float64{}
	}
	if _, ok := t.count[label]; !ok {
		t.order = append(t.order, label)
	}
	t.count[label] += n
}

func (t *tally) emit(d *Desc, domain string, emit Emit) {
	for _, label := range t.order {
		emit(d, t.count[label], domain, label)
	}
}

// contactTransport returns the transport from the socket that received the registration,
// such as "udp:192.0.2.1:5060", or else from the contact's URI.
func contactTransport(contact kamrpc.Value) string {
	if transport, _, ok := strings.Cut(contact.Get("Socket").Text(), ":"); ok {
		return knownTransport(transport)
	}
	uri := strings.ToLower(contact.Get("Address").Text())
	if _, rest, ok := strings.Cut(uri, ";transport="); ok {
		transport, _, _ := strings.Cut(rest, ";")
		return knownTransport(transport)
	}
	if strings.HasPrefix(uri, "sips:") {
		return "tls"
	}
	return "udp" // RFC 3261 19.1.4: the default of a sip: URI
}

func knownTransport(transport string) string {
	switch transport = strings.ToLower(transport); transport {
	case "udp", "tcp", "tls", "sctp", "ws", "wss":
		return transport
	}
	return "other"
}

// agentFamilies are the user agents that are distinguished. A phone reports its exact
// version, which would create a series for each firmware.
var agentFamilies = []string{
	"Acrobits", "Asterisk", "Audiocodes", "Avaya", "Bria", "Cisco", "Fanvil", "FreeSWITCH", "FreePBX", "Gigaset",
	"Grandstream", "Groundwire", "Htek", "Jitsi", "JsSIP", "Kamailio", "Linksys", "Linphone", "MicroSIP", "Mitel",
	"Obihai", "Opensips", "Panasonic", "PJSIP", "Polycom", "Poly", "SIP.js", "Snom", "Sangoma", "Sipura",
	"Teams", "Telephone", "Yealink", "Zoiper", "3CX", "sipp",
}

func agentFamily(userAgent string) string {
	lower := strings.ToLower(userAgent)
	for _, family := range agentFamilies {
		if strings.Contains(lower, strings.ToLower(family)) {
			return family
		}
	}
	return "other"
}

// agentCache caches families: a million phones have only a few hundred names.
type agentCache map[string]string

const maxAgents = 4096

func (c agentCache) family(userAgent string) string {
	family, ok := c[userAgent]
	if !ok {
		family = agentFamily(userAgent)
		if len(c) < maxAgents {
			c[userAgent] = family
		}
	}
	return family
}

func contactState(state string) string {
	switch state {
	case "CS_NEW":
		return "new"
	case "CS_SYNC":
		return "sync"
	case "CS_DIRTY":
		return "dirty"
	}
	return "other"
}

var lifetimeRanges = []struct {
	below float64
	label string
}{{60, "0-60"}, {300, "60-300"}, {1800, "300-1800"}, {3600, "1800-3600"}, {math.Inf(1), "3600-"}}

// lifetime classifies the field Expires: a number of seconds, or one of the words
// permanent, expired, and deleted (usrloc/ul_rpc.c).
func lifetime(expires kamrpc.Value) string {
	seconds, ok := expires.Float()
	if !ok {
		switch word := expires.Text(); word {
		case "permanent", "expired", "deleted":
			return word
		}
		return "unknown"
	}
	if seconds < 0 {
		return "expired"
	}
	for _, r := range lifetimeRanges {
		if seconds < r.below {
			return r.label
		}
	}
	return "unknown"
}
