package kamrpctest

import (
	"compress/gzip"
	"context"
	"io"
	"strings"
	"time"
)

// Mode is how the server answers. The zero Mode is [OK].
type Mode struct {
	kind   kind
	status int
	every  time.Duration
}

type kind uint8

const (
	kindOK kind = iota
	kindSilent
	kindEmpty
	kindGarbage
	kindTruncate
	kindTrickle
	kindOtherID
	kindLateThenRight
	kindDeep
	kindEndless
	kindLatin1
	kindHTTPError
	kindRedirect
	kindGzipBomb
	kindAnnounce
)

// The modes that every transport supports. A datagram transport sends one datagram for
// each write to a stream.
var (
	// OK answers normally.
	OK = Mode{kind: kindOK}
	// Silent accepts the request but never answers; a connection stays open.
	Silent = Mode{kind: kindSilent}
	// Empty ends the reply before its first byte; datagrams send nothing.
	Empty = Mode{kind: kindEmpty}
	// Garbage sends a reply that is not JSON.
	Garbage = Mode{kind: kindGarbage}
	// Truncate sends only the first half of the reply.
	Truncate = Mode{kind: kindTruncate}
	// OtherID sends a valid reply to another request.
	OtherID = Mode{kind: kindOtherID}
	// LateThenRight sends the reply to an earlier request, and then the right one.
	LateThenRight = Mode{kind: kindLateThenRight}
	// Deep sends a result of 100,000 nested arrays.
	Deep = Mode{kind: kindDeep}
	// Endless sends a valid JSON result that never ends.
	Endless = Mode{kind: kindEndless}
	// Latin1 sends the result "Zürich" in ISO 8859-1, which is not valid UTF-8.
	Latin1 = Mode{kind: kindLatin1}
)

// The modes that only HTTP supports; the other transports treat them as OK.
var (
	// Redirect redirects the client to the path /elsewhere on the same server, which
	// would answer the call.
	Redirect = Mode{kind: kindRedirect}
	// GzipBomb sends a small gzip reply that expands to 1 GiB, although the client did
	// not request gzip.
	GzipBomb = Mode{kind: kindGzipBomb}
	// Announce sends a Content-Length of 1 TiB, and keeps the connection open after the
	// reply.
	Announce = Mode{kind: kindAnnounce}
)

// Trickle sends one byte at a time, each after this pause.
func Trickle(every time.Duration) Mode { return Mode{kind: kindTrickle, every: every} }

// HTTPError sends this status and an HTML page, as a proxy or kamailio.cfg may do. Only
// HTTP supports it.
func HTTPError(status int) Mode { return Mode{kind: kindHTTPError, status: status} }

// whole reports whether the mode sends the reply in one piece.
func (m Mode) whole() bool {
	switch m.kind {
	case kindTrickle, kindLateThenRight, kindEndless:
		return false
	}
	return true
}

// answer writes the response to w as the mode requires. It does not handle Silent.
func answer(ctx context.Context, w io.Writer, m Mode, r Response, id string) error {
	var err error
	switch m.kind {
	case kindSilent, kindEmpty:
	case kindGarbage:
		_, err = io.WriteString(w, "SIP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n")
	case kindTruncate:
		reply := r.bytes(id)
		_, err = w.Write(reply[:len(reply)/2])
	case kindTrickle:
		err = trickle(ctx, w, r.bytes(id), m.every)
	case kindOtherID:
		err = r.write(w, neighbour(id, 1))
	case kindLateThenRight:
		late := Response{Result: `"late"`}
		if _, err = w.Write(late.bytes(neighbour(id, -1))); err == nil {
			_, err = w.Write(r.bytes(id))
		}
	case kindDeep:
		const depth = 100_000
		err = Response{Result: strings.Repeat("[", depth) + strings.Repeat("]", depth)}.write(w, id)
	case kindEndless:
		err = endless(ctx, w, id)
	case kindLatin1:
		err = Response{Result: "\"Z\xfcrich\""}.write(w, id)
	default:
		err = r.write(w, id)
	}
	return err
}

func trickle(ctx context.Context, w io.Writer, reply []byte, every time.Duration) error {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for i := range reply {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		if _, err := w.Write(reply[i : i+1]); err != nil {
			return err
		}
	}
	return nil
}

func endless(ctx context.Context, w io.Writer, id string) error {
	_, err := io.WriteString(w, `{"jsonrpc":"2.0","id":`+id+`,"result":[0`)
	for rows := strings.Repeat(`,"row"`, 1000); err == nil; _, err = io.WriteString(w, rows) {
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return err
}

func gzipBomb(w io.Writer) error {
	z := gzip.NewWriter(w)
	defer z.Close()
	blank := make([]byte, 1<<20)
	for i := range blank {
		blank[i] = ' '
	}
	for range 1 << 10 {
		if _, err := z.Write(blank); err != nil {
			return err
		}
	}
	return nil
}
