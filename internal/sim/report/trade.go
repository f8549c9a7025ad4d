package report

import (
	"cmp"
	"html/template"
	"math"
	"slices"

	"muster.dev/muster/internal/sim"
)

// tradeOff sets cost against waiting, both on logarithmic scales: down and to
// the left is better.
func tradeOff(results []sim.Result) template.HTML {
	const height, top, bottom, edge = 300.0, 14.0, 256.0, 70.0
	most := 2.0
	for i := range results {
		most = max(most, results[i].CostOver*1.15)
	}
	slowest := 100.0
	for i := range results {
		slowest = max(slowest, results[i].WaitP99*1.3)
	}
	px := func(over float64) float64 {
		return edge + 14 + (width-edge-104)*math.Log(max(1, over))/math.Log(most)
	}
	// Waits below 0.5 s are one: nobody sees the difference.
	py := func(wait float64) float64 {
		return bottom - (bottom-top)*math.Log(max(0.5, wait)/0.5)/math.Log(slowest/0.5)
	}
	var c canvas
	c.frame(height, "Cost over the lower bound against the 99th percentile of waits, by policy")
	for _, v := range []float64{1, 1.1, 1.2, 1.5, 2, 3, 5, 10, 20, 50, 100} {
		if v <= most && (v != 1.1 || most < 3) {
			c.f(`<line class="grid" x1="%.1f" x2="%.1f" y1="%g" y2="%g"/><text class="tick mid" x="%.1f" y="%g">%g×</text>`, px(v), px(v), top, bottom, px(v), bottom+16, v)
		}
	}
	for _, v := range []float64{0.5, 1, 5, 10, 30, 60, 300, 1800, 7200} {
		if v <= slowest {
			label := secs(v)
			if v == 0.5 {
				label = "under 0.5 s"
			}
			c.f(`<line class="grid" x1="%g" x2="%g" y1="%.1f" y2="%.1f"/><text class="tick end" x="%g" y="%.1f">%s</text>`, edge, width-right, py(v), py(v), edge-6, py(v)+3.5, label)
		}
	}
	c.f(`<text class="name mid" x="%g" y="%g">cost, in multiples of the lower bound</text>`, (edge+width)/2, bottom+36)
	c.points(results, px, py)
	return c.html()
}

// spot is a place on the drawing that is taken: the middle and half the size.
type spot struct{ x, y, w, h float64 }

func (s spot) hits(o spot) bool {
	return math.Abs(s.x-o.x) < s.w+o.w && math.Abs(s.y-o.y) < s.h+o.h
}

// points draws the policies and, where there is room nearby, their names; a
// thin line leads from a name that had to move.
func (c *canvas) points(results []sim.Result, px, py func(float64) float64) {
	order := make([]*sim.Result, len(results))
	taken := make([]spot, len(results))
	for i := range results {
		order[i] = &results[i]
		taken[i] = spot{px(results[i].CostOver), py(results[i].WaitP99), 8, 7}
	}
	slices.SortStableFunc(order, func(a, b *sim.Result) int { return cmp.Compare(b.CostOver, a.CostOver) })
	for _, r := range order {
		x, y := px(r.CostOver), py(r.WaitP99)
		label := place(x, y, 3.6*float64(len(r.Policy)), taken)
		taken = append(taken, label)
		if math.Hypot(label.x-x, label.y-y) > label.w+16 || math.Abs(label.y-y) > 20 {
			c.f(`<line class="lead" x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f"/>`, x, y, label.x, label.y)
		}
		class := map[string]string{"muster": "dot own", sim.Clairvoyant: "dot bound"}[r.Policy]
		if class == "" {
			class = "dot"
		}
		c.f(`<circle class="%s" cx="%.1f" cy="%.1f" r="6"/><text class="name mid halo" x="%.1f" y="%.1f">%s</text>`,
			class, x, y, label.x, label.y+4, template.HTMLEscapeString(r.Policy))
	}
}

// place finds room for a name of half the width w near a point: to the right,
// the left, below or above, and then further away.
func place(x, y, w float64, taken []spot) spot {
	const h = 7.0
	for far := 0.0; far < 10; far++ {
		d := 14 * far
		for _, at := range []spot{
			{x + w + 11, y, w, h}, {x - w - 11, y, w, h}, {x, y + 15 + d, w, h}, {x, y - 15 - d, w, h},
			{x + w + 11, y - 12 - d, w, h}, {x - w - 11, y - 12 - d, w, h}, {x + w + 11, y + 12 + d, w, h},
		} {
			if at.y > 8 && at.y < 262 && at.x > 80+w && at.x < width-w && !slices.ContainsFunc(taken, at.hits) {
				return at
			}
		}
	}
	return spot{x + w + 11, y, w, h}
}
