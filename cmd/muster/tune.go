package main

import (
	"context"
	"fmt"
	"math"
	"runtime"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/sim"
	"muster.dev/muster/internal/sim/trace"
	"muster.dev/muster/internal/sim/tune"
)

// tuneOptions are the flags of `muster tune`.
type tuneOptions struct {
	world            simulateOptions
	since, objective string
	share            float64
	runs             int
	out              *outputFlag
}

func newTuneCommand(s *shell) *cobra.Command {
	var o tuneOptions
	c := &cobra.Command{
		Use:   "tune",
		Short: "Find the cheapest settings that meet the objective",
		Long: `Search the settings of the planner on a fleet's own history, in the simulator, for
the lowest cost with which no more than --share of the tasks wait longer than
--objective until their first instruction. Without --trace the history is the
finished tasks of the running fleet.

The settings are searched on the first half of the history and judged on the
second, which the search has not seen: they are recommended only when they save
1 % there, or meet the objective where today's do not. The printed YAML is what
to put into the Fleet.

The flags that describe the trace and the world are those of ` + "`muster simulate`" + `.`,
		Example: `  muster tune
  muster tune --since 720h --objective 10s
  muster tune --trace month.csv.gz --fleet fleet.yaml -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runTune(cmd.Context(), s, &o) },
	}
	o.world.addWorldTo(c)
	f := c.Flags()
	f.Lookup("trace").Usage = "`file` with the trace; - is standard input (default: the finished tasks of the running fleet)"
	f.Lookup("fleet").Usage = "`file` with the Fleet that is tuned (default: the running one; with --trace: the defaults)"
	f.StringVar(&o.since, "since", "", "tasks submitted since `when`: 720h, 2026-03-01, or RFC 3339 (default: all that is kept)")
	f.StringVar(&o.objective, "objective", "", "`seconds` that tasks should start within (default: the fleet's startP99, else 5s)")
	f.Float64Var(&o.share, "share", 0.01, "`part` of the tasks that may wait longer")
	f.IntVar(&o.runs, "runs", 40, "most settings to try")
	o.out = addOutput(c, formatTable, formatJSON, formatYAML)
	return c
}

// ownHistory is what a running fleet knows of itself.
type ownHistory struct {
	fleet     *v1alpha1.Fleet
	rows      trace.Rows
	templates []string
}

func runTune(ctx context.Context, s *shell, o *tuneOptions) error {
	if err := o.check(); err != nil {
		return err
	}
	bar := newProgress(s)
	defer bar.done()
	if o.world.trace == "" {
		if err := o.ask(ctx, s); err != nil {
			return err
		}
	}
	c, err := o.world.config(s, bar)
	if err != nil {
		return err
	}
	if o.objective != "" {
		if c.Muster.Policy.Objective, err = sim.ParseSeconds(o.objective); err != nil || c.Muster.Policy.Objective <= 0 {
			return usageError("--objective %q is no wait; want seconds above 0, as 5 or 5s", o.objective)
		}
	}
	c.Muster.Policy = c.Muster.Policy.WithDefaults()
	bar.stage("looking at the history", 1)
	t, err := o.split(&c)
	if err != nil {
		return err
	}
	t.bar = bar
	r, err := t.run(ctx)
	if err != nil {
		return wrongTrace(err)
	}
	bar.done()
	if done, err := o.out.structured(s, r.view()); done {
		return err
	}
	return r.print(s)
}

func (o *tuneOptions) check() error {
	switch {
	case !(o.share >= 0.0005 && o.share <= 0.4):
		return usageError("--share %v is out of range; want a part from 0.0005 to 0.4, as 0.01", o.share)
	case o.runs < 2 || o.runs > 10_000:
		return usageError("--runs %d is out of range; want 2 to 10000", o.runs)
	case o.since != "" && o.world.trace != "":
		return usageError("--since with --trace: a trace is cut with --from and --to; want one of the two")
	case o.world.class != "" && o.world.trace == "":
		return usageError("--class goes with --trace: the fleet's own tasks have their templates")
	}
	return nil
}

// ask reads history and Fleet of the running fleet.
func (o *tuneOptions) ask(ctx context.Context, s *shell) error {
	from, err := moment(o.since, s.now())
	if err != nil {
		return err
	}
	cl, err := s.connect()
	if err != nil {
		return err
	}
	defer cl.Close()
	records, left, err := history(ctx, cl, from)
	if err != nil {
		return err
	}
	if len(records) == 0 {
		return fmt.Errorf("no task has finished%s; %d were left out", sinceWhen(o.since), left)
	}
	own := &ownHistory{}
	for i := range records {
		r := &records[i]
		at := slices.Index(own.templates, r.Class)
		if at < 0 {
			at = len(own.templates)
			own.templates = append(own.templates, r.Class)
		}
		r.Row.Class = int32(at)
		own.rows = append(own.rows, r.Row)
	}
	spec, err := cl.FleetSpec(ctx)
	if err != nil {
		return err
	}
	if own.fleet, err = v1alpha1.ParseFleet(spec); err != nil {
		return fmt.Errorf("read the running fleet: %w", err)
	}
	o.world.own, o.world.trace = own, ""
	return nil
}

// tuning is one search under way.
type tuning struct {
	goal   tune.Goal
	parts  tune.Parts
	today  tune.Setting
	halves [2]half
	bar    *progress
	runs   int // begun
}

// half is what settings are tried on.
type half struct {
	c      sim.Config
	survey *sim.Survey
}

// split divides the history.
func (o *tuneOptions) split(c *sim.Config) (*tuning, error) {
	t := &tuning{goal: tune.Goal{Share: o.share, Runs: o.runs, MostWarmMin: c.Muster.Policy.Max}, today: tune.Of(c.Muster.Policy)}
	var err error
	if t.parts, err = tune.Halves(c.Trace, c.From); err != nil {
		return nil, wrongTrace(err)
	}
	if n, want := min(t.parts.First, t.parts.Second), int64(math.Ceil(1/o.share)); n < want {
		return nil, usageError("the halves of the history have %d and %d tasks; whether %s of them are late takes %d in each: give a longer history, or --warmup-until an earlier time",
			t.parts.First, t.parts.Second, partOf(o.share), want)
	}
	first, second := *c, *c
	first.From, first.To = t.parts.Open, t.parts.Middle
	first.Trace = trace.Select(c.Trace, trace.Selection{To: t.parts.Middle})
	second.From = t.parts.Middle
	for i, c := range []sim.Config{first, second} {
		t.halves[i].c = c
		if t.halves[i].survey, err = sim.Look(&c); err != nil {
			return nil, wrongTrace(err)
		}
	}
	return t, nil
}

// run searches on the first half and judges on the second.
func (t *tuning) run(ctx context.Context) (*tuned, error) {
	t.bar.stage("trying settings", t.goal.Runs)
	found, err := tune.Search(t.today, t.goal, func(line []tune.Setting) ([]tune.Outcome, error) {
		return t.try(ctx, &t.halves[0], line)
	})
	if err != nil {
		return nil, err
	}
	t.bar.stage("judging", 2)
	held, err := t.try(ctx, &t.halves[1], []tune.Setting{found.Today.Setting, found.Best.Setting})
	if err != nil {
		return nil, err
	}
	return &tuned{
		t: t, found: found, held: [2]tune.Outcome{held[0], held[1]},
		verdict: tune.Judge(t.goal, &found, &held[0], &held[1]),
	}, nil
}

// try simulates settings side by side.
func (t *tuning) try(ctx context.Context, h *half, line []tune.Setting) ([]tune.Outcome, error) {
	out := make([]tune.Outcome, len(line))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for i, setting := range line {
		name := strconv.Itoa(t.runs)
		t.runs++
		g.Go(func() error {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			c := h.c
			c.Muster.Policy = setting.Apply(c.Muster.Policy)
			c.Progress = func(_ string, done float64) { t.bar.tell(name, done) }
			r, err := sim.Simulate(&c, h.survey, "muster")
			out[i] = tune.Outcome{CostUSD: r.CostUSD, CostOver: r.CostOver, P95: r.WaitP95, P99: r.WaitP99, Late: r.Late}
			return err
		})
	}
	return out, g.Wait()
}

func partOf(v float64) string { return strconv.FormatFloat(math.Round(1e4*v)/100, 'f', -1, 64) + "%" }

func (t *tuning) objective() time.Duration { return t.halves[0].c.Muster.Policy.Objective }
