package kube_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/sandbox/gateway"
	"muster.dev/muster/internal/sandbox/kube"
	"muster.dev/muster/internal/sandbox/sandboxtest"
)

// exits are the announcements of an adapter until now.
func exits(s *kube.Sandboxes) (ids []fleet.SandboxID) {
	for {
		select {
		case e := <-s.Exited():
			ids = append(ids, e.ID)
		default:
			return ids
		}
	}
}

// TestASandboxGoesFromOneProcessToAnother: while both watch the fleet, the one
// lets go and the other adopts, a task that runs, from its spec alone.
func TestASandboxGoesFromOneProcessToAnother(t *testing.T) {
	c := newCluster(t)
	a := c.opened(t)
	first := c.exchange.Load()
	spec := specOf()
	if _, err := a.Create(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	task := fleet.Assignment{Task: fleet.NewTaskID(time.Now()), Fence: 3, Command: []string{"sh", "-c", sandboxtest.ScriptCount}, LogBytes: 1 << 20}
	r := sandboxtest.NewRecorder()
	if err := a.Claim(t.Context(), spec.ID, task, r); err != nil {
		t.Fatal(err)
	}
	r.WaitLog(t, "line 5")
	b := c.opened(t) // new connections go there now
	if err := a.Release(t.Context(), spec.ID); err != nil {
		t.Fatal(err)
	}
	held, fence, alive, err := b.Adopt(t.Context(), spec)
	if held != task.Task || fence != task.Fence || !alive || err != nil {
		t.Fatalf("adopt: %q/%d, %v, %v", held, fence, alive, err)
	}
	r = r.Successor()
	if err := b.Claim(t.Context(), spec.ID, task, r); err != nil {
		t.Fatal(err)
	}
	if p := r.Report(t); p.ExitCode != 0 {
		t.Errorf("report %+v", p)
	}
	pod := c.pod(t, spec.ID) // though the first process made it, and saw it change since
	id := gateway.Identity{Namespace: namespace, Pod: pod.Name, UID: string(pod.UID)}
	if _, err := c.exchange.Load().Peer(t.Context(), id); !errors.Is(err, gateway.ErrSpent) {
		t.Errorf("the one-time identity where the sandbox was adopted: %v", err)
	}
	if _, err := c.exchange.Load().Peer(t.Context(), gateway.Identity{UID: id.UID}); err != nil {
		t.Errorf("the session where the sandbox was adopted: %v", err)
	}
	began := time.Now()
	if _, err := first.Peer(t.Context(), id); !errors.Is(err, fleet.ErrUnavailable) {
		t.Errorf("where it was let go: %v", err)
	}
	if took := time.Since(began); took > time.Second {
		t.Errorf("waited %s for a sandbox that is another's", took)
	}
	for _, s := range []*kube.Sandboxes{a, b} {
		if ids, err := s.List(t.Context()); err != nil || len(ids) != 1 || ids[0] != spec.ID {
			t.Errorf("list: %v, %v; want the whole fleet", ids, err)
		}
	}
}

// TestAnExitIsToldByWhoHoldsTheSandbox: both see the pods of the other end.
func TestAnExitIsToldByWhoHoldsTheSandbox(t *testing.T) {
	c := newCluster(t)
	a := c.opened(t)
	of := map[*kube.Sandboxes]fleet.SandboxSpec{a: specOf()}
	if _, err := a.Create(t.Context(), of[a]); err != nil {
		t.Fatal(err)
	}
	b := c.opened(t)
	of[b] = specOf()
	if _, err := b.Create(t.Context(), of[b]); err != nil {
		t.Fatal(err)
	}
	given := specOf() // made there, and let go before its end
	if _, err := b.Create(t.Context(), given); err != nil {
		t.Fatal(err)
	}
	if err := b.Release(t.Context(), given.ID); err != nil {
		t.Fatal(err)
	}
	gone := []fleet.SandboxID{given.ID, of[a].ID, of[b].ID}
	for _, id := range gone {
		if err := c.client.CoreV1().Pods(namespace).Delete(t.Context(), string(id), metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range []*kube.Sandboxes{a, b} {
		select {
		case e := <-s.Exited():
			if e.ID != of[s].ID {
				t.Errorf("exit of %s, want that of %s", e.ID, of[s].ID)
			}
		case <-time.After(20 * time.Second):
			t.Error("no exit of the sandbox that is held")
		}
	}
	time.Sleep(100 * time.Millisecond)
	if more := append(exits(a), exits(b)...); len(more) > 0 {
		t.Errorf("exits of sandboxes of others: %v", more)
	}
}

// TestWhatWasLetGoIsNobodysOrphan: its pod carries the mark of the process that
// made it and is changed after that has let go.
func TestWhatWasLetGoIsNobodysOrphan(t *testing.T) {
	c := newCluster(t)
	s := c.opened(t)
	spec, last := specOf(), specOf()
	if _, err := s.Create(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	if err := s.Release(t.Context(), spec.ID); err != nil {
		t.Fatal(err)
	}
	c.status(c.pod(t, spec.ID), func(p *corev1.Pod) { p.Status.Message = "changed" })
	if _, err := s.Create(t.Context(), last); err != nil { // the watch has shown the change before
		t.Fatal(err)
	}
	time.Sleep(100 * time.Millisecond)
	c.pod(t, spec.ID)
	if _, _, alive, err := s.Adopt(t.Context(), spec); !alive || err != nil {
		t.Errorf("adopt: %v, %v", alive, err)
	}
}

// TestReleaseOfOneThatStarts: its Create fails, and its pod goes.
func TestReleaseOfOneThatStarts(t *testing.T) {
	c := newCluster(t)
	c.idle = true
	s := c.opened(t)
	spec := specOf()
	made := make(chan error, 1)
	go func() {
		_, err := s.Create(context.WithoutCancel(t.Context()), spec)
		made <- err
	}()
	eventually(t, "the pod is made", func() bool {
		_, err := c.client.CoreV1().Pods(namespace).Get(t.Context(), string(spec.ID), metav1.GetOptions{})
		return err == nil
	})
	if err := s.Release(t.Context(), spec.ID); err != nil {
		t.Errorf("release: %v", err)
	}
	if err := <-made; !errors.Is(err, fleet.ErrConflict) || !strings.Contains(err.Error(), "let go") {
		t.Errorf("create: %v", err)
	}
	none(t, s)
}
