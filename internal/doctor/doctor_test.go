package doctor

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"muster.dev/muster/internal/fleet"
)

// described is a machine made of files and a few facts.
type described struct {
	Machine  // only for what a test does not describe
	uid      int
	kernel   string
	files    fstest.MapFS
	readOnly []string
	programs map[string]string
	space    Space
	sync     time.Duration
	syncErr  error
	noFiles  uint64
	drift    time.Duration
	unsynced bool
	zoneErr  error
	who      string
	now      time.Time
}

func (d *described) UID() int       { return d.uid }
func (d *described) Kernel() string { return d.kernel }
func (d *described) ReadFile(p string) ([]byte, error) {
	return fs.ReadFile(d.files, strings.TrimPrefix(p, "/"))
}
func (d *described) Exists(p string) bool {
	_, err := fs.Stat(d.files, strings.TrimPrefix(p, "/"))
	return p == "/" || err == nil
}
func (d *described) Writable(p string) bool {
	for _, r := range d.readOnly {
		if p == r {
			return false
		}
	}
	return true
}
func (d *described) LookPath(p string) (string, error) {
	if at, ok := d.programs[p]; ok {
		return at, nil
	}
	return "", os.ErrNotExist
}
func (d *described) Run(context.Context, string, ...string) ([]byte, error) {
	return []byte("git version 2.39.5\n"), nil
}
func (d *described) Username() string               { return "ann" }
func (d *described) Space(string) (Space, error)    { return d.space, nil }
func (d *described) OpenFiles() (uint64, uint64)    { return 1024, d.noFiles }
func (d *described) Now() time.Time                 { return d.now }
func (d *described) ClockSynchronised() (a, b bool) { return !d.unsynced, true }
func (d *described) Drift(context.Context) time.Duration {
	return d.drift
}
func (d *described) LoadZone(string) error { return d.zoneErr }
func (d *described) Listening(context.Context, string) (string, bool) {
	return d.who, d.who != ""
}
func (d *described) SyncLatency(context.Context, string) (a, b time.Duration, err error) {
	return d.sync, 2 * d.sync, d.syncErr
}

func file(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s)} }

const (
	mountsV2     = "30 24 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n"
	mountsHybrid = "31 30 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n" +
		"32 30 0:28 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n" +
		"33 30 0:29 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n" +
		"34 30 0:30 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
)

// healthy is a machine with nothing to complain of.
func healthy() *described {
	return &described{
		kernel: "6.1.0-18-amd64",
		files: fstest.MapFS{
			"proc/self/mountinfo":                    file(mountsV2),
			"sys/fs/cgroup/cgroup.controllers":       file("cpuset cpu io memory pids"),
			"proc/self/cgroup":                       file("0::/user.slice/u.scope\n"),
			"proc/sys/user/max_user_namespaces":      file("63432\n"),
			"proc/sys/kernel/seccomp/actions_avail":  file("kill errno allow"),
			"proc/filesystems":                       file("nodev\ttmpfs\nnodev\toverlay\n\text4\n"),
			"dev/loop-control":                       file(""),
			"opt/muster-runner":                      file("#!/bin/sh\n"),
			"etc/ssl/certs/ca-certificates.crt":      file("-----BEGIN CERTIFICATE-----\n"),
			"proc/meminfo":                           file("MemTotal: 16000000 kB\nMemAvailable: 12000000 kB\n"),
			"proc/sys/kernel/pid_max":                file("4194304"),
			"proc/sys/fs/inotify/max_user_instances": file("8192"),
			"var/lib/x":                              file(""),
			"etc/subuid":                             file("ann:100000:65536\n"),
			"etc/subgid":                             file("ann:100000:65536\n"),
		},
		programs: map[string]string{"git": "/usr/bin/git", "mkfs.ext4": "/sbin/mkfs.ext4", "newuidmap": "/usr/bin/newuidmap", "newgidmap": "/usr/bin/newgidmap"},
		space:    Space{FreeBytes: 100 * gib, TotalBytes: 200 * gib, FreeFiles: 1e7, TotalFiles: 2e7, Kind: "ext4"},
		sync:     400 * time.Microsecond, noFiles: 1 << 20,
		now: time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC),
	}
}

func allRuntimes(context.Context) ([]Probed, error) {
	var all []Probed
	for _, r := range []fleet.Runtime{fleet.RuntimeGVisor, fleet.RuntimeRunc, fleet.RuntimeCrun} {
		all = append(all, Probed{Runtime: r, Path: "/usr/sbin/rt", Took: 30 * time.Millisecond})
	}
	return all, nil
}

func examine(d *described) Report {
	return Examine(context.Background(), d, Options{
		DataDir: "/var/lib/muster", Listen: "127.0.0.1:7433", Runner: "/opt/muster-runner", Probe: allRuntimes,
	})
}

