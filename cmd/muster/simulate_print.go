package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"muster.dev/muster/internal/sim"
	"muster.dev/muster/internal/sim/trace"
	"muster.dev/muster/internal/terminal"
)

func printResults(s *shell, o *simulateOptions, c *sim.Config, survey *sim.Survey, results []sim.Result) error {
	right := func(title string) terminal.Column { return terminal.Column{Title: title, Right: true} }
	t := s.table(terminal.Column{Title: "POLICY"}, right("COST"), right("x BOUND"), right("WAIT P50"), right("P95"), right("P99"),
		right("P99.9"), right(">10s"), right(">60s"), right("LAUNCHES"), right("PEAK NODES"))
	for i := range results {
		r := &results[i]
		t.Row(terminal.Text(r.Policy, "$"+strconv.FormatFloat(r.CostUSD, 'f', 2, 64), strconv.FormatFloat(r.CostOver, 'f', 3, 64),
			wait(r.WaitP50), wait(r.WaitP95), wait(r.WaitP99), wait(r.WaitP999), share(r.ShareOver10s), share(r.ShareOver60s),
			strconv.Itoa(r.Launches), strconv.Itoa(r.PeakNodes))...)
	}
	if err := s.printTable(t); err != nil {
		return err
	}
	s.printf("\n%s\n", terminal.EscapeLines(honest(o, c, survey)))
	return nil
}

// wait prints seconds with one decimal.
func wait(seconds float64) string { return strconv.FormatFloat(seconds, 'f', 1, 64) + "s" }

func share(v float64) string { return strconv.FormatFloat(100*v, 'f', 2, 64) + "%" }

// honest is what the numbers rest on, in one line.
func honest(o *simulateOptions, c *sim.Config, v *sim.Survey) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %d tasks, %s to %s", fileName(o.trace), v.Tasks, day(v.Open), day(v.Close))
	if v.WarmUp > 0 {
		fmt.Fprintf(&b, " after %d of warm-up", v.WarmUp)
	}
	if o.copies > 1 {
		fmt.Fprintf(&b, ", %d copies of each task, copy k up to k times %ss late", o.copies, o.jitter)
	}
	fmt.Fprintf(&b, "; demand %.1f agents on average, %d at most. Simulated, not measured: node boot %s, cold start %s, %d slots a node, billed from request to release, %s at least, $%.2f an hour, seed %d",
		v.Mean, v.Peak, c.Model.Boot, c.Model.ColdStart, c.Model.Slots, c.Model.MinBill, float64(c.Model.NodeHour)/1e6, c.Model.Seed)
	if c.Model.NodeFailures > 0 || c.Model.StartFailures > 0 || len(c.Model.StockOuts) > 0 {
		fmt.Fprintf(&b, "; with %g node failures an hour, %g%% failing starts, %s", c.Model.NodeFailures, 100*c.Model.StartFailures, plural(len(c.Model.StockOuts), "stock-out"))
	}
	b.WriteString(".")
	return b.String()
}

func day(ms int64) string { return trace.Time(ms).Format(time.DateOnly) }
