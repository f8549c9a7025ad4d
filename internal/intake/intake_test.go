package intake

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"muster.dev/muster/internal/fleet"
	mqueue "muster.dev/muster/internal/queue/memory"
	mstore "muster.dev/muster/internal/store/memory"
)

// world is an outside queue, a store, and a consumer with sandboxes of a pool.
type world struct {
	*testing.T
	server *mqueue.Server
	store  *mstore.Store
	q      *Queue
	stop   func()
	config func(*Config)
	slots  map[fleet.PoolKey]int
	ran    map[string]int
}

func decode(m fleet.Message) (fleet.Task, error) {
	pool, command, ok := strings.Cut(string(m.Body), " ")
	if !ok {
		return fleet.Task{}, fmt.Errorf("no command in %q: %w", m.Body, fleet.ErrInvalid)
	}
	return fleet.Task{Spec: fleet.TaskSpec{Pool: fleet.PoolKey(pool), Template: pool, Command: []string{command}, Tenant: "a"}}, nil
}

func run(t *testing.T, f func(*world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{T: t, server: mqueue.NewServer(), store: mstore.New(mstore.Options{}), slots: map[fleet.PoolKey]int{}, ran: map[string]int{}}
		w.start()
		defer func() {
			w.stop()
			if err := w.store.Close(); err != nil {
				t.Error(err)
			}
		}()
		f(w)
	})
}

// start starts a control plane on the store.
func (w *world) start() {
	w.Helper()
	source := w.server.Open()
	c := Config{Name: "outside", Source: source, Embedded: w.store.Queue(), Tasks: w.store, Messages: w.store, Journal: w.store, Decode: decode, Pool: "p"}
	if w.config != nil {
		w.config(&c)
	}
	q, err := New(c)
	if err != nil {
		w.Fatal(err)
	}
	ctx, cancel := context.WithCancel(w.Context())
	done := make(chan error, 1)
	go func() { done <- q.Run(ctx) }()
	w.q = q
	w.stop = func() {
		cancel()
		if err := <-done; err != nil {
			w.Error(err)
		}
		if err := source.Close(); err != nil {
			w.Error(err)
		}
	}
	synctest.Wait()
}

func (w *world) publish(bodies ...string) {
	for _, b := range bodies {
		w.server.Publish(fleet.Message{Body: []byte(b)})
	}
	w.settle()
}

// settle lets everything that is due happen.
func (w *world) settle() {
	time.Sleep(100 * time.Millisecond)
	synctest.Wait()
}

// lease offers the free sandboxes until nothing more comes.
func (w *world) lease() []fleet.Delivery {
	w.Helper()
	var all []fleet.Delivery
	for idle := 0; idle < 2; {
		got, err := w.q.Lease(w.Context(), fleet.LeaseRequest{Slots: maps.Clone(w.slots), Visibility: 12 * time.Hour, Claim: func(fleet.Task) (fleet.Claim, bool) { return fleet.Claim{}, false }})
		if err != nil {
			w.Fatal(err)
		}
		for _, d := range got {
			w.slots[d.Task.Spec.Pool]--
			w.ran[d.Task.Spec.Command[0]]++
		}
		all = append(all, got...)
		w.settle()
		if idle++; len(got) > 0 {
			idle = 0
		}
	}
	return all
}

// finish settles a task as the dispatcher does.
func (w *world) finish(d fleet.Delivery, state fleet.TaskState) {
	w.Helper()
	id := fleet.NewSandboxID(time.Now())
	if err := w.store.PutSandbox(w.Context(), fleet.Sandbox{Spec: fleet.SandboxSpec{ID: id, Pool: d.Task.Spec.Pool}, State: fleet.SandboxReady}); err != nil {
		w.Fatal(err)
	}
	if _, err := w.store.ClaimSandbox(w.Context(), d.Lease, fleet.Claim{Sandbox: id, Launch: fleet.LaunchWarm, At: time.Now()}); err != nil {
		w.Fatal(err)
	}
	t, err := w.store.Settle(w.Context(), d.Task.ID, d.Lease.Fence, fleet.Settlement{State: state, EndedAt: time.Now(), Result: fleet.Result{Message: "as told"}})
	if err != nil {
		w.Fatal(err)
	}
	w.q.Settled(t)
	w.slots[d.Task.Spec.Pool]++
	w.settle()
}

