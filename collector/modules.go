package collector

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
}

// DefaultDumpContacts of [Options.DumpContacts]: at 1,000 contacts ul.dump took
// 25 ms of a worker over HTTP and 20 ms over the FIFO, on 5.6.3 and on 6.0.1.
const DefaultDumpContacts = 1000

// All lists the collectors. A new module is one line here.
func All(o Options) []Collector {
	all := []Collector{
		newCore(),
		coreTrafficModule.Collector(),
		tcpModule.Collector(),
		dnsModule.Collector(),
		tmModule.Collector(),
		tmxModule.Collector(),
		slModule.Collector(),
		dialogModule.Collector(),
		dialogProfiles{o.DialogProfiles},
		dispatcher{},
		drouting{},
		kafkaModule.Collector(),
		msiloModule.Collector(),
		newPike(o.PikeAddresses),
		registrarModule.Collector(),
		tlsModule.Collector(),
		uacModule.Collector(),
		usrlocModule.Collector(),
		usrlocContacts{limit: o.DumpContacts},
		websocketModule.Collector(),
	}
	known := &claimed{}
	for _, c := range all {
		if t, ok := tableOf(c); ok {
			known.tables = append(known.tables, t)
		}
	}
	return append(all, statisticsCollector{known})
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
