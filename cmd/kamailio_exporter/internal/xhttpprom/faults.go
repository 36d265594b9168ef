package xhttpprom

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
)

func noReply(err error) error {
	kind := ErrUnreachable
	dns, dial := (*net.DNSError)(nil), (*net.OpError)(nil)
	record, untrusted := tls.RecordHeaderError{}, (*tls.CertificateVerificationError)(nil)
	unknown := x509.UnknownAuthorityError{}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		kind = ErrTimedOut
	case errors.Is(err, syscall.ECONNREFUSED):
		kind = ErrRefused
	case errors.As(err, &untrusted), errors.As(err, &unknown), errors.As(err, &record), errors.Is(err, http.ErrSchemeMismatch):
		kind = ErrTLS
	case errors.As(err, &dns), errors.As(err, &dial) && dial.Op == "dial":
	// net/http has no error value for a server that closes the connection before it has
	// read the request.
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), strings.Contains(err.Error(), "server closed idle connection"):
		kind = ErrClosed
	}
	return fmt.Errorf("%w: %w", err, kind)
}

func ofStatus(status int) *Fault {
	known := map[int]*Fault{401: ErrUnauthorized, 403: ErrForbidden, 404: ErrNotFound, 500: ErrBuffer}
	if f := known[status]; f != nil {
		return f
	}
	return ErrStatus
}

// Fault is a kind of failure.
type Fault struct {
	Seen  string // text for the log
	Cause string
	Fix   string
}

func (f *Fault) Error() string { return f.Cause + ": " + f.Fix }

// The faults of a page, as seen on Kamailio 5.6.3 and 6.0.1.
var (
	ErrRefused      = &Fault{"connection refused", "Kamailio does not listen on this TCP address", "add listen=tcp:ADDRESS:PORT to kamailio.cfg, or correct --xhttp_prom.url"}
	ErrUnreachable  = &Fault{"no such host, no route to host, and other errors before a connection", "there is no connection to this address", "check the host name in --xhttp_prom.url, the route and the firewall"}
	ErrTLS          = &Fault{"certificate, TLS, or HTTP response to HTTPS client", "the TLS handshake failed", "set ca_file in tls_config (--kamailio.http-config-file), and use http:// for a tcp socket and https:// for a tls one"}
	ErrClosed       = &Fault{"EOF, connection reset", "Kamailio closed the connection without a reply", "load the module xhttp, set tcp_accept_no_cl=yes (the request has no Content-Length), and use https:// for a tls socket"}
	ErrTimedOut     = &Fault{"deadline exceeded", "Kamailio's TCP workers are busy, or event_route[xhttp:request] sends no reply for this path", "end the event route with xhttp_reply(), raise tcp_children, set xhttp_prom_timeout to 0, or raise --xhttp_prom.timeout"}
	ErrUnauthorized = &Fault{"HTTP status 401", "the page needs a user and password", "give them in --kamailio.http-config-file"}
	ErrForbidden    = &Fault{"HTTP status 403", "event_route[xhttp:request] refuses the exporter's address", "allow it there (src_ip)"}
	ErrNotFound     = &Fault{"HTTP status 404", "event_route[xhttp:request] does not serve this path", "call prom_dispatch() there for this path, or correct the path in --xhttp_prom.url: prom_check_uri() accepts only /metrics"}
	ErrBuffer       = &Fault{"HTTP status 500", "xhttp_prom could not build the page: its buffer is too small or does not fit into private memory, or xhttp_prom_stats names a statistic that does not exist", `set xhttp_prom_stats to "" (the exporter has the statistics) and xhttp_prom_buf_size to a larger number of bytes, and give Kamailio more private memory (-M) if its log says that there is none`}
	ErrStatus       = &Fault{"another HTTP status", "the reply comes from the script or a proxy, not from xhttp_prom", "use Kamailio's own address in --xhttp_prom.url, and look for xhttp_reply() in event_route[xhttp:request]"}
	ErrNotThePage   = &Fault{"not text/plain, not text, compressed", "another program answers at this address, not xhttp_prom", "correct host, port and path in --xhttp_prom.url"}
	ErrCutOff       = &Fault{"unexpected EOF, cut off", "the connection ended in the middle of the page", "check whether Kamailio was restarted, or a proxy limits the size of replies"}
	ErrTooLarge     = &Fault{"larger than --xhttp_prom.max-size", "the page has too many metrics", `set xhttp_prom_stats to "" (the exporter has the statistics), use labels with fewer values, or raise --xhttp_prom.max-size`}
)

// Faults returns all kinds of failure.
func Faults() []*Fault {
	return []*Fault{
		ErrRefused, ErrUnreachable, ErrTLS, ErrClosed, ErrTimedOut, ErrUnauthorized, ErrForbidden,
		ErrNotFound, ErrBuffer, ErrStatus, ErrNotThePage, ErrCutOff, ErrTooLarge,
	}
}
