package admin

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/conf"
)

// Config is the file of --admin.config.file, its part "admin".
type Config struct {
	Enabled    bool                `yaml:"enabled"`
	Listen     string              `yaml:"listen"`
	SocketMode string              `yaml:"socket_mode"`
	TLS        *TLSConfig          `yaml:"tls"`
	Hosts      []string            `yaml:"hosts"`
	Audit      AuditConfig         `yaml:"audit"`
	Limits     LimitsConfig        `yaml:"limits"`
	Guards     GuardsConfig        `yaml:"guards"`
	Roles      map[string][]Grant  `yaml:"roles"`
	Users      map[string]UserSpec `yaml:"users"`

	// Remediation is the section of that name, beside "admin"; nil without it.
	Remediation *RemediationConfig `yaml:"-"`
}

// TLSConfig has the three files of mutual TLS.
type TLSConfig struct {
	CertFile     string `yaml:"cert_file"`
	KeyFile      string `yaml:"key_file"`
	ClientCAFile string `yaml:"client_ca_file"`
}

// AuditConfig says where the audit log is and how long it is kept.
type AuditConfig struct {
	File        string `yaml:"file"`
	MaxSizeMB   int    `yaml:"max_size_mb"`
	Keep        int    `yaml:"keep"`
	MinFreeMB   int    `yaml:"min_free_mb"`
	CopyToLog   bool   `yaml:"copy_to_log"`
	HMACKeyFile string `yaml:"hmac_key_file"`
}

// LimitsConfig bounds how fast changes may come.
type LimitsConfig struct {
	PerUserPerSecond float64       `yaml:"per_user_per_second"`
	Burst            int           `yaml:"burst"`
	Cooldown         time.Duration `yaml:"cooldown"`
}

// GuardsConfig bounds what a change may do to the service.
type GuardsConfig struct {
	MinActive int           `yaml:"min_active"`
	MaxDrop   float64       `yaml:"max_drop"`
	MinUptime time.Duration `yaml:"min_uptime"`
}

// UserSpec is one user: how it is known, and what it may do.
type UserSpec struct {
	PeerUID     []uint32    `yaml:"peer_uid"`
	PeerGID     []uint32    `yaml:"peer_gid"`
	Tokens      []TokenSpec `yaml:"tokens"`
	ClientCerts []string    `yaml:"client_certs"` // uri:…, dns:… or sha256:… of the public key
	Roles       []string    `yaml:"roles"`
	Grants      []Grant     `yaml:"grants"`
	Auditor     bool        `yaml:"auditor"` // reads everybody's operations
	Kind        string      `yaml:"kind"`    // webhook: Alertmanager, which can do nothing else; else empty
}

// kindWebhook is the kind of user that Alertmanager is.
const kindWebhook = "webhook"

// TokenSpec is the SHA-256 of a token, and the day on which it ends.
type TokenSpec struct {
	SHA256  string `yaml:"sha256"`
	Expires string `yaml:"expires"` // 2027-06-30: valid through that day, UTC
}

// Default settings.
const (
	DefaultListen     = "unix:/run/kamailio-exporter/admin.sock"
	DefaultAuditFile  = "/var/lib/kamailio-exporter/audit.jsonl"
	defaultSocketMode = "0660"
	dateFormat        = "2006-01-02"
	maxConfigBytes    = 1 << 20
)

// Load reads, completes and checks the file. nil, and no error, means that the
// endpoint is off.
func Load(file string) (*Config, error) {
	text, err := readPrivate(file)
	if err != nil {
		return nil, err
	}
	cfg, err := Parse(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if cfg == nil {
		return nil, nil
	}
	if err := cfg.checkFiles(); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return cfg, nil
}

// readPrivate reads a file that others may not.
func readPrivate(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is no regular file", file)
	case info.Mode().Perm()&0o007 != 0:
		return nil, fmt.Errorf("%s can be read or written by everybody (mode %04o): chmod 0640", file, info.Mode().Perm())
	}
	text, err := io.ReadAll(io.LimitReader(f, maxConfigBytes+1))
	if err == nil && len(text) > maxConfigBytes {
		err = fmt.Errorf("%s is larger than %d bytes", file, maxConfigBytes)
	}
	return text, err
}

