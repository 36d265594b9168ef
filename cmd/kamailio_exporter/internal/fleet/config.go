package fleet

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/prometheus/common/config"
	"go.yaml.in/yaml/v2"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/conf"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/sipprobe"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/target"
	"github.com/kamailio-exporter/kamailio_exporter/collector"
)

// Target is a Kamailio from the file, or an allow-listed one.
type Target struct {
	target.Target
	Name   string // the URI, if it is allow-listed
	Module string
	Labels map[string]string
	ca     []byte // content of its CA file: a new certificate is a change
}

// Module is a set of collectors.
type Module struct {
	Collectors  []string // in the collectors' own order
	SIP, Script bool     // also the SIP probes and the xhttp_prom page
}

// Narrow reduces a target to what the module includes.
func (m Module) Narrow(t target.Target) target.Target {
	t.Collectors = m.Collectors
	if !m.SIP {
		t.SIP.Probe = nil
	}
	if !m.Script {
		t.Script.URL = ""
	}
	return t
}

// DefaultModule is the module with the collectors that the flags enable, unless the file
// defines a module of this name.
const DefaultModule = "default"

// Config is the content of the file, complete and checked.
type Config struct {
	Modules map[string]Module
	Targets []*Target // sorted by name
	allow   *allowList
}

// fileSpec is the structure of the file.
type fileSpec struct {
	Modules  map[string]moduleSpec `yaml:"modules"`
	Defaults settingsSpec          `yaml:"defaults"`
	Targets  map[string]targetSpec `yaml:"targets"`
	Allow    *allowSpec            `yaml:"allow"`
}

type moduleSpec struct {
	Collectors []string `yaml:"collectors"`
	Exclude    []string `yaml:"exclude"`
	SIP        *bool    `yaml:"sip"`
	Script     *bool    `yaml:"xhttp_prom"`
}

type targetSpec struct {
	URIs     []string          `yaml:"uris"`
	Labels   map[string]string `yaml:"labels"`
	Own      target.OwnSpec    `yaml:",inline"`
	Settings settingsSpec      `yaml:",inline"`
}

// settingsSpec has the settings that can be given for all targets and for each one.
type settingsSpec struct {
	Module string      `yaml:"module"`
	Target target.Spec `yaml:",inline"`
}

type allowSpec struct {
	Networks   []string     `yaml:"networks"`
	Ports      []uint16     `yaml:"ports"`
	Paths      []string     `yaml:"paths"`
	MaxTargets *int         `yaml:"max_targets"`
	Settings   settingsSpec `yaml:",inline"`
}

// Base has the settings of the flags, which the file builds on.
type Base struct {
	Target target.Target // its Collectors are those of the default module
	// Reserved are URIs that no target can use, because another part of the exporter uses
	// them. Why is the reason, for the error.
	Reserved []string
	Why      string
}

const maxConfigBytes = 16 << 20

// Load reads, completes and checks the file. The error lists all problems, one per line.
func Load(file string, base Base) (*Config, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(f, maxConfigBytes+1))
	if err == nil && len(text) > maxConfigBytes {
		err = fmt.Errorf("larger than %d bytes", maxConfigBytes)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	cfg, problems := parse(text, filepath.Dir(file), info.Mode().Perm(), base)
	for i, p := range problems {
		problems[i] = fmt.Errorf("%s: %w", file, p)
	}
	return cfg, errors.Join(problems...)
}

func parse(text []byte, dir string, mode fs.FileMode, base Base) (*Config, []error) {
	if len(bytes.TrimSpace(text)) == 0 {
		return nil, []error{errors.New("the file is empty; it needs targets: with at least one name and its uris")}
	}
	var spec fileSpec
	if problems := conf.Decode(text, &spec); problems != nil {
		return nil, problems
	}
	base.Reserved = slices.Clone(base.Reserved)
	for i, uri := range base.Reserved {
		if one, err := canonical(uri); err == nil {
			base.Reserved[i] = one
		}
	}
	c := &checker{dir: dir, mode: mode, base: base, uris: map[string]string{}, checked: map[*config.HTTPClientConfig]bool{}}
	cfg := c.config(spec)
	return cfg, c.problems
}

// checker converts the file into a Config, and collects the problems.
type checker struct {
	dir      string
	mode     fs.FileMode
	base     Base
	modules  map[string]Module
	uris     map[string]string // the target that uses each URI
	checked  map[*config.HTTPClientConfig]bool
	problems []error
}

