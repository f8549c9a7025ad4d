package control

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/nodes/fake"
	"muster.dev/muster/internal/plan"
	boxes "muster.dev/muster/internal/sandbox/fake"
)

// newElastic is a world whose nodes come and go.
func newElastic(t *testing.T, o fake.Options) (*world, *fake.Nodes) {
	w := newWorld(t, boxes.Options{Lead: lead(5 * time.Second), Script: busy(3 * time.Minute)})
	n := fake.New(o)
	w.elastic = n
	w.spec.Policy.Nodes.Scalable = true
	return w, n
}

func alive(t *testing.T, n *fake.Nodes) int {
	t.Helper()
	l, err := n.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return len(l)
}

// TestNodesComeAndGo: a burst brings the nodes it needs and no more, its tasks
// run, and the nodes go again without hurting one.
func TestNodesComeAndGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, n := newElastic(t, fake.Options{})
		w.up()
		defer w.end()
		sleep(time.Minute)
		tasks := w.submit(20)
		sleep(2 * time.Second)
		// 20 tasks fill 3 nodes of 8. A fleet without history expects a burst to
		// go on; it must not run away.
		asked := n.Asked()
		if asked < 3 || asked > 15 {
			t.Errorf("%d nodes asked for 20 tasks on nodes of 8 slots, want 3 to 15", asked)
		}
		sleep(time.Minute)
		for _, x := range tasks {
			if got := w.task(x.ID); got.State != fleet.TaskRunning {
				t.Fatalf("after a boot, a cold start and some seconds %s is %s", x.ID, got.State)
			}
		}
		if got := n.Asked(); got != asked {
			t.Errorf("%d more nodes asked for while %d booted: what boots is supply", got-asked, asked)
		}
		sleep(6 * time.Hour) // one burst in an hour is worth keeping nodes for; in six it is not
		for _, x := range tasks {
			if got := w.task(x.ID); got.State != fleet.TaskSucceeded || got.Attempt != 1 {
				t.Errorf("%s is %s in attempt %d", x.ID, got.State, got.Attempt)
			}
		}
		if got := alive(t, n); got != 0 {
			t.Errorf("%d nodes are kept six hours after the last task", got)
		}
		kinds := map[string]int{}
		for _, e := range w.events() {
			if e.Layer == "nodes" {
				kinds[e.Kind]++
				if e.Reason == "" || len(e.Numbers) == 0 {
					t.Errorf("no reason: %+v", e)
				}
			}
		}
		if kinds["node_scale"] == 0 || kinds["node_release"] == 0 {
			t.Errorf("events of the node layer: %v", kinds)
		}
	})
}

// TestNodesThatCannotBeHad: a provider that refuses is asked again with
// back-off, the reason is visible, and the tasks run once it gives.
func TestNodesThatCannotBeHad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, n := newElastic(t, fake.Options{})
		var errs []error
		for range 12 {
			errs = append(errs, fake.ErrStockOut)
		}
		n.Inject(fake.OpScale, errs...)
		w.up()
		defer w.end()
		task := w.submit(1)[0]
		sleep(time.Minute)
		if calls := n.Calls(fake.OpScale); calls > 10 {
			t.Errorf("asked %d times within a minute of refusals", calls)
		}
		w.engine.mu.Lock()
		r := w.engine.last.p.Nodes.Reason
		w.engine.mu.Unlock()
		if s := r.Sentence(); r.Bound != plan.BoundBreaker || !strings.Contains(s, "no capacity") {
			t.Errorf("the reason is not visible: %q, %s", r.Bound, s)
		}
		sleep(30 * time.Minute)
		if got := w.task(task.ID); got.State != fleet.TaskSucceeded {
			t.Errorf("the task is %s after the provider gave nodes again", got.State)
		}
	})
}

// TestMeasurementsOfNodesSurvive: what was learned is there after a restart.
func TestMeasurementsOfNodesSurvive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _ := newElastic(t, fake.Options{Boot: func(int) time.Duration { return 70 * time.Second }})
		w.up()
		sleep(time.Minute)
		w.submit(9)
		sleep(10 * time.Minute)
		w.down()
		w.up()
		defer w.end()
		sleep(2 * time.Second)
		w.engine.mu.Lock()
		o := w.engine.last.o
		w.engine.mu.Unlock()
		if o.NodeLead.P95 < 70*time.Second || o.NodeLead.P95 > 72*time.Second || o.NodeLead.Samples == 0 {
			t.Errorf("the boot time is remembered as %+v", o.NodeLead)
		}
		if o.Outlook == nil || w.engine.layer.Ranks.Rate <= 0 {
			t.Errorf("the outlook is gone: %+v", o.Outlook)
		}
	})
}
