package replay

import (
	"cmp"
	"context"
	"slices"
	"time"

	"muster.dev/muster/internal/control"
	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/plan"
)

const (
	// longest is how long a decision is taken to hold when the next one is
	// further away: one is journaled every minute, so a longer gap is a time
	// without a control plane.
	longest = 2 * time.Minute
	// episode is the time in which only the largest difference of a pool is a
	// moment to show, and mostMoments how many are shown.
	episode     = 10 * time.Minute
	mostMoments = 5
)

// Comparison is what another fleet would have decided.
type Comparison struct {
	Span
	// Different decisions differ in what they want or do, not only in words.
	Different int          `json:"different"`
	Pools     []PoolChange `json:"pools"`   // in order of key
	Moments   []Moment     `json:"moments"` // with the largest differences, in order of time
	// Unknown are pools whose template the other fleet has not.
	Unknown []fleet.PoolKey `json:"unknown,omitempty"`
	// Older ones were decided by an earlier version of the planner, so that what
	// differs may be the planner and not the policy.
	Older int `json:"older,omitempty"`
}

// PoolChange is a pool as it was decided and as it would have been.
type PoolChange struct {
	Pool     fleet.PoolKey `json:"pool"`
	Recorded Sizes         `json:"recorded"`
	Other    Sizes         `json:"other"`
}

// Sizes sums up what was decided for a pool. Means are over time.
type Sizes struct {
	DesiredMean float64 `json:"desiredMean"` // sandboxes, busy ones included
	DesiredMax  int     `json:"desiredMax"`
	WarmMean    float64 `json:"warmMean"` // of them, beyond demand
	WarmMax     int     `json:"warmMax"`
	Starts      int     `json:"starts"` // sandboxes, over all decisions
	Drains      int     `json:"drains"`
}

// Moment is one pool at one decision.
type Moment struct {
	Mark
	Pool     fleet.PoolKey `json:"pool"`
	Recorded Target        `json:"recorded"`
	Other    Target        `json:"other"`
}

// Target is what was wanted, and why.
type Target struct {
	Desired int    `json:"desired"`
	Warm    int    `json:"warm"`
	Reason  string `json:"reason"`
}

// weight is the size of a moment's difference.
func (m *Moment) weight() int {
	return max(m.Recorded.Desired-m.Other.Desired, m.Other.Desired-m.Recorded.Desired)
}

// Compare decides every observation of the range under another specification,
// in open loop: what an earlier decision of its own would have changed is not
// there. It remembers its own decisions as the loop does (a stock held up, a
// surplus tolerated), and sees the recorded world.
func Compare(ctx context.Context, src Source, in Range, other control.Spec) (*Comparison, error) {
	c := comparer{
		spec: other.Complete(), pools: map[fleet.PoolKey]*tally{}, unknown: map[fleet.PoolKey]bool{}, moments: map[place]Moment{},
		out: &Comparison{Pools: []PoolChange{}, Moments: []Moment{}},
	}
	span, err := Each(ctx, src, in, c.one)
	c.out.Span = span
	if err != nil {
		return c.out, err
	}
	c.conclude()
	return c.out, nil
}

type comparer struct {
	spec    control.Spec
	own     plan.State
	last    time.Time
	pools   map[fleet.PoolKey]*tally
	unknown map[fleet.PoolKey]bool
	moments map[place]Moment
	out     *Comparison
}

// place is where of several moments the largest is kept.
type place struct {
	pool fleet.PoolKey
	at   int64 // episodes since 1970
}

func (c *comparer) one(d *fleet.DecisionRecord) error {
	if err := tooNew(d); err != nil {
		return err
	}
	if d.Version < plan.Version {
		c.out.Older++
	}
	r, err := plan.Read(d)
	if err != nil {
		return err
	}
	o := c.spec.Reobserve(d.At, r.Observation)
	for i := range o.Pools {
		if p := &o.Pools[i]; p.Unknown && !c.unknown[p.Key] {
			c.unknown[p.Key] = true
			c.out.Unknown = append(c.out.Unknown, p.Key)
		}
	}
	got, next := plan.Decide(d.At, o, c.spec.Policy, r.State.Remembering(c.own))
	c.own = next
	if !sameDecision(&r.Plan, &got) {
		c.out.Different++
	}
	c.pass(d.At)
	c.count(&r.Plan, func(t *tally) *side { return &t.recorded })
	c.count(&got, func(t *tally) *side { return &t.other })
	c.moment(d, &r.Plan, &got)
	return nil
}