func (c *checker) add(where string, errs ...error) {
	for _, err := range errs {
		if err != nil {
			c.problems = append(c.problems, fmt.Errorf("%s: %w", where, err))
		}
	}
}

func (c *checker) addf(where, format string, args ...any) {
	c.add(where, fmt.Errorf(format, args...))
}

var (
	targetName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$`)
	moduleName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)
	labelName  = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_]*$`)
)

func (c *checker) config(spec fileSpec) *Config {
	c.modules = map[string]Module{DefaultModule: {Collectors: c.base.Target.Collectors, SIP: true, Script: true}}
	for _, name := range slices.Sorted(maps.Keys(spec.Modules)) {
		c.modules[name] = c.module("modules: "+name, name, spec.Modules[name])
	}
	cfg := &Config{Modules: c.modules}
	base := Target{Target: c.base.Target, Module: DefaultModule}
	c.settings("defaults", &base, spec.Defaults)
	for _, name := range slices.Sorted(maps.Keys(spec.Targets)) {
		cfg.Targets = append(cfg.Targets, c.target("targets: "+name, name, base, spec.Targets[name]))
	}
	if spec.Allow != nil {
		cfg.allow = c.allow(*spec.Allow, spec.Defaults)
	}
	if len(cfg.Targets) == 0 && cfg.allow == nil {
		c.problems = append(c.problems, errors.New("the file has neither targets nor allow, so nothing can be probed"))
	}
	return cfg
}

func (c *checker) module(where, name string, spec moduleSpec) Module {
	known := collector.Names(collector.All(collector.Options{}))
	if !moduleName.MatchString(name) {
		c.addf(where, "a name has at most 64 letters, digits and . _ -")
	}
	for _, n := range slices.Concat(spec.Collectors, spec.Exclude) {
		if !slices.Contains(known, n) {
			c.addf(where, "unknown collector %q; the collectors are: %s", n, strings.Join(known, ", "))
		}
	}
	if spec.Collectors != nil && spec.Exclude != nil {
		c.addf(where, "give either collectors or exclude")
	}
	m := Module{SIP: spec.SIP == nil || *spec.SIP, Script: spec.Script == nil || *spec.Script}
	for _, n := range known {
		if slices.Contains(spec.Collectors, n) || spec.Collectors == nil && slices.Contains(c.base.Target.Collectors, n) && !slices.Contains(spec.Exclude, n) {
			m.Collectors = append(m.Collectors, n)
		}
	}
	if len(m.Collectors) == 0 {
		c.addf(where, "no collector is left")
	}
	return m
}

func (c *checker) target(where, name string, base Target, spec targetSpec) *Target {
	t := base
	t.Name, t.URIs, t.Labels = name, spec.URIs, spec.Labels
	if !targetName.MatchString(name) {
		c.addf(where, "a name has at most 128 letters, digits and . _ : -")
	}
	if len(t.URIs) == 0 {
		c.addf(where, "uris is missing, for example uris: [http://192.0.2.10:5060/RPC]")
	}
	for _, text := range t.URIs {
		uri, err := canonical(text)
		if err != nil {
			c.add(where+": uris", err)
			continue
		}
		if other, ok := c.uris[uri]; ok {
			c.addf(where, "uris: %s already belongs to %s; with two names it would be queried twice", uri, other)
		}
		c.uris[uri] = name
		if slices.Contains(c.base.Reserved, uri) {
			c.addf(where, "uris: %s %s", uri, c.base.Why)
		}
	}
	for _, label := range slices.Sorted(maps.Keys(t.Labels)) {
		if !labelName.MatchString(label) || slices.Contains([]string{"job", "instance", "__name__", "__address__"}, label) {
			c.addf(where, "labels: %q is not permitted as a name: use letters, digits and _, but not job or instance", label)
		}
	}
	c.set(where, &t, spec.Settings)
	c.own(where, &t, spec.Own)
	c.add(where, t.Check()...)
	return &t
}

