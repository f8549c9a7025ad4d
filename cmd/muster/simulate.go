package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"muster.dev/muster/internal/sim"
	"muster.dev/muster/internal/sim/trace"
)

// simulateOptions are the flags of `muster simulate`, as typed.
type simulateOptions struct {
	trace, fleet string
	policy       string
	compare      []string
	json         bool
	output       *outputFlag
	report       string

	warmup, from, to string
	copies           int
	jitter           string
	maxDuration      string
	class            string

	boot, cold, minBill, hold string
	slots, maxNodes           int
	price                     float64
	nodeFailures, startFails  float64
	stockOuts                 []string
	seed                      uint64

	own *ownHistory // instead of trace and fleet
}

func newSimulateCommand(s *shell) *cobra.Command {
	var o simulateOptions
	c := &cobra.Command{
		Use:   "simulate --trace FILE",
		Short: "Try sizing policies on a recorded or published load",
		Long: `Run the load of a trace through a simulated fleet, once for each policy, and
compare what it costs and how long tasks wait until their first instruction.
"muster" is the planner that sizes a real fleet, unchanged; the others follow the
documented constants of their systems; "clairvoyant" is a proven lower bound on
the cost of any policy with which no task waits.

A trace is CSV, plain or gzip, sorted: arrival_unix_seconds,duration_seconds[,class].
Make one with ` + "`muster trace`" + `. Times are UTC dates, RFC 3339 or Unix seconds; lengths
are seconds or 90s, 2h. Boot and cold start may be spread: uniform:30-60, or
lognormal:45,0.4 (median, sigma).

Policies: ` + strings.Join(sim.Names(), ", ") + `.`,
		Example: `  muster simulate --trace week.csv.gz
  muster simulate --trace week.csv.gz --fleet fleet.yaml --compare keda,fixed --report week.html
  muster simulate --trace year.csv --warmup-until 2026-02-01 --to 2026-03-01 --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runSimulate(cmd.Context(), s, &o) },
	}
	o.addTo(c)
	return c
}

func (o *simulateOptions) addTo(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&o.policy, "policy", "", "the `policy` to simulate (default: all)")
	f.StringSliceVar(&o.compare, "compare", nil, "further `policies` to set beside it; all: every one")
	f.BoolVar(&o.json, "json", false, "print one JSON array, an object for each policy; as -o json")
	o.output = addOutput(c, formatTable, formatJSON, formatYAML)
	f.StringVar(&o.report, "report", "", "write a page for people to this `file`")
	f.StringVar(&o.hold, "hold", "", "`seconds` the rivals keep an empty node (default: one boot)")
	_ = c.RegisterFlagCompletionFunc("policy", cobra.FixedCompletions(sim.Names(), cobra.ShellCompDirectiveNoFileComp))
	_ = c.RegisterFlagCompletionFunc("compare", cobra.FixedCompletions(sim.Names(), cobra.ShellCompDirectiveNoFileComp))
	o.addWorldTo(c)
}

// addWorldTo adds the flags that say what load there is, and in which world.
func (o *simulateOptions) addWorldTo(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&o.trace, "trace", "", "`file` with the trace; - is standard input")
	f.StringVar(&o.fleet, "fleet", "", "`file` with the Fleet whose bounds, floors and price muster has")
	f.StringVar(&o.from, "from", "", "leave out tasks that arrive before this `time`")
	f.StringVar(&o.to, "to", "", "leave out tasks that arrive at or after this `time`; the window ends there")
	f.StringVar(&o.warmup, "warmup-until", "", "until this `time` the fleet only warms up: nothing is counted")
	f.IntVar(&o.copies, "copies", 1, "take every task this `many` times")
	f.StringVar(&o.jitter, "jitter", "0", "make copy k of each task late by a random time below k times these `seconds`")
	f.StringVar(&o.maxDuration, "max-duration", "0", "leave out tasks longer than these `seconds`; 0: none")
	f.StringVar(&o.class, "class", "", "`template`: the class column names templates (default: it is not read)")
	f.StringVar(&o.boot, "boot", "45", "`seconds` from asking for a node to its first sandbox")
	f.StringVar(&o.cold, "cold-start", "5", "`seconds` from starting a sandbox to ready")
	f.IntVar(&o.slots, "slots", sim.DefaultSlots, "sandboxes on a node")
	f.IntVar(&o.maxNodes, "max-nodes", 0, "most nodes at once; 0: no bound")
	f.StringVar(&o.minBill, "min-bill", "60", "`seconds` a node is billed for at least")
	f.Float64Var(&o.price, "node-hour-usd", 0, "price of a node for an hour (default: the fleet's, else 0.40)")
	f.Float64Var(&o.nodeFailures, "node-failures", 0, "ready nodes that die, per node-hour; their tasks begin again")
	f.Float64Var(&o.startFails, "start-failures", 0, "share of sandbox starts that fail")
	f.StringArrayVar(&o.stockOuts, "stock-out", nil, "`TIME/LENGTH` in which no node is to be had, as 2026-03-02T09:00:00Z/30m; may be repeated")
	f.Uint64Var(&o.seed, "seed", 1, "of all that is random: the same seed gives the same result")
}

// buckets is into how many parts the window of a report is divided.
const buckets = 480

func runSimulate(ctx context.Context, s *shell, o *simulateOptions) error {
	names, err := o.policies()
	if err != nil {
		return err
	}
	bar := newProgress(s)
	defer bar.done()
	c, err := o.config(s, bar)
	if err != nil {
		return err
	}
	if o.report != "" {
		c.Buckets = buckets
	}
	bar.stage("looking at demand", 1)
	survey, err := sim.Look(&c)
	if err != nil {
		return wrongTrace(err)
	}
	bar.stage("simulating", len(names))
	c.Progress = bar.tell
	results, err := simulateAll(ctx, &c, survey, names)
	if err != nil {
		return wrongTrace(err)
	}
	bar.done()
	if o.report != "" {
		if err := writeReport(s, o, &c, survey, results); err != nil {
			return err
		}
	}
	if o.json {
		o.output.value = formatJSON
	}
	if done, err := o.output.structured(s, results); done {
		return err
	}
	return printResults(s, o, &c, survey, results)
}

// simulateAll runs the policies side by side; the results are in the order of
// the names and do not depend on which was faster.
func simulateAll(ctx context.Context, c *sim.Config, survey *sim.Survey, names []string) ([]sim.Result, error) {
	results := make([]sim.Result, len(names))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for i, name := range names {
		g.Go(func() error {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			var err error
			results[i], err = sim.Simulate(c, survey, name)
			return err
		})
	}
	return results, g.Wait()
}

// policies are the names asked for, each once, in order.
func (o *simulateOptions) policies() ([]string, error) {
	if o.policy == "" && len(o.compare) == 0 {
		return sim.Names(), nil
	}
	first := o.policy
	if first == "" {
		first = "muster"
	}
	var out []string
	for _, name := range append([]string{first}, o.compare...) {
		switch {
		case name == "all":
			for _, n := range sim.Names() {
				if !slices.Contains(out, n) {
					out = append(out, n)
				}
			}
		case !slices.Contains(sim.Names(), name):
			return nil, usageError("policy %q is unknown; want %s", name, strings.Join(sim.Names(), ", "))
		case !slices.Contains(out, name):
			out = append(out, name)
		}
	}
	return out, nil
}

// config reads the flags and opens the trace.
func (o *simulateOptions) config(s *shell, bar *progress) (sim.Config, error) {
	c := sim.Config{Muster: sim.Muster{}}
	var err error
	if c.Model, err = o.model(); err != nil {
		return c, err
	}
	var first string
	switch {
	case o.fleet != "":
		first, err = o.readFleet(&c)
	case o.own != nil:
		first, err = useFleet(&c, o.own.fleet)
	}
	if err != nil {
		return c, err
	}
	if o.price > 0 {
		c.Model.NodeHour = microUSD(o.price)
	} else if o.price < 0 {
		return c, usageError("--node-hour-usd %v is negative", o.price)
	}
	if err = c.Model.Check(); err != nil {
		return c, usageError("%v", err)
	}
	sel, err := o.selection(&c)
	if err != nil {
		return c, err
	}
	if err = o.openTrace(s, bar, &c, sel); err != nil {
		return c, err
	}
	if len(c.Pools) == 0 && first != "" {
		c.Pools = []string{first}
	}
	return c, nil
}

// model reads the flags that describe the world.
func (o *simulateOptions) model() (sim.Model, error) {
	m := sim.Defaults()
	m.Slots, m.MaxNodes, m.Seed = o.slots, o.maxNodes, o.seed
	m.NodeFailures, m.StartFailures = o.nodeFailures, o.startFails
	var err error
	if m.Boot, err = sim.ParseLead(o.boot); err != nil {
		return m, usageError("--boot: %v", err)
	}
	if m.ColdStart, err = sim.ParseLead(o.cold); err != nil {
		return m, usageError("--cold-start: %v", err)
	}
	if m.MinBill, err = sim.ParseSeconds(o.minBill); err != nil {
		return m, usageError("--min-bill: %v", err)
	}
	m.Hold = m.Boot.Median
	if o.hold != "" {
		if m.Hold, err = sim.ParseSeconds(o.hold); err != nil {
			return m, usageError("--hold: %v", err)
		}
	}
	for _, text := range o.stockOuts {
		at, length, ok := strings.Cut(text, "/")
		from, err := traceTime(at)
		d, err2 := sim.ParseSeconds(length)
		if !ok || err != nil || err2 != nil {
			return m, usageError("--stock-out %q: want TIME/LENGTH, as 2026-03-02T09:00:00Z/30m", text)
		}
		m.StockOuts = append(m.StockOuts, sim.Window{From: from, Until: from.Add(d)})
	}
	return m, nil
}

// selection reads the flags that choose a part of the trace, and the
// evaluated window.
func (o *simulateOptions) selection(c *sim.Config) (trace.Selection, error) {
	var (
		sel trace.Selection
		err error
	)
	read := func(flag, text string) (at time.Time) {
		if text != "" && err == nil {
			if at, err = traceTime(text); err != nil {
				err = usageError("--%s: %v", flag, err)
			}
		}
		return at
	}
	sel.From, sel.To = read("from", o.from), read("to", o.to)
	c.From, c.To = read("warmup-until", o.warmup), sel.To
	if err != nil {
		return sel, err
	}
	if c.From.IsZero() {
		c.From = sel.From
	}
	switch {
	case !sel.To.IsZero() && !c.From.IsZero() && !c.From.Before(sel.To):
		return sel, usageError("nothing is left to count: the window ends (--to) at %s and begins at %s",
			sel.To.Format(time.RFC3339), c.From.Format(time.RFC3339))
	case c.From.Before(sel.From):
		return sel, usageError("--warmup-until %s is before --from %s", o.warmup, o.from)
	}
	if sel.MaxDuration, err = sim.ParseSeconds(o.maxDuration); err != nil {
		return sel, usageError("--max-duration: %v", err)
	}
	return sel, nil
}

// wrongTrace marks errors of the input as such.
func wrongTrace(err error) error {
	var wrong *trace.Error
	if errors.As(err, &wrong) || errors.Is(err, sim.ErrNoTask) || errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission) {
		return usageError("%v", err)
	}
	return fmt.Errorf("simulate: %w", err)
}
