package forecast

import (
	"cmp"
	"math"
	"slices"
	"time"

	"muster.dev/muster/internal/fleet"
)

// Question asks for everything that a forecast says.
type Question struct {
	Now     time.Time
	Horizon time.Duration  // see History.Forecast; 0 is a day
	Zone    *time.Location // nil is UTC
	// Lead is how long a sandbox takes from request to ready; 0 is a minute.
	Lead time.Duration
	// Have is how many warm sandboxes minima and calendar keep at a time already;
	// nil: none.
	Have func(time.Time) int
	// NodeHour is the price of a node for an hour in micro-USD, Slots the
	// sandboxes it takes; where either is 0, nothing is said of cost.
	NodeHour int64
	Slots    int
	Backtest bool
}

// enoughWaits is how many waits (older ones counting for less) a percentile is
// told of.
const enoughWaits = 20

// floorShare is the share of a peak's tasks that the floor told should have a
// warm sandbox for.
const floorShare = 0.95

// Report is the forecast with the weekly pattern, its peaks in words and, where
// asked for, a back-test.
func (h *History) Report(q Question) fleet.Forecast {
	if q.Zone == nil {
		q.Zone = time.UTC
	}
	if q.Horizon == 0 {
		q.Horizon = 24 * time.Hour
	}
	s := h.Series()
	f := h.forecast(s, q.Now, q.Horizon, q.Zone)
	p := h.weekly(s, q.Now, q.Zone)
	f.Week = p.view()
	for _, k := range p.peaks() {
		f.Peaks = append(f.Peaks, h.tell(s, p, &k, q))
	}
	if q.Backtest {
		b := Backtest(s, q.Zone)
		f.Backtest = &b
	}
	return f
}

// tell puts a peak into words and numbers.
func (h *History) tell(s *Series, p *pattern, k *peak, q Question) fleet.ForecastPeak {
	lead := q.Lead
	if lead <= 0 {
		lead = time.Minute
	}
	const five = 5
	begin := k.first*halfHour - int((lead+five*time.Minute-1)/(five*time.Minute))*five
	v := fleet.ForecastPeak{
		Days: dayText(k.days), From: clockText(k.first * halfHour), Until: clockText(k.last * halfHour),
		TimesMean: hundredths(k.times), Weeks: k.weeks, WeeksSeen: k.seen,
		Floor: p.floor(s, k, lead), FloorFrom: clockText(begin),
	}
	for _, d := range k.days {
		v.Weekdays = append(v.Weekdays, time.Weekday((d+1)%7))
	}
	var waits digest
	for hour := range p.hours(k) {
		if x := h.sketch.of(hour); x != nil {
			waits.merge(&x.parts[partWait])
		}
	}
	if waits.weight >= enoughWaits {
		v.WaitSeconds = waits.quantile(0.95) * waitUnit.Seconds()
		v.Waits = math.Round(waits.weight)
	}
	if q.Have != nil {
		v.Have = q.Have(p.next(k))
	}
	if q.NodeHour > 0 && q.Slots > 0 {
		minutes := int64(k.last*halfHour-begin) * int64(len(k.days))
		cost := int64(max(0, v.Floor-v.Have)) * minutes * q.NodeHour / 60 / int64(q.Slots)
		v.CostMicroUSD = &cost
	}
	v.Sentence = sentence(&v)
	return v
}

// floor is the warm stock with which a share floorShare of a peak's tasks find
// a sandbox ready: the size of the lead time's worth of arrivals that so many
// of them come in or below. What is taken is started again at once, and is
// ready one lead time later; so the stock has to last for one lead time.
func (p *pattern) floor(s *Series, k *peak, lead time.Duration) int {
	var in [halves]bool
	k.each(func(i int) { in[i] = true })
	n := max(1, int((lead+time.Minute-1)/time.Minute))
	var all []sample
	total := 0.0
	for from := s.start; from < s.end(); from++ {
		i := int(from - s.start)
		tasks := float64(s.arrivals[i+1] - s.arrivals[i])
		if tasks == 0 || !in[p.slot(from)] {
			continue
		}
		all = append(all, sample{v: s.rates(from-int64(n)+1, n).arrivals, w: tasks})
		total += tasks
	}
	if total == 0 {
		return 0
	}
	slices.SortFunc(all, func(a, b sample) int { return cmp.Compare(a.v, b.v) })
	return int(empirical(all, total, floorShare))
}

// hours are the hours (counted from 1970) of the week ahead that a peak
// touches.
func (p *pattern) hours(k *peak) map[int64]bool {
	var in [halves]bool
	k.each(func(i int) { in[i] = true })
	out := map[int64]bool{}
	first := floorDiv(minuteOf(p.now), minutesOfHour)
	for hour := first; hour < first+hoursOfWeek; hour++ {
		for half := range int64(2) {
			if in[p.slot(hour*minutesOfHour+half*halfHour)] {
				out[hour] = true
			}
		}
	}
	return out
}

// next is the middle of a peak's first half hour when it comes next.
func (p *pattern) next(k *peak) time.Time {
	want := (k.days[0]*48 + k.first) % halves
	from := floorDiv(minuteOf(p.now), halfHour) * halfHour
	for i := range int64(halves + 2) {
		if p.slot(from+i*halfHour) == want {
			return timeOf(from + i*halfHour + halfHour/2)
		}
	}
	return p.now
}
