package collector

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
)

// Module describes a Collector as data: which methods to call, and which field of the
// reply becomes which metric. Module values are read-only; [Module.Collector] returns a
// usable collector.
type Module struct {
	Subsystem string // Kamailio's module name: the second word of its metrics
	Name      string // of the collector, if it differs from Subsystem
	Summary   string // what it exports, in one line
	Queries   []Query
}

// Query calls one method and maps its reply to metrics.
type Query struct {
	Method string
	Params []any
	// Optional: a server without the method only lacks these metrics. The module requires
	// the methods of all other queries.
	Optional bool
	// With is another method, which only servers list that know these Params. The query
	// runs only on those servers.
	With string
	// Without is another method whose reply has the same data. The query runs only on
	// servers that do not have it.
	Without string
	// Fixed: the reply does not change until Kamailio restarts, and is read once per
	// start.
	Fixed bool
	// Empty are prefixes of the error messages that Kamailio returns in place of an empty
	// list, for example "No Destination Sets".
	Empty []string
	// MustTell: a reply without content is not an empty list, but means that the server
	// does not report the data.
	MustTell bool
	// Line, for rows that are texts, is a regular expression for the whole text; its
	// named groups are the fields.
	Line string
	// Rows is the path to the rows, see kamrpc.Value.All. Without it, the reply is the
	// row or a list of rows. For statistics, it is the group.
	Rows string
	// Stream reads the rows one by one as they arrive, in constant memory. It only keeps
	// the fields that the query names.
	Stream bool
	// Where selects the rows; nil selects all.
	Where  func(row kamrpc.Value) bool
	Labels []Label // on every metric of the query
	// Index adds a label with this name. Kamailio allows several rows with the same
	// Labels: the index is 0 for the first, 1 for the next, and so on.
	Index   bool
	Metrics []Metric
	Counts  []Count
}

// Label takes its value from a field of the row, or has a fixed value.
type Label struct {
	Name, Field, Value string
	Word               func(string) string // converts the field's text; may be nil
}

func (l Label) of(row kamrpc.Value) string {
	switch {
	case l.Field == "":
		return l.Value
	case l.Word != nil:
		return l.Word(row.Get(l.Field).Text())
	}
	return row.Get(l.Field).Text()
}

// Count is a gauge over all rows together. Counts with the same name form one metric, for
// fields that differ between versions.
type Count struct {
	Name, Help string
	By         []Label // rows with the same values are counted together
	// Field turns the count into a sum of the values that Map assigns to the field's
	// texts. If no row has a text in Map, no sample is emitted.
	Field string
	Map   map[string]float64
}

// Metric maps a field to a metric. If the field is absent or not a number, no sample is
// emitted: a missing value never becomes 0.
type Metric struct {
	Field string // member of the row, or a path in it
	// Pattern, in place of Field, is a regular expression for whole member names. Its
	// groups are the values of the labels PatternLabels.
	Pattern       string
	PatternLabels []string
	Word          func(string) string // converts those values; may be nil

	Name  string // without the prefix kamailio_<subsystem>_
	Help  string
	Kind  prometheus.ValueType
	Const []Label            // labels with fixed values, to combine several fields in one metric
	Map   map[string]float64 // words to numbers; "*" matches any other word
	None  string             // the text that means no value, such as "-1"
	Scale float64            // 0 means 1; 0.001 converts milliseconds to seconds
	// Wrap32: Kamailio counts in 64 bits but prints this value through an int. A negative
	// value is therefore corrected by adding 2^32 (core/rpc: struct_add "d").
	Wrap32 bool
	// Tally: a count that Kamailio sums up over its processes while they keep running. A
	// negative sum is a temporary inconsistency, and is omitted.
	Tally bool

	// Source is where Kamailio reports it, for a metric of many fields. Without it, the
	// names of the fields are used.
	Source string

	// Instead marks a field that is known but deliberately not exported: it is the metric
	// that replaces the field, or the reason.
	Instead string
}

