package plan

import "time"

// Project says when a task that is due since then will have waited for longer
// than the objective, and until when what its pool lacks had to be requested
// for it to start before: nodes where they can be brought, else sandboxes. nil:
// nothing is lacking, it starts with what is ready or on its way.
func (p *Plan) Project(due time.Time, pool *PoolTarget, o *Observation, policy *Policy) *Breach {
	if pool.Unmet == 0 {
		return nil
	}
	start := policy.PriorLead.P95
	for i := range o.Pools {
		if x := &o.Pools[i]; x.Key == pool.Pool && x.Lead.P95 > 0 {
			start = x.Lead.P95
		}
	}
	at := due.Add(policy.Objective)
	b := &Breach{At: at, By: at.Add(-start), Sandboxes: pool.Unmet}
	if policy.Nodes.Scalable {
		boot := policy.Nodes.BootLead
		if o.NodeLead.P95 > 0 {
			boot = o.NodeLead.P95
		}
		slots := max(1, policy.Nodes.Slots)
		b.By, b.Nodes = b.By.Add(-boot), (pool.Unmet+slots-1)/slots
	}
	return b
}

// OfTask says in words, seen from now on, what the projection means for one task.
func (b *Breach) OfTask(now time.Time, objective time.Duration) string {
	if !b.At.After(now) {
		return "it has waited longer than the objective of " + short(objective) + " since " + clockOf(b.At)
	}
	what := plural(b.Nodes, "more node", "more nodes")
	if b.Nodes == 0 {
		what = plural(b.Sandboxes, "more sandbox", "more sandboxes")
	}
	verb := " are requested by "
	if !b.By.After(now) {
		verb = " had been requested by "
	}
	return "it breaches the objective of " + short(objective) + " at " + clockOf(b.At) + " unless " + what + verb + clockOf(b.By)
}

// clockOf is the time of day in UTC.
func clockOf(t time.Time) string { return t.UTC().Format(time.TimeOnly) + " UTC" }
