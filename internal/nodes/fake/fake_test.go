package fake

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/nodes/nodestest"
)

func TestConformance(t *testing.T) {
	nodestest.Run(t, nodestest.Subject{
		New:     func(*testing.T) fleet.Nodes { return New(Options{Start: 1, Max: 50}) },
		Elastic: true, TooMany: 51, Boot: DefaultBoot,
	})
}

func states(t *testing.T, n *Nodes) map[fleet.NodeState]int {
	t.Helper()
	l, err := n.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	out := map[fleet.NodeState]int{}
	for _, x := range l {
		out[x.State]++
	}
	return out
}

func TestStockOutAndSlowBoot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(Options{Boot: func(i int) time.Duration { return time.Duration(i) * time.Minute }})
		n.SetStock(1)
		if err := n.Scale(t.Context(), 3); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		if s := states(t, n); s[fleet.NodeReady] != 1 || s[fleet.NodeBooting] != 2 {
			t.Errorf("with a stock of one: %v", s)
		}
		n.SetStock(-1)
		time.Sleep(2 * time.Minute)
		if s := states(t, n); s[fleet.NodeReady] != 2 {
			t.Errorf("two minutes after there was stock: %v, want the second one ready", s)
		}
		time.Sleep(time.Minute)
		if s := states(t, n); s[fleet.NodeReady] != 3 {
			t.Errorf("three minutes after: %v", s)
		}
		n.Lose("node-00002")
		if s := states(t, n); s[fleet.NodeReady] != 2 {
			t.Errorf("after a loss: %v", s)
		}
	})
}

func TestInject(t *testing.T) {
	n := New(Options{})
	n.Inject(OpScale, ErrStockOut)
	if err := n.Scale(t.Context(), 1); !errors.Is(err, fleet.ErrUnavailable) {
		t.Errorf("%v, want the injected error", err)
	}
	if err := n.Scale(t.Context(), 1); err != nil || n.Calls(OpScale) != 2 || n.Asked() != 1 {
		t.Errorf("%v; %d calls, %d asked", err, n.Calls(OpScale), n.Asked())
	}
}
