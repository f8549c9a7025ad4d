package cost

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"math/bits"
	"slices"
	"strings"
	"time"

	"muster.dev/muster/internal/fleet"
)

// mostGroups is how many groups a report has unless asked otherwise.
const mostGroups = 1000

// idleCauses are those told of, whether or not they cost anything.
var idleCauses = []Cause{CauseWarm, CauseHeadroom, CauseBoot, CauseDrain, CauseSystem, CauseMinimum}

// Report says what a book has, which must be of the hours of the query. Of
// those, only known is charged: the ledger may have begun later, and the last
// hour may not be over.
func (b *Book) Report(q fleet.CostQuery, known Span) fleet.CostReport {
	r := fleet.CostReport{Since: q.Since, Until: q.Until, By: q.By, MicroUSD: int64(b.Total()), Idle: []fleet.CostIdle{}, Fixed: []fleet.CostFixed{}, Budgets: []fleet.BudgetView{}}
	byCause := map[Cause]Micro{}
	var busy int64
	for k, s := range b.Lines {
		byCause[k.Cause] += s.Amount
		if k.Cause == CauseTask {
			busy, r.Settled, r.Succeeded = busy+s.Millis, r.Settled+s.Settled, r.Succeeded+s.Succeeded
			r.UsedMicroUSD, r.MeasuredMicroUSD = r.UsedMicroUSD+int64(s.Used), r.MeasuredMicroUSD+int64(s.Measured)
			r.Model.Add(s.Model)
		}
	}
	r.TaskMicroUSD, r.WarmMicroUSD = int64(byCause[CauseTask]), int64(byCause[CauseWarm])
	for _, c := range idleCauses {
		r.Idle = append(r.Idle, fleet.CostIdle{Cause: string(c), MicroUSD: int64(byCause[c]), Share: partOf(int64(byCause[c]), r.MicroUSD)})
	}
	r.IdleShare = partOf(r.MicroUSD-r.TaskMicroUSD, r.MicroUSD)
	var nodes, unpriced, peak int64
	for _, h := range b.Hours {
		nodes, unpriced, peak = nodes+h.Nodes, unpriced+h.Unpriced, max(peak, h.Peak)
	}
	r.NodeHours, r.Unpriced, r.PeakNodes = inHours(nodes), inHours(unpriced), int(peak)
	r.BusyHours, r.AgentHourMicroUSD = inHours(busy), perHour(r.MicroUSD, busy)
	if r.Succeeded > 0 {
		each := r.MicroUSD / r.Succeeded
		r.SuccessMicroUSD = &each
	}
	b.compare(q, &r, nodes, known)
	r.Groups, r.More = b.groups(q)
	r.Sentence = sentence(&r)
	return r
}

func partOf(of, whole int64) float64 {
	if whole == 0 {
		return 0
	}
	return float64(of) / float64(whole)
}

func inHours(millis int64) float64 { return float64(millis) / 3.6e6 }

// perHour is an amount over a time in milliseconds; nil where that is none.
func perHour(micro, millis int64) *int64 {
	if millis <= 0 {
		return nil
	}
	v := int64(math.Round(float64(micro) / inHours(millis)))
	return &v
}

// compare adds what fleets of a fixed size would have cost, at the mean price
// of the nodes that there were.
func (b *Book) compare(q fleet.CostQuery, r *fleet.CostReport, nodes int64, known Span) {
	if nodes <= 0 {
		return
	}
	each := float64(r.MicroUSD) / inHours(nodes) // of a node, an hour
	fixed := func(kind string, n int) {
		cost := int64(math.Round(each * float64(n) * known.hours()))
		r.Fixed = append(r.Fixed, fleet.CostFixed{
			Kind: kind, Nodes: n, MicroUSD: cost, SavingMicroUSD: cost - r.MicroUSD, SavingShare: partOf(cost-r.MicroUSD, cost), Short: n < r.PeakNodes,
		})
	}
	fixed("same_peak", r.PeakNodes)
	if q.Fixed > 0 {
		fixed("asked", q.Fixed)
	}
	if q.OffFrom == q.OffUntil && !q.Weekends {
		return
	}
	zone := q.Zone
	if zone == nil {
		zone = time.UTC
	}
	o := &fleet.CostOffHours{From: clock(q.OffFrom), Until: clock(q.OffUntil), Weekends: q.Weekends, Timezone: zone.String()}
	for at := HourOf(known.From); at*3600 < known.To.Unix(); at++ {
		// An hour counts for what its middle is in: there are zones that are half an
		// hour from UTC.
		if off(q, time.Unix(at*3600+1800, 0).In(zone)) {
			o.Hours += known.in(at).hours()
			o.MicroUSD += int64(b.Hours[at].Amount)
		}
	}
	o.FixedMicroUSD = int64(math.Round(each * float64(r.PeakNodes) * o.Hours))
	o.SavingMicroUSD = o.FixedMicroUSD - o.MicroUSD
	r.OffHours = o
}

