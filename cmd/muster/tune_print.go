package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"sigs.k8s.io/yaml"

	"muster.dev/muster/internal/sim/tune"
	"muster.dev/muster/internal/terminal"
)

// tuned is the result of `muster tune`.
type tuned struct {
	t       *tuning
	found   tune.Found
	held    [2]tune.Outcome // today's and the found setting, on the half that was held out
	verdict tune.Verdict
}

// tuneView is the result for programs. The settings are those of a Fleet.
type tuneView struct {
	ObjectiveSeconds float64       `json:"objectiveSeconds"`
	Share            float64       `json:"share"` // of tasks that may wait longer
	Verdict          tune.Verdict  `json:"verdict"`
	Reason           string        `json:"reason"`
	Searched         halfView      `json:"searched"`
	HeldOut          halfView      `json:"heldOut"`
	Runs             int           `json:"runs"`
	Whole            bool          `json:"whole"` // not cut short by --runs
	Fleet            *fleetChange  `json:"fleet,omitempty"`
	Trials           []outcomeView `json:"trials"`
}

type halfView struct {
	From  time.Time   `json:"from"`
	To    time.Time   `json:"to"`
	Tasks int64       `json:"tasks"`
	Today outcomeView `json:"today"`
	Found outcomeView `json:"found"`
}

type outcomeView struct {
	LateShare    float64 `json:"lateShare"`
	LatePriceMax float64 `json:"latePriceMax"`
	KeepFactor   float64 `json:"keepFactor"`
	WarmQuantile float64 `json:"warmQuantile"`
	HoldWarm     string  `json:"holdWarm"`
	Min          int     `json:"min"`
	CostUSD      float64 `json:"costUSD"`
	CostOver     float64 `json:"costOverBound"`
	P95          float64 `json:"waitP95Seconds"`
	P99          float64 `json:"waitP99Seconds"`
	Late         float64 `json:"late"`
	Meets        bool    `json:"meets"`
}

// fleetChange is the part of a Fleet that changes.
type fleetChange struct {
	Spec struct {
		Scaling  map[string]any `json:"scaling,omitempty"`
		Capacity map[string]any `json:"capacity,omitempty"`
	} `json:"spec"`
}

func (r *tuned) view() *tuneView {
	g := &r.t.goal
	v := &tuneView{
		ObjectiveSeconds: r.t.objective().Seconds(), Share: g.Share, Verdict: r.verdict, Reason: r.reason(),
		Searched: r.half(0, r.found.Today.Outcome, r.found.Best.Outcome), HeldOut: r.half(1, r.held[0], r.held[1]),
		Runs: len(r.found.Trials), Whole: r.found.Whole,
	}
	if r.verdict == tune.Change {
		v.Fleet = r.change()
	}
	for i := range r.found.Trials {
		t := &r.found.Trials[i]
		v.Trials = append(v.Trials, r.outcome(t.Setting, t.Outcome))
	}
	return v
}

func (r *tuned) half(i int, today, found tune.Outcome) halfView {
	s := r.t.halves[i].survey
	return halfView{
		From: time.UnixMilli(s.Open).UTC(), To: time.UnixMilli(s.Close).UTC(), Tasks: s.Tasks,
		Today: r.outcome(r.found.Today.Setting, today), Found: r.outcome(r.found.Best.Setting, found),
	}
}

func (r *tuned) outcome(s tune.Setting, o tune.Outcome) outcomeView {
	return outcomeView{
		LateShare: s.LateShare, LatePriceMax: s.LatePriceMax, KeepFactor: s.KeepFactor, WarmQuantile: s.WarmQuantile,
		HoldWarm: s.HoldWarm.String(), Min: s.Min,
		CostUSD: o.CostUSD, CostOver: o.CostOver, P95: o.P95, P99: o.P99, Late: o.Late, Meets: r.t.goal.Meets(&o),
	}
}

// change is what differs from today's settings.
func (r *tuned) change() *fleetChange {
	a, b := &r.found.Today.Setting, &r.found.Best.Setting
	c := &fleetChange{}
	c.Spec.Scaling = map[string]any{}
	set := func(name string, differs bool, v any) {
		if differs {
			c.Spec.Scaling[name] = v
		}
	}
	set("lateShare", a.LateShare != b.LateShare, b.LateShare)
	set("latePriceMax", a.LatePriceMax != b.LatePriceMax, b.LatePriceMax)
	set("keepFactor", a.KeepFactor != b.KeepFactor, b.KeepFactor)
	set("warmQuantile", a.WarmQuantile != b.WarmQuantile, b.WarmQuantile)
	set("holdWarm", a.HoldWarm != b.HoldWarm, b.HoldWarm.String())
	if a.Min != b.Min {
		c.Spec.Capacity = map[string]any{"sandboxes": map[string]any{"min": b.Min}}
	}
	return c
}

