package v1alpha1

import (
	"math"
	"testing"
	"time"

	"muster.dev/muster/internal/fleet"
)

// The parts of a reaction add up to its whole, whatever is known of it.
func TestReactionAddsUp(t *testing.T) {
	at := func(s float64) time.Time {
		return time.Date(2026, 3, 2, 8, 0, 0, 0, time.UTC).Add(time.Duration(s * float64(time.Second)))
	}
	stages := fleet.StartStages{Image: time.Second, Turn: time.Second, Start: 2 * time.Second, Prepare: 3 * time.Second}
	base := fleet.Reaction{Pool: "default", Due: at(0), Seen: at(1), Applied: at(1.5)}
	for name, x := range map[string]struct {
		change func(r *fleet.Reaction)
		want   []fleet.Stage
	}{
		"nothing came yet":        {func(*fleet.Reaction) {}, []fleet.Stage{"detect", "decide", "room"}},
		"a sandbox, no node":      {func(r *fleet.Reaction) { r.Asked, r.Ready, r.Ran, r.Start = at(1.5), at(9), at(10), stages }, []fleet.Stage{"detect", "decide", "image", "turn", "start", "prepare", "claim"}},
		"asked in the decision":   {func(r *fleet.Reaction) { r.Asked, r.Ready, r.Ran, r.Start = at(1.2), at(8.5), at(10), stages }, []fleet.Stage{"detect", "decide", "image", "turn", "start", "prepare", "claim"}},
		"behind a node":           {func(r *fleet.Reaction) { r.Asked, r.Ready, r.Ran = at(41), at(45), at(46) }, []fleet.Stage{"detect", "decide", "room", "sandbox", "claim"}},
		"ready, but not run yet":  {func(r *fleet.Reaction) { r.Asked, r.Ready, r.Start = at(2), at(10), stages }, []fleet.Stage{"detect", "decide", "room", "image", "turn", "start", "prepare", "claim"}},
		"one of the stock helped": {func(r *fleet.Reaction) { r.Asked, r.Ready, r.Ran, r.Start = at(-3), at(4), at(5), stages }, []fleet.Stage{"detect", "decide", "sandbox", "claim"}},
	} {
		r := base
		x.change(&r)
		v := NewLeadTimes(fleet.LeadTimes{At: at(60), Reactions: []fleet.Reaction{r}}, &Fleet{}).Reactions[0]
		var sum float64
		var got []fleet.Stage
		for _, p := range v.Parts {
			sum += p.Seconds
			got = append(got, p.Stage)
		}
		if math.Abs(sum-v.TotalSeconds) > 1e-6 || v.Over != !r.Ran.IsZero() {
			t.Errorf("%s: parts of %g, in all %g: %+v", name, sum, v.TotalSeconds, v.Parts)
		}
		if len(got) != len(x.want) {
			t.Errorf("%s: %v, want %v", name, got, x.want)
			continue
		}
		for i := range got {
			if got[i] != x.want[i] {
				t.Errorf("%s: %v, want %v", name, got, x.want)
				break
			}
		}
	}
}
