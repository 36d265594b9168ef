package serve

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/go-kit/log/level"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/conf"
)

// hangup catches SIGHUP (systemctl reload). The signal must not end the exporter, not
// even during startup or when there is nothing to reload.
type hangup struct{ signals chan os.Signal }

func catchHangup() *hangup {
	h := &hangup{make(chan os.Signal, 1)}
	signal.Notify(h.signals, syscall.SIGHUP)
	return h
}

func (h *hangup) release() { signal.Stop(h.signals) }

// onHangup reloads the files at each SIGHUP until ctx is done.
func (v *Service) onHangup(ctx context.Context, h *hangup) {
	for {
		select {
		case <-h.signals:
			v.reload()
		case <-ctx.Done():
			return
		}
	}
}

func (v *Service) reload() {
	if v.targets != nil {
		_ = v.targets.Reload() // Reload logs its error
	}
	if v.admin != nil {
		if err := v.admin.Reload(); err != nil {
			_ = level.Error(v.logger).Log("msg", "admin endpoint: reload failed; keeping the previous configuration", "err", conf.OneLine(err))
		} else {
			_ = level.Info(v.logger).Log("msg", "admin endpoint: configuration reloaded")
		}
	}
	if v.targets == nil && v.settings.AdminConfigFile == "" {
		_ = level.Info(v.logger).Log("msg", "nothing to reload: neither --config.file nor --admin.config.file is set")
	}
}
