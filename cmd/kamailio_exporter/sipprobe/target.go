package sipprobe

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/emiago/sipgo/sip"
)

// Target is a SIP socket.
type Target struct {
	Transport string // udp, tcp or tls
	Address   string // host:port, as it was given
}

func (t Target) String() string { return t.Transport + ":" + t.Address }

var transports = []string{"udp", "tcp", "tls"}

// ParseTarget reads TRANSPORT:HOST:PORT, as Kamailio writes its sockets.
func ParseTarget(text string) (Target, error) {
	transport, address, _ := strings.Cut(text, ":")
	host, port, err := net.SplitHostPort(address)
	number, portErr := strconv.ParseUint(port, 10, 16)
	if !slices.Contains(transports, transport) || err != nil || portErr != nil || number == 0 || !plain(host) || strings.ContainsAny(host, "/@;?%[]") {
		return Target{}, fmt.Errorf("%q is not TRANSPORT:HOST:PORT, such as udp:127.0.0.1:5060, tcp:[::1]:5060 or tls:sip.example.com:5061", text)
	}
	return Target{transport, address}, nil
}

// parseURI reads the URI that is asked for.
func parseURI(text string) (sip.Uri, error) {
	var uri sip.Uri
	switch err := sip.ParseUri(text, &uri); {
	case err != nil || !plain(text) || uri.Host == "" || uri.Wildcard || uri.HierarhicalSlashes || uri.Scheme != "sip" && uri.Scheme != "sips":
		return sip.Uri{}, fmt.Errorf("%q is not a SIP URI, such as sip:ping@sip.example.com", text)
	case uri.Password != "":
		return sip.Uri{}, errors.New("a SIP URI with a password is not asked for")
	}
	return uri, nil
}

// plain tells whether a text can stand in a SIP message as it is.
func plain(text string) bool {
	return text != "" && !strings.ContainsFunc(text, func(r rune) bool {
		return r <= ' ' || r > '~' || strings.ContainsRune(`<>"`, r)
	})
}
