package collector

import "time"

// Options are what an operator can set of the collectors.
type Options struct {
	// DialogProfiles are the dialog profiles to count. Kamailio has no list of
	// their names.
	DialogProfiles []string
	// PikeAddresses is how many blocked source addresses are shown one by one;
	// 0 shows none: addresses are personal data, and an attack brings any number.
	PikeAddresses int
	// DumpContacts is up to how many registered contacts ul.dump is asked; 0 is
	// never.
	DumpContacts int
	// ListDialogs is up to how many dialogs dlg.briefing is asked; 0 is never.
	ListDialogs int
	// ListRows is how many rows a list may have whose size is not known
	// beforehand: after a longer one it is not asked for an hour. 0 is no limit.
	ListRows int
	// GrowingInterval is how often ul.dump and dlg.briefing are asked at the
	// most, and other growing lists if it is below 5 s, their own interval.
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
	rows     int
	interval time.Duration
}

// guard of a list that method answers, and rows counts.
func (l listLimits) guard(method string, rows func([]Sample) int) Guard {
	return Guard{Method: method, Interval: l.interval, Limit: l.rows, Rows: rows}
}

// All lists the collectors. A new module is one line here.
func All(o Options) []Collector {
	lists := listLimits{rows: o.ListRows, interval: min(listInterval, o.GrowingInterval)}
	all := []Collector{
		newCore(),
		coreTrafficModule.Collector(),
		tcpModule.Collector(),
		dnsModule.Collector(),
		tmModule.Collector(),
		tmxModule.Collector(),
		slModule.Collector(),
		dialogModule.Collector(),
		dialogAges{limit: o.ListDialogs, interval: o.GrowingInterval},
		dialogProfiles{o.DialogProfiles},
		dispatcher{lists},
		drouting{lists},
		htableModule.Collector(),
		kafkaModule.Collector(),
		msiloModule.Collector(),
		newPike(o.PikeAddresses, lists),
		registrarModule.Collector(),
		tlsModule.Collector(),
		uacModule.Collector(),
		usrlocModule.Collector(),
		usrlocContacts{limit: o.DumpContacts, interval: o.GrowingInterval},
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
