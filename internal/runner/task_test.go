//go:build linux

package runner_test

import (
	"testing"

	"muster.dev/muster/internal/fleet"
)

func TestFirst(t *testing.T) {
	s, r := runTask(t, assign("sh", "-c", "echo hello; echo oops >&2; pwd; exit 3"))
	t.Logf("%+v", r)
	t.Logf("%q %q %q %v", s.out(fleet.StreamStdout), s.out(fleet.StreamStderr), s.out(fleet.StreamSystem), s.phases)
}
