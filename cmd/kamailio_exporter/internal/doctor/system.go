package doctor

import (
	"bufio"
	"bytes"
	"cmp"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// System has the paths of the host that is examined.
type System struct {
	Proc    string   // /proc
	RunDirs []string // default directories of Kamailio's sockets
	Units   []string // directories of systemd units, highest precedence first
	EnvFile string   // environment file of the service
	Account string   // account of the service if it has no unit; may not exist
	Config  string   // configuration of the service kamailio
	Systemd string   // exists where systemd is the init system (sd_booted(3))
}

// ThisSystem returns the host that the program runs on.
func ThisSystem() System {
	return System{
		Proc: "/proc",
		// core/sr_compat.h and the Makefile: run_dir is /run/kamailio in Debian's
		// packages, /var/run/kamailio in others. Old versions of ctl used /tmp.
		RunDirs: []string{"/run/kamailio", "/var/run/kamailio", "/tmp"},
		Units:   []string{"/etc/systemd/system", "/run/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"},
		EnvFile: "/etc/default/kamailio-exporter",
		Account: serviceName,
		Config:  "/etc/kamailio/kamailio.cfg",
		Systemd: "/run/systemd/system",
	}
}

func (s System) systemd() bool {
	_, err := os.Stat(s.Systemd)
	return err == nil
}

// service returns the command that starts or restarts a service.
func (s System) service(name, verb string) string {
	if s.systemd() {
		return "systemctl " + verb + " " + name
	}
	return "service " + name + " " + verb
}

// log returns the command that shows Kamailio's log.
func (s System) log() string {
	if s.systemd() {
		return "journalctl -u kamailio -e"
	}
	return "grep kamailio /var/log/syslog"
}

const serviceName = "kamailio-exporter"

// account is an account whose access to files is checked.
type account struct {
	name string
	from string // source of this account: flag, unit or process
	uid  uint32
	gid  uint32   // primary group
	gids []uint32 // all groups, sorted
	self bool     // this process has the same permissions
}

// whose returns the account whose permissions are checked.
func (s System) whose(name string) (account, error) {
	self := currentAccount()
	from := "--user"
	var extra []string
	if name == "" {
		unit := s.unit()
		if self.uid != 0 { // only root checks for the service's account
			return self, nil
		}
		if name, extra, from = unit["User"], strings.Fields(unit["SupplementaryGroups"]), "its unit"; name == "" {
			name, from = s.Account, "its name"
			if _, err := user.Lookup(name); err != nil {
				return self, nil
			}
		}
	}
	u, err := user.Lookup(name)
	if err != nil {
		return self, fmt.Errorf("user %s does not exist", name)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return self, fmt.Errorf("user %s: %w", name, err)
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return self, fmt.Errorf("user %s: %w", name, err)
	}
	a := account{name: u.Username, from: from, uid: uint32(uid), gid: uint32(gid)}
	groups, _ := u.GroupIds()
	for _, group := range extra {
		if g, err := user.LookupGroup(group); err == nil {
			groups = append(groups, g.Gid)
		}
	}
	for _, group := range append(groups, u.Gid) {
		if gid, err := strconv.ParseUint(group, 10, 32); err == nil && !slices.Contains(a.gids, uint32(gid)) {
			a.gids = append(a.gids, uint32(gid))
		}
	}
	slices.Sort(a.gids)
	a.self = a.uid == self.uid && slices.Equal(a.gids, self.gids)
	return a, nil
}

func currentAccount() account {
	a := account{uid: uint32(os.Geteuid()), gid: uint32(os.Getegid()), gids: []uint32{uint32(os.Getegid())}, from: "this process", self: true} //nolint:gosec // IDs have 32 bits
	groups, _ := os.Getgroups()
	for _, g := range groups {
		if gid := uint32(g); !slices.Contains(a.gids, gid) { //nolint:gosec // IDs have 32 bits
			a.gids = append(a.gids, gid)
		}
	}
	slices.Sort(a.gids)
	a.name = userName(a.uid)
	return a
}

func userName(uid uint32) string {
	id := strconv.FormatUint(uint64(uid), 10)
	if u, err := user.LookupId(id); err == nil {
		return u.Username
	}
	return id
}

func groupName(gid uint32) string {
	id := strconv.FormatUint(uint64(gid), 10)
	if g, err := user.LookupGroupId(id); err == nil {
		return g.Name
	}
	return id
}

// unit reads the service's unit and its drop-ins. If a setting occurs twice, the last one
// wins; lists are joined.
func (s System) unit() map[string]string {
	settings := map[string]string{}
	var files []string
	for _, dir := range s.Units {
		if file := filepath.Join(dir, serviceName+".service"); isFile(file) {
			files = append(files, file)
			break
		}
	}
	for _, dir := range slices.Backward(s.Units) {
		dropins, _ := filepath.Glob(filepath.Join(dir, serviceName+".service.d", "*.conf"))
		files = append(files, dropins...)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(text)) {
			name, value, ok := strings.Cut(strings.TrimSpace(line), "=")
			if !ok || strings.HasPrefix(name, "#") {
				continue
			}
			if name == "SupplementaryGroups" {
				value = settings[name] + " " + value
			}
			settings[name] = value
		}
	}
	return settings
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

// obstacle is what denies an account access to a file: the file itself or a directory
// above it.
type obstacle struct {
	path  string
	mode  fs.FileMode
	uid   uint32
	group uint32
	need  fs.FileMode // as bits of "others"
}

// groupHelps reports whether membership in the file's group would be enough.
func (o obstacle) groupHelps() bool { return o.mode.Perm()&(o.need<<3) == o.need<<3 && o.group != 0 }

func (o obstacle) String() string {
	text := fmt.Sprintf("%s is open to %s:%s only (mode %04o)", o.path, userName(o.uid), groupName(o.group), o.mode.Perm())
	if o.uid == 0 && o.group == 0 && o.mode.Type() != fs.ModeDir {
		text += ", as if Kamailio was started by root and not by its unit"
	}
	return text
}

// The permission bits that an account needs.
const (
	mayRead   fs.FileMode = 4
	mayWrite  fs.FileMode = 2
	maySearch fs.FileMode = 1
)

// reach checks whether the account may access a file with these permission bits. It
// returns nil if so, an obstacle if not, and an error if the file does not exist or
// cannot be examined. It ignores ACLs.
func (a account) reach(path string, bits fs.FileMode) (*obstacle, error) {
	dir := filepath.Dir(path)
	var above []string
	for d := dir; ; d = filepath.Dir(d) {
		above = append(above, d)
		if d == filepath.Dir(d) {
			break
		}
	}
	for _, d := range slices.Backward(above) {
		if o, err := a.need(d, maySearch); o != nil || err != nil {
			return o, err
		}
	}
	return a.need(path, bits)
}

func (a account) need(path string, bits fs.FileMode) (*obstacle, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || a.uid == 0 {
		return nil, nil
	}
	granted := info.Mode().Perm()
	switch {
	case stat.Uid == a.uid:
		granted >>= 6
	case slices.Contains(a.gids, stat.Gid):
		granted >>= 3
	}
	if granted&bits == bits {
		return nil, nil
	}
	return &obstacle{path, info.Mode(), stat.Uid, stat.Gid, bits}, nil
}

// process is the main process of a Kamailio on this host.
type process struct {
	pid    int
	user   string
	config string // option -f
	runDir string // option -Y
	// defines are the names that -A defines, without their values.
	defines []string
}

// kamailios returns the visible main processes of Kamailio.
func (s System) kamailios() []process {
	entries, _ := os.ReadDir(s.Proc)
	parents := map[int]int{}
	uids := map[int]uint32{}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		status, err := os.ReadFile(filepath.Join(s.Proc, e.Name(), "status"))
		if err != nil || !bytes.HasPrefix(status, []byte("Name:\tkamailio\n")) || bytes.Contains(status, []byte("\nState:\tZ")) {
			continue
		}
		for line := range strings.Lines(string(status)) {
			fields := strings.Fields(line)
			if len(fields) < 2 {
				continue
			}
			switch fields[0] {
			case "PPid:":
				parents[pid], _ = strconv.Atoi(fields[1])
			case "Uid:":
				uid, _ := strconv.ParseUint(fields[1], 10, 32)
				uids[pid] = uint32(uid)
			}
		}
	}
	var all []process
	for pid, parent := range parents {
		if _, child := parents[parent]; child {
			continue
		}
		p := process{pid: pid, user: userName(uids[pid]), config: "/etc/kamailio/kamailio.cfg"}
		// Only these arguments are kept: the values of -A may be passwords.
		line, _ := os.ReadFile(filepath.Join(s.Proc, strconv.Itoa(pid), "cmdline"))
		args := strings.Split(string(line), "\x00")
		for i, arg := range args {
			for name, to := range map[string]*string{"-f": &p.config, "-Y": &p.runDir} {
				switch {
				case arg == name && i+1 < len(args):
					*to = args[i+1]
				case strings.HasPrefix(arg, name) && len(arg) > 2:
					*to = arg[2:]
				}
			}
			definition, short := strings.CutPrefix(arg, "-A")
			if short && definition == "" && i+1 < len(args) {
				definition = args[i+1]
			}
			if name, _, _ := strings.Cut(definition, "="); short && name != "" {
				p.defines = append(p.defines, name)
			}
		}
		all = append(all, p)
	}
	// Not by pid only: pids wrap around.
	slices.SortFunc(all, func(a, b process) int { return cmp.Or(strings.Compare(a.config, b.config), a.pid-b.pid) })
	return all
}

