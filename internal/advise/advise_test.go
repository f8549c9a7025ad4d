package advise

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/calendar"
	"muster.dev/muster/internal/control"
	"muster.dev/muster/internal/cost"
	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/whatif"
)

var monday = time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)

const cluster = `
apiVersion: muster.dev/v1alpha1
kind: Fleet
metadata: {name: agents}
spec:
  templates:
    - {name: default, image: "registry.example.com/agent:1", resources: {cpus: 1, memory: 4Gi}}
  capacity: {sandboxes: {min: 20}}
  nodes: {provider: kubernetes, boot: 45s, kubernetes: {nodeSelector: {pool: agents}}}
  cost:
    nodeHourUSD: 0.40
`

func rules() whatif.Rules {
	return whatif.Rules{
		Spec: func(f *v1alpha1.Fleet) (control.Spec, error) {
			s := control.Spec{Name: f.Metadata.Name}
			var err error
			s.Templates, err = f.TemplateSpecs()
			s.Policy.Min, s.Policy.Max = f.Spec.Capacity.Sandboxes.Min, f.Spec.Capacity.Sandboxes.Max
			s.Policy.HoldWarm, _ = time.ParseDuration(f.Spec.Scaling.HoldWarm)
			s.Policy.Nodes.Keep = f.Spec.Scaling.KeepFactor
			for _, fl := range f.Spec.Capacity.Floors {
				rule, wrong := calendar.Parse(fl.Cron, fl.Timezone)
				length, _ := time.ParseDuration(fl.For)
				err = errors.Join(err, wrong)
				s.Floors = append(s.Floors, control.Floor{Template: fl.Template, Rule: rule, For: length, Min: fl.Min})
			}
			return s, err
		},
		Tariff: func(f *v1alpha1.Fleet) (t cost.Tariff, _ error) {
			for _, p := range f.Spec.Cost.Prices {
				t = append(t, cost.Rate{Kind: fleet.NodeKind{InstanceType: p.InstanceType, Capacity: p.Capacity}, PerHour: cost.Micro(*p.PerHour * 1e6)})
			}
			return append(t, cost.Rate{PerHour: cost.Micro(f.Spec.Cost.NodeHour() * 1e6)}), nil
		},
	}
}

// office is three weeks of mornings; peak is what each task's memory peaks at.
func office(peak func(i int) int64) *whatif.History {
	h := &whatif.History{Since: monday, Until: monday.Add(21 * 24 * time.Hour)}
	for day := range 21 {
		if day%7 >= 5 {
			continue
		}
		for i := range 24 {
			h.Add("default", whatif.Task{
				Arrival: monday.Add(time.Duration(day)*24*time.Hour + 9*time.Hour + time.Duration(i*5)*time.Minute), Duration: 10 * time.Minute, Wait: 2 * time.Second,
				Limits: fleet.Resources{MilliCPU: 1000, MemoryBytes: 4 << 30},
				Usage:  fleet.Usage{MemoryPeakBytes: peak(i), MemoryByteSeconds: peak(i) * 600 / 15, CPU: time.Minute},
			})
		}
	}
	return h
}

var node = whatif.Seen{
	Shape: whatif.Shape{MilliCPU: 32000, MemoryBytes: 32 << 30, Slots: 8}, Kind: fleet.NodeKind{InstanceType: "m7i.2xlarge", Capacity: "on-demand"}, Nodes: 1, Total: 1,
	Kinds: map[fleet.NodeKind]whatif.Shape{{InstanceType: "m7i.2xlarge", Capacity: "on-demand"}: {MilliCPU: 32000, MemoryBytes: 32 << 30, Slots: 8}},
}

