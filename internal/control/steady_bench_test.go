package control

import (
	"errors"
	"testing"
	"time"

	"muster.dev/muster/internal/archive"
	"muster.dev/muster/internal/fleet"
	nodesfake "muster.dev/muster/internal/nodes/fake"
	"muster.dev/muster/internal/plan"
	"muster.dev/muster/internal/sandbox/fake"
	"muster.dev/muster/internal/store/memory"
)

// BenchmarkSteady is one round of the loop for 10,000 sandboxes on 1,250 nodes,
// half of them with a task, while nothing happens. There is one round a second,
// so that 50 ms an operation are 5 % of a core.
func BenchmarkSteady(b *testing.B) {
	a, err := archive.Open(b.TempDir(), archive.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer a.Close()
	store, boxes := memory.New(memory.Options{}), fake.New(fake.Options{})
	defer boxes.Close()
	nodes := nodesfake.New(nodesfake.Options{Start: 1250})
	list, err := nodes.List(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	tmpl := template("default")
	tmpl.Resources.DiskBytes = mib
	e, err := New(Config{
		Store: store, Queue: store.Queue(), Archive: a, Sandboxes: boxes, Nodes: nodes,
		Spec: Spec{Templates: []fleet.Template{tmpl}, Policy: plan.Policy{
			Min: 5000, Max: 10_000,
			Nodes: plan.NodePolicy{Scalable: true, Min: 1250, Max: 1250, Slots: 8, Size: plan.Size{MilliCPU: 8000, MemoryBytes: 32 << 30, DiskBytes: 200 << 30}},
		}},
	})
	if err != nil {
		b.Fatal(err)
	}
	now := time.Now()
	for i := range 10_000 {
		box := fleet.Sandbox{
			State: fleet.SandboxReady, CreatedAt: now, ReadyAt: now,
			Spec: specOf("default", tmpl, list[i/8].ID, now),
		}
		if i%2 == 1 {
			box.State, box.ClaimedAt, box.Task, box.Fence = fleet.SandboxClaimed, now, fleet.NewTaskID(now), 1
		}
		if err := e.registry.Put(b.Context(), box); err != nil {
			b.Fatal(err)
		}
	}
	go e.events.Run(b.Context())
	e.tick(b.Context())
	if n := len(e.last.p.Actions); n > 0 {
		b.Fatal(errors.New("the fleet is not steady: " + e.last.p.Actions[0].Reason.Sentence()))
	}
	b.ReportAllocs()
	for b.Loop() {
		if e.tick(b.Context()) {
			b.Fatal("a round did something")
		}
	}
}
