package admin

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-kit/log"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/adminapi"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/audit"
)

// On a unix socket, the kernel identifies the client.
func TestPeerCredentials(t *testing.T) {
	for name, who := range map[string]string{"uid": fmt.Sprintf("peer_uid: [%d]", os.Getuid()), "gid": fmt.Sprintf("peer_gid: [%d]", os.Getgid())} {
		b := newEndpoint(t, "  users:\n    local: {"+who+", grants: [{action: dispatcher.reload}]}\n").start(nil)
		if r := b.run("", "dispatcher.reload", `{}`); r.Status != 200 || r.Outcome != audit.Applied {
			t.Errorf("%s: %d %s", name, r.Status, r.Text)
		}
		for _, r := range b.records() {
			if r.Kind == audit.KindOutcome && (r.User != "local" || r.Auth != "peer" || r.Source != fmt.Sprintf("uid %d", os.Getuid())) {
				t.Errorf("%s: %+v", name, r)
			}
		}
	}
	b := newEndpoint(t, "  users:\n    other: {peer_uid: [4294967294], grants: [{action: dispatcher.reload}]}\n").start(nil)
	if r := b.run("", "dispatcher.reload", `{}`); r.Status != 401 {
		t.Errorf("another uid: %d %s", r.Status, r.Text)
	}
	if r := b.call("", "GET", "/-/healthy", ""); r.Status != 200 {
		t.Errorf("healthy: %d", r.Status)
	}
}

