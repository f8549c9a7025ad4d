package ledger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"muster.dev/muster/internal/cost"
	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/store/memory"
)

const gib = 1 << 30

var epoch = time.Date(2026, 3, 2, 8, 0, 0, 0, time.UTC)

// doubtful is a store whose postings may fail before or after they are there.
type doubtful struct {
	*memory.Store
	before, after bool
}

var errDoubt = errors.New("the connection is lost")

func (d *doubtful) Post(ctx context.Context, p fleet.Posting) error {
	if d.before {
		return errDoubt
	}
	err := d.Store.Post(ctx, p)
	if err == nil && d.after {
		return errDoubt
	}
	return err
}

// world is what a ledger watches.
type world struct {
	t      testing.TB
	now    time.Time
	store  *doubtful
	nodes  []fleet.Node
	err    error
	tariff cost.Tariff
	looks  []time.Time
	s      *Service
	told   fleet.Charged // since the ledger was opened first
}

func newWorld(t testing.TB) *world {
	w := &world{t: t, now: epoch, tariff: cost.Tariff{{PerHour: 3_600_000}}} // 1000 micro-USD a second
	w.store = &doubtful{Store: memory.New(memory.Options{Clock: func() time.Time { return w.now }})}
	w.restart()
	w.step(0)
	return w
}

func (w *world) restart() {
	w.s = New(Options{
		Store: w.store, Fleet: "agents", Tariff: w.tariff, Labels: []string{"tier"}, Clock: func() time.Time { return w.now },
		Charged: w.charged,
		Nodes: func(context.Context) ([]fleet.Node, error) {
			w.looks = append(w.looks, w.now)
			return w.nodes, w.err
		},
	})
}

func (w *world) node(id fleet.NodeID) *fleet.Node {
	w.nodes = append(w.nodes, fleet.Node{
		ID: id, State: fleet.NodeReady, MilliCPU: 8000, MemoryBytes: 32 * gib, RequestedAt: w.now, ReadyAt: w.now,
	})
	return &w.nodes[len(w.nodes)-1]
}

func (w *world) step(d time.Duration) {
	w.now = w.now.Add(d)
	_ = w.s.Step(context.Background()) // what fails is tried again
}

// to brings the world to a time since the epoch, second by second.
func (w *world) to(at time.Duration) {
	for w.now.Before(epoch.Add(at)) {
		w.step(time.Second)
	}
}

func (w *world) box(id string, task fleet.TaskID, fence int64) fleet.Sandbox {
	b := fleet.Sandbox{
		Spec:  fleet.SandboxSpec{ID: fleet.SandboxID(id), Pool: "default", Node: "a", Resources: fleet.Resources{MilliCPU: 4000, MemoryBytes: 16 * gib}},
		State: fleet.SandboxReady, CreatedAt: w.now, ReadyAt: w.now,
	}
	if task != "" {
		b.State, b.Task, b.Fence, b.ClaimedAt = fleet.SandboxClaimed, task, fence, w.now
	}
	w.put(b)
	return b
}

func (w *world) put(b fleet.Sandbox) {
	if err := w.store.PutSandbox(context.Background(), b); err != nil {
		w.t.Fatal(err)
	}
}

// task submits and leases a task.
func (w *world) task(labels map[string]string) fleet.Delivery {
	ctx := context.Background()
	spec := fleet.TaskSpec{Tenant: "pay", Template: "default", Pool: "default", Labels: labels, Command: []string{"true"}}
	if _, err := w.store.Submit(ctx, []fleet.Task{{Spec: spec, SubmittedAt: w.now}}); err != nil {
		w.t.Fatal(err)
	}
	d, err := w.store.Queue().Lease(ctx, fleet.LeaseRequest{Slots: map[fleet.PoolKey]int{"default": 1}, Visibility: 1000 * time.Hour})
	if err != nil || len(d) != 1 {
		w.t.Fatal(d, err)
	}
	return d[0]
}

