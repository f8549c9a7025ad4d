package control

import (
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/sandbox/fake"
)

// wallet is a purse with so much spent in this hour; negative: it is not known.
type wallet struct{ spent atomic.Int64 }

func (w *wallet) Spending(time.Time) fleet.Spending {
	s := w.spent.Load()
	return fleet.Spending{Known: s >= 0, Hour: max(0, s)}
}

func (w *wallet) Held(t fleet.TenantID) string {
	if t == "poor" {
		return "tenant poor: $5.00 of $5.00 spent this hour"
	}
	return ""
}

// At the bound nothing is started, whatever is warm; below it everything is. A
// task that waits for the money of its tenant is told so.
func TestBudgetBindsByTheLedger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fake.Options{})
		purse := &wallet{}
		w.spec.Policy.Budget.PerHour = 40e6
		w.spec.Templates[0].Min = 2
		w.purse = purse
		w.up()
		defer w.end()
		time.Sleep(time.Minute)
		for _, spent := range []int64{41e6, -1} { // what is not known is not nothing
			purse.spent.Store(spent)
			time.Sleep(5 * time.Second)
			id := w.submit(1)[0].ID
			time.Sleep(time.Minute)
			if got := w.task(id); got.State != fleet.TaskQueued {
				t.Fatalf("with %d spent the task is %s", spent, got.State)
			}
			x, err := w.engine.ExplainTask(t.Context(), id)
			if err != nil || !strings.Contains(x.Summary, "cap binds: waiting 1 task") || !strings.Contains(x.Summary, "cost.budget.perHour") {
				t.Errorf("explained as %q, %v", x.Summary, err)
			}
			purse.spent.Store(39e6)
			time.Sleep(time.Minute)
			if got := w.task(id); got.State == fleet.TaskQueued {
				t.Errorf("with money the task is %s", got.State)
			}
		}
		poor := fleet.Task{State: fleet.TaskQueued, DueAt: time.Now(), Spec: fleet.TaskSpec{Tenant: "poor", Pool: "default"}}
		if s := w.engine.summary(&poor, nil); !strings.Contains(s, "tenant poor: $5.00 of $5.00") {
			t.Errorf("explained as %q", s)
		}
	})
}
