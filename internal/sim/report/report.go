// Package report draws the results of a simulation as one self-contained page
// for people (part of layer L3, internal/sim): HTML and inline SVG, without
// scripts, fonts or pictures from elsewhere, in light and dark. It may import
// its own family alone.
package report

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"

	"muster.dev/muster/internal/sim"
	"muster.dev/muster/internal/sim/trace"
)

// Page is what is shown.
type Page struct {
	Trace   string // its name
	Basis   string // one honest line: trace, window, model
	Survey  *sim.Survey
	Model   *sim.Model
	Results []sim.Result // each with its Series, but for the bound
}

//go:embed page.html
var source string

var page = template.Must(template.New("page").Parse(source))

// view is the page as the template reads it.
type view struct {
	Trace, Basis, Span string
	Headline           []string
	Demand             template.HTML
	Trade              template.HTML
	Rows               []row
	Panels             []panel
	Facts              []fact
	Policies           []fact
}

type fact struct{ Name, Text string }

type row struct {
	Policy, Cost, Over, P50, P95, P99, P999, Over10, Over60 string
	Launches, Peak                                          int
	Own, Bound                                              bool
}

type panel struct {
	Policy, About, Cost, Over, P95, P99, Over10, Busy string
	Chart                                             template.HTML
	Own                                               bool
}

// Write writes the page.
func Write(w io.Writer, p *Page) error {
	v := view{
		Trace: p.Trace, Basis: p.Basis, Headline: headline(p),
		Span: fmt.Sprintf("%s to %s (UTC)", date(p.Survey.Open), date(p.Survey.Close)),
	}
	var drawn []sim.Result
	for i := range p.Results {
		r := &p.Results[i]
		v.Rows = append(v.Rows, rowOf(r))
		v.Policies = append(v.Policies, fact{r.Policy, sim.About(r.Policy)})
		if r.Series != nil {
			drawn = append(drawn, *r)
		}
	}
	v.Trade = tradeOff(p.Results)
	if len(drawn) > 0 {
		v.Demand = demandChart(p.Survey, calmest(drawn).Series)
	}
	most := scale(drawn)
	for i := range drawn {
		v.Panels = append(v.Panels, panelOf(p, &drawn[i], most))
	}
	v.Facts = facts(p)
	return page.Execute(w, v)
}

func rowOf(r *sim.Result) row {
	return row{
		Policy: r.Policy, Cost: usd(r.CostUSD), Over: times(r.CostOver), P50: secs(r.WaitP50), P95: secs(r.WaitP95), P99: secs(r.WaitP99),
		P999: secs(r.WaitP999), Over10: percent(r.ShareOver10s), Over60: percent(r.ShareOver60s),
		Launches: r.Launches, Peak: r.PeakNodes, Own: r.Policy == "muster", Bound: r.Policy == sim.Clairvoyant,
	}
}

func panelOf(p *Page, r *sim.Result, most float64) panel {
	busy := 0.0
	var running, nodes int64
	for i := range r.Series.Parts {
		running += r.Series.Parts[i].Running
		nodes += r.Series.Parts[i].Nodes
	}
	if nodes > 0 {
		busy = float64(running) / float64(nodes*int64(p.Model.Slots))
	}
	return panel{
		Policy: r.Policy, About: sim.About(r.Policy), Cost: usd(r.CostUSD), Over: times(r.CostOver), P95: secs(r.WaitP95), P99: secs(r.WaitP99),
		Over10: percent(r.ShareOver10s), Busy: percent(busy), Own: r.Policy == "muster",
		Chart: layers(r, p.Model.Slots, most),
	}
}

// calmest is the run whose demand is nearest to that of the trace: the one
// with the least waiting.
func calmest(results []sim.Result) *sim.Result {
	best := &results[0]
	for i := range results {
		if results[i].WaitP99 < best.WaitP99 {
			best = &results[i]
		}
	}
	return best
}

