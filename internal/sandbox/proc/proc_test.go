package proc

import (
	"slices"
	"testing"

	"muster.dev/muster/internal/fleet"
)

func TestWhatTheKernelSaysIsTaken(t *testing.T) {
	const status = "Name:\tcat\nUid:\t0\t1000\t1000\t1000\nNoNewPrivs:\t1\nSeccomp:\t2\n" +
		"CapPrm:\t0000000000000001\nCapEff:\t0000000000000000\nCapBnd:\t0000000000000021\nBroken\nUid:\n"
	var iso fleet.Isolation
	ReadStatus(&iso, status)
	if iso.UID != 1000 || !iso.NoNewPrivs || !iso.Seccomp {
		t.Errorf("%+v", iso)
	}
	if !slices.Equal(iso.Capabilities, []string{"CAP_CHOWN", "CAP_KILL"}) {
		t.Errorf("capabilities %q", iso.Capabilities)
	}
}

func TestTheTopmostMountCounts(t *testing.T) {
	const info = "1 0 0:1 / / rw,relatime - overlay overlay rw\n2 1 0:2 / / ro,relatime - overlay overlay rw\n3 1 0:3 / /tmp rw - tmpfs tmpfs rw\n"
	if !ReadOnlyAt(info, "/") || ReadOnlyAt(info, "/tmp") || ReadOnlyAt(info, "/nowhere") {
		t.Error("read-only: /, and nothing else")
	}
}
