package sipprobe

import (
	"errors"
	"fmt"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/emiago/sipgo/sip"
)

// Target is a SIP socket.
type Target struct {
	Transport string // udp, tcp or tls
	Address   string // host:port, as configured
	// ServerName is the server name (SNI) sent to a TLS socket, which may have a
	// certificate for each name; "" means that of the Config.
	ServerName string
}

func (t Target) String() string {
	if t.ServerName == "" {
		return t.Transport + ":" + t.Address
	}
	return t.Transport + ":" + t.Address + nameParameter + t.ServerName
}

var (
	transports = []string{"udp", "tcp", "tls"}
	serverName = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9])?$`)
)

const nameParameter = "?server_name="

// ParseTarget parses TRANSPORT:HOST:PORT, as Kamailio writes its sockets, optionally
// followed by ?server_name=NAME.
func ParseTarget(text string) (Target, error) {
	socket, name, named := strings.Cut(text, nameParameter)
	transport, address, _ := strings.Cut(socket, ":")
	host, port, err := net.SplitHostPort(address)
	number, portErr := strconv.ParseUint(port, 10, 16)
	if !slices.Contains(transports, transport) || err != nil || portErr != nil || number == 0 || !plain(host) || strings.ContainsAny(host, "/@;?%[]") {
		return Target{}, fmt.Errorf("%q is not TRANSPORT:HOST:PORT, such as udp:127.0.0.1:5060, tcp:[::1]:5060, tls:sip.example.com:5061 or tls:192.0.2.1:5061?server_name=sip.example.com", text)
	}
	if named && (transport != "tls" || !serverName.MatchString(name)) {
		return Target{}, fmt.Errorf("%q: server_name must be a host name in the certificate of a TLS socket, such as tls:192.0.2.1:5061?server_name=sip.example.com", text)
	}
	return Target{transport, address, name}, nil
}

// parseURI parses a Request-URI.
func parseURI(text string) (sip.Uri, error) {
	var uri sip.Uri
	switch err := sip.ParseUri(text, &uri); {
	case err != nil || !plain(text) || uri.Host == "" || uri.Wildcard || uri.HierarhicalSlashes || uri.Scheme != "sip" && uri.Scheme != "sips":
		return sip.Uri{}, fmt.Errorf("%q is not a SIP URI, such as sip:ping@sip.example.com", text)
	case uri.Password != "":
		return sip.Uri{}, errors.New("the SIP URI must not contain a password")
	}
	return uri, nil
}

// plain reports whether a text can be used in a SIP message unescaped.
func plain(text string) bool {
	return text != "" && !strings.ContainsFunc(text, func(r rune) bool {
		return r <= ' ' || r > '~' || strings.ContainsRune(`<>"`, r)
	})
}
