package report

import (
	"fmt"
	"html/template"
	"math"
	"strings"
	"time"

	"muster.dev/muster/internal/sim"
	"muster.dev/muster/internal/sim/trace"
)

// The charts share one geometry: a drawing of width units, which the browser
// scales.
const (
	width       = 1000.0
	left, right = 46.0, 8.0
	plotWidth   = width - left - right
)

// canvas collects SVG.
type canvas struct{ strings.Builder }

func (c *canvas) f(format string, a ...any) { fmt.Fprintf(c, format, a...) }

// frame opens a drawing; what it shows is said for screen readers.
func (c *canvas) frame(height float64, label string) {
	c.f(`<svg viewBox="0 0 %g %g" role="img" aria-label="%s">`, width, height, template.HTMLEscapeString(label))
}

func (c *canvas) html() template.HTML {
	c.WriteString("</svg>")
	return template.HTML(c.String()) //nolint:gosec // made of numbers, and of text escaped above
}

// axis maps a value to a height within [top, bottom].
type axis struct{ top, bottom, most float64 }

func (a axis) y(v float64) float64 {
	return a.bottom - min(1.02, v/a.most)*(a.bottom-a.top)
}

// grid draws about three lines with their values.
func (c *canvas) grid(a axis, unit string) {
	step := nice(a.most / 3)
	for v := 0.0; v <= a.most*1.001; v += step {
		y := a.y(v)
		c.f(`<line class="grid" x1="%g" x2="%g" y1="%.1f" y2="%.1f"/><text class="tick end" x="%g" y="%.1f">%s%s</text>`,
			left, width-right, y, y, left-6, y+3.5, number(v), unit)
	}
}

func number(v float64) string {
	if v >= 10_000 {
		return fmt.Sprintf("%gk", v/1000)
	}
	return fmt.Sprintf("%g", v)
}

// nice rounds a step up to 1, 2 or 5 times a power of ten.
func nice(v float64) float64 {
	if v <= 0 || math.IsNaN(v) || math.IsInf(v, 0) {
		return 1
	}
	p := math.Pow(10, math.Floor(math.Log10(v)))
	for _, k := range []float64{1, 2, 5, 10} {
		if v <= k*p {
			return k * p
		}
	}
	return 10 * p
}

// times draws the marks of a time axis: hours, days or weeks.
func (c *canvas) times(s *sim.Series, top, bottom float64, labels bool) {
	from := trace.Time(s.Open)
	length := time.Duration(s.Step*int64(len(s.Parts))) * time.Millisecond
	step, format := tickStep(length)
	at := from.Truncate(24 * time.Hour)
	for ; step == 7*24*time.Hour && at.Weekday() != time.Monday; at = at.Add(24 * time.Hour) {
	}
	for ; at.Sub(from) < length; at = at.Add(step) {
		if at.Before(from) {
			continue
		}
		x := left + plotWidth*float64(at.Sub(from))/float64(length)
		c.f(`<line class="grid" x1="%.1f" x2="%.1f" y1="%g" y2="%g"/>`, x, x, top, bottom)
		if labels && x < width-60 {
			c.f(`<text class="tick" x="%.1f" y="%g">%s</text>`, x+3, bottom+13, at.Format(format))
		}
	}
}

func tickStep(length time.Duration) (time.Duration, string) {
	const day = 24 * time.Hour
	switch {
	case length <= 8*time.Hour:
		return time.Hour, "15:04"
	case length <= 2*day:
		return 6 * time.Hour, "Mon 15:04"
	case length <= 10*day:
		return day, "Mon 2 Jan"
	case length <= 100*day:
		return 7 * day, "Mon 2 Jan"
	}
	return 28 * day, "2 Jan 2006"
}

// x is where part i begins.
func x(s *sim.Series, i int) float64 { return left + plotWidth*float64(i)/float64(len(s.Parts)) }

// area fills between two series of values, in steps; low nil is the ground.
func (c *canvas) area(s *sim.Series, class string, a axis, low, high []float64) {
	c.f(`<path class="%s" d="M%.1f %.1f`, class, left, a.y(at(low, 0)))
	for i := range s.Parts {
		c.f("V%.1fH%.1f", a.y(high[i]), x(s, i+1))
	}
	for i := len(s.Parts) - 1; i >= 0; i-- {
		c.f("V%.1fH%.1f", a.y(at(low, i)), x(s, i))
	}
	c.f(`Z"/>`)
}

func at(v []float64, i int) float64 {
	if v == nil {
		return 0
	}
	return v[i]
}