// outside checks what the outside queue has: waiting, leased, dead.
func (w *world) outside(backlog, inFlight, dead int64) {
	w.Helper()
	q := w.server.Open()
	defer q.Close()
	st, err := q.Stats(w.Context())
	if err != nil {
		w.Fatal(err)
	}
	if got, want := [3]int64{st.Backlog, st.InFlight, st.Dead}, [3]int64{backlog, inFlight, dead}; got != want {
		w.Errorf("outside: backlog, in flight, dead are %v, want %v", got, want)
	}
}

func (w *world) tasks(n int) {
	w.Helper()
	all, err := w.store.Tasks(w.Context(), fleet.TaskFilter{})
	if err != nil || len(all) != n {
		w.Errorf("%d tasks (%v), want %d", len(all), err, n)
	}
}

func (w *world) events(kind string) []fleet.Event {
	w.Helper()
	all, err := w.store.Events(w.Context(), fleet.EventFilter{Kinds: []string{kind}})
	if err != nil {
		w.Fatal(err)
	}
	return all
}

func TestOnlyWhatCanStartIsTaken(t *testing.T) {
	run(t, func(w *world) {
		enqueued := time.Now()
		w.publish("p one", "p two", "p three")
		time.Sleep(5 * time.Second)
		w.outside(3, 0, 0)
		st, err := w.q.Stats(w.Context())
		if err != nil || st.Backlog != 3 || !st.Oldest.Equal(enqueued) || st.Arrived != 3 || len(st.Pools) != 1 || st.Pools[0].Pool != "p" {
			t.Errorf("stats %+v, %v", st, err)
		}
		w.slots["p"] = 2
		got := w.lease()
		if len(got) != 2 {
			t.Fatalf("leased %d, want 2", len(got))
		}
		w.outside(1, 2, 0)
		if q := got[0].Task.Phases.Queue; q < 5*time.Second {
			t.Errorf("waited %s by its record, want the wait outside to count", q)
		}
		if o := got[0].Task.Spec.Origin; o == nil || o.Queue != "outside" || o.Message == "" {
			t.Errorf("origin %+v", o)
		}
		st, err = w.q.Stats(w.Context())
		if err != nil || st.Backlog != 1 || st.InFlight != 2 || st.Arrived != 3 {
			t.Errorf("stats %+v, %v", st, err)
		}
		w.finish(got[0], fleet.TaskSucceeded)
		w.outside(1, 1, 0)
		last := w.lease()
		w.finish(got[1], fleet.TaskFailed) // its end is on record: acknowledged
		w.finish(last[0], fleet.TaskSucceeded)
		w.outside(0, 0, 0)
		if held, err := w.store.HeldMessages(w.Context(), "outside"); err != nil || len(held) != 0 {
			t.Errorf("still held: %+v, %v", held, err)
		}
	})
}

func TestReactsToAPush(t *testing.T) {
	run(t, func(w *world) {
		w.slots["p"] = 1
		w.lease()
		for range 3 {
			time.Sleep(time.Second)
			w.lease() // the dispatcher offers what is free each second
		}
		synctest.Wait()
		for range 2 {
			select {
			case <-w.q.Wake():
			default:
			}
		}
		start := time.Now()
		w.server.Publish(fleet.Message{Body: []byte("p one")})
		for {
			if st, _ := w.store.Queue().Stats(w.Context()); st.Backlog == 1 {
				break
			}
			time.Sleep(time.Millisecond)
		}
		if took := time.Since(start); took > 5*time.Millisecond {
			t.Errorf("a pushed message became a task after %s", took)
		}
	})
}

func TestLongTaskKeepsItsMessage(t *testing.T) {
	run(t, func(w *world) {
		w.publish("p long")
		w.slots["p"] = 1
		d := w.lease()
		for range 8 { // two hours, a lease is a minute
			time.Sleep(15 * time.Minute)
			w.outside(0, 1, 0)
		}
		w.finish(d[0], fleet.TaskSucceeded)
		w.outside(0, 0, 0)
		if w.ran["long"] != 1 {
			t.Errorf("ran %d times", w.ran["long"])
		}
	})
}

