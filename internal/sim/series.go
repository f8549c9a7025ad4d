package sim

// Series is what happened over the evaluated window in parts of equal length,
// so that its size does not depend on the length of the trace.
type Series struct {
	Open, Step int64 // milliseconds
	Parts      []Part
}

// Part is one of the parts of a window. Sums are over time, in
// something-milliseconds; divide by Millis for a mean.
type Part struct {
	Millis                               int64
	Demand, Running, Ready, Starting     int64 // tasks; sandboxes
	Nodes, Slots                         int64 // paid for; in service
	PeakDemand, PeakNodes                int
	Tasks, Cold, WaitMillis, LongestWait int64 // tasks that started; those that waited; milliseconds
}

func newSeries(n int, open, closing int64) *Series {
	step := max(1, (closing-open+int64(n)-1)/int64(n))
	return &Series{Open: open, Step: step, Parts: make([]Part, n)}
}

// advance adds the state of the world until at, when it changes next.
func (s *Series) advance(w *World, at int64) {
	end := s.Open + s.Step*int64(len(s.Parts))
	from, until := max(w.now, s.Open), min(at, w.close, end)
	for from < until {
		i := (from - s.Open) / s.Step
		next := min(until, s.Open+(i+1)*s.Step)
		s.Parts[i].add(w, next-from)
		from = next
	}
}

func (p *Part) add(w *World, ms int64) {
	ready, starting := 0, 0
	for i := range w.Pools {
		ready += w.Pools[i].Ready
		starting += w.Pools[i].Starting
	}
	demand := w.waiting + w.running
	p.Millis += ms
	p.Demand += ms * int64(demand)
	p.Running += ms * int64(w.running)
	p.Ready += ms * int64(ready)
	p.Starting += ms * int64(starting)
	p.Nodes += ms * int64(w.alive)
	p.Slots += ms * int64((w.alive-w.booting)*w.m.Slots)
	p.PeakDemand = max(p.PeakDemand, demand)
	p.PeakNodes = max(p.PeakNodes, w.alive)
}

// waited counts a task by the time it arrived.
func (s *Series) waited(arrived, ms int64) {
	i := (arrived - s.Open) / s.Step
	if i < 0 || i >= int64(len(s.Parts)) {
		return
	}
	p := &s.Parts[i]
	p.Tasks++
	p.WaitMillis += ms
	p.LongestWait = max(p.LongestWait, ms)
	if ms > 0 {
		p.Cold++
	}
}
