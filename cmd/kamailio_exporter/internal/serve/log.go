package serve

import (
	"io"
	"log/slog"
	"time"

	"github.com/go-kit/log"
	"github.com/go-kit/log/level"
	"github.com/prometheus/common/promslog"
	sloggokit "github.com/tjhop/slog-gokit"
)

// newLogger makes the program's logger, and the same logger as the slog.Logger that the
// Prometheus libraries need.
func newLogger(w io.Writer, cfg promslog.Config) (log.Logger, *slog.Logger) {
	sink := log.NewLogfmtLogger(log.NewSyncWriter(w))
	if cfg.Format.String() == "json" {
		sink = log.NewJSONLogger(log.NewSyncWriter(w))
	}
	allowed := level.Allow(level.ParseDefault(cfg.Level.String(), level.InfoValue()))
	// slog-gokit adds the time and the caller itself. The go-kit logger needs them, and
	// the level filter, here.
	logger := log.With(level.NewFilter(sink, allowed), "caller", log.DefaultCaller, "time", log.TimestampFormat(time.Now, time.RFC3339Nano))
	var slogLevel slog.LevelVar
	_ = slogLevel.UnmarshalText([]byte(cfg.Level.String()))
	return logger, slog.New(sloggokit.NewGoKitHandler(sink, &slogLevel))
}
