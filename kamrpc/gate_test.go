package kamrpc

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// A call without a reply is assumed to be over after settle.
func TestGateOpensAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, ctx := newGate(), context.Background()
		read := func(answered bool) {
			t.Helper()
			done, err := g.read(ctx, "dispatcher")
			if err != nil {
				t.Fatal(err)
			}
			done(answered)
		}
		read(false)
		time.Sleep(settle / 2)
		read(true) // does not prove that the other read has ended
		var still *StillReadError
		if _, err := g.reload(ctx, "dispatcher"); !errors.As(err, &still) || still.Left != settle/2 {
			t.Errorf("half of the time later: %v", err)
		}
		read(true) // the refused reload does not block reads
		if done, err := g.reload(ctx, "domain"); err != nil {
			t.Error(err)
		} else {
			done(true)
		}
		time.Sleep(still.Left)
		done, err := g.reload(ctx, "dispatcher")
		if err != nil {
			t.Fatal(err)
		}
		done(false)
		if _, err := g.read(ctx, "dispatcher"); !errors.Is(err, ErrReloading) {
			t.Errorf("a read after a reload without an answer: %v", err)
		}
		time.Sleep(settle)
		read(true)
	})
}
