package intake

import (
	"time"

	"muster.dev/muster/internal/fleet"
)

// estimate fills in what a backend does not tell: how many messages have
// arrived, from how the backlog moved, and when the oldest that waits arrived,
// taking the queue for first-in-first-out. Between two readings it misses what
// came and went, so it errs towards fewer and younger. It is pure but for its
// own state.
type estimate struct {
	arrived  int64 // at the last reading
	backlog  int64
	inFlight int64
	gone     int64 // messages we have taken out of what is counted, in all
	seen     bool
	// marks are (time, arrived) of the past, oldest first: when the n-th message
	// arrived. Bounded: neighbours are merged.
	marks []mark
}

type mark struct {
	at      time.Time
	arrived int64
}

// maxMarks bounds the memory of when messages arrived.
const maxMarks = 512

// read completes a reading. gone is how many messages this process has taken
// out of what the reading counts since it began: those settled where what is
// leased is counted, else those received.
func (e *estimate) read(st fleet.SignalStats, tr fleet.SignalTraits, gone int64) fleet.SignalStats {
	if tr.Arrived && tr.Oldest {
		return st
	}
	if !tr.InFlight {
		st.InFlight = 0
	}
	waiting := st.Backlog + st.Delayed
	grown := waiting + st.InFlight - e.backlog - e.inFlight + gone - e.gone
	switch {
	case tr.Arrived:
		grown = st.Arrived - e.arrived
	case !e.seen:
		grown = waiting + st.InFlight // before that nobody counted
	}
	if grown < 0 { // others took some, or it was emptied
		grown = 0
	}
	e.arrived += grown
	if tr.Arrived {
		e.arrived = st.Arrived
	}
	if grown > 0 || !e.seen {
		e.note(mark{st.AsOf, e.arrived})
	}
	e.backlog, e.inFlight, e.gone, e.seen = waiting, st.InFlight, gone, true
	st.Arrived = e.arrived
	if !tr.Oldest {
		st.Oldest = e.oldest(st)
	}
	return st
}

// oldest is when the first of those that wait arrived.
func (e *estimate) oldest(st fleet.SignalStats) time.Time {
	gone := e.arrived - st.Backlog // had arrived before the first that waits
	for len(e.marks) > 1 && e.marks[0].arrived <= gone {
		e.marks = e.marks[1:]
	}
	if st.Backlog == 0 || len(e.marks) == 0 {
		return time.Time{}
	}
	return e.marks[0].at
}

func (e *estimate) note(m mark) {
	if len(e.marks) >= maxMarks { // every second one is enough for the past
		kept := e.marks[:0]
		for i, x := range e.marks {
			if i%2 == 1 || i == len(e.marks)-1 {
				kept = append(kept, x)
			}
		}
		e.marks = kept
	}
	e.marks = append(e.marks, m)
}

// mix says which pools the messages that wait outside are for: by what those
// taken lately were for, since nobody can look inside. Forgetting is by message,
// so that a quiet night does not forget the morning.
type mix struct {
	first fleet.PoolKey // before anything was taken
	pools map[fleet.PoolKey]float64
}

// fade is what a message counts after another one: about the last hundred tell.
const fade = 0.99

func (m *mix) took(p fleet.PoolKey) {
	if m.pools == nil {
		m.pools = map[fleet.PoolKey]float64{}
	}
	for k, v := range m.pools {
		if v *= fade; v < 0.01 {
			delete(m.pools, k)
		} else {
			m.pools[k] = v
		}
	}
	m.pools[p]++
}

// split shares n messages out by largest remainder; the parts add up to n.
func (m *mix) split(n int64) map[fleet.PoolKey]int64 {
	var sum float64
	for _, v := range m.pools {
		sum += v
	}
	if sum == 0 {
		return map[fleet.PoolKey]int64{m.first: n}
	}
	out := make(map[fleet.PoolKey]int64, len(m.pools))
	rest := map[fleet.PoolKey]float64{}
	left := n
	for k, v := range m.pools {
		exact := float64(n) * v / sum
		out[k] = int64(exact)
		rest[k] = exact - float64(out[k])
		left -= out[k]
	}
	for ; left > 0; left-- {
		var best fleet.PoolKey
		for k, v := range rest {
			if best == "" || v > rest[best] || v == rest[best] && k < best {
				best = k
			}
		}
		out[best]++
		rest[best] = -1
	}
	return out
}
