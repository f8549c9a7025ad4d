package tune

import (
	"math"
	"slices"
	"time"

	"muster.dev/muster/internal/plan"
)

// Setting is what is searched, in the words of a Fleet's spec.scaling; Min is
// its capacity.sandboxes.min.
type Setting struct {
	LateShare    float64
	LatePriceMax float64 // node-seconds
	KeepFactor   float64
	WarmQuantile float64
	HoldWarm     time.Duration
	Min          int
}

// Of reads the setting of a policy.
func Of(p plan.Policy) Setting {
	p = p.WithDefaults()
	return Setting{
		LateShare: p.Nodes.LateShare, LatePriceMax: p.Nodes.PriceMax, KeepFactor: p.Nodes.Keep,
		WarmQuantile: p.Quantile, HoldWarm: p.HoldWarm, Min: p.Min,
	}
}

// Apply is the policy with the setting.
func (s Setting) Apply(p plan.Policy) plan.Policy {
	p.Nodes.LateShare, p.Nodes.PriceMax, p.Nodes.Keep = s.LateShare, s.LatePriceMax, s.KeepFactor
	p.Quantile, p.HoldWarm, p.Min = s.WarmQuantile, s.HoldWarm, s.Min
	return p
}

// knob is one coordinate.
type knob struct {
	n   int // values of its ladder
	set func(s *Setting, i int)
}

// knobs are the coordinates, those that move most first; most bounds Min.
func knobs(share float64, most int) []knob {
	return []knob{
		// Of the share that may be late, so that there is room for bad days.
		ladder(shares(share), func(s *Setting) *float64 { return &s.LateShare }),
		ladder([]float64{60, 125, 250, 500, 1000}, func(s *Setting) *float64 { return &s.LatePriceMax }),
		ladder([]float64{1, 2, 4, 8}, func(s *Setting) *float64 { return &s.KeepFactor }),
		ladder(upTo([]int{0, 1, 2, 4, 8}, most), func(s *Setting) *int { return &s.Min }),
		ladder([]float64{0.9, 0.95, 0.99, 0.995}, func(s *Setting) *float64 { return &s.WarmQuantile }),
		ladder([]time.Duration{30 * time.Second, 2 * time.Minute, 5 * time.Minute, 15 * time.Minute}, func(s *Setting) *time.Duration { return &s.HoldWarm }),
	}
}

func ladder[T any](values []T, at func(*Setting) *T) knob {
	return knob{len(values), func(s *Setting, i int) { *at(s) = values[i] }}
}

func upTo(values []int, most int) []int {
	if most <= 0 {
		return values
	}
	return slices.DeleteFunc(values, func(v int) bool { return v > most })
}

// shares are the shares that the planner is told to aim for, where share may
// be late.
func shares(share float64) []float64 {
	out := []float64{0.2, 0.4, 0.6, 0.8, 1, 1.25}
	for i, part := range out {
		out[i] = min(0.5, math.Round(part*share*1e6)/1e6)
	}
	return out
}
