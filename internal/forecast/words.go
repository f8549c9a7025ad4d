package forecast

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"muster.dev/muster/internal/fleet"
)

// dayName names a day of the week; Monday is 0.
func dayName(d int) string { return time.Weekday((d+1)%7).String() + "s" }

// dayText names days of the week (sorted, Monday is 0) as people would.
func dayText(days []int) string {
	switch {
	case len(days) == 7:
		return "every day"
	case slices.Equal(days, []int{0, 1, 2, 3, 4}):
		return "weekdays"
	case slices.Equal(days, []int{5, 6}):
		return "weekends"
	}
	// Runs of three and more days are told by their ends.
	var parts []string
	for i := 0; i < len(days); {
		j := i
		for j+1 < len(days) && days[j+1] == days[j]+1 {
			j++
		}
		if j-i >= 2 {
			parts = append(parts, dayName(days[i])+" to "+dayName(days[j]))
		} else {
			for _, d := range days[i : j+1] {
				parts = append(parts, dayName(d))
			}
		}
		i = j + 1
	}
	if n := len(parts); n > 1 {
		return strings.Join(parts[:n-1], ", ") + " and " + parts[n-1]
	}
	return strings.Join(parts, "")
}

// clockText is a minute of the day, also one before or after it.
func clockText(minute int) string {
	minute = (minute%(24*60) + 24*60) % (24 * 60)
	return fmt.Sprintf("%02d:%02d", minute/60, minute%60)
}

// sentence is a peak in words. What is not known is not said.
func sentence(k *fleet.ForecastPeak) string {
	var b strings.Builder
	b.WriteString(upper(k.Days))
	if k.From == k.Until {
		b.WriteString(" all day")
	} else {
		fmt.Fprintf(&b, " %s-%s", k.From, k.Until)
	}
	fmt.Fprintf(&b, ", %.1fx the mean (%d of %s)", k.TimesMean, k.Weeks, count(k.WeeksSeen, "week"))
	if k.WaitSeconds > 0 {
		fmt.Fprintf(&b, ", p95 wait %s under today's policy", durationText(k.WaitSeconds))
	}
	switch {
	case k.Floor <= k.Have:
		fmt.Fprintf(&b, "; the %d warm by then are enough", k.Have)
	default:
		fmt.Fprintf(&b, "; a floor of %d from %s has one warm for 95 %% of its tasks", k.Floor, k.FloorFrom)
		if k.CostMicroUSD != nil {
			fmt.Fprintf(&b, ", for up to $%.2f a week", float64(*k.CostMicroUSD)/1e6)
		}
	}
	return b.String()
}

func upper(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

// durationText is a wait in the unit that people use for it.
func durationText(seconds float64) string {
	switch d := time.Duration(seconds * float64(time.Second)); {
	case d >= 90*time.Minute:
		return fmt.Sprintf("%.1f h", d.Hours())
	case d >= 90*time.Second:
		return fmt.Sprintf("%.0f min", d.Minutes())
	case d >= time.Second:
		return fmt.Sprintf("%.0f s", d.Seconds())
	default:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	}
}
