package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/terminal"
)

// The values of -o.
const (
	formatTable = "table"
	formatWide  = "wide"
	formatJSON  = "json"
	formatYAML  = "yaml"
	formatName  = "name"
	formatText  = "text"
	formatCSV   = "csv"
	formatFocus = "focus"
)

// outputFlag is -o of one command: the first of its formats is the default.
type outputFlag struct {
	value   string
	formats []string
}

func (o *outputFlag) String() string { return o.value }
func (o *outputFlag) Type() string   { return "format" }

func (o *outputFlag) Set(v string) error {
	if !slices.Contains(o.formats, v) {
		return fmt.Errorf("want one of %s", strings.Join(o.formats, ", "))
	}
	o.value = v
	return nil
}

// addOutput gives a command its -o.
func addOutput(c *cobra.Command, formats ...string) *outputFlag {
	o := &outputFlag{value: formats[0], formats: formats}
	c.Flags().VarP(o, "output", "o", "one of "+strings.Join(formats, ", "))
	_ = c.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(formats, cobra.ShellCompDirectiveNoFileComp))
	return o
}

// structured prints v when the format is for programs, and says whether it was.
func (o *outputFlag) structured(s *shell, v any) (bool, error) {
	switch o.value {
	case formatJSON:
		b, err := json.MarshalIndent(v, "", "  ")
		if err != nil {
			return true, fmt.Errorf("encode: %w", err)
		}
		_, err = s.out.Write(append(b, '\n'))
		return true, err
	case formatYAML:
		b, err := yaml.Marshal(v)
		if err != nil {
			return true, fmt.Errorf("encode: %w", err)
		}
		_, err = s.out.Write(b)
		return true, err
	}
	return false, nil
}

// line prints v as one line of JSON, for streams.
func line(s *shell, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode: %w", err)
	}
	_, err = s.out.Write(append(b, '\n'))
	return err
}

// table starts a table for standard output.
func (s *shell) table(columns ...terminal.Column) *terminal.Table {
	return &terminal.Table{Columns: columns, Width: s.width(), Colour: s.colour(s.out)}
}

func (s *shell) printTable(t *terminal.Table) error {
	_, err := t.WriteTo(s.out)
	return err
}

// fields prints "name  value" lines, aligned; pairs with an empty value are
// left out.
func (s *shell) fields(pairs ...[2]string) {
	widest := 0
	for _, p := range pairs {
		if p[1] != "" {
			widest = max(widest, terminal.Width(p[0]))
		}
	}
	for _, p := range pairs {
		if p[1] != "" {
			s.printf("%-*s  %s\n", widest, p[0], terminal.Escape(p[1]))
		}
	}
}

func (s *shell) printf(format string, a ...any) { _, _ = fmt.Fprintf(s.out, format, a...) }

// styled colours text on standard output where that is allowed.
func (s *shell) styled(text, style string) string {
	if style == "" || !s.colour(s.out) {
		return text
	}
	return "\x1b[" + style + "m" + text + "\x1b[0m"
}

// stateStyle is the colour of a state.
func stateStyle(st fleet.TaskState) string {
	switch st {
	case fleet.TaskSucceeded:
		return "32"
	case fleet.TaskFailed, fleet.TaskTimedOut, fleet.TaskLost:
		return "31"
	case fleet.TaskCancelled:
		return "33"
	case fleet.TaskQueued:
		return ""
	}
	return "36"
}

// seconds is the age of a duration given in seconds, "" for none.
func seconds(v float64) string {
	if v <= 0 {
		return ""
	}
	return terminal.Age(time.Duration(v * float64(time.Second)))
}

// clock is a moment in local time, for people.
func clock(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Local().Format("2006-01-02 15:04:05.000 MST")
}

// moment reads --since: a duration back from now, RFC 3339, or a local date.
func moment(v string, now time.Time) (time.Time, error) { return momentOf("since", v, now) }

// momentOf reads a time from a flag.
func momentOf(flag, v string, now time.Time) (time.Time, error) {
	if v == "" {
		return time.Time{}, nil
	}
	if d, err := time.ParseDuration(v); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	if t, err := time.Parse(time.RFC3339, v); err == nil {
		return t, nil
	}
	for _, layout := range []string{"2006-01-02", "2006-01-02 15:04", "2006-01-02 15:04:05"} {
		if t, err := time.ParseInLocation(layout, v, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, usageError("--%s %q is no time; want a duration (90s, 2h), a date (2026-03-01) or RFC 3339", flag, v)
}
