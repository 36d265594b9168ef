package kamrpc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// httpJSON is xhttp with jsonrpcs. Requests are served by Kamailio's TCP
// workers, side by side, with the reply built in private memory: measured, no
// reply above about 3 MB arrives with the default 8 MB of it.
type httpJSON struct {
	url    *url.URL
	client *http.Client
}

const httpMaxReply = 3 << 20

func newHTTP(u *url.URL, client *http.Client) httpJSON {
	if client == nil {
		client = &http.Client{}
	}
	if u.Path == "" || u.Path == "/" {
		u.Path = "/RPC"
	}
	own := *client
	// Kamailio never redirects; whoever does is not Kamailio.
	own.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return httpJSON{url: u, client: &own}
}

func (t httpJSON) String() string { return t.url.String() }

func (t httpJSON) Traits() Traits { return Traits{MaxReply: httpMaxReply, Scripted: true} }

func (t httpJSON) RoundTrip(ctx context.Context, request []byte) (io.ReadCloser, error) {
	// From a bytes.Reader Go sends Content-Length; a chunked request would never
	// be answered (xhttp).
	ctx, cancel := context.WithCancel(ctx)
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, t.url.String(), bytes.NewReader(request))
	if err != nil {
		cancel()
		return nil, err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Accept-Encoding", "identity") // a small gzip bomb is a large reply
	resp, err := t.client.Do(r)
	if err != nil {
		cancel()
		if dial := (*net.OpError)(nil); errors.As(err, &dial) && dial.Op == "dial" {
			return nil, unreachable(err)
		}
		if wrapped := (*url.Error)(nil); errors.As(err, &wrapped) {
			err = wrapped.Err // the URL is in the message already
		}
		return nil, badReply(err)
	}
	// Kamailio sends a JSON error with HTTP 400, 404 or 500; a page from
	// anything else on the way is not a reply.
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if resp.StatusCode/100 != 2 && !strings.HasSuffix(kind, "json") {
		_ = drained{resp.Body, cancel}.Close()
		return nil, fmt.Errorf("%w: HTTP status %d%s", ErrBadReply, resp.StatusCode, httpHint(resp.StatusCode))
	}
	return drained{resp.Body, cancel}, nil
}

func httpHint(status int) string {
	switch status {
	case http.StatusUnauthorized:
		return ": give user and password in the HTTP configuration file"
	case http.StatusForbidden:
		return ": event_route[xhttp:request] in kamailio.cfg does not allow this address or path"
	case http.StatusNotFound:
		return ": is this the path that event_route[xhttp:request] in kamailio.cfg serves?"
	}
	return ""
}

// drained reads what little is left before it closes: Kamailio logs an error
// when its peer goes away with data unread, and only a body read to its end
// leaves the connection for the next call. A peer that sends no more and does
// not end either is not waited for.
type drained struct {
	io.ReadCloser
	cancel context.CancelFunc
}

const (
	drainBytes = 64 << 10
	drainTime  = 100 * time.Millisecond
)

func (d drained) Close() error {
	enough := time.AfterFunc(drainTime, d.cancel)
	_, _ = io.CopyN(io.Discard, d.ReadCloser, drainBytes)
	enough.Stop()
	err := d.ReadCloser.Close()
	d.cancel()
	return err
}
