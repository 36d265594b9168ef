package collector

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"
)

// TestFamiliesAreReused checks that nothing of a page remains on the next one that uses
// the same memory, even if a name has other labels there.
func TestFamiliesAreReused(t *testing.T) {
	plain := NewDesc("kamailio_a", "A.", gauge, "")
	labelled := NewDesc("kamailio_b", "B.", counter, "", "z", "a")
	other := NewDesc("kamailio_b", "Another B.", prometheus.UntypedValue, "", "a")
	times := &Desc{Name: "kamailio_c", Help: "C.", Labels: []string{"x"}, Bounds: []string{"1", "2", "+Inf"}}
	pages := []struct {
		add  func(g *Families)
		want string
	}{
		{func(g *Families) {
			g.Add(times, 1, "one", "1")
			g.Add(times, 2, "one", "2")
			g.Add(times, 3, "one", "+Inf")
			g.Add(times, 0.5, "one", SumOfHistogram)
			g.Add(times, 4, "two", "1")
			g.Add(labelled, 1, "Z", "A")
			g.Add(plain, 7)
			g.Add(labelled, 2, "Z", "B")
		}, `# HELP kamailio_a A.
# TYPE kamailio_a gauge
kamailio_a 7
# HELP kamailio_b B.
# TYPE kamailio_b counter
kamailio_b{a="A",z="Z"} 1
kamailio_b{a="B",z="Z"} 2
# HELP kamailio_c C.
# TYPE kamailio_c histogram
kamailio_c_bucket{x="one",le="1"} 1
kamailio_c_bucket{x="one",le="2"} 2
kamailio_c_bucket{x="one",le="+Inf"} 3
kamailio_c_sum{x="one"} 0.5
kamailio_c_count{x="one"} 3
kamailio_c_bucket{x="two",le="1"} 4
kamailio_c_bucket{x="two",le="+Inf"} 4
kamailio_c_sum{x="two"} 0
kamailio_c_count{x="two"} 4
`},
		{func(g *Families) { g.Add(labelled, 3, "Y", "C") }, `# HELP kamailio_b B.
# TYPE kamailio_b counter
kamailio_b{a="C",z="Y"} 3
`},
		{func(g *Families) {
			g.Add(other, 4, "D")
			g.Add(times, 9, "two", "2")
		}, `# HELP kamailio_b Another B.
# TYPE kamailio_b untyped
kamailio_b{a="D"} 4
# HELP kamailio_c C.
# TYPE kamailio_c histogram
kamailio_c_bucket{x="two",le="2"} 9
kamailio_c_bucket{x="two",le="+Inf"} 9
kamailio_c_sum{x="two"} 0
kamailio_c_count{x="two"} 9
`},
		{func(*Families) {}, ""},
	}
	var g Families
	for range 2 {
		for i, page := range pages {
			page.add(&g)
			var out strings.Builder
			for _, f := range g.Sorted() {
				if _, err := expfmt.MetricFamilyToText(&out, f); err != nil {
					t.Fatal(err)
				}
			}
			if out.String() != page.want {
				t.Errorf("page %d: got\n%swant\n%s", i, out.String(), page.want)
			}
			g.Reset()
		}
	}
}
