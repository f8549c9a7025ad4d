package host

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/nodes/nodestest"
)

func root(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestCapacity(t *testing.T) {
	cores := int64(runtime.NumCPU()) * 1000
	for _, c := range []struct {
		name     string
		files    map[string]string
		o        Options
		cpu, mem int64
	}{
		{"plain", map[string]string{"proc/meminfo": "MemTotal: 1048576 kB\n"}, Options{}, cores, 1 << 30},
		{"reserve and overcommit", map[string]string{"proc/meminfo": "MemTotal: 1048576 kB\n"},
			Options{ReserveMemory: 1 << 29, OvercommitMem: 2, OvercommitCPU: 3}, 3 * cores, 1 << 30},
		{"v2 limits", map[string]string{"proc/meminfo": "MemTotal: 1048576 kB\n", "proc/self/cgroup": "0::/a/b\n",
			"sys/fs/cgroup/a/memory.max": "536870912\n", "sys/fs/cgroup/a/b/memory.max": "max\n", "sys/fs/cgroup/a/b/cpu.max": "50000 100000\n"}, Options{}, 500, 1 << 29},
		{"v1 limits", map[string]string{"proc/meminfo": "MemTotal: 1048576 kB\n", "proc/self/cgroup": "4:memory:/x\n1:cpu,cpuacct:/y\n",
			"sys/fs/cgroup/memory/x/memory.limit_in_bytes": "268435456\n",
			"sys/fs/cgroup/cpu/y/cpu.cfs_quota_us":         "25000\n", "sys/fs/cgroup/cpu/y/cpu.cfs_period_us": "100000\n"}, Options{}, 250, 1 << 28},
		{"v1 without links, v2 beside", map[string]string{"proc/meminfo": "MemTotal: 1048576 kB\n", "proc/self/cgroup": "1:cpu,cpuacct:/y\n0::/z\n",
			"sys/fs/cgroup/unified/z/memory.max":         "134217728\n",
			"sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "75000\n", "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n"}, Options{}, 750, 1 << 27},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.o.Root, c.o.Dir = root(t, c.files), t.TempDir()
			n, err := New(c.o)
			if err != nil {
				t.Fatal(err)
			}
			l, err := n.List(t.Context())
			if err != nil || len(l) != 1 {
				t.Fatal(l, err)
			}
			if l[0].MilliCPU != c.cpu || l[0].MemoryBytes != c.mem || l[0].State != fleet.NodeReady || l[0].DiskBytes == 0 {
				t.Errorf("%+v, want %d mCPU and %d bytes", l[0], c.cpu, c.mem)
			}
		})
	}
}

func TestConformance(t *testing.T) {
	nodestest.Run(t, nodestest.Subject{New: func(t *testing.T) fleet.Nodes {
		n, err := New(Options{Dir: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		return n
	}, TooMany: 2})
}

func TestUnreadableMachineIsAnErrorNotZero(t *testing.T) {
	if _, err := New(Options{Root: t.TempDir()}); !errors.Is(err, fleet.ErrUnavailable) {
		t.Errorf("%v, want ErrUnavailable", err)
	}
}

func TestUnreadableDiskIsAnErrorNotZero(t *testing.T) {
	if _, err := New(Options{Dir: filepath.Join(t.TempDir(), "none")}); !errors.Is(err, fleet.ErrUnavailable) {
		t.Errorf("%v, want ErrUnavailable", err)
	}
}

func TestOneNodeOnly(t *testing.T) {
	n, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Scale(t.Context(), 2); !errors.Is(err, fleet.ErrInvalid) {
		t.Errorf("Scale(2): %v, want invalid", err)
	}
	if err := n.Cordon(t.Context(), "local"); err != nil {
		t.Fatal(err)
	}
	if l, _ := n.List(t.Context()); l[0].State != fleet.NodeCordoned {
		t.Errorf("after cordon: %s", l[0].State)
	}
	if err := n.Uncordon(t.Context(), "elsewhere"); !errors.Is(err, fleet.ErrNotFound) {
		t.Errorf("Uncordon of another: %v", err)
	}
}
