package sim

import (
	"math"
	"testing"
	"time"

	"muster.dev/muster/internal/sim/trace"
)

// midnight is a time at which all clocks of the rivals begin a round.
var midnight = time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)

func from(ms, long int64) trace.Row {
	return trace.Row{Arrival: midnight.UnixMilli() + ms, Duration: long * 1000}
}

// TestKEDAWaitsForItsPoll: up to 30 s for the poll that turns the workload on,
// then boot and cold start; after the last task 300 s until it is off.
func TestKEDAWaitsForItsPoll(t *testing.T) {
	c := Config{Trace: trace.Rows{from(1000, 100)}, Model: Defaults(), From: midnight, To: midnight.Add(time.Hour)}
	r := simulate(t, c, "keda")
	if r.MaxWait != 29+45+5 {
		t.Errorf("wait %v, want 79: poll, boot, cold start", r.MaxWait)
	}
	// Asked for at 30 s, task from 80 s to 180 s; last seen active by the poll
	// at 150 s; off by that of 450 s; the node empty for 45 s.
	if r.NodeSeconds != 450+45-30 {
		t.Errorf("%v node-seconds, want 465", r.NodeSeconds)
	}
}

// TestScalerFollowsItsRules: up by doubling or four, down to the largest
// recommendation of 300 s, not at all within the tolerance.
func TestScalerFollowsItsRules(t *testing.T) {
	s := scaler{replicas: 1, perReplica: 1}
	var got []int
	for range 6 {
		s.sync(100)
		got = append(got, s.replicas)
	}
	for i, want := range []int{5, 10, 20, 40, 80, 100} {
		if got[i] != want {
			t.Fatalf("up: %v", got)
		}
	}
	for i := range stabilization/hpaSync - 1 {
		if s.sync(10); s.replicas != 100 {
			t.Fatalf("down to %d after %d s", s.replicas, (i+1)*hpaSync/second)
		}
	}
	if s.sync(10); s.replicas != 10 {
		t.Fatalf("after 300 s %d, want 10", s.replicas)
	}
	s = scaler{replicas: 20, perReplica: 1, tolerance: 0.1}
	if s.sync(21); s.replicas != 20 {
		t.Errorf("within the tolerance %d", s.replicas)
	}
	if s.sync(23); s.replicas != 23 {
		t.Errorf("beyond the tolerance %d", s.replicas)
	}
}

// TestHPAKeepsOne: it cannot scale to zero, and no task starves in its
// tolerance.
func TestHPAKeepsOne(t *testing.T) {
	rows := trace.Rows{}
	for i := range int64(21) {
		rows = append(rows, from(600_000+i*60_000, 3600))
	}
	c := Config{Trace: rows, Model: Defaults(), From: midnight, To: midnight.Add(4 * time.Hour)}
	r := simulate(t, c, "hpa")
	if r.MaxWait > 15+50 {
		t.Errorf("a task waits %v s", r.MaxWait)
	}
	if r.NodeSeconds < 4*3600-700 {
		t.Errorf("%v node-seconds: it went to zero", r.NodeSeconds)
	}
}

// TestKPAWindows: 70 % utilization in the stable window, panic at 200 %.
func TestKPAWindows(t *testing.T) {
	p := Pool{Running: 7}
	var k kpaPool
	now := midnight.UnixMilli()
	p.areaAt = now
	var want int
	for range 40 {
		now += kpaTick
		want = k.tick(now, &p)
	}
	if want != 10 {
		t.Errorf("7 tasks steady: %d sandboxes, want 10", want)
	}
	p.settleArea(now)
	for range 30 {
		p.queue.push(task{})
	}
	var first int
	for i := range 3 {
		now += kpaTick
		if want = k.tick(now, &p); i == 0 {
			first = want
		}
	}
	if want != int(math.Ceil(37/0.7)) || first <= 20 {
		t.Errorf("37 tasks at once: %d after a tick, %d after 6 s; want more than 20, then 53", first, want)
	}
	p.settleArea(now)
	p.queue.n, p.Ready = 0, 46
	for range 29 {
		now += kpaTick
		if w := k.tick(now, &p); w < want {
			t.Fatalf("down to %d while it panics", w)
		}
	}
	for range 60 {
		now += kpaTick
		want = k.tick(now, &p)
		p.Ready = want - 7
	}
	if want != 10 {
		t.Errorf("quiet again: %d, want 10", want)
	}
	p.settleArea(now)
	p.Running, p.Ready = 0, 1
	for range 90 {
		now += kpaTick
		want = k.tick(now, &p)
	}
	if want != 0 {
		t.Errorf("after two quiet minutes %d", want)
	}
}

// TestScheduleLearnsTheHour: a burst at the same hour of each week waits the
// first times, and is expected later.
func TestScheduleLearnsTheHour(t *testing.T) {
	var rows trace.Rows
	for week := range int64(3) {
		at := (week*7*24 + 9) * 3600_000
		for i := range int64(5) {
			rows = append(rows, from(at+i, 3600))
		}
		for i := range int64(5) {
			rows = append(rows, from(at+3601_000+i, 3500))
		}
	}
	c := Config{Trace: rows, Model: Defaults(), From: midnight.Add(14 * 24 * time.Hour), To: midnight.Add(15 * 24 * time.Hour)}
	if r := simulate(t, c, "schedule"); r.WaitP50 > 5 || r.MaxWait > 50 {
		t.Errorf("in the third week half wait %v s, one %v s", r.WaitP50, r.MaxWait)
	}
	c.From, c.To = midnight, midnight.Add(24*time.Hour)
	c.Trace = trace.Select(rows, trace.Selection{To: c.To})
	if r := simulate(t, c, "schedule"); r.MaxWait != 50 {
		t.Errorf("in the first week nothing is known: %v", r.MaxWait)
	}
}

func TestStepsOfTheTimetable(t *testing.T) {
	for n, want := range map[int]int{0: 0, 64: 64, 65: 66, 100: 100, 101: 104, 737: 768} {
		if got := step(n); got != want {
			t.Errorf("step(%d) = %d, want %d", n, got, want)
		}
	}
}

func TestWaitsQuantiles(t *testing.T) {
	var w Waits
	if w.quantile(0.99) != 0 || w.share(0) != 0 {
		t.Error("of nothing")
	}
	for i := range int64(1000) {
		w.add(i * 10)
	}
	w.add(100_000)
	w.add(3600_000)
	for q, want := range map[float64]float64{0.5: 5, 0.95: 9.51, 0.999: 100} {
		if got := w.quantile(q); math.Abs(got-want) > 0.011 {
			t.Errorf("quantile %v is %v, want %v", q, got, want)
		}
	}
	if got := w.quantile(1); got < 3580 || got > 3600 {
		t.Errorf("the longest is %v, want about 3600", got)
	}
	if w.over10 != 2 || w.over60 != 2 {
		t.Errorf("%d over 10 s, %d over 60 s", w.over10, w.over60)
	}
}

func TestParseLead(t *testing.T) {
	for text, want := range map[string]Lead{
		"45":                Constant(45 * time.Second),
		"1.5":               Constant(1500 * time.Millisecond),
		"2m":                Constant(2 * time.Minute),
		"uniform:30-60":     {Kind: "uniform", Median: 45 * time.Second, Low: 30 * time.Second, High: time.Minute},
		"lognormal:45,0.25": {Kind: "lognormal", Median: 45 * time.Second, Sigma: 0.25},
	} {
		if got, err := ParseLead(text); err != nil || got != want {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "x", "-1", "NaN", "1e99", "uniform:5", "uniform:9-5", "lognormal:5", "lognormal:5,x", "normal:5,1", "lognormal:45,9"} {
		if got, err := ParseLead(text); err == nil {
			t.Errorf("%q is read as %+v", text, got)
		}
	}
}

func TestModelCheck(t *testing.T) {
	for _, change := range []func(m *Model){
		func(m *Model) { m.Slots = 0 }, func(m *Model) { m.Boot = Constant(-1) }, func(m *Model) { m.ColdStart = Constant(48 * time.Hour) },
		func(m *Model) { m.MinBill = -1 }, func(m *Model) { m.Hold = -1 }, func(m *Model) { m.StartFailures = 1 },
		func(m *Model) { m.NodeFailures = math.NaN() }, func(m *Model) { m.NodeHour = -1 }, func(m *Model) { m.MaxNodes = -1 },
	} {
		m := Defaults()
		change(&m)
		if m.Check() == nil {
			t.Errorf("%+v is accepted", m)
		}
	}
}

// TestFixedAsAsked: three tasks of 100 s come at once to one node of two slots;
// the third waits for the first to end.
func TestFixedAsAsked(t *testing.T) {
	m := Defaults()
	m.Slots = 2
	rows := trace.Rows{from(1000, 100), from(1000, 100), from(1000, 100)}
	c := Config{Trace: rows, Model: m, From: midnight, To: midnight.Add(time.Hour), FixedNodes: 1}
	r := simulate(t, c, "fixed")
	if r.PeakNodes != 1 || r.WaitSum < 100 || r.WaitSum > 100+5 || r.WaitSum != r.MaxWait {
		t.Errorf("%d nodes, waits of %v s in all and %v at most; want 1 node, and about 105 s of one task", r.PeakNodes, r.WaitSum, r.MaxWait)
	}
	if c.FixedNodes = 0; simulate(t, c, "fixed").WaitSum != 0 {
		t.Error("nodes for the peak let a task wait")
	}
}
