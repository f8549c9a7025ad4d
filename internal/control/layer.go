package control

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"time"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/forecast"
	"muster.dev/muster/internal/plan"
)

// settingLayer is where what was measured of the node layer is kept.
const settingLayer = "control.layer"

// layer is what the engine measured for the sizing of nodes: what is learned
// of arrivals within a boot, of how long tasks go on, and of boots. A fleet
// with one fixed host leaves it empty. The engine's lock guards it.
type layer struct {
	Ranks forecast.Ranks     `json:"ranks"`
	Lives forecast.Lifetimes `json:"lives"`
	Boots forecast.Leads     `json:"boots"`

	finished, begun, late int64 // tasks, in this process
	started, failed       int64 // boots, likewise
	failure               string
	booting               map[fleet.NodeID]bool // as last seen
	meter                 fleet.Meter
}

// boots notes which nodes became ready, and which vanished before. Where the
// nodes know of boots that failed, one that vanished without was given up.
func (l *layer) boots(now time.Time, nodes []fleet.Node, of fleet.Nodes) {
	next := map[fleet.NodeID]bool{}
	for i := range nodes {
		n := &nodes[i]
		id := cmp.Or(n.BootID, n.ID)
		switch {
		case n.State == fleet.NodeBooting:
			next[n.ID] = true
		case l.booting[id]:
			l.started++
			l.Boots.Add(now, n.ReadyAt.Sub(n.RequestedAt))
			l.meter.Booted(n.ReadyAt.Sub(n.RequestedAt), true)
			l.failure = ""
		}
		delete(l.booting, id)
	}
	known, _ := of.(fleet.BootFailures)
	for id := range l.booting { // gone without having been ready
		why := fmt.Sprintf("node %s vanished while it booted", id)
		if known != nil {
			why = known.BootFailure(id)
		}
		if why != "" {
			l.fail(why)
		}
	}
	l.booting = next
}

func (l *layer) fail(why string) {
	l.failed++
	l.failure = why
	l.meter.Booted(0, false)
}

// begins counts a task that started after the wait, and reports whether that was
// late.
func (l *layer) begins(wait, objective time.Duration) (late bool) {
	l.begun++
	if late = wait > objective; late {
		l.late++
	}
	return late
}

// ends counts a task that is final.
func (l *layer) ends(t *fleet.Task) {
	l.finished++
	if !t.ClaimedAt.IsZero() && t.EndedAt.After(t.ClaimedAt) {
		l.Lives.Done(t.EndedAt, t.EndedAt.Sub(t.ClaimedAt))
	}
}

// scale asks for nodes; a refusal counts as a failed boot, for the breaker.
func (e *Engine) scale(ctx context.Context, nodes int) error {
	err := e.c.Nodes.Scale(ctx, nodes)
	if err != nil {
		e.mu.Lock()
		e.layer.fail(err.Error())
		e.mu.Unlock()
	}
	return err
}

// measure completes the observation of a fleet whose nodes come and go.
func (l *layer) measure(s *snapshot, p *plan.Policy, of fleet.Nodes) {
	now, o := s.at, &s.o
	if s.err == "" && o.NodesError == "" {
		l.boots(now, s.nodes, of)
	}
	o.NodeLead = l.Boots.Quantiles(now, leadWindow, fleet.Lead{P50: p.Nodes.BootLead, P95: p.Nodes.BootLead, P99: p.Nodes.BootLead})
	o.NodesStarted, o.NodesFailed, o.NodeFailure = l.started, l.failed, l.failure
	o.Begun, o.Late = l.begun, l.late
	if s.err != "" {
		// What comes meanwhile cannot be told from what comes at the end.
		l.Ranks.Unwatched()
	} else {
		l.Ranks.Observe(now, s.stats.Arrived, l.finished, o.NodeLead.P95)
	}
	o.Outlook = &forecast.Outlook{} // the last decision may still be looked at
	l.Ranks.Outlook(now, o.NodeLead.P95, o.Outlook)
}

// restart says that another process counted before.
func (l *layer) restart() {
	l.Ranks.Unwatched()
	l.Ranks.Known = l.Ranks.Known && l.Ranks.Hists != nil
	l.Ranks.Finished = 0
}

// elastic tells a fleet whose nodes come and go.
func (s *Spec) elastic() bool { return s.Policy.Nodes.Scalable }

// saveLayer keeps what was measured of an elastic fleet.
func (e *Engine) saveLayer(ctx context.Context) error {
	e.mu.Lock()
	if !e.spec.elastic() {
		e.mu.Unlock()
		return nil
	}
	b, err := json.Marshal(&e.layer)
	e.mu.Unlock()
	if err != nil {
		return fmt.Errorf("encode what was measured of the nodes: %w", err)
	}
	if err := e.c.Store.PutSetting(ctx, settingLayer, b); err != nil {
		return fmt.Errorf("keep what was measured of the nodes: %w", err)
	}
	return nil
}

// preferences is the order in which the nodes of a decision take new work.
func preferences(s *snapshot) map[fleet.NodeID]float64 {
	out := make(map[fleet.NodeID]float64, len(s.o.Nodes))
	for i := range s.o.Nodes {
		out[s.o.Nodes[i].ID] = plan.Prefer(&s.o.Nodes[i])
	}
	return out
}
