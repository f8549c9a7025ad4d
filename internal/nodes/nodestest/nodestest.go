package nodestest

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"muster.dev/muster/internal/fleet"
)

// Subject is what is tested. Each test runs in a synctest bubble, so that boot
// times cost nothing.
type Subject struct {
	// New returns a provider with exactly one node, ready.
	New func(t *testing.T) fleet.Nodes
	// Elastic says that it brings and returns nodes; one fixed host does not.
	Elastic bool
	// TooMany is a number of nodes that Scale refuses.
	TooMany int
	// Boot is the time after which a node asked for is ready.
	Boot time.Duration
}

// Run runs the suite.
func Run(t *testing.T, s Subject) {
	for name, f := range map[string]func(*testing.T, Subject, fleet.Nodes){
		"ListIsWhole": listIsWhole, "CordonIsIdempotent": cordonIsIdempotent, "UnknownNode": unknownNode,
		"ScaleToTheSameChangesNothing": scaleToTheSame, "ScaleRefused": scaleRefused, "EndedContext": endedContext,
		"Concurrent": concurrent,
	} {
		t.Run(name, func(t *testing.T) { bubble(t, s, f) })
	}
	if !s.Elastic {
		t.Run("FixedHostExplainsItself", func(t *testing.T) { bubble(t, s, fixedHost) })
		return
	}
	for name, f := range map[string]func(*testing.T, Subject, fleet.Nodes){
		"ScaleUp": scaleUp, "ScaleDownKeepsReadyNodes": scaleDown, "Release": release,
	} {
		t.Run(name, func(t *testing.T) { bubble(t, s, f) })
	}
}

func bubble(t *testing.T, s Subject, f func(*testing.T, Subject, fleet.Nodes)) {
	synctest.Test(t, func(t *testing.T) { f(t, s, s.New(t)) })
}

func list(t *testing.T, n fleet.Nodes, want int) []fleet.Node {
	t.Helper()
	l, err := n.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(l) != want {
		t.Fatalf("%d nodes, want %d: %+v", len(l), want, l)
	}
	return l
}

func listIsWhole(t *testing.T, _ Subject, n fleet.Nodes) {
	x := list(t, n, 1)[0]
	if x.ID == "" || x.State != fleet.NodeReady || x.MilliCPU <= 0 || x.MemoryBytes <= 0 || x.DiskBytes <= 0 || x.Slots <= 0 {
		t.Errorf("%+v, want an id, the state ready and all capacities above zero", x)
	}
	if x.RequestedAt.IsZero() || x.ReadyAt.Before(x.RequestedAt) {
		t.Errorf("requested at %s, ready at %s", x.RequestedAt, x.ReadyAt)
	}
	time.Sleep(time.Minute)
	if y := list(t, n, 1)[0]; y.ID != x.ID || !y.RequestedAt.Equal(x.RequestedAt) || !y.ReadyAt.Equal(x.ReadyAt) {
		t.Errorf("a minute later %+v, before %+v", y, x)
	}
}

