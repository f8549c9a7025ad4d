package server

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/fleet"
)

const (
	// mostSteps bounds the points of one series.
	mostSteps = 1000
	// mostSamples bounds the decisions that are read for one: a month has
	// hundreds of thousands.
	mostSamples = 2000
	// leastStep is the finest step.
	leastStep = time.Second
	// glance is how much of a step is looked at: a journal that changes every
	// second would else be read whole for a month.
	glance = 2 * time.Minute
)

func (s *Server) seriesRoute(api huma.API) {
	op := operation(http.MethodGet, v1alpha1.RouteFleetSeries, "getFleetSeries", "The fleet over time, from its journal", http.StatusUnprocessableEntity)
	op.Description = "One point per step that has a journaled decision: the one of the largest demand among the first few of the step, within its first two minutes (of the last step, its last two). A decision that changes nothing is journaled once a minute, so steps below a minute may have no point; what was before holds on."
	handle(s, api, op, s.series)
}

type seriesInput struct {
	Since string `query:"since" doc:"From this time (RFC 3339), or so long before now; absent is 1h"`
	Until string `query:"until" doc:"Up to this time (RFC 3339), or so long before now (10m); absent is now"`
	Step  string `query:"step" doc:"At least 1s and a thousandth of the time asked for; absent is a 240th of it"`
}

// span is the times and the step that a series is asked for.
func (s *Server) span(in *seriesInput) (since, until time.Time, step time.Duration, err error) {
	if in.Since == "" {
		in.Since = "1h"
	}
	f, err := s.decisionFilter(&decisionsInput{Since: in.Since, Until: in.Until})
	if err != nil {
		return since, until, 0, err
	}
	since, until = f.Since, f.Until
	if now := s.Clock(); until.IsZero() || until.After(now) {
		until = now
	}
	whole := until.Sub(since)
	if whole <= 0 {
		return since, until, 0, &fleet.FieldError{Field: "query.since", Wrong: "is not before until and now", Right: "a time in the past"}
	}
	least := max(leastStep, whole/mostSteps)
	step = max(leastStep, whole/240)
	if in.Step != "" {
		if step, err = time.ParseDuration(in.Step); err != nil || step < least {
			return since, until, 0, &fleet.FieldError{
				Field: "query.step", Wrong: fmt.Sprintf("%q is not allowed", shorten(in.Step)), Right: fmt.Sprintf("a duration of at least %s", least),
			}
		}
	}
	return since, until, step, nil
}

func (s *Server) series(ctx context.Context, in *seriesInput) (*body[v1alpha1.FleetSeries], error) {
	since, until, step, err := s.span(in)
	if err != nil {
		return nil, err
	}
	out := v1alpha1.FleetSeries{Since: since, Until: until, StepSeconds: step.Seconds(), Points: []v1alpha1.FleetPoint{}}
	each := max(1, mostSamples/int(until.Sub(since)/step+1))
	var after int64
	for at := since; at.Before(until); at = at.Add(step) {
		from, end := at, at.Add(min(step, glance)-1)
		if !at.Add(step).Before(until) { // of the last one its end: a young fleet is shown at once
			from, end = later(at, until.Add(-glance)), until.Add(-1)
		}
		read, err := s.Store.Decisions(ctx, fleet.DecisionFilter{After: after, Since: from, Until: end, Limit: each})
		if err != nil {
			return nil, err
		}
		var most *v1alpha1.FleetPoint
		for i := range read {
			after = read[i].Seq
			if p, ok := pointOf(&read[i]); ok && (most == nil || p.Backlog+p.InFlight >= most.Backlog+most.InFlight) {
				most = &p
			}
		}
		if most != nil {
			out.Points = append(out.Points, *most)
		}
	}
	return reply(out), nil
}

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// observed is what a series shows of an observation.
type observed struct {
	Queues []struct {
		Pools []struct{ Backlog, InFlight int } `json:"pools"`
	} `json:"queues"`
	Pools  []struct{ Ready, Starting, Running, Releasing int } `json:"pools"`
	Floors []struct {
		Template    string
		From, Until time.Time
		Min         int
	} `json:"floors"`
	Nodes []struct {
		State fleet.NodeState `json:"state"`
		Slots int             `json:"slots"`
	} `json:"nodes"`
}

// planned is what it shows of a plan.
type planned struct {
	Consumers int                           `json:"consumers"`
	Pools     []struct{ Desired, Warm int } `json:"pools"`
	Nodes     struct{ Desired int }         `json:"nodes"`
}

// floor is what the calendar keeps warm at a time, over all templates; of
// floors of one template the largest counts.
func (o *observed) floor(at time.Time) int {
	most := map[string]int{}
	for _, f := range o.Floors {
		if !at.Before(f.From) && at.Before(f.Until) {
			most[f.Template] = max(most[f.Template], f.Min)
		}
	}
	sum := 0
	for _, n := range most {
		sum += n
	}
	return sum
}

// pointOf reads a decision; false when it is of a form that is not known.
func pointOf(d *fleet.DecisionRecord) (v1alpha1.FleetPoint, bool) {
	var o observed
	var p planned
	if json.Unmarshal(d.Observation, &o) != nil || json.Unmarshal(d.Plan, &p) != nil {
		return v1alpha1.FleetPoint{}, false
	}
	out := v1alpha1.FleetPoint{At: d.At, Decision: d.Seq, Consumers: p.Consumers, NodesDesired: p.Nodes.Desired}
	for _, q := range o.Queues {
		for _, x := range q.Pools {
			out.Backlog += x.Backlog
			out.InFlight += x.InFlight
		}
	}
	for _, x := range o.Pools {
		out.Ready += x.Ready
		out.Starting += x.Starting
		out.Running += x.Running
		out.Draining += x.Releasing
	}
	out.Floor = o.floor(d.At)
	for _, x := range p.Pools {
		out.Desired += x.Desired
		out.WarmTarget += x.Warm
	}
	for _, n := range o.Nodes {
		switch n.State {
		case fleet.NodeGone:
			continue
		case fleet.NodeBooting:
			out.NodesBooting++
		}
		out.Nodes++
		out.Slots += n.Slots
	}
	return out, true
}