// line draws one series of values.
func (c *canvas) line(s *sim.Series, class string, a axis, v []float64) {
	c.f(`<path class="%s" d="M%.1f %.1f`, class, left, a.y(v[0]))
	for i := range s.Parts {
		c.f("V%.1fH%.1f", a.y(v[i]), x(s, i+1))
	}
	c.f(`"/>`)
}

// mean is a sum over time as an average of each part.
func mean(s *sim.Series, of func(p *sim.Part) int64) []float64 {
	out := make([]float64, len(s.Parts))
	for i := range s.Parts {
		if p := &s.Parts[i]; p.Millis > 0 {
			out[i] = float64(of(p)) / float64(p.Millis)
		}
	}
	return out
}

// demandChart shows what was asked for: the average and the peak of each part.
func demandChart(v *sim.Survey, s *sim.Series) template.HTML {
	var c canvas
	a := axis{top: 10, bottom: 170, most: 1}
	peak, avg := make([]float64, len(s.Parts)), mean(s, func(p *sim.Part) int64 { return p.Demand })
	for i := range s.Parts {
		peak[i] = float64(s.Parts[i].PeakDemand)
		a.most = max(a.most, peak[i]*1.05)
	}
	c.frame(190, fmt.Sprintf("Agents wanted over time, %d at most", v.Peak))
	c.times(s, a.top, a.bottom, true)
	c.grid(a, "")
	c.area(s, "peak", a, nil, peak)
	c.area(s, "demand", a, nil, avg)
	return c.html()
}

// scale is the common height of the panels: half as much again as the highest
// demand, which a policy that follows it needs no more than; so a fixed fleet
// does not flatten all others, and is said to go beyond.
func scale(results []sim.Result) float64 {
	most := 1.0
	for i := range results {
		for _, v := range mean(results[i].Series, func(p *sim.Part) int64 { return p.Running }) {
			most = max(most, 1.5*v)
		}
	}
	return most
}

// layers shows capacity by layer over time, demand, and the waits below.
func layers(r *sim.Result, slots int, most float64) template.HTML {
	s := r.Series
	var c canvas
	a := axis{top: 8, bottom: 168, most: most}
	c.frame(262, r.Policy+": busy, warm, starting and idle slots, and booting nodes over time; the longest waits below")
	c.times(s, a.top, a.bottom, false)
	c.grid(a, "")
	stack := make([]float64, len(s.Parts))
	top := 0.0
	for _, l := range []struct {
		class string
		of    func(p *sim.Part) int64
	}{
		{"running", func(p *sim.Part) int64 { return p.Running }},
		{"warm", func(p *sim.Part) int64 { return p.Ready }},
		{"starting", func(p *sim.Part) int64 { return p.Starting }},
		{"idle", func(p *sim.Part) int64 { return max(0, p.Slots-p.Running-p.Ready-p.Starting) }},
		{"booting", func(p *sim.Part) int64 { return max(0, p.Nodes*int64(slots)-p.Slots) }},
	} {
		next := mean(s, l.of)
		for i := range next {
			next[i] += stack[i]
			top = max(top, next[i])
		}
		c.area(s, l.class, a, stack, next)
		stack = next
	}
	c.line(s, "want", a, mean(s, func(p *sim.Part) int64 { return p.Demand }))
	if top > most*1.02 {
		c.f(`<text class="off" x="%g" y="%g">goes up to %.0f slots, beyond this scale</text>`, left+8, a.top+14, top)
	}
	c.waits(s)
	return c.html()
}

// waits draws the longest wait of the tasks that arrived in each part.
func (c *canvas) waits(s *sim.Series) {
	const most = 90.0
	a := axis{top: 182, bottom: 240, most: most}
	c.times(s, a.top, a.bottom, true)
	for _, v := range []float64{0, 30, 60, 90} {
		c.f(`<line class="grid" x1="%g" x2="%g" y1="%.1f" y2="%.1f"/><text class="tick end" x="%g" y="%.1f">%gs</text>`,
			left, width-right, a.y(v), a.y(v), left-6, a.y(v)+3.5, v)
	}
	for _, kind := range []struct {
		class string
		above float64
	}{{"short", 0}, {"middling", 10}, {"long", 60}} {
		c.f(`<path class="%s" d="`, kind.class)
		for i := range s.Parts {
			w := float64(s.Parts[i].LongestWait) / 1000
			if classOf(w) == kind.class {
				c.f("M%.1f %gV%.1fH%.1fV%gZ", x(s, i), a.bottom, a.y(min(w, most)), x(s, i+1), a.bottom)
			}
		}
		c.f(`"/>`)
	}
}

func classOf(wait float64) string {
	switch {
	case wait <= 0:
		return ""
	case wait > 60:
		return "long"
	case wait > 10:
		return "middling"
	}
	return "short"
}
