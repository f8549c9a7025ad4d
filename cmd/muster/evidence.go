package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"muster.dev/muster/internal/evidence"
	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/terminal"
)

// openEvidence makes what gathers evidence of a fleet.
func openEvidence(u *unit) *evidence.Service {
	o := evidence.Options{Store: u.store, View: u.control.View, Explain: u.control.ExplainTask, Fleet: u.now.Load, Version: version()}
	if u.ledger != nil {
		o.Report = u.ledger.Report
	}
	return evidence.New(o)
}

func newEvidenceCommand(s *shell) *cobra.Command {
	var since, until, out string
	c := &cobra.Command{
		Use:   "evidence",
		Short: "Write a report of what the fleet ran on, how it was sized, and how agents were confined",
		Long: `Gather what the fleet's own records show of a time: the nodes that ran agents and
whether anything else did; every change of the specification; scaling events with
reasons; reaction times against objective.reactWithin, each breach with its
cause; how each agent was confined, as the kernel told it; what an agent-hour
cost, by week. Times that nobody looked are gaps, and what was not observed says
so.

-o names a file: .html is one page for people, which needs nothing else; .json is
the same as data. -o json prints it.`,
		Example: `  muster evidence --since 30d -o report.html
  muster evidence --since 2026-03-01 --until 2026-04-01 -o march.json
  muster evidence -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return writeEvidence(cmd.Context(), s, since, until, out)
		},
	}
	f := c.Flags()
	f.StringVar(&since, "since", "", "since `when`: 30d, 720h, 2026-03-01, or RFC 3339 (default: 30 days ago; at most 31 days)")
	f.StringVar(&until, "until", "", "until `when`, as --since (default: now)")
	f.StringVarP(&out, "output", "o", "text", "text, json, or a `file` that ends in .html or .json")
	return c
}

func writeEvidence(ctx context.Context, s *shell, since, until, out string) error {
	kind := out
	switch filepath.Ext(out) {
	case ".html", ".htm":
		kind = "html"
	case ".json":
		kind = "file"
	}
	if kind != "html" && kind != "file" && out != formatText && out != formatJSON {
		return usageError("-o %q is neither text, json nor a file that ends in .html or .json", out)
	}
	from, err := momentText("since", hours(since), s.now())
	if err != nil {
		return err
	}
	to, err := momentText("until", hours(until), s.now())
	if err != nil {
		return err
	}
	cl, err := s.connect()
	if err != nil {
		return err
	}
	defer cl.Close()
	e, err := cl.Evidence(ctx, from, to)
	if err != nil {
		return err
	}
	switch kind {
	case formatJSON:
		_, err = (&outputFlag{value: formatJSON}).structured(s, e)
		return err
	case formatText:
		return printEvidence(s, &e)
	}
	return evidenceFile(s, &e, out, kind == "html")
}

// hours reads days, which Go's durations do not have.
func hours(v string) string {
	if n, ok := strings.CutSuffix(v, "d"); ok {
		var days int
		if _, err := fmt.Sscanf(n, "%d", &days); err == nil && fmt.Sprint(days) == n && days >= 0 && days < 100_000 {
			return fmt.Sprintf("%dh", 24*days)
		}
	}
	return v
}

// evidenceFile writes a file, whole or not at all.
func evidenceFile(s *shell, e *fleet.Evidence, name string, page bool) error {
	f, err := os.CreateTemp(filepath.Dir(name), ".evidence-*")
	if err != nil {
		return usageError("-o: %v", err)
	}
	defer func() { _ = os.Remove(f.Name()) }() // gone already when all went well
	w := bufio.NewWriter(f)
	if page {
		err = evidence.Write(w, e)
	} else {
		inner := *s
		inner.out = w
		_, err = (&outputFlag{value: formatJSON}).structured(&inner, *e)
	}
	if err == nil {
		err = w.Flush()
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	s.note("the evidence is in %s", name)
	return nil
}

func printEvidence(s *shell, e *fleet.Evidence) error {
	r := &e.Reaction
	late := len(r.Breaches) + r.MoreLate
	s.printf("%s, %s to %s\n\n", s.styled(terminal.Escape(e.Fleet), "1"), clock(e.Since), clock(e.Until))
	cost := "nothing was charged"
	for i := range e.Weeks {
		if c := e.Weeks[i].AgentHourMicroUSD; c != nil {
			cost = usd(*c) + " an agent-hour in the week of " + e.Weeks[i].From.Format("2006-01-02")
		}
	}
	seen, all := 0, 0
	for _, p := range e.Profiles {
		if all += p.Sandboxes; p.Observed {
			seen += p.Sandboxes
		}
	}
	reaction := "no task was due"
	if r.Tasks > 0 {
		reaction = fmt.Sprintf("%d of %d tasks within %s; p50 %s, p95 %s, p99 %s, longest %s", r.Tasks-late, r.Tasks, seconds(r.PromiseSeconds), wait(r.P50), wait(r.P95), wait(r.P99), wait(r.Max))
	}
	s.fields(
		[2]string{"observed", fmt.Sprintf("%.2f %% of the time, %s", 100*(1-e.Unseen), plural(len(e.Gaps), "gap"))},
		[2]string{"compute", terminal.Escape(e.Compute.Sentence)},
		[2]string{"reaction", reaction},
		[2]string{"isolation", fmt.Sprintf("%d of %s confirmed by the kernel", seen, plural(all, "sandbox record"))},
		[2]string{"changes", plural(len(e.Changes), "revision") + ", " + plural(len(e.Events), "scaling event")},
		[2]string{"cost", cost},
	)
	for _, n := range e.Notes {
		s.note("%s", n)
	}
	s.note("-o report.html writes all of it as a page for people")
	return nil
}
