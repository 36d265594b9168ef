package collector

import (
	"cmp"
	"time"
)

// Options are what an operator can set of the collectors.
type Options struct {
	// DialogProfiles are the dialog profiles to count, PROFILE or PROFILE:VALUE.
	// Kamailio has no list of their names.
	DialogProfiles []string
	// Dialplans are the ids of the dialplans to count. Kamailio has no list of
	// them either.
	Dialplans []int
	// PikeAddresses is how many blocked source addresses are shown one by one;
	// 0 shows none: addresses are personal data, and an attack brings any number.
	PikeAddresses int
	// DumpContacts is up to how many registered contacts ul.dump is asked; 0 is
	// never.
	DumpContacts int
	// ListDialogs is up to how many dialogs dlg.briefing is asked; 0 is never.
	ListDialogs int
	// TLSConnections is up to how many TLS connections tls.list is asked; 0 is
	// never.
	TLSConnections int
	// CfgVariables are the settings to show, each as group.name.
	CfgVariables []string
	// TrunksTable is the htable in which the script counts the calls to trunks.
	TrunksTable string
	// HTableItems are the htables whose integers are shown one by one.
	HTableItems []string
	// ListRows is how many rows a list may have whose size is not known
	// beforehand: after a longer one it is not asked for an hour. 0 is no limit.
	ListRows int
	// GrowingInterval is how often ul.dump, dlg.briefing, tls.list and lists that
	// are seldom different are asked at most, and other growing lists if it is
	// below 5 s, their own interval.
	GrowingInterval time.Duration
	// Promotions are the statistics that have metrics of their own; see
	// [CheckPromotions].
	Promotions []Promotion
}

// DefaultDumpContacts of [Options.DumpContacts]: at 1,000 contacts ul.dump took
// 25 ms of a worker over HTTP and 20 ms over the FIFO, on 5.6.3 and on 6.0.1.
const DefaultDumpContacts = 1000

// DefaultListDialogs of [Options.ListDialogs]: 1,000 dialogs took 31 ms over HTTP
// and 20 ms over the FIFO, with more fields than are asked for here.
const DefaultListDialogs = 1000

// DefaultTLSConnections of [Options.TLSConnections]: 500 connections took 4 ms of
// a worker over HTTP on 5.6.3 and 20 ms on 6.0.1, while no other worker could
// look for a TCP connection.
const DefaultTLSConnections = 500

// DefaultListRows of [Options.ListRows]: dispatcher.list of 5,000 destinations
// took 45 ms over HTTP on 5.6.3 and 57 ms on 6.0.1, which does not answer at
// 10,000 with its default private memory.
const DefaultListRows = 5000

// DefaultGrowingInterval of [Options.GrowingInterval].
const DefaultGrowingInterval = time.Minute

// listInterval is the same for lists that tell what gets calls now: they grow
// too, but are small on most servers and wanted fresh.
const listInterval = 5 * time.Second

// listLimits are those of a list whose size is not known beforehand.
type listLimits struct {
	rows       int
	interval   time.Duration
	firstPause time.Duration // 0 is a minute
}

// collector of a table whose first query is a list.
func (l listLimits) collector(m Module) Collector {
	return guardedTable{m.Collector().(*table), l.guard(m.Queries[0].Method, longest)}
}

// guard of a list that method answers, and rows counts.
func (l listLimits) guard(method string, rows func([]Sample) int) Guard {
	return Guard{Method: method, Interval: l.interval, Limit: l.rows, Rows: rows, FirstPause: l.firstPause}
}

// QuadraticRows is how long a list may be whose cost is quadratic: 2,000 trusted
// peers take Kamailio 0.1 s, 5,000 up to 2.2 s and 20,000 half a minute.
const QuadraticRows = 2000

func (l listLimits) quadratic() listLimits {
	if l.rows == 0 || l.rows > QuadraticRows {
		l.rows = QuadraticRows
	}
	return l
}

// All lists the collectors. A new module is one line here.
func All(o Options) []Collector {
	lists := listLimits{rows: o.ListRows, interval: min(listInterval, o.GrowingInterval)}
	// What changes with a reload only, or is counted for trends. One that was not
	// answered in time is a long one, on which Kamailio may still be at work.
	slow := listLimits{rows: o.ListRows, interval: o.GrowingInterval, firstPause: time.Hour}
	all := []Collector{
		// The core and what nearly every server runs.
		newCore(),
		coreTrafficModule.Collector(),
		guardedTable{socketsModule.Collector().(*table), Guard{Method: "core.sockets_list", Interval: socketsInterval}},
		newPkg(),
		cfgVariables{o.CfgVariables, o.GrowingInterval},
		tcpModule.Collector(),
		tlsModule.Collector(),
		tlsConnections(o.TLSConnections, o.GrowingInterval),
		dnsModule.Collector(),
		tmModule.Collector(),
		tmxModule.Collector(),
		slModule.Collector(),
		dialogModule.Collector(),
		dialogAges{limit: o.ListDialogs, interval: o.GrowingInterval},
		dialogProfiles{o.DialogProfiles},
		newUsrloc(),
		usrlocContacts{limit: o.DumpContacts, interval: o.GrowingInterval},
		registrarModule.Collector(),
		// The others by name.
		carrierroute{slow.quadratic()},
		dialplans{slow.quadratic(), o.Dialplans},
		dispatcher{lists},
		lists.collector(dmqModule),
		domains{slow},
		drouting{lists},
		htableModule.Collector(),
		htableItems{lists, o.HTableItems},
		kafkaModule.Collector(),
		keepalive{lists},
		lcr{lists},
		mqueueModule.Collector(),
		msiloModule.Collector(),
		mtreeModule.Collector(),
		permissions{slow},
		permissionsTrusted{slow.quadratic()},
		newPike(o.PikeAddresses, lists),
		lists.collector(pipelimitModule),
		presence{slow},
		ratelimitModule.Collector(),
		lists.collector(rtpengineModule),
		lists.collector(rtpproxyModule),
		secfilterModule.Collector(),
		trunks{lists, cmp.Or(o.TrunksTable, DefaultTrunksTable)},
		uacModule.Collector(),
		uacRegistrations{lists},
		websocketModule.Collector(),
	}
	return append(all, newStatistics(tablesOf(all), o.Promotions))
}

// tablesOf remembers which statistics the collectors' tables know.
func tablesOf(all []Collector) *claimed {
	known := &claimed{}
	for _, c := range all {
		if t, ok := tableOf(c); ok {
			known.tables = append(known.tables, t)
		}
	}
	return known
}

// tableOf is the table of a collector that is one, or is built on one.
func tableOf(c Collector) (*table, bool) {
	switch c := c.(type) {
	case *table:
		return c, true
	case interface{ base() *table }:
		return c.base(), true
	}
	return nil, false
}

// Names lists the names of collectors, in their order.
func Names(collectors []Collector) []string {
	names := make([]string, len(collectors))
	for i, c := range collectors {
		names[i] = c.Name()
	}
	return names
}
