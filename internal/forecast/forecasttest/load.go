// Package forecasttest makes loads for tests: fleets whose weekly pattern is
// known. It may import the standard library.
package forecasttest

import (
	"math"
	"math/rand/v2"
	"slices"
	"time"
)

// Task is one task of a load.
type Task struct {
	At     time.Time
	Length time.Duration
}

// Load is a fleet of a working week, in the order of time: an office day with
// its height at eleven, quiet nights and weekends, and on Mondays from 09:00 to
// 10:30 a rush of several times that. Tasks take 5 to 15 minutes. The hours are
// those of the zone of start; the same seed gives the same load.
func Load(seed uint64, start time.Time, weeks int) []Task {
	r := rand.New(rand.NewPCG(seed, 0))
	var out []Task
	for at := start; at.Before(start.AddDate(0, 0, 7*weeks)); at = at.Add(time.Minute) {
		for range poisson(r, Rate(at)/60) {
			out = append(out, Task{
				At:     at.Add(time.Duration(r.IntN(60)) * time.Second),
				Length: 5*time.Minute + time.Duration(r.IntN(600))*time.Second,
			})
		}
	}
	slices.SortStableFunc(out, func(a, b Task) int { return a.At.Compare(b.At) })
	return out
}

// Rate is the mean of tasks an hour at a time.
func Rate(at time.Time) float64 {
	hour := float64(at.Hour()) + float64(at.Minute())/60
	switch day := at.Weekday(); {
	case day == time.Saturday || day == time.Sunday:
		return 1
	case day == time.Monday && hour >= 9 && hour < 10.5:
		return 90
	case hour < 7 || hour >= 19:
		return 1
	default:
		return 1 + 11*math.Sin(math.Pi*(hour-7)/12)
	}
}

// poisson draws a count of a mean below about 30 (Knuth, The Art of Computer
// Programming, 3.4.1).
func poisson(r *rand.Rand, mean float64) int {
	limit, p := math.Exp(-mean), 1.0
	for n := 0; ; n++ {
		if p *= r.Float64(); p <= limit {
			return n
		}
	}
}
