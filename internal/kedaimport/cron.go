package kedaimport

import (
	"strings"
	"time"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/calendar"
)

// reference is when windows are measured from: any time does, and a fixed one
// makes the same Fleet of the same document always.
var reference = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// measured is how many windows are looked at.
const measured = 60

// longestFloor is the most that api/v1alpha1 allows.
const longestFloor = 31 * 24 * time.Hour

// cron makes a floor of a cron trigger.
func cron(meta *object, n *notes) (v1alpha1.Floor, bool) {
	f := v1alpha1.Floor{Cron: meta.text("start"), Timezone: meta.text("timezone")}
	end := meta.text("end")
	var ok bool
	if f.Min, ok = meta.whole("desiredReplicas"); !ok || f.Min < 1 {
		n.add(Left, meta.at("desiredReplicas"), "a floor of none raises nothing")
		return f, false
	}
	from, err := calendar.Parse(f.Cron, f.Timezone)
	if err != nil {
		n.add(Todo, meta.at("start"), "is no cron rule of five fields in a known time zone; there is no floor for it")
		return f, false
	}
	to, err := calendar.Parse(end, f.Timezone)
	if err != nil {
		n.add(Todo, meta.at("end"), "is no cron rule of five fields; there is no floor for it")
		return f, false
	}
	var shortest, longest time.Duration
	begin := reference
	for i := range measured {
		begin = from.Next(begin)
		if begin.IsZero() {
			break
		}
		over := to.Next(begin)
		if over.IsZero() {
			break
		}
		d := over.Sub(begin)
		if i == 0 {
			shortest, longest = d, d
		}
		shortest, longest = min(shortest, d), max(longest, d)
	}
	if longest == 0 {
		n.add(Todo, meta.path, "never begins or never ends; there is no floor for it")
		return f, false
	}
	if shortest != longest {
		n.add(Changed, meta.at("end"), "the time from start to end varies from "+shortest.String()+" to "+longest.String()+"; a floor has one length, and the longest was taken")
	}
	if longest > longestFloor {
		n.add(Changed, meta.at("end"), "a floor lasts 31 days at most")
		longest = longestFloor
	}
	f.For = longest.String()
	for _, ending := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(f.For, ending) {
			f.For = f.For[:len(f.For)-2]
		}
	}
	return f, true
}
