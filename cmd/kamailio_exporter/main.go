// kamailio_exporter exports the state of a Kamailio SIP server as Prometheus metrics.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/alecthomas/kingpin/v2"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/admincli"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/assets"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/cli"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/conf"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/doctor"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/healthcheck"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/rpccmd"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/serve"
)

func main() {
	if build, ok := debug.ReadBuildInfo(); ok {
		cli.CompleteVersion(build)
	}
	// The exporter of one Kamailio mostly waits. On several processors, Go keeps waking them
	// up for nothing, which costs a third more CPU time per scrape.
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(1)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil {
		if text := conf.OneLine(err); text != "" { // the command has already printed its report
			fmt.Fprintf(os.Stderr, "%s: error: %s\n", cli.ProgramName, text)
		}
		os.Exit(cli.ExitCode(err))
	}
}

// run executes the command that the arguments select. The default command serves until
// ctx is done.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	app, commands := newApp()
	name, err := cli.Parse(app, args, stdout)
	if err != nil || name == "" {
		return err
	}
	first, _, _ := strings.Cut(name, " ")
	return commands[first](ctx, name, stdout, stderr)
}

func newApp() (*kingpin.Application, map[string]cli.Run) {
	app := cli.NewApp()
	return app, map[string]cli.Run{
		"serve":       serve.Declare(app),
		"doctor":      doctor.Declare(app),
		"rpc":         rpccmd.Declare(app),
		"admin":       admincli.Declare(app),
		"assets":      assets.Declare(app),
		"healthcheck": healthcheck.Declare(app),
	}
}
