//go:build linux

package admin

import (
	"testing"

	"github.com/kamailio-exporter/kamailio_exporter/kamrpc/kamrpctest/kamailiotest"
)

func TestOldTextsOfRealKamailioAreNotTold(t *testing.T) {
	outcomesOf(t, func(t *testing.T, server *kamailiotest.Server, b *endpoint, _ bool) {
		server.RPC(t, "htable.sets", "ipban", "k", "topsecret")
		oldTexts(t, b)
	})
}
