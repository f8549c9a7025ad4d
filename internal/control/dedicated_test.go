package control

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/nodes/fake"
	boxes "muster.dev/muster/internal/sandbox/fake"
)

// guarded are nodes that are meant for agents alone, and tell of changes and of
// boots that failed.
type guarded struct {
	*fake.Nodes
	change chan struct{}

	mu     sync.Mutex
	found  []fleet.Trespass
	err    error
	looks  int
	failed map[fleet.NodeID]string
}

func newGuarded(o fake.Options) *guarded {
	return &guarded{Nodes: fake.New(o), change: make(chan struct{}, 1), failed: map[fleet.NodeID]string{}}
}

func (g *guarded) Dedicated() bool          { return true }
func (g *guarded) Changed() <-chan struct{} { return g.change }

func (g *guarded) Trespasses(context.Context) ([]fleet.Trespass, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.looks++
	return g.found, g.err
}

func (g *guarded) BootFailure(id fleet.NodeID) string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.failed[id]
}

func (g *guarded) set(err error, found ...fleet.Trespass) {
	g.mu.Lock()
	g.found, g.err = found, err
	g.mu.Unlock()
}

func newGuardedWorld(t *testing.T) (*world, *guarded) {
	w := newWorld(t, boxes.Options{Lead: lead(5 * time.Second), Script: busy(3 * time.Minute)})
	g := newGuarded(fake.Options{Start: 1})
	w.elastic = g
	w.spec.Policy.Nodes.Scalable = true
	return w, g
}

// TestBreachOfDedication: what runs where it may not is journaled once when it
// begins and once when it is over, and seen meanwhile; that it cannot be read
// ends nothing.
func TestBreachOfDedication(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, g := newGuardedWorld(t)
		w.up()
		defer w.end()
		sleep(40 * time.Second)
		if v, _ := w.engine.View(t.Context()); v.Dedication == nil || len(v.Dedication.Trespasses) != 0 || v.Dedication.At.IsZero() {
			t.Fatalf("with nobody else there: %+v", v.Dedication)
		}
		g.set(nil,
			fleet.Trespass{Kind: fleet.TrespassForeign, Node: "node-00001", Workload: "pod shop/web-1 of ReplicaSet web"},
			fleet.Trespass{Kind: fleet.TrespassOutside, Node: "elsewhere", Workload: "sandbox s1"})
		sleep(3 * time.Minute)
		began := w.events("dedication_breach")
		if len(began) != 2 || began[0].Node == "" || began[0].Layer != "nodes" {
			t.Fatalf("two breaches were journaled as %+v", began)
		}
		all := began[0].Reason + "\n" + began[1].Reason
		for _, want := range []string{"shop/web-1", "node-00001", "sandbox s1", "elsewhere"} {
			if !strings.Contains(all, want) {
				t.Errorf("no reason names %q: %s", want, all)
			}
		}
		g.set(fmt.Errorf("watch pods: %w", fleet.ErrDenied))
		sleep(time.Minute)
		v, _ := w.engine.View(t.Context())
		if len(v.Dedication.Trespasses) != 2 || !strings.Contains(v.Dedication.Error, "watch pods") || len(w.events("dedication_restored")) != 0 {
			t.Errorf("an error was read as an end: %+v", v.Dedication)
		}
		g.set(nil)
		sleep(time.Minute)
		over := w.events("dedication_restored")
		if len(over) != 2 || !strings.HasPrefix(over[0].Reason, "no longer: ") {
			t.Errorf("the end of two breaches was journaled as %+v", over)
		}
		if v, _ := w.engine.View(t.Context()); len(v.Dedication.Trespasses) != 0 || v.Dedication.Error != "" {
			t.Errorf("afterwards: %+v", v.Dedication)
		}
	})
}

// TestNodesThatTell: a change of the nodes is met at once, and not at the next
// tick.
func TestNodesThatTell(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, g := newGuardedWorld(t)
		w.up()
		defer w.end()
		sleep(10*time.Second + 300*time.Millisecond) // between two ticks
		before, looks := g.Calls(fake.OpList), g.looks
		g.change <- struct{}{}
		sleep(100 * time.Millisecond)
		if got := g.Calls(fake.OpList); got != before+1 {
			t.Errorf("the nodes were read %d times after they had changed, want once", got-before)
		}
		if got := g.looks; got != looks+1 {
			t.Errorf("it was looked for trespasses %d times after a change, want once", got-looks)
		}
	})
}

// TestBootsThatFailAreNamed: where the nodes know why a boot failed, the breaker
// says it; one that was given up on purpose is no failure.
func TestBootsThatFailAreNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, g := newGuardedWorld(t)
		w.up()
		defer w.end()
		sleep(2 * time.Second)
		l := layer{meter: fleet.NoMeter{}}
		at := time.Now()
		booting := func(ids ...fleet.NodeID) (out []fleet.Node) {
			for _, id := range ids {
				out = append(out, fleet.Node{ID: id, State: fleet.NodeBooting, RequestedAt: at})
			}
			return out
		}
		l.boots(at, booting("seat-1", "seat-2", "seat-3"), g)
		g.failed["seat-2"] = "seat-2 gets no node: no capacity"
		came := fleet.Node{ID: "machine-1", BootID: "seat-3", State: fleet.NodeReady, RequestedAt: at, ReadyAt: at.Add(40 * time.Second)}
		l.boots(at.Add(time.Minute), []fleet.Node{came}, g)
		if l.failed != 1 || !strings.Contains(l.failure, "no capacity") {
			t.Errorf("%d boots failed, want the one that was refused: %q", l.failed, l.failure)
		}
		if q := l.Boots.Quantiles(at.Add(time.Minute), time.Hour, fleet.Lead{}); l.started != 1 || q.P50 != 40*time.Second {
			t.Errorf("%d boots ended well, in %s, want one in 40s under the name it had before", l.started, q.P50)
		}
	})
}
