package doctor

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/sipprobe"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/xhttpprom"
	"github.com/kamailio-exporter/kamailio_exporter/collector"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
)

// patient has everything that was found out, as input for the checks.
type patient struct {
	cfg       Config
	who       account
	whoErr    error
	processes []process
	trials    []*trial // configured ones first

	// About the Kamailio that replies at a configured URI or, if none does, at any URI.
	client  *kamrpc.Client
	version string // 5.6.3
	up      kamrpc.Value
	upAt    time.Time
	uptime  time.Duration
	methods []string // nil: not known
	modules []string // nil: not known
	tables  kamrpc.Value
	workers map[string]int
	mainPID int // 0: not known

	snapshot *collector.Snapshot // nil: there was no scrape
	largest  map[string]int64    // bytes of the largest reply, by method
	sizes    []guarded
	probes   sipprobe.Results
	page     *xhttpprom.Merged
}

// trial is one URI that was tried.
type trial struct {
	Transport
	given string // the URI with its parameters
	via   kamrpc.Transport
	dials int64 // connections for two calls, if known
	id    kamrpc.Identity
	err   error
}

// guarded is a collector whose call gets more expensive with a number that Kamailio
// reports.
type guarded struct {
	name  string
	guard collector.Guard
	size  float64
}

const versionMethod = "core.version"

func examine(ctx context.Context, cfg Config) *patient {
	p := &patient{cfg: cfg, largest: map[string]int64{}, workers: map[string]int{}}
	p.who, p.whoErr = cfg.System.whose(cfg.User)
	p.processes = cfg.System.kamailios()
	p.tryAll(ctx)
	p.ask(ctx)
	if cfg.SIP != nil {
		p.probes = cfg.SIP(ctx)
	}
	if cfg.Page != nil {
		p.page = cfg.Page(ctx)
	}
	return p
}

// tryAll tries the configured URIs, and those that are found on this host.
func (p *patient) tryAll(ctx context.Context) {
	for _, uri := range p.cfg.URIs {
		p.trials = append(p.trials, &trial{Transport: Transport{URI: uri, Flag: true}})
	}
	if p.cfg.Search {
		for _, uri := range p.cfg.System.search(p.processes) {
			if !slices.ContainsFunc(p.trials, func(t *trial) bool { return localPath(t.URI) != "" && localPath(t.URI) == localPath(uri) }) {
				p.trials = append(p.trials, &trial{Transport: Transport{URI: uri}})
			}
		}
	}
	var all sync.WaitGroup
	for _, t := range p.trials {
		all.Go(func() { t.try(ctx, p.cfg) })
	}
	all.Wait()
}

// try makes two calls, to detect a server that closes the connection after each reply.
func (t *trial) try(ctx context.Context, cfg Config) {
	transport, dials, err := cfg.Open(t.URI)
	if err != nil {
		t.err, t.Error, t.URI = err, err.Error(), withoutSecrets(t.URI)
		return
	}
	t.via, t.given, t.URI, t.MaxReply = transport, t.URI, transport.String(), transport.Traits().MaxReply
	client, err := kamrpc.NewClient(kamrpc.Config{Transports: []kamrpc.Transport{transport}, MaxConcurrent: 1})
	if err != nil {
		t.err, t.Error = err, err.Error()
		return
	}
	for range 2 {
		begun := time.Now()
		var version kamrpc.Value
		version, err = call(ctx, cfg.CallTimeout, client, versionMethod)
		if err != nil {
			t.err, t.Error = err, strings.TrimPrefix(err.Error(), versionMethod+" via "+t.URI+": ")
			return
		}
		t.Seconds = time.Since(begun).Seconds()
		t.Version = version.Text()
	}
	t.Answers, t.dials = true, dials()
	ctx, cancel := context.WithTimeout(ctx, cfg.CallTimeout)
	defer cancel()
	t.id, _ = client.Identity(ctx) // without an identity, it is not distinguished from others
}

func call(ctx context.Context, timeout time.Duration, client *kamrpc.Client, method string, params ...any) (kamrpc.Value, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return client.Call(ctx, method, params...)
}