// Parse reads the text of the file and looks at no other.
func Parse(text []byte) (*Config, error) {
	file := struct {
		Admin       *Config            `yaml:"admin"`
		Remediation *RemediationConfig `yaml:"remediation"`
	}{}
	if len(bytes.TrimSpace(text)) == 0 {
		return nil, errors.New("the file is empty: to switch the endpoint off, say enabled: false")
	}
	if problems := conf.Decode(text, &file); problems != nil {
		return nil, errors.Join(problems...)
	}
	cfg := file.Admin
	if cfg == nil {
		return nil, errors.New("no section admin: to switch the endpoint off, say enabled: false in it")
	}
	if !cfg.Enabled {
		return nil, nil
	}
	cfg.complete()
	cfg.Remediation = file.Remediation
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("admin: %w", err)
	}
	if _, err := newRemediation(cfg, newCatalogue()); err != nil {
		return nil, err
	}
	return cfg, nil
}

func (cfg *Config) complete() {
	byDefault(&cfg.Listen, DefaultListen)
	byDefault(&cfg.SocketMode, defaultSocketMode)
	byDefault(&cfg.Audit.File, DefaultAuditFile)
	byDefault(&cfg.Audit.MaxSizeMB, 64)
	byDefault(&cfg.Audit.Keep, 20)
	byDefault(&cfg.Audit.MinFreeMB, 50)
	byDefault(&cfg.Limits.PerUserPerSecond, 1)
	byDefault(&cfg.Limits.Burst, 5)
	byDefault(&cfg.Limits.Cooldown, reloadPause)
	byDefault(&cfg.Guards.MinActive, 1)
	byDefault(&cfg.Guards.MaxDrop, 0.5)
	byDefault(&cfg.Guards.MinUptime, 15*time.Second)
}

func byDefault[T comparable](setting *T, value T) {
	var zero T
	if *setting == zero {
		*setting = value
	}
}

var (
	userName = regexp.MustCompile(`^[a-z][a-z0-9_.-]{0,31}$`)
	hexHash  = regexp.MustCompile(`^[0-9a-f]{64}$`)
	hostName = regexp.MustCompile(`^(\[[0-9a-f:.]+\]|[a-z0-9.-]+)$`)
)

func (cfg *Config) check() error {
	if _, _, err := cfg.address(); err != nil {
		return err
	}
	if _, err := cfg.socketMode(); err != nil {
		return err
	}
	switch {
	case !filepath.IsAbs(cfg.Audit.File):
		return fmt.Errorf("audit: file: want an absolute path, not %q", cfg.Audit.File)
	case cfg.Audit.MaxSizeMB < 1 || cfg.Audit.Keep < 1 || cfg.Audit.MinFreeMB < 1:
		return errors.New("audit: max_size_mb, keep and min_free_mb must be at least 1")
	case !(cfg.Limits.PerUserPerSecond > 0 && cfg.Limits.PerUserPerSecond <= 100) || cfg.Limits.Burst < 1 || cfg.Limits.Burst > 100:
		return errors.New("limits: per_user_per_second and burst must be above 0, and at most 100")
	case cfg.Guards.MinActive < 1:
		return errors.New("guards: min_active must be at least 1")
	case !(cfg.Guards.MaxDrop > 0 && cfg.Guards.MaxDrop <= 1):
		return errors.New("guards: max_drop must be above 0 and at most 1")
	}
	if err := conf.Duration(cfg.Limits.Cooldown, time.Second, 24*time.Hour); err != nil {
		return fmt.Errorf("limits: cooldown %w", err)
	}
	if err := conf.Duration(cfg.Guards.MinUptime, time.Second, time.Hour); err != nil {
		return fmt.Errorf("guards: min_uptime %w", err)
	}
	for _, h := range cfg.Hosts {
		if !hostName.MatchString(h) {
			return fmt.Errorf("hosts: %q: want a name or an address in small letters, without a port", h)
		}
	}
	if err := cfg.checkUsers(); err != nil {
		return err
	}
	_, err := newPolicy(cfg)
	return err
}

