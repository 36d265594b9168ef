package doctor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/conf"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/sipprobe"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/target"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/xhttpprom"
	"github.com/kamailio-exporter/kamailio_exporter/collector"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
)

// check examines one subject. It has no findings if the subject does not exist.
type check struct {
	name    string
	section string
	run     func(ctx context.Context, p *patient) []Finding
}

// The sections of the report, in order.
const (
	sectionKamailio   = "Kamailio"
	sectionTransports = "Transports"
	sectionCollectors = "Collectors"
	sectionExporter   = "Exporter"
	sectionMore       = "More metrics"
)

// checks are all checks. To add one, add a row.
var checks = []check{
	{"processes", sectionKamailio, checkProcesses},
	{"version", sectionKamailio, checkVersion},
	{"clock", sectionKamailio, checkClock},
	{"transports", sectionTransports, checkTransports},
	{"instances", sectionTransports, checkInstances},
	{"found", sectionTransports, checkFound},
	{"permissions", sectionTransports, checkPermissions},
	{"closed", sectionTransports, checkClosedConnections},
	{"workers", sectionTransports, checkWorkers},
	{"replies", sectionTransports, checkReplySizes},
	{"collectors", sectionCollectors, checkCollectors},
	{"limits", sectionCollectors, checkLimits},
	{"usrloc", sectionCollectors, checkUsrloc},
	{"pkg", sectionCollectors, checkPkg},
	{"script metrics", sectionCollectors, checkScriptMetrics},
	{"answered", sectionCollectors, checkAnswered},
	{"trunks", sectionCollectors, checkTrunks},
	{"host", sectionCollectors, checkHost},
	{"startup", sectionExporter, checkStartup},
	{"port", sectionExporter, checkPort},
	{"environment", sectionExporter, checkEnvironment},
	{"sip", sectionExporter, checkSIP},
	{"page", sectionExporter, checkPage},
	{"large", sectionMore, checkLargeReplies},
	{"rows", sectionMore, checkRows},
	{"modules", sectionMore, checkModules},
	{"sockets", sectionMore, checkSockets},
}

func one(level Level, text string, fixes ...Fix) []Finding {
	return []Finding{{Level: level, Text: text, Fixes: fixes}}
}

func checkProcesses(_ context.Context, p *patient) (all []Finding) {
	var others []string
	trials := p.answering()
	dead := p.dead()
	for _, k := range p.processes {
		who := "Kamailio"
		switch {
		case len(dead) > 0:
			others = append(others, fmt.Sprintf("pid %d with %s", k.pid, k.config))
			continue
		case len(trials) == 0 || trials[0].id.MainPID() == "": // not known whether this is the configured one
			who = "a Kamailio server"
		case k.pid != p.mainPID:
			others = append(others, fmt.Sprintf("pid %d with %s", k.pid, k.config))
			continue
		}
		all = append(all, Finding{Level: OK, Text: fmt.Sprintf("%s runs on this host as user %s (pid %d), with %s", who, k.user, k.pid, k.config)})
	}
	if len(others) > 0 {
		all = append(all, Finding{Level: Note, Text: "other Kamailio servers run on this host, and no configured URI leads to them: " + strings.Join(others, "; ")})
	}
	if len(dead) > 0 {
		text := "no Kamailio process runs on this host"
		if len(others) > 0 {
			text = "no Kamailio process runs with " + p.cfg.System.Config
		}
		all = append(one(Fail, text+", so nothing answers at "+uris(dead), shell(p.cfg.System.service("kamailio", "start"), p.cfg.System.log()+"  # if it stops again")), all...)
	}
	return all
}

// dead returns the configured URIs of this host that do not reply because no Kamailio
// runs here, or only others than the service. That is one finding, not one for each URI.
func (p *patient) dead() (all []*trial) {
	service := func(k process) bool { return k.config == p.cfg.System.Config }
	stopped := len(p.processes) == 0 && len(p.instances(false)) == 0 ||
		len(p.processes) > 0 && isFile(p.cfg.System.Config) && !slices.ContainsFunc(p.processes, service)
	if !stopped || len(p.answering()) > 0 {
		return nil
	}
	for _, t := range p.trials {
		if t.Flag && localPath(t.given) != "" && errors.Is(t.err, kamrpc.ErrUnreachable) && strings.Contains(t.Error, "Kamailio is not running") {
			all = append(all, t)
		}
	}
	return all
}

// tested are the Kamailio versions that the tests run against.
var tested = []string{"5.4", "5.6", "6.0", "6.1"}

func checkVersion(_ context.Context, p *patient) []Finding {
	if p.version == "" || len(p.dead()) > 0 {
		return nil
	}
	text := "version " + p.version
	if p.client == nil {
		text = "the Kamailio that was found: " + text
	}
	if p.up.Exists() {
		text += ", up for " + roughly(p.uptime)
	}
	if p.modules != nil {
		text += fmt.Sprintf(", %d modules: %s", len(p.modules), strings.Join(p.modules, ", "))
	}
	all := one(OK, text)
	if !slices.ContainsFunc(tested, func(v string) bool { return strings.HasPrefix(p.version, v+".") }) {
		all = append(all, Finding{Level: Note, Text: "the exporter is tested against " + strings.Join(tested, ", ") + "; metrics that this version names differently are missing"})
	}
	if p.up.Exists() && p.uptime < time.Minute {
		all = append(all, Finding{Level: Note, Text: "it started less than a minute ago, and may still load its lists"})
	}
	return all
}

func roughly(d time.Duration) string {
	switch {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%d days", d/(24*time.Hour))
	case d >= 2*time.Hour:
		return fmt.Sprintf("%d hours", d/time.Hour)
	case d >= 2*time.Minute:
		return fmt.Sprintf("%d minutes", d/time.Minute)
	}
	return fmt.Sprintf("%d seconds", d/time.Second)
}

