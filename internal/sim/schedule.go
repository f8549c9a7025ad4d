package sim

import "time"

// schedule is a fleet on a timetable: for every hour of the week (UTC) at
// least the 95th percentile of the demand in the same hour of all weeks seen so
// far, from a minute before the hour, and reactive above. In its first week it
// is reactive.
type schedule struct {
	pools []timetable
}

const (
	hour           = 3600 * second
	hoursOfWeek    = 7 * 24
	scheduleShare  = 0.95
	scheduleSample = 60 * second
)

// timetable is a histogram of demand, minute by minute, for each hour of the
// week: exact up to 64 tasks, in steps of a sixteenth at most above.
type timetable struct {
	seen  [hoursOfWeek]map[int]int64
	count [hoursOfWeek]int64
	// floor is of the hour that a minute from now lies in, before that of the
	// one before it; hours since the epoch.
	floor, before int
	hour          int64
}

func (s *schedule) Decide(now int64, w *World) int64 {
	if s.pools == nil {
		s.pools = make([]timetable, len(w.Pools))
	}
	for i := range w.Pools {
		p := &w.Pools[i]
		if now%scheduleSample == 0 {
			s.pools[i].sample(now, p.Demand())
		}
		p.Target = max(p.Demand(), s.pools[i].floorAt(now))
	}
	return after(now, scheduleSample)
}

func hourOfWeek(now int64) int {
	t := time.UnixMilli(now).UTC()
	return int(t.Weekday())*24 + t.Hour()
}

func (t *timetable) sample(now int64, demand int) {
	h := hourOfWeek(now)
	if t.seen[h] == nil {
		t.seen[h] = map[int]int64{}
	}
	t.seen[h][step(demand)]++
	t.count[h]++
}

// step rounds a demand up to its bin.
func step(n int) int {
	if n <= 64 {
		return n
	}
	width := 1
	for n/width > 32 {
		width *= 2
	}
	return (n + width - 1) / width * width
}

// floorAt is the floor that holds now, computed once an hour. It begins a
// minute early, so that it is there at the hour.
func (t *timetable) floorAt(now int64) int {
	ahead := now + scheduleSample
	if h := ahead / hour; h != t.hour {
		t.hour, t.before, t.floor = h, t.floor, t.quantile(hourOfWeek(ahead))
	}
	if now/hour < t.hour {
		return max(t.before, t.floor)
	}
	return t.floor
}

func (t *timetable) quantile(h int) int {
	left := scheduleShare * float64(t.count[h])
	if left == 0 {
		return 0
	}
	for n := 0; ; n++ {
		if left -= float64(t.seen[h][n]); left <= 1e-9 && t.seen[h][n] > 0 {
			return n
		}
	}
}
