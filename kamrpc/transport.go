package kamrpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"
)

// Open returns the transport for the URI's scheme. It validates the URI but does not
// connect, because Kamailio may be down.
//
//	http://host:port/RPC  https://…          xhttp and jsonrpcs, any path
//	unix:///run/kamailio/kamailio_rpc.sock   jsonrpcs dgram_socket
//	udp://host:port                          jsonrpcs dgram_socket "udp:host:port"
//	fifo:///run/kamailio/kamailio_rpc.fifo   jsonrpcs fifo_name; ?reply_dir=/tmp is its fifo_reply_dir,
//	                                         which has to end in a slash in kamailio.cfg
//	tcp://host:port                          jsonrpcs tcp_socket (Kamailio 6)
//	binrpc+unix:///run/kamailio/kamailio_ctl ctl, the socket that it opens by default
//	binrpc+tcp://host:port                   ctl binrpc "tcp:host:port"
//
// The Transport of httpClient is used for the first two; nil means one that keeps unused
// connections for [HTTPIdleTimeout].
func Open(uri string, httpClient *http.Client) (Transport, error) {
	return OpenOver(uri, httpClient, &net.Dialer{})
}

// OpenOver is like Open, but uses dialer for udp, tcp, and binrpc+tcp. The dialer can
// refuse an address (its Control). For HTTP, httpClient must do that itself.
func OpenOver(uri string, httpClient *http.Client, dialer *net.Dialer) (Transport, error) {
	u, err := url.Parse(uri)
	if err != nil || u.Opaque != "" || u.Scheme == "" {
		// Include neither err nor the URI: they may contain a password.
		return nil, errors.New("not a URI; write for example unix:///run/kamailio/kamailio_rpc.sock or http://127.0.0.1:5060/RPC")
	}
	if u.User != nil {
		return nil, fmt.Errorf("%s://%s: the URI must not contain a user or password; put them into the HTTP configuration file", u.Scheme, u.Host)
	}
	switch u.Scheme {
	case "http", "https":
		if u.Hostname() == "" {
			return nil, fmt.Errorf("%s: the host is missing; write for example http://127.0.0.1:5060/RPC", u.Scheme)
		}
		return newHTTP(u, httpClient), nil
	case "unix", "binrpc+unix":
		path, err := localPath(u)
		if err != nil {
			return nil, err
		}
		if len(path) > maxUnixPath {
			return nil, fmt.Errorf("%s: the path is too long; a unix socket's path has at most %d bytes", u, maxUnixPath)
		}
		if u.Scheme == "unix" {
			return unixDatagram{path, &idleConns{}}, nil
		}
		return binrpc{"unix", path, dialer, &idleConns{}}, nil
	case "udp":
		if err := hostPort(u); err != nil {
			return nil, err
		}
		return udpDatagram{u.Host, dialer}, nil
	case "tcp":
		if err := hostPort(u); err != nil {
			return nil, err
		}
		return tcpStream{u.Host, dialer}, nil
	case "binrpc+tcp":
		if err := hostPort(u); err != nil {
			return nil, err
		}
		return binrpc{"tcp", u.Host, dialer, &idleConns{}}, nil
	case "fifo":
		path, err := localPath(u, "reply_dir")
		if err != nil {
			return nil, err
		}
		replyDir := u.Query().Get("reply_dir")
		if replyDir != "" && !filepath.IsAbs(replyDir) {
			return nil, fmt.Errorf("%s: reply_dir must be an absolute path", u)
		}
		return newFIFO(path, replyDir), nil
	}
	return nil, fmt.Errorf("unknown scheme %q; use http, https, unix, udp, tcp, fifo, binrpc+unix or binrpc+tcp", u.Scheme)
}

// maxUnixPath is the longest path in sockaddr_un on Linux, without its final NUL.
const maxUnixPath = 107

func localPath(u *url.URL, parameters ...string) (string, error) {
	if u.Host != "" || len(u.Path) < 2 {
		return "", fmt.Errorf("%s: the path must be absolute; write three slashes, as in %s:///run/kamailio/…", u, u.Scheme)
	}
	return u.Path, onlyParameters(u, parameters...)
}

func hostPort(u *url.URL) error {
	if port, err := strconv.ParseUint(u.Port(), 10, 16); err != nil || port == 0 || u.Hostname() == "" {
		return fmt.Errorf("%s: host and port are required, as in %s://127.0.0.1:8090", u, u.Scheme)
	}
	if u.Path != "" && u.Path != "/" {
		return fmt.Errorf("%s: a path is not allowed; write %s://%s", u, u.Scheme, u.Host)
	}
	return onlyParameters(u)
}

// onlyParameters rejects unknown query parameters, which would be silently ignored.
func onlyParameters(u *url.URL, known ...string) error {
	for name := range u.Query() {
		if !slices.Contains(known, name) {
			return fmt.Errorf("%s: unknown parameter %q", u, name)
		}
	}
	return nil
}

// deadliner is the common interface of net.Conn and the os.File of a FIFO.
type deadliner interface {
	io.ReadWriteCloser
	SetDeadline(time.Time) error
}

// bind makes every read and write on c fail once ctx expires or is canceled. release
// must be called before c is closed. It returns false if that has happened.
func bind(ctx context.Context, c deadliner) (release func() bool) {
	if deadline, ok := ctx.Deadline(); ok {
		_ = c.SetDeadline(deadline)
	}
	return context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
}

// unreachable marks errors after which nothing was sent.
func unreachable(err error) error {
	var reason string
	switch {
	case errors.Is(err, os.ErrNotExist):
		reason = "the file does not exist: Kamailio is not running, or jsonrpcs uses another path"
	case errors.Is(err, os.ErrPermission):
		reason = "no permission: run the exporter as a member of the group that the file belongs to (kamailio on Debian; else see dgram_group and fifo_group of jsonrpcs)"
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ENXIO):
		reason = "connection refused: Kamailio is not running, or does not listen there"
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		reason = "no connection before the deadline"
	default:
		return fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	return fmt.Errorf("%w: %s", ErrUnreachable, reason)
}
