package kamrpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
)

// tcpStream is jsonrpcs with tcp_socket (Kamailio 6 and later). One process accepts, reads
// once, writes the whole reply, and closes (jsonrpcs_sock.c).
type tcpStream struct {
	address string
	dialer  *net.Dialer
}

func (t tcpStream) String() string { return "tcp://" + t.address }

func (t tcpStream) Traits() Traits { return Traits{} }

func (t tcpStream) RoundTrip(ctx context.Context, request []byte) (io.ReadCloser, error) {
	if len(request) > maxRequest {
		return nil, fmt.Errorf("the request has %d bytes; jsonrpcs reads at most %d", len(request), maxRequest)
	}
	conn, err := t.dialer.DialContext(ctx, "tcp", t.address)
	if err != nil {
		return nil, unreachable(err)
	}
	release := bind(ctx, conn)
	if _, err := conn.Write(request); err != nil { // in a single write, because Kamailio reads only once
		release()
		conn.Close()
		return nil, badReply(err)
	}
	return &connReply{conn, release}, nil
}

type connReply struct {
	net.Conn
	release func() bool
}

func (r *connReply) Close() error {
	r.release()
	return r.Conn.Close()
}

func isRefused(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }
