// Package healthcheck implements the command healthcheck, which is the health check of a
// container: the image has no shell and no curl.
package healthcheck

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/alecthomas/kingpin/v2"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/cli"
)

// Declare declares the healthcheck command.
func Declare(app *kingpin.Application) cli.Run {
	cmd := cli.NewCommand(app, "healthcheck", "Check that the exporter in this container runs. It sends one HTTP request, with a timeout of 5s, and does not query Kamailio.")
	url := cmd.Arg("url", "URL that must reply with status 200.").Default("http://127.0.0.1:9494/-/healthy").String()
	return func(ctx context.Context, _ string, _, _ io.Writer) error { return check(ctx, *url) }
}

func check(ctx context.Context, url string) error {
	if !strings.HasPrefix(url, "http://") && !strings.HasPrefix(url, "https://") {
		return errors.New("the URL must begin with http:// or https://, as in http://127.0.0.1:9494/-/healthy")
	}
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{}} // without the environment's proxy
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: status %s", req.URL.Redacted(), resp.Status)
	}
	return nil
}
