package tune

// Outcome is how a setting did.
type Outcome struct {
	CostUSD  float64
	CostOver float64 // the lower bound
	P95, P99 float64 // of waits, in seconds
	Late     float64 // of tasks that waited longer than the objective
}

// Goal is what a setting must keep to.
type Goal struct {
	Share       float64 // of tasks that may wait longer than the objective
	Runs        int     // most settings to try, today's included
	MostWarmMin int     // bound of Min; 0: none
}

// Meets tells whether the objective was met.
func (g *Goal) Meets(o *Outcome) bool { return o.Late <= g.Share }

// better tells whether a is to be preferred to b; what is equal is not.
func (g *Goal) better(a, b *Outcome) bool {
	switch am, bm := g.Meets(a), g.Meets(b); {
	case am != bm:
		return am
	case am || a.Late == b.Late:
		return a.CostUSD < b.CostUSD
	}
	return a.Late < b.Late
}

// Trial is a setting that was tried.
type Trial struct {
	Setting
	Outcome
}

// Found is the end of a search.
type Found struct {
	Today, Best Trial
	Trials      []Trial // in the order they were tried; the first is Today
	Whole       bool    // a round changed nothing: the search was not cut short
}

// Search looks for the cheapest setting that meets the goal, from today's on.
// try returns the outcome of each setting; it may try them side by side.
func Search(today Setting, g Goal, try func([]Setting) ([]Outcome, error)) (Found, error) {
	s := search{g: g, try: try, at: map[Setting]int{}}
	if err := s.scan([]Setting{today}); err != nil {
		return Found{}, err
	}
	best, whole := 0, false
	for !whole && len(s.trials) < g.Runs {
		whole = true
		for _, k := range knobs(g.Share, g.MostWarmMin) {
			line := make([]Setting, k.n)
			for i := range line {
				line[i] = s.trials[best].Setting
				k.set(&line[i], i)
			}
			if err := s.scan(line); err != nil {
				return Found{}, err
			}
			for _, x := range line {
				if i, tried := s.at[x]; !tried {
					whole = false // the runs are used up
				} else if g.better(&s.trials[i].Outcome, &s.trials[best].Outcome) {
					best, whole = i, false
				}
			}
		}
	}
	return Found{Today: s.trials[0], Best: s.trials[best], Trials: s.trials, Whole: whole}, nil
}

// search is one under way.
type search struct {
	g      Goal
	try    func([]Setting) ([]Outcome, error)
	trials []Trial
	at     map[Setting]int
}

// scan tries those that were not tried yet, while there are runs left.
func (s *search) scan(line []Setting) error {
	var fresh []Setting
	for _, x := range line {
		if _, tried := s.at[x]; !tried && len(s.trials)+len(fresh) < max(1, s.g.Runs) {
			fresh = append(fresh, x)
		}
	}
	if len(fresh) == 0 {
		return nil
	}
	outcomes, err := s.try(fresh)
	if err != nil {
		return err
	}
	for i, x := range fresh {
		s.at[x] = len(s.trials)
		s.trials = append(s.trials, Trial{x, outcomes[i]})
	}
	return nil
}

// Verdict is what to do.
type Verdict string

// The verdicts.
const (
	Change      Verdict = "change"        // the found setting is better on tasks it has not seen
	Keep        Verdict = "keep"          // today's is the best of those tried
	NoGain      Verdict = "no_gain"       // the gain is below LeastGain
	DoesNotHold Verdict = "does_not_hold" // on the half that was held out it is not better
	OutOfReach  Verdict = "out_of_reach"  // no setting that was tried meets the objective
)

// LeastGain is the part of the cost that a change must save to be worth it.
const LeastGain = 0.01

// Judge compares today's setting with the best one where the search has not
// looked.
func Judge(g Goal, f *Found, today, best *Outcome) Verdict {
	gain := 0.0
	if today.CostUSD > 0 {
		gain = 1 - best.CostUSD/today.CostUSD
	}
	switch meets := g.Meets(best); {
	case !g.Meets(&f.Best.Outcome):
		return OutOfReach
	case f.Best.Setting == f.Today.Setting:
		return Keep
	case meets && !g.Meets(today):
		return Change
	case !meets && (g.Meets(today) || best.Late > today.Late):
		return DoesNotHold
	case gain < 0:
		return DoesNotHold
	case gain < LeastGain:
		return NoGain
	}
	return Change
}
