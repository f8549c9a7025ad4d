package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/client"
	"muster.dev/muster/internal/control"
	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/replay"
)

// replayOptions are the flags of replay.
type replayOptions struct {
	since, until, fleet, journal, export string
	in                                   replay.Range
	out                                  *outputFlag
}

func newReplayCommand(s *shell) *cobra.Command {
	var o replayOptions
	c := &cobra.Command{
		Use:   "replay",
		Short: "Make journaled decisions again, or ask what another fleet would have decided",
		Long: `Make the decisions on record again, each from its own observation, state and
policy, and show whether they come out bit for bit as they were. If one does not,
the first differences are shown and the exit code is 1.

With --fleet each observation is decided under another fleet's specification:
how many sandboxes it would have wanted, kept warm, started and drained. This is
open loop: every decision looks at the world as the recorded ones made it.

--export writes the journal to a file, which --journal replays, here or
elsewhere, without a server.`,
		Example: `  muster replay --since 2h
  muster replay --since 24h --fleet other.yaml
  muster replay --export journal.jsonl && muster replay --journal journal.jsonl --from 120 --to 180`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.complete(cmd, s); err != nil {
				return err
			}
			return runReplay(cmd.Context(), s, &o)
		},
	}
	f := c.Flags()
	f.StringVar(&o.since, "since", "", "decisions since `when`: 2h, 2026-03-01, or RFC 3339")
	f.StringVar(&o.until, "until", "", "decisions until `when`, as --since")
	f.Int64Var(&o.in.From, "from", 0, "decisions from this `seq` on")
	f.Int64Var(&o.in.To, "to", 0, "decisions up to this `seq`, included")
	f.StringVar(&o.fleet, "fleet", "", "decide under the Fleet in this `file`")
	f.StringVar(&o.journal, "journal", "", "replay the exported journal in this `file`; - is standard input")
	f.StringVar(&o.export, "export", "", "write the journal to this `file` instead; - is standard output")
	o.out = addOutput(c, formatText, formatJSON, formatYAML)
	return c
}

// complete checks the flags.
func (o *replayOptions) complete(cmd *cobra.Command, s *shell) error {
	var err error
	if o.in.Since, err = momentOf("since", o.since, s.now()); err != nil {
		return err
	}
	if o.in.Until, err = momentOf("until", o.until, s.now()); err != nil {
		return err
	}
	for _, name := range []string{"from", "to"} {
		if v, _ := cmd.Flags().GetInt64(name); cmd.Flags().Changed(name) && v < 1 {
			return usageError("--%s %d is the seq of no decision; want 1 or more", name, v)
		}
	}
	switch {
	case o.in.To > 0 && o.in.From > o.in.To:
		return usageError("--from %d is behind --to %d; want the lower first", o.in.From, o.in.To)
	case !o.in.Until.IsZero() && o.in.Until.Before(o.in.Since):
		return usageError("--until %s is before --since %s; want the earlier in --since", o.until, o.since)
	case o.export != "" && o.journal != "":
		return usageError("--export with --journal: that journal is a file already; want one of the two")
	case o.export != "" && o.fleet != "":
		return usageError("--export with --fleet: what is exported is what was decided; want one of the two")
	case o.export != "" && o.out.value != formatText:
		return usageError("--export with -o %s: an exported journal is lines of JSON; want no -o", o.out.value)
	}
	return nil
}

func runReplay(ctx context.Context, s *shell, o *replayOptions) error {
	var other *control.Spec
	if o.fleet != "" {
		var err error
		if other, err = readOther(s, o.fleet); err != nil {
			return err
		}
	}
	src, end, err := openJournal(s, o)
	if err != nil {
		return err
	}
	defer end()
	switch {
	case o.export != "":
		err = exportJournal(ctx, s, src, o)
	case other != nil:
		err = runCompare(ctx, s, src, o, *other)
	default:
		err = runCheck(ctx, s, src, o)
	}
	var wrong *fleet.FieldError
	if o.journal != "" && errors.As(err, &wrong) {
		return inFile(o.journal, err)
	}
	var empty *replay.EmptyError
	if live, ok := src.(*serverJournal); ok && errors.As(err, &empty) {
		return live.empty(ctx, err)
	}
	return err
}

