package dispatch

import (
	"context"
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/store/memory"
)

// TestRegistryAgainstAModel drives the registry with random changes and
// compares what it counts and hands out with a plain look at every sandbox.
func TestRegistryAgainstAModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ctx := context.Background()
		store := memory.New(memory.Options{})
		defer store.Close()
		r := NewRegistry(store)
		t0 := time.Unix(1e9, 0)
		prefer := map[fleet.NodeID]float64{"n0": 1, "n1": 3, "n2": 2}
		if rapid.Bool().Draw(t, "several nodes") {
			r.Prefer(prefer)
		} else {
			prefer = nil
		}
		best := func(pool fleet.PoolKey) float64 {
			most := 0.0
			for _, e := range r.boxes {
				if e.free() && e.box.Spec.Pool == pool {
					most = max(most, prefer[e.box.Spec.Node])
				}
			}
			return most
		}
		var ids []fleet.SandboxID
		held := map[fleet.SandboxID]bool{}
		pick := func() fleet.SandboxID {
			if len(ids) == 0 {
				return "none"
			}
			return rapid.SampledFrom(ids).Draw(t, "box")
		}
		pools := []fleet.PoolKey{"a", "b"}
		for i := range rapid.IntRange(1, 60).Draw(t, "steps") {
			now := t0.Add(time.Duration(i) * time.Second)
			switch rapid.IntRange(0, 7).Draw(t, "step") {
			case 0, 1:
				id := fleet.NewSandboxID(now)
				ids = append(ids, id)
				s := fleet.Sandbox{State: fleet.SandboxReady, ReadyAt: now, Spec: fleet.SandboxSpec{ID: id, Pool: rapid.SampledFrom(pools).Draw(t, "pool"), Node: rapid.SampledFrom([]fleet.NodeID{"n0", "n1", "n2"}).Draw(t, "node")}}
				if rapid.Bool().Draw(t, "starting") {
					s.State = fleet.SandboxStarting
				}
				_ = r.Put(ctx, s)
			case 2:
				pool := rapid.SampledFrom(pools).Draw(t, "pool")
				want := r.Slots()[pool] > 0
				node := best(pool)
				s, ok := r.take(pool)
				if ok && prefer[s.Spec.Node] != node {
					t.Fatalf("taken on node %s, and one of preference %v was free", s.Spec.Node, node)
				}
				if ok != want {
					t.Fatalf("take of %s: %v, and %v were free", pool, ok, want)
				}
				if ok && (s.State != fleet.SandboxReady || held[s.Spec.ID] || s.Spec.Pool != pool) {
					t.Fatalf("took %+v (held before: %v)", s, held[s.Spec.ID])
				}
				held[s.Spec.ID] = true
			case 3:
				if id := pick(); held[id] {
					r.release(id)
					delete(held, id)
				}
			case 4:
				if id := pick(); held[id] {
					r.claimed(id, fleet.Task{ID: "t", Fence: 1})
					delete(held, id)
				}
			case 5:
				_, _ = r.Drain(ctx, pick(), "")
			case 6:
				_, _ = r.Undrain(ctx, pick(), "")
			case 7:
				id := pick()
				if s, ok := r.Get(id); ok && !held[id] {
					s.State = fleet.SandboxGone
					_ = r.Put(ctx, s)
				}
			}
			model := map[fleet.PoolKey]int{}
			for _, s := range r.Snapshot() {
				if s.State == fleet.SandboxReady && !held[s.Spec.ID] {
					model[s.Spec.Pool]++
				}
			}
			if got := r.Slots(); fmt.Sprint(got) != fmt.Sprint(model) {
				t.Fatalf("slots %v, want %v", got, model)
			}
		}
	})
}

// BenchmarkTake: claiming costs the same in a large fleet.
func BenchmarkTake(b *testing.B) {
	r := NewRegistry(memory.New(memory.Options{}))
	for i := range 10_000 {
		r.set(fleet.Sandbox{State: fleet.SandboxReady, Spec: fleet.SandboxSpec{ID: fleet.SandboxID(fmt.Sprint(i)), Pool: fleet.PoolKey(fmt.Sprint(i % 100))}})
	}
	for b.Loop() {
		s, _ := r.take("7")
		r.release(s.Spec.ID)
	}
}