// maxSkew is the largest accepted clock difference. Kamailio reports whole seconds.
const maxSkew = 3 * time.Second

// checkClock compares Kamailio's clock with that of this host. core.uptime returns local
// time without a time zone (core/core_cmd.c), so a difference of a multiple of 15 minutes
// is taken for another time zone.
func checkClock(_ context.Context, p *patient) []Finding {
	local, ok := collector.LocalTime(p.up.Get("now"))
	if !ok || p.client == nil { // without a client, it may not be the Kamailio that the flags mean
		return nil
	}
	offset := time.Duration(collector.ZoneOffset(local, float64(p.upAt.Unix()))) * time.Second
	skew := local.Add(offset + time.Second/2).Sub(p.upAt) // + 0.5 s, because it was cut to whole seconds
	if skew.Abs() <= maxSkew {
		return one(OK, "its clock agrees with this host's")
	}
	side := "ahead of"
	if skew < 0 {
		side = "behind"
	}
	var fixes []Fix
	if p.cfg.System.systemd() {
		fixes = []Fix{shell("timedatectl set-ntp true")}
	}
	return one(Warn, fmt.Sprintf("its clock is about %s %s this host's clock, so ages and expiry times in the metrics are wrong by that much", skew.Abs().Round(time.Second), side), fixes...)
}

// localPath returns the path of a URI of a local socket or FIFO, and "" for other URIs.
func localPath(uri string) string {
	u, err := url.Parse(uri)
	if err != nil || !slices.Contains([]string{"unix", "fifo", "binrpc+unix"}, u.Scheme) {
		return ""
	}
	return u.Path
}

// withoutSecrets returns the part of a rejected URI that can be shown.
func withoutSecrets(uri string) string {
	u, err := url.Parse(uri)
	if err != nil || u.Scheme == "" {
		return "(not a URI)"
	}
	return u.Scheme + "://" + u.Host + u.Path
}

func schemeOf(uri string) string {
	scheme, _, _ := strings.Cut(uri, "://")
	return scheme
}

func checkTransports(_ context.Context, p *patient) (all []Finding) {
	some, dead := len(p.answering()) > 0, p.dead()
	for _, t := range p.trials {
		if !t.Flag || slices.Contains(dead, t) {
			continue
		}
		if t.Answers {
			text := fmt.Sprintf("%s replies in %.1f ms", t.URI, t.Seconds*1000)
			if t.MaxReply > 0 {
				text += ", replies up to " + size(t.MaxReply)
			} else {
				text += ", replies of any size"
			}
			all = append(all, Finding{Level: OK, Text: text})
			continue
		}
		level, text := Fail, t.URI+": "+t.Error
		switch {
		case t.via == nil:
			text = "the exporter cannot start: " + t.URI + ": " + t.Error
		case some:
			level = Warn
		}
		module := "jsonrpcs"
		if strings.HasPrefix(t.URI, "binrpc+") {
			module = "ctl"
		}
		if loaded, known := p.loads(module); known && !loaded && (some || localPath(t.given) != "") {
			text += ". The module " + module + " is not loaded"
		}
		if some && t.via != nil {
			text += ". The exporter skips this URI and uses the others"
		}
		all = append(all, Finding{Level: level, Text: text, Fixes: p.mend(t)})
	}
	return all
}

func size(bytes int64) string {
	if bytes >= 1<<20 {
		return fmt.Sprintf("%d MiB", (bytes+1<<19)>>20)
	}
	return fmt.Sprintf("%d KiB", (bytes+1<<9)>>10)
}

// mend proposes fixes for a transport that does not reply.
func (p *patient) mend(t *trial) (fixes []Fix) {
	scheme, path := schemeOf(t.URI), localPath(t.URI)
	switch {
	case t.via == nil:
		return []Fix{byFlag("--kamailio.uri=unix:///run/kamailio/kamailio_rpc.sock", "--kamailio.uri=fifo:///run/kamailio/kamailio_rpc.fifo")}
	case path != "":
		if o, err := currentAccount().reach(path, mayWrite); o != nil || errors.Is(err, fs.ErrPermission) {
			return p.open(currentAccount(), t.URI, o)
		}
		if strings.Contains(t.Error, "connection refused") {
			return []Fix{shell(p.cfg.System.service("kamailio", "restart") + "  # the file is left from a Kamailio that stopped")}
		}
		if strings.Contains(t.Error, syscall.EPROTOTYPE.Error()) {
			other := map[string]string{"unix": "binrpc+unix", "binrpc+unix": "unix"}[scheme] // a datagram socket or a stream socket
			return []Fix{byFlag("--kamailio.uri=" + other + "://" + path)}
		}
		if errors.Is(t.err, kamrpc.ErrUnreachable) && !strings.Contains(t.Error, "reply FIFO") {
			return p.elsewhere(t)
		}
	}
	hangs := errors.Is(t.err, kamrpc.ErrNoAnswer) && len(p.answering()) == 0 && len(p.cfg.URIs) > 1
	switch scheme {
	case "fifo":
		if !hangs {
			return p.mendReplyDir(t)
		}
	case "http", "https":
		return p.mendHTTP(t)
	case "udp":
		return []Fix{kamailioCfg(`loadmodule "jsonrpcs.so"`, fmt.Sprintf(`modparam("jsonrpcs", "dgram_socket", "udp:%s")  # in place of the unix socket`, hostOf(t.URI)))}
	case "tcp":
		return []Fix{kamailioCfg(`loadmodule "jsonrpcs.so"  # Kamailio 6`, fmt.Sprintf(`modparam("jsonrpcs", "tcp_socket", "tcp:%s")`, hostOf(t.URI)), `modparam("jsonrpcs", "transport", 14)`)}
	case "binrpc+tcp":
		return []Fix{kamailioCfg(`loadmodule "ctl.so"`, fmt.Sprintf(`modparam("ctl", "binrpc", "tcp:%s")`, hostOf(t.URI)))}
	}
	return []Fix{shell(p.cfg.System.log() + "  # look for why it hangs")}
}

