package serve

import (
	"runtime"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	dto "github.com/prometheus/client_model/go"
)

// TestGoRuntime compares our metrics about Go's runtime to those of client_golang.
func TestGoRuntime(t *testing.T) {
	runtime.GC() // so that there was one
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector())
	theirs, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	ours, done, err := newOwnMetrics(true).parts.gather()
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	isGo := map[string]*dto.MetricFamily{}
	for _, f := range ours {
		if strings.HasPrefix(f.GetName(), "go_") {
			isGo[f.GetName()] = f
		}
	}
	for _, want := range theirs {
		got := isGo[want.GetName()]
		delete(isGo, want.GetName())
		if got == nil || got.GetType() != want.GetType() || len(got.Metric) != 1 || got.Metric[0].GetSummary().GetSampleCount() != want.Metric[0].GetSummary().GetSampleCount() {
			t.Errorf("got %v, want %v", got, want)
			continue
		}
		// The program allocates between the two readings.
		if is, was := number(got), number(want); is < was*0.5-20 || is > was*2+20 {
			t.Errorf("%s is %v, not about %v", want.GetName(), is, was)
		}
		for i, label := range want.Metric[0].Label {
			if got.Metric[0].Label[i].GetName() != label.GetName() || got.Metric[0].Label[i].GetValue() != label.GetValue() {
				t.Errorf("%s has %v, not %v", want.GetName(), got.Metric[0].Label, want.Metric[0].Label)
			}
		}
		for i, q := range want.Metric[0].GetSummary().GetQuantile() {
			if g := got.Metric[0].Summary.Quantile[i]; g.GetQuantile() != q.GetQuantile() || g.GetValue() != q.GetValue() {
				t.Errorf("%s has %v, not %v", want.GetName(), g, q)
			}
		}
	}
	for name := range isGo {
		t.Errorf("client_golang has no %s", name)
	}
}

func number(f *dto.MetricFamily) float64 {
	m := f.Metric[0]
	return m.GetGauge().GetValue() + m.GetCounter().GetValue() + m.GetSummary().GetSampleSum()
}
