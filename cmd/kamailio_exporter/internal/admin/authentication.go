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

// identity is who a request is from. It exists only where authentication made it.
type identity struct {
	user *action.User
	auth string // how it is known: peer, token, cert or session
}

// identityKey is for the request context: without an identity in it nothing runs.
type identityKey struct{}

// caller is what the audit log has of it.
func (i identity) caller(r *http.Request) action.Caller {
	return action.Caller{User: i.user.Name, Auth: i.auth, Source: source(r)}
}

func identityOf(ctx context.Context) (identity, bool) {
	who, ok := ctx.Value(identityKey{}).(identity)
	return who, ok
}

// peer is what the kernel says of the other end of a unix socket.
type peer struct {
	uid   uint32
	gids  []uint32 // the primary group first
	known bool
}

// peerOf asks for SO_PEERCRED and SO_PEERGROUPS: the user and the groups of the process
// when it connected. What /proc says of a process id may be of another process by now.
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

// peerGroups are the supplementary groups; none before Linux 4.13.
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

// authenticator knows the users by their credentials. It never changes.
type authenticator struct {
	tokens []knownToken
	starts map[tokenStart]bool // of the hashes of all tokens
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

// tokenStart is the beginning of a token's hash, which tells nothing of the token:
// enough to see that a guess is none without looking it up, and to keep guesses at
// one token apart from those at another.
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

// authenticate finds the user. All credentials that a request carries have to be
// good, and to be of the same user. Nothing but the connection and the header
// Authorization is looked at.
//
// Where too many have failed, a token is not looked up (errGuesses), unless its hash
// begins like one that is known: those have limits of their own, which nobody
// exhausts who does not know that hash. So guessing is bounded, and locks nobody
// out, wherever it comes from. What the kernel or TLS has verified is no guess.
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

// guess is what limits a request by its token: nil where there is none that could be
// right.
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
	if r.Header.Get("Cookie") != "" && r.RequestURI != "/" { // the page only reads, and others on its host may have set one
		return identity{}, errNobody
	}
	return a.agree(r, token, "token")
}

// agree is the user whom all agree on that a request comes with: the connection, and a
// token, which is nil where there is none.
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

// peers are the users that the other end of a unix socket may be: the one of its uid, or
// else those of its groups. Most people on the machine are none: no reason to refuse a
// token. Who is in the groups of several users needs a token that says which.
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

// token is the user of the token in the header Authorization; nil if it is not good.
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

// byHash compares with every token that is known, in the same time whatever is given. It
// is a hash of 32 random bytes, so that a slow one would protect nothing.
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

// certificate finds the user of a verified certificate: by one of its names, or by
// its public key.
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
