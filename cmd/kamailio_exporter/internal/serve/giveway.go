package serve

import (
	"context"

	"github.com/go-kit/log/level"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/cli"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/giveway"
)

// newGiving finds out whether the exporter can keep out of Kamailio's way.
func (v *Service) newGiving() {
	keeper, err := giveway.New()
	if err != nil {
		_ = level.Info(v.logger).Log("msg", "scrapes will not give way to Kamailio where both want a CPU", "err", err)
	} else {
		v.giving = keeper
	}
	v.own.add(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: cli.ProgramName + "_gives_way",
		Help: "Whether the exporter runs only while a CPU has nothing else to do (1), or takes its share (0): because it may not, or the host is busy.",
	}, func() float64 {
		if v.giving != nil && v.giving.Giving() {
			return 1
		}
		return 0
	}))
}

// giveWay keeps the exporter out of Kamailio's way until ctx is done.
func (v *Service) giveWay(ctx context.Context) {
	if err := v.giving.Run(ctx); err != nil {
		_ = level.Error(v.logger).Log("msg", "giving way to Kamailio failed, and is not tried again", "err", err)
	}
}
