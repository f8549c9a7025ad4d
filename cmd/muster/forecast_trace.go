package main

import (
	"errors"
	"io"
	"os"
	"time"

	"muster.dev/muster/internal/forecast"
	"muster.dev/muster/internal/sim/trace"
)

// readTrace adds up a trace; see package trace for its form. Tasks longer than
// most are left out; 0 takes all. A mistake is told with its line.
func readTrace(s *shell, name string, most time.Duration) (*forecast.Series, error) {
	in := s.in
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, usageError("%v", err)
		}
		defer func() { _ = f.Close() }()
		in = f
	}
	rows, err := trace.NewReader(in, fileName(name), nil)
	if err != nil {
		return nil, usageError("%v", err)
	}
	defer func() { _ = rows.Close() }()
	var tally forecast.Tally
	tasks := 0
	for {
		row, err := rows.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		length := time.Duration(row.Duration) * time.Millisecond
		if err == nil && (most <= 0 || length <= most) {
			tasks++
			err = tally.Add(trace.Time(row.Arrival), length)
		}
		if err != nil {
			return nil, usageError("%v", err)
		}
	}
	if tasks == 0 {
		return nil, usageError("%s holds no task", fileName(name))
	}
	return tally.Series(), nil
}
