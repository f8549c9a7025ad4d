package main

import (
	"encoding/json"
	"io"
	"slices"
	"time"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/terminal"
)

// logOptions say how a log is printed.
type logOptions struct {
	streams    []string // empty: all
	timestamps bool
	json       bool
}

// logPrinter prints a task's log: standard output to standard output, standard
// error and muster's notes to standard error. To a pipe the bytes go as they
// are; to a terminal only what cannot do harm.
type logPrinter struct {
	o        logOptions
	sinks    map[string]io.Writer
	closers  []io.Closer
	shell    *shell
	attempts int
}

func newLogPrinter(s *shell, o logOptions) *logPrinter {
	p := &logPrinter{o: o, sinks: map[string]io.Writer{}, shell: s}
	for _, name := range []string{"stdout", "stderr", "system"} {
		w := s.errs
		if name == "stdout" {
			w = s.out
		}
		_, tty := s.terminal(w)
		if tty {
			f := terminal.NewFilter(w)
			w, p.closers = f, append(p.closers, f)
		}
		if o.timestamps || name == "system" {
			st := &lineStamper{w: w, times: o.timestamps}
			if name == "system" {
				st.prefix = "muster: "
			}
			w = st
		}
		p.sinks[name] = w
	}
	return p
}

// print writes one record.
func (p *logPrinter) print(r v1alpha1.LogEvent) error {
	if len(p.o.streams) > 0 && !slices.Contains(p.o.streams, r.Stream) {
		return nil
	}
	if p.o.json {
		return line(p.shell, r)
	}
	if p.attempts > 0 && r.Attempt > p.attempts {
		p.shell.note("attempt %d", r.Attempt)
	}
	p.attempts = max(p.attempts, r.Attempt)
	w, ok := p.sinks[r.Stream]
	if !ok {
		w = p.sinks["system"]
	}
	if st, ok := w.(*lineStamper); ok {
		st.at = r.At
	}
	_, err := w.Write(r.Data)
	return err
}

func (p *logPrinter) close() error {
	var first error
	for _, c := range p.closers {
		if err := c.Close(); first == nil {
			first = err
		}
	}
	return first
}

// lineStamper puts the time and a prefix before each line.
type lineStamper struct {
	w      io.Writer
	times  bool
	prefix string
	at     time.Time
	within bool // a line has begun
}

func (l *lineStamper) Write(p []byte) (int, error) {
	var out []byte
	for _, c := range p {
		if !l.within {
			if l.times {
				out = append(l.at.Local().AppendFormat(out, "2006-01-02T15:04:05.000Z07:00"), ' ')
			}
			out = append(out, l.prefix...)
		}
		out = append(out, c)
		l.within = c != '\n'
	}
	if _, err := l.w.Write(out); err != nil {
		return 0, err
	}
	return len(p), nil
}

var _ json.Marshaler = (*rawText)(nil)

// rawText is bytes that print as a JSON string.
type rawText []byte

// MarshalJSON encodes like a string; invalid UTF-8 becomes U+FFFD.
func (r rawText) MarshalJSON() ([]byte, error) { return json.Marshal(string(r)) }
