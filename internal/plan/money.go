package plan

import (
	"muster.dev/muster/internal/fleet"
)

// purse is one budget with what is spent of it, in micro-USD; zero: there is
// none.
type purse struct {
	bound         Bound
	period        fleet.BudgetPeriod
	paid, allowed int64
	unknown       bool // what is spent
}

func (p purse) has() bool { return p.allowed > 0 }

// spent tells that nothing is left, as far as is known.
func (p purse) spent() bool { return p.has() && (p.unknown || p.paid >= p.allowed) }

// tell puts the numbers into a reason, and wakes when the budget begins anew.
func (p purse) tell(d *decision, n *Numbers) {
	_, until := p.period.Span(d.now)
	n.Spent, n.Budget, n.Wait = p.paid, p.allowed, until.Sub(d.now)
	d.wake(until)
}

// ofMoney tells the bounds that are budgets.
func (b Bound) ofMoney() bool { return b == BoundPerHour || b == BoundPerDay || b == BoundPerMonth }

// tightest is the budget of which least is left, and of those that are used up
// the longest: it binds beyond the others' end.
func (d *decision) tightest() (p purse) {
	b, s := &d.p.Budget, &d.o.Spend
	if b.PerHour <= 0 && b.PerDay <= 0 && b.PerMonth <= 0 {
		return p
	}
	for _, x := range [...]purse{
		{BoundPerMonth, fleet.BudgetMonth, s.MonthMicroUSD, b.PerMonth, s.Unknown},
		{BoundPerDay, fleet.BudgetDay, s.DayMicroUSD, b.PerDay, s.Unknown},
		{BoundPerHour, fleet.BudgetHour, s.HourMicroUSD, b.PerHour, s.Unknown},
	} {
		if x.has() && (!p.has() || !p.spent() && x.allowed-x.paid < p.allowed-p.paid) {
			p = x
		}
	}
	return p
}

// payable is how many nodes in all the rest of the budget pays for.
func (d *decision) payable(l *layer) (n int, bounded bool) {
	b, price := d.tightest(), d.o.Spend.NodeHour
	if price <= 0 {
		price = d.p.Budget.NodeHour
	}
	if !b.has() || price <= 0 {
		return 0, false
	}
	if b.unknown {
		return 0, true
	}
	each := float64(price) * (l.lead + payFor).Hours()
	return int(min(max(0, float64(b.allowed-b.paid))/each, mostNodes)), true
}
