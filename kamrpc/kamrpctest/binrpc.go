package kamrpctest

import (
	"bufio"
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
	"slices"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"
)

// Limits of ctl, as in its source.
const (
	binrpcRequestMax   = 65_535 // io_listener.c
	binrpcBodyMax      = 32_768 // binrpc_run.c
	binrpcStructureMax = 8_192  // binrpc_run.c
)

// Record types, as in modules/ctl/binrpc.h.
const (
	binrpcHead   = 0xA1
	binrpcInt    = 0
	binrpcString = 1
	binrpcDouble = 2
	binrpcStruct = 3
	binrpcName   = 5
	binrpcEnd    = 0x80
)

func (l *life) serveBinrpcUnix() error {
	path := l.server.addresses["binrpc+unix"]
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return err
	}
	l.serveBinrpc("binrpc+unix", listener, func() { os.Remove(path) })
	return nil
}

func (l *life) serveBinrpcTCP() error {
	listener, err := net.Listen("tcp", l.server.addresses["binrpc+tcp"])
	if err != nil {
		return err
	}
	l.server.addresses["binrpc+tcp"] = listener.Addr().String()
	l.serveBinrpc("binrpc+tcp", listener, func() {})
	return nil
}

func (l *life) serveBinrpc(transport string, listener net.Listener, cleanup func()) {
	l.opened(listener)
	l.tasks.Go(func() {
		defer cleanup()
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			l.tasks.Go(func() { l.binrpc(transport, conn) })
		}
	})
}

// binrpc serves a connection until the client closes it.
func (l *life) binrpc(transport string, conn net.Conn) {
	defer l.opened(conn)()
	in := bufio.NewReader(conn)
	for {
		req, err := readBinrpcRequest(in)
		if err != nil {
			return
		}
		req.Transport = transport
		if !l.answerBinrpc(conn, req) {
			return
		}
	}
}

// answerBinrpc returns false if the connection must be closed.
func (l *life) answerBinrpc(conn net.Conn, req Request) bool {
	h, mode, done := l.server.begin(req)
	defer done()
	packet := func(r Response, id string) []byte { return binrpcPacket(req.Method, r.bytes(id)) }
	var err error
	switch mode.kind {
	case kindSilent:
		_, _ = io.Copy(io.Discard, conn) // until the client or the server closes it
		return false
	case kindEmpty:
		return false
	case kindGarbage:
		_, err = io.WriteString(conn, "SIP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n")
	case kindTruncate:
		whole := packet(h(req), req.ID)
		_, _ = conn.Write(whole[:len(whole)/2])
		return false
	case kindTrickle:
		err = trickle(l.ctx, conn, packet(h(req), req.ID), mode.every)
	case kindOtherID:
		_, err = conn.Write(packet(h(req), neighbour(req.ID, 1)))
	case kindLateThenRight:
		late := packet(Response{Result: `"late"`}, neighbour(req.ID, -1))
		_, err = conn.Write(append(late, packet(h(req), req.ID)...))
	case kindDeep:
		const depth = 100_000
		body := append(bytes.Repeat([]byte{binrpcStruct}, depth), bytes.Repeat([]byte{binrpcEnd | binrpcStruct}, depth)...)
		_, err = conn.Write(append(binrpcHeader(1, len(body), req.ID), body...))
	case kindEndless:
		err = endlessBinrpc(l.ctx, conn, req.ID)
	case kindLatin1:
		_, err = conn.Write(packet(Response{Result: "\"Z\xfcrich\""}, req.ID))
	default:
		_, err = conn.Write(packet(h(req), req.ID))
	}
	return err == nil
}