func hostOf(uri string) string {
	u, err := url.Parse(uri)
	if err != nil {
		return ""
	}
	return u.Host
}

// elsewhere proposes a fix for a missing socket: another socket of the same kind, or the
// lines for kamailio.cfg.
func (p *patient) elsewhere(t *trial) (fixes []Fix) {
	scheme := schemeOf(t.URI)
	others := p.unnamed()
	if only := p.theOnly(); only != nil && len(p.answering()) == 0 {
		others = only.trials
	}
	for _, other := range others {
		if schemeOf(other.URI) == scheme {
			return []Fix{byFlag("--kamailio.uri=" + other.URI)}
		}
	}
	if len(p.processes) == 0 && len(p.answering()) == 0 && len(p.instances(false)) == 0 {
		return nil // no process could open it
	}
	path := localPath(t.URI)
	if scheme == "binrpc+unix" {
		return []Fix{kamailioCfg(`loadmodule "ctl.so"`, fmt.Sprintf(`modparam("ctl", "binrpc", "unix:%s")`, path), `modparam("ctl", "mode", 0660)`, `modparam("ctl", "group", "kamailio")`)}
	}
	parameter := map[string]string{"unix": "dgram_socket", "fifo": "fifo_name"}[scheme]
	lines := []string{fmt.Sprintf(`modparam("jsonrpcs", "%s", "%s")`, parameter, path)}
	if loaded, known := p.loads("jsonrpcs"); !loaded || !known {
		lines = append([]string{`loadmodule "jsonrpcs.so"`}, lines...)
	}
	return []Fix{kamailioCfg(lines...)}
}

// replyDir returns the directory in which the reply FIFOs are created.
func replyDir(uri string) string {
	if u, err := url.Parse(uri); err == nil && u.Query().Get("reply_dir") != "" {
		return u.Query().Get("reply_dir")
	}
	return "/tmp" // the default in jsonrpcs_fifo.c
}

// mendReplyDir proposes fixes if the FIFO accepted the request but no reply came.
func (p *patient) mendReplyDir(t *trial) []Fix {
	dir := strings.TrimRight(replyDir(t.given), "/")
	if errors.Is(t.err, kamrpc.ErrUnreachable) {
		return []Fix{shell("install -d -o kamailio -g kamailio -m 2770 " + dir + "  # where the exporter creates its reply FIFOs")}
	}
	for _, k := range p.processes {
		if !p.isIt(k) {
			continue
		}
		// The unit may have PrivateTmp=yes; Kamailio's /tmp is then not this host's. Only
		// root can check that.
		theirs, err := os.Stat(filepath.Join(p.cfg.System.Proc, strconv.Itoa(k.pid), "root", dir))
		ours, ourErr := os.Stat(dir)
		if err == nil && ourErr == nil && !os.SameFile(theirs, ours) {
			return []Fix{
				shell("systemctl edit kamailio  # Kamailio has a private "+dir+": add these two lines", "[Service]", "PrivateTmp=no"),
				or(kamailioCfg(`modparam("jsonrpcs", "fifo_reply_dir", "/run/kamailio/")`)),
				or(byFlag("--kamailio.uri=" + t.URI + "?reply_dir=/run/kamailio")),
			}
		}
	}
	if theirs := p.configuredReplyDir(); strings.TrimRight(theirs, "/") != "" {
		named := strings.TrimRight(theirs, "/")
		var fixes []Fix
		if named == theirs {
			fixes = append(fixes, kamailioCfg(fmt.Sprintf(`modparam("jsonrpcs", "fifo_reply_dir", "%s/")  # the slash at the end was missing`, named)))
		}
		if named != dir {
			fixes = append(fixes, byFlag("--kamailio.uri="+t.URI+"?reply_dir="+named))
		}
		if len(fixes) > 0 {
			return fixes
		}
	}
	return []Fix{
		kamailioCfg(fmt.Sprintf(`modparam("jsonrpcs", "fifo_reply_dir", "%s/")  # with a slash at the end`, dir)),
		or(byFlag("--kamailio.uri=" + t.URI + "?reply_dir=DIRECTORY  # the value of fifo_reply_dir")),
	}
}

var replyDirLine = regexp.MustCompile(`(?m)^[ \t]*modparam\([ \t]*"jsonrpcs"[ \t]*,[ \t]*"fifo_reply_dir"[ \t]*,[ \t]*"(/[^"]*)"`)

func (p *patient) configuredReplyDir() string { return p.configured(replyDirLine) }

// configured returns what the expression's group matches in kamailio.cfg, in the last
// line that matches.
func (p *patient) configured(line *regexp.Regexp) string {
	config, _ := p.configuration()
	all := line.FindAllStringSubmatch(config, -1)
	if all == nil {
		return ""
	}
	return all[len(all)-1][1]
}

// configuration returns the text of kamailio.cfg and the files that it includes, in the
// order in which Kamailio reads them. It is known only if the file belongs to this
// Kamailio and all of it can be read. The text is only searched for single lines, and is
// never printed.
func (p *patient) configuration() (text string, known bool) {
	for _, k := range p.processes {
		if !p.isIt(k) {
			continue
		}
		text, err := readConfiguration(k.config, append(p.predefined(), k.defines...))
		return text, err == nil
	}
	return "", false
}