func (c *checker) allow(spec allowSpec, defaults settingsSpec) *allowList {
	base := Target{Target: c.base.Target, Module: DefaultModule}
	// Credentials are only for the configured targets, never for a host that a client
	// names.
	defaults.Target.HTTP = nil
	c.settings("defaults", &base, defaults)
	c.settings("allow", &base, spec.Settings)
	if spec.Settings.Target.HTTP != nil {
		if p := spec.Settings.Target.HTTP.ProxyConfig; p.ProxyURL.URL != nil || p.ProxyFromEnvironment {
			c.addf("allow", "http_config: a proxy is not allowed here, because the exporter could not check where it connects to")
		}
	}
	list := &allowList{
		ports: spec.Ports, paths: spec.Paths, maxTargets: defaultMaxTargets, base: base,
		reserved: c.base.Reserved, why: c.base.Why,
	}
	if spec.MaxTargets != nil {
		list.maxTargets = *spec.MaxTargets
	}
	if list.paths == nil {
		list.paths = []string{defaultPath}
	}
	if len(spec.Networks) == 0 {
		c.addf("allow", "networks is missing, for example networks: [192.0.2.0/24]")
	}
	for _, text := range spec.Networks {
		prefix, err := netip.ParsePrefix(text)
		switch {
		case err != nil:
			c.addf("allow", "networks: %q: must be an address and a length, such as 192.0.2.0/24 or 192.0.2.7/32", text)
		case prefix != prefix.Masked():
			c.addf("allow", "networks: %s has bits after its length; did you mean %s?", text, prefix.Masked())
		case prefix.Addr().Is4In6():
			c.addf("allow", "networks: %s: write it as an IPv4 network", text)
		default:
			list.networks = append(list.networks, prefix)
		}
	}
	for _, p := range list.paths {
		if !strings.HasPrefix(p, "/") || strings.ContainsAny(p, "?#") {
			c.addf("allow", "paths: %q: must be a path, such as /RPC", p)
		}
	}
	if slices.Contains(list.ports, 0) {
		c.addf("allow", "ports: 0 is not a port")
	}
	if list.maxTargets < 1 || list.maxTargets > 10_000 {
		c.addf("allow", "max_targets must be from 1 to 10000, not %d", list.maxTargets)
	}
	return list
}

// settings applies and checks what the file gives for more than one target.
func (c *checker) settings(where string, t *Target, s settingsSpec) {
	c.set(where, t, s)
	c.add(where, t.Check()...)
}

func (c *checker) set(where string, t *Target, s settingsSpec) {
	if s.Module != "" {
		t.Module = s.Module
	}
	if _, ok := c.modules[t.Module]; !ok {
		c.addf(where, "module: there is no module %q; there are: %s", t.Module, strings.Join(slices.Sorted(maps.Keys(c.modules)), ", "))
	}
	c.add(where, s.Target.Apply(&t.Target)...)
	if s.Target.HTTP != nil {
		c.http(where+": http_config", s.Target.HTTP)
	}
}

// own applies what the file gives for one target only: the SIP sockets and the xhttp_prom
// page.
func (c *checker) own(where string, t *Target, s target.OwnSpec) {
	c.add(where, s.Apply(&t.Target)...)
	if t.SIP.CAFile != "" && !filepath.IsAbs(t.SIP.CAFile) {
		t.SIP.CAFile = filepath.Join(c.dir, t.SIP.CAFile)
	}
	if _, err := sipprobe.Of(t.Target); err != nil {
		c.add(where, err)
	} else if t.SIP.CAFile != "" {
		t.ca, err = os.ReadFile(t.SIP.CAFile)
		c.add(where, err)
	}
}

// http checks the files and environment variables that it names, so that a mistake is an
// error now and not at each scrape.
func (c *checker) http(where string, h *config.HTTPClientConfig) {
	if c.checked[h] {
		return
	}
	c.checked[h] = true
	h.SetDirectory(c.dir)
	shown, err := yaml.Marshal(h)
	if err == nil && bytes.Contains(shown, []byte("<secret>")) && c.mode&0o007 != 0 {
		c.addf(where, "it contains a secret, and all users can read the file (mode %04o): run chmod 0640, or use a file (password_file) or an environment variable (password_ref)", c.mode)
	}
	if _, err := config.NewClientFromConfig(*h, "check", config.WithSecretManager(target.Environment{})); err != nil {
		c.add(where, err)
	}
	var files, refs []string
	if b := h.BasicAuth; b != nil {
		files, refs = append(files, b.UsernameFile, b.PasswordFile), append(refs, b.UsernameRef, b.PasswordRef)
	}
	if a := h.Authorization; a != nil {
		files, refs = append(files, a.CredentialsFile), append(refs, a.CredentialsRef)
	}
	for _, file := range files {
		if file != "" {
			_, err := os.ReadFile(file)
			c.add(where, err)
		}
	}
	for _, ref := range refs {
		if ref != "" {
			_, err := target.FromEnvironment(ref)
			c.add(where, err)
		}
	}
}