// headline says in sentences what the numbers say.
func headline(p *Page) []string {
	own, bound := find(p.Results, "muster"), find(p.Results, sim.Clairvoyant)
	if own == nil {
		return nil
	}
	days := float64(p.Survey.Close-p.Survey.Open) / 86_400_000
	half := "half of them within " + secs(own.WaitP50)
	if own.WaitP50 == 0 {
		half = "half of them at once"
	}
	out := []string{fmt.Sprintf("With muster these %s cost %s of nodes, and 99 of 100 tasks began within %s of being submitted, %s.",
		span(days), usd(own.CostUSD), secs(own.WaitP99), half)}
	if bound != nil && own.CostOver > 0 {
		out = append(out, fmt.Sprintf("No policy without waiting, not even one that knows the future, can cost less than %s; muster is at %s that.",
			usd(bound.CostUSD), times(own.CostOver)))
	}
	for _, name := range []string{"fixed", "keda", "reactive"} {
		if r := find(p.Results, name); r != nil {
			out = append(out, against(r, own))
		}
	}
	return out
}

// against compares a rival with muster in a sentence.
func against(r, own *sim.Result) string {
	who := map[string]string{
		"fixed": "A fixed fleet sized for the peak", "keda": "KEDA", "reactive": "Starting a sandbox only when a task comes",
	}[r.Policy]
	waits := fmt.Sprintf("There 99 of 100 tasks begin within %s, here within %s", secs(r.WaitP99), secs(own.WaitP99))
	cost := "muster costs the same"
	switch d := (own.CostUSD - r.CostUSD) / max(r.CostUSD, 1e-9); {
	case d <= -0.005:
		cost = fmt.Sprintf("muster costs %.0f %% less", -100*d)
	case d >= 0.005:
		cost = fmt.Sprintf("muster costs %.0f %% more", 100*d)
	}
	return fmt.Sprintf("%s costs %s: %s. %s.", who, usd(r.CostUSD), cost, waits)
}

func find(results []sim.Result, name string) *sim.Result {
	for i := range results {
		if results[i].Policy == name {
			return &results[i]
		}
	}
	return nil
}

// facts are the assumptions, as a list.
func facts(p *Page) []fact {
	m := p.Model
	out := []fact{
		{"Node boot", m.Boot.String()}, {"Sandbox cold start", m.ColdStart.String() + ", in its slot"},
		{"Slots a node", fmt.Sprint(m.Slots)},
		{"Billing", fmt.Sprintf("request to release, %s at least, %s a node-hour", m.MinBill, usd(float64(m.NodeHour)/1e6))},
		{"Tasks", fmt.Sprintf("%d counted, %d before them to warm up", p.Survey.Tasks, p.Survey.WarmUp)},
		{"Demand", fmt.Sprintf("%.1f agents on average, %d in 99 %% of the time or fewer, %d at most", p.Survey.Mean, p.Survey.P99, p.Survey.Peak)},
		{"Rivals' empty nodes", "kept for " + m.Hold.String()},
		{"Seed", fmt.Sprint(m.Seed)},
	}
	if m.NodeFailures > 0 || m.StartFailures > 0 || len(m.StockOuts) > 0 {
		out = append(out, fact{"Faults", fmt.Sprintf("%g node failures an hour, %s failing starts, %d stock-outs", m.NodeFailures, percent(m.StartFailures), len(m.StockOuts))})
	}
	return out
}

func date(ms int64) string { return trace.Time(ms).Format("Mon 2 Jan 2006 15:04") }

func span(days float64) string {
	if days < 2 {
		return fmt.Sprintf("%.0f hours", days*24)
	}
	return fmt.Sprintf("%.0f days", days)
}

func usd(v float64) string {
	if v >= 1000 {
		s := fmt.Sprintf("%.0f", v)
		for i := len(s) - 3; i > 0; i -= 3 {
			s = s[:i] + "," + s[i:]
		}
		return "$" + s
	}
	return fmt.Sprintf("$%.2f", v)
}

func times(v float64) string   { return fmt.Sprintf("%.2f×", v) }
func percent(v float64) string { return fmt.Sprintf("%.1f\u00a0%%", 100*v) }

// secs is a wait for people; the space in it does not break.
func secs(v float64) string {
	const space = "\u00a0"
	switch {
	case v == 0:
		return "0" + space + "s"
	case v < 10:
		return fmt.Sprintf("%.1f", v) + space + "s"
	case v < 120:
		return fmt.Sprintf("%.0f", v) + space + "s"
	case v < 7200:
		return fmt.Sprintf("%.0f", v/60) + space + "min"
	}
	return fmt.Sprintf("%.1f", v/3600) + space + "h"
}
