package v1alpha1

import (
	"time"

	"muster.dev/muster/internal/fleet"
)

// LeadTimes is how long each stage of a reaction took lately: the answer of
// GET /v1/lead-times.
type LeadTimes struct {
	At            time.Time      `json:"at"`
	Since         time.Time      `json:"since" doc:"Of the process that measures; node and sandbox are remembered from before"`
	WithinSeconds float64        `json:"withinSeconds" doc:"spec.objective.reactWithin"`
	Stages        []StageView    `json:"stages" doc:"By template, those of all templates first; a stage that was not measured is left out"`
	Reactions     []ReactionView `json:"reactions" doc:"The newest times that tasks found no sandbox, newest first; at most 24 that are over"`
}

// StageView is the distribution of one stage, of its newest 256 samples a
// template (64 of node and sandbox).
type StageView struct {
	Stage      fleet.Stage `json:"stage" enum:"detect,decide,node,image,turn,start,prepare,claim,sandbox,react" doc:"In order of time. sandbox is image to prepare together, react the whole way"`
	Template   string      `json:"template,omitempty" doc:"Absent: of all templates"`
	Samples    int         `json:"samples"`
	P50Seconds float64     `json:"p50Seconds"`
	P95Seconds float64     `json:"p95Seconds"`
	P99Seconds float64     `json:"p99Seconds"`
	MaxSeconds float64     `json:"maxSeconds"`
	Newest     time.Time   `json:"newest"`
}

// ReactionView is one time that tasks found no sandbox, until the first of them
// ran, in parts that add up to its whole.
type ReactionView struct {
	Pool         fleet.PoolKey  `json:"pool"`
	Due          time.Time      `json:"due" doc:"Of the task that waited longest"`
	Over         bool           `json:"over" doc:"The first task runs"`
	TotalSeconds float64        `json:"totalSeconds" doc:"Up to now where it is not over"`
	Parts        []ReactionPart `json:"parts" doc:"In order of time"`
}

// ReactionPart is one stage of a reaction.
type ReactionPart struct {
	Stage   fleet.Stage `json:"stage" enum:"detect,decide,room,image,turn,start,prepare,sandbox,claim" doc:"room: until the sandbox could be asked for, which waits for a node or for a bound; sandbox: where the parts of its start are not known; claim: from ready to the first instruction"`
	Seconds float64     `json:"seconds"`
}

// NewLeadTimes shows lead times beside the objective of a checked fleet.
func NewLeadTimes(l fleet.LeadTimes, f *Fleet) LeadTimes {
	out := LeadTimes{At: l.At, Since: l.Since, WithinSeconds: f.Within().Seconds(), Stages: make([]StageView, len(l.Stages)), Reactions: make([]ReactionView, len(l.Reactions))}
	for i, s := range l.Stages {
		out.Stages[i] = StageView{
			Stage: s.Stage, Template: s.Template, Samples: s.Samples, P50Seconds: s.P50.Seconds(), P95Seconds: s.P95.Seconds(),
			P99Seconds: s.P99.Seconds(), MaxSeconds: s.Max.Seconds(), Newest: s.Newest,
		}
	}
	for i := range l.Reactions {
		out.Reactions[i] = newReactionView(&l.Reactions[i], l.At)
	}
	return out
}

func newReactionView(r *fleet.Reaction, now time.Time) ReactionView {
	end := r.Ran
	if end.IsZero() {
		end = now
	}
	v := ReactionView{Pool: r.Pool, Due: r.Due, Over: !r.Ran.IsZero(), TotalSeconds: max(0, end.Sub(r.Due).Seconds()), Parts: []ReactionPart{}}
	add := func(stage fleet.Stage, took time.Duration) {
		if took > 0 {
			v.Parts = append(v.Parts, ReactionPart{stage, took.Seconds()})
		}
	}
	add(fleet.StageDetect, r.Seen.Sub(r.Due))
	asked, decided := r.Asked, r.Applied
	switch {
	case asked.IsZero():
		asked = end
	case asked.Before(r.Seen): // for the stock, and it comes to help
		asked = decided
	case asked.Before(decided): // while the decision was applied
		decided = asked
	}
	add(fleet.StageDecide, decided.Sub(r.Seen))
	add(fleet.StageRoom, asked.Sub(decided))
	if r.Ready.IsZero() {
		return v
	}
	whole := r.Ready.Sub(asked)
	s := r.Start
	if known := s.Image + s.Turn + s.Start + s.Prepare; known == 0 || known > whole {
		add(fleet.StageSandbox, whole)
	} else {
		add(fleet.StageImage, s.Image)
		add(fleet.StageTurn, s.Turn+whole-known) // before the adapter had it, too
		add(fleet.StageStart, s.Start)
		add(fleet.StagePrepare, s.Prepare)
	}
	add(fleet.StageClaim, end.Sub(r.Ready))
	return v
}
