package cost

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"muster.dev/muster/internal/fleet"
)

func TestTariff(t *testing.T) {
	spot := fleet.NodeKind{Group: "g", InstanceType: "m7i", Capacity: "spot"}
	tf := Tariff{
		{PerHour: 100, MinBill: time.Hour},
		{Kind: fleet.NodeKind{Capacity: "spot"}, PerHour: 30},
		{Kind: fleet.NodeKind{Group: "g"}, PerHour: 50, From: at(1000), Until: at(2000)},
		{Kind: fleet.NodeKind{InstanceType: "m7i", Capacity: "spot"}, PerHour: 20, From: at(1500), MinBill: time.Minute},
	}
	got, least := tf.For(spot, at(0))
	want := Prices{{PerHour: 30}, {From: at(1000), PerHour: 50}, {From: at(1500), PerHour: 20}}
	if d := cmp.Diff(want, got); d != "" || least != 0 {
		t.Errorf("%s, %s", d, least)
	}
	if _, least = tf.For(spot, at(1600)); least != time.Minute {
		t.Errorf("one of later is paid for %s", least)
	}
	if err := got.Check("p"); err != nil {
		t.Error(err)
	}
	if got, least = tf.For(fleet.NodeKind{}, at(0)); len(got) != 1 || got[0].PerHour != 100 || least != time.Hour {
		t.Errorf("of no kind: %v, %s", got, least)
	}
	if got, _ := (Tariff{}).For(spot, at(0)); got != nil || (Tariff{}).Knows(spot, at(0)) || !tf.Knows(spot, at(0)) {
		t.Errorf("without a price: %v", got)
	}
}

func drawBook(t *rapid.T) *Book {
	b := NewBook()
	some := rapid.SampledFrom([]string{"", "a", "b\x00c", "ü"})
	for i := range rapid.IntRange(0, 20).Draw(t, "entries") {
		k := Key{
			Cause: rapid.SampledFrom(append(idleCauses, CauseTask)).Draw(t, "cause"), Pool: fleet.PoolKey(some.Draw(t, "pool")),
			Kind:   fleet.NodeKind{Group: some.Draw(t, "group"), Capacity: some.Draw(t, "capacity")},
			Tenant: fleet.TenantID(some.Draw(t, "tenant")), Labels: LabelsOf(map[string]string{"team": some.Draw(t, "team")}, []string{"team"}),
		}
		b.Charge(k, Entry{From: at(i * 1000), To: at(i*1000 + 10), Node: fleet.NodeID(some.Draw(t, "node")), Cause: k.Cause, Amount: Micro(rapid.Int64Range(0, 1<<50).Draw(t, "amount"))})
		b.Spend(k, time.Duration(rapid.Int64Range(0, 1<<40).Draw(t, "time")))
		if k.Cause == CauseTask && rapid.Bool().Draw(t, "measured") {
			b.Use(k, Micro(rapid.Int64Range(0, 1<<40).Draw(t, "used")), 1<<40)
		}
		if k.Cause == CauseTask && rapid.Bool().Draw(t, "reported") {
			b.Reported(k, fleet.ModelUse{Reports: 1, OutputTokens: rapid.Int64Range(0, 1<<40).Draw(t, "tokens"), MicroUSD: 9})
		}
		b.Add(HourOf(at(i*1000)), Hour{Nodes: 7, Busy: int64(i), Peak: int64(i)})
	}
	return b
}

// A book of before anything was measured or reported is read as it was.
func TestFirstBooks(t *testing.T) {
	// One line, of warm_pool, 5 micro-USD and 7 ms; no nodes, no hours.
	first := []byte{bookFirst, 2, 9}
	first = append(first, "warm_pool"...)
	first = append(first, 0)                      // the empty text
	first = append(first, 2, 0, 1, 1, 1, 1, 1, 1) // a line, and its texts
	first = append(first, 10, 14, 0, 0, 0, 0)     // its numbers, doubled; no nodes, no hours
	b := NewBook()
	if err := b.MergeEncoded(first, true); err != nil {
		t.Fatal(err)
	}
	if got := b.Lines[Key{Cause: CauseWarm}]; len(b.Lines) != 1 || got != (Sum{Amount: 5, Millis: 7}) {
		t.Errorf("%+v", b.Lines)
	}
}

