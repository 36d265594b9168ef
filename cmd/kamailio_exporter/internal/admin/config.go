package admin

import (
	"bytes"
	"cmp"
	"crypto/tls"
	"crypto/x509"
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

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/action"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/adminapi"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/audit"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/conf"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/repair"
)

// Config is the "admin" section of the --admin.config.file file.
type Config struct {
	Enabled    bool                      `yaml:"enabled"`
	Listen     string                    `yaml:"listen"`
	SocketMode string                    `yaml:"socket_mode"`
	TLS        *TLSConfig                `yaml:"tls"`
	Hosts      []string                  `yaml:"hosts"`
	Audit      audit.Config              `yaml:"audit"`
	Limits     LimitsConfig              `yaml:"limits"`
	Guards     action.Guards             `yaml:"guards"`
	Roles      map[string][]action.Grant `yaml:"roles"`
	Users      map[string]UserSpec       `yaml:"users"`

	// Remediation is the "remediation" section, next to "admin"; nil if it is missing.
	Remediation *repair.Config `yaml:"-"`
}

// TLSConfig names the three files for mutual TLS.
type TLSConfig struct {
	CertFile     string `yaml:"cert_file"`
	KeyFile      string `yaml:"key_file"`
	ClientCAFile string `yaml:"client_ca_file"`
}

// LimitsConfig limits the rate of changes.
type LimitsConfig struct {
	PerUserPerSecond float64       `yaml:"per_user_per_second"`
	Burst            int           `yaml:"burst"`
	Cooldown         time.Duration `yaml:"cooldown"`
}

// UserSpec is one user: its credentials and its permissions.
type UserSpec struct {
	PeerUID     []uint32       `yaml:"peer_uid"`
	PeerGID     []uint32       `yaml:"peer_gid"`
	Tokens      []TokenSpec    `yaml:"tokens"`
	ClientCerts []string       `yaml:"client_certs"` // uri:…, dns:… or sha256:… of the public key
	Roles       []string       `yaml:"roles"`
	Grants      []action.Grant `yaml:"grants"`
	Auditor     bool           `yaml:"auditor"` // may read the operations of all users
	Kind        string         `yaml:"kind"`    // webhook: Alertmanager, which may only send alerts; otherwise empty
}

// kindWebhook is the kind of Alertmanager's user.
const kindWebhook = "webhook"

// TokenSpec is the SHA-256 of a token and its expiry date.
type TokenSpec struct {
	SHA256  string `yaml:"sha256"`
	Expires string `yaml:"expires"` // 2027-06-30: valid through that day, UTC
}

// Default settings.
const (
	DefaultAuditFile  = "/var/lib/kamailio-exporter/audit.jsonl"
	defaultSocketMode = "0660"
	dateFormat        = "2006-01-02"
	maxConfigBytes    = 1 << 20
)

// Load reads, completes and checks the file. It returns nil without an error if the
// endpoint is disabled.
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

// readPrivate reads a file and fails if other users can access it.
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
		return nil, fmt.Errorf("%s is not a regular file", file)
	case info.Mode().Perm()&0o007 != 0:
		return nil, fmt.Errorf("%s is readable or writable by all users (mode %04o): run chmod 0640", file, info.Mode().Perm())
	}
	text, err := io.ReadAll(io.LimitReader(f, maxConfigBytes+1))
	if err == nil && len(text) > maxConfigBytes {
		err = fmt.Errorf("%s is larger than %d bytes", file, maxConfigBytes)
	}
	return text, err
}

// Parse parses the text of the file. It reads no other files.
func Parse(text []byte) (*Config, error) {
	file := struct {
		Admin       *Config        `yaml:"admin"`
		Remediation *repair.Config `yaml:"remediation"`
	}{}
	if len(bytes.TrimSpace(text)) == 0 {
		return nil, errors.New("the file is empty: to disable the endpoint, set enabled: false")
	}
	if problems := conf.Decode(text, &file); problems != nil {
		return nil, errors.Join(problems...)
	}
	cfg := file.Admin
	if cfg == nil {
		return nil, errors.New("no section admin: to disable the endpoint, set enabled: false in it")
	}
	if !cfg.Enabled {
		return nil, nil
	}
	cfg.complete()
	cfg.Remediation = file.Remediation
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("admin: %w", err)
	}
	if _, _, err := cfg.compile(nil); err != nil {
		return nil, err
	}
	return cfg, nil
}