// Span is a stretch of time, [From, To).
type Span struct{ From, To time.Time }

func (s Span) hours() float64 { return max(0, s.To.Sub(s.From).Hours()) }

// in is the part of it in an hour since 1970.
func (s Span) in(hour int64) Span {
	begin, end := time.Unix(hour*3600, 0), time.Unix(hour*3600+3600, 0)
	if begin.Before(s.From) {
		begin = s.From
	}
	if end.After(s.To) {
		end = s.To
	}
	return Span{begin, end}
}

func clock(d time.Duration) string {
	return fmt.Sprintf("%02d:%02d", int(d.Hours()), int(d.Minutes())%60)
}

// off tells whether a time is in the off-hours.
func off(q fleet.CostQuery, t time.Time) bool {
	if d := t.Weekday(); q.Weekends && (d == time.Saturday || d == time.Sunday) {
		return true
	}
	at := time.Duration(t.Hour())*time.Hour + time.Duration(t.Minute())*time.Minute
	if q.OffFrom <= q.OffUntil {
		return at >= q.OffFrom && at < q.OffUntil
	}
	return at >= q.OffFrom || at < q.OffUntil
}

// groups splits the book as the query asks, the dearest first, and says how
// many it left out. Tasks are not in a book: see Tasks.
func (b *Book) groups(q fleet.CostQuery) ([]fleet.CostGroup, int) {
	out := []fleet.CostGroup{}
	switch q.By {
	case "", "task":
		return out, 0
	case "node":
		out = b.byNode()
	case "hour":
		out = b.byHour()
	default:
		out = b.byLine(func(k Key) string { return nameIn(q.By, k) })
	}
	if q.By != "hour" {
		slices.SortFunc(out, func(a, b fleet.CostGroup) int {
			return cmp.Or(cmp.Compare(b.MicroUSD, a.MicroUSD), cmp.Compare(a.Name, b.Name))
		})
	}
	most := q.Limit
	if most <= 0 {
		most = mostGroups
		if q.By == "hour" {
			most = math.MaxInt
		}
	}
	left := max(0, len(out)-most)
	return out[:len(out)-left], left
}

// nameIn is what a line is called in a split.
func nameIn(by string, k Key) string {
	switch by {
	case "tenant":
		return string(k.Tenant)
	case "template":
		return k.Template()
	}
	if name, ok := strings.CutPrefix(by, "label:"); ok {
		return k.Labels.Get(name)
	}
	return k.Labels.Get(by)
}

func (b *Book) byLine(name func(Key) string) []fleet.CostGroup {
	sums := map[string]Sum{}
	var idle Micro
	for k, v := range b.Lines {
		if k.Cause != CauseTask {
			idle += v.Amount
			continue
		}
		sums[name(k)] = sums[name(k)].plus(v)
	}
	names := slices.Sorted(maps.Keys(sums))
	weights := make([]Micro, len(names))
	for i, n := range names {
		weights[i] = sums[n].Amount
	}
	shares := apportion(idle, weights)
	out := make([]fleet.CostGroup, len(names))
	for i, n := range names {
		s := sums[n]
		out[i] = fleet.CostGroup{Name: n, MicroUSD: int64(s.Amount), BusyHours: inHours(s.Millis), Settled: s.Settled, Succeeded: s.Succeeded, SharedMicroUSD: int64(shares[i])}
		out[i].AgentHourMicroUSD = perHour(int64(s.Amount+shares[i]), s.Millis)
		out[i].UsedMicroUSD, out[i].MeasuredMicroUSD, out[i].Model = int64(s.Used), int64(s.Measured), reported(s.Model)
	}
	return out
}

