package kamrpc

import (
	"context"
	"errors"
	"fmt"
)

// Sibling returns another client for the same Kamailio with its own transports and slots,
// so that neither waits for the other's calls. Both share the locks that keep reloads and
// reads of a module apart and run one change at a time. They also share what is known
// about each URI, so that changes go to the same Kamailio as the reads.
func (c *Client) Sibling(cfg Config) (*Client, error) {
	if len(cfg.Transports) == 0 {
		return nil, errNoTransport
	}
	return newClient(cfg, c.gate, c.roster, c.members), nil
}

// Do makes one call that changes Kamailio: a reload or an action of the cost table. It
// is sent once. Another transport is tried only if nothing was sent.
//
// While a module reloads, this process does not read it, and the reload first waits for
// reads in progress. If a read got no answer, it may still be running, so reloads of
// that module are refused for a while with a *[StillReadError]. Changes run one at a
// time; the next one waits.
//
// After ErrUnknownOutcome, Kamailio may have made the change or may still make it: the
// caller must never repeat it automatically. A *[Fault] means that Kamailio answered.
// After any other error, nothing was sent.
func (c *Client) Do(ctx context.Context, method string, params ...any) (Value, error) {
	price, err := c.allow(ctx, method, params, Reload, Action)
	if err != nil {
		return Value{}, err
	}
	select {
	case c.gate.change <- struct{}{}:
		defer func() { <-c.gate.change }()
	case <-ctx.Done():
		return Value{}, fmt.Errorf("%s: waiting for another change: %w", method, ctx.Err())
	}
	over := func(bool) {}
	if price.Effect == Reload {
		if over, err = c.gate.reload(ctx, moduleOf(method)); err != nil {
			return Value{}, fmt.Errorf("%s: %w", method, err)
		}
	}
	result, err := c.send(ctx, method, params)
	over(!errors.Is(err, ErrUnknownOutcome))
	return result, err
}

// maxChangeReply is far more than the reply of any change: a sentence or a few fields.
const maxChangeReply = 64 << 10

func (c *Client) send(ctx context.Context, method string, params []any) (result Value, err error) {
	leave, err := c.enter(ctx, method)
	if err != nil {
		return Value{}, err
	}
	defer leave()
	sent, _, err := c.try(ctx, c.members, method, params, min(c.maxReply, maxChangeReply), keep(&result))
	if err == nil || errors.As(err, new(*Fault)) || !sent {
		return result, err
	}
	return Value{}, fmt.Errorf("%w: %w", ErrUnknownOutcome, err)
}

// resender is a Transport whose RoundTrip may send a request more than once.
type resender interface {
	// once returns the same transport, except that it sends a request at most once.
	once() Transport
}
