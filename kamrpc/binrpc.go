package kamrpc

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

// binrpc is Kamailio's ctl module. A single process serves one connection after another
// (modules/ctl/io_listener.c). It uses its own binary format (modules/ctl/binrpc.h), which
// is translated from and to JSON here, so that it looks like the other transports.
//
// A connection carries one request at a time, and is only used again after the whole reply
// was read, so that no late reply can arrive. If Kamailio has closed it since then, the
// request is sent again over a new one. That is acceptable for a read only: see once.
type binrpc struct {
	network, address string
	dialer           *net.Dialer
	idle             *idleConns // nil: each request has its own connection
}

// once opens a connection for each request: the outcome of a change must not be unknown
// because Kamailio closed a kept one.
func (t binrpc) once() Transport {
	t.idle = nil
	return t
}

func (t binrpc) String() string { return "binrpc+" + t.network + "://" + t.address }

// binrpcMaxReply is the default size of the buffer in which ctl collects a reply, without
// its structures (binrpc_max_body_size). Each structure has its own buffer of 8 KiB.
const binrpcMaxReply = 32 << 10

func (t binrpc) Traits() Traits {
	return Traits{MaxReply: binrpcMaxReply, Complete: true, Silence: "the reply is larger than ctl can send without waiting (in that case add a socket of jsonrpcs as another URI)"}
}

// binrpcMaxRequest is the size of the request buffer in io_listener.c.
const binrpcMaxRequest = 65_535

func (t binrpc) RoundTrip(ctx context.Context, request []byte) (io.ReadCloser, error) {
	method, packet, err := binrpcRequest(request)
	if err != nil {
		return nil, err
	}
	if len(packet) > binrpcMaxRequest {
		return nil, fmt.Errorf("the request has %d bytes; ctl reads at most %d", len(packet), binrpcMaxRequest)
	}
	if t.idle != nil {
		if conn := t.idle.take(); conn != nil {
			reply, err := askBinrpc(ctx, conn, t.idle, method, packet)
			if err == nil {
				// Only the reply shows that the connection is still open.
				if _, err = reply.in.Peek(1); err == nil || ctx.Err() != nil || errors.Is(err, os.ErrDeadlineExceeded) {
					return reply, nil
				}
				reply.Close()
			}
		}
	}
	conn, err := t.dialer.DialContext(ctx, t.network, t.address)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, fmt.Errorf("%w: the file does not exist: Kamailio is not running, or ctl is not loaded or uses another path", ErrUnreachable)
	case errors.Is(err, os.ErrPermission):
		return nil, fmt.Errorf("%w: permission denied: by default, ctl opens its socket only to Kamailio's user; set mode and group of ctl and add the exporter's user to that group, or run the exporter as Kamailio's user", ErrUnreachable)
	case err != nil:
		return nil, unreachable(err)
	}
	reply, err := askBinrpc(ctx, conn, t.idle, method, packet)
	if err != nil {
		return nil, badReply(err)
	}
	return reply, nil
}

func askBinrpc(ctx context.Context, conn net.Conn, idle *idleConns, method string, packet []byte) (*binrpcReply, error) {
	release := bind(ctx, conn)
	if _, err := conn.Write(packet); err != nil {
		release()
		conn.Close()
		return nil, err
	}
	reader := binrpcReaders.Get().(*binrpcReader)
	reader.reset(conn, method)
	return &binrpcReply{reader, conn, idle, release}, nil
}

type binrpcReply struct {
	*binrpcReader
	conn    net.Conn
	idle    *idleConns
	release func() bool
}

// Close first reads the rest of a reply that is no longer wanted: Kamailio 5.6 logs an
// error if its peer closes the connection with unread data.
func (r *binrpcReply) Close() error {
	usable := r.release()
	defer binrpcReaders.Put(r.binrpcReader)
	if usable && r.replies == 1 && !r.open && r.in.Buffered() == 0 && r.err == nil && r.idle != nil {
		r.idle.put(r.conn)
		return nil
	}
	if r.left > 0 && !errors.Is(r.err, os.ErrDeadlineExceeded) {
		_ = r.conn.SetDeadline(time.Now().Add(drainTime))
		_, _ = io.CopyN(io.Discard, r.in, min(r.left, drainBytes))
	}
	return r.conn.Close()
}

// The start of a packet, and the types of packets and records (modules/ctl/binrpc.h).
const (
	binrpcMagic = 0xA1 // and version

	binrpcRequestType = 0
	binrpcReplyType   = 1
	binrpcFaultType   = 3

	binrpcInt    = 0
	binrpcString = 1 // with a final zero byte
	binrpcDouble = 2 // in thousandths
	binrpcStruct = 3
	binrpcArray  = 4 // Kamailio never writes it: its lists are structures of values without names
	binrpcName   = 5 // of the value that follows
	binrpcBytes  = 6

	binrpcLong = 8 // flag in the size: the size is that of the length field that follows
)

// binrpcRequest translates a JSON-RPC request to BINRPC. Its id becomes the cookie.
func binrpcRequest(request []byte) (method string, packet []byte, err error) {
	var call struct {
		Method string
		Params []any
		ID     uint32
	}
	decoder := json.NewDecoder(bytes.NewReader(request))
	decoder.UseNumber()
	if err := decoder.Decode(&call); err != nil {
		return "", nil, err
	}
	body := appendBinrpcString(nil, call.Method)
	for _, param := range call.Params {
		number, ok := param.(json.Number)
		if !ok {
			body = appendBinrpcString(body, param.(string)) // encode accepts only these two types
			continue
		}
		if body, err = appendBinrpcNumber(body, number.String()); err != nil {
			return "", nil, err
		}
	}
	packet = []byte{binrpcMagic, binrpcRequestType<<4 | 3<<2 | 3}     // length and cookie of 4 bytes
	packet = binary.BigEndian.AppendUint32(packet, uint32(len(body))) //nolint:gosec // a request is small
	packet = binary.BigEndian.AppendUint32(packet, call.ID)
	return call.Method, append(packet, body...), nil
}

func appendBinrpcString(b []byte, s string) []byte {
	b = append(b, (binrpcLong|4)<<4|binrpcString)
	b = binary.BigEndian.AppendUint32(b, uint32(len(s)+1)) //nolint:gosec // a request is small
	b = append(b, s...)
	return append(b, 0)
}

func appendBinrpcNumber(b []byte, number string) ([]byte, error) {
	if strings.ContainsAny(number, ".eE") {
		f, err := strconv.ParseFloat(number, 64)
		if err != nil || math.Abs(f) > math.MaxInt64/1000 {
			return nil, fmt.Errorf("parameter %s: BINRPC cannot encode this number", number)
		}
		b = append(b, 8<<4|binrpcDouble)
		return binary.BigEndian.AppendUint64(b, uint64(int64(math.Round(f*1000)))), nil //nolint:gosec // two's complement is wanted
	}
	i, err := strconv.ParseInt(number, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("parameter %s: BINRPC integers have 32 bits", number)
	}
	b = append(b, 4<<4|binrpcInt)
	return binary.BigEndian.AppendUint32(b, uint32(i)), nil //nolint:gosec // two's complement is wanted
}
