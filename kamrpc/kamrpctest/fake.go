// Package kamrpctest provides a fake Kamailio for tests. It serves every transport that
// kamrpc supports in the same way as a real Kamailio. It can also misbehave as real
// servers, crashing servers, and servers other than Kamailio do.
//
// Unlike the real one, it serves all requests in parallel, each in its own goroutine, so
// that a hanging call does not affect the next one.
package kamrpctest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// Request is one call as the server received it.
type Request struct {
	Transport string // the scheme, one of Schemes
	Method    string
	Params    []any  // string, int64, float64, or any other JSON value
	ID        string // as it was written
	Raw       []byte // the whole request; for BINRPC, the part after the header
}

// Response is the reply of a [Handler]: Raw if set, else a fault if Message is set, else
// the result that Stream writes, else Result.
type Response struct {
	Result  string                    // JSON; empty means {}
	Stream  func(w io.Writer) error   // writes the result as JSON, of any size
	Code    int                       // of a fault; 0 means 500
	Message string                    // of a fault
	Raw     []byte                    // the whole reply, instead of the fields above
	rewrite func(id string) io.Reader // returns a recorded reply with this id
}

// Handler answers calls of one method.
type Handler func(Request) Response

// Schemes returns the transports that a [Server] serves.
func Schemes() []string {
	return []string{"http", "unix", "udp", "fifo", "tcp", "binrpc+unix", "binrpc+tcp"}
}

// Server is a fake Kamailio.
type Server struct {
	tb        testing.TB
	dir       string
	addresses map[string]string // host:port or path by scheme; kept while down

	mu         sync.Mutex
	handlers   map[string]Handler
	modes      map[string]Mode // by method; "" is for all others
	calls      map[string]int
	running    int
	maxRunning int
	stop       func() // while up
}

// New starts a fake Kamailio on all transports and closes it when the test ends.
func New(tb testing.TB) *Server {
	tb.Helper()
	// Not tb.TempDir: its path contains the test's name, and the path of a socket is
	// limited to 107 bytes.
	dir, err := os.MkdirTemp("", "kam")
	if err != nil {
		tb.Fatal(err)
	}
	s := &Server{
		tb:  tb,
		dir: dir,
		addresses: map[string]string{
			"http": "127.0.0.1:0",
			"udp":  "127.0.0.1:0",
			"tcp":  "127.0.0.1:0",
			"unix": filepath.Join(dir, "rpc.sock"),
			"fifo": filepath.Join(dir, "rpc.fifo"),

			"binrpc+unix": filepath.Join(dir, "ctl"),
			"binrpc+tcp":  "127.0.0.1:0",
		},
		handlers: map[string]Handler{},
		modes:    map[string]Mode{},
		calls:    map[string]int{},
	}
	s.HandleFunc("system.listMethods", s.listMethods)
	if err := os.Mkdir(s.ReplyDir(), 0o755); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(s.Close)
	s.Up()
	return s
}

// URI returns the URI of this transport for kamrpc.Open.
func (s *Server) URI(scheme string) string {
	uri := scheme + "://" + s.addresses[scheme]
	switch scheme {
	case "http":
		uri += "/RPC"
	case "fifo":
		uri += "?reply_dir=" + s.ReplyDir()
	}
	return uri
}

// ReplyDir returns the fifo_reply_dir. It contains nothing but reply FIFOs.
func (s *Server) ReplyDir() string { return filepath.Join(s.dir, "replies") }

// Handle sets the result of a method.
func (s *Server) Handle(method, resultJSON string) {
	s.HandleFunc(method, func(Request) Response { return Response{Result: resultJSON} })
}

// HandleFault makes a method return an error.
func (s *Server) HandleFault(method string, code int, message string) {
	s.HandleFunc(method, func(Request) Response { return Response{Code: code, Message: message} })
}

// HandleFunc sets the handler of a method, which may run in several goroutines at once.
// A nil handler removes the method.
func (s *Server) HandleFunc(method string, h Handler) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h == nil {
		delete(s.handlers, method)
		return
	}
	s.handlers[method] = h
}

