package main

import (
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/terminal"
)

func newExplainCommand(s *shell) *cobra.Command {
	var out *outputFlag
	c := &cobra.Command{
		Use:   "explain TASK|EVENT",
		Short: "Say why a task waited, or why an event happened",
		Long: `Say why a task waited, in one sentence and step by step, or, given the number of
an event, what was decided then and on which numbers.`,
		Example: `  muster explain t01hv…
  muster explain 1204`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completeTask(s, nil),
		RunE: func(cmd *cobra.Command, args []string) error {
			v, err := explanation(cmd, s, args[0])
			if err != nil {
				return err
			}
			if done, err := out.structured(s, v); done {
				return err
			}
			return printExplanation(s, v)
		},
	}
	out = addOutput(c, formatText, formatJSON, formatYAML)
	return c
}

func explanation(cmd *cobra.Command, s *shell, what string) (v1alpha1.ExplanationView, error) {
	if seq, err := strconv.ParseInt(what, 10, 64); err == nil && seq > 0 {
		c, err := s.connect()
		if err != nil {
			return v1alpha1.ExplanationView{}, err
		}
		defer c.Close()
		return c.ExplainEvent(cmd.Context(), seq)
	}
	c, id, err := s.task(cmd.Context(), what)
	if err != nil {
		return v1alpha1.ExplanationView{}, err
	}
	defer c.Close()
	return c.Explain(cmd.Context(), id)
}

func printExplanation(s *shell, v v1alpha1.ExplanationView) error {
	if v.Task != nil {
		s.printf("%s  %s\n", terminal.Escape(label(*v.Task)), s.styled(string(v.Task.State), stateStyle(v.Task.State)))
	}
	if v.Event != nil {
		s.printf("event %d  %s  %s\n", v.Event.Seq, terminal.Escape(v.Event.Kind), clock(v.Event.At))
	}
	s.printf("%s\n", terminal.EscapeLines(v.Summary))
	if v.Event != nil {
		for _, k := range sortedKeys(v.Event.Numbers) {
			s.printf("  %-24s %s\n", terminal.Escape(k), strconv.FormatFloat(v.Event.Numbers[k], 'g', 6, 64))
		}
	}
	if len(v.Steps) > 0 {
		s.printf("\n")
		first := v.Steps[0].At
		t := s.table(terminal.Column{Title: "AFTER", Right: true}, terminal.Column{Title: "SEQ", Right: true}, terminal.Column{Title: "KIND"},
			terminal.Column{Title: "WHAT"}, terminal.Column{Title: "REASON", Flex: true, Least: 30})
		for _, e := range v.Steps {
			row := eventRow(e)
			t.Row(terminal.Cell{Text: terminal.Age(e.At.Sub(first))}, terminal.Cell{Text: seqText(e.Seq)}, row[2], row[3], row[4])
		}
		if err := s.printTable(t); err != nil {
			return err
		}
	}
	if v.Decision != nil {
		s.printf("\ndecision %d at %s; -o json shows the observation and the plan\n", v.Decision.Seq, clock(v.Decision.At))
	}
	return nil
}

func seqText(seq int64) string {
	if seq == 0 {
		return ""
	}
	return fmt.Sprint(seq)
}
