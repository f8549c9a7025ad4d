package cgroup_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster.dev/muster/internal/cgroup"
	"muster.dev/muster/internal/fleet"
)

// machine writes files below a fresh root and detects the layout there.
func machine(t *testing.T, files map[string]string) (cgroup.Layout, string) {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	l, err := cgroup.DetectIn(root)
	if err != nil {
		t.Fatal(err)
	}
	return l, root
}

const unifiedMounts = `24 1 0:22 / /proc rw,nosuid shared:5 - proc proc rw
30 24 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate
`

const hybridMounts = `30 24 0:26 / /sys/fs/cgroup rw shared:9 - tmpfs tmpfs rw,mode=755
31 30 0:27 / /sys/fs/cgroup/unified rw shared:10 - cgroup2 cgroup2 rw
32 30 0:28 / /sys/fs/cgroup/systemd rw shared:11 - cgroup cgroup rw,xattr,name=systemd
33 30 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:12 - cgroup cgroup rw,cpu,cpuacct
34 30 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
35 30 0:31 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids
36 30 0:32 / /sys/fs/cgroup/blkio rw - cgroup cgroup rw,blkio
`

func TestUsageV2(t *testing.T) {
	g := "sys/fs/cgroup/muster/s1/"
	l, root := machine(t, map[string]string{
		"proc/self/mountinfo": unifiedMounts,
		"proc/self/cgroup":    "0::/system.slice/muster.service\n",
		g + "memory.current":  "4096\n",
		g + "memory.peak":     "8192\n",
		g + "memory.events":   "low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 0\n",
		g + "cpu.stat":        "usage_usec 1500000\nuser_usec 1\nsystem_usec 2\nnr_periods 9\nnr_throttled 4\nthrottled_usec 250000\n",
		g + "pids.current":    "7\n",
		g + "pids.peak":       "11\n",
		g + "pids.events":     "max 5\n",
		g + "io.stat":         "254:0 rbytes=100 wbytes=200 rios=1 wios=2 dbytes=0 dios=0\n7:0 rbytes=9 wbytes=9 rios=1 wios=1 dbytes=0 dios=0\n254:16 rbytes=1 wbytes=2 rios=1 wios=1 dbytes=0 dios=0\n",
	})
	if l.Mode != cgroup.V2 || l.Unified != filepath.Join(root, "sys/fs/cgroup") || l.Own != "/system.slice/muster.service" {
		t.Fatalf("layout %+v", l)
	}
	got, err := l.Group("/muster/s1").Usage()
	if err != nil {
		t.Fatal(err)
	}
	got.At = time.Time{}
	want := fleet.Usage{
		CPU: 1500 * time.Millisecond, CPUThrottled: 250 * time.Millisecond,
		MemoryBytes: 4096, MemoryPeakBytes: 8192, OOMKills: 2, Pids: 7, PidsPeak: 11,
		PidsDenied: 5, IOReadBytes: 101, IOWriteBytes: 202,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestUsageHybridReadsV1(t *testing.T) {
	c := "sys/fs/cgroup/"
	l, _ := machine(t, map[string]string{
		"proc/self/mountinfo":                                 hybridMounts,
		"proc/self/cgroup":                                    "9:name=systemd:/\n8:pids:/a\n1:cpu,cpuacct:/\n0::/\n",
		c + "memory/muster/s1/memory.usage_in_bytes":          "4096\n",
		c + "memory/muster/s1/memory.max_usage_in_bytes":      "8192\n",
		c + "memory/muster/s1/memory.oom_control":             "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n",
		c + "cpu,cpuacct/muster/s1/cpuacct.usage":             "2000000\n",
		c + "cpu,cpuacct/muster/s1/cpu.stat":                  "nr_periods 1\nnr_throttled 1\nthrottled_time 3000\n",
		c + "pids/muster/s1/pids.current":                     "3\n",
		c + "pids/muster/s1/pids.events":                      "max 0\n",
		c + "blkio/muster/s1/blkio.throttle.io_service_bytes": "7:0 Read 5\n254:0 Read 10\n254:0 Write 20\n254:0 Sync 30\nTotal 60\n",
	})
	if l.Mode != cgroup.Hybrid || l.Own != "/a" {
		t.Fatalf("layout %+v", l)
	}
	got, err := l.Group("muster/s1").Usage()
	if err != nil {
		t.Fatal(err)
	}
	got.At = time.Time{}
	want := fleet.Usage{
		CPU: 2 * time.Millisecond, CPUThrottled: 3 * time.Microsecond,
		MemoryBytes: 4096, MemoryPeakBytes: 8192, OOMKills: 1, Pids: 3, PidsPeak: 3,
		IOReadBytes: 10, IOWriteBytes: 20,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestUsageOfAbsentAndBrokenGroupsIsAnErrorNeverZero(t *testing.T) {
	g := "sys/fs/cgroup/broken/"
	l, _ := machine(t, map[string]string{
		"proc/self/mountinfo": unifiedMounts, "proc/self/cgroup": "0::/\n",
		g + "memory.current": "many\n", g + "cpu.stat": "usage_usec 1\n", g + "pids.current": "1\n",
	})
	if _, err := l.Group("/nowhere").Usage(); !errors.Is(err, fleet.ErrNotFound) {
		t.Errorf("absent group: %v", err)
	}
	if u, err := l.Group("/broken").Usage(); err == nil {
		t.Errorf("unreadable counter read as %+v", u)
	}
	none, _ := machine(t, map[string]string{"proc/self/mountinfo": "", "proc/self/cgroup": ""})
	if _, err := none.Group("/x").Usage(); none.Mode != cgroup.None || !errors.Is(err, fleet.ErrUnavailable) {
		t.Errorf("mode %s, %v", none.Mode, err)
	}
}

// TestKillAndRemove works on the machine's own groups.
func TestKillAndRemove(t *testing.T) {
	l, err := cgroup.Detect()
	if err != nil {
		t.Fatal(err)
	}
	at := l.Delegated()
	if l.Mode == cgroup.None || at == "" {
		t.Skip("no cgroups can be made here: neither root nor a delegated group")
	}
	g := l.Group(filepath.Join(at, "muster-cgroup-test-"+filepath.Base(t.TempDir())+time.Now().Format("150405.000")))
	dir := l.Unified
	if l.Mode != cgroup.V2 {
		dir = l.V1["pids"]
	}
	if err := os.MkdirAll(filepath.Join(dir, g.Path(), "below"), 0o755); err != nil {
		t.Skipf("no cgroups can be made here: %v", err)
	}
	t.Cleanup(func() { _ = g.Remove(t.Context()) })
	sleep := exec.Command("sleep", "60")
	if err := sleep.Start(); err != nil {
		t.Fatal(err)
	}
	reaped := make(chan error, 1)
	procs := filepath.Join(dir, g.Path(), "below/cgroup.procs")
	if err := os.WriteFile(procs, fmt.Append(nil, sleep.Process.Pid), 0); err != nil {
		_ = sleep.Process.Kill()
		t.Fatal(err)
	}
	if pids, err := g.Pids(); err != nil || len(pids) != 1 || pids[0] != sleep.Process.Pid {
		t.Fatalf("pids %v, %v", pids, err)
	}
	if names, err := g.Children(); err != nil || !cmp.Equal(names, []string{"below"}) {
		t.Fatalf("children %v, %v", names, err)
	}
	go func() { reaped <- sleep.Wait() }() // a zombie stays in its group until it is reaped
	defer func() { <-reaped }()
	if err := g.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := g.Remove(t.Context()); err != nil || g.Exists() {
		t.Fatalf("removed: %v, exists: %v", err, g.Exists())
	}
	if err := g.Remove(t.Context()); err != nil {
		t.Errorf("removing twice: %v", err)
	}
}
