package collector

import (
	"cmp"
	"time"
)

// Options are the settings of the collectors that an operator can change.
type Options struct {
	// DialogProfiles are the dialog profiles to count, as PROFILE or PROFILE:VALUE.
	// Kamailio does not list their names.
	DialogProfiles []string
	// Dialplans are the ids of the dialplans to count. Kamailio does not list them
	// either.
	Dialplans []int
	// PikeAddresses is how many blocked source addresses are exported one by one; 0
	// exports none. Addresses are personal data, and an attack can add any number.
	PikeAddresses int
	// DumpContacts is the number of registered contacts up to which ul.dump is called;
	// 0 disables it.
	DumpContacts int
	// ListDialogs is the number of dialogs up to which dlg.briefing is called; 0
	// disables it.
	ListDialogs int
	// TLSConnections is the number of TLS connections up to which tls.list is called; 0
	// disables it.
	TLSConnections int
	// CfgVariables are the settings to export, each as group.name.
	CfgVariables []string
	// TrunksTable is the htable in which kamailio.cfg counts the calls to trunks.
	TrunksTable string
	// HTableItems are the htables whose integers are exported one by one.
	HTableItems []string
	// ListRows is the limit for lists whose size is not known before the call: a list
	// longer than this is skipped for one hour. 0 disables the limit.
	ListRows int
	// GrowingInterval is the minimum time between two calls of ul.dump, dlg.briefing,
	// tls.list, and lists that rarely change. Other growing lists use 5 s, or
	// GrowingInterval if it is shorter.
	GrowingInterval time.Duration
	// Promotions are the statistics that are exported as metrics of their own; see
	// [CheckPromotions].
	Promotions []Promotion
	// Host is the machine that Kamailio runs on, if it is this one.
	Host Host
}

// DefaultDumpContacts is the default of [Options.DumpContacts]. At 1,000 contacts, ul.dump
// took 25 ms of a worker over HTTP and 20 ms over the FIFO, on 5.6.3 and on 6.0.1.
const DefaultDumpContacts = 1000

// DefaultListDialogs is the default of [Options.ListDialogs]. 1,000 dialogs took 31 ms
// over HTTP and 20 ms over the FIFO, with more fields than are requested here.
const DefaultListDialogs = 1000

// DefaultTLSConnections is the default of [Options.TLSConnections]. 500 connections took
// 4 ms of a worker over HTTP on 5.6.3 and 20 ms on 6.0.1. During that time, no other
// worker can look up a TCP connection.
const DefaultTLSConnections = 500

// DefaultListRows is the default of [Options.ListRows]. dispatcher.list of 5,000
// destinations took 45 ms over HTTP on 5.6.3 and 57 ms on 6.0.1. With 10,000, 6.0.1 does
// not answer if it has the default private memory.
const DefaultListRows = 5000

// DefaultGrowingInterval is the default of [Options.GrowingInterval].
const DefaultGrowingInterval = time.Minute

// listInterval is the interval for lists that show where calls can go now. They grow too,
// but are small on most servers and need to be current.
const listInterval = 5 * time.Second

// listLimits are the limits of a list whose size is not known before the call.
type listLimits struct {
	rows       int
	interval   time.Duration
	firstPause time.Duration // 0: a minute
}

// collector returns the collector for a table whose first query is a list.
func (l listLimits) collector(m Module) Collector {
	return guardedTable{m.Collector().(*table), l.guard(m.Queries[0].Method, longest)}
}

// guard returns the guard for a list that method returns and rows counts.
func (l listLimits) guard(method string, rows func([]Sample) int) Guard {
	return Guard{Method: method, Interval: l.interval, Limit: l.rows, Rows: rows, FirstPause: l.firstPause}
}

// QuadraticRows is the limit for a list of quadratic cost: 2,000 trusted peers take
// Kamailio 0.1 s, 5,000 up to 2.2 s, and 20,000 half a minute.
const QuadraticRows = 2000

func (l listLimits) quadratic() listLimits {
	if l.rows == 0 || l.rows > QuadraticRows {
		l.rows = QuadraticRows
	}
	return l
}

// All returns all collectors. A new module is one line here.
func All(o Options) []Collector {
	lists := listLimits{rows: o.ListRows, interval: min(listInterval, o.GrowingInterval)}
	// Lists that only change on a reload, or that are counted for trends. If one is not
	// answered in time, it is long, and Kamailio may still be working on it.
	slow := listLimits{rows: o.ListRows, interval: o.GrowingInterval, firstPause: time.Hour}
	all := []Collector{
		// The core and what nearly every server runs.
		newCore(),
		coreTrafficModule.Collector(),
		host{o.Host},
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
		// All others, by name.
		carrierroute{slow.quadratic()},
		newCDP(lists),
		cnxccModule.Collector(),
		dbMySQLModule.Collector(),
		dialplans{slow.quadratic(), o.Dialplans},
		dispatcher{lists},
		dlgsModule.Collector(),
		lists.collector(dmqModule),
		domains{slow},
		drouting{lists},
		htableModule.Collector(),
		htableItems{lists, o.HTableItems},
		httpAsyncClientModule.Collector(),
		httpClientModule.Collector(),
		imsAuthModule.Collector(),
		imsChargingModule.Collector(),
		imsDialogModule.Collector(),
		imsICSCFModule.Collector(),
		imsQoSModule.Collector(),
		imsRegistrarModule.Collector(),
		imsUsrlocPCSCFModule.Collector(),
		imsUsrlocSCSCFModule.Collector(),
		kafkaModule.Collector(),
		keepalive{lists},
		lcr{lists},
		mqueueModule.Collector(),
		msiloModule.Collector(),
		mtreeModule.Collector(),
		natTraversalModule.Collector(),
		permissions{slow},
		permissionsTrusted{slow.quadratic()},
		newPike(o.PikeAddresses, lists),
		lists.collector(pipelimitModule),
		presence{slow},
		ratelimitModule.Collector(),
		lists.collector(rtpengineModule),
		lists.collector(rtpproxyModule),
		scaModule.Collector(),
		sctpModule.Collector(),
		secfilterModule.Collector(),
		sipcaptureModule.Collector(),
		siptraceModule.Collector(),
		trunks{lists, cmp.Or(o.TrunksTable, DefaultTrunksTable)},
		tsiloModule.Collector(),
		uacModule.Collector(),
		uacRegistrations{lists},
		websocketModule.Collector(),
	}
	return append(all, newStatistics(tablesOf(all), o.Promotions))
}

// tablesOf collects the tables of the collectors, to look up which statistics they know.
func tablesOf(all []Collector) *claimed {
	known := &claimed{tables: []*table{unsetStatistics.Collector().(*table)}}
	for _, c := range all {
		if t, ok := tableOf(c); ok {
			known.tables = append(known.tables, t)
		}
	}
	return known
}

// tableOf returns the table of a collector that is, or is built on, a table.
func tableOf(c Collector) (*table, bool) {
	switch c := c.(type) {
	case *table:
		return c, true
	case interface{ base() *table }:
		return c.base(), true
	}
	return nil, false
}

// Names returns the names of the collectors, in the same order.
func Names(collectors []Collector) []string {
	names := make([]string, len(collectors))
	for i, c := range collectors {
		names[i] = c.Name()
	}
	return names
}
