package main

import (
	"bufio"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"strings"
	"time"

	"muster.dev/muster/internal/forecast"
)

// readTrace reads a trace of tasks, a line "arrival_unix_seconds,
// duration_seconds[,class]" each in the order of arrival, after a header or
// none, with gzip where the name ends in .gz. Tasks longer than most are left
// out; 0 takes all. A mistake is told with its line.
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
	if strings.HasSuffix(name, ".gz") {
		z, err := gzip.NewReader(in)
		if err != nil {
			return nil, usageError("%s: %v", name, err)
		}
		in = z
	}
	var tally forecast.Tally
	lines := bufio.NewScanner(io.LimitReader(in, maxTrace))
	lines.Buffer(nil, 64<<10)
	n, tasks := 0, 0
	for lines.Scan() {
		n++
		text := strings.TrimSpace(lines.Text())
		if text == "" || n == 1 && strings.HasPrefix(text, "arrival") {
			continue
		}
		at, length, err := traceRow(text)
		if err == nil && (most <= 0 || length <= most) {
			tasks++
			err = tally.Add(at, length)
		}
		if err != nil {
			return nil, usageError("%s:%d: %v", fileName(name), n, err)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, usageError("%s:%d: %v", fileName(name), n+1, err)
	}
	if tasks == 0 {
		return nil, usageError("%s holds no task", fileName(name))
	}
	return tally.Series(), nil
}

// maxTrace bounds a trace, unpacked: a hundred million tasks.
const maxTrace = 4 << 30

func traceRow(text string) (at time.Time, length time.Duration, err error) {
	parts := strings.Split(text, ",")
	if len(parts) < 2 || len(parts) > 3 {
		return at, 0, fmt.Errorf("%d columns; want arrival_unix_seconds,duration_seconds[,class]", len(parts))
	}
	arrival, err := strconv.ParseFloat(strings.TrimSpace(parts[0]), 64)
	if err != nil || !(arrival >= 0 && arrival < 1e11) {
		return at, 0, errors.New("the arrival is no time in seconds since 1970")
	}
	seconds, err := strconv.ParseFloat(strings.TrimSpace(parts[1]), 64)
	if err != nil || !(seconds >= 0 && seconds < 1e9) {
		return at, 0, errors.New("the duration is no number of seconds of at least 0")
	}
	whole, part := math.Modf(arrival)
	return time.Unix(int64(whole), int64(part*1e9)), time.Duration(seconds * float64(time.Second)), nil
}
