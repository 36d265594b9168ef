package collector

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
)

// counts counts rows by their labels, in order of first appearance.
type counts struct {
	labels [][]string
	n      []float64
	at     map[string]int
}

func (c *counts) add(n float64, labels ...string) {
	if c.at == nil {
		c.at = map[string]int{}
	}
	key := strings.Join(labels, "\xff") // not in any valid UTF-8 text
	i, ok := c.at[key]
	if !ok {
		i = len(c.n)
		c.at[key] = i
		c.labels, c.n = append(c.labels, labels), append(c.n, 0)
	}
	c.n[i] += n
}

func (c *counts) emit(d *Desc, emit Emit) {
	for i, labels := range c.labels {
		emit(d, c.n[i], labels...)
	}
}

// countRows reads a list and passes each row to count as it arrives. No row is kept,
// however many there are. count returns false for a row that it does not recognize; if it
// recognizes no row at all, that is an error, as it is for a table.
func countRows(ctx context.Context, s *Session, rows kamrpc.Rows, count func(above kamrpc.Above, row kamrpc.Value) bool, method string, params ...any) error {
	seen, known, blank := 0, 0, 0
	err := s.Rows(ctx, rows, func(above kamrpc.Above, row kamrpc.Value) error {
		seen++
		switch {
		case row.Kind() == kamrpc.Object && row.Len() == 0:
			blank++
		case count(above, row):
			known++
		}
		return nil
	}, method, params...)
	nothing := rows.Path == "" && seen == 1 && blank == 1 // Kamailio sends {} for success without content
	if err == nil && seen > 0 && known == 0 && !nothing {
		return unknownShape(method, "none of the known fields is in the reply")
	}
	return err
}

// unknownShape is the error for a reply in which no field has a known name. A renamed
// field must not disappear silently.
func unknownShape(method, what string) error {
	return fmt.Errorf("%s: %s; this Kamailio may be newer than the exporter", method, what)
}

// isFault reports whether Kamailio refused a call with exactly this message.
func isFault(err error, message string) bool {
	var fault *kamrpc.Fault
	return errors.As(err, &fault) && fault.Message == message
}

// sumOf returns a function that sums the values of some metrics: how many rows they count.
func sumOf(descs ...*Desc) func([]Sample) int {
	return func(samples []Sample) int {
		sum := 0.0
		for _, sample := range samples {
			for _, d := range descs {
				if sample.Desc == d {
					sum += sample.Value
				}
			}
		}
		return int(sum)
	}
}
