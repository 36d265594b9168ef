package target

import (
	"net"
	"net/http"
	"testing"
	"time"
)

// An unused connection is closed before Kamailio 6 complains about it, and a used one is
// kept from one scrape to the next with an interval of 15 s.
func TestUnusedConnectionsAreClosedEarly(t *testing.T) {
	client, err := Target{}.HTTPClient((&net.Dialer{}).DialContext)
	if err != nil {
		t.Fatal(err)
	}
	transport, ok := client.Transport.(*http.Transport)
	if !ok {
		t.Fatalf("the transport is a %T", client.Transport)
	}
	if kept := transport.IdleConnTimeout; kept >= 20*time.Second || kept <= 15*time.Second {
		t.Errorf("an unused connection is kept for %s", kept)
	}
}