func TestUnreadableNeverStopsTheQueue(t *testing.T) {
	run(t, func(w *world) {
		w.slots["p"] = 2
		w.publish("unreadable", "p good", "{}", "p fine")
		got := w.lease()
		w.slots["p"]++
		got = append(got, w.lease()...)
		if w.ran["good"] != 1 || w.ran["fine"] != 1 {
			t.Errorf("ran %v (%d)", w.ran, len(got))
		}
		dead := w.server.Dead()
		if len(dead) != 2 || !strings.Contains(dead[0].Why, `no command in "unreadable"`) {
			t.Errorf("dead letters: %+v", dead)
		}
		if ev := w.events("message_dead_lettered"); len(ev) != 2 || !strings.Contains(ev[0].Reason, "no command") {
			t.Errorf("events %+v", ev)
		}
		w.tasks(2)
	})
}

func TestPoison(t *testing.T) {
	run(t, func(w *world) {
		w.stop()
		broken := errors.New("the fleet's file cannot be read")
		w.config = func(c *Config) {
			c.MaxDeliveries = 3
			c.Decode = func(fleet.Message) (fleet.Task, error) { return fleet.Task{}, broken }
		}
		w.start()
		w.publish("p one")
		for range 40 {
			w.slots["p"] = 1
			w.lease()
			time.Sleep(time.Second)
		}
		dead := w.server.Dead()
		if len(dead) != 1 || dead[0].Attempt != 4 || !strings.Contains(dead[0].Why, "delivered 4 times") {
			t.Errorf("dead letters: %+v", dead)
		}
		w.tasks(0)
	})
}

func TestRedeliveryIsMatchedToItsTask(t *testing.T) {
	for _, unnamed := range []bool{false, true} {
		t.Run(fmt.Sprintf("unnamed=%t", unnamed), func(t *testing.T) {
			run(t, func(w *world) {
				w.server.Unnamed = unnamed
				w.publish("p one")
				w.slots["p"] = 1
				d := w.lease()
				// The network is gone for longer than the lease.
				w.server.Fail(fmt.Errorf("no route: %w", fleet.ErrUnavailable))
				time.Sleep(3 * time.Minute)
				w.server.Fail(nil)
				w.slots["p"] = 3
				for range 5 {
					w.lease()
					time.Sleep(10 * time.Second)
				}
				if w.ran["one"] != 1 {
					t.Fatalf("ran %d times", w.ran["one"])
				}
				w.tasks(1)
				w.outside(0, 1, 0)
				w.finish(d[0], fleet.TaskSucceeded)
				w.outside(0, 0, 0)
			})
		})
	}
}

func TestTwoEqualMessagesAreTwoTasks(t *testing.T) {
	run(t, func(w *world) {
		w.server.Unnamed = true
		w.publish("p same", "p same")
		w.slots["p"] = 2
		for _, d := range w.lease() {
			w.finish(d, fleet.TaskSucceeded)
		}
		if w.ran["same"] != 2 {
			t.Errorf("ran %d times, want 2", w.ran["same"])
		}
		w.outside(0, 0, 0)
	})
}

func TestRestart(t *testing.T) {
	for _, unnamed := range []bool{false, true} {
		t.Run(fmt.Sprintf("unnamed=%t", unnamed), func(t *testing.T) {
			run(t, func(w *world) {
				w.server.Unnamed = unnamed
				w.publish("p runs", "p ends", "p waits")
				w.slots["p"] = 2
				d := w.lease()
				w.stop()
				// One ends while the control plane is down, as a runner's report is
				// taken by the next one.
				w.q = &Queue{Config: Config{Name: "none"}}
				w.finish(d[1], fleet.TaskSucceeded)
				time.Sleep(20 * time.Second)
				w.start()
				w.settle()
				w.outside(1, 1, 0)
				time.Sleep(10 * time.Minute)
				w.outside(1, 1, 0)
				w.finish(d[0], fleet.TaskSucceeded)
				for _, x := range w.lease() {
					w.finish(x, fleet.TaskSucceeded)
				}
				w.outside(0, 0, 0)
				w.tasks(3)
			})
		})
	}
}

