package control

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"muster.dev/muster/internal/consumer"
	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/plan"
	"muster.dev/muster/internal/sandbox/fake"
)

// cut is a store as a process sees it that can lose the connection to it.
type cut struct {
	fleet.Store
	off *atomic.Bool
}

var errCut = fmt.Errorf("the network is cut: %w", fleet.ErrUnavailable)

func reach[T any](c cut, f func() (T, error)) (T, error) {
	if c.off.Load() {
		var zero T
		return zero, errCut
	}
	return f()
}

func (c cut) PutSandbox(ctx context.Context, s fleet.Sandbox) error {
	_, err := reach(c, func() (int, error) { return 0, c.Store.PutSandbox(ctx, s) })
	return err
}
func (c cut) SwapSandbox(ctx context.Context, s fleet.Sandbox, st fleet.SandboxState, owner string) error {
	_, err := reach(c, func() (int, error) { return 0, c.Store.SwapSandbox(ctx, s, st, owner) })
	return err
}
func (c cut) ClaimSandbox(ctx context.Context, l fleet.Lease, k fleet.Claim) (fleet.Task, error) {
	return reach(c, func() (fleet.Task, error) { return c.Store.ClaimSandbox(ctx, l, k) })
}
func (c cut) Settle(ctx context.Context, id fleet.TaskID, fence int64, s fleet.Settlement) (fleet.Task, error) {
	return reach(c, func() (fleet.Task, error) { return c.Store.Settle(ctx, id, fence, s) })
}
func (c cut) Retry(ctx context.Context, id fleet.TaskID, fence int64, due time.Time, why string) (fleet.Task, error) {
	return reach(c, func() (fleet.Task, error) { return c.Store.Retry(ctx, id, fence, due, why) })
}
func (c cut) Change(ctx context.Context, id fleet.TaskID, fence int64, k fleet.Change) error {
	_, err := reach(c, func() (int, error) { return 0, c.Store.Change(ctx, id, fence, k) })
	return err
}
func (c cut) Sandbox(ctx context.Context, id fleet.SandboxID) (fleet.Sandbox, error) {
	return reach(c, func() (fleet.Sandbox, error) { return c.Store.Sandbox(ctx, id) })
}
func (c cut) Sandboxes(ctx context.Context, since time.Time) ([]fleet.Sandbox, error) {
	return reach(c, func() ([]fleet.Sandbox, error) { return c.Store.Sandboxes(ctx, since) })
}
func (c cut) PutConsumer(ctx context.Context, k fleet.Consumer) error {
	_, err := reach(c, func() (int, error) { return 0, c.Store.PutConsumer(ctx, k) })
	return err
}
func (c cut) DeleteConsumer(ctx context.Context, name string) error {
	_, err := reach(c, func() (int, error) { return 0, c.Store.DeleteConsumer(ctx, name) })
	return err
}
func (c cut) AppendEvents(ctx context.Context, ev []fleet.Event) ([]fleet.Event, error) {
	return reach(c, func() ([]fleet.Event, error) { return c.Store.AppendEvents(ctx, ev) })
}

// cutQueue is a queue behind the same connection.
type cutQueue struct {
	fleet.Queue
	cut cut
}

func (q cutQueue) Lease(ctx context.Context, r fleet.LeaseRequest) ([]fleet.Delivery, error) {
	return reach(q.cut, func() ([]fleet.Delivery, error) { return q.Queue.Lease(ctx, r) })
}
func (q cutQueue) Extend(ctx context.Context, l fleet.Lease, d time.Duration) (fleet.Lease, error) {
	return reach(q.cut, func() (fleet.Lease, error) { return q.Queue.Extend(ctx, l, d) })
}

// hand is one consumer in a test.
type hand struct {
	*consumer.Consumer
	name  string
	boxes *fake.Sandboxes
	off   *atomic.Bool
	stop  context.CancelFunc
	done  chan struct{}
}

