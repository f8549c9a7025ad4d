package doctor

import (
	"context"
	"fmt"
	"strconv"
	"strings"
)

func one(f Finding) []Finding { return []Finding{f} }

// text reads a small file, trimmed; empty when it cannot be read.
func text(h Host, path string) string {
	b, err := h.ReadFile(path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// number reads a file that holds one number.
func number(h Host, path string) (int64, bool) {
	n, err := strconv.ParseInt(text(h, path), 10, 64)
	return n, err == nil
}

// kernelVersion reads "6.1.0-18-amd64" as 6, 1.
func kernelVersion(release string) (major, minor int, ok bool) {
	n, err := fmt.Sscanf(release, "%d.%d", &major, &minor)
	return major, minor, err == nil && n == 2
}

func checkKernel(_ context.Context, h Host, _ Options) []Finding {
	f := Finding{Check: "kernel", Level: OK, Found: "Linux " + h.Kernel()}
	major, minor, ok := kernelVersion(h.Kernel())
	atLeast := func(a, b int) bool { return major > a || major == a && minor >= b }
	switch {
	case !ok:
		f.Level, f.Means = Warn, "the kernel's version could not be read"
	case !atLeast(4, 18):
		f.Level = Fail
		f.Means = "overlay file systems in user namespaces and the calls the runtimes need are missing before Linux 4.18"
		f.Mend = "upgrade to Linux 5.15 or newer (Debian 12, Ubuntu 22.04)"
	case !atLeast(5, 11):
		f.Level = Warn
		f.Means = "rootless overlay mounts need Linux 5.11; as root everything works"
		f.Mend = "upgrade to Linux 5.15 or newer (Debian 12, Ubuntu 22.04)"
	}
	return one(f)
}

// wantedControllers are the cgroup controllers that limits rest on.
var wantedControllers = []string{"memory", "cpu", "pids"}

// mounts is what /proc/self/mountinfo says about cgroups.
type mounts struct {
	v1 map[string]string // controller → mount point
	v2 string            // mount point, or empty
}

func readMounts(h Host) mounts {
	m := mounts{v1: map[string]string{}}
	for line := range strings.Lines(text(h, "/proc/self/mountinfo")) {
		fields := strings.Fields(line)
		sep := -1
		for i, x := range fields {
			if x == "-" {
				sep = i
				break
			}
		}
		if sep < 6 || len(fields) < sep+4 {
			continue
		}
		switch fields[sep+1] {
		case "cgroup2":
			if m.v2 == "" {
				m.v2 = fields[4]
			}
		case "cgroup":
			for _, opt := range strings.Split(fields[sep+3], ",") {
				m.v1[opt] = fields[4]
			}
		}
	}
	return m
}

func checkCgroups(_ context.Context, h Host, _ Options) []Finding {
	m := readMounts(h)
	layout, have := "none", map[string]bool{}
	for _, c := range wantedControllers {
		have[c] = m.v1[c] != ""
	}
	v1 := have["memory"] || have["cpu"] || have["pids"]
	switch {
	case v1 && m.v2 != "":
		layout = "hybrid (controllers on v1)"
	case v1:
		layout = "v1"
	case m.v2 != "":
		layout = "v2"
		for _, c := range strings.Fields(text(h, m.v2+"/cgroup.controllers")) {
			have[c] = true
		}
	}
	f := Finding{Check: "cgroups", Level: OK, Found: layout}
	if layout == "none" {
		f.Level, f.Means = Fail, "without cgroups no limit on memory, cpu or processes can be set and nothing can be measured"
		f.Mend = "mount -t cgroup2 none /sys/fs/cgroup"
		return one(f)
	}
	var missing, present []string
	for _, c := range wantedControllers {
		if have[c] {
			present = append(present, c)
		} else {
			missing = append(missing, c)
		}
	}
	f.Found += ": " + strings.Join(present, ", ")
	if len(missing) > 0 {
		f.Level = Fail
		f.Found += "; missing " + strings.Join(missing, ", ")
		f.Means = "limits on " + strings.Join(missing, ", ") + " would not bite"
		f.Mend = missingControllers(m, missing)
		return one(f)
	}
	return one(delegation(h, m, f))
}

func missingControllers(m mounts, missing []string) string {
	if m.v2 != "" && len(m.v1) == 0 {
		return "echo '+" + strings.Join(missing, " +") + "' > " + m.v2 + "/cgroup.subtree_control"
	}
	if len(missing) == 1 && missing[0] == "memory" {
		return "add cgroup_enable=memory to the kernel's command line and reboot"
	}
	return "mount the missing controllers under /sys/fs/cgroup, or boot with systemd.unified_cgroup_hierarchy=1"
}

// delegation judges whether this user may make cgroups.
func delegation(h Host, m mounts, f Finding) Finding {
	if h.UID() == 0 {
		root := m.v2
		if p := m.v1["memory"]; p != "" {
			root = p
		}
		if !h.Writable(root) {
			f.Level = Fail
			f.Found += "; " + root + " is read-only"
			f.Means = "no sandbox can be given limits; this is usual inside an unprivileged container"
			f.Mend = "run muster on the machine itself, or the container with --privileged --cgroupns=host"
		}
		return f
	}
	if m.v2 != "" && len(m.v1) == 0 {
		own := ownCgroup(text(h, "/proc/self/cgroup"))
		if own != "" && h.Writable(m.v2+own) && h.Writable(m.v2+own+"/cgroup.procs") {
			f.Found += "; delegated to you at " + own
			return f
		}
	}
	f.Level = Warn
	f.Found += "; not delegated to you"
	f.Means = "you are not root: limits on memory, cpu and processes will not be set"
	f.Mend = "systemd-run --user --scope -p Delegate=yes muster up   (needs cgroup v2), or run as root"
	return f
}

// ownCgroup is this process's path in the unified hierarchy.
func ownCgroup(procSelfCgroup string) string {
	for line := range strings.Lines(procSelfCgroup) {
		if p, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			return p
		}
	}
	return ""
}

func checkUserNamespaces(_ context.Context, h Host, _ Options) []Finding {
	f := Finding{Check: "user-namespaces", Level: OK}
	most, known := number(h, "/proc/sys/user/max_user_namespaces")
	switch {
	case !known:
		f.Level, f.Found = Fail, "not in this kernel"
		f.Means = "root inside a sandbox would be root on the host: sandboxes are refused"
		f.Mend = "use a kernel built with CONFIG_USER_NS"
		return one(f)
	case most == 0:
		f.Level, f.Found = Fail, "switched off (user.max_user_namespaces = 0)"
		f.Means = "sandboxes cannot be kept apart from the host's users"
		f.Mend = "sysctl -w user.max_user_namespaces=15000"
		return one(f)
	}
	f.Found = fmt.Sprintf("at most %d", most)
	if h.UID() == 0 {
		return one(f)
	}
	if n, ok := number(h, "/proc/sys/kernel/unprivileged_userns_clone"); ok && n == 0 {
		f.Level, f.Found = Fail, "only root may make them (kernel.unprivileged_userns_clone = 0)"
		f.Means, f.Mend = "rootless sandboxes cannot start", "sudo sysctl -w kernel.unprivileged_userns_clone=1"
		return one(f)
	}
	if n, ok := number(h, "/proc/sys/kernel/apparmor_restrict_unprivileged_userns"); ok && n == 1 {
		f.Level, f.Found = Fail, "restricted by AppArmor (kernel.apparmor_restrict_unprivileged_userns = 1)"
		f.Means = "rootless sandboxes start without any capability inside and fail to mount"
		f.Mend = "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or run as root"
		return one(f)
	}
	return append(one(f), subordinate(h))
}

// subordinate judges /etc/subuid and the setuid programs that use it.
func subordinate(h Host) Finding {
	f := Finding{Check: "subordinate-ids", Level: OK}
	user := h.Username()
	uids, gids := ranges(text(h, "/etc/subuid"), user, h.UID()), ranges(text(h, "/etc/subgid"), user, h.UID())
	_, errU := h.LookPath("newuidmap")
	_, errG := h.LookPath("newgidmap")
	f.Found = fmt.Sprintf("%d user and %d group ids", uids, gids)
	if uids >= 65536 && gids >= 65536 && errU == nil && errG == nil {
		return f
	}
	f.Level = Warn
	f.Means = "only one user id inside a sandbox: images with other owners, and an agent user apart from the runner's, are not possible"
	if errU != nil || errG != nil {
		f.Found += "; newuidmap or newgidmap is not installed"
		f.Mend = "sudo apt-get install -y uidmap"
		return f
	}
	f.Mend = "sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 " + user
	return f
}

// ranges adds up the ids that a subuid(5) file gives to a user.
func ranges(file, user string, uid int) (total int64) {
	for line := range strings.Lines(file) {
		parts := strings.Split(strings.TrimSpace(line), ":")
		if len(parts) != 3 || parts[0] != user && parts[0] != strconv.Itoa(uid) {
			continue
		}
		if n, err := strconv.ParseInt(parts[2], 10, 64); err == nil && n > 0 {
			total += n
		}
	}
	return total
}

func checkSeccomp(_ context.Context, h Host, _ Options) []Finding {
	f := Finding{Check: "seccomp", Level: OK, Found: "filters available"}
	actions := strings.Fields(text(h, "/proc/sys/kernel/seccomp/actions_avail"))
	if len(actions) == 0 && !strings.Contains(text(h, "/proc/self/status"), "Seccomp:") {
		f.Level, f.Found = Fail, "not in this kernel"
		f.Means, f.Mend = "system calls of a sandbox cannot be filtered", "use a kernel built with CONFIG_SECCOMP_FILTER"
	}
	return one(f)
}

func checkOverlay(_ context.Context, h Host, _ Options) []Finding {
	f := Finding{Check: "overlayfs", Level: OK, Found: "available"}
	for line := range strings.Lines(text(h, "/proc/filesystems")) {
		if fields := strings.Fields(line); len(fields) > 0 && fields[len(fields)-1] == "overlay" {
			return one(f)
		}
	}
	f.Level, f.Found = Warn, "not loaded"
	f.Means = "images of several layers cannot be stacked; the image `host` still works"
	f.Mend = "modprobe overlay && echo overlay > /etc/modules-load.d/overlay.conf"
	return one(f)
}

func checkLoop(_ context.Context, h Host, _ Options) []Finding {
	f := Finding{Check: "loop", Level: OK, Found: "/dev/loop-control and mkfs.ext4"}
	if h.UID() != 0 {
		f.Level, f.Found = Warn, "not for you: loop devices need root"
		f.Means = "a sandbox's disk limit is kept in memory (tmpfs): what it writes counts as memory"
		return one(f)
	}
	if !h.Exists("/dev/loop-control") {
		f.Level, f.Found = Warn, "no /dev/loop-control"
		f.Means = "a sandbox's disk limit is kept in memory (tmpfs): what it writes counts as memory"
		f.Mend = "modprobe loop"
		return one(f)
	}
	if _, err := h.LookPath("mkfs.ext4"); err != nil {
		f.Level, f.Found = Warn, "loop devices, but no mkfs.ext4"
		f.Means = "a sandbox's disk limit is kept in memory (tmpfs): what it writes counts as memory"
		f.Mend = "apt-get install -y e2fsprogs"
	}
	return one(f)
}
