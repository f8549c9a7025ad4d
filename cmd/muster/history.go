package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/client"
	"muster.dev/muster/internal/terminal"
)

func newHistoryCommand(s *shell) *cobra.Command {
	var (
		limit int
		out   *outputFlag
	)
	c := &cobra.Command{
		Use:   "history [N]",
		Short: "Show who changed the fleet's specification, when, and what",
		Long: `List the specifications that the fleet had, newest first: number, when, who, and
what changed. With a number: how that one differs from the one before, as a diff
of the YAML; with -o json or yaml also the specification itself.`,
		Example: `  muster fleet history
  muster fleet history 7`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if limit < 1 {
				return usageError("-n %d: want 1 or more", limit)
			}
			n, err := revisionNumber(args)
			if err != nil {
				return err
			}
			cl, err := s.connect()
			if err != nil {
				return err
			}
			defer cl.Close()
			if n > 0 {
				return showRevision(cmd.Context(), s, cl, out, n)
			}
			return listRevisions(cmd.Context(), s, cl, out, limit)
		},
	}
	c.Flags().IntVarP(&limit, "limit", "n", 20, "at most this `many`, the newest")
	out = addOutput(c, formatTable, formatJSON, formatYAML)
	return c
}

// revisionNumber reads the number that a command may have; 0: none.
func revisionNumber(args []string) (int, error) {
	if len(args) == 0 {
		return 0, nil
	}
	n, err := strconv.Atoi(args[0])
	if err != nil || n < 1 {
		return 0, usageError("%q is no revision; want a number as `muster fleet history` lists them", args[0])
	}
	return n, nil
}

func listRevisions(ctx context.Context, s *shell, c *client.Client, out *outputFlag, limit int) error {
	all := v1alpha1.RevisionList{Revisions: []v1alpha1.RevisionView{}}
	for {
		page, err := c.Revisions(ctx, all.Before, min(limit-len(all.Revisions), 1000))
		if err != nil {
			return err
		}
		all.Revisions, all.Before = append(all.Revisions, page.Revisions...), page.Before
		if all.Before == 0 || len(all.Revisions) >= limit {
			break
		}
	}
	if done, err := out.structured(s, all); done {
		return err
	}
	if len(all.Revisions) == 0 {
		s.note("no specification is on record yet")
		return nil
	}
	t := s.table(terminal.Column{Title: "REVISION", Right: true}, terminal.Column{Title: "TIME"}, terminal.Column{Title: "AUTHOR"},
		terminal.Column{Title: "SOURCE"}, terminal.Column{Title: "CHANGE", Flex: true, Least: 30})
	for _, r := range all.Revisions {
		t.Row(terminal.Text(strconv.FormatInt(r.Number, 10), r.At.Local().Format("2006-01-02 15:04:05"), r.Author, r.Source, changeText(r))...)
	}
	return s.printTable(t)
}

// changeText is what changed, and why.
func changeText(r v1alpha1.RevisionView) string {
	if r.Note != "" {
		return r.Summary + " (" + r.Note + ")"
	}
	return r.Summary
}

func showRevision(ctx context.Context, s *shell, c *client.Client, out *outputFlag, n int) error {
	r, err := c.Revision(ctx, int64(n))
	if err != nil {
		return err
	}
	if done, err := out.structured(s, r); done {
		return err
	}
	s.printf("%s  %s  by %s, from %s\n", s.styled(fmt.Sprintf("revision %d", r.Number), "1"), clock(r.At), terminal.Escape(r.Author), terminal.Escape(r.Source))
	s.printf("%s\n\n", terminal.Escape(changeText(r.RevisionView)))
	s.printDiff(r.Diff)
	return nil
}

// printDiff prints a unified diff.
func (s *shell) printDiff(diff string) {
	for line := range strings.SplitSeq(strings.TrimSuffix(diff, "\n"), "\n") {
		style := ""
		switch {
		case strings.HasPrefix(line, "---"), strings.HasPrefix(line, "+++"):
			style = "1"
		case strings.HasPrefix(line, "-"):
			style = "31"
		case strings.HasPrefix(line, "+"):
			style = "32"
		case strings.HasPrefix(line, "@@"):
			style = "36"
		}
		s.printf("%s\n", s.styled(terminal.Escape(line), style))
	}
}
