package sandboxtest

import (
	"errors"
	"slices"
	"testing"
	"time"

	"muster.dev/muster/internal/fleet"
)

func testKilled(t *testing.T, m *machine) {
	spec := m.create(t)
	r := m.claim(t, spec.ID, assignment(ScriptTalk))
	r.WaitLog(t, "line 3")
	m.h.Kill(t, m.s, spec.ID)
	var re *fleet.ReasonError
	if err := r.LostWith(t); !errors.As(err, &re) || re.Reason != fleet.ReasonNodeLost {
		t.Errorf("lost with %v", err)
	}
	m.exit(t, spec.ID)
	m.after(t, spec)
}

func testKilledWhileWaiting(t *testing.T, m *machine) {
	spec := m.create(t)
	m.h.Kill(t, m.s, spec.ID)
	m.exit(t, spec.ID)
	m.after(t, spec)
}

// exit waits for the announcement of the sandbox's end.
func (m *machine) exit(t *testing.T, id fleet.SandboxID) {
	t.Helper()
	select {
	case e := <-m.s.Exited():
		if e.ID != id || e.Reason != fleet.ReasonNodeLost || e.Err == nil || e.At.IsZero() {
			t.Errorf("exit %+v", e)
		}
	case <-time.After(patience):
		t.Fatal("no exit was announced")
	}
}

// after checks what is left of a sandbox that ended by itself.
func (m *machine) after(t *testing.T, spec fleet.SandboxSpec) {
	t.Helper()
	if err := m.s.Claim(t.Context(), spec.ID, assignment(ScriptHello), NewRecorder()); !errors.Is(err, fleet.ErrNotFound) {
		t.Errorf("claim of the dead: %v", err)
	}
	if _, err := m.s.Create(t.Context(), spec); err == nil {
		t.Error("the dead was created again without being destroyed")
	}
	ids, err := m.s.List(t.Context())
	if err != nil || !slices.Contains(ids, spec.ID) {
		t.Errorf("the dead is not listed for the reaper: %v, %v", ids, err)
	}
	m.quiet(t)
}

func testAdoptWaiting(t *testing.T, m *machine) {
	spec := m.create(t)
	m.restart(t)
	ids, err := m.s.List(t.Context())
	if err != nil || !slices.Equal(ids, []fleet.SandboxID{spec.ID}) {
		t.Fatalf("list after a restart: %v, %v", ids, err)
	}
	task, fence, alive, err := m.s.Adopt(t.Context(), spec)
	if err != nil || !alive || task != "" || fence != 0 {
		t.Fatalf("adopt: %q, %d, %v, %v", task, fence, alive, err)
	}
	a := assignment(ScriptHello)
	a.Env = map[string]string{"NAME": "again"}
	r := m.claim(t, spec.ID, a)
	if p := r.Report(t); p.ExitCode != 0 {
		t.Errorf("report %+v", p)
	}
	if u, err := m.s.Usage(t.Context(), spec.ID); !m.h.lacks(NoReadings) && (err != nil || u.At.IsZero()) {
		t.Errorf("usage of an adopted sandbox: %+v, %v", u, err)
	}
}

// testAdoptBusy restarts the control plane twice while a task runs and once
// after it has ended: nothing of its log may be missing.
func testAdoptBusy(t *testing.T, m *machine) {
	spec := m.create(t)
	a := assignment(ScriptCount)
	r := m.claim(t, spec.ID, a)
	r.WaitLog(t, "line 5")
	for range 2 {
		m.restart(t)
		task, fence, alive, err := m.s.Adopt(t.Context(), spec)
		if err != nil || !alive || task != a.Task || fence != a.Fence {
			t.Fatalf("adopt: %q, %d, %v, %v", task, fence, alive, err)
		}
		r = r.Successor()
		if err := m.s.Claim(t.Context(), spec.ID, a, r); err != nil {
			t.Fatalf("claim again: %v", err)
		}
	}
	r.WaitLog(t, "line 50")
	if err := m.s.Close(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(2 * time.Second) // the task ends while nobody listens
	m.s = m.h.Open(t)
	if task, _, alive, err := m.s.Adopt(t.Context(), spec); err != nil || !alive || task != a.Task {
		t.Fatalf("adopt: %q, %v, %v", task, alive, err)
	}
	r = r.Successor()
	if err := m.s.Claim(t.Context(), spec.ID, a, r); err != nil {
		t.Fatal(err)
	}
	if p := r.Report(t); p.ExitCode != 0 || p.Reason != "" {
		t.Errorf("report %+v", p)
	}
	completeCount(t, r)
}

func testAdoptDead(t *testing.T, m *machine) {
	spec := m.create(t)
	m.h.Kill(t, m.s, spec.ID)
	m.exit(t, spec.ID)
	m.restart(t)
	for _, s := range []fleet.SandboxSpec{spec, m.spec()} {
		if _, _, alive, err := m.s.Adopt(t.Context(), s); alive || err != nil {
			t.Errorf("adopt of the dead: %v, %v", alive, err)
		}
		if err := m.s.Destroy(t.Context(), s.ID); err != nil {
			t.Errorf("destroy: %v", err)
		}
	}
}

func testCloseRefuses(t *testing.T, m *machine) {
	spec := m.create(t)
	if err := m.s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := m.s.Close(); err != nil {
		t.Errorf("closing twice: %v", err)
	}
	if _, err := m.s.Create(t.Context(), m.spec()); err == nil {
		t.Error("a closed adapter creates")
	}
	if err := m.s.Claim(t.Context(), spec.ID, assignment(ScriptHello), NewRecorder()); err == nil {
		t.Error("a closed adapter claims")
	}
	m.s = m.h.Open(t)
}
