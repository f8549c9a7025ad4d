package sim

import (
	"errors"
	"fmt"
	"time"

	"muster.dev/muster/internal/sim/trace"
)

// Config is what is simulated.
type Config struct {
	Trace trace.Source // opened once for each policy, and once for the survey
	// From and To are the evaluated window. Tasks that arrive before From warm
	// the fleet up and are not counted; the trace should end at To. Zero:
	// around all tasks, with time to boot before and to return nodes after.
	From, To time.Time
	Model    Model
	Muster   Muster
	// Pools names the pools by class of the trace; empty: one, and classes are
	// not looked at.
	Pools []string
	// FixedNodes is how many nodes policy fixed has; 0: those of the peak.
	FixedNodes int
	// Buckets, when not 0, asks for a Series of so many parts of the window.
	Buckets int
	// Progress, when set, is told the share of a policy's run that is done.
	Progress func(policy string, done float64)

	after func(w *World) // between instants; for tests
	every bool           // the planner is asked after every event; for tests
}

func (c *Config) poolNames() []string {
	if len(c.Pools) > 0 {
		return c.Pools
	}
	return []string{"default"}
}

// Result is what one policy did in the evaluated window.
type Result struct {
	Policy       string  `json:"policy"`
	Tasks        int64   `json:"tasks"`
	NodeSeconds  float64 `json:"node_seconds"`
	CostUSD      float64 `json:"cost_usd"`
	CostOver     float64 `json:"cost_over_bound"` // node-seconds over the bound's
	WaitP50      float64 `json:"wait_p50_s"`
	WaitP95      float64 `json:"wait_p95_s"`
	WaitP99      float64 `json:"wait_p99_s"`
	WaitP999     float64 `json:"wait_p999_s"`
	ShareOver10s float64 `json:"share_over_10s"`
	ShareOver60s float64 `json:"share_over_60s"`
	Launches     int     `json:"launches"` // of nodes
	PeakNodes    int     `json:"peak_nodes"`

	Late    float64 `json:"-"` // share of waits above the objective of Config.Muster
	Lost    int64   `json:"-"` // tasks begun again because a node died
	MaxWait float64 `json:"-"` // seconds
	WaitSum float64 `json:"-"` // seconds, of all tasks together
	Series  *Series `json:"-"`
}

// ErrNoTask says that a trace has nothing to judge a policy by.
var ErrNoTask = errors.New("no task of the trace arrives in the evaluated window")

// Look surveys the trace: what demand there is, and the lower bound.
func Look(c *Config) (*Survey, error) {
	if err := c.Model.Check(); err != nil {
		return nil, err
	}
	if !c.From.IsZero() && !c.To.IsZero() && !c.From.Before(c.To) {
		return nil, fmt.Errorf("the evaluated window ends at %s, before it begins at %s", c.To.Format(time.RFC3339), c.From.Format(time.RFC3339))
	}
	s, err := survey(c.Trace, &c.Model, c.From, c.To)
	if err != nil {
		return nil, err
	}
	if s.Tasks == 0 {
		return nil, ErrNoTask
	}
	return &s, nil
}

// Simulate runs one policy over the trace that was surveyed. The same
// arguments give the same result.
func Simulate(c *Config, s *Survey, name string) (Result, error) {
	p, err := policyOf(name)
	if err != nil {
		return Result{}, err
	}
	if name == Clairvoyant {
		return c.bound(s), nil
	}
	sizer, err := p.make(c, s)
	if err != nil {
		return Result{}, err
	}
	w, series, err := c.drive(s, p, sizer)
	if err != nil {
		return Result{}, err
	}
	return c.result(s, name, w, series), nil
}

// drive runs a sizer from the first row to the end.
func (c *Config) drive(s *Survey, p *policy, sizer Sizer) (*World, *Series, error) {
	in, err := c.Trace.Open()
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = in.Close() }()
	r := &run{
		w: newWorld(&c.Model, len(c.poolNames()), s.Open, s.Close), p: p, sizer: sizer, in: in,
		wake: Never, horizon: s.Close + patience.Milliseconds(),
	}
	if p.forever {
		r.w.hold = Never
	}
	if c.Buckets > 0 {
		r.series = newSeries(c.Buckets, s.Open, s.Close)
		r.w.series = r.series
	}
	if c.Progress != nil {
		r.tell = func(done float64) { c.Progress(p.name, done) }
	}
	if c.after != nil {
		r.after = func() { c.after(r.w) }
	}
	if err := r.simulate(); err != nil {
		return nil, nil, err
	}
	return r.w, r.series, nil
}

func (c *Config) result(s *Survey, name string, w *World, series *Series) Result {
	h := w.waits
	r := Result{
		Policy: name, Tasks: h.n, WaitP50: h.quantile(0.5), WaitP95: h.quantile(0.95), WaitP99: h.quantile(0.99),
		WaitP999: h.quantile(0.999), ShareOver10s: h.share(h.over10), ShareOver60s: h.share(h.over60),
		Launches: w.bill.launches, PeakNodes: w.bill.peak, Lost: w.lost, MaxWait: float64(h.most) / 1000, WaitSum: float64(h.sum) / 1000, Series: series,
	}
	r.Late = h.share(h.above(c.Muster.Policy.WithDefaults().Objective.Milliseconds()))
	c.price(&r, s, w.bill.millis)
	return r
}

// bound is the result of the lower bound.
func (c *Config) bound(s *Survey) Result {
	r := Result{Policy: Clairvoyant, Tasks: s.Tasks, Launches: s.BoundLaunches, PeakNodes: s.BoundPeak}
	c.price(&r, s, s.Bound)
	return r
}

func (c *Config) price(r *Result, s *Survey, millis int64) {
	r.NodeSeconds = float64(millis) / 1000
	r.CostUSD = r.NodeSeconds / 3600 * float64(c.Model.NodeHour) / 1e6
	if s.Bound > 0 {
		r.CostOver = float64(millis) / float64(s.Bound)
	}
}