// compile builds the policy and the rules; the rules are nil without their section.
// ledger may be nil if no action will run.
func (cfg *Config) compile(ledger *repair.Ledger) (*action.Policy, *repair.Rules, error) {
	var rules *repair.Rules
	catalogue := action.NewCatalogue(ledger.Reset(func(rule string) bool { return rules.Has(rule) }))
	accounts := map[string]action.Account{}
	webhook := ""
	for _, name := range slices.Sorted(maps.Keys(cfg.Users)) {
		u := cfg.Users[name]
		accounts[name] = action.Account{Roles: u.Roles, Grants: u.Grants, Auditor: u.Auditor, Webhook: u.Kind == kindWebhook}
		if u.Kind == kindWebhook {
			webhook = cmp.Or(webhook, name)
		}
	}
	policy, err := action.NewPolicy(catalogue, cfg.Roles, accounts)
	switch {
	case err != nil:
		return nil, nil, fmt.Errorf("admin: %w", err)
	case cfg.Remediation == nil && webhook != "":
		return nil, nil, fmt.Errorf("users: %s: a user of kind webhook needs the section remediation", webhook)
	case cfg.Remediation == nil:
		return policy, nil, nil
	case webhook == "":
		return nil, nil, errors.New("remediation: no user has kind: webhook, so Alertmanager could not authenticate")
	}
	rules, err = repair.NewRules(cfg.Remediation, catalogue, cfg.Guards, cfg.Limits.Cooldown)
	if err != nil {
		return nil, nil, fmt.Errorf("remediation: %w", err)
	}
	return policy, rules, nil
}

// PrintGrants writes what every user may do, with the roles expanded, then what alerts
// may do, and then the actions that no user may run.
func PrintGrants(w io.Writer, cfg *Config) error {
	policy, rules, err := cfg.compile(nil)
	if err == nil {
		policy.Print(w, rules.Print)
	}
	return err
}

func (cfg *Config) complete() {
	cfg.Listen = cmp.Or(cfg.Listen, adminapi.DefaultListen)
	cfg.SocketMode = cmp.Or(cfg.SocketMode, defaultSocketMode)
	cfg.Audit.File = cmp.Or(cfg.Audit.File, DefaultAuditFile)
	cfg.Audit.MaxSizeMB = cmp.Or(cfg.Audit.MaxSizeMB, 64)
	cfg.Audit.Keep = cmp.Or(cfg.Audit.Keep, 20)
	cfg.Audit.MinFreeMB = cmp.Or(cfg.Audit.MinFreeMB, 50)
	cfg.Limits.PerUserPerSecond = cmp.Or(cfg.Limits.PerUserPerSecond, 1)
	cfg.Limits.Burst = cmp.Or(cfg.Limits.Burst, 5)
	cfg.Limits.Cooldown = cmp.Or(cfg.Limits.Cooldown, action.ReloadPause)
	cfg.Guards.MinActive = cmp.Or(cfg.Guards.MinActive, 1)
	cfg.Guards.MaxDrop = cmp.Or(cfg.Guards.MaxDrop, 0.5)
	cfg.Guards.MinUptime = cmp.Or(cfg.Guards.MinUptime, 15*time.Second)
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
		return fmt.Errorf("audit: file: must be an absolute path, not %q", cfg.Audit.File)
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
			return fmt.Errorf("hosts: %q: must be a host name or an address, in lower case and without a port", h)
		}
	}
	return cfg.checkUsers()
}

func (cfg *Config) checkUsers() error {
	known := map[string]string{} // credential to user
	for _, name := range slices.Sorted(maps.Keys(cfg.Users)) {
		u := cfg.Users[name]
		if !userName.MatchString(name) {
			return fmt.Errorf("users: %q: a name has at most 32 characters: lower-case letters, digits, _ . and -", name)
		}
		if err := cfg.checkUser(u); err != nil {
			return fmt.Errorf("users: %s: %w", name, err)
		}
		var errs []error
		for _, credential := range u.credentials() {
			if other, ok := known[credential]; ok {
				errs = append(errs, fmt.Errorf("users: %s and %s have the same %s", other, name, strings.SplitN(credential, " ", 2)[0]))
			}
			known[credential] = name
		}
		if err := errors.Join(errs...); err != nil {
			return err
		}
	}
	return nil
}

// credentials returns the kinds and values of all credentials of a user.
func (u UserSpec) credentials() []string {
	var all []string
	for _, uid := range u.PeerUID {
		all = append(all, fmt.Sprint("peer_uid ", uid))
	}
	for _, gid := range u.PeerGID {
		all = append(all, fmt.Sprint("peer_gid ", gid))
	}
	for _, t := range u.Tokens {
		all = append(all, "token "+t.SHA256)
	}
	for _, c := range u.ClientCerts {
		all = append(all, "client_cert "+c)
	}
	return all
}