func (w *world) hire(names ...string) []*hand {
	w.t.Helper()
	var out []*hand
	for _, name := range names {
		h := &hand{name: name, boxes: w.boxes.Beside(), off: &atomic.Bool{}, done: make(chan struct{})}
		store := cut{w.store, h.off}
		c, err := consumer.New(consumer.Config{
			Store: store, Queue: cutQueue{w.store.Queue(), store}, Archive: w.archive, Sandboxes: h.boxes, Name: name, Address: name + ":1",
		})
		if err != nil {
			w.t.Fatal(err)
		}
		h.Consumer = c
		ctx, cancel := context.WithCancel(context.Background())
		h.stop = cancel
		go func() {
			defer close(h.done)
			if err := c.Run(ctx); err != nil && !errors.Is(err, errCut) {
				w.t.Errorf("consumer %s: %v", name, err)
			}
		}()
		out = append(out, h)
	}
	return out
}

// kill ends a consumer as kill -9 would.
func (h *hand) kill() {
	h.off.Store(true)
	_ = h.boxes.Close()
	h.leave()
}

func (h *hand) leave() {
	h.stop()
	<-h.done
}

// crewed starts a leader and consumers on the world.
func crewed(t *testing.T, o fake.Options, names ...string) (*world, []*hand) {
	t.Helper()
	w := newWorld(t, o)
	hands := w.hire(names...)
	w.consumers = true
	w.spec.Consumers = plan.ConsumerPolicy{Min: 1, Max: 5, Sandboxes: 100}
	w.up()
	return w, hands
}

// crewedAtWork has two consumers under twenty tasks of two minutes.
func crewedAtWork(t *testing.T) (*world, []*hand, []fleet.Task) {
	t.Helper()
	w, hands := crewed(t, fake.Options{Lead: lead(time.Second), Script: busy(2 * time.Minute)}, "a", "b")
	sleep(3 * time.Second)
	tasks := w.submit(20)
	sleep(10 * time.Second)
	for i := range tasks {
		if tasks[i] = w.task(tasks[i].ID); tasks[i].State != fleet.TaskRunning {
			t.Fatalf("task %s is %s after 10 s", tasks[i].ID, tasks[i].State)
		}
	}
	return w, hands, tasks
}

func (w *world) dismiss(hands ...*hand) {
	for _, h := range hands {
		h.leave()
		_ = h.boxes.Close()
	}
	w.end()
}

// onceEach checks that every task succeeded within so many sandboxes, with as many
// events of its end as tasks: none ended twice. Attempts count leases, and where
// two consumers lease at the same time one may give a task back that it has no
// sandbox for; that is no run.
func (w *world) onceEach(tasks []fleet.Task, most int) {
	w.t.Helper()
	for _, x := range tasks {
		claims := 0
		for _, e := range w.events("task_claimed") {
			if e.Task == x.ID {
				claims++
			}
		}
		if x = w.task(x.ID); x.State != fleet.TaskSucceeded || claims > most {
			w.t.Errorf("task %s is %s on attempt %d, claimed %d times: %s", x.ID, x.State, x.Attempt, claims, x.Result.Message)
			for _, e := range w.events() {
				if e.Task == x.ID || e.Layer == "consumers" {
					w.t.Logf("%s %s %s %s: %s", e.At.Format("04:05.000"), e.Kind, e.Task, e.Sandbox, e.Reason)
				}
			}
		}
	}
	if n := len(w.events("task_settled")); n != len(tasks) {
		w.t.Errorf("%d tasks ended, of %d", n, len(tasks))
	}
}

func (w *world) owners() map[string]int {
	w.t.Helper()
	all, err := w.store.Sandboxes(context.Background(), time.Time{})
	if err != nil {
		w.t.Fatal(err)
	}
	n := map[string]int{}
	for _, s := range all {
		n[s.Owner]++
	}
	return n
}

