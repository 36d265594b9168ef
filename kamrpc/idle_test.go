package kamrpc

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// datagramServer answers each request with its number. It reports the address of the
// client, and waits for leave to answer.
type datagramServer struct {
	conn     *net.UnixConn
	requests chan datagramRequest
}

type datagramRequest struct {
	from   net.Addr
	answer func()
}

func serveDatagrams(t *testing.T, path string) *datagramServer {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	s := &datagramServer{conn, make(chan datagramRequest, 1)}
	go func() {
		buffer := make([]byte, 4096)
		for n := 1; ; n++ {
			size, from, err := conn.ReadFrom(buffer)
			if err != nil {
				return
			}
			var request struct{ ID uint32 }
			if err := json.Unmarshal(buffer[:size], &request); err != nil {
				t.Error(err)
			}
			s.requests <- datagramRequest{from, func() {
				_, _ = conn.WriteTo(fmt.Appendf(nil, `{"jsonrpc":"2.0","result":%d,"id":%d}`, n, request.ID), from)
			}}
		}
	}()
	return s
}

// shortDir is a directory whose sockets have paths that fit into an address.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "kam")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// TestSocketsAreUsedAgain checks that a socket is used again after a reply, and only then:
// the late reply to a call that was given up must not reach another one.
func TestSocketsAreUsedAgain(t *testing.T) {
	path := filepath.Join(shortDir(t), "rpc")
	server := serveDatagrams(t, path)
	transport, err := Open("unix://"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	client, err := NewClient(Config{Transports: []Transport{transport}})
	if err != nil {
		t.Fatal(err)
	}
	call := func(ctx context.Context, want string) (result func()) {
		done := make(chan struct{})
		go func() {
			defer close(done)
			v, err := client.Call(ctx, "core.version")
			if v.Text() != want || (err == nil) == (want == "") {
				t.Errorf("got %q, %v; want %q", v.Text(), err, want)
			}
		}()
		return func() { <-done }
	}
	answered := func(s *datagramServer, want string) (from string) {
		result := call(t.Context(), want)
		request := <-s.requests
		request.answer()
		result()
		return request.from.String()
	}
	first := answered(server, "1")
	if second := answered(server, "2"); second != first {
		t.Errorf("the second call used another socket: %s, %s", first, second)
	}
	ctx, cancel := context.WithCancel(t.Context())
	result := call(ctx, "")
	late := <-server.requests
	cancel()
	result()
	late.answer()
	if from := answered(server, "4"); from == late.from.String() {
		t.Error("the socket of a call that was given up is used again")
	}
	server.conn.Close()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if from := answered(serveDatagrams(t, path), "1"); from == first {
		t.Error("the socket leads to the old server")
	}
	transport.(unixDatagram).idle.close()
	if conn := transport.(unixDatagram).idle.take(); conn != nil {
		t.Error("a socket remains")
	}
}

// TestBinrpcConnectionsAreUsedAgain checks that one that Kamailio has closed costs a read
// nothing, and that a change has its own.
func TestBinrpcConnectionsAreUsedAgain(t *testing.T) {
	path := filepath.Join(shortDir(t), "ctl")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	accepted := make(chan net.Conn, 10)
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			accepted <- conn
			go func() {
				for {
					var head [10]byte // length and cookie of 4 bytes
					if _, err := io.ReadFull(conn, head[:]); err != nil {
						return
					}
					if _, err := io.CopyN(io.Discard, conn, int64(binary.BigEndian.Uint32(head[2:]))); err != nil {
						return
					}
					answer := append([]byte{binrpcMagic, binrpcReplyType<<4 | 3<<2 | 3, 0, 0, 0, 2}, head[6:]...)
					_, _ = conn.Write(append(answer, "\x10\x05"...))
				}
			}()
		}
	}()
	transport, err := Open("binrpc+unix://"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	ask := func(transport Transport) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		request, err := encode(7, "core.version", nil)
		if err != nil {
			t.Fatal(err)
		}
		reply, err := transport.RoundTrip(ctx, request)
		if err != nil {
			t.Fatal(err)
		}
		defer reply.Close()
		if v, err := decodeWhole(reply, 7, "core.version"); err != nil || v.Text() != "5" {
			t.Fatalf("got %q, %v", v.Text(), err)
		}
	}
	for range 3 {
		ask(transport)
	}
	if len(accepted) != 1 {
		t.Errorf("%d connections for three calls", len(accepted))
	}
	(<-accepted).Close()
	ask(transport)
	if len(accepted) != 1 {
		t.Errorf("%d connections after one was closed", len(accepted))
	}
	once := transport.(resender).once()
	ask(once)
	ask(once)
	if len(accepted) != 3 {
		t.Errorf("%d connections after two changes", len(accepted))
	}
	listener.Close()
	transport.(binrpc).idle.close()
	request, _ := encode(7, "core.version", nil)
	if _, err := transport.RoundTrip(t.Context(), request); !errors.Is(err, ErrUnreachable) {
		t.Errorf("got %v", err)
	}
}
