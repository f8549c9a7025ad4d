package main

import (
	"context"
	"encoding/csv"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/client"
	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/terminal"
)

func newCostCommand(s *shell) *cobra.Command {
	var (
		q            client.CostQuery
		since, until string
		waitingHour  float64
		out          *outputFlag
	)
	c := &cobra.Command{
		Use:   "cost",
		Short: "Show what the fleet has cost, and who for",
		Long: `Show what the fleet has cost: the bill of its nodes, second by second, what of it
is for tasks and what is idle, by cause; cost per agent-hour and per succeeded
task; what was saved beside a fleet of a fixed size. Full hours count.

An agent-hour is an hour of a sandbox with a task. "Same peak" is a fixed fleet
that has always as many nodes as there were at once at most, at the mean price
of the nodes that there were; --fixed compares with another. With --by the bill
is split: CHARGED is what sandboxes took of their nodes, SHARED the part of what
nobody used, in proportion.

--waiting-hour adds what it cost that tasks waited, from when they were due to
their first instruction, and what it would have cost had KEDA sized the fleet,
or had it a fixed size: the same tasks, simulated.

-o focus writes CSV in the columns of FOCUS ` + "1.2" + ` (https://focus.finops.org), an
hour a row, at most 31 days.`,
		Example: `  muster cost
  muster cost --by team --since 168h
  muster cost --off-hours 20:00-07:00 --weekends --timezone Europe/Warsaw --fixed 12
  muster cost --since 2026-03-01 --until 2026-04-01 -o focus > march.csv`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if q.Since, err = moment(since, s.now()); err != nil {
				return err
			}
			if q.Until, err = momentOf("until", until, s.now()); err != nil {
				return err
			}
			if q.Fixed < 0 || q.Fixed > 1_000_000 {
				return usageError("--fixed %d is out of range; want 0 to 1000000", q.Fixed)
			}
			if q.Limit < 0 || q.Limit > 10_000 {
				return usageError("--limit %d is out of range; want 0 to 10000", q.Limit)
			}
			if _, _, err := v1alpha1.ParseOffHours(q.OffHours); err != nil {
				return wrongFlag("--off-hours", err)
			}
			if _, err := v1alpha1.ParseZone(q.Timezone); err != nil {
				return wrongFlag("--timezone", err)
			}
			if !(waitingHour >= 0 && waitingHour <= 1e6) {
				return usageError("--waiting-hour %g is out of range; want US dollars from 0 to 1000000", waitingHour)
			}
			return showCost(cmd.Context(), s, q, waitingHour, out)
		},
	}
	f := c.Flags()
	f.StringVar(&q.By, "by", "", "split `by` tenant, team, project, template, task, node, hour or label:KEY")
	f.StringVar(&since, "since", "", "since `when`: 24h, 2026-03-01, or RFC 3339 (default: 30 days ago; by task at most 31)")
	f.StringVar(&until, "until", "", "until `when`: 1h, 2026-04-01, or RFC 3339 (default: now)")
	f.IntVar(&q.Fixed, "fixed", 0, "compare with a fixed fleet of this `many` nodes, too")
	f.StringVar(&q.OffHours, "off-hours", "", "tell the saving in these `hours` of the day, as 20:00-07:00")
	f.BoolVar(&q.Weekends, "weekends", false, "Saturdays and Sundays are off-hours, too")
	f.StringVar(&q.Timezone, "timezone", "", "`zone` of the off-hours, as Europe/Warsaw (default UTC)")
	f.Float64Var(&waitingHour, "waiting-hour", 0, "what an hour of waiting costs in `USD`: tells what waiting cost, and would have cost elsewhere")
	f.IntVar(&q.Limit, "limit", 0, "most `rows` of a split, the dearest (default 1000)")
	out = addOutput(c, formatTable, formatCSV, formatJSON, formatYAML, formatFocus)
	_ = c.RegisterFlagCompletionFunc("by", cobra.FixedCompletions([]string{"tenant", "team", "project", "template", "task", "node", "hour", "label:"}, cobra.ShellCompDirectiveNoFileComp))
	return c
}

func showCost(ctx context.Context, s *shell, q client.CostQuery, waitingHour float64, out *outputFlag) error {
	c, err := s.connect()
	if err != nil {
		return err
	}
	defer c.Close()
	if out.value == formatFocus {
		return c.CostFocus(ctx, q, s.out)
	}
	r, err := c.Cost(ctx, q)
	if err != nil {
		return err
	}
	var w *waitingCost
	if waitingHour > 0 && out.value != formatCSV {
		if w, err = costOfWaiting(ctx, c, &r, waitingHour, q.Fixed); err != nil {
			return err
		}
	}
	if done, err := out.structured(s, costWithWaiting{r, w}); done {
		return err
	}
	if out.value == formatCSV {
		return costCSV(s, r)
	}
	return printCost(s, r, w)
}