// readOther reads the fleet to compare with.
func readOther(s *shell, name string) (*control.Spec, error) {
	b, err := readFile(s, name)
	if err != nil {
		return nil, err
	}
	f, err := v1alpha1.ParseFleet(b)
	if err != nil {
		return nil, inFile(name, err)
	}
	spec, err := controlSpec(f)
	if err != nil {
		return nil, inFile(name, err)
	}
	return &spec, nil
}

// openJournal opens the source of decisions; end closes it.
func openJournal(s *shell, o *replayOptions) (src replay.Source, end func(), err error) {
	if o.journal == "" {
		c, err := s.connect()
		if err != nil {
			return nil, nil, err
		}
		return &serverJournal{c: c, in: o.in}, c.Close, nil
	}
	from, end := s.in, func() {}
	if o.journal != "-" {
		f, err := os.Open(o.journal)
		if err != nil {
			return nil, nil, usageError("%v", err)
		}
		from, end = f, func() { _ = f.Close() }
	}
	r, err := replay.NewReader(from)
	if err != nil {
		end()
		return nil, nil, inFile(o.journal, err)
	}
	return r, end, nil
}

// exportJournal writes a journal to a file, whole or not at all.
func exportJournal(ctx context.Context, s *shell, src replay.Source, o *replayOptions) error {
	if o.export == "-" {
		_, err := writeJournal(ctx, s.out, src, o.in)
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(o.export), ".export-*")
	if err != nil {
		return usageError("%v", err)
	}
	defer func() { _ = os.Remove(f.Name()) }() // gone already when all went well
	span, err := writeJournal(ctx, f, src, o.in)
	if err == nil {
		err = f.Sync()
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return err
	}
	if err := os.Rename(f.Name(), o.export); err != nil {
		return fmt.Errorf("export the journal: %w", err)
	}
	s.note("%s exported to %s: %s", counted(span.Decisions, "decision"), o.export, spanText(span))
	return nil
}

func writeJournal(ctx context.Context, to io.Writer, src replay.Source, in replay.Range) (replay.Span, error) {
	w, err := replay.NewWriter(to)
	if err != nil {
		return replay.Span{}, err
	}
	span, err := replay.Each(ctx, src, in, func(d *fleet.DecisionRecord) error { return w.Write(ctx, d, src) })
	if err != nil {
		return span, err
	}
	return span, w.Close()
}

// serverJournal is the journal of a server.
type serverJournal struct {
	c     *client.Client
	in    replay.Range
	page  []v1alpha1.DecisionView
	after int64
	begun bool
}

// journalPage is how many decisions are asked for at once; the server bounds
// the bytes.
const journalPage = 1000

// Next implements replay.Source.
func (j *serverJournal) Next(ctx context.Context) (fleet.DecisionRecord, error) {
	if len(j.page) == 0 {
		if j.begun && j.after == 0 {
			return fleet.DecisionRecord{}, io.EOF
		}
		if !j.begun {
			j.after = max(0, j.in.From-1)
		}
		list, err := j.c.Decisions(ctx, client.DecisionQuery{After: j.after, Since: j.in.Since, Until: j.in.Until, Limit: journalPage})
		if err != nil {
			return fleet.DecisionRecord{}, err
		}
		j.begun, j.page, j.after = true, list.Decisions, list.After
		if len(j.page) == 0 {
			return fleet.DecisionRecord{}, io.EOF
		}
	}
	d := j.page[0].Record()
	if j.page = j.page[1:]; j.in.To > 0 && d.Seq > j.in.To {
		return d, io.EOF
	}
	return d, nil
}

// Policy implements replay.Source.
func (j *serverJournal) Policy(ctx context.Context, digest string) ([]byte, error) {
	p, err := j.c.Policy(ctx, digest)
	return p.Policy, err
}

// empty says what the server has when the range has nothing.
func (j *serverJournal) empty(ctx context.Context, err error) error {
	list, asked := j.c.Decisions(ctx, client.DecisionQuery{Limit: 1})
	switch {
	case asked != nil:
		return err
	case len(list.Decisions) == 0:
		return &client.Error{Text: "the server has no decision on record yet", Kind: client.ErrUsage}
	}
	first := list.Decisions[0]
	return &client.Error{
		Text: fmt.Sprintf("there is no decision in this range; the oldest on record is decision %d of %s", first.Seq, clock(first.At)),
		Hint: "without --since, --until, --from and --to all are replayed", Kind: client.ErrUsage,
	}
}

// counted is a number of things, with commas.
func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return humanize.Comma(int64(n)) + " " + what + "s"
}
