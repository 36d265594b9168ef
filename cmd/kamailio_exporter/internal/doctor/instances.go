package doctor

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
)

// A host may run several Kamailio servers. In findings, "it" is the one that the
// configured URIs lead to. The others are identified by their processes.

// instance is one Kamailio that replies, with the URIs that lead to it.
type instance struct {
	id     kamrpc.Identity
	trials []*trial
}

// instances groups the URIs that reply by Kamailio: either the configured URIs, or those
// that were found.
func (p *patient) instances(configured bool) (all []*instance) {
	for _, t := range p.trials {
		if !t.Answers || t.Flag != configured {
			continue
		}
		i := slices.IndexFunc(all, func(known *instance) bool { return known.id.Same(t.id) })
		if i < 0 {
			all = append(all, &instance{id: t.id})
			i = len(all) - 1
		}
		all[i].trials = append(all[i].trials, t)
	}
	return all
}

// answering returns the URIs that reply and are used: the configured ones that lead to
// the same Kamailio as the first.
func (p *patient) answering() []*trial {
	if all := p.instances(true); len(all) > 0 {
		return all[0].trials
	}
	return nil
}

// unnamed returns the URIs that were found, are not configured, and lead to the
// configured Kamailio.
func (p *patient) unnamed() []*trial {
	trials := p.answering()
	for _, found := range p.instances(false) {
		if len(trials) > 0 && found.id.Same(trials[0].id) {
			return found.trials
		}
	}
	return nil
}

// theOnly returns the Kamailio that was found, if it is the only one on this host.
func (p *patient) theOnly() *instance {
	found := p.instances(false)
	if len(found) != 1 || len(p.processes) > 1 {
		return nil
	}
	return found[0]
}

// processOf returns the process of an instance on this host.
func (p *patient) processOf(id kamrpc.Identity) (process, bool) {
	i := slices.IndexFunc(p.processes, func(k process) bool { return strconv.Itoa(k.pid) == id.MainPID() })
	if i < 0 {
		return process{}, false // it runs on another host, or in a container
	}
	return p.processes[i], true
}

// isIt reports whether a process belongs to the Kamailio that the findings are about.
func (p *patient) isIt(k process) bool {
	if trials := p.answering(); len(trials) > 0 && trials[0].id.MainPID() != "" {
		return k.pid == p.mainPID
	}
	return k.pid == p.mainPID || len(p.processes) == 1
}

// name returns a name that distinguishes an instance from others.
func (p *patient) name(id kamrpc.Identity) string {
	if k, here := p.processOf(id); here {
		return fmt.Sprintf("pid %d with %s", k.pid, k.config)
	}
	return id.String()
}

// proposal returns flags for an instance: the sockets of jsonrpcs if there are any, else
// that of ctl.
func (i *instance) proposal() Fix {
	trials := slices.DeleteFunc(slices.Clone(i.trials), func(t *trial) bool { return strings.HasPrefix(t.URI, "binrpc+") })
	if len(trials) == 0 {
		trials = i.trials
	}
	var flags []string
	for _, t := range trials {
		flags = append(flags, "--kamailio.uri="+t.given)
	}
	return byFlag(flags...)
}

func uris(trials []*trial) string {
	var all []string
	for _, t := range trials {
		all = append(all, t.URI)
	}
	return strings.Join(all, ", ")
}

// checkInstances checks that all configured URIs lead to the same Kamailio.
func checkInstances(_ context.Context, p *patient) (all []Finding) {
	named := p.instances(true)
	for i, other := range named {
		if i == 0 {
			continue
		}
		mine := instance{named[0].id, slices.Concat(named[0].trials, p.unnamed())}
		all = append(all, Finding{
			Level: Fail, Text: fmt.Sprintf("%s leads to another Kamailio (%s, %s) than %s (%s, %s). All URIs must lead to the same one; the exporter only uses those of the first",
				uris(other.trials), p.name(other.id), other.id, uris(named[0].trials), p.name(named[0].id), named[0].id),
			Fixes: []Fix{mine.proposal()},
		})
	}
	return all
}

// checkFound reports URIs that no flag names.
func checkFound(_ context.Context, p *patient) (all []Finding) {
	found := p.instances(false)
	trials := p.answering()
	if len(trials) > 0 {
		if unnamed := p.unnamed(); len(unnamed) > 0 {
			all = one(Note, "these URIs work too, but no flag names them, and they are not needed: "+uris(unnamed))
		}
		for _, other := range found {
			if !other.id.Same(trials[0].id) {
				all = append(all, Finding{Level: Note, Text: "another Kamailio (" + p.name(other.id) + ") answers at " + uris(other.trials)})
			}
		}
		return all
	}
	for _, i := range found {
		text := fmt.Sprintf("%s works (%s), but no flag names it", uris(i.trials), strings.TrimSpace(i.trials[0].Version))
		if len(i.trials) > 1 {
			text = fmt.Sprintf("%s work (%s), but no flag names them", uris(i.trials), strings.TrimSpace(i.trials[0].Version))
		}
		if len(found) > 1 || len(p.processes) > 1 {
			text = p.name(i.id) + ": " + text
		}
		all = append(all, Finding{Level: Note, Text: text, Fixes: []Fix{i.proposal()}})
	}
	if !p.cfg.Search || len(p.processes) < 2 {
		return all
	}
	for _, k := range p.processes {
		if !slices.ContainsFunc(found, func(i *instance) bool { return i.id.MainPID() == strconv.Itoa(k.pid) }) {
			all = append(all, Finding{Level: Note, Text: fmt.Sprintf("pid %d with %s: none of its sockets replies. If its kamailio.cfg serves RPC over HTTP, use that", k.pid, k.config),
				Fixes: []Fix{byFlag("--kamailio.uri=http://HOST:PORT/RPC")}})
		}
	}
	return all
}

// checkRows proposes BINRPC for values that Kamailio omits over JSON-RPC.
func checkRows(_ context.Context, p *patient) []Finding {
	trials := p.answering()
	complete := func(t *trial) bool { return t.via.Traits().Complete }
	if p.snapshot == nil || len(trials) == 0 || slices.ContainsFunc(trials, complete) {
		return nil
	}
	var lost []string
	for i, r := range p.snapshot.Results {
		for _, method := range p.cfg.Collectors[i].Methods() {
			if price, _ := kamrpc.PriceOf(method); price.JSONLoses != "" && r.Supported && len(r.Samples) > 0 {
				lost = append(lost, fmt.Sprintf("%s (%s)", price.JSONLoses, r.Collector))
			}
		}
	}
	if len(lost) == 0 {
		return nil
	}
	var flags []string
	for _, t := range trials {
		flags = append(flags, "--kamailio.uri="+t.given)
	}
	binrpc := "binrpc+unix:///run/kamailio/kamailio_ctl"
	if u, err := url.Parse(trials[0].given); err == nil && u.Hostname() != "" && p.mainPID == 0 {
		binrpc = "binrpc+tcp://" + u.Hostname() + ":2049"
	}
	unnamed := p.unnamed()
	if i := slices.IndexFunc(unnamed, complete); i >= 0 {
		binrpc = unnamed[i].given
	}
	fixes := []Fix{byFlag(append(flags, "--kamailio.uri="+binrpc)...)}
	if loaded, known := p.loads("ctl"); known && !loaded {
		fixes = append([]Fix{kamailioCfg(`loadmodule "ctl.so"`)}, fixes...)
	}
	return one(Note, "over JSON-RPC Kamailio omits "+strings.Join(lost, ", and ")+"; over BINRPC it reports all. Add this URI to the others", fixes...)
}