func input(t *testing.T, text string, h *whatif.History, seen whatif.Seen) Input {
	t.Helper()
	f, err := v1alpha1.ParseFleet([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	written, err := v1alpha1.Written([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	lab, err := whatif.NewLab(h, seen, rules(), h.Until)
	if err != nil {
		t.Fatal(err)
	}
	reader := whatif.New(whatif.Options{Parse: v1alpha1.ParseFleet})
	return Input{Lab: lab, Fleet: f, Written: written, Apply: reader.Apply, Now: h.Until}
}

func advice(t *testing.T, in Input) fleet.Advice {
	t.Helper()
	a, err := Make(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	for i := range a.Items {
		item := &a.Items[i]
		if item.Number != i+1 || item.Title == "" || item.Why == "" || item.Effect == "" || len(item.Changes) == 0 {
			t.Errorf("incomplete: %+v", item)
		}
		if a.Present.Meets && !item.After.Meets {
			t.Errorf("%s breaks the objective: %s", item.Title, item.Effect)
		}
		if i > 0 && item.Saved.MicroUSD > a.Items[i-1].Saved.MicroUSD {
			t.Errorf("%s saves more than what is before it", item.Title)
		}
		merged, err := v1alpha1.Merge(in.Written, item.Patch)
		if err == nil {
			_, err = v1alpha1.ParseFleet(merged)
		}
		if err != nil {
			t.Errorf("%s: the patch %s: %v", item.Title, item.Patch, err)
		}
	}
	return a
}

func of(a fleet.Advice, kind string) *fleet.AdviceItem {
	for i := range a.Items {
		if a.Items[i].Kind == kind {
			return &a.Items[i]
		}
	}
	return nil
}

func withheld(a fleet.Advice, kind, text string) bool {
	for _, n := range a.Withheld {
		if n.Kind == kind && strings.Contains(n.Text, text) {
			return true
		}
	}
	return false
}

// TestMinimumAndMemory: a minimum that only keeps nights warm is advised down,
// and a limit far above the largest peak, too; never to the mean.
func TestMinimumAndMemory(t *testing.T) {
	a := advice(t, input(t, cluster, office(func(i int) int64 { return 300<<20 + int64(i)<<20 }), node))
	m := of(a, fleet.AdviceMinimum)
	if m == nil || m.Saved.Share < 0.3 || !strings.Contains(string(m.Patch), `"min":`) || !strings.Contains(m.Effect, "saves $") {
		t.Fatalf("minimum: %+v", m)
	}
	r := of(a, fleet.AdviceMemory)
	if r == nil { // eight sandboxes of the smaller size fit no better than of the larger on this load
		if !withheld(a, fleet.AdviceMemory, "memory limits") {
			t.Fatalf("memory: %+v", a.Withheld)
		}
	} else if want := `{"spec":{"nodes":{"slots":32},"templates":[{"name":"default","resources":{"memory":"448Mi"}}]}}`; string(r.Patch) != want {
		t.Errorf("memory: %s, want %s: the largest peak, 323 MiB, and a quarter", r.Patch, want)
	}
	u := a.Use[0]
	if u.Tasks < 300 || u.MemoryMax != 323<<20 || u.PeakOverMean < 14.9 || u.PeakOverMean > 15.1 || u.MilliCPUP50 != 100 {
		t.Errorf("%+v", u)
	}
	if !withheld(a, fleet.AdviceCPU, "never advised from a mean") {
		t.Errorf("processors: %+v", a.Withheld)
	}
}

// TestTooFewMeasured: with 19 measured tasks no limit is advised, whatever
// their peaks.
func TestTooFewMeasured(t *testing.T) {
	h := office(func(int) int64 { return 0 })
	for i := range 19 {
		h.Tasks[i].Usage.MemoryPeakBytes = 1 << 20
	}
	a := advice(t, input(t, cluster, h, node))
	if of(a, fleet.AdviceMemory) != nil || !withheld(a, fleet.AdviceMemory, "not enough measured yet: the use of 19") {
		t.Errorf("%+v %+v", a.Items, a.Withheld)
	}
	h.Tasks = h.Tasks[:12]
	a = advice(t, input(t, cluster, h, node))
	if len(a.Items) != 0 || !withheld(a, fleet.AdviceMinimum, "not enough measured yet") || !strings.HasPrefix(a.Sentence, "Nothing to advise") {
		t.Errorf("with 12 tasks: %+v", a)
	}
}

// TestKilledAtTheLimit: tasks that the limit killed raise it, though it costs.
func TestKilledAtTheLimit(t *testing.T) {
	h := office(func(int) int64 { return 4 << 30 })
	for i := range 9 {
		h.Tasks[i*7].Reason = fleet.ReasonOOM
	}
	r := of(advice(t, input(t, cluster, h, node)), fleet.AdviceMemory)
	if r == nil || !strings.Contains(string(r.Patch), `"6Gi"`) || !strings.Contains(r.Why, "9 of 360 tasks were killed") {
		t.Errorf("%+v", r)
	}
}

// TestFloors: a peak whose tasks wait gets its floor at its time in its zone,
// beside the floors there are.
func TestFloors(t *testing.T) {
	h := &whatif.History{Since: monday, Until: monday.Add(21 * 24 * time.Hour)}
	for day := range 21 { // twelve at once each Monday, one at a time otherwise
		for i := range 12 {
			at := monday.Add(time.Duration(day)*24*time.Hour + 9*time.Hour)
			if day%7 != 0 {
				at = at.Add(time.Duration(i) * time.Hour)
			}
			h.Add("default", whatif.Task{Arrival: at, Duration: 20 * time.Minute, Limits: fleet.Resources{MilliCPU: 1000, MemoryBytes: 4 << 30}})
		}
	}
	h.Bound()
	text := strings.Replace(cluster, "min: 20}", "min: 1}, floors: [{cron: \"0 3 * * SUN\", for: 1h, min: 2}]", 1)
	in := input(t, text, h, node)
	in.Forecast = &fleet.Forecast{Timezone: "UTC", Peaks: []fleet.ForecastPeak{{
		Days: "Mondays", Weekdays: []time.Weekday{time.Monday}, From: "09:00", Until: "09:30", FloorFrom: "08:55", Floor: 12, Have: 1, WaitSeconds: 50, Sentence: "12 times the mean",
	}}}
	a := advice(t, in)
	if a.Present.Meets {
		t.Fatalf("as it is: %+v", a.Present)
	}
	var f *fleet.AdviceItem
	for i := range a.Items {
		if strings.HasPrefix(a.Items[i].Title, "Keep 12 warm sandboxes on Mondays from 08:55 to 09:30") {
			f = &a.Items[i]
		}
	}
	if f == nil || f.After.Within <= a.Present.Within {
		t.Fatalf("%+v\n%+v", a.Items, a.Withheld)
	}
	want := `{"spec":{"capacity":{"floors":[{"cron":"0 3 * * SUN","for":"1h","min":2},{"cron":"55 8 * * MON","for":"35m","min":12,"timezone":"UTC"}]}}}`
	if string(f.Patch) != want {
		t.Errorf("%s, want %s", f.Patch, want)
	}
}

// TestNodeSizes: only what is in the price list and has a known size is tried.
func TestNodeSizes(t *testing.T) {
	text := cluster + `    prices:
      - {instanceType: m7i.2xlarge, perHour: 0.4}
      - {instanceType: m7i.2xlarge, capacity: spot, perHour: 0.13}
      - {instanceType: m7i.xlarge, perHour: 0.05}
      - {instanceType: c9z.huge, perHour: 0.01}
`
	a := advice(t, input(t, text, office(func(int) int64 { return 3900 << 20 }), node))
	n := of(a, fleet.AdviceNodeSize)
	if n == nil || !strings.Contains(n.Title, "m7i.xlarge in place of m7i.2xlarge, with 4 sandboxes") || !strings.Contains(n.Why, "0.5 times that of m7i.2xlarge") {
		t.Errorf("%+v", n)
	}
	if n != nil && !strings.Contains(string(n.Patch), `"nodeSelector":{"node.kubernetes.io/instance-type":"m7i.xlarge"}`) {
		t.Errorf("%s", n.Patch)
	}
	if !withheld(a, fleet.AdviceNodeSize, "c9z.huge: none of them has been seen") || !withheld(a, fleet.AdviceSpot, "$0.13 an hour where m7i.2xlarge cost $0.4") {
		t.Errorf("%+v", a.Withheld)
	}
}

// TestSpot: spot nodes are advised as they are if each is taken back once a day,
// with the label of the provider whose labels the fleet's selector has; where
// that breaks the objective, or no label is known, it is told and not advised.
func TestSpot(t *testing.T) {
	prices := `    prices:
      - {instanceType: m7i.2xlarge, perHour: 0.4}
      - {instanceType: m7i.2xlarge, capacity: spot, perHour: %s}
`
	with := func(selector, spot string) fleet.Advice {
		text := strings.Replace(cluster, "{pool: agents}", selector, 1) + fmt.Sprintf(prices, spot)
		return advice(t, input(t, text, office(func(int) int64 { return 3900 << 20 }), node))
	}
	a := with("{karpenter.sh/nodepool: agents}", "0.13")
	s := of(a, fleet.AdviceSpot)
	if s == nil {
		t.Fatalf("%+v", a.Withheld)
	}
	if want := `{"spec":{"nodes":{"kubernetes":{"nodeSelector":{"karpenter.sh/capacity-type":"spot"}}}}}`; string(s.Patch) != want {
		t.Errorf("%s, want %s", s.Patch, want)
	}
	if s.Saved.Share < 0.5 || s.Saved.Share > 0.7 || s.After.Lost == 0 || s.After.Lost > s.After.Tasks/10 || !strings.Contains(s.Effect, "tasks begin again") || !strings.Contains(s.Why, "once in 24 hours, which was not measured") {
		t.Errorf("%+v", s)
	}
	if a := with("{pool: agents}", "0.13"); of(a, fleet.AdviceSpot) != nil || !withheld(a, fleet.AdviceSpot, "nodeSelector to say") {
		t.Errorf("%+v", a.Withheld)
	}
	if a := with("{eks.amazonaws.com/nodegroup: agents}", "0.399"); of(a, fleet.AdviceSpot) != nil || !withheld(a, fleet.AdviceSpot, "it is none that saves 1 %") {
		t.Errorf("%+v", a.Withheld)
	}
}

// TestOutOfTime: what was not tried is named, and what was found stays.
func TestOutOfTime(t *testing.T) {
	in := input(t, cluster, office(func(int) int64 { return 3900 << 20 }), node)
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	calls := 0
	apply := in.Apply
	in.Apply = func(before, patch []byte) (*v1alpha1.Fleet, []v1alpha1.SpecChange, error) {
		if calls++; calls > 3 {
			return nil, nil, context.DeadlineExceeded
		}
		return apply(before, patch)
	}
	a, err := Make(ctx, in)
	if err != nil || !withheld(a, fleet.AdviceHold, "no time left") {
		t.Errorf("%+v %v", a.Withheld, err)
	}
	cancel(nil)
	if _, err := Make(ctx, in); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestGood(t *testing.T) {
	now := fleet.WhatIfOutcome{MicroUSD: 1000, Within: 0.995, Meets: true, Slots: 8}
	late := fleet.WhatIfOutcome{MicroUSD: 1000, Within: 0.97, Slots: 8}
	for _, c := range []struct {
		name string
		w    want
		now  fleet.WhatIfOutcome
		then fleet.WhatIfOutcome
		good bool
	}{
		{"cheaper", money, now, fleet.WhatIfOutcome{MicroUSD: 900, Within: 0.995, Meets: true}, true},
		{"hardly cheaper", money, now, fleet.WhatIfOutcome{MicroUSD: 995, Within: 0.995, Meets: true}, false},
		{"cheaper, the objective broken", money, now, fleet.WhatIfOutcome{MicroUSD: 10, Within: 0.98}, false},
		{"cheaper, more late within the objective", money, now, fleet.WhatIfOutcome{MicroUSD: 900, Within: 0.991, Meets: true}, false},
		{"mends at a price", money, late, fleet.WhatIfOutcome{MicroUSD: 2000, Within: 0.995, Meets: true}, true},
		{"better, not mended, at a price", money, late, fleet.WhatIfOutcome{MicroUSD: 2000, Within: 0.98}, false},
		{"better for nothing", money, late, fleet.WhatIfOutcome{MicroUSD: 1000, Within: 0.98}, true},
		{"cheaper where it is missed, and worse", money, late, fleet.WhatIfOutcome{MicroUSD: 500, Within: 0.96}, false},
		{"more room for the same", moreRoom, now, fleet.WhatIfOutcome{MicroUSD: 1000, Within: 0.995, Meets: true, Slots: 16}, true},
		{"no more room", moreRoom, now, fleet.WhatIfOutcome{MicroUSD: 1000, Within: 0.995, Meets: true, Slots: 8}, false},
	} {
		if got := c.w.good(&c.now, &c.then); got != c.good {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

func TestSizes(t *testing.T) {
	for b, want := range map[int64]string{2 << 30: "2Gi", 448 << 20: "448Mi", 1536 << 20: "1536Mi", 1 << 10: "1Ki", 7: "7", 1<<20 + 1: "2Mi"} {
		if got := size(b); got != want {
			t.Errorf("size(%d) = %s, want %s", b, got, want)
		}
	}
	for name, want := range map[string]int{"xlarge": 1, "16xlarge": 16, "large": 0, "metal": 0, "-1xlarge": 0} {
		if got := times(name); got != want {
			t.Errorf("times(%s) = %d, want %d", name, got, want)
		}
	}
	for d, want := range map[time.Duration]string{2 * time.Minute: "2m", 35 * time.Minute: "35m", 10 * time.Hour: "10h", 90 * time.Second: "1m30s"} {
		if got := short(d); got != want {
			t.Errorf("short(%s) = %s, want %s", d, got, want)
		}
	}
}
