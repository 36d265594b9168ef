package kamrpctest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Limits of jsonrpcs, as in its source.
const (
	datagramRequestMax = 65_456     // jsonrpcs_sock.c
	fifoRequestMax     = 8_192 - 1  // jsonrpcs_fifo.c
	datagramSendBuffer = 64 * 1_024 // jsonrpcs_sock.c sets it; the kernel doubles it
)

func (l *life) serveHTTP() error {
	listener, err := net.Listen("tcp", l.server.addresses["http"])
	if err != nil {
		return err
	}
	l.server.addresses["http"] = listener.Addr().String()
	server := &http.Server{Handler: http.HandlerFunc(l.http), ReadHeaderTimeout: time.Minute}
	l.opened(server)
	l.tasks.Go(func() { _ = server.Serve(listener) })
	return nil
}

func (l *life) http(w http.ResponseWriter, r *http.Request) {
	if !l.enter() {
		panic(http.ErrAbortHandler)
	}
	defer l.tasks.Done()
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(l.ctx, cancel)()

	if r.URL.Path != "/RPC" && r.URL.Path != "/elsewhere" {
		page(w, http.StatusNotFound)
		return
	}
	raw, err := io.ReadAll(r.Body)
	req, ok := parse("http", raw)
	if err != nil || !ok || r.Method != http.MethodPost || r.ContentLength < 0 {
		<-ctx.Done() // xhttp never answers those
		panic(http.ErrAbortHandler)
	}
	h, mode, done := l.server.begin(req)
	defer done()
	if r.URL.Path == "/elsewhere" {
		mode = OK
	}
	switch mode.kind {
	case kindSilent:
		<-ctx.Done()
		panic(http.ErrAbortHandler)
	case kindEmpty:
		panic(http.ErrAbortHandler)
	case kindHTTPError:
		page(w, mode.status)
		return
	case kindRedirect:
		// 307 repeats the POST; 302 would turn it into a GET.
		http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
		return
	case kindGzipBomb:
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Encoding", "gzip")
		_ = gzipBomb(w)
		return
	}
	resp := h(req)
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Server", "kamailio (fake)")
	if mode.kind == kindAnnounce {
		w.Header().Set("Content-Length", fmt.Sprint(1<<40))
		w.WriteHeader(resp.httpStatus())
		_ = resp.write(w, req.ID)
		_ = http.NewResponseController(w).Flush()
		<-ctx.Done()
		panic(http.ErrAbortHandler)
	}
	out := io.Writer(w)
	if mode.whole() && resp.Stream == nil {
		// Like Kamailio, complete the reply before sending the first byte.
		var whole bytes.Buffer
		_ = answer(ctx, &whole, mode, resp, req.ID)
		w.Header().Set("Content-Length", fmt.Sprint(whole.Len()))
		w.WriteHeader(resp.httpStatus())
		_, _ = w.Write(whole.Bytes())
		return
	}
	if !mode.whole() {
		out = flushing{w}
	}
	w.WriteHeader(resp.httpStatus())
	if err := answer(ctx, out, mode, resp, req.ID); err != nil {
		panic(http.ErrAbortHandler) // breaks the connection, so that it does not look like a normal end
	}
}

func page(w http.ResponseWriter, status int) {
	w.Header().Set("Content-Type", "text/html")
	w.WriteHeader(status)
	fmt.Fprintf(w, "<html><body><h1>%d %s</h1></body></html>", status, http.StatusText(status))
}

type flushing struct{ http.ResponseWriter }

func (f flushing) Write(p []byte) (int, error) {
	n, err := f.ResponseWriter.Write(p)
	return n, errors.Join(err, http.NewResponseController(f.ResponseWriter).Flush())
}

func (l *life) serveTCP() error {
	listener, err := net.Listen("tcp", l.server.addresses["tcp"])
	if err != nil {
		return err
	}
	l.server.addresses["tcp"] = listener.Addr().String()
	l.opened(listener)
	l.tasks.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			l.tasks.Go(func() { l.tcp(conn) })
		}
	})
	return nil
}

func (l *life) tcp(conn net.Conn) {
	defer l.opened(conn)()
	buffer := make([]byte, datagramRequestMax)
	n, err := conn.Read(buffer) // only once, like Kamailio
	if err != nil {
		return
	}
	req, ok := parse("tcp", buffer[:n])
	if !ok {
		return
	}
	h, mode, done := l.server.begin(req)
	defer done()
	if mode.kind == kindSilent {
		_, _ = io.Copy(io.Discard, conn) // until the client or the server closes it
		return
	}
	out := bufio.NewWriter(conn)
	if !mode.whole() {
		_ = answer(l.ctx, conn, mode, h(req), req.ID)
		return
	}
	_ = answer(l.ctx, out, mode, h(req), req.ID)
	_ = out.Flush()
}

