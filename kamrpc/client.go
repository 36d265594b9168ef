// Package kamrpc queries a running Kamailio over JSON-RPC or BINRPC. JSON-RPC uses any
// transport of the jsonrpcs module: HTTP, the unix or UDP datagram socket, the FIFO, and
// (Kamailio 6) TCP. BINRPC uses the ctl module.
//
// A reply is untrusted input: its size, depth, and number of values are limited, it is
// matched to its request by id, and its strings are kept byte for byte. The package knows
// nothing about metrics, flags, or logs.
package kamrpc

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/go-json-experiment/json/jsontext"
)

// Caller calls one RPC method of a Kamailio. Parameters are strings, integers, or
// floats. The error is a *[Fault] if Kamailio refused the call.
type Caller interface {
	Call(ctx context.Context, method string, params ...any) (Value, error)
}

// Transport carries requests to Kamailio. Requests and replies are always JSON-RPC; the
// BINRPC transport translates both.
type Transport interface {
	// RoundTrip sends the request and returns the reply as a stream. Reading fails
	// once ctx is done. The stream may hold more than one reply, for example a late
	// reply to an earlier request; the caller picks its own. If the request could
	// not be delivered, the error is an ErrUnreachable.
	RoundTrip(ctx context.Context, request []byte) (io.ReadCloser, error)
	// Traits describes what this transport can carry.
	Traits() Traits
	// String returns the URI without secrets.
	String() string
}

// Traits are the capabilities and limits of a transport.
type Traits struct {
	MaxReply int64  // largest reply that Kamailio can send, in bytes; 0: no known limit
	Scripted bool   // kamailio.cfg can serve methods here that Kamailio does not list
	Complete bool   // replies are complete even where JSON-RPC loses a part, see [Price.JSONLoses]
	Silence  string // what a missing reply may mean here, and how to fix it
}

// Config is the configuration of a [Client]. Zero limits mean the defaults.
type Config struct {
	Transports    []Transport       // in order of preference
	MaxConcurrent int               // concurrent calls; each occupies a Kamailio process
	MaxReplyBytes int64             // largest reply that is kept in memory as a whole
	Observe       func(Observation) // called once for every request that was sent; may be nil
}

// Defaults of a [Config].
const (
	DefaultMaxConcurrent = 2
	DefaultMaxReplyBytes = 16 << 20
)

// Observation describes one request. Err is nil or an error as in [Client.Call].
type Observation struct {
	Method string
	Bytes  int64 // of the reply, as far as it was read
	Err    error
}

// Client is a [Caller] for one Kamailio that has one or more transports. Calls with
// growing replies use the transport with the highest size limit, calls whose reply
// JSON-RPC truncates use BINRPC if it is available, and all others use the first one.
// If a transport does not accept the request, or does not answer a read, the client tries
// the next one. It skips a transport that leads to another Kamailio (see [Client.Status]).
type Client struct {
	members, byCapacity, byContent, scripted []*member

	roster   *roster
	gate     *gate
	slots    chan struct{}
	maxReply int64
	observe  func(Observation)
	nextID   atomic.Uint32
	outgrown sync.Map // methods that got no answer on a transport with a size limit
}

var errNoTransport = errors.New("no transport: give at least one URI")

// NewClient returns a Client. It fails only if there is no transport.
func NewClient(cfg Config) (*Client, error) {
	if len(cfg.Transports) == 0 {
		return nil, errNoTransport
	}
	return newClient(cfg, newGate(), newRoster(), nil), nil
}

func newClient(cfg Config, gate *gate, roster *roster, known []*member) *Client {
	if cfg.MaxConcurrent <= 0 {
		cfg.MaxConcurrent = DefaultMaxConcurrent
	}
	if cfg.MaxReplyBytes <= 0 {
		cfg.MaxReplyBytes = DefaultMaxReplyBytes
	}
	if cfg.Observe == nil {
		cfg.Observe = func(Observation) {}
	}
	members := roster.join(cfg.Transports, known)
	c := &Client{
		members:    members,
		byCapacity: slices.Clone(members),
		byContent:  slices.Clone(members),
		roster:     roster,
		gate:       gate,
		slots:      make(chan struct{}, cfg.MaxConcurrent),
		maxReply:   cfg.MaxReplyBytes,
		observe:    cfg.Observe,
	}
	slices.SortStableFunc(c.byCapacity, func(a, b *member) int {
		return cmp.Compare(b.Traits().capacity(), a.Traits().capacity())
	})
	complete := func(m *member) int {
		if m.Traits().Complete {
			return 0
		}
		return 1
	}
	slices.SortStableFunc(c.byContent, func(a, b *member) int { return complete(a) - complete(b) })
	for _, m := range c.members {
		if m.Traits().Scripted {
			c.scripted = append(c.scripted, m)
		}
	}
	// A random start: a restarted client must not accept a late reply to its predecessor.
	c.nextID.Store(rand.Uint32()) //nolint:gosec // not a secret
	return c
}