func TestConsumersRunTheTasks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, hands := crewed(t, fake.Options{Lead: lead(2 * time.Second), Script: busy(30 * time.Second)}, "a", "b")
		sleep(3 * time.Second)
		tasks := w.submit(40)
		sleep(10 * time.Second)
		if n := w.owners(); n["a"] < 15 || n["b"] < 15 || n[""] > 0 {
			t.Errorf("sandboxes by owner: %v", n)
		}
		if hands[0].Dispatcher().Active() == 0 || hands[1].Dispatcher().Active() == 0 || w.engine.dispatch.Active() != 0 {
			t.Error("not every consumer, or the leader, runs tasks")
		}
		v, err := w.engine.View(t.Context())
		if err != nil || v.ConsumersBusy != 40 || v.Pools[0].Running != 40 {
			t.Errorf("the leader sees %d of 40 run (%+v)", v.ConsumersBusy, err)
		}
		sleep(time.Minute)
		w.onceEach(tasks, 1)
		if v, _ := w.engine.View(t.Context()); v.StartP99 <= 0 || v.StartP99 > 10*time.Second {
			t.Errorf("the leader measured starts of %s", v.StartP99)
		}
		if len(w.events("sandbox_ready")) < 40 {
			t.Errorf("%d sandboxes were measured", len(w.events("sandbox_ready")))
		}
		if n, why := w.engine.ConsumersWanted(); n != 1 || !strings.Contains(why, "sandboxes") {
			t.Errorf("%d consumers wanted: %s", n, why)
		}
		w.dismiss(hands...)
	})
}

func TestConsumerKilledUnderItsTasks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, hands, tasks := crewedAtWork(t)
		hands[0].kill()
		sleep(40 * time.Second)
		if n := w.owners(); n["a"] > 0 || n["b"] < 20 {
			t.Errorf("sandboxes by owner: %v", n)
		}
		sleep(3 * time.Minute)
		w.onceEach(tasks, 1) // their runners lived, so they went on
		if len(w.events("sandboxes_taken_over")) == 0 {
			t.Error("nothing says so")
		}
		w.dismiss(hands[1])
	})
}

func TestConsumerCutOffFromTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, hands, tasks := crewedAtWork(t)
		hands[0].off.Store(true)
		sleep(5 * time.Minute)
		w.onceEach(tasks, 1)
		hands[0].off.Store(false) // it comes back, and has nothing to say about them
		more := w.submit(10)
		sleep(5 * time.Minute)
		w.onceEach(slices.Concat(tasks, more), 1)
		w.dismiss(hands...)
	})
}

func TestConsumerHandsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, hands, tasks := crewedAtWork(t)
		began := time.Now()
		hands[0].leave()
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("the hand-over took %s", took)
		}
		if n := w.owners(); n["a"] > 0 {
			t.Errorf("sandboxes by owner: %v", n)
		}
		sleep(3 * time.Minute)
		w.onceEach(tasks, 1)
		w.dismiss(hands[1])
	})
}

func TestNoConsumerForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, hands := crewed(t, fake.Options{Lead: lead(time.Second), Script: busy(2 * time.Minute)}, "a")
		sleep(3 * time.Second)
		tasks := w.submit(5)
		sleep(10 * time.Second)
		hands[0].kill()
		tasks = append(tasks, w.submit(5)...) // nobody to start them
		sleep(time.Minute)
		next := w.hire("c")
		sleep(10 * time.Minute)
		w.onceEach(tasks, 1)
		w.dismiss(next...)
	})
}

func TestCancelReachesTheConsumer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, hands := crewed(t, fake.Options{Lead: lead(time.Second), Script: busy(time.Hour)}, "a")
		sleep(3 * time.Second)
		tasks := w.submit(2)
		sleep(10 * time.Second)
		if _, err := w.engine.Cancel(t.Context(), tasks[0].ID, "ann"); err != nil {
			t.Fatal(err)
		}
		sleep(20 * time.Second)
		if x := w.task(tasks[0].ID); x.State != fleet.TaskCancelled || !strings.Contains(x.Result.Message, "ann") {
			t.Errorf("it is %s: %s", x.State, x.Result.Message)
		}
		if x := w.task(tasks[1].ID); x.State != fleet.TaskRunning {
			t.Errorf("the other is %s", x.State)
		}
		w.dismiss(hands...)
	})
}

func TestToConsumersAndBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fake.Options{Lead: lead(time.Second), Script: busy(5 * time.Minute)})
		w.up()
		tasks := w.submit(5)
		sleep(10 * time.Second)
		w.down()
		w.consumers = true
		w.spec.Consumers = plan.ConsumerPolicy{Min: 1, Max: 5, Sandboxes: 100}
		hands := w.hire("a", "b")
		sleep(time.Second) // both have told of themselves, or all would go to one
		w.up()
		tasks = append(tasks, w.submit(5)...)
		sleep(30 * time.Second)
		if n := w.owners(); n[""] > 0 || n["a"] == 0 || n["b"] == 0 {
			t.Errorf("sandboxes by owner: %v", n)
		}
		w.stop()
		<-w.done
		for _, h := range hands {
			h.kill()
		}
		w.consumers = false
		w.boxes = w.boxes.Reopen()
		w.up()
		sleep(10 * time.Minute)
		if n := w.owners(); n["a"]+n["b"] > 0 {
			t.Errorf("sandboxes by owner: %v", n)
		}
		w.onceEach(tasks, 1)
		w.end()
	})
}

func TestBrokenTemplateWithConsumers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := func(fleet.SandboxSpec) error {
			return &fleet.ReasonError{Reason: fleet.ReasonImage, Err: errors.New("no such image")}
		}
		w, hands := crewed(t, fake.Options{Lead: lead(time.Second), CreateErr: broken}, "a", "b")
		sleep(3 * time.Second)
		tasks := w.submit(10)
		sleep(10 * time.Minute)
		if n := w.boxes.Counts().Creates; n > 60 {
			t.Errorf("%d sandboxes were begun", n)
		}
		for _, x := range tasks {
			if x = w.task(x.ID); x.State != fleet.TaskFailed || x.Result.Reason != fleet.ReasonImage {
				t.Errorf("task is %s (%s): %s", x.State, x.Result.Reason, x.Result.Message)
			}
		}
		if n := w.owners(); len(n) > 0 && n["a"]+n["b"] > 2 {
			t.Errorf("left: %v", n)
		}
		w.dismiss(hands...)
	})
}

func TestLeaderOfConsumersDrains(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, hands := crewed(t, fake.Options{Lead: lead(time.Second), Script: busy(time.Minute)}, "a", "b")
		sleep(3 * time.Second)
		tasks := w.submit(10)
		sleep(10 * time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		defer cancel()
		quiet := make(chan error)
		go func() { quiet <- w.engine.Quiesce(ctx, false) }()
		sleep(5 * time.Second)
		waiting := w.submit(1)
		if err := <-quiet; err != nil {
			t.Fatal(err)
		}
		sleep(10 * time.Second) // until the consumers' journals are written
		w.onceEach(tasks, 1)
		if x := w.task(waiting[0].ID); x.State != fleet.TaskQueued {
			t.Errorf("a task was started: %s", x.State)
		}
		w.stop()
		<-w.done
		if err := w.engine.RemoveWaiting(ctx); err != nil {
			t.Fatal(err)
		}
		if n := w.boxes.Counts().Live; n > 0 {
			t.Errorf("%d sandboxes are left", n)
		}
		w.dismiss(hands...)
	})
}

// TestConsumersComeAndGo kills, cuts off, hands over and hires at random under
// load; every task ends once.
func TestConsumersComeAndGo(t *testing.T) {
	for seed := range uint64(2) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rnd := rand.New(rand.NewPCG(seed, 17))
				w, hands := crewed(t, fake.Options{Lead: lead(time.Second), Script: busy(40 * time.Second)}, "a0", "b0", "c0")
				var tasks []fleet.Task
				hired := 0
				hire := func() {
					hired++
					hands = append(hands, w.hire(fmt.Sprintf("n%d", hired))...)
				}
				drop := func(i int) { hands = slices.Delete(hands, i, i+1) }
				for range 25 {
					tasks = append(tasks, w.submit(rnd.IntN(6))...)
					i := rnd.IntN(len(hands))
					switch rnd.IntN(8) {
					case 0:
						hands[i].kill()
						drop(i)
					case 1:
						hands[i].leave()
						_ = hands[i].boxes.Close()
						drop(i)
					case 2, 3:
						hands[i].off.Store(!hands[i].off.Load())
					case 4: // the leader dies and comes back
						w.stop()
						<-w.done
						w.up()
					}
					if len(hands) < 2 {
						hire()
					}
					sleep(time.Duration(rnd.IntN(20)) * time.Second)
				}
				for _, h := range hands {
					h.off.Store(false)
				}
				sleep(10 * time.Minute)
				w.onceEach(tasks, 4)
				w.dismiss(hands...)
			})
		})
	}
}
