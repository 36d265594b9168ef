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
	// With is another method, which only servers list that know these Params.
	// The query is for them only.
	With string
	// Fixed: the reply stays the same until Kamailio restarts, and is read
	// once per start.
	Fixed bool
	// Empty is how the errors begin that Kamailio answers where another server
	// would answer an empty list, for instance "No Destination Sets".
	Empty []string
	// MustTell: a reply without content is no empty list, but a server that does
	// not tell.
	MustTell bool
	// Line, for rows that are texts, is a regular expression for a whole one; its
	// named groups are the fields.
	Line string
	// Rows is the path to the rows, see kamrpc.Value.All. Without it the reply
	// is the row, or a list of rows. Of statistics it is the group.
	Rows string
	// Stream reads the rows one after the other as they come, however many they
	// are, and of each only the fields that the query names.
	Stream bool
	// Where tells which rows are meant; nil is all.
	Where  func(row kamrpc.Value) bool
	Labels []Label // on every metric of the query
	// Index adds a label of that name: rows with the same Labels, which Kamailio
	// allows, are 0 for the first, 1 for the next.
	Index   bool
	Metrics []Metric
	Counts  []Count
}

// Label takes its value from a field of the row, or is the same everywhere.
type Label struct {
	Name, Field, Value string
	Word               func(string) string // rewrites the field's text; may be nil
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

// Count is a metric of all rows together: a gauge. Counts with the same name are
// one metric, for fields that versions name in different ways.
type Count struct {
	Name, Help string
	By         []Label // rows with the same values are counted together
	// Field makes it a sum: of what Map says that the field's text stands for.
	// Without a row whose text is in Map there is no sample.
	Field string
	Map   map[string]float64
}

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
	Map   map[string]float64 // words to numbers; "*" is any other word
	None  string             // the text that stands for no value: "-1"
	Scale float64            // 0 is 1; 0.001 makes seconds of milliseconds
	// Wrap32: Kamailio counts in 64 bits but prints this through an int: what
	// looks negative is 2^32 more (core/rpc: struct_add "d").
	Wrap32 bool
	// Tally: a number of things that Kamailio adds up from its processes while they
	// continue: a negative one is a moment in which it does not know, and no sample.
	Tally bool

	// Source is where Kamailio reports it, for a metric of many fields; without it
	// it is the fields' names.
	Source string

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
		c := compiledQuery{Query: q, fields: map[string][]*compiledMetric{}}
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
	return t
}

// describe makes one Desc of those with the same name.
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

// names are the members of a row that the query needs. It panics where it cannot
// know them.
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
	queries []compiledQuery
}

type compiledQuery struct {
	Query
	line     *regexp.Regexp
	fields   map[string][]*compiledMetric
	patterns []*compiledMetric
	paths    []*compiledMetric
	counts   []compiledCount
	wanted   []string // of a streamed row
}

type compiledCount struct {
	Count
	desc *Desc
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

// Methods leaves the statistics out where the module has an RPC of its own: they
// come from another module (kex), which need not be loaded.
func (t *table) Methods() []string {
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
	if q.With != "" && !s.Lists(q.With) {
		return 0, nil
	}
	if q.Method == statisticsMethod {
		group, err := s.StatisticsOf(ctx, q.Rows)
		if err != nil {
			return 0, err
		}
		// None of the group's statistics: the module is not loaded.
		return q.row(group, &totals{}, emit), nil
	}
	rows, known := 0, 0
	totals := totals{seen: map[string]int{}}
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
	return 1 + known, nil // an empty list is an empty list, and an answer
}

// parseLine makes a row of a text; of one that it does not know an empty one.
func (q *compiledQuery) parseLine(text string) kamrpc.Value {
	var fields []kamrpc.Member
	if found := q.line.FindStringSubmatch(text); found != nil {
		for i, name := range q.line.SubexpNames()[1:] {
			fields = append(fields, kamrpc.Member{Name: name, Value: kamrpc.StringValue(found[i+1])})
		}
	}
	return kamrpc.ObjectValue(fields)
}

// isEmpty reports whether an error stands for an empty list.
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
		case row.Len() > 0: // success without content is {} or ""
			yield(row)
		}
	}
	return err
}

// row emits the metrics of one row and counts its known fields.
func (q *compiledQuery) row(row kamrpc.Value, totals *totals, emit Emit) (known int) {
	shared := make([]string, len(q.Labels), len(q.Labels)+1)
	for i, l := range q.Labels {
		shared[i] = l.of(row)
	}
	if q.Index {
		shared = append(shared, totals.index(shared))
	}
	if q.Where != nil && !q.Where(row) {
		return 1 // it was understood
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

// find looks a member's name up in the table.
func (q *compiledQuery) find(name string) (metrics []*compiledMetric, groups []string) {
	if metrics = q.fields[name]; metrics != nil {
		return metrics, nil
	}
	for i, metric := range q.patterns {
		if !strings.HasPrefix(name, metric.prefix) {
			continue
		}
		if found := metric.pattern.FindStringSubmatch(name); found != nil {
			return q.patterns[i : i+1], found[1:]
		}
	}
	return nil, nil
}

// indexLabel tells rows apart that have the same labels else.
const indexLabel = "index"

// totals is what is known of all rows so far.
type totals struct {
	seen  map[string]int // rows, by their labels
	order []totalOf
	sums  map[string]float64
}

type totalOf struct {
	desc   *Desc
	labels []string
	key    string
}

// index counts the earlier rows with these labels.
func (t *totals) index(labels []string) string {
	key := strings.Join(labels, "\xff")
	n := t.seen[key]
	t.seen[key]++
	return strconv.Itoa(n)
}

// add counts a row, and tells how many of the count's fields it has.
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

// emit hands the sums in. Of no rows the number is known too: it is 0.
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

// guardedTable is a table that is held in check.
type guardedTable struct {
	*table
	check Guard
}

func (t guardedTable) base() *table { return t.table }
func (t guardedTable) Guard() Guard { return t.check }

// claims is the metric of a statistic that the module's table knows, or what
// stands for it; "" for one that it does not know.
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
	is = c.metricOf(statistic) != ""
	if c.known == nil || len(c.known) >= maxClaimed {
		c.known = map[string]bool{}
	}
	c.known[statistic] = is
	return is
}

// metricOf is what stands for a statistic that some table knows, else "".
func (c *claimed) metricOf(statistic string) string {
	for _, t := range c.tables {
		if metric := t.claims(statistic); metric != "" {
			return metric
		}
	}
	return ""
}