func (w *world) report(q fleet.CostQuery) fleet.CostReport {
	w.t.Helper()
	r, err := w.s.Report(context.Background(), q)
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

// books checks that all that is kept agrees, and returns the sum of the days.
func books(t interface{ Fatalf(string, ...any) }, s *memory.Store) *cost.Book {
	ctx := context.Background()
	sums := map[fleet.BookSpan]*cost.Book{}
	for _, span := range []fleet.BookSpan{fleet.BookHour, fleet.BookDay} {
		all, err := s.Books(ctx, span, time.Time{}, epoch.AddDate(1, 0, 0))
		if err != nil {
			t.Fatalf("%v", err)
		}
		sums[span] = cost.NewBook()
		for _, b := range all {
			if err := sums[span].MergeEncoded(b.Content, true); err != nil {
				t.Fatalf("%v", err)
			}
		}
		if err := sums[span].Check(); err != nil {
			t.Fatalf("%v", err)
		}
	}
	if h, d := sums[fleet.BookHour], sums[fleet.BookDay]; !bytes.Equal(h.Encode(), d.Encode()) {
		t.Fatalf("hours and days differ: %d and %d", h.Total(), d.Total())
	}
	tasks, err := s.DearestTasks(ctx, time.Unix(0, 0), epoch.AddDate(1, 0, 0), 10_000)
	if err != nil {
		t.Fatalf("%v", err)
	}
	var byTask, lines, busy, held int64
	for _, c := range tasks {
		byTask, busy = byTask+c.MicroUSD, busy+c.Busy.Milliseconds()
	}
	for k, v := range sums[fleet.BookDay].Lines {
		if k.Cause == cost.CauseTask {
			lines, held = lines+int64(v.Amount), held+v.Millis
		}
	}
	if byTask != lines || busy != held {
		t.Fatalf("the tasks' rows have %d over %d ms, the books %d over %d ms", byTask, busy, lines, held)
	}
	return sums[fleet.BookDay]
}

func nodeTotal(b *cost.Book, id fleet.NodeID) (m cost.Micro) {
	for k, v := range b.Nodes {
		if k.Node == id {
			m += v
		}
	}
	return m
}

func TestCharges(t *testing.T) {
	w := newWorld(t)
	w.node("a")
	w.to(10 * time.Second)
	d := w.task(map[string]string{"team": "pay", "project": "web", "tier": "gold"})
	b := w.box("s1", d.Lease.Task, d.Lease.Fence)
	w.to(100 * time.Second)
	b.State, b.GoneAt = fleet.SandboxGone, w.now
	w.put(b)
	if _, err := w.store.Settle(t.Context(), d.Lease.Task, d.Lease.Fence, fleet.Settlement{State: fleet.TaskSucceeded, EndedAt: w.now}); err != nil {
		t.Fatal(err)
	}
	w.to(200 * time.Second)
	sum := books(t, w.store.Store)
	charged := w.report(fleet.CostQuery{}).ChargedTo.Sub(epoch)
	if got, want := sum.Total(), cost.Micro(charged/time.Millisecond); got != want || charged < 185*time.Second {
		t.Errorf("%s are charged %d, want %d", charged, got, want)
	}
	r := w.report(fleet.CostQuery{By: "team", Fixed: 4, OffFrom: 0, OffUntil: 9 * time.Hour})
	// Half a node for 90 s.
	if r.TaskMicroUSD != 45_000 || r.Settled != 1 || r.Succeeded != 1 || r.BusyHours != 0.025 || r.PeakNodes != 1 || r.Unpriced != 0 {
		t.Errorf("%+v", r)
	}
	if len(r.Groups) != 1 || r.Groups[0].Name != "pay" || r.Groups[0].MicroUSD != 45_000 || r.Groups[0].MicroUSD+r.Groups[0].SharedMicroUSD != r.MicroUSD {
		t.Errorf("%+v", r.Groups)
	}
	if *r.AgentHourMicroUSD != r.MicroUSD*40 || *r.SuccessMicroUSD != r.MicroUSD {
		t.Errorf("an agent-hour %d, a success %d", *r.AgentHourMicroUSD, *r.SuccessMicroUSD)
	}
	if len(r.Fixed) != 2 || r.Fixed[0].SavingMicroUSD != 0 || r.Fixed[1].MicroUSD != 4*r.MicroUSD || r.OffHours == nil || r.OffHours.MicroUSD != r.MicroUSD {
		t.Errorf("%+v, %+v", r.Fixed, r.OffHours)
	}
	for by, want := range map[string]string{"project": "web", "template": "default", "tenant": "pay", "label:tier": "gold", "node": "a", "task": string(d.Lease.Task), "hour": "2026-03-02T08:00:00Z"} {
		if g := w.report(fleet.CostQuery{By: by}).Groups; len(g) != 1 || g[0].Name != want {
			t.Errorf("by %s: %+v", by, g)
		}
	}
	c, err := w.s.TaskCost(t.Context(), d.Lease.Task)
	if err != nil || c.MicroUSD != 45_000 || c.Busy != 90*time.Second || c.Outcome != fleet.TaskSucceeded {
		t.Errorf("%+v, %v", c, err)
	}
	for _, q := range []fleet.CostQuery{{By: "colour"}, {By: "label:colour"}, {Since: w.now.Add(time.Hour)}, {By: "task", Since: epoch.AddDate(-1, 0, 0)}} {
		var fe *fleet.FieldError
		if _, err := w.s.Report(t.Context(), q); !errors.As(err, &fe) {
			t.Errorf("%+v: %v", q, err)
		}
	}
	var out strings.Builder
	if err := w.s.Focus(t.Context(), fleet.CostQuery{}, &out); err != nil || strings.Count(out.String(), "\n") < 3 {
		t.Errorf("%v\n%s", err, out.String())
	}
}

// A node that is there before and after is charged every second in between, and
// once.
func TestRestart(t *testing.T) {
	w := newWorld(t)
	w.node("a")
	w.to(95 * time.Second)
	w.now = w.now.Add(3 * time.Hour)
	w.nodes[0].RequestedAt, w.nodes[0].ReadyAt = w.now, w.now // this machine, as it sees itself
	w.restart()
	w.to(3*time.Hour + 5*time.Minute)
	at := w.report(fleet.CostQuery{}).ChargedTo
	if got, want := books(t, w.store.Store).Total(), cost.Micro(at.Sub(epoch)/time.Millisecond); got != want {
		t.Errorf("charged %d, want %d", got, want)
	}
	if r := w.report(fleet.CostQuery{By: "hour"}); len(r.Groups) != 4 || r.Groups[1].MicroUSD != 3_600_000 {
		t.Errorf("%+v", r.Groups)
	}
}

// A node that has a name only once it is there is one node.
func TestNamedLater(t *testing.T) {
	w := newWorld(t)
	n := w.node("boot-1")
	n.State, n.ReadyAt = fleet.NodeBooting, time.Time{}
	w.to(45 * time.Second)
	w.nodes[0] = fleet.Node{
		ID: "ip-10-0-0-1", BootID: "boot-1", State: fleet.NodeReady, MilliCPU: 8000, MemoryBytes: 32 * gib, TotalMilliCPU: 16000, TotalMemoryBytes: 32 * gib,
		RequestedAt: epoch, ReadyAt: w.now, Kind: fleet.NodeKind{Group: "agents", Capacity: "spot"},
	}
	w.to(100 * time.Second)
	r := w.report(fleet.CostQuery{})
	for _, i := range r.Idle {
		if i.Cause == "boot" && i.MicroUSD != 45_000 || i.Cause == "system" && i.MicroUSD != (r.MicroUSD-45_000)/4 {
			t.Errorf("%+v of %d", i, r.MicroUSD)
		}
	}
	if want := r.ChargedTo.Sub(epoch).Milliseconds(); r.MicroUSD != want || r.PeakNodes != 1 {
		t.Errorf("%d of %d, %d nodes", r.MicroUSD, want, r.PeakNodes)
	}
}

// What was until a price list came into force is charged by the one before.
func TestPriceChange(t *testing.T) {
	w := newWorld(t)
	w.node("a")
	w.to(100 * time.Second)
	w.s.SetTariff(cost.Tariff{{PerHour: 7_200_000, Kind: fleet.NodeKind{Group: "other"}}}, nil)
	w.to(200 * time.Second)
	r := w.report(fleet.CostQuery{})
	if r.MicroUSD != 101_000 || r.Unpriced < 0.02 {
		t.Errorf("charged %d, %v h without a price", r.MicroUSD, r.Unpriced)
	}
}

// TestAnyHistory: whatever happens, the parts add up to the bills, and every
// node is charged each moment of its life once.
func TestAnyHistory(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		w := newWorld(t)
		w.tariff = cost.Tariff{{PerHour: 1_234_567}, {PerHour: 2_345_678, From: epoch.Add(20 * time.Minute)}}
		w.restart()
		requested := map[fleet.NodeID]time.Time{}
		gone, looks := map[fleet.NodeID]bool{}, map[fleet.NodeID]int{}
		changes := false
		var held []fleet.Sandbox
		for i := range rapid.IntRange(20, 120).Draw(r, "steps") {
			switch rapid.SampledFrom([]string{"step", "step", "step", "node", "gone", "box", "end", "crash", "lost", "doubt", "clock", "unread", "cordon", "price"}).Draw(r, "what") {
			case "node":
				id := fleet.NodeID(fmt.Sprint("n", i))
				w.node(id)
				requested[id], looks[id] = w.now, len(w.looks)
			case "gone":
				if len(w.nodes) > 0 {
					k := rapid.IntRange(0, len(w.nodes)-1).Draw(r, "which")
					gone[w.nodes[k].ID] = true
					w.nodes = append(w.nodes[:k:k], w.nodes[k+1:]...)
				}
			case "box":
				if len(w.nodes) > 0 {
					d := w.task(map[string]string{"team": fmt.Sprint(i % 3)})
					b := w.box(fmt.Sprint("s", i), d.Lease.Task, d.Lease.Fence)
					b.Spec.Node = rapid.SampledFrom(w.nodes).Draw(r, "on").ID
					w.put(b)
					held = append(held, b)
				}
			case "end":
				if len(held) > 0 {
					b := held[0]
					held = held[1:]
					b.State, b.GoneAt = fleet.SandboxGone, w.now
					w.put(b)
				}
			case "crash":
				w.restart()
			case "lost", "doubt":
				what := rapid.Bool().Draw(r, "written")
				w.store.before, w.store.after = !what, what
				w.step(11 * time.Second)
				w.store.before, w.store.after = false, false
			case "clock":
				w.now = w.now.Add(time.Duration(rapid.Int64Range(-int64(10*time.Minute), int64(10*time.Minute)).Draw(r, "by")))
			case "unread":
				w.err = errors.New("cannot be read")
				w.step(time.Second)
				w.err = nil
			case "cordon":
				if len(w.nodes) > 0 {
					w.nodes[0].State = rapid.SampledFrom([]fleet.NodeState{fleet.NodeReady, fleet.NodeCordoned}).Draw(r, "to")
				}
			case "price":
				if rapid.IntRange(0, 4).Draw(r, "seldom") == 0 {
					changes = true
					w.tariff = cost.Tariff{{PerHour: cost.Micro(rapid.Int64Range(0, 5_000_000).Draw(r, "price"))}}
					w.s.SetTariff(w.tariff, nil)
				}
			}
			w.step(time.Duration(rapid.Int64Range(0, int64(3*time.Minute)).Draw(r, "on")))
		}
		w.step(2 * time.Hour) // past all steps of the clock
		w.step(11 * time.Second)
		sum := books(r, w.store.Store)
		if changes {
			return // by which prices is drawn; that the parts agree is checked
		}
		end := w.report(fleet.CostQuery{}).ChargedTo
		began := w.report(fleet.CostQuery{}).Began
		prices, _ := w.tariff.For(fleet.NodeKind{}, epoch)
		for id, from := range requested {
			bill := func(released time.Time) cost.Micro {
				n := cost.Node{ID: id, Prices: prices, Requested: from, Released: released}
				return n.Bill(end) - n.Bill(later(from, began))
			}
			got, found := nodeTotal(sum, id), false
			if !gone[id] {
				found = got == bill(time.Time{})
			} else {
				for _, at := range append(w.looks, time.Time{}) {
					// Missed at a look, or, with the clock set back, from where it is charged.
					found = found || got == bill(at) || got == bill(at.Add(-w.s.o.Lag))
				}
				found = found || got == 0 // never seen
			}
			if !found && w.plain(from, looks[id]) {
				r.Fatalf("node %s of %s, gone %t, is charged %d up to %s; its bill is %d", id, from, gone[id], got, end, bill(time.Time{}))
			}
		}
	})
}

// plain tells whether the clock stood well when a node came, after some looks:
// one that comes while it is behind what is charged is charged from there.
func (w *world) plain(from time.Time, looks int) bool {
	for i, at := range w.looks {
		if i < looks && at.After(from.Add(grace)) || i >= looks && at.Before(from) {
			return false
		}
	}
	return true
}
