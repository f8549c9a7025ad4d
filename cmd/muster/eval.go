package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/spf13/cobra"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/control"
	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/payload"
	"muster.dev/muster/internal/sandbox/virtual"
	"muster.dev/muster/internal/store/memory"
)

func newEvalCommand(s *shell) *cobra.Command {
	var (
		file    string
		patient time.Duration
		out     *outputFlag
	)
	c := &cobra.Command{
		Use:   "eval -f FLEET",
		Short: "Decide once for a fleet and its live queue, and do nothing",
		Long: `Read the outside queue that a Fleet names, decide once what Muster would do
with no sandbox there yet and nothing learned, and print the signals, the
decision and its reasons. Nothing is taken from the queue, stored or started, and
no server is needed.

For what a running fleet decides see ` + "`muster fleet` and `muster events`" + `; to compare
decisions over days with what there was, run a fleet of mode: shadow.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if file == "" {
				return usageError("-f names the Fleet; it is missing")
			}
			b, err := readFile(s, file)
			if err != nil {
				return err
			}
			f, err := v1alpha1.ParseFleet(b)
			if err != nil {
				return err
			}
			if f.Spec.Queue.Type == "embedded" {
				return usageError("%s names no outside queue; the embedded one belongs to a running fleet, which `muster fleet` shows", fileName(file))
			}
			if _, err := payload.New(f); err != nil {
				return err
			}
			e, err := evaluate(cmd.Context(), f, patient)
			if err != nil {
				return err
			}
			if done, err := out.structured(s, e); done {
				return err
			}
			return printEvaluation(s.out, e)
		},
	}
	c.Flags().StringVarP(&file, "file", "f", "", "`file` of a Fleet; - is standard input")
	c.Flags().DurationVar(&patient, "timeout", 15*time.Second, "how long to try to read the queue, as a `duration`")
	out = addOutput(c, formatText, formatJSON, formatYAML)
	return c
}

// evaluate decides once, with everything but the queue in memory.
func evaluate(ctx context.Context, f *v1alpha1.Fleet, patient time.Duration) (_ fleet.Evaluation, err error) {
	log := slog.New(slog.DiscardHandler)
	ctx, cancel := context.WithTimeout(ctx, patient)
	defer cancel()
	q, err := openFollowed(ctx, f, queueOptions{log: log, consumer: "muster-eval"})
	if err != nil {
		return fleet.Evaluation{}, err
	}
	defer func() {
		if e := q.close(); err == nil {
			err = e
		}
	}()
	if err := q.readOnce(ctx); err != nil {
		return fleet.Evaluation{}, fmt.Errorf("read the queue: %w", err)
	}
	spec, err := controlSpec(f)
	if err != nil {
		return fleet.Evaluation{}, err
	}
	store := memory.New(memory.Options{})
	loop := control.Config{Store: store, Spec: spec, Variant: v1alpha1.Variant, Logger: log}
	if f.Spec.Follows() {
		err = q.configure(&loop, &f.Spec)
	} else { // on this machine, with nothing started yet
		loop.Queue, loop.Follow, loop.Sandboxes = q.queue, true, virtual.New(0)
		loop.Nodes, err = hostNode(daemonConfig{fleet: f, dir: os.TempDir()})
	}
	if err != nil {
		return fleet.Evaluation{}, err
	}
	e, err := control.New(loop)
	if err != nil {
		return fleet.Evaluation{}, err
	}
	return e.Evaluate(ctx)
}

func printEvaluation(w io.Writer, e fleet.Evaluation) error {
	v := &e.View
	fmt.Fprintf(w, "signals as of %s\n", v.SignalsAsOf.Local().Format("15:04:05.000"))
	oldest := "-"
	if v.OldestAge > 0 {
		oldest = v.OldestAge.Round(time.Millisecond).String()
	}
	fmt.Fprintf(w, "  backlog %d, delayed %d, in flight %d, dead %d, oldest waits %s\n\n", v.Backlog, v.Delayed, v.InFlight, v.Dead, oldest)
	fmt.Fprintf(w, "decision (nothing is applied)\n")
	for _, p := range v.Pools {
		fmt.Fprintf(w, "  pool %s: %d sandboxes, %d of them warm: %s\n", p.Pool, p.Desired, p.WarmTarget, p.Reason)
	}
	if len(e.Actions) == 0 {
		fmt.Fprintln(w, "\nno action")
	} else {
		fmt.Fprintln(w, "\nactions")
	}
	for _, a := range e.Actions {
		fmt.Fprintf(w, "  %s\n", a)
	}
	_, err := fmt.Fprintf(w, "\n%s\n", v.Sentence)
	return err
}