func (cfg *Config) checkUsers() error {
	known := map[string]string{} // credential: its user
	claim := func(credential, name string) error {
		if other, ok := known[credential]; ok {
			return fmt.Errorf("users: %s and %s are known by the same %s", other, name, strings.SplitN(credential, " ", 2)[0])
		}
		known[credential] = name
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(cfg.Users)) {
		u := cfg.Users[name]
		if !userName.MatchString(name) {
			return fmt.Errorf("users: %q: a name has small letters, digits and _ . -, at most 32", name)
		}
		var errs []error
		for _, uid := range u.PeerUID {
			errs = append(errs, claim(fmt.Sprint("peer_uid ", uid), name))
		}
		for _, gid := range u.PeerGID {
			errs = append(errs, claim(fmt.Sprint("peer_gid ", gid), name))
		}
		if len(u.Tokens) > 2 {
			return fmt.Errorf("users: %s: two tokens at most, the old and the new", name)
		}
		for _, t := range u.Tokens {
			if !hexHash.MatchString(t.SHA256) {
				return fmt.Errorf("users: %s: tokens: sha256: want 64 hex digits in small letters: kamailio_exporter admin token makes them", name)
			}
			if t.SHA256 == hex.EncodeToString(emptyHash[:]) {
				return fmt.Errorf("users: %s: tokens: this is the hash of the empty token", name)
			}
			if _, err := t.end(); err != nil {
				return fmt.Errorf("users: %s: tokens: expires: want a day such as 2027-06-30", name)
			}
			errs = append(errs, claim("token "+t.SHA256, name))
		}
		for _, c := range u.ClientCerts {
			scheme, value, _ := strings.Cut(c, ":")
			if !slices.Contains([]string{"uri", "dns", "sha256"}, scheme) || value == "" || scheme == "sha256" && !hexHash.MatchString(value) {
				return fmt.Errorf("users: %s: client_certs: want uri:…, dns:… or sha256:… of the public key", name)
			}
			if cfg.TLS == nil {
				return fmt.Errorf("users: %s: client_certs need the section tls", name)
			}
			errs = append(errs, claim("client_cert "+c, name))
		}
		if len(u.PeerUID)+len(u.PeerGID)+len(u.Tokens)+len(u.ClientCerts) == 0 {
			return fmt.Errorf("users: %s: it has no peer_uid, peer_gid, token or client_cert: nobody could be it", name)
		}
		switch {
		case u.Kind != "" && u.Kind != kindWebhook:
			return fmt.Errorf("users: %s: kind: want webhook, or none", name)
		case u.Kind == kindWebhook && (len(u.Roles)+len(u.Grants)+len(u.PeerUID)+len(u.PeerGID) > 0 || u.Auditor):
			return fmt.Errorf("users: %s: a webhook has tokens or client_certs, and can do nothing but send alerts: no roles, no grants", name)
		}
		if network, _, _ := cfg.address(); network != "unix" && len(u.Tokens)+len(u.ClientCerts) == 0 {
			return fmt.Errorf("users: %s: peer_uid and peer_gid are for a unix socket only", name)
		}
		if err := errors.Join(errs...); err != nil {
			return err
		}
	}
	return nil
}

var emptyHash = sha256.Sum256(nil)

// end is the moment from which a token is no more; the zero time is never.
func (t TokenSpec) end() (time.Time, error) {
	if t.Expires == "" {
		return time.Time{}, nil
	}
	day, err := time.Parse(dateFormat, t.Expires)
	return day.AddDate(0, 0, 1), err
}