type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// issue signs a certificate. A nil authority makes it self-signed.
func (a *authority) issue(t *testing.T, change func(*x509.Certificate)) (cert *x509.Certificate, pair tls.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	change(template)
	parent, parentKey := template, key
	if a != nil {
		parent, parentKey = a.cert, a.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, parentKey)
	if err != nil {
		t.Fatal(err)
	}
	if cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return cert, tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func writePEM(t *testing.T, file, kind string, der []byte) string {
	t.Helper()
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestMutualTLS(t *testing.T) {
	newAuthority := func() *authority {
		cert, pair := (*authority)(nil).issue(t, func(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid = true, true })
		return &authority{cert, pair.PrivateKey.(*ecdsa.PrivateKey)}
	}
	ours, foreign := newAuthority(), newAuthority()
	names := func(uri, dns string) func(*x509.Certificate) {
		return func(c *x509.Certificate) {
			if uri != "" {
				u, err := url.Parse(uri)
				if err != nil {
					t.Fatal(err)
				}
				c.URIs = []*url.URL{u}
			}
			if dns != "" {
				c.DNSNames = []string{dns}
			}
		}
	}
	_, mila := ours.issue(t, names("spiffe://x/mila", ""))
	_, ines := ours.issue(t, names("", "ines.example"))
	pinned, pin := ours.issue(t, names("", ""))
	_, both := ours.issue(t, names("spiffe://x/mila", "ines.example"))
	_, noc := ours.issue(t, names("", "noc.example"))
	_, stranger := ours.issue(t, names("spiffe://x/nobody", "x.example"))
	_, forged := foreign.issue(t, names("spiffe://x/mila", ""))
	_, expired := ours.issue(t, func(c *x509.Certificate) {
		names("spiffe://x/mila", "")(c)
		c.NotAfter = time.Now().Add(-time.Minute)
	})
	dir := t.TempDir()
	serverCert, serverPair := ours.issue(t, names("", "localhost"))
	key, err := x509.MarshalECPrivateKey(serverPair.PrivateKey.(*ecdsa.PrivateKey))
	if err != nil {
		t.Fatal(err)
	}
	hash := sha256.Sum256(pinned.RawSubjectPublicKeyInfo)
	text := fmt.Sprintf(`admin:
  enabled: true
  listen: 127.0.0.1:0
  tls: {cert_file: %s, key_file: %s, client_ca_file: %s}
  audit: {file: %s}
  users:
    mila: {client_certs: ['uri:spiffe://x/mila'], grants: [{action: dispatcher.reload}]}
    ines: {client_certs: ['dns:ines.example'], grants: [{action: dispatcher.reload}]}
    pin: {client_certs: ['sha256:%s'], grants: [{action: dispatcher.reload}]}
    noc: {tokens: [{sha256: %s}], client_certs: ['dns:noc.example'], grants: [{action: dispatcher.reload}]}
`, writePEM(t, filepath.Join(dir, "crt"), "CERTIFICATE", serverCert.Raw), writePEM(t, filepath.Join(dir, "key"), "EC PRIVATE KEY", key),
		writePEM(t, filepath.Join(dir, "ca"), "CERTIFICATE", ours.cert.Raw), filepath.Join(dir, "audit.jsonl"), hex.EncodeToString(hash[:]), adminapi.HashToken(nocToken))
	file := filepath.Join(dir, "admin.yml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := Load(file)
	if err != nil {
		t.Fatal(err)
	}
	server, err := New(cfg, Options{File: file, Logger: log.NewNopLogger()})
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = server.Serve(t.Context()) }()
	t.Cleanup(func() { _ = server.Shutdown(context.Background()) })
	roots := x509.NewCertPool()
	roots.AddCert(ours.cert)
	for _, tc := range []struct {
		name   string
		pair   *tls.Certificate
		token  string
		change func(*tls.Config)
		want   int // 0: connection refused
		user   string
	}{
		{name: "URI", pair: &mila, want: 200, user: "mila"},
		{name: "DNS", pair: &ines, want: 200, user: "ines"},
		{name: "pin", pair: &pin, want: 200, user: "pin"},
		{name: "certificates of two users", pair: &both, want: 401},
		{name: "no credentials", pair: &stranger, want: 401},
		{name: "no certificate, with a token", pair: &stranger, token: nocToken, want: 401},
		{name: "one user's certificate, another's token", pair: &mila, token: nocToken, want: 401},
		{name: "none"},
		{name: "none, with a token", token: nocToken},
		{name: "signed by another CA", pair: &forged},
		{name: "expired", pair: &expired},
		{name: "TLS 1.2", pair: &mila, change: func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			config := &tls.Config{RootCAs: roots, ServerName: "localhost", MinVersion: tls.VersionTLS12}
			if tc.pair != nil {
				config.Certificates = []tls.Certificate{*tc.pair}
			}
			if tc.change != nil {
				tc.change(config)
			}
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+server.Addr().String()+"/v1/actions", nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Host = "localhost"
			if tc.token != "" {
				r.Header.Set("Authorization", "Bearer "+tc.token)
			}
			resp, err := (&http.Transport{TLSClientConfig: config, DisableKeepAlives: true}).RoundTrip(r)
			if err != nil {
				if tc.want != 0 {
					t.Error(err)
				}
				return
			}
			defer resp.Body.Close()
			body := make([]byte, 200)
			n, _ := resp.Body.Read(body)
			if resp.StatusCode != tc.want || tc.user != "" && !strings.Contains(string(body[:n]), `"user":"`+tc.user+`"`) {
				t.Errorf("%d %s", resp.StatusCode, body[:n])
			}
		})
	}
	// A login from the page with a certificate of the same user.
	for name, tc := range map[string]struct {
		pair tls.Certificate
		want int
	}{"of the same": {noc, http.StatusSeeOther}, "of another": {mila, http.StatusUnauthorized}} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+server.Addr().String()+"/session", strings.NewReader("token="+nocToken))
		if err != nil {
			t.Fatal(err)
		}
		r.Host = "localhost"
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Sec-Fetch-Site", "same-origin")
		config := &tls.Config{RootCAs: roots, ServerName: "localhost", MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{tc.pair}}
		resp, err := (&http.Transport{TLSClientConfig: config, DisableKeepAlives: true}).RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if cookies := resp.Cookies(); resp.StatusCode != tc.want || len(cookies) == 1 != (tc.want == http.StatusSeeOther) || len(cookies) == 1 && !cookies[0].Secure {
			t.Errorf("%s: %d %v", name, resp.StatusCode, cookies)
		}
	}
}
