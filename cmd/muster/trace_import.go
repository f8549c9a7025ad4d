package main

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"muster.dev/muster/internal/sim"
	"muster.dev/muster/internal/sim/trace"
)

func dirOf(path string) string { return filepath.Dir(path) }

func newImportCSVCommand(s *shell) *cobra.Command {
	var (
		cols        trace.Columns
		zone, comma string
		out         traceFile
		bare        bool
	)
	c := &cobra.Command{
		Use:   "csv FILE",
		Short: "Make a trace of a CSV file, plain or gzip; - is standard input",
		Long: `Read a CSV file of others and write it as a trace, sorted. Columns are named as in
the file's header, or by number from 1. A wrong row is refused with its line.`,
		Example: `  muster trace import csv jobs.csv --arrival submitted --duration runtime_s --out jobs.csv.gz
  muster trace import csv jobs.csv --arrival 2 --start 3 --end 4 --time '2006-01-02 15:04:05' --timezone Europe/Warsaw`,
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if (cols.Duration == "") == (cols.End == "") {
				return usageError("want --duration or --end: one of them says how long a task ran")
			}
			cols.Header = !bare
			var err error
			if cols.Zone, err = time.LoadLocation(zone); err != nil {
				return usageError("--timezone %q is unknown; want a name like Europe/Warsaw", zone)
			}
			if comma == `\t` {
				comma = "\t"
			}
			r, n := utf8.DecodeRuneInString(comma)
			if n != len(comma) || n == 0 || strings.ContainsRune("\"\r\n\uFFFD", r) {
				return usageError("--comma %q is out of range; want one character", comma)
			}
			cols.Comma = r
			return importCSV(s, args[0], out, cols)
		},
	}
	f := c.Flags()
	f.StringVar(&cols.Arrival, "arrival", "arrival_unix_seconds", "`column` with the time a task was submitted")
	f.StringVar(&cols.Duration, "duration", "", "`column` with the seconds it ran")
	f.StringVar(&cols.Start, "start", "", "`column` with the time it began to run (default: that of arrival)")
	f.StringVar(&cols.End, "end", "", "`column` with the time it ended")
	f.StringVar(&cols.Class, "class", "", "`column` to keep as class")
	f.StringVar(&cols.Layout, "time", "unix", "how times are written: unix, unixms, rfc3339, or a Go `layout`")
	f.StringVar(&zone, "timezone", "UTC", "`zone` of times that name none")
	f.StringVar(&comma, "comma", ",", "`character` between columns; \\t is a tab")
	f.BoolVar(&bare, "no-header", false, "the first line is a row, not the names of columns")
	addOut(c, &out)
	return c
}

func importCSV(s *shell, name string, out traceFile, cols trace.Columns) error {
	in := s.in
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return usageError("%v", err)
		}
		defer func() { _ = f.Close() }()
		in = f
	}
	records, err := trace.ImportCSV(in, fileName(name), cols)
	var wrong *trace.Error
	if errors.As(err, &wrong) {
		return usageError("%v", err)
	}
	if err != nil {
		return err
	}
	return writeTrace(s, out, records)
}

func newImportPrometheusCommand(s *shell) *cobra.Command {
	var (
		p                              trace.Prometheus
		from, to, step, length, tokens string
		out                            traceFile
	)
	c := &cobra.Command{
		Use:   "prometheus URL",
		Short: "Make a trace of what a Prometheus recorded",
		Long: `Ask a Prometheus for a range of time and write it as a trace. Either give a query
for arrivals in each step, and how long tasks run; or one for the number of
tasks in flight, from which arrivals and ends are read, first in, first out.
The result is as fine as the step: bursts within one are spread over it.`,
		Example: `  muster trace import prometheus http://prometheus:9090 --from 2026-03-02 --to 2026-03-09 \
    --step 60 --arrivals 'sum(increase(jobs_submitted_total[1m]))' --duration 600
  muster trace import prometheus http://prometheus:9090 --from 2026-03-02 --to 2026-03-09 \
    --running 'sum(agents_running)' --out agents.csv.gz`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			p.URL, p.Client = args[0], &http.Client{Timeout: 2 * time.Minute}
			if err := readRange(&p, from, to, step, length); err != nil {
				return err
			}
			if tokens != "" {
				b, err := os.ReadFile(tokens)
				if err != nil {
					return usageError("--bearer-token-file: %v", err)
				}
				p.Token = strings.TrimSpace(string(b))
			}
			if err := p.Check(); err != nil {
				return usageError("%v", err)
			}
			records, err := p.Records(cmd.Context())
			if err != nil {
				return err
			}
			if len(records) == 0 {
				return errors.New("the queries name no task in that range")
			}
			return writeTrace(s, out, records)
		},
	}
	f := c.Flags()
	f.StringVar(&p.Arrivals, "arrivals", "", "`query` for the tasks that came in the step before each point")
	f.StringVar(&p.Durations, "durations", "", "`query` for the mean seconds a task ran then")
	f.StringVar(&length, "duration", "0", "`seconds` a task runs where --durations says nothing")
	f.StringVar(&p.Running, "running", "", "`query` for the tasks in flight")
	f.StringVar(&from, "from", "", "begin at this `time`")
	f.StringVar(&to, "to", "", "end at this `time`")
	f.StringVar(&step, "step", "60", "`seconds` between two points")
	f.StringVar(&tokens, "bearer-token-file", "", "`file` with a token to send")
	addOut(c, &out)
	return c
}

func readRange(p *trace.Prometheus, from, to, step, length string) error {
	var err error
	if p.From, err = traceTime(from); err != nil {
		return usageError("--from: %v", err)
	}
	if p.To, err = traceTime(to); err != nil {
		return usageError("--to: %v", err)
	}
	if p.Step, err = sim.ParseSeconds(step); err != nil {
		return usageError("--step: %v", err)
	}
	if p.Duration, err = sim.ParseSeconds(length); err != nil {
		return usageError("--duration: %v", err)
	}
	return nil
}
