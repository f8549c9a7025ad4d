package oci

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/sandbox/proc"
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
	proc.ReadStatus(&iso, out.String())
	iso.UserNamespace, iso.HostUID = s.hostID(b, iso.UID)
	iso.ReadOnlyRoot = proc.ReadOnlyAt(out.String(), "/")
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