// LoadDir serves recorded replies: METHOD.json contains a whole reply of a Kamailio, of
// which only the id is changed. Files of variants, whose names contain more dots than a
// method, are skipped: see [Server.LoadFile].
func (s *Server) LoadDir(dir string) {
	s.tb.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil || len(files) == 0 {
		s.tb.Fatalf("no recorded replies in %s (%v)", dir, err)
	}
	for _, file := range files {
		if method := strings.TrimSuffix(filepath.Base(file), ".json"); strings.Count(method, ".") == 1 {
			s.LoadFile(method, file)
		}
	}
}

var recordedID = regexp.MustCompile(`("id":\s*)[0-9]+(\s*}\s*)$`)

// LoadFile serves the recorded reply in file for method.
func (s *Server) LoadFile(method, file string) {
	s.tb.Helper()
	recorded, err := os.ReadFile(file)
	if err != nil {
		s.tb.Fatal(err)
	}
	// Use a regular expression: a recording may contain bytes that are not UTF-8, or an
	// object with repeated names, and must be returned exactly.
	at := recordedID.FindSubmatchIndex(recorded)
	if at == nil {
		s.tb.Fatalf("%s: does not end with an id", file)
	}
	var reply struct {
		Error *struct{ Code int }
	}
	_ = json.Unmarshal(recorded, &reply)
	head, tail := recorded[:at[3]], recorded[at[4]:]
	s.HandleFunc(method, func(Request) Response {
		r := Response{rewrite: func(id string) io.Reader {
			return io.MultiReader(bytes.NewReader(head), strings.NewReader(id), bytes.NewReader(tail))
		}}
		if reply.Error != nil {
			r.Code = reply.Error.Code
		}
		return r
	})
}

func (s *Server) listMethods(Request) Response {
	s.mu.Lock()
	defer s.mu.Unlock()
	list, err := json.Marshal(slices.Sorted(maps.Keys(s.handlers)))
	if err != nil {
		panic(err) // the names are valid
	}
	return Response{Result: string(list)}
}

// Misbehave sets the mode for the given methods from now on. Without methods, it sets the
// mode for all methods that have no mode of their own.
func (s *Server) Misbehave(m Mode, methods ...string) {
	if len(methods) == 0 {
		methods = []string{""}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, method := range methods {
		s.modes[method] = m
	}
}

// Calls returns how often each method was called, including methods without a handler.
func (s *Server) Calls() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.calls)
}

// CallCount returns how often one method was called.
func (s *Server) CallCount(method string) int { return s.Calls()[method] }

// MaxConcurrent returns the largest number of calls that ran at the same time.
func (s *Server) MaxConcurrent() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.maxRunning
}

// Down simulates the exit of Kamailio: it closes all listeners and connections, and
// removes the socket and the FIFO. It returns once everything has stopped.
func (s *Server) Down() {
	s.mu.Lock()
	stop := s.stop
	s.stop = nil
	s.mu.Unlock()
	if stop != nil {
		stop()
	}
}

// Up starts the server again on its previous addresses.
func (s *Server) Up() {
	s.tb.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stop != nil {
		return
	}
	l := &life{server: s}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	for _, start := range []func() error{l.serveHTTP, l.serveUnix, l.serveUDP, l.serveFIFO, l.serveTCP, l.serveBinrpcUnix, l.serveBinrpcTCP} {
		if err := start(); err != nil {
			l.end()
			s.tb.Fatalf("fake kamailio: %v", err)
		}
	}
	s.stop = l.end
}

// Close stops the server permanently and removes its files. New registers it as cleanup.
func (s *Server) Close() {
	s.Down()
	os.RemoveAll(s.dir)
}

// life is the period between Up and Down.
type life struct {
	server *Server
	ctx    context.Context //nolint:containedctx // the context is that of the whole run
	cancel context.CancelFunc
	tasks  sync.WaitGroup

	mu      sync.Mutex
	closers map[io.Closer]struct{} // closed to unblock the tasks
}

func (l *life) end() {
	l.mu.Lock()
	l.cancel()
	for c := range l.closers {
		c.Close()
	}
	l.mu.Unlock()
	l.tasks.Wait()
}