// usd is an amount of money for people: cents, and more digits for little.
func usd(micro int64) string {
	v := float64(micro) / 1e6
	switch {
	case micro == 0:
		return "$0"
	case micro > -1000 && micro < 1000:
		return strings.Replace(fmt.Sprintf("$%.6f", v), "$-", "-$", 1)
	case v > -0.1 && v < 0.1:
		return strings.Replace(fmt.Sprintf("$%.4f", v), "$-", "-$", 1)
	}
	return strings.Replace(fmt.Sprintf("$%.2f", v), "$-", "-$", 1)
}

func usdOrNone(micro *int64) string {
	if micro == nil {
		return ""
	}
	return usd(*micro)
}

func shareText(share float64) string { return strconv.FormatFloat(100*share, 'f', 1, 64) + " %" }

func printCost(s *shell, r fleet.CostReport, w *waitingCost) error {
	if r.Began.IsZero() {
		s.note("nothing has been charged yet")
		s.fields(budgetFields(r.Budgets)...)
		return nil
	}
	s.printf("%s\n\n", terminal.EscapeLines(r.Sentence))
	s.fields(slices.Concat(costFields(r), waitingFields(w), budgetFields(r.Budgets))...)
	if len(r.Groups) == 0 {
		return nil
	}
	s.printf("\n")
	t := costTable(s, r)
	if err := s.printTable(t); err != nil {
		return err
	}
	if r.More > 0 {
		s.note("there are %d more; see them with --limit", r.More)
	}
	return nil
}

// costTable is a split. What was measured and what agents reported have columns
// where there is any.
func costTable(s *shell, r fleet.CostReport) *terminal.Table {
	used, model := false, false
	for _, g := range r.Groups {
		used, model = used || g.MeasuredMicroUSD > 0, model || g.Model != nil
	}
	right := func(title string) terminal.Column { return terminal.Column{Title: title, Right: true} }
	columns := []terminal.Column{{Title: strings.ToUpper(r.By), Flex: true, Least: 12}, right("CHARGED")}
	if used {
		columns = append(columns, right("USED"))
	}
	columns = append(columns, right("SHARED"), right("AGENT-HOURS"), right("A HOUR"), right("TASKS"), right("SUCCEEDED"))
	if model {
		columns = append(columns, right("MODELS"), right("TOKENS IN"), right("TOKENS OUT"))
	}
	t := s.table(columns...)
	for _, g := range r.Groups {
		name := g.Name
		if name == "" {
			name = "(none)"
		}
		row := []string{name, usd(g.MicroUSD)}
		if used {
			row = append(row, usedText(g.UsedMicroUSD, g.MeasuredMicroUSD))
		}
		row = append(row, usd(g.SharedMicroUSD), strconv.FormatFloat(g.BusyHours, 'f', 2, 64), usdOrNone(g.AgentHourMicroUSD),
			strconv.FormatInt(g.Settled, 10), strconv.FormatInt(g.Succeeded, 10))
		if model {
			row = append(row, modelCells(g.Model)...)
		}
		t.Row(terminal.Text(row...)...)
	}
	return t
}

// usedText is what was used of what was charged.
func usedText(used, charged int64) string {
	if charged <= 0 {
		return ""
	}
	return usd(used) + ", " + shareText(float64(used)/float64(charged))
}

func modelCells(m *fleet.ModelUse) []string {
	if m == nil {
		return []string{"", "", ""}
	}
	cost := ""
	if m.Priced > 0 {
		cost = usd(m.MicroUSD)
	}
	return []string{cost, count(m.InputTokens + m.CacheReadTokens + m.CacheWriteTokens), count(m.OutputTokens)}
}

func costFields(r fleet.CostReport) [][2]string {
	from := r.Since
	if r.Began.After(from) {
		from = r.Began
	}
	until := r.Until
	if r.ChargedTo.Before(until) {
		until = r.ChargedTo
	}
	out := [][2]string{
		{"time", clock(from) + " to " + clock(until)},
		{"bill", usd(r.MicroUSD) + fmt.Sprintf(" for %.1f node-hours, at most %s at once", r.NodeHours, plural(r.PeakNodes, "node"))},
		{"tasks", usd(r.TaskMicroUSD)},
	}
	if r.MeasuredMicroUSD > 0 {
		out = append(out, [2]string{"of it used", usedText(r.UsedMicroUSD, r.MeasuredMicroUSD) + " of the " + usd(r.MeasuredMicroUSD) + " of tasks that ended, as measured"})
	}
	for _, i := range r.Idle {
		if i.MicroUSD != 0 {
			out = append(out, [2]string{"idle: " + strings.ReplaceAll(i.Cause, "_", " "), usd(i.MicroUSD) + ", " + shareText(i.Share)})
		}
	}
	if r.AgentHourMicroUSD != nil {
		out = append(out, [2]string{"agent-hour", fmt.Sprintf("%s, of %.2f", usd(*r.AgentHourMicroUSD), r.BusyHours)})
	}
	if r.SuccessMicroUSD != nil {
		out = append(out, [2]string{"succeeded task", fmt.Sprintf("%s, of %d", usd(*r.SuccessMicroUSD), r.Succeeded)})
	}
	if m := modelText(&r.Model); m != "" {
		out = append(out, [2]string{"models, beside it", m})
	}
	for _, x := range r.Fixed {
		name, note := "fixed, same peak", ""
		if x.Kind == "asked" {
			name = "fixed, as asked"
		}
		if x.Short {
			note = "; tasks would have waited at the peak"
		}
		out = append(out, [2]string{name, fmt.Sprintf("%s of %s: saved %s, %s%s", usd(x.MicroUSD), plural(x.Nodes, "node"), usd(x.SavingMicroUSD), shareText(x.SavingShare), note)})
	}
	if o := r.OffHours; o != nil {
		when := o.From + "-" + o.Until
		if o.From == o.Until {
			when = "weekends"
		} else if o.Weekends {
			when += " and weekends"
		}
		out = append(out, [2]string{"off-hours", fmt.Sprintf("%s (%s, %.0f hours): %s, where a fixed fleet costs %s: saved %s", when, o.Timezone, o.Hours, usd(o.MicroUSD), usd(o.FixedMicroUSD), usd(o.SavingMicroUSD))})
	}
	return out
}

