package sim

import (
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"muster.dev/muster/internal/plan"
	"muster.dev/muster/internal/sim/trace"
)

// ablated is the planner without a part of it; without alters what it sees.
type ablated struct {
	*planner
	without func(m *planner, w *World)
}

func (a *ablated) Decide(now int64, w *World) int64 {
	at := clock(now)
	a.observe(now, at, w)
	if a.without != nil {
		a.without(a.planner, w)
	}
	return a.decide(now, at, w)
}

// noFolds forgets what keeps to the clock.
func noFolds(m *planner, _ *World) { m.outlook.ranks.Folds = nil }

// noHour tells quiet times apart by the recent rate alone.
func noHour(m *planner, _ *World) { m.outlook.ranks.Hour = math.Inf(-1) }

// fullest packs by how full nodes are, not by how long they will be busy.
func fullest(m *planner, w *World) {
	for i, n := range m.order {
		o := &m.o.Nodes[i]
		o.Residual = 0
		w.nodes[n].prefer = plan.Prefer(o)
	}
}

var ablations = []struct {
	name    string
	policy  plan.NodePolicy
	without func(*planner, *World)
}{
	{name: "whole"},
	{name: "price-fixed-250", policy: plan.NodePolicy{PriceMin: 250, PriceMax: 250}},
	{name: "price-fixed-100", policy: plan.NodePolicy{PriceMin: 100, PriceMax: 100}},
	{name: "keep-1", policy: plan.NodePolicy{Keep: 1}},
	{name: "no-clock", without: noFolds},
	{name: "no-hour", without: noHour},
	{name: "fullest-first", without: fullest},
	{name: "no-fill", policy: plan.NodePolicy{NoFill: true}},
}

// BenchmarkAblation says what each part of the policy is worth on the shared
// traces, which are in the folder $MUSTER_TRACES:
//
//	MUSTER_TRACES=DIR go test ./internal/sim -run '^$' -bench Ablation -benchtime 1x
func BenchmarkAblation(b *testing.B) {
	dir := os.Getenv("MUSTER_TRACES")
	if dir == "" {
		b.Skip("MUSTER_TRACES names no folder of traces")
	}
	for _, l := range sharedLoads(dir) {
		for i := range ablations {
			a := &ablations[i]
			b.Run(l.name+"/"+a.name, func(b *testing.B) {
				c := l.c
				c.Muster.Policy.Nodes = a.policy
				measure(b, &c, "muster", a.without)
			})
		}
	}
}

type namedLoad struct {
	name string
	c    Config
}

func day(y int, m time.Month, d int) time.Time { return time.Date(y, m, d, 0, 0, 0, 0, time.UTC) }

// sharedLoads are the traces scaled as scripts/bench-policy.sh does.
func sharedLoads(dir string) []namedLoad {
	load := func(file string, sel trace.Selection, from time.Time) Config {
		return Config{Trace: trace.Select(trace.File{Path: filepath.Join(dir, file)}, sel), Model: Defaults(), From: from, To: sel.To}
	}
	small := load("copilot_agent.csv.gz", trace.Selection{From: day(2025, 5, 19), To: day(2025, 6, 23)}, day(2025, 6, 2))
	many, err := trace.Multiply(small.Trace, trace.Scale{Copies: 40, Jitter: time.Hour, Seed: small.Model.Seed})
	if err != nil {
		panic(err)
	}
	small.Trace = trace.Select(many, trace.Selection{To: small.To})
	return []namedLoad{
		{"copilot", small},
		{"philly", load("philly.csv.gz", trace.Selection{From: day(2017, 9, 25), To: day(2017, 12, 11), MaxDuration: 2 * time.Hour}, day(2017, 10, 9))},
	}
}

// measure reports what a policy costs and how long tasks wait.
func measure(b *testing.B, c *Config, name string, without func(*planner, *World)) {
	b.Helper()
	s, err := Look(c)
	if err != nil {
		b.Fatal(err)
	}
	p, err := policyOf(name)
	if err != nil {
		b.Fatal(err)
	}
	var r Result
	for b.Loop() {
		sizer, err := p.make(c, s)
		if err != nil {
			b.Fatal(err)
		}
		if m, ok := sizer.(*planner); ok {
			sizer = &ablated{m, without}
		}
		w, series, err := c.drive(s, p, sizer)
		if err != nil {
			b.Fatal(err)
		}
		r = c.result(s, name, w, series)
	}
	b.ReportMetric(r.CostOver, "x-bound")
	b.ReportMetric(r.WaitP95, "p95-s")
	b.ReportMetric(r.WaitP99, "p99-s")
	b.ReportMetric(100*r.Late, "%late")
}

// BenchmarkRobust is the policy on made-up loads, beside the reactive one; the
// second half of each is counted, and all of it for "cold":
//
//	go test ./internal/sim -run '^$' -bench Robust -benchtime 1x
func BenchmarkRobust(b *testing.B) {
	exp := func(mean float64) func(*rand.Rand) float64 {
		return func(r *rand.Rand) float64 { return r.ExpFloat64() * mean }
	}
	pareto := func(r *rand.Rand) float64 { return min(7*86400, 60*math.Pow(1-r.Float64(), -1/1.1)) }
	one := func(*rand.Rand) int { return 1 }
	loads := []struct {
		name  string
		rows  trace.Rows
		count float64 // from this part of the time on
	}{
		{"steady", made(20_000, exp(60), one, exp(600)), 0.5},
		{"heavy-tails", made(20_000, exp(60), one, pareto), 0.5},
		{"short-tasks", made(40_000, exp(30), one, exp(10)), 0.5},
		{"batches-of-1-to-60", made(20_000, exp(3600), func(r *rand.Rand) int { return 1 + r.IntN(60) }, exp(600)), 0.5},
		{"hourly-batch", made(20_000, func(*rand.Rand) float64 { return 3600 }, func(*rand.Rand) int { return 20 }, exp(600)), 0.5},
		{"sparse", made(2_000, exp(3600), one, exp(600)), 0.5},
		{"cold", made(300, exp(60), one, exp(600)), 0},
	}
	for _, l := range loads {
		for _, name := range []string{"muster", "reactive", "keda", "kpa"} {
			b.Run(l.name+"/"+name, func(b *testing.B) {
				c := Config{Trace: l.rows, Model: Defaults()}
				first, last := l.rows[0].Arrival, l.rows[len(l.rows)-1].Arrival
				if l.count > 0 {
					c.From = trace.Time(first + int64(l.count*float64(last-first)))
				}
				measure(b, &c, name, nil)
			})
		}
	}
}

// made is a load of n tasks: the time between arrivals, how many arrive at
// once, and how long each takes, in seconds.
func made(n int, every func(*rand.Rand) float64, size func(*rand.Rand) int, long func(*rand.Rand) float64) trace.Rows {
	r := rand.New(rand.NewPCG(11, 1))
	rows := make(trace.Rows, 0, n)
	at := day(2026, 3, 2).UnixMilli()
	for len(rows) < n {
		at += int64(every(r) * 1000)
		for range min(size(r), n-len(rows)) {
			rows = append(rows, trace.Row{Arrival: at, Duration: int64(long(r) * 1000)})
		}
	}
	return rows
}
