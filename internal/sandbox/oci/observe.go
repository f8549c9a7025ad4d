package oci

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"muster.dev/muster/internal/fleet"
)

// observe learns how the sandbox is really confined, from the kernel: the
// status of a process of the agent's, and the init's namespace and mounts.
func (s *Sandboxes) observe(ctx context.Context, b *box) (fleet.Isolation, error) {
	iso := s.known(b)
	var out bytes.Buffer
	code, err := b.session.Exec(ctx, fleet.ExecRequest{
		Command: []string{"cat", "/proc/self/status", "/proc/self/mountinfo"}, Stdout: &out,
	})
	if (err != nil || code != 0) && ctx.Err() == nil { // an image without cat
		out.Reset()
		code, err = b.session.Exec(ctx, fleet.ExecRequest{Command: []string{filepath.Join(inside, runnerName), "observe"}, Stdout: &out})
	}
	if err != nil {
		return iso, fmt.Errorf("observe the isolation: %w", err)
	}
	if code != 0 {
		return iso, fmt.Errorf("observe the isolation: the runner's own look ended with %d", code)
	}
	readStatus(&iso, out.String())
	iso.UserNamespace, iso.HostUID = s.hostID(b, iso.UID)
	iso.ReadOnlyRoot = readOnlyAt(out.String(), "/")
	iso.Lost = append(iso.Lost, b.session.Lost()...)
	return iso, nil
}

// known is what does not need a process of the agent's.
func (s *Sandboxes) known(b *box) fleet.Isolation {
	iso := fleet.Isolation{
		Runtime: b.rec.Runtime, Cgroups: string(s.layout.Mode), Volume: b.rec.Volume,
		Network: b.rec.Spec.Network.Mode, Lost: append([]string(nil), b.rec.Lost...),
	}
	if b.rec.Cgroup == "" {
		iso.Cgroups = "none"
	}
	return iso
}

// readStatus takes what /proc/PID/status says of a process.
func readStatus(iso *fleet.Isolation, text string) {
	sc := bufio.NewScanner(strings.NewReader(text))
	for sc.Scan() {
		key, value, ok := strings.Cut(sc.Text(), ":")
		f := strings.Fields(value)
		if !ok || len(f) == 0 {
			continue
		}
		switch key {
		case "Uid":
			iso.UID, _ = strconv.Atoi(f[1]) // effective
		case "NoNewPrivs":
			iso.NoNewPrivs = f[0] == "1"
		case "Seccomp":
			iso.Seccomp = f[0] == "2"
		case "CapEff", "CapBnd", "CapPrm":
			iso.Capabilities = addCapabilities(iso.Capabilities, f[0])
		}
	}
}

// capNames are the capabilities by number (linux/capability.h).
var capNames = strings.Fields("CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID " +
	"SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER " +
	"SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE " +
	"SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN " +
	"SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE")

func addCapabilities(have []string, mask string) []string {
	bits, err := strconv.ParseUint(mask, 16, 64)
	if err != nil {
		return append(have, "unreadable: "+mask)
	}
	for i, name := range capNames {
		if bits&(1<<i) != 0 && !slices.Contains(have, "CAP_"+name) {
			have = append(have, "CAP_"+name)
		}
	}
	return have
}

// hostID reads which host user the agent is from the init's own map. gVisor
// keeps the agent's users to itself: to the host all of them are one process
// of the sandbox's range.
func (s *Sandboxes) hostID(b *box, uid int) (mapped bool, host int) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/uid_map", b.rec.Init.Pid))
	if err != nil {
		return false, -1
	}
	host = -1
	for line := range strings.Lines(string(text)) {
		var inside, outside, n int
		if _, err := fmt.Sscan(line, &inside, &outside, &n); err != nil {
			continue
		}
		if inside == 0 && outside == 0 && n > 1<<31 {
			return false, uid // the host's own namespace
		}
		if uid >= inside && uid < inside+n {
			return true, outside + uid - inside
		}
		if host < 0 && b.rec.Runtime == fleet.RuntimeGVisor {
			host = outside
		}
	}
	return true, host
}

// readOnlyAt looks at the topmost mount of a place.
func readOnlyAt(mountinfo, point string) bool {
	ro := false
	for line := range strings.Lines(mountinfo) {
		f := strings.Fields(line)
		if len(f) > 5 && f[4] == point {
			ro = strings.HasPrefix(f[5]+",", "ro,")
		}
	}
	return ro
}
