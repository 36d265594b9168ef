package fleet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
)

// allowList defines which URIs can be probed that are not in the file. A client that can
// choose any address can explore the exporter's network, so each restriction applies to
// the address that is dialed, not to a name.
type allowList struct {
	networks   []netip.Prefix
	ports      []uint16 // nil: any
	paths      []string // of http and https
	maxTargets int
	base       Target
	reserved   []string
	why        string
}

const (
	defaultMaxTargets = 100
	defaultPath       = "/RPC" // as in Kamailio's documentation
	longestURI        = 512
	lookupTimeout     = 2 * time.Second
)

// refusal explains why a request is not served.
type refusal struct {
	status int
	reason string // one of reasons
	text   string
}

func (r *refusal) Error() string { return r.text }

// canonical returns a URI in its canonical form, so that each URI of a Kamailio is
// written in one way. Its errors do not print a URI that may contain a password.
func canonical(text string) (string, error) {
	transport, err := kamrpc.Open(text, nil)
	if err != nil {
		return "", err
	}
	u, err := url.Parse(transport.String())
	if err != nil {
		return "", errors.New("not a URI")
	}
	u.Scheme, u.Host, u.Fragment = strings.ToLower(u.Scheme), strings.ToLower(u.Host), ""
	return u.String(), nil
}

// hostless are the schemes whose URI is a path.
var hostless = []string{"unix", "fifo", "binrpc+unix"}

// admit checks a URI from a client, and the address of its host. It does not connect to
// Kamailio; it resolves names through DNS.
func (a *allowList) admit(ctx context.Context, text string) (uri string, err error) {
	scheme, _, _ := strings.Cut(text, ":")
	if slices.Contains(hostless, strings.ToLower(scheme)) {
		return "", &refusal{http.StatusForbidden, "file", "unix and FIFO paths are allowed only in targets of the configuration file"}
	}
	if len(text) > longestURI {
		return "", &refusal{http.StatusBadRequest, "bad_uri", fmt.Sprintf("target: longer than %d bytes", longestURI)}
	}
	if u, err := url.Parse(text); err == nil && u.User != nil {
		return "", &refusal{http.StatusBadRequest, "credentials", "target: the URI must not contain a user or password: define the target in the configuration file, with http_config"}
	}
	uri, err = canonical(text)
	if err != nil {
		return "", &refusal{http.StatusBadRequest, "bad_uri", "target: " + err.Error()}
	}
	if a == nil {
		return "", &refusal{http.StatusForbidden, "not_allowed", "target: the configuration file only allows the URIs of its targets: add this one to targets, or its network to allow"}
	}
	u, err := url.Parse(uri)
	if err != nil {
		return "", &refusal{http.StatusBadRequest, "bad_uri", "target: not a URI"}
	}
	if slices.Contains(a.reserved, uri) {
		return "", &refusal{http.StatusForbidden, "not_allowed", "target: it " + a.why}
	}
	if err := a.admitPath(u); err != nil {
		return "", err
	}
	if err := a.admitPort(u); err != nil {
		return "", err
	}
	return uri, a.admitHost(ctx, u.Hostname())
}

func (a *allowList) admitPath(u *url.URL) error {
	if u.Scheme != "http" && u.Scheme != "https" {
		return nil
	}
	if u.RawQuery != "" || u.ForceQuery || !slices.Contains(a.paths, u.EscapedPath()) {
		return &refusal{http.StatusForbidden, "not_allowed", "target: this path is not in allow: paths of the configuration file"}
	}
	return nil
}

func (a *allowList) admitPort(u *url.URL) error {
	if a.ports == nil {
		return nil
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	if !slices.ContainsFunc(a.ports, func(p uint16) bool { return fmt.Sprint(p) == port }) {
		return &refusal{http.StatusForbidden, "not_allowed", "target: this port is not in allow: ports of the configuration file"}
	}
	return nil
}

func (a *allowList) admitHost(ctx context.Context, host string) error {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	addresses, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return &refusal{http.StatusBadRequest, "unresolved", "target: its host has no address to compare with allow: networks"}
	}
	if !slices.ContainsFunc(addresses, a.contains) {
		return &refusal{http.StatusForbidden, "not_allowed", "target: its address is not in allow: networks of the configuration file"}
	}
	return nil
}

// inward are networks that are only allowed if an entry names them or a part of them, not
// through a wider network: loopback, and link-local, where clouds serve their metadata.
var inward = []netip.Prefix{
	netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128"),
	netip.MustParsePrefix("169.254.0.0/16"), netip.MustParsePrefix("fe80::/10"),
}

// contains reports whether an address can be probed.
func (a *allowList) contains(address netip.Addr) bool {
	address = address.Unmap()
	if address.IsUnspecified() || address.IsMulticast() || address == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		return false // Linux treats 0.0.0.0 and :: as the local host
	}
	return slices.ContainsFunc(a.networks, func(network netip.Prefix) bool {
		if !network.Contains(address) {
			return false
		}
		for _, special := range inward {
			if special.Contains(address) && network.Bits() < special.Bits() {
				return false
			}
		}
		return true
	})
}

var errNotAllowed = errors.New("this address is not in a network of allow: networks in the configuration file")

// control is called with the address that is about to be dialed: the name may resolve to
// another address than when it was admitted.
func (a *allowList) control(_ context.Context, _, address string, _ syscall.RawConn) error {
	dialled, err := netip.ParseAddrPort(address)
	if err != nil || !a.contains(dialled.Addr()) {
		return errNotAllowed
	}
	return nil
}

// target returns the target for an admitted URI.
func (a *allowList) target(uri string) *Target {
	t := a.base
	t.Name, t.URIs = uri, []string{uri}
	return &t
}

// dialer returns a dialer that refuses all addresses outside the list.
func (a *allowList) dialer() *net.Dialer { return &net.Dialer{ControlContext: a.control} }
