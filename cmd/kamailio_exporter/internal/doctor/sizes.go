package doctor

import (
	"context"
	"fmt"
	"regexp"
)

// sample returns the first value of a metric in the scrape.
func (p *patient) sample(name string) (value float64, there bool) {
	if p.snapshot == nil {
		return 0, false
	}
	for _, r := range p.snapshot.Results {
		for _, s := range r.Samples {
			if s.Desc.Name == name {
				return s.Value, true
			}
		}
	}
	return 0, false
}

var dbModeLine = regexp.MustCompile(`(?m)^[ \t]*modparam\([ \t]*"usrloc"[ \t]*,[ \t]*"db_mode"[ \t]*,[ \t]*([0-9])[ \t]*\)`)

// checkUsrloc explains why registrations are not counted.
func checkUsrloc(_ context.Context, p *patient) []Finding {
	if in, there := p.sample("kamailio_usrloc_in_memory"); !there || in == 1 {
		return nil
	}
	const missing = "registered users and contacts are not exported: "
	inMemory := kamailioCfg(`modparam("usrloc", "db_mode", 2)  # in memory, and written to the database`)
	accepted, _ := p.sample("kamailio_registrar_accepted_total")
	switch {
	case p.configured(dbModeLine) == "3":
		return one(Note, missing+"usrloc keeps them only in the database (db_mode 3), and does not count them", inMemory)
	case accepted > 0:
		return one(Note, missing+fmt.Sprintf("usrloc counts none, although %.0f registrations were accepted since Kamailio started. It may keep them only in the database (db_mode 3)", accepted), inMemory)
	}
	return one(Note, missing+"usrloc counts none. No client has registered since Kamailio started, or it keeps them only in the database (db_mode 3)")
}

// checkPkg explains why the sizes of private memory are missing.
func checkPkg(_ context.Context, p *patient) []Finding {
	_, read := p.sample("kamailio_pkg_fragments")
	if _, sizes := p.sample("kamailio_pkg_total_bytes"); !read || sizes {
		return nil
	}
	return one(Note, "the sizes of private memory are not exported: Kamailio reports them in 32 bits, and each process has 4 GiB or more",
		shell("ps -o args= -C kamailio | head -1  # its option -M, in MiB"))
}