// URIs returns the URIs without secrets.
func (c *Client) URIs() []string {
	uris := make([]string, len(c.members))
	for i, w := range c.members {
		uris[i] = w.String()
	}
	return uris
}

// Call calls one method of the cost table and returns its result. The errors wrap
// ErrNotPriced, ErrDangerous, ErrReloading, ErrUnreachable, ErrNoAnswer, ErrTooLarge,
// ErrOutgrown, ErrBadReply, or the *Fault that Kamailio returned, and name the method
// and the transport.
func (c *Client) Call(ctx context.Context, method string, params ...any) (Value, error) {
	price, err := c.allow(ctx, method, params, Read)
	if err != nil {
		return Value{}, err
	}
	var result Value
	err = c.read(ctx, c.route(price), method, params, c.maxReply, keep(&result))
	if _, outgrown := c.outgrown.Load(method); outgrown && errors.Is(err, ErrOutgrown) && price.JSONLoses == "" {
		err = c.read(ctx, c.byCapacity, method, params, c.maxReply, keep(&result))
	}
	if method == uptimeMethod && err == nil {
		c.roster.met(result.Get("up_since").Text())
	}
	return result, err
}

// route returns the transports for a call, best first.
func (c *Client) route(price Price) []*member {
	_, outgrown := c.outgrown.Load(price.Method)
	switch {
	case price.JSONLoses != "":
		return c.byContent
	case outgrown || price.Cost == Growing:
		return c.byCapacity
	}
	return c.members
}

// allow looks up a call in the cost table. If the danger depends on the version, it
// queries the version each time, because Kamailio may have been upgraded since.
func (c *Client) allow(ctx context.Context, method string, params []any, effects ...Effect) (Price, error) {
	price, ok := PriceOf(method)
	if !ok || !slices.Contains(effects, price.Effect) {
		return price, fmt.Errorf("%s: %w", method, ErrNotPriced)
	}
	if len(price.Dangers) == 0 {
		return price, nil
	}
	said, err := c.Call(ctx, "core.version")
	if err != nil {
		return price, err
	}
	_, version, _ := strings.Cut(said.Text(), " ") // "kamailio 5.6.3 (x86_64/linux) "
	for _, d := range price.Dangers {
		if d.applies(version, len(params)) {
			return price, fmt.Errorf("%s: %w: on version %s it %s", method, ErrDangerous, strings.TrimSpace(version), d.What)
		}
	}
	return price, nil
}

// keep decodes a whole result into memory.
func keep(result *Value) func(*decoder) error {
	return func(d *decoder) (err error) {
		*result, err = d.value(1)
		return err
	}
}

// Rows calls one method and passes each row of the result to yield as it arrives, in
// constant memory regardless of the size of the reply. After an error, discard the rows
// received so far: the reply was truncated, or belongs to another request. See [Rows] for
// how rows are found. The errors are those of Call, or the error that yield returned.
func (c *Client) Rows(ctx context.Context, rows Rows, yield func(above Above, row Value) error, method string, params ...any) error {
	price, err := c.allow(ctx, method, params, Read)
	if err != nil {
		return err
	}
	members := c.byCapacity
	if price.JSONLoses != "" {
		members = c.byContent
	}
	results := 0
	return c.read(ctx, members, method, params, math.MaxInt64, func(d *decoder) error {
		// The id comes last, so the rows of a late reply to another request would
		// be mixed with ours.
		if results++; results > 1 {
			return fmt.Errorf("%w: after that to another request", ErrBadReply)
		}
		return d.rows(rows, yield)
	})
}

// CallScripted is like Call, but for a method that Kamailio does not list and that only
// kamailio.cfg can serve (event_route[xhttp:request]). If no transport leads through
// kamailio.cfg, it returns ErrMethodNotFound without a call: each call of an unknown
// method logs an ERROR line in Kamailio.
func (c *Client) CallScripted(ctx context.Context, method string, params ...any) (Value, error) {
	if _, err := c.allow(ctx, method, params, Read); err != nil {
		return Value{}, err
	}
	if len(c.scripted) == 0 {
		return Value{}, fmt.Errorf("%s: %w", method, ErrMethodNotFound)
	}
	var result Value
	err := c.read(ctx, c.scripted, method, params, c.maxReply, keep(&result))
	return result, err
}

