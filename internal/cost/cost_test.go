package cost

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"muster.dev/muster/internal/fleet"
)

var epoch = time.Date(2026, 3, 2, 8, 0, 0, 0, time.UTC)

func at(s int) time.Time { return epoch.Add(time.Duration(s) * time.Second) }

func flat(perHour Micro) Prices { return Prices{{PerHour: perHour}} }

const gib = 1 << 30

func node(id string) Node {
	return Node{
		ID: fleet.NodeID(id), Prices: flat(400_000), Total: Size{8000, 32 * gib}, Usable: Size{8000, 32 * gib},
		Requested: at(0), Ready: at(45),
	}
}

func TestBill(t *testing.T) {
	n := node("a")
	n.MinBill = time.Minute
	if got := n.Bill(at(3600)); got != 400_000 {
		t.Errorf("an hour at $0.40 is %s", got.USD())
	}
	if got := n.Bill(at(-5)); got != 0 {
		t.Errorf("before its request it cost %s", got.USD())
	}
	n.Released = at(10)
	if got, want := n.Bill(at(10)), Micro(400_000/60); got != want {
		t.Errorf("ten seconds with a least bill of a minute cost %d, want %d", got, want)
	}
	n.Prices = Prices{{PerHour: 3_600_000}, {From: at(5), PerHour: 7_200_000}}
	n.MinBill = 0
	if got := n.Bill(at(10)); got != 5*1000+5*2000 {
		t.Errorf("a price that doubled half way: %d", got)
	}
}

// A bill that is huge must not overflow on its way.
func TestBillOfManyYears(t *testing.T) {
	n := Node{Prices: flat(MaxPerHour), Requested: at(0)}
	if got, want := n.Bill(at(0).Add(24*365*50*time.Hour)), MaxPerHour*24*365*50; got != want {
		t.Errorf("fifty years at the highest price: %d, want %d", got, want)
	}
}

func TestSweepSplitsByCause(t *testing.T) {
	n := node("a")
	n.Prices = flat(3_600_000) // 1000 a second
	n.Usable = Size{6000, 24 * gib}
	n.Leaving, n.Released, n.MinBill = at(90), at(100), 2*time.Minute
	box := Box{ID: "s1", Node: "a", Pool: "default", Size: Size{3000, 6 * gib}, Created: at(50), Claimed: at(60), Gone: at(80), Task: "t1"}
	got := map[Cause]Micro{}
	for _, e := range Sweep(at(0), at(200), []Node{n}, []Box{box}) {
		got[e.Cause] += e.Amount
	}
	// Of 1000 a second: system 250; the box 3/6 and 6/24 of 750, mean 281.25.
	want := map[Cause]Micro{
		CauseBoot: 45_000, CauseSystem: 55 * 250, CauseWarm: 2812, CauseTask: 5625,
		CauseHeadroom: 45*750 - 2812 - 5625, CauseDrain: 10 * 750, CauseMinimum: 20_000,
	}
	for c, w := range want {
		if d := got[c] - w; d < -3 || d > 3 {
			t.Errorf("%s: %d, want %d", c, got[c], w)
		}
	}
	var sum Micro
	for _, m := range got {
		sum += m
	}
	if sum != 120_000 {
		t.Errorf("all of it is %d, want the least bill, 120000", sum)
	}
}

func TestSweepOvercommitted(t *testing.T) {
	n := node("a")
	var boxes []Box
	for i := range 5 {
		boxes = append(boxes, Box{ID: fleet.SandboxID(fmt.Sprint("s", i)), Node: "a", Size: Size{4000, 16 * gib}, Created: at(45), Claimed: at(45), Task: "t"})
	}
	entries := Sweep(at(45), at(45+3600), []Node{n}, boxes)
	for _, e := range entries {
		if e.Cause != CauseTask || e.Amount < 79_999 || e.Amount > 80_001 {
			t.Errorf("five halves of a node should carry a fifth each: %+v", e)
		}
	}
	if len(entries) != 5 {
		t.Errorf("%d entries, want 5", len(entries))
	}
}

func TestPricesCheck(t *testing.T) {
	for name, p := range map[string]Prices{
		"prices[0].perHour": {{PerHour: -1}},
		"prices[1].from":    {{PerHour: 1}, {PerHour: 2}},
		"prices[2].from":    {{PerHour: 1}, {From: at(9), PerHour: 2}, {From: at(5), PerHour: 2}},
	} {
		err := p.Check("prices")
		var fe *fleet.FieldError
		if !errors.As(err, &fe) || fe.Field != name {
			t.Errorf("%v: %v, want an error of %s", p, err, name)
		}
	}
	if err := (Prices{{PerHour: 1}, {From: at(1)}}).Check("prices"); err != nil {
		t.Error(err)
	}
}

func TestUSD(t *testing.T) {
	for m, want := range map[Micro]string{0: "0.000000", 1: "0.000001", -1: "-0.000001", 12_345_678: "12.345678"} {
		if got := m.USD(); got != want {
			t.Errorf("%d is %q, want %q", int64(m), got, want)
		}
	}
}

// moment draws a time with uneven nanoseconds, so that rounding matters.
func moment(t *rapid.T, name string) time.Time {
	return epoch.Add(time.Duration(rapid.Int64Range(0, int64(3*time.Hour)).Draw(t, name)))
}

// later is a moment from t0 on, or none.
func later(t *rapid.T, t0 time.Time, name string) time.Time {
	if rapid.Bool().Draw(t, name+" unknown") {
		return time.Time{}
	}
	return t0.Add(time.Duration(rapid.Int64Range(0, int64(2*time.Hour)).Draw(t, name)))
}

func drawNode(t *rapid.T, i int) Node {
	n := Node{
		ID: fleet.NodeID(fmt.Sprint("n", i)), Requested: moment(t, "requested"),
		MinBill: time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(t, "least")),
		Total:   Size{rapid.Int64Range(1, 64_000).Draw(t, "cpu"), rapid.Int64Range(1, 256*gib).Draw(t, "memory")},
	}
	n.Usable = Size{rapid.Int64Range(0, n.Total.MilliCPU).Draw(t, "usable cpu"), rapid.Int64Range(0, n.Total.MemoryBytes).Draw(t, "usable memory")}
	n.Ready = later(t, n.Requested, "ready")
	n.Leaving = later(t, n.Requested, "leaving")
	n.Released = later(t, n.Requested, "released")
	from := epoch.Add(-time.Hour)
	for range rapid.IntRange(0, 3).Draw(t, "prices") {
		n.Prices = append(n.Prices, Price{From: from, PerHour: Micro(rapid.Int64Range(0, 50_000_000).Draw(t, "price"))})
		from = from.Add(time.Duration(rapid.Int64Range(1, int64(2*time.Hour)).Draw(t, "until")))
	}
	return n
}

func drawBoxes(t *rapid.T, nodes int) []Box {
	var boxes []Box
	for i := range rapid.IntRange(0, 8).Draw(t, "boxes") {
		b := Box{
			ID: fleet.SandboxID(fmt.Sprint("s", i)), Node: fleet.NodeID(fmt.Sprint("n", rapid.IntRange(0, nodes).Draw(t, "on"))),
			Size:    Size{rapid.Int64Range(0, 80_000).Draw(t, "box cpu"), rapid.Int64Range(0, 300*gib).Draw(t, "box memory")},
			Created: moment(t, "created"),
		}
		b.Claimed = later(t, b.Created, "claimed")
		b.Gone = later(t, b.Created, "gone")
		boxes = append(boxes, b)
	}
	return boxes
}

// The parts add up to the bill exactly, for any history.
func TestConservation(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var nodes []Node
		for i := range rapid.IntRange(1, 3).Draw(t, "nodes") {
			nodes = append(nodes, drawNode(t, i))
		}
		boxes := drawBoxes(t, len(nodes))
		from, to := epoch.Add(-time.Minute), epoch.Add(12*time.Hour)
		got := map[fleet.NodeID]Micro{}
		for _, e := range Sweep(from, to, nodes, boxes) {
			if e.Amount < 0 || !e.From.Before(e.To) {
				t.Fatalf("a part of %d over [%s, %s)", e.Amount, e.From, e.To)
			}
			got[e.Node] += e.Amount
		}
		for i := range nodes {
			if n := &nodes[i]; got[n.ID] != n.Bill(to)-n.Bill(from) {
				t.Fatalf("the parts of %s are %d, its bill %d", n.ID, got[n.ID], n.Bill(to)-n.Bill(from))
			}
		}
	})
}

// However a stretch is cut (ticks, restarts, steps of the clock), each node is
// charged the same in all.
func TestCutsChangeNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		nodes := []Node{drawNode(t, 0)}
		boxes := drawBoxes(t, 1)
		from, to := epoch, epoch.Add(8*time.Hour)
		sum := func(cuts ...time.Time) (all Micro) {
			for i := 0; i+1 < len(cuts); i++ {
				for _, e := range Sweep(cuts[i], cuts[i+1], nodes, boxes) {
					all += e.Amount
				}
			}
			return all
		}
		whole := sum(from, to)
		cut := []time.Time{from}
		for range rapid.IntRange(1, 10).Draw(t, "cuts") {
			last := cut[len(cut)-1]
			if next := last.Add(time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(t, "step"))); next.Before(to) {
				cut = append(cut, next)
			}
		}
		if got := sum(append(cut, to)...); got != whole {
			t.Fatalf("in pieces %d, in one %d", got, whole)
		}
	})
}

// The same history in another order gives the same books.
func TestOrderChangesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		nodes := []Node{drawNode(t, 0), drawNode(t, 1)}
		boxes := drawBoxes(t, 2)
		from, to := epoch, epoch.Add(8*time.Hour)
		want := Sweep(from, to, nodes, boxes)
		got := Sweep(from, to, rapid.Permutation(nodes).Draw(t, "nodes"), rapid.Permutation(boxes).Draw(t, "boxes"))
		if d := cmp.Diff(want, got); d != "" {
			t.Fatal(d)
		}
	})
}
