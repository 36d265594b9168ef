// kamailio_exporter serves the state of a Kamailio SIP server as Prometheus
// metrics.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/admincli"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/assets"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/cli"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/conf"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/doctor"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/rpccmd"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/serve"
)

func main() {
	if build, ok := debug.ReadBuildInfo(); ok {
		cli.CompleteVersion(build)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil {
		if text := conf.OneLine(err); text != "" { // a report says it all
			fmt.Fprintf(os.Stderr, "%s: error: %s\n", cli.ProgramName, text)
		}
		os.Exit(cli.ExitCode(err))
	}
}

// run picks the command, and without one serves until ctx is done.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	if len(args) > 0 {
		switch command, args := args[0], args[1:]; command {
		case "admin":
			return admincli.RunCommand(ctx, args, stdout)
		case "assets":
			return assets.RunCommand(args, stdout)
		case "doctor":
			return doctor.RunCommand(ctx, args, stdout)
		case "rpc":
			return rpccmd.RunCommand(ctx, args, stdout)
		}
	}
	s, err := cli.Parse(args, stdout)
	if err != nil || s == nil { // nil: --help or --version
		return err
	}
	return serve.Run(ctx, s, stdout, stderr)
}
