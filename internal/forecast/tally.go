package forecast

import (
	"container/heap"
	"fmt"
	"time"
)

// MaxTallyMinutes bounds what a Tally keeps: four years.
const MaxTallyMinutes = 4 * 366 * 24 * 60

// Tally turns tasks with a beginning and a length into the minutes of a fleet
// that started each at once. It is how a recorded trace becomes a history. The
// zero Tally is ready.
type Tally struct {
	first   int64 // minutes
	minutes []tallied
	ends    ends
	at      time.Time // up to where demand was added up
	running int
}

type tallied struct {
	arrivals, peak int32
	seconds        float64
}

// Add takes a task. Arrivals must not go back in time; a negative length
// counts as none. The error says what is wrong with the task.
func (t *Tally) Add(arrival time.Time, length time.Duration) error {
	if t.minutes == nil {
		t.first, t.at = minuteOf(arrival), arrival
	}
	if arrival.Before(t.at) {
		return fmt.Errorf("it arrives at %s, before the one ahead of it", arrival.UTC().Format(time.RFC3339))
	}
	if minuteOf(arrival)-t.first >= MaxTallyMinutes {
		return fmt.Errorf("it arrives more than %d days after the first", MaxTallyMinutes/24/60)
	}
	t.advance(arrival)
	m := t.minute(minuteOf(arrival))
	m.arrivals++
	t.running++
	m.peak = max(m.peak, int32(t.running))
	heap.Push(&t.ends, arrival.Add(max(length, 0)))
	return nil
}

// Series is the tasks so far as minutes, from that of the first arrival to
// that of the last; every one is known.
func (t *Tally) Series() *Series {
	s := newSeries(t.first, len(t.minutes))
	for _, m := range t.minutes {
		s.push(Minute{Known: true, Arrivals: int(m.arrivals), Mean: m.seconds / 60, Peak: int(m.peak)}.cell())
	}
	return s
}

// advance adds up demand until a time, ending the tasks that end before it.
func (t *Tally) advance(until time.Time) {
	for len(t.ends) > 0 && !t.ends[0].After(until) {
		t.spend(t.ends[0])
		t.running--
		heap.Pop(&t.ends)
	}
	t.spend(until)
}

// spend adds the present demand up until a time.
func (t *Tally) spend(until time.Time) {
	for t.at.Before(until) {
		i := minuteOf(t.at)
		m := t.minute(i)
		m.peak = max(m.peak, int32(t.running))
		end := timeOf(i + 1)
		if until.Before(end) {
			end = until
		}
		m.seconds += float64(t.running) * end.Sub(t.at).Seconds()
		t.at = end
	}
}

func (t *Tally) minute(i int64) *tallied {
	for int64(len(t.minutes)) <= i-t.first {
		t.minutes = append(t.minutes, tallied{})
	}
	return &t.minutes[i-t.first]
}

// ends is a heap of the times at which running tasks end.
type ends []time.Time

func (e ends) Len() int           { return len(e) }
func (e ends) Less(i, j int) bool { return e[i].Before(e[j]) }
func (e ends) Swap(i, j int)      { e[i], e[j] = e[j], e[i] }
func (e *ends) Push(x any)        { *e = append(*e, x.(time.Time)) } //nolint:forcetypeassert // only Add pushes
func (e *ends) Pop() any {
	n := len(*e) - 1
	x := (*e)[n]
	*e = (*e)[:n]
	return x
}
