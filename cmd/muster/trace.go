package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/client"
	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/sim/trace"
)

func newTraceCommand(s *shell) *cobra.Command {
	c := &cobra.Command{
		Use:   "trace",
		Short: "Make traces of load for `muster simulate`",
		Long: `Make traces for ` + "`muster simulate`" + `: CSV with the columns arrival_unix_seconds,
duration_seconds,class, sorted by arrival.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	in := &cobra.Command{
		Use:   "import",
		Short: "Make a trace of what others recorded",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	in.AddCommand(newImportCSVCommand(s), newImportPrometheusCommand(s))
	c.AddCommand(newTraceRecordCommand(s), in)
	return c
}

func newTraceRecordCommand(s *shell) *cobra.Command {
	var (
		since string
		out   traceFile
	)
	c := &cobra.Command{
		Use:   "record",
		Short: "Make a trace of this fleet's own finished tasks",
		Long: `Read the finished tasks of a fleet and write them as a trace: when each was due,
how long its sandbox was at work, and its template. Tasks that are still running
or never started are left out, and counted on standard error.`,
		Example: `  muster trace record --since 720h --out month.csv.gz
  muster simulate --trace month.csv.gz`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			from, err := moment(since, s.now())
			if err != nil {
				return err
			}
			cl, err := s.connect()
			if err != nil {
				return err
			}
			defer cl.Close()
			records, left, err := history(cmd.Context(), cl, from)
			if err != nil {
				return err
			}
			if len(records) == 0 {
				return fmt.Errorf("no task has finished%s; %d were left out", sinceWhen(since), left)
			}
			if left > 0 {
				s.note("%s left out: still running, or never started", plural(left, "task"))
			}
			return writeTrace(s, out, records)
		},
	}
	c.Flags().StringVar(&since, "since", "", "submitted since `when`: 720h, 2026-03-01, or RFC 3339 (default: all that is kept)")
	addOut(c, &out)
	return c
}

func sinceWhen(since string) string {
	if since == "" {
		return ""
	}
	return " since " + since
}

// traceFile is where a trace goes, and how that is told.
type traceFile struct {
	name   string
	output *outputFlag
}

// traceSummary says what was written.
type traceSummary struct {
	File  string    `json:"file"`
	Tasks int       `json:"tasks"`
	From  time.Time `json:"from"` // the first arrival
	To    time.Time `json:"to"`   // the last one
}

func addOut(c *cobra.Command, out *traceFile) {
	c.Flags().StringVar(&out.name, "out", "-", "write to this `file`, gzip where it ends in .gz; - is standard output")
	out.output = addOutput(c, formatText, formatJSON, formatYAML)
	c.Flags().Lookup("output").Usage += ": what is said of the trace in --out"
}

// history reads the tasks of a fleet, page by page.
func history(ctx context.Context, cl *client.Client, since time.Time) (records []trace.Record, left int, err error) {
	left, err = finished(ctx, cl, since, func(t *v1alpha1.TaskView, due time.Time) {
		records = append(records, trace.Record{
			Row: trace.Row{Arrival: trace.Millis(due), Duration: t.EndedAt.Sub(t.StartedAt).Milliseconds()}, Class: t.Template,
		})
	})
	trace.Sort(records)
	return records, left, err
}

// finished calls f with each task that has run, and when it was due; left are
// those still running, or never started.
func finished(ctx context.Context, cl *client.Client, since time.Time, f func(t *v1alpha1.TaskView, due time.Time)) (left int, err error) {
	q := client.TaskQuery{Since: since, Limit: 10_000}
	for {
		page, err := cl.Tasks(ctx, q)
		if err != nil {
			return 0, err
		}
		for i := range page.Tasks {
			t := &page.Tasks[i]
			if !t.Final() || t.StartedAt.IsZero() || t.EndedAt.Before(t.StartedAt) {
				left++
				continue
			}
			due := t.DueAt
			if due.IsZero() {
				due = t.SubmittedAt
			}
			f(t, due)
		}
		if page.Before == "" || len(page.Tasks) == 0 {
			return left, nil
		}
		q.Before = fleet.TaskID(page.Before)
	}
}

// writeTrace writes records to a file or standard output. A file is only
// replaced by a whole one.
func writeTrace(s *shell, o traceFile, records []trace.Record) error {
	out := o.name
	if out == "-" {
		if o.output.value != formatText {
			return usageError("-o %s describes the file of --out; without one the trace itself is printed", o.output.value)
		}
		return encodeTrace(s.out, false, records)
	}
	f, err := os.CreateTemp(dirOf(out), ".trace-*")
	if err != nil {
		return usageError("--out: %v", err)
	}
	defer func() { _ = os.Remove(f.Name()) }()
	err = encodeTrace(f, strings.HasSuffix(out, ".gz"), records)
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Chmod(f.Name(), 0o644)
	}
	if err == nil {
		err = os.Rename(f.Name(), out)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", out, err)
	}
	sum := traceSummary{File: out, Tasks: len(records), From: trace.Time(records[0].Arrival), To: trace.Time(records[len(records)-1].Arrival)}
	if done, err := o.output.structured(s, sum); done {
		return err
	}
	s.note("%s, %s to %s, in %s", plural(sum.Tasks, "task"), sum.From.Format(time.RFC3339), sum.To.Format(time.RFC3339), out)
	return nil
}

func encodeTrace(to io.Writer, zip bool, records []trace.Record) error {
	w, err := trace.NewWriter(to, zip)
	if err != nil {
		return err
	}
	for i := range records {
		if err := w.Write(records[i].Row, records[i].Class); err != nil {
			return err
		}
	}
	return w.Close()
}
