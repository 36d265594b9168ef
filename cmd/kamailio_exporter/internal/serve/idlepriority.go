package serve

import (
	"context"

	"github.com/go-kit/log/level"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/cli"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/idlepriority"
	"github.com/kamailio-exporter/kamailio_exporter/collector"
)

var idleDesc = collector.NewDesc(cli.ProgramName+"_idle_priority",
	"Whether the exporter runs at idle CPU priority (1), or at normal priority (0) because the host is busy or idle priority is not permitted.",
	prometheus.GaugeValue, "the exporter")

// newIdlePriority checks whether the exporter can switch to idle priority and back.
func (v *Service) newIdlePriority() {
	keeper, err := idlepriority.New()
	if err != nil {
		_ = level.Info(v.logger).Log("msg", "running at normal CPU priority: SCHED_IDLE is not available", "err", err)
	} else {
		v.idle = keeper
	}
	v.own.addGauge(idleDesc, func() float64 { return collector.Bool01(v.idle != nil && v.idle.Idle()) })
}

// runIdle switches the priority as needed until ctx is done.
func (v *Service) runIdle(ctx context.Context) {
	if err := v.idle.Run(ctx); err != nil {
		_ = level.Error(v.logger).Log("msg", "setting the CPU priority failed; not trying again", "err", err)
	}
}
