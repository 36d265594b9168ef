package doctor

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/kamailio-exporter/kamailio_exporter/collector"
)

const hostCollector = "host"

// checkHost reports what keeps the exporter from reading Kamailio's processes and sockets
// on this host. Nothing of it is a failure.
func checkHost(_ context.Context, p *patient) (all []Finding) {
	i := slices.IndexFunc(p.cfg.Collectors, func(c collector.Collector) bool { return c.Name() == hostCollector })
	if i < 0 || p.cfg.Host == nil || p.snapshot == nil || !p.snapshot.Up {
		return nil // disabled, or Kamailio runs on another host
	}
	const lost = "the exporter cannot report dropped datagrams, receive queues, and what Kamailio's processes use: "
	container := []Fix{
		shell("docker run --pid=container:KAMAILIO --network=container:KAMAILIO …  # if Kamailio runs in the container KAMAILIO"),
		or(shell("shareProcessNamespace: true  # in the spec of a Kubernetes pod with Kamailio and the exporter")),
	}
	unit := p.cfg.System.unit()
	if hides := unit["ProtectProc"]; hides == "invisible" || hides == "noaccess" {
		return one(Note, lost+"its unit has ProtectProc="+hides, shell("systemctl edit kamailio-exporter  # add these two lines", "[Service]", "ProtectProc=default"))
	}
	if option := p.cfg.System.hidepid(); option != "" && p.who.uid != 0 {
		return one(Note, lost+"/proc is mounted with "+option, shell("mount -o remount,hidepid=off /proc  # and in /etc/fstab"),
			or(shell("systemctl edit kamailio-exporter  # add these two lines; GROUP is that of the option gid= of /proc", "[Service]", "SupplementaryGroups=GROUP")))
	}
	r := p.snapshot.Results[i]
	if !r.Supported {
		if opened, err := p.cfg.Host.Open(p.pids(), p.upAt.Add(-p.uptime)); err != nil {
			all = one(Note, lost+strings.TrimPrefix(err.Error(), collector.ErrNoData.Error()+": "), container...)
		} else {
			opened.Close()
		}
		return all
	}
	has := func(metric string) bool {
		return slices.ContainsFunc(r.Samples, func(s collector.Sample) bool { return s.Desc.Name == metric })
	}
	families, restricted := unit["RestrictAddressFamilies"]
	if has("kamailio_host_udp_queue_bytes") && (!has("kamailio_host_udp_queue_limit_bytes") || restricted && !strings.Contains(families, "AF_NETLINK")) {
		all = append(all, one(Note, "the exporter cannot report the limits of Kamailio's receive queues, and nothing of TCP: that needs Kamailio's network namespace, the address family AF_NETLINK and the kernel module udp_diag",
			shell("systemctl edit kamailio-exporter  # add these two lines", "[Service]", "RestrictAddressFamilies=AF_NETLINK"), or(container[0]))...)
	}
	if !has("kamailio_host_process_open_fds") {
		all = append(all, one(Note, "the exporter cannot count Kamailio's file descriptors: that needs Linux 6.2, or the permission to trace Kamailio, as root or as Kamailio's user")...)
	}
	return all
}

// pids returns the processes of the Kamailio that is examined.
func (p *patient) pids() (pids []int) {
	if trials := p.answering(); len(trials) > 0 {
		for _, process := range trials[0].id.Processes {
			if pid, err := strconv.Atoi(process.PID); err == nil && pid > 0 {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// hidepid returns the mount option that hides the processes of other users; "" if none
// does.
func (s System) hidepid() string {
	mounts, _ := os.ReadFile(filepath.Join(s.Proc, "mounts"))
	for line := range strings.Lines(string(mounts)) {
		// Device, mount point, type, options (fstab(5)).
		fields := strings.Fields(line)
		if len(fields) < 4 || fields[1] != "/proc" || fields[2] != "proc" {
			continue
		}
		for option := range strings.SplitSeq(fields[3], ",") {
			if value, ok := strings.CutPrefix(option, "hidepid="); ok && value != "0" && value != "off" {
				return option
			}
		}
	}
	return ""
}