// ask queries the Kamailio at the configured URIs, and makes a scrape. If none replies
// and there is exactly one other Kamailio, it queries that one for general information
// only.
func (p *patient) ask(ctx context.Context) {
	trials := p.answering()
	mine := len(trials) > 0
	if !mine {
		only := p.theOnly()
		if only == nil {
			return
		}
		trials = only.trials[:1]
	}
	cfg := kamrpc.Config{MaxConcurrent: p.cfg.MaxConcurrent, MaxReplyBytes: p.cfg.MaxReplyBytes}
	var mu sync.Mutex
	cfg.Observe = func(o kamrpc.Observation) {
		mu.Lock()
		defer mu.Unlock()
		p.largest[o.Method] = max(p.largest[o.Method], o.Bytes)
	}
	for _, t := range trials {
		cfg.Transports = append(cfg.Transports, t.via)
	}
	client, err := kamrpc.NewClient(cfg)
	if err != nil {
		return // cannot happen: there is a transport
	}
	_, version, _ := strings.Cut(trials[0].Version, " ") // "kamailio 5.6.3 (x86_64/linux) "
	p.version, _, _ = strings.Cut(strings.TrimSpace(version), " ")
	if methods, err := call(ctx, p.cfg.CallTimeout, client, "system.listMethods"); err == nil {
		p.methods = methods.Texts()
	}
	// Call only methods that are known to exist: Kamailio logs an ERROR line for each
	// call of an unknown one.
	get := func(method string) (v kamrpc.Value) {
		if slices.Contains(p.methods, method) {
			v, _ = call(ctx, p.cfg.CallTimeout, client, method)
		}
		return v
	}
	p.up, p.upAt = get("core.uptime"), time.Now()
	if seconds, ok := p.up.Get("uptime").Float(); ok {
		p.uptime = time.Duration(seconds) * time.Second
	}
	if modules := get("core.modules"); modules.Exists() {
		p.modules = modules.Texts()
		slices.Sort(p.modules)
	}
	p.tables = get("htable.listTables")
	for v := range get("core.psx").All("") {
		description := v.Get("DSC").Text()
		for _, kind := range []string{"udp receiver", "tcp receiver", "JSONRPCS DATAGRAM", "JSONRPCS FIFO", "ctl handler"} {
			if strings.HasPrefix(description, kind) {
				p.workers[kind]++
			}
		}
	}
	if k, here := p.processOf(trials[0].id); here {
		p.mainPID = k.pid
	}
	if mine {
		p.client = client
		p.scrape(ctx)
	}
}

// scrape does what the service does at each scrape, and queries the sizes that the limits
// apply to.
func (p *patient) scrape(ctx context.Context) {
	limited, cancel := context.WithTimeout(ctx, p.cfg.ScrapeTimeout)
	defer cancel()
	coordinator := collector.NewCoordinator(p.client, p.cfg.Collectors, collector.Limits{CallTimeout: p.cfg.CallTimeout})
	snapshot, err := coordinator.Scrape(limited)
	if err != nil {
		return // cannot happen: no collector was named
	}
	p.snapshot = snapshot
	session := collector.NewSession(p.client, p.cfg.CallTimeout, p.methods)
	for _, c := range p.cfg.Collectors {
		g, ok := c.(interface{ Guard() collector.Guard })
		if !ok || g.Guard().Size == nil || slices.ContainsFunc(c.Methods(), func(m string) bool { return !p.has(m) }) {
			continue
		}
		if size, known, err := g.Guard().Size(limited, session); err == nil && known {
			p.sizes = append(p.sizes, guarded{c.Name(), g.Guard(), size})
		}
	}
}

// has reports whether the server has a method. If its methods are not known, it reports
// true.
func (p *patient) has(method string) bool {
	return p.methods == nil || slices.Contains(p.methods, method)
}

// loads reports whether a module is loaded. known is false if Kamailio does not list its
// modules.
func (p *patient) loads(module string) (loaded, known bool) {
	return slices.Contains(p.modules, module), p.modules != nil
}

// collectors returns the state of each collector.
func (p *patient) collectors() []Collector {
	if p.snapshot == nil {
		return nil
	}
	var all []Collector
	for i, r := range p.snapshot.Results {
		c := Collector{Name: r.Collector, State: "works", Samples: len(r.Samples), Seconds: r.Duration.Seconds()}
		method, reason := r.Skipped()
		switch {
		case !r.Supported:
			c.State, c.Why = "absent", p.absence(p.cfg.Collectors[i]).why
		case r.Err != nil:
			c.State, c.Why = "fails", r.Err.Error()
		case reason != "":
			c.State, c.Why = "skipped", method+": "+reason
		}
		all = append(all, c)
	}
	return all
}
