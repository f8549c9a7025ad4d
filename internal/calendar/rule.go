package calendar

import (
	"time"

	"github.com/robfig/cron/v3"
)

// Rule says when something happens. The zero Rule never fires. Rules are
// immutable and safe for concurrent use.
type Rule struct {
	expr  string
	slots cron.Schedule // over the local calendar, written as if it were UTC
	zone  *time.Location
}

// String is the cron expression.
func (r Rule) String() string { return r.expr }

// Zone is the time zone the rule is read in.
func (r Rule) Zone() *time.Location {
	if r.zone == nil {
		return time.UTC
	}
	return r.zone
}

// Next is the first time the rule fires after the given time, in UTC; the
// zero time when it does not fire within five years.
func (r Rule) Next(after time.Time) time.Time {
	if r.slots == nil {
		return time.Time{}
	}
	_, offset := after.In(r.zone).Zone()
	slot := after.UTC().Add(time.Duration(offset) * time.Second)
	for {
		slot = r.slots.Next(slot)
		if slot.IsZero() {
			return time.Time{}
		}
		// While the clocks show an hour for the second time, its slots have
		// fired already.
		if at := r.instant(slot); at.After(after) {
			return at
		}
	}
}

// Last is the latest time the rule fired at or before the given time, in UTC;
// the zero time when it did not within five years.
func (r Rule) Last(at time.Time) time.Time {
	if r.slots == nil {
		return time.Time{}
	}
	const farthest = 5 * 366 * 24 * time.Hour
	fired := func(back time.Duration) bool { // in (at-back, at]
		n := r.Next(at.Add(-back))
		return !n.IsZero() && !n.After(at)
	}
	near, far := time.Duration(0), time.Minute
	for !fired(far) {
		if far > farthest {
			return time.Time{}
		}
		near, far = far, 2*far
	}
	for far-near > time.Second {
		if mid := near + (far-near)/2; fired(mid) {
			far = mid
		} else {
			near = mid
		}
	}
	return r.Next(at.Add(-far))
}

// Window is a span of time, Start included and End not.
type Window struct {
	Start, End time.Time
}

// Active returns the window [firing, firing+length) that now is in. Where
// windows overlap it is the one that began last, which is the one that ends
// last.
func (r Rule) Active(now time.Time, length time.Duration) (Window, bool) {
	if length <= 0 {
		return Window{}, false
	}
	// The common answer is no, and one look tells.
	if n := r.Next(now.Add(-length)); n.IsZero() || n.After(now) {
		return Window{}, false
	}
	start := r.Last(now)
	return Window{Start: start, End: start.Add(length)}, true
}

// instant is the first moment at which the local calendar reads slot or, where
// it jumps over it, reads something later. It walks the zone's offsets in
// order: in a span [start, end) of one offset the calendar reads from
// start+offset up to end+offset.
func (r Rule) instant(slot time.Time) time.Time {
	// No two clocks on Earth ever differed from UTC by more than a day and a
	// bit, so the walk begins before the slot's moment.
	at := slot.Add(-48 * time.Hour).In(r.zone)
	for {
		_, seconds := at.Zone()
		offset := time.Duration(seconds) * time.Second
		start, end := at.ZoneBounds()
		if end.IsZero() || slot.Before(end.UTC().Add(offset)) {
			moment := slot.Add(-offset)
			if !start.IsZero() && moment.Before(start) {
				moment = start // in the gap before this span
			}
			return moment.UTC()
		}
		at = end
	}
}
