package collector

import (
	"context"
	"fmt"
	"strconv"

	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
)

const dialplanMethod = "dialplan.dump"

var dialplanRules = NewDesc("kamailio_dialplan_rules", "Rules of a dialplan.", gauge, dialplanMethod+" ENTRY", "dialplan")

// dialplans counts the rules of the dialplans that the operator configures, because
// Kamailio does not list them (dialplan/dialplan.c).
type dialplans struct {
	listLimits
	ids []int
}

func (dialplans) Name() string { return "dialplan" }
func (dialplans) About() string {
	return "Rules of the dialplans named by --collector.dialplan.ids"
}
func (dialplans) Methods() []string { return []string{dialplanMethod} }
func (dialplans) Descs() []*Desc    { return []*Desc{dialplanRules} }

func (d dialplans) Guard() Guard { return d.guard(dialplanMethod, sumOf(dialplanRules)) }

func (d dialplans) Update(ctx context.Context, s *Session, emit Emit) error {
	for _, id := range d.ids {
		rules := 0
		err := countRows(ctx, s, kamrpc.Rows{Path: "ENTRIES/ENTRY", Fields: []string{"PRIO"}}, func(_ kamrpc.Above, row kamrpc.Value) bool {
			if row.Exists() {
				rules++
			}
			return !row.Exists() || row.Get("PRIO").Exists()
		}, dialplanMethod, id)
		if isFault(err, "Dialplan ID not matched") {
			return fmt.Errorf("dialplan %d has no rules in Kamailio: %w", id, err)
		}
		if err != nil {
			return err
		}
		emit(dialplanRules, float64(rules), strconv.Itoa(id))
	}
	return nil
}