// modelText is what agents report of the models they used.
func modelText(m *fleet.ModelUse) string {
	if m == nil || m.Reports == 0 {
		return ""
	}
	text := "no cost reported"
	if m.Priced > 0 {
		text = usd(m.MicroUSD) + " by the agent's reckoning"
	}
	text += fmt.Sprintf("; tokens: %s in, %s out", count(m.InputTokens), count(m.OutputTokens))
	if n := m.CacheReadTokens + m.CacheWriteTokens; n > 0 {
		text += fmt.Sprintf(", %s from the cache, %s into it", count(m.CacheReadTokens), count(m.CacheWriteTokens))
	}
	return text
}

// count is a large number for people: 12345 is 12.3k.
func count(n int64) string {
	for _, u := range []struct {
		of   float64
		name string
	}{{1e9, "G"}, {1e6, "M"}, {1e3, "k"}} {
		if v := float64(n) / u.of; v >= 1 {
			return strconv.FormatFloat(v, 'f', 1, 64) + u.name
		}
	}
	return strconv.FormatInt(n, 10)
}

// budgetFields say how budgets are kept.
func budgetFields(list []fleet.BudgetView) (out [][2]string) {
	for i := range list {
		out = append(out, [2]string{"budget", list[i].Sentence})
	}
	return out
}

// costCSV prints a split, or without one the parts of the bill, in US dollars.
func costCSV(s *shell, r fleet.CostReport) error {
	w := csv.NewWriter(s.out)
	exact := func(micro int64) string { return strconv.FormatFloat(float64(micro)/1e6, 'f', 6, 64) }
	none := func(micro *int64) string {
		if micro == nil {
			return ""
		}
		return exact(*micro)
	}
	rows := [][]string{{"cause", "usd", "share"}, {"task", exact(r.TaskMicroUSD), strconv.FormatFloat(1-r.IdleShare, 'f', 6, 64)}}
	for _, i := range r.Idle {
		rows = append(rows, []string{i.Cause, exact(i.MicroUSD), strconv.FormatFloat(i.Share, 'f', 6, 64)})
	}
	if r.By != "" {
		rows = [][]string{{r.By, "chargedUSD", "sharedUSD", "agentHours", "agentHourUSD", "tasks", "succeeded",
			"usedUSD", "measuredUSD", "modelUSD", "inputTokens", "cacheReadTokens", "cacheWriteTokens", "outputTokens"}}
		for _, g := range r.Groups {
			rows = append(rows, append([]string{plainCell(g.Name), exact(g.MicroUSD), exact(g.SharedMicroUSD), strconv.FormatFloat(g.BusyHours, 'f', 6, 64), none(g.AgentHourMicroUSD),
				strconv.FormatInt(g.Settled, 10), strconv.FormatInt(g.Succeeded, 10), exact(g.UsedMicroUSD), exact(g.MeasuredMicroUSD)}, modelColumns(g.Model)...))
		}
	}
	return w.WriteAll(rows)
}

// modelColumns are empty where nothing was reported.
func modelColumns(m *fleet.ModelUse) []string {
	if m == nil {
		return make([]string, 5)
	}
	cost := ""
	if m.Priced > 0 {
		cost = strconv.FormatFloat(float64(m.MicroUSD)/1e6, 'f', 6, 64)
	}
	n := func(v int64) string { return strconv.FormatInt(v, 10) }
	return []string{cost, n(m.InputTokens), n(m.CacheReadTokens), n(m.CacheWriteTokens), n(m.OutputTokens)}
}

// plainCell keeps a spreadsheet from taking what others wrote for a formula.
func plainCell(v string) string {
	if v != "" && strings.ContainsRune("=+-@\t\r", rune(v[0])) {
		return "'" + v
	}
	return v
}

func costText(c *v1alpha1.TaskCostView) string {
	if c == nil {
		return ""
	}
	return fmt.Sprintf("%s of compute, for %s of sandboxes", usd(c.ComputeMicroUSD), seconds(c.BusySeconds))
}
