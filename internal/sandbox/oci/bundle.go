package oci

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"

	"github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"

	"muster.dev/muster/internal/fleet"
)

// bundle is what a runtime is given: a directory with a config.json.
type bundle struct {
	id      string
	dir     string // as the runtime sees it
	log     string
	pidFile string
	open    bool
}

// inside is where a sandbox finds what is muster's.
const (
	inside      = "/run/muster"
	runnerName  = "runner"
	controlName = "control.sock"
	proxyName   = "proxy.sock"
)

// runnerCaps are what pid 1 needs to serve the agent without being it: become
// the agent's user, signal its processes, hand files over, and drop the
// bounding set. The agent's processes have none.
var runnerCaps = []string{"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_KILL", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID"}

// plan is everything that shapes a config.json.
type plan struct {
	spec     fleet.SandboxSpec
	runtime  fleet.Runtime
	hostname string
	cgroup   string // path, or empty: no limits
	swap     bool   // the kernel can bound swap
	base     int    // first host id; 0 in rootless mode
	rootless *rootless
	rights   rights
	paths    paths
	trees    []string // host directories bound at the same place, read-only
	env      []string // of pid 1
}

// paths are where the runtime finds the parts.
type paths struct {
	root, volume, run string // volume is empty for tmpfs made by the runtime
}

// config makes the OCI configuration.
func (p *plan) config() (*specs.Spec, error) {
	s := &specs.Spec{
		Version:  "1.0.2",
		Hostname: p.hostname,
		Root:     &specs.Root{Path: p.paths.root, Readonly: true},
		Process:  p.process(),
		Mounts:   p.mounts(),
		Linux:    p.linux(),
	}
	filter, err := seccomp.GetDefaultProfile(s)
	if err != nil {
		return nil, fmt.Errorf("make seccomp profile: %w", err)
	}
	s.Linux.Seccomp = filter
	return s, nil
}

func (p *plan) process() *specs.Process {
	adj := -998 // above everything of the agent when memory runs out
	files := p.rights.files(p.spec.Resources.Files)
	pr := &specs.Process{
		Args: []string{filepath.Join(inside, runnerName)},
		Env:  p.env,
		Cwd:  "/",
		Capabilities: &specs.LinuxCapabilities{
			Bounding: runnerCaps, Effective: runnerCaps, Permitted: runnerCaps,
		},
		Rlimits: []specs.POSIXRlimit{
			{Type: "RLIMIT_CORE", Hard: 0, Soft: 0},
			{Type: "RLIMIT_NOFILE", Hard: files, Soft: files},
		},
		NoNewPrivileges: true,
	}
	if p.rights.resources {
		pr.OOMScoreAdj = &adj
	}
	return pr
}

// masked and readOnly are the paths below /proc and /sys that container
// engines hide by default (opencontainers/runtime-spec, config-linux.md, names
// the mechanism; the list is that of moby and containerd).
var (
	masked = []string{
		"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys",
		"/proc/latency_stats", "/proc/sched_debug", "/proc/scsi", "/proc/timer_list",
		"/proc/timer_stats", "/sys/devices/virtual/powercap", "/sys/firmware",
	}
	readOnly = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
)

func (p *plan) linux() *specs.Linux {
	l := &specs.Linux{
		MaskedPaths: masked, ReadonlyPaths: readOnly,
		Namespaces: []specs.LinuxNamespace{
			{Type: specs.PIDNamespace}, {Type: specs.IPCNamespace}, {Type: specs.UTSNamespace},
			{Type: specs.MountNamespace}, {Type: specs.UserNamespace},
		},
		UIDMappings: p.mappings(false), GIDMappings: p.mappings(true),
	}
	if p.cgroup != "" {
		l.Namespaces = append(l.Namespaces, specs.LinuxNamespace{Type: specs.CgroupNamespace})
		l.CgroupsPath = p.cgroup
		l.Resources = p.resources()
	}
	if p.spec.Network.Mode != fleet.NetworkOpen {
		l.Namespaces = append(l.Namespaces, specs.LinuxNamespace{Type: specs.NetworkNamespace})
	}
	return l
}

func (p *plan) mappings(group bool) []specs.LinuxIDMapping {
	if p.rootless != nil {
		return p.rootless.mappings(p.runtime, group)
	}
	return []specs.LinuxIDMapping{{ContainerID: 0, HostID: uint32(p.base), Size: rangeSize}}
}

// cpuPeriod is the kernel's default accounting period, in microseconds.
const cpuPeriod = 100_000

func (p *plan) resources() *specs.LinuxResources {
	r := p.spec.Resources
	quota := r.MilliCPU * cpuPeriod / 1000
	period := uint64(cpuPeriod)
	shares := uint64(max(2, r.MilliCPU*1024/1000))
	memory := r.MemoryBytes
	pids := r.Pids + runnerThreads(p.runtime)
	res := &specs.LinuxResources{
		CPU:    &specs.LinuxCPU{Quota: &quota, Period: &period, Shares: &shares},
		Memory: &specs.LinuxMemory{Limit: &memory},
		Pids:   &specs.LinuxPids{Limit: &pids},
	}
	if p.swap {
		res.Memory.Swap = &memory
	}
	return res
}

// runnerThreads are the threads that are not the agent's. gVisor's kernel is
// a process of its own, with threads of its own and one per thread inside.
func runnerThreads(r fleet.Runtime) int64 {
	if r == fleet.RuntimeGVisor {
		return 96
	}
	return 16
}

// cores is how many processors the sandbox may use at once, for programs that
// would look at the machine otherwise.
func cores(r fleet.Resources) int {
	return min(runtime.NumCPU(), max(1, int((r.MilliCPU+999)/1000)))
}

// coreEnv makes programs size themselves to the limit: nproc (and so make -j)
// and OpenMP, Go, Python.
func coreEnv(r fleet.Resources) map[string]string {
	n := strconv.Itoa(cores(r))
	return map[string]string{"OMP_NUM_THREADS": n, "GOMAXPROCS": n, "PYTHON_CPU_COUNT": n}
}

// write puts the configuration into the bundle directory.
func writeConfig(dir string, s *specs.Spec) error {
	b, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("encode config.json: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), b, 0o600); err != nil {
		return fmt.Errorf("write config.json: %w", err)
	}
	return nil
}

func sortedEnv(m map[string]string) []string {
	out := make([]string, 0, len(m))
	for k, v := range m {
		out = append(out, k+"="+v)
	}
	slices.Sort(out)
	return out
}