func (p *patient) mendHTTP(t *trial) []Fix {
	u, err := url.Parse(t.URI)
	if err != nil {
		return nil
	}
	switch {
	case strings.Contains(t.Error, "HTTP status 401"):
		return []Fix{byFlag("--kamailio.http-config-file=FILE  # with basic_auth: {username: …, password: …}")}
	case strings.Contains(t.Error, "HTTP status 403"):
		return []Fix{kamailioCfg("# in event_route[xhttp:request], before it rejects other addresses:", "if (src_ip == ADDRESS_OF_THE_EXPORTER && $hu == \""+u.Path+"\") {", "\tjsonrpc_dispatch();", "\texit;", "}")}
	case strings.Contains(t.Error, "HTTP status 404"):
		return []Fix{
			kamailioCfg("# in event_route[xhttp:request], before other paths:", "if ($hu == \""+u.Path+"\") {", "\tjsonrpc_dispatch();", "\texit;", "}"),
			or(byFlag("--kamailio.uri=" + u.Scheme + "://" + u.Host + "/PATH  # a path that Kamailio serves")),
		}
	case strings.Contains(t.Error, "x509:"):
		return []Fix{byFlag("--kamailio.http-config-file=FILE  # with tls_config: {ca_file: …}")}
	case strings.Contains(t.Error, "no such host"):
		return []Fix{byFlag("--kamailio.uri=" + u.Scheme + "://HOST" + u.Path + "  # a host name that resolves")}
	}
	return []Fix{kamailioCfg("#!define WITH_JSONRPC  # in Debian's kamailio.cfg, which has the rest"), or(kamailioCfg(
		"listen=tcp:"+u.Host,
		"tcp_accept_no_cl=yes",
		`loadmodule "xhttp.so"`,
		`loadmodule "jsonrpcs.so"`,
		`modparam("jsonrpcs", "transport", 7)`,
		"event_route[xhttp:request] {",
		"\tif (src_ip != 127.0.0.1) {",
		"\t\txhttp_reply(\"403\", \"Forbidden\", \"text/plain\", \"Forbidden\\n\");",
		"\t\texit;",
		"\t}",
		"\tif ($hu == \""+u.Path+"\") {",
		"\t\tjsonrpc_dispatch();",
		"\t\texit;",
		"\t}",
		"\txhttp_reply(\"404\", \"Not Found\", \"text/plain\", \"Not found\\n\");",
		"}",
	))}
}

// open proposes how to give an account access to a socket.
func (p *patient) open(who account, uri string, o *obstacle) []Fix {
	if o != nil && o.groupHelps() {
		group := groupName(o.group)
		join := who.join(group)
		if join == nil { // the database has the group, the process does not
			return []Fix{shell("newgrp " + group + "  # " + who.name + " is a member, but this shell is older than that; or log in again")}
		}
		if join[0].Lines[0] += "  # then restart the exporter"; p.cfg.System.systemd() {
			join = append(join, or(shell("systemctl edit "+serviceName+"  # add these two lines", "[Service]", "SupplementaryGroups="+group)))
		}
		return join
	}
	const group = "kamailio"
	join := who.join(group)
	if o != nil && o.need == maySearch { // a directory above the socket
		return append([]Fix{shell(fmt.Sprintf("chgrp %s %s && chmod g+x %s", group, o.path, o.path))}, join...)
	}
	lines := kamailioCfg(`modparam("ctl", "mode", 0660)`, fmt.Sprintf(`modparam("ctl", "group", "%s")`, group))
	if kind := map[string]string{"unix": "dgram", "fifo": "fifo"}[schemeOf(uri)]; kind != "" {
		lines = kamailioCfg(fmt.Sprintf(`modparam("jsonrpcs", "%s_mode", 0660)`, kind), fmt.Sprintf(`modparam("jsonrpcs", "%s_group", "%s")`, kind, group))
	}
	return append([]Fix{lines}, join...)
}

// join proposes to add an account to a group, unless it is a member.
func (a account) join(group string) []Fix {
	g, _ := user.LookupGroup(group)
	u, _ := user.Lookup(a.name)
	if g != nil && u != nil {
		gids, _ := u.GroupIds()
		if slices.Contains(gids, g.Gid) || slices.ContainsFunc(a.gids, func(gid uint32) bool { return strconv.FormatUint(uint64(gid), 10) == g.Gid }) {
			return nil
		}
	}
	return []Fix{shell(fmt.Sprintf("usermod -aG %s %s", group, a.name))}
}

// checkPermissions checks whether the service's user may use the sockets.
func checkPermissions(_ context.Context, p *patient) (all []Finding) {
	if p.whoErr != nil {
		return one(Warn, "permissions were not checked: "+p.whoErr.Error(), byFlag("--user="+serviceName))
	}
	var fine []string
	answer := false // whether a transport that this user may use replies
	for _, t := range p.trials {
		path := localPath(t.given)
		if !t.Flag {
			continue
		}
		if path == "" {
			answer = answer || t.Answers
			continue
		}
		o, err := p.who.reach(path, mayWrite)
		if err != nil {
			continue // it does not exist, which is another finding
		}
		if o == nil && schemeOf(t.URI) == "fifo" && t.Answers {
			o, err = p.who.need(replyDir(t.given), mayWrite|maySearch)
			if err != nil {
				all = append(all, Finding{Level: Warn, Text: fmt.Sprintf("the directory %s for the replies of the FIFO does not exist", replyDir(t.given)), Fixes: p.mendReplyDir(t)})
				continue
			}
		}
		if o == nil {
			fine = append(fine, t.URI)
			answer = answer || t.Answers
			continue
		}
		if p.who.self && !t.Answers {
			continue // the trial has already reported it
		}
		all = append(all, Finding{Level: Warn, Text: fmt.Sprintf("user %s (from %s) may not use %s: %s", p.who.name, p.who.from, t.URI, o), Fixes: p.open(p.who, t.URI, o)})
	}
	if len(p.answering()) > 0 && !answer {
		for i := range all {
			all[i].Level = Fail // the user may use none of them
		}
	}
	switch {
	case p.who.self && p.who.uid == 0 && len(fine) > 0:
		all = append(all, Finding{Level: Note, Text: "permissions were not checked: doctor runs as root, and there is no user " + serviceName, Fixes: []Fix{byFlag("--user=NAME  # the user that the exporter runs as")}})
	case len(fine) > 0 && !p.who.self:
		all = append(all, Finding{Level: OK, Text: fmt.Sprintf("user %s (from %s) may use %s", p.who.name, p.who.from, strings.Join(fine, ", "))})
	}
	return all
}