// address is where to listen. Off loopback it needs mutual TLS.
func (cfg *Config) address() (network, address string, err error) {
	if path, ok := strings.CutPrefix(cfg.Listen, "unix:"); ok {
		switch {
		case !filepath.IsAbs(path):
			return "", "", fmt.Errorf("listen: want unix: and an absolute path, not %q", cfg.Listen)
		case len(path) > 107:
			return "", "", errors.New("listen: a unix socket's path has at most 107 bytes")
		case cfg.TLS != nil:
			return "", "", errors.New("listen: a unix socket has no TLS: leave the section tls out")
		}
		return "unix", path, nil
	}
	host, port, err := net.SplitHostPort(cfg.Listen)
	if n, portErr := strconv.ParseUint(port, 10, 16); err != nil || portErr != nil || n > 65535 {
		return "", "", fmt.Errorf("listen: want unix:/run/… or 127.0.0.1:9443, not %q", cfg.Listen)
	}
	ip := net.ParseIP(host)
	if ip == nil {
		return "", "", fmt.Errorf("listen: want an address and no name, such as 127.0.0.1, not %q", host)
	}
	if cfg.TLS != nil && (cfg.TLS.CertFile == "" || cfg.TLS.KeyFile == "" || cfg.TLS.ClientCAFile == "") {
		return "", "", errors.New("tls: needs cert_file, key_file and client_ca_file")
	}
	if !ip.IsLoopback() && cfg.TLS == nil {
		return "", "", fmt.Errorf("listen: %s is not loopback: give the section tls with client_ca_file, so that only clients with a certificate can connect", cfg.Listen)
	}
	return "tcp", cfg.Listen, nil
}

func (cfg *Config) socketMode() (fs.FileMode, error) {
	mode, err := strconv.ParseUint(cfg.SocketMode, 8, 32)
	if err != nil || mode > 0o770 || mode&0o007 != 0 {
		return 0, fmt.Errorf("socket_mode: want \"0600\" or \"0660\", in quotes, not %q", cfg.SocketMode)
	}
	return fs.FileMode(mode), nil
}

// checkFiles looks at the files that the configuration names.
func (cfg *Config) checkFiles() error {
	if cfg.TLS != nil {
		if _, err := cfg.tlsConfig(); err != nil {
			return err
		}
	}
	_, err := cfg.hmacKey()
	return err
}

func (cfg *Config) tlsConfig() (*tls.Config, error) {
	key, err := readPrivate(cfg.TLS.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("tls: key_file: %w", err)
	}
	cert, err := os.ReadFile(cfg.TLS.CertFile)
	if err != nil {
		return nil, fmt.Errorf("tls: cert_file: %w", err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, errors.New("tls: cert_file and key_file are no pair in PEM")
	}
	ca, err := os.ReadFile(cfg.TLS.ClientCAFile)
	if err != nil {
		return nil, fmt.Errorf("tls: client_ca_file: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		return nil, errors.New("tls: client_ca_file has no certificate in PEM")
	}
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{pair},
		ClientAuth:   tls.RequireAndVerifyClientCert,
		ClientCAs:    pool,
		NextProtos:   []string{"http/1.1"},
		// A resumed session would outlive a certificate that is no longer good.
		SessionTicketsDisabled: true,
	}, nil
}

// hmacKey is the key for what is kept out of the audit log; nil without one: it is
// then left out altogether.
func (cfg *Config) hmacKey() ([]byte, error) {
	if cfg.Audit.HMACKeyFile == "" {
		return nil, nil
	}
	key, err := readPrivate(cfg.Audit.HMACKeyFile)
	if err == nil && len(bytes.TrimSpace(key)) < 32 {
		err = errors.New("has fewer than 32 bytes")
	}
	if err != nil {
		return nil, fmt.Errorf("audit: hmac_key_file: %w", err)
	}
	return bytes.TrimSpace(key), nil
}

// hosts are the names by which the listener may be called.
func (cfg *Config) hosts() []string {
	names := slices.Clone(cfg.Hosts)
	if len(names) == 0 {
		names = []string{"localhost", "127.0.0.1", "[::1]"}
		if network, address, err := cfg.address(); err == nil && network == "tcp" {
			host, _, _ := net.SplitHostPort(address)
			if strings.Contains(host, ":") {
				host = "[" + host + "]"
			}
			names = append(names, host)
		}
	}
	return names
}

// Address is where the endpoint listens: "unix:/path" or "host:port".
func (cfg *Config) Address() string { return cfg.Listen }
