package collector

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"

	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
	"github.com/prometheus/client_golang/prometheus"
)

// Module is a Collector as data: what to ask, and which field of the answer is
// which metric. All Module values are read-only; [Module.Collector] makes one
// ready for use.
type Module struct {
	Subsystem string // Kamailio's name of the module: the second word of its metrics
	Name      string // of the collector, where it is not the Subsystem
	Summary   string // what it tells, in one line
	Queries   []Query
}

// Query asks one method and maps its reply.
type Query struct {
	Method string
	Params []any
	// Optional: a server without the method only lacks these metrics. The
	// methods of the other queries are what the module cannot work without.
	Optional bool
	// Empty is the text of the error that Kamailio answers where another server
	// would answer an empty list, for instance "No Destination Sets".
	Empty string
	// Rows is the path to the rows, see kamrpc.Value.All. Without it the reply
	// is the row. Of statistics it is the group.
	Rows    string
	Labels  []Label // on every metric of the query
	Metrics []Metric
}

// Label takes its value from a field of the row, or is the same everywhere.
type Label struct{ Name, Field, Value string }

// Metric maps a field to a metric. A field that is absent, or not a number, is
// no sample: a zero is never invented.
type Metric struct {
	Field string // member of the row, or a path in it
	// Pattern, in place of Field, is a regular expression for whole member
	// names; its groups are the values of the labels PatternLabels.
	Pattern       string
	PatternLabels []string
	Word          func(string) string // rewrites those values; may be nil

	Name  string // after kamailio_<subsystem>_
	Help  string
	Kind  prometheus.ValueType
	Const []Label            // labels with a fixed value, to make one metric of several fields
	Map   map[string]float64 // words to numbers
	Scale float64            // 0 is 1; 0.001 makes seconds of milliseconds
	// Wrap32: Kamailio counts in 64 bits but prints this through an int: what
	// looks negative is 2^32 more (core/rpc: struct_add "d").
	Wrap32 bool

	// Instead marks a field that is known and on purpose no metric of its own:
	// the metric, or the reason, that stands for it.
	Instead string
}

// Collector checks the table and makes it a Collector. It panics on a table
// that cannot work, which the tests of All see.
func (m Module) Collector() Collector {
	t := &table{module: m}
	byName := map[string]*Desc{}
	for _, q := range m.Queries {
		c := compiledQuery{Query: q, fields: map[string]*compiledMetric{}}
		for _, metric := range q.Metrics {
			cm := compile(m.Subsystem, q, metric)
			if cm.desc != nil {
				if known := byName[cm.desc.Name]; known == nil {
					byName[cm.desc.Name] = cm.desc
					t.descs = append(t.descs, cm.desc)
				} else {
					known.Source = appendSource(known.Source, cm.desc.Source)
					cm.desc = known
				}
			}
			switch {
			case cm.pattern != nil:
				c.patterns = append(c.patterns, cm)
			case strings.Contains(metric.Field, "/"):
				c.paths = append(c.paths, cm)
			default:
				c.fields[metric.Field] = cm
			}
		}
		t.queries = append(t.queries, c)
	}
	return t
}

func appendSource(all, one string) string {
	if strings.Contains(all, one) {
		return all
	}
	return all + ", " + one
}

type table struct {
	module  Module
	descs   []*Desc
	queries []compiledQuery
}

type compiledQuery struct {
	Query
	fields   map[string]*compiledMetric
	patterns []*compiledMetric
	paths    []*compiledMetric
}

type compiledMetric struct {
	Metric
	desc    *Desc // nil: known, and not exported
	pattern *regexp.Regexp
	prefix  string // of every name that the pattern matches: most are told apart by it
}

func compile(subsystem string, q Query, m Metric) *compiledMetric {
	c := &compiledMetric{Metric: m}
	source := q.Method + " " + m.Field
	if q.Method == statisticsMethod {
		source = "statistic " + m.Field
	}
	if m.Pattern != "" {
		c.pattern = regexp.MustCompile("^(?:" + m.Pattern + ")$")
		c.prefix, _ = regexp.MustCompile(m.Pattern).LiteralPrefix()
		source += readable(m.Pattern, m.PatternLabels)
	}
	if m.Instead != "" {
		return c
	}
	var labels []string
	for _, l := range q.Labels {
		labels = append(labels, l.Name)
	}
	for _, l := range m.Const {
		labels = append(labels, l.Name)
	}
	labels = append(labels, m.PatternLabels...)
	c.desc = NewDesc("kamailio_"+subsystem+"_"+m.Name, m.Help, m.Kind, strings.TrimSpace(source), labels...)
	return c
}

