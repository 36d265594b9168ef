package generate

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kamailio-exporter/kamailio_exporter/kamrpc/kamrpctest/kamailiotest"
)

// scscf is an S-CSCF with one Diameter peer, as far as it takes to connect to it.
const scscf = proxyHeader + `
loadmodule "cdp.so"
modparam("cdp", "config_file", "PEERS")

request_route {
	exit;
}
`

// peers says where the peer is. Kamailio tries to connect every second (Tc).
const peers = `<?xml version="1.0" encoding="UTF-8"?>
<DiameterPeer FQDN="scscf.example.net" Realm="example.net" Vendor_Id="10415" Product_Name="CDiameterPeer"
	AcceptUnknownPeers="0" DropUnknownOnDisconnect="1" Tc="1" Workers="1" QueueLength="8" TransactionTimeout="5"
	SessionsHashSize="16" DefaultAuthSessionTimeout="60" MaxAuthSessionTimeout="300">
	<Peer FQDN="localhost" Realm="example.net" port="%d"/>
	<Auth id="16777216" vendor="10415"/>
	<DefaultRoute FQDN="localhost" metric="10"/>
</DiameterPeer>
`

// TestDeadDiameterPeerFiresAlert kills the HSS of an S-CSCF.
func TestDeadDiameterPeerFiresAlert(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: starts real servers")
	}
	// The modules for IMS are installed for the Kamailio of this machine only.
	version := kamailiotest.Versions(t)[0]
	exporter := buildExporter(t)
	hss := newHSS(t)
	config := write(t, filepath.Join(t.TempDir(), "cdp.xml"), fmt.Sprintf(peers, hss.port()))
	server := kamailiotest.Start(t, kamailiotest.Config{Version: version, Edit: func(string) string {
		return strings.Replace(scscf, "PEERS", config, 1)
	}})
	prometheus := runPrometheus(t, []string{exporterAt(t, exporter, "--kamailio.uri=unix://"+server.SocketPath, "--scrape.growing-interval=100ms")}, hasty(t))
	series := func(query string) int { return len(prometheus.query(t, query)) }
	const firing = `ALERTS{alertname="KamailioDiameterPeerDown", alertstate="firing", peer="localhost"}`
	if !until(30*time.Second, func() bool { return series(`kamailio_cdp_peer_up{peer="localhost"} == 1`) == 1 }) {
		t.Fatalf("Kamailio does not connect to its peer:\n%s", server.Log())
	}
	if series(firing) > 0 {
		t.Error("the alert fires while the peer is connected")
	}
	hss.stop()
	if !until(60*time.Second, func() bool { return series(firing) == 1 }) {
		t.Error("the alert does not fire without the peer")
	}
}

// hss answers what keeps a Diameter connection open: capabilities and watchdog
// (RFC 6733, 5.3 and 5.5).
type hss struct {
	listener net.Listener
	mu       sync.Mutex
	conns    []net.Conn
}

func newHSS(t *testing.T) *hss {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := &hss{listener: listener}
	t.Cleanup(h.stop)
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			h.mu.Lock()
			h.conns = append(h.conns, conn)
			h.mu.Unlock()
			go serveDiameter(conn)
		}
	}()
	return h
}

func (h *hss) port() int { return h.listener.Addr().(*net.TCPAddr).Port }

func (h *hss) stop() {
	_ = h.listener.Close()
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, conn := range h.conns {
		_ = conn.Close()
	}
}

func serveDiameter(conn net.Conn) {
	header := make([]byte, 20)
	for {
		if _, err := io.ReadFull(conn, header); err != nil {
			return
		}
		if _, err := io.CopyN(io.Discard, conn, int64(binary.BigEndian.Uint32(header)&0xffffff)-20); err != nil {
			return
		}
		if header[4]&0x80 == 0 { // an answer
			continue
		}
		header[4] = 0
		answer := append(append([]byte(nil), header...), avp(268, uint32s(2001))...) // Result-Code: success
		answer = append(answer, avp(264, []byte("localhost"))...)                    // Origin-Host
		answer = append(answer, avp(296, []byte("example.net"))...)                  // Origin-Realm
		answer = append(answer, avp(257, []byte{0, 1, 127, 0, 0, 1})...)             // Host-IP-Address
		answer = append(answer, avp(266, uint32s(10415))...)                         // Vendor-Id
		answer = append(answer, avp(269, []byte("test"))...)                         // Product-Name
		answer = append(answer, avp(260, append(avp(266, uint32s(10415)), avp(258, uint32s(16777216))...))...)
		binary.BigEndian.PutUint32(answer, 1<<24|uint32(len(answer))) //nolint:gosec // some 150 bytes
		if _, err := conn.Write(answer); err != nil {
			return
		}
	}
}

// avp is an attribute with the flag M.
func avp(code uint32, data []byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, code)
	b = binary.BigEndian.AppendUint32(b, 0x40<<24|uint32(8+len(data))) //nolint:gosec // some 50 bytes
	return append(append(b, data...), make([]byte, -len(data)&3)...)
}

func uint32s(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }
