package sim

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"muster.dev/muster/internal/sim/trace"
)

// optimum is the least cost of any zero-wait policy on a small instance, found
// by trying all: at every unit of time any number of nodes may be asked for
// and any may be returned, tasks may move freely, and only what is paid in
// [open, close) counts. need[i] is the nodes needed in unit i.
type optimum struct {
	need                    []int
	boot, bill, open, close int
	most                    int
	memo                    map[string]int
}

// best is the least cost from unit t on with nodes of these ages, which are
// sorted and do not count beyond what matters.
func (o *optimum) best(t int, ages []int) int {
	if t == len(o.need) {
		total := 0
		for _, a := range ages {
			total += o.leave(t, a)
		}
		return total
	}
	key := fmt.Sprint(t, ages)
	if v, ok := o.memo[key]; ok {
		return v
	}
	least := 1 << 30
	// Returned now: any of the ages; then asked for now: any number.
	for _, kept := range subsets(ages) {
		cost := 0
		for _, a := range kept.gone {
			cost += o.leave(t, a)
		}
		for fresh := 0; len(kept.stay)+fresh <= o.most; fresh++ {
			now := append(slices.Clone(kept.stay), make([]int, fresh)...)
			ready := 0
			for _, a := range now {
				if a >= o.boot {
					ready++
				}
			}
			if ready < o.need[t] {
				continue
			}
			step := cost
			if t >= o.open && t < o.close {
				step += len(now)
			}
			for i := range now {
				now[i] = min(now[i]+1, max(o.boot, o.bill))
			}
			slices.Sort(now)
			least = min(least, step+o.best(t+1, now))
		}
	}
	o.memo[key] = least
	return least
}

// leave is what a node of an age still owes when it is returned at t.
func (o *optimum) leave(t, age int) int {
	owed := 0
	for k := age; k < o.bill; k++ {
		if at := t + k - age; at >= o.open && at < o.close {
			owed++
		}
	}
	return owed
}

type choice struct{ stay, gone []int }

func subsets(ages []int) []choice {
	out := []choice{}
	for bits := range 1 << len(ages) {
		var c choice
		for i, a := range ages {
			if bits&(1<<i) != 0 {
				c.stay = append(c.stay, a)
			} else {
				c.gone = append(c.gone, a)
			}
		}
		out = append(out, c)
	}
	return out
}

// TestBoundAgainstTheOptimum holds the bound against the best of all policies
// on instances small enough to try everything, windows that cut them included.
func TestBoundAgainstTheOptimum(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		boot := rapid.IntRange(0, 3).Draw(t, "boot")
		bill := rapid.IntRange(0, 5).Draw(t, "bill")
		lead := 6 // units before the first demand, to boot in
		var need []int
		for range lead {
			need = append(need, 0)
		}
		for len(need) < lead+9 {
			n := rapid.IntRange(0, 2).Draw(t, "need")
			for range rapid.IntRange(1, 5).Draw(t, "for") {
				need = append(need, n)
			}
		}
		for range 6 { // room to come out at the least bill
			need = append(need, 0)
		}
		open, closing := 0, len(need)
		if rapid.Bool().Draw(t, "cut") {
			open = rapid.IntRange(0, 12).Draw(t, "open")
			closing = rapid.IntRange(open+1, len(need)).Draw(t, "close")
		}
		o := optimum{need: need, boot: boot, bill: bill, open: open, close: closing, most: 4, memo: map[string]int{}}
		best := o.best(0, nil)
		b := bound{boot: int64(boot), bill: int64(bill), open: int64(open), close: int64(closing)}
		for i, n := range need {
			b.need(int64(i), n)
		}
		got := int(b.finish())
		if got > best {
			t.Fatalf("need %v, boot %d, bill %d, window %d to %d: bound %d, but %d is possible", need, boot, bill, open, closing, got, best)
		}
		if bill <= boot && open == 0 && closing == len(need) && got != best {
			t.Fatalf("need %v, boot %d, without a least bill: bound %d, optimum %d: it should be exact", need, boot, got, best)
		}
	})
}

// TestLeastBillIsNotOfLevels is the example of the package comment: asking the
// least bill of every level would exceed what two nodes cost.
func TestLeastBillIsNotOfLevels(t *testing.T) {
	b := bound{boot: 45, bill: 60, open: 0, close: 1000}
	b.need(200, 1)
	b.need(210, 2) // one node over [200,215), one over [210,225)
	b.need(215, 1)
	b.need(225, 0)
	if got := b.finish(); got > 120 || got != 120 {
		t.Errorf("bound %d, want 120: what the two nodes cost", got)
	}
}

// TestBoundOfOneTask: boot, work, and the least bill.
func TestBoundOfOneTask(t *testing.T) {
	for _, c := range []struct{ seconds, want int64 }{{100, 150}, {3, 60}, {10, 60}} {
		rows := trace.Rows{{Arrival: 1_000_000, Duration: c.seconds * 1000}}
		cfg := Config{Trace: rows, Model: Defaults(), From: clock(0), To: clock(2_000_000)}
		s, err := Look(&cfg)
		if err != nil {
			t.Fatal(err)
		}
		if s.Bound != c.want*1000 || s.Peak != 1 || s.BoundPeak != 1 {
			t.Errorf("a task of %d s: bound %d ms, peak %d and %d nodes; want %d s", c.seconds, s.Bound, s.Peak, s.BoundPeak, c.want)
		}
	}
}

// TestBoundHoldsForEveryPolicy: no run without waiting costs less.
func TestBoundHoldsForEveryPolicy(t *testing.T) {
	seen := 0
	rapid.Check(t, func(t *rapid.T) {
		c, s := drawCase(t)
		for _, name := range Names() {
			r, err := Simulate(c, s, name)
			if err != nil {
				t.Fatal(err)
			}
			if r.MaxWait == 0 && name != Clairvoyant {
				seen++
				if r.NodeSeconds*1000 < float64(s.Bound)-0.5 {
					t.Fatalf("%s: no task waits, and %v node-seconds are below the bound of %v", name, r.NodeSeconds, float64(s.Bound)/1000)
				}
			}
		}
	})
	if seen == 0 {
		t.Error("no run without waiting was seen")
	}
}