func find(r Report, check string) Finding {
	for _, f := range r.Findings {
		if f.Check == check {
			return f
		}
	}
	return Finding{}
}

func TestHealthyMachine(t *testing.T) {
	for name, mountinfo := range map[string]string{"v2": mountsV2, "hybrid (controllers on v1)": mountsHybrid} {
		d := healthy()
		d.files["proc/self/mountinfo"] = file(mountinfo)
		r := examine(d)
		if r.Level != OK || len(r.Lost) != 0 || r.Rootless {
			t.Errorf("%s: %+v", name, r)
		}
		if got := find(r, "cgroups").Found; got != name+": memory, cpu, pids" {
			t.Errorf("cgroups: %q", got)
		}
	}
}

// Each row breaks one thing; the finding must have the level, say what was
// found, what it means, and how to mend it.
func TestFindings(t *testing.T) {
	for _, c := range []struct {
		check string
		level Level
		found string
		spoil func(d *described)
	}{
		{"kernel", Fail, "3.10", func(d *described) { d.kernel = "3.10.0-el7" }},
		{"kernel", Warn, "5.4", func(d *described) { d.kernel = "5.4.0" }},
		{"cgroups", Fail, "none", func(d *described) { d.files["proc/self/mountinfo"] = file("") }},
		{"cgroups", Fail, "missing pids", func(d *described) { d.files["sys/fs/cgroup/cgroup.controllers"] = file("cpu memory") }},
		{"cgroups", Fail, "read-only", func(d *described) { d.readOnly = []string{"/sys/fs/cgroup"} }},
		{"cgroups", Warn, "not delegated", func(d *described) { d.uid = 1000; d.readOnly = []string{"/sys/fs/cgroup/user.slice/u.scope"} }},
		{"cgroups", OK, "delegated to you", func(d *described) { d.uid = 1000 }},
		{"user-namespaces", Fail, "not in this kernel", func(d *described) { delete(d.files, "proc/sys/user/max_user_namespaces") }},
		{"user-namespaces", Fail, "switched off", func(d *described) { d.files["proc/sys/user/max_user_namespaces"] = file("0") }},
		{"user-namespaces", Fail, "AppArmor", func(d *described) {
			d.uid = 1000
			d.files["proc/sys/kernel/apparmor_restrict_unprivileged_userns"] = file("1")
		}},
		{"user-namespaces", Fail, "only root", func(d *described) {
			d.uid = 1000
			d.files["proc/sys/kernel/unprivileged_userns_clone"] = file("0")
		}},
		{"subordinate-ids", Warn, "0 user", func(d *described) { d.uid = 1000; d.files["etc/subuid"] = file("bob:1:65536\n") }},
		{"subordinate-ids", Warn, "newuidmap", func(d *described) { d.uid = 1000; delete(d.programs, "newuidmap") }},
		{"seccomp", Fail, "not in", func(d *described) { delete(d.files, "proc/sys/kernel/seccomp/actions_avail") }},
		{"overlayfs", Warn, "not loaded", func(d *described) { d.files["proc/filesystems"] = file("\text4\n") }},
		{"loop", Warn, "no /dev/loop-control", func(d *described) { delete(d.files, "dev/loop-control") }},
		{"loop", Warn, "no mkfs.ext4", func(d *described) { delete(d.programs, "mkfs.ext4") }},
		{"runner", Fail, "not exist", func(d *described) { delete(d.files, "opt/muster-runner") }},
		{"git", Warn, "not installed", func(d *described) { delete(d.programs, "git") }},
		{"ca-certificates", Warn, "not found", func(d *described) { delete(d.files, "etc/ssl/certs/ca-certificates.crt") }},
		{"data-directory", Fail, "may not write", func(d *described) { d.readOnly = []string{"/var/lib"} }},
		{"data-directory", Fail, "nfs", func(d *described) { d.space.Kind = "nfs" }},
		{"data-directory", Warn, "tmpfs", func(d *described) { d.space.Kind = "tmpfs" }},
		{"disk-space", Fail, "512 MiB free", func(d *described) { d.space.FreeBytes = gib / 2 }},
		{"disk-space", Warn, "5.0 GiB free", func(d *described) { d.space.FreeBytes = 5 * gib }},
		{"disk-space", Warn, "9 inodes", func(d *described) { d.space.FreeFiles = 9 }},
		{"fsync", Warn, "30ms median", func(d *described) { d.sync = 30 * time.Millisecond }},
		{"fsync", Fail, "input/output", func(d *described) { d.syncErr = errors.New("input/output error") }},
		{"memory", Fail, "100 MiB", func(d *described) { d.files["proc/meminfo"] = file("MemTotal: 900000 kB\nMemAvailable: 102400 kB\n") }},
		{"memory", Warn, "1.0 GiB", func(d *described) {
			d.files["proc/meminfo"] = file("MemTotal: 2000000 kB\nMemAvailable: 1048576 kB\n")
		}},
		{"open-files", Warn, "1024", func(d *described) { d.noFiles = 1024 }},
		{"processes", Warn, "32768", func(d *described) { d.files["proc/sys/kernel/pid_max"] = file("32768") }},
		{"inotify", Warn, "128", func(d *described) { d.files["proc/sys/fs/inotify/max_user_instances"] = file("128") }},
		{"clock", Fail, "1970", func(d *described) { d.now = time.Unix(0, 0).UTC() }},
		{"clock", Warn, "jumped 2s", func(d *described) { d.drift = 2 * time.Second }},
		{"clock", Warn, "not synchronised", func(d *described) { d.unsynced = true }},
		{"time-zones", Fail, "no time zone", func(d *described) { d.zoneErr = os.ErrNotExist }},
		{"port", Fail, "in use by nginx", func(d *described) { d.who = "nginx" }},
		{"port", OK, "is muster's", func(d *described) { d.who = "muster" }},
	} {
		t.Run(c.check+" "+c.found, func(t *testing.T) {
			d := healthy()
			c.spoil(d)
			f := find(examine(d), c.check)
			if f.Level != c.level || !strings.Contains(f.Found, c.found) {
				t.Fatalf("got %+v, want %s %q", f, c.level, c.found)
			}
			if f.Level != OK && (f.Means == "" || f.Mend == "") {
				t.Errorf("does not say what it means and how to mend it: %+v", f)
			}
		})
	}
}

