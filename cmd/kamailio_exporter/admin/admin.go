// Package admin is the admin endpoint: a listener of its own, off by default, that
// runs a fixed list of reloads and actions of Kamailio for named users.
//
// It is no JSON-RPC proxy. A client names an action of the catalogue and gives
// typed, bounded parameters; the method and the parameters that Kamailio gets are
// made here. What the policy does not grant does not exist for a user.
//
// One request: listener (limits) → browser defence → authentication → policy →
// strict body → idempotency → slot and cooldown → read before → guard → audit,
// synced → RPC, once → read after → audit → answer.
package admin

import (
	"context"

	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
)

// Kamailio is the server that is changed: a *kamrpc.Client with slots of its own.
type Kamailio interface {
	Call(ctx context.Context, method string, params ...any) (kamrpc.Value, error)
	Rows(ctx context.Context, rows kamrpc.Rows, yield func(above kamrpc.Above, row kamrpc.Value) error, method string, params ...any) error
	Do(ctx context.Context, method string, params ...any) (kamrpc.Value, error)
}