// Collector validates the table and returns a Collector for it. It panics on an invalid
// table; the tests of All detect that.
func (m Module) Collector() Collector {
	t := &table{module: m}
	byName := map[string]*Desc{}
	for _, q := range m.Queries {
		c := compiledQuery{Query: q, fields: map[string][]*compiledMetric{}, matches: &memo[match]{}}
		if q.Line != "" {
			c.line = regexp.MustCompile("^(?:" + q.Line + ")$")
		}
		for _, metric := range q.Metrics {
			cm := compile(m.Subsystem, q, metric)
			cm.desc = t.describe(byName, cm.desc)
			switch {
			case cm.pattern != nil:
				c.patterns = append(c.patterns, cm)
			case strings.Contains(metric.Field, "/"):
				c.paths = append(c.paths, cm)
			default:
				c.fields[metric.Field] = append(c.fields[metric.Field], cm)
			}
		}
		for _, count := range q.Counts {
			var labels []string
			for _, l := range count.By {
				labels = append(labels, l.Name)
			}
			d := NewDesc("kamailio_"+m.Subsystem+"_"+count.Name, count.Help, gauge, strings.TrimSpace(q.Method+" "+count.Field), labels...)
			c.counts = append(c.counts, compiledCount{count, t.describe(byName, d)})
		}
		if q.Stream {
			c.wanted = c.names()
		}
		t.queries = append(t.queries, c)
	}
	t.methods = t.required()
	return t
}

// describe returns one Desc for all metrics with the same name.
func (t *table) describe(byName map[string]*Desc, d *Desc) *Desc {
	if d == nil {
		return nil
	}
	if known := byName[d.Name]; known != nil {
		known.Source = appendSource(known.Source, d.Source)
		return known
	}
	byName[d.Name] = d
	t.descs = append(t.descs, d)
	return d
}

// names returns the members of a row that the query needs. It panics if they cannot be
// determined.
func (q *compiledQuery) names() []string {
	if len(q.patterns) > 0 {
		panic(q.Method + ": the fields of a Pattern are not known beforehand: no Stream")
	}
	set := map[string]bool{}
	add := func(path string) {
		if name, _, _ := strings.Cut(path, "/"); name != "" {
			set[name] = true
		}
	}
	for _, l := range q.Labels {
		add(l.Field)
	}
	for _, m := range q.Metrics {
		add(m.Field)
	}
	for _, c := range q.Counts {
		add(c.Field)
		for _, l := range c.By {
			add(l.Field)
		}
	}
	return slices.Sorted(maps.Keys(set))
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
	methods []string
	queries []compiledQuery
}

type compiledQuery struct {
	Query
	line     *regexp.Regexp
	fields   map[string][]*compiledMetric
	patterns []*compiledMetric
	matches  *memo[match] // of the patterns
	paths    []*compiledMetric
	counts   []compiledCount
	wanted   []string // fields to keep of a streamed row
}

type compiledCount struct {
	Count
	desc *Desc
}

