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
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync/atomic"
	"time"
)

// httpJSON is xhttp with jsonrpcs. Requests are served by Kamailio's TCP
// workers, side by side, with the reply built in private memory: measured, no
// reply above about 3 MB arrives with the default 8 MB of it.
type httpJSON struct {
	url    *url.URL
	client *http.Client
	// stale is when a kept connection last turned out to be closed, as Unix time.
	stale *atomic.Int64
	// single: a request is sent at most once.
	single bool
}

// After a kept connection turned out to be closed, none is kept for this long. A
// restart of Kamailio looks the same, hence not for ever.
const staleFor = 10 * time.Minute

// maxStale is how many closed connections one request may meet: as many as
// calls at the same time can have left behind.
const maxStale = 5

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
	return httpJSON{url: u, client: &own, stale: &atomic.Int64{}}
}

// once has a connection for each request: a kept one that Kamailio has closed in
// the meantime would make the outcome of a change unknown for no reason. A client
// whose Transport is somebody's own has to see to that itself.
func (t httpJSON) once() Transport {
	own := *t.client
	if own.Transport == nil {
		own.Transport = http.DefaultTransport
	}
	if transport, ok := own.Transport.(*http.Transport); ok {
		transport = transport.Clone()
		transport.DisableKeepAlives = true
		own.Transport = transport
	}
	t.client, t.single = &own, true
	return t
}

func (t httpJSON) String() string { return t.url.String() }

func (t httpJSON) Traits() Traits {
	return Traits{MaxReply: httpMaxReply, Scripted: true, Silence: "the reply is larger than the 3 MB or so that fit into its private memory (then name the FIFO as a further URI), or kamailio.cfg does not serve RPC over HTTP (jsonrpcs parameter transport, event_route[xhttp:request])"}
}

// RoundTrip keeps connections for the next request, which halves the time of
// one. A kamailio.cfg may close each after its reply without saying so (Debian's
// does, by set_reply_close()): the request that meets such a connection is sent
// once more over another. That is right for a read only: see once.
func (t httpJSON) RoundTrip(ctx context.Context, request []byte) (io.ReadCloser, error) {
	ctx, cancel := context.WithCancel(ctx)
	closes := t.single || time.Since(time.Unix(t.stale.Load(), 0)) < staleFor
	resp, reused, err := t.post(ctx, request, closes)
	for tries := 0; err != nil && reused && !t.single && ctx.Err() == nil && tries < maxStale; tries++ {
		t.stale.Store(time.Now().Unix())
		t.client.CloseIdleConnections() // the others are no better
		resp, reused, err = t.post(ctx, request, true)
	}
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
	// anything else in between is not a reply.
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if resp.StatusCode/100 != 2 && !strings.HasSuffix(kind, "json") {
		_ = drained{resp.Body, cancel}.Close()
		return nil, fmt.Errorf("%w: HTTP status %d%s", ErrBadReply, resp.StatusCode, httpHint(resp.StatusCode))
	}
	return drained{resp.Body, cancel}, nil
}

func (t httpJSON) post(ctx context.Context, request []byte, closeAfter bool) (resp *http.Response, reused bool, err error) {
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(c httptrace.GotConnInfo) { reused = c.Reused },
	})
	// From a bytes.Reader Go sends Content-Length; a chunked request would never
	// be answered (xhttp).
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, t.url.String(), bytes.NewReader(request))
	if err != nil {
		return nil, false, err
	}
	r.Close = closeAfter
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Accept-Encoding", "identity") // a small gzip bomb is a large reply
	resp, err = t.client.Do(r)
	return resp, reused, err
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
	return ": is this the address of Kamailio's RPC, such as http://127.0.0.1:5060/RPC?"
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
