package whatif

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/control"
	"muster.dev/muster/internal/cost"
	"muster.dev/muster/internal/fleet"
)

var monday = time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)

const elastic = `
apiVersion: muster.dev/v1alpha1
kind: Fleet
metadata: {name: agents}
spec:
  templates:
    - name: default
      image: registry.example.com/agent:1
      resources: {cpus: 1, memory: 2Gi}
  capacity: {sandboxes: {min: 4}}
  nodes: {provider: kubernetes, boot: 45s, kubernetes: {nodeSelector: {pool: agents}}}
  cost: {nodeHourUSD: 0.40}
`

func parse(t testing.TB, text string) *v1alpha1.Fleet {
	t.Helper()
	f, err := v1alpha1.ParseFleet([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// rules are those of the wiring, as far as these fleets need them.
func rules() Rules {
	return Rules{
		Spec: func(f *v1alpha1.Fleet) (control.Spec, error) {
			s := control.Spec{Name: f.Metadata.Name}
			var err error
			s.Templates, err = f.TemplateSpecs()
			s.Policy.Min, s.Policy.Max = f.Spec.Capacity.Sandboxes.Min, f.Spec.Capacity.Sandboxes.Max
			return s, err
		},
		Tariff: func(f *v1alpha1.Fleet) (cost.Tariff, error) {
			return cost.Tariff{{PerHour: cost.Micro(f.Spec.Cost.NodeHour() * 1e6)}}, nil
		},
	}
}

// office is two weeks of an office: 24 tasks of ten minutes each morning, and
// nothing at night and on weekends.
func office() *History {
	h := &History{Since: monday, Until: monday.Add(14 * 24 * time.Hour)}
	for day := range 14 {
		if day%7 >= 5 {
			continue
		}
		for i := range 24 {
			h.Add("default", Task{
				Arrival: monday.Add(time.Duration(day)*24*time.Hour + 9*time.Hour + time.Duration(i*5)*time.Minute), Duration: 10 * time.Minute, Wait: 2 * time.Second,
				Limits: fleet.Resources{MilliCPU: 1000, MemoryBytes: 2 << 30},
			})
		}
	}
	return h
}

func lab(t testing.TB, s Seen) *Lab {
	t.Helper()
	l, err := NewLab(office(), s, rules(), monday.Add(14*24*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func (l *Lab) must(t testing.TB, text string) fleet.WhatIfOutcome {
	t.Helper()
	o, err := l.Run(t.Context(), Case{Fleet: parse(t, text)})
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// TestMinimumCosts: a standing minimum keeps a node through nights, without it
// the fleet is much cheaper; the same case gives the same figures.
func TestMinimumCosts(t *testing.T) {
	l := lab(t, Seen{})
	with, without := l.must(t, elastic), l.must(t, strings.Replace(elastic, "min: 4", "min: 0", 1))
	if again := l.must(t, elastic); again != with {
		t.Errorf("the same case twice: %+v, %+v", with, again)
	}
	if with.Tasks != 240-24 || without.Tasks != with.Tasks {
		t.Errorf("%d and %d tasks count, want those after the first tenth", with.Tasks, without.Tasks)
	}
	if !with.Meets || with.WaitP99 > 5 {
		t.Errorf("with a minimum: %+v", with)
	}
	if 3*without.MicroUSD > with.MicroUSD {
		t.Errorf("without a minimum $%.2f, with it $%.2f: nights should be free", float64(without.MicroUSD)/1e6, float64(with.MicroUSD)/1e6)
	}
	if nights := l.Days() * 24; with.NodeHours < nights*0.9 {
		t.Errorf("%.1f node-hours in %.1f hours: the minimum needs a node", with.NodeHours, nights)
	}
	if s := Saving(&with, &without); s.MicroUSD != with.MicroUSD-without.MicroUSD || s.Share < 0.6 || s.MonthMicroUSD <= s.MicroUSD {
		t.Errorf("%+v", s)
	}
}

// TestOneMachine: no setting changes the bill of a machine that stays.
func TestOneMachine(t *testing.T) {
	host := strings.NewReplacer("      image: registry.example.com/agent:1\n", "", "  nodes: {provider: kubernetes, boot: 45s, kubernetes: {nodeSelector: {pool: agents}}}\n", "  nodes: {provider: host}\n").Replace(elastic)
	s := Seen{Shape: Shape{MilliCPU: 16000, MemoryBytes: 16 << 30, Slots: 10_000}, Nodes: 1, Total: 1, Cold: 700 * time.Millisecond, ColdSamples: 30}
	l := lab(t, s)
	with, without := l.must(t, host), l.must(t, strings.Replace(host, "min: 4", "min: 0", 1))
	if with.MicroUSD != without.MicroUSD || with.PeakNodes != 1 || with.Slots != 8 {
		t.Errorf("%+v\n%+v", with, without)
	}
	if want := int64(l.Days() * 24 * 400_000); with.MicroUSD < want-1 || with.MicroUSD > want+1 {
		t.Errorf("the machine costs %d, want %d", with.MicroUSD, want)
	}
	b, err := l.Basis(parse(t, host), &with)
	if err != nil || b.FixedNodes != 1 || b.ColdStartSamples != 30 || b.ColdStartSeconds != 0.7 || !strings.Contains(b.Sentence, "always there") {
		t.Errorf("%+v %v", b, err)
	}
}

// TestSmallerTemplates: more of them fit on a node, so that fewer nodes do.
func TestSmallerTemplates(t *testing.T) {
	s := Seen{Shape: Shape{MilliCPU: 64000, MemoryBytes: 8 << 30}, Nodes: 1, Total: 1, Boot: 30 * time.Second, BootSamples: 4}
	l := lab(t, s)
	slots := "  nodes: {provider: kubernetes, slots: 64, kubernetes: {nodeSelector: {pool: agents}}}\n"
	big := strings.Replace(strings.Replace(elastic, "  nodes: {provider: kubernetes, boot: 45s, kubernetes: {nodeSelector: {pool: agents}}}\n", slots, 1), "2Gi", "4Gi", 1)
	small := strings.Replace(big, "4Gi", "512Mi", 1)
	a, b := l.must(t, big), l.must(t, small)
	if a.Slots != 2 || b.Slots != 16 {
		t.Errorf("%d and %d sandboxes a node, want 2 and 16", a.Slots, b.Slots)
	}
	if b.MicroUSD >= a.MicroUSD {
		t.Errorf("16 a node cost %d, 2 a node %d", b.MicroUSD, a.MicroUSD)
	}
	l.History.Tasks[0].Own = true // its size is its own
	if c := l.must(t, small); c.Slots >= 16 {
		t.Errorf("a task of 2Gi of its own is not counted: %d slots", c.Slots)
	}
}

func TestLook(t *testing.T) {
	kind := fleet.NodeKind{InstanceType: "m7i.2xlarge", Capacity: "spot"}
	node := func(id string, k fleet.NodeKind, state fleet.NodeState, boot time.Duration) fleet.NodeView {
		return fleet.NodeView{Node: fleet.Node{ID: fleet.NodeID(id), Kind: k, State: state, RequestedAt: monday, ReadyAt: monday.Add(boot), MilliCPU: 8000, MemoryBytes: 1 << 35, Slots: 8}}
	}
	s := Look(&fleet.View{
		Nodes: []fleet.NodeView{node("a", fleet.NodeKind{}, fleet.NodeReady, 40*time.Second), node("b", kind, fleet.NodeReady, 50*time.Second), node("c", kind, fleet.NodeReady, 60*time.Second), node("d", fleet.NodeKind{}, fleet.NodeBooting, 0)},
		Pools: []fleet.PoolView{{StartLead: fleet.Lead{P50: time.Second}}, {StartLead: fleet.Lead{P50: 3 * time.Second, Samples: 9}}},
	})
	if s.Kind != kind || s.Nodes != 2 || s.Total != 3 || s.Boot != 50*time.Second || s.BootSamples != 3 || s.Cold != 3*time.Second || s.ColdSamples != 9 || s.Shape.Slots != 8 {
		t.Errorf("%+v", s)
	}
	if s := Look(&fleet.View{}); s.Nodes != 0 || s.Shape != (Shape{}) || s.BootSamples != 0 {
		t.Errorf("of nothing: %+v", s)
	}
}

func TestCancelled(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if _, err := lab(t, Seen{}).Run(ctx, Case{Fleet: parse(t, elastic)}); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

func TestRivals(t *testing.T) {
	l := lab(t, Seen{})
	for _, name := range []string{"keda", "fixed", "clairvoyant"} {
		if o, err := l.Run(t.Context(), Case{Fleet: parse(t, elastic), Policy: name}); err != nil || o.Policy != name || o.MicroUSD <= 0 || o.Tasks != 216 {
			t.Errorf("%s: %+v %v", name, o, err)
		}
	}
}
