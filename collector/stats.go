package collector

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
)

const statisticsMethod = "stats.get_statistics"

// statistics returns a Query for the Kamailio statistics of one group; fields are
// "group:name". The tables of all modules share one call.
func statistics(group string, metrics ...Metric) Query {
	return Query{Method: statisticsMethod, Params: []any{"all"}, Rows: group, Metrics: metrics}
}

// groupsMethod lists the groups of the statistics. It is part of the module counters.
const groupsMethod = "cnt.grps_list"

// statisticsInParts reads the statistics in several calls of some groups each, because one
// reply cannot hold all of them. The sizes that fit are determined once per start of
// Kamailio. A group that is too large by itself is in the error's lostGroups; all other
// groups are returned.
func (s *Session) statisticsInParts(ctx context.Context) (kamrpc.Value, error) {
	list, err := s.Call(ctx, groupsMethod)
	if err != nil {
		return kamrpc.Value{}, err
	}
	var replies []kamrpc.Value
	var lost lostGroups
	if err := s.statisticsOfGroups(ctx, list.Texts(), &replies, &lost); err != nil {
		return kamrpc.Value{}, err
	}
	all, err := parseStatistics(replies...)
	if err == nil && lost.groups != nil {
		err = &lost
	}
	return all, err
}

// statisticsOfGroups reads the groups in two halves, and splits a half again if it does not
// fit.
func (s *Session) statisticsOfGroups(ctx context.Context, groups []string, replies *[]kamrpc.Value, lost *lostGroups) error {
	for half := range slices.Chunk(groups, max(1, (len(groups)+1)/2)) {
		params := make([]any, len(half))
		for i, group := range half {
			params[i] = group + ":"
		}
		reply, err := s.Call(ctx, statisticsMethod, params...)
		switch outgrown := errors.Is(err, kamrpc.ErrOutgrown); {
		case outgrown && len(half) > 1:
			err = s.statisticsOfGroups(ctx, half, replies, lost)
		case outgrown:
			lost.groups, lost.err = append(lost.groups, half[0]), err
			continue
		default:
			*replies = append(*replies, reply)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// lostGroups are statistics groups that are each too large for one reply.
type lostGroups struct {
	groups []string
	err    error // of the last group
}

func (l *lostGroups) Error() string {
	return fmt.Sprintf("group %s: %v", strings.Join(l.groups, ", "), l.err)
}

func (l *lostGroups) Unwrap() error { return l.err }

// parseStatistics converts the lines of stats.get_statistics, "group:name = value", to an
// object of groups, each an object with a member "group:name" per statistic. The value
// follows the last " = ", because a name in the operator's kamailio.cfg may contain
// anything, even this separator. Other lines are skipped. A reply with only such lines is
// an error: a changed format must not look like "no such statistic".
func parseStatistics(replies ...kamrpc.Value) (kamrpc.Value, error) {
	var groups []string            // in the order of the reply
	var statistics []kamrpc.Member // of all groups, in one block
	place := map[string]int{}
	lines, sorted := 0, true
	for _, reply := range replies {
		statistics = slices.Grow(statistics, reply.Len())
		for line := range reply.All("") {
			if line.Kind() == kamrpc.Object && line.Len() == 0 {
				continue // success without content
			}
			lines++
			at := strings.LastIndex(line.Text(), " = ")
			if line.Kind() != kamrpc.String || at < 0 {
				continue
			}
			m := kamrpc.Member{Name: line.Text()[:at], Value: kamrpc.StringValue(line.Text()[at+len(" = "):])}
			statistics = append(statistics, m)
			if group := groupOf(m); len(groups) == 0 || group != groups[len(groups)-1] {
				if _, known := place[group]; known {
					sorted = false
				} else {
					place[group] = len(groups)
					groups = append(groups, group)
				}
			}
		}
	}
	if lines > 0 && len(groups) == 0 {
		return kamrpc.Value{}, unknownShape(statisticsMethod, "no line of the reply is a statistic")
	}
	if !sorted {
		slices.SortStableFunc(statistics, func(a, b kamrpc.Member) int { return place[groupOf(a)] - place[groupOf(b)] })
	}
	members := make([]kamrpc.Member, len(groups))
	for i, group := range groups {
		end := slices.IndexFunc(statistics, func(m kamrpc.Member) bool { return groupOf(m) != group })
		if end < 0 {
			end = len(statistics)
		}
		members[i] = kamrpc.Member{Name: group, Value: kamrpc.ObjectValue(statistics[:end:end])}
		statistics = statistics[end:]
	}
	return kamrpc.ObjectValue(members), nil
}

func groupOf(statistic kamrpc.Member) string {
	group, _, _ := strings.Cut(statistic.Name, ":")
	return group
}

// unsetStatistics are statistics that Kamailio registers but never changes (5.4 to 6.1).
// They are not exported, because their 0 would be taken for a count.
var unsetStatistics = Module{Queries: []Query{
	statistics("imc", Metric{Field: "imc:active_rooms", Instead: neverSet}),
	statistics("p_usrloc", Metric{Field: "p_usrloc:registered_users", Instead: neverSet}),
	statistics("snmpstats", Metric{Pattern: "snmpstats:[1-6][0-9][0-9]_(in|out)", Instead: neverSet}),
	statistics("sst", Metric{Field: "sst:expired_sst", Instead: neverSet}),
}}

const neverSet = "nothing: Kamailio never sets it"

// statisticsCollector exports every statistic that no module's table knows, so that none
// is lost: those of modules without a table here, and the counters of the operator's
// kamailio.cfg (update_stat()) without any setup.
type statisticsCollector struct {
	known    *claimed
	promoted map[string]*Desc // by "group:name"
	descs    []*Desc
}

func newStatistics(known *claimed, promotions []Promotion) statisticsCollector {
	c := statisticsCollector{known: known, promoted: map[string]*Desc{}, descs: []*Desc{statisticDesc}}
	for _, p := range promotions {
		c.promoted[p.Statistic] = p.desc()
		c.descs = append(c.descs, c.promoted[p.Statistic])
	}
	return c
}

var statisticDesc = NewDesc("kamailio_statistic",
	"Value of a Kamailio statistic without a metric of its own, such as the update_stat() counters of the configuration script. It is untyped because the exporter does not know whether it is a counter or a gauge.",
	prometheus.UntypedValue, "statistic <group>:<name>", "group", "name")

func (statisticsCollector) Name() string { return "statistics" }
func (statisticsCollector) About() string {
	return "Every statistic without a metric of its own, script counters included"
}
func (statisticsCollector) Methods() []string { return []string{statisticsMethod} }
func (c statisticsCollector) Descs() []*Desc  { return c.descs }

func (c statisticsCollector) Update(ctx context.Context, s *Session, emit Emit) error {
	all, err := s.Statistics(ctx)
	if err != nil {
		return err
	}
	for group := range all.Members() {
		for m := range group.Value.Members() {
			value, ok := m.Value.Float()
			if !ok || c.known.has(m.Name) {
				continue
			}
			if desc := c.promoted[m.Name]; desc != nil {
				emit(desc, value)
				continue
			}
			_, name, _ := strings.Cut(m.Name, ":")
			emit(statisticDesc, value, group.Name, name)
		}
	}
	return nil
}