func endlessBinrpc(ctx context.Context, w io.Writer, id string) error {
	_, err := w.Write(append(binrpcHeader(1, math.MaxUint32, id), binrpcStruct))
	for rows := bytes.Repeat(appendBinrpcString(nil, binrpcString, "row"), 1000); err == nil; _, err = w.Write(rows) {
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return err
}

// readBinrpcRequest parses a request as ctl does: the method and its parameters.
func readBinrpcRequest(in *bufio.Reader) (Request, error) {
	var head [2]byte
	if _, err := io.ReadFull(in, head[:]); err != nil {
		return Request{}, err
	}
	if head[0] != binrpcHead || head[1]>>4 != 0 {
		return Request{}, errors.New("not a request")
	}
	length, err := binrpcNumber(in, int(head[1]>>2&3)+1)
	if err != nil || length > binrpcRequestMax {
		return Request{}, errors.Join(err, errors.New("request too long"))
	}
	cookie, err := binrpcNumber(in, int(head[1]&3)+1)
	if err != nil {
		return Request{}, err
	}
	raw := make([]byte, length)
	if _, err := io.ReadFull(in, raw); err != nil {
		return Request{}, err
	}
	req := Request{ID: strconv.FormatUint(cookie, 10), Raw: raw}
	for body := bufio.NewReader(bytes.NewReader(raw)); ; {
		value, err := readBinrpcValue(body)
		switch {
		case errors.Is(err, io.EOF) && req.Method != "":
			return req, nil
		case err != nil:
			return Request{}, err
		case req.Method == "":
			req.Method, _ = value.(string)
		default:
			req.Params = append(req.Params, value)
		}
	}
}

func binrpcNumber(in *bufio.Reader, size int) (n uint64, err error) {
	for range size {
		b, err := in.ReadByte()
		if err != nil {
			return 0, err
		}
		n = n<<8 | uint64(b)
	}
	return n, nil
}

func readBinrpcValue(in *bufio.Reader) (any, error) {
	head, err := in.ReadByte()
	if err != nil {
		return nil, err
	}
	kind, size := head&0xf, uint64(head>>4)
	if kind != binrpcDouble && size&8 != 0 {
		if size, err = binrpcNumber(in, int(size&7)); err != nil {
			return nil, err
		}
	}
	switch kind {
	case binrpcInt:
		n, err := binrpcNumber(in, int(size))
		return int64(int32(n)), err
	case binrpcDouble:
		n, err := binrpcNumber(in, int(size))
		return float64(int64(n)) / 1000, err
	case binrpcString:
		text := make([]byte, size)
		if _, err := io.ReadFull(in, text); err != nil || size == 0 || text[size-1] != 0 {
			return nil, errors.Join(err, errors.New("not a string"))
		}
		return string(text[:size-1]), nil
	}
	return nil, fmt.Errorf("record of type %d in a request", kind)
}

// binrpcPacket converts a reply to what ctl would send. A list at the top becomes a
// sequence of values. In any other list, an object with one member becomes that member.
func binrpcPacket(method string, reply []byte) []byte {
	top := decodeJSON(reply)
	id := "0"
	var result, fault *node
	for _, m := range top.list {
		switch m.name {
		case "id":
			id = m.text
		case "result":
			result = &m
		case "error":
			fault = &m
		}
	}
	var body []byte
	switch {
	case fault != nil:
		code, message := "500", ""
		for _, m := range fault.list {
			switch m.name {
			case "code":
				code = m.text
			case "message":
				message = m.text
			}
		}
		if message == "Method Not Found" {
			message = "command " + method + " not found" // binrpc_run.c
		}
		body = appendBinrpcString(appendBinrpcNumber(nil, code), binrpcString, message)
		return append(binrpcHeader(3, len(body), id), body...)
	case result == nil:
	case result.kind == '[':
		space := binrpcBodyMax
		for _, v := range result.list {
			// Each structure has its own buffer. As with rpl_printf, what does not fit
			// is omitted.
			record := v.append(nil)
			size := len(record)
			if v.kind == '{' || v.kind == '[' {
				size = 2
			}
			if size <= space {
				body = append(body, record...)
				space -= size
			}
		}
	case result.kind != '{' || len(result.list) > 0:
		body = result.append(nil)
		if result.kind == '{' && len(body) > binrpcStructureMax && !result.nested() {
			body = appendBinrpcString(appendBinrpcNumber(nil, "500"), binrpcString, "Internal error creating rpc")
			return append(binrpcHeader(3, len(body), id), body...)
		}
	}
	return append(binrpcHeader(1, len(body), id), body...)
}

func binrpcHeader(kind byte, length int, id string) []byte {
	cookie, _ := strconv.ParseUint(id, 10, 32)
	head := []byte{binrpcHead, kind<<4 | 3<<2 | 3}
	head = binary.BigEndian.AppendUint32(head, uint32(length))
	return binary.BigEndian.AppendUint32(head, uint32(cookie))
}

// node is a JSON value that keeps the order of names and repeated names.
type node struct {
	name string
	kind byte // of the JSON token
	text string
	list []node
}

// decodeJSON decodes JSON that the tests contain.
func decodeJSON(text []byte) node {
	d := jsontext.NewDecoder(bytes.NewReader(text), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	n, err := decodeNode(d)
	if err != nil {
		panic(fmt.Sprintf("%v in %.200q", err, text))
	}
	return n
}

func decodeNode(d *jsontext.Decoder) (n node, err error) {
	switch kind := d.PeekKind(); kind {
	case jsontext.KindBeginObject, jsontext.KindBeginArray:
		n.kind = byte(kind)
		if _, err = d.ReadToken(); err != nil {
			return n, err
		}
		for next := d.PeekKind(); next != jsontext.KindEndObject && next != jsontext.KindEndArray; next = d.PeekKind() {
			var name, child node
			if kind == jsontext.KindBeginObject {
				if name, err = decodeNode(d); err != nil {
					return n, err
				}
			}
			if child, err = decodeNode(d); err != nil {
				return n, err
			}
			child.name = name.text
			n.list = append(n.list, child)
		}
		_, err = d.ReadToken()
		return n, err
	}
	raw, err := d.ReadValue()
	if err != nil {
		return n, err
	}
	n.kind, n.text = byte(raw.Kind()), string(raw)
	if n.kind == '"' {
		n.text = rawString(raw)
	}
	return n, nil
}

// rawString decodes a string whose bytes may not be UTF-8.
func rawString(quoted []byte) string {
	var out []byte
	for rest := quoted[1 : len(quoted)-1]; len(rest) > 0; {
		if rest[0] != '\\' {
			out = append(out, rest[0])
			rest = rest[1:]
			continue
		}
		size := 2
		if rest[1] == 'u' {
			size = 6
			if len(rest) >= 12 && rest[6] == '\\' && rest[7] == 'u' { // a surrogate pair
				size = 12
			}
		}
		var s string
		_ = json.Unmarshal(fmt.Appendf(nil, `"%s"`, rest[:size]), &s) // jsontext has validated it
		out = append(out, s...)
		rest = rest[size:]
	}
	return string(out)
}

// nested reports whether the value contains structures.
func (n node) nested() bool {
	return slices.ContainsFunc(n.list, func(m node) bool { return m.kind == '{' || m.kind == '[' })
}

// append appends the records of a value.
func (n node) append(b []byte) []byte {
	switch n.kind {
	case '{':
		b = append(b, binrpcStruct)
		for _, m := range n.list {
			b = m.append(appendBinrpcString(b, binrpcName, m.name))
		}
		return append(b, binrpcEnd|binrpcStruct)
	case '[':
		b = append(b, binrpcStruct)
		for _, m := range n.list {
			if m.kind == '{' && len(m.list) == 1 {
				m = m.list[0]
				b = appendBinrpcString(b, binrpcName, m.name)
			}
			b = m.append(b)
		}
		return append(b, binrpcEnd|binrpcStruct)
	case '"':
		return appendBinrpcString(b, binrpcString, n.text)
	case 'n':
		return appendBinrpcString(b, binrpcString, "<null string>") // binrpc_run.c
	case 't':
		return append(b, 1<<4|binrpcInt, 1)
	case 'f':
		return append(b, binrpcInt)
	}
	return appendBinrpcNumber(b, n.text)
}

// appendBinrpcString stores a short length in the record's head, as ctl does.
func appendBinrpcString(b []byte, kind byte, s string) []byte {
	size := len(s) + 1
	if size < 8 {
		b = append(b, byte(size)<<4|kind)
	} else {
		length := shortest(uint64(size))
		b = append(b, byte(8|len(length))<<4|kind)
		b = append(b, length...)
	}
	b = append(b, s...)
	return append(b, 0)
}

// appendBinrpcNumber writes a 32-bit integer as an integer, and all other numbers in
// thousandths.
func appendBinrpcNumber(b []byte, number string) []byte {
	kind, n := byte(binrpcInt), uint64(0)
	if i, err := strconv.ParseInt(number, 10, 64); err == nil && i >= math.MinInt32 && i <= math.MaxUint32 {
		n = uint64(uint32(i))
	} else {
		f, _ := strconv.ParseFloat(number, 64)
		kind, n = binrpcDouble, uint64(int64(f*1000))
	}
	bytes := shortest(n)
	return append(append(b, byte(len(bytes))<<4|kind), bytes...)
}

// shortest returns the bytes of a number without leading zeros.
func shortest(n uint64) []byte {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], n)
	return bytes.TrimLeft(b[:], "\x00")
}