// maxFound bounds the sockets that are tried in addition to the configured ones.
const maxFound = 24

// search finds sockets of Kamailio and returns their URIs. It checks the default paths,
// and the kernel's list of Unix sockets for names of Kamailio.
func (s System) search(processes []process) []string {
	var found []string
	add := func(scheme, path string, typ fs.FileMode) {
		info, err := os.Stat(path) //nolint:gosec // the path is only examined
		if err != nil || info.Mode().Type() != typ || len(found) == maxFound {
			return
		}
		if resolved, err := filepath.EvalSymlinks(path); err == nil {
			path = resolved
		}
		if uri := (&url.URL{Scheme: scheme, Path: path}).String(); !slices.Contains(found, uri) {
			found = append(found, uri)
		}
	}
	dirs := slices.Clone(s.RunDirs)
	for _, p := range processes {
		if p.runDir != "" {
			dirs = append(dirs, p.runDir)
		}
	}
	for _, dir := range dirs {
		add("unix", filepath.Join(dir, "kamailio_rpc.sock"), fs.ModeSocket)
		add("fifo", filepath.Join(dir, "kamailio_rpc.fifo"), fs.ModeNamedPipe)
		add("binrpc+unix", filepath.Join(dir, "kamailio_ctl"), fs.ModeSocket)
	}
	list, err := os.ReadFile(filepath.Join(s.Proc, "net", "unix"))
	if err != nil {
		return found
	}
	lines := bufio.NewScanner(bytes.NewReader(list))
	for lines.Scan() {
		// Num RefCount Protocol Flags Type St Inode Path (proc(5))
		fields := strings.Fields(lines.Text())
		if len(fields) != 8 || !strings.HasPrefix(fields[7], "/") || !strings.Contains(fields[7], "kamailio") {
			continue
		}
		path := fields[7]
		switch {
		case fields[4] == "0002" && strings.Contains(filepath.Base(path), "rpc"):
			add("unix", path, fs.ModeSocket)
			add("fifo", strings.TrimSuffix(path, ".sock")+".fifo", fs.ModeNamedPipe) // next to the socket, as by default
		case fields[4] == "0001" && strings.Contains(filepath.Base(path), "ctl"):
			add("binrpc+unix", path, fs.ModeSocket)
		}
	}
	return found
}