// enter counts a task that no other task has started. It returns false if it is too late.
func (l *life) enter() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ctx.Err() != nil {
		return false
	}
	l.tasks.Add(1)
	return true
}

// opened registers what must be closed at the end. The returned function closes it
// immediately.
func (l *life) opened(c io.Closer) (closeIt func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closers == nil {
		l.closers = map[io.Closer]struct{}{}
	}
	l.closers[c] = struct{}{}
	if l.ctx.Err() != nil {
		c.Close()
	}
	return func() {
		l.mu.Lock()
		delete(l.closers, c)
		l.mu.Unlock()
		c.Close()
	}
}

// parse parses a request. ok is false if Kamailio would not answer it.
func parse(transport string, raw []byte) (req Request, ok bool) {
	var call struct {
		Version string `json:"jsonrpc"`
		Method  string
		Params  any
		ID      json.RawMessage
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	if d.Decode(&call) != nil || call.Version != "2.0" || call.Method == "" {
		return Request{}, false
	}
	req = Request{Transport: transport, Method: call.Method, ID: string(call.ID), Raw: raw}
	switch params := call.Params.(type) {
	case nil:
	case []any:
		for _, p := range params {
			req.Params = append(req.Params, plainNumber(p))
		}
	default:
		req.Params = []any{params}
	}
	return req, true
}

func plainNumber(p any) any {
	n, ok := p.(json.Number)
	if !ok {
		return p
	}
	if i, err := n.Int64(); err == nil {
		return i
	}
	f, _ := n.Float64()
	return f
}

// begin counts a call and returns its handler and mode; done must be called at its end.
func (s *Server) begin(req Request) (h Handler, m Mode, done func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls[req.Method]++
	s.running++
	s.maxRunning = max(s.maxRunning, s.running)
	m, own := s.modes[req.Method]
	if !own {
		m = s.modes[""]
	}
	h = s.handlers[req.Method]
	if h == nil {
		h = func(Request) Response { return Response{Message: "Method Not Found"} }
	}
	return h, m, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.running--
	}
}

// httpStatus returns the HTTP status of Kamailio for a reply: for a fault, its code.
func (r Response) httpStatus() int {
	switch {
	case r.Code >= 400 && r.Code < 600:
		return r.Code
	case r.Message != "" || r.Code != 0:
		return 500
	}
	return 200
}

// write writes the reply with this id.
func (r Response) write(w io.Writer, id string) error {
	switch {
	case r.rewrite != nil:
		_, err := io.Copy(w, r.rewrite(id))
		return err
	case r.Raw != nil:
		_, err := w.Write(r.Raw)
		return err
	case r.Message != "":
		code := r.Code
		if code == 0 {
			code = 500
		}
		message, err := json.Marshal(r.Message)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(w, "{\n\t\"jsonrpc\":\t\"2.0\",\n\t\"error\":\t{\n\t\t\"code\":\t%d,\n\t\t\"message\":\t%s\n\t},\n\t\"id\":\t%s\n}", code, message, id)
		return err
	}
	if _, err := io.WriteString(w, "{\n\t\"jsonrpc\":\t\"2.0\",\n\t\"result\":\t"); err != nil {
		return err
	}
	stream := r.Stream
	if stream == nil {
		result := r.Result
		if result == "" {
			result = "{}"
		}
		stream = func(w io.Writer) error {
			_, err := io.WriteString(w, result)
			return err
		}
	}
	if err := stream(w); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, ",\n\t\"id\":\t%s\n}", id)
	return err
}

// bytes returns the whole reply with this id.
func (r Response) bytes(id string) []byte {
	var b bytes.Buffer
	_ = r.write(&b, id) // a handler that fails has deliberately written only a part of the reply
	return b.Bytes()
}

// neighbour returns the id of another call.
func neighbour(id string, by int64) string {
	n, err := strconv.ParseInt(id, 10, 64)
	if err != nil {
		return "0"
	}
	return strconv.FormatInt(n+by, 10)
}
