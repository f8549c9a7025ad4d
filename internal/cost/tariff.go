package cost

import (
	"slices"
	"time"

	"muster.dev/muster/internal/fleet"
)

// Rate is one line of a price list: what nodes of a kind cost from one moment
// to another.
type Rate struct {
	Kind    fleet.NodeKind // parts that are empty match any
	PerHour Micro
	From    time.Time     // zero: since ever
	Until   time.Time     // zero: for ever
	MinBill time.Duration // shortest time a node is paid for
}

// Tariff is a price list. Of the rates that fit a node at a moment, the one
// that names its instance type counts before one that does not, then its group,
// then its capacity, and then the one further up.
type Tariff []Rate

func (r *Rate) fits(k fleet.NodeKind) bool {
	one := func(want, have string) bool { return want == "" || want == have }
	return one(r.Kind.Group, k.Group) && one(r.Kind.InstanceType, k.InstanceType) && one(r.Kind.Capacity, k.Capacity)
}

func (r *Rate) weight() (w int) {
	for i, part := range []string{r.Kind.Capacity, r.Kind.Group, r.Kind.InstanceType} {
		if part != "" {
			w += 1 << i
		}
	}
	return w
}

func (r *Rate) holds(at time.Time) bool {
	return !at.Before(r.From) && (r.Until.IsZero() || at.Before(r.Until))
}

// best is the rate for a kind at a moment; nil where none fits.
func (t Tariff) best(k fleet.NodeKind, at time.Time) *Rate {
	var best *Rate
	for i := range t {
		if r := &t[i]; r.fits(k) && r.holds(at) && (best == nil || r.weight() > best.weight()) {
			best = r
		}
	}
	return best
}

// For is what nodes of a kind cost over time, and the shortest time that one
// requested at a moment is paid for.
func (t Tariff) For(k fleet.NodeKind, requested time.Time) (Prices, time.Duration) {
	moments := []time.Time{{}}
	for i := range t {
		if t[i].fits(k) {
			moments = append(moments, t[i].From)
			if !t[i].Until.IsZero() {
				moments = append(moments, t[i].Until)
			}
		}
	}
	slices.SortFunc(moments, time.Time.Compare)
	var out Prices
	for _, m := range slices.CompactFunc(moments, time.Time.Equal) {
		p := Price{From: m}
		if r := t.best(k, m); r != nil {
			p.PerHour = r.PerHour
		}
		if len(out) > 0 && out[len(out)-1].PerHour == p.PerHour {
			continue
		}
		out = append(out, p)
	}
	if len(out) == 1 && out[0].PerHour == 0 {
		out = nil
	}
	if r := t.best(k, requested); r != nil {
		return out, r.MinBill
	}
	return out, 0
}

// Knows reports whether some rate says what a node of a kind costs at a moment.
func (t Tariff) Knows(k fleet.NodeKind, at time.Time) bool { return t.best(k, at) != nil }
