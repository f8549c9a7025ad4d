package control

import (
	"context"
	"fmt"
	"slices"
	"time"

	"muster.dev/muster/internal/fleet"
)

// guardEvery is how often it is looked whether agents are alone on their nodes,
// where nothing changes; guardGap is the least between two looks.
const (
	guardEvery = 30 * time.Second
	guardGap   = time.Second
)

// dedication is what was found when it was last looked whether agents share no
// machine with anything else. The engine's lock guards it, but for looked, which
// is the loop's own.
type dedication struct {
	looked   time.Time
	at       time.Time // of the last look that succeeded
	breaches []fleet.Trespass
	err      string
}

// guard looks, when it is time to, whether agents are alone on their nodes, and
// journals each breach once when it begins and once when it is over. A look that
// fails ends no breach.
func (e *Engine) guard(ctx context.Context, changed bool) {
	d, ok := e.c.Nodes.(fleet.Dedication)
	if !ok || !d.Dedicated() {
		return
	}
	every := guardEvery
	if changed {
		every = guardGap
	}
	now := e.c.Clock()
	if !due(&e.dedication.looked, now, every) {
		return
	}
	found, err := d.Trespasses(ctx)
	if ctx.Err() != nil {
		return
	}
	e.mu.Lock()
	g := &e.dedication
	before, failed := g.breaches, g.err
	if g.err = ""; err != nil {
		g.err = err.Error()
	} else {
		g.at, g.breaches = now, found
	}
	e.mu.Unlock()
	if err != nil {
		if failed != err.Error() {
			e.c.Logger.Warn("cannot tell whether agents are alone on their nodes", "error", err)
		}
		return
	}
	e.breaches(ctx, "dedication_breach", found, before)
	e.breaches(ctx, "dedication_restored", before, found)
}

// breaches journals those that are in one list and not in the other.
func (e *Engine) breaches(ctx context.Context, kind string, these, not []fleet.Trespass) {
	for _, t := range these {
		if slices.Contains(not, t) {
			continue
		}
		reason := breach(t)
		if kind == "dedication_restored" {
			reason = "no longer: " + reason
		}
		e.record(ctx, fleet.Event{Kind: kind, Layer: "nodes", Node: t.Node, Reason: reason})
	}
}

// breach says a trespass in a sentence.
func breach(t fleet.Trespass) string {
	switch t.Kind {
	case fleet.TrespassForeign:
		return fmt.Sprintf("%s runs on node %s, which is for agents alone", t.Workload, t.Node)
	case fleet.TrespassOutside:
		return fmt.Sprintf("%s runs on node %s, which is not one for agents", t.Workload, t.Node)
	}
	return fmt.Sprintf("nothing keeps others away from node %s: %s", t.Node, t.Workload)
}

// view is nil until it was looked; the engine's lock must be held.
func (d *dedication) view() *fleet.DedicationView {
	if d.at.IsZero() && d.err == "" {
		return nil
	}
	return &fleet.DedicationView{At: d.at, Trespasses: append([]fleet.Trespass{}, d.breaches...), Error: d.err}
}