func checkClosedConnections(_ context.Context, p *patient) (all []Finding) {
	for _, t := range p.answering() {
		if t.dials > 1 {
			all = append(all, Finding{Level: Note, Text: t.URI + " closes each connection after its reply, as Debian's kamailio.cfg does, so that each call takes about twice as long",
				Fixes: []Fix{kamailioCfg("# in event_route[xhttp:request], remove:", "set_reply_close();")}})
		}
	}
	return all
}

// checkWorkers compares the number of concurrent RPCs with Kamailio's TCP workers: RPCs
// over HTTP use the workers that serve SIP over TCP.
func checkWorkers(_ context.Context, p *patient) []Finding {
	trials := p.answering()
	if len(trials) == 0 || !strings.HasPrefix(trials[0].URI, "http") {
		return nil
	}
	workers := p.workers["tcp receiver"]
	if workers == 0 || p.cfg.MaxConcurrent < workers {
		return nil
	}
	return one(Warn, fmt.Sprintf("--kamailio.max-concurrent-rpcs is %d, and Kamailio has %d TCP workers: a scrape can occupy all of them, and delay SIP over TCP", p.cfg.MaxConcurrent, workers),
		kamailioCfg(fmt.Sprintf("tcp_children=%d", max(4, p.cfg.MaxConcurrent*2))),
		or(byFlag(fmt.Sprintf("--kamailio.max-concurrent-rpcs=%d", max(1, workers-1)))))
}

// checkReplySizes compares the sizes of the replies with the limits of the transports.
func checkReplySizes(_ context.Context, p *patient) (all []Finding) {
	trials := p.answering()
	if p.snapshot == nil || len(trials) == 0 {
		return nil
	}
	first, most := trials[0].MaxReply, trials[0].MaxReply
	for _, t := range trials {
		if t.MaxReply == 0 || most > 0 && t.MaxReply > most {
			most = t.MaxReply
		}
	}
	var method string
	for m, n := range p.largest {
		if n > p.largest[method] || n == p.largest[method] && m < method {
			method = m
		}
	}
	text := fmt.Sprintf("the largest reply of a scrape is that of %s (%s)", method, size(p.largest[method]))
	for m, n := range p.largest {
		limit := first
		if price, _ := kamrpc.PriceOf(m); price.Cost == kamrpc.Growing {
			limit = most
		}
		if limit == 0 || n <= limit/2 {
			continue
		}
		// A reply that does not fit the first transport is read over the one with the
		// highest limit.
		if most == 0 || most > limit {
			continue
		}
		f := Finding{Level: Warn, Text: fmt.Sprintf("the reply of %s has %s, and this transport carries at most %s: if the reply grows, it is lost", m, size(n), size(limit)),
			Fixes: []Fix{byFlag("--kamailio.uri="+trials[0].given, p.largeTransport())}}
		if loaded, known := p.loads("jsonrpcs"); loaded || !known {
			f.Fixes = append(f.Fixes, or(kamailioCfg(`modparam("jsonrpcs", "pretty_format", 0)  # smaller replies`)))
		}
		all = append(all, f)
	}
	slices.SortFunc(all, func(a, b Finding) int { return strings.Compare(a.Text, b.Text) })
	if len(all) == 0 && method != "" {
		all = one(OK, text)
	}
	return all
}

func checkCollectors(_ context.Context, p *patient) (all []Finding) {
	if p.snapshot == nil {
		return nil
	}
	if !p.snapshot.Up {
		return one(Fail, "the scrape failed: "+p.snapshot.Err.Error())
	}
	var works []string
	samples := 0
	for _, c := range p.collectors() {
		if c.State == "works" {
			works = append(works, c.Name)
			samples += c.Samples
		}
	}
	all = one(OK, fmt.Sprintf("%d collectors work, with %d samples in %d ms: %s", len(works), samples, p.snapshot.Duration.Milliseconds(), strings.Join(works, ", ")))
	for _, r := range p.snapshot.Results {
		method, reason := r.Skipped()
		switch {
		case !r.Supported:
		case r.Err != nil:
			all = append(all, Finding{Level: Warn, Text: fmt.Sprintf("%s fails: %v", r.Collector, r.Err), Fixes: p.failure(r)})
		case reason == "danger":
			all = append(all, Finding{Level: Note, Text: fmt.Sprintf("%s: %s is skipped because it can crash Kamailio %s; other versions may be safe (docs/rpc-costs.md)", r.Collector, method, p.version)})
		case reason == "unknown":
			price, _ := kamrpc.PriceOf(method)
			all = append(all, Finding{Level: Note, Text: fmt.Sprintf("%s: %s is skipped because Kamailio does not report the number of %s", r.Collector, method, price.Of)})
		}
	}
	return all
}