// read is try for a read. No reload of the module runs at the same time. It waits for a
// reload before it takes a slot, so that other modules can be read meanwhile.
func (c *Client) read(ctx context.Context, members []*member, method string, params []any, limit int64, read func(*decoder) error) error {
	done, err := c.gate.read(ctx, moduleOf(method))
	if err != nil {
		return fmt.Errorf("%s: %w", method, err)
	}
	answered := true // nothing has been sent yet
	defer func() { done(answered) }()
	leave, err := c.enter(ctx, method)
	if err != nil {
		return err
	}
	defer leave()
	_, answered, err = c.try(ctx, members, method, params, limit, read)
	return err
}

// enter waits for a slot; leave releases it.
func (c *Client) enter(ctx context.Context, method string) (leave func(), err error) {
	select {
	case c.slots <- struct{}{}:
		leave = func() { <-c.slots }
	case <-ctx.Done():
		return nil, fmt.Errorf("%s: waiting for earlier calls: %w", method, ctx.Err())
	}
	if ctx.Err() != nil { // select picks at random when both are ready
		leave()
		return nil, fmt.Errorf("%s: canceled: %w", method, ctx.Err())
	}
	return leave, nil
}

// try sends the call over one transport after another until one answers. read decodes the
// result; at most limit bytes are read. If answered is false, Kamailio may still be
// working on the call. A change is sent once; sent is false if no request was delivered.
func (c *Client) try(ctx context.Context, members []*member, method string, params []any, limit int64, read func(*decoder) error) (sent, answered bool, err error) {
	price, _ := PriceOf(method)
	answered = true
	var passed []error
	for i, m := range members {
		delivered, got := false, true
		err := c.usable(ctx, m)
		if err == nil {
			got, err = c.attempt(ctx, m, members[i+1:], price, params, limit, read)
			answered = answered && got
			if err == nil {
				return true, answered, nil
			}
			if fault := (*Fault)(nil); errors.As(err, &fault) {
				return true, answered, fault
			}
			delivered = !errors.Is(err, ErrUnreachable)
			sent = sent || delivered
		}
		passed = append(passed, fmt.Errorf("%s via %s: %w", method, m, err))
		silent := price.Effect == Read && !got && errors.Is(err, ErrNoAnswer)
		if delivered && !silent || ctx.Err() != nil {
			break
		}
	}
	return sent, answered, oneLine(passed)
}

// attempt sends the call over one transport. A growing read may use all remaining time.
// Any other read leaves time for the transports after this one, because a transport
// that does not answer can only be detected by waiting.
func (c *Client) attempt(ctx context.Context, m *member, behind []*member, price Price, params []any, limit int64, read func(*decoder) error) (answered bool, err error) {
	transport := m.Transport
	switch {
	case price.Effect != Read:
		transport = m.once
	case price.Cost != Growing && slices.ContainsFunc(behind, func(other *member) bool { return c.roster.mayServe(other.state) }):
		var cancel context.CancelFunc
		ctx, cancel = part(ctx, math.MaxInt64)
		defer cancel()
	}
	answered, err = c.ask(ctx, m, transport, price.Method, params, limit, read)
	if errors.Is(err, ErrNoAnswer) || errors.Is(err, ErrUnreachable) {
		c.roster.doubt(m.state)
	}
	return answered, err
}

// oneLine joins the errors of all transports on one line, because they end up in a log
// line. errors.Join inserts line breaks.
func oneLine(errs []error) error {
	joined := errs[0]
	for _, err := range errs[1:] {
		joined = fmt.Errorf("%w; %w", joined, err)
	}
	return joined
}

// ask sends one request. jsonrpcs and ctl both complete a reply before they send its
// first byte. So once a byte arrives, Kamailio has finished the call; and a request that
// was not delivered was never started.
func (c *Client) ask(ctx context.Context, m *member, transport Transport, method string, params []any, limit int64, read func(*decoder) error) (answered bool, err error) {
	// 31 bits: older versions of Kamailio's JSON parser store the id in an int.
	id := c.nextID.Add(1) & math.MaxInt32
	request, err := encode(id, method, params)
	if err != nil {
		return true, err
	}
	stream, err := transport.RoundTrip(ctx, request)
	if err != nil {
		answered = errors.Is(err, ErrUnreachable)
		err = c.explain(ctx, transport, method, err)
		c.observe(Observation{Method: method, Err: err})
		return answered, err
	}
	defer stream.Close()
	counted := &limitedReader{r: stream, left: limit, max: limit}
	err = decodeReply(counted, id, method, read)
	bytes := limit - counted.left
	answered = bytes > 0 || errors.Is(err, ErrUnreachable)
	if err != nil && !errors.As(err, new(*Fault)) {
		err = c.explain(ctx, transport, method, err)
	}
	if err == nil && bytes < c.members[0].Traits().capacity()/2 {
		c.outgrown.Delete(method) // it was a hang, or the large reply has shrunk
	}
	if answered && bytes > 0 {
		c.roster.heard(m.state)
	}
	c.observe(Observation{Method: method, Bytes: bytes, Err: err})
	return answered, err
}

