package main

import (
	"context"
	"fmt"
	"strconv"

	"muster.dev/muster/internal/control"
	"muster.dev/muster/internal/replay"
	"muster.dev/muster/internal/terminal"
)

// runCheck makes decisions again and shows whether they are the same.
func runCheck(ctx context.Context, s *shell, src replay.Source, o *replayOptions) error {
	r, err := replay.Check(ctx, src, o.in)
	if err != nil {
		return err
	}
	done, err := o.out.structured(s, r)
	if err != nil {
		return err
	}
	if !done {
		printCheck(s, r)
	}
	if !r.Reproduced() {
		return exitStatus(exitFailed)
	}
	return nil
}

func printCheck(s *shell, r *replay.Result) {
	for i := range r.Differences {
		printDifference(s, &r.Differences[i], r.Version)
	}
	if n := r.Different - len(r.Differences); n > 0 {
		s.printf("… and %s more that come out differently\n", counted(n, "decision"))
	}
	switch {
	case r.Older == 1:
		s.printf("decision %d was made by an older version, which did not record its policy: cannot be re-decided\n", r.FirstOlder.Seq)
	case r.Older > 1:
		s.printf("%s, from %d on, were made by an older version, which did not record its policy: cannot be re-decided\n", counted(r.Older, "decision"), r.FirstOlder.Seq)
	}
	n := counted(r.Replayed, "decision")
	switch {
	case r.Replayed == 0:
		s.printf("no decision was replayed\n")
		return
	case r.Different > 0:
		s.printf("%s replayed: %s the same, %s different\n", n, counted(r.Same+r.Reworded, "decision"), counted(r.Different, "decision"))
	case r.Reworded > 0:
		s.printf("%s replayed, all decide the same; %s with other words for the reasons\n", n, counted(r.Reworded, "decision"))
	case r.Replayed == 1:
		s.printf("%s replayed, the same bit for bit\n", n)
	default:
		s.printf("%s replayed, all the same bit for bit\n", n)
	}
	s.printf("%s\n", spanText(r.Span))
}

func spanText(p replay.Span) string {
	return fmt.Sprintf("decisions %d to %d, %s to %s", p.First.Seq, p.Last.Seq, clock(p.First.At), clock(p.Last.At))
}

func printDifference(s *shell, d *replay.Difference, version int) {
	s.printf("%s of %s comes out differently", s.styled("decision "+strconv.FormatInt(d.Seq, 10), "1"), clock(d.At))
	if d.Version != version {
		s.printf("; version %d of the planner made it, and this is version %d: a muster of that time makes it again as it was", d.Version, version)
	}
	s.printf("\n")
	if d.Problem != "" {
		s.printf("  %s\n", terminal.Escape(d.Problem))
	}
	for _, f := range d.Fields {
		s.printf("  %s\n    recorded  %s\n    replayed  %s\n", terminal.Escape(f.Path), valueText(f.Recorded), valueText(f.Replayed))
	}
	if d.More > 0 {
		s.printf("  … and %s more\n", counted(d.More, "field"))
	}
}

// valueText is a value in JSON, for people.
func valueText(v string) string {
	const longest = 200
	if v == "" {
		return "(absent)"
	}
	if r := []rune(v); len(r) > longest {
		v = string(r[:longest]) + "…"
	}
	return terminal.Escape(v)
}

// openLoop says what a comparison does not.
const openLoop = "open loop: every decision looked at the world as the recorded decisions made it; what its own would have changed is not simulated. A start or drain that the recorded fleet did not do is counted again at every decision that still wants it."

// comparison is what `replay --fleet -o json` prints.
type comparison struct {
	*replay.Comparison
	Note string `json:"note"`
}

// runCompare shows what another fleet would have decided.
func runCompare(ctx context.Context, s *shell, src replay.Source, o *replayOptions, other control.Spec) error {
	c, err := replay.Compare(ctx, src, o.in, other)
	if err != nil {
		return err
	}
	if done, err := o.out.structured(s, comparison{c, openLoop}); done {
		return err
	}
	return printComparison(s, c, other.Name)
}

func printComparison(s *shell, c *replay.Comparison, name string) error {
	s.printf("%s decided under fleet %s: %s different\n%s\n\n", counted(c.Decisions, "decision"), terminal.Escape(name),
		counted(c.Different, "decision"), spanText(c.Span))
	t := s.table(terminal.Column{Title: "POOL"}, terminal.Column{Title: "DECIDED"}, terminal.Column{Title: "DESIRED MEAN", Right: true},
		terminal.Column{Title: "MAX", Right: true}, terminal.Column{Title: "WARM MEAN", Right: true}, terminal.Column{Title: "MAX", Right: true},
		terminal.Column{Title: "STARTS", Right: true}, terminal.Column{Title: "DRAINS", Right: true})
	for _, p := range c.Pools {
		t.Row(sizesRow(string(p.Pool), "recorded", p.Recorded)...)
		t.Row(sizesRow(string(p.Pool), "other", p.Other)...)
	}
	if err := s.printTable(t); err != nil {
		return err
	}
	if len(c.Moments) > 0 {
		s.printf("\nThe largest differences:\n")
	}
	for _, m := range c.Moments {
		s.printf("%s  decision %d, %s: %d wanted, other %d\n    recorded  %s\n    other     %s\n", clock(m.At), m.Seq, terminal.Escape(string(m.Pool)),
			m.Recorded.Desired, m.Other.Desired, terminal.Escape(m.Recorded.Reason), terminal.Escape(m.Other.Reason))
	}
	s.printf("\n")
	for _, key := range c.Unknown {
		s.printf("fleet %s has no template for pool %s: its tasks would have been refused\n", terminal.Escape(name), terminal.Escape(string(key)))
	}
	if c.Older > 0 {
		s.printf("%s recorded by an older version of the planner: what differs there may be the planner, not the fleet\n", counted(c.Older, "decision"))
	}
	s.printf("%s\n`muster simulate` runs another fleet against a trace with the world's reaction.\n", openLoop)
	return nil
}

func sizesRow(pool, side string, z replay.Sizes) []terminal.Cell {
	return terminal.Text(pool, side, strconv.FormatFloat(z.DesiredMean, 'f', 1, 64), strconv.Itoa(z.DesiredMax),
		strconv.FormatFloat(z.WarmMean, 'f', 1, 64), strconv.Itoa(z.WarmMax), strconv.Itoa(z.Starts), strconv.Itoa(z.Drains))
}
