package serve

import (
	"bytes"
	"io"
	"os"
	"strconv"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/procfs"

	"github.com/kamailio-exporter/kamailio_exporter/collector"
)

// process exports the same metrics about this process as client_golang's collector, which
// reads /proc/stat, the limits, and all counters of the network at each scrape. That takes
// as long as ten calls of Kamailio.
type process struct {
	proc                         procfs.Proc
	startTime, maxFDs, maxMemory float64 // do not change

	mu     sync.Mutex
	buffer [16 << 10]byte
}

var (
	cpuDesc       = processDesc("cpu_seconds_total", "Total user and system CPU time spent in seconds.", prometheus.CounterValue)
	fdsDesc       = processDesc("open_fds", "Number of open file descriptors.", prometheus.GaugeValue)
	maxFDsDesc    = processDesc("max_fds", "Maximum number of open file descriptors.", prometheus.GaugeValue)
	memoryDesc    = processDesc("virtual_memory_bytes", "Virtual memory size in bytes.", prometheus.GaugeValue)
	maxMemoryDesc = processDesc("virtual_memory_max_bytes", "Maximum amount of virtual memory available in bytes.", prometheus.GaugeValue)
	residentDesc  = processDesc("resident_memory_bytes", "Resident memory size in bytes.", prometheus.GaugeValue)
	startDesc     = processDesc("start_time_seconds", "Start time of the process since unix epoch in seconds.", prometheus.GaugeValue)
	receivedDesc  = processDesc("network_receive_bytes_total", "Number of bytes received by the process over the network.", prometheus.CounterValue)
	sentDesc      = processDesc("network_transmit_bytes_total", "Number of bytes sent by the process over the network.", prometheus.CounterValue)
)

var processDescs = []*collector.Desc{cpuDesc, fdsDesc, maxFDsDesc, memoryDesc, maxMemoryDesc, residentDesc, startDesc, receivedDesc, sentDesc}

func processDesc(name, help string, kind prometheus.ValueType) *collector.Desc {
	return collector.NewDesc("process_"+name, help, kind, "/proc")
}

// newProcess returns nil if there is no /proc.
func newProcess() *process {
	proc, err := procfs.Self()
	if err != nil {
		return nil
	}
	p := &process{proc: proc}
	if stat, err := proc.Stat(); err == nil {
		p.startTime, _ = stat.StartTime()
	}
	if limits, err := proc.Limits(); err == nil {
		p.maxFDs, p.maxMemory = float64(limits.OpenFiles), float64(limits.AddressSpace)
	}
	return p
}

func (p *process) AddTo(g *collector.Families) {
	if stat, err := p.proc.Stat(); err == nil {
		g.Add(cpuDesc, stat.CPUTime())
		g.Add(memoryDesc, float64(stat.VirtualMemory()))
		g.Add(residentDesc, float64(stat.ResidentMemory()))
	}
	if n, err := p.proc.FileDescriptorsLen(); err == nil {
		g.Add(fdsDesc, float64(n))
	}
	if p.startTime > 0 {
		g.Add(startDesc, p.startTime)
	}
	if p.maxFDs > 0 {
		g.Add(maxFDsDesc, p.maxFDs)
		g.Add(maxMemoryDesc, p.maxMemory)
	}
	if received, sent, ok := p.networkBytes(); ok {
		g.Add(receivedDesc, received)
		g.Add(sentDesc, sent)
	}
}

// networkBytes returns the bytes of all processes in the network namespace.
func (p *process) networkBytes() (received, sent float64, ok bool) {
	file, err := os.Open("/proc/self/net/netstat")
	if err != nil {
		return 0, 0, false
	}
	defer file.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	size, _ := io.ReadFull(file, p.buffer[:])
	_, ip, _ := bytes.Cut(p.buffer[:size], []byte("IpExt: ")) // the names, and below them the values
	names, values, _ := bytes.Cut(ip, []byte("\nIpExt: "))
	for len(names) > 0 && len(values) > 0 {
		var name, value []byte
		name, names, _ = bytes.Cut(names, []byte(" "))
		value, values, _ = bytes.Cut(values, []byte(" "))
		switch string(name) {
		case "InOctets":
			received, err = strconv.ParseFloat(string(value), 64)
			ok = err == nil
		case "OutOctets":
			sent, _ = strconv.ParseFloat(string(value), 64) // follows in the same list
		}
	}
	return received, sent, ok
}
