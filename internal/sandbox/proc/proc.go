package proc

import (
	"bufio"
	"slices"
	"strconv"
	"strings"

	"muster.dev/muster/internal/fleet"
)

// ReadStatus takes into iso what /proc/PID/status says of a process: its user,
// capabilities, no_new_privs and seccomp. Lines it does not know are skipped.
func ReadStatus(iso *fleet.Isolation, text string) {
	sc := bufio.NewScanner(strings.NewReader(text))
	for sc.Scan() {
		key, value, ok := strings.Cut(sc.Text(), ":")
		f := strings.Fields(value)
		if !ok || len(f) == 0 {
			continue
		}
		switch key {
		case "Uid":
			if len(f) > 1 {
				iso.UID, _ = strconv.Atoi(f[1]) // effective
			}
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

// ReadOnlyAt reports whether the topmost mount of a place, in the text of
// /proc/PID/mountinfo, is read-only.
func ReadOnlyAt(mountinfo, point string) bool {
	ro := false
	for line := range strings.Lines(mountinfo) {
		f := strings.Fields(line)
		if len(f) > 5 && f[4] == point {
			ro = strings.HasPrefix(f[5]+",", "ro,")
		}
	}
	return ro
}
