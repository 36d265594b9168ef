package admin

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"net"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/action"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/adminapi"
)

// identity is the authenticated sender of a request. Only authentication creates one.
type identity struct {
	user *action.User
	auth string // how it was authenticated: peer, token, cert or session
}

// identityKey is the context key of the identity. Without an identity, no request is
// served.
type identityKey struct{}

// caller returns the identity as the audit log records it.
func (i identity) caller(r *http.Request) action.Caller {
	return action.Caller{User: i.user.Name, Auth: i.auth, Source: source(r)}
}

func identityOf(ctx context.Context) (identity, bool) {
	who, ok := ctx.Value(identityKey{}).(identity)
	return who, ok
}

// peer holds the credentials that the kernel reports for the other end of a unix
// socket.
type peer struct {
	uid   uint32
	gids  []uint32 // the primary group first
	known bool
}

// peerOf reads SO_PEERCRED and SO_PEERGROUPS: the user and groups of the process at the
// time it connected. /proc is not used, because the process ID may have been reused
// since.
func peerOf(conn net.Conn) peer {
	socket, ok := conn.(*net.UnixConn)
	if !ok {
		return peer{}
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return peer{}
	}
	var p peer
	_ = raw.Control(func(fd uintptr) {
		if cred, err := syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED); err == nil {
			p = peer{uid: cred.Uid, gids: append([]uint32{cred.Gid}, peerGroups(fd)...), known: true}
		}
	})
	return p
}

// peerGroups returns the supplementary groups; none before Linux 4.13.
func peerGroups(fd uintptr) []uint32 {
	groups := make([]uint32, 32)
	for {
		size := uint32(4 * len(groups))                                                                                                                                             //nolint:gosec // at most 4 * NGROUPS_MAX
		_, _, errno := syscall.Syscall6(syscall.SYS_GETSOCKOPT, fd, syscall.SOL_SOCKET, unix.SO_PEERGROUPS, uintptr(unsafe.Pointer(&groups[0])), uintptr(unsafe.Pointer(&size)), 0) //nolint:gosec // getsockopt(2)
		switch {
		case errno == 0:
			return groups[:size/4]
		case errno != syscall.ERANGE || int(size) <= 4*len(groups):
			return nil
		}
		groups = make([]uint32, size/4)
	}
}

// authenticator maps credentials to users. It is immutable.
type authenticator struct {
	tokens []knownToken
	starts map[tokenStart]bool // prefixes of the hashes of all tokens
	uids   map[uint32]*action.User
	gids   map[uint32]*action.User
	certs  map[string]*action.User // uri:…, dns:…, sha256:…
	now    func() time.Time
}

type knownToken struct {
	hash [sha256.Size]byte
	user *action.User
	end  time.Time // zero: never
}

// tokenStart is the beginning of a token's hash. It reveals nothing about the token,
// but is enough to reject most guesses without a lookup, and to count guesses at one
// token separately from guesses at others.
type tokenStart [3]byte

func newAuthenticator(cfg *Config, p *action.Policy, now func() time.Time) *authenticator {
	a := &authenticator{starts: map[tokenStart]bool{}, uids: map[uint32]*action.User{}, gids: map[uint32]*action.User{}, certs: map[string]*action.User{}, now: now}
	for name, spec := range cfg.Users {
		u := p.User(name)
		for _, uid := range spec.PeerUID {
			a.uids[uid] = u
		}
		for _, gid := range spec.PeerGID {
			a.gids[gid] = u
		}
		for _, cert := range spec.ClientCerts {
			a.certs[cert] = u
		}
		for _, t := range spec.Tokens {
			known := knownToken{user: u}
			_, _ = hex.Decode(known.hash[:], []byte(t.SHA256)) // checked with the configuration
			known.end, _ = t.end()
			a.starts[tokenStart(known.hash[:])] = true
			a.tokens = append(a.tokens, known)
		}
	}
	return a
}

var (
	errNobody  = errors.New("missing or invalid credentials")
	errGuesses = errors.New("too many invalid credentials")
)

// authenticate finds the user. Every credential in a request must be valid, and all
// must belong to the same user. Only the connection and the Authorization header are
// examined.
//
// After too many failures, a token is not looked up (errGuesses) unless its hash begins
// like that of a known token. Each known token has its own limit, which can only be
// used up by someone who knows the beginning of its hash. So guessing is limited, but
// does not lock out any user, wherever the guesses come from. Credentials that the
// kernel or TLS has verified do not count as guesses.
func (a *authenticator) authenticate(r *http.Request, l *limits) (identity, error) {
	from, guess := source(r), a.guess(r)
	if _, ok := r.Header["Authorization"]; ok && !l.mayGuess(from, guess) {
		return identity{}, errGuesses
	}
	who, err := a.identify(r)
	if err != nil && !l.failure(from, guess) {
		return identity{}, errGuesses
	}
	return who, err
}

