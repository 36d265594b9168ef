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

// httpJSON is xhttp with jsonrpcs. Kamailio's TCP workers serve requests in parallel and
// build the reply in private memory. In tests with the default of 8 MB, no reply above
// about 3 MB arrived.
type httpJSON struct {
	url    *url.URL
	header http.Header
	client *http.Client
	// stale is when a kept connection was last found closed, as Unix time.
	stale *atomic.Int64
	// single: send each request at most once.
	single bool
}

// staleFor is how long no connection is kept after a kept one was found closed. It is
// limited because a restart of Kamailio looks the same.
const staleFor = 10 * time.Minute

// maxStale is how many closed connections one request may encounter: as many as
// concurrent calls can leave behind.
const maxStale = 5

const httpMaxReply = 3 << 20

// HTTPIdleTimeout is how long an HTTP client should keep an unused connection. Kamailio 6
// closes one on which it never received data after 20 s (tcp_msg_data_timeout) and logs
// that as CRITICAL (core/tcp_main.c). Go makes such connections: it dials while all others
// are in use, and uses another one if that becomes free first.
const HTTPIdleTimeout = 17 * time.Second

func newHTTP(u *url.URL, client *http.Client) httpJSON {
	if client == nil {
		transport := http.DefaultTransport.(*http.Transport).Clone()
		transport.IdleConnTimeout = HTTPIdleTimeout
		client = &http.Client{Transport: transport}
	}
	if u.Path == "" || u.Path == "/" {
		u.Path = "/RPC"
	}
	own := http.Client{Transport: client.Transport}
	if own.Transport == nil {
		own.Transport = http.DefaultTransport
	}
	return httpJSON{url: u, client: &own, stale: &atomic.Int64{}, header: http.Header{
		"Content-Type":    {"application/json"},
		"Accept-Encoding": {"identity"}, // a small gzip bomb would expand to a large reply
	}}
}

// once opens a new connection for each request. If Kamailio had closed a kept one, the
// outcome of a change would be unknown for no reason. If the client has a custom
// Transport, that Transport must ensure this itself.
func (t httpJSON) once() Transport {
	own := *t.client
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
	return Traits{MaxReply: httpMaxReply, Scripted: true, Silence: "the reply is larger than the about 3 MB that fit into its private memory (in that case add the FIFO as another URI), or kamailio.cfg does not serve RPC over HTTP (jsonrpcs parameter transport, event_route[xhttp:request])"}
}

// RoundTrip keeps connections for the next request, which halves its duration. kamailio.cfg
// may close each connection after its reply without announcing it (Debian's does, with
// set_reply_close()). A request that encounters such a connection is sent again over
// another one. That is acceptable for a read only: see once.
func (t httpJSON) RoundTrip(ctx context.Context, request []byte) (io.ReadCloser, error) {
	ctx, cancel := context.WithCancel(ctx)
	closes := t.single || time.Since(time.Unix(t.stale.Load(), 0)) < staleFor
	resp, reused, err := t.post(ctx, request, closes)
	for tries := 0; err != nil && reused && !t.single && ctx.Err() == nil && tries < maxStale; tries++ {
		t.stale.Store(time.Now().Unix())
		t.client.CloseIdleConnections() // the other connections are probably closed too
		resp, reused, err = t.post(ctx, request, true)
	}
	if err != nil {
		cancel()
		if dial := (*net.OpError)(nil); errors.As(err, &dial) && dial.Op == "dial" {
			return nil, unreachable(err)
		}
		return nil, badReply(err)
	}
	body := &drained{ReadCloser: resp.Body, cancel: cancel}
	// Kamailio sends a JSON error with HTTP 400, 404, or 500. A page from a proxy is not
	// a reply.
	if resp.StatusCode/100 != 2 && !isJSON(resp.Header) {
		_ = body.Close()
		return nil, fmt.Errorf("%w: HTTP status %d%s", ErrBadReply, resp.StatusCode, httpHint(resp.StatusCode))
	}
	return body, nil
}

func (t httpJSON) post(ctx context.Context, request []byte, closeAfter bool) (resp *http.Response, reused bool, err error) {
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(c httptrace.GotConnInfo) { reused = c.Reused },
	})
	// xhttp would never answer a chunked request, so the length is given.
	r := (&http.Request{Method: http.MethodPost, URL: t.url, Header: t.header, ContentLength: int64(len(request)), Close: closeAfter}).WithContext(ctx)
	r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(request)), nil }
	r.Body, _ = r.GetBody()
	// Kamailio never redirects, and the rest of what Client.Do adds is not used either.
	resp, err = t.client.Transport.RoundTrip(r)
	return resp, reused, err
}

func isJSON(header http.Header) bool {
	kind, _, _ := mime.ParseMediaType(header.Get("Content-Type"))
	return strings.HasSuffix(kind, "json")
}

func httpHint(status int) string {
	switch status {
	case http.StatusUnauthorized:
		return ": give user and password in the HTTP configuration file"
	case http.StatusForbidden:
		return ": event_route[xhttp:request] in kamailio.cfg does not allow this address or path"
	case http.StatusNotFound:
		return ": event_route[xhttp:request] in kamailio.cfg does not serve this path"
	}
	return ": check the address of Kamailio's RPC, such as http://127.0.0.1:5060/RPC"
}

// drained reads the short rest of a body before it closes: Kamailio logs an error if its
// peer closes with unread data, and only a body that was read to its end lets the
// connection be reused. It does not wait for a peer that neither sends more nor ends.
type drained struct {
	io.ReadCloser
	cancel context.CancelFunc
	ended  bool // the body was read to its end
}

func (d *drained) Read(p []byte) (int, error) {
	n, err := d.ReadCloser.Read(p)
	d.ended = d.ended || err == io.EOF
	return n, err
}

const (
	drainBytes = 64 << 10
	drainTime  = 100 * time.Millisecond
)

func (d *drained) Close() error {
	if !d.ended {
		enough := time.AfterFunc(drainTime, d.cancel)
		_, _ = io.CopyN(io.Discard, d.ReadCloser, drainBytes)
		enough.Stop()
	}
	err := d.ReadCloser.Close()
	d.cancel()
	return err
}
