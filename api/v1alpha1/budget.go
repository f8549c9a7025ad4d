package v1alpha1

import (
	"fmt"

	"muster.dev/muster/internal/fleet"
)

// Budget bounds what the fleet may cost, in US dollars; 0 is no bound. Hours,
// days and months are those of the calendar in UTC. At a bound nothing more is
// started, and what runs goes on.
type Budget struct {
	PerHour  float64 `json:"perHour,omitempty" minimum:"0" maximum:"1000000000"`
	PerDay   float64 `json:"perDay,omitempty" minimum:"0" maximum:"1000000000"`
	PerMonth float64 `json:"perMonth,omitempty" minimum:"0" maximum:"1000000000"`
	// WarnAt are the parts of each budget, in percent, at which is warned; default
	// 50, 80, 100.
	WarnAt []int `json:"warnAt,omitempty" maxItems:"10"`
	// Webhook is told of each warning, too: a CloudEvents POST, signed as those of
	// tasks are.
	Webhook string `json:"webhook,omitempty" kube:"text=2048"`
}

// TenantBudget bounds what the tasks of a tenant are charged, in US dollars; 0
// is no bound. It binds that tenant alone.
type TenantBudget struct {
	PerHour  float64 `json:"perHour,omitempty" minimum:"0" maximum:"1000000000"`
	PerDay   float64 `json:"perDay,omitempty" minimum:"0" maximum:"1000000000"`
	PerMonth float64 `json:"perMonth,omitempty" minimum:"0" maximum:"1000000000"`
}

// budgetBound is one of a budget's bounds.
type budgetBound struct {
	name   string
	usd    float64
	period fleet.BudgetPeriod
	hours  float64 // of the longest such period
}

func (b TenantBudget) bounds() []budgetBound {
	return []budgetBound{
		{"perHour", b.PerHour, fleet.BudgetHour, 1}, {"perDay", b.PerDay, fleet.BudgetDay, 24}, {"perMonth", b.PerMonth, fleet.BudgetMonth, 31 * 24},
	}
}

func (b *Budget) amounts() TenantBudget { return TenantBudget{b.PerHour, b.PerDay, b.PerMonth} }

// Budgets are the bounds of the fleet and of its tenants, the fleet's first.
func (s *FleetSpec) Budgets() (out []fleet.Budget) {
	add := func(t string, b TenantBudget) {
		for _, x := range b.bounds() {
			if x.usd > 0 {
				out = append(out, fleet.Budget{Tenant: fleet.TenantID(t), Period: x.period, MicroUSD: max(1, int64(x.usd*1e6+0.5))})
			}
		}
	}
	add("", s.Cost.Budget.amounts())
	for i := range s.Tenants {
		if b := s.Tenants[i].Budget; b != nil {
			add(s.Tenants[i].Name, *b)
		}
	}
	return out
}

// mostWarnings bounds the parts of a budget at which is warned.
const mostWarnings = 10

// validateBudgets refuses what could never be kept.
func (s *FleetSpec) validateBudgets(ps *problems) {
	const field = "spec.cost.budget"
	b := &s.Cost.Budget
	s.validateAmounts(ps, field, b.amounts())
	if len(b.WarnAt) > mostWarnings {
		ps.addf(field+".warnAt", fmt.Sprintf("at most %d", mostWarnings), "has %d", len(b.WarnAt))
	}
	for i, p := range b.WarnAt {
		switch {
		case p < 1 || p > 1000:
			ps.addf(at(field+".warnAt", i), "percent from 1 to 1000", "%d is not allowed", p)
		case i > 0 && p <= b.WarnAt[i-1]:
			ps.addf(at(field+".warnAt", i), "an ascending list, such as [50, 80, 100]", "%d is not above the %d before it", p, b.WarnAt[i-1])
		}
	}
	ps.webhook(field+".webhook", b.Webhook)
	if b.Webhook != "" && len(s.Budgets()) == 0 {
		ps.addf(field+".webhook", "perHour, perDay or perMonth beside it, or a budget of a tenant", "is there, and there is no budget to warn of")
	}
	s.validateStanding(ps)
	for i := range s.Tenants {
		if t := &s.Tenants[i]; t.Budget != nil {
			s.validateAmounts(ps, sub(at("spec.tenants", i), "budget"), *t.Budget)
		}
	}
}

func (s *FleetSpec) validateAmounts(ps *problems, field string, b TenantBudget) {
	set := false
	for _, x := range b.bounds() {
		ps.real(sub(field, x.name), x.usd, 0, 1e9)
		set = set || x.usd != 0
	}
	if set && s.Follows() {
		ps.addf(field, "no budget", "cannot be kept: with mode: %s others run the workers, and what they cost is not charged here", s.Mode)
	}
}

// validateStanding refuses a budget below what is there when nothing is to be
// done.
func (s *FleetSpec) validateStanding(ps *problems) {
	nodes, what, instead := s.Nodes.Min, fmt.Sprintf("nodes.min of %d", s.Nodes.Min), ", or a smaller nodes.min"
	if p := s.Nodes.Provider; nodes == 0 && (p == "" || p == ProviderHost) && !s.Follows() {
		nodes, what, instead = 1, "this machine", ""
	}
	least := float64(nodes) * s.Cost.NodeHour()
	for _, x := range s.Cost.Budget.amounts().bounds() {
		if x.usd > 0 && least*x.hours > x.usd {
			ps.addf("spec.cost.budget."+x.name, fmt.Sprintf("at least %.2f%s", least*x.hours, instead),
				"%g is less than what the standing minimum, %s, costs", x.usd, what)
		}
	}
}