func TestOutageOutsideLeavesTheEmbeddedQueueAlone(t *testing.T) {
	run(t, func(w *world) {
		w.publish("p one", "p two")
		w.server.Fail(fmt.Errorf("connection refused: %w", fleet.ErrUnavailable))
		time.Sleep(5 * time.Second)
		if _, err := w.store.Submit(w.Context(), []fleet.Task{{Spec: fleet.TaskSpec{Pool: "p", Command: []string{"direct"}}}}); err != nil {
			t.Fatal(err)
		}
		w.slots["p"] = 5
		w.lease()
		if w.ran["direct"] != 1 {
			t.Error("a task that was submitted here waits for the outside queue")
		}
		r := w.q.Readings(w.Context())
		if r[0].Err != nil || r[0].Name != "embedded" {
			t.Errorf("embedded: %+v", r[0])
		}
		if !errors.Is(r[1].Err, fleet.ErrUnavailable) || r[1].Stats.Backlog != 2 {
			t.Errorf("outside: %+v, want the error and the last good reading", r[1])
		}
		w.server.Fail(nil)
		for range 8 {
			time.Sleep(time.Second)
			w.lease()
		}
		if w.ran["one"] != 1 || w.ran["two"] != 1 {
			t.Errorf("after the outage ran %v", w.ran)
		}
	})
}

func TestCancelledWhileWaitingIsAcknowledged(t *testing.T) {
	run(t, func(w *world) {
		w.slots["p"] = 1
		w.publish("other one") // for a pool that has no sandbox
		w.lease()
		w.outside(0, 1, 0)
		all, err := w.store.Tasks(w.Context(), fleet.TaskFilter{})
		if err != nil || len(all) != 1 {
			t.Fatalf("%v, %v", all, err)
		}
		if _, err := w.store.Cancel(w.Context(), all[0].ID, "me", time.Now()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		w.outside(0, 0, 0)
	})
}

func TestHoardingIsBounded(t *testing.T) {
	run(t, func(w *world) {
		bodies := make([]string, 300)
		for i := range bodies {
			bodies[i] = fmt.Sprint("broken b", i)
		}
		w.publish(bodies...)
		w.slots["p"] = 10
		for range 100 {
			w.lease()
			time.Sleep(time.Second)
		}
		st, err := w.store.Queue().Stats(w.Context())
		if err != nil || st.Backlog == 0 || st.Backlog > ahead+10 {
			t.Errorf("%d tasks wait that nothing can start (%v), want 1 to %d", st.Backlog, err, ahead+10)
		}
	})
}

func TestFailedGoToTheDeadLetters(t *testing.T) {
	run(t, func(w *world) {
		w.stop()
		w.config = func(c *Config) { c.DeadLetterFailed = true }
		w.start()
		w.slots["p"] = 3
		w.publish("p good", "p bad", "p off")
		for _, d := range w.lease() {
			w.finish(d, map[string]fleet.TaskState{"good": fleet.TaskSucceeded, "bad": fleet.TaskFailed, "off": fleet.TaskCancelled}[d.Task.Spec.Command[0]])
		}
		dead := w.server.Dead()
		if len(dead) != 1 || string(dead[0].Body) != "p bad" || !strings.Contains(dead[0].Why, "failed: as told") {
			t.Errorf("dead letters %+v", dead)
		}
		w.outside(0, 0, 1)
	})
}

func TestSettlingOutlastsAnOutage(t *testing.T) {
	run(t, func(w *world) {
		w.publish("p one")
		w.slots["p"] = 1
		d := w.lease()
		w.server.Fail(fmt.Errorf("down: %w", fleet.ErrUnavailable))
		w.finish(d[0], fleet.TaskSucceeded)
		time.Sleep(20 * time.Second)
		w.server.Fail(nil)
		time.Sleep(5 * time.Second)
		w.outside(0, 0, 0)
		w.tasks(1)
	})
}

func TestDuplicateKeyOfTheUsers(t *testing.T) {
	run(t, func(w *world) {
		w.stop()
		w.config = func(c *Config) {
			c.Decode = func(m fleet.Message) (fleet.Task, error) {
				t, err := decode(m)
				t.Spec.IdempotencyKey = "order-7"
				return t, err
			}
		}
		w.start()
		w.slots["p"] = 3
		w.publish("p one", "p one", "p two")
		d := w.lease()
		if len(d) != 1 {
			t.Fatalf("leased %d, want 1", len(d))
		}
		w.finish(d[0], fleet.TaskSucceeded)
		w.outside(0, 0, 1) // the same key with another content is a mistake
		if ev := w.events("message_duplicate"); len(ev) != 1 || !strings.Contains(ev[0].Reason, "idempotency key") {
			t.Errorf("events %+v", ev)
		}
	})
}