// explain replaces a deadline error with what it means on this transport. It remembers
// the method if another transport can carry larger replies.
func (c *Client) explain(ctx context.Context, transport Transport, method string, err error) error {
	if errors.Is(err, ErrOutgrown) {
		c.outgrow(transport, method)
		return err
	}
	if ctx.Err() == nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		return fmt.Errorf("canceled: %w", context.Canceled)
	}
	if errors.Is(err, ErrUnreachable) {
		return err
	}
	c.outgrow(transport, method)
	err = fmt.Errorf("%w before the deadline: kamailio hangs", ErrNoAnswer)
	if silence := transport.Traits().Silence; silence != "" {
		err = fmt.Errorf("%w, or %s", err, silence)
	}
	return err
}

func (c *Client) outgrow(transport Transport, method string) {
	if c.byCapacity[0].Traits().capacity() > transport.Traits().capacity() {
		c.outgrown.Store(method, nil)
	}
}

func (t Traits) capacity() int64 {
	if t.MaxReply == 0 {
		return math.MaxInt64
	}
	return t.MaxReply
}

// encode writes the request. It only ever contains our own fields: a "store_path" from
// outside would make Kamailio write a file.
func encode(id uint32, method string, params []any) ([]byte, error) {
	request := struct {
		Version string `json:"jsonrpc"`
		Method  string `json:"method"`
		Params  []any  `json:"params,omitempty"`
		ID      uint32 `json:"id"`
	}{"2.0", method, params, id}
	for _, p := range params {
		switch p.(type) {
		case string, int, int64, float64:
		default:
			return nil, fmt.Errorf("parameter of type %T: only strings and numbers can be sent", p)
		}
	}
	return json.Marshal(request)
}

// decodeReply skips replies until the one with this id. read decodes each result.
func decodeReply(r *limitedReader, id uint32, method string, read func(*decoder) error) error {
	d := decoders.Get().(*decoder)
	d.reset(r, int(min(maxValues, max(minValues, r.max/valueBytes))))
	defer d.reuse()
	want := strconv.FormatUint(uint64(id), 10)
	for others := 0; ; others++ {
		var fault, gotID Value
		if d.dec.PeekKind() != jsontext.KindBeginObject {
			// PeekKind hides the read error; ReadToken returns it.
			_, err := d.dec.ReadToken()
			switch {
			case errors.Is(err, io.EOF) && others > 0:
				return fmt.Errorf("%w: its id is that of another request", ErrBadReply)
			case err == nil:
				return fmt.Errorf("%w: not a JSON object", ErrBadReply)
			}
			return badReply(err)
		}
		err := d.members(func(name string) (err error) {
			switch name {
			case "result":
				return read(d)
			case "error":
				fault, err = d.value(1)
			case "id":
				gotID, err = d.value(1)
			default:
				_, err = d.value(1)
			}
			return err
		})
		if err != nil {
			return badReply(err)
		}
		if gotID.Text() != want {
			continue
		}
		if fault.Exists() {
			code, _ := fault.Get("code").Float()
			return &Fault{Method: method, Code: int(code), Message: fault.Get("message").Text()}
		}
		return nil
	}
}

// badReply marks errors of reading a reply: invalid JSON, or a connection that broke.
// A reply beyond our limit and a request that never arrived keep their own errors.
// explain handles deadlines.
func badReply(err error) error {
	if inner := errors.Unwrap(err); inner != nil && err.Error() == "jsontext: read error: "+inner.Error() {
		err = inner // jsontext's prefix is noise in a log
	}
	var syntax *jsontext.SyntacticError
	var refused *yieldError
	switch {
	case errors.As(err, &refused):
		return refused.err
	case errors.Is(err, ErrTooLarge), errors.Is(err, ErrUnreachable), errors.Is(err, ErrOutgrown), errors.Is(err, ErrBadReply):
		return err
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%w: cut off", ErrBadReply)
	case errors.As(err, &syntax):
		// Not the error's own text: it quotes the reply, which may contain secrets.
		return fmt.Errorf("%w: not JSON at byte %d", ErrBadReply, syntax.ByteOffset)
	}
	return fmt.Errorf("%w: %w", ErrBadReply, err)
}
