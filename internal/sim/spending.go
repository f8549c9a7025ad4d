package sim

import "muster.dev/muster/internal/plan"

// spending is what a fleet has cost in the last hour and since midnight UTC,
// as the control loop charges it: by the nodes there are, between two looks.
type spending struct {
	at      int64
	day     int64 // since the epoch
	today   float64
	minutes [60]float64
	minute  int64
}

// charge adds what alive nodes cost since the last look; nodeHour is a price
// in micro-USD.
func (s *spending) charge(now int64, alive int, nodeHour int64) plan.Spend {
	if s.at > 0 {
		for at := s.at; at < now; {
			next := min(now, (at/60_000+1)*60_000)
			s.add(at, float64(next-at)/3600_000*float64(alive)*float64(nodeHour))
			at = next
		}
	}
	s.add(now, 0) // begins the day, or the minute, of now
	s.at = now
	var lastHour float64
	for _, v := range s.minutes {
		lastHour += v
	}
	return plan.Spend{HourMicroUSD: int64(lastHour), DayMicroUSD: int64(s.today)}
}

func (s *spending) add(at int64, microUSD float64) {
	if day := at / (24 * hour); day != s.day {
		s.day, s.today = day, 0
	}
	m := at / 60_000
	for ; s.minute < m; s.minute++ {
		if m-s.minute > 60 {
			s.minute = m - 60
		}
		s.minutes[(s.minute+1)%60] = 0
	}
	s.minutes[m%60] += microUSD
	s.today += microUSD
}
