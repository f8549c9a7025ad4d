package main

import (
	"context"
	"fmt"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"muster.dev/muster/internal/client"
)

func newLogsCommand(s *shell) *cobra.Command {
	var (
		o   logOptions
		q   client.LogQuery
		out *outputFlag
	)
	streams := []string{"stdout", "stderr", "system"}
	c := &cobra.Command{
		Use:   "logs ID",
		Short: "Show a task's log",
		Long: `Show a task's log: its standard output on standard output, its standard error
and muster's own notes on standard error, byte for byte. On a terminal colours
pass and other control sequences are made visible, so that a log cannot take the
terminal over.

With -f it goes on until the task ends, over lost connections and a restart of
the server. -o json prints a record a line, its data in base64.`,
		Example: `  muster logs -f t01hv…
  muster logs --stream stderr --timestamps fix-flaky-test`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completeTask(s, nil),
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, name := range o.streams {
				if !slices.Contains(streams, name) {
					return usageError("--stream %q is unknown; want %s", name, strings.Join(streams, ", "))
				}
			}
			if q.Attempt < 0 {
				return usageError("--attempt %d is negative; want 1 or more", q.Attempt)
			}
			o.json = out.value == formatJSON
			return showLog(cmd.Context(), s, args[0], q, o)
		},
	}
	f := c.Flags()
	f.BoolVarP(&q.Follow, "follow", "f", false, "go on until the task ends")
	f.StringSliceVar(&o.streams, "stream", nil, "only these `streams`: stdout, stderr, system")
	f.BoolVar(&o.timestamps, "timestamps", false, "put the time before each line")
	f.IntVar(&q.Attempt, "attempt", 0, "the `number` of the attempt; default: the newest")
	out = addOutput(c, formatText, formatJSON)
	_ = c.RegisterFlagCompletionFunc("stream", cobra.FixedCompletions(streams, cobra.ShellCompDirectiveNoFileComp))
	return c
}

func showLog(ctx context.Context, s *shell, typed string, q client.LogQuery, o logOptions) error {
	c, id, err := s.task(ctx, typed)
	if err != nil {
		return err
	}
	defer c.Close()
	// Ctrl-C ends it in order, so that no colour is left behind.
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if q.Follow {
		defer tellWaiting(ctx, s, c, id)()
	}
	p := newLogPrinter(s, o)
	_, err = c.Log(ctx, id, q, p.print)
	if cerr := p.close(); err == nil && cerr != nil {
		err = fmt.Errorf("print the log: %w", cerr)
	}
	if ctx.Err() != nil {
		return exitStatus(exitInterrupted)
	}
	return err
}
