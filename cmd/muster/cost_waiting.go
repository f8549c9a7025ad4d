package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/client"
	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/sim"
	"muster.dev/muster/internal/sim/trace"
)

// waitingCost is what waiting cost, and what it would have cost elsewhere.
type waitingCost struct {
	HourUSD float64       `json:"hourUSD"` // of waiting
	Tasks   int64         `json:"tasks"`
	Hours   float64       `json:"hours"` // from due to the first instruction, of all together
	USD     float64       `json:"usd"`
	Slots   int           `json:"slots"` // sandboxes on a node, in what is simulated
	Beside  []waitingThan `json:"beside"`
}

// waitingThan is the same tasks on another fleet, simulated.
type waitingThan struct {
	Kind       string  `json:"kind"` // keda, same_peak, asked
	Nodes      int     `json:"nodes,omitempty"`
	Hours      float64 `json:"hours"`
	USD        float64 `json:"usd"`
	RemovedUSD float64 `json:"removedUSD"` // by this fleet; below 0: it waits longer
}

// costWithWaiting is the report with what only the command line adds.
type costWithWaiting struct {
	fleet.CostReport
	Waiting *waitingCost `json:"waiting,omitempty"`
}

// rival is a fleet to compare with.
type rival struct {
	kind, policy string
	nodes        int
}

// costOfWaiting reads the tasks of the report's time and puts them on other
// fleets; nil where none has run.
func costOfWaiting(ctx context.Context, c *client.Client, r *fleet.CostReport, hourUSD float64, fixed int) (*waitingCost, error) {
	out := &waitingCost{HourUSD: hourUSD, Beside: []waitingThan{}}
	var rows trace.Rows
	waited := time.Duration(0)
	_, err := finished(ctx, c, r.Since, func(t *v1alpha1.TaskView, due time.Time) {
		if due.Before(r.Until) {
			waited += max(0, t.StartedAt.Sub(due))
			rows = append(rows, trace.Row{Arrival: trace.Millis(due), Duration: t.EndedAt.Sub(t.StartedAt).Milliseconds()})
		}
	})
	if err != nil || len(rows) == 0 {
		return nil, err
	}
	slices.SortFunc(rows, func(a, b trace.Row) int { return int(a.Arrival - b.Arrival) })
	v, err := c.Fleet(ctx)
	if err != nil {
		return nil, err
	}
	m, err := modelOf(ctx, c, &v)
	if err != nil {
		return nil, err
	}
	out.Tasks, out.Hours, out.Slots = int64(len(rows)), waited.Hours(), m.Slots
	out.USD = out.Hours * hourUSD
	rivals := []rival{{"keda", "keda", 0}}
	if r.PeakNodes > 0 {
		rivals = append(rivals, rival{"same_peak", "fixed", r.PeakNodes})
	}
	if fixed > 0 {
		rivals = append(rivals, rival{"asked", "fixed", fixed})
	}
	for _, x := range rivals {
		hours, err := x.waits(rows, m)
		if err != nil {
			return nil, err
		}
		usd := hours * hourUSD
		out.Beside = append(out.Beside, waitingThan{x.kind, x.nodes, hours, usd, usd - out.USD})
	}
	return out, nil
}

// modelOf is the fleet as the simulator wants it: its nodes as large as the
// largest there is, and what sandboxes took to start.
func modelOf(ctx context.Context, c *client.Client, v *v1alpha1.FleetView) (sim.Model, error) {
	m := sim.Defaults()
	slots := 0
	for i := range v.Nodes {
		slots = max(slots, v.Nodes[i].Slots)
	}
	raw, err := c.FleetSpec(ctx)
	if err != nil {
		return m, err
	}
	f, err := v1alpha1.ParseFleet(raw)
	if err != nil {
		return m, fmt.Errorf("read the running fleet: %w", err)
	}
	spec, err := controlSpec(f)
	if err != nil {
		return m, err
	}
	p := spec.Policy.WithDefaults()
	if slots == 0 {
		slots = p.Nodes.Slots
	}
	m.Slots, m.Boot, m.Hold, m.MinBill = min(slots, 10_000), sim.Constant(p.Nodes.BootLead), p.Nodes.BootLead, p.Nodes.MinBill
	for i := range v.Pools {
		if l := v.Pools[i].StartLead; l.Samples > 0 && l.P50Seconds > 0 {
			m.ColdStart = sim.Constant(time.Duration(l.P50Seconds * float64(time.Second)))
			break
		}
	}
	return m, nil
}

// waits is how long the tasks wait in all, in hours.
func (x rival) waits(rows trace.Rows, m sim.Model) (float64, error) {
	c := sim.Config{Trace: rows, Model: m, FixedNodes: x.nodes}
	s, err := sim.Look(&c)
	var r sim.Result
	if err == nil {
		r, err = sim.Simulate(&c, s, x.policy)
	}
	if err != nil && !errors.Is(err, sim.ErrNoTask) {
		return 0, fmt.Errorf("simulate %s: %w", x.kind, err)
	}
	return r.WaitSum / 3600, nil
}

// waitingFields say it to a person.
func waitingFields(w *waitingCost) [][2]string {
	if w == nil {
		return nil
	}
	money := func(v float64) string { return usd(int64(math.Round(v * 1e6))) }
	out := [][2]string{{"waiting", fmt.Sprintf("%.2f hours of %s, %s each: %s at %s an hour",
		w.Hours, plural(int(w.Tasks), "task"), seconds(w.Hours*3600/float64(w.Tasks)), money(w.USD), money(w.HourUSD))}}
	for _, b := range w.Beside {
		name := "KEDA's reaction"
		if b.Kind != "keda" {
			name = "a fixed fleet of " + plural(b.Nodes, "node")
		}
		out = append(out, [2]string{"waiting removed", fmt.Sprintf("%s beside %s, simulated: %.2f hours, %s", money(b.RemovedUSD), name, b.Hours, money(b.USD))})
	}
	return out
}
