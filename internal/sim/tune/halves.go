package tune

import (
	"errors"
	"io"
	"math"
	"time"

	"muster.dev/muster/internal/sim/trace"
)

// Parts are the two halves of a history: half of the tasks that count arrive
// from Open until Middle, the others from Middle on. What is before Open only
// warms the fleet up.
type Parts struct {
	Open, Middle  time.Time
	First, Second int64 // tasks that count
}

// warmUp is the part of the tasks that warms up when nobody says until when.
const warmUp = 0.1

// Halves splits a trace; open zero: after a tenth of its tasks.
func Halves(src trace.Source, open time.Time) (Parts, error) {
	arrivals, err := arrivals(src)
	if err != nil {
		return Parts{}, err
	}
	from := int(warmUp * float64(len(arrivals)))
	if !open.IsZero() {
		from = 0
		for from < len(arrivals) && arrivals[from] < open.UnixMilli() {
			from++
		}
	}
	counted := arrivals[from:]
	if len(counted) == 0 {
		return Parts{}, nil
	}
	p := Parts{Open: open}
	if p.Open.IsZero() {
		p.Open = trace.Time(counted[0])
	}
	middle := counted[len(counted)/2]
	p.Middle = trace.Time(middle)
	for _, at := range arrivals {
		switch {
		case at < p.Open.UnixMilli():
		case at < middle:
			p.First++
		default:
			p.Second++
		}
	}
	return p, nil
}

func arrivals(src trace.Source) (out []int64, err error) {
	in, err := src.Open()
	if err != nil {
		return nil, err
	}
	defer func() { _ = in.Close() }()
	for {
		row, err := in.Next()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		if len(out) == math.MaxInt32 {
			return nil, errors.New("more than two thousand million tasks cannot be split")
		}
		out = append(out, row.Arrival)
	}
}
