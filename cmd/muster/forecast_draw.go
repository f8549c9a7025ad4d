package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/terminal"
)

func printForecast(s *shell, f fleet.Forecast) error {
	of := "the fleet"
	if f.Template != "" {
		of = "template " + terminal.Escape(f.Template)
	}
	zone, err := time.LoadLocation(f.Timezone)
	if err != nil {
		zone = time.UTC // a zone that the server knows and this machine does not
	}
	s.printf("%s at %s\n", s.styled(of, "1"), f.At.In(zone).Format("Mon 2006-01-02 15:04 MST"))
	if len(f.Week.Arrivals) == len(f.Week.WeeksSeen) && len(f.Week.Arrivals) == 7*48 {
		s.printf("\n%s\n", drawWeek(f.Week, f.Timezone))
		printPeaks(s, f)
	}
	if len(f.Steps) > 0 {
		s.printf("\n")
		if err := s.printTable(steps(s, f, zone)); err != nil {
			return err
		}
	}
	if f.Backtest != nil {
		s.printf("\n")
		if err := printBacktest(s, f.Backtest); err != nil {
			return err
		}
	}
	s.printf("\nbasis: %s\n", terminal.Escape(f.Basis.Sentence))
	return nil
}

// shade is how busy an hour is drawn, by how many times the mean it has.
func shade(times float64) rune {
	switch {
	case times < 0.25:
		return ' '
	case times < 0.5:
		return '·'
	case times < 1:
		return '░'
	case times < 1.5:
		return '▒'
	case times < 2.5:
		return '▓'
	}
	return '█'
}

// drawWeek is the week as seven rows of 24 hours, two characters each: its two
// half hours. A half hour that was never seen is a question mark.
func drawWeek(w fleet.ForecastWeek, zone string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "tasks an hour, %s; the mean is %s\n", terminal.Escape(zone), figure(w.Mean))
	b.WriteString("     ")
	for h := 0; h < 24; h += 3 {
		fmt.Fprintf(&b, "%-6s", fmt.Sprintf("%02d", h))
	}
	b.WriteString("   tasks  most at once\n")
	for day := range 7 {
		fmt.Fprintf(&b, "%s |", time.Weekday((day + 1) % 7).String()[:3])
		tasks, most := 0.0, 0.0
		for i := day * 48; i < (day+1)*48; i++ {
			tasks += w.Arrivals[i] / 2
			if i < len(w.Demand) {
				most = max(most, w.Demand[i])
			}
			switch {
			case w.WeeksSeen[i] == 0:
				b.WriteByte('?')
			case w.Mean <= 0:
				b.WriteByte(' ')
			default:
				b.WriteRune(shade(w.Arrivals[i] / w.Mean))
			}
		}
		fmt.Fprintf(&b, "|%8s%14s\n", figure(tasks), figure(most))
	}
	b.WriteString("     of the mean:  ' ' to ¼  · to ½  ░ to 1  ▒ to 1½  ▓ to 2½  █ more  ? never seen")
	return b.String()
}

// figure is a number to two digits, or all of a larger one.
func figure(v float64) string {
	switch {
	case v == 0:
		return "0"
	case v < 10:
		return strconv.FormatFloat(v, 'g', 2, 64)
	}
	return strconv.FormatFloat(math.Round(v), 'f', 0, 64)
}

func printPeaks(s *shell, f fleet.Forecast) {
	s.printf("\n")
	if len(f.Peaks) == 0 {
		s.printf("no peaks: no time of the week is 1.5x the mean in most weeks\n")
	}
	for _, p := range f.Peaks {
		s.printf("- %s\n", terminal.Escape(p.Sentence))
	}
}

func steps(s *shell, f fleet.Forecast, zone *time.Location) *terminal.Table {
	step := time.Duration(f.StepSeconds) * time.Second
	right := func(title string) terminal.Column { return terminal.Column{Title: title, Right: true} }
	t := s.table(terminal.Column{Title: "FROM, FOR " + strings.ToUpper(stepText(step))},
		right("ARRIVALS P10"), right("P50"), right("P90"), right("P95"), right("P99"),
		right("DEMAND P10"), right("P50"), right("P90"), right("P95"), right("P99"))
	for _, x := range f.Steps {
		row := []string{x.From.In(zone).Format("Mon 02 Jan 15:04")}
		for _, q := range []fleet.ForecastQuantiles{x.Arrivals, x.Demand} {
			for _, v := range []float64{q.P10, q.P50, q.P90, q.P95, q.P99} {
				row = append(row, strconv.FormatFloat(math.Round(v), 'f', 0, 64))
			}
		}
		t.Row(terminal.Text(row...)...)
	}
	return t
}

// stepText is a duration in one unit: 5m, 1h, 1d.
func stepText(d time.Duration) string {
	switch {
	case d >= 24*time.Hour:
		return fmt.Sprintf("%dd", d/(24*time.Hour))
	case d >= time.Hour:
		return fmt.Sprintf("%dh", d/time.Hour)
	}
	return fmt.Sprintf("%dm", d/time.Minute)
}

func printBacktest(s *shell, b *fleet.ForecastBacktest) error {
	if len(b.Scores) > 0 {
		right := func(title string) terminal.Column { return terminal.Column{Title: title, Right: true} }
		t := s.table(terminal.Column{Title: "PINBALL LOSS OF"}, right("AHEAD"), right("WINDOW"), right("FORECASTS"),
			right("OURS"), right("LAST WEEK"), right("+SPREAD"), right("DAY'S MEAN"),
			right("MEDIAN OURS"), right("LAST WEEK"), right("DAY'S MEAN"), right("UNDER P90"), right("UNDER P99"))
		loss := func(v float64) string { return strconv.FormatFloat(v, 'f', 3, 64) }
		for _, x := range b.Scores {
			t.Row(terminal.Text(x.Of, stepText(time.Duration(x.HorizonSeconds)*time.Second), stepText(time.Duration(x.StepSeconds)*time.Second),
				strconv.Itoa(x.Forecasts), loss(x.Loss), loss(x.SeasonalNaive), loss(x.SeasonalSpread), loss(x.FlatMean),
				loss(x.MedianLoss), loss(x.MedianSeasonal), loss(x.MedianFlat), percent(x.Under90), percent(x.Under99))...)
		}
		if err := s.printTable(t); err != nil {
			return err
		}
	}
	s.printf("back-test: %s\n", terminal.Escape(b.Sentence))
	return nil
}

func percent(v float64) string { return fmt.Sprintf("%.0f %%", 100*v) }
