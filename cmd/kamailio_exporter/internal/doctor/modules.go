package doctor

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/kamailio-exporter/kamailio_exporter/collector"
)

// modulesOf maps the prefix of methods or statistics, or the name of a collector, to the
// module, where the names differ.
var modulesOf = map[string]string{
	"cfg": "cfg_rpc", "cnt": "counters", "cr": "carrierroute", "dlg": "dialog", "pkg": "kex",
	"pl": "pipelimit", "rl": "ratelimit", "stats": "kex", "ul": "usrloc",
}

type usefulModule struct {
	module string
	lines  []string // for kamailio.cfg
}

// useful are the modules that provide useful metrics on any server.
var useful = []usefulModule{
	{"kex", []string{`loadmodule "kex.so"`}},
	{"tm", []string{`loadmodule "tm.so"`}},
	{"tmx", []string{`loadmodule "tmx.so"  # after tm`}},
	{"sl", []string{`loadmodule "sl.so"`}},
	{"dialog", append([]string{`loadmodule "dialog.so"  # after tm and rr`}, manageCalls...)},
}

// naming are the collectors that export nothing until a flag names what to read.
var naming = map[string]string{
	"cfg":            "--collector.cfg.variables=GROUP.NAME",
	"dialog_profile": "--collector.dialog_profile.names=NAME",
	"htable_items":   "--collector.htable_items.table=NAME",
	"dialplan":       "--collector.dialplan.ids=ID",
}

// since is the first version on which Kamailio reports what a collector reads, if the
// module is older.
var since = map[string]string{"mqueue": "5.5", "secfilter": "6.0"}

// tooOld reports whether loading the module would add nothing on this version.
func (p *patient) tooOld(module string) bool { return p.version != "" && p.version < since[module] }

// absent explains why a collector has nothing to read; it is empty if that is unknown.
type absent struct {
	module string // not loaded; "" if that is not the reason
	why    string
}

func (p *patient) absence(c collector.Collector) absent {
	for _, method := range c.Methods() {
		if p.has(method) {
			continue
		}
		prefix, _, _ := strings.Cut(method, ".")
		module := prefix
		if m, ok := modulesOf[prefix]; ok {
			module = m
		}
		loaded, known := p.loads(module)
		switch {
		case prefix == "core":
			return absent{"", fmt.Sprintf("Kamailio has no RPC %s", method)}
		case known && loaded:
			return absent{"", fmt.Sprintf("%s is loaded, but has no RPC %s", module, method)}
		}
		return absent{module, module + " is not loaded"}
	}
	name := c.Name()
	loaded, known := p.loads(name)
	if name == hostCollector {
		return absent{} // see checkHost
	}
	if known && !loaded && !strings.HasPrefix(name, "core") && name != "dns" && name != "tcp" {
		return absent{name, name + " is not loaded"}
	}
	switch name {
	case "drouting":
		return absent{"", "Kamailio exports the state of its gateways only if kamailio.cfg includes drouting-gw-status.cfg from the exporter's examples"}
	case "uac_registrations":
		return absent{"", "there are no outgoing registrations: reg_db_url is not set"}
	}
	if p.tooOld(name) {
		return absent{"", "requires Kamailio " + since[name]}
	}
	if known {
		return absent{"", "Kamailio reports nothing for it"}
	}
	return absent{} // perhaps it is not loaded
}

// checkModules reports which metrics another module or flag would add.
func checkModules(_ context.Context, p *patient) (all []Finding) {
	if p.snapshot == nil || !p.snapshot.Up {
		return nil
	}
	collectors := map[string][]string{} // by the module that they need
	var others, unnamed []string
	var unnamedFlags []string
	for i, r := range p.snapshot.Results {
		c := p.cfg.Collectors[i]
		if r.Supported {
			if f, ok := naming[c.Name()]; ok && len(r.Samples) == 0 && r.Err == nil {
				unnamed, unnamedFlags = append(unnamed, c.Name()), append(unnamedFlags, f)
			}
			continue
		}
		lack := p.absence(c)
		if lack == (absent{}) {
			continue
		}
		if lack.module == "" {
			all = append(all, Finding{Level: Note, Text: c.Name() + ": " + lack.why})
			continue
		}
		// Modules of an IMS core are no advice for other servers.
		if lack.module == "cdp" || strings.HasPrefix(lack.module, "ims_") || p.tooOld(lack.module) {
			continue
		}
		if !slices.Contains(others, lack.module) {
			others = append(others, lack.module)
		}
		collectors[lack.module] = append(collectors[lack.module], c.Name())
	}
	var first []Finding
	for _, u := range useful {
		names, ok := collectors[u.module]
		if !ok {
			continue
		}
		others = slices.DeleteFunc(others, func(m string) bool { return m == u.module })
		var tells []string
		for _, c := range p.cfg.Collectors {
			if slices.Contains(names, c.Name()) {
				tells = append(tells, fmt.Sprintf("%s (%s)", c.About(), c.Name()))
			}
		}
		first = append(first, Finding{Level: Note, Text: "the module " + u.module + " would add: " + strings.Join(tells, "; "), Fixes: []Fix{kamailioCfg(u.lines...)}})
	}
	if len(unnamed) > 0 {
		first = append(first, Finding{Level: Note, Text: strings.Join(unnamed, ", ") + ": no flag selects what to export", Fixes: []Fix{byFlag(unnamedFlags...)}})
	}
	all = append(first, all...)
	if len(others) > 0 {
		all = append(all, Finding{Level: Note, Text: "collectors that start to work once kamailio.cfg loads their modules: " + strings.Join(others, ", ")})
	}
	return all
}
