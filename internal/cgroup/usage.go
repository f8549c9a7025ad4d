package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"muster.dev/muster/internal/fleet"
)

// Usage reads the counters of the group. What the kernel does not offer stays
// zero (pids.peak before Linux 6.1, memory.peak before 5.19). ErrNotFound when
// the group is gone. The fields that are not of cgroups (disk, net,
// memory byte-seconds) are left alone.
func (g Group) Usage() (fleet.Usage, error) {
	if g.l.Mode == None {
		return fleet.Usage{}, fmt.Errorf("read cgroup %s: no cgroups on this machine: %w", g.path, fleet.ErrUnavailable)
	}
	u := fleet.Usage{At: time.Now()}
	var err error
	if g.l.Mode == V2 {
		err = g.usageV2(&u)
	} else {
		err = g.usageV1(&u)
	}
	if errors.Is(err, os.ErrNotExist) {
		return fleet.Usage{}, fmt.Errorf("read cgroup %s: %w", g.path, fleet.ErrNotFound)
	}
	if err != nil {
		return fleet.Usage{}, fmt.Errorf("read cgroup %s: %w", g.path, err)
	}
	u.MemoryPeakBytes = max(u.MemoryPeakBytes, u.MemoryBytes)
	u.PidsPeak = max(u.PidsPeak, u.Pids)
	return u, nil
}

func (g Group) usageV2(u *fleet.Usage) error {
	r := reader{dir: filepath.Join(g.l.Unified, g.path)}
	u.MemoryBytes = r.number("memory.current", true)
	u.MemoryPeakBytes = r.number("memory.peak", false)
	u.OOMKills = r.keyed("memory.events", "oom_kill", false)
	u.CPU = time.Duration(r.keyed("cpu.stat", "usage_usec", true)) * time.Microsecond
	u.CPUThrottled = time.Duration(r.keyed("cpu.stat", "throttled_usec", false)) * time.Microsecond
	u.Pids = r.number("pids.current", true)
	u.PidsPeak = r.number("pids.peak", false)
	u.PidsDenied = r.keyed("pids.events", "max", false)
	u.IOReadBytes, u.IOWriteBytes = r.ioStat("io.stat")
	return r.err
}

func (g Group) usageV1(u *fleet.Usage) error {
	in := func(controller string) *reader {
		return &reader{dir: filepath.Join(g.l.V1[controller], g.path), absent: g.l.V1[controller] == ""}
	}
	memory, cpu, acct, pids, blkio := in("memory"), in("cpu"), in("cpuacct"), in("pids"), in("blkio")
	u.MemoryBytes = memory.number("memory.usage_in_bytes", true)
	u.MemoryPeakBytes = memory.number("memory.max_usage_in_bytes", false)
	u.OOMKills = memory.keyed("memory.oom_control", "oom_kill", false)
	u.CPU = time.Duration(acct.number("cpuacct.usage", true))
	u.CPUThrottled = time.Duration(cpu.keyed("cpu.stat", "throttled_time", false))
	u.Pids = pids.number("pids.current", true)
	u.PidsPeak = pids.number("pids.peak", false)
	u.PidsDenied = pids.keyed("pids.events", "max", false)
	u.IOReadBytes, u.IOWriteBytes = blkio.blkio("blkio.throttle.io_service_bytes")
	return errors.Join(memory.err, cpu.err, acct.err, pids.err)
}

// reader reads files of one directory and keeps the first error.
type reader struct {
	dir    string
	absent bool // the controller is not mounted: everything reads as zero
	err    error
}

func (r *reader) text(name string, must bool) string {
	if r.absent {
		return ""
	}
	b, err := os.ReadFile(filepath.Join(r.dir, name))
	if err != nil && (must || !errors.Is(err, os.ErrNotExist)) && r.err == nil {
		r.err = err
	}
	return string(b)
}

// number reads a file of one number; "max" is 0.
func (r *reader) number(name string, must bool) int64 {
	return r.parse(name, strings.TrimSpace(r.text(name, must)))
}

func (r *reader) parse(name, s string) int64 {
	if s == "" || s == "max" {
		return 0
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil && r.err == nil {
		r.err = fmt.Errorf("%s: %w", name, err)
	}
	return int64(min(n, 1<<63-1))
}

// keyed reads one key of a file of "key number" lines.
func (r *reader) keyed(name, key string, must bool) int64 {
	for line := range strings.Lines(r.text(name, must)) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), " "); ok && k == key {
			return r.parse(name, v)
		}
	}
	return 0
}

// loopMajor is the device number of loop devices: what goes to one of them is
// counted a second time at the disk below it.
const loopMajor = "7:"

// ioStat sums io.stat: "8:0 rbytes=1 wbytes=2 rios=…".
func (r *reader) ioStat(name string) (read, written int64) {
	for line := range strings.Lines(r.text(name, false)) {
		f := strings.Fields(line)
		if len(f) == 0 || strings.HasPrefix(f[0], loopMajor) {
			continue
		}
		for _, kv := range f[1:] {
			k, v, _ := strings.Cut(kv, "=")
			switch k {
			case "rbytes":
				read += r.parse(name, v)
			case "wbytes":
				written += r.parse(name, v)
			}
		}
	}
	return read, written
}

// blkio sums blkio.throttle.io_service_bytes: "8:0 Read 1".
func (r *reader) blkio(name string) (read, written int64) {
	for line := range strings.Lines(r.text(name, false)) {
		f := strings.Fields(line)
		if len(f) != 3 || strings.HasPrefix(f[0], loopMajor) {
			continue
		}
		switch f[1] {
		case "Read":
			read += r.parse(name, f[2])
		case "Write":
			written += r.parse(name, f[2])
		}
	}
	return read, written
}
