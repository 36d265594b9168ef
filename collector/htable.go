package collector

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
)

// htableModule is the sizes of the hash tables (htable/htable.c). Their contents belong to
// the operator's kamailio.cfg, and may be personal data.
var htableModule = Module{
	Subsystem: "htable",
	Summary:   "Entries in the script's hash tables",
	Queries: []Query{{
		Method: "htable.listTables", Optional: true, Fixed: true, Empty: []string{noHTables},
		Labels: []Label{{Name: "table", Field: "name"}},
		Metrics: []Metric{
			{Field: "expire", Name: "expire_seconds", Kind: gauge, Wrap32: true, Help: "Lifetime of an entry that is not updated (autoexpire); 0 means unlimited."},
			{Field: "size", Instead: "kamailio_htable_slots"},
		},
	}, {
		Method: htableStatsMethod, Empty: []string{noHTables},
		Labels: []Label{{Name: "table", Field: "name"}},
		Metrics: []Metric{
			{Field: "all", Name: "entries", Kind: gauge, Help: "Entries in the table, including expired ones that are not removed yet. Nodes that replicate a table (dmqreplicate) each hold all of its entries."},
			{Field: "slots", Name: "slots", Kind: gauge, Help: "Slots of the table: 2 to the power of its size parameter."},
			{Field: "max", Name: "largest_slot_entries", Kind: gauge, Help: "Entries in the fullest slot. If this is far above the average per slot, the table has too few slots and lookups are slow."},
			{Field: "min", Instead: "nothing: it is 0 on most tables"},
		},
	}},
}

var htableItem = NewDesc("kamailio_htable_item", "Value of an integer item of an htable that --collector.htable_items.table names.", prometheus.UntypedValue, htableDumpMethod, "table", "key")

// htableItems exports the integers of the tables that the operator configures.
type htableItems struct {
	listLimits
	tables []string
}

func (htableItems) Name() string { return "htable_items" }
func (htableItems) About() string {
	return "Integer items of the htables named by --collector.htable_items.table"
}
func (htableItems) Methods() []string { return []string{htableDumpMethod, htableStatsMethod} }
func (htableItems) Descs() []*Desc    { return []*Desc{htableItem} }
func (c htableItems) Guard() Guard    { return c.htables(c.tables...) }

func (c htableItems) Update(ctx context.Context, s *Session, emit Emit) error {
	for _, table := range c.tables {
		if _, there, err := entriesOf(ctx, s, table); err != nil {
			return err
		} else if !there {
			return fmt.Errorf("htable %q is not defined in kamailio.cfg", table)
		}
		err := htableIntegers(ctx, s, table, func(key string, n float64) error {
			emit(htableItem, n, table, key)
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

const (
	htableDumpMethod  = "htable.dump"
	htableStatsMethod = "htable.stats"
	noHTables         = "No htables"
)

// htables guards the dump of these tables by the sizes that htable.stats reports.
func (l listLimits) htables(tables ...string) Guard {
	g := l.guard(htableDumpMethod, nil)
	if l.rows == 0 {
		return g
	}
	g.Size = func(ctx context.Context, s *Session) (size float64, known bool, err error) {
		for _, table := range tables {
			n, _, err := entriesOf(ctx, s, table)
			if err != nil {
				return 0, false, err
			}
			size += n
		}
		return size, true, nil
	}
	return g
}

// entriesOf returns how many entries a table has, and whether it exists: htable.dump is
// not called for a table that does not exist.
func entriesOf(ctx context.Context, s *Session, table string) (entries float64, there bool, err error) {
	stats, err := s.Call(ctx, htableStatsMethod)
	if fault := (*kamrpc.Fault)(nil); errors.As(err, &fault) && strings.HasPrefix(fault.Message, noHTables) {
		return 0, false, nil
	}
	for row := range stats.All("") {
		if row.Get("name").Text() == table {
			entries, there = row.Get("all").Float()
		}
	}
	return entries, there, err
}

// htableIntegers yields the items of a table whose values are integers.
func htableIntegers(ctx context.Context, s *Session, table string, yield func(key string, n float64) error) error {
	return s.Rows(ctx, kamrpc.Rows{Path: "slot", Fields: []string{"name", "value", "type"}}, func(_ kamrpc.Above, row kamrpc.Value) error {
		if n, ok := row.Get("value").Float(); ok && row.Get("type").Text() == "int" {
			return yield(row.Get("name").Text(), n)
		}
		return nil
	}, htableDumpMethod, table)
}