// apportion divides an amount by weights so that nothing is left, unless all
// weights are 0; by largest remainder.
func apportion(amount Micro, weights []Micro) []Micro {
	out := make([]Micro, len(weights))
	var whole uint64
	for _, w := range weights {
		whole += uint64(max(0, w)) //nolint:gosec // not negative
	}
	if whole == 0 || amount <= 0 {
		return out
	}
	order, rest, left := make([]int, len(weights)), make([]uint64, len(weights)), amount
	for i, w := range weights {
		hi, lo := bits.Mul64(uint64(amount), uint64(max(0, w))) //nolint:gosec // not negative
		q, r := bits.Div64(hi, lo, whole)                       // w <= whole: it fits
		out[i], rest[i], order[i] = Micro(q), r, i              //nolint:gosec // at most amount
		left -= out[i]
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(rest[b], rest[a]) })
	for i := 0; left > 0; i, left = i+1, left-1 {
		out[order[i]]++
	}
	return out
}

func (b *Book) byNode() []fleet.CostGroup {
	sums := map[fleet.NodeID]fleet.CostGroup{}
	for k, m := range b.Nodes {
		g := sums[k.Node]
		g.Name = string(k.Node)
		g.MicroUSD += int64(m)
		sums[k.Node] = g
	}
	return slices.Collect(maps.Values(sums))
}

func (b *Book) byHour() []fleet.CostGroup {
	out := make([]fleet.CostGroup, 0, len(b.Hours))
	for _, at := range slices.Sorted(maps.Keys(b.Hours)) {
		h := b.Hours[at]
		out = append(out, fleet.CostGroup{
			Name: time.Unix(at*3600, 0).UTC().Format(time.RFC3339), MicroUSD: int64(h.Amount), BusyHours: inHours(h.Busy),
			AgentHourMicroUSD: perHour(int64(h.Amount), h.Busy),
		})
	}
	return out
}

// reported is nil where nothing was.
func reported(m fleet.ModelUse) *fleet.ModelUse {
	if m.Reports == 0 {
		return nil
	}
	return &m
}

// TaskGroups are tasks as groups of a report.
func TaskGroups(tasks []fleet.TaskCost) []fleet.CostGroup {
	out := make([]fleet.CostGroup, len(tasks))
	for i, t := range tasks {
		g := fleet.CostGroup{Name: string(t.Task), MicroUSD: t.MicroUSD, BusyHours: t.Busy.Hours(), AgentHourMicroUSD: perHour(t.MicroUSD, t.Busy.Milliseconds()), Outcome: t.Outcome}
		if t.Outcome != "" {
			g.Settled = 1
		}
		if t.Outcome == fleet.TaskSucceeded {
			g.Succeeded = 1
		}
		out[i] = g
	}
	return out
}

func dollars(micro int64) string { return fmt.Sprintf("$%.2f", float64(micro)/1e6) }

// sentence says it to a person.
func sentence(r *fleet.CostReport) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s for %.1f node-hours", dollars(r.MicroUSD), r.NodeHours)
	if r.AgentHourMicroUSD != nil {
		fmt.Fprintf(&b, " and %.1f agent-hours: %s an agent-hour", r.BusyHours, dollars(*r.AgentHourMicroUSD))
	}
	if r.SuccessMicroUSD != nil {
		fmt.Fprintf(&b, ", %s a succeeded task", dollars(*r.SuccessMicroUSD))
	}
	if r.MicroUSD > 0 {
		fmt.Fprintf(&b, "; %.0f %% of it idle", 100*r.IdleShare)
	}
	if r.Unpriced > 0 {
		fmt.Fprintf(&b, "; the price of %.1f node-hours is not known, and they count as nothing", r.Unpriced)
	}
	return b.String()
}