// failure proposes fixes for a collector that fails, if any are known.
func (p *patient) failure(r collector.Result) []Fix {
	switch {
	case errors.Is(r.Err, kamrpc.ErrNoAnswer) && !p.carriesLarge():
		return []Fix{byFlag("--kamailio.uri="+p.answering()[0].given, p.largeTransport())}
	case errors.Is(r.Err, kamrpc.ErrOutgrown):
		return []Fix{
			byFlag("--kamailio.uri=unix:///run/kamailio/kamailio_rpc.sock", "--kamailio.uri=fifo:///run/kamailio/kamailio_rpc.fifo"),
			or(kamailioCfg(`modparam("ctl", "binrpc_max_body_size", 256)`, `modparam("ctl", "binrpc_struct_max_body_size", 64)`)),
		}
	case errors.Is(r.Err, kamrpc.ErrTooLarge):
		return []Fix{byFlag("--kamailio.max-reply-size=64MiB"), or(byFlag("--no-collector." + r.Collector))}
	case errors.Is(r.Err, kamrpc.ErrNoAnswer), errors.Is(r.Err, context.DeadlineExceeded):
		return []Fix{byFlag("--kamailio.timeout=5s  # and a longer scrape_timeout in prometheus.yml"), or(byFlag("--no-collector." + r.Collector))}
	}
	return nil
}

// checkLimits compares the number of entries in Kamailio with the limits of the
// collectors that list them.
func checkLimits(_ context.Context, p *patient) (all []Finding) {
	for _, g := range p.sizes {
		limit := float64(g.guard.Limit)
		name := "--collector." + g.name + ".limit"
		price, _ := kamrpc.PriceOf(g.guard.Method)
		switch {
		case g.guard.Limit == 0:
			all = append(all, Finding{Level: Note, Text: fmt.Sprintf("%s: %s=0 disables %s", g.name, name, g.guard.Method)})
		case g.size > limit:
			all = append(all, Finding{Level: Note, Text: fmt.Sprintf("%s: there are %.0f %s, more than %s=%d, so that %s is skipped. Their number is exported. Cost of the call: %s", g.name, g.size, price.Of, name, g.guard.Limit, g.guard.Method, price.Note),
				Fixes: []Fix{byFlag(fmt.Sprintf("%s=%.0f  # if Kamailio can afford it", name, math.Ceil(g.size*1.25/1000)*1000))}})
		case g.size > limit*0.8:
			all = append(all, Finding{Level: Note, Text: fmt.Sprintf("%s: there are %.0f %s; above %s=%d, %s is skipped", g.name, g.size, price.Of, name, g.guard.Limit, g.guard.Method)})
		default:
			all = append(all, Finding{Level: OK, Text: fmt.Sprintf("%s: %.0f %s, the limit is %d", g.name, g.size, price.Of, g.guard.Limit)})
		}
	}
	return all
}

func checkStartup(_ context.Context, p *patient) (all []Finding) {
	for _, err := range p.cfg.Startup {
		if errors.Is(err, fs.ErrPermission) {
			all = append(all, Finding{Level: Warn, Text: fmt.Sprintf("the exporter cannot start as user %s: %s", currentAccount().name, conf.OneLine(err)), Fixes: []Fix{shell("sudo kamailio_exporter doctor  # checks with the permissions of the service's user")}})
			continue
		}
		all = append(all, Finding{Level: Fail, Text: "the exporter cannot start: " + conf.OneLine(err)})
	}
	if p.who.self {
		return all
	}
	for _, file := range p.cfg.Files {
		if o, err := p.who.reach(file, mayRead); err == nil && o != nil {
			all = append(all, Finding{Level: Fail, Text: fmt.Sprintf("the exporter cannot start as user %s (from %s), which may not read %s: %s", p.who.name, p.who.from, file, o), Fixes: []Fix{p.who.letRead(o)}})
		}
	}
	return all
}

// letRead proposes how to give an account access to one of its own files.
func (a account) letRead(o *obstacle) Fix {
	bits := "g+r"
	if o.need == maySearch {
		bits = "g+x"
	}
	return shell(fmt.Sprintf("chgrp %s %s && chmod %s %s", groupName(a.gid), o.path, bits, o.path))
}

// checkPort checks whether the exporter can listen, or already does.
func checkPort(ctx context.Context, p *patient) (all []Finding) {
	for _, address := range p.cfg.Listen {
		if strings.Contains(address, "://") {
			continue // a vsock address
		}
		listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
		switch {
		case err == nil:
			listener.Close()
			all = append(all, Finding{Level: OK, Text: "port " + address + " is free: the exporter can listen there, but is not running"})
		case errors.Is(err, syscall.EADDRINUSE) && isExporter(ctx, address):
			all = append(all, Finding{Level: OK, Text: "an exporter is listening on " + address})
		case errors.Is(err, syscall.EADDRINUSE):
			all = append(all, Finding{Level: Warn, Text: "port " + address + " is in use, by another program or by an exporter with TLS or a password",
				Fixes: []Fix{shell("ss -ltnp 'sport = :" + portOf(address) + "'"), byFlag("--web.listen-address=:9495  # if another program uses it")}})
		default:
			all = append(all, Finding{Level: Fail, Text: "the exporter cannot listen on " + address + ": " + err.Error(), Fixes: []Fix{byFlag("--web.listen-address=:9494")}})
		}
	}
	return all
}

func portOf(address string) string {
	_, port, _ := net.SplitHostPort(address)
	return port
}

// isExporter reports whether the landing page at this address is that of an exporter.
func isExporter(ctx context.Context, address string) bool {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	if host == "" || net.ParseIP(host).IsUnspecified() {
		host = "localhost"
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(host, port)+"/", nil)
	if err != nil {
		return false
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DisableCompression: true, MaxResponseHeaderBytes: 16 << 10}}
	resp, err := client.Do(r)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	return strings.Contains(string(text), "Kamailio Exporter")
}