func (l *life) serveUnix() error {
	path := l.server.addresses["unix"]
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return err
	}
	if err := conn.SetWriteBuffer(datagramSendBuffer); err != nil {
		return err
	}
	l.datagrams("unix", conn, func() { os.Remove(path) })
	return nil
}

func (l *life) serveUDP() error {
	conn, err := net.ListenPacket("udp", l.server.addresses["udp"])
	if err != nil {
		return err
	}
	l.server.addresses["udp"] = conn.LocalAddr().String()
	l.datagrams("udp", conn, func() {})
	return nil
}

func (l *life) datagrams(transport string, conn net.PacketConn, cleanup func()) {
	l.opened(conn)
	l.tasks.Go(func() {
		defer cleanup()
		buffer := make([]byte, datagramRequestMax)
		for {
			n, from, err := conn.ReadFrom(buffer)
			if err != nil {
				return
			}
			req, ok := parse(transport, bytes.Clone(buffer[:n]))
			if !ok || from == nil || from.String() == "" {
				continue
			}
			l.tasks.Go(func() { l.datagram(conn, from, req) })
		}
	})
}

func (l *life) datagram(conn net.PacketConn, to net.Addr, req Request) {
	h, mode, done := l.server.begin(req)
	defer done()
	send := writer(func(p []byte) (int, error) { return conn.WriteTo(p, to) })
	switch {
	case mode.kind == kindSilent, mode.kind == kindEmpty:
	case mode.whole():
		var whole bytes.Buffer
		_ = answer(l.ctx, &whole, mode, h(req), req.ID)
		// A reply that is too large is lost here, as in Kamailio.
		_, _ = send.Write(whole.Bytes())
	default:
		_ = answer(l.ctx, send, mode, h(req), req.ID)
	}
}

type writer func([]byte) (int, error)

func (f writer) Write(p []byte) (int, error) { return f(p) }

func (l *life) serveFIFO() error {
	path := l.server.addresses["fifo"]
	if err := syscall.Mkfifo(path, 0o660); err != nil {
		return err
	}
	// Open for reading and writing: without a writer, reading the FIFO would return EOF.
	requests, err := os.OpenFile(path, os.O_RDWR|syscall.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	l.opened(requests)
	l.tasks.Go(func() {
		defer os.Remove(path)
		in := bufio.NewReader(requests)
		for {
			raw, err := readFIFORequest(in)
			if errors.Is(err, errTooLong) {
				continue
			}
			if err != nil {
				return
			}
			if req, ok := parse("fifo", raw); ok {
				l.tasks.Go(func() { l.fifo(req) })
			}
		}
	})
	return nil
}

var errTooLong = errors.New("request too long")

// readFIFORequest finds the end of a request by the rules of jsonrpc_read_stream: it counts
// braces outside of strings, and treats any quote after a backslash as escaped, even if
// that backslash is escaped itself.
func readFIFORequest(in *bufio.Reader) ([]byte, error) {
	var (
		request []byte
		quote   byte // the quote that ends the current string
		before  byte
		depth   int
		found   bool
	)
	for {
		c, err := in.ReadByte()
		if err != nil {
			return nil, err
		}
		switch {
		case (c == '"' || c == '\'') && (quote == 0 || quote == c):
			if before != '\\' {
				quote ^= c
			}
		case quote != 0:
		case c == '{':
			found = true
			depth++
		case c == '}':
			depth--
		}
		before = c
		request = append(request, c)
		if len(request) >= fifoRequestMax {
			return nil, errTooLong
		}
		if found && depth == 0 {
			return request, nil
		}
	}
}

func (l *life) fifo(req Request) {
	h, mode, done := l.server.begin(req)
	defer done()
	if mode.kind == kindSilent {
		return
	}
	resp := h(req)
	reply, err := l.openReplyFIFO(replyName(req.Raw))
	if err != nil {
		return
	}
	defer l.opened(reply)()
	if !mode.whole() {
		_ = answer(l.ctx, reply, mode, resp, req.ID)
		return
	}
	out := bufio.NewWriterSize(reply, 4096) // the buffer size of stdio
	_ = answer(l.ctx, out, mode, resp, req.ID)
	_ = out.Flush()
}

func (l *life) openReplyFIFO(name string) (*os.File, error) {
	if name == "" || strings.ContainsAny(name, `./\`) || len(name) >= 128 {
		return nil, errors.New("forbidden name")
	}
	retry := time.NewTicker(80 * time.Millisecond)
	defer retry.Stop()
	for range 5 {
		f, err := os.OpenFile(filepath.Join(l.server.ReplyDir(), name), os.O_WRONLY|syscall.O_NONBLOCK, 0)
		if !errors.Is(err, syscall.ENXIO) {
			return f, err
		}
		select {
		case <-retry.C:
		case <-l.ctx.Done():
			return nil, l.ctx.Err()
		}
	}
	return nil, errors.New("no client")
}

func replyName(raw []byte) string {
	var request struct {
		ReplyName string `json:"reply_name"`
	}
	_ = json.Unmarshal(raw, &request)
	return request.ReplyName
}