func cordonIsIdempotent(t *testing.T, _ Subject, n fleet.Nodes) {
	id := list(t, n, 1)[0].ID
	for _, step := range []struct {
		do   func(context.Context, fleet.NodeID) error
		want fleet.NodeState
	}{{n.Cordon, fleet.NodeCordoned}, {n.Cordon, fleet.NodeCordoned}, {n.Uncordon, fleet.NodeReady}, {n.Uncordon, fleet.NodeReady}} {
		if err := step.do(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		if x := list(t, n, 1)[0]; x.State != step.want {
			t.Errorf("state %s, want %s", x.State, step.want)
		}
	}
}

func unknownNode(t *testing.T, _ Subject, n fleet.Nodes) {
	for _, err := range []error{n.Cordon(t.Context(), "nowhere"), n.Uncordon(t.Context(), "nowhere")} {
		if !errors.Is(err, fleet.ErrNotFound) {
			t.Errorf("%v, want ErrNotFound", err)
		}
	}
}

func scaleToTheSame(t *testing.T, _ Subject, n fleet.Nodes) {
	before := list(t, n, 1)[0]
	for range 2 {
		if err := n.Scale(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
	}
	if after := list(t, n, 1)[0]; after.ID != before.ID {
		t.Errorf("node %s became %s", before.ID, after.ID)
	}
}

func scaleRefused(t *testing.T, s Subject, n fleet.Nodes) {
	for _, nodes := range []int{-1, s.TooMany} {
		err := n.Scale(t.Context(), nodes)
		var fe *fleet.FieldError
		if !errors.Is(err, fleet.ErrInvalid) || !errors.As(err, &fe) || fe.Right == "" {
			t.Errorf("Scale(%d): %v, want ErrInvalid with what would be right", nodes, err)
		}
	}
	list(t, n, 1)
}

func endedContext(t *testing.T, _ Subject, n fleet.Nodes) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	// A provider may answer from what it has; it must not answer with nothing.
	if l, err := n.List(ctx); err == nil && len(l) != 1 {
		t.Errorf("%d nodes and no error", len(l))
	}
}

func concurrent(t *testing.T, _ Subject, n fleet.Nodes) {
	id := list(t, n, 1)[0].ID
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for _, err := range []error{n.Cordon(t.Context(), id), n.Scale(t.Context(), 1), n.Uncordon(t.Context(), id)} {
				if err != nil {
					t.Error(err)
				}
			}
			if _, err := n.List(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if x := list(t, n, 1)[0]; x.State != fleet.NodeReady {
		t.Errorf("state %s after as many uncordons as cordons", x.State)
	}
}

func fixedHost(t *testing.T, _ Subject, n fleet.Nodes) {
	id := list(t, n, 1)[0].ID
	for _, err := range []error{n.Scale(t.Context(), 2), n.Scale(t.Context(), 0), n.Release(t.Context(), id)} {
		if !errors.Is(err, fleet.ErrInvalid) {
			t.Errorf("%v, want ErrInvalid", err)
		}
	}
	list(t, n, 1)
}

func scaleUp(t *testing.T, s Subject, n fleet.Nodes) {
	first := list(t, n, 1)[0].ID
	for range 2 { // asking again asks for no more
		if err := n.Scale(t.Context(), 3); err != nil {
			t.Fatal(err)
		}
	}
	seen := map[fleet.NodeID]bool{}
	for _, x := range list(t, n, 3) {
		seen[x.ID] = true
		if x.ID != first && (x.State != fleet.NodeBooting || !x.ReadyAt.IsZero()) {
			t.Errorf("just asked for: %+v, want booting", x)
		}
	}
	if len(seen) != 3 || !seen[first] {
		t.Errorf("ids %v, want three, %s among them", seen, first)
	}
	time.Sleep(s.Boot)
	for _, x := range list(t, n, 3) {
		if x.State != fleet.NodeReady || x.ID != first && x.ReadyAt.Sub(x.RequestedAt) <= 0 {
			t.Errorf("after the boot time: %+v", x)
		}
	}
}

func scaleDown(t *testing.T, _ Subject, n fleet.Nodes) {
	first := list(t, n, 1)[0].ID
	for _, nodes := range []int{4, 0} {
		if err := n.Scale(t.Context(), nodes); err != nil {
			t.Fatal(err)
		}
	}
	// What boots is given up; what is ready may carry sandboxes and goes by
	// name alone.
	if x := list(t, n, 1)[0]; x.ID != first {
		t.Errorf("node %s was kept in place of the ready one", x.ID)
	}
}

func release(t *testing.T, _ Subject, n fleet.Nodes) {
	id := list(t, n, 1)[0].ID
	for range 2 {
		if err := n.Release(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	list(t, n, 0)
}