// checkEnvironment reports settings in the service's environment file that are missing in
// this shell.
func checkEnvironment(_ context.Context, p *patient) []Finding {
	text, err := os.ReadFile(p.cfg.System.EnvFile)
	if err != nil {
		return nil
	}
	var missing []string
	for line := range strings.Lines(string(text)) {
		name, _, ok := strings.Cut(strings.TrimSpace(line), "=")
		if !ok || !strings.HasPrefix(name, "KAMAILIO_EXPORTER_") {
			continue
		}
		if _, here := os.LookupEnv(name); !here {
			missing = append(missing, name)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return one(Note, fmt.Sprintf("your shell does not have these settings of the service from %s: %s", p.cfg.System.EnvFile, strings.Join(missing, ", ")),
		shell("(set -a; . "+p.cfg.System.EnvFile+"; kamailio_exporter doctor)"))
}

func checkSIP(_ context.Context, p *patient) (all []Finding) {
	for _, probe := range p.probes {
		target := probe.String()
		if probe.Err != nil {
			all = append(all, Finding{Level: Warn, Text: fmt.Sprintf("SIP probe of %s failed: %v", target, probe.Err), Fixes: mendSIP(probe)})
			continue
		}
		all = append(all, Finding{Level: OK, Text: fmt.Sprintf("SIP probe of %s: status %d in %.1f ms", target, probe.Status, probe.Duration.Seconds()*1000)})
		switch left := time.Until(probe.NotAfter); {
		case probe.NotAfter.IsZero():
		case left < 0:
			all = append(all, Finding{Level: Warn, Text: "the certificate of " + target + " has expired"})
		case left < 14*24*time.Hour:
			all = append(all, Finding{Level: Warn, Text: "the certificate of " + target + " expires in " + roughly(left)})
		}
		if probe.VerifyErr != nil {
			all = append(all, Finding{Level: Note, Text: fmt.Sprintf("the certificate of %s is not trusted: %v", target, probe.VerifyErr),
				Fixes: []Fix{byFlag("--sip.tls-ca-file=FILE  # the certificate of your own CA"), or(byFlag("--sip.probe=" + probe.Transport + ":" + probe.Address + "?server_name=NAME  # a name in the certificate"))}})
		}
	}
	return all
}

// mendSIP proposes fixes for a SIP socket that does not reply, based on the error.
func mendSIP(probe sipprobe.Result) []Fix {
	switch dns := (*net.DNSError)(nil); {
	case errors.As(probe.Err, &dns):
		return []Fix{byFlag("--sip.probe=" + probe.Transport + ":HOST:PORT  # a host name that resolves")}
	case errors.Is(probe.Err, syscall.ECONNREFUSED):
		return []Fix{
			kamailioCfg("listen=" + probe.Transport + ":" + probe.Address),
			or(byFlag("--sip.probe=TRANSPORT:HOST:PORT  # an address that Kamailio listens on")),
		}
	case strings.HasPrefix(probe.Err.Error(), "TLS handshake"):
		return []Fix{
			shell("openssl s_client -connect " + probe.Address + "  # check that it uses TLS, and requires no client certificate"),
			or(byFlag("--sip.probe=tcp:HOST:PORT  # if it does not use TLS")),
		}
	}
	return []Fix{shell(
		"sudo kamcmd core.psx  # check that its SIP workers run; gdb -p PID shows where one hangs",
		"sudo kamcmd pike.list  # if the script uses pike, check that this host is not blocked",
		"ss -lun  # check that it listens on "+probe.String()+": over UDP, a closed port can look like a timeout",
	)}
}

func checkPage(_ context.Context, p *patient) []Finding {
	if p.page == nil {
		return nil
	}
	if p.page.Err != nil {
		return one(Warn, "the page of xhttp_prom cannot be read: "+p.page.Err.Error(), p.mendPage(p.page.Err)...)
	}
	return one(OK, "the page of xhttp_prom is merged")
}

// mendPage proposes fixes for an xhttp_prom page that cannot be read, based on the error.
func (p *patient) mendPage(err error) []Fix {
	withoutStatistics := `modparam("xhttp_prom", "xhttp_prom_stats", "")  # the exporter exports them`
	switch {
	case errors.Is(err, xhttpprom.ErrRefused):
		return []Fix{kamailioCfg("listen=tcp:ADDRESS:PORT  # as in --xhttp_prom.url"), or(byFlag("--xhttp_prom.url=http://ADDRESS:PORT/metrics  # a TCP socket that Kamailio listens on"))}
	case errors.Is(err, xhttpprom.ErrTLS):
		return []Fix{byFlag("--kamailio.http-config-file=FILE  # with tls_config: {ca_file: …}")}
	case errors.Is(err, xhttpprom.ErrClosed):
		return []Fix{kamailioCfg("tcp_accept_no_cl=yes", `loadmodule "xhttp.so"`)}
	case errors.Is(err, xhttpprom.ErrTimedOut):
		return []Fix{
			kamailioCfg(noTimeoutLine, "tcp_children=8", "# at the end of event_route[xhttp:request]:", `xhttp_reply("404", "Not Found", "text/plain", "Not found\n");`),
			or(byFlag("--xhttp_prom.timeout=5s")),
		}
	case errors.Is(err, xhttpprom.ErrUnauthorized):
		return []Fix{byFlag("--kamailio.http-config-file=FILE  # with basic_auth: {username: …, password: …}")}
	case errors.Is(err, xhttpprom.ErrForbidden):
		return []Fix{kamailioCfg("# in event_route[xhttp:request], before it rejects other addresses:", "if (src_ip == ADDRESS_OF_THE_EXPORTER && prom_check_uri()) {", "\tprom_dispatch();", "\texit;", "}")}
	case errors.Is(err, xhttpprom.ErrBuffer):
		return []Fix{kamailioCfg(withoutStatistics, `modparam("xhttp_prom", "xhttp_prom_buf_size", 1000000)  # bytes, of private memory`), shell(p.cfg.System.log() + "  # look for: body buffer overflow, no private memory, stat not found")}
	case errors.Is(err, xhttpprom.ErrTooLarge):
		return []Fix{kamailioCfg(withoutStatistics), or(byFlag("--xhttp_prom.max-size=8MiB"))}
	case errors.Is(err, xhttpprom.ErrNotFound):
		return []Fix{kamailioCfg(
			`loadmodule "xhttp.so"`, `loadmodule "xhttp_prom.so"`, `modparam("xhttp_prom", "xhttp_prom_stats", "")`, noTimeoutLine,
			"event_route[xhttp:request] {", "\tif (prom_check_uri()) {", "\t\tprom_dispatch();", "\t\texit;", "\t}", "}"),
			or(byFlag("--xhttp_prom.url=http://ADDRESS:PORT/metrics  # prom_check_uri() accepts no other path"))}
	case errors.Is(err, xhttpprom.ErrCutOff):
		return []Fix{shell(p.cfg.System.log() + "  # check whether it restarted")}
	}
	return []Fix{byFlag("--xhttp_prom.url=http://ADDRESS:PORT/metrics  # the page of Kamailio itself")}
}

const noTimeoutLine = `modparam("xhttp_prom", "xhttp_prom_timeout", 0)`

var (
	scriptMetricLine  = regexp.MustCompile(`(?m)^[ \t]*modparam\([ \t]*"[^"]*\bxhttp_prom\b[^"]*"[ \t]*,[ \t]*"prom_(?:counter|gauge|histogram)"`)
	scriptTimeoutLine = regexp.MustCompile(`(?m)^[ \t]*modparam\([ \t]*"[^"]*\bxhttp_prom\b[^"]*"[ \t]*,[ \t]*"xhttp_prom_timeout"[ \t]*,[ \t]*([^) \t]+)`)
)

// checkScriptMetrics checks xhttp_prom_timeout. Unless it is 0 (default 60 minutes), each
// change of a series makes xhttp_prom search all series, under one lock for all processes
// (xhttp_prom/prom_metric.c, prom_metric_list_timeout_delete).
func checkScriptMetrics(_ context.Context, p *patient) []Finding {
	if loaded, _ := p.loads("xhttp_prom"); !loaded {
		return nil
	}
	const why = "each change of a script metric searches all of them for expired ones, under a lock that all processes share, so that many series delay calls; and a series that did not change for this time, such as that of an idle gateway, is lost. With 0, series stay until a restart, so their labels must have few values"
	config, known := p.configuration()
	if !known {
		return one(Note, "xhttp_prom is loaded, and kamailio.cfg could not be read. Unless its xhttp_prom_timeout is 0, "+why, kamailioCfg(noTimeoutLine))
	}
	if !scriptMetricLine.MatchString(config) {
		return nil
	}
	set := "not set, so it is 60 minutes"
	if all := scriptTimeoutLine.FindAllStringSubmatch(config, -1); all != nil {
		last := all[len(all)-1][1]
		if minutes, err := strconv.Atoi(last); err != nil || minutes == 0 {
			return nil
		}
		set = last + " minutes"
	}
	return one(Warn, "xhttp_prom_timeout is "+set+": "+why, kamailioCfg(noTimeoutLine))
}

// carriesLarge reports whether a configured transport can carry large replies.
func (p *patient) carriesLarge() bool {
	return slices.ContainsFunc(p.trials, func(t *trial) bool { return t.Flag && (t.MaxReply == 0 || t.MaxReply > 1<<20) })
}

// largeTransport returns a flag for a transport that carries large replies: the FIFO on
// this host, or HTTP to another host.
func (p *patient) largeTransport() string {
	for _, t := range p.answering() {
		u, err := url.Parse(t.given)
		if err == nil && !target.OnThisHost(t.given) {
			return "--kamailio.uri=http://" + net.JoinHostPort(u.Hostname(), "5060") + "/RPC"
		}
	}
	return "--kamailio.uri=fifo:///run/kamailio/kamailio_rpc.fifo"
}

// checkLargeReplies proposes a transport for large replies, without which long lists are
// lost.
func checkLargeReplies(_ context.Context, p *patient) []Finding {
	trials := p.answering()
	if len(trials) == 0 || p.carriesLarge() {
		return nil
	}
	for _, t := range p.unnamed() {
		if t.MaxReply == 0 {
			return one(Note, "replies of more than "+size(trials[0].MaxReply)+" do not fit the configured transports. Add this one", byFlag("--kamailio.uri="+trials[0].given, "--kamailio.uri="+t.URI))
		}
	}
	return one(Note, "replies of more than "+size(trials[0].MaxReply)+" (long lists of destinations or contacts) do not fit this transport. Add this one of jsonrpcs", byFlag("--kamailio.uri="+trials[0].given, p.largeTransport()))
}

// checkSockets proposes SIP probes.
func checkSockets(_ context.Context, p *patient) []Finding {
	if p.snapshot == nil || p.cfg.SIP != nil {
		return nil
	}
	var targets []string
	for _, r := range p.snapshot.Results {
		for _, s := range r.Samples {
			if s.Desc.Name != "kamailio_core_listen_socket_info" || len(s.Labels) != 3 {
				continue
			}
			transport, host, port := strings.ToLower(s.Labels[0]), strings.Trim(s.Labels[1], "[]"), s.Labels[2]
			if slices.Contains([]string{"udp", "tcp", "tls"}, transport) {
				targets = append(targets, "--sip.probe="+transport+":"+net.JoinHostPort(host, port))
			}
		}
	}
	if len(targets) == 0 {
		return nil
	}
	return one(Note, "SIP is not probed: SIP workers can hang while RPCs still work", byFlag(targets[:min(len(targets), 4)]...))
}