func TestRuntimes(t *testing.T) {
	probe := func(context.Context) ([]Probed, error) {
		return []Probed{
			{Runtime: fleet.RuntimeRunc, Path: "/usr/sbin/runc", Lost: []string{"no seccomp"}},
			{Runtime: fleet.RuntimeCrun, Path: "/usr/bin/crun", Err: errors.New("hybrid cgroups")},
			{Runtime: fleet.RuntimeGVisor, Err: errors.New("not found")},
		}, nil
	}
	r := Examine(context.Background(), healthy(), Options{DataDir: "/", Listen: "127.0.0.1:1", Runner: "/opt/muster-runner", Probe: probe})
	if f := find(r, "runtime.runc"); f.Level != OK || !strings.Contains(f.Found, "ran a sandbox") {
		t.Errorf("runc: %+v", f)
	}
	if f := find(r, "runtime.crun"); f.Level != Warn || !strings.Contains(f.Found, "hybrid cgroups") {
		t.Errorf("crun: %+v", f)
	}
	if f := find(r, "runtime.gvisor"); f.Level != Warn || f.Found != "not installed" || f.Mend == "" {
		t.Errorf("gvisor: %+v", f)
	}
	if r.Level != Warn || len(r.Lost) != 2 || r.Lost[0] != "no seccomp" || !strings.Contains(r.Lost[1], "gVisor") {
		t.Errorf("report: %s %q", r.Level, r.Lost)
	}
	// Where no sandbox can be tried at all, that is said, and what is installed.
	d := healthy()
	d.programs["runc"] = "/usr/sbin/runc"
	r = Examine(context.Background(), d, Options{DataDir: "/", Listen: "127.0.0.1:1"})
	if f := find(r, "runtimes"); f.Level != Fail || r.Level != Fail || !strings.Contains(f.Found, "muster-runner is missing") {
		t.Errorf("no runtime: %+v", f)
	}
	if f := find(r, "runtime.runc"); !strings.Contains(f.Found, "/usr/sbin/runc") || !strings.Contains(f.Found, "muster-runner is missing") {
		t.Errorf("runc: %+v", f)
	}
}

func TestRootlessSaysWhatIsLost(t *testing.T) {
	d := healthy()
	d.uid = 1000
	d.files["proc/self/mountinfo"] = file(mountsHybrid)
	r := examine(d)
	all := strings.Join(r.Lost, "\n")
	for _, want := range []string{"your own user id", "single-id", "no limits on memory", "tmpfs"} {
		if !strings.Contains(all, want) {
			t.Errorf("does not say %q:\n%s", want, all)
		}
	}
}

// The real machine is read without an error of ours; nothing is left behind.
func TestThisMachine(t *testing.T) {
	dir := t.TempDir()
	r := Examine(context.Background(), Machine{}, Options{DataDir: dir + "/not/yet", Listen: "127.0.0.1:0", Probe: allRuntimes})
	if len(r.Findings) < 15 {
		t.Errorf("only %d findings", len(r.Findings))
	}
	if f := find(r, "kernel"); f.Level == "" || f.Found == "Linux " {
		t.Errorf("kernel: %+v", f)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}
