package sandboxtest

import (
	"errors"
	"slices"
	"testing"
	"time"

	"muster.dev/muster/internal/fleet"
)

// releaser is the adapter where it can let go of single sandboxes.
func (m *machine) releaser(t *testing.T) fleet.Releaser {
	t.Helper()
	r, ok := m.s.(fleet.Releaser)
	if !ok {
		t.Skip("the adapter is the only one of its machine")
	}
	return r
}

// testRelease lets go of a task that runs and takes it back: nothing of its log
// may be missing, and the first sink hears nothing more.
func testRelease(t *testing.T, m *machine) {
	release := m.releaser(t)
	spec, other := m.create(t), m.create(t)
	a := assignment(ScriptCount)
	r := m.claim(t, spec.ID, a)
	r.WaitLog(t, "line 5")
	for range 2 {
		if err := release.Release(t.Context(), spec.ID); err != nil {
			t.Fatalf("release: %v", err)
		}
		had := r.LogOffset()
		if err := m.s.Claim(t.Context(), spec.ID, a, NewRecorder()); !errors.Is(err, fleet.ErrNotFound) {
			t.Errorf("claim of what was let go: %v", err)
		}
		if err := m.s.Stop(t.Context(), spec.ID, fleet.ReasonCancelled, time.Second); !errors.Is(err, fleet.ErrNotFound) {
			t.Errorf("stop of what was let go: %v", err)
		}
		time.Sleep(200 * time.Millisecond) // the task goes on meanwhile
		if now := r.LogOffset(); now != had {
			t.Errorf("the sink got %d bytes after the release", now-had)
		}
		if task, fence, alive, err := m.s.Adopt(t.Context(), spec); err != nil || !alive || task != a.Task || fence != a.Fence {
			t.Fatalf("adopt: %q, %d, %v, %v", task, fence, alive, err)
		}
		r = r.Successor()
		if err := m.s.Claim(t.Context(), spec.ID, a, r); err != nil {
			t.Fatalf("claim again: %v", err)
		}
	}
	if p := r.Report(t); p.ExitCode != 0 || p.Reason != "" {
		t.Errorf("report %+v", p)
	}
	completeCount(t, r)
	if again := m.claim(t, other.ID, assignment(ScriptHello)); again.Report(t).ExitCode != 0 {
		t.Error("another sandbox was touched")
	}
}

// testReleaseIdle lets go of what waits, of what is not there, and twice.
func testReleaseIdle(t *testing.T, m *machine) {
	release := m.releaser(t)
	spec := m.create(t)
	for _, id := range []fleet.SandboxID{spec.ID, spec.ID, m.spec().ID} {
		if err := release.Release(t.Context(), id); err != nil {
			t.Errorf("release: %v", err)
		}
	}
	if ids, err := m.s.List(t.Context()); err != nil || !slices.Equal(ids, []fleet.SandboxID{spec.ID}) {
		t.Errorf("list after the release: %v, %v", ids, err)
	}
	if task, fence, alive, err := m.s.Adopt(t.Context(), spec); err != nil || !alive || task != "" || fence != 0 {
		t.Fatalf("adopt: %q, %d, %v, %v", task, fence, alive, err)
	}
	if r := m.claim(t, spec.ID, assignment(ScriptHello)); r.Report(t).ExitCode != 0 {
		t.Error("the task of a sandbox that was let go and adopted failed")
	}
}

// testReleasedEnds: what ends after it was let go is nobody's news here.
func testReleasedEnds(t *testing.T, m *machine) {
	release := m.releaser(t)
	spec := m.create(t)
	r := m.claim(t, spec.ID, assignment(ScriptTalk))
	r.WaitLog(t, "line 3")
	if err := release.Release(t.Context(), spec.ID); err != nil {
		t.Fatal(err)
	}
	m.h.Kill(t, m.s, spec.ID)
	m.quiet(t)
	r.Unended(t)
	if _, _, alive, err := m.s.Adopt(t.Context(), spec); alive || err != nil {
		t.Errorf("adopt of the dead: %v, %v", alive, err)
	}
}
