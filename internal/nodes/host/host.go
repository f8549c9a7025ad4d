package host

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"muster.dev/muster/internal/fleet"
)

// Options describe how much of the machine sandboxes may have.
type Options struct {
	ID              fleet.NodeID // default "local"
	Dir             string       // where sandboxes write, for the free disk
	ReserveMilliCPU int64        // kept for the host
	ReserveMemory   int64        // bytes kept for the host
	OvercommitCPU   float64      // limits may add up to this times the machine; 0: 1
	OvercommitMem   float64      // likewise; 0: 1
	Slots           int          // most sandboxes at once; 0: no bound of its own
	Root            string       // file system root, for tests; "" is /
	Clock           func() time.Time
}

// Nodes is one machine.
type Nodes struct {
	opt   Options
	start time.Time

	mu       sync.Mutex
	cordoned bool
}

// New reads the machine once to see that it can be read.
func New(o Options) (*Nodes, error) {
	if o.ID == "" {
		o.ID = "local"
	}
	if o.OvercommitCPU <= 0 {
		o.OvercommitCPU = 1
	}
	if o.OvercommitMem <= 0 {
		o.OvercommitMem = 1
	}
	if o.Root == "" {
		o.Root = "/"
	}
	if o.Dir == "" {
		o.Dir = o.Root
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	n := &Nodes{opt: o, start: o.Clock()}
	if _, err := n.List(context.Background()); err != nil {
		return nil, err
	}
	return n, nil
}

// List returns the machine as it is now.
func (n *Nodes) List(context.Context) ([]fleet.Node, error) {
	mem, err := n.memory()
	if err != nil {
		return nil, fmt.Errorf("read the memory of this machine: %w: %w", err, fleet.ErrUnavailable)
	}
	cpu := n.milliCPU()
	o := n.opt
	node := fleet.Node{
		ID: o.ID, State: fleet.NodeReady,
		MilliCPU:    int64(float64(max(0, cpu-o.ReserveMilliCPU)) * o.OvercommitCPU),
		MemoryBytes: int64(float64(max(0, mem-o.ReserveMemory)) * o.OvercommitMem),
		Slots:       o.Slots, RequestedAt: n.start, ReadyAt: n.start,
		TotalMilliCPU: int64(float64(cpu) * o.OvercommitCPU), TotalMemoryBytes: int64(float64(mem) * o.OvercommitMem),
	}
	if node.Slots <= 0 {
		node.Slots = 10_000
	}
	// A reading that fails is an error: zero would say that the disk is full.
	var fs unix.Statfs_t
	if err := unix.Statfs(o.Dir, &fs); err != nil {
		return nil, fmt.Errorf("read the free space of %s: %w: %w", o.Dir, err, fleet.ErrUnavailable)
	}
	node.DiskBytes = int64(fs.Bavail) * fs.Bsize
	n.mu.Lock()
	if n.cordoned {
		node.State = fleet.NodeCordoned
	}
	n.mu.Unlock()
	return []fleet.Node{node}, nil
}

// Scale cannot bring a second machine.
func (n *Nodes) Scale(_ context.Context, nodes int) error {
	if nodes == 1 {
		return nil
	}
	return &fleet.FieldError{Field: "spec.nodes.provider", Wrong: fmt.Sprintf("host has exactly one node, not %d", nodes), Right: "a provider that can bring nodes"}
}

// Cordon stops new sandboxes on the machine.
func (n *Nodes) Cordon(_ context.Context, id fleet.NodeID) error { return n.cordon(id, true) }

// Uncordon allows them again.
func (n *Nodes) Uncordon(_ context.Context, id fleet.NodeID) error { return n.cordon(id, false) }

func (n *Nodes) cordon(id fleet.NodeID, on bool) error {
	if id != n.opt.ID {
		return fmt.Errorf("node %s: %w", id, fleet.ErrNotFound)
	}
	n.mu.Lock()
	n.cordoned = on
	n.mu.Unlock()
	return nil
}

// Release cannot give the machine back.
func (n *Nodes) Release(context.Context, fleet.NodeID) error {
	return &fleet.FieldError{Field: "spec.nodes.provider", Wrong: "this machine cannot be released", Right: "a provider that can return nodes"}
}

// milliCPU is what this process may use: its affinity, and the quota of its
// cgroup where there is one.
func (n *Nodes) milliCPU() int64 {
	cpus := int64(runtime.NumCPU()) * 1000
	for _, dir := range n.cgroupDirs("cpu") {
		if q, ok := readQuota(dir); ok && q > 0 && q < cpus {
			cpus = q
		}
	}
	return cpus
}

// memory is the machine's memory, or the limit of the control plane's cgroup
// where that is less, in bytes.
func (n *Nodes) memory() (int64, error) {
	b, err := os.ReadFile(filepath.Join(n.opt.Root, "proc/meminfo"))
	if err != nil {
		return 0, err
	}
	total := int64(0)
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) >= 2 && f[0] == "MemTotal:" {
			kib, err := strconv.ParseInt(f[1], 10, 64)
			if err != nil {
				return 0, fmt.Errorf("MemTotal: %w", err)
			}
			total = kib << 10
		}
	}
	if total == 0 {
		return 0, errors.New("no MemTotal in /proc/meminfo")
	}
	for _, dir := range n.cgroupDirs("memory") {
		for _, f := range []string{"memory.max", "memory.limit_in_bytes"} {
			if v, ok := readInt(filepath.Join(dir, f)); ok && v > 0 && v < total {
				total = v
			}
		}
	}
	return total, nil
}

