package control

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/sandbox/fake"
)

func TestBurstFromAnEmptyPool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fake.Options{Lead: lead(900 * time.Millisecond), Script: busy(20 * time.Second)})
		w.up()
		sleep(5 * time.Second)
		tasks := w.submit(10)
		sleep(3 * time.Second)
		for _, x := range tasks {
			if got := w.task(x.ID); got.State != fleet.TaskRunning || got.Launch != fleet.LaunchCold {
				t.Fatalf("after 3 s task %s is %s, launch %s", x.ID, got.State, got.Launch)
			}
		}
		x, err := w.engine.ExplainTask(t.Context(), tasks[0].ID)
		if err != nil || !strings.Contains(x.Summary, "pool empty at") || !strings.Contains(x.Summary, "starting, lead time") {
			t.Errorf("explanation %q, %v", x.Summary, err)
		}
		sleep(time.Minute)
		for _, x := range tasks {
			if got := w.task(x.ID); got.State != fleet.TaskSucceeded {
				t.Fatalf("task %s is %s: %+v", x.ID, got.State, got.Result)
			}
		}
		if c := w.boxes.Counts(); c.Claims != 10 {
			t.Errorf("claims %d, want one for each task", c.Claims)
		}
		w.end()
	})
}

// TestExplainNamesTheBoundOfBefore: a task that becomes due while the fleet is
// full waited for that, though the fleet said so long before.
func TestExplainNamesTheBoundOfBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fake.Options{Lead: lead(time.Second), Script: busy(10 * time.Minute)})
		w.spec.Policy.Max = 2
		w.up()
		sleep(time.Second)
		w.submit(3)
		sleep(5 * time.Minute)
		last := w.submit(1)[0]
		sleep(16 * time.Minute)
		x, err := w.engine.ExplainTask(t.Context(), last.ID)
		if err != nil || !strings.Contains(x.Summary, "cap binds since 00:00:") || !strings.Contains(x.Summary, "capacity.sandboxes.max = 2") {
			t.Errorf("explanation %q, %v", x.Summary, err)
		}
		w.end()
	})
}

func TestWarmPoolServesAtOnceAndIsRefilled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fake.Options{Lead: lead(time.Second), Script: busy(10 * time.Second)})
		w.spec.Policy.Min = 5
		w.up()
		sleep(5 * time.Second)
		tasks := w.submit(5)
		synctest.Wait()
		time.Sleep(50 * time.Millisecond)
		synctest.Wait()
		for _, x := range tasks {
			if got := w.task(x.ID); got.State != fleet.TaskRunning || got.Launch != fleet.LaunchWarm {
				t.Fatalf("task is %s, launch %q", got.State, got.Launch)
			}
		}
		sleep(3 * time.Second)
		v, err := w.engine.View(t.Context())
		if err != nil || len(v.Pools) != 1 {
			t.Fatalf("view %+v, %v", v, err)
		}
		if p := v.Pools[0]; p.Ready < 5 || p.Running != 5 || p.StartLead.Samples == 0 {
			t.Errorf("pool %+v, want at least 5 ready and 5 running", p)
		}
		if v.StartP99 > 100*time.Millisecond {
			t.Errorf("p99 of waits %v", v.StartP99)
		}
		w.end()
	})
}

func TestQuietFleetFallsToItsFloor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fake.Options{Lead: lead(time.Second), Script: busy(time.Second)})
		w.spec.Policy.Min = 2
		w.up()
		sleep(2 * time.Second)
		w.submit(60)
		sleep(3 * time.Hour)
		if c := w.boxes.Counts(); c.Live != 2 {
			v, _ := w.engine.View(t.Context())
			t.Errorf("%d sandboxes live at night, want the floor of 2; %s", c.Live, v.Pools[0].Reason)
		}
		if n := len(w.events("scale_in")); n == 0 || n > 10 {
			t.Errorf("%d scale-ins, want a few", n)
		}
		for _, ev := range w.events("scale_out", "scale_in") {
			if ev.Reason == "" || ev.Decision == 0 {
				t.Errorf("event without reason or decision: %+v", ev)
			}
			if _, err := w.engine.ExplainEvent(t.Context(), ev.Seq); err != nil {
				t.Errorf("explain: %v", err)
			}
		}
		w.end()
	})
}

func TestBrokenTemplateBurnsLittleAndTellsItsTasks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fake.Options{Lead: lead(time.Second), CreateErr: func(fleet.SandboxSpec) error {
			return &fleet.ReasonError{Reason: fleet.ReasonPrepare, Err: errors.New("npm ci: exit code 1")}
		}})
		w.up()
		sleep(2 * time.Second) // so that the tasks are seen to arrive, as a burst
		tasks := w.submit(20)
		sleep(10 * time.Minute)
		c := w.boxes.Counts()
		if c.Creates > 20+10 || c.Live != 0 {
			t.Errorf("%d starts of a broken template, %d live", c.Creates, c.Live)
		}
		for _, x := range tasks {
			got := w.task(x.ID)
			if got.State != fleet.TaskFailed || got.Result.Reason != fleet.ReasonPrepare || !strings.Contains(got.Result.Message, "npm ci") {
				t.Fatalf("task is %s: %+v", got.State, got.Result)
			}
		}
		if len(w.events("breaker_open", "gave_up")) == 0 {
			t.Error("no event says that the breaker is open")
		}
		w.end()
	})
}

func TestQueueOutageFreezesScaleIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fake.Options{Lead: lead(time.Second), Script: busy(time.Second)})
		w.up()
		w.submit(30)
		sleep(4 * time.Second)
		before := w.boxes.Counts().Live
		w.store.Fail("Stats", fmt.Errorf("down: %w", fleet.ErrUnavailable))
		sleep(time.Hour)
		if now := w.boxes.Counts().Live; now < before {
			t.Errorf("during the outage the fleet fell from %d to %d", before, now)
		}
		v, _ := w.engine.View(t.Context())
		if v.SignalsError == "" || !strings.Contains(v.Sentence, "frozen") {
			t.Errorf("the view does not say it: %q %q", v.SignalsError, v.Sentence)
		}
		w.store.Fail("Stats", nil)
		sleep(2 * time.Hour)
		if now := w.boxes.Counts().Live; now != 0 {
			t.Errorf("after the outage %d live, want none", now)
		}
		w.end()
	})
}

func TestChangedTemplateIsReplacedMakeBeforeBreak(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fake.Options{Lead: lead(time.Second)})
		w.spec.Policy.Min = 4
		w.up()
		sleep(5 * time.Second)
		next := w.spec
		changed := template("default")
		changed.Revision = "r2"
		next.Templates = []fleet.Template{changed}
		w.engine.SetSpec(next)
		least := 100
		for range 200 {
			sleep(200 * time.Millisecond)
			v, _ := w.engine.View(t.Context())
			least = min(least, v.Pools[0].Ready)
		}
		for _, s := range w.boxes.Specs() {
			if s.Revision != "r2" {
				t.Errorf("sandbox %s is still of revision %s", s.ID, s.Revision)
			}
		}
		if n := len(w.boxes.Specs()); n != 4 || least < 4 {
			t.Errorf("%d sandboxes, and at the least %d were ready; want 4 and 4", n, least)
		}
		w.end()
	})
}

func TestCrashBetweenJournalAndApply(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fake.Options{Lead: lead(time.Second), Script: busy(time.Second)})
		w.fault = func() error { return errors.New("killed") }
		w.up()
		tasks := w.submit(7)
		sleep(3 * time.Second)
		if c := w.boxes.Counts(); c.Creates != 0 {
			t.Fatalf("%d creates by a process that died before applying", c.Creates)
		}
		// The engine may have decided before the tasks came, too.
		d, err := w.store.Decisions(t.Context(), fleet.DecisionFilter{})
		if err != nil || !slices.ContainsFunc(d, func(d fleet.DecisionRecord) bool { return d.Changed }) {
			t.Fatalf("of %d decisions none that starts sandboxes was journaled: %v", len(d), err)
		}
		w.down()
		w.fault = nil
		w.up()
		sleep(10 * time.Second)
		for _, x := range tasks {
			if got := w.task(x.ID); got.State != fleet.TaskSucceeded {
				t.Errorf("task is %s", got.State)
			}
		}
		if c := w.boxes.Counts(); c.Claims != 7 {
			t.Errorf("%d claims for 7 tasks", c.Claims)
		}
		w.end()
	})
}

func TestExpiredAndPrunedTasks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fake.Options{})
		w.nodes.node.Slots = 1
		w.spec.Policy.Max = 1
		w.boxes.SetScript(busy(10 * time.Minute))
		w.spec.Retention = time.Hour
		w.up()
		tasks := w.submit(2, func(x *fleet.Task) { x.Spec.Timeouts.Queue = time.Minute })
		sleep(5 * time.Minute)
		x := w.task(tasks[1].ID)
		if x.State != fleet.TaskTimedOut {
			x = w.task(tasks[0].ID)
		}
		if x.State != fleet.TaskTimedOut || x.Result.Reason != fleet.ReasonTimeoutQueue {
			t.Errorf("task is %s %+v", x.State, x.Result)
		}
		sleep(3 * time.Hour)
		if left, _ := w.store.Tasks(t.Context(), fleet.TaskFilter{}); len(left) != 0 {
			t.Errorf("%d tasks are left after their retention", len(left))
		}
		w.end()
	})
}

// TestSweep: what a task left that the store does not know any more goes on the
// next start, and nothing else does.
func TestSweep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fake.Options{})
		known, pruned := w.submit(1)[0].ID, fleet.NewTaskID(time.Now())
		for _, id := range []fleet.TaskID{known, pruned} {
			if _, err := w.archive.PutFile(id, "patch", strings.NewReader("x")); err != nil {
				t.Fatal(err)
			}
		}
		w.up()
		sleep(time.Second)
		var left []fleet.TaskID
		if err := w.archive.Tasks(func(id fleet.TaskID) error { left = append(left, id); return nil }); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(left, []fleet.TaskID{known}) {
			t.Errorf("left %v, want %s only", left, known)
		}
		w.end()
	})
}

func TestVariantTakesTheRoomOfIdleStock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fake.Options{Lead: lead(time.Second), Script: busy(time.Second)})
		w.nodes.node.MemoryBytes = 2 << 30 // four of 512 MiB
		w.spec.Policy.Min = 4
		w.up()
		sleep(5 * time.Second)
		big := w.submit(1, func(x *fleet.Task) {
			x.Spec.Pool = "default~big"
			x.Spec.Resources.MemoryBytes = 2 << 30
		})
		sleep(30 * time.Second)
		if got := w.task(big[0].ID); got.State != fleet.TaskSucceeded {
			v, _ := w.engine.View(t.Context())
			t.Errorf("the large task is %s; pools %+v", got.State, v.Pools)
		}
		w.end()
	})
}