// reason says in words what to do.
func (r *tuned) reason() string {
	today, found := &r.held[0], &r.held[1]
	wait := "wait longer than " + terminal.Age(r.t.objective())
	late := func(o *tune.Outcome) string { return partOf(o.Late) + " " + wait }
	gain := "costs the same"
	if today.CostUSD > 0 {
		switch d := 1 - found.CostUSD/today.CostUSD; {
		case d > 0:
			gain = "costs " + partOf(d) + " less"
		case d < 0:
			gain = "costs " + partOf(-d) + " more"
		}
	}
	switch r.verdict {
	case tune.Change:
		text := fmt.Sprintf("Change: on the half it has not seen the found setting %s, and %s (today: %s)", gain, late(found), partOf(today.Late))
		if !r.t.goal.Meets(found) {
			text += "; the objective is missed there with both"
		}
		return text + "."
	case tune.Keep:
		return fmt.Sprintf("No change: of the %d settings tried, today's is the cheapest that meets the objective.", len(r.found.Trials))
	case tune.NoGain:
		return fmt.Sprintf("No change: on the half it has not seen the found setting %s, and less than 1%% is not worth one.", gain)
	case tune.DoesNotHold:
		return fmt.Sprintf("No change: the gain does not hold. On the half it has not seen the found setting %s, and %s (today: %s).", gain, late(found), partOf(today.Late))
	}
	return fmt.Sprintf("No change: none of the %d settings tried meets the objective; with the nearest, %s where it was searched. More than %s need a longer objective, a floor at known times (capacity.floors), or faster nodes.",
		len(r.found.Trials), late(&r.found.Best.Outcome), partOf(1-r.t.goal.Share))
}

func (r *tuned) print(s *shell) error {
	right := func(title string) terminal.Column { return terminal.Column{Title: title, Right: true} }
	t := s.table(terminal.Column{Title: "HALF"}, terminal.Column{Title: "SETTING"}, right("COST"), right("x BOUND"), right("WAIT P95"), right("P99"),
		right(">"+terminal.Age(r.t.objective())), terminal.Column{Title: "OBJECTIVE"})
	row := func(half, name string, o tune.Outcome) {
		met := "met"
		if !r.t.goal.Meets(&o) {
			met = "missed"
		}
		t.Row(terminal.Text(half, name, "$"+strconv.FormatFloat(o.CostUSD, 'f', 2, 64), strconv.FormatFloat(o.CostOver, 'f', 3, 64),
			wait(o.P95), wait(o.P99), share(o.Late), met)...)
	}
	row("searched", "today", r.found.Today.Outcome)
	row("searched", "found", r.found.Best.Outcome)
	row("held out", "today", r.held[0])
	row("held out", "found", r.held[1])
	if err := s.printTable(t); err != nil {
		return err
	}
	s.printf("\n%s", r.settings(s))
	s.printf("\n%s\n", r.reason())
	if r.verdict == tune.Change {
		b, err := yaml.Marshal(r.change())
		if err != nil {
			return fmt.Errorf("encode: %w", err)
		}
		s.printf("\n%s", b)
	}
	s.printf("\n%s\n", terminal.EscapeLines(r.basis()))
	return nil
}

// settings sets the found values beside today's.
func (r *tuned) settings(s *shell) string {
	a, b := &r.found.Today.Setting, &r.found.Best.Setting
	right := func(title string) terminal.Column { return terminal.Column{Title: title, Right: true} }
	t := s.table(terminal.Column{Title: "FIELD OF SPEC"}, right("TODAY"), right("FOUND"))
	num := func(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }
	t.Row(terminal.Text("scaling.lateShare", num(a.LateShare), num(b.LateShare))...)
	t.Row(terminal.Text("scaling.latePriceMax", num(a.LatePriceMax), num(b.LatePriceMax))...)
	t.Row(terminal.Text("scaling.keepFactor", num(a.KeepFactor), num(b.KeepFactor))...)
	t.Row(terminal.Text("scaling.warmQuantile", num(a.WarmQuantile), num(b.WarmQuantile))...)
	t.Row(terminal.Text("scaling.holdWarm", terminal.Age(a.HoldWarm), terminal.Age(b.HoldWarm))...)
	t.Row(terminal.Text("capacity.sandboxes.min", strconv.Itoa(a.Min), strconv.Itoa(b.Min))...)
	var text strings.Builder
	_, _ = t.WriteTo(&text)
	return text.String()
}

// basis is what the numbers rest on.
func (r *tuned) basis() string {
	first, second := r.t.halves[0].survey, r.t.halves[1].survey
	cut := ""
	if !r.found.Whole {
		cut = ", cut short by --runs"
	}
	return fmt.Sprintf("%d settings tried%s on %s from %s, judged on %s from %s to %s. Simulated, not measured.",
		len(r.found.Trials), cut, plural(int(first.Tasks), "task"), stamp(first.Open), plural(int(second.Tasks), "task"), stamp(second.Open), stamp(second.Close))
}

func stamp(ms int64) string { return time.UnixMilli(ms).UTC().Format("2006-01-02 15:04") }