func (cfg *Config) checkUser(u UserSpec) error {
	if len(u.Tokens) > 2 {
		return errors.New("at most two tokens, the old and the new")
	}
	for _, t := range u.Tokens {
		if !hexHash.MatchString(t.SHA256) {
			return errors.New("tokens: sha256: must be 64 lower-case hex digits: kamailio_exporter admin token generates them")
		}
		if t.SHA256 == emptyHash {
			return errors.New("tokens: this is the hash of the empty token")
		}
		if _, err := t.end(); err != nil {
			return errors.New("tokens: expires: must be a day such as 2027-06-30")
		}
	}
	for _, c := range u.ClientCerts {
		scheme, value, _ := strings.Cut(c, ":")
		if !slices.Contains([]string{"uri", "dns", "sha256"}, scheme) || value == "" || scheme == "sha256" && !hexHash.MatchString(value) {
			return errors.New("client_certs: must be uri:…, dns:… or sha256:… of the public key")
		}
		if cfg.TLS == nil {
			return errors.New("client_certs need the section tls")
		}
	}
	network, _, _ := cfg.address()
	switch {
	case len(u.credentials()) == 0:
		return errors.New("it has no peer_uid, peer_gid, token or client_cert, so it can never authenticate")
	case u.Kind != "" && u.Kind != kindWebhook:
		return errors.New("kind: must be webhook, or omitted")
	case u.Kind == kindWebhook && (len(u.Roles)+len(u.Grants)+len(u.PeerUID)+len(u.PeerGID) > 0 || u.Auditor):
		return errors.New("a webhook can only send alerts: give it tokens or client_certs, but no roles and no grants")
	case cfg.TLS != nil && len(u.ClientCerts) == 0:
		return errors.New("it has no client_certs: with the section tls every client needs a certificate, even if it has a token")
	case network != "unix" && len(u.Tokens)+len(u.ClientCerts) == 0:
		return errors.New("peer_uid and peer_gid are for a unix socket only")
	}
	return nil
}

var emptyHash = adminapi.HashToken("")

// end returns the time at which a token expires; the zero time if it never does.
func (t TokenSpec) end() (time.Time, error) {
	if t.Expires == "" {
		return time.Time{}, nil
	}
	day, err := time.Parse(dateFormat, t.Expires)
	return day.AddDate(0, 0, 1), err
}

// address returns the address to listen on. An address other than loopback needs mutual
// TLS.
func (cfg *Config) address() (network, address string, err error) {
	if path, ok := strings.CutPrefix(cfg.Listen, "unix:"); ok {
		switch {
		case !filepath.IsAbs(path):
			return "", "", fmt.Errorf("listen: must be unix: and an absolute path, not %q", cfg.Listen)
		case len(path) > 107:
			return "", "", errors.New("listen: a unix socket's path has at most 107 bytes")
		case cfg.TLS != nil:
			return "", "", errors.New("listen: a unix socket has no TLS: leave the section tls out")
		}
		return "unix", path, nil
	}
	host, port, err := net.SplitHostPort(cfg.Listen)
	if n, portErr := strconv.ParseUint(port, 10, 16); err != nil || portErr != nil || n > 65535 {
		return "", "", fmt.Errorf("listen: must be unix:/run/… or 127.0.0.1:9443, not %q", cfg.Listen)
	}
	ip := net.ParseIP(host)
	if ip == nil {
		return "", "", fmt.Errorf("listen: must be an address such as 127.0.0.1, not %q", host)
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
		return 0, fmt.Errorf("socket_mode: must be \"0600\" or \"0660\", in quotes, not %q", cfg.SocketMode)
	}
	return fs.FileMode(mode), nil
}

// checkFiles checks the files that the configuration names.
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
		return nil, errors.New("tls: cert_file and key_file are not a valid PEM certificate and key pair")
	}
	ca, err := os.ReadFile(cfg.TLS.ClientCAFile)
	if err != nil {
		return nil, fmt.Errorf("tls: client_ca_file: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		return nil, errors.New("tls: client_ca_file contains no PEM certificate")
	}
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{pair},
		ClientAuth:   tls.RequireAndVerifyClientCert,
		ClientCAs:    pool,
		NextProtos:   []string{"http/1.1"},
		// A resumed session would outlive a revoked or expired certificate.
		SessionTicketsDisabled: true,
	}, nil
}

// hmacKey returns the key for hashing secret parameters in the audit log; nil if none
// is configured. Secret parameters are then left out.
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

// hosts returns the host names that requests may use.
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
