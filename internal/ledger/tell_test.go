package ledger

import (
	"testing"
	"time"

	"muster.dev/muster/internal/fleet"
)

// charged adds up what the ledger tells.
func (w *world) charged(c fleet.Charged) {
	w.told.NodeSeconds += c.NodeSeconds
	w.told.BusySeconds += c.BusySeconds
	w.told.PerHour = c.PerHour
	w.told.By = append(w.told.By, c.By...)
}

// TestWhatIsToldIsWhatIsCharged: to the micro-dollar, each once, also where a
// posting failed and was made again.
func TestWhatIsToldIsWhatIsCharged(t *testing.T) {
	w := newWorld(t)
	w.node("a")
	w.node("b")
	d := w.task(nil)
	b := w.box("s1", d.Task.ID, d.Lease.Fence)
	w.to(40 * time.Second)
	w.store.before = true
	w.to(70 * time.Second)
	w.store.before = false
	b.State, b.GoneAt = fleet.SandboxGone, w.now
	w.put(b)
	w.to(3 * time.Minute)
	w.restart()
	w.to(5 * time.Minute)

	sums, pay := map[string]int64{}, int64(0)
	for _, x := range w.told.By {
		sums[x.Cause] += x.MicroUSD
		if x.Tenant == "pay" {
			pay += x.MicroUSD
		} else if x.Cause == "task" {
			t.Errorf("charged to a task of nobody: %+v", x)
		}
	}
	r := w.report(fleet.CostQuery{Since: epoch, Until: w.now})
	total := int64(0)
	for _, v := range sums {
		total += v
	}
	if total != r.MicroUSD || sums["task"] != r.TaskMicroUSD || pay != r.TaskMicroUSD || total == 0 || pay == 0 {
		t.Errorf("told %v, of it %d of a tenant; the report says %d, of it %d for tasks", sums, pay, r.MicroUSD, r.TaskMicroUSD)
	}
	if w.told.PerHour != 7_200_000 || w.told.NodeSeconds/3600 < r.NodeHours-1e-6 || w.told.NodeSeconds/3600 > r.NodeHours+1e-6 || w.told.BusySeconds < 69 || w.told.BusySeconds > 71 {
		t.Errorf("told %+v; the report says %f node-hours", w.told, r.NodeHours)
	}
	w.nodes = w.nodes[:1]
	w.to(6 * time.Minute)
	if w.told.PerHour != 3_600_000 {
		t.Errorf("%d micro-USD an hour with one node left", w.told.PerHour)
	}
}