// pass lets the targets of the decision before hold until now.
func (c *comparer) pass(now time.Time) {
	dt := min(max(0, now.Sub(c.last)), longest)
	c.last = now
	for _, t := range c.pools {
		t.span += dt
		t.recorded.pass(dt)
		t.other.pass(dt)
	}
}

func (c *comparer) count(p *plan.Plan, of func(*tally) *side) {
	pool := func(key fleet.PoolKey) *side {
		if c.pools[key] == nil {
			c.pools[key] = &tally{}
		}
		return of(c.pools[key])
	}
	for i := range p.Pools {
		x := &p.Pools[i]
		pool(x.Pool).set(x.Desired, x.Warm)
	}
	for i := range p.Actions {
		switch a := &p.Actions[i]; a.Kind {
		case plan.StartSandboxes:
			pool(a.Pool).sizes.Starts += a.N
		case plan.DrainSandbox:
			pool(a.Pool).sizes.Drains++
		}
	}
}

func (c *comparer) moment(d *fleet.DecisionRecord, was, is *plan.Plan) {
	for i := range is.Pools {
		x := &is.Pools[i]
		m := Moment{Mark: Mark{d.Seq, d.At}, Pool: x.Pool, Other: target(x), Recorded: Target{Reason: "the fleet had no such pool"}}
		if k := slices.IndexFunc(was.Pools, func(t plan.PoolTarget) bool { return t.Pool == x.Pool }); k >= 0 {
			m.Recorded = target(&was.Pools[k])
		}
		at := place{x.Pool, d.At.Unix() / int64(episode.Seconds())}
		if before, seen := c.moments[at]; m.weight() > 0 && (!seen || m.weight() > before.weight()) {
			c.moments[at] = m
		}
	}
}

func target(t *plan.PoolTarget) Target { return Target{t.Desired, t.Warm, t.Reason.Sentence()} }

func (c *comparer) conclude() {
	for key, t := range c.pools {
		c.out.Pools = append(c.out.Pools, PoolChange{key, t.recorded.sum(t.span), t.other.sum(t.span)})
	}
	slices.SortFunc(c.out.Pools, func(a, b PoolChange) int { return cmp.Compare(a.Pool, b.Pool) })
	slices.Sort(c.out.Unknown)
	for _, m := range c.moments {
		c.out.Moments = append(c.out.Moments, m)
	}
	slices.SortFunc(c.out.Moments, func(a, b Moment) int {
		return cmp.Or(cmp.Compare(b.weight(), a.weight()), cmp.Compare(a.Seq, b.Seq), cmp.Compare(a.Pool, b.Pool))
	})
	c.out.Moments = c.out.Moments[:min(len(c.out.Moments), mostMoments)]
	slices.SortFunc(c.out.Moments, func(a, b Moment) int { return cmp.Or(cmp.Compare(a.Seq, b.Seq), cmp.Compare(a.Pool, b.Pool)) })
}

// tally adds one pool up.
type tally struct {
	span            time.Duration
	recorded, other side
}

// side is one of the two that are compared.
type side struct {
	sizes         Sizes
	desired, warm int     // that hold now
	wanted, stock float64 // over time, in sandbox-seconds
}

func (s *side) set(desired, warm int) {
	s.desired, s.warm = desired, warm
	s.sizes.DesiredMax, s.sizes.WarmMax = max(s.sizes.DesiredMax, desired), max(s.sizes.WarmMax, warm)
}

func (s *side) pass(d time.Duration) {
	s.wanted += float64(s.desired) * d.Seconds()
	s.stock += float64(s.warm) * d.Seconds()
	s.desired, s.warm = 0, 0 // a pool that is not decided on any more
}

func (s *side) sum(span time.Duration) Sizes {
	out := s.sizes
	if span > 0 {
		out.DesiredMean, out.WarmMean = s.wanted/span.Seconds(), s.stock/span.Seconds()
	} else { // a single decision
		out.DesiredMean, out.WarmMean = float64(s.desired), float64(s.warm)
	}
	return out
}

// sameDecision reports whether two plans want and do the same, whatever the
// reason.
func sameDecision(a, b *plan.Plan) bool {
	return a.Nodes.Desired == b.Nodes.Desired &&
		slices.EqualFunc(a.Pools, b.Pools, func(x, y plan.PoolTarget) bool {
			return x.Pool == y.Pool && x.Desired == y.Desired && x.Warm == y.Warm && x.Consumers == y.Consumers && x.Unmet == y.Unmet
		}) &&
		slices.EqualFunc(a.Actions, b.Actions, func(x, y plan.Action) bool {
			x.Reason, y.Reason = nil, nil
			return x == y
		})
}
