package plan

import (
	"fmt"
	"testing"
	"time"

	"muster.dev/muster/internal/fleet"
)

// large is 10,000 sandboxes of 100 templates on 1,000 nodes.
func large(now time.Time) (Observation, Policy) {
	p := policy()
	p.Max = 20_000
	o := Observation{Queues: []Queue{{Name: "q", AsOf: now}}}
	for i := range 100 {
		name := fmt.Sprintf("t%03d", i)
		p.Templates[name] = TemplatePolicy{MaxAge: 6 * time.Hour}
		x := pool(name, func(p *Pool) { p.Running = 60; idle(p, 40) })
		o.Pools = append(o.Pools, x)
		o.Queues[0].Pools = append(o.Queues[0].Pools, Demand{Pool: x.Key, Backlog: 45, InFlight: 60, Arrived: now.Unix() * 7, Oldest: now})
	}
	for i := range 1000 {
		n := node(16)
		n.ID, n.Used = fleet.NodeID(fmt.Sprintf("n%04d", i)), 8+i%9
		o.Nodes = append(o.Nodes, n)
	}
	return o, p
}

// BenchmarkDecide: the aim is at most 1 ms and 100 kB.
func BenchmarkDecide(b *testing.B) {
	for _, c := range []struct {
		name    string
		backlog int
	}{{"steady", 0}, {"starting", 45}} {
		b.Run(c.name, func(b *testing.B) {
			o, p := large(t0)
			for i := range o.Queues[0].Pools {
				o.Queues[0].Pools[i].Backlog = c.backlog
			}
			var d Decider
			_, s := d.Decide(t0, &o, &p, &State{})
			b.ReportAllocs()
			for i := 1; b.Loop(); i++ {
				_, s = d.Decide(t0.Add(time.Duration(i)*time.Millisecond), &o, &p, s)
			}
		})
	}
}

// BenchmarkDecideSmall is one pool on four nodes: what a simulation of a small
// fleet pays for each event.
func BenchmarkDecideSmall(b *testing.B) {
	o := observation(t0, pool("default", func(p *Pool) { p.Running = 20; idle(p, 8) }))
	o.Nodes = o.Nodes[:0]
	for i := range 4 {
		n := node(8)
		n.ID, n.Used, n.Running = fleet.NodeID(fmt.Sprintf("n%04d", i)), 7, 5
		o.Nodes = append(o.Nodes, n)
	}
	p := policy()
	var d Decider
	_, s := d.Decide(t0, &o, &p, &State{})
	b.ReportAllocs()
	for i := 1; b.Loop(); i++ {
		_, s = d.Decide(t0.Add(time.Duration(i)*time.Millisecond), &o, &p, s)
	}
}

// TestDecisionAllocatesLittle holds the aim in every run.
func TestDecisionAllocatesLittle(t *testing.T) {
	o, p := large(t0)
	for i := range o.Queues[0].Pools {
		o.Queues[0].Pools[i].Backlog = i % 3 // a busy second; a start is an action of 300 bytes
	}
	_, s := Decide(t0, o, p, State{})
	r := testing.Benchmark(func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			Decide(t0.Add(time.Second), o, p, s)
		}
	})
	if got := r.AllocedBytesPerOp(); got > 200_000 {
		t.Errorf("a decision allocates %d bytes, want at most 200,000", got)
	}
	t.Logf("%s, %d bytes", time.Duration(r.NsPerOp()), r.AllocedBytesPerOp())
}