// A book comes back as it was written, and two that are merged have the money of
// both.
func TestBooks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := drawBook(t), drawBook(t)
		got := NewBook()
		if err := got.MergeEncoded(a.Encode(), true); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(a, got); d != "" {
			t.Fatal(d)
		}
		if !bytes.Equal(a.Encode(), got.Encode()) {
			t.Fatal("the same book is written in two ways")
		}
		if err := got.MergeEncoded(b.Pack(), true); err != nil {
			t.Fatal(err)
		}
		merged := a.Total() + b.Total()
		a.Merge(b)
		if d := cmp.Diff(a, got); d != "" || a.Total() != merged || a.Check() != nil {
			t.Fatal(d, a.Check())
		}
		// The groups of a split have all of the bill.
		for _, by := range []string{"tenant", "team", "template", "node", "hour"} {
			var sum, task int64
			r := a.Report(fleet.CostQuery{By: by}, Span{epoch, epoch.Add(9 * time.Hour)})
			for _, g := range r.Groups {
				sum, task = sum+g.MicroUSD+g.SharedMicroUSD, task+g.MicroUSD
			}
			whole := by == "node" || by == "hour" || r.TaskMicroUSD > 0
			if whole && sum != r.MicroUSD || by != "node" && by != "hour" && task != r.TaskMicroUSD {
				t.Fatalf("by %s the groups have %d and %d of %d and %d", by, sum, task, r.MicroUSD, r.TaskMicroUSD)
			}
			idle := r.TaskMicroUSD
			for _, i := range r.Idle {
				idle += i.MicroUSD
			}
			if idle != r.MicroUSD {
				t.Fatalf("the causes have %d of %d", idle, r.MicroUSD)
			}
		}
	})
}

func FuzzBook(f *testing.F) {
	f.Add([]byte{bookVersion, 0, 0, 0, 0})
	b := NewBook()
	b.Charge(Key{Cause: CauseTask, Pool: "p"}, Entry{From: at(0), Node: "n", Amount: 5})
	f.Add(b.Encode())
	f.Add(b.Pack())
	f.Fuzz(func(t *testing.T, content []byte) {
		b := NewBook()
		if err := b.MergeEncoded(content, true); err != nil && !errors.Is(err, fleet.ErrCorrupt) {
			t.Fatal(err)
		}
	})
}

func TestReport(t *testing.T) {
	b := NewBook()
	day := epoch.Truncate(24 * time.Hour)
	for h := range 24 { // ten nodes by day, one at night; a dollar each
		n := 1
		if h >= 8 && h < 18 {
			n = 10
		}
		from := day.Add(time.Duration(h) * time.Hour)
		for i := range n {
			b.Charge(Key{Cause: CauseHeadroom}, Entry{From: from, Node: fleet.NodeID(fmt.Sprint(i)), Cause: CauseHeadroom, Amount: 1e6})
		}
		b.Add(HourOf(from), Hour{Nodes: int64(n) * 3.6e6, Peak: int64(n)})
	}
	r := b.Report(fleet.CostQuery{Fixed: 5, OffFrom: 18 * time.Hour, OffUntil: 8 * time.Hour}, Span{day, day.Add(24 * time.Hour)})
	if r.MicroUSD != 114e6 || r.NodeHours != 114 || r.PeakNodes != 10 || r.IdleShare != 1 || r.AgentHourMicroUSD != nil {
		t.Errorf("%+v", r)
	}
	want := []fleet.CostFixed{
		{Kind: "same_peak", Nodes: 10, MicroUSD: 240e6, SavingMicroUSD: 126e6, SavingShare: 0.525},
		{Kind: "asked", Nodes: 5, MicroUSD: 120e6, SavingMicroUSD: 6e6, SavingShare: 0.05, Short: true},
	}
	if d := cmp.Diff(want, r.Fixed); d != "" {
		t.Error(d)
	}
	if o := r.OffHours; o == nil || o.Hours != 14 || o.MicroUSD != 14e6 || o.FixedMicroUSD != 140e6 || o.SavingMicroUSD != 126e6 {
		t.Errorf("%+v", o)
	}
	// Of the last hour only half is known.
	r = b.Report(fleet.CostQuery{Weekends: true}, Span{day.Add(12 * time.Hour), day.Add(13*time.Hour + 30*time.Minute)})
	if r.Fixed[0].MicroUSD != 15e6 || r.OffHours.Hours != 0 {
		t.Errorf("%+v %+v", r.Fixed, r.OffHours)
	}
}

func TestApportion(t *testing.T) {
	if d := cmp.Diff([]Micro{4, 3, 3, 0}, apportion(10, []Micro{1, 1, 1, 0})); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]Micro{0, 0}, apportion(10, []Micro{0, 0})); d != "" {
		t.Error(d)
	}
	const huge = Micro(1) << 60
	if got := apportion(huge, []Micro{huge, huge}); got[0]+got[1] != huge {
		t.Error(got)
	}
}
