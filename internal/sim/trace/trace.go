package trace

import (
	"errors"
	"io"
	"math"
	"time"
)

// Row is one task: times in milliseconds, Arrival since the Unix epoch.
type Row struct {
	Arrival  int64
	Duration int64 // of work, at least 0
	Class    int32 // index into Classes of the stream; 0 where classes are not read
}

// Stream yields rows by arrival; Next returns io.EOF after the last one. A
// stream is used by one goroutine.
type Stream interface {
	Next() (Row, error)
	Close() error
}

// Source is a trace that can be read again from its beginning.
type Source interface {
	Open() (Stream, error)
}

// Rows is a trace in memory, sorted by arrival.
type Rows []Row

// Open implements Source.
func (r Rows) Open() (Stream, error) { return &rowStream{rows: r}, nil }

type rowStream struct{ rows []Row }

func (s *rowStream) Next() (Row, error) {
	if len(s.rows) == 0 {
		return Row{}, io.EOF
	}
	r := s.rows[0]
	s.rows = s.rows[1:]
	return r, nil
}

func (s *rowStream) Close() error { return nil }

// Millis is a time on the clock of rows.
func Millis(t time.Time) int64 { return t.UnixMilli() }

// Time is the moment a count of milliseconds stands for, in UTC.
func Time(ms int64) time.Time { return time.UnixMilli(ms).UTC() }

// Selection is the part of a trace that is used. Zero fields select all.
type Selection struct {
	From, To    time.Time     // arrivals from From on and before To
	MaxDuration time.Duration // longer tasks are left out
}

// bounds are From and To in milliseconds.
func (s Selection) bounds() (from, to int64) {
	from, to = math.MinInt64, math.MaxInt64
	if !s.From.IsZero() {
		from = s.From.UnixMilli()
	}
	if !s.To.IsZero() {
		to = s.To.UnixMilli()
	}
	return from, to
}

// Select returns the part of a source; reading ends at To.
func Select(src Source, sel Selection) Source { return selected{src, sel} }

type selected struct {
	src Source
	sel Selection
}

func (s selected) Open() (Stream, error) {
	in, err := s.src.Open()
	if err != nil {
		return nil, err
	}
	f := &filter{Stream: in, longest: math.MaxInt64}
	f.from, f.to = s.sel.bounds()
	if s.sel.MaxDuration > 0 {
		f.longest = s.sel.MaxDuration.Milliseconds()
	}
	return f, nil
}

type filter struct {
	Stream
	from, to, longest int64
}

func (f *filter) Next() (Row, error) {
	for {
		r, err := f.Stream.Next()
		switch {
		case err != nil:
			return r, err
		case r.Arrival >= f.to:
			return Row{}, io.EOF
		case r.Arrival >= f.from && r.Duration <= f.longest:
			return r, nil
		}
	}
}

// Load reads a source into memory, up to most rows; whole is false, and the
// rows are dropped, when there are more.
func Load(src Source, most int) (rows Rows, whole bool, err error) {
	s, err := src.Open()
	if err != nil {
		return nil, false, err
	}
	defer func() { _ = s.Close() }()
	for {
		r, err := s.Next()
		switch {
		case errors.Is(err, io.EOF):
			return rows, true, nil
		case err != nil:
			return nil, false, err
		case len(rows) >= most:
			return nil, false, nil
		}
		rows = append(rows, r)
	}
}