type compiledMetric struct {
	Metric
	desc    *Desc // nil: known but not exported
	pattern *regexp.Regexp
	prefix  string   // of all names that the pattern matches; a quick check that rules out most names
	consts  []string // values of the labels Const
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
	if m.Source != "" {
		source = q.Method + " " + m.Source
	}
	var labels []string
	for _, l := range q.Labels {
		labels = append(labels, l.Name)
	}
	if q.Index {
		labels = append(labels, indexLabel)
	}
	for _, l := range m.Const {
		labels = append(labels, l.Name)
		c.consts = append(c.consts, l.Value)
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
	return strings.NewReplacer(`\`, "", "[-_]", "_").Replace(shown)
}

func (t *table) Name() string   { return cmp.Or(t.module.Name, t.module.Subsystem) }
func (t *table) About() string  { return t.module.Summary }
func (t *table) Descs() []*Desc { return t.descs }

func (t *table) Methods() []string { return t.methods }

// required omits the statistics if the module has its own RPC: they come from another
// module (kex), which may not be loaded.
func (t *table) required() []string {
	var own, others []string
	for _, q := range t.queries {
		switch {
		case q.Method == statisticsMethod:
			others = []string{q.Method}
		case !q.Optional && !slices.Contains(own, q.Method):
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
	for i := range t.queries { // a copy of each query would be on the heap
		n, err := t.queries[i].run(ctx, s, emit)
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

// run makes the call and emits the samples; n is 0 only if the server has no data for this
// module.
func (q *compiledQuery) run(ctx context.Context, s *Session, emit Emit) (n int, err error) {
	if (q.Optional || q.Method == statisticsMethod) && !s.Has(q.Method) {
		return 0, nil
	}
	if q.With != "" && !s.Lists(q.With) || q.Without != "" && s.Has(q.Without) {
		return 0, nil
	}
	if q.Method == statisticsMethod {
		group, err := s.StatisticsOf(ctx, q.Rows)
		if err != nil {
			return 0, err
		}
		// None of the group's statistics exists: the module is not loaded.
		return q.row(group, &totals{}, emit), nil
	}
	rows, known := 0, 0
	var totals totals
	err = q.rows(ctx, s, func(row kamrpc.Value) {
		rows++
		known += q.row(row, &totals, emit)
	})
	if q.isEmpty(err) {
		err = nil
	}
	if errors.Is(err, kamrpc.ErrDangerous) {
		return 1, nil
	}
	if err != nil {
		return 0, err
	}
	if rows == 0 && q.MustTell {
		return 0, nil
	}
	if rows > 0 && known == 0 {
		return 0, unknownShape(q.Method, "none of the known fields is in the reply")
	}
	totals.emit(q.counts, emit)
	return 1 + known, nil // an empty list counts as an answer
}

// parseLine converts a text to a row; an unknown text becomes an empty row.
func (q *compiledQuery) parseLine(text string) kamrpc.Value {
	var fields []kamrpc.Member
	if found := q.line.FindStringSubmatch(text); found != nil {
		for i, name := range q.line.SubexpNames()[1:] {
			fields = append(fields, kamrpc.Member{Name: name, Value: kamrpc.StringValue(found[i+1])})
		}
	}
	return kamrpc.ObjectValue(fields)
}

// isEmpty reports whether an error means an empty list.
func (q *compiledQuery) isEmpty(err error) bool {
	fault := (*kamrpc.Fault)(nil)
	return errors.As(err, &fault) && slices.ContainsFunc(q.Empty, func(begin string) bool { return strings.HasPrefix(fault.Message, begin) })
}

func (q *compiledQuery) rows(ctx context.Context, s *Session, yield func(kamrpc.Value)) error {
	if q.Stream {
		return s.Rows(ctx, kamrpc.Rows{Path: q.Rows, Fields: q.wanted}, func(_ kamrpc.Above, row kamrpc.Value) error {
			if row.Exists() {
				yield(row)
			}
			return nil
		}, q.Method, q.Params...)
	}
	call := s.Call
	if q.Fixed {
		call = s.CallFixed
	}
	reply, err := call(ctx, q.Method, q.Params...)
	for row := range reply.All(q.Rows) {
		switch {
		case q.line != nil && row.Text() != "":
			yield(q.parseLine(row.Text()))
		case row.Len() > 0: // Kamailio sends {} or "" for success without content
			yield(row)
		}
	}
	return err
}

// row emits the metrics of one row and returns the number of its known fields.
func (q *compiledQuery) row(row kamrpc.Value, totals *totals, emit Emit) (known int) {
	shared := make([]string, len(q.Labels), len(q.Labels)+1)
	for i, l := range q.Labels {
		shared[i] = l.of(row)
	}
	if q.Index {
		shared = append(shared, totals.index(shared))
	}
	if q.Where != nil && !q.Where(row) {
		return 1 // the row was understood
	}
	for m := range row.Members() {
		metrics, groups := q.find(m.Name)
		for _, metric := range metrics {
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
	for _, c := range q.counts {
		known += totals.add(c, row)
	}
	return known
}

// find looks up a member name in the table. groups are the values of the PatternLabels.
func (q *compiledQuery) find(name string) (metrics []*compiledMetric, groups []string) {
	if metrics = q.fields[name]; metrics != nil || len(q.patterns) == 0 {
		return metrics, nil
	}
	found := q.matches.of(name, q.match)
	return found.metrics, found.groups
}

// match is the pattern that a member name matches, if any.
type match struct {
	metrics []*compiledMetric
	groups  []string
}

func (q *compiledQuery) match(name string) match {
	for i, metric := range q.patterns {
		if !strings.HasPrefix(name, metric.prefix) {
			continue
		}
		if found := metric.pattern.FindStringSubmatch(name); found != nil {
			groups := found[1:]
			for i, g := range groups {
				if metric.Word != nil {
					groups[i] = metric.Word(g)
				}
			}
			return match{q.patterns[i : i+1], groups}
		}
	}
	return match{}
}

// memo remembers what a function returns for a name. The names of statistics do not change
// while Kamailio runs, and looking each one up takes longer than the rest of its way to the
// page. It is limited, because kamailio.cfg can create new names forever.
type memo[T any] struct {
	mu    sync.Mutex
	known map[string]T
}

const maxMemo = 10_000

func (m *memo[T]) of(name string, find func(name string) T) T {
	m.mu.Lock()
	defer m.mu.Unlock()
	found, ok := m.known[name]
	if ok {
		return found
	}
	name = strings.Clone(name) // not the reply that it is part of
	found = find(name)
	if m.known == nil || len(m.known) >= maxMemo {
		m.known = map[string]T{}
	}
	m.known[name] = found
	return found
}

// indexLabel distinguishes rows whose other labels are equal.
const indexLabel = "index"

// totals is the state over all rows so far.
type totals struct {
	seen  map[string]int // number of rows by their labels
	order []totalOf
	sums  map[string]float64
}

type totalOf struct {
	desc   *Desc
	labels []string
	key    string
}

// index returns the number of earlier rows with these labels.
func (t *totals) index(labels []string) string {
	key := strings.Join(labels, "\xff")
	n := t.seen[key]
	if t.seen == nil {
		t.seen = map[string]int{}
	}
	t.seen[key]++
	return strconv.Itoa(n)
}

// add counts a row, and returns how many of the count's fields the row has.
func (t *totals) add(c compiledCount, row kamrpc.Value) (known int) {
	n := 1.0
	if c.Field != "" {
		var ok bool
		if n, ok = c.Map[row.Get(c.Field).Text()]; !ok {
			return 0
		}
		known++
	}
	of := totalOf{desc: c.desc, labels: make([]string, len(c.By))}
	for i, l := range c.By {
		if l.Field != "" && row.Get(l.Field).Exists() {
			known++
		}
		of.labels[i] = l.of(row)
	}
	of.key = c.desc.Name + "\xff" + strings.Join(of.labels, "\xff")
	if t.sums == nil {
		t.sums = map[string]float64{}
	}
	if _, ok := t.sums[of.key]; !ok {
		t.order = append(t.order, of)
	}
	t.sums[of.key] += n
	return known
}

// emit emits the sums. Without rows, the count is known too: it is 0.
func (t *totals) emit(counts []compiledCount, emit Emit) {
	for _, of := range t.order {
		emit(of.desc, t.sums[of.key], of.labels...)
	}
	for _, c := range counts {
		if _, ok := t.sums[c.desc.Name+"\xff"]; !ok && len(c.By) == 0 && c.Field == "" {
			emit(c.desc, 0)
		}
	}
}

func (m *compiledMetric) emit(v kamrpc.Value, shared, groups []string, emit Emit) {
	if m.desc == nil {
		return
	}
	value, ok := m.number(v)
	if !ok {
		return
	}
	labels := shared
	switch {
	case len(m.consts) == 0 && len(groups) == 0:
	case len(shared) == 0 && len(m.consts) == 0:
		labels = groups
	case len(shared) == 0 && len(groups) == 0:
		labels = m.consts
	default:
		labels = slices.Concat(shared, m.consts, groups)
	}
	emit(m.desc, value, labels...)
}

func (m *compiledMetric) number(v kamrpc.Value) (float64, bool) {
	if m.None != "" && v.Text() == m.None {
		return 0, false
	}
	if m.Map != nil {
		value, ok := m.Map[v.Text()]
		if !ok && v.Exists() {
			value, ok = m.Map["*"]
		}
		return value, ok
	}
	value, ok := v.Float()
	if m.Tally && value < 0 {
		return 0, false
	}
	if m.Wrap32 && value < 0 {
		value += 1 << 32
	}
	if m.Scale != 0 {
		value *= m.Scale
	}
	return value, ok
}

// guardedTable is a table with a Guard.
type guardedTable struct {
	*table
	check Guard
}

func (t guardedTable) base() *table { return t.table }
func (t guardedTable) Guard() Guard { return t.check }

// claims returns the metric for a statistic that the module's table knows, or what
// replaces it; "" if the table does not know it.
func (t *table) claims(statistic string) string {
	for _, q := range t.queries {
		if q.Method != statisticsMethod || !strings.HasPrefix(statistic, q.Rows+":") {
			continue
		}
		metrics, _ := q.find(statistic)
		for _, m := range metrics {
			if m.desc != nil {
				return m.desc.Name
			}
		}
		if len(metrics) > 0 {
			return metrics[0].Instead
		}
	}
	return ""
}

// claimed remembers which statistics some table knows.
type claimed struct {
	tables []*table
	known  memo[bool]
}

func (c *claimed) has(statistic string) bool {
	return c.known.of(statistic, func(name string) bool { return c.metricOf(name) != "" })
}

// metricOf returns what a table exports for a statistic, or "" if no table knows it.
func (c *claimed) metricOf(statistic string) string {
	for _, t := range c.tables {
		if metric := t.claims(statistic); metric != "" {
			return metric
		}
	}
	return ""
}
