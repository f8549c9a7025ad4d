package main

import (
	"context"
	"os/signal"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"muster.dev/muster/internal/client"
	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/terminal"
)

// eventOptions are the flags of events that are not the query's own.
type eventOptions struct {
	follow bool
	task   string // as typed
	out    *outputFlag
}

func newEventsCommand(s *shell) *cobra.Command {
	var (
		q     client.EventQuery
		o     eventOptions
		since string
	)
	c := &cobra.Command{
		Use:   "events",
		Short: "Show what the fleet did, and why",
		Long: `Show what the fleet did and what happened to it, oldest first, each with its
reason. With -f new events are shown as they happen, over lost connections and a
restart of the server; -o json then prints one a line.

` + "`muster explain SEQ`" + ` says more about one of them.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if q.Since, err = moment(since, s.now()); err != nil {
				return err
			}
			if q.Limit < 1 || q.Limit > 10000 {
				return usageError("--limit %d is out of range; want 1 to 10000", q.Limit)
			}
			return showEvents(cmd.Context(), s, q, o)
		},
	}
	f := c.Flags()
	f.BoolVarP(&o.follow, "follow", "f", false, "go on until Ctrl-C")
	f.StringVar(&since, "since", "", "since `when`: 2h, 2026-03-01, or RFC 3339")
	f.StringSliceVar(&q.Kinds, "kind", nil, "only these `kinds`, as scale_out,breaker_open")
	f.StringVar(&o.task, "task", "", "only those of this task (`id`)")
	f.Int64Var(&q.After, "after", 0, "only those after this `seq`")
	f.IntVar(&q.Limit, "limit", 100, "at most this `many`, the newest")
	o.out = addOutput(c, formatTable, formatJSON, formatYAML)
	_ = c.RegisterFlagCompletionFunc("task", func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		return taskIDs(cmd.Context(), s, nil, nil)
	})
	return c
}

func showEvents(ctx context.Context, s *shell, q client.EventQuery, o eventOptions) error {
	c, err := s.connect()
	if err != nil {
		return err
	}
	defer c.Close()
	if o.task != "" {
		if q.Task, err = c.Resolve(ctx, o.task); err != nil {
			return err
		}
	}
	list, err := c.Events(ctx, q)
	if err != nil {
		return err
	}
	if o.follow {
		return followEvents(ctx, c, q, list.Events, func(e fleet.Event) error { return printEvent(s, o.out, e) })
	}
	if done, err := o.out.structured(s, list); done {
		return err
	}
	return printEvents(s, list.Events)
}

func eventTable(s *shell) *terminal.Table {
	return s.table(terminal.Column{Title: "SEQ", Right: true}, terminal.Column{Title: "TIME"}, terminal.Column{Title: "KIND"},
		terminal.Column{Title: "WHAT"}, terminal.Column{Title: "REASON", Flex: true, Least: 30})
}

func printEvents(s *shell, events []fleet.Event) error {
	if len(events) == 0 {
		s.note("no events")
		return nil
	}
	t := eventTable(s)
	for _, e := range events {
		t.Row(eventRow(e)...)
	}
	return s.printTable(t)
}

func eventRow(e fleet.Event) []terminal.Cell {
	row := terminal.Text(strconv.FormatInt(e.Seq, 10), e.At.Local().Format("01-02 15:04:05.000"), e.Kind, eventWhat(e), eventReason(e))
	switch {
	case strings.Contains(e.Kind, "fail"), strings.Contains(e.Kind, "breaker_open"), strings.Contains(e.Kind, "lost"):
		row[2].Style = "31"
	case strings.HasPrefix(e.Kind, "scale_"):
		row[2].Style = "36"
	}
	return row
}

// eventWhat names what the event is about and the numbers that moved.
func eventWhat(e fleet.Event) string {
	what := e.Layer
	switch {
	case e.Task != "":
		what = string(e.Task)
	case e.Sandbox != "":
		what = string(e.Sandbox)
	case e.Pool != "":
		what = string(e.Pool)
	case e.Node != "":
		what = string(e.Node)
	}
	if e.From != e.To {
		what += " " + strconv.Itoa(e.From) + "→" + strconv.Itoa(e.To)
	}
	return what
}

func eventReason(e fleet.Event) string {
	if e.Bound != "" && !strings.Contains(e.Reason, e.Bound) {
		return e.Reason + " [" + e.Bound + "]"
	}
	return e.Reason
}

// printEvent prints one event of a stream, in the columns of the table.
func printEvent(s *shell, out *outputFlag, e fleet.Event) error {
	if out.value == formatJSON {
		return line(s, e)
	}
	row := eventRow(e)
	for i := range row {
		row[i].Text = terminal.Escape(row[i].Text)
	}
	s.printf("%6s  %s  %-16s  %-24s  %s\n", row[0].Text, row[1].Text, row[2].Text, row[3].Text, row[4].Text)
	return nil
}

// followEvents shows what there is and then each event as it happens, until
// Ctrl-C.
func followEvents(ctx context.Context, c *client.Client, q client.EventQuery, first []fleet.Event, show func(fleet.Event) error) error {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	for _, e := range first {
		if err := show(e); err != nil {
			return err
		}
		q.After = max(q.After, e.Seq)
	}
	q.Limit = 0
	err := c.FollowEvents(ctx, q, show)
	if ctx.Err() != nil {
		return nil
	}
	return err
}