// cgroupDirs are the directories of our own group and its parents, of both
// versions, that may carry a limit of the controller.
func (n *Nodes) cgroupDirs(controller string) []string {
	f, err := os.Open(filepath.Join(n.opt.Root, "proc/self/cgroup"))
	if err != nil {
		return nil
	}
	defer f.Close()
	var out []string
	sc := bufio.NewScanner(f)
	for sc.Scan() {
		p := strings.SplitN(sc.Text(), ":", 3)
		if len(p) != 3 {
			continue
		}
		var mounts []string // where systemd and others put them
		switch {
		case p[1] == "":
			mounts = []string{"", "unified"}
		case hasController(p[1], controller):
			mounts = []string{controller, p[1]}
		}
		for _, mount := range mounts {
			for dir := filepath.Clean("/" + p[2]); ; dir = filepath.Dir(dir) {
				out = append(out, filepath.Join(n.opt.Root, "sys/fs/cgroup", mount, dir))
				if dir == "/" {
					break
				}
			}
		}
	}
	return out
}

func hasController(list, c string) bool {
	for f := range strings.SplitSeq(list, ",") {
		if f == c {
			return true
		}
	}
	return false
}

// readQuota reads cpu.max (v2) or cpu.cfs_* (v1) as thousandths of a core.
func readQuota(dir string) (int64, bool) {
	if b, err := os.ReadFile(filepath.Join(dir, "cpu.max")); err == nil {
		f := strings.Fields(string(b))
		if len(f) != 2 || f[0] == "max" {
			return 0, false
		}
		q, err1 := strconv.ParseInt(f[0], 10, 64)
		p, err2 := strconv.ParseInt(f[1], 10, 64)
		return q * 1000 / max(p, 1), err1 == nil && err2 == nil
	}
	q, ok1 := readInt(filepath.Join(dir, "cpu.cfs_quota_us"))
	p, ok2 := readInt(filepath.Join(dir, "cpu.cfs_period_us"))
	if !ok1 || !ok2 || q <= 0 || p <= 0 {
		return 0, false
	}
	return q * 1000 / p, true
}

func readInt(path string) (int64, bool) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, false
	}
	v, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	return v, err == nil
}