// guess returns the hash prefix by which a request's token is limited; nil if it
// matches no known token.
func (a *authenticator) guess(r *http.Request) *tokenStart {
	values := r.Header["Authorization"]
	if len(values) != 1 {
		return nil
	}
	_, text, _ := strings.Cut(values[0], " ")
	hash := sha256.Sum256([]byte(text))
	start := tokenStart(hash[:])
	if !a.starts[start] {
		return nil
	}
	return &start
}

func (a *authenticator) identify(r *http.Request) (identity, error) {
	var token *action.User
	if values, ok := r.Header["Authorization"]; ok {
		if token = a.token(values); token == nil {
			return identity{}, errNobody
		}
	}
	if r.Header.Get("Cookie") != "" && r.RequestURI != "/" { // the page is exempt: it only reads, and other services on its host may have set a cookie
		return identity{}, errNobody
	}
	return a.agree(r, token, "token")
}

// agree returns the user to whom all credentials of a request belong: those of the
// connection and the token, which is nil if there is none.
func (a *authenticator) agree(r *http.Request, token *action.User, auth string) (identity, error) {
	var found []identity
	peers := a.peers(connOf(r))
	if len(peers) == 1 {
		found = append(found, identity{peers[0], "peer"})
	}
	if r.TLS != nil {
		u := a.certificate(r.TLS)
		if u == nil {
			return identity{}, errNobody
		}
		found = append(found, identity{u, "cert"})
	}
	if token != nil {
		found = append(found, identity{token, auth})
	}
	if len(found) == 0 {
		return identity{}, errNobody
	}
	who := found[len(found)-1]
	for _, other := range found {
		if other.user != who.user {
			return identity{}, errNobody
		}
	}
	if len(peers) > 1 && !slices.Contains(peers, who.user) {
		return identity{}, errNobody
	}
	return who, nil
}

// peers returns the users that the other end of a unix socket may be: the one with its
// UID, or else those with one of its GIDs. A local process that matches no user can
// still use a token. A process in the groups of several users needs a token to select
// one.
func (a *authenticator) peers(c *connInfo) []*action.User {
	if c == nil || !c.peer.known {
		return nil
	}
	if u := a.uids[c.peer.uid]; u != nil {
		return []*action.User{u}
	}
	var found []*action.User
	for _, gid := range c.peer.gids {
		if u := a.gids[gid]; u != nil && !slices.Contains(found, u) {
			found = append(found, u)
		}
	}
	return found
}

// token returns the user of the token in the Authorization header; nil if it is not
// valid.
func (a *authenticator) token(headers []string) *action.User {
	if len(headers) != 1 {
		return nil
	}
	scheme, text, _ := strings.Cut(headers[0], " ")
	user := a.byHash(sha256.Sum256([]byte(text)))
	if !strings.EqualFold(scheme, "Bearer") || !strings.HasPrefix(text, adminapi.TokenPrefix) {
		return nil
	}
	return user
}

// byHash compares the hash with every known token in constant time. A slow hash would
// add no security, because tokens are 32 random bytes.
func (a *authenticator) byHash(given [sha256.Size]byte) *action.User {
	now := a.now()
	found := -1
	for i := range a.tokens {
		t := &a.tokens[i]
		good := subtle.ConstantTimeCompare(given[:], t.hash[:])
		if !t.end.IsZero() && !now.Before(t.end) {
			good = 0
		}
		found = subtle.ConstantTimeSelect(good, i, found)
	}
	if found < 0 {
		return nil
	}
	return a.tokens[found].user
}

// certificate finds the user of a verified certificate, by one of its names or by its
// public key.
func (a *authenticator) certificate(state *tls.ConnectionState) *action.User {
	if len(state.VerifiedChains) == 0 || len(state.VerifiedChains[0]) == 0 {
		return nil
	}
	leaf := state.VerifiedChains[0][0]
	var found []*action.User
	for _, name := range certificateNames(leaf) {
		if u := a.certs[name]; u != nil && !slices.Contains(found, u) {
			found = append(found, u)
		}
	}
	if len(found) != 1 {
		return nil
	}
	return found[0]
}

func certificateNames(leaf *x509.Certificate) []string {
	pin := sha256.Sum256(leaf.RawSubjectPublicKeyInfo)
	names := []string{"sha256:" + hex.EncodeToString(pin[:])}
	for _, uri := range leaf.URIs {
		names = append(names, "uri:"+uri.String())
	}
	for _, dns := range leaf.DNSNames {
		names = append(names, "dns:"+dns)
	}
	return names
}
