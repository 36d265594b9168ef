package kamrpc

import (
	"context"
	"errors"
	"fmt"
)

// Sibling makes another client of the same Kamailio: transports and slots of its own, so
// that neither waits for the other's calls, but reloads and reads of a module are
// kept apart, and changes made one at a time, across both. What one learns of a URI
// holds for the other: a change goes to no other Kamailio than the reads.
func (c *Client) Sibling(cfg Config) (*Client, error) {
	if len(cfg.Transports) == 0 {
		return nil, errNoTransport
	}
	return newClient(cfg, c.gate, c.roster, c.members), nil
}

// Do makes one call that changes Kamailio: a reload or an action of the price
// list. It is sent once. Another transport is tried only where nothing was sent.
//
// While a module reloads, no read of it by this process runs, and the reload
// waits for those in progress; where one got no answer, so that it may still run, the
// reload is refused with a *[StillReadError] for a while. One change runs at a time;
// the next waits.
//
// After an ErrUnknownOutcome Kamailio may have done it, or may still do it: the
// caller never repeats that by itself. After a *[Fault] it has answered. After
// any other error nothing was sent.
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

// maxChangeReply is far more than any change answers: a sentence, or a few fields.
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
	// once is the same transport, but sends a request at most once.
	once() Transport
}
