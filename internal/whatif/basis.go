package whatif

import (
	"fmt"
	"strings"
	"time"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/fleet"
)

// Basis says what cases of a fleet rest on.
func (l *Lab) Basis(f *v1alpha1.Fleet, present *fleet.WhatIfOutcome) (fleet.WhatIfBasis, error) {
	spec, err := l.Rules.Spec(f)
	if err != nil {
		return fleet.WhatIfBasis{}, err
	}
	tariff, err := l.Rules.Tariff(f)
	if err != nil {
		return fleet.WhatIfBasis{}, err
	}
	h := l.History
	prices, minBill := tariff.For(l.Seen.Kind, l.Now)
	boot, boots := l.boot(f)
	cold, colds := l.cold()
	objective := spec.Policy.WithDefaults().Objective
	b := fleet.WhatIfBasis{
		Since: h.Tasks[0].Arrival.UTC(), Until: h.Until.UTC(), Counted: l.open.UTC(), Tasks: present.Tasks,
		WarmUp: int64(len(h.Tasks)) - present.Tasks, LeftOut: h.LeftOut, Truncated: h.Truncated,
		ObjectiveSeconds: objective.Seconds(), BootSeconds: boot.Median.Seconds(), BootSamples: boots,
		ColdStartSeconds: cold.Median.Seconds(), ColdStartSamples: colds,
		NodeHourMicroUSD: int64(prices.PerHour(l.Now)), MinBillSeconds: minBill.Seconds(),
		FixedNodes: l.fixed(f), Measured: h.measured(l.open, objective),
	}
	b.Sentence = sentence(&b, present.Slots)
	return b, nil
}

func sentence(b *fleet.WhatIfBasis, slots int) string {
	var s strings.Builder
	fmt.Fprintf(&s, "Simulated, not measured, on %d tasks of this fleet from %s to %s", b.Tasks, minute(b.Counted), minute(b.Until))
	if b.WarmUp > 0 {
		fmt.Fprintf(&s, " after %d to warm up", b.WarmUp)
	}
	if b.Truncated {
		fmt.Fprintf(&s, " (the newest %d of more)", MaxTasks)
	}
	fmt.Fprintf(&s, ": %d sandboxes a node", slots)
	if b.FixedNodes == 0 {
		fmt.Fprintf(&s, ", node boot %s (%s)", seconds(b.BootSeconds), samples(b.BootSamples))
	}
	fmt.Fprintf(&s, ", cold start %s (%s)", seconds(b.ColdStartSeconds), samples(b.ColdStartSamples))
	switch {
	case b.NodeHourMicroUSD == 0:
		s.WriteString(". No price of a node is known, so that money says nothing: set cost.nodeHourUSD or cost.prices")
	case b.FixedNodes > 0:
		fmt.Fprintf(&s, ". Nodes that are always there (%d, at $%.4g an hour each) cost the same under all settings: these change waits alone", b.FixedNodes, float64(b.NodeHourMicroUSD)/1e6)
	default:
		fmt.Fprintf(&s, ", $%.4g a node-hour", float64(b.NodeHourMicroUSD)/1e6)
	}
	s.WriteByte('.')
	return s.String()
}

func samples(n int) string {
	if n == 0 {
		return "assumed"
	}
	return fmt.Sprintf("measured, %d times", n)
}

func minute(t time.Time) string { return t.UTC().Format("2006-01-02 15:04") }

func seconds(v float64) string {
	d := time.Duration(v * float64(time.Second))
	if d >= time.Second {
		return d.Round(100 * time.Millisecond).String()
	}
	return d.Round(time.Millisecond).String()
}
