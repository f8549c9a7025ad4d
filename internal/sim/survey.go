package sim

import (
	"errors"
	"io"
	"math"
	"time"

	"muster.dev/muster/internal/sim/trace"
)

// Survey is what one pass over a trace tells of it: the demand of tasks that
// all start the moment they arrive.
type Survey struct {
	Tasks       int64 // in the evaluated window
	WarmUp      int64 // tasks before it
	First, Last int64 // arrivals, in milliseconds since the epoch
	Open, Close int64 // the evaluated window
	WorkMillis  int64 // of the tasks in the window
	// Peak, P99 and Mean are of demand over the time of the window, in tasks.
	Peak, P99 int
	Mean      float64
	// Levels is how long demand was exactly i, in milliseconds.
	Levels []int64

	Bound         int64 // node-milliseconds; see the package comment
	BoundLaunches int
	BoundPeak     int
}

// surveyor is a survey under way.
type surveyor struct {
	s       Survey
	slots   int
	ends    heap // of running tasks
	at      int64
	running int
	b       bound
	// before and after are what a window without given ends has around its
	// tasks.
	before, after int64

	// Slots held, a cold start before the task included; see later.
	cold  int64
	frees heap
	held  int
}

// survey reads a trace once. Without from the window opens soon enough before
// the first arrival to boot for it; without to it closes late enough after the
// last task's end to see its node returned and paid.
func survey(src trace.Source, m *Model, from, to time.Time) (Survey, error) {
	in, err := src.Open()
	if err != nil {
		return Survey{}, err
	}
	defer func() { _ = in.Close() }()
	v := surveyor{slots: m.Slots, before: max(m.Boot.Median, m.MinBill).Milliseconds()}
	v.after = (m.Boot.Median + m.ColdStart.Median + max(m.Hold, m.MinBill)).Milliseconds()
	v.s.Open, v.s.Close = math.MinInt64, Never
	if !from.IsZero() {
		v.s.Open = from.UnixMilli()
	}
	if !to.IsZero() {
		v.s.Close = to.UnixMilli()
	}
	v.cold = m.ColdStart.least()
	v.b = bound{boot: m.Boot.least(), bill: m.MinBill.Milliseconds(), open: v.later(v.s.Open), close: v.later(v.s.Close)}
	for {
		row, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return Survey{}, err
		}
		v.take(row)
	}
	return v.finish(!to.IsZero()), nil
}

func (v *surveyor) take(row trace.Row) {
	s := &v.s
	if s.Tasks+s.WarmUp == 0 {
		s.First = row.Arrival
		if s.Open == math.MinInt64 {
			s.Open = row.Arrival - v.before
			v.b.open = v.later(s.Open)
		}
		v.at = row.Arrival
	}
	s.Last = row.Arrival
	if row.Arrival < s.Open {
		s.WarmUp++
	} else {
		s.Tasks++
		s.WorkMillis += row.Duration
	}
	v.until(row.Arrival)
	if row.Duration > 0 { // what takes no time is never in flight
		v.ends.push(event{at: row.Arrival + row.Duration})
		v.change(row.Arrival, 1)
	}
	v.leave(row.Arrival)
	if held := v.cold + row.Duration; held > 0 {
		v.frees.push(event{at: row.Arrival + held})
		v.hold(row.Arrival, 1)
	}
}

// later is a time on the clock of the bound, which is one cold start behind:
// slots are then held from each arrival on.
func (v *surveyor) later(at int64) int64 {
	if at == math.MinInt64 || at == Never {
		return at
	}
	return at + v.cold
}

// leave frees the slots that are free by then, on the clock of the bound.
func (v *surveyor) leave(now int64) {
	for len(v.frees) > 0 && v.frees[0].at <= now {
		v.hold(v.frees.pop().at, -1)
	}
}

func (v *surveyor) hold(at int64, d int) {
	v.held += d
	v.b.need(at, (v.held+v.slots-1)/v.slots)
}

// until ends the tasks that end by then.
func (v *surveyor) until(now int64) {
	for len(v.ends) > 0 && v.ends[0].at <= now {
		v.change(v.ends.pop().at, -1)
	}
}

func (v *surveyor) change(at int64, d int) {
	v.advance(at)
	v.running += d
}

func (v *surveyor) advance(at int64) {
	if d := min(at, v.s.Close) - max(v.at, v.s.Open); d > 0 {
		for len(v.s.Levels) <= v.running {
			v.s.Levels = append(v.s.Levels, 0)
		}
		v.s.Levels[v.running] += d
	}
	v.at = at
}

func (v *surveyor) finish(bounded bool) Survey {
	s := &v.s
	if bounded {
		v.until(s.Close)
	} else {
		for len(v.ends) > 0 {
			v.change(v.ends.pop().at, -1)
		}
		s.Close = max(v.at, s.Open+1) + v.after
		v.b.close = v.later(s.Close)
	}
	v.leave(v.b.close)
	v.advance(s.Close)
	s.Bound, s.BoundLaunches, s.BoundPeak = v.b.finish(), v.b.launches, v.b.peak
	s.Peak, s.P99 = max(0, len(s.Levels)-1), s.quantile(0.99)
	if span := s.Close - s.Open; span > 0 {
		area := 0.0
		for i, d := range s.Levels {
			area += float64(i) * float64(d)
		}
		s.Mean = area / float64(span)
	}
	return *s
}

// quantile is the demand that was not exceeded for a share q of the time.
func (s *Survey) quantile(q float64) int {
	left := q * float64(s.Close-s.Open)
	for i, d := range s.Levels {
		if left -= float64(d); left <= 0 {
			return i
		}
	}
	return max(0, len(s.Levels)-1)
}