// readable shows a pattern with the names of its labels in place of its groups.
func readable(pattern string, labels []string) string {
	i := -1
	shown := regexp.MustCompile(`\([^)]*\)`).ReplaceAllStringFunc(pattern, func(string) string {
		if i++; i < len(labels) {
			return "<" + labels[i] + ">"
		}
		return "…"
	})
	return strings.ReplaceAll(shown, `\`, "")
}

func (t *table) Name() string   { return cmp.Or(t.module.Name, t.module.Subsystem) }
func (t *table) About() string  { return t.module.Summary }
func (t *table) Descs() []*Desc { return t.descs }

// Methods leaves the statistics out where the module has an RPC of its own: they
// come from another module (kex), which need not be loaded.
func (t *table) Methods() []string {
	var own, others []string
	for _, q := range t.queries {
		switch {
		case q.Method == statisticsMethod:
			others = []string{q.Method}
		case !q.Optional:
			own = append(own, q.Method)
		}
	}
	if len(own) > 0 {
		return own
	}
	return others
}

func (t *table) Update(ctx context.Context, s *Session, emit Emit) error {
	found := 0
	for _, q := range t.queries {
		n, err := q.run(ctx, s, emit)
		if err != nil {
			return err
		}
		found += n
	}
	if found == 0 {
		return ErrNoData
	}
	return nil
}

// run asks and emits; n is 0 only where the server has nothing of this module.
func (q *compiledQuery) run(ctx context.Context, s *Session, emit Emit) (n int, err error) {
	if (q.Optional || q.Method == statisticsMethod) && !s.Has(q.Method) {
		return 0, nil
	}
	if q.Method == statisticsMethod {
		group, err := s.StatisticsOf(ctx, q.Rows)
		if err != nil {
			return 0, err
		}
		// None of the group's statistics: the module is not loaded.
		return q.row(group, emit), nil
	}
	reply, err := s.Call(ctx, q.Method, q.Params...)
	if fault := (*kamrpc.Fault)(nil); q.Empty != "" && errors.As(err, &fault) && fault.Message == q.Empty {
		return 1, nil
	}
	if err != nil {
		return 0, err
	}
	rows, known := 0, 0
	for row := range reply.All(q.Rows) {
		if row.Len() == 0 {
			continue // success without content is {} or ""
		}
		rows++
		known += q.row(row, emit)
	}
	if rows > 0 && known == 0 {
		return 0, fmt.Errorf("%s: none of the known fields is in the reply: a Kamailio that is newer than this exporter?", q.Method)
	}
	return 1 + known, nil // an empty list is an empty list, and an answer
}

// row emits the metrics of one row and counts its known fields.
func (q *compiledQuery) row(row kamrpc.Value, emit Emit) (known int) {
	shared := make([]string, len(q.Labels))
	for i, l := range q.Labels {
		if shared[i] = l.Value; l.Field != "" {
			shared[i] = row.Get(l.Field).Text()
		}
	}
	for m := range row.Members() {
		if metric, groups, ok := q.find(m.Name); ok {
			known++
			metric.emit(m.Value, shared, groups, emit)
		}
	}
	for _, metric := range q.paths {
		if v := row.Get(metric.Field); v.Exists() {
			known++
			metric.emit(v, shared, nil, emit)
		}
	}
	return known
}

// find looks a member's name up in the table.
func (q *compiledQuery) find(name string) (metric *compiledMetric, groups []string, ok bool) {
	if metric, ok = q.fields[name]; ok {
		return metric, nil, true
	}
	for _, metric := range q.patterns {
		if !strings.HasPrefix(name, metric.prefix) {
			continue
		}
		if found := metric.pattern.FindStringSubmatch(name); found != nil {
			return metric, found[1:], true
		}
	}
	return nil, nil, false
}

func (m *compiledMetric) emit(v kamrpc.Value, shared, groups []string, emit Emit) {
	if m.desc == nil {
		return
	}
	value, ok := m.number(v)
	if !ok {
		return
	}
	labels := make([]string, 0, len(m.desc.Labels))
	labels = append(labels, shared...)
	for _, l := range m.Const {
		labels = append(labels, l.Value)
	}
	for _, g := range groups {
		if m.Word != nil {
			g = m.Word(g)
		}
		labels = append(labels, g)
	}
	emit(m.desc, value, labels...)
}

func (m *compiledMetric) number(v kamrpc.Value) (float64, bool) {
	if m.Map != nil {
		value, ok := m.Map[v.Text()]
		return value, ok
	}
	value, ok := v.Float()
	if m.Wrap32 && value < 0 {
		value += 1 << 32
	}
	if m.Scale != 0 {
		value *= m.Scale
	}
	return value, ok
}

// claims tells whether a table of the module knows the statistic.
func (t *table) claims(statistic string) bool {
	for _, q := range t.queries {
		if q.Method != statisticsMethod || !strings.HasPrefix(statistic, q.Rows+":") {
			continue
		}
		if _, _, ok := q.find(statistic); ok {
			return true
		}
	}
	return false
}

// claimed remembers which statistics some table knows: their names do not
// change while a Kamailio runs. It is bounded because a script can make names up
// for ever.
type claimed struct {
	tables []*table
	mu     sync.Mutex
	known  map[string]bool
}

const maxClaimed = 10_000

func (c *claimed) has(statistic string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	is, ok := c.known[statistic]
	if ok {
		return is
	}
	for _, t := range c.tables {
		if is = t.claims(statistic); is {
			break
		}
	}
	if c.known == nil || len(c.known) >= maxClaimed {
		c.known = map[string]bool{}
	}
	c.known[statistic] = is
	return is
}
