package collector

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
)

var cfgValue = NewDesc("kamailio_cfg_value", "Value of a runtime setting of Kamailio (cfg framework) that --collector.cfg.variables names.", gauge, cfgMethod, "group", "name")

const cfgMethod = "cfg.get"

// cfgVariables exports settings that an operator compares across servers (cfg_rpc,
// cfg_rpc.c). It exports numbers only, because a text may be a secret.
type cfgVariables struct {
	names    []string // group.name
	interval time.Duration
}

func (cfgVariables) Name() string { return "cfg" }
func (cfgVariables) About() string {
	return "Numeric settings of Kamailio named by --collector.cfg.variables"
}
func (cfgVariables) Methods() []string { return []string{cfgMethod} }
func (cfgVariables) Descs() []*Desc    { return []*Desc{cfgValue} }

// Guard limits how often the settings are read. The calls are cheap, but settings rarely
// change, and a variable that does not exist would be queried at every scrape.
func (c cfgVariables) Guard() Guard { return Guard{Method: cfgMethod, Interval: c.interval} }

func (c cfgVariables) Update(ctx context.Context, s *Session, emit Emit) error {
	for _, variable := range c.names {
		group, name, _ := strings.Cut(variable, ".")
		v, err := s.Call(ctx, cfgMethod, group, name)
		if fault := (*kamrpc.Fault)(nil); errors.As(err, &fault) {
			return fmt.Errorf("setting %s: %w", variable, err)
		}
		if err != nil {
			return err
		}
		value, ok := v.Float()
		if !ok || v.Kind() != kamrpc.Number {
			return fmt.Errorf("setting %s is not a number; remove it from --collector.cfg.variables", variable)
		}
		emit(cfgValue, value, group, name)
	}
	return nil
}
